"""Membership, projection and selection."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from optimal_set_checks import in_order

import jaxrelu as jr


def test_selections_of_the_known_answer(known):
    _, _, optima = known
    order = in_order(optima)
    expected = {
        "min_norm": [1.0, 1.0, 1.0], "min_max": [1.0, 1.0, 1.0],
        "max_max": [0.0, 0.0, 3.0], "fewest": [0.0, 0.0, 3.0],
    }  # fmt: skip
    for criterion, values in expected.items():
        found = np.asarray(jr.select(optima, criterion))[order]
        np.testing.assert_allclose(found, values, atol=1e-6, err_msg=criterion)
    # The loss at a new point sees the members differ.
    there = np.maximum(np.asarray([[0.3, 1.0]]) @ np.asarray(optima.directions)[:, :2].T, 0.0)
    best = jr.select(optima, lambda a: jnp.sum((there @ a - 2.9) ** 2))
    grid = np.linspace(0, 1, 1001)[:, None]
    corners = np.asarray(jr.vertices(optima))
    members = grid * corners[0] + (1 - grid) * corners[1]
    assert (
        np.sum((there @ best - 2.9) ** 2)
        <= np.min(np.sum((members @ there.T - 2.9) ** 2, 1)) + 1e-9
    )
    # Functions with kinks: (s, s, 3 - 2 s) has the maximum max(s, 3 - 2 s).
    np.testing.assert_allclose(jr.select(optima, jnp.max)[order], 1.0, atol=1e-6)
    there = jnp.zeros(3).at[order].set(jnp.asarray([0.5, 0.2, 0.0]))
    found = jr.select(optima, lambda a: jnp.sum(jnp.abs(a - there)))
    assert float(jnp.sum(jnp.abs(found - there))) == pytest.approx(2.3, abs=1e-6)
    with pytest.raises(ValueError, match="criterion is \"?'?smallest"):
        jr.select(optima, "smallest")


def test_membership_and_projection_of_weights(known):
    _, solution, optima = known
    assert jr.is_optimal(optima, solution.weights, rtol=1e-2)
    assert not jr.is_optimal(optima, 0.9 * solution.weights, rtol=1e-2)
    nearest = jr.nearest_optimal(optima, 0.9 * solution.weights)
    assert jr.is_optimal(optima, nearest)
    np.testing.assert_allclose(jr.nearest_optimal(optima, np.zeros(3)), np.ones(3), atol=1e-9)
    for shape in [(2, 4, 7), (zoo.FEATURES,), (3, zoo.FEATURES)]:
        with pytest.raises(
            ValueError, match=r"pass coefficients \(3,\), convex weights \(2, 16, 5\)"
        ):
            jr.is_optimal(optima, np.zeros(shape))
    gated = jr.GatedNetwork(optima.directions.T, optima.directions.T, jnp.ones(3))
    for function in (jr.is_optimal, jr.nearest_optimal):
        with pytest.raises(TypeError, match="of ReLU networks: pass a Network"):
            function(optima, gated)
        with pytest.raises(ValueError, match="4 features"):
            function(optima, jr.Network(jnp.ones((4, 2)), jnp.ones(2)))


def cells_of(program, direction):
    """(p,): the patterns whose closed cone has a direction in it."""
    along = np.asarray(program.X) @ direction
    signed = (2.0 * np.asarray(program.patterns.masks) - 1) * along[:, None]
    return np.all(signed >= -1e-9, axis=0)


def in_blocks(optima, a, blocks):
    """Convex weights of coefficients (k,), each in a block (sign, pattern) of its own."""
    weights = np.zeros((2, zoo.PATTERNS, zoo.FEATURES))
    for value, direction, block in zip(a, np.asarray(optima.directions), blocks, strict=True):
        weights[block] += value * direction
    return weights


def test_weights_are_optimal_only_in_cells_that_hold_their_direction(known):
    program, _, optima = known
    held = np.stack([cells_of(program, u) for u in np.asarray(optima.directions)])
    home = [(0, int(np.argmax(row))) for row in held]
    assert np.any(held.sum(axis=1) > 1)
    for e in range(3):
        for sign in (0, 1):
            for block in range(zoo.PATTERNS):
                blocks = [*home[:e], (sign, block), *home[e + 1 :]]
                expected = sign == 0 and held[e, block]
                assert jr.is_optimal(optima, in_blocks(optima, np.ones(3), blocks)) == expected
    # What goes forth in one cell and back in another has the fit, but not the penalty.
    e = int(np.argmax(held.sum(axis=1)))
    first, second = ((0, int(block)) for block in np.flatnonzero(held[e])[:2])
    weights = in_blocks(optima, np.ones(3), [*home[:e], first, *home[e + 1 :]])
    assert jr.is_optimal(optima, weights)
    weights[first] *= 2.0
    weights[second] -= 0.5 * weights[first]
    assert not jr.is_optimal(optima, weights)


def test_weights_are_projected_in_their_own_blocks(known):
    # Weights along x_1 + x_2 in a cell whose direction is x_1, with <x_1, x_1 + x_2> = 1/2.
    program, solution, optima = known
    order = in_order(optima)
    directions = np.asarray(optima.directions)[order]
    block = np.flatnonzero(cells_of(program, directions[0]) & ~cells_of(program, directions[2]))[0]
    for size in (2.0, -2.0):
        weights = np.zeros(solution.weights.shape)
        weights[0, block] = size * directions[2]
        c, s = np.asarray([0.5 * size, 0.0, 0.0]), np.linspace(0.0, 1.5, 150_001)
        members = np.stack([s, s, 3.0 - 2.0 * s], axis=1)
        expected = members[np.argmin(np.sum((members - c) ** 2, axis=1))]
        found = np.asarray(jr.nearest_optimal(optima, weights))[order]
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_neuron_in_a_cell_without_a_direction_counts_for_nothing():
    # Four of six cells have an optimal direction, at 20 degrees from the second axis.
    X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)], [-1.0, 0.0]])
    program = zoo.tiny(X, [2.0, 2.0, 2.0, 0.0])
    optima = jr.optimal_set(program, jr.solve(program, 0.3))
    assert (optima.signs.size, optima.dimension) == (4, 1)
    hidden = np.zeros((zoo.FEATURES, 1))
    nearest = {}
    for degrees in (25.0, 35.0, 325.0):  # a wall at 30 degrees, and one at 330
        hidden[:2, 0] = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        network = jr.Network(jnp.asarray(2 * hidden), jnp.asarray([2.0]))
        nearest[degrees] = np.asarray(jr.nearest_optimal(optima, network))
    from_zero = np.asarray(jr.nearest_optimal(optima, np.zeros(4)))
    np.testing.assert_allclose(nearest[25.0], from_zero, atol=1e-9)
    assert np.max(np.abs(nearest[35.0] - from_zero)) > 0.1
    assert np.max(np.abs(nearest[325.0] - from_zero)) > 0.1


def test_gates_of_a_candidate_must_act_alike(known):
    # The set of the gated program whose gates are the three directions.
    _, _, optima = known
    optima = replace(optima, gates=optima.directions.T, direction_of=jnp.asarray([2, 0, 1]))
    member = jr.network_from_coefficients(optima, optima.interior)
    assert jr.is_optimal(optima, member)
    # A gate is known by the samples on which it opens, a neuron by hidden times output.
    other = jr.GatedNetwork(2.0 * member.gates + 0.01, -member.hidden, -member.output)
    assert jr.is_optimal(optima, other)
    np.testing.assert_allclose(jr.nearest_optimal(optima, other), optima.interior, atol=1e-7)
    wrong = jr.GatedNetwork(member.gates[:, [1, 2, 0]], member.hidden, member.output)
    assert not jr.is_optimal(optima, wrong)
    # Neuron k now has the gate of direction k + 1, and counts along that one.
    u, a = np.asarray(optima.directions), np.asarray(optima.interior)
    along = np.roll(a * np.sum(u * np.roll(u, -1, axis=0), axis=1), 1)
    found = jr.nearest_optimal(optima, wrong)
    np.testing.assert_allclose(found, jr.nearest_optimal(optima, along), atol=1e-9)
    with pytest.raises(TypeError, match="of gated networks: pass a GatedNetwork"):
        jr.is_optimal(optima, jr.Network(member.hidden, member.output))
    own = np.asarray(optima.direction_of)
    weights = (np.asarray(optima.interior)[:, None] * np.asarray(optima.directions))[own]
    assert jr.is_optimal(optima, weights)
    assert not jr.is_optimal(optima, weights[[1, 0, 2]])


def test_coefficients_below_zero_are_refused():
    program = zoo.tiny([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0])
    optima = jr.optimal_set(program, jr.solve(program, 0.5))
    with pytest.raises(ValueError, match="nearest_optimal"):
        jr.network_from_coefficients(optima, -np.ones(optima.signs.shape))
