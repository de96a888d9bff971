r"""Distances of points from zonotopes, in batches of one compiled shape.

With rows x_j split by the sign of the residual, positive and negative, and |r_j| moved into them,

    max over ||u|| <= 1 of  sum_{r_j > 0} r_j (x_j . u)_+ - sum_{r_j < 0} |r_j| (x_j . u)_+

is the largest distance of a point of the zonotope of the positive rows from the zonotope of the
negative ones: a support function is sum_j |r_j| (x_j . u)_+, and the largest c . u - h(u) over the
ball is the distance of c. The gauge of r is therefore the Hausdorff distance between the two
zonotopes. The inner distance is convex and done here for many points; the outer maximum runs over
vertices c = sum_{r_j > 0} d_j r_j x_j, one for every activation pattern of the positive rows.

Reference: support functions of zonotopes, R. Schneider, "Convex Bodies" (2014), section 3.5; the
same split of rows is the convex-concave procedure of Yuille and Rangarajan (2003).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import lsq_linear

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import CALL
from jaxrelu.core.compilation import compiled
from jaxrelu.geometry.cone_projection import Projection, project
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.geometry.host.scaling import unit_rows

_LANES = 64
_STEPS = 30  # that a projection takes, roughly
_CONVERGED = 1e-11


def distances(
    rows: Rows, sides: Array, points: Array, caps: Array, threshold: Array | float = -1.0
) -> Projection:
    r"""The least ||c - sum_j t_j side_j row_j|| over 0 <= t <= cap, for every point c.

    Rows whose cap is infinite constrain the direction: side_j row_j . u <= 0.

    Args:
        rows: `shared_rows`, n of them, in k dimensions.
        sides: (m, n), +1 or -1.
        points: (m, k).
        caps: (m, n), in units of unit rows.
        threshold: distances up to it may stay bounds.

    Returns:
        `Projection`: upper bounds (m,) of the distances, equal to them where the inner problem
        converged, up to the rounding of a sum with the multipliers t as weights; the multipliers
        (m, n); and the differences (m, k), along the maximising directions.
    """
    return project(
        rows,
        -sides,
        points,
        multipliers=jnp.zeros_like(caps),
        cap=caps,
        threshold=threshold,
        max_steps=100,
    )


@compiled
def _chunk(lines: Array, points: Array, caps: Array, threshold: Array) -> Projection:
    return distances(shared_rows(lines), jnp.ones_like(caps), points, caps, threshold)


def padded(array: Floats, *sizes: int) -> Floats:
    """The array with zeros behind every axis up to the sizes."""
    wide = np.zeros(sizes)
    wide[tuple(slice(size) for size in array.shape)] = array
    return wide


def capacity(size: int, least: int) -> int:
    """The next power of two, so that few shapes are compiled."""
    return max(least, 1 << (size - 1).bit_length())


def distance_cost(points: int, lines: int, rank: int) -> float:
    """Operations of `host_distances`."""
    long, wide = capacity(lines, 16), capacity(rank, 4)
    return -(-points // _LANES) * (CALL + _STEPS * _LANES * long * wide * (wide + 2))


def host_distances(
    lines: Floats, points: Floats, weights: Floats, threshold: float
) -> tuple[Floats, Floats]:
    """`distances` of points (m, k) from the one zonotope of weighted unit lines (L, k), in NumPy.

    Args:
        lines: (L, k), unit.
        points: (m, k), any number.
        weights: (L,), >= 0.
        threshold: distances below it may stay bounds.

    Returns:
        Bounds (m,) and differences (m, k).
    """
    m, k = points.shape
    wide, long = capacity(k, 4), capacity(len(lines), 16)
    rows = padded(lines, long, wide)
    caps = np.broadcast_to(padded(weights, long), (_LANES, long))
    bounds, vectors = np.empty(m), np.empty((m, k))
    for start in range(0, m, _LANES):
        some = points[start : start + _LANES]
        found = _chunk(rows, padded(some, _LANES, wide), caps, threshold)
        here = slice(start, start + len(some))
        vectors[here] = np.nan_to_num(np.asarray(found.points)[: len(some), :k])
        # Whatever precision JAX worked in: these bounds hold in float64.
        t = np.nan_to_num(np.asarray(found.multipliers)[: len(some), : len(lines)])
        bounds[here] = np.linalg.norm(some - np.clip(t, 0.0, weights) @ lines, axis=1)
    directions = unit_rows(vectors)[0]
    reached = np.sum(points * directions, axis=1)
    reached -= np.maximum(directions @ lines.T, 0.0) @ weights
    for j in np.flatnonzero(bounds > np.maximum(threshold, reached) + _CONVERGED * bounds):
        difference, _ = exact_difference(lines, points[j], weights)
        length = float(np.linalg.norm(difference))
        if length < bounds[j]:
            bounds[j], vectors[j] = length, difference
    return bounds, vectors


def exact_difference(lines: Floats, point: Floats, caps: Floats) -> tuple[Floats, float]:
    """The least c - sum_j t_j line_j over 0 <= t <= cap, by active sets in NumPy.

    For the points at which batches stop short: nearly dependent lines.

    Args:
        lines: (L, k), unit.
        point: (k,), c.
        caps: (L,), >= 0, may be infinite.

    Returns:
        The difference (k,), and the sum of the multipliers t.
    """
    # `lsq_linear` stops at absolute tolerances: unit lines, and numbers around one.
    bounded = caps[np.isfinite(caps)]
    size = float(np.max(np.abs(point), initial=np.max(bounded, initial=0.0))) or 1.0
    point, top = point / size, caps / size
    used = np.flatnonzero(top)
    exact = lsq_linear(lines[used].T, point, (0.0, top[used]), method="bvls", tol=1e-15)
    t = np.clip(exact.x, 0.0, top[used])
    return size * (point - t @ lines[used]), size * float(np.sum(t))
