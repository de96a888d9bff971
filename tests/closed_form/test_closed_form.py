"""Closed forms: known answers, the general solver, proofs by duality, and what they refuse."""

import doctest
import importlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu import closed_form
from jaxrelu.closed_form.answer import checked
from jaxrelu.closed_form.dictionary import Columns, least_polar, nonnegative_lasso

LAM = 0.3


@jr.register
@dataclass(frozen=True)
class Hidden:
    """A loss that the closed forms do not know: they must take the general way."""

    inner: Any

    @property
    def smoothness(self):
        return self.inner.smoothness

    def value(self, fit, target):
        return self.inner.value(fit, target)

    def gradient(self, fit, target):
        return self.inner.gradient(fit, target)

    def conjugate(self, dual, target):
        return self.inner.conjugate(dual, target)

    def check_target(self, target):
        pass


def orthonormal(rng, n, d):
    return np.linalg.qr(rng.standard_normal((d, n)))[0].T


def circle(num=20_000):
    """Unit vectors of the plane, (2, num)."""
    angle = np.linspace(0.0, 2 * np.pi, num)
    return np.stack([np.cos(angle), np.sin(angle)])


def seen(X, u):
    return np.maximum(X @ u, 0.0)


def solved(X, y, lam, rtol=1e-9):
    """The general solver on all patterns, squared loss, in the shape of the other problems."""
    solution = jr.solve(zoo.tiny(X, y), lam, rtol=rtol)
    jr.raise_if_failed(solution)
    return float(solution.certificate.upper), np.asarray(solution.fit)[: len(y)]


def check(found, X, y, lam, loss=None, digits=1e-10):
    """The network is what the answer says, and the two bounds meet."""
    loss = jr.SquaredLoss() if loss is None else loss
    np.testing.assert_allclose(found.network(X), found.fit, atol=1e-12)
    objective = float(jr.nonconvex_objective(found.network, X, y, lam, loss))
    np.testing.assert_allclose(found.value, objective, rtol=1e-12)
    np.testing.assert_allclose(found.residual, -loss.gradient(found.fit, jnp.asarray(y)), atol=1e-9)
    assert abs(found.gap) <= digits * abs(found.value)
    assert found.exact


# ------------------------------------------------------------------ whitened


def test_whitened_data_by_the_formula_and_by_the_solver(rng):
    X, y = orthonormal(rng, 4, 5), np.asarray([2.0, -1.0, 0.5, 0.4])
    found = closed_form.whitened(X, y, LAM)
    plus = np.linalg.norm([2.0, 0.5, 0.4])
    expected = np.where(y > 0, (1 - LAM / plus) * y, y * (1 - LAM))
    np.testing.assert_allclose(found.fit, expected, rtol=1e-12)
    check(found, X, y, LAM)
    value, fit = solved(X, y, LAM)
    np.testing.assert_allclose(found.value, value, rtol=1e-8)
    np.testing.assert_allclose(found.fit, fit, atol=1e-7)
    # The neurons are combinations of the samples of their sign.
    on_samples = X @ np.asarray(found.network.hidden)
    np.testing.assert_array_equal(on_samples > 1e-9, np.stack([y > 0, y < 0], axis=1))
    assert np.max(np.abs(on_samples[on_samples < 1e-9])) < 1e-12


def test_whitened_logistic_known_answer(rng):
    X, y = orthonormal(rng, 5, 7), np.asarray([1.0, -1.0, 1.0, 1.0, -1.0])
    found = closed_form.whitened(X, y, LAM, jr.LogisticLoss())
    np.testing.assert_allclose(found.value, 2.41633175, rtol=1e-8)
    check(found, X, y, LAM, jr.LogisticLoss())
    nothing = closed_form.whitened(X, y, 3**0.5 / 2, jr.LogisticLoss())
    assert nothing.network.num_neurons == 0
    np.testing.assert_allclose(nothing.value, 5 * np.log(2), rtol=1e-12)


