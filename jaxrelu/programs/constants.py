r"""The constant of a free bias: its equality sum_i r_i = 0, and what a lower bound loses by it.

By Fenchel's inequality objective >= D(r) - c sum_i r_i for any dual vector r of the penalised
blocks, so |sum_i r_i| C is what the sum costs, C a bound of |c| over all weights whose objective is
at most a known value U. Their penalty is at most lam sum_b w_b ||u_b|| <= U - inf loss, hence
sum_b ||u_b|| <= T = (U - inf loss) / (lam min_b w_b). A block's part of a fit is at most
2 max ||x_i|| ||u|| (about the mean, where both bits are in its cell), so all fits are within
D = 2 max ||x_i|| T of c, and for c >= D + a, a >= 0,

    U >= sum_i c_i l_i(f_i) >= sum_i c_i m_i(a),    m_i(a) = l_i(a) if l_i'(a) >= 0, else inf l_i,

which no longer holds from some a on; and likewise below zero. There is none where one side costs
nothing, as with labels that are all equal.

Reference: Fenchel duality.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.numerics import safe_norm
from jaxrelu.core.rounding import accurate_product
from jaxrelu.losses.base import total_conjugate
from jaxrelu.losses.kinks import TwoSlopes
from jaxrelu.programs.bias import CentredProgram
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.program import Program, sample_weights

# Distances that are tried: powers of four, these many from this one on.
_NEAREST, _TRIALS = -12, 64
# Halvings of a shift: to its last bit.
_HALVINGS = 80


def has_constant_alone(program: Program) -> bool:
    """Whether the constant of a free bias is all that is neither penalised nor confined."""
    return isinstance(program, CentredProgram) and not program.skip


def constant_loss(program: Program, lam: Array, dual: Array, upper: Array) -> Array:
    """What a dual value has to be lowered by for the sum of its vector.

    Args:
        program: in units, a `CentredProgram` without a skip connection.
        lam: scalar.
        dual: (n,), r.
        upper: scalar, U: the objective at some weights.

    Returns:
        Scalar, infinite where there is no bound.
    """
    loss, y, weight = program.loss, jnp.asarray(program.y), sample_weights(program)
    given = block_weights(program)
    assert given is not None
    nothing, counts = jnp.zeros_like(dual), weight > 0
    level = upper + 1e-3 * jnp.abs(upper)
    lowest = -total_conjugate(loss, nothing, y, weight)
    lightest = jnp.min(jnp.where(given == 0, jnp.inf, given), initial=jnp.inf)
    sizes = (level - lowest) / (lam * lightest)
    around = 2.02 * jnp.max(safe_norm(jnp.asarray(program.X)[:, :-1]), initial=0.0) * sizes
    floor = -loss.conjugate(nothing, y)

    def exceeds(distance: Array) -> Array:
        """Whether both sides do, from so far on."""

        def side(sign: float) -> Array:
            at = jnp.full_like(dual, sign) * distance
            rises = sign * loss.gradient(at, y) >= 0
            least = jnp.where(rises, loss.value(at, y), floor)
            return jnp.sum(jnp.where(counts, weight * least, 0.0)) > level

        return side(1.0) & side(-1.0)

    trials = jnp.asarray(4.0 ** np.arange(_NEAREST, _NEAREST + _TRIALS), dual.dtype)
    enough = jax.lax.map(exceeds, trials)
    found = jnp.any(enough)
    furthest = around + trials[jnp.argmax(enough)]
    z, off = accurate_product(dual, jnp.ones((len(dual), 1), dual.dtype))
    left = (jnp.abs(z) + off)[0]
    return jnp.where(found, 1.01 * left * furthest, jnp.where(left > 0, jnp.inf, 0.0))


def best_constant(program: Program) -> Array:
    """The target c at which sum_i max(low_i (c - y_i), high_i (c - y_i)) is least, a scalar."""
    loss, y, weight = program.loss, jnp.asarray(program.y), sample_weights(program)
    assert isinstance(loss, TwoSlopes)
    low, high = loss.slopes(y)
    order = jnp.argsort(y)
    # The slope beyond each target, from the left.
    slope = jnp.sum(weight * low) + jnp.cumsum((weight * (high - low))[order])
    place: Array = jnp.argmax(slope >= 0)
    return y[order[jnp.where(jnp.any(slope >= 0), place, len(y) - 1)]]


def of_sum_zero(program: Program, residual: Array) -> Array:
    """A residual of a loss with kinks as one of sum zero: all are moved by as much.

    They stay within their slopes. Where that cannot be it is what it was.
    """
    weight = sample_weights(program)
    low, high = program.loss.slopes(jnp.asarray(program.y))  # type: ignore[attr-defined]
    least, most = -weight * high, -weight * low
    reach = jnp.max(jnp.abs(residual)) + jnp.max(jnp.abs(least)) + jnp.max(jnp.abs(most))

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        below = jnp.sum(jnp.clip(residual + middle, least, most)) < 0
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    _, shift = jax.lax.fori_loop(0, _HALVINGS, halved, (-reach, reach))
    return jnp.clip(residual + shift, least, most)
