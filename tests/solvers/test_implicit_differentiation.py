"""Derivatives through `solve`: against differences of tight solves, in both modes."""

from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.solvers import implicit_differentiation as implicit

STEP = 1e-5
TIGHT = {"rtol": 1e-12, "atol": 0.0}
QUICK = [zoo.generic]
SLOW = [zoo.gated, zoo.logistic, zoo.huber, zoo.more_features_than_samples]

AMBIGUOUS = [zoo.logistic, zoo.more_features_than_samples]


def answer(program, parameters):
    X, y, weight, loss, lam = parameters
    program = replace(program, X=X, y=y, sample_weight=weight, loss=loss)
    return jr.solve(program, lam, **TIGHT)


@partial(jax.jit, static_argnames="slots")
def tangent_of(program, lam, solution, change, slots=32):
    return implicit.tangent(program, lam, solution, change, slots, None)


def point_and_direction(build):
    """The parameters of a problem, and a random change of all of them at once."""
    problem = zoo.problem(build)
    program, lam = problem.program, problem.lams(0.1)[0]
    rng = np.random.default_rng(0)
    point = (program.X, program.y, program.sample_weight, program.loss, np.asarray(lam))
    change = jax.tree.map(lambda a: rng.standard_normal(np.shape(a)), point)
    if isinstance(program.loss, jr.LogisticLoss):
        change = (change[0], np.zeros_like(program.y), *change[2:])
    return program, point, (*change[:4], 0.1 * change[4])


@zoo.parametrize([*QUICK, *SLOW], quick=QUICK)
def test_tangents_are_differences(build):
    program, point, change = point_and_direction(build)
    solution, tangent = jax.jvp(lambda *p: answer(program, p), point, change)
    assert float(solution.certificate.gap) < 1e-11 * float(solution.certificate.upper)
    ahead, behind = (
        answer(program, jax.tree.map(lambda a, b, s=s: a + s * STEP * b, point, change))
        for s in (1, -1)
    )
    assert int(np.count_nonzero(solution.weights)) > 0
    difference = jax.tree.map(lambda a, b: np.subtract(a, b) / (2 * STEP), ahead, behind)
    # Where the optimal weights are not unique, their derivative is not either.
    names = ("weights", "fit", "residual", "lam")
    for name in names[1:] if build in AMBIGUOUS else names:
        expected, found = getattr(difference, name), getattr(tangent, name)
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    # Values are known to their gaps, 1e-12, which the small step magnifies.
    noise = (ahead.certificate.gap + behind.certificate.gap) / (2 * STEP)
    for name in ("lower", "upper"):
        found, expected = getattr(tangent.certificate, name), difference.certificate.upper
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=noise)
    assert float(tangent.certificate.gap) == 0


@pytest.mark.slow
def test_both_modes_agree_and_batch():
    program, point, change = point_and_direction(zoo.generic)

    def value(*p):
        solution = answer(program, p)
        return jnp.sum(jnp.sin(solution.fit)) + jnp.sum(solution.weights**3)

    _, forward = jax.jvp(value, point, change)
    gradients = jax.grad(value, argnums=(0, 1, 2, 4))(*point)
    moves = (*change[:3], change[4])
    backward = sum(np.sum(g * c) for g, c in zip(gradients, moves, strict=True))
    np.testing.assert_allclose(backward, forward, rtol=1e-9)

    def by_lam(lam):
        return value(*point[:4], lam)

    lams = jnp.asarray([point[4], 3 * point[4]])
    batch = jax.jit(jax.vmap(jax.grad(by_lam)))(lams)
    np.testing.assert_allclose(batch[0], gradients[3], rtol=1e-6)
    assert abs(float(batch[1] - batch[0])) > 1e-3


@pytest.mark.slow
def test_derivative_above_lambda_max_is_that_of_zero_weights():
    problem = zoo.problem(zoo.generic)
    program, lam = problem.program, problem.lams(1.5)[0]
    value, gradient = jax.value_and_grad(
        lambda y: jr.solve(replace(program, y=y), lam).certificate.upper
    )(jnp.asarray(program.y))
    np.testing.assert_allclose(value, 0.5 * program.y @ program.y)
    np.testing.assert_allclose(gradient, program.y)


