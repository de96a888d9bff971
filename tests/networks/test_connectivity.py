"""Paths between optimal networks: continuous, of one fit and penalty, within the width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import jaxrelu as jr

TRIANGLE = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
BETWEEN = np.asarray([0.5, 0.75**0.5])


def network(directions, coefficients, slots=None):
    """Neurons of positive output in given slots of a network."""
    directions, root = np.asarray(directions, float), np.sqrt(coefficients)
    m = len(root) if slots is None else slots
    hidden, output = np.zeros((directions.shape[1], m)), np.zeros(m)
    hidden[:, : len(root)] = directions.T * root
    output[: len(root)] = root
    return jr.Network(jnp.asarray(hidden), jnp.asarray(output))


def penalty(net):
    return 0.5 * (jnp.sum(net.hidden**2) + jnp.sum(net.output**2))


def check(path, a, b, X, width):
    grid = jnp.linspace(0.0, 1.0, 2001)
    nets = jax.jit(jax.vmap(path))(grid)
    assert nets.hidden.shape[2] == width
    for net, at in ((a, 0), (b, -1)):
        m = net.num_neurons
        np.testing.assert_allclose(nets.hidden[at][:, :m], net.hidden, atol=1e-7)
        np.testing.assert_allclose(nets.output[at][:m], net.output, atol=1e-7)
        np.testing.assert_allclose(nets.output[at][m:], 0.0, atol=1e-7)
    fits = jax.vmap(lambda net: net(X))(nets)
    scale = float(jnp.max(jnp.abs(fits)))
    assert float(jnp.max(jnp.abs(fits - fits[:1]))) < 1e-6 * scale
    penalties = jax.vmap(penalty)(nets)
    np.testing.assert_allclose(penalties, penalties[0], rtol=1e-6)
    # Square roots of coefficients: continuous, of order 1/2 at zero.
    pieces = path.start.shape[0]
    bound = 4 * np.sqrt(float(jnp.max(path.start)) * pieces / 2000)
    assert float(jnp.max(jnp.abs(jnp.diff(nets.hidden, axis=0)))) < bound
    used = int(jnp.max(jnp.sum(jnp.abs(nets.output) > 1e-9, axis=1)))
    assert used <= int(path.width_needed) <= width


def test_known_answer_of_the_segment():
    two, one = network(TRIANGLE, [1.5, 1.5]), network([BETWEEN], [3.0])
    path = jr.connect(two, one, TRIANGLE, width=3)
    check(path, two, one, TRIANGLE, 3)
    middle = path(0.25)  # the second half moves the neuron into its slot
    np.testing.assert_allclose(sorted(np.asarray(middle.output) ** 2), [0.75, 0.75, 1.5], atol=1e-9)
    with pytest.raises(ValueError, match="pass width=3"):
        jr.connect(two, one, TRIANGLE)


def test_permuted_and_split_networks_are_joined():
    two = network(TRIANGLE, [1.0, 2.0], slots=3)
    for order in ([1, 0, 2], [2, 1, 0], [2, 0, 1]):
        other = jr.permute(two, np.asarray(order))
        check(jr.connect(two, other, TRIANGLE), two, other, TRIANGLE, 3)
    pieces = network([TRIANGLE[1], TRIANGLE[0], TRIANGLE[1]], [0.5, 1.0, 1.5])
    check(jr.connect(two, pieces, TRIANGLE), two, pieces, TRIANGLE, 3)
    check(jr.connect(two, two, TRIANGLE), two, two, TRIANGLE, 3)


def test_a_network_of_few_neurons_saves_slots():
    # h = (a+ + a-) / 2 = (b+ + b-) / 2 with features of rank 3: two vertices of two neurons, one of
    # one. The last coordinate, which no sample sees, makes the directions unit.
    X = np.eye(4)[:3]
    h = np.full(3, 0.5)

    def directions(points):
        return [[*p, np.sqrt(1.0 - p @ p)] for p in points]

    a = network(directions([h + [0.2, 0, 0], h - [0.2, 0, 0]]), [1.0, 1.0])
    b = network(directions([h + [0, 0.2, 0], h - [0, 0.2, 0]]), [1.0, 1.0])
    hub = network(directions([h]), [2.0])
    with pytest.raises(ValueError, match="pass width=4"):
        jr.connect(a, b, X, width=3)
    check(jr.connect(a, b, X, width=3, via=hub), a, b, X, 3)
    with pytest.raises(ValueError, match="different penalties|different fits"):
        jr.connect(a, b, X, width=3, via=network(directions([h]), [2.1]))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_random_members_are_joined_at_rank_plus_one(seed):
    # In one cone the features are linear: many directions of one fit; sum a is held by a ones row.
    rng = np.random.default_rng(seed)
    d, k = 3, 9
    directions = rng.dirichlet(np.ones(d), size=k)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    X = np.eye(d)
    columns = np.maximum(X @ directions.T, 0.0)
    ends = []
    start = rng.random(k)
    stacked = np.vstack([columns, np.ones(k)])
    for _ in range(2):
        found = linprog(rng.standard_normal(k), A_eq=stacked, b_eq=stacked @ start)
        ends.append(np.maximum(found.x, 0.0))
    width = d + 2  # the rank of features and ones, plus one
    nets = [network(directions[a > 1e-9], a[a > 1e-9], slots=width) for a in ends]
    try:
        path = jr.connect(nets[0], nets[1], X)
    except ValueError:
        pytest.fail("the width suffices")
    fits = [np.asarray(path(t)(X)) for t in np.linspace(0, 1, 101)]
    np.testing.assert_allclose(fits, np.broadcast_to(fits[0], (101, d)), atol=1e-6)


def test_bad_input_names_the_fix():
    two, one = network(TRIANGLE, [1.5, 1.5]), network([BETWEEN], [3.0])
    with pytest.raises(ValueError, match="different fits"):
        jr.connect(two, network([BETWEEN], [3.1]), TRIANGLE, width=3)
    with pytest.raises(ValueError, match="not balanced"):
        jr.connect(jr.Network(2 * two.hidden, two.output), one, TRIANGLE, width=3)
    with pytest.raises(ValueError, match="the slots of (all|both) networks"):
        jr.connect(two, one, TRIANGLE, width=1)
    with_dead_one = network([*TRIANGLE, -BETWEEN], [1.5, 1.5, 1.0])
    with pytest.raises(ValueError, match="different penalties"):
        jr.connect(two, with_dead_one, TRIANGLE, width=4)
