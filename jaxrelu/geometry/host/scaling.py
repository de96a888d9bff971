"""Vectors of any scale: powers of two taken out, lengths and directions.

Squares overflow above 1e154 and vanish below 1e-162. A power of two taken out first changes no bit
of what is in range, and makes everything else as accurate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import FloatArray


def exponents(array: FloatArray, axis: int | None = None) -> NDArray[np.intc]:
    """The e with 2^(e - 1) <= the largest magnitude < 2^e along an axis, which is kept; 0 for zero.

    Without an axis, that of all entries, a scalar.
    """
    largest = np.max(np.abs(array), axis=axis, keepdims=axis is not None, initial=0.0)
    exponent: NDArray[np.intc] = np.frexp(largest)[1]
    return exponent


def scaled(array: FloatArray, axis: int) -> FloatArray:
    """Vectors along the axis times a power of two each: same signs, no overflow in products."""
    return np.ldexp(array, -exponents(array, axis))


def unit_rows(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows (n, d) divided by their lengths, and these (n,); zero rows stay zero, of length zero."""
    exponent = exponents(rows, axis=1)
    within = np.ldexp(rows, -exponent)
    length = np.linalg.norm(within, axis=1)
    unit = within / np.where(length > 0, length, 1.0)[:, None]
    return unit, np.ldexp(length, exponent[:, 0])


def unit_columns(array: FloatArray) -> FloatArray:
    """Columns divided by their lengths; zero columns stay zero."""
    return unit_rows(array.T)[0].T
