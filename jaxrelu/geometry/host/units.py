"""The units of columns: those in which a random direction sees each of them."""

from __future__ import annotations

import math

import numpy as np

from jaxrelu.core.aliases import FloatArray


def column_units(X: FloatArray) -> FloatArray:
    """The root mean square of each column over the median one, to the nearest power of two.

    A direction u / units, u normally distributed, takes each column for as much as any other,
    whatever it is measured in. Powers of two are exact, and columns of like size, as standardised
    ones are, have units of one. A column below sqrt(eps) of the largest counts as that large: cells
    that it alone tells apart are thinner than rounding. Zero columns have a unit of one.

    Args:
        X: array (n, d), float32 or float64, finite.

    Returns:
        Array (d,) of the dtype of X, between sqrt(eps) and its inverse.
    """
    peak, exponent = np.frexp(np.max(np.abs(X), axis=0))
    nonzero = peak > 0
    if not nonzero.any():
        return np.ones(X.shape[1], X.dtype)
    # Over its largest entry, so that no square overflows.
    mean_square = np.mean(np.ldexp(X, -exponent).astype(np.float64) ** 2, axis=0)
    size = exponent + 0.5 * np.log2(np.where(nonzero, mean_square, 1.0))
    least = np.max(size[nonzero]) + math.ceil(0.5 * math.log2(float(np.finfo(X.dtype).eps)))
    size = np.where(nonzero, np.maximum(size, least), 0.0)
    power = np.rint(size - np.median(size[nonzero])).astype(np.int32)
    return np.ldexp(np.ones(X.shape[1], X.dtype), np.where(nonzero, power, 0))
