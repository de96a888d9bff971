"""What is known of the largest ||C^T u|| over the unit vectors of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrelu.core.aliases import Floats

# Units of rounding that rows may be off in coordinates of their span.
ROUNDED = 64.0


class Found(NamedTuple):
    """What is known of the cells at a residual.

    Attributes:
        bound: an upper bound of all cells; NaN where nothing is known.
        slip: how far the coordinates that it was found in may be off, in units of the rounding of
            the correlations.
        directions: (p, d), unit vectors, nearly in the cells; zero where there is none.
        values: (p,), ||R^T D_j X u|| there, nearly.
    """

    bound: float
    slip: float
    directions: Floats
    values: Floats


def coordinates_slip(correlations: Floats, basis: Floats | None) -> float:
    """The slip of coordinates in a basis, of rows that are off by `ROUNDED` units.

    ||E^T D R|| <= u `ROUNDED` sum_i ||x_i|| ||R_i||, and the rounding of the correlations is at
    least u || |X|^T |R| ||_F, which is no less than that sum over the root of d c.
    """
    _, d, c = correlations.shape
    return 0.0 if basis is None else 4.0 * ROUNDED * float(np.sqrt(d * c))


def unknown(correlations: Floats) -> Found:
    """Of correlations with a NaN or an infinity."""
    p, d, _ = correlations.shape
    return Found(float("nan"), 0.0, np.zeros((p, d)), np.zeros(p))
