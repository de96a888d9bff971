"""Splines: least norms, optimality by duality, biases and constants."""

import numpy as np
import pytest
from closed_form_checks import LAM, circle, seen, solved

import jaxrelu as jr
from jaxrelu import closed_form
from jaxrelu.closed_form.dictionary import Columns, least_polar


def points(rng, n=6):
    x = np.sort(rng.standard_normal(n)) * 2
    return x, rng.standard_normal(n)


def test_spline_norm_known_answer():
    x, y = np.arange(-2.0, 3.0), np.asarray([1.0, -1.0, 1.0, 1.0, -1.0])
    assert closed_form.spline_norm(x, y) == 8.0
    found = closed_form.spline(x, y)
    np.testing.assert_allclose([found.value, found.lower], 8.0, rtol=1e-10)
    np.testing.assert_allclose(found(x), y, atol=1e-10)
    assert closed_form.spline_norm(x[:1], y[:1]) == 0.0
    assert closed_form.spline_norm(x[:2], y[:2]) == 2.0  # slope of a line


def test_spline_norm_is_the_least_norm(rng):
    larger = 0
    for k in range(12):
        x, y = points(rng, 2 + k % 6)
        y = np.sort(y) if k % 3 == 0 else y
        found = closed_form.spline(x[::-1], y[::-1])
        norm = closed_form.spline_norm(x, y)
        np.testing.assert_allclose(found.value, norm, rtol=1e-8)
        np.testing.assert_allclose(found.lower, norm, rtol=1e-8)
        np.testing.assert_allclose(found(x), y, atol=1e-9)
        slopes = np.diff(y) / np.diff(x)
        larger += norm > np.sum(np.abs(np.diff(slopes))) * (1 + 1e-9)
        np.testing.assert_allclose(closed_form.spline_norm(3 * x, 2 * y), norm * 2 / 3, rtol=1e-12)
    assert larger >= 3  # the end slopes do count


def check_spline(found, x, y, lam, free_bias):
    """The bounds meet, and no kink anywhere has a larger correlation; Python floats alone."""
    np.testing.assert_allclose(found(x), found.fit, atol=1e-10)
    np.testing.assert_allclose(found.residual, y - np.asarray(found.fit), atol=1e-10)
    hidden, output = np.asarray(found.network.hidden), np.asarray(found.network.output)
    cost = np.linalg.norm(hidden[:-1] if free_bias else hidden, axis=0) @ np.abs(output)
    value = 0.5 * np.sum((np.asarray(found.fit) - y) ** 2) + lam * cost
    np.testing.assert_allclose(found.value, value, rtol=1e-10)
    assert abs(found.gap) <= 1e-9 * found.value
    r = np.asarray(found.residual)
    if free_bias:
        t = np.linspace(x.min() - 1, x.max() + 1, 4001)
        features = np.maximum(np.stack([x[:, None] - t, t - x[:, None]]), 0.0)
        assert np.max(np.abs(np.einsum("snk,n->sk", features, r))) <= lam * (1 + 1e-9)
    else:
        u = circle()
        ones = np.stack([x, np.ones_like(x)], axis=1)
        assert np.max(np.abs(r @ seen(ones, u))) <= lam * (1 + 1e-9)


@pytest.mark.parametrize("lam", [0.01, 0.3])
def test_splines_of_a_free_bias_are_optimal(rng, lam):
    for n in (2, 6, 15):
        x, y = points(rng, n)
        found = closed_form.spline(x, y, lam)
        check_spline(found, x, y, lam, free_bias=True)
        np.testing.assert_allclose(np.sum(found.residual), 0.0, atol=1e-10)
        inside = np.asarray(found.knots)
        assert np.all(np.min(np.abs(inside[:, None] - x[None]), axis=1, initial=9.0) < 1e-9)