@jr.register
@dataclass(frozen=True)
class Hinge:
    """max(0, 1 - y f), which has a kink at the margin."""

    smoothness = np.inf

    def value(self, fit, target):
        return jnp.maximum(0.0, 1.0 - target * fit)

    def gradient(self, fit, target):
        return jnp.where(target * fit < 1.0, -target, 0.0)

    def conjugate(self, dual, target):
        inside = (dual * target <= 1e-12) & (dual * target >= -1.0 - 1e-12)
        return jnp.where(inside, dual * target, jnp.inf)

    def check_target(self, target):
        pass


def test_whitened_hinge_known_answer(rng):
    X, y = orthonormal(rng, 5, 7), np.asarray([1.0, -1.0, 1.0, 1.0, -1.0])
    found = closed_form.whitened(X, y, LAM, Hinge())
    np.testing.assert_allclose(found.value, 0.94388, rtol=1e-5)
    np.testing.assert_allclose(found.value, LAM * (3**0.5 + 2**0.5), rtol=1e-12)
    np.testing.assert_allclose(found.fit, y, rtol=1e-12)
    assert found.exact
    # From lam = sqrt(number of samples) of a class on it is given up.
    for lam, value, neurons in ((1.5, 1.5 * 3**0.5 + 2, 1), (2.0, 5.0, 0), (3**0.5, 5.0, 0)):
        found = closed_form.whitened(X, y, lam, Hinge())
        np.testing.assert_allclose(found.value, value, rtol=1e-12)
        np.testing.assert_allclose(found.lower, value, rtol=1e-9)
        assert found.network.num_neurons == neurons


@pytest.mark.parametrize("name", ["squared", "logistic", "huber"])
@pytest.mark.parametrize("lam", [1e-3, 0.2])
def test_whitened_general_losses_take_the_roots(rng, name, lam):
    inner = {"squared": jr.SquaredLoss(), "logistic": jr.LogisticLoss()}.get(name)
    loss = zoo.Huber(jnp.asarray(0.5)) if inner is None else Hidden(inner)
    X, y = orthonormal(rng, 4, 4), np.asarray([1.0, -1.0, 1.0, -1.0])
    y = y if name == "logistic" else y * rng.uniform(0.1, 2.0, 4)
    found = closed_form.whitened(X, y, lam, loss)
    check(found, X, y, lam, loss)
    if inner is not None:
        known = closed_form.whitened(X, y, lam, inner)
        np.testing.assert_allclose(found.fit, known.fit, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [jr.LogisticLoss(), zoo.Huber(jnp.asarray(0.5))])
def test_whitened_against_the_solver_for_other_losses(loss):
    rng = np.random.default_rng(0)
    X, y = orthonormal(rng, 4, 4), np.asarray([0.8, -0.7, 0.6, -0.6])
    y = np.sign(y) if isinstance(loss, jr.LogisticLoss) else y
    found = closed_form.whitened(X, y, LAM, loss)
    solution = jr.solve(jr.ConvexProgram(X, y, jr.enumerate_patterns(X), loss), LAM)
    lower, upper = float(solution.certificate.lower), float(solution.certificate.upper)
    assert lower <= found.value * (1 + 1e-9)
    assert found.value <= upper * (1 + 1e-9)
    assert jr.Status(int(solution.status)) is jr.Status.OPTIMAL


def test_whitened_metamorphic(rng):
    X, y = orthonormal(rng, 4, 6), rng.standard_normal(4)
    found = closed_form.whitened(X, y, LAM)
    turned = closed_form.whitened(X @ orthonormal(rng, 6, 6), y, LAM)
    np.testing.assert_allclose(turned.value, found.value, rtol=1e-12)
    negated = closed_form.whitened(X, -y, LAM)
    np.testing.assert_allclose(negated.fit, -found.fit, rtol=1e-12)
    order = rng.permutation(4)
    permuted = closed_form.whitened(X[order], y[order], LAM)
    np.testing.assert_allclose(permuted.fit, found.fit[order], rtol=1e-12)
    tripled = closed_form.whitened(X, 3 * y, 3 * LAM)
    np.testing.assert_allclose(tripled.value, 9 * found.value, rtol=1e-12)


