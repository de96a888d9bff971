"""Is a network of maximum margin?"""

import jax.numpy as jnp
import numpy as np
import pytest
from margin_checks import FEATURES, cosine, gauge_over, largest_correlation, random_labels, shaped

import jaxrelu as jr
from jaxrelu.margins.kkt_conditions import margin_conditions
from jaxrelu.margins.max_margin import max_margin


@pytest.mark.parametrize("rho", [-0.9, -0.5, 0.0, 0.7])
def test_one_neuron_is_a_kkt_point_and_global_from_minus_a_half_on(rho):
    X, kappa = cosine(rho), np.sqrt(2 * (1 + rho))
    network = jr.Network(jnp.asarray(X.sum(axis=0) / kappa)[:, None], jnp.ones(1))
    found = margin_conditions(network, X, np.ones(2))
    np.testing.assert_allclose(found.stationarity, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.dual, 1 / kappa, rtol=1e-12)
    np.testing.assert_allclose(found.gauge, max(1.0, 1 / kappa), rtol=1e-9)
    assert bool(found.unique)
    np.testing.assert_allclose(found.value, 2 / kappa, rtol=1e-12)
    # Above rho = -1/2 the certificate closes; below, the bound is the optimum, of two neurons.
    np.testing.assert_allclose(found.lower, min(2.0, 2 / kappa), rtol=1e-9)
    assert (float(found.gap) < 1e-8) == (rho >= -0.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_optimal_networks_meet_their_conditions(seed):
    X, y = random_labels(seed)
    given = shaped(X, y)
    found = max_margin(*given, rtol=1e-9)
    gauge = gauge_over(given[0], given[2])
    conditions = margin_conditions(found.network, *given[:2], gauge_upper=gauge)
    np.testing.assert_allclose(conditions.stationarity, 0.0, atol=1e-5)
    np.testing.assert_allclose(conditions.complementarity, 0.0, atol=1e-6)
    np.testing.assert_allclose(conditions.gauge, 1.0, rtol=1e-5)
    np.testing.assert_allclose(conditions.lower, found.value, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(jnp.abs(conditions.dual)), found.value, rtol=1e-6)


def test_walls_need_their_own_coefficients():
    # u = (1, 0) is on the wall of the second row, whose multiplier counts by half: m = mu / 2.
    X, y = np.asarray([[1.0, 0.5], [0.0, -1.0]]), np.asarray([1.0, 1.0])
    hidden, output = np.asarray([[1.0, 0.0], [0.0, -1.0]]), np.ones(2)
    network = jr.Network(jnp.asarray(hidden), jnp.asarray(output))
    conditions = margin_conditions(network, X, y)
    np.testing.assert_allclose(conditions.stationarity, 0.0, atol=1e-12)
    np.testing.assert_allclose(conditions.dual, 1.0, atol=1e-12)
    assert bool(conditions.unique)
    # The row (1, t) needs m = t mu: no coefficient in [0, 1] will do from t = 1 on.
    X[0, 1] = 0.99
    np.testing.assert_allclose(margin_conditions(network, X, y).stationarity, 0.0, atol=1e-12)
    # One cell only: a smaller gauge, a larger bound.
    one = jr.patterns_from_gates(X, np.asarray([[0.1], [-1.0]]))
    part = margin_conditions(network, X, y, patterns=one)
    np.testing.assert_allclose(part.gauge, largest_correlation(X, one.masks, np.ones(2)), rtol=1e-9)
    assert float(part.lower) > float(margin_conditions(network, X, y).lower)
    X[0, 1] = 1.5
    assert np.max(margin_conditions(network, X, y).stationarity) > 0.05


def test_the_bound_holds_for_networks_that_are_not_stationary():
    X, y, patterns = shaped(*random_labels(1))
    optimum = float(max_margin(X, y, patterns).value)
    rng = np.random.default_rng(0)
    for _ in range(5):
        hidden = rng.standard_normal((FEATURES, 40))
        output = np.linalg.lstsq(np.maximum(X @ hidden, 0.0), y)[0]
        network = jr.Network(jnp.asarray(hidden), jnp.asarray(output))
        conditions = margin_conditions(network, X, y, gauge_upper=gauge_over(X, patterns))
        assert np.max(conditions.stationarity) > 1e-2
        assert float(conditions.lower) <= optimum * (1 + 1e-9)
        assert float(conditions.value) >= optimum * (1 - 1e-9)
        assert np.all(y * np.asarray(conditions.dual) >= 0)
        fit = np.asarray(conditions.network(X))
        np.testing.assert_allclose(np.min(y * fit), 1.0, rtol=1e-9)


def test_unbalanced_and_slack_networks_are_told():
    X = np.eye(2)
    y = np.asarray([1.0, -1.0])
    good = margin_conditions(jr.Network(jnp.eye(2), jnp.asarray(y)), X, y)
    np.testing.assert_allclose(good.stationarity, 0.0, atol=1e-12)
    skew = margin_conditions(jr.Network(2 * jnp.eye(2), jnp.asarray(y / 2)), X, y)
    assert np.all(np.asarray(skew.stationarity) > 0.1)
    slack = margin_conditions(jr.Network(jnp.diag(jnp.asarray([1.0, 2.0])), jnp.asarray(y)), X, y)
    assert slack.stationarity[1] > 0.1
    assert slack.dual[1] == 0.0
    # With a tolerance its multiplier is free, and complementarity tells.
    wide = margin_conditions(slack.network, X, y, support_tolerance=2.0)
    assert wide.complementarity > 0.1
    # The bound by another upper bound of the gauge.
    loose = margin_conditions(slack.network, X, y, gauge_upper=lambda nu: 2 * jnp.sum(jnp.abs(nu)))
    np.testing.assert_allclose(loose.lower, 0.5, rtol=1e-12)


def test_multipliers_that_are_not_unique_are_told():
    X, y = np.asarray([[1.0, 0.0], [1.0, 0.0]]), np.ones(2)
    network = jr.Network(jnp.asarray([[1.0], [0.0]]), jnp.ones(1))
    found = margin_conditions(network, X, y, gauge_upper=lambda nu: jnp.max(jnp.abs(nu)))
    np.testing.assert_allclose(found.stationarity, 0.0, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(found.dual), 1.0, rtol=1e-12)
    assert not bool(found.unique)
