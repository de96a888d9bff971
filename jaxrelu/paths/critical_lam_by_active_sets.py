"""The largest block correlation by active sets, where batched projections did not end."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.core.numerics import eps
from jaxrelu.geometry.bias_metric import metric, polar_size, reach_of, size
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
    X = unit * np.asarray(rows.length, np.float64)[:, None]
    reach = reach_of(jnp.asarray(X)) if rows.has_bias else None
    # In units in which the metric is that of plain projections.
    scale = np.asarray(metric(X.shape[1], reach, X.dtype), np.float64) ** -0.5
    vectors, mass = (np.array(part, np.float64) for part in known)
    sound = np.isfinite(mass) & np.all(np.isfinite(vectors), axis=1)
    vectors, mass = np.where(sound[:, None], vectors, 0.0), np.where(sound, mass, 0.0)

    # What a sum of so many terms rounds: multipliers of thin cones are large.
    blur = (
        2.0 * float(eps(c.dtype)) * (len(X) + 8.0) * (1.0 if reach is None else 1.0 + float(reach))
    )

    def bounds(vectors: Floats, mass: Floats, c: Floats) -> Floats:
        return np.asarray(polar_size(jnp.asarray(c + vectors), reach)) + blur * mass

    bound, done = bounds(vectors, mass, c), np.zeros(len(c), bool)
    best, block, point = 0.0, 0, np.zeros(X.shape[1])
    while True:
        b = int(np.argmax(np.where(done, -1.0, bound)))
        if done[b] or bound[b] <= best:
            break
        if free is None or not free[b]:
            cone = cone_rows(opened[:, pattern[b]], unit)
            mu = multipliers(cone * scale, c[b] * scale)
            vectors[b], mass[b] = cone.T @ mu, np.sum(mu)
        element, done[b] = c[b] + vectors[b], True
        bound[b] = bounds(vectors[[b]], mass[[b]], c[[b]])[0]
        projected = element * scale**2
        length = float(size(jnp.asarray(projected), rows.has_bias))
        if length > best:
            best, block, point = length, b, projected
    return vectors, mass, block, point