LOSSES = {
    "huber": jr.HuberLoss(np.asarray(0.3)),
    "logistic": jr.LogisticLoss(),
    "absolute": jr.AbsoluteLoss(),
    "hinge": jr.HingeLoss(),
    "quantile": jr.QuantileLoss(np.asarray(0.2)),
}


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("bias", ["free", "none"])
def test_splines_of_other_losses_are_optimal(rng, name, bias):
    """The dual value at the residual is the value, and no kink anywhere correlates more."""
    for n in (4, 15):
        x, y = points(rng, n)
        if name in ("logistic", "hinge"):
            y = np.where(y > 0, 1.0, -1.0)
            y[:2] = 1.0, -1.0  # of equal labels no constant is the best
        loss = LOSSES[name]
        found = closed_form.spline(x, y, 0.1, loss=loss, bias=bias)
        np.testing.assert_allclose(found(x), found.fit, atol=1e-9)
        cost = np.abs(np.asarray(found.network.hidden)[0]) @ np.abs(found.network.output)
        value = float(np.sum(loss.value(found.fit, y))) + 0.1 * cost
        np.testing.assert_allclose(found.value, value, rtol=1e-8, atol=1e-12)
        assert -1e-12 <= found.gap <= 1e-8 * max(found.value, 1e-3)
        r = np.asarray(found.residual)
        low = np.sum(-np.asarray(loss.conjugate(-(1 - 1e-9) * r, y)))
        assert low >= found.value - 1e-6 * max(found.value, 1e-3)
        assert abs(np.sum(r)) <= 1e-8 * np.sum(np.abs(r))
        t = np.linspace(x.min() - 1, x.max() + 1, 4001) if bias == "free" else np.zeros(1)
        features = np.maximum(np.stack([x[:, None] - t, t - x[:, None]]), 0.0)
        assert np.max(np.abs(np.einsum("snk,n->sk", features, r))) <= 0.1 * (1 + 1e-7)


def test_a_constant_may_be_far_away():
    x = np.linspace(-1.0, 1.0, 9)
    near = closed_form.spline(x, np.abs(x), 0.1, loss=LOSSES["huber"])
    far = closed_form.spline(x, 100.0 + np.abs(x), 0.1, loss=LOSSES["huber"])
    np.testing.assert_allclose([far.value, far.lower], near.value, rtol=1e-6)


def test_the_matrix_of_a_spline_is_its_program(rng):
    """A lasso over the columns, by Clarabel, has the value of the spline."""
    import cvxpy as cp

    x, y = points(rng, 8)
    F = np.asarray(closed_form.spline_matrix(x))
    a, c = cp.Variable(F.shape[1]), cp.Variable()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ a + c - y) / 2 + LAM * cp.norm1(a)))
    problem.solve(solver=cp.CLARABEL, tol_gap_rel=1e-10, tol_gap_abs=1e-10)
    np.testing.assert_allclose(closed_form.spline(x, y, LAM).value, problem.value, rtol=1e-7)
    twice = closed_form.spline_matrix(np.repeat(x, 2))
    assert twice.shape == (16, F.shape[1])


def test_other_losses_ask_for_a_lam(rng):
    x, y = points(rng)
    with pytest.raises(ValueError, match="interpolants have no loss"):
        closed_form.spline(x, y, loss=LOSSES["absolute"])
    with pytest.raises(ValueError, match="penalised bias is solved"):
        closed_form.spline(x, y, 0.1, loss=LOSSES["absolute"], bias="penalised")


@pytest.mark.parametrize("constant", [True, False])
def test_splines_of_a_penalised_bias_are_optimal(rng, constant):
    for n in (2, 6, 15):
        x, y = points(rng, n)
        found = closed_form.spline(x, y, LAM, bias="penalised", constant=constant)
        check_spline(found, x, y, LAM, free_bias=False)
        if constant:
            np.testing.assert_allclose(np.sum(found.residual), 0.0, atol=1e-10)


def test_a_penalised_bias_is_a_column_of_ones(rng):
    x, y = points(rng)
    found = closed_form.spline(x, y, LAM, bias="penalised", constant=False)
    value, fit = solved(np.stack([x, np.ones_like(x)], axis=1), y, LAM)
    np.testing.assert_allclose(found.value, value, rtol=1e-8)
    np.testing.assert_allclose(found.fit, fit, atol=1e-6)
    assert float(found.constant) == 0.0


def test_a_free_bias_is_the_limit_of_cheaper_ones(rng):
    x, y = points(rng)
    free = closed_form.spline(x, y, LAM)
    apart = []
    for scale in (1e1, 1e2, 1e3):
        # Cost ||(w, b / scale)||.
        near = closed_form.spline(x / scale, y, LAM / scale, bias="penalised")
        apart.append(near.value - free.value)
    assert apart[0] > apart[1] > apart[2] >= -1e-12
    assert apart[2] < 2e-4 * apart[0]  # of second order: a constant is free in both
    norm = closed_form.spline(x, y).value
    near = closed_form.spline(x / 1e3, y, bias="penalised").value / 1e3
    np.testing.assert_allclose(near, norm, rtol=1e-4)
    np.testing.assert_allclose(closed_form.spline(x, y, 1e-7).value / 1e-7, norm, rtol=1e-4)


