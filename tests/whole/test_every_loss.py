"""Every loss of the package through every feature: the table of docs/losses.md, a test a cell.

What a loss is in itself is tested in tests/losses, its paths on real data by
`experiments/losses.py`; the answers here are checked by twins in NumPy (`zoo.recheck`).
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo

import jaxrelu as jr

BUILDS = {
    "squared": zoo.generic,
    "huber": zoo.huber,
    "logistic": zoo.logistic,
    "squared hinge": zoo.squared_hinge,
    "poisson": zoo.poisson,
}


def every_loss(*quick):
    """A decorator: a test by the name of a loss; those not in `quick` are slow."""
    marks = [
        pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in BUILDS
    ]
    return pytest.mark.parametrize("name", marks)


@cache
def solved(name):
    """A problem and its answer at 0.2 lambda_max."""
    problem = zoo.problem(BUILDS[name])
    (lam,) = problem.lams(0.2)
    return problem, jr.solve(problem.program, lam)


@cache
def optima(name):
    problem, solution = solved(name)
    return jr.optimal_set(problem.program, solution)


@every_loss("poisson")
def test_solve(name):
    problem, solution = solved(name)
    zoo.recheck(problem.program, problem.lams(0.2)[0], solution)


@every_loss("squared hinge", "poisson")
def test_solve_path(name):
    problem = zoo.problem(BUILDS[name])
    lams = problem.lams(1.001, 0.5, 0.1, 0.02)
    path = jr.solve_path(problem.program, lams)
    for k, lam in enumerate(lams):
        zoo.recheck(problem.program, lam, path[k])
    assert not np.any(np.asarray(path[0].weights))


DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data beside the repository")
@pytest.mark.parametrize(
    ("name", "table", "loss"),
    [
        ("huber", "regression/yacht", jr.HuberLoss(reference.HUBER_DELTA)),
        ("huber", "regression/concreteslump", jr.HuberLoss(reference.HUBER_DELTA)),
        ("huber", "regression/machine-cpu", jr.HuberLoss(reference.HUBER_DELTA)),
        ("poisson", "regression/yacht", jr.PoissonLoss()),
        ("poisson", "regression/boston-housing", jr.PoissonLoss()),
        ("poisson", "regression/concrete", jr.PoissonLoss()),
        ("squared_hinge", "uci/fertility", jr.SquaredHingeLoss()),
        ("squared_hinge", "uci/blood", jr.SquaredHingeLoss()),
        ("squared_hinge", "uci/pima", jr.SquaredHingeLoss()),
    ],
)
def test_against_an_independent_solver(name, table, loss):
    rows = np.loadtxt(DATA / f"{table}.csv.gz", delimiter=",", skiprows=1)
    if table == "regression/concrete":
        # On more rows, and on energy, Clarabel ends far above an upper value that is proved.
        rows = rows[::5]
    X, y = rows[:, :-1], rows[:, -1]
    X = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(len(X))])
    exposure = None
    if name == "huber":
        y = (y - y.mean()) / y.std()
    elif name == "poisson":
        # Counts as rates in units of their mean: fits around zero, where Clarabel is steady.
        exposure = np.full(len(y), np.round(y).mean())
        y = np.round(y) / exposure
    patterns = jr.sample_patterns(jax.random.key(0), X, 60)
    program = jr.ConvexProgram(X, y, patterns, loss, sample_weight=exposure)
    lams = jr.lambda_grid(program, num=20, ratio=0.01)
    path = jr.solve_path(program, lams, rtol=1e-8)
    # Clarabel's own digits, fewer with exponential cones.
    share = 2e-6 if name == "poisson" else 2e-7
    for k in (5, 11, 17):
        lam, masks = float(lams[k]), patterns.masks
        value, _ = reference.solve_with_clarabel(X, y, masks, lam, name, sample_weight=exposure)
        assert float(path[k].lower) - share * abs(value) <= value
        assert value <= float(path[k].upper) + share * abs(value)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data beside the repository")
@pytest.mark.parametrize("name", ["yacht", "energy"])
def test_counts_close_in_float32(name, single):
    """Blocks in slots are bounded by their own multipliers: those have to be good enough."""
    rows = np.loadtxt(DATA / "regression" / f"{name}.csv.gz", delimiter=",", skiprows=1)
    X, y = rows[:, :-1], np.round(rows[:, -1])
    X = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(len(X))])
    patterns = jax.tree.map(np.asarray, jr.sample_patterns(jax.random.key(0), X, 100))
    loss = jr.PoissonLoss(np.asarray(np.log(y.mean())))
    program = single(jr.ConvexProgram(X, y, patterns, loss))
    path = jr.solve_path(program, jr.lambda_grid(program, num=20, ratio=0.01), rtol=1e-3)
    assert np.all(np.asarray(path.status) == jr.Status.OPTIMAL)


@every_loss()
def test_solve_grid(name):
    problem = zoo.problem(BUILDS[name])
    lams = problem.lams(0.5, 0.1)
    grid = jr.solve_grid(problem.program, np.asarray(lams))
    for k, lam in enumerate(lams):
        zoo.recheck(problem.program, lam, zoo.row(grid, k))


@every_loss()
def test_certify(name):
    problem, solution = solved(name)
    program, lam = problem.program, float(solution.lam)
    rng = np.random.default_rng(0)
    for weights in (0.1 * rng.standard_normal(solution.weights.shape), solution.weights):
        proof = jr.certify(program, lam, weights)
        assert float(proof.lower) <= float(solution.upper)
        assert float(solution.lower) <= float(proof.upper)
    assert float(proof.gap) <= 1e-5 * abs(float(proof.upper))


@every_loss()
def test_kkt_residual(name):
    problem, solution = solved(name)
    at_optimum = jr.kkt_residual(problem.program, solution.lam, optima_weights(name))
    assert max(map(float, at_optimum)) <= 1e-6
    away = jr.kkt_residual(problem.program, solution.lam, 1.1 * solution.weights)
    assert float(away.stationarity) > 1e-3


def optima_weights(name):
    """Convex weights of the optimum, solved to rounding; blocks that last."""
    problem, solution = solved(name)
    exact = jr.solve_path(problem.program, [solution.lam], rtol=1e-13, init=solution)
    weights = np.asarray(exact[0].weights)
    size = np.linalg.norm(weights, axis=-1, keepdims=True)
    # A block that is next to nothing has no direction.
    return np.where(size > 1e-7 * size.max(), weights, 0.0)


@every_loss("poisson")
def test_lambda_max(name):
    problem = zoo.problem(BUILDS[name])
    largest = float(jr.lambda_max(problem.program))
    np.testing.assert_allclose(largest, problem.lambda_max, rtol=2e-6)
    path = jr.solve_path(problem.program, [1.001 * largest, 0.98 * largest], rtol=1e-9)
    assert not np.any(np.asarray(path[0].weights))
    assert np.any(np.asarray(path[1].weights))


@every_loss()
def test_float32(name, single):
    problem = zoo.problem(BUILDS[name])
    program = single(jax.tree.map(np.asarray, problem.program))
    path = jr.solve_path(program, problem.lams(0.5, 0.1), rtol=1e-3)
    assert path[0].weights.dtype == np.float32
    for k, lam in enumerate(problem.lams(0.5, 0.1)):
        zoo.recheck(program, np.float32(lam), path[k], rtol=1e-3, digits=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "values"),
    [
        ("huber", jr.HuberLoss, jnp.asarray([0.2, 0.5, 5.0])),
        ("poisson", jr.PoissonLoss, jnp.asarray([-0.5, 0.0, 0.7])),
        ("poisson", jr.PoissonLoss, 0.3 * jnp.asarray(zoo.data(0, (3, zoo.SAMPLES))[0])),
    ],
    ids=["delta", "offset", "one offset a sample"],
)
def test_vmap_over_the_parameters(name, make, values):
    program = zoo.problem(BUILDS[name]).program
    lam = 0.3 * zoo.problem(BUILDS[name]).lambda_max

    def answer(value):
        return jr.solve(replace(program, loss=make(value)), lam)

    together = jax.jit(jax.vmap(answer))(values)
    for k, value in enumerate(values):
        zoo.assert_same(zoo.row(together, k), answer(value))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "value"), [("huber", jr.HuberLoss, 0.5), ("poisson", jr.PoissonLoss, 0.2)]
)
def test_derivatives_by_the_parameters(name, make, value):
    problem = zoo.problem(BUILDS[name])
    program, (lam,) = problem.program, problem.lams(0.2)
    direction = np.random.default_rng(0).standard_normal(zoo.SAMPLES)

    def along(parameter):
        answer = jr.solve(replace(program, loss=make(parameter)), lam, rtol=1e-12)
        return jnp.sum(jnp.asarray(direction) * answer.fit)

    def end(parameter):
        moved = replace(program, loss=make(jnp.asarray(parameter)))
        return float(direction @ np.asarray(jr.solve_path(moved, [lam], rtol=1e-13)[0].fit))

    slope, step = float(jax.grad(along)(jnp.asarray(value))), 1e-5
    difference = (end(value + step) - end(value - step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


@every_loss()
def test_derivatives_of_the_value_and_of_the_fit(name):
    problem, solution = solved(name)
    program, lam = problem.program, float(solution.lam)
    direction = np.random.default_rng(1).standard_normal(program.sample_weight.shape)

    def upper(lam):
        return jr.solve(program, lam, rtol=1e-12).upper

    # The envelope theorem: the derivative by lam is the sum of the norms.
    by_lam = float(jax.grad(upper)(lam))
    exact = optima_weights(name)
    np.testing.assert_allclose(by_lam, reference.penalty(np.asarray(exact)), rtol=1e-5)

    def along(weight):
        answer = jr.solve(replace(program, sample_weight=weight), lam, rtol=1e-12)
        return jnp.sum(jnp.asarray(direction) * answer.fit)

    weight, step = jnp.asarray(program.sample_weight), 1e-5 * np.abs(direction)
    slope = float(jax.grad(along)(weight) @ jnp.asarray(step))
    ends = [
        float(np.sum(direction * jr.solve_path(moved, [lam], rtol=1e-13)[0].fit))
        for moved in (
            replace(program, sample_weight=np.asarray(weight + step)),
            replace(program, sample_weight=np.asarray(weight - step)),
        )
    ]
    np.testing.assert_allclose(slope, 0.5 * (ends[0] - ends[1]), rtol=1e-3, atol=1e-9)


@every_loss()
def test_optimal_set(name):
    problem, solution = solved(name)
    found = optima(name)
    fitted = np.asarray(found.features) @ np.asarray(found.coefficients)
    np.testing.assert_allclose(fitted, np.asarray(found.fit), atol=1e-6)
    assert jr.is_optimal(found, solution.weights, rtol=1e-2)
    network = jr.sparsest(found)
    program, lam = problem.program, float(solution.lam)
    value = jr.nonconvex_objective(
        network, program.X, program.y, lam, program.loss, program.sample_weight
    )
    np.testing.assert_allclose(value, solution.upper, rtol=1e-6)
    assert network.num_neurons <= jr.to_network(program, solution).compact().num_neurons


@every_loss()
def test_minimal(name):
    problem, solution = solved(name)
    program, lam = problem.program, float(solution.lam)
    network = jr.to_network(program, solution)
    small = jr.minimal(network, program.X)
    values = [
        jr.nonconvex_objective(one, program.X, program.y, lam, program.loss, program.sample_weight)
        for one in (network, small)
    ]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


@every_loss()
def test_improve_and_certify_global(name):
    problem, solution = solved(name)
    program, lam = problem.program, float(solution.lam)
    options = {"loss": program.loss, "sample_weight": program.sample_weight}
    rng = np.random.default_rng(0)
    start = jr.Network(0.1 * rng.standard_normal((zoo.FEATURES, 3)), np.ones(3))
    better = jr.improve(start, program.X, program.y, lam, **options)
    network = better.network
    before, after = (
        float(jr.nonconvex_objective(one, program.X, program.y, lam, **options))
        for one in (start, network)
    )
    assert after < before
    proof = jr.certify_global(network, program.X, program.y, lam, max_seconds=5.0, **options)
    assert float(proof.lower) <= after * (1 + 1e-9)
    # The optimum over these patterns is no better than that over all of them.
    assert float(proof.lower) <= float(solution.upper)


@every_loss()
def test_refine(name):
    problem, solution = solved(name)
    refined = jr.refine(problem.program, float(solution.lam), max_rounds=2)
    assert float(refined.upper) <= float(solution.upper) * (1 + 1e-6)
    assert float(refined.lower) <= float(refined.upper)


@every_loss()
def test_follow_path(name):
    problem = zoo.problem(BUILDS[name])
    path = jr.follow_path(problem.program, problem.lams(0.2)[0])
    assert path.complete
    for lam in problem.lams(0.9, 0.5, 0.21):
        zoo.recheck(problem.program, lam, path(lam))


@every_loss()
def test_admm(name):
    problem = zoo.problem(BUILDS[name])
    (lam,) = problem.lams(0.3)
    if name == "poisson":
        with pytest.raises(ValueError, match="that of PoissonLoss is not: leave solver out"):
            jr.solve(problem.program, lam, solver=jr.ADMM())
        return
    answer = jr.solve(problem.program, lam, solver=jr.ADMM(), rtol=1e-5)
    zoo.recheck(problem.program, lam, answer, rtol=1e-5)
