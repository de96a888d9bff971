r"""Upper bounds of block correlations, with projections only where the cheap bounds fail.

The bounds of this module are safe at any stopping point: for every v in the dual cone
K_b^* = {K_b^T mu : mu >= 0}, ||c_b + v|| is at least the norm of the projection of c_b, and t v is
again in the dual cone for t >= 0. A block is remembered by its v (d numbers), not by its
multipliers (n numbers), and by the sum of these: it says how far rounding may have carried v out of
the dual cone.

Reference: Mishkin and Pilanci (ICML 2023), Section 3, on the unique block correlation; Moreau's
decomposition.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.loops import iterate
from jaxrelu.core.numerics import plain_norm
from jaxrelu.core.rounding import product
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


def best_multiple(c: Array, vectors: Array) -> Array:
    """The t >= 0 that makes ||c + t v|| least: (b, d), (b, d) -> (b,)."""
    square = jnp.sum(vectors * vectors, axis=1)
    inner = jnp.sum(c * vectors, axis=1)
    return jnp.where(square > 0, jnp.maximum(-inner, 0.0) / jnp.where(square > 0, square, 1.0), 0.0)


def best_bound(c: Array, duals: DualElements) -> tuple[Array, DualElements]:
    """Min over t >= 0 of ||c + t v||, and the t v."""
    t = best_multiple(c, duals.vectors)
    scaled = DualElements(t[:, None] * duals.vectors, t * duals.mass)
    return plain_norm(c + scaled.vectors), scaled


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
    bound, duals = best_bound(c, duals)
    open_blocks = bound > limit
    if skip is not None:
        open_blocks = open_blocks & ~skip
    # NaN bounds are not projected: they reach the caller as they are.
    order = jnp.argsort(jnp.where(open_blocks, -bound, jnp.inf)).astype(jnp.int32)
    count = jnp.sum(open_blocks, dtype=jnp.int32)
    n, d = rows.unit.shape

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        index, duals, bound, level = state[:4]
        longest = state[8:]
        place = index * batch + jnp.arange(batch, dtype=jnp.int32)
        live = place < count
        chunk = order[jnp.minimum(place, total - 1)]
        signs = cone_signs(masks, pattern[chunk], c.dtype)
        # A padding lane has nothing to project.
        points = jnp.where(live[:, None], c[chunk], 0.0)
        result = project(rows, signs, points, threshold=level, rough=True)
        new = DualElements.of(rows, signs, result.multipliers)
        new_bound = plain_norm(points + new.vectors)
        better = live & (new_bound <= bound[chunk])
        target = jnp.where(better, chunk, total)
        duals = duals.put(target, new)
        bound = bound.at[target].set(new_bound, mode="drop")
        now = jnp.where(live, bound[chunk], 0.0)
        found = jnp.any(now > limit)
        level = jnp.maximum(level, jnp.max(now)) if rising else level
        size = plain_norm(result.points)
        size = jnp.where(live & (size >= 0), size, -1.0)  # and not NaN
        best = jnp.argmax(size)
        longer = size[best] > plain_norm(longest[1])
        block, point = jnp.where(longer, chunk[best], longest[0]), result.points[best]
        point = jnp.where(longer, point, longest[1])
        last = chunk, result.points, result.multipliers
        return index + 1, duals, bound, level, *last, found, block, point

    state = (
        jnp.asarray(0, jnp.int32),
        duals,
        bound,
        jnp.asarray(limit, c.dtype),
        jnp.zeros((batch,), order.dtype),
        jnp.zeros((batch, d), c.dtype),
        jnp.zeros((batch, n), c.dtype),
        jnp.asarray(False),
        jnp.zeros((), order.dtype),
        jnp.zeros((d,), c.dtype),
    )

    def done(state: tuple[Any, ...]) -> Any:
        first = state[0] * batch
        # The bounds descend: below the level there is nothing left to do.
        settled = state[2][order[jnp.minimum(first, total - 1)]] <= state[3]
        return (first >= count) | settled | (stop_at_violation & state[7])

    # A projection that broke is no better than what was known.
    end = iterate(step, state, done=done, max_steps=-(-total // batch), watch=lambda _: ()).state
    return PolarBounds(end[1], end[2], end[4], end[5], end[6], end[8], end[9])


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