@pytest.mark.parametrize("bias", ["free", "penalised", "none"])
def test_constants_cost_nothing_with_an_output_constant(rng, bias):
    x, y = points(rng)
    found = closed_form.spline(x, y, LAM, bias=bias)
    moved = closed_form.spline(x, y + 5.0, LAM, bias=bias)
    np.testing.assert_allclose(moved.value, found.value, rtol=1e-9)
    np.testing.assert_allclose(moved.constant, found.constant + 5.0, rtol=1e-6)
    flat = closed_form.spline(x, np.full(6, 2.0), bias=bias)
    assert flat.value == 0.0
    np.testing.assert_allclose(flat(x), 2.0, rtol=1e-12)


def test_a_free_bias_without_the_constant(rng):
    x = np.asarray([-1.0, 0.0, 2.0])
    y = x + 7.0
    found = closed_form.spline(x, y, LAM, constant=False)
    assert float(found.constant) == 0.0
    np.testing.assert_allclose(found.value, closed_form.spline(x, y, LAM).value, rtol=1e-12)
    check_spline(found, x, y, LAM, free_bias=True)
    with pytest.raises(ValueError, match="constant=True"):
        closed_form.spline(x, np.ones(3), LAM, constant=False)


def test_constants_from_kinks_at_the_samples_cost_a_slope_both_ways(rng):
    """Without output constant and kinks elsewhere, 2 |c| / (x_n - x_1)."""
    x, c = np.sort(rng.standard_normal(5)), 3.0
    kinks = [np.maximum(s * (x[:, None] - x[None]), 0.0) for s in (1.0, -1.0)]
    found = least_polar(
        Columns(np.zeros((2, 10)), np.hstack(kinks), np.arange(10)), np.full((1, 5), c), np.ones(1)
    )
    np.testing.assert_allclose(1 / found.upper, 2 * c / (x[-1] - x[0]), rtol=1e-8)


@pytest.mark.parametrize("bias", ["free", "penalised", "none"])
def test_one_point_and_equal_points(bias):
    one = closed_form.spline(np.ones(1), np.asarray([3.0]), LAM, bias=bias)
    np.testing.assert_allclose(one(np.ones(1)), 3.0, rtol=1e-12)
    assert one.value == 0.0
    assert closed_form.spline(np.ones(1), np.asarray([3.0]), bias=bias).value == 0.0
    x, y = np.asarray([1.0, 1.0, 2.0]), np.asarray([0.0, 4.0, 8.0])
    twice = closed_form.spline(x, y, LAM, bias=bias)
    np.testing.assert_allclose(twice.fit[0], twice.fit[1], rtol=1e-12)
    assert abs(twice.gap) <= 1e-9 * twice.value
    zero = closed_form.spline(x, 0.0 * y, bias=bias, constant=False)
    assert (zero.value, zero.network.num_neurons) == (0.0, 0)


def test_splines_without_a_bias_are_rank_one(rng):
    x, y = points(rng)
    known = closed_form.rank_one(x[:, None], y, LAM)
    found = closed_form.spline(x, y, LAM, bias="none", constant=False)
    np.testing.assert_allclose(found.value, known.value, rtol=1e-12)
    np.testing.assert_allclose(found.fit, known.fit, atol=1e-12)
    np.testing.assert_allclose(found.knots, 0.0)
    with pytest.raises(ValueError, match="interpolates"):
        closed_form.spline(x, y, bias="none")
    kinked = np.maximum(x, 0.0) - 3 * np.maximum(-x, 0.0)
    exact = closed_form.spline(x, kinked, bias="none", constant=False)
    np.testing.assert_allclose([exact.value, exact.lower], 4.0, rtol=1e-9)


@pytest.mark.parametrize("bias", ["free", "penalised", "none"])
def test_data_on_a_line_are_one_feature(rng, bias):
    c, y = points(rng)
    a = np.asarray([2.0, -1.0, 2.0])
    wide = closed_form.spline(np.outer(c, a), y, LAM, bias=bias)
    flat = closed_form.spline(3.0 * c, y, LAM, bias=bias)
    np.testing.assert_allclose(wide.value, flat.value, rtol=1e-9)
    np.testing.assert_allclose(wide(np.outer(c, a)), flat(3.0 * c), atol=1e-6)
    assert wide.network.hidden.shape[0] == 4


def test_interpolation_with_a_penalised_bias(rng):
    for n in (2, 5, 9):
        x, y = points(rng, n)
        found = closed_form.spline(x, y, bias="penalised", constant=False)
        np.testing.assert_allclose(found(x), y, atol=1e-7)
        assert 0 <= found.gap + 1e-9 * found.value <= 1e-6 * found.value
        ones = np.stack([x, np.ones_like(x)], axis=1)
        assert np.max(np.abs(np.asarray(found.residual) @ seen(ones, circle()))) <= 1 + 1e-9
        np.testing.assert_allclose(y @ np.asarray(found.residual), found.lower, rtol=1e-12)
