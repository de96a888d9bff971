r"""Continuous walks over {a >= 0 : Z a = f}: to a vertex, from vertex to vertex, along with f.

Each walk is the list of its corners, and is linear between them; no point of it has more than
rank(Z) + 1 positive coefficients once it is at a vertex. `pivots` is the primal simplex method,
`follow` the dual one with a right-hand side that moves; both with Bland's rule, which cannot cycle.
A linear program whose solution alone is wanted goes to HiGHS instead
(`jaxrelu.geometry.host.polytopes`).

NumPy, float64, on the host.
"""

from __future__ import annotations

import numpy as np

from jaxrelu.core.aliases import Floats

RANK = 1e-9
# Coefficients below this share of their sum are zero.
ZERO = 1e-10
_PRICE = 1e-9
_LAST = 1e-10
_MOST_PIVOTS = 100_000


def to_vertex(columns: Floats, start: Floats, cost: Floats | None = None) -> list[Floats]:
    """Corners of a walk to a vertex inside the support of a start, with the same columns @ a.

    Args:
        columns: (n, k).
        start: (k,), >= 0.
        cost: (k,), of which <cost, a> must not rise; None where it does not matter.

    Returns:
        The corners after `start`; none where it is a vertex.
    """
    a = start.copy()
    corners: list[Floats] = []
    while True:
        alive = np.flatnonzero(a > 0)
        if not alive.size:
            return corners
        norms = np.linalg.norm(columns[:, alive], axis=0)
        scale = np.where(norms > 0, norms, 1.0)
        _, sigma, right = np.linalg.svd(columns[:, alive] / scale, full_matrices=True)
        if alive.size <= int(np.sum(sigma > RANK * sigma[0])):
            return corners
        beta = right[-1] / scale
        slope = 0.0 if cost is None else float(cost[alive] @ beta)
        beta = -beta if slope < 0 or (slope == 0 and np.max(beta) <= 0) else beta
        falling = beta > 1e-12 * np.max(np.abs(beta))
        if not np.any(falling):
            return corners  # the cost alone would fall for ever, by rounding
        ratio = np.where(falling, a[alive] / np.where(falling, beta, 1.0), np.inf)
        gone = int(np.argmin(ratio))
        a[alive] = np.maximum(a[alive] - ratio[gone] * beta, 0.0)
        a[alive[gone]] = 0.0
        a[a <= ZERO * np.sum(a)] = 0.0
        corners.append(a.copy())


def pivots(columns: Floats, start: Floats, cost: Floats) -> tuple[list[Floats], list[int]]:
    """Corners of a walk from a vertex to one of least cost, which falls along it, and the basis.

    Args:
        columns: (n, k).
        start: (k,), a vertex: its columns are independent.
        cost: (k,).

    Returns:
        The corners after `start`, and rank(columns) indices, the basis of the last.

    Raises:
        RuntimeError: too many pivots.
    """
    Z = _full_rank(columns)
    basis = _extended(Z, list(np.flatnonzero(start > 0)))
    a = start.copy()
    corners: list[Floats] = []
    for _ in range(_MOST_PIVOTS):
        prices = np.linalg.solve(Z[:, basis].T, cost[basis])
        reduced = cost - Z.T @ prices
        reduced[basis] = 0.0
        candidates = np.flatnonzero(reduced < -_PRICE * max(1.0, float(np.max(np.abs(cost)))))
        if not candidates.size:
            return corners, basis
        enter = int(candidates[0])
        change = np.linalg.solve(Z[:, basis], Z[:, enter])
        falling = change > 1e-9
        ratio = np.where(falling, a[basis] / np.where(falling, change, 1.0), np.inf)
        step = float(np.min(ratio))
        leaving = min(np.flatnonzero(ratio <= step + 1e-12), key=lambda place: basis[place])
        new = a.copy()
        new[basis] = np.maximum(a[basis] - step * change, 0.0)
        new[enter] = step
        new[basis[leaving]] = 0.0
        new[new <= ZERO * np.sum(new)] = 0.0
        basis[leaving] = enter
        if np.any(new != a):
            corners.append(new)
        a = new
    raise RuntimeError("the simplex method did not end: the columns are too nearly dependent.")


