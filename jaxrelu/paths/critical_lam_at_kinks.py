r"""The critical lam of a loss with kinks at zero weights.

Where targets are at the kink, minus the subdifferential at zero is a box, and

    lambda_max = min over r in the box of max_b ||q_b(r)|| / w_b
               = max over theta in the cones of  -sum_i c_i l_i'(0; f_i) / sum_b w_b ||theta_b||,

with l'(0; f) the slope on the side that f is on: a convex program of its own, and its dual. Any r
gives an upper end, any theta a lower one. Dinkelbach's method takes theta from a `solve` at a lam
below: its quotient is the next lam, and larger; a solve at or above the critical lam ends at zero,
and its residual is an r.

Reference: Dinkelbach (Management Science, 1967).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.numerics import eps
from jaxrelu.core.rounding import added, downward, roundoff, sum_roundings, tiny, upward
from jaxrelu.paths.solve import solve
from jaxrelu.programs.bounds import all_blocks, fit_of
from jaxrelu.programs.penalties import sizes
from jaxrelu.programs.program import Program, residual_at, sample_weights
from jaxrelu.programs.solution import Solution

_MOST_SOLVES = 60


def at_kink(program: Program) -> Array:
    """(n,) bool, samples that count and have a kink where their fit is zero."""
    above, below = _slopes_at_zero(program)
    return (above != below) & (sample_weights(program) > 0)


def _slopes_at_zero(program: Program) -> tuple[Array, Array]:
    """Of the loss, above and below, (n,) and (n,)."""
    y = jnp.asarray(program.y)
    step = jnp.full(y.shape, tiny(y.dtype), y.dtype)
    return program.loss.gradient(step, y), program.loss.gradient(-step, y)


def critical_with_kinks(
    program: Program, upper_at: Callable[[Array], float], near: float
) -> tuple[float, float]:
    """Two numbers that the critical lam lies between, on the host.

    Args:
        program: all of its blocks are penalised.
        upper_at: the upper end that a residual (n,) gives.
        near: relative distance at which the ends are close enough; where the critical lam is that
            small against the first upper end, the lower one is zero.

    Returns:
        ``(lower, upper)``.
    """
    kinks, zero = np.asarray(at_kink(program)), jnp.zeros_like(jnp.asarray(program.y))
    first = residual_at(program, zero)
    start = upper = upper_at(first)
    lower, lam, answer = 0.0, 0.5 * upper, None
    for _ in range(_MOST_SOLVES):
        if not upper - lower > near * upper or not upper > near * start:
            break
        answer = solve(program, lam, rtol=0.1 * near, init=answer)
        quotient = _steepness(program, answer)
        if quotient > lower:
            lower = quotient
        else:
            # Away from kinks there is one residual.
            residual = jnp.where(kinks, answer.residual, first)
            found = upper_at(residual)
            if not found < upper and lower > 0:
                break
            upper = min(upper, found)
        lam = lower * (1.0 + 0.3 * near) if lower > 0 else 0.5 * upper
    return lower, upper


def _steepness(program: Program, answer: Solution) -> float:
    """The quotient of an answer, rounded down; zero of zero weights."""
    blocks = all_blocks(jnp.asarray(answer.weights))
    fit, off = fit_of(program, blocks)
    above, below = _slopes_at_zero(program)
    c, (n, d), dtype = sample_weights(program), program.X.shape, fit.dtype
    # Above is at least below: the slope on the side of the fit makes the larger product.
    terms = c * jnp.maximum(above * fit, below * fit)
    wrong = c * jnp.maximum(jnp.abs(above), jnp.abs(below)) * off
    times = sum_roundings(n, dtype) + 4.0
    wrong = roundoff(dtype) * (added(wrong) + times * added(jnp.abs(terms)))
    size = added(sizes(program, blocks.weights))
    size = upward(size, roundoff(dtype) * (sum_roundings(len(blocks.ids), dtype) + d + 8.0) * size)
    falls = float(downward(-added(terms), 1.01 * wrong))
    # A quotient rounds once more.
    return falls / float(size) * (1.0 - 4.0 * eps(dtype)) if falls > 0 else 0.0
