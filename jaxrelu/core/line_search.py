"""Step sizes along Newton directions of convex piecewise smooth functions, many at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def line_minimum(
    slope: Callable[[Array], Array],
    lanes: int,
    dtype: Any,
    overshoot: Any = 0.5,
    shrink: float = 0.5,
    halvings: int = 12,
) -> Array:
    """Step sizes in (0, 1] that minimise convex functions of one variable, given their slopes.

    The full step is kept where the slope there is small against the slope at zero; otherwise the
    zero of the slope is bracketed by bisection. Slopes, unlike values, do not drown in rounding.

    Args:
        slope: maps step sizes (lanes,) to derivatives (lanes,).
        lanes: number of independent functions.
        dtype: of the step sizes.
        overshoot: slope at the full step, relative to the one at zero, up to which it is kept. A
            small one never lets the function rise; a large one takes fewer steps on most problems.
        shrink: factor of the bracket until something is below the zero: a small one where Newton
            directions can be too long by orders of magnitude, knowing nothing of the kinks ahead.
        halvings: number of bisections.

    Returns:
        Step sizes (lanes,).
    """
    zero, one = jnp.zeros((lanes,), dtype), jnp.ones((lanes,), dtype)
    full = slope(one) <= overshoot * jnp.abs(slope(zero))

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = jnp.where(low > 0, 0.5 * (low + high), shrink * high)
        beyond = slope(middle) > 0
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    # Most steps of Newton's method are full: nothing is halved then.
    count = jnp.where(jnp.all(full), 0, halvings)
    low, high = jax.lax.fori_loop(0, count, halve, (zero, one))
    # Where the bracket is still wide, only its lower end is sure to be a descent.
    wide = (low > 0) & (high - low > 1e-3 * high)
    return jnp.where(full, one, jnp.where(wide, low, high))
