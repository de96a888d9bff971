r"""Problems over a dictionary of neurons: lasso, interpolation, and their columns one by one.

A neuron of unit norm has the column phi = (X u)_+ and either sign. Over finitely many of them the
training problem is a lasso, over all it is the same with columns found as they are needed: the
optimum has |phi . r| <= lam for every column, so at a residual r the best u of each activation
cone, u = Proj_K(s X^T D r) over its norm, is a new column where s phi . r > lam; there is none at
the optimum. Neurons of one signed cone add up to one, (X u)_+ a + (X v)_+ b = (X (a u + b v))_+,
which costs less: they are merged each time, and the method converges in few rounds.

Interpolation is the limit min { R(f) : f = y - c }, whose dual, min over v of max |phi . v| subject
to y . v = 1 (and 1 . v = 0 where a constant c is free), has the value 1 / R. The l0-l1 question is
the same program with other equations, so both are `least_polar`.

NumPy, float64, on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.arrangements import half_cells
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.projection import block_correlation
from jaxrelu.geometry.host.scaling import exponents, unit_columns, unit_rows

# A relative gap of this size is closed; after so many rounds without progress rounding is all.
_CLOSED = 1e-11
_STALLED = 10


class Columns(NamedTuple):
    """Neurons u, one a column of `directions` (d, k), of cost one; features (n, k) = (X u)_+.

    `cell` (k,) is an activation cone of each: neurons of one cell and sign add up to one.
    """

    directions: Floats
    features: Floats
    cell: NDArray[np.int64]

    def take(self, kept: NDArray[np.int64]) -> Columns:
        """Some of them."""
        return Columns(self.directions[:, kept], self.features[:, kept], self.cell[kept])

    def join(self, others: Columns) -> Columns:
        """These and others."""
        return Columns(
            np.hstack([self.directions, others.directions]),
            np.hstack([self.features, others.features]),
            np.append(self.cell, others.cell),
        )


class Cells(NamedTuple):
    """All activation cones of X (n, d), masks (n, p): the neurons that may become columns."""

    X: Floats
    masks: Bools

    @classmethod
    def of(cls, X: Floats) -> Cells:
        """All of them, told apart in float64 whatever the dtype that X came in.

        Raises:
            ValueError: too many to list.
        """
        real = np.any(X != 0, axis=1)
        half = half_cells(X[real], float(np.finfo(np.float64).eps))[0]
        masks = np.zeros((len(X), 2 * len(half)), np.bool_)
        masks[real] = np.concatenate([half, ~half]).T
        return cls(X, masks)

    def columns(self, directions: Floats) -> Columns:
        """Columns of directions (d, k) of any length."""
        unit = unit_columns(directions)
        products = self.X @ unit
        signs = np.where(self.masks, 1.0, -1.0)
        slack = np.min(signs[:, :, None] * products[:, None], axis=0)
        return Columns(unit, np.maximum(products, 0.0), np.argmax(slack, axis=0))

    def polar(self, r: Floats) -> tuple[float, Columns, Floats]:
        """Bounds the polar of r from above, with the best neuron and the norm of each block."""
        unit = unit_rows(self.X)[0]
        found, cells, norms = [], [], []
        for j, mask in enumerate(self.masks.T):
            for s in (1.0, -1.0):
                q = block_correlation(self.X, unit, mask, s * r)
                norms.append(float(np.linalg.norm(q)))
                found.append(q / norms[-1] if norms[-1] > 0 else q)
                cells.append(j)
        directions = np.stack(found, axis=1)
        features = np.maximum(self.X @ directions, 0.0)
        sizes = np.asarray(norms)
        return float(np.max(sizes)), Columns(directions, features, np.asarray(cells)), sizes


class Fitted(NamedTuple):
    """Signed sizes (k,) of columns, a constant, the dual (n,) and an upper bound of its polar."""

    columns: Columns
    sizes: Floats
    constant: float
    dual: Floats
    polar: float


def largest(columns: Columns, r: Floats) -> float:
    """The polar of r over the columns, max |phi . r|."""
    return float(np.max(np.abs(columns.features.T @ r), initial=0.0))


def lasso(
    columns: Columns, y: Floats, lam: float, constant: bool, cells: Cells | None = None
) -> Fitted:
    """The lasso over columns or over all neurons, with a constant c that is free or zero.

    Minimises 1/2 ||Phi a + c - y||^2 + lam ||a||_1 over a and c.

    Args:
        columns: the dictionary, or the first columns where `cells` is given.
        y: (n,).
        lam: > 0.
        constant: whether c is free.
        cells: where the neurons that are missing come from; None for a finite dictionary.

    Returns:
        `Fitted`; its dual is the residual.
    """
    mean = np.ones(len(y)) / np.sqrt(len(y)) if constant else np.zeros(len(y))
    target = y - mean * (mean @ y)
    best, stalled = None, 0
    while True:
        raw = columns.features
        centred = raw - np.outer(mean, mean @ raw)
        signed = nonnegative_lasso(np.hstack([centred, -centred]), target, lam)
        sizes = signed[: raw.shape[1]] - signed[raw.shape[1] :]
        r = target - centred @ sizes
        c = float(np.mean(y - raw @ sizes)) if constant else 0.0
        if cells is None:
            return Fitted(columns, sizes, c, r, largest(columns, r))
        polar, more, norms = cells.polar(r)
        here = Fitted(columns, sizes, c, r, polar)
        better = best is None or polar < best.polar * (1.0 - _CLOSED)
        best = here if best is None or polar < best.polar else best
        stalled = 0 if better else stalled + 1
        if best.polar <= lam * (1.0 + _CLOSED) or stalled == _STALLED:
            return best
        kept, merged = _merged(columns, sizes)
        new = more.take(np.flatnonzero(norms > lam * (1.0 + 0.1 * _CLOSED)))
        columns = kept.join(merged).join(new)


def _merged(columns: Columns, sizes: Floats) -> tuple[Columns, Columns]:
    """The columns in use, and one for all those of a signed cell."""
    kept = np.flatnonzero(sizes)
    used, a = columns.take(kept), sizes[kept]
    if not kept.size:
        return used, used
    keys = used.cell * 2 + (a < 0)
    directions, features, cells = [], [], []
    for key in np.unique(keys):
        share = np.where(keys == key, np.abs(a), 0.0)
        theta = used.directions @ share
        length = float(np.linalg.norm(theta))
        directions.append(theta / length)
        features.append(used.features @ share / length)
        cells.append(key // 2)
    merged = Columns(np.stack(directions, 1), np.stack(features, 1), np.asarray(cells))
    return used, merged


def nonnegative_lasso(columns: Floats, y: Floats, lam: float) -> Floats:
    """Minimises 1/2 ||Phi a - y||^2 + lam sum a over a >= 0, by one non-negative least squares.

    The residual r = y - Phi a is the nearest point to y of {r : Phi^T r <= lam}. A problem of least
    distance, min ||x|| over Phi^T (y - x) <= lam, is u >= 0 that brings (-Phi u, <h, u>) nearest to
    (0, 1), h = Phi^T y - lam: with t what is left of the 1, a = u / t.

    Args:
        columns: (n, k).
        y: (n,).
        lam: > 0.

    Returns:
        (k,).

    Reference: Lawson and Hanson, Solving Least Squares Problems (1974), Chapter 23.
    """
    system = np.vstack([-columns, (columns.T @ y - lam)[None]])
    goal = np.append(np.zeros(len(columns)), 1.0)
    u, _ = nonnegative_least_squares(system, goal)
    left = 1.0 - float(system[-1] @ u)
    a: Floats = u / left
    return a


class Polar(NamedTuple):
    """The least polar(v) under equations: v (n,), lower <= optimum <= upper, and the columns.

    `sizes` (k,) are signed with sum of magnitudes one; Phi sizes = A^T (the prices), b . prices =
    lower.
    """

    v: Floats
    lower: float
    upper: float
    columns: Columns
    sizes: Floats
    prices: Floats


def least_polar(
    columns: Columns, equations: Floats, b: Floats, cells: Cells | None = None
) -> Polar:
    """Minimises polar(v) = max |phi . v| over {v : equations v = b}, by linear programs.

    Args:
        columns: the dictionary, or the first columns where `cells` is given; they span R^n then.
        equations: (m, n).
        b: (m,).
        cells: where the neurons that are missing come from; None for a finite dictionary.

    Returns:
        `Polar`, with upper - lower at the rounding level of the linear programs.

    Raises:
        RuntimeError: HiGHS did not solve a linear program.
    """
    n = equations.shape[1]
    best_v, upper, lower, stalled = np.zeros(n), np.inf, -np.inf, 0
    while True:
        Phi = columns.features
        # Numbers around one: HiGHS drops entries below 1e-9 and refuses those above 1e15.
        heights = np.ldexp(1.0, exponents(Phi, axis=0)[0])
        unit = min(heights[np.any(Phi != 0, axis=0)].tolist(), default=1.0)
        shares = np.tile(unit / heights, 2)
        cuts = np.vstack([Phi.T, -Phi.T]) / np.tile(heights, 2)[:, None]
        found = linprog(
            np.append(np.zeros(n), 1.0),
            A_ub=np.hstack([cuts, -shares[:, None]]),
            b_ub=np.zeros(len(cuts)),
            A_eq=np.hstack([equations, np.zeros((len(b), 1))]),
            b_eq=b,
            bounds=[(None, None)] * (n + 1),
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if found.status != 0:
            raise RuntimeError(f"HiGHS did not solve a linear program: {found.message}")
        v = found.x[:n]
        weight = shares * np.maximum(-found.ineqlin.marginals, 0.0)
        weight /= np.sum(weight)
        k = Phi.shape[1]
        sizes = weight[:k] - weight[k:]
        prices, t = unit * np.atleast_1d(found.eqlin.marginals), unit * float(found.fun)
        if cells is None:
            return Polar(v, t, largest(columns, v), columns, sizes, prices)
        polar, more, norms = cells.polar(v)
        better = t > lower + _CLOSED * abs(t) or polar < upper * (1.0 - _CLOSED)
        stalled = 0 if better else stalled + 1
        lower = max(lower, t)
        if polar < upper:
            upper, best_v = polar, v
        if upper - lower <= _CLOSED * upper or stalled == _STALLED:
            return Polar(best_v, t, upper, columns, sizes, prices)
        merged = _merged(columns, sizes)[1]
        new = more.take(np.flatnonzero(norms > t * (1.0 + 0.1 * _CLOSED)))
        columns = columns.join(merged).join(new)
