"""Networks of one function: what stays, what falls, and the path between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrelu as jr


def penalty(network):
    return float(0.5 * (jnp.sum(network.hidden**2) + jnp.sum(network.output**2)))


def instance(seed, n=8, d=3, m=9, biased=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    hidden, output = rng.standard_normal((d, m)), rng.standard_normal(m)
    hidden[:, 1] = 2.0 * hidden[:, 0]  # collinear
    output[1] = np.abs(output[1]) * np.sign(output[0])
    output[2] = 0.0
    hidden[:, 3] = 0.0
    if not biased:
        return X, jr.Network(jnp.asarray(hidden), jnp.asarray(output))
    bias = 3.0 * rng.standard_normal(m)
    bias[1] = 2.0 * bias[0]
    return X, jr.Network(
        jnp.asarray(hidden), jnp.asarray(output), bias=jnp.asarray(bias), constant=jnp.asarray(5.0)
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_function_is_kept_and_penalty_is_the_smallest(seed, biased):
    X, network = instance(seed, biased=biased)
    balanced = jr.balance(network)
    fit = network(X)
    np.testing.assert_allclose(balanced(X), fit, atol=1e-12)
    norms = np.linalg.norm(np.asarray(balanced.hidden), axis=0)
    np.testing.assert_allclose(norms, np.abs(np.asarray(balanced.output)), atol=1e-12)
    assert penalty(balanced) <= penalty(network) + 1e-12
    pieces = jr.split(balanced, 0, [0.2, 0.5, 0.3])
    assert pieces.num_neurons == network.num_neurons + 2
    np.testing.assert_allclose(pieces(X), fit, atol=1e-12)
    assert penalty(pieces) == pytest.approx(penalty(balanced), rel=1e-12)
    merged = jr.merge(pieces)
    assert merged.num_neurons == network.num_neurons - 3
    np.testing.assert_allclose(merged(X), fit, atol=1e-12)
    assert penalty(merged) == pytest.approx(penalty(balanced), rel=1e-12)
    order = np.random.default_rng(seed).permutation(network.num_neurons)
    np.testing.assert_allclose(jr.permute(network, order)(X), fit, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
@pytest.mark.slow
def test_the_path_to_a_nearly_minimal_network_keeps_the_fit_and_falls(seed):
    X, network = instance(seed)
    path = jr.nearly_minimal(network, X)
    points = [path(t) for t in np.linspace(0.0, 1.0, 41)]
    np.testing.assert_array_equal(points[0].hidden, network.hidden)
    for point in points:
        np.testing.assert_allclose(point(X), network(X), atol=1e-10)
    values = np.array([penalty(point) for point in points])
    assert np.all(np.diff(values) <= 1e-12)
    assert values[-1] < values[0]
    # The end has the convex objective of the network: one neuron a signed cone.
    alive = ~np.asarray(path.dead)
    living = jr.Network(network.hidden[:, alive], network.output[alive])
    _, weights = jr.from_network(living, X, np.zeros(len(X)))
    assert values[-1] == pytest.approx(float(jnp.sum(jnp.linalg.norm(weights, axis=-1))), rel=1e-9)
    cones = int(jnp.sum(jnp.linalg.norm(weights, axis=-1) > 1e-12))
    assert jr.merge(points[-1]).num_neurons <= cones
    again = jr.nearly_minimal(jr.merge(points[-1]), X)
    np.testing.assert_allclose(again(0.5).hidden, again(0.0).hidden, atol=1e-7)


@pytest.mark.parametrize("neurons", [[0, 1], [2, 3], [2, 4]])
def test_the_path_to_a_nearly_minimal_network_never_stands_still(neurons):
    # Of a dead neuron, one out of balance, a balanced one, and two that are collinear with it or
    # not: pairs with one thing to do, or two.
    X = np.asarray([[1.0, 0.5], [0.5, 1.0]])
    hidden = np.asarray([[-1.0, -1.0], [2.0, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]).T
    output = np.asarray([1.0, 0.3, 1.0, 2.0, 1.0])
    network = jr.Network(hidden[:, neurons], output[neurons])
    path = jr.nearly_minimal(network, X)
    values = np.array([penalty(path(t)) for t in np.linspace(0.0, 1.0, 41)])
    if neurons == [2, 3]:
        np.testing.assert_allclose(values, values[0])  # balanced and collinear already
    else:
        assert np.all(np.diff(values) < 0)
    np.testing.assert_allclose(path(1.0)(X), network(X), atol=1e-12)


def test_arrays_from_elsewhere_are_taken():
    X, network = instance(1)
    plain = jr.Network(np.asarray(network.hidden), np.asarray(network.output))
    order = np.arange(network.num_neurons)[::-1]
    for function in (
        jr.balance,
        jr.merge,
        lambda net: jr.split(net, -1, [0.5, 0.5]),
        lambda net: jr.permute(net, order),
        lambda net: jr.nearly_minimal(net, X)(0.5),
    ):
        np.testing.assert_array_equal(function(plain)(X), function(network)(X))


def test_the_path_is_continuous_and_traceable():
    X, network = instance(0)
    path = jr.nearly_minimal(network, X)
    grid = jnp.linspace(0.0, 1.0, 3001)
    hidden = jax.jit(jax.vmap(lambda t: path(t).hidden))(grid)
    assert float(jnp.max(jnp.abs(jnp.diff(hidden, axis=0)))) < 0.02


def test_bad_input_names_the_fix():
    X, network = instance(0)
    with pytest.raises(ValueError, match="sum to 1"):
        jr.split(network, 0, [0.5, 0.6])
    with pytest.raises(ValueError, match="the network has 9 slots|one of 9 slots"):
        jr.split(network, 9, [1.0])
    with pytest.raises(ValueError, match="no permutation of 9 slots"):
        jr.permute(network, np.zeros(9, int))
    assert jr.merge(jr.Network(jnp.zeros((3, 2)), jnp.ones(2))).num_neurons == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_minimal_with_biases_is_independent_up_to_a_constant(seed):
    """Of 30 neurons on n = 8 samples at most n - 1 are left, and no two make a constant."""
    X, network = instance(seed, m=30, biased=True)
    small = jr.minimal(network, X)
    np.testing.assert_allclose(small(X), network(X), atol=1e-9)
    assert penalty(small) <= penalty(jr.balance(network)) * (1 + 1e-12)
    features = np.maximum(X @ np.asarray(small.hidden) + np.asarray(small.bias), 0.0)
    centred = features - features.mean(axis=0)
    assert np.linalg.matrix_rank(centred, tol=1e-8) == small.num_neurons <= len(X) - 1


def test_neurons_that_are_constant_on_the_samples_go_to_the_constant():
    """Two rows whose difference the neuron does not see."""
    X = np.asarray([[1.0, 0.0], [1.0, 1.0]])
    network = jr.Network(
        jnp.asarray([[3.0], [0.0]]), jnp.asarray([2.0]), bias=jnp.asarray([1.0]),
        constant=jnp.asarray(-1.0),
    )  # fmt: skip
    small = jr.minimal(network, X)
    assert small.num_neurons == 0
    np.testing.assert_allclose(small.constant, 7.0, rtol=1e-14)
    np.testing.assert_allclose(small(X), [7.0, 7.0], rtol=1e-14)


def test_walls_far_from_the_origin_stay_apart():
    """Data around 2000: two knots one apart are two neurons, and opposite ones do not cancel."""
    x = np.asarray([[2000.0], [2000.5], [2001.0], [2003.0]])
    for hidden, bias in (([[1.0, 1.0]], [-2000.0, -2001.0]), ([[1.0, -1.0]], [1e7, 1e7])):
        network = jr.Network(jnp.asarray(hidden), jnp.ones(2), bias=jnp.asarray(bias))
        for other in (jr.merge(network), jr.minimal(network, x)):
            np.testing.assert_allclose(
                other(x), network(x), rtol=1e-12, atol=1e-12 * np.max(np.abs(bias))
            )
        assert jr.merge(network).num_neurons == 2
        halves = jr.split(network, 0, [0.3, 0.7])
        assert jr.merge(halves).num_neurons == 2
