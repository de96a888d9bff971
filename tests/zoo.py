"""Small problems of every kind, and a check of their answers that owes nothing to the package.

Most problems share one shape, so that one compiled program serves them all: smaller ones are padded
with zero rows, zero columns and repeated patterns, none of which changes an optimum.
"""

import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrelu as jr
from jaxrelu.losses.kinks import has_kinks

SAMPLES, FEATURES, PATTERNS = 32, 5, 16
ROOT = Path(__file__).resolve().parent.parent
OPTIMA = sorted((ROOT.parent / "shared" / "reference").glob("*.npz"))


@dataclass(frozen=True)
class Problem:
    """A program with its lambda_max, known without the package."""

    program: Any
    lambda_max: float

    def lams(self, *fractions):
        """Fractions of lambda_max, as numbers."""
        return [fraction * self.lambda_max for fraction in fractions]


def tiled(patterns, count=PATTERNS):
    """The first patterns, repeated from the first on where there are too few."""
    index = np.arange(count) % patterns.masks.shape[1]
    return jax.tree.map(lambda a: a[:, index], patterns)


def padded(X, y, patterns):
    """(X, y, patterns) of the common shape, with the same optimum."""
    rows, columns = SAMPLES - X.shape[0], FEATURES - X.shape[1]
    X = np.pad(X, ((0, rows), (0, columns)))
    gates = np.pad(patterns.gates, ((0, columns), (0, 0)))
    masks = np.pad(patterns.masks, ((0, rows), (0, 0)), constant_values=True)
    interior = np.pad(patterns.interior, ((0, columns), (0, 0)))
    return X, np.pad(y, (0, rows)), tiled(jr.Patterns(gates, masks, interior))


def tiny(X, y):
    """The program of few samples on all their patterns (at most 16), in the common shape."""
    X, y = np.asarray(X, float), np.asarray(y, float)
    return program(*padded(X, y, jr.enumerate_patterns(X)))


