"""Which differences between the numbers of a column are more than rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# In units in the last place of a column's largest number. A column that would be constant in exact
# arithmetic stays within: rows that sum to one, added up term by term, spread over 34 of them with
# 1000 terms and 5000 rows. A signal that small has five or six bits.
_LAST_PLACES = 64


def tolerance(columns: ArrayLike) -> NDArray[np.float64]:
    """The largest difference that may be rounding, for every column (over axis 0).

    Whole numbers are exact as long as their type would show a fraction: there it is zero.
    """
    x = np.asarray(columns)
    # Half precision and small integers get the units of float32, other integers those of float64.
    precision = np.promote_types(x.dtype, np.float32)
    peak = np.abs(np.asarray(x, np.float64)).max(axis=0)
    place = np.spacing(peak.astype(precision)).astype(np.float64)
    whole = (x == np.rint(x)).all(axis=0) & (place < 1)
    return np.where(whole, 0.0, _LAST_PLACES * place)


def constant(columns: ArrayLike) -> NDArray[np.bool_]:
    """Whether the numbers of every column (over axis 0) are equal up to rounding."""
    x: NDArray[Any] = np.asarray(columns, np.float64)
    with np.errstate(over="ignore"):  # an infinite spread is no rounding
        return x.max(axis=0) - x.min(axis=0) <= tolerance(columns)
