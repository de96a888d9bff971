"""The largest block correlation by active sets, where batched projections did not end."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.core.numerics import eps
from jaxrelu.geometry.bias_metric import metric, reach_of
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.geometry.gram import Rows
from jaxrelu.geometry.host.projection import cone_rows, multipliers


def largest_one_by_one(
    rows: Rows, masks: Any, pattern: Any, c: Any, known: DualElements, free: Any
) -> tuple[Floats, Floats, int, Floats]:
    """The blocks that look longest are projected, until no other can be longer.

    Args:
        rows: `shared_rows` of X (n, d).
        masks: (n, p).
        pattern: (b,), the pattern of every block.
        c: (b, d), the points.
        known: `DualElements` of all blocks.
        free: (b,) bool, blocks without a cone, or None.

    Returns:
        The vectors (b, d) and the mass (b,) of better ones, the block of the longest projection,
        and that (d,).
    """
    unit, c = np.asarray(rows.unit, np.float64), np.asarray(c, np.float64)
    opened, pattern = np.asarray(masks) > 0, np.asarray(pattern)
    (n, d), reach, scale = unit.shape, 0.0, np.ones(unit.shape[1])
    if rows.has_bias:
        longest = reach_of(rows.unit * rows.length[:, None])
        reach = float(longest)
        # In units in which the metric is that of plain projections.
        scale = np.asarray(metric(d, longest, rows.unit.dtype), np.float64) ** -0.5
    vectors, mass = (np.array(part, np.float64) for part in known)
    sound = np.isfinite(mass) & np.all(np.isfinite(vectors), axis=1)
    if free is not None:
        sound &= ~np.asarray(free)
    vectors, mass = np.where(sound[:, None], vectors, 0.0), np.where(sound, mass, 0.0)
    # What a sum of so many terms rounds: multipliers of thin cones are large.
    blur = 2.0 * float(eps(c.dtype)) * (n + 8.0) * (1.0 + reach)

    def bounds(vectors: Floats, mass: Floats, c: Floats) -> Floats:
        found: Floats = _sizes(c + vectors, rows.has_bias) + blur * mass
        return found + reach * np.abs((c + vectors)[:, -1]) if rows.has_bias else found

    bound, done = bounds(vectors, mass, c), np.zeros(len(c), bool)
    best, block, point = 0.0, 0, np.zeros(d)
    while True:
        b = int(np.argmax(np.where(done, -1.0, bound)))
        if done[b] or bound[b] <= best:
            break
        element, done[b] = c[b], True
        if free is None or not free[b]:
            cone = cone_rows(opened[:, pattern[b]], unit)
            mu = multipliers(cone * scale, c[b] * scale)
            own, total = cone.T @ mu, np.sum(mu)
            element = c[b] + own
            now = bounds(own[None], np.asarray([total]), c[[b]])[0]
            if now < bound[b]:
                vectors[b], mass[b], bound[b] = own, total, now
        projected = element * scale**2
        length = float(_sizes(projected[None], rows.has_bias)[0])
        if length > best:
            best, block, point = length, b, projected
    return vectors, mass, block, point


def _sizes(points: Floats, has_bias: bool) -> Floats:
    """Norms (b,) of points (b, d), without their biases."""
    found: Floats = np.linalg.norm(points[:, :-1] if has_bias else points, axis=1)
    return found
