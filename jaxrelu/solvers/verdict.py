r"""From evidence to a certificate and a status: the only place that says OPTIMAL.

Whatever solver found it, an answer goes one way: its blocks are moved inside their cones, both
values are evaluated there with the rounding of their own evaluation, and the numbers that are
handed out are judged as they are printed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.status import Status
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.programs.bias import smallest_biases
from jaxrelu.programs.bounds import (
    Blocks,
    all_blocks,
    correlation_bound,
    dense,
    inside,
    lower_bound,
    upper_value,
)
from jaxrelu.programs.certificates import Certificate, evidence
from jaxrelu.programs.extension import Parts, apart, extended_shape, joined
from jaxrelu.programs.free_pairs import shortest_pairs
from jaxrelu.programs.penalties import sizes
from jaxrelu.programs.preparation import lifted, lowered
from jaxrelu.programs.program import Program, residual_at
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.programs.units import are_lost, into_units, out_of_units, printed
from jaxrelu.solvers.base import Evidence, Tolerance, tolerances
from jaxrelu.solvers.scaled_program import Prepared, prepared


class Verdict(NamedTuple):
    """A certified answer: blocks (k,) with their weights (k, d), and what is known of them.

    Traced or not, or on the host.
    """

    blocks: Any
    weights: Any
    fit: Any
    residual: Any
    dual: Any
    lower: Any
    upper: Any
    status: Any


def conclude(at: Prepared, lam: Array, tolerance: Tolerance, found: Evidence) -> Verdict:
    """Evaluates both values at what a solver returned, and gives the status.

    Args:
        at: the program.
        lam: in units; what is not positive and finite ends as INVALID.
        tolerance: in the numbers of the user.
        found: what the solver returned for the scaled program.

    Returns:
        `Verdict`, in the numbers of the user.
    """
    program, units = at.whole, at.units
    valid = (lam > 0) & jnp.isfinite(lam)
    residual, weights = found.residual, lifted(found.blocks.weights, at.space)
    weights = shortest_pairs(program, found.blocks.ids, weights)
    weights = smallest_biases(program, found.blocks.ids, weights)
    blocks = inside(program, found.blocks._replace(weights=weights))
    upper, fit = upper_value(program, lam, blocks)
    inner = at.scaled.program
    bound = correlation_bound(inner, residual, found.duals, at.space)
    lower, t = lower_bound(program, lam, residual, bound, upper.value, fit, inner)
    dual = t * residual
    # A bound that is too large by its rounding shortens the dual point by as much.
    shortened = bound.rounding * jnp.sum(sizes(program, blocks.weights, blocks.ids))
    rounding = upper.rounding + lower.rounding + shortened

    weights = out_of_units(blocks.weights, units.weights)
    given_dual = out_of_units(dual, units.residual)
    high = printed(upper.value, units.objective, 1)
    low = printed(lower.value, units.objective, -1)
    pairs = [
        (blocks.weights, weights),
        (dual, given_dual),
        (upper.value, out_of_units(upper.value, units.objective)),
        (lower.value, out_of_units(lower.value, units.objective)),
    ]
    lost = jnp.any(jnp.stack([jnp.any(are_lost(*pair)) for pair in pairs]))

    met = in_users_numbers(at, tolerance).met(high, low)
    # As far as that: the rounding of a few such evaluations.
    close = (upper.value - lower.value <= 4.0 * rounding) | lost
    sound = found.finite & jnp.isfinite(high) & jnp.isfinite(low) & jnp.all(jnp.isfinite(weights))
    unbounded = jnp.asarray(False)
    if program.block_weights is not None:
        unbounded = found.finite & jnp.isfinite(high) & (low == -jnp.inf)
    status = status_of(
        valid=valid, sound=sound, met=met & ~lost, close=close, exhausted=found.exhausted,
        unbounded=unbounded,
    )  # fmt: skip
    # At a kink a fit does not say what the residual is.
    own = residual if has_kinks(program.loss) else residual_at(program, fit)
    return Verdict(
        blocks.ids,
        weights,
        out_of_units(fit, units.fit),
        out_of_units(own, units.residual),
        given_dual,
        low,
        high,
        status,
    )


def status_of(
    *, valid: Any, sound: Any, met: Any, close: Any, exhausted: Any, unbounded: Any = False
) -> Array:
    """The status of an answer.

    Args:
        valid: lam is positive and finite.
        sound: the answer and its bounds are finite.
        met: the gap is within the tolerance, as it is printed.
        close: it is within the rounding of the bounds.
        exhausted: the steps ran out.
        unbounded: nothing bounds the optimum from below.

    Returns:
        int32, a member of `Status`.
    """
    status = jnp.where(exhausted, Status.MAX_STEPS, Status.STALLED)
    status = jnp.where(close, Status.PRECISION_FLOOR, status)
    status = jnp.where(met, Status.OPTIMAL, status)
    status = jnp.where(sound, status, Status.NONFINITE)
    status = jnp.where(unbounded, Status.UNBOUNDED, status)
    return jnp.where(valid, status, Status.INVALID).astype(jnp.int32)


def in_users_numbers(at: Prepared, tolerance: Tolerance) -> Tolerance:
    """The tolerance for values as they are printed, the default filled in."""
    default = out_of_units(at.scaled.default_absolute, at.units.objective)
    # A default that overflows would be met by anything.
    return tolerance.filled(jnp.where(jnp.isfinite(default), default, 0.0))


def solution_of(
    at: Prepared, lam: Array, users_lam: Array, tolerance: Tolerance, found: Evidence
) -> Solution:
    """The verdict on evidence as a `Solution` with dense weights."""
    verdict = conclude(at, lam, tolerance, found)
    weights = dense(at.whole, Blocks(verdict.blocks, verdict.weights))
    return _solution(verdict, apart(at.whole, weights), users_lam, found.num_steps)


def given_solution(program: Program, lam: Any, verdict: Verdict, num_steps: Any) -> Solution:
    """A verdict that is known on the host as a `Solution` with dense weights; compiles nothing."""
    shape, d = extended_shape(program), program.block_size
    total = int(np.prod(shape))
    taken = verdict.blocks < total
    flat = np.zeros((total, d), verdict.weights.dtype)
    flat[verdict.blocks[taken]] = verdict.weights[taken]
    with np.errstate(invalid="ignore"):  # both bounds may be infinite
        answer = jax.device_put(_solution(verdict, Parts(None), lam, np.asarray(num_steps)))
    parts = jax.device_put(apart(program, flat.reshape(*shape, d)))
    return shared(replace(answer, **parts._asdict()))


def _solution(verdict: Verdict, parts: Parts, lam: Any, num_steps: Any) -> Solution:
    certificate = Certificate(
        lower=verdict.lower,
        upper=verdict.upper,
        gap=verdict.upper - verdict.lower,
        weights=parts.weights,
        dual=verdict.dual,
        skip=parts.skip,
        constant=parts.constant,
    )
    return Solution(
        weights=parts.weights,
        lam=lam,
        fit=verdict.fit,
        residual=verdict.residual,
        certificate=certificate,
        status=verdict.status,
        num_steps=num_steps,
        skip=parts.skip,
        constant=parts.constant,
    )


def certified(
    program: Program,
    lam: Array,
    parts: Parts,
    residual: Array | None = None,
) -> Solution:
    """Weights from anywhere as a `Solution`: judged at the default tolerance, no steps taken."""
    weights = joined(program, parts)
    answer: Solution = _certified(program, lam, weights, residual, tolerances(program, None, None))
    return answer


@compiled
def _certified(
    program: Program, lam: Array, weights: Array, residual: Array | None, tolerance: Tolerance
) -> Solution:
    at = prepared(program)
    scaled_lam, yes = into_units(lam, at.units.lam), jnp.asarray(True)
    weights = lowered(into_units(weights, at.units.weights), at.space)
    given = None if residual is None else into_units(residual, at.units.residual)
    near = evidence(at.scaled.program, scaled_lam, weights, given)
    no_steps = jnp.asarray(0, jnp.int32)
    found = Evidence(all_blocks(near.weights), near.residual, near.duals, no_steps, yes, yes)
    return solution_of(at, scaled_lam, lam, tolerance, found)
