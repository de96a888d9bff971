"""Maximum margin: known answers, an independent solver, certificates, symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from margin_checks import (
    FEATURES,
    PATTERNS,
    cosine,
    gauge_over,
    largest_correlation,
    oracle,
    random_labels,
    shaped,
)
from scipy.optimize import minimize

import jaxrelu as jr
from jaxrelu.margins.kkt_conditions import margin_conditions
from jaxrelu.margins.max_margin import max_margin
from jaxrelu.margins.method_of_multipliers import End
from jaxrelu.margins.minimum_norm import minimum_norm
from jaxrelu.margins.problem import printed_bounds
from jaxrelu.programs.units import Units


def hard_margin(X):
    """Argmin ||u|| subject to X u >= 1, by SLSQP."""
    found = minimize(
        lambda u: 0.5 * u @ u,
        np.linalg.lstsq(X, np.ones(len(X)))[0],
        jac=lambda u: u,
        constraints={"type": "ineq", "fun": lambda u: X @ u - 1, "jac": lambda u: X},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return found.x


def half_norm(network):
    return 0.5 * float(jnp.sum(network.hidden**2) + jnp.sum(network.output**2))


@pytest.mark.parametrize("rho", [-0.9, -0.5, 0.0, 0.7])
def test_margin_of_two_rows(rho):
    found = max_margin(*shaped(cosine(rho), [1.0, 1.0]))
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    expected = min(2.0, np.sqrt(2 / (1 + rho)))
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    np.testing.assert_allclose(found.margin, 1 / expected, rtol=1e-6)
    few = 1e-15 * expected  # the formula itself is rounded
    assert float(found.lower) <= expected + few
    assert float(found.upper) >= expected - few


@pytest.mark.parametrize("value", [1 / 3, 2 / 3])  # float32 rounds one up and one down
def test_bounds_are_printed_outward(value):
    end = End(jnp.zeros(0), np.zeros(0), value, value, jr.Status.OPTIMAL, 1)
    lower, upper = printed_bounds(end, Units.of(0, 0, 0, 2), np.float32)
    assert lower.dtype == upper.dtype == "float32"
    assert float(lower) < value < float(upper)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_of_an_independent_solver(seed):
    X, labels = random_labels(seed)
    target = np.random.default_rng(seed + 10).standard_normal(len(X))
    masks = jr.enumerate_patterns(X).masks
    found = max_margin(*shaped(X, labels))
    np.testing.assert_allclose(found.value, oracle(X, labels, masks, True), rtol=1e-6)
    found = minimum_norm(*shaped(X, target))
    np.testing.assert_allclose(found.value, oracle(X, target, masks, False), rtol=1e-6)


@pytest.mark.parametrize("problem", [max_margin, minimum_norm])
def test_the_certificate_by_hand(problem):
    X, y = random_labels(3)
    if problem is minimum_norm:
        y = y * np.random.default_rng(0).uniform(0.1, 3.0, len(y))
    X, y, patterns = shaped(X, y)
    found = problem(X, y, patterns, rtol=1e-8)
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    np.testing.assert_allclose(found.gap, found.upper - found.lower, rtol=1e-12, atol=1e-14)
    assert float(found.gap) <= 1e-8 * float(found.upper)
    # The dual point is feasible, and the lower bound is its value.
    nu = np.asarray(found.dual)
    assert largest_correlation(X, patterns.masks, nu) <= 1 + 1e-9
    np.testing.assert_allclose(found.lower, y @ nu, rtol=1e-12)
    # The network is feasible, and the upper bound is its norm.
    network = found.network
    assert network.num_neurons < 2 * PATTERNS
    np.testing.assert_allclose(half_norm(network), found.upper, rtol=1e-12)
    np.testing.assert_allclose(
        np.sum(np.linalg.norm(found.weights, axis=-1)), found.upper, rtol=1e-12
    )
    if problem is max_margin:
        assert np.all(y * nu >= 0)
        np.testing.assert_allclose(np.min(y * network(X)), 1.0, rtol=1e-10)
    else:
        np.testing.assert_allclose(network(X), y, atol=1e-10)
        np.testing.assert_array_equal(found.fit, y)


def test_orthogonally_separable_data():
    rng = np.random.default_rng(5)
    positive, negative = rng.uniform(0.1, 1.0, (3, 3)), -rng.uniform(0.1, 1.0, (3, 3))
    u, v = hard_margin(positive), hard_margin(negative)
    X, y = np.vstack([positive, negative]), np.repeat([1.0, -1.0], 3)
    expected = np.linalg.norm(u) + np.linalg.norm(v)
    closed = jr.closed_form.separable(X, y).value
    X, y, patterns = shaped(X, y)
    found = max_margin(X, y, patterns)
    np.testing.assert_allclose([closed, found.value], expected, rtol=1e-6)
    # The two machines are the network, and it is certified on its own.
    hidden = np.pad(np.stack([u, v], axis=1), ((0, FEATURES - 3), (0, 0)))
    network = jr.balance(jr.Network(jnp.asarray(hidden), jnp.asarray([1.0, -1.0])))
    conditions = margin_conditions(
        network, X, y, gauge_upper=gauge_over(X, patterns), support_tolerance=1e-5
    )
    np.testing.assert_allclose(conditions.stationarity, 0.0, atol=1e-6)
    np.testing.assert_allclose(conditions.gauge, 1.0, rtol=1e-5)
    np.testing.assert_allclose(conditions.lower, expected, rtol=1e-5)


def test_scales_signs_and_rotations():
    X, labels = random_labels(4)
    y = labels * np.random.default_rng(1).uniform(0.5, 2.0, len(X))
    one = minimum_norm(*shaped(X, y))
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    other = minimum_norm(*shaped(X @ rotation, y))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-6)
    other = minimum_norm(*shaped(1e3 * X, -1e-2 * y))
    np.testing.assert_allclose(one.value, 1e5 * other.value, rtol=1e-6)
    # A fit that is beyond the labels has no smaller norm than the margin problem's.
    margin = max_margin(*shaped(X, labels))
    assert float(margin.value) <= float(one.value) / np.min(np.abs(y)) * (1 + 1e-6)


def test_bad_input_names_the_fix():
    X, labels = random_labels(0)
    patterns = jr.enumerate_patterns(X)
    with pytest.raises(ValueError, match="labels -1 and \\+1, but y holds 0 and 1: pass"):
        max_margin(X, (labels + 1) / 2, patterns)
    with pytest.raises(ValueError, match="y has NaN"):
        minimum_norm(X, np.full(6, np.nan), patterns)
    with pytest.raises(ValueError, match="rtol is 0"):
        max_margin(X, labels, patterns, rtol=0)
    with pytest.raises(ValueError, match="max_steps is 0"):
        minimum_norm(X, labels, patterns, max_steps=0)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda y: max_margin(X, y, patterns).value)(labels)
    network = jr.Network(jnp.eye(3), jnp.ones(3))
    with pytest.raises(ValueError, match="does not separate"):
        margin_conditions(network, X, labels)
    with pytest.raises(ValueError, match="one number a row"):
        margin_conditions(network, X, labels[:2])
    with pytest.raises(ValueError, match="labels -1 and \\+1"):
        margin_conditions(network, X, 2 * labels)
    with pytest.raises(TypeError, match="either patterns or gauge_upper"):
        margin_conditions(network, X, labels, patterns=patterns, gauge_upper=float)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda y: margin_conditions(network, X, y).value)(labels)
