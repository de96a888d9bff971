"""Vectors of any scale: powers of two taken out, lengths and directions.

Squares overflow above 1e154 and vanish below 1e-162. A power of two taken out first changes no bit
of what is in range, and makes everything else as accurate.
"""

from __future__ import annotations

from typing import Any

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


def length(vector: FloatArray) -> float:
    """||x|| of a vector of any scale."""
    return float(unit_rows(vector[None])[1][0])


def unit_columns(array: FloatArray) -> FloatArray:
    """Columns divided by their lengths; zero columns stay zero."""
    return unit_rows(array.T)[0].T


def products(a: FloatArray, b: FloatArray) -> tuple[FloatArray, int]:
    """The products a b, in units of 2^exponent in which the largest is about one; and that."""
    (first, here), (second, there) = np.frexp(a), np.frexp(b)
    values = first * second
    exponent = max((here + there)[values != 0].tolist(), default=0)
    return times_power(values, here + there - exponent), exponent


def roots(values: FloatArray, exponent: int) -> FloatArray:
    """(values 2^exponent)^(1/2), though the values themselves may be out of range."""
    half, odd = divmod(exponent, 2)
    root: FloatArray = times_power(np.sqrt(np.ldexp(values, odd)), half)
    return root


def times_power(value: Any, exponent: Any) -> Any:
    """Value 2^exponent, rounded where that is out of range: to infinity, zero or a subnormal."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(value, exponent)


def power_down(value: float, exponent: int) -> float:
    """The largest number that is at most value 2^exponent."""
    rounded = float(times_power(value, exponent))
    above = times_power(rounded, -exponent) > value
    return float(np.nextafter(rounded, -np.inf)) if above else rounded


def power_up(value: float, exponent: int) -> float:
    """The smallest number that is at least value 2^exponent."""
    return -power_down(-value, exponent)
