"""The largest block correlation at one residual, over weights, from both sides.

From above it is bounded by ||c_b + v_b|| for elements v_b of the dual cones, from below by
<u, c_b> / ||u|| for any u in K_b; a projection gives both, and both are rounded outward.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.chunks import in_chunks
from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.core.rounding import added, downward, product, roundoff, sum_roundings, upward
from jaxrelu.geometry import driven_projection
from jaxrelu.geometry.bias_metric import direction as along
from jaxrelu.geometry.bias_metric import size
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import block_patterns, cone_signs, projection_batch, pushed_inside
from jaxrelu.geometry.correlation_bounds import DualElements, largest_correlation
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.paths.critical_lam_by_active_sets import largest_one_by_one
from jaxrelu.paths.unpenalised_fit import FreeFit, may_have_free
from jaxrelu.programs.bias import has_bias, smallest_biases
from jaxrelu.programs.bounds import correlation_bound
from jaxrelu.programs.penalties import block_weights, weighed_correlations
from jaxrelu.programs.preparation import Coordinates, lifted, row_space
from jaxrelu.programs.program import Program, block_signs, residual_at
from jaxrelu.programs.skip import without_cone
from jaxrelu.programs.units import Units, in_units, into_units, printed

# Blocks that `cuts_at` takes, at most.
_MOST_CUTS = 256


class AtZero(NamedTuple):
    """A program in units, itself and in its row space, and the residual where lam is critical.

    It is that of zero weights, or of the best fit of the blocks that are not penalised, which may
    be off by `slip`.
    """

    whole: Program
    reduced: Program
    space: Coordinates | None
    units: Units
    residual: Array
    slip: Array | None


@partial(compiled, optimised=False)
def at_zero(program: Program, free: FreeFit | None = None) -> AtZero:
    """`AtZero` of a program, at a given residual or that of zero weights."""
    whole, units = in_units(program)
    reduced, space = row_space(whole)
    if free is None:
        residual = residual_at(whole, jnp.zeros((whole.X.shape[0],), whole.X.dtype))
        return AtZero(whole, reduced, space, units, residual, None)
    residual = into_units(free.residual, units.residual)
    return AtZero(whole, reduced, space, units, residual, into_units(free.slip, units.lam))


class Projected(NamedTuple):
    """What proves both ends: `DualElements` of all blocks, and a long projection (d,) of one."""

    duals: DualElements
    block: Array
    point: Array


def projected(at: AtZero) -> Projected:
    """By one batched program."""
    rows, masks, pattern, c = _to_project(at)
    if not at.reduced.has_cones:
        best = jnp.argmax(safe_norm(c)).astype(jnp.int32)
        return Projected(DualElements.nothing(len(c), c.shape[1], c.dtype), best, c[best])
    found = largest_correlation(rows, masks, pattern, c)
    return Projected(found.duals, found.longest, found.longest_point)


_projected_at_once = compiled(projected, optimised=False)


def _projected_from_host(at: AtZero) -> Projected:
    found = driven_projection.largest_correlation(*_to_project_at_once(at))
    return Projected(found.duals, found.longest, found.longest_point)


def _to_project(at: AtZero) -> tuple[Rows, Array, Array, Array]:
    """What `largest_correlation` takes."""
    c = weighed_correlations(at.reduced, at.residual)
    masks, pattern = jnp.asarray(at.reduced.patterns.masks), block_patterns(at.reduced.block_shape)
    rows = shared_rows(jnp.asarray(at.reduced.X), has_bias(at.reduced))
    return rows, masks, pattern, c


_to_project_at_once = compiled(_to_project, optimised=False)


@partial(compiled, optimised=False)
def ends_at(at: AtZero, duals: DualElements, block: Array, point: Array) -> tuple[Array, Array]:
    """Both ends as printed."""
    X, masks = jnp.asarray(at.whole.X), jnp.asarray(at.whole.patterns.masks)
    (n, d), p, dtype = X.shape, masks.shape[1], X.dtype
    times = sum_roundings(n, dtype) + sum_roundings(d, dtype) + 8.0
    # A residual with sample weights is rounded itself.
    weighted = 2.0 * roundoff(dtype) * safe_norm(added((jnp.abs(X * at.residual[:, None])).T))
    bound = correlation_bound(at.reduced, at.residual, duals, at.space)
    upper = upward(bound.bound, weighted)

    pattern, direction = block % p, _directions(at, block[None], point[None])
    seen = masks[:, pattern].astype(dtype) * at.residual
    side = jnp.where(block < p, 1.0, -1.0).astype(dtype)
    value = side * added(seen * product(direction, X.T)[0])
    off = added(jnp.abs(seen) * matmul(jnp.abs(direction), jnp.abs(X).T)[0])
    off = roundoff(dtype) * times * off + roundoff(dtype) * 8.0 * jnp.abs(value)
    weight = block_weights(at.whole)
    if weight is not None:
        value, off = value / weight[block], off / weight[block]
        off = off + roundoff(dtype) * 4.0 * jnp.abs(value)
    if at.slip is not None:
        upper, off = upward(upper, at.slip), off + at.slip
    lower = jnp.maximum(downward(value, off), jnp.where(jnp.isnan(value), jnp.nan, 0.0))
    return printed(lower, at.units.lam, -1), printed(upper, at.units.lam, 1)


def _directions(at: AtZero, blocks: Array, points: Array) -> Array:
    """Points (k, d) of the reduced program as directions of size one inside their cones."""
    X, masks = jnp.asarray(at.whole.X), jnp.asarray(at.whole.patterns.masks)
    u, pattern = lifted(points, at.space), blocks % masks.shape[1]
    u = smallest_biases(at.whole, blocks, u)
    if at.whole.has_cones:
        interior = at.whole.patterns.interior
        witness = jnp.asarray(at.whole.patterns.gates if interior is None else interior)
        signs = cone_signs(masks, pattern, X.dtype)
        u = pushed_inside(shared_rows(X), signs, u, unit(witness[:, pattern].T))
    return along(u, True) if has_bias(at.whole) else unit(u)


class Cuts(NamedTuple):
    """Rows g (k, n) with <g, r> <= max_b ||q_b(r)|| / w_b for any r, and what is off in them.

    In units of lam over those of the residual.
    """

    rows: Array
    off: Array


@partial(compiled, optimised=False)
def cuts_at(at: AtZero) -> Cuts:
    """`Cuts` of the blocks whose projections are longest at the residual."""
    reduced, X = at.reduced, jnp.asarray(at.whole.X)
    (n, d), dtype = X.shape, X.dtype
    rows, masks, pattern, c = _to_project(at)
    points = c
    if reduced.has_cones:
        free = without_cone(reduced, pattern)

        def some(part: tuple[Array, Array]) -> Array:
            own, index = part
            return project(rows, cone_signs(masks, index, dtype), own).points

        index = pattern if free is None else jnp.where(free, 0, pattern)
        points = in_chunks(some, (c, index), projection_batch(len(c), n))
        points = points if free is None else jnp.where(free[:, None], c, points)
    length, weight = size(points, has_bias(reduced)), block_weights(at.whole)
    _, blocks = jax.lax.top_k(length, min(_MOST_CUTS, len(length)))
    direction = _directions(at, blocks, points[blocks])
    sign = block_signs(at.whole)[blocks, None] * masks.T[pattern[blocks]].astype(dtype)
    g = sign * product(direction, X.T)
    off = jnp.abs(sign) * matmul(jnp.abs(direction), jnp.abs(X).T)
    off = roundoff(dtype) * ((sum_roundings(d, dtype) + 8.0) * off + (d + 8.0) * jnp.abs(g))
    if weight is not None:
        own = weight[blocks, None]
        usable = (own > 0) & (own < jnp.inf)
        own = jnp.where(usable, own, 1.0)
        g, off = (jnp.where(usable, part / own, 0.0) for part in (g, off))
    sound = jnp.all(jnp.isfinite(g) & jnp.isfinite(off), axis=1, keepdims=True)
    return Cuts(jnp.where(sound, g, 0.0), jnp.where(sound, off, 0.0))


def _projected_one_by_one(at: AtZero, known: DualElements) -> Projected:
    """By active sets on the host."""
    rows, masks, pattern, c = _to_project_at_once(at)
    free = without_cone(at.reduced, pattern)
    found = largest_one_by_one(rows, masks, pattern, c, known, free)
    vectors, mass, block, point = found
    dtype = at.residual.dtype
    duals = DualElements(jnp.asarray(vectors, dtype), jnp.asarray(mass, dtype))
    return Projected(duals, jnp.asarray(block, jnp.int32), jnp.asarray(point, dtype))


def interval_at(program: Program, free: FreeFit | None) -> tuple[Array, Array]:
    """On the host, from the residual of zero weights or a given one."""
    at = at_zero(program, free)
    if not program.has_cones:
        return ends_at(at, *_projected_at_once(at))  # type: ignore[no-any-return]
    found = _projected_from_host(at)
    ends = ends_at(at, *found)
    low, high = np.asarray(ends)
    if not np.isfinite(high - low) or close(program, low, high):
        return ends  # type: ignore[no-any-return]
    return ends_at(at, *_projected_one_by_one(at, found.duals))  # type: ignore[no-any-return]


def close(program: Program, lower: Any, upper: Any) -> Any:
    """Whether the upper end is near enough to be the value."""
    return upper - lower <= nearness(program) * upper


def nearness(program: Program) -> float:
    """The relative distance of the ends that is asked for."""
    double = program.X.dtype == np.float64
    if not may_have_free(program) or has_kinks(program.loss):
        return 1e-6 if double else 1e-3
    # The residual of the best unpenalised fit is known to the root of its gap.
    return 1e-3 if double else 0.5