def follow(
    columns: Floats, basis: list[int], cost: Floats, start: Floats, end: Floats
) -> list[Floats]:
    """Corners of the vertices of least cost while the right-hand side moves in a straight line.

    a(t) = argmin {<cost, a> : columns a = (1 - t) start + t end, a >= 0}, t from 0 to 1; the least
    cost is a convex function of t, linear between corners.

    Args:
        columns: (n, k).
        basis: of a vertex of least cost for `start`, as `pivots` returns it.
        cost: (k,).
        start: (n,), a non-negative combination of columns.
        end: (n,), another one.

    Returns:
        The corners, that at t = 0 first.

    Raises:
        RuntimeError: too many pivots, or a right-hand side out of reach.
    """
    left = _row_space(columns)
    Z, first, last = left.T @ columns, left.T @ start, left.T @ end
    basis, t = list(basis), 0.0
    if not basis:
        return [np.zeros(Z.shape[1])]  # no column, or zeros alone

    def vertex(t: float) -> Floats:
        a = np.zeros(Z.shape[1])
        values = np.linalg.solve(Z[:, basis], (1 - t) * first + t * last)
        a[basis] = np.maximum(values, 0.0)
        a[a <= ZERO * np.sum(a)] = 0.0
        return a

    corners = [vertex(t)]
    for _ in range(_MOST_PIVOTS):
        square = Z[:, basis]
        here = np.linalg.solve(square, (1 - t) * first + t * last)
        slope = np.linalg.solve(square, last - first)
        size = max(float(np.sum(np.abs(here))), 1e-300)
        falling = slope < -1e-12 * max(float(np.max(np.abs(slope))), size)
        room = np.where(falling, np.maximum(here, 0.0) / np.where(falling, -slope, 1.0), np.inf)
        step = float(np.min(room))
        if t + step >= 1.0 - _LAST:  # coefficients that the end does not have vanish there
            corners.append(vertex(1.0))
            return corners
        leaving = min(np.flatnonzero(room <= step + 1e-13), key=lambda place: basis[place])
        if step > 0:
            t += step
            corners.append(vertex(t))
        unit = np.zeros(len(basis))
        unit[leaving] = 1.0
        row = np.linalg.solve(square.T, unit) @ Z
        reduced = np.maximum(cost - Z.T @ np.linalg.solve(square.T, cost[basis]), 0.0)
        row[basis] = 0.0
        entering = row < -1e-9
        if not np.any(entering):
            raise RuntimeError(
                "the fit left the cone of the features: the ends do not belong here."
            )
        ratio = np.where(entering, reduced / np.where(entering, -row, 1.0), np.inf)
        basis[leaving] = int(np.flatnonzero(ratio <= np.min(ratio) + 1e-12)[0])
    raise RuntimeError("the simplex method did not end: the columns are too nearly dependent.")


def _row_space(columns: Floats) -> Floats:
    """Orthonormal (n, rank) that span the columns."""
    left, sigma, _ = np.linalg.svd(columns, full_matrices=False)
    space: Floats = left[:, sigma > RANK * sigma[0]]
    return space


def _full_rank(columns: Floats) -> Floats:
    Z: Floats = _row_space(columns).T @ columns
    return Z


def rank(columns: Floats) -> int:
    """The rank, relative to the largest singular value."""
    sigma = np.linalg.svd(columns, compute_uv=False)
    return int(np.sum(sigma > RANK * np.max(sigma, initial=0.0)))


def _extended(Z: Floats, chosen: list[int]) -> list[int]:
    """Independent columns and further ones that make them a basis."""
    norms = np.linalg.norm(Z, axis=0)
    Z = Z / np.where(norms > 0, norms, 1.0)
    basis = [int(e) for e in chosen]
    for e in range(Z.shape[1]):
        if len(basis) == len(Z):
            break
        trial = Z[:, [*basis, e]]
        if e not in basis and rank(trial) == len(basis) + 1:
            basis.append(e)
    return basis
