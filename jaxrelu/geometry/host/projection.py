"""One projection onto one cone, exact up to rounding: by active sets, in NumPy.

The nearest point of the cone {u : K u >= 0} to c is c + K^T mu with mu = argmin over mu >= 0 of
||c + K^T mu|| (Moreau; Lawson and Hanson, 1974, chapter 23), and that norm is the length of the
projection. Many cones at once are the matter of `jaxrelu.geometry.cone_projection`.
"""

from __future__ import annotations

import numpy as np

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares


def project(rows: Floats, point: Floats) -> Floats:
    """The nearest point (d,) of the cone {u : rows @ u >= 0} to a point.

    Args:
        rows: (m, d); zero rows constrain nothing.
        point: (d,).
    """
    nearest: Floats = point + rows.T @ multipliers(rows, point)
    return nearest


def multipliers(rows: Floats, point: Floats) -> Floats:
    """The mu (m,) with point + rows^T mu the projection of the point; zero for rows of zeros."""
    mu: Floats = nonnegative_least_squares(rows.T, -point)[0]
    return np.where(np.any(rows != 0, axis=1), mu, 0.0)


def cone_rows(mask: Bools, unit: Floats) -> Floats:
    """The rows (2 D - I) X of the cone of a pattern (n,), of length one like `unit` (n, d)."""
    rows: Floats = np.where(mask, 1.0, -1.0)[:, None] * unit
    return rows


def block_correlation(X: Floats, unit: Floats, mask: Bools, pull: Floats) -> Floats:
    """The block correlation (d,): the projection of X^T D pull onto the cone of D.

    Args:
        X: (n, d).
        unit: (n, d), the `unit_rows` of X.
        mask: (n,), the diagonal of D.
        pull: (n,), s times the residual.
    """
    return project(cone_rows(mask, unit), X.T @ (mask * pull))
