"""What comes in wrong raises a sentence that names the argument and the fix, or ends in a status.

Every argument of every public function (`calls.CALLS`) is given some forty kinds of other values.
The reader of tables is tested in `datasets/test_tables.py`, the command in `cli`.
"""

import dataclasses
import enum
import inspect
import re
import warnings
from dataclasses import replace

import calls
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import zoo

import jaxrelu as jr
from jaxrelu import closed_form, datasets, plotting
from jaxrelu.core.status import Status
from jaxrelu.programs.bounds import all_blocks, upper_value

LONGEST = 400  # characters of a message; an array printed is longer, or has several lines


class Frame:
    """Stands in for a data frame: reads as an array, and prints thousands of lines."""

    def __init__(self, values):
        self.values = np.asarray(values)

    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: self.values.shape)
    ndim = property(lambda self: self.values.ndim)

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def to_numpy(self, dtype=None):
        return np.asarray(self.values, dtype)

    def __repr__(self):
        return "\n".join(f"{k}    1.0" for k in range(5000))


def is_array(value):
    is_numbers = isinstance(value, np.ndarray | jax.Array) and value.ndim > 0
    return is_numbers and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def always(wrong):
    return lambda value: wrong


def of_arrays(change):
    return lambda value: change(np.asarray(value)) if is_array(value) else None


def of_numbers(change):
    return lambda value: change(np.asarray(value)) if is_number(value) else None


def of_values(change):
    return lambda value: change(np.asarray(value)) if is_array(value) or is_number(value) else None


def of_floats(change):
    return of_values(lambda array: change(array) if array.dtype.kind == "f" else None)


def poisoned(array, value):
    array = np.array(array, float)
    array.flat[1 % array.size] = value
    return array


def masked(array):
    if array.ndim == 0:
        return np.ma.masked
    return np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) == 1)


def sparse(array):
    return scipy.sparse.csr_array(array) if array.ndim == 2 else scipy.sparse.coo_array([1.0])


def another(value):
    return jr.SquaredLoss() if isinstance(value, jr.ActiveNewton) else jr.ActiveNewton()


# How a value is made of the valid one; None, but for the kind of that name, where there is none.
KINDS = {
    "none": always(None),
    "text": always("many"),
    "nan": always(np.nan),
    "inf": always(np.inf),
    "minus one": always(-1),
    "zero": always(0),
    "one": always(1),
    "one and a half": always(1.5),
    "true": always(True),
    "complex": always(1j),
    "date": always(np.datetime64("2020-01-01")),
    "ragged rows": always([[1.0], [1.0, 2.0]]),
    "empty list": always([]),
    "empty array": always(np.zeros(0)),
    "list of text": always(["a", "b"]),
    "dictionary": always({}),
    "object": always(object()),
    "another object": another,
    "a class": lambda value: jr.Network if value is None else type(value),
    "four axes": always(np.ones((3, 2, 1, 1))),
    "a vector": of_numbers(lambda array: np.array([array, array])),
    "an integer": of_numbers(lambda array: None if array.dtype.kind == "f" else np.int32(array)),
    "a JAX array": of_values(jnp.asarray),
    "a list": of_arrays(lambda array: array.tolist()),
    "integers": of_arrays(lambda array: array.astype(int)),
    "booleans": of_arrays(lambda array: array.astype(bool)),
    "float32": of_floats(lambda array: array.astype(np.float32)),
    "float16": of_floats(lambda array: array.astype(np.float16)),
    "bfloat16": of_arrays(lambda array: jnp.asarray(array, jnp.bfloat16)),
    "longdouble": of_floats(lambda array: array.astype(np.longdouble)),
    "complex array": of_arrays(lambda array: array + 0j),
    "array of objects": of_arrays(lambda array: array.astype(object)),
    "array of text": of_arrays(lambda array: array.astype(str)),
    "dates": of_arrays(lambda array: array.astype(int).astype("datetime64[ns]")),
    "masked": of_values(masked),
    "sparse": of_values(sparse),
    "frame": of_values(Frame),
    "an entry of nan": of_arrays(lambda array: poisoned(array, np.nan)),
    "an entry of inf": of_arrays(lambda array: poisoned(array, np.inf)),
    "one row fewer": of_arrays(lambda array: array[:-1]),
    "one axis more": of_arrays(lambda array: array[None]),
    "one axis fewer": of_arrays(lambda array: array[0]),
}
# Kinds that hold the numbers of the plain array or number: the answer must be the same.
SAME = {
    "a JAX array", "a list", "integers", "booleans", "an integer", "float32", "float16", "bfloat16",
    "longdouble",
}  # fmt: skip
EVERY_CALL = [
    pytest.param(name, marks=[pytest.mark.slow] if calls.CALLS[name][2] else [])
    for name in calls.CALLS
]
# Members of `Loss` and of `Solver`, which the package calls with what it has checked.
CALLED_BY_US = {
    "value", "gradient", "conjugate", "value_error", "conjugate_error", "check_target", "scaled",
    "curvature_within", "same_gradient", "prox", "slopes",
    "check", "run", "slots", "after", "screened", "evidence",
}  # fmt: skip
# Made by the package alone, or protocols and words.
NOT_BUILT = {
    "AbsoluteLoss", "Certificate", "ClosedForm", "Crossed", "Dataset", "DecreasingPath",
    "DescentPath", "FollowedPath", "HingeLoss", "Improved", "KKTResidual", "L0L1", "LogisticLoss",
    "Loss", "MarginConditions", "MaxMargin", "MinimumNorm", "MultinomialLoss", "NetworkPath",
    "Neurons",
    "OptimalSet", "Path", "PolarGauge", "Pruned", "Refined", "SelfTest", "Sensitivity", "Separable",
    "Solution", "SpikeFree", "Spline", "Split",
    "SquaredHingeLoss", "SquaredLoss", "Stationarity", "Status", "Task", "VectorPath",
}  # fmt: skip