@pytest.mark.slow
def test_derivative_of_the_optimum_by_other_solvers_and_entry_points():
    problem = zoo.problem(zoo.generic)
    program, lams = problem.program, np.asarray(problem.lams(0.3, 0.1))

    def optimum(lam):
        return jr.solve(program, lam, rtol=1e-6, solver=jr.ADMM()).certificate.upper

    def along(lams):
        return jnp.sum(jr.solve_grid(program, lams, **TIGHT).certificate.lower)

    # d optimum / d lam is the sum of the norms.
    expected = [
        np.linalg.norm(jr.solve(program, lam, **TIGHT).weights, axis=-1).sum() for lam in lams
    ]
    np.testing.assert_allclose(jax.grad(along)(lams), expected, rtol=1e-8)
    np.testing.assert_allclose(jax.grad(optimum)(lams[1]), expected[1], rtol=1e-2)


@pytest.mark.slow
def test_an_answer_that_is_not_the_optimum_has_no_derivative():
    program, point, change = point_and_direction(zoo.generic)
    lam, change = point[4], implicit.Parameters(*change)
    solution = answer(program, point)
    assert np.all(np.isfinite(tangent_of(program, lam, solution, change).fit))
    loose = jr.solve(program, lam, rtol=1e-2, atol=0.0)
    swapped = replace(solution, weights=solution.weights[:, ::-1])
    for wrong in (loose, swapped):
        derivative = tangent_of(program, lam, wrong, change)
        assert np.all(np.isnan(derivative.fit))
        assert np.all(np.isnan(derivative.weights))
    # More blocks than slots: only the optimum has a derivative, by the envelope theorem.
    derivative = tangent_of(program, lam, solution, change, slots=1)
    assert np.all(np.isnan(derivative.fit))


@pytest.mark.slow
def test_an_unused_direction_of_full_correlation_leaves_no_derivative_but_that_of_the_optimum():
    # Two samples 120 degrees apart: the directions of both, or the one between, or all three. The
    # fit is y - lam near y = (2, 2); with one of them alone it would move less.
    X, y, lam = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]]), np.asarray([2.0, 2.0]), 0.5
    program = zoo.tiny(X, y)
    solution = jr.solve(program, lam, **TIGHT)
    optima = jr.optimal_set(program, solution)
    point = implicit.parameters(program, np.asarray(lam))
    change = jax.tree.map(np.zeros_like, point)._replace(y=np.eye(len(program.y))[0])

    def tangent(coefficients):
        cells = np.asarray(optima.direction_of)
        weights = np.zeros(solution.weights.shape)
        for e, a in enumerate(np.asarray(coefficients)):
            weights[tuple(np.argwhere(cells == e)[0])] = a * np.asarray(optima.directions[e])
        return tangent_of(program, lam, replace(solution, weights=weights), change)

    one = tangent(optima.fewest)
    assert np.all(np.isnan(one.fit))
    # d optimum / d y = residual = lam here.
    np.testing.assert_allclose(one.certificate.upper, lam, rtol=1e-9)
    np.testing.assert_allclose(tangent(optima.interior).fit, change.y, atol=1e-7)


@zoo.every_optimum
def test_real_problems_have_derivatives(path):
    program, lams, _ = zoo.published(path)

    @jax.jit
    def fit_by_lam(lam):
        return jax.jvp(lambda lam: jr.solve(program, lam, rtol=1e-8).fit, (lam,), (1.0,))[1]

    for lam in lams:
        expected = jr.sensitivity(program, jr.solve(program, float(lam))).fit_by_lam
        found = fit_by_lam(float(lam))
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@jax.jit
def both_modes(program, lam, rtol):
    """Outputs (k,), their derivatives (k, n + 1) by y and lam in both modes, and correlations."""
    points = np.random.default_rng(1).standard_normal((zoo.SAMPLES, zoo.FEATURES))

    def outputs(y, lam):
        solution = jr.solve(replace(program, y=y), lam, rtol=rtol, atol=0.0)
        predictions = jr.to_network(program, solution)(points)
        upper = solution.certificate.upper
        return jnp.stack([solution.fit, predictions, jnp.full_like(y, upper)]), solution

    y = jnp.asarray(program.y)
    values, linear, solution = jax.linearize(outputs, y, lam, has_aux=True)
    n = len(y)
    ahead = jax.vmap(linear)(jnp.eye(n + 1)[:, :n], jnp.eye(n + 1)[:, n])
    units = jnp.eye(values.size).reshape(values.size, *values.shape)
    by_y, by_lam = jax.vmap(jax.linear_transpose(linear, y, lam))(units)
    back = jnp.concatenate([by_y, by_lam[:, None]], axis=1).reshape(*values.shape, n + 1)
    q = jr.block_correlations(program, solution.residual)
    return Modes(values, jnp.moveaxis(ahead, 0, -1), back, q.reshape(-1, q.shape[-1]))


