"""Proximal operators of the penalties, block by block."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrelu.core.numerics import safe_norm


def block_soft_threshold(points: Array, threshold: ArrayLike) -> Array:
    """Proximal operator of the group norm, one block a row.

    prox(v) = argmin_u 1/2 ||u - v||^2 + t ||u||_2 = max(0, 1 - t / ||v||) v

    The proximal operator of t ||.|| plus the indicator of a convex cone is this map after the
    Euclidean projection onto the cone.

    Args:
        points: array (..., d), floating; one block a row.
        threshold: t >= 0, a scalar or an array (...), one value a block.

    Returns:
        Array (..., d), the shrunk blocks. Derivatives are finite everywhere: zero inside the ball
        ||v|| <= t, and the identity for t = 0. NaN in a block or in its threshold gives NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.programs.penalties import block_soft_threshold
        >>> block_soft_threshold(jnp.asarray([[3.0, 4.0], [0.3, 0.4]]), 2.5).tolist()
        [[1.5, 2.0], [0.0, 0.0]]

    Reference:
        Yu, "On decomposing the proximal map", NeurIPS 2013 (norm after cone).
    """
    threshold = jnp.asarray(threshold, dtype=points.dtype)
    threshold = jnp.broadcast_to(threshold, points.shape[:-1])[..., None]
    norm = safe_norm(points, keepdims=True)
    # Both comparisons are false for NaN, which therefore reaches the quotient.
    inside = (norm <= threshold) & (threshold > 0)
    divisor = jnp.where(inside | (norm == 0), 1.0, norm)
    return jnp.where(inside, 0.0, 1.0 - threshold / divisor) * points