def public_names():
    """Every public function and class, and their place in `calls.CALLS`."""
    for module in (jr, closed_form, datasets, plotting):
        prefix = "" if module is jr else module.__name__.removeprefix("jaxrelu.") + "."
        for name, value in vars(module).items():
            is_public = not name.startswith("_") and not inspect.ismodule(value)
            if is_public and name != "enable_compilation_cache":  # it has tests of its own
                yield prefix, name, value


def test_every_public_function_has_a_valid_call():
    known = set(calls.CALLS)
    for prefix, name, value in public_names():
        if inspect.isfunction(value):
            expected = set(inspect.signature(value).parameters)
            assert set(calls.call(prefix + name).arguments) == expected, prefix + name
        elif name not in NOT_BUILT and not issubclass(value, enum.Enum):
            fields = {field.name for field in dataclasses.fields(value)}
            assert set(calls.call(name).arguments) == fields, name
        known -= {prefix + name}
        if not inspect.isclass(value) or issubclass(value, enum.Enum) or name == "Loss":
            continue
        for method, function in vars(value).items():
            public = not method.startswith("_") or method in ("__call__", "__getitem__")
            if public and inspect.isfunction(function) and method not in CALLED_BY_US:
                assert f"{name}.{method}" in calls.CALLS
                known -= {f"{name}.{method}"}
    assert not known


