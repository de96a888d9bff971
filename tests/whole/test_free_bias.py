"""A bias that costs nothing: against Clarabel, splines, and what must not change anything."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrelu as jr
from jaxrelu.core.budgets import check_budget
from jaxrelu.global_optimality.polar_gauge.free_bias import CentredRows, gauge_with_bias
from jaxrelu.programs.solution import Solution

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LOSSES = {
    "squared": jr.SquaredLoss(),
    "logistic": jr.LogisticLoss(),
    "hinge": jr.HingeLoss(),
    "absolute": jr.AbsoluteLoss(),
}
MOSTLY_SQUARED = pytest.mark.parametrize(
    "loss",
    ["squared", *(pytest.param(name, marks=pytest.mark.slow) for name in list(LOSSES)[1:])],
)


def data(loss="squared", n=30, d=2, seed=0):
    """A function with kinks away from the origin, far from zero in target and features."""
    rng = np.random.default_rng(seed)
    X = 2.0 * rng.standard_normal((n, d)) + np.asarray([3.0, -1.0, 5.0, 0.5])[:d]
    y = np.abs(X[:, 0] - 3.0) - np.maximum(X[:, -1], 0.0) + 0.1 * rng.standard_normal(n)
    if loss in ("logistic", "hinge"):
        y = np.where(y + rng.standard_normal(n) >= np.median(y), 1.0, -1.0)
        return X, y
    return X, y + 5.0


def program(loss="squared", gates=14, **options):
    X, y = data(loss)
    patterns = jr.sample_patterns(jax.random.key(0), X, gates, bias="free")
    return jr.ConvexProgram(X, y, patterns, LOSSES[loss], bias="free", **options)


def clarabel(made, lam, loss):
    return reference.solve_with_clarabel(
        made.X, made.y, made.patterns.masks, lam, loss, sample_weight=made.sample_weight,
        block_weights=made.block_weights, skip=made.skip, bias=True,
    )[0]  # fmt: skip


def check(made, lam, loss, answer=None):
    """An answer, certified, on both sides of what Clarabel finds."""
    answer = jr.solve(made, lam) if answer is None else answer
    assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
    value = clarabel(made, lam, loss)
    off = (2e-6 if loss == "logistic" else 2e-7) * value
    assert answer.lower - off <= value <= answer.upper + off
    parts = {"skip": answer.skip, "constant": answer.constant}
    at = jr.objective(made, lam, answer.weights, **parts)
    np.testing.assert_allclose(at, answer.upper, rtol=1e-10)
    network = jr.to_network(made, answer)
    np.testing.assert_allclose(network(made.X), answer.fit, atol=1e-9)
    if made.sample_weight is None and made.block_weights is None:
        value = jr.nonconvex_objective(network, made.X, made.y, lam, made.loss)
        np.testing.assert_allclose(value, answer.upper, rtol=1e-9)
    return answer


@MOSTLY_SQUARED
def test_against_an_independent_solver(loss):
    made = program(loss)
    top = float(jr.lambda_max(made))
    path = jr.solve_path(made, top * np.asarray([0.5, 0.1, 0.02]))
    for k, lam in enumerate(path.lams):
        check(made, float(lam), loss, path[k])
    assert path.constant.shape == (3,)
    # Every row of every cone holds exactly, in the user's own numbers.
    X = np.column_stack([made.X, np.ones(len(made.X))])
    for sign, pattern in zip(*np.nonzero(np.any(path[2].weights != 0, axis=-1)), strict=True):
        theta = [Fraction(float(v)) for v in path[2].weights[sign, pattern]]
        for row, bit in zip(X, np.asarray(made.patterns.masks)[:, pattern], strict=True):
            value = sum(Fraction(float(x)) * t for x, t in zip(row, theta, strict=True))
            assert value >= 0 if bit else value <= 0


@MOSTLY_SQUARED
def test_lambda_max_on_both_sides(loss):
    made = program(loss)
    low, high = (float(end) for end in jr.lambda_max_interval(made))
    assert 0 < low <= high <= 1.002 * low
    above = jr.solve(made, 1.01 * high, rtol=1e-8)
    assert not np.any(np.linalg.norm(above.weights[..., :-1], axis=-1) > 1e-5)
    below = jr.solve(made, 0.9 * low, rtol=1e-8)
    assert np.any(np.linalg.norm(below.weights[..., :-1], axis=-1) > 1e-3)


def test_moving_the_data_changes_nothing_but_biases():
    made = program()
    moved = made.X + np.asarray([-7.0, 1000.0])
    gates = np.asarray(made.patterns.gates)
    shift = np.asarray([-7.0, 1000.0])
    gates = np.concatenate([gates[:-1], gates[-1:] - shift[None] @ gates[:-1]])
    patterns = jr.patterns_from_gates(moved, gates, bias="free")
    assert patterns.num_patterns == made.patterns.num_patterns
    other = jr.ConvexProgram(moved, made.y + 3.0, patterns, bias="free")
    lam = 0.1 * float(jr.lambda_max(made))
    np.testing.assert_allclose(jr.lambda_max(other), jr.lambda_max(made), rtol=1e-3)
    one, two = jr.solve(made, lam), jr.solve(other, lam)
    assert int(two.status) == jr.Status.OPTIMAL
    np.testing.assert_allclose(two.upper, one.upper, rtol=2e-6)
    np.testing.assert_allclose(two.fit, one.fit + 3.0, atol=1e-2)


@pytest.mark.parametrize("offset", [pytest.param(0.0, marks=pytest.mark.slow), 1000.0])
def test_a_far_target_is_solved_as_finely(offset, single):
    """The default tolerance hangs on the loss of the best constant, not of zero."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((25, 1))
    y = np.abs(x[:, 0] - 0.5) + 0.1 * rng.standard_normal(25) + offset
    made = jr.ConvexProgram(x, y, jr.enumerate_patterns(x, bias="free"), bias="free")
    answer = jr.solve(single(made), np.float32(0.1))
    exact = jr.closed_form.spline(x, y, 0.1).value
    # 1000 in float32 leaves four digits of what is fitted.
    assert float(answer.upper) <= 1.2 * exact
    assert int(answer.status) != jr.Status.OPTIMAL or answer.gap <= 2e-3 * exact


