"""Whitened data: the formula, the solver, other losses."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
import reference
from closed_form_checks import LAM, Hidden, check, orthonormal, solved

import jaxrelu as jr
from jaxrelu import closed_form
from jaxrelu.closed_form.answer import checked


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
    loss = jr.HuberLoss(jnp.asarray(0.5)) if inner is None else Hidden(inner)
    X, y = orthonormal(rng, 4, 4), np.asarray([1.0, -1.0, 1.0, -1.0])
    y = y if name == "logistic" else y * rng.uniform(0.1, 2.0, 4)
    found = closed_form.whitened(X, y, lam, loss)
    check(found, X, y, lam, loss)
    if inner is not None:
        known = closed_form.whitened(X, y, lam, inner)
        np.testing.assert_allclose(found.fit, known.fit, rtol=1e-10, atol=1e-12)


LOSSES = {
    "squared": jr.SquaredLoss(),
    "huber": jr.HuberLoss(jnp.asarray(reference.HUBER_DELTA)),
    "logistic": jr.LogisticLoss(),
    "squared_hinge": jr.SquaredHingeLoss(),
    "poisson": jr.PoissonLoss(),
}


def target_of(name):
    y = np.asarray([0.8, -0.7, 2.6, -0.6])
    rates = np.asarray([0.0, 3.0, 0.7, 12.0])
    return {"huber": y, "squared": y, "poisson": rates}.get(name, np.sign(y))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("lam", [0.05, 0.4])
def test_whitened_against_an_independent_solver(rng, name, lam):
    X, y = orthonormal(rng, 4, 6), target_of(name)
    found = closed_form.whitened(X, y, lam, LOSSES[name])
    check(found, X, y, lam, LOSSES[name])
    value = reference.whitened_with_clarabel(y, lam, name)
    np.testing.assert_allclose(found.value, value, rtol=2e-6 if name == "poisson" else 2e-7)


def test_whitened_squared_hinge_is_the_squared_loss_of_the_labels(rng):
    # No margin exceeds one.
    X, y = orthonormal(rng, 5, 7), np.asarray([1.0, -1.0, 1.0, 1.0, -1.0])
    found = closed_form.whitened(X, y, LAM, jr.SquaredHingeLoss())
    np.testing.assert_allclose(found.fit, closed_form.whitened(X, y, LAM).fit, rtol=1e-10)
    for count, sign in ((3, 1.0), (2, -1.0)):
        np.testing.assert_allclose(found.fit[y == sign], sign * (1 - LAM / count**0.5), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "squared"])
def test_whitened_against_the_solver_for_other_losses(name):
    rng = np.random.default_rng(0)
    X, y, loss = orthonormal(rng, 4, 4), target_of(name), LOSSES[name]
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
