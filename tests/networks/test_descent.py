"""Paths from any network to an optimal one: continuous, within the width, never rising."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import jaxrelu as jr
from jaxrelu.geometry.host import vertex_walks


def optimum_with(network, X, y, lam):
    """Optimal over all cells of the data, with rounding far below what the tests look at."""
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X))
    return jr.minimal(jr.to_network(program, jr.solve(program, lam, rtol=1e-11).weights), X)


def check(path, network, optimum, X, y, lam, width):
    grid = jnp.linspace(0.0, 1.0, 4001)
    nets = jax.jit(jax.vmap(path))(grid)
    assert nets.hidden.shape[2] == width
    for net, at in ((network, 0), (optimum, -1)):
        m = net.num_neurons
        np.testing.assert_allclose(nets.hidden[at][:, :m], net.hidden, atol=1e-6)
        np.testing.assert_allclose(nets.output[at][:m], net.output, atol=1e-6)
    values = jax.vmap(lambda net: jr.nonconvex_objective(net, X, y, lam))(nets)
    assert float(jnp.max(jnp.diff(values))) < 1e-7 * float(values[0])
    assert float(values[-1]) < float(values[0]) + 1e-9
    # No jump: moves on the grid are bounded by the square root of its step.
    pieces = path.moving.start.shape[0] + 3
    size = float(jnp.max(jnp.abs(nets.hidden)))
    assert float(jnp.max(jnp.abs(jnp.diff(nets.hidden, axis=0)))) < 4 * size * np.sqrt(
        2 * pieces / 4000
    )
    assert int(path.width_needed) <= width


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_network_comes_down_at_n_plus_one(seed):
    rng = np.random.default_rng(seed)
    n, d, lam = 4, 2, 0.3
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    network = jr.Network(
        jnp.asarray(rng.standard_normal((d, n + 1))), jnp.asarray(rng.standard_normal(n + 1))
    )
    optimum = optimum_with(network, X, y, lam)
    assert optimum.num_neurons <= n + 1
    path = jr.descend(network, optimum, X, y, lam)
    check(path, network, optimum, X, y, lam, n + 1)


@pytest.mark.slow
def test_from_zero_and_with_dead_and_split_neurons():
    X, y, lam = np.eye(2), np.asarray([2.0, 1.0]), 0.5
    zero = jr.Network(jnp.zeros((2, 3)), jnp.zeros(3))
    best = optimum_with(zero, X, y, lam)
    check(jr.descend(zero, best, X, y, lam), zero, best, X, y, lam, 3)
    odd = jr.Network(
        jnp.asarray([[1.0, -1.0, 2.0], [0.0, -1.0, 0.0]]), jnp.asarray([0.1, 1.0, 0.5])
    )
    check(jr.descend(odd, best, X, y, lam), odd, best, X, y, lam, 3)


def test_bad_input_names_the_fix():
    X, y, lam = np.eye(2), np.asarray([2.0, 1.0]), 0.5
    poor = jr.Network(jnp.asarray([[0.5], [1.5]]), jnp.ones(1))
    best = optimum_with(poor, X, y, lam)
    with pytest.raises(ValueError, match="pass width="):
        jr.descend(poor, best, X, y, lam)
    with pytest.raises(ValueError, match="the slots of (all|both) networks"):
        jr.descend(poor, best, X, y, lam, width=0)
    with pytest.raises(ValueError, match="not optimal over the directions"):
        jr.descend(poor, jr.balance(poor), X, 5 * y, lam, width=3)
    with pytest.raises(ValueError, match="own correlations"):
        jr.descend(poor, best, X, 0.9 * y, lam, width=3)
    with pytest.raises(ValueError, match="one number a row"):
        jr.descend(poor, best, X, y[:1], lam, width=3)
    with pytest.raises(ValueError, match="lam is"):
        jr.descend(poor, best, X, y, 0.0, width=3)
    with pytest.raises(ValueError, match="not balanced"):
        jr.descend(poor, jr.Network(2 * best.hidden, best.output), X, y, lam, width=3)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda net: jr.descend(net, best, X, y, lam, width=3)(1.0))(poor)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_simplex_walks_agree_with_an_independent_solver(seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 5)), int(rng.integers(2, 9))
    # Rank deficient now and then.
    Z = rng.standard_normal((n, max(1, n - int(rng.integers(0, 2)))))
    Z = Z @ rng.standard_normal((Z.shape[1], k))
    cost = rng.random(k)
    begin, end = rng.random(k), rng.random(k) * (rng.random(k) < 0.5)
    a = begin
    for corner in vertex_walks.to_vertex(Z, begin, cost):
        np.testing.assert_allclose(Z @ corner, Z @ begin, atol=1e-8)
        assert cost @ corner <= cost @ a + 1e-9
        a = corner
    assert np.sum(a > 0) <= np.linalg.matrix_rank(Z)
    corners, basis = vertex_walks.pivots(Z, a, cost)
    low = linprog(cost, A_eq=Z, b_eq=Z @ begin, method="highs").fun
    assert cost @ (corners[-1] if corners else a) == pytest.approx(low, abs=1e-7)
    corners = vertex_walks.follow(Z, basis, cost, Z @ begin, Z @ end)
    for corner in corners:
        assert np.all(corner >= 0)
        least = linprog(cost, A_eq=Z, b_eq=Z @ corner, method="highs").fun
        assert cost @ corner == pytest.approx(least, abs=1e-7)
    np.testing.assert_allclose(Z @ corners[0], Z @ begin, atol=1e-8)
    np.testing.assert_allclose(Z @ corners[-1], Z @ end, atol=1e-8)


def test_a_right_hand_side_out_of_reach_is_said():
    with pytest.raises(RuntimeError, match="left the cone"):
        vertex_walks.follow(np.eye(2), [0, 1], np.ones(2), np.ones(2), np.asarray([1.0, -1.0]))


def test_nothing_descends_to_nothing():
    X, y = np.eye(2), np.asarray([1.0, -1.0])
    zero = jr.Network(jnp.zeros((2, 3)), jnp.zeros(3))
    path = jr.descend(zero, zero, X, y, 10.0)
    assert not np.any(path(0.5).hidden)