def data(seed=0, shape=(SAMPLES, FEATURES)):
    """A matrix and a target of two noisy neurons."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape)
    neurons = rng.standard_normal((shape[1], 2))
    y = np.maximum(X @ neurons, 0.0) @ np.asarray([1.0, -1.0]) + 0.3 * rng.standard_normal(shape[0])
    return X, y


def program(X, y, patterns=None, loss=None, sample_weight=None, gated=False, block_weights=None):
    """A program of arrays alone; sample weights are always given, so that one shape serves all."""
    if patterns is None:
        patterns = tiled(jr.sample_patterns(jax.random.key(1), X, 24))
    loss = jr.SquaredLoss() if loss is None else loss
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    kind = jr.GatedProgram if gated else jr.ConvexProgram
    return kind(np.asarray(X), np.asarray(y), patterns, loss, np.asarray(weight), block_weights)


def generic():
    return program(*data())


def planted():
    # Exactly one neuron, no noise: all other blocks are zero on the whole path.
    X, _ = data(1)
    patterns = tiled(jr.sample_patterns(jax.random.key(1), X, 24))
    return program(X, np.maximum(X @ patterns.interior[:, 3], 0.0), patterns)


def duplicate_patterns():
    X, y = data(2)
    patterns = tiled(jr.sample_patterns(jax.random.key(1), X, 24), 5)
    return program(X, y, tiled(patterns))


def duplicate_rows():
    # Equal, parallel and antiparallel rows.
    X, y = data(3)
    return program(np.concatenate([X[:16], X[:8], 2.0 * X[8:12], -X[12:16]]), y)


def zero_rows():
    X, y = data(4)
    X[::5] = 0.0
    return program(X, y)


def rank_deficient():
    X, y = data(5)
    return program(X[:, :2] @ np.random.default_rng(5).standard_normal((2, FEATURES)), y)


def zero_column():
    X, y = data(6)
    X[:, 2] = 0.0
    return program(X, y)


def constant_target():
    return program(data(7)[0], np.ones(SAMPLES))


def uneven_columns():
    X, y = data(8)
    return program(X * np.asarray([10.0, 3.0, 1.0, 0.3, 0.1]), y)


def sample_weights():
    weight = np.random.default_rng(9).uniform(0.2, 2.0, SAMPLES)
    weight[::4] = 0.0
    return program(*data(9), sample_weight=weight)


def gated():
    return program(*data(10), gated=True)


def logistic():
    X, y = data(11)
    return program(X, np.where(y >= 0, 1.0, -1.0), loss=jr.LogisticLoss())


def huber():
    return program(*data(12), loss=jr.HuberLoss(jnp.asarray(reference.HUBER_DELTA)))


def squared_hinge():
    X, y = data(18)
    return program(X, np.where(y >= 0, 1.0, -1.0), loss=jr.SquaredHingeLoss())


def hinge():
    X, y = data(23)
    return program(X, np.where(y >= 0, 1.0, -1.0), loss=jr.HingeLoss())


def absolute():
    # Ties, some of them at zero, where the loss has a kink at zero weights.
    X, y = data(24)
    return program(X, np.round(y), loss=jr.AbsoluteLoss())


def quantile():
    return program(*data(25), loss=jr.QuantileLoss(jnp.asarray(reference.QUANTILE)))


def counts(seed=19):
    """Features, and counts of a rate that two neurons make, with zeros among them."""
    X, y = data(seed)
    return X, np.random.default_rng(seed).poisson(np.exp(0.5 * y)).astype(float)


def poisson():
    return program(*counts(), loss=jr.PoissonLoss())


def gated_poisson():
    X, y = counts(20)
    exposure = np.random.default_rng(20).uniform(0.0, 2.0, SAMPLES)
    return program(X, y, loss=jr.PoissonLoss(), sample_weight=exposure, gated=True)


def gated_logistic():
    X, y = data(13)
    weight = np.random.default_rng(13).uniform(0.0, 2.0, SAMPLES)
    y = np.where(y >= 0, 1.0, -1.0)
    return program(X, y, loss=jr.LogisticLoss(), sample_weight=weight, gated=True)


def unequal_weights(shape, seed):
    """Weights of blocks, some of them infinite."""
    weights = np.exp(np.random.default_rng(seed).standard_normal(shape))
    weights.flat[::5] = np.inf
    return weights


def block_weights():
    return program(*data(21), block_weights=unequal_weights((2, PATTERNS), 21))


def gated_block_weights():
    X, y = data(22)
    y, weights = np.where(y >= 0, 1.0, -1.0), unequal_weights((PATTERNS,), 22)
    return program(X, y, loss=jr.LogisticLoss(), gated=True, block_weights=weights)


def more_features_than_samples():
    return program(*data(14, (8, 12)))


def one_sample():
    X, y = data(15, (1, 3))
    return program(X, y, jr.sample_patterns(jax.random.key(1), X, 8))


def one_feature():
    X, y = data(16, (SAMPLES, 1))
    return program(X, y, jr.enumerate_patterns(X))


def smallest(gated=False, loss=None):
    """A program of 6 samples, 2 features and 3 patterns, for what is compiled again and again.

    Nothing of it is computed by JAX.
    """
    X, y = data(17, (6, 2))
    gates = np.random.default_rng(18).standard_normal((2, 3))
    masks = X @ gates >= 0
    interior = np.stack([reference.max_margin_direction(X, mask)[0] for mask in masks.T], axis=1)
    y = y if loss is None else np.where(y >= 0, 1.0, -1.0)
    return program(X, y, jr.Patterns(gates, masks, interior), loss=loss, gated=gated)


COMMON = [
    generic, planted, duplicate_patterns, duplicate_rows, zero_rows, rank_deficient, zero_column,
    constant_target, uneven_columns, sample_weights,
]  # fmt: skip
OTHERS = [
    gated, logistic, huber, squared_hinge, poisson, gated_logistic, gated_poisson,
    block_weights, gated_block_weights,
    more_features_than_samples, one_sample, one_feature,
]  # fmt: skip
ALL = COMMON + OTHERS


@cache
def problem(build):
    """A problem of the lists above, built once."""
    return problem_of(build())


def problem_of(made):
    """Any program as a problem."""
    masks = np.asarray(made.patterns.masks)
    zero = np.zeros(len(made.y))
    q = reference.correlations(made.X, masks, residual(made, zero), is_gated(made))
    return Problem(made, float((np.linalg.norm(q, axis=-1) / weights_of(made)).max()))


def weights_of(program):
    """The weights of a program's blocks, in their shape."""
    given = program.block_weights
    return np.ones(program.block_shape) if given is None else np.asarray(given, float)


