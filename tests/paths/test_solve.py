"""`solve`: certified answers on every kind of problem, checked without the package."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr

GENERIC = zoo.problem(zoo.generic)
FRACTIONS = (0.5, 0.1, 0.02)


@zoo.parametrize(zoo.ALL, quick=zoo.COMMON)
def test_answers_are_what_they_claim(build):
    problem = zoo.problem(build)
    for lam in problem.lams(*FRACTIONS):
        zoo.recheck(problem.program, lam, jr.solve(problem.program, lam))


@pytest.mark.slow
@pytest.mark.parametrize("features", [2, 3, 8])
def test_random_problems_by_all_three_entry_points(features):
    # In two dimensions cones are thin wedges and neurons lie on walls that cells share.
    for seed in range(4):
        X, y = zoo.data(seed, (zoo.SAMPLES, features))
        patterns = zoo.tiled(jr.sample_patterns(jax.random.key(seed), X, 24))
        problem = zoo.problem_of(zoo.program(X, y, patterns))
        lams = problem.lams(0.7, 0.5, 0.3, 0.1, 0.03)
        grid, path = jr.solve_grid(problem.program, lams), jr.solve_path(problem.program, lams)
        jr.raise_if_failed(grid)
        jr.raise_if_failed(path)
        zoo.recheck(problem.program, lams[2], zoo.row(grid, 2))
        zoo.recheck(problem.program, lams[2], path[2])


@zoo.every_optimum
def test_published_data_by_all_three_entry_points(path):
    program, lams, optima = zoo.published(path)
    along = jr.solve_path(program, lams)
    # The grid takes much memory and time for what the loop does on a CPU: one lane of it here.
    grid = jr.solve_grid(program, lams[:1])
    for k, (lam, optimum) in enumerate(zip(lams, optima, strict=True)):
        single = zoo.row(grid, 0) if k == 0 else jr.solve(program, lam)
        for answer in (single, along[k]):
            zoo.recheck(program, lam, answer)
            assert answer.certificate.lower <= optimum * (1 + 2e-7)
            assert answer.certificate.upper >= optimum * (1 - 2e-7)


def test_zero_above_lambda_max_and_not_below():
    above, below = GENERIC.lams(1.001, 0.98)
    zero = jr.solve(GENERIC.program, above)
    zoo.recheck(GENERIC.program, above, zero)
    assert int(zero.num_steps) == 0
    np.testing.assert_array_equal(zero.weights, 0.0)
    np.testing.assert_array_equal(zero.fit, 0.0)
    other = jr.solve(GENERIC.program, below)
    zoo.recheck(GENERIC.program, below, other)
    assert np.abs(other.weights).max() > 0


def test_zero_blocks_are_exactly_zero():
    # The support of a problem with one planted neuron is small; the rest is not merely tiny.
    problem = zoo.problem(zoo.planted)
    solution = jr.solve(problem.program, problem.lams(0.5)[0])
    size = np.linalg.norm(solution.weights, axis=-1)
    assert np.sum(size == 0) >= 20
    assert np.sum(size > 1e-9 * size.max()) == 1


@pytest.mark.slow
def test_default_tolerances_are_those_written_out():
    lam = GENERIC.lams(0.1)[0]
    value = zoo.loss_value(GENERIC.program, np.zeros(zoo.SAMPLES))
    atol = 50 * np.finfo(float).eps * value
    default = jr.solve(GENERIC.program, lam)
    same = jr.solve(GENERIC.program, lam, rtol=1e-6, atol=atol, max_steps=2000)
    jax.tree.map(np.testing.assert_array_equal, default, same)


def test_tolerances_are_met_and_cost_what_they_ask_for():
    lam = GENERIC.lams(0.1)[0]
    loose = jr.solve(GENERIC.program, lam, rtol=1e-2, atol=0.0)
    tight = jr.solve(GENERIC.program, lam, rtol=1e-11, atol=0.0)
    absolute = jr.solve(GENERIC.program, lam, rtol=0.0, atol=1e-2 * loose.certificate.upper)
    for answer, rtol in ((loose, 1e-2), (tight, 1e-11), (absolute, 1e-2)):
        zoo.recheck(GENERIC.program, lam, answer, rtol=rtol, digits=1e-12)
    assert max(int(loose.num_steps), int(absolute.num_steps)) < int(tight.num_steps)
    assert loose.certificate.gap > tight.certificate.gap


@pytest.mark.slow
def test_warm_start_takes_fewer_steps_to_the_same_value():
    lam, near = GENERIC.lams(0.1, 0.095)
    start = jr.solve(GENERIC.program, lam)
    cold = jr.solve(GENERIC.program, near)
    warm = jr.solve(GENERIC.program, near, init=start)
    zoo.recheck(GENERIC.program, near, warm)
    assert 2 * int(warm.num_steps) <= int(cold.num_steps)
    again = jr.solve(GENERIC.program, lam, init=start)
    assert 2 * int(again.num_steps) <= int(start.num_steps)


@pytest.mark.slow
def test_warm_start_from_far_away_is_still_certified():
    # From a solution of other data at ten times the lam, and from zeros.
    other = zoo.problem(zoo.zero_rows)
    lam = GENERIC.lams(0.05)[0]
    for start in (
        jr.solve(other.program, other.lams(0.5)[0]),
        jr.solve(GENERIC.program, GENERIC.lams(1.1)[0]),
    ):
        zoo.recheck(GENERIC.program, lam, jr.solve(GENERIC.program, lam, init=start))


def test_solution_is_arrays_alone_and_objective_is_upper():
    lam = GENERIC.lams(0.1)[0]
    solution = jr.solve(GENERIC.program, lam)
    leaves, structure = jax.tree.flatten(solution)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert solution.status.dtype == solution.num_steps.dtype == jnp.int32
    assert solution.weights.shape == (2, zoo.PATTERNS, zoo.FEATURES)
    rebuilt = jax.tree.unflatten(structure, leaves)
    assert type(rebuilt) is jr.Solution
    value = jr.objective(GENERIC.program, lam, solution.weights)
    np.testing.assert_allclose(value, solution.certificate.upper, rtol=3e-14)


@pytest.mark.slow
def test_answers_are_where_the_data_were_put():
    program, lam = GENERIC.program, GENERIC.lams(0.1)[0]
    free = jr.solve(program, lam)
    assert not free.fit.committed
    placed = jax.device_put(program, jax.devices()[-1])
    there = jr.solve(placed, lam)
    assert there.fit.committed
    assert there.fit.devices() == {jax.devices()[-1]}
    zoo.assert_same(free, there)


@pytest.mark.slow
def test_witnesses_that_are_missing_are_computed():
    # A program from gates and masks alone has the same optimum.
    lam = GENERIC.lams(0.1)[0]
    given = GENERIC.program.patterns
    program = zoo.program(
        GENERIC.program.X, GENERIC.program.y, jr.Patterns(given.gates, given.masks)
    )
    answer = jr.solve(program, lam)
    zoo.recheck(program, lam, answer)
    known = jr.solve(GENERIC.program, lam).certificate.upper
    np.testing.assert_allclose(answer.certificate.upper, known, rtol=2e-6)


@pytest.mark.parametrize("size", [10.0, 1e3])
@pytest.mark.slow
def test_a_start_far_from_the_optimum(size):
    # Its correlations are many times lam, and multipliers of that size would not come down again.
    program, lam = GENERIC.program, GENERIC.lams(0.05)[0]
    weights = size * np.random.default_rng(0).standard_normal((*program.block_shape, zoo.FEATURES))
    bounds = jr.certify(program, lam, weights)
    start = jr.solve(program, lam)
    far = replace(start, weights=bounds.weights, residual=size * start.residual)
    answer = jr.solve(program, lam, init=far)
    zoo.recheck(program, lam, answer)


@pytest.mark.slow
def test_small_lams_from_nothing():
    # Correlations are thousands of times lam when the first blocks enter.
    for seed in (1, 2, 3):
        X, y = zoo.data(seed, (8, 3))
        program = zoo.program(X, y, jr.enumerate_patterns(X))
        jr.raise_if_failed(jr.solve(program, 1e-4 * jr.lambda_max(program)))


@pytest.mark.slow
def test_a_loss_without_curvature_at_zero():
    """Huber's loss is linear at most targets: blocks once entered with lengths of 1e30."""
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0].T
    loss = jr.HuberLoss(jnp.asarray(0.5))
    patterns = jr.enumerate_patterns(X)
    for y in ([1.0, -1.0, 0.3, -0.6], [2.0, 0.1, -3.0, 0.8], [-1.0, -2.0, 5.0, 4.0]):
        solution = jr.solve(jr.ConvexProgram(X, np.asarray(y), patterns, loss), 0.3)
        assert int(solution.status) == jr.Status.OPTIMAL
        exact = jr.closed_form.whitened(X, np.asarray(y), 0.3, loss)
        np.testing.assert_allclose(solution.certificate.upper, exact.value, rtol=2e-6)
