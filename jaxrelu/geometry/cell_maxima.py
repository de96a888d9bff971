r"""The largest ||R^T D_j X u|| over the unit vectors of every cell, from both sides."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.geometry.cell_ascent import CellAscent
from jaxrelu.geometry.cell_found import ROUNDED, Found, coordinates_slip, unknown
from jaxrelu.geometry.host.low_rank_cells import MOST_RANK, LowRankCells, low_rank_cells

# The rays of an arrangement of rank three grow with the square of its rows.
_MOST_ROWS = 120
_EPS = 2.0**-52


class CellMaxima(Protocol):
    """Looks for the maxima at one residual after another."""

    def at(self, correlations: Floats, lam: float, *, closely: bool = True) -> Found:
        """At X^T D_j R of all cells, (p, d, c).

        No bound needs to be closer than lam, and none is looked for where it is dear unless
        `closely`.
        """


class LowRankMaxima:
    """Of data of rank three at most, exactly."""

    def __init__(self, cells: LowRankCells, basis: Floats | None) -> None:
        self.cells, self.basis = cells, basis

    def at(self, correlations: Floats, lam: float, *, closely: bool = True) -> Found:
        """All cells at once."""
        del lam, closely
        if not np.all(np.isfinite(correlations)):
            return unknown(correlations)
        inner = correlations
        if self.basis is not None:
            inner = np.einsum("pdc,dr->prc", correlations, self.basis)
        found = self.cells.maxima(inner)
        values = np.linalg.norm(np.einsum("prc,pr->pc", inner, found.directions), axis=1)
        directions = found.directions
        if self.basis is not None:
            directions = directions @ self.basis.T
        bound = float(np.max(found.bounds, initial=0.0))
        return Found(bound, coordinates_slip(correlations, self.basis), directions, values)


def maxima_of(X: Any, masks: Any, interior: Any) -> CellMaxima:
    """The way to find the maxima over the cells of patterns, with their witnesses (d, p)."""
    found = low_rank_maxima(X, masks, MOST_RANK)
    return CellAscent(X, masks, interior) if found is None else found


def low_rank_maxima(X: Any, masks: Any, most_rank: int) -> LowRankMaxima | None:
    """For data of a low rank; None for others, and where rounding hides what the rows span."""
    data = np.asarray(X, np.float64)
    lengths = np.linalg.norm(data, axis=1)
    data, masks = data[lengths > 0], np.asarray(masks, bool)[lengths > 0]
    if not len(data):
        return None
    _, sizes, right = np.linalg.svd(data, full_matrices=False)
    rank, d = int(np.sum(sizes > max(data.shape) * _EPS * sizes[0])), data.shape[1]
    if rank > most_rank or (rank == MOST_RANK and len(data) > _MOST_ROWS):
        return None
    if rank == d:
        return LowRankMaxima(low_rank_cells(data, masks), None)
    basis = right[:rank].T
    rows = data @ basis
    left = np.linalg.norm(data - rows @ basis.T, axis=1)
    # Of rows that are small beside others the projection may be rounding.
    if np.any(left > ROUNDED * _EPS * np.linalg.norm(rows, axis=1)):
        return None
    return LowRankMaxima(low_rank_cells(rows, masks), basis)
