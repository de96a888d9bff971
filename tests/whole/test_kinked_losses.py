"""Hinge, absolute and quantile loss through the package.

Answers are checked by twins in NumPy (`zoo.recheck`) and by Clarabel.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo

import jaxrelu as jr

BUILDS = {"hinge": zoo.hinge, "absolute": zoo.absolute, "quantile": zoo.quantile}
SLOW = pytest.mark.slow
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def every_loss(*quick):
    marks = [
        pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in BUILDS
    ]
    return pytest.mark.parametrize("name", marks)


@cache
def path_of(name):
    made = BUILDS[name]()
    return made, jr.solve_path(made, jr.lambda_grid(made, num=4, ratio=0.05))


@every_loss("absolute")
def test_answers_are_what_they_say_and_what_clarabel_finds(name):
    made, path = path_of(name)
    for k in range(4):
        zoo.recheck(made, path.lams[k], path[k])
        value, _ = reference.solve_with_clarabel(
            made.X, made.y, made.patterns.masks, float(path.lams[k]), name
        )
        off = 2e-7 * value
        assert path[k].lower - off <= value <= path[k].upper + off


@every_loss("absolute")
def test_lambda_max_from_both_sides(name):
    made, _ = path_of(name)
    lower, upper = jr.lambda_max_interval(made)
    assert 0 < lower <= upper <= lower * (1 + 1e-6)
    ends = jr.solve_path(made, [1.001 * upper, 0.98 * lower], rtol=1e-9)
    # What is left is worth less than the tolerance.
    assert np.abs(ends[0].weights).max() <= 1e-6 * np.abs(ends[1].weights).max()


@pytest.mark.slow
def test_lambda_max_where_all_targets_but_one_are_zero():
    """The box of residuals is large, and sign(0) = 0 far from the best of them."""
    X, _ = zoo.data(24)
    y = np.zeros(len(X))
    y[3] = 1.0
    made = zoo.program(X, y, loss=jr.AbsoluteLoss())
    lower, upper = jr.lambda_max_interval(made)
    naive = float(jr.lambda_max(zoo.program(X, y)))
    assert upper <= 1.0001 * naive
    assert 0 < lower <= upper <= lower * (1 + 1e-6)
    below = np.abs(jr.solve(made, 0.99 * lower).weights).max()
    assert below > 1e-3
    assert np.abs(jr.solve(made, 1.001 * upper).weights).max() <= 1e-6 * below


def test_lambda_max_of_targets_that_are_all_zero():
    X, _ = zoo.data(24)
    made = zoo.program(X, np.zeros(len(X)), loss=jr.AbsoluteLoss())
    assert float(jr.lambda_max(made)) == 0.0


def test_lambda_max_in_a_trace_is_known_without_kinks_at_zero():
    with_ties, _ = path_of("absolute")
    moved = replace(with_ties, y=with_ties.y + 0.01)
    largest = jax.jit(jr.lambda_max)
    np.testing.assert_allclose(largest(moved), jr.lambda_max(moved), rtol=1e-6)
    assert np.isnan(largest(with_ties))


@every_loss("absolute")
def test_certify_takes_a_residual_or_finds_one(name):
    made, path = path_of(name)
    answer = path[2]
    for options in ({"residual": answer.residual}, {}):
        proof = jr.certify(made, answer.lam, answer.weights, **options)
        assert proof.lower <= answer.upper * (1 + 1e-12)
        assert proof.gap <= 3e-6 * answer.upper
    assert jr.certify(made, answer.lam, 0.5 * answer.weights).lower <= answer.upper
    # A vector from anywhere proves what it proves.
    wild = jr.certify(made, answer.lam, answer.weights, residual=3.0 * made.X[:, 0])
    assert wild.lower <= answer.upper


@every_loss("absolute")
def test_kkt_residual_takes_the_residual(name):
    made, path = path_of(name)
    fine = jr.solve_path(made, [path.lams[2]], rtol=1e-11, init=path[2])[0]
    found = jr.kkt_residual(made, fine.lam, fine.weights, residual=fine.residual)
    assert max(map(float, found)) <= 1e-4
    with pytest.raises(ValueError, match="pass residual=solution.residual"):
        jr.kkt_residual(made, fine.lam, fine.weights)


@every_loss()
def test_grid_and_float32(name, single):
    made, path = path_of(name)
    grid = jr.solve_grid(made, path.lams)
    for k in range(4):
        zoo.recheck(made, path.lams[k], zoo.row(grid, k))
    small = single(jax.tree.map(np.asarray, made))
    lams = np.asarray(path.lams, np.float32)
    for k, answer in enumerate(jr.solve_path(small, lams)[j] for j in range(4)):
        assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
        assert float(answer.lower) <= float(path.upper[k]) * (1 + 1e-6)
        assert float(answer.upper) >= float(path.lower[k]) * (1 - 1e-6)


@pytest.mark.slow
def test_a_fan_of_quantiles_is_one_vmap():
    made, path = path_of("quantile")
    qs = jnp.asarray([0.05, reference.QUANTILE, 0.9])

    def answer(q):
        return jr.solve(replace(made, loss=jr.QuantileLoss(q)), path.lams[3])

    together = jax.jit(jax.vmap(answer))(qs)
    assert np.all(together.status == jr.Status.OPTIMAL)
    np.testing.assert_allclose(together.upper[1], path.upper[3], rtol=2e-6)
    below = np.mean(np.asarray(made.y)[None] <= np.asarray(together.fit), axis=1)
    assert np.all(np.diff(below) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hinge", "quantile"])
def test_derivatives_of_the_value(name):
    """By data, weights of samples, q and lam, against differences; nothing else has any."""
    made, path = path_of(name)
    lam, rng = float(path.lams[2]), np.random.default_rng(0)
    q = jnp.asarray(reference.QUANTILE)

    def value(X, y, weight, q, lam, rtol=1e-6):
        loss = made.loss if name == "hinge" else jr.QuantileLoss(q)
        moved = replace(made, X=X, y=y, sample_weight=weight, loss=loss)
        return jr.solve(moved, lam, rtol=rtol).upper

    point = [jnp.asarray(made.X), jnp.asarray(made.y), jnp.asarray(made.sample_weight), q,
             jnp.asarray(lam)]  # fmt: skip
    slopes = jax.grad(value, argnums=range(5))(*point)
    for k in range(5):
        if name == "hinge" and k in (1, 3):
            continue
        direction = rng.standard_normal(point[k].shape)
        ends = [
            float(value(*[p + side * 1e-6 * direction if j == k else p
                          for j, p in enumerate(point)], rtol=1e-12))
            for side in (1.0, -1.0)
        ]  # fmt: skip
        difference = (ends[0] - ends[1]) / 2e-6
        along = float(jnp.sum(slopes[k] * direction))
        np.testing.assert_allclose(along, difference, rtol=1e-4, atol=1e-4)
    by_fit = jax.grad(lambda lam: jnp.sum(jr.solve(made, lam).fit))(lam)
    assert np.isnan(by_fit)


@every_loss()
def test_refine_certify_global_and_improve(name):
    made, path = path_of(name)
    lam = float(path.lams[2])
    refined = jr.refine(made, lam, max_rounds=2)
    assert refined.lower <= refined.upper <= path.upper[2] * (1 + 1e-6)
    network = jr.to_network(made, path[2])
    proof = jr.certify_global(network, made.X, made.y, lam, made.loss, max_seconds=5.0)
    assert proof.lower <= path.upper[2]
    np.testing.assert_allclose(proof.upper, path.upper[2], rtol=1e-6)
    better = jr.improve(network, made.X, made.y, lam, made.loss)
    assert better.objective <= better.objective_before * (1 + 1e-9)


@every_loss()
def test_skip_and_weights_of_blocks(name):
    made, path = path_of(name)
    weights = zoo.unequal_weights(made.block_shape, 3)
    for changes in ({"block_weights": weights}, {"skip": True}):
        other, lam = replace(made, **changes), float(path.lams[2])
        answer = jr.solve(other, lam)
        value, _ = reference.solve_with_clarabel(
            made.X, made.y, made.patterns.masks, lam, name, block_weights=other.block_weights,
            skip=other.skip,
        )  # fmt: skip
        assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
        assert answer.lower - 2e-7 * value <= value <= answer.upper + 2e-7 * value


def test_what_needs_the_fit_to_say_its_residual_is_refused():
    made, path = path_of("absolute")
    answer, network = path[2], jr.to_network(made, path[2])
    calls = [
        lambda: jr.optimal_set(made, answer),
        lambda: jr.follow_path(made, answer.lam),
        lambda: jr.sensitivity(made, answer),
        lambda: jr.stationarity(network, made.X, made.y, answer.lam, made.loss),
        lambda: jr.descend(network, network, made.X, made.y, answer.lam, made.loss),
        lambda: jr.prune(network, made.X, made.y, to=1, loss=made.loss),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="at a kink of AbsoluteLoss it does not"):
            call()
    with pytest.raises(ValueError, match="that of AbsoluteLoss is not: leave solver out"):
        jr.solve(made, answer.lam, solver=jr.ADMM())


@SLOW
@pytest.mark.parametrize("name", list(BUILDS))
@pytest.mark.parametrize("kind", ["skip", "cones", "bias and skip", "gated"])
def test_lambda_max_beside_what_is_not_penalised(name, kind):
    """At the best fit of that, which is a linear program; its dual vectors are many."""
    made, _ = path_of(name)
    weights = np.ones(made.block_shape)
    if kind == "cones":
        weights[0, 1] = weights[1, 3] = 0.0
        weights[0, 2] = 3.0
        made = replace(made, block_weights=weights)
    elif kind == "gated":
        made = jr.GatedProgram(made.X, made.y, made.patterns, made.loss, skip=True)
    elif kind == "skip":
        made = replace(made, skip=True)
    else:
        patterns = jr.sample_patterns(jax.random.key(0), made.X, 20, bias="free")
        made = replace(made, patterns=patterns, bias="free", skip=True)
    lower, upper = map(float, jr.lambda_max_interval(made))
    assert 0 < lower <= upper <= lower * (1 + 1e-6)
    above, below = jr.solve(made, 1.001 * upper, rtol=1e-8), jr.solve(made, 0.95 * lower)
    penalised = weights > 0 if kind == "cones" else np.ones(made.block_shape, bool)
    sizes = [np.abs(np.asarray(s.weights)[penalised]).max() for s in (above, below)]
    assert sizes[0] <= 1e-6 * sizes[1]
    # From there on a larger lam costs nothing more.
    assert jr.solve(made, 10.0 * upper).lower <= above.upper


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OwnAbsolute:
    """A loss with kinks that does not say that it has two slopes."""

    smoothness = math.inf
    value = staticmethod(jr.AbsoluteLoss().value)
    gradient = staticmethod(jr.AbsoluteLoss().gradient)
    conjugate = staticmethod(jr.AbsoluteLoss().conjugate)
    check_target = staticmethod(jr.AbsoluteLoss().check_target)
    prox = staticmethod(jr.AbsoluteLoss().prox)
    slopes = staticmethod(jr.AbsoluteLoss().slopes)


def test_lambda_max_of_any_kinks_beside_a_skip_connection_is_refused():
    made, _ = path_of("absolute")
    other = replace(made, loss=OwnAbsolute(), skip=True)
    with pytest.raises(ValueError, match="is not known where blocks are not penalised"):
        jr.lambda_max(other)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data beside the repository")
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("hinge", "uci/fertility"), ("hinge", "uci/blood"), ("hinge", "uci/haberman-survival"),
        ("absolute", "regression/yacht"), ("absolute", "regression/concreteslump"),
        ("absolute", "regression/machine-cpu"),
        ("quantile", "regression/yacht"), ("quantile", "regression/concreteslump"),
        ("quantile", "regression/machine-cpu"),
    ],
)  # fmt: skip
def test_real_data_against_an_independent_solver(name, table):
    rows = np.loadtxt(DATA / f"{table}.csv.gz", delimiter=",", skiprows=1)
    X, y = rows[:, :-1], rows[:, -1]
    X = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(len(X))])
    y = y if name == "hinge" else (y - y.mean()) / y.std()
    patterns = jr.sample_patterns(jax.random.key(0), X, 60)
    made = jr.ConvexProgram(X, y, patterns, BUILDS[name]().loss)
    lams = jr.lambda_grid(made, num=20, ratio=0.01)
    path = jr.solve_path(made, lams)
    assert np.all(np.asarray(path.status) == jr.Status.OPTIMAL)
    for k in (5, 11, 17):
        value, _ = reference.solve_with_clarabel(X, y, patterns.masks, float(lams[k]), name)
        off = 2e-7 * abs(value)
        assert path[k].lower - off <= value <= path[k].upper + off
