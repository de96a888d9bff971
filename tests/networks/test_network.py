import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrelu as jr
from jaxrelu.losses import LogisticLoss
from jaxrelu.networks import GatedNetwork, Network, nonconvex_objective

rng = np.random.default_rng(3)
X = rng.standard_normal((6, 3))
Y = np.sign(rng.standard_normal(6))
HIDDEN, OUTPUT, GATES = (
    rng.standard_normal((3, 4)),
    rng.standard_normal(4),
    rng.standard_normal((3, 4)),
)
NETWORK = Network(jnp.asarray(HIDDEN), jnp.asarray(OUTPUT))
GATED = GatedNetwork(jnp.asarray(GATES), jnp.asarray(HIDDEN), jnp.asarray(OUTPUT))
both = pytest.mark.parametrize("network", [NETWORK, GATED], ids=["relu", "gated"])


def test_predictions_neuron_by_neuron():
    expected = sum(np.maximum(X @ HIDDEN[:, k], 0) * OUTPUT[k] for k in range(4))
    np.testing.assert_allclose(NETWORK(X), expected, rtol=1e-13)
    expected = sum((X @ GATES[:, k] >= 0) * (X @ HIDDEN[:, k]) * OUTPUT[k] for k in range(4))
    np.testing.assert_allclose(GATED(X), expected, rtol=1e-13)


def test_gates_equal_to_the_weights_give_the_relu_network():
    gated = GatedNetwork(NETWORK.hidden, NETWORK.hidden, NETWORK.output)
    np.testing.assert_allclose(gated(X), NETWORK(X), rtol=1e-13)


def test_boundary_belongs_to_the_open_gate():
    gated = GatedNetwork(jnp.asarray([[1.0], [0.0]]), jnp.asarray([[0.0], [1.0]]), jnp.ones(1))
    np.testing.assert_array_equal(gated(np.asarray([[0.0, 5.0], [-0.1, 5.0]])), [5.0, 0.0])


def test_derivative_of_relu_at_zero_is_zero():
    dead = Network(jnp.zeros((3, 1)), jnp.ones(1))
    gradient = jax.grad(lambda net: jnp.sum(net(X)))(dead)
    np.testing.assert_array_equal(gradient.hidden, np.zeros((3, 1)))


@both
@pytest.mark.parametrize("where", ["hidden", "output", "X"])
def test_nan_reaches_the_prediction(network, where):
    rows = X.copy()
    parts = {"hidden": network.hidden, "output": network.output}
    if where == "X":
        rows[2, 0] = np.nan
    else:
        parts[where] = parts[where].at[..., 1].set(jnp.nan)
    changed = (
        Network(**parts) if isinstance(network, Network) else GatedNetwork(network.gates, **parts)
    )
    broken = np.isnan(changed(rows))
    assert broken[2] if where == "X" else broken.all()


@both
def test_compact_drops_zero_neurons_and_keeps_the_function(network):
    parts = {
        "hidden": network.hidden.at[:, 1].set(0.0),
        "output": network.output.at[3].set(0.0),
    }
    slots = Network(**parts) if isinstance(network, Network) else GatedNetwork(GATED.gates, **parts)
    small = slots.compact()
    assert type(small) is type(network)
    assert (slots.num_neurons, small.num_neurons) == (4, 2)
    np.testing.assert_array_equal(small.output, np.asarray(slots.output)[[0, 2]])
    np.testing.assert_allclose(small(X), slots(X), rtol=1e-13)
    if isinstance(small, GatedNetwork):
        np.testing.assert_array_equal(small.gates, GATES[:, [0, 2]])


def test_compact_keeps_what_is_not_zero():
    broken = Network(NETWORK.hidden.at[0, 1].set(jnp.nan), NETWORK.output)
    assert broken.compact().num_neurons == 4
    nothing = Network(jnp.zeros((3, 2)), jnp.zeros(2)).compact()
    assert nothing.num_neurons == 0
    np.testing.assert_array_equal(nothing(X), np.zeros(6))


@both
def test_compact_inside_jit_says_where_to_call_it(network):
    with pytest.raises(TypeError, match="call it on the host"):
        jax.jit(lambda net: net.compact())(network)


@both
def test_wrong_number_of_features(network):
    with pytest.raises(ValueError, match=r"X has shape \(6, 2\).*pass an array of shape \(n, 3\)"):
        network(X[:, :2])


@both
def test_networks_are_pytrees(network):
    doubled = jax.tree_util.tree_map(lambda a: 2 * a, network)
    np.testing.assert_allclose(jax.jit(lambda net, x: net(x))(doubled, X), 4 * network(X))
    stacked = jax.tree_util.tree_map(lambda *a: jnp.stack(a), network, doubled)
    np.testing.assert_allclose(jax.vmap(lambda net: net(X))(stacked)[1], 4 * network(X))


@pytest.mark.parametrize(
    ("options", "name"), [({}, "squared"), ({"loss": LogisticLoss()}, "logistic")]
)
@pytest.mark.parametrize("weight", [None, np.asarray([0.0, 1.0, 2.0, 0.5, 1.0, 3.0])])
def test_nonconvex_objective_agrees_with_the_twin_in_loops(options, name, weight):
    value = nonconvex_objective(NETWORK, X, Y, 0.3, sample_weight=weight, **options)
    expected = reference.network_objective(X, Y, 0.3, HIDDEN, OUTPUT, name, weight)
    np.testing.assert_allclose(value, expected, rtol=1e-13)


