"""Residuals beside a skip connection, and how far fits may be, for losses with kinks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import zoo

from jaxrelu.programs.extension import extended
from jaxrelu.programs.free_fits import balanced
from jaxrelu.programs.unpenalised import distances, distances_by_side


def test_the_nearest_residual_that_a_skip_connection_asks_for():
    made = replace(zoo.hinge(), skip=True)
    X, y = np.asarray(made.X), np.asarray(made.y)
    low, high = np.minimum(y, 0.0), np.maximum(y, 0.0)
    given = np.random.default_rng(0).uniform(-2.0, 2.0, len(y))
    r = np.asarray(jax.jit(lambda r: balanced(extended(made), r))(jnp.asarray(given)))
    assert np.all((r >= low) & (r <= high))
    assert np.max(np.abs(X.T @ r)) <= 1e-12 * len(y)
    # Where there is room on both sides it has moved by A x: no other is nearer.
    inside = (r > low) & (r < high)
    assert np.sum(inside) > X.shape[1]
    x = np.linalg.lstsq(X[inside], (r - given)[inside])[0]
    np.testing.assert_allclose(r, np.clip(given + X @ x, low, high), atol=1e-10)


def test_a_missed_label_is_bounded_by_two_dual_vectors_together():
    """With r at its end the hinge is flat for smaller margins, with zero for larger ones."""
    made = zoo.hinge()
    y = jnp.asarray(made.y)
    fit, level = jnp.zeros_like(y), jnp.asarray(2.0)
    each = [distances(made, dual, level, fit) for dual in (y, 0.0 * y)]
    assert np.all(np.isinf(np.asarray(each)))
    sides = jnp.stack([distances_by_side(made, dual, level, fit) for dual in (y, 0.0 * y)])
    assert np.all(np.isfinite(np.max(np.min(np.asarray(sides), axis=0), axis=0)))
