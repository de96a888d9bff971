"""Projections onto cones driven from the host: one compiled program for all who ask.

Sampling gates needs witnesses of their cones, `lambda_max` and screening the block correlations,
the repair the nearest feasible blocks. A projection is by far the largest of what each of them
compiles. From the host they call one program instead, `LANES` blocks at a time whatever the number
of patterns, and what comes before and after it is small.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Bools, FloatArray
from jaxrelu.core.compilation import driven
from jaxrelu.core.numerics import eps
from jaxrelu.geometry.cone_projection import Projection, project
from jaxrelu.geometry.cones import aim_inside, better_directions, lanes_at_once, moved_inside
from jaxrelu.geometry.correlation_bounds import (
    DualElements,
    Lanes,
    PolarBounds,
    Search,
    after_projection,
    begin_search,
    is_over,
    next_lanes,
)
from jaxrelu.geometry.gram import Rows, shared_rows


def project_points(
    rows: Rows, signs: Any, points: Any, offset: Array, *, cold: bool, level: Any, near: Any
) -> Projection:
    """`project` with nothing known, one program for all who ask.

    Args:
        rows: `shared_rows` of X (n, d).
        signs: (m, n), m the `lanes_at_once`.
        points: (m, d).
        offset: (n,).
        cold: whether the interior point phase comes first: not where the points are nearly
            projections themselves.
        level: scalar, the threshold of `project`.
        near: (m, d), as in `project`.
    """
    level = jnp.asarray(level, points.dtype)
    found: Projection = _project(rows, signs, points, offset, np.bool_(cold), level, near)
    return found


@driven
def _project(
    rows: Rows, signs: Array, points: Array, offset: Array, cold: Array, level: Array, near: Array
) -> Projection:
    # In float32 the interior point phase ends far from directions of very small margins.
    return project(
        rows, signs, points, offset=offset, multipliers=jnp.zeros_like(signs),
        cold=jnp.broadcast_to(cold, signs.shape[:1]), threshold=level, near=near,
        rough=not rows.are_many,
    )  # fmt: skip


def correlations_of(rows: Rows, lanes: Lanes, level: Array) -> tuple[Array, Array]:
    """Projections (m, d) of some lanes and their multipliers (m, n), in full above a level."""
    if rows.unit.shape[0] == 0:
        return lanes.points, lanes.signs
    found = project_points(
        rows, lanes.signs, lanes.points, jnp.zeros_like(rows.length), cold=True, level=level,
        near=lanes.points,
    )  # fmt: skip
    return found.points, found.multipliers


def largest_correlation(rows: Rows, masks: Array, pattern: Array, c: Array) -> PolarBounds:
    """`jaxrelu.geometry.correlation_bounds.largest_correlation`, driven from the host."""
    search, lanes, over = _begin(rows, masks, pattern, c)
    while not over:
        found = correlations_of(rows, lanes, search.level)
        search, lanes, over = _go_on(rows, masks, pattern, c, search, lanes, *found)
    return search.bounds


@partial(driven, optimised=False)
def _begin(rows: Rows, masks: Array, pattern: Array, c: Array) -> tuple[Search, Lanes, Array]:
    nothing = DualElements.nothing(c.shape[0], c.shape[1], c.dtype)
    search = begin_search(c, nothing, 0.0, None, lanes_at_once(len(rows.unit)), rows)
    return search, next_lanes(search, masks, pattern, c), is_over(search, False)


@partial(driven, optimised=False)
def _go_on(
    rows: Rows,
    masks: Array,
    pattern: Array,
    c: Array,
    search: Search,
    lanes: Lanes,
    points: Array,
    multipliers: Array,
) -> tuple[Search, Lanes, Array]:
    search = after_projection(search, rows, lanes, points, multipliers, 0.0, rising=True)
    return search, next_lanes(search, masks, pattern, c), is_over(search, False)


def interior_directions(
    X: FloatArray, masks: Bools, gates: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """`jaxrelu.geometry.cones.interior_directions`, driven from the host."""
    (n, d), p, dtype = X.shape, masks.shape[1], X.dtype
    if d > n:
        q, r = np.linalg.qr(X.T)
        inner, margin = interior_directions(np.ascontiguousarray(r.T), masks, q.T @ gates)
        return q @ inner, margin
    rows, m = _shared_rows(X), lanes_at_once(n)
    walls, zero = jnp.asarray(rows.length > 0, dtype), np.zeros((m, d), dtype)

    def improved(patterns: Any, project_them: bool) -> Any:
        """The gates of some patterns, or directions of larger margin, and their margins."""
        parts = []
        for start in range(0, len(patterns), m):
            # The last ones are filled up by repeats of the last pattern.
            some = patterns[np.minimum(np.arange(start, start + m), len(patterns) - 1)]
            signs = np.where(masks.T[some], 1.0, -1.0).astype(dtype)
            near = np.ascontiguousarray(gates.T[some])
            points: Any = near
            if project_them:
                points = project_points(
                    rows, signs, zero, walls, cold=True, level=-1.0, near=near
                ).points
            parts.append(jax.device_get(_better_directions(rows, signs, points, near)))
        return [np.concatenate(part)[: len(patterns)] for part in zip(*parts, strict=True)]

    every = np.arange(p)
    if not rows.are_many:
        best, margin = improved(every, True)
        return best.T, margin
    # Among very many walls a gate that is well inside will do, and a better one is dear.
    best, margin = improved(every, False)
    thin = every[margin <= eps(dtype) ** 0.5]
    if thin.size:
        best[thin], margin[thin] = improved(thin, True)
    return best.T, margin


_shared_rows = driven(shared_rows, optimised=False)
_better_directions = driven(better_directions, optimised=False)


def make_feasible(rows: Rows, signs: Array, weights: Any, interior: Array) -> Array:
    """`jaxrelu.geometry.cones.make_feasible` of `lanes_at_once` blocks, driven from the host."""
    aim = _aim_inside(rows, signs, weights, interior)
    found = project_points(
        rows, signs, aim.direction, aim.walls, cold=False, level=-1.0, near=aim.direction
    )
    moved: Array = _moved_inside(rows, signs, aim, found.points, interior)
    return moved


_aim_inside = driven(aim_inside, optimised=False)
_moved_inside = driven(moved_inside, optimised=False)
