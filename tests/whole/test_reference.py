"""The twins agree with closed forms, with each other and with brute force."""

import numpy as np
import pytest
import reference

# Two rows at 120 degrees, y = (t, t): every optimum has value 2 lam t - lam^2.
X = np.asarray([[1.0, 0.0], [-0.5, np.sqrt(0.75)]])
Y = np.asarray([2.0, 2.0])
MASKS = np.asarray([[1, 0, 1], [0, 1, 1]])
LAM = 0.5
OPTIMUM = 1.75


def test_brute_force_finds_the_closed_form():
    value, hidden, output = reference.train_network(X, Y, LAM, width=3, restarts=10)
    np.testing.assert_allclose(value, OPTIMUM, rtol=1e-10)
    np.testing.assert_allclose(
        reference.network_objective(X, Y, LAM, hidden, output), value, rtol=1e-12
    )


def test_certificate_of_the_closed_form():
    residual = np.full(2, LAM)
    assert abs(reference.dual_excess(X, MASKS, residual, LAM)) < 1e-12
    np.testing.assert_allclose(reference.dual_value(residual, Y), OPTIMUM, rtol=1e-14)
    assert reference.dual_excess(X, MASKS, 1.01 * residual, LAM) > 0.009
    weights = np.zeros((2, 3, 2))
    weights[0, 0], weights[0, 1] = 1.5 * X[0], 1.5 * X[1]
    np.testing.assert_allclose(reference.relu_objective(X, Y, MASKS, LAM, weights), OPTIMUM)
    assert reference.cone_violation(X, MASKS, weights) == 0
    weights[0, 0] = -X[0]
    np.testing.assert_allclose(reference.cone_violation(X, MASKS, weights), 1.0)


def test_projection_on_a_cone(rng):
    data, mask = rng.standard_normal((5, 3)), np.asarray([1, 0, 0, 1, 1])
    K = reference.cone_matrix(data, mask)
    for point in rng.standard_normal((5, 3)):
        q, multipliers = reference.project_cone(point, data, mask)
        assert (K @ q >= -1e-12).all()
        assert (multipliers >= 0).all()
        np.testing.assert_allclose(multipliers @ (K @ q), 0, atol=1e-12)


def test_lambda_max_of_two_rows():
    # t max(1, ||x1 + x2||) with ||x1 + x2|| = 1; logistic halves the residual at zero.
    np.testing.assert_allclose(reference.lambda_max(X, Y, MASKS), 2.0, rtol=1e-12)
    value = reference.lambda_max(X, np.ones(2), MASKS, loss="logistic")
    np.testing.assert_allclose(value, 0.5, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("gated", [False, True])
def test_clarabel_against_the_dual_bound(rng, loss, gated):
    pytest.importorskip("cvxpy")
    data = rng.standard_normal((5, 2))
    y, weight = np.sign(rng.standard_normal(5)), rng.uniform(0.5, 2, 5)
    masks = np.unique(data @ rng.standard_normal((2, 100)) >= 0, axis=1)
    lam = 0.1 * reference.lambda_max(data, y, masks, loss, gated, weight)
    value, weights = reference.solve_with_clarabel(data, y, masks, lam, loss, gated, weight)
    fit = (reference.gated_fit if gated else reference.relu_fit)(data, masks, weights)
    residual = reference.loss_residual(fit, y, loss, weight)
    assert abs(reference.dual_excess(data, masks, residual, lam, gated)) < 1e-4
    np.testing.assert_allclose(reference.dual_value(residual, y, loss, weight), value, rtol=1e-4)
    evaluate = reference.gated_objective if gated else reference.relu_objective
    np.testing.assert_allclose(
        evaluate(data, y, masks, lam, weights, loss, weight), value, rtol=1e-8
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_brute_force_against_clarabel_with_all_patterns(rng, loss):
    pytest.importorskip("cvxpy")
    data, y = rng.standard_normal((4, 2)), np.sign(rng.standard_normal(4))
    masks = np.unique(data @ rng.standard_normal((2, 500)) >= 0, axis=1)
    lam = 0.2 * reference.lambda_max(data, y, masks, loss)
    convex = reference.solve_with_clarabel(data, y, masks, lam, loss)[0]
    value = reference.train_network(data, y, lam, width=4, loss=loss, restarts=16)[0]
    np.testing.assert_allclose(value, convex, rtol=1e-6)
