"""Data of rank one: the formula, the solver, other losses."""

import jax.numpy as jnp
import numpy as np
import pytest
from closed_form_checks import LAM, Hidden, check, solved

import jaxrelu as jr
from jaxrelu import closed_form


def test_rank_one_by_the_formula_and_by_the_solver(rng):
    c, a = rng.standard_normal(6), np.asarray([1.0, -2.0, 0.5])
    X, y = np.outer(c, a), rng.standard_normal(6) + np.sign(c)
    found = closed_form.rank_one(X, y, LAM)
    expected = np.zeros(6)
    for phi in (np.maximum(c, 0), np.maximum(-c, 0)):
        phi = phi * np.linalg.norm(a)
        expected += phi * np.sign(phi @ y) * max(abs(phi @ y) - LAM, 0) / (phi @ phi)
    np.testing.assert_allclose(found.fit, expected, atol=1e-12)
    check(found, X, y, LAM)
    value, fit = solved(X, y, LAM)
    np.testing.assert_allclose(found.value, value, rtol=1e-8)
    np.testing.assert_allclose(found.fit, fit, atol=1e-7)


def test_rank_one_other_losses_and_scales(rng):
    c = rng.standard_normal(6)
    X, y = np.outer(c, [3.0, 4.0]), rng.standard_normal(6)
    known = closed_form.rank_one(X, y, LAM)
    root = closed_form.rank_one(X, y, LAM, Hidden(jr.SquaredLoss()))
    np.testing.assert_allclose(root.fit, known.fit, rtol=1e-12)
    one = closed_form.rank_one(5.0 * c[:, None], y, LAM)
    np.testing.assert_allclose(one.value, known.value, rtol=1e-12)
    scaled = closed_form.rank_one(7.0 * X, y, 7.0 * LAM)
    np.testing.assert_allclose(scaled.fit, known.fit, rtol=1e-12)
    for loss in (jr.LogisticLoss(), jr.HuberLoss(jnp.asarray(0.5))):
        labels = np.where(y > 0, 1.0, -1.0)
        check(closed_form.rank_one(X, labels, 0.05, loss), X, labels, 0.05, loss)


def test_opposite_rows_known_answer():
    # Two neurons, one a sample: sum of lam y_i - lam^2 / 2.
    X, y = np.asarray([[1.0], [-1.0]]), np.asarray([1.0, 2.0])
    found = closed_form.rank_one(X, y, 0.1)
    np.testing.assert_allclose(found.value, 0.29, rtol=1e-12)
    # They are not spike-free: the program with the one pattern D = I has the cone {0}.
    one = jr.Patterns(np.zeros((1, 1)), np.ones((2, 1), bool), np.zeros((1, 1)))
    solution = jr.solve(jr.ConvexProgram(X, y, one), 0.1)
    np.testing.assert_allclose(solution.certificate.lower, 2.5, rtol=1e-6)
    np.testing.assert_allclose(solution.certificate.upper, 2.5, rtol=1e-6)


@pytest.mark.slow  # compiles the solver
@pytest.mark.parametrize("loss", [jr.LogisticLoss(), jr.HuberLoss(jnp.asarray(0.5))])
def test_rank_one_against_the_solver_for_other_losses(loss):
    rng = np.random.default_rng(3)
    X, y = np.outer(rng.standard_normal(6), [0.6, 0.8]), rng.choice([-1.0, 1.0], 6)
    found = closed_form.rank_one(X, y, 0.05, loss)
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X), loss)
    certificate = jr.solve(program, 0.05, rtol=1e-8).certificate
    assert certificate.lower <= found.value * (1 + 1e-9)
    assert found.value <= certificate.upper * (1 + 1e-9)
