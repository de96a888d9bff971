"""Every cell of a hyperplane arrangement, with an interior point.

The rows of X cut R^d into open cones, the cells: {u : s_j x_j . u > 0 for every j}, s in {-1, 1}^n.
Deletion and restriction: adding the hyperplane of row k to the arrangement of the rows before it
cuts in two exactly those cells whose intersection with the hyperplane is a cell of the
arrangement that the earlier rows draw on that hyperplane, one dimension lower. So no linear
program is needed, degenerate data included, and every cell comes with a strictly interior point.

Reference:
    T. Zaslavsky, "Facing up to arrangements" (1975), deletion and restriction; R. O. Winder,
    "Partitions of N-space by hyperplanes" (1966) and T. M. Cover (1965) for the count.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from jaxrelu.core.aliases import Bools, FloatArray
from jaxrelu.geometry.host.bits import ROUNDING, row_keys
from jaxrelu.geometry.host.scaling import unit_rows

MAX_CELLS = 200_000  # beyond this no solver could use the patterns either
MAX_BITS = 2**27  # entries of the masks: 128 MiB of booleans


def num_cells(n: int, rank: int) -> int:
    """Cells of n hyperplanes through the origin of R^rank in general position (Cover, 1965)."""
    return 2 * sum(math.comb(n - 1, k) for k in range(min(rank, n)))


def half_cells(rows: FloatArray, eps: float) -> tuple[Bools, FloatArray, int]:
    """One cell out of each antipodal pair of the arrangement of the rows, with interior points.

    The other half of the cells has the complementary bits and the negated points.

    Args:
        rows: array (n, d), float64, no zero row, of any scale.
        eps: relative precision of the rows (that of the dtype they were given in). Rows at an angle
            below 100 eps span the same line; directions along which the unit rows extend by less
            than 50 eps in root mean square do not count for the rank.

    Returns:
        bits (c, n), whether x_j . u > 0 on the cell; points (c, d), of unit norm, strictly inside
        their cells; and the rank of the rows. The first row's bit is always true.

    Raises:
        ValueError: there may be more than 200,000 cells, or more than 2^27 bits.
    """
    unit = unit_rows(rows)[0]
    _, singular, right = np.linalg.svd(unit, full_matrices=False)
    rank = int(np.sum(singular > 50 * eps * math.sqrt(len(unit))))
    basis = right[:rank]
    unit = unit @ basis.T
    representatives, line, same = _distinct_lines(unit, 100 * eps)
    bits, points = _half_cells(unit[representatives])
    return bits[:, line] == same, points @ basis, rank


def _refuse_if_too_many(num_lines: int, num_rows: int, rank: int) -> None:
    bound = num_cells(num_lines, rank)
    if bound > MAX_CELLS or bound * num_rows > MAX_BITS:
        raise ValueError(
            f"{num_rows} samples of rank {rank} may have {bound:,} activation patterns or more, "
            f"too many to list (at most {MAX_CELLS:,} patterns and {MAX_BITS:,} bits): "
            "use sample_patterns(key, X, num_gates) instead."
        )


def _distinct_lines(
    unit: FloatArray, tolerance: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Bools]:
    """Groups unit rows (n, r) that are parallel or antiparallel.

    Returns the index of one row per line, each row's line, and whether it points the same way as
    that line's row.
    """
    num_rows, rank = unit.shape
    # Rows of one line have the same |x . e|, so clearly different values are different lines:
    # this refuses most hopeless data before the pairwise comparison.
    direction = np.random.default_rng(0).standard_normal(rank)
    heights = np.sort(np.abs(unit @ direction))
    apart = np.diff(heights) > 4 * tolerance * np.linalg.norm(direction)
    _refuse_if_too_many(1 + int(np.sum(apart)), num_rows, rank)

    line = np.full(num_rows, -1, dtype=np.intp)
    same = np.ones(num_rows, dtype=np.bool_)
    representatives: list[int] = []
    left = np.arange(num_rows)
    while left.size:
        first = unit[left[0]]
        cosine = unit[left] @ first
        on_line = np.linalg.norm(unit[left] - cosine[:, None] * first, axis=1) <= tolerance
        on_line[0] = True
        line[left[on_line]] = len(representatives)
        same[left[on_line]] = cosine[on_line] > 0
        representatives.append(int(left[0]))
        _refuse_if_too_many(len(representatives), num_rows, rank)
        left = left[~on_line]
    return np.asarray(representatives), line, same


def _half_cells(rows: FloatArray) -> tuple[Bools, FloatArray]:
    """The cells with a positive first row, of rows (n, r) of rank r and of norm at most one.

    A cell whose point is closer than `ROUNDING` to a wall comes from rounding (three planes through
    one line that miss it by an ulp, a row that vanishes on the hyperplane at hand): it is left out.
    """
    num_rows, rank = rows.shape
    if rank == 1:
        return _inside(rows, np.ones((1, 1)))
    if rank == 2:
        # The walls, sorted by angle in a half turn; the cells are the gaps between them.
        walls = np.sort((np.arctan2(rows[:, 1], rows[:, 0]) + np.pi / 2) % np.pi)
        middle = (walls + np.append(walls[1:], walls[0] + np.pi)) / 2
        return _inside(rows, np.stack([np.cos(middle), np.sin(middle)], axis=1))

    # The first r rows are made independent: all their sign vectors are cells.
    order = scipy.linalg.qr(rows.T, mode="r", pivoting=True)[1]
    ordered = rows[order]
    codes = np.arange(2 ** (rank - 1))[:, None] >> np.arange(rank) & 1
    bits = codes == 0  # the last row is positive throughout: one of each antipodal pair
    points = np.linalg.solve(ordered[:rank], np.where(bits, 1.0, -1.0).T).T
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for k in range(rank, num_rows):
        bits, points = _add_hyperplane(ordered[:k], ordered[k], bits, points)

    original = np.empty_like(bits)
    original[:, order] = bits
    return original == original[:, :1], np.where(original[:, :1], points, -points)


def _inside(rows: FloatArray, points: FloatArray) -> tuple[Bools, FloatArray]:
    """Bits of the points that clear every wall, after moving them to the first row's side."""
    products = points @ rows.T
    clear = np.min(np.abs(products), axis=1) > ROUNDING
    bits = products[clear] > 0
    return bits == bits[:, :1], np.where(bits[:, :1], points[clear], -points[clear])