class Modes(NamedTuple):
    """Rows of `values` (3, n) are the fit, predictions elsewhere, and the optimum, repeated."""

    values: Any
    ahead: Any
    back: Any
    correlations: Any


@pytest.mark.slow
def test_a_wall_that_is_about_to_be_left_leaves_no_derivative_but_that_of_the_optimum():
    # y_2 = 0: the neuron of the first sample lies on the wall of the second with no multiplier. The
    # derivative of the fit there by y_2 is 0 to one side and about 1 - lam / 3 to the other.
    lam = 0.5
    program, beside = (zoo.tiny(np.eye(2), np.asarray([3.0, y])) for y in (0.0, 0.1))
    assert not jr.sensitivity(program, jr.solve(program, lam, **TIGHT)).walls_hold
    at, near = both_modes(program, lam, 1e-6), both_modes(beside, lam, 1e-6)
    for here, there in ((at.ahead, near.ahead), (at.back, near.back)):
        assert np.isnan(here[0, 1, 1])
        np.testing.assert_allclose(here[2, 0, 1], 0.0, atol=1e-9)
        np.testing.assert_allclose(there[0, 1, 1], 1 - lam / 3, atol=0.01)


@pytest.mark.slow
def test_weights_that_are_not_unique_have_no_derivative_and_their_fit_has_one():
    # Three directions of equal correlation, a polytope of weights; the fit is y - lam.
    X, y = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]]), np.asarray([2.0, 2.0])
    program = zoo.tiny(X, y)
    assert not jr.optimal_set(program, jr.solve(program, 0.5, **TIGHT)).is_unique
    found = both_modes(program, 0.5, 1e-6)
    for slopes in (found.ahead, found.back):
        np.testing.assert_allclose(slopes[0, :2, -1], -1.0)
        assert np.all(np.isnan(slopes[1, found.values[1] != 0, -1]))


@cache
def all_cells():
    """Seven samples in the plane on all their patterns."""
    rng = np.random.default_rng(2)
    return zoo.tiny(rng.standard_normal((7, 2)), rng.standard_normal(7))


def test_a_neuron_on_a_wall_has_a_derivative():
    program, lam = all_cells(), 0.3
    found = both_modes(program, lam, 1e-6)
    q = found.correlations
    tight = q[np.linalg.norm(q, axis=1) > lam * (1 - 1e-6)]
    distinct = np.unique(np.round(tight / lam, 4), axis=0)
    # Not only since patterns are repeated: the neuron belongs to the cells on both sides of a wall.
    repeated = zoo.PATTERNS - np.unique(program.patterns.masks, axis=1).shape[1]
    assert len(tight) > len(distinct) + repeated
    assert np.all(np.isfinite(found.ahead))
    np.testing.assert_allclose(found.ahead, found.back, atol=1e-9)
    ends = [both_modes(program, lam + h, 1e-12).values for h in (STEP, -STEP)]
    np.testing.assert_allclose(found.ahead[..., -1], (ends[0] - ends[1]) / (2 * STEP), atol=1e-6)


def test_derivatives_do_not_depend_on_the_tolerance():
    program = all_cells()
    expected = both_modes(program, 0.3, 1e-12).ahead
    assert np.all(np.isfinite(expected))
    for rtol in (1e-2, 1e-4, 1e-8):
        np.testing.assert_allclose(both_modes(program, 0.3, rtol).ahead, expected, atol=1e-9)


def test_where_the_first_neuron_enters_there_is_no_derivative_but_that_of_the_optimum():
    program = all_cells()
    found = both_modes(program, float(jr.lambda_max(program)), 1e-6)
    np.testing.assert_array_equal(found.values[:2], 0.0)
    for slopes in (found.ahead, found.back):
        assert np.all(np.isnan(slopes[0, :7, -1]))
        np.testing.assert_allclose(slopes[2, 0, :-1], program.y, atol=1e-9)


def test_second_derivatives_are_refused_with_a_sentence():
    program = all_cells()
    with pytest.raises(TypeError, match="solve has first derivatives only"):
        jax.make_jaxpr(jax.hessian(lambda lam: jr.solve(program, lam).certificate.upper))(0.3)
