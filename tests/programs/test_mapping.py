"""Convex weights to networks and back: same fit, same objective, on the data and on walls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrelu as jr

LAM = 0.7


@pytest.fixture(scope="module")
def feasible(small):
    """Weights (2, 10, 3) in their cones: inside, on walls, and zero."""
    rng = np.random.default_rng(0)
    weights = np.zeros((2, 10, 3))
    for s in range(2):
        for j in range(10):
            inner = rng.uniform(0.1, 2) * small.gates[:, j] + rng.uniform() * small.interior[:, j]
            # Less than one away from a unit vector of the cone: not in the polar cone.
            push = rng.standard_normal(3)
            outside = small.interior[:, j] + 0.9 * push / np.linalg.norm(push)
            wall, _ = reference.project_cone(outside, small.X, small.masks[:, j])
            weights[s, j] = (inner, wall, 0.0 * wall)[(s + j) % 3]
    assert reference.cone_violation(small.X, small.masks, weights) < 1e-14
    slack = np.einsum("nd,spd->spn", small.X, weights) * np.where(small.masks, 1, -1).T
    on_wall = (np.abs(slack) < 1e-14) & (weights != 0).any(axis=-1)[..., None]
    assert on_wall.any(axis=-1).sum() >= 5
    return weights


def norms(network):
    return np.linalg.norm(network.hidden, axis=0), np.abs(network.output)


# --- to a network --------------------------------------------------------------------------------


@pytest.mark.parametrize("gated", [False, True])
def test_predictions_have_derivatives_in_both_modes_where_blocks_are_zero(build, feasible, gated):
    program = build("squared", gated)
    weights = jnp.asarray(feasible[0] if gated else feasible)
    points = np.random.default_rng(1).standard_normal((3, 3))
    stays = jnp.any(weights != 0, axis=-1, keepdims=True)
    assert not np.all(stays)

    def predictions(weights):
        return jr.to_network(program, weights)(points)

    ahead, back = jax.jacfwd(predictions)(weights), jax.jacrev(predictions)(weights)
    assert np.all(np.isfinite(ahead))
    np.testing.assert_allclose(ahead, back, atol=1e-12)
    # A block that is zero has derivative zero, whatever moves it; the others have differences.
    change = np.random.default_rng(2).standard_normal(weights.shape)
    moved = np.where(stays, change, 0.0)
    _, tangent = jax.jvp(predictions, (weights,), (jnp.asarray(change),))
    ends = [predictions(weights + h * moved) for h in (1e-6, -1e-6)]
    np.testing.assert_allclose(tangent, (ends[0] - ends[1]) / 2e-6, atol=1e-7)


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
def test_the_network_has_the_fit_and_the_value_of_its_weights(build, small, feasible, loss):
    program = build(loss, weighted=True)
    network = jr.to_network(program, feasible)
    assert isinstance(network, jr.Network)
    assert (network.hidden.shape, network.output.shape) == ((3, 20), (20,))
    expected = reference.relu_fit(small.X, small.masks, feasible)
    np.testing.assert_allclose(network(small.X), expected, rtol=1e-12, atol=1e-13)
    convex = jr.objective(program, LAM, feasible)
    value = jr.nonconvex_objective(network, small.X, program.y, LAM, program.loss, small.weight)
    np.testing.assert_allclose(value, convex, rtol=1e-12)
    twin = reference.network_objective(
        small.X, program.y, LAM, np.asarray(network.hidden), np.asarray(network.output), loss,
        small.weight,
    )  # fmt: skip
    np.testing.assert_allclose(twin, convex, rtol=1e-12)
    # Balanced neurons, signs in order, zero slots where the blocks are zero.
    hidden, output = norms(network)
    np.testing.assert_allclose(hidden, output, rtol=1e-14)
    assert (network.output[:10] >= 0).all()
    assert (network.output[10:] <= 0).all()
    zero = (feasible == 0).all(axis=-1).ravel()
    np.testing.assert_array_equal(np.asarray(network.output) == 0, zero)


def test_the_gated_network_has_the_fit_and_the_value_of_its_weights(build, small):
    program = build(gated=True, weighted=True)
    weights = np.random.default_rng(1).standard_normal((10, 3))
    weights[4] = 0.0
    network = jr.to_network(program, weights)
    assert isinstance(network, jr.GatedNetwork)
    expected = reference.gated_fit(small.X, small.masks, weights)
    np.testing.assert_allclose(network(small.X), expected, rtol=1e-12)
    value = jr.nonconvex_objective(network, small.X, small.y, LAM, sample_weight=small.weight)
    np.testing.assert_allclose(value, jr.objective(program, LAM, weights), rtol=1e-12)
    assert network.compact().num_neurons == 9
    # It predicts by its gates: off the training data too.
    other = np.random.default_rng(2).standard_normal((6, 3))
    by_hand = sum((other @ g >= 0) * (other @ u) for g, u in zip(small.gates.T, weights,
                                                                 strict=True))  # fmt: skip
    np.testing.assert_allclose(network(other), by_hand, rtol=1e-12, atol=1e-13)


def test_compact_drops_the_zero_slots_and_nothing_else(build, small, feasible):
    network = jr.to_network(build(), feasible)
    compact = network.compact()
    assert network.num_neurons == 20
    assert compact.num_neurons == (feasible != 0).any(axis=-1).sum() < 20
    np.testing.assert_allclose(compact(small.X), network(small.X), rtol=1e-13, atol=1e-14)
    for lam in (0.0, LAM):
        np.testing.assert_allclose(
            jr.nonconvex_objective(compact, small.X, small.y, lam),
            jr.nonconvex_objective(network, small.X, small.y, lam),
            rtol=1e-13,
        )


def test_to_network_is_traceable_and_keeps_the_dtype(build, feasible, single):
    program = build()
    expected = jr.to_network(program, feasible)
    traced = jax.jit(jr.to_network)(program, feasible)
    np.testing.assert_allclose(traced.hidden, expected.hidden, rtol=1e-14)
    batch = jax.vmap(jr.to_network, in_axes=(None, 0))(program, np.stack([feasible, 4 * feasible]))
    np.testing.assert_allclose(batch.output[1], 2 * expected.output, rtol=1e-14)
    rough = jr.to_network(single(program), feasible.astype(np.float32))
    assert {a.dtype for a in jax.tree.leaves(rough)} == {jnp.dtype("float32")}


def test_a_nan_reaches_the_network(build, feasible):
    weights = np.array(feasible)
    weights[0, 0, 1] = np.nan
    network = jr.to_network(build(), weights)
    assert np.isnan(network.output[0])
    assert network.compact().num_neurons == jr.to_network(build(), feasible).compact().num_neurons


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True], ids=["relu", "gated"])
def test_the_network_of_a_solution(build, small, gated):
    program = build(gated=gated)
    solution = jr.solve(program, 0.3 * jr.lambda_max(program))
    network = jr.to_network(program, solution)
    np.testing.assert_allclose(network(small.X), solution.fit, rtol=1e-9, atol=1e-11)
    value = jr.nonconvex_objective(network, small.X, small.y, solution.lam)
    np.testing.assert_allclose(value, solution.certificate.upper, rtol=1e-9)
    assert 0 < network.compact().num_neurons < network.num_neurons


def test_to_network_refuses_other_weights(build, feasible):
    with pytest.raises(ValueError, match=r"pass shape \(2, 10, 3\)"):
        jr.to_network(build(), feasible[0])
    with pytest.raises(TypeError, match="astype..float64"):
        jr.to_network(build(), feasible.astype(np.float32))


# --- from a network ------------------------------------------------------------------------------


def random_network(m=7, d=3, seed=3):
    rng = np.random.default_rng(seed)
    return jr.Network(rng.standard_normal((d, m)), rng.standard_normal(m))


def balanced(network):
    hidden, output = norms(network)
    factor = np.sqrt(output / hidden)
    return jr.Network(network.hidden * factor, network.output / factor)


def check_same_fit(network, X, y, **options):
    """The program and weights of a network: feasible, and with its fit."""
    program, weights = jr.from_network(network, X, y, **options)
    masks, weights = np.asarray(program.patterns.masks), np.asarray(weights)
    assert reference.cone_violation(X, masks, weights) <= 1e-14
    fit = reference.relu_fit(X, masks, weights)
    np.testing.assert_allclose(fit, network(X), rtol=1e-11, atol=1e-12)
    return program, weights


@pytest.mark.slow
@pytest.mark.parametrize("loss", [jr.SquaredLoss(), jr.LogisticLoss()])
def test_a_balanced_network_keeps_its_value(small, loss):
    y = small.labels
    network = balanced(random_network())
    program, weights = check_same_fit(
        network, small.X, y, loss=loss, sample_weight=small.weight
    )  # fmt: skip
    value = jr.nonconvex_objective(network, small.X, y, LAM, loss, small.weight)
    np.testing.assert_allclose(jr.objective(program, LAM, weights), value, rtol=1e-12)
    assert program.loss == loss
    # Every neuron in a cell of its own sign.
    cells = {tuple(c) for c in np.asarray(small.X @ network.hidden > 0).T}
    assert program.patterns.num_patterns == len(cells)


@pytest.mark.slow
def test_an_unbalanced_network_loses_its_surplus(small):
    network = random_network()
    program, weights = check_same_fit(network, small.X, small.y)
    hidden, output = norms(network)
    surplus = LAM / 2 * np.sum((hidden - output) ** 2)
    value = float(jr.nonconvex_objective(network, small.X, small.y, LAM))
    np.testing.assert_allclose(jr.objective(program, LAM, weights), value - surplus, rtol=1e-12)


@pytest.mark.slow
def test_a_round_trip_from_weights(build, small, feasible):
    network = jr.to_network(build(), feasible).compact()
    program, weights = check_same_fit(network, small.X, small.y)
    np.testing.assert_allclose(
        jr.objective(program, LAM, weights), jr.objective(build(), LAM, feasible), rtol=1e-12
    )
    again = jr.to_network(program, weights)
    np.testing.assert_allclose(again(small.X), network(small.X), rtol=1e-11, atol=1e-12)


def test_neurons_of_one_signed_cell_are_merged(small):
    # Two collinear neurons keep their value; two that are not lose by the triangle inequality.
    g = np.asarray(small.interior[:, 0])
    aside = g + 0.02 * np.asarray([1.0, -1.0, 0.5])
    assert ((small.X @ g > 0) == (small.X @ aside > 0)).all()
    one = jr.Network(np.stack([g, 4 * g], axis=1), np.asarray([1.0, 4.0]))
    one = balanced(one)
    program, weights = check_same_fit(one, small.X, small.y)
    assert (program.patterns.num_patterns, (weights != 0).any(axis=-1).sum()) == (1, 1)
    value = jr.nonconvex_objective(one, small.X, small.y, LAM)
    np.testing.assert_allclose(jr.objective(program, LAM, weights), value, rtol=1e-12)
    two = balanced(jr.Network(np.stack([g, aside], axis=1), np.ones(2)))
    program, weights = check_same_fit(two, small.X, small.y)
    value = jr.nonconvex_objective(two, small.X, small.y, LAM)
    assert jr.objective(program, LAM, weights) < value * (1 - 1e-7)
    # Opposite signs never meet.
    two = balanced(jr.Network(np.stack([g, aside], axis=1), np.asarray([1.0, -1.0])))
    program, weights = check_same_fit(two, small.X, small.y)
    assert (weights != 0).any(axis=-1).tolist() == [[True], [True]]


def test_wall_neurons_go_to_a_cell_that_rounding_does_not_choose(small):
    # Each neuron is orthogonal to one row, up to the rounding of a projection.
    rng = np.random.default_rng(5)
    X = small.X
    hidden = rng.standard_normal((3, 12))
    for k in range(12):
        hidden[:, k] -= X[k] * (X[k] @ hidden[:, k]) / (X[k] @ X[k])
    network = balanced(jr.Network(hidden, rng.standard_normal(12)))
    program, weights = check_same_fit(network, X, small.y)
    value = jr.nonconvex_objective(network, X, small.y, LAM)
    np.testing.assert_allclose(jr.objective(program, LAM, weights), value, rtol=1e-12)
    bits = {}
    for noise in (0.0, 1e-16, -1e-16):
        wiggled = jr.Network(network.hidden * (1 + noise) + noise * X.T, network.output)
        made, _ = jr.from_network(wiggled, X, small.y)
        # The patterns, in the order of the neurons.
        _, index = jr.patterns_from_weights(X, wiggled.hidden)
        bits[noise] = np.asarray(made.patterns.masks)[:, np.asarray(index)]
    np.testing.assert_array_equal(bits[1e-16], bits[0.0])
    np.testing.assert_array_equal(bits[-1e-16], bits[0.0])
    # Every cell has an interior, so the program can be solved and certified.
    for mask in bits[0.0].T:
        assert reference.max_margin_direction(X, mask)[1] > 1e-6


def test_dead_and_silent_neurons(small):
    # A neuron that is zero on all data and one without output change no fit; the first costs.
    X = np.abs(small.X) + 0.1
    hidden = np.stack([-np.ones(3), np.ones(3), 2 * np.ones(3)], axis=1)
    network = jr.Network(hidden, np.asarray([3.0, 0.0, -1.0]))
    program, weights = check_same_fit(network, X, small.y)
    np.testing.assert_allclose(reference.penalty(weights), np.sqrt(3) * (3 + 2), rtol=1e-14)
    assert not np.asarray(program.patterns.masks)[:, 0].any()


def test_a_gated_network(small):
    rng = np.random.default_rng(6)
    gates = rng.standard_normal((3, 6))
    gates[:, 4], gates[:, 5] = 2.0 * gates[:, 1], gates[:, 0]
    network = jr.GatedNetwork(gates, rng.standard_normal((3, 6)), rng.standard_normal(6))
    program, weights = jr.from_network(network, small.X, small.y, sample_weight=small.weight)
    assert isinstance(program, jr.GatedProgram)
    assert program.patterns.num_patterns == 4
    masks, weights = np.asarray(program.patterns.masks), np.asarray(weights)
    fit = reference.gated_fit(small.X, masks, weights)
    np.testing.assert_allclose(fit, network(small.X), rtol=1e-11, atol=1e-12)
    # Merged and balanced, it costs less, and the network of the program says the same.
    value = jr.nonconvex_objective(network, small.X, small.y, LAM, sample_weight=small.weight)
    convex = jr.objective(program, LAM, weights)
    assert convex < value
    again = jr.to_network(program, weights)
    np.testing.assert_allclose(again(small.X), network(small.X), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(
        jr.nonconvex_objective(again, small.X, small.y, LAM, sample_weight=small.weight), convex,
        rtol=1e-12,
    )  # fmt: skip


@pytest.mark.slow
def test_from_network_in_float32(small, single):
    network = single(random_network())
    X, y = small.X.astype(np.float32), small.y.astype(np.float32)
    program, weights = jr.from_network(network, X, y)
    assert weights.dtype == program.X.dtype == jnp.float32
    fit = reference.relu_fit(X, np.asarray(program.patterns.masks), np.asarray(weights))
    np.testing.assert_allclose(fit, network(X), atol=1e-5)


def test_from_network_refuses(small):
    network = random_network()
    with pytest.raises(ValueError, match="y has shape"):
        jr.from_network(network, small.X, small.y[:4])
    with pytest.raises(ValueError, match="hidden"):
        jr.from_network(network, small.X[:, :2], small.y)
    with pytest.raises(TypeError, match="pass network.hidden.astype..float32"):
        jr.from_network(network, small.X.astype(np.float32), small.y.astype(np.float32))
    with pytest.raises(ValueError, match="hidden has shape .3, 0.; it needs at least one"):
        jr.from_network(jr.Network(np.zeros((3, 0)), np.zeros(0)), small.X, small.y)
    with pytest.raises(ValueError, match="network.output has shape"):
        jr.from_network(jr.Network(np.ones((3, 2)), np.ones(3)), small.X, small.y)
    with pytest.raises(TypeError, match="pass network.output.astype..float64"):
        jr.from_network(jr.Network(np.ones((3, 2)), np.ones(2, np.float32)), small.X, small.y)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda n: jr.from_network(n, small.X, small.y)[1])(network)
