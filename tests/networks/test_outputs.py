"""Networks of several outputs: predictions, objective, equal networks, and who knows of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelu as jr

N, D, M, C = 7, 3, 5, 2


def made(seed=0, **parts):
    rng = np.random.default_rng(seed)
    layers = {"hidden": (D, M), "output": (M, C), "skip": (D, C), "bias": (M,), "constant": (C,)}
    kept = {"hidden", "output", *parts}
    values = {k: jnp.asarray(rng.standard_normal(s)) for k, s in layers.items() if k in kept}
    return jr.Network(**values)


def rows(seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, D)), rng.standard_normal((N, C))


def each(network):
    """The network of every output."""
    return [
        replace(
            network,
            output=network.output[:, k],
            skip=None if network.skip is None else network.skip[:, k],
            constant=None if network.constant is None else network.constant[k],
        )
        for k in range(C)
    ]


def test_outputs_are_networks_side_by_side():
    X, Y = rows()
    network = made(skip=True, bias=True, constant=True)
    fit = network(X)
    assert fit.shape == (N, C)
    np.testing.assert_allclose(fit, np.stack([one(X) for one in each(network)], axis=1), rtol=1e-12)
    weight = np.linspace(0.0, 2.0, N)
    for loss in (jr.SquaredLoss(), jr.HuberLoss(np.asarray(0.7)), jr.AbsoluteLoss()):
        value = jr.nonconvex_objective(network, X, Y, 0.3, loss, weight)
        losses = [
            jr.nonconvex_objective(one, X, Y[:, k], 0.0, loss, weight)
            for k, one in enumerate(each(network))
        ]
        decay = 0.15 * float(jnp.sum(network.hidden**2) + jnp.sum(network.output**2))
        np.testing.assert_allclose(value, sum(losses) + decay, rtol=1e-12)
    own = np.arange(1.0, M + 1)
    charged = jr.nonconvex_objective(network, X, network(X), 2.0, neuron_weight=own)
    squares = np.sum(np.square(network.hidden), 0) + np.sum(np.square(network.output), 1)
    np.testing.assert_allclose(charged, own @ squares, rtol=1e-12)


def test_slots_without_an_output_are_dropped():
    network = made(bias=True)
    network = replace(network, output=network.output.at[1].set(0.0).at[2, 0].set(0.0))
    small = network.compact()
    assert small.num_neurons == M - 1
    X, _ = rows()
    np.testing.assert_allclose(small(X), network(X), rtol=1e-12)
    gated = jr.GatedNetwork(network.hidden, network.hidden, network.output)
    assert gated.compact().num_neurons == M - 1
    np.testing.assert_allclose(gated(X), replace(network, bias=None)(X), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal_networks(dtype):
    X, Y = rows()
    X, Y = X.astype(dtype), Y.astype(dtype)
    network = made(skip=True, bias=True, constant=True)
    network = jax.tree.map(lambda leaf: leaf.astype(dtype), network)
    digits = 1e-12 if dtype == "float64" else 1e-5
    fit = network(X)
    twice = jr.split(network, 2, [0.25, 0.5, 0.25])
    assert twice.num_neurons == M + 2
    balanced = jr.balance(network)
    norms = [np.linalg.norm(balanced.hidden, axis=0), np.linalg.norm(balanced.output, axis=1)]
    np.testing.assert_allclose(*norms, rtol=10 * digits)
    for other in (
        twice, balanced, jr.permute(network, [4, 3, 2, 1, 0]), jr.merge(network), jr.merge(twice),
        jax.jit(jr.balance)(network), jax.jit(lambda net: jr.split(net, 0, [0.5, 0.5]))(network),
        jax.jit(lambda net: jr.permute(net, [1, 0, 2, 4, 3]))(network),
    ):  # fmt: skip
        np.testing.assert_allclose(other(X), fit, atol=100 * digits)
        assert other.output.dtype == dtype
    assert jr.merge(twice).num_neurons == M
    value, least = (
        jr.nonconvex_objective(one, X, Y, 0.5) for one in (jr.merge(twice), jr.balance(network))
    )
    np.testing.assert_allclose(value, least, rtol=10 * digits)
    assert least < jr.nonconvex_objective(network, X, Y, 0.5)
    # Collinear in the first layer alone: not the same neuron.
    other = jr.Network(jnp.ones((D, 2)), jnp.asarray([[1.0, 0.0], [0.0, 1.0]]))
    assert jr.merge(other).num_neurons == 2


def test_a_neuron_of_a_bias_alone_is_a_constant():
    network = made(bias=True)
    network = replace(network, hidden=network.hidden.at[:, 1].set(0.0))
    X, _ = rows()
    balanced = jr.balance(network)
    assert balanced.constant.shape == (C,)
    np.testing.assert_allclose(balanced(X), network(X), rtol=1e-12)
    assert jr.merge(network).num_neurons == M - 1
    np.testing.assert_allclose(jr.merge(network)(X), network(X), atol=1e-12)


def test_objective_has_derivatives_and_batches():
    X, _ = rows()
    labels = jax.nn.one_hot(jnp.asarray([0, 1, 1, 0, 1, 0, 0]), C, dtype=X.dtype)
    loss = jr.MultinomialLoss()
    network = made()

    def objective(net, lam):
        return jr.nonconvex_objective(net, X, labels, lam, loss)

    slope = jax.grad(objective)(network, 0.1)
    step = jax.tree.map(lambda leaf: 1e-6 * leaf, slope)
    ahead, behind = (
        objective(jax.tree.map(lambda a, b, s=s: a + s * b, network, step), 0.1) for s in (1, -1)
    )
    size = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(slope))
    np.testing.assert_allclose((ahead - behind) / 2e-6, size, rtol=1e-6)
    lams = jnp.asarray([0.1, 1.0])
    many = jax.jit(jax.vmap(objective, (None, 0)))(network, lams)
    np.testing.assert_allclose(many, [objective(network, lam) for lam in lams], rtol=1e-12)
    batch = jax.vmap(lambda s: jax.tree.map(lambda leaf: s * leaf, network))(lams)
    assert batch.num_neurons == M


@pytest.mark.parametrize(
    "call",
    [
        lambda net, X, y: jr.minimal(net, X),
        lambda net, X, y: jr.prune(net, X, y, to=2),
        lambda net, X, y: jr.stationarity(net, X, y, 0.1),
        lambda net, X, y: jr.certify_global(net, X, y, 0.1),
        lambda net, X, y: jr.improve(net, X, y, 0.1),
        lambda net, X, y: jr.from_network(net, X, y),
        lambda net, X, y: jr.nearly_minimal(net, X),
        lambda net, X, y: jr.connect(net, net, X),
        lambda net, X, y: jr.descend(net, net, X, y, 0.1),
        lambda net, X, y: jr.margin_conditions(net, X, np.sign(y)),
        lambda net, X, y: jr.prune(jr.GatedNetwork(net.hidden, net.hidden, net.output), X, y, to=2),
        lambda net, X, y: jr.minimal(replace(net, output=net.output[:, :1]), X),
    ],
)
def test_what_knows_one_output_says_so(call):
    X, Y = rows()
    with pytest.raises(ValueError, match=r"has [12] outputs.*output\[:, k\]"):
        call(made(), X, Y[:, 0])


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"output": jnp.ones((M + 1, C))}, "network.output has shape"),
        ({"output": jnp.ones((M, C, 1))}, "network.output has shape"),
        ({"skip": jnp.ones(D)}, "network.skip has shape"),
        ({"constant": jnp.ones(())}, "one an output"),
        ({"bias": jnp.ones(C)}, "network.bias has shape"),
    ],
)
def test_layers_that_do_not_fit(parts, sentence):
    X, _ = rows()
    with pytest.raises(ValueError, match=sentence):
        replace(made(), **parts)(X)


def test_targets_that_do_not_fit():
    X, Y = rows()
    with pytest.raises(ValueError, match="one column an output"):
        jr.nonconvex_objective(made(), X, Y[:, 0], 0.1)
    loss = jr.MultinomialLoss()
    with pytest.raises(ValueError, match="jax.nn.one_hot"):
        jr.nonconvex_objective(made(), X, np.arange(N) % 2.0, 0.1, loss)
    with pytest.raises(ValueError, match="loss of several outputs"):
        jr.nonconvex_objective(each(made())[0], X, Y[:, 0], 0.1, loss)
    patterns = jr.sample_patterns(jax.random.key(0), X, 4)
    for y in (Y[:, 0], np.eye(2)[np.arange(N) % 2]):
        with pytest.raises(ValueError, match="loss of several outputs"):
            jax.jit(lambda y: jr.lambda_max(jr.ConvexProgram(X, y, patterns, loss)))(y)
    # One number a sample could be taken for one an output.
    many = jr.HuberLoss(jnp.ones(N))
    with pytest.raises(ValueError, match="the shape of y"):
        jr.nonconvex_objective(made(), X, Y, 0.1, many)
    with pytest.raises(ValueError, match="the shape of y"):
        jax.jit(lambda y: jr.nonconvex_objective(made(), X, y, 0.1, many))(Y)
