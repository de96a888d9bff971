"""`improve`: never worse, certified, and an optimum that no training of the network beats."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrelu as jr

LAM = 0.3


@pytest.fixture(scope="module")
def trained():
    """A network of ten neurons trained by Adam, unconverged and unbalanced."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((24, 3))
    y = np.maximum(X @ np.asarray([1.0, -1.0, 0.5]), 0.0) + 0.1 * rng.standard_normal(24)
    network = jr.Network(
        jnp.asarray(rng.standard_normal((3, 10))), jnp.asarray(rng.standard_normal(10))
    )

    def value(net):
        return jr.nonconvex_objective(net, X, y, LAM)

    optimiser = optax.adam(0.02)

    def step(carry, _):
        net, state = carry
        updates, state = optimiser.update(jax.grad(value)(net), state, net)
        return (optax.apply_updates(net, updates), state), value(net)

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its count with float64
        (network, _), _ = jax.jit(
            lambda net: jax.lax.scan(step, (net, optimiser.init(net)), None, length=200)
        )(network)
    return X, y, network


def test_a_trained_network_is_improved_and_certified(trained):
    X, y, network = trained
    better = jr.improve(network, X, y, LAM)
    assert jr.Status(int(better.status)).name == "OPTIMAL"
    assert better.objective < better.objective_before
    value = float(jr.nonconvex_objective(better.network, X, y, LAM))
    assert value == pytest.approx(float(better.objective), rel=1e-12)
    assert better.certificate.lower <= value <= better.certificate.lower * (1 + 2e-6)
    assert better.network.num_neurons <= network.num_neurons
    features = np.maximum(X @ np.asarray(better.network.hidden), 0.0)
    assert np.linalg.matrix_rank(features) == better.network.num_neurons


@pytest.mark.slow
def test_an_improved_network_can_only_get_better(trained):
    # Optimal neurons lie on walls, and the neighbouring cells may hold a better network.
    X, y, network = trained
    once = jr.improve(network, X, y, LAM)
    twice = jr.improve(once.network, X, y, LAM)
    assert twice.objective <= once.objective
    assert float(twice.objective_before) == pytest.approx(float(once.objective), rel=1e-12)


@pytest.mark.slow
def test_never_worse_when_the_solve_is_cut_short(trained):
    X, y, network = trained
    stopped = jr.improve(network, X, y, LAM, max_steps=0)
    assert jr.Status(int(stopped.status)).name == "MAX_STEPS"
    assert stopped.objective <= stopped.objective_before


@pytest.mark.slow
def test_gated_logistic_and_float32(trained):
    X, _, network = trained
    labels = np.where(X[:, 0] > 0, 1.0, -1.0)
    better = jr.improve(network, X, labels, 0.1, jr.LogisticLoss())
    assert better.objective < better.objective_before
    assert jr.Status(int(better.status)).name == "OPTIMAL"
    gates = network.hidden
    gated = jr.GatedNetwork(gates, network.hidden, jnp.abs(network.output))
    assert jr.improve(gated, X, labels, 0.1).objective < jr.nonconvex_objective(
        gated, X, labels, 0.1
    )
    single = jr.Network(network.hidden.astype("float32"), network.output.astype("float32"))
    less = jr.improve(single, X.astype("float32"), labels.astype("float32"), 0.1)
    assert less.network.hidden.dtype == jnp.float32
    assert less.objective < less.objective_before


@pytest.mark.slow
def test_an_improved_gated_network_has_independent_features():
    # An optimal network in the middle of a segment of them: three neurons, features of rank two.
    X, y = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]]), np.asarray([2.0, 2.0])
    directions = np.asarray([X[0], X[1], [0.5, 0.75**0.5]])
    network = jr.GatedNetwork(directions.T, jnp.asarray(directions.T), jnp.ones(3))
    better = jr.improve(network, X, y, 0.5)
    assert float(better.objective) == pytest.approx(1.75, rel=1e-6)
    small = better.network
    features = (X @ np.asarray(small.gates) >= 0) * (X @ np.asarray(small.hidden))
    assert np.linalg.matrix_rank(features) == small.num_neurons <= 2


def test_bad_input_names_the_fix(trained):
    X, y, network = trained
    with pytest.raises(ValueError, match="pass a small one"):
        jr.improve(network, X, y, 0.0)
    with pytest.raises(ValueError, match="rows of 3 features"):
        jr.improve(network, X[:, :2], y, LAM)
