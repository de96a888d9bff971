"""Step sizes along Newton directions of convex piecewise smooth functions, many at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class _Bracket(NamedTuple):
    """Where the zero of a slope lies; its value at zero, whether a full step will do, and looks."""

    low: Array
    high: Array
    first: Array
    full: Array
    looks: Array


def line_minimum(
    slope: Callable[[Array], Array],
    lanes: int,
    dtype: Any,
    overshoot: Any = 0.5,
    shrink: float = 0.5,
    halvings: int = 12,
) -> tuple[Array, Array]:
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
        Step sizes (lanes,), and the slopes at zero (lanes,).
    """
    zero, one = jnp.zeros((lanes,), dtype), jnp.ones((lanes,), dtype)

    def look(state: _Bracket) -> _Bracket:
        # The slope is traced once: at zero, at one, then in the middle.
        middle = jnp.where(state.low > 0, 0.5 * (state.low + state.high), shrink * state.high)
        trial = jnp.where(state.looks == 0, zero, jnp.where(state.looks == 1, one, middle))
        here = slope(trial)
        first = jnp.where(state.looks == 0, here, state.first)
        full = jnp.where(state.looks == 1, here <= overshoot * jnp.abs(first), state.full)
        halved = state.looks > 1
        return _Bracket(
            jnp.where(halved & ~(here > 0), middle, state.low),
            jnp.where(halved & (here > 0), middle, state.high),
            first,
            full,
            state.looks + 1,
        )

    def going(state: _Bracket) -> Array:
        # Most steps of Newton's method are full: nothing is halved then.
        return (state.looks < 2) | ((state.looks < 2 + halvings) & ~jnp.all(state.full))

    no = jnp.zeros((lanes,), bool)
    low, high, first, full, _ = jax.lax.while_loop(
        going, look, _Bracket(zero, one, zero, no, jnp.asarray(0, jnp.int32))
    )
    # Where the bracket is still wide, only its lower end is sure to be a descent.
    wide = (low > 0) & (high - low > 1e-3 * high)
    return jnp.where(full, one, jnp.where(wide, low, high)), first
