"""The working set: which blocks hold a slot, how all others are screened, who enters.

Screening rarely projects. Every block carries an element v_b of its dual cone, and
min_t ||c_b + t v_b|| bounds its correlation; only blocks above lam are projected, in batches, the
largest first, until one batch holds a violator. An entering block starts in the direction of its
projection q_b, with the projection's multipliers as its own and the magnitude that minimises the
objective along it, (||q_b|| - lam) / <z_b, h o z_b> with z_b = D_b X q_b / ||q_b||, shared out
when several enter; started at exactly zero it would be dropped again.

Blocks that have weights w_b in the penalty are w_b theta_b here (`jaxrelu.programs.penalties`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.geometry.bias_metric import direction, size, sized
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import cone_signs, lanes_at_once
from jaxrelu.geometry.correlation_bounds import (
    DualElements,
    Lanes,
    PolarBounds,
    Search,
    begin_search,
    next_lanes,
    polar_bounds,
)
from jaxrelu.losses.base import usual_curvature
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.programs.penalties import is_free, seen, weighed
from jaxrelu.programs.program import loss_value, residual_at
from jaxrelu.programs.skip import columns_of, without_cone
from jaxrelu.solvers.augmented_lagrangian.newton_method import Iterate
from jaxrelu.solvers.augmented_lagrangian.subproblem import Subproblem
from jaxrelu.solvers.base import WarmStart
from jaxrelu.solvers.scaled_program import ScaledProgram

_LEAST_BEND = 0.01
# Blocks so much smaller than the largest one give up their slots where there are no others: those
# that are zero at the optimum and whose correlation is lam come no closer to zero than the solve.
_LIGHT = 1e-6


class WorkingSet(NamedTuple):
    """The slots of a solve, and what is remembered of all blocks.

    Attributes:
        blocks: (k,) int32, the block in each slot; num_blocks where it is empty.
        at: `Iterate` of the slots.
        duals: `DualElements` of all blocks.
    """

    blocks: Array
    at: Iterate
    duals: DualElements


def cold_start(scaled: ScaledProgram, slots: int) -> WorkingSet:
    """An empty working set, but for the blocks that are not penalised: these hold slots always."""
    b, d, n = scaled.num_blocks, scaled.X.shape[1], scaled.rows.unit.shape[0]
    dtype = scaled.X.dtype
    at = Iterate(
        jnp.zeros((slots, d), dtype), jnp.zeros((slots, d), dtype), jnp.zeros((slots, n), dtype),
        residual_at(scaled.program, jnp.zeros_like(scaled.y)) if has_kinks(scaled.loss) else None,
    )  # fmt: skip
    blocks, free = jnp.full((slots,), b, jnp.int32), is_free(scaled.program)
    if free is not None:
        first = jnp.argsort(~free, stable=True)[:slots].astype(jnp.int32)
        blocks = jnp.where(free[first], first, b).astype(jnp.int32)
    return WorkingSet(blocks, at, DualElements.nothing(b, d, dtype))


def _free(scaled: ScaledProgram, blocks: Array) -> Array | None:
    """(k,) bool, which blocks in slots are not penalised; None where all are."""
    free = is_free(scaled.program)
    return None if free is None else free.at[blocks].get(mode="fill", fill_value=False)


def known_stage(scaled: ScaledProgram, lam: Array, init: WarmStart) -> Array:
    """The lam of a known point; that of the next solve where it has none."""
    return jnp.where(jnp.isfinite(init.lam) & (init.lam > 0), init.lam, lam)


def at_stage(working: WorkingSet, ratio: Array) -> WorkingSet:
    """Multipliers of another lam: proportional to it, to first order."""
    at = working.at._replace(
        norm_dual=ratio * working.at.norm_dual, cone_dual=ratio * working.at.cone_dual
    )
    return working._replace(at=at)


def warm_start(scaled: ScaledProgram, lam: Array, init: WarmStart, slots: int) -> WorkingSet:
    """The largest blocks of a known point, multipliers from one projection at its residual.

    The working set belongs to `lam`.
    """
    empty = cold_start(scaled, slots)
    flat = weighed(scaled.program, init.weights.reshape(scaled.num_blocks, -1))
    biased = scaled.has_bias
    norms, free = safe_norm(sized(flat, biased)), is_free(scaled.program)
    if free is not None:
        norms = jnp.where(free, jnp.inf, norms)
    size, blocks = jax.lax.top_k(norms, slots)
    used = size > 0
    safe = jnp.where(used, blocks, 0)
    signed = scaled.factor[safe][:, None] * scaled.gathered(safe)
    c = seen(scaled.program, scaled.pattern[safe], matmul(signed * init.residual[None], scaled.X))
    signs = _cone_signs(scaled, safe)
    found = project(scaled.rows, signs, jnp.where(used[:, None], c, 0.0))
    # Multipliers are proportional to lam to first order, and at an optimum ||q_b|| is lam. Far from
    # one it is much larger, and multipliers of that size would throw the method off.
    known = jnp.maximum(known_stage(scaled, lam, init), found.bound)
    mu = found.multipliers * (lam / known)[:, None]
    weights = jnp.where(used[:, None], flat[safe], 0.0)
    loss_dual = init.residual if has_kinks(scaled.loss) else None
    at = Iterate(
        weights, lam * _pulls(weights, biased), jnp.where(used[:, None], mu, 0.0), loss_dual
    )
    return WorkingSet(jnp.where(used, blocks, scaled.num_blocks).astype(jnp.int32), at, empty.duals)


def _pulls(weights: Array, has_bias: bool) -> Array:
    """Gradients of the norms of blocks (k, d); a free bias has none."""
    directions = unit(sized(weights, has_bias))
    return jnp.pad(directions, ((0, 0), (0, 1))) if has_bias else directions


def _cone_signs(scaled: ScaledProgram, blocks: Array) -> Array:
    n, pattern = scaled.rows.unit.shape[0], scaled.pattern[blocks]
    signs, skip = (
        cone_signs(scaled.masks[:n], pattern, scaled.X.dtype),
        without_cone(scaled.program, pattern),
    )
    return signs if skip is None else jnp.where(skip[:, None], 0.0, signs)


def subproblem_of(scaled: ScaledProgram, lam: Array, blocks: Array) -> Subproblem:
    """Gathers the blocks in slots for the inner method."""
    occupied = blocks < scaled.num_blocks
    safe = jnp.where(occupied, blocks, 0)
    signs = jnp.where(occupied[:, None], _cone_signs(scaled, safe), 0.0)
    return Subproblem(
        scaled.X,
        jnp.asarray(scaled.program.y),
        scaled.weight,
        scaled.loss,
        scaled.samples,
        scaled.rows,
        _signed_masks(scaled, blocks),
        signs,
        lam,
        _free(scaled, blocks),
        columns_of(scaled.program, scaled.pattern[safe]),
    )


def _signed_masks(scaled: ScaledProgram, blocks: Array) -> Array:
    occupied = blocks < scaled.num_blocks
    safe = jnp.where(occupied, blocks, 0)
    factor = jnp.where(occupied, scaled.factor[safe], 0.0)
    return factor[:, None] * scaled.gathered(safe)


def first_scale(scaled: ScaledProgram, lam: Array) -> Array:
    """A positive size of weights for a working set of zeros: the loss at zero over lam."""
    zero = jnp.zeros_like(jnp.asarray(scaled.program.y))
    value = loss_value(scaled.program, zero) / lam
    return jnp.where(value > 0, value, 1.0)


def remember(
    scaled: ScaledProgram, working: WorkingSet, problem: Subproblem, active: Array
) -> WorkingSet:
    """Keeps the dual-cone elements of all slots, and empties the slots of zero blocks."""
    own = DualElements.of(scaled.rows, problem.cone_signs, working.at.cone_dual)
    duals = working.duals.put(working.blocks, own)
    blocks = jnp.where(problem.stays(active), working.blocks, scaled.num_blocks)
    return working._replace(blocks=blocks, duals=duals)


def holds_slot(scaled: ScaledProgram, blocks: Array) -> Array:
    """(b,) bool: blocks that hold a slot."""
    return jnp.zeros((scaled.num_blocks,), bool).at[blocks].set(True, mode="drop")


class Screened(NamedTuple):
    """All blocks screened.

    Attributes:
        bounds: valid bounds of all blocks, with the projections of the last batch.
        bound: scalar, the largest.
        found: (batch,) bool, lanes of the last batch whose projection exceeds the limit.
        size: (batch,), the norms of those projections.
    """

    bounds: PolarBounds
    bound: Array
    found: Array
    size: Array


def screen(
    scaled: ScaledProgram,
    duals: DualElements,
    inside: Array,
    residual: Array,
    limit: Array,
    pattern_batch: int | None = None,
) -> Screened:
    """Bounds of all blocks at a residual; those in slots are not projected."""
    c, n = scaled.correlations(residual, pattern_batch), scaled.rows.unit.shape[0]
    bounds = polar_bounds(
        scaled.rows,
        scaled.masks[:n],
        scaled.pattern,
        c,
        duals,
        limit,
        skip=inside,
        batch=lanes_of(scaled, pattern_batch),
        stop_at_violation=True,
    )
    return screened(bounds, limit, scaled.has_bias)


def begin_screening(
    scaled: ScaledProgram,
    duals: DualElements,
    inside: Array,
    residual: Array,
    limit: Array,
    pattern_batch: int | None,
) -> tuple[Array, Search]:
    """`screen` before its first projection: the raw correlations (b, d) and the search."""
    c = scaled.correlations(residual, pattern_batch)
    lanes = lanes_of(scaled, pattern_batch)
    return c, begin_search(c, duals, limit, inside, lanes, scaled.rows)


def next_to_project(scaled: ScaledProgram, search: Search, c: Array) -> Lanes:
    """The blocks whose turn it is in a `begin_screening`."""
    return next_lanes(search, scaled.masks[: scaled.rows.unit.shape[0]], scaled.pattern, c)


def screened(bounds: PolarBounds, limit: Array, has_bias: bool) -> Screened:
    """What the bounds say: they were brought below the limit until a violator was found."""
    length = size(bounds.points, has_bias)
    found = (length > limit) & (bounds.bound[bounds.chunk] > limit)
    return Screened(bounds, jnp.max(bounds.bound, initial=0.0), found, length)


def lanes_of(scaled: ScaledProgram, pattern_batch: int | None) -> int:
    """Blocks that screening projects at once."""
    lanes = lanes_at_once(scaled.rows.unit.shape[0])
    return lanes if pattern_batch is None else min(lanes, pattern_batch)


def lasting(scaled: ScaledProgram, working: WorkingSet) -> Array:
    """(k,) bool: slots of blocks that are more than next to nothing against the largest one."""
    length = size(working.at.weights, scaled.has_bias)
    occupied, free = working.blocks < scaled.num_blocks, _free(scaled, working.blocks)
    if free is not None:
        length = jnp.where(free, 0.0, length)
        return free | (occupied & (length > _LIGHT * jnp.max(length, initial=0.0)))
    return occupied & (length > _LIGHT * jnp.max(jnp.where(occupied, length, 0.0), initial=0.0))


def entering(lanes: int, slots: int) -> int:
    """How many violators may enter at once: too many and most of them leave again."""
    return min(lanes, slots, max(4, slots // 4))


def enter(scaled: ScaledProgram, lam: Array, working: WorkingSet, screened: Screened) -> WorkingSet:
    """Puts the worst violators into empty slots; if there is none, of blocks next to nothing."""
    bounds, found, length = screened.bounds, screened.found, screened.size
    problem = subproblem_of(scaled, lam, working.blocks)
    slots = working.blocks.shape[0]
    count = entering(found.shape[0], slots)
    _, lane = jax.lax.top_k(jnp.where(found, length, -1.0), count)
    empty = working.blocks >= scaled.num_blocks
    empty = jnp.where(jnp.any(empty), empty, ~lasting(scaled, working))
    slot = jnp.argsort(~empty, stable=True)[:count]
    enters = found[lane] & empty[slot]

    block, q = bounds.chunk[lane], bounds.points[lane]
    q = seen(scaled.program, scaled.pattern[block], q)
    along = direction(q, scaled.has_bias) if scaled.has_bias else unit(q)
    features = scaled.gathered(block) * matmul(along, scaled.X.T)
    if scaled.program.block_weights is not None:
        features = scaled.factor[block][:, None] * features
    # A loss that is linear at the fit (Huber's far away) is not so all along the way.
    fit = problem.fit(working.at.weights)
    largest = problem.sample_weight * usual_curvature(problem.loss, fit, problem.y)
    bend = jnp.maximum(problem.curvature(fit), _LEAST_BEND * largest)
    steepness = matmul(features * features, bend[:, None])[:, 0]
    share = jnp.maximum(jnp.sum(enters), 1).astype(q.dtype)
    magnitude = (length[lane] - lam) / jnp.where(steepness > 0, steepness, 1.0) / share
    magnitude = jnp.where(steepness > 0, magnitude, 0.0)

    # At an optimum ||q|| is lam: multipliers that belong to a longer one push far too hard.
    shorter = lam / jnp.maximum(length[lane], lam)
    target = jnp.where(enters, slot, slots)
    multipliers, open_ones = (
        bounds.multipliers[lane],
        without_cone(scaled.program, scaled.pattern[block]),
    )
    if open_ones is not None:
        multipliers = jnp.where(open_ones[:, None], 0.0, multipliers)

    def put(array: Array, values: Array) -> Array:
        return array.at[target].set(values.astype(array.dtype), mode="drop")

    at = working.at._replace(
        weights=put(working.at.weights, magnitude[:, None] * along),
        norm_dual=put(working.at.norm_dual, lam * _pulls(along, scaled.has_bias)),
        cone_dual=put(working.at.cone_dual, shorter[:, None] * multipliers),
    )
    return working._replace(blocks=put(working.blocks, block), at=at)
