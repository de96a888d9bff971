"""Masks as packed bits, and signs that float64 can tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import Bools, FloatArray
from jaxrelu.geometry.host.scaling import unit_columns, unit_rows

ROUNDING = 50 * float(np.finfo(np.float64).eps)  # of a product of two unit vectors in float64


def row_keys(packed: NDArray[np.uint8]) -> NDArray[Any]:
    """One opaque key per row of packed bits (m, bytes): equal rows have equal keys."""
    packed = np.ascontiguousarray(packed)
    return packed.view(np.dtype((np.void, packed.shape[1]))).ravel()


def distinct_columns(packed: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First of each distinct column of packed bits, in order, and the place of every column."""
    _, first, inverse = np.unique(row_keys(packed.T), return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse]


def closed_bits(rows: FloatArray, gates: FloatArray) -> NDArray[np.uint8]:
    """Packed bits of 1[rows @ gates >= 0], counting as zero what float64 cannot tell from it."""
    products = unit_rows(rows.astype(np.float64))[0] @ unit_columns(gates.astype(np.float64))
    return np.packbits(products >= -ROUNDING, axis=0)


def margins(rows: FloatArray, masks: Bools, directions: FloatArray) -> FloatArray:
    """min_j (2 m_jk - 1) x_j . u_k / ||x_j|| for non-zero rows (n, d) and unit u (d, p): (p,)."""
    products = unit_rows(rows)[0] @ directions
    least: FloatArray = np.min(np.where(masks, products, -products), axis=0)
    return least
