r"""The cones K_j = {u : (2 D_j - I) X u >= 0} of activation patterns.

Block b of a program has pattern ``pattern[b]`` (its column of `masks`); the two signs of a pattern
share a cone. A block is *inside* when the computed (2 d_i - 1) <x_i, theta> are at least what
rounding may have added to them, (d + 8) u ||x_i|| ||theta||: then every row of its cone holds
exactly. Neurons lie on walls as a rule, so a repair has to go that far inside, and not to the wall.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, matmul, safe_norm, unit
from jaxrelu.core.rounding import roundoff, tiny
from jaxrelu.geometry.cone_projection import Projection, project
from jaxrelu.geometry.gram import Rows, shared_rows

# Units of eps that a projection onto a cone may be off, and some more.
_PROJECTED = 128.0


def cone_signs(masks: Array, pattern: Array, dtype: Any) -> Array:
    """Rows of 2 D_j - I for blocks: masks (n, p), pattern (m,) -> (m, n) of +1 and -1."""
    return 2.0 * masks.T[pattern].astype(dtype) - 1.0


def cone_violation(rows: Rows, signs: Array, weights: Array) -> Array:
    """How far blocks are outside their cones, max_i [-(2 d_i - 1) <x_i, theta>]_+ / ||x_i||.

    Args:
        rows: `shared_rows` of X (n, d).
        signs: (m, n), from `cone_signs`.
        weights: (m, d).

    Returns:
        (m,), in units of ``weights``: divide by ||theta|| for the angle.
    """
    slack = signs * matmul(weights, rows.unit.T)
    return jnp.max(jnp.maximum(-slack, 0.0), axis=1, initial=0.0)


def project_cones(X: Array, masks: Array, points: Array) -> Projection:
    r"""Projects points onto the cones of activation patterns, all at once.

    u_j = argmin { ||u - c_j|| : (2 D_j - I) X u >= 0 }

    Args:
        X: (n, d), floating.
        masks: (n, p), 0/1 or bool.
        points: (p, d), or (2, p, d) for both signs of every pattern.

    Returns:
        `Projection` with the shape of `points` in its leading axes; multipliers refer to the rows
        of X scaled to norm one.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.geometry.cones import project_cones
        >>> X, masks = jnp.eye(2, dtype="float32"), jnp.ones((2, 1), bool)
        >>> u = project_cones(X, masks, jnp.asarray([[1.0, -1.0]], "float32")).points
        >>> [round(float(v), 4) for v in u[0]]
        [1.0, 0.0]
    """
    shape = points.shape[:-1]
    pattern = block_patterns(shape)
    flat = project(
        shared_rows(X),
        cone_signs(masks, pattern, X.dtype),
        points.reshape(-1, X.shape[1]),
    )
    return jax.tree.map(lambda a: a.reshape(shape + a.shape[1:]), flat)


def block_patterns(shape: tuple[int, ...]) -> Array:
    """Pattern of every block: for block shape (2, p) or (p,), 0..p-1 repeated for each sign."""
    return jnp.tile(jnp.arange(shape[-1], dtype=jnp.int32), shape[0] if len(shape) == 2 else 1)


def interior_directions(X: Array, masks: Array, gates: Array | None = None) -> tuple[Array, Array]:
    r"""Near max-margin directions of the cones, the witnesses of the repair.

    For every pattern, the unit vector that (nearly) maximises
    margin_j = min_i (2 d_ij - 1) <x_i, u> / ||x_i|| over the non-zero rows: the direction of
    argmin { ||u|| : (2 d_ij - 1) <x_i, u> >= ||x_i|| }. A sampled gate has margins down to 1e-6
    where the best direction has 5e-3.

    Args:
        X: (n, d), floating.
        masks: (n, p), 0/1 or bool.
        gates: (d, p) or None; a gate is kept where its margin is the better one.

    Returns:
        ``(interior (d, p), margin (p,))``. A margin that is not positive says that no interior
        point was found: the cone is lower-dimensional.
    """
    if X.shape[1] > X.shape[0]:
        # Only the row space of X matters: d becomes n.
        q, r = jnp.linalg.qr(X.T)
        inner = None if gates is None else matmul(q.T, gates)
        reduced, best_margin = interior_directions(r.T, masks, inner)
        return matmul(q, reduced), best_margin
    rows = shared_rows(X)
    signs = cone_signs(masks, jnp.arange(masks.shape[1]), X.dtype)
    zero = jnp.zeros((masks.shape[1], X.shape[1]), X.dtype)
    near = None if gates is None else gates.T
    # A zero row has no margin to ask for.
    walls = (rows.length > 0).astype(X.dtype)
    best = project(rows, signs, zero, offset=walls, near=near).points
    best, margin = better_directions(rows, signs, best, near)
    return best.T, margin


def better_directions(
    rows: Rows, signs: Array, points: Array, gates: Array | None
) -> tuple[Array, Array]:
    """Unit directions (m, d) of points, or gates of larger margin; and the margins (m,)."""
    best = unit(points)
    best_margin = margins(rows, signs, best)
    if gates is not None:
        given = unit(gates)
        given_margin = margins(rows, signs, given)
        better = ~(best_margin >= given_margin)
        best = jnp.where(better[:, None], given, best)
        best_margin = jnp.where(better, given_margin, best_margin)
    return best, best_margin


def drop_negligible(weights: Array) -> Array:
    """Sets to zero the blocks (m, d) that are at rounding level of the largest one."""
    size = safe_norm(weights)
    largest = jnp.max(size, initial=0.0)
    # A NaN or an infinity drops nothing: it must not look like a network of zeros.
    smallest = jnp.where(jnp.isfinite(largest), eps(weights.dtype) * largest, jnp.nan)
    return jnp.where((size <= smallest)[:, None], 0.0, weights)


def margins(rows: Rows, signs: Array, weights: Array) -> Array:
    """(m,), min_i (2 d_i - 1) <x_i, theta> / ||x_i|| over the rows that are not zero."""
    slack = signs * matmul(weights, rows.unit.T)
    real = jnp.broadcast_to(rows.length > 0, slack.shape)
    return jnp.min(slack, axis=1, initial=jnp.inf, where=real)


def inside_margin(rows: Rows, weights: Array) -> Array:
    """(m,), what a margin must be for every row of the cone to hold exactly."""
    d, dtype = rows.unit.shape[1], weights.dtype
    size = safe_norm(weights)
    # An absolute part for products that were flushed to zero.
    least = jnp.where(size > 0, 4 * d * tiny(dtype), 0.0)
    return (d + 8) * roundoff(dtype) * size + least


def pushed_inside(rows: Rows, signs: Array, weights: Array, interior: Array) -> Array:
    """Nearly feasible blocks moved along their witnesses by the smallest step that is enough.

    Args:
        rows: `shared_rows` of X (n, d).
        signs: (m, n).
        weights: (m, d).
        interior: (m, d), unit interior directions.

    Returns:
        (m, d), inside in the sense of the module's docstring; zero where a cone has too little of
        an interior.
    """
    needed = inside_margin(rows, weights)
    slack = signs * matmul(weights, rows.unit.T)
    pull = signs * matmul(interior, rows.unit.T)
    real = (rows.length > 0)[None]
    # Twice as far: the step itself rounds.
    missing = jnp.where(real, jnp.maximum(2.0 * needed[:, None] - slack, 0.0), 0.0)
    step = jnp.where(missing > 0, missing / jnp.where(pull > 0, pull, 1.0), 0.0)
    blocked = jnp.any((missing > 0) & (pull <= 0), axis=1)
    shift = jnp.max(step, axis=1, initial=0.0) * (1.0 + 8 * eps(weights.dtype))
    outside = ~(margins(rows, signs, weights) >= needed) & ~blocked
    weights = jnp.where(outside[:, None], weights + shift[:, None] * interior, weights)
    sound = margins(rows, signs, weights) >= inside_margin(rows, weights)
    # NaN weights stay NaN: a failed repair must not look like a zero block.
    lost = ~sound & ~jnp.any(jnp.isnan(weights), axis=1)
    return jnp.where(lost[:, None], 0.0, weights)


def make_feasible(rows: Rows, signs: Array, weights: Array, interior: Array) -> Array:
    """Blocks inside their cones, near given ones.

    In this order: blocks negligible against the largest one are dropped; the others are projected
    onto their cones, whose walls are moved inside by more than a projection rounds; what is left is
    cleared by a step along the interior direction.

    Args:
        rows: `shared_rows` of X (n, d).
        signs: (m, n).
        weights: (m, d), blocks from anywhere.
        interior: (m, d), unit interior directions.

    Returns:
        (m, d), as from `pushed_inside`.
    """
    aim = aim_inside(rows, signs, weights, interior)
    start = jnp.zeros_like(signs)
    found = project(rows, signs, aim.direction, offset=aim.walls, multipliers=start)
    return moved_inside(rows, signs, aim, found.points, interior)


class Aim(NamedTuple):
    """Blocks on their way into their cones.

    Attributes:
        weights: (m, d), those negligible against the largest one dropped.
        direction: (m, d), what is projected.
        walls: (n,), how far inside the walls of the projection are.
        idle: (m,) bool, blocks that stay where they are.
    """

    weights: Array
    direction: Array
    walls: Array
    idle: Array


def aim_inside(rows: Rows, signs: Array, weights: Array, interior: Array) -> Aim:
    """The first part of `make_feasible`, before the projection."""
    weights = drop_negligible(weights)
    inside = margins(rows, signs, weights) >= inside_margin(rows, weights)
    # Where nothing is to be done a witness stands in, which no wall stops: zero is behind the walls
    # and would keep the whole batch at work.
    idle = inside | (safe_norm(weights) == 0)
    direction = jnp.where(idle[:, None], interior, unit(weights))
    offset = (_PROJECTED + 2 * rows.unit.shape[1]) * eps(weights.dtype)
    walls = jnp.where(rows.length > 0, offset, 0.0).astype(weights.dtype)
    return Aim(weights, direction, walls, idle)


def moved_inside(rows: Rows, signs: Array, aim: Aim, projected: Array, interior: Array) -> Array:
    """The last part of `make_feasible`, after the projection."""
    there = safe_norm(aim.weights)[:, None] * projected
    weights = jnp.where(aim.idle[:, None], aim.weights, there)
    return pushed_inside(rows, signs, weights, interior)


def projection_batch(blocks: int, samples: int) -> int:
    """Blocks to project at once: all of them, while one (blocks, n) array stays under 32 MB."""
    return max(1, min(blocks, 2**22 // max(samples, 1)))


def lanes_at_once(samples: int) -> int:
    """Blocks projected at once: few where they are long; to an accelerator more cost little."""
    return projection_batch(16 if jax.default_backend() == "cpu" else 128, samples)
