r"""Cells of an arrangement of rank at most three: their rays and arcs, and maxima of forms on them.

A cell K = {u : s_i <z_i, u> >= 0} of rows that span R^r is the hull of its rays. A quadratic form
u^T M u, M = C C^T, has its maximum over the unit vectors of K at an end: for r = 1 at a ray, for
r = 2 on the arc between its two rays, for r = 3 on an arc of its boundary, between two rays that
share a wall, or at the top eigenvector of M where that lies in K (of a repeated eigenvalue the
eigenspace meets an arc, too). On an arc with orthonormal e, e' the form is

    u = cos(t) e + sin(t) e',    u^T M u = m + a cos(2 t) + b sin(2 t),

which has one maximum in closed form. Rays are known up to their rounding, eps over the sine of the
angle between their walls: arcs are longer by so much, and a ray counts to every cell that it could
belong to, so that maxima are bounds from above.

Reference: the faces of non-negative principal components, of which the second-order conditions
leave top eigenvectors of faces alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxrelu.core.aliases import Bools, Floats, Ints

MOST_RANK = 3
_EPS = 2.0**-52
# Roundings of a ray, over the sine of the angle between its walls.
_ROUNDED = 256.0
# Rays that are taken for one are no further apart.
_TOGETHER = 2e-12
# Cosines between ends of arcs that count as opposite.
_OPPOSITE = -1.0 + 1e-9
# Entries of a block of cells times rays.
_CHUNK = 2**24


class Maxima(NamedTuple):
    """The largest ||C^T u|| over the unit vectors of every cell, from above, and where it is.

    Attributes:
        bounds: (p,).
        directions: (p, r), unit vectors of the cells, up to rounding.
    """

    bounds: Floats
    directions: Floats


@dataclass(frozen=True, eq=False)
class LowRankCells:
    """Cells by their arcs, of which some are single rays.

    Attributes:
        rows: (m, r), the rows that are not zero, of norm one.
        masks: (m, p) bool, their sides.
        cell: (a,), of every arc.
        first: (a, r), its first end.
        second: (a, r), a unit vector orthogonal to that.
        angle: (a,), between its ends.
        slack: (a,), by which it is longer at both, and may be off itself.
        opposite: (a,) bool, the ends are opposite: which half-circle it is, is not known.
    """

    rows: Floats
    masks: Bools
    cell: Ints
    first: Floats
    second: Floats
    angle: Floats
    slack: Floats
    opposite: Bools

    def maxima(self, matrices: Floats) -> Maxima:
        """Of C (p, r, c)."""
        p, r, _ = matrices.shape
        forms = matrices @ matrices.swapaxes(1, 2)
        own = forms[self.cell]
        one = np.einsum("ar,ars,as->a", self.first, own, self.first)
        two = np.einsum("ar,ars,as->a", self.second, own, self.second)
        both = np.einsum("ar,ars,as->a", self.first, own, self.second)
        middle, half = 0.5 * (one + two), 0.5 * (one - two)
        peak = 0.5 * np.arctan2(both, half)

        def value(t: Floats) -> Floats:
            return middle + half * np.cos(2 * t) + both * np.sin(2 * t)

        def nearest(low: Floats, high: Floats) -> Floats:
            """The best angle of an interval: the peak, which repeats, or an end."""
            shifted = peak + np.pi * np.ceil((low - peak) / np.pi)
            end = np.where(value(low) >= value(high), low, high)
            return np.where(shifted <= high, shifted, end)

        at = nearest(np.zeros_like(self.angle), self.angle)
        wide = value(nearest(-self.slack, self.angle + self.slack))
        bounds, best = np.full(p, 0.0), np.full(p, -np.inf)
        np.maximum.at(bounds, self.cell, wide)
        inner = value(at)
        np.maximum.at(best, self.cell, inner)
        directions = np.zeros((p, r))
        top = np.flatnonzero(inner >= best[self.cell])
        directions[self.cell[top]] = (
            np.cos(at[top])[:, None] * self.first[top] + np.sin(at[top])[:, None] * self.second[top]
        )
        if r == 3:
            self._inside(forms, bounds, best, directions)
        size = np.trace(forms, axis1=1, axis2=2)
        # A pattern without a ray is no cell of these rows; what it is has at most this, and so has
        # one with a ray and its opposite.
        whole = best == -np.inf
        whole[self.cell[self.opposite]] = True
        bounds = np.where(whole, size, bounds)
        off = np.zeros(p)
        np.maximum.at(off, self.cell, 4.0 * self.slack)
        rounding = off + (64.0 + matrices.shape[2]) * _EPS
        return Maxima(np.sqrt(np.maximum(bounds, 0.0) + rounding * size), directions)

    def _inside(self, forms: Floats, bounds: Floats, best: Floats, directions: Floats) -> None:
        """Takes top eigenvectors where they lie in their cells, or could."""
        values, vectors = np.linalg.eigh(forms)
        top, apart = values[:, -1], values[:, -1] - values[:, -2]
        u = vectors[:, :, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            off = np.where(apart > 0, 64.0 * _EPS * top / apart, 1.0) + 64.0 * _EPS
        slack = np.where(self.masks.T, 1.0, -1.0) * (u @ self.rows.T)
        for sign in (1.0, -1.0):
            least = np.min(sign * slack, axis=1)
            could = least >= -np.minimum(off, 1.0)
            bounds[could] = np.maximum(bounds, top)[could]
            there = (least >= -64.0 * _EPS) & (top > best)
            best[there], directions[there] = top[there], sign * u[there]


def low_rank_cells(rows: Floats, masks: Bools) -> LowRankCells:
    """The cells of rows (n, r), r at most three, which span R^r, with sides (n, p)."""
    size = np.linalg.norm(rows, axis=1)
    some = size > 0
    rows, masks = rows[some] / size[some][:, None], masks[some]
    rays, off = _rays(rows)
    heights = rows @ rays.T
    below, above = heights < -off, heights > off
    cell, ray = _members(masks, below, above)
    r = rows.shape[1]
    if r < 3:
        groups = cell
        pairs = groups, ray
    else:
        # Rays of a cell on one wall.
        on_wall, wall = np.nonzero((~below & ~above).T[ray])
        pairs = cell[on_wall] * len(rows) + wall, ray[on_wall]
    first, second = _ends(*pairs, rays)
    key = np.unique(pairs[0])
    owner = key if r < 3 else key // len(rows)
    a, b = rays[first], rays[second]
    inner = np.clip(np.einsum("ar,ar->a", a, b), -1.0, 1.0)
    across = b - inner[:, None] * a
    length = np.linalg.norm(across, axis=1)
    apart = length > 1e-12
    across = np.where(apart[:, None], across / np.where(apart, length, 1.0)[:, None], 0.0)
    angle = np.where(apart, np.arctan2(length, inner), 0.0)
    opposite = inner < _OPPOSITE
    # The plane of an arc is known the less the nearer its ends are to a line.
    far = np.where((inner < 0) & apart, 1.0 / np.where(apart, length, 1.0), 1.0)
    slack = 4.0 * np.maximum(off[first], off[second]) * far
    return LowRankCells(rows, masks, owner, a, across, angle, slack, opposite)


def _rays(rows: Floats) -> tuple[Floats, Floats]:
    """Directions (m, r) in which walls meet, each with its opposite, and their rounding (m,)."""
    r = rows.shape[1]
    if r == 1:
        return np.asarray([[1.0], [-1.0]]), np.full(2, _ROUNDED * _EPS)
    if r == 2:
        rays = np.column_stack([-rows[:, 1], rows[:, 0]])
        off = np.full(len(rows), _ROUNDED * _EPS)
    else:
        i, k = np.triu_indices(len(rows), 1)
        rays = np.cross(rows[i], rows[k])
        size = np.linalg.norm(rays, axis=1)
        # Rows along one line have one wall.
        some = size > 1e3 * _EPS
        rays, off = rays[some] / size[some][:, None], _ROUNDED * _EPS / size[some]
    _, kept = np.unique(np.round(rays, 12) + 0.0, axis=0, return_index=True)
    rays, off = rays[kept], off[kept] + _TOGETHER
    return np.concatenate([rays, -rays]), np.concatenate([off, off])


def _members(masks: Bools, below: Bools, above: Bools) -> tuple[Ints, Ints]:
    """Pairs of a cell and a ray that belongs to it, or could."""
    left, right = below.astype(np.float32), above.astype(np.float32)
    step = max(1, _CHUNK // max(left.shape[1], 1))
    parts = []
    for start in range(0, masks.shape[1], step):
        inside = masks[:, start : start + step].T.astype(np.float32)
        wrong = inside @ left + (1.0 - inside) @ right
        cell, ray = np.nonzero(wrong == 0)
        parts.append((cell + start, ray))
    return np.concatenate([c for c, _ in parts]), np.concatenate([q for _, q in parts])


def _ends(group: Ints, ray: Ints, rays: Floats) -> tuple[Ints, Ints]:
    """For every group of rays the two that are furthest apart, in the order of the groups."""
    if not len(group):
        return ray, ray
    order = np.argsort(group, kind="stable")
    group, ray = group[order], ray[order]
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    counts = np.diff(np.append(starts, len(group)))
    first, second = ray[starts].copy(), ray[starts + counts - 1].copy()
    for k in np.flatnonzero(counts > 2):
        some = ray[starts[k] : starts[k] + counts[k]]
        near = rays[some] @ rays[some].T
        i, j = np.unravel_index(int(np.argmin(near)), near.shape)
        first[k], second[k] = some[i], some[j]
    return first, second