def parametrize(builds, quick=()):
    """A decorator that runs a test on problems; those not in `quick` are marked slow."""
    marks = [
        pytest.param(b, id=b.__name__, marks=[] if b in quick else [pytest.mark.slow])
        for b in builds
    ]
    return pytest.mark.parametrize("build", marks)


def every_optimum(function):
    """A decorator that runs a test on the published data sets with known optima."""
    if not OPTIMA:
        return pytest.mark.skip("no ../shared/reference beside the repository")(function)
    ids = [path.stem for path in OPTIMA]
    return pytest.mark.slow(pytest.mark.parametrize("path", OPTIMA, ids=ids)(function))


def published(path, dtype=float):
    """A program of the published data sets, its lams and their optima."""
    with np.load(path) as file:
        X, y, gates = (file[name].astype(dtype) for name in ("X", "y", "gates"))
        program = jr.ConvexProgram(X, y, jr.Patterns(gates, file["masks"].astype(bool)))
        return program, file["lams"].astype(dtype), file["objective"]


# The last one changes the process, and has its wrong values in tests of its own.
WITHOUT_ARRAYS = ("register", "count_patterns", "enable_compilation_cache")


def public_functions():
    """Those of the package and of its closed forms, by name; without three that take no arrays."""
    found = {**vars(jr), **vars(jr.closed_form)}.items()
    functions = {name: value for name, value in found if inspect.isfunction(value)}
    return {k: f for k, f in functions.items() if k not in WITHOUT_ARRAYS}