def _add_hyperplane(
    rows: FloatArray, new: FloatArray, bits: Bools, points: FloatArray
) -> tuple[Bools, FloatArray]:
    """Cuts half the cells (c, k) of rows (k, r), the last of the first r positive, by one more."""
    rank = rows.shape[1]
    length = np.linalg.norm(new)
    if length <= ROUNDING:
        # Inside a restriction: a row that is parallel to the hyperplane it was restricted to.
        return np.zeros((0, len(rows) + 1), dtype=np.bool_), np.zeros((0, rank))
    normal = new / length
    basis = np.linalg.svd(normal[None])[2][1:]  # of the hyperplane of the new row
    cut, middle = _half_cells(rows @ basis.T)
    middle = middle @ basis
    positive = cut[:, rank - 1]
    cut = cut == positive[:, None]
    middle = np.where(positive[:, None], middle, -middle)

    whole = ~np.isin(row_keys(np.packbits(bits, axis=1)), row_keys(np.packbits(cut, axis=1)))
    side = points[whole] @ normal > 0
    # Half of the distance to the nearest wall leaves the other half as margin.
    step = 0.5 * np.min(np.abs(middle @ rows.T), axis=1, initial=1.0)[:, None] * normal
    above, below = middle + step, middle - step
    bits = np.concatenate(
        [
            np.column_stack([bits[whole], side]),
            np.column_stack([cut, np.ones(len(cut), dtype=np.bool_)]),
            np.column_stack([cut, np.zeros(len(cut), dtype=np.bool_)]),
        ]
    )
    points = np.concatenate([points[whole], above, below])
    return bits, points / np.linalg.norm(points, axis=1, keepdims=True)