def test_gated_objective_does_not_penalise_the_gates():
    far = GatedNetwork(100 * GATED.gates, GATED.hidden, GATED.output)
    value = nonconvex_objective(GATED, X, Y, 0.3)
    np.testing.assert_allclose(nonconvex_objective(far, X, Y, 0.3), value, rtol=1e-13)
    decay = 0.15 * ((HIDDEN**2).sum() + (OUTPUT**2).sum())
    np.testing.assert_allclose(value, 0.5 * ((GATED(X) - Y) ** 2).sum() + decay, rtol=1e-13)


def test_balanced_networks_cost_as_much_as_the_convex_program():
    # hidden = theta / sqrt(||theta||), output = +-sqrt(||theta||): lam/2 of squares = lam of norms.
    sizes = np.linalg.norm(HIDDEN, axis=0)
    balanced = Network(
        jnp.asarray(HIDDEN / np.sqrt(sizes)), jnp.asarray([1, -1, 1, -1] * sizes**0.5)
    )
    masks = X @ HIDDEN >= 0
    weights = np.zeros((2, 4, 3))
    weights[0, ::2], weights[1, 1::2] = HIDDEN.T[::2], HIDDEN.T[1::2]
    np.testing.assert_allclose(
        nonconvex_objective(balanced, X, Y, 0.3),
        reference.relu_objective(X, Y, masks, 0.3, weights),
        rtol=1e-13,
    )


REFUSALS = {
    "stationarity": lambda net: jr.stationarity(net, X, Y, 0.5),
    "connect": lambda net: jr.connect(net, NETWORK, X),
    "connect, at the other end": lambda net: jr.connect(NETWORK, net, X),
    "descend": lambda net: jr.descend(net, NETWORK, X, Y, 0.5),
    "descend, to the other end": lambda net: jr.descend(NETWORK, net, X, Y, 0.5),
    "balance": jr.balance,
    "split": lambda net: jr.split(net, 0, [0.5, 0.5]),
    "merge": jr.merge,
    "permute": lambda net: jr.permute(net, [3, 2, 1, 0]),
    "nearly_minimal": lambda net: jr.nearly_minimal(net, X),
    "margin_conditions": lambda net: jr.margin_conditions(net, X, Y),
}
LOOKS_AT_VALUES = {
    "stationarity": lambda net, X, y: jr.stationarity(net, X, y, 0.5),
    "connect": lambda net, X, y: jr.connect(net, NETWORK, X),
    "connect, at the other end": lambda net, X, y: jr.connect(NETWORK, net, X, width=9),
    "descend": lambda net, X, y: jr.descend(net, NETWORK, X, y, 0.5),
    "prune": lambda net, X, y: jr.prune(net, X, y, to=2),
    "minimal": lambda net, X, y: jr.minimal(net, X),
    "certify_global": lambda net, X, y: jr.certify_global(net, X, y, 0.5),
    "margin_conditions": lambda net, X, y: jr.margin_conditions(net, X, y),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_holds_for_relu_networks_is_not_done_to_others(name):
    with pytest.raises(
        TypeError, match=r"is of type GatedNetwork; pass a ReLU network.*jr.Network"
    ):
        REFUSALS[name](GATED)
    with pytest.raises(TypeError, match=r"is an array of shape \(3, 4\).*; pass a ReLU network"):
        REFUSALS[name](HIDDEN)


def test_arrays_are_not_networks():
    for wrong in (
        lambda: jr.from_network(HIDDEN, X, Y),
        lambda: jr.improve(HIDDEN, X, Y, 0.5),
        lambda: jr.certify_global(HIDDEN, X, Y, 0.5),
    ):
        with pytest.raises(
            TypeError, match="^network is an array of shape .*; pass a ReLU network"
        ):
            wrong()


@pytest.mark.parametrize(
    ("name", "where"),
    [
        (name, where)
        for name in LOOKS_AT_VALUES
        for where in ("hidden", "output", "X", "y")
        if where != "y" or name.split(",")[0] not in ("connect", "minimal")  # take no targets
    ],
)
def test_what_is_not_finite_is_named(name, where):
    found = {"hidden": HIDDEN.copy(), "output": OUTPUT.copy(), "X": X.copy(), "y": Y.copy()}
    found[where].flat[1] = np.nan
    network = Network(jnp.asarray(found["hidden"]), jnp.asarray(found["output"]))
    with pytest.raises(ValueError, match=rf"^([a-z]+\.)?{where} has NaN or infinite entries"):
        LOOKS_AT_VALUES[name](network, found["X"], found["y"])


@pytest.mark.parametrize("name", LOOKS_AT_VALUES)
def test_a_trace_is_refused(name):
    with pytest.raises(TypeError, match="call it on the host, outside jit"):
        jax.jit(lambda net: LOOKS_AT_VALUES[name](net, X, Y) and 0.0)(NETWORK)


def test_networks_of_other_data_are_not_connected():
    with pytest.raises(ValueError, match=r"X has shape \(6, 3\), but b.hidden takes rows of 2"):
        jr.connect(NETWORK, Network(NETWORK.hidden[:2], NETWORK.output), X)


def test_shapes_are_checked_with_a_sentence():
    with pytest.raises(ValueError, match=r"y has shape \(5,\), but X has 6 rows"):
        nonconvex_objective(NETWORK, X, Y[:5], 0.3)
    with pytest.raises(ValueError, match=r"sample_weight has shape \(1,\)"):
        nonconvex_objective(NETWORK, X, Y, 0.3, sample_weight=np.ones(1))


@pytest.mark.usefixtures("x64_off")
def test_float32_without_x64(single):
    network = Network(*(jnp.asarray(a.astype(np.float32)) for a in (HIDDEN, OUTPUT)))
    value = nonconvex_objective(network, single(X), single(Y), 0.3)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value, reference.network_objective(X, Y, 0.3, HIDDEN, OUTPUT), rtol=1e-5
    )
    with pytest.raises(ValueError, match="jax_enable_x64"):
        network(X)