def required(function):
    """The names of the arguments that have no default."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.default is one.empty]


def trace_all(function):
    """Traces a call of which every required argument is traced."""
    return jax.eval_shape(lambda x: function(**dict.fromkeys(required(function), x)), 1.0)


def belongs_to_the_host(function):
    """Whether a function refuses traced arguments, because it looks at values."""
    try:
        trace_all(function)
    except (AttributeError, TypeError, ValueError) as error:
        return "looks at values: call it on the host" in str(error)
    return False


def is_gated(program):
    return isinstance(program, jr.GatedProgram)


_TWINS = {
    jr.SquaredLoss: "squared", jr.LogisticLoss: "logistic", jr.HuberLoss: "huber",
    jr.SquaredHingeLoss: "squared_hinge", jr.PoissonLoss: "poisson",
    jr.HingeLoss: "hinge", jr.AbsoluteLoss: "absolute", jr.QuantileLoss: "quantile",
}  # fmt: skip


def loss_name(program):
    """What the twins in NumPy call the loss of a program; parameters are those of the twins."""
    assert getattr(program.loss, "q", reference.QUANTILE) == reference.QUANTILE
    assert getattr(program.loss, "delta", reference.HUBER_DELTA) == reference.HUBER_DELTA
    assert getattr(program.loss, "offset", None) is None
    return _TWINS[type(program.loss)]


def _samples(program):
    weight = None if program.sample_weight is None else np.asarray(program.sample_weight)
    return np.asarray(program.y), loss_name(program), weight


def residual(program, fit):
    """Minus the gradient of the loss at a fit, in NumPy."""
    return reference.loss_residual(fit, *_samples(program))


def loss_value(program, fit):
    """The loss at a fit, in NumPy."""
    return reference.total_loss(fit, *_samples(program))


def dual_value(program, dual):
    """The dual value of a dual point, in NumPy."""
    return reference.dual_value(dual, *_samples(program))


def bounds(program, lam, solution):
    """(lower, upper) in NumPy: the objective at the weights, the value at the rescaled dual point.

    They need no trust in the package: the weights are checked to be feasible and the dual point is
    divided by what SciPy's nnls finds it to be infeasible by.
    """
    X, masks = np.asarray(program.X, float), np.asarray(program.patterns.masks)
    weights = np.asarray(solution.weights, float)
    eps = np.finfo(np.asarray(solution.weights).dtype).eps
    if not is_gated(program):
        assert reference.cone_violation(X, masks, weights) <= 64 * eps
    fit = (reference.gated_fit if is_gated(program) else reference.relu_fit)(X, masks, weights)
    dual = np.asarray(solution.certificate.dual, float)
    own = weights_of(program)
    excess = reference.dual_excess(X, masks, dual, lam, is_gated(program), own)
    lower = dual_value(program, dual / (1.0 + max(excess, 0.0)))
    return lower, loss_value(program, fit) + lam * reference.penalty(weights, own)


def recheck(program, lam, solution, rtol=1e-6, digits=1e-10):
    """Asserts that an answer is OPTIMAL and is what it says it is."""
    assert jr.Status(int(solution.status)) is jr.Status.OPTIMAL
    assert float(solution.lam) == np.asarray(lam, np.asarray(solution.lam).dtype)
    X, masks = np.asarray(program.X, float), np.asarray(program.patterns.masks)
    weights, certificate = np.asarray(solution.weights, float), solution.certificate
    lower, upper = bounds(program, lam, solution)
    size = abs(upper)
    # One objective(0) of rounding: the default absolute tolerance is 50 eps of it.
    tiny = digits * loss_value(program, np.zeros(len(X)))
    np.testing.assert_allclose(certificate.upper, upper, rtol=digits, atol=tiny)
    np.testing.assert_allclose(certificate.lower, lower, rtol=digits, atol=tiny)
    np.testing.assert_allclose(certificate.gap, upper - lower, atol=digits * size + tiny)
    assert upper - lower <= rtol * size + tiny
    assert upper - lower >= -digits * size - tiny
    dual = np.asarray(certificate.dual, float)
    own = weights_of(program)
    assert reference.dual_excess(X, masks, dual, lam, is_gated(program), own) <= digits
    np.testing.assert_array_equal(certificate.weights, solution.weights)

    fit = (reference.gated_fit if is_gated(program) else reference.relu_fit)(X, masks, weights)
    scale = 1.0 + np.abs(fit).max()
    np.testing.assert_allclose(solution.fit, fit, atol=digits * scale)
    if has_kinks(program.loss):
        # Where fit and residual belong to each other they add up to nothing, and are worth rtol.
        r = np.asarray(solution.residual, float)
        apart = loss_value(program, fit) - dual_value(program, r * (1 - 1e-6)) + r @ fit
        assert -1e-6 * size - tiny <= apart <= 10 * rtol * size + tiny
    else:
        np.testing.assert_allclose(solution.residual, residual(program, fit), atol=digits * scale)
    network = jr.to_network(program, solution)
    hidden, output = np.asarray(network.hidden, float), np.asarray(network.output, float)
    if is_gated(program):
        opened = X @ np.asarray(network.gates, float) >= 0
        predicted = (opened * (X @ hidden)) @ output
    else:
        predicted = np.maximum(X @ hidden, 0.0) @ output
    np.testing.assert_allclose(predicted, fit, atol=digits * scale)


def row(solutions, k):
    """One answer of a batch."""
    return jax.tree.map(lambda a: a[k], solutions)


def assert_same(one, other):
    """Equal statuses; float leaves equal to 1e-6 of their size, a gap to 1e-6 of the values."""
    np.testing.assert_array_equal(one.status, other.status)
    scale = np.abs(one.certificate.upper).max()
    np.testing.assert_allclose(one.certificate.gap, other.certificate.gap, atol=1e-6 * scale)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        if np.issubdtype(a.dtype, np.floating) and a is not one.certificate.gap:
            assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-6 * np.abs(a).max()