@pytest.mark.slow
def test_lambda_max_of_thousands_of_thin_cells():
    """All cells of sixty points on two circles: batched projections leave some to active sets."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * rng.random(60)
    y = np.where(np.arange(60) % 2 == 0, 1.0, -1.0)
    X = np.where(y > 0, 0.4, 1.3)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    X = X + 0.2 * rng.standard_normal((60, 2))
    made = jr.ConvexProgram(X, y, jr.enumerate_patterns(X, bias="free"), bias="free")
    low, high = (float(end) for end in jr.lambda_max_interval(made))
    assert high <= low * (1 + 1e-6)


def test_lambda_max_of_a_line_is_that_of_the_linear_neuron():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 1))
    y = x[:, 0] + 0.01 * rng.standard_normal(20)
    made = jr.ConvexProgram(x, y, jr.enumerate_patterns(x, bias="free"), bias="free")
    low, high = (float(end) for end in jr.lambda_max_interval(made))
    value = abs((x[:, 0] - x.mean()) @ (y - y.mean()))
    assert low <= value * (1 + 1e-9)
    np.testing.assert_allclose([low, high], value, rtol=1e-6)


def test_certify_from_weights_of_any_origin():
    made = program()
    lam = 0.1 * float(jr.lambda_max(made))
    answer = jr.solve(made, lam)
    value = clarabel(made, lam, "squared")
    rng = np.random.default_rng(1)
    for size in (0.0, 1e-4, 1e-2, 1.0):
        weights = answer.weights + size * rng.standard_normal(answer.weights.shape)
        constant = answer.constant + size
        proof = jr.certify(made, lam, weights, constant=constant)
        assert proof.lower <= value * (1 + 1e-7)
        assert value <= proof.upper * (1 + 1e-7)
    # A far constant costs the lower bound nothing: the best one takes its place.
    proof = jr.certify(made, lam, answer.weights, constant=answer.constant + 100.0)
    assert proof.lower >= 0.9 * value


def test_the_network_and_back():
    made = program()
    lam = 0.1 * float(jr.lambda_max(made))
    answer = jr.solve(made, lam)
    network = jr.to_network(made, answer).compact()
    assert network.bias.shape == network.output.shape
    back, weights = jr.from_network(network, made.X, made.y)
    assert back.bias == "free"
    at = jr.objective(back, lam, weights, constant=network.constant)
    np.testing.assert_allclose(at, answer.upper, rtol=1e-9)
    with pytest.raises(ValueError, match="biases or a constant"):
        jr.stationarity(network, made.X, made.y, lam)


@pytest.mark.slow
@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("d", [1, 2])
def test_over_all_cells_the_network_is_globally_optimal(loss, d):
    """The optimum over every cell closes; with one feature it is a spline; others are bounded."""
    X, y = data(loss, n=10, d=d)
    made = jr.ConvexProgram(X, y, jr.enumerate_patterns(X, bias="free"), LOSSES[loss], bias="free")
    lam = 0.1 * float(jr.lambda_max(made))
    answer = jr.solve(made, lam, rtol=1e-8)
    network = jr.to_network(made, answer).compact()
    proof = jr.certify_global(network, X, y, lam, LOSSES[loss])
    assert proof.lower <= answer.upper
    assert proof.upper >= answer.lower
    assert proof.gap <= 1e-5 * proof.upper
    if d == 1 and loss in ("squared", "hinge"):
        spline = jr.closed_form.spline(X[:, 0], y, lam, loss=LOSSES[loss])
        assert proof.lower <= spline.value * (1 + 1e-9)
        assert spline.value <= proof.upper * (1 + 1e-9)
    rng = np.random.default_rng(0)
    for constant in (0.0, 50.0):
        other = jr.Network(
            jnp.asarray(rng.standard_normal((d, 4))), jnp.asarray(rng.standard_normal(4)),
            bias=jnp.asarray(3.0 * rng.standard_normal(4)), constant=jnp.asarray(constant),
        )  # fmt: skip
        worse = jr.certify_global(other, X, y, lam, LOSSES[loss])
        assert worse.lower <= answer.upper * (1 + 1e-9)
        assert answer.lower <= worse.upper * (1 + 1e-9)


def test_the_gauge_with_a_bias_is_that_of_a_search():
    """Against all biases at samples and many directions, for residuals whose sum is zero."""
    rng = np.random.default_rng(1)
    for d in (1, 2, 3):
        X = rng.standard_normal((9, d)) + 4.0
        r = rng.standard_normal(9)
        r -= r.mean()
        rows = CentredRows(X, 1e-6)
        found = gauge_with_bias(
            rows, r, np.zeros((0, d + 1)), num_starts=64, rtol=1e-6, threshold=0.0,
            meter=check_budget(None, 60.0, 30.0),
        )  # fmt: skip
        assert found.closed, d
        u = rng.standard_normal((20_000, d))
        u /= np.linalg.norm(u, axis=1)[:, None]
        # In b the value is piecewise linear: its ends are at samples.
        heights = u @ X.T
        best = max(
            float(np.max(np.abs(np.maximum(heights - heights[:, [i]], 0.0) @ r))) for i in range(9)
        )
        assert best <= found.upper * (1 + 1e-12)
        assert found.lower <= best * (1 + (1e-9 if d == 1 else 0.01))
        neuron = np.asarray(found.direction)
        np.testing.assert_allclose(np.linalg.norm(neuron[:-1]), 1.0, rtol=1e-12)
        value = float(np.maximum(X @ neuron[:-1] + neuron[-1], 0.0) @ r)
        np.testing.assert_allclose(abs(value), found.lower, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_a_network_with_biases_is_improved(loss):
    """From another tool, far from balanced: its own cells are solved, and nothing gets worse."""
    X, y = data(loss)
    rng = np.random.default_rng(3)
    mean = X.mean(axis=0)
    hidden = rng.standard_normal((2, 12))
    network = jr.Network(
        jnp.asarray(hidden), jnp.asarray(rng.standard_normal(12)),
        bias=jnp.asarray(-mean @ hidden + rng.standard_normal(12)),
        constant=jnp.asarray(0.0 if loss == "hinge" else 4.0),
    )  # fmt: skip
    lam = 0.3
    better = jr.improve(network, X, y, lam, LOSSES[loss])
    assert jr.Status(int(better.status)) is jr.Status.OPTIMAL
    assert better.objective <= better.objective_before
    np.testing.assert_allclose(better.objective, better.upper, rtol=1e-6)
    made, _ = jr.from_network(network, X, y, LOSSES[loss])
    value = clarabel(made, lam, loss)
    assert better.lower - 2e-7 * value <= value <= better.upper + 2e-7 * value
    assert better.network.num_neurons <= len(X) - 1
    norms = np.linalg.norm(np.asarray(better.network.hidden), axis=0)
    np.testing.assert_allclose(norms, np.abs(np.asarray(better.network.output)), rtol=1e-9)


@pytest.mark.slow
def test_weights_of_blocks_samples_and_a_skip_connection():
    made = program()
    rng = np.random.default_rng(2)
    weights = np.exp(rng.standard_normal(made.block_shape))
    weights.flat[::5] = np.inf
    for other in (
        replace(made, block_weights=weights),
        replace(made, sample_weight=rng.uniform(0.5, 2.0, len(made.y))),
        replace(made, skip=True),
    ):
        answer = check(other, 0.1 * float(jr.lambda_max(other)), "squared")
        assert (answer.skip is not None) == other.skip


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_grid_vmap_jit_and_float32(loss):
    made = program(loss)
    lams = float(jr.lambda_max(made)) * np.asarray([0.3, 0.1])
    path, grid = jr.solve_path(made, lams), jr.solve_grid(made, lams)
    jr.raise_if_failed(grid)
    np.testing.assert_allclose(grid.upper, path.upper, rtol=2e-6)
    traced = jax.jit(jax.vmap(lambda lam: jr.solve(made, lam)))(jnp.asarray(lams))
    assert isinstance(traced, Solution)
    np.testing.assert_allclose(traced.upper, path.upper, rtol=2e-6)
    assert traced.constant.shape == (2,)
    single = jax.tree.map(
        lambda a: a.astype(np.float32) if np.asarray(a).dtype == np.float64 else a, made
    )
    found = jr.solve_path(single, np.float32(lams))
    jr.raise_if_failed(found)
    np.testing.assert_allclose(found.upper, path.upper, rtol=2e-3)


def test_one_dimension_is_a_spline():
    rng = np.random.default_rng(3)
    x = np.sort(rng.standard_normal(12))
    y = np.sin(2.0 * x) + 0.1 * rng.standard_normal(12)
    patterns = jr.enumerate_patterns(x[:, None], bias="free")
    # 2 n cells but for the one that sees nothing.
    assert patterns.num_patterns == 2 * 12 - 1
    made = jr.ConvexProgram(x[:, None], y, patterns, bias="free")
    for lam in (1.0, 0.1, 0.01):
        exact = jr.closed_form.spline(x, y, lam)
        answer = jr.solve(made, lam)
        assert int(answer.status) == jr.Status.OPTIMAL
        assert answer.lower <= exact.value * (1 + 1e-9)
        assert exact.value <= answer.upper * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_of_the_value(loss):
    """By data, weights of samples and blocks, and lam, against differences; of the fit none."""
    made = program(loss, gates=6)
    lam, rng = 0.2 * float(jr.lambda_max(made)), np.random.default_rng(0)
    point = [
        jnp.asarray(made.X), jnp.asarray(made.y), jnp.asarray(rng.uniform(0.5, 2.0, len(made.y))),
        jnp.asarray(rng.uniform(0.8, 1.2, made.block_shape)), jnp.asarray(lam),
    ]  # fmt: skip

    @jax.jit
    def answer(X, y, weight, of_blocks, lam, rtol):
        moved = replace(made, X=X, y=y, sample_weight=weight, block_weights=of_blocks)
        return jr.solve(moved, lam, rtol=rtol)

    def value(*args):
        return answer(*args, 1e-12).upper

    slopes = jax.jit(jax.grad(value, argnums=range(5)))(*point)
    for k in range(5):
        if loss in ("logistic", "hinge") and k == 1:
            continue
        direction, step = rng.standard_normal(point[k].shape), 1e-5
        ends = [
            float(value(*[p + side * step * direction if j == k else p
                          for j, p in enumerate(point)]))
            for side in (1.0, -1.0)
        ]  # fmt: skip
        along = float(jnp.sum(slopes[k] * direction))
        np.testing.assert_allclose(along, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-4)
    # Forward, of one lam; and of the fit.
    tangents = [jnp.zeros_like(p) for p in point[:-1]] + [jnp.ones(())]
    forward = jax.jvp(lambda *args: answer(*args, 1e-12), tuple(point), tuple(tangents))[1]
    np.testing.assert_allclose(forward.upper, slopes[4], rtol=1e-10)
    assert np.all(np.isnan(forward.fit))
    assert np.isnan(forward.constant)


@pytest.mark.slow
def test_labels_that_are_all_equal_have_no_bound():
    X, _ = data()
    patterns = jr.sample_patterns(jax.random.key(0), X, 6, bias="free")
    made = jr.ConvexProgram(X, np.ones(len(X)), patterns, jr.LogisticLoss(), bias="free")
    answer = jr.solve(made, 1.0)
    assert jr.Status(int(answer.status)) in (jr.Status.UNBOUNDED, jr.Status.OPTIMAL)
    assert float(answer.lower) <= 1e-6


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p, s: jr.optimal_set(p, s), "correlations that are projections"),
        (lambda p, s: jr.follow_path(p), "correlations that are projections"),
        (lambda p, s: jr.refine(p, s.lam), "append a column of ones"),
        (lambda p, s: jr.kkt_residual(p, s.lam, s.weights), "no projection"),
        (lambda p, s: jr.block_correlations(p, s.residual), "no projection"),
        (lambda p, s: jr.solve(p, s.lam, solver=jr.ADMM()), "ADMM splits by"),
        (lambda p, s: jr.certify(p, s.lam, s.weights, multipliers=True), "leave it out"),
    ],
)
def test_what_does_not_know_it_says_so(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(*_solved())


def _solved():
    if not _KEPT:
        made = program(gates=6)
        _KEPT.append((made, jr.solve(made, 0.3 * float(jr.lambda_max(made)))))
    return _KEPT[0]


_KEPT: list = []


def test_bad_input():
    made = program(gates=6)
    with pytest.raises(ValueError, match="bias is 'yes'"):
        jr.solve(replace(made, bias="yes"), 1.0)
    with pytest.raises(ValueError, match="needs"):
        jr.solve(replace(made, bias="none"), 1.0)
    with pytest.raises(ValueError, match="block_weights holds zeros"):
        jr.solve(replace(made, block_weights=np.zeros(made.block_shape)), 1.0)
    with pytest.raises(ValueError, match="gated"):
        jr.sample_patterns(jax.random.key(0), made.X, 5, gated=True, bias="free")
    plain = jr.ConvexProgram(made.X, made.y, jr.sample_patterns(jax.random.key(0), made.X, 5))
    with pytest.raises(ValueError, match="constant is given"):
        jr.certify(plain, 1.0, np.zeros((*plain.block_shape, 2)), constant=1.0)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data beside the repository")
@pytest.mark.parametrize(
    ("loss", "table"),
    [
        ("squared", "regression/yacht"),
        ("squared", "regression/boston-housing"),
        ("squared", "regression/machine-cpu"),
        ("logistic", "uci/fertility"),
        ("logistic", "uci/ionosphere"),
        ("logistic", "uci/haberman-survival"),
        ("hinge", "uci/fertility"),
        ("hinge", "uci/pima"),
        ("hinge", "uci/haberman-survival"),
    ],
)
def test_on_real_data(loss, table):
    """100 gates, 20 lams to 0.01 lambda_max; three of them against Clarabel where it is quick."""
    rows = np.loadtxt(DATA / f"{table}.csv.gz", delimiter=",", skiprows=1)
    X, y = rows[:, :-1], rows[:, -1]
    X = X[:, X.std(0) > 0]
    X = (X - X.mean(0)) / X.std(0)
    y = (y - y.mean()) / y.std() if loss == "squared" else y
    patterns = jr.sample_patterns(jax.random.key(0), X, 100, bias="free")
    made = jr.ConvexProgram(X, y, patterns, LOSSES[loss], bias="free")
    path = jr.solve_path(made, jr.lambda_grid(made, num=20, ratio=0.01))
    assert np.all(path.status == jr.Status.OPTIMAL)
    if X.size > 5000:
        return
    for k in (5, 11, 17):
        value = clarabel(made, float(path.lams[k]), loss)
        off = (2e-6 if loss == "logistic" else 2e-7) * abs(value)
        assert float(path.lower[k]) - off <= value <= float(path.upper[k]) + off
