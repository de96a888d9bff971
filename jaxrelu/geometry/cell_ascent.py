r"""The largest ||C^T u|| over the unit vectors of a cell, of any rank: ascent, and bounds.

||C^T u|| is convex in u, so that u' = Proj_K(C C^T u), scaled to norm one, is no worse than u: the
maximum over K of the form linearised at u. Ascents of many cells go side by side and begin where
the last residual left them; the first ones at Proj_K(+-C g) for the first singular vectors g.

From above, with any orthonormal g_1, ..., g_c

    max ||C^T u||^2 <= sum_k max over both signs of ||Proj_K(+-C g_k)||^2,

and the spectral norm; with one output the first is the maximum itself.

Reference: the power method on a cone; Moreau's decomposition for the projections.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrelu.core.aliases import Floats, Ints
from jaxrelu.geometry.cell_found import ROUNDED, Found, coordinates_slip, unknown
from jaxrelu.geometry.cones import lanes_at_once
from jaxrelu.geometry.driven_projection import project_points
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.geometry.host.cell_relaxation import relaxed_maximum

_STEPS = 4
_STARTS = 2
# A semidefinite program for every cell: up to so many features, with so many of the walls.
_MOST_FEATURES = 10
_MOST_WALLS = 24
# A projection that is shorter, relative, is none.
_LEAST = 1e-6
# A bound that is so little above lam is good enough.
_CLOSED = 1e-8
_EPS = 2.0**-52


class CellAscent:
    """Ascents over all cells of patterns, from one residual to the next."""

    def __init__(self, X: Any, masks: Any, interior: Any) -> None:
        data = np.asarray(X, np.float64)
        self.basis: Floats | None = None
        self.off = 1.0
        if data.shape[1] > data.shape[0]:
            q, r = np.linalg.qr(data.T)
            left = np.linalg.norm(data - r.T @ q.T, axis=1)
            lengths = np.linalg.norm(data, axis=1)
            share = np.max(left[lengths > 0] / lengths[lengths > 0], initial=0.0)
            self.off = max(1.0, float(share) / (ROUNDED * _EPS))
            self.basis, data = q, np.ascontiguousarray(r.T)
        self.rows: Rows = shared_rows(jnp.asarray(data))
        some = np.any(data != 0, axis=1)
        self.walls = data[some]
        self.inside = np.asarray(interior, np.float64).T
        if self.basis is not None:
            self.inside = self.inside @ self.basis
        self.signs = np.where(np.asarray(masks, bool).T, 1.0, -1.0)
        self.wall_signs = self.signs[:, some]
        self.directions: Floats | None = None

    def at(self, correlations: Floats, lam: float, *, closely: bool = True) -> Found:
        """At X^T D_j R of all cells, (p, d, c); all ascents start anew, too, where `closely`."""
        if not np.all(np.isfinite(correlations)):
            return unknown(correlations)
        c = correlations
        if self.basis is not None:
            c = np.einsum("pdc,dr->prc", c, self.basis)
        p, d, _ = c.shape
        _, sizes, right = np.linalg.svd(c, full_matrices=False)
        share = (64.0 + sum(c.shape[1:])) * _EPS
        spectral = sizes[:, 0] + share * np.sqrt(np.sum(sizes**2, axis=1))
        open_ = np.flatnonzero(spectral > lam)
        if self.directions is None:
            self.directions = np.zeros((p, d))
        values = np.linalg.norm(np.einsum("pdc,pd->pc", c, self.directions), axis=1)
        fresh = open_ if closely else open_[values[open_] == 0]
        for k in range(min(_STARTS, right.shape[1])):
            for sign in (1.0, -1.0):
                self._try(c, values, fresh, sign * np.einsum("pdc,pc->pd", c, right[:, k])[fresh])
        for _ in range(_STEPS):
            inner = np.einsum("pdc,pd->pc", c[open_], self.directions[open_])
            self._try(c, values, open_, np.einsum("pdc,pc->pd", c[open_], inner))
        bounds = spectral.copy()
        if closely:
            if c.shape[2] > 1:
                self._relax(c, open_, bounds, lam)
            left_open = open_[bounds[open_] > lam * (1.0 + _CLOSED)]
            bounds = np.minimum(bounds, self._bounds(c, right, left_open, bounds))
        directions = self.directions
        if self.basis is not None:
            directions = directions @ self.basis.T
        found = float(np.max(bounds, initial=0.0))
        slip = self.off * coordinates_slip(correlations, self.basis)
        return Found(found, slip, directions.copy(), values)

    def _relax(self, c: Floats, cells: Ints, bounds: Floats, lam: float) -> None:
        """By the semidefinite program of each cell, where there are few features."""
        if c.shape[1] > _MOST_FEATURES:
            return
        assert self.directions is not None
        for j in cells:
            walls = self.wall_signs[j][:, None] * self.walls
            heights = walls @ self.directions[j]
            # Walls that the longest direction is near to.
            some = np.argsort(heights)[:_MOST_WALLS]
            found = relaxed_maximum(
                c[j] @ c[j].T, walls[some], self.inside[j], (lam * (1.0 + 0.1 * _CLOSED)) ** 2
            )
            bounds[j] = min(bounds[j], np.sqrt(found))

    def _try(self, c: Floats, values: Floats, cells: Ints, points: Floats) -> None:
        """Takes the directions of projections that are longer."""
        assert self.directions is not None
        projected, _ = self._project(cells, points)
        length = np.linalg.norm(projected, axis=1)
        # Of a point behind all walls there is rounding left.
        some = length > _LEAST * np.linalg.norm(points, axis=1)
        u = np.where(some[:, None], projected / np.where(some, length, 1.0)[:, None], 0.0)
        found = np.linalg.norm(np.einsum("pdc,pd->pc", c[cells], u), axis=1)
        better = found > values[cells]
        values[cells[better]] = found[better]
        self.directions[cells[better]] = u[better]

    def _bounds(self, c: Floats, right: Floats, cells: Ints, spectral: Floats) -> Floats:
        """By projections of both signs of all singular vectors."""
        total = np.zeros(len(spectral))
        for k in range(right.shape[1]):
            along = np.einsum("pdc,pc->pd", c, right[:, k])[cells]
            both = [self._project(cells, sign * along)[1] for sign in (1.0, -1.0)]
            total[cells] += np.maximum(*both) ** 2
        return np.where(total > 0, np.sqrt(total) * (1.0 + 256.0 * _EPS), spectral)

    def _project(self, cells: Ints, points: Floats) -> tuple[Floats, Floats]:
        """Projections of points (k, d) onto cells, and bounds (k,) of their norms."""
        n, m = self.signs.shape[1], lanes_at_once(self.signs.shape[1])
        out, bounds = np.zeros_like(points), np.zeros(len(points))
        walls = jnp.zeros(n, self.rows.unit.dtype)
        for start in range(0, len(points), m):
            some = np.minimum(np.arange(start, start + m), len(points) - 1)
            near = np.ascontiguousarray(points[some])
            found = project_points(
                self.rows, np.ascontiguousarray(self.signs[cells[some]]), near, walls, cold=True,
                level=-1.0, near=near,
            )  # fmt: skip
            stop = min(start + m, len(points))
            out[start:stop] = np.asarray(found.points)[: stop - start]
            # K^T mu is a sum of n terms, of rows of norm one.
            mass = np.sum(np.asarray(found.multipliers), axis=1)
            far = np.asarray(found.bound) + (n + 8.0) * _EPS * mass
            bounds[start:stop] = far[: stop - start]
        return out, bounds
