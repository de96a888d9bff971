"""Derivatives of block correlations and of their largest length: both modes, differences, ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.geometry.correlations import correlations, longest_correlation

N, D, P, STEP = 8, 3, 4, 1e-6


def data(seed):
    rng = np.random.default_rng(seed)
    X, residual = rng.standard_normal((N, D)), rng.standard_normal(N)
    return X, X @ rng.standard_normal((D, P)) >= 0, residual


def outcome(X, masks, residual):
    """Every number of the correlations, and last the largest length."""
    q = correlations(X, masks, residual)
    return jnp.append(q.ravel(), longest_correlation(X, masks, residual))


value = jax.jit(outcome)


@jax.jit
def derivatives(X, masks, residual, dX, dr):
    """Tangents by X and by the residual, (2, k), and gradients times the same directions."""
    values, linear = jax.linearize(lambda X, r: outcome(X, masks, r), X, residual)
    rows = jax.vmap(jax.linear_transpose(linear, X, residual))(jnp.eye(len(values)))
    ahead = jnp.stack([linear(dX, jnp.zeros(N)), linear(jnp.zeros((N, D)), dr)])
    by_X, by_r = jnp.sum(rows[0] * dX[None], axis=(1, 2)), jnp.sum(rows[1] * dr[None], axis=1)
    return ahead, jnp.stack([by_X, by_r])


def directions():
    rng = np.random.default_rng(99)
    return rng.standard_normal((N, D)), rng.standard_normal(N)


@pytest.mark.parametrize("seed", range(4))
def test_both_modes_are_differences(seed):
    (X, masks, residual), (dX, dr) = data(seed), directions()
    found = derivatives(X, masks, residual, dX, dr)
    assert np.all(np.isfinite(found[0]))
    np.testing.assert_allclose(*found, atol=1e-9)
    # Some blocks lie on walls, some are zero, some are free.
    q = np.reshape(value(X, masks, residual)[:-1], (2, P, D))
    slack = np.einsum("nd,spd->spn", X, q)
    assert np.any(np.abs(slack) < 1e-12)
    for k, (a, b) in enumerate(((dX, 0.0 * dr), (0.0 * dX, dr))):
        ends = [value(X + h * a, masks, residual + h * b) for h in (STEP, -STEP)]
        np.testing.assert_allclose(found[0][k], (ends[0] - ends[1]) / (2 * STEP), atol=1e-6)


def test_a_wall_without_a_multiplier_and_equal_lengths_have_no_derivative():
    # c = (1, 0) for both patterns of the two samples that are there: on the wall of the second, and
    # not pushed; the residual of the second moves it off to one side only.
    X = np.zeros((N, D))
    X[0, 0], X[1, 1] = 1.0, 1.0
    X[2:, 2] = 1.0  # they are in no pattern, and their walls are never touched for want of pull
    masks = np.zeros((N, P), bool)
    masks[0], masks[1, 0] = True, True
    residual = np.zeros(N)
    residual[0] = 1.0
    ahead, back = derivatives(X, masks, residual, *directions())
    assert np.isnan(ahead[1, :D]).any()
    assert np.isnan(back[1, :D]).any()
    # Two blocks of the same length and other directions: the largest has none.
    masks[:] = False
    masks[0, :2], masks[1, 2:] = True, True
    residual[1] = 1.0
    ahead, back = derivatives(X, masks, residual, *directions())
    assert np.isnan(ahead[1, -1])
    assert np.isnan(back[1, -1])
    # Of one direction, and no other as long, it is theirs.
    residual[1] = 0.5
    dr = directions()[1]
    ahead, back = derivatives(X, masks, residual, np.zeros((N, D)), dr)
    np.testing.assert_allclose([ahead[1, -1], back[1, -1]], dr[0])
