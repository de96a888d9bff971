r"""Upper bounds of block correlations, with projections only where the cheap bounds fail.

The bounds of this module are safe at any stopping point: for every v in the dual cone
K_b^* = {K_b^T mu : mu >= 0}, ||c_b + v|| is at least the norm of the projection of c_b, and t v is
again in the dual cone for t >= 0. A block is remembered by its v (d numbers), not by its
multipliers (n numbers), and by the sum of these: it says how far rounding may have carried v out of
the dual cone.

Where rows have a bias that is not penalised, polar sizes take the place of norms
(`jaxrelu.geometry.bias_metric`), of which t v for any t >= 0 gives one, too.

Reference: Mishkin and Pilanci (ICML 2023), Section 3, on the unique block correlation; Moreau's
decomposition.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.loops import iterate
from jaxrelu.core.rounding import product
from jaxrelu.geometry.bias_metric import polar_size, size
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import cone_signs, projection_batch
from jaxrelu.geometry.gram import Rows


class DualElements(NamedTuple):
    """Elements of the dual cones of some blocks, K_b^T mu_b with mu_b >= 0.

    Attributes:
        vectors: (b, d).
        mass: (b,), sum_i mu_bi ||x_i||.
    """

    vectors: Array
    mass: Array

    @classmethod
    def nothing(cls, blocks: int, features: int, dtype: Any) -> DualElements:
        """Zeros, which belong to every dual cone."""
        return cls(jnp.zeros((blocks, features), dtype), jnp.zeros((blocks,), dtype))

    @classmethod
    def of(cls, rows: Rows, signs: Array, multipliers: Array) -> DualElements:
        """The elements that multipliers (b, n) of the unit rows make."""
        # Those of rows of zeros make nothing, and may be of any size.
        multipliers = jnp.where(rows.length > 0, multipliers, 0.0)
        return cls(product(signs * multipliers, rows.unit), jnp.sum(multipliers, axis=1))

    def put(self, index: Array, new: DualElements) -> DualElements:
        """Other elements at some blocks; an index beyond all blocks is left out."""
        return jax.tree.map(lambda a, b: a.at[index].set(b, mode="drop"), self, new)


class PolarBounds(NamedTuple):
    """Upper bounds of the norms of projected points, and what they rest on.

    Attributes:
        duals: `DualElements` of all blocks.
        bound: (b,), ||c + t v|| for the best t >= 0, up to rounding.
        chunk: (m,), the blocks projected last.
        points: (m, d), their projections.
        multipliers: (m, n), their multipliers.
        longest: the block of the longest projection of all, 0 if there was none.
        longest_point: (d,), that projection, zero if there was none.
    """

    duals: DualElements
    bound: Array
    chunk: Array
    points: Array
    multipliers: Array
    longest: Array
    longest_point: Array


def best_multiple(c: Array, vectors: Array, reach: Array | None = None) -> Array:
    """The t >= 0 that makes ||c + t v|| least: (b, d), (b, d) -> (b,).

    With a bias, the best one of four for the polar size: the least norm, no bias left, v itself,
    and nothing.
    """
    square = jnp.sum(vectors * vectors, axis=1)
    inner = jnp.sum(c * vectors, axis=1)
    t = jnp.where(square > 0, jnp.maximum(-inner, 0.0) / jnp.where(square > 0, square, 1.0), 0.0)
    if reach is None:
        return t
    last, own = c[:, -1], vectors[:, -1]
    level = jnp.where(own != 0, jnp.maximum(-last / jnp.where(own != 0, own, 1.0), 0.0), 0.0)

    def value(some: Array) -> Array:
        return polar_size(c + some[:, None] * vectors, reach)

    least = value(t)
    for other in (level, jnp.ones_like(t), jnp.zeros_like(t)):
        found = value(other)
        t, least = jnp.where(found < least, other, t), jnp.minimum(found, least)
    return t


def best_bound(
    c: Array, duals: DualElements, reach: Array | None = None
) -> tuple[Array, DualElements]:
    """Min over t >= 0 of ||c + t v||, and the t v."""
    t = best_multiple(c, duals.vectors, reach)
    scaled = DualElements(t[:, None] * duals.vectors, t * duals.mass)
    return polar_size(c + scaled.vectors, reach), scaled


class Search(NamedTuple):
    """Where bounds are being brought below a limit, largest first, some blocks at a time.

    Attributes:
        bounds: `PolarBounds` so far; of every block valid.
        order: (b,) int32, the blocks, those to be looked at first.
        num_open: int32, how many those are.
        taken: int32, how many were taken so far.
        level: scalar, what a bound must be for a block to need no projection.
        found: bool, a projected block stayed above the limit.
    """

    bounds: PolarBounds
    order: Array
    num_open: Array
    taken: Array
    level: Array
    found: Array


class Lanes(NamedTuple):
    """The blocks to be projected next: which (m,), whether one is, signs (m, n), points (m, d)."""

    chunk: Array
    live: Array
    signs: Array
    points: Array


def begin_search(
    c: Array, duals: DualElements, limit: Any, skip: Array | None, batch: int, rows: Rows
) -> Search:
    """The cheap bounds of all blocks; arguments as those of `polar_bounds`."""
    total, d = c.shape
    bound, duals = best_bound(c, duals, rows.reach)
    open_blocks = bound > limit
    if skip is not None:
        open_blocks = open_blocks & ~skip
    # NaN bounds are not projected: they reach the caller as they are.
    order = jnp.argsort(jnp.where(open_blocks, -bound, jnp.inf)).astype(jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    nothing = PolarBounds(
        duals,
        bound,
        jnp.zeros((batch,), jnp.int32),
        jnp.zeros((batch, d), c.dtype),
        jnp.zeros((batch, len(rows.unit)), c.dtype),
        zero,
        jnp.zeros((d,), c.dtype),
    )
    count = jnp.sum(open_blocks, dtype=jnp.int32)
    return Search(nothing, order, count, zero, jnp.asarray(limit, c.dtype), jnp.asarray(False))


def next_lanes(search: Search, masks: Array, pattern: Array, c: Array) -> Lanes:
    """The largest bounds that are left."""
    batch = search.bounds.chunk.shape[0]
    place = search.taken + jnp.arange(batch, dtype=jnp.int32)
    live = place < search.num_open
    chunk = search.order[jnp.minimum(place, c.shape[0] - 1)]
    # A padding lane has nothing to project.
    points = jnp.where(live[:, None], c[chunk], 0.0)
    return Lanes(chunk, live, cone_signs(masks, pattern[chunk], c.dtype), points)


def after_projection(
    search: Search,
    rows: Rows,
    lanes: Lanes,
    points: Array,
    multipliers: Array,
    limit: Any,
    rising: bool,
) -> Search:
    """What the projections (m, d) of some blocks and their multipliers (m, n) say."""
    chunk, live, bounds = lanes.chunk, lanes.live, search.bounds
    new = DualElements.of(rows, lanes.signs, multipliers)
    new_bound = polar_size(lanes.points + new.vectors, rows.reach)
    better = live & (new_bound <= bounds.bound[chunk])
    target = jnp.where(better, chunk, bounds.bound.shape[0])
    duals = bounds.duals.put(target, new)
    bound = bounds.bound.at[target].set(new_bound, mode="drop")
    now = jnp.where(live, bound[chunk], 0.0)
    level = jnp.maximum(search.level, jnp.max(now)) if rising else search.level
    length = size(points, rows.has_bias)
    length = jnp.where(live & (length >= 0), length, -1.0)  # and not NaN
    best = jnp.argmax(length)
    longer = length[best] > size(bounds.longest_point, rows.has_bias)
    longest = jnp.where(longer, chunk[best], bounds.longest)
    point = jnp.where(longer, points[best], bounds.longest_point)
    after = PolarBounds(duals, bound, chunk, points, multipliers, longest, point)
    taken = search.taken + chunk.shape[0]
    return search._replace(bounds=after, taken=taken, level=level, found=jnp.any(now > limit))


def is_over(search: Search, stop_at_violation: bool) -> Array:
    """Whether no block is left to be projected, or one that stayed above the limit is enough."""
    last = search.order.shape[0] - 1
    # The bounds descend: below the level there is nothing left to do.
    settled = search.bounds.bound[search.order[jnp.minimum(search.taken, last)]] <= search.level
    return (search.taken >= search.num_open) | settled | (stop_at_violation & search.found)


def polar_bounds(
    rows: Rows,
    masks: Array,
    pattern: Array,
    c: Array,
    duals: DualElements,
    limit: Any,
    *,
    skip: Array | None = None,
    batch: int,
    stop_at_violation: bool = False,
    rising: bool = False,
) -> PolarBounds:
    """Brings the bounds of all blocks below a limit, projecting only where the cheap bound fails.

    Blocks are taken `batch` at a time, the largest bounds first, until every block has a bound at
    most `limit` or was projected in full.

    Args:
        rows: `shared_rows` of X (n, d).
        masks: (n, p).
        pattern: (b,), the pattern of every block.
        c: (b, d), the raw correlations.
        duals: of every block, zeros if nothing is known.
        limit: scalar, lam.
        skip: (b,) bool, blocks that are not to be projected.
        batch: blocks projected at once (static).
        stop_at_violation: stop after a batch in which a projected block stayed above the limit.
        rising: raise the limit to the largest norm that a batch turned out to have, so that only
            the largest bound of all is exact.

    Returns:
        `PolarBounds`; every bound is valid, converged or not.
    """
    total = c.shape[0]
    batch = min(batch, total)

    def step(search: Search) -> Search:
        lanes = next_lanes(search, masks, pattern, c)
        found = project(rows, lanes.signs, lanes.points, threshold=search.level, rough=True)
        points, multipliers = found.points, found.multipliers
        return after_projection(search, rows, lanes, points, multipliers, limit, rising)

    first = begin_search(c, duals, limit, skip, batch, rows)
    # A projection that broke is no better than what was known.
    end = iterate(
        step, first, done=lambda s: is_over(s, stop_at_violation), max_steps=-(-total // batch),
        watch=lambda _: (),
    )  # fmt: skip
    return end.state.bounds


def largest_correlation(rows: Rows, masks: Array, pattern: Array, c: Array) -> PolarBounds:
    """The largest norm of a projected point, max_b ||Proj_{K_b}(c_b)||, and what proves it.

    The blocks that look largest are projected first and in full, all others only until their bound
    falls below what was found.

    Args:
        rows: `shared_rows` of X (n, d).
        masks: (n, p).
        pattern: (b,), the pattern of every block.
        c: (b, d), the points.

    Returns:
        `PolarBounds`: its largest bound is that norm.
    """
    batch = min(32, projection_batch(c.shape[0], rows.unit.shape[0]))
    nothing = DualElements.nothing(c.shape[0], c.shape[1], c.dtype)
    return polar_bounds(rows, masks, pattern, c, nothing, 0.0, batch=batch, rising=True)