def test_the_lower_bound_is_one_at_any_network(rng):
    # Far from the optimum the residual is not feasible: unscaled it would "prove" the zero network.
    X, y = np.eye(3), np.asarray([3.0, -4.0, 1.0])
    optimum = closed_form.whitened(X, y, LAM).value
    polar = lambda r: max(np.linalg.norm(r[r > 0]), np.linalg.norm(r[r < 0]))  # noqa: E731
    for _ in range(20):
        fit = y * rng.uniform(0.0, 1.5)
        neurons = np.stack([np.maximum(fit, 0), np.maximum(-fit, 0)], axis=1)
        found = checked(X, y, jr.SquaredLoss()).answer(LAM, neurons, np.asarray([1.0, -1.0]), polar)
        np.testing.assert_allclose(found.fit, fit, rtol=1e-12)
        np.testing.assert_allclose(found.network(X), fit, atol=1e-12)
        assert found.lower <= optimum <= found.value
        assert not found.exact


# ------------------------------------------------------------------ rank one


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
    for loss in (jr.LogisticLoss(), zoo.Huber(jnp.asarray(0.5))):
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
@pytest.mark.parametrize("loss", [jr.LogisticLoss(), zoo.Huber(jnp.asarray(0.5))])
def test_rank_one_against_the_solver_for_other_losses(loss):
    rng = np.random.default_rng(3)
    X, y = np.outer(rng.standard_normal(6), [0.6, 0.8]), rng.choice([-1.0, 1.0], 6)
    found = closed_form.rank_one(X, y, 0.05, loss)
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X), loss)
    certificate = jr.solve(program, 0.05, rtol=1e-8).certificate
    assert certificate.lower <= found.value * (1 + 1e-9)
    assert found.value <= certificate.upper * (1 + 1e-9)


# ---------------------------------------------------------------- spike-free


def stretch(X, u):
    """||X^+ (X u)_+||, infinite where (X u)_+ is not in the range of X."""
    z, *_ = np.linalg.lstsq(X, seen(X, u), rcond=None)
    inside = np.linalg.norm(X @ z - seen(X, u)) <= 1e-9 * np.linalg.norm(X)
    return np.linalg.norm(z) if inside else np.inf


@pytest.mark.parametrize(
    ("X", "holds"),
    [
        (np.eye(3), True),
        (np.diag([1.0, 5.0, 0.1]) @ np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0],
         True),
        (np.outer([1.0, 0.0, 3.0], [1.0, -2.0]), True),
        (np.outer([1.0, -1.0], [1.0]), False),
        (np.asarray([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]), True),
        (np.asarray([[1.0, 0.0], [-1.0, 5.0]]), False),
        (np.asarray([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), False),
        (np.asarray([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0]]), True),
        (np.asarray([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, 1.0, 1.0], [0.0, 0.0, 1.0]]), False),
    ],
)  # fmt: skip
def test_spike_free_is_decided_and_refutations_have_a_witness(X, holds):
    found = closed_form.is_spike_free(X)
    assert found.holds is holds
    tried = np.random.default_rng(0).standard_normal((X.shape[1], 500))
    worst = max(stretch(X, u / np.linalg.norm(u)) for u in tried.T)
    if holds:
        assert worst <= 1 + 1e-9
        np.testing.assert_array_equal(found.witness, 0.0)
    else:
        np.testing.assert_allclose(np.linalg.norm(found.witness), 1.0, rtol=1e-12)
        reached = stretch(X, np.asarray(found.witness))
        assert reached > 1 + 1e-9
        if np.isfinite(found.lower):
            np.testing.assert_allclose(reached, found.lower, rtol=1e-9)


def test_spike_free_bounds_hold_on_random_data(rng):
    decided = []
    for k in range(60):
        X = rng.standard_normal((3, 4)) + (1.5 if k % 2 else 0.0)
        found = closed_form.is_spike_free(X)
        decided.append(found.holds)
        tried = rng.standard_normal((4, 300))
        worst = max(stretch(X, u / np.linalg.norm(u)) for u in tried.T)
        assert worst <= found.upper + 1e-9
        assert worst <= 1 + 1e-9 or found.holds is False
        if not found.holds:
            assert stretch(X, np.asarray(found.witness)) >= found.lower - 1e-9 > 1
    assert {True, False} <= set(decided)


