r"""The critical lam of a loss with kinks at zero weights.

Where targets are at the kink, minus the subdifferential at zero is a box, and

    lambda_max = min over r in the box of max_b ||q_b(r)|| / w_b
               = max over theta in the cones of  -sum_i c_i l_i'(0; f_i) / sum_b w_b ||theta_b||,

with l'(0; f) the slope on the side that f is on: a convex program of its own, and its dual. With a
free bias zero weights have the best constant, and the residuals of the box that count are those of
sum zero. Any r gives an upper end, any theta a lower one. Dinkelbach's method takes theta from a
`solve` at a lam below: its quotient is the next lam, and larger; a solve at or above the critical
lam ends at zero, and its residual is an r.

Reference: Dinkelbach (Management Science, 1967).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.numerics import eps
from jaxrelu.core.rounding import added, downward, roundoff, sum_roundings, tiny, upward
from jaxrelu.losses.kinks import TwoSlopes
from jaxrelu.paths.solve import solve
from jaxrelu.programs.bounds import all_blocks, fit_of
from jaxrelu.programs.constants import best_constant
from jaxrelu.programs.extension import Parts, extended, joined
from jaxrelu.programs.penalties import sizes
from jaxrelu.programs.program import Program, sample_weights
from jaxrelu.programs.solution import Solution

_MOST_SOLVES = 60


class Zero(NamedTuple):
    """A program of a loss with kinks at zero weights, on the host.

    Attributes:
        constant: the best constant where a bias is free, zero elsewhere.
        above, below: (n,), slopes of the loss there, of larger and of smaller fits.
    """

    constant: Any
    above: Array
    below: Array


def zero_weights(program: Program) -> Zero:
    """`Zero` of a program; a free bias takes a loss of two slopes."""
    y, loss = jnp.asarray(program.y), program.loss
    if program.bias != "free":
        step = jnp.full(y.shape, tiny(y.dtype), y.dtype)
        return Zero(np.zeros((), y.dtype), loss.gradient(step, y), loss.gradient(-step, y))
    assert isinstance(loss, TwoSlopes)
    low, high = (np.asarray(end) for end in loss.slopes(y))
    target, constant = np.asarray(y), np.asarray(best_constant(program))
    return Zero(
        constant,
        jnp.asarray(np.where(constant >= target, high, low)),
        jnp.asarray(np.where(constant > target, high, low)),
    )


def at_kink(program: Program) -> Array:
    """(n,) bool, samples that count and have a kink where their fit is zero."""
    y = jnp.asarray(program.y)
    step = jnp.full(y.shape, tiny(y.dtype), y.dtype)
    differ = program.loss.gradient(step, y) != program.loss.gradient(-step, y)
    return differ & (sample_weights(program) > 0)


def critical_with_kinks(
    program: Program, upper_at: Callable[[Array], float], near: float
) -> tuple[float, float]:
    """Two numbers that the critical lam lies between, on the host.

    Args:
        program: all of its blocks are penalised; a bias may be free.
        upper_at: the upper end that a residual (n,) gives; with a free bias its sum is zero.
        near: relative distance at which the ends are close enough; where the critical lam is that
            small against the first upper end, the lower one is zero.

    Returns:
        ``(lower, upper)``.
    """
    zero = zero_weights(program)
    first = _residual_near(program, zero, jnp.zeros_like(zero.above))
    start = upper = upper_at(first)
    lower, lam, answer = 0.0, 0.5 * upper, None
    for _ in range(_MOST_SOLVES):
        if not upper - lower > near * upper or not upper > near * start:
            break
        # With a free bias from nothing: there many more samples are tied, at the best constant.
        init = None if program.bias == "free" else answer
        answer = solve(program, lam, rtol=0.1 * near, init=init)
        quotient = _steepness(program, zero, answer)
        if quotient > lower:
            lower = quotient
        else:
            found = upper_at(_residual_near(program, zero, answer.residual))
            if not found < upper and lower > 0:
                break
            upper = min(upper, found)
        lam = lower * (1.0 + 0.3 * near) if lower > 0 else 0.5 * upper
    return lower, upper


def _residual_near(program: Program, zero: Zero, residual: Array) -> Array:
    """A residual of zero weights near another (n,): away from kinks there is one.

    With a free bias its sum is zero: all are moved by as much, within the slopes.
    """
    c = sample_weights(program)
    low, high = -c * zero.above, -c * zero.below
    if program.bias != "free":
        return jnp.clip(residual, low, high)
    given, ends = np.asarray(residual), (np.asarray(low), np.asarray(high))
    most = float(np.max(np.abs(given)) + np.max(np.abs(ends))) if len(given) else 0.0
    below, above = -most, most
    for _ in range(200):
        middle = 0.5 * (below + above)
        total = float(np.sum(np.clip(given + middle, *ends)))
        below, above = (middle, above) if total < 0 else (below, middle)
    found = np.clip(given + above, *ends)
    # What is left goes to the sample with the most room.
    left = float(np.sum(found))
    k = int(np.argmax(found - ends[0] if left > 0 else ends[1] - found))
    found[k] = np.clip(found[k] - left, ends[0][k], ends[1][k])
    return jnp.asarray(found)


def _steepness(program: Program, zero: Zero, answer: Solution) -> float:
    """The quotient of an answer, rounded down; zero of zero weights."""
    whole = extended(program)
    constant = None if answer.constant is None else answer.constant - zero.constant
    blocks = all_blocks(joined(program, Parts(answer.weights, answer.skip, constant)))
    fit, off = fit_of(whole, blocks)
    above, below = zero.above, zero.below
    c, (n, d), dtype = sample_weights(program), whole.X.shape, fit.dtype
    # Above is at least below: the slope on the side of the fit makes the larger product.
    terms = c * jnp.maximum(above * fit, below * fit)
    wrong = c * jnp.maximum(jnp.abs(above), jnp.abs(below)) * off
    times = sum_roundings(n, dtype) + 4.0
    wrong = roundoff(dtype) * (added(wrong) + times * added(jnp.abs(terms)))
    size = added(sizes(whole, blocks.weights))
    size = upward(size, roundoff(dtype) * (sum_roundings(len(blocks.ids), dtype) + d + 8.0) * size)
    falls = float(downward(-added(terms), 1.01 * wrong))
    # A quotient rounds once more.
    return falls / float(size) * (1.0 - 4.0 * eps(dtype)) if falls > 0 else 0.0
