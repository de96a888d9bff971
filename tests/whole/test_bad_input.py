"""What comes in wrong raises a sentence that names the fix, or a status; never OPTIMAL.

The CSV reader's part is in `test_cli.py` and `test_datasets.py`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.core.status import Status
from jaxrelu.programs.bounds import all_blocks, upper_value

GENERIC = zoo.problem(zoo.generic)
PROGRAM = GENERIC.program
X, Y, PATTERNS = PROGRAM.X, PROGRAM.y, PROGRAM.patterns
WEIGHT = np.ones(zoo.SAMPLES)
LAM = GENERIC.lams(0.1)[0]
LABELS = np.where(Y >= 0, 1.0, -1.0)


def poisoned(array, value):
    array = np.array(array)
    array.flat[3] = value
    return array


def patterns(**changes):
    return replace(PATTERNS, **changes)


PROGRAMS = {
    "X of rank 1": ({"X": X[:, 0]}, ValueError, r"X has shape \(32,\); pass a matrix \(n, d\)"),
    "X of rank 3": ({"X": X[None]}, ValueError, r"pass a matrix \(n, d\)"),
    "y of rank 2": ({"y": Y[:, None]}, ValueError, r"pass y with shape \(32,\)"),
    "y too short": ({"y": Y[:-1]}, ValueError, "but X has 32 rows"),
    "weights of rank 2": (
        {"sample_weight": WEIGHT[:, None]}, ValueError, r"pass sample_weight with shape \(32,\)",
    ),
    "weights too long": ({"sample_weight": np.ones(33)}, ValueError, "but X has 32 rows"),
    "masks of rank 1": ({"patterns": patterns(masks=PATTERNS.masks[:, 0])}, ValueError, "masks"),
    "masks of other rows": (
        {"patterns": patterns(masks=PATTERNS.masks[:-1])}, ValueError, "patterns_from_gates",
    ),
    "gates of other features": (
        {"patterns": patterns(gates=PATTERNS.gates[:-1])}, ValueError, r"\(5, 16\)",
    ),
    "interior of other features": (
        {"patterns": patterns(interior=PATTERNS.interior[:-1])}, ValueError, "interior has shape",
    ),
    "fewer gates than masks": (
        {"patterns": patterns(gates=PATTERNS.gates[:, :-1])}, ValueError, "15 gates",
    ),
    "X of other features": ({"X": X[:, :4]}, ValueError, "build the patterns from this X"),
    "integer X": ({"X": X.astype(int)}, TypeError, r"pass X.astype\('float64'\)"),
    "integer y": ({"y": LABELS.astype(int)}, TypeError, r"pass y.astype\('float64'\)"),
    "boolean y": ({"y": Y > 0}, TypeError, r"pass y.astype\('float64'\)"),
    "integer weights": (
        {"sample_weight": np.ones(32, int)}, TypeError, r"pass sample_weight.astype\('float64'\)",
    ),
    "complex X": ({"X": X + 0j}, TypeError, "pass real numbers"),
    "text in y": ({"y": np.asarray(["a"] * 32)}, TypeError, "pass real numbers"),
    "a list for X": ({"X": X.tolist()}, TypeError, r"np.asarray\(X\)"),
    "a list for y": ({"y": Y.tolist()}, TypeError, r"np.asarray\(y\)"),
    "half precision": ({"X": X.astype("float16")}, TypeError, r"pass X.astype\('float32'\)"),
    "float32 y": ({"y": Y.astype("float32")}, TypeError, r"pass y.astype\('float64'\)"),
    "float32 X": ({"X": X.astype("float32")}, TypeError, "float32"),
    "float32 weights": ({"sample_weight": WEIGHT.astype("float32")}, TypeError, "sample_weight.as"),
    "float32 gates": (
        {"patterns": patterns(gates=np.asarray(PATTERNS.gates, "float32"))}, TypeError, "gates",
    ),
    "NaN in X": ({"X": poisoned(X, np.nan)}, ValueError, "X has NaN or infinite entries: remove"),
    "Inf in X": ({"X": poisoned(X, np.inf)}, ValueError, "X has NaN or infinite entries: remove"),
    "NaN in gates": (
        {"patterns": patterns(gates=poisoned(PATTERNS.gates, np.nan))}, ValueError, "gates has NaN",
    ),
    "NaN in interior": (
        {"patterns": patterns(interior=poisoned(PATTERNS.interior, np.nan))},
        ValueError, "interior has NaN",
    ),
    "NaN in masks": (
        {"patterns": patterns(masks=poisoned(np.asarray(PATTERNS.masks, float), np.nan))},
        ValueError, "masks has entries other than 0 and 1",
    ),
    "no samples": (
        {"X": X[:0], "y": Y[:0], "sample_weight": WEIGHT[:0],
         "patterns": patterns(masks=PATTERNS.masks[:0])},
        ValueError, "at least one sample and one feature",
    ),
    "no features": (
        {"X": X[:, :0], "patterns": patterns(gates=PATTERNS.gates[:0], interior=None)},
        ValueError, "at least one sample and one feature",
    ),
    "masks of 0 and 2": (
        {"patterns": patterns(masks=2 * np.asarray(PATTERNS.masks, int))},
        ValueError, "masks has entries other than 0 and 1",
    ),
    "masks of 0 and 1/2": (
        {"patterns": patterns(masks=np.asarray(PATTERNS.masks) / 2)},
        ValueError, "masks has entries other than 0 and 1",
    ),
    "masks of other gates": (
        {"patterns": patterns(masks=np.roll(PATTERNS.masks, 1, axis=1))},
        ValueError, "masks differs from X @ gates >= 0 in 16 of 16 patterns",
    ),
    "one bit of a mask": (
        {"patterns": patterns(masks=np.logical_xor(PATTERNS.masks, np.arange(512).reshape(32, 16)
                                                   == 37))},
        ValueError, "in 1 of 16 patterns",
    ),
    "negative weight": ({"sample_weight": poisoned(WEIGHT, -1.0)}, ValueError, "weights are >= 0"),
    "no patterns": ({"patterns": None}, TypeError, r"jr.sample_patterns\(...\)"),
    "a pair for patterns": (
        {"patterns": (PATTERNS.gates, PATTERNS.masks)}, TypeError, r"jr.Patterns\(gates, masks\)",
    ),
    "no loss": ({"loss": None}, TypeError, r"jr.SquaredLoss\(\)"),
    "a class for a loss": ({"loss": jr.LogisticLoss}, TypeError, r"jr.SquaredLoss\(\)"),
    "labels 0 and 1": (
        {"loss": jr.LogisticLoss(), "y": (LABELS + 1) / 2}, ValueError, r"pass 2 \* y - 1",
    ),
    "labels 1 and 2": (
        {"loss": jr.LogisticLoss(), "y": (LABELS + 3) / 2}, ValueError, "map the two classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("kind", [jr.ConvexProgram, jr.GatedProgram])
def test_programs(name, kind):
    changes, error, message = PROGRAMS[name]
    given = {"X": X, "y": Y, "patterns": PATTERNS, "sample_weight": WEIGHT} | changes
    program = kind(**given)  # nothing is checked here
    for call in (
        lambda: jr.solve(program, LAM),
        lambda: jr.solve_grid(program, [LAM]),
        lambda: jr.solve_path(program, [LAM]),
        lambda: jr.lambda_max(program),
    ):
        with pytest.raises(error, match=message):
            call()


SOLUTION = jr.Solution(
    jnp.zeros((2, 16, 5)), jnp.asarray(LAM), jnp.zeros(32), jnp.zeros(32), None,
    jnp.asarray(0, jnp.int32), jnp.asarray(0, jnp.int32),
)  # fmt: skip


def test_a_jaxlib_that_computes_wrong_values_is_refused(monkeypatch):
    monkeypatch.setattr("jaxrelu.core.checks.version", lambda package: "0.10.2")
    with pytest.raises(RuntimeError, match="install jax and jaxlib 0.10.1"):
        jr.solve(PROGRAM, LAM)


def test_lams_are_those_of_the_program():
    """In its precision 1e-50 is zero, and 1e39 infinite."""
    narrow = jr.patterns_from_gates(X.astype("float32"), PATTERNS.gates.astype("float32"))
    program = jr.ConvexProgram(X.astype("float32"), Y.astype("float32"), narrow)
    for call in (jr.solve_grid, jr.solve_path):
        with pytest.raises(ValueError, match="lams holds 0.0"):
            call(program, [1e-50])
        with pytest.raises(ValueError, match="lams holds inf"), np.errstate(over="ignore"):
            call(program, [1e39])


CALLS = {
    "lam zero": (jr.solve, 0.0, {}, ValueError, "pass a small lam.*minimum-norm program"),
    "lam negative": (jr.solve, -1.0, {}, ValueError, "lam is -1.0; pass a positive finite number"),
    "lam nan": (jr.solve, np.nan, {}, ValueError, "pass a positive finite number"),
    "lam inf": (jr.solve, np.inf, {}, ValueError, "pass a positive finite number"),
    "lam a vector": (jr.solve, [LAM], {}, ValueError, "use solve_grid or solve_path"),
    "lam text": (jr.solve, "1", {}, TypeError, "lam has dtype"),
    "lam missing": (jr.solve, None, {}, TypeError, "lam has dtype"),
    "lam complex": (jr.solve, 1j, {}, TypeError, "lam has dtype"),
    "lams a scalar": (jr.solve_grid, LAM, {}, ValueError, r"pass a vector \(L,\)"),
    "lams empty": (jr.solve_grid, [], {}, ValueError, "L >= 1"),
    "lams a matrix": (jr.solve_path, [[LAM]], {}, ValueError, r"pass a vector \(L,\)"),
    "lams with zero": (jr.solve_grid, [LAM, 0.0], {}, ValueError, "lams holds 0.0.*small one"),
    "lams with negative": (jr.solve_path, [LAM, -1.0], {}, ValueError, "lams holds -1.0"),
    "lams with nan": (jr.solve_path, [np.nan, LAM], {}, ValueError, "lams holds nan"),
    "lams text": (jr.solve_grid, ["1"], {}, TypeError, "lams has dtype"),
    "rtol negative": (jr.solve, LAM, {"rtol": -1e-6}, ValueError, "rtol is -1e-06; pass"),
    "rtol nan": (jr.solve, LAM, {"rtol": np.nan}, ValueError, "pass one finite number >= 0"),
    "rtol inf": (jr.solve_grid, [LAM], {"rtol": np.inf}, ValueError, "pass one finite number"),
    "rtol nan on the device": (jr.solve, LAM, {"rtol": jnp.asarray(np.nan)}, ValueError, "rtol"),
    "rtol a vector": (jr.solve, LAM, {"rtol": [1e-3, 1e-6]}, ValueError, "pass one finite number"),
    "rtol text": (jr.solve, LAM, {"rtol": "small"}, TypeError, "rtol has dtype"),
    "atol negative": (jr.solve_path, [LAM], {"atol": -1.0}, ValueError, "atol is -1.0"),
    "max_steps negative": (jr.solve, LAM, {"max_steps": -1}, ValueError, "an integer >= 0"),
    "max_steps a half": (jr.solve, LAM, {"max_steps": 1.5}, TypeError, "an integer >= 0"),
    "max_steps nan": (jr.solve_path, [LAM], {"max_steps": np.nan}, TypeError, "an integer >= 0"),
    "max_steps a vector": (jr.solve_grid, [LAM], {"max_steps": [1]}, TypeError, "an integer >= 0"),
    "max_active negative": (jr.solve_path, [LAM], {"max_active": -1}, ValueError, "max_active is"),
    "batch of none": (jr.solve_grid, [LAM], {"lam_batch_size": 0}, ValueError, "positive integer"),
    "init an array": (jr.solve, LAM, {"init": np.zeros((2, 16, 5))}, TypeError, "pass a Solution"),
    "init of other blocks": (
        jr.solve, LAM, {"init": replace(SOLUTION, weights=jnp.zeros((16, 5)))},
        ValueError, r"this program takes \(2, 16, 5\)",
    ),
    "init of other samples": (
        jr.solve_path, [LAM], {"init": replace(SOLUTION, residual=jnp.zeros(31))},
        ValueError, "a program of equal shape",
    ),
    "init of float32": (
        jr.solve, LAM, {"init": replace(SOLUTION, weights=SOLUTION.weights.astype("float32"))},
        TypeError, r"pass weights.astype\('float64'\)",
    ),
    "solver a number": (jr.solve, LAM, {"solver": 3}, TypeError, r"jr.ActiveNewton\(\)"),
    "solver of a path a number": (
        jr.solve_path, [LAM], {"solver": 3}, TypeError, "takes an ActiveNewton, not a int",
    ),
    "solver of a path a class": (
        jr.solve_path, [LAM], {"solver": jr.ActiveNewton}, TypeError, "takes an ActiveNewton",
    ),
    "solver a class": (jr.solve, LAM, {"solver": jr.ActiveNewton}, TypeError, "pass an instance"),
    "capacity zero": (
        jr.solve, LAM, {"solver": jr.ActiveNewton(capacity=0)}, ValueError, "positive integer",
    ),
    "options by position": (jr.solve, LAM, None, TypeError, "positional"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    entry, lam, options, error, message = CALLS[name]
    with pytest.raises(error, match=message):
        entry(PROGRAM, lam, 1e-6) if options is None else entry(PROGRAM, lam, **options)


@pytest.mark.parametrize("entry", [jr.solve, jr.solve_grid, jr.solve_path, jr.lambda_max])
def test_things_that_are_no_program(entry):
    arguments = [] if entry is jr.lambda_max else [LAM]
    for thing in (None, X, (X, Y)):
        with pytest.raises(TypeError, match=r"jr.ConvexProgram\(X, y, patterns\)"):
            entry(thing, *arguments)


def test_float64_with_x64_off_names_both_ways_out(x64_off):
    calls = [
        lambda: jr.solve(PROGRAM, LAM),
        lambda: jr.solve_path(PROGRAM, [LAM]),
        lambda: jr.lambda_max(PROGRAM),
        lambda: jr.sample_patterns(jax.random.key(0), X, 4),
    ]
    for call in calls:
        with pytest.raises((ValueError, TypeError), match=r"jax_enable_x64.*astype\('float32'\)"):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_targets_and_weights_that_are_not_finite(value):
    programs = [replace(PROGRAM, y=poisoned(Y, value))]
    if value != -np.inf:
        programs.append(replace(PROGRAM, sample_weight=poisoned(WEIGHT, value)))
    for program in programs:
        assert Status(int(jr.solve(program, LAM).status)) is Status.NONFINITE
        assert Status(int(jr.solve_path(program, [LAM])[0].status)) is Status.NONFINITE
        with pytest.raises(ValueError, match="check X, y and sample_weight for NaN and inf"):
            jr.lambda_grid(program)


@pytest.mark.slow
def test_a_missing_target_of_weight_zero_counts_for_nothing():
    weight = poisoned(WEIGHT, 0.0)
    answer = jr.solve(replace(PROGRAM, y=poisoned(Y, np.nan), sample_weight=weight), LAM)
    zoo.assert_same(jr.solve(replace(PROGRAM, sample_weight=weight), LAM), answer)
    with_target = replace(PROGRAM, sample_weight=weight)
    without = replace(with_target, y=poisoned(Y, np.nan))
    errors = [
        upper_value(given, LAM, all_blocks(answer.weights))[0].rounding
        for given in (with_target, without)
    ]
    assert 0 < errors[0] == errors[1]
    zoo.recheck(replace(PROGRAM, sample_weight=weight), LAM, answer)


@pytest.mark.slow
def test_a_broken_start_does_not_come_out_optimal_and_wrong():
    good = jr.solve(PROGRAM, LAM)
    for start in (
        replace(good, weights=good.weights.at[0, 0, 0].set(jnp.nan)),
        replace(good, residual=good.residual.at[0].set(jnp.inf)),
    ):
        answer = jr.solve(PROGRAM, LAM, init=start)
        if int(answer.status) == Status.OPTIMAL:
            zoo.recheck(PROGRAM, LAM, answer)
        else:
            assert Status(int(answer.status)) is Status.NONFINITE


def test_nothing_to_explain():
    # A zero target, or a zero X: zero weights are optimal at every lam, and there is no grid.
    everywhere = zoo.tiled(jr.Patterns(PATTERNS.gates[:, :1], np.ones((32, 1), bool)))
    everywhere = replace(everywhere, interior=PATTERNS.interior)
    zero_y = replace(PROGRAM, y=np.zeros(32))
    zero_x = replace(PROGRAM, X=np.zeros((32, 5)), patterns=everywhere)
    no_weight = replace(PROGRAM, sample_weight=np.zeros(32))
    for program in (zero_y, zero_x, no_weight):
        assert float(jr.lambda_max(program)) == 0.0
        answer = jr.solve(program, LAM)
        assert Status(int(answer.status)) is Status.OPTIMAL
        np.testing.assert_array_equal(answer.weights, 0.0)
        assert int(answer.num_steps) == 0
        np.testing.assert_allclose(answer.certificate.gap, 0.0, atol=1e-12)
        with pytest.raises(ValueError, match="lambda_max is zero"):
            jr.lambda_grid(program)
    with pytest.raises(ValueError, match="every row of X is zero"):
        jr.sample_patterns(jax.random.key(0), np.zeros((4, 2)), 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num": 0}, "num is 0"), ({"ratio": 0.0}, "ratio is 0.0"), ({"ratio": 1.0}, "ratio is 1.0"),
     ({"ratio": np.nan}, "ratio is nan")],
)  # fmt: skip
def test_grids_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        jr.lambda_grid(PROGRAM, **options)


def test_grid_is_geometric_and_starts_at_lambda_max():
    grid = np.asarray(jr.lambda_grid(PROGRAM, num=5, ratio=1e-2))
    np.testing.assert_allclose(grid, GENERIC.lambda_max * 10.0 ** np.linspace(0, -2, 5), rtol=1e-9)