def test_columns_of_any_units_do_not_hide_a_witness():
    # More rows than columns, in general position: never spike-free.
    for seed in range(12):
        X = np.random.default_rng(seed).lognormal(size=(8, 3)) * [1.0, 2.0**14, 1.0]
        found = closed_form.is_spike_free(X)
        assert found.holds is False
        assert stretch(X, np.asarray(found.witness)) > 1 + 1e-9


def test_nearly_dependent_rows_are_left_open():
    X = np.asarray([[1.0, 0.0, 0.0], [1.0, 1e-10, 0.0], [1.0, 0.0, 1e-10]])
    found = closed_form.is_spike_free(X)
    assert found.holds is None
    assert found.lower <= found.upper


@pytest.mark.slow  # compiles the solver
def test_spike_free_program_is_optimal_where_it_should_be(rng):
    X, y = orthonormal(rng, 3, 5), np.asarray([1.0, -2.0, 0.5])
    known = closed_form.whitened(X, y, LAM)
    found = closed_form.spike_free(X, y, LAM)
    np.testing.assert_allclose(found.value, known.value, rtol=1e-8)
    np.testing.assert_allclose(found.fit, known.fit, atol=1e-6)
    assert found.exact
    # Not whitened: rows at small angles, with the logistic loss too.
    X = np.asarray([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0]])
    for loss, target in ((jr.SquaredLoss(), y), (jr.LogisticLoss(), np.sign(y))):
        found = closed_form.spike_free(X, target, LAM, loss)
        program = jr.ConvexProgram(X, target, jr.enumerate_patterns(X), loss)
        certificate = jr.solve(program, LAM, rtol=1e-8).certificate
        assert certificate.lower <= found.value * (1 + 1e-9)
        assert found.value <= certificate.upper * (1 + 2e-8)
        assert found.exact
    # Spiky data: an upper bound, and honest about it.
    X = np.random.default_rng(1).standard_normal((3, 5))
    assert closed_form.is_spike_free(X).holds is False
    found = closed_form.spike_free(X, y, LAM)
    true, _ = solved(X, y, LAM)
    assert found.lower - 1e-9 <= true < found.value - 1e-4
    assert not found.exact
    assert found.polar > LAM * (1 + 1e-4)


# ------------------------------------------------------------------- splines


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


def test_the_lasso_of_dependent_columns(rng):
    for k in range(30):
        wide = rng.standard_normal((5, 4)) @ rng.standard_normal((4, 12))
        columns = np.hstack([wide, wide[:, :3], np.zeros((5, 1)), 2.0 * wide[:, 3:4]])
        y, lam = rng.standard_normal(5), 10.0 ** -(k % 5)
        a = nonnegative_lasso(columns, y, lam)
        slope = columns.T @ (y - columns @ a) - lam
        assert np.all(a >= 0)
        assert np.max(slope) <= 1e-9 * (1 + lam)
        assert np.max(np.abs(slope[a > 0]), initial=0.0) <= 1e-9 * (1 + lam)


# ------------------------------------------------------------------- l0 - l1


def test_whitened_data_have_equal_sparsest_and_shortest_networks(rng):
    X, y = orthonormal(rng, 4, 6), np.asarray([1.0, -2.0, 0.5, -0.3])
    found = closed_form.l0_l1_equivalent(X, y)
    assert found.holds is True
    np.testing.assert_allclose([found.lower, found.upper], 1.0, atol=1e-9)
    np.testing.assert_allclose(found.network(X), y, atol=1e-12)
    np.testing.assert_allclose(found.norm, np.hypot(1.0, 0.5) + np.hypot(2.0, 0.3), rtol=1e-12)


def least_norm(X, y):
    """The least norm of an interpolant, from the general solver at two small lams."""
    half, whole = (solved(X, y, lam)[0] / lam for lam in (5e-4, 1e-3))
    return 2 * half - whole  # p(lam) = lam R - lam^2 ||nu||^2 / 2 for small lam


