r"""Data as lines through the origin: what the polar gauge of every residual has in common.

Rows of length zero do nothing, and parallel rows act as one: with a unit vector z of each line,
x_j = l_j z or -l_j z, the value of a direction is

    r^T (X u)_+ = sum over lines of  a (z . u)_+ + b (-z . u)_+,

where a and b sum l_j r_j over the rows of either side. Directions outside the row space do
nothing, so z and u are kept in an orthonormal basis of it. What the reduction rounds away is
summed up in a bound that every upper bound of the gauge is raised by.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.arrangements import half_cells, num_cells
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.geometry.host.units import column_units

_MOST_CELLS = 200_000
_MOST_BITS = 2**24  # they are multiplied as float64: 128 MiB
_MOST_HEIGHTS = 2**22  # of directions over lines at once: 32 MiB
_PARALLEL = 1e-12
_EPS = float(np.finfo(np.float64).eps)


def values_of(lines: Floats, front: Floats, back: Floats, directions: Floats) -> Floats:
    """g(u) (m,) of directions (m, k)."""
    found, some = np.empty(len(directions)), max(1, _MOST_HEIGHTS // max(len(lines), 1))
    for start in range(0, len(directions), some):
        heights = directions[start : start + some] @ lines.T
        upward = np.maximum(heights, 0.0) @ front
        found[start : start + some] = upward + np.maximum(-heights, 0.0) @ back
    return found


class Arrangement:
    """The lines that the rows of X span.

    Attributes:
        lines: (L, k), unit vectors in the row space.
        basis: (d, k), orthonormal: direction u of the row space is basis @ u in R^d.
        spread: (k, k), takes normal directions to such that see each column of X for as much.
        line: (n,), the line of every row; -1 for a zero row.
        same: (n,), whether the row points along its line's vector.
        length: (n,), ||x_j||.
        blur: (n,), what the reduction may change x_j by.
    """

    def __init__(self, X: Floats) -> None:
        """X (n, d), float64."""
        unit, self.length = unit_rows(X)
        real = np.flatnonzero(self.length)
        unit = unit[real]
        _, singular, right = np.linalg.svd(unit, full_matrices=False)
        kept = singular > 10 * _EPS * max(unit.shape, default=1) * singular.max(initial=0.0)
        self.basis = np.ascontiguousarray(right[kept].T)
        further = 1.0 / column_units(X) - 1.0
        self.spread = np.eye(self.basis.shape[1]) + self.basis.T @ (further[:, None] * self.basis)
        inside = unit @ self.basis
        representative, line, same = _lines(inside)
        self.lines = np.ascontiguousarray(inside[representative])
        self.line = np.full(len(X), -1)
        self.same = np.ones(len(X), dtype=np.bool_)
        self.line[real], self.same[real] = line, same
        reduced = np.where(same, 1.0, -1.0)[:, None] * self.lines[line]
        self.blur = np.zeros(len(X))
        self.blur[real] = np.linalg.norm(unit - reduced @ self.basis.T, axis=1)
        self.blur = self.length * (self.blur + 10 * _EPS)

    @property
    def rank(self) -> int:
        """k, the rank of X."""
        return self.lines.shape[1]

    def sides(self, r: Floats) -> tuple[Floats, Floats]:
        """The coefficients a and b (L,) of both sides of every line, for a residual r (n,)."""
        weight = r * self.length
        count = len(self.lines)
        front, back = (
            np.bincount(self.line[side], weight[side], count).astype(np.float64)
            for side in ((self.line >= 0) & self.same, (self.line >= 0) & ~self.same)
        )
        return front, back

    def slack(self, r: Floats) -> float:
        """A bound of how far the value of any direction is off after the reduction."""
        return float(np.abs(r) @ self.blur) * (1.0 + len(r) * _EPS)

    @cached_property
    def two_sided(self) -> bool:
        """Whether some line has rows on both sides."""
        return not bool(np.all(self.same))

    @property
    def has_few_cells(self) -> bool:
        """Whether all cells can be listed."""
        if self.rank <= 2:
            return True
        count = num_cells(len(self.lines), self.rank)
        return count <= _MOST_CELLS and count * len(self.lines) <= _MOST_BITS

    @cached_property
    def cells(self) -> Bools:
        """One of each antipodal pair of cells, (c, L): whether a line's vector is on the inside."""
        return half_cells(self.lines, _EPS)[0]


def _lines(unit: Floats) -> tuple[NDArray[Any], NDArray[Any], Bools]:
    """Parallel unit vectors (m, k): one of each line, the line of each, and on which side it is.

    Vectors of one line have the same |z . e| for any e: sorted by it, they are neighbours. A pair
    that this overlooks costs time and nothing else.
    """
    direction = np.random.default_rng(0).standard_normal(unit.shape[1])
    height = unit @ (direction / max(float(np.linalg.norm(direction)), 1e-300))
    order = np.argsort(np.abs(height), kind="stable")
    line = np.zeros(len(unit), dtype=np.intp)
    same = np.ones(len(unit), dtype=np.bool_)
    representative: list[int] = []
    for j in order:
        z = unit[representative[-1]] if representative else None
        cosine = 0.0 if z is None else float(unit[j] @ z)
        parallel = z is not None and (
            np.linalg.norm(unit[j] - np.copysign(1.0, cosine) * z) <= _PARALLEL
        )
        if not parallel:
            representative.append(int(j))
        line[j] = len(representative) - 1
        same[j] = cosine > 0 or not parallel
    return np.asarray(representative, dtype=np.intp), line, same