def outcome(call, argument=None, value=None):
    """The answer to a call with one argument changed, or the exception, as users work with JAX."""
    given = {name: one.value for name, one in call.arguments.items()}
    if argument is not None:
        given[argument] = value
    with (
        warnings.catch_warnings(action="ignore"),
        np.errstate(all="ignore"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        try:
            return call.function(**given)
        except Exception as error:  # noqa: BLE001
            return error


def fault_of(error, argument):
    """What is wrong with an exception, or with an answer where there should be one."""
    if not isinstance(error, Exception):
        return "no exception"
    text = f"{type(error).__name__}: {error}"
    kind = isinstance(error, ValueError | TypeError) or (
        isinstance(error, IndexError) and argument == "k"
    )
    if not kind or type(error).__module__ != "builtins":
        return f"of another type, {text[:LONGEST]}"
    if len(text) > LONGEST or "\n" in text:
        return f"too long, {text[:80]!r}"
    if re.search(rf"(?<!\w){argument}(?!\w)", text) is None:
        return f"does not name it, {text}"
    return None


def values(call):
    """All (argument, kind, value) of a call."""
    for argument, valid in call.arguments.items():
        for kind, make in KINDS.items():
            value = make(valid.value)
            if value is not None or kind == "none":
                yield argument, valid, kind, value


@pytest.mark.parametrize("name", calls.CALLS)
def test_wrong_values_are_refused_by_name(name):
    call, faults = calls.call(name), []
    for argument, valid, kind, value in values(call):
        if kind not in valid.takes:
            fault = fault_of(outcome(call, argument, value), argument)
            faults += [f"{argument} = {kind}: {fault}"] if fault else []
    assert not faults, "\n".join(faults)


def leaves_of(answer):
    """Numbers and words of an answer, but not how long it took."""
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        parts = {name: part for name, part in vars(answer).items() if name != "history"}
        return [leaf for part in parts.values() for leaf in leaves_of(part)]
    if isinstance(answer, dict | list | tuple):
        parts = answer.values() if isinstance(answer, dict) else answer
        return [leaf for part in parts for leaf in leaves_of(part)]
    return [answer]


def difference(found, expected, rtol):
    """Where two answers differ, or None."""
    if isinstance(expected, Exception):
        return None if type(found) is type(expected) else f"{found!r:.200} is not {expected!r:.200}"
    if isinstance(found, Exception):
        return f"{type(found).__name__}: {found}"[:LONGEST]
    for one, other in zip(leaves_of(found), leaves_of(expected), strict=True):
        if isinstance(other, np.ndarray | jax.Array | float) and not isinstance(one, str):
            try:
                np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)
            except AssertionError as error:
                return str(error)[:LONGEST]
    return None


@pytest.mark.parametrize("name", EVERY_CALL)
def test_values_that_will_do_have_the_answer_of_the_plain_array(name):
    call, faults = calls.call(name), []
    answer = outcome(call)
    assert not isinstance(answer, Exception), answer
    for argument, valid, kind, value in values(call):
        if kind not in valid.takes:
            continue
        found = outcome(call, argument, value)
        if kind in SAME and not ("float32" in kind and "integers" not in valid.takes):
            plain = np.asarray(value, float if is_array(valid.value) else None)
            plain = plain if is_array(valid.value) else plain.item()
            single = kind in ("float32", "float16", "bfloat16")
            fault = difference(found, outcome(call, argument, plain), 1e-3 if single else 1e-12)
        else:
            fault = f"{found}"[:LONGEST] if isinstance(found, Exception) else None
        faults += [f"{argument} = {kind}: {fault}"] if fault else []
    assert not faults, "\n".join(faults)


def can_be_traced(value):
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(
        isinstance(leaf, np.ndarray | jax.Array | bool | int | float) for leaf in leaves
    )


@pytest.mark.parametrize("name", calls.CALLS)
def test_traced_values_are_refused_where_values_are_looked_at(name):
    call, faults = calls.call(name), []
    for argument, valid in call.arguments.items():
        if valid.traceable or not can_be_traced(valid.value):
            continue
        errors = []

        def run(value, argument=argument, errors=errors):
            errors.append(outcome(call, argument, value))
            return 0.0

        jax.eval_shape(run, valid.value)
        fault = fault_of(errors[0], argument)
        if fault is None and not re.search(
            "is traced|True or False|pass an integer", str(errors[0])
        ):
            fault = str(errors[0])
        faults += [f"{argument}: {fault}"] if fault else []
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", calls.CALLS)
def test_docstrings_tell_arrays_that_are_converted_from_those_that_are_not(name):
    """An array of real numbers is called an array; one taken as it is, by its dtypes."""
    function, found = calls.CALLS[name][0], calls.call(name)
    for argument, valid in found.arguments.items():
        lines = re.search(
            rf"^ *{argument}: (.*(\n     +.*)*)", inspect.getdoc(function) or "", re.M
        )
        if is_array(valid.value) and lines and inspect.isfunction(function):
            precise = "float32 or float64" in re.sub(r"\s+", " ", lines[1])
            assert precise == ("integers" not in valid.takes), f"{argument}: {lines[1]}"


GENERIC = zoo.problem(zoo.generic)
PROGRAM = GENERIC.program
X, Y, PATTERNS = PROGRAM.X, PROGRAM.y, PROGRAM.patterns
WEIGHT = np.ones(zoo.SAMPLES)
LAM = GENERIC.lams(0.1)[0]
LABELS = np.where(Y >= 0, 1.0, -1.0)


def patterns(**changes):
    return replace(PATTERNS, **changes)


PROGRAMS = {
    "X of rank 1": ({"X": X[:, 0]}, ValueError, r"X has shape \(32,\); pass a matrix \(n, d\)"),
    "X of rank 3": ({"X": X[None]}, ValueError, r"pass a matrix \(n, d\)"),
    "y of rank 2": ({"y": Y[:, None]}, ValueError, r"one number a row, shape \(32,\)"),
    "y too short": ({"y": Y[:-1]}, ValueError, "but X has 32 rows"),
    "weights of rank 2": (
        {"sample_weight": WEIGHT[:, None]}, ValueError, r"sample_weight .* shape \(32,\)",
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
    "a list for X": ({"X": X.tolist()}, TypeError, r"np.asarray\(X, 'float64'\)"),
    "a list for y": ({"y": Y.tolist()}, TypeError, r"np.asarray\(y, 'float64'\)"),
    "half precision": ({"X": X.astype("float16")}, TypeError, r"pass X.astype\('float64'\)"),
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
        ValueError, "at least one row and one column",
    ),
    "no features": (
        {"X": X[:, :0], "patterns": patterns(gates=PATTERNS.gates[:0], interior=None)},
        ValueError, "at least one row and one column",
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
    "no patterns": ({"patterns": None}, TypeError, r"jr.sample_patterns\(key, X, num_gates\)"),
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
    "lam zero": (jr.solve, 0.0, {}, ValueError, "pass a small one.*minimum-norm program"),
    "lam negative": (jr.solve, -1.0, {}, ValueError, "lam is -1.0; pass a positive finite number"),
    "lam nan": (jr.solve, np.nan, {}, ValueError, "pass a positive finite number"),
    "lam inf": (jr.solve, np.inf, {}, ValueError, "pass a positive finite number"),
    "lam a vector": (jr.solve, [LAM], {}, ValueError, "use solve_grid, solve_path or"),
    "lam text": (jr.solve, "1", {}, TypeError, "lam is '1'"),
    "lam missing": (jr.solve, None, {}, TypeError, "lam is None; pass a number"),
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
    "rtol a vector": (jr.solve, LAM, {"rtol": [1e-3, 1e-6]}, ValueError, "pass one number"),
    "rtol text": (jr.solve, LAM, {"rtol": "small"}, TypeError, "rtol is 'small'"),
    "atol negative": (jr.solve_path, [LAM], {"atol": -1.0}, ValueError, "atol is -1.0"),
    "max_steps negative": (jr.solve, LAM, {"max_steps": -1}, ValueError, "an integer >= 0"),
    "max_steps a half": (jr.solve, LAM, {"max_steps": 1.5}, TypeError, "an integer >= 0"),
    "max_steps nan": (jr.solve_path, [LAM], {"max_steps": np.nan}, TypeError, "an integer >= 0"),
    "max_steps a vector": (jr.solve_grid, [LAM], {"max_steps": [1]}, TypeError, "an integer >= 0"),
    "max_active negative": (jr.solve_path, [LAM], {"max_active": -1}, ValueError, "max_active is"),
    "batch of none": (jr.solve_grid, [LAM], {"lam_batch_size": 0}, ValueError, "an integer >= 1"),
    "init an array": (jr.solve, LAM, {"init": np.zeros((2, 16, 5))}, TypeError, "pass a Solution"),
    "init of other blocks": (
        jr.solve, LAM, {"init": replace(SOLUTION, weights=jnp.zeros((16, 5)))},
        ValueError, r"init.weights has shape \(16, 5\); pass shape \(2, 16, 5\)",
    ),
    "init of other samples": (
        jr.solve_path, [LAM], {"init": replace(SOLUTION, residual=jnp.zeros(31))},
        ValueError, "init.residual has shape",
    ),
    "init of float32": (
        jr.solve, LAM, {"init": replace(SOLUTION, weights=SOLUTION.weights.astype("float32"))},
        TypeError, r"pass init.weights.astype\('float64'\)",
    ),
    "solver a number": (jr.solve, LAM, {"solver": 3}, TypeError, r"jr.ActiveNewton\(\)"),
    "solver of a path a number": (
        jr.solve_path, [LAM], {"solver": 3}, TypeError, "solver is 3; pass an ActiveNewton",
    ),
    "solver of a path a class": (
        jr.solve_path, [LAM], {"solver": jr.ActiveNewton}, TypeError, "pass an ActiveNewton",
    ),
    "solver a class": (jr.solve, LAM, {"solver": jr.ActiveNewton}, TypeError, "pass an instance"),
    "capacity zero": (
        jr.solve, LAM, {"solver": jr.ActiveNewton(capacity=0)},
        ValueError, "capacity is 0; pass an integer >= 1",
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


@pytest.mark.slow
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