def test_l0_l1_of_random_data_against_the_solver():
    verdicts = set()
    y = np.asarray([1.0, -1.2, 0.7])
    for seed in (0, 1, 2, 5):
        X = np.random.default_rng(seed).standard_normal((3, 5))
        found = closed_form.l0_l1_equivalent(X, y)
        verdicts.add(found.holds)
        assert 1.0 <= found.lower <= found.upper + 1e-12 <= found.lower + 1e-7
        np.testing.assert_allclose(found.network(X), y, atol=1e-10)
        neurons = seen(X, np.asarray(found.network.hidden))
        signs = np.sign(np.asarray(found.network.output))
        unit = neurons / np.linalg.norm(np.asarray(found.network.hidden), axis=0)
        np.testing.assert_allclose(np.asarray(found.dual) @ unit, signs, atol=1e-8)
        tried = np.random.default_rng(0).standard_normal((5, 20_000))
        tried /= np.linalg.norm(tried, axis=0)
        assert np.max(np.abs(np.asarray(found.dual) @ seen(X, tried))) <= found.upper + 1e-9
        shortest = least_norm(X, y)
        assert found.norm / found.upper - 1e-4 <= shortest <= found.norm + 1e-4
        assert (shortest < found.norm - 1e-3) <= (found.holds is False)
    assert False in verdicts


def test_targets_of_one_sign_may_want_two_neurons():
    # Nearly opposite rows: one neuron is long, two are short.
    X = np.asarray([[1.0, 0.0], [-0.9, 0.1]])
    found = closed_form.l0_l1_equivalent(X, np.ones(2))
    assert found.holds is False
    assert found.network.num_neurons == 1
    two = 1.0 + 1.0 / np.hypot(0.9, 0.1)  # one neuron along each row
    np.testing.assert_allclose(found.norm / found.upper, two, rtol=1e-7)
    assert closed_form.l0_l1_equivalent(np.eye(2), np.ones(2)).holds is True


# ----------------------------------------------------------------- separable


def two_classes(rng, n=8):
    """Rows in two opposite quadrants."""
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    return np.abs(rng.standard_normal((n, 2))) * y[:, None] + 0.05 * y[:, None], y


def test_orthogonally_separable_data(rng):
    for _ in range(5):
        X, y = two_classes(rng)
        found = closed_form.separable(X, y)
        assert abs(found.gap) <= 1e-12 * found.value
        assert np.min(y * np.asarray(found.network(X))) >= 1 - 1e-12
        squares = np.sum(np.asarray(found.network.hidden) ** 2)
        squares += np.sum(np.asarray(found.network.output) ** 2)
        np.testing.assert_allclose(0.5 * squares, found.value, rtol=1e-12)
        dual = np.asarray(found.dual)
        assert np.min(y * dual) >= 0
        # The dual point is feasible whatever the theorem says: so the value is the optimum.
        assert np.max(np.abs(dual @ seen(X, circle()))) <= 1 + 1e-9
        np.testing.assert_allclose(closed_form.separable(4 * X, y).value, found.value / 4)


def test_orthogonally_separable_known_answer():
    X = np.asarray([[1.0, 1.0], [3.0, 1.0], [-2.0, 0.0]])
    found = closed_form.separable(X, np.asarray([1.0, 1.0, -1.0]))
    np.testing.assert_allclose(found.value, 1 / 2**0.5 + 0.5, rtol=1e-12)
    alone = closed_form.separable(X[:2], np.ones(2))
    assert alone.network.num_neurons == 1
    np.testing.assert_allclose(alone.value, 1 / 2**0.5, rtol=1e-12)


def test_what_is_not_orthogonally_separable_is_named():
    y = np.asarray([1.0, 1.0, -1.0])
    with pytest.raises(ValueError, match="rows 0 and 1 .* inside a class"):
        closed_form.separable(np.asarray([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]]), y)
    with pytest.raises(ValueError, match="rows 0 and 2 .* across the classes"):
        closed_form.separable(np.asarray([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]), y)
    with pytest.raises(ValueError, match="row 1 of X is zero"):
        closed_form.separable(np.asarray([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]), y)
    with pytest.raises(ValueError, match="pass 2 \\* y - 1"):
        closed_form.separable(np.eye(2), np.asarray([1.0, 0.0]))


