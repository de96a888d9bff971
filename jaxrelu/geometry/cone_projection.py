r"""Many projections onto polyhedral cones at once, all with the same rows up to sign.

For every block b, given signs s_b in {-1, +1}^n and rows r_1, ..., r_n shared by all blocks,

    minimise  1/2 ||u - c_b||^2   subject to   s_bj <r_j, u> >= t  for all j,

with t = 0 (projection onto the cone) or t = 1 and c_b = 0 (a max-margin direction). The dual is a
non-negative least squares problem in the multipliers mu_b >= 0, u_b = c_b + K_b^T mu_b.

With caps mu_bj <= cap_bj the constraints are elastic: u_b minimises
1/2 ||u - c_b||^2 + sum_j cap_bj [t - s_bj <r_j, u>]_+, and for t = 0 its norm is the distance of
c_b from the zonotope { -K_b^T mu : 0 <= mu <= cap_b }.

The two phases of the work are in `jaxrelu.geometry.projection_phases`.

Any iterate is safe to stop at: mu >= 0 always, and ||c_b + K_b^T mu_b|| bounds the norm of the
projection from above.

Where rows have a bias that is not penalised, M x = c + K^T mu takes the place of x = c + K^T mu,
and polar sizes that of norms (`jaxrelu.geometry.bias_metric`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.loops import iterate
from jaxrelu.core.numerics import eps, plain_norm, safe_norm
from jaxrelu.geometry.bias_metric import metric, safe_polar_size
from jaxrelu.geometry.gram import OwnRows, Rows, nearest
from jaxrelu.geometry.projection_phases import (
    Problem,
    interior_point,
    lane_finite,
    lanes,
    multiplier_newton,
    single_precision,
)

_MOST_SWEEPS = 30


class Projection(NamedTuple):
    """Projections of a batch of points, with the multipliers that prove them.

    Attributes:
        points: (m, d), the projections u.
        multipliers: (m, n), mu >= 0, at most the cap.
        bound: (m,), ||c + K^T mu||, an upper bound of the norm of the exact projection (its polar
            size, where rows have a bias).
        residual: (m,), the largest of ||u - (c + K^T mu)|| and, over the constraints, of
            |mu - clip(mu - (K u - t), 0, cap)|, relative to ||c|| and ||u||: zero at the exact
            projection and only there.
    """

    points: Array
    multipliers: Array
    bound: Array
    residual: Array


def project(
    rows: Rows | OwnRows,
    signs: Array,
    points: Array,
    *,
    offset: Array | float = 0.0,
    multipliers: Array | None = None,
    cold: Array | None = None,
    cap: Array | None = None,
    threshold: Any = -1.0,
    near: Array | None = None,
    rough: bool = False,
    max_steps: int = 60,
) -> Projection:
    """Projects each point onto its own cone.

    Args:
        rows: `shared_rows` of X (n, d), or rows of each block's own.
        signs: (m, n), +1 or -1: block b has the constraints signs[b, j] <r_j, u> >= offset.
        points: (m, d), what is projected.
        offset: t of the module's docstring, scalar, (n,) or (m, n) (the rows have norm one).
        multipliers: (m, n), >= 0, warm multipliers; they skip the interior point phase.
        cold: (m,) bool, blocks that go through it and leave their warm multipliers alone: for one
            compiled program that serves both.
        cap: (m, n), upper bounds of the multipliers, infinite for a constraint that must hold. It
            needs warm multipliers, zeros for example.
        threshold: scalar or (m,): a block needs no further steps once its bound is at most this; a
            negative one never stops it.
        near: (m, d), guesses of the projections, from which rows are chosen where there are very
            many; `points` by default.
        rough: run the interior point phase in float32 (static). Faster where most blocks stop at
            the threshold; where rows nearly depend on each other the second phase has more to do.
        max_steps: at most so many steps in each phase.

    Returns:
        `Projection`. Blocks that did not converge say so in `residual`; their bound is valid.
        A block with a NaN or an infinity is NaN and leaves the others alone.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.geometry.cone_projection import project
        >>> from jaxrelu.geometry.gram import shared_rows
        >>> rows = shared_rows(jnp.eye(2, dtype="float32"))
        >>> ones = jnp.ones((1, 2), "float32")
        >>> p = project(rows, ones, jnp.asarray([[3.0, -4.0]], "float32"))
        >>> [round(float(x), 4) for x in p.points[0]]
        [3.0, 0.0]

    Reference: Moreau's decomposition; `jaxrelu.programs.certificates` for the use of the bound.
    """
    if isinstance(rows, Rows) and rows.are_many and cap is None:
        args = (offset, multipliers, cold, threshold, near, rough, max_steps)
        return _cutting_planes(rows, signs, points, *args)
    if multipliers is not None:
        # Zeros that the compiler does not know, or it folds constants of this size for seconds.
        multipliers = multipliers + 0.0 * points[:, :1]
    # A block that is not finite is put aside, or the loops would stop for all the others.
    sound = lane_finite(points) if multipliers is None else lane_finite(points, multipliers)
    points = jnp.where(sound[:, None], points, 0.0)
    scale = safe_norm(points)
    scale = jnp.where(scale > 0, scale, 1.0)[:, None]
    c = points / scale
    offset = jnp.asarray(offset, c.dtype)
    offset = offset if offset.ndim == 2 else jnp.broadcast_to(offset, signs.shape[1:])[None]
    offsets = offset / scale
    limit = jnp.broadcast_to(jnp.asarray(threshold, c.dtype), (c.shape[0],)) / scale[:, 0]
    caps = jnp.asarray(jnp.inf, c.dtype) if cap is None else cap / scale
    own = metric(c.shape[1], rows.reach, c.dtype)
    problem = Problem(rows, signs, c, offsets, limit, caps, own)
    first_phase = single_precision if rough else interior_point
    if multipliers is None:
        u, mu = first_phase(problem, max_steps, jnp.zeros((c.shape[0],), bool))
    else:
        mu = problem.clipped(jnp.where(sound[:, None], multipliers, 0.0) / scale)
        u = problem.start(mu)
        if cold is not None:
            u, mu = lanes(cold, first_phase(problem, max_steps, ~cold), (u, mu))
    u, mu, residual = multiplier_newton(problem, u, mu, max_steps)
    bound = safe_polar_size(c + problem.transpose(mu), rows.reach) * scale[:, 0]
    found = Projection(u * scale, mu * scale, bound, residual)
    return lanes(sound, found, jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), found))


def _cutting_planes(
    rows: Rows,
    signs: Array,
    points: Array,
    offset: Array | float,
    multipliers: Array | None,
    cold: Array | None,
    threshold: Any,
    near: Array | None,
    rough: bool,
    max_steps: int,
) -> Projection:
    """Projects onto cones of very many rows, of which few matter, through some rows at a time.

    Every sweep projects onto the cone of a block's chosen rows, keeps those with a multiplier and
    exchanges the others for the rows that are violated most. The distance grows from sweep to
    sweep, so that no set of rows comes twice; every bound is valid for all rows.
    """
    (m, n), dtype = signs.shape, points.dtype
    offset = jnp.asarray(offset, dtype)
    offsets = jnp.broadcast_to(offset if offset.ndim != 1 else offset[None], (m, n))
    limit = jnp.broadcast_to(jnp.asarray(threshold, dtype), (m,))
    lane = jnp.arange(m)[:, None]
    scale = safe_norm(points)
    scale = jnp.where(scale > 0, scale, 1.0)

    def choose(u: Array, mu: Array) -> tuple[Array, Array]:
        slack = signs * rows.forward(u) - offsets
        index = nearest(slack, mu, points.shape[1])
        return index, jnp.max(-slack, axis=1, initial=0.0) / jnp.maximum(scale, plain_norm(u))

    def step(state: tuple[Projection, Array, Array]) -> tuple[Projection, Array, Array]:
        old, index, done = state
        own = OwnRows(rows.unit[index], rows.reach)
        warm = None if multipliers is None else jnp.take_along_axis(old.multipliers, index, axis=1)
        part = project(
            own,
            jnp.take_along_axis(signs, index, axis=1),
            jnp.where(done[:, None], 0.0, points),
            offset=jnp.where(done[:, None], 0.0, jnp.take_along_axis(offsets, index, axis=1)),
            multipliers=warm,
            cold=cold,
            threshold=limit,
            rough=rough,
            max_steps=max_steps,
        )
        mu = jnp.zeros((m, n), dtype).at[lane, index].set(part.multipliers)
        index, violation = choose(part.points, mu)
        residual = jnp.maximum(part.residual, violation)
        new = Projection(part.points, mu, part.bound, residual)
        # No more than the chosen rows are violated themselves.
        settled = violation <= jnp.maximum(
            50 * eps(dtype), 2.0 * jnp.minimum(part.residual, eps(dtype) ** 0.5)
        )
        settled = settled | (part.bound <= limit) | ~jnp.isfinite(part.bound)
        return lanes(done, old, new), index, done | settled

    zero = jnp.zeros((m, n), dtype) if multipliers is None else multipliers
    start = points + rows.transpose(signs * zero) if near is None else near
    if rows.has_bias:
        start = start.at[:, -1].set(0.0)
    index, _ = choose(start, zero)
    bound = safe_polar_size(points, rows.reach)
    first = Projection(points, zero, bound, jnp.full((m,), jnp.inf, dtype))
    state = (first, index, jnp.zeros((m,), bool))
    return iterate(  # type: ignore[no-any-return]
        step, state, done=lambda s: jnp.all(s[2]), max_steps=_MOST_SWEEPS, watch=lambda _: ()
    ).state[0]
