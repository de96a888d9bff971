"""Derivatives through `solve`: against differences of tight solves, in both modes."""

from dataclasses import replace
from functools import partial

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


def test_a_wall_that_is_about_to_be_left_leaves_no_derivative_but_that_of_the_optimum():
    # y_2 = 0: the neuron of the first sample lies on the wall of the second with no multiplier. The
    # derivative of the fit there by y_2 is 0 to one side and about 1 - lam / 3 to the other.
    X, lam = np.eye(2), 0.5
    program = zoo.tiny(X, np.asarray([3.0, 0.0]))

    def answer(second):
        y = jnp.asarray(program.y).at[1].set(second)
        return jr.solve(replace(program, y=y), lam, **TIGHT)

    by_second = jax.grad(lambda second: answer(second).fit[1])
    assert not jr.sensitivity(program, answer(0.0)).walls_hold
    assert np.isnan(by_second(0.0))
    upper = jax.grad(lambda second: answer(second).certificate.upper)(0.0)
    np.testing.assert_allclose(upper, 0.0, atol=1e-9)
    np.testing.assert_allclose(by_second(0.1), 1 - lam / 3, atol=0.01)


def test_weights_that_are_not_unique_have_no_derivative_and_their_fit_has_one():
    # Three directions of equal correlation, a polytope of weights; the fit is y - lam.
    X, y = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]]), np.asarray([2.0, 2.0])
    program = zoo.tiny(X, y)

    def answer(lam):
        return jr.solve(program, lam, **TIGHT)

    assert not jr.optimal_set(program, answer(0.5)).is_unique
    assert np.isnan(jax.grad(lambda lam: jnp.sum(answer(lam).weights ** 2))(0.5))
    by_lam = jax.jit(jax.grad(lambda lam: jnp.sum(answer(lam).fit)))(0.5)
    np.testing.assert_allclose(by_lam, -2.0)