# --------------------------------------------------------------------- errors

FORMS = [closed_form.whitened, closed_form.rank_one, closed_form.spike_free, closed_form.spline]


@pytest.mark.parametrize("form", FORMS)
def test_bad_input_names_the_fix(form):
    X, y = np.ones((1, 1)), np.ones(1)
    with pytest.raises(ValueError, match="lam is 0.0"):
        form(X, y, 0.0)
    with pytest.raises(ValueError, match="one number a row"):
        form(X, np.ones(2), LAM)
    with pytest.raises(ValueError, match="NaN or infinite"):
        form(X * np.nan, y, LAM)
    with pytest.raises(ValueError, match="pass a matrix"):
        form(np.ones((1, 1, 1)), y, LAM)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda y: form(X, y, LAM).fit)(y)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: closed_form.whitened(2 * np.eye(2), np.ones(2), LAM), "pass X / s and lam / s"),
        (lambda: closed_form.whitened(np.ones((2, 1)), np.ones(2), LAM), "n <= d"),
        (lambda: closed_form.rank_one(np.eye(2), np.ones(2), LAM), "X has rank 2"),
        (lambda: closed_form.rank_one(np.zeros((2, 2)), np.ones(2), LAM), "X has rank 0"),
        (lambda: closed_form.spike_free(np.asarray([[1.0], [-1.0]]), np.ones(2), LAM), "no u has"),
        (lambda: closed_form.spline(np.arange(3.0), np.ones(3), bias="some"), "'penalised'"),
        (lambda: closed_form.spline(np.ones(2), np.arange(2.0)), "equal points"),
        (lambda: closed_form.spline_norm(np.ones(2), np.arange(2.0)), "equal points"),
        (lambda: closed_form.l0_l1_equivalent(np.ones((2, 2)), np.ones(2)), "full row rank"),
        (lambda: closed_form.l0_l1_equivalent(np.eye(2), np.zeros(2)), "y is zero"),
        (lambda: closed_form.l0_l1_equivalent(np.eye(2), np.full(2, np.nan)), "NaN or infinite"),
        (lambda: closed_form.is_spike_free(np.full((2, 2), np.inf)), "NaN or infinite"),
        (lambda: closed_form.is_spike_free(np.ones(2)), "pass a matrix"),
        (lambda: closed_form.spline_norm(np.arange(3.0), np.ones(2)), "one number a row"),
        (lambda: closed_form.separable(np.full((2, 2), np.nan), np.ones(2)), "NaN or infinite"),
    ],
)
def test_data_that_a_closed_form_does_not_take(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_single_precision_without_x64(x64_off):
    X, y = np.eye(3, dtype="float32"), np.asarray([1.0, -2.0, 0.5], "float32")
    found = closed_form.whitened(X, y, LAM)
    assert found.fit.dtype == np.float32
    assert found.exact
    assert closed_form.whitened(X, np.sign(y), LAM, Hidden(jr.LogisticLoss())).exact
    assert closed_form.rank_one(X[:, :1] + 0.5, y, LAM).exact
    assert closed_form.is_spike_free(X).holds is True
    assert closed_form.l0_l1_equivalent(X, y).holds is True
    x = np.arange(3, dtype="float32")
    for bias in ("free", "penalised", "none"):
        found = closed_form.spline(x, y, LAM, bias=bias)
        assert abs(found.gap) < 1e-6
        assert found(x).dtype == np.float32
    assert closed_form.separable(X[:1], np.ones(1, "float32")).value > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whitened_data", "rank_one_data", "spike_free_data", "splines",
                                  "sparsest_interpolants", "separable_data"])  # fmt: skip
def test_examples_run(name, x64_off):
    module = importlib.import_module(f"jaxrelu.closed_form.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_rows_too_short_for_a_margin_beside_the_others():
    with pytest.raises(ValueError, match="too short for a margin"):
        closed_form.separable(np.asarray([[1.0, 0.0], [1e-10, 1e-10]]), np.ones(2))
