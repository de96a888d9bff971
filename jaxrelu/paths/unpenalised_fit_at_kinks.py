r"""The best fit of what is not penalised under a loss of two slopes, which is a linear program.

With A the features of free blocks without a cone (a skip connection, a constant, gates), and B, K
those of free blocks in cones and the walls of these,

    minimise  sum_i c_i (high_i p_i - low_i m_i)   over   A x + B u = y + p - m,   K u >= 0,
    p, m >= 0.

Its dual vectors are the residuals that may belong to zero weights: all r between the slopes of the
loss at the best fit with

    A^T r = 0,     B^T r + K^T mu = 0 for some mu >= 0 of the walls that u lies on,

whichever best fit that is. For A stand orthonormal columns of the same span, for the features ones
of length one.

Reference: Koenker and Bassett (Econometrica, 1978) for least absolute deviations as such a program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.linalg import block_diag
from scipy.optimize import linprog

from jaxrelu.core.aliases import Floats
from jaxrelu.core.numerics import eps
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.losses.kinks import TwoSlopes
from jaxrelu.programs.extension import extended
from jaxrelu.programs.penalties import block_weights, seen
from jaxrelu.programs.program import Program, block_signs, sample_weights
from jaxrelu.programs.skip import has_cone

# Of the linear programs.
TOLERANCES = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
# Singular values below this share of the largest are of columns that depend on others.
_RANK = 1e-10
# A fit that is so near its target, against what is usual, is at the kink.
_AT_KINK = 1e-9


class Equalities(NamedTuple):
    """What a residual (n,) of zero weights fulfils: of_residual r + of_walls mu = 0, mu >= 0.

    Attributes:
        of_residual: (k, n).
        of_walls: (k, walls), of those that the best fit lies on.
        blur: how far the rows may be from those that are meant, as a matrix.
    """

    of_residual: Floats
    of_walls: Floats
    blur: float = 0.0

    def nearest(self, given: Floats, low: Floats, high: Floats) -> tuple[Floats, float]:
        """The residual within a box that is nearest to another (n,), in the sum of changes.

        Returns:
            That, and how far at most one is that fulfils the equalities exactly; infinite where
            that is not known.
        """
        n, walls, k = len(given), self.of_walls.shape[1], len(self.of_residual)
        if k == 0:
            return np.clip(given, low, high), 0.0
        scale = max(float(np.max(np.abs([low, high]), initial=0.0)), 1e-300)
        given, low, high = (np.asarray(v, np.float64) / scale for v in (given, low, high))
        given = np.clip(given, low, high)
        system = np.hstack([self.of_residual, -self.of_residual, self.of_walls])
        room = [(0.0, top) for top in (*(high - given), *(given - low))]
        found = linprog(
            np.concatenate([np.ones(2 * n), np.zeros(walls)]),
            A_eq=system,
            b_eq=-self.of_residual @ given,
            bounds=room + [(0.0, None)] * walls,
            method="highs",
            options=TOLERANCES,
        )
        if found.status != 0:
            return given * scale, float("inf")
        r, mu = given + found.x[:n] - found.x[n : 2 * n], found.x[2 * n :]
        # What the tolerances of the program leave goes to those that have room on both sides.
        span = np.where(high > low, high - low, 1.0)
        moves = np.concatenate([np.minimum(r - low, high - r) > 1e-6 * span, mu > 1e-6])
        both = np.hstack([self.of_residual, self.of_walls])
        sizes = np.linalg.svd(both, compute_uv=False)
        smallest = float(np.min(sizes[sizes > _RANK * sizes[0]], initial=sizes[0]))
        size = np.abs(self.of_residual) @ np.abs(r) + np.abs(self.of_walls) @ mu
        rounding = (n + walls) * eps(r.dtype) * float(np.linalg.norm(size))
        away = 0.0
        for _ in range(3):
            left = self.of_residual @ r + self.of_walls @ mu
            step = np.linalg.lstsq(both[:, moves], -left, rcond=_RANK)[0]
            change = np.zeros(n + walls)
            change[moves] = step
            moved, left = r + change[:n], left + both[:, moves] @ step
            clipped = np.any((moved < low) | (moved > high)) or np.any(mu + change[n:] < 0)
            away = float(np.linalg.norm(change)) + float(np.linalg.norm(left)) / smallest
            r, mu = np.clip(moved, low, high), np.maximum(mu + change[n:], 0.0)
        if clipped or np.linalg.norm(left) > rounding:
            return r * scale, float("inf")
        away = 2.0 * away + rounding / smallest + self.blur * float(np.linalg.norm(r))
        return r * scale, away * scale


class KinkedFit(NamedTuple):
    """The best fit of the free blocks, all others zero.

    Attributes:
        above, below: (n,), slopes of the loss there, of larger and of smaller fits.
        equalities: of the residuals.
    """

    above: Floats
    below: Floats
    equalities: Equalities


def kinked_free_fit(program: Program) -> KinkedFit | None:
    """`KinkedFit` of a program with a loss of two slopes, on the host; None without an answer."""
    loss, free = program.loss, _free_columns(extended(program))
    assert isinstance(loss, TwoSlopes)
    c = np.asarray(sample_weights(program), np.float64)
    # A sample of weight zero may have no target.
    y = np.where(c > 0, np.asarray(program.y, np.float64), 0.0)
    low, high = (
        np.asarray(end, np.float64) for end in loss.slopes(jnp.asarray(y, program.y.dtype))
    )
    # What the open columns fit is left out: targets may be far away.
    rounding = 32.0 * eps(y.dtype) * float(np.max(np.abs(y), initial=0.0))
    y = np.where(c > 0, y - free.opened @ (free.opened.T @ y), 0.0)
    usual = np.abs(y[np.abs(y) > rounding])
    scale = float(np.median(usual)) if len(usual) else 1.0
    found = _least_loss(free, y / scale, c * low, c * high)
    if found is None:
        return None
    weights, error = found
    near = max(_AT_KINK * scale, rounding)
    above = np.where(scale * error < -near, low, high)
    below = np.where(scale * error > near, high, low)
    return KinkedFit(above, below, free.equalities(weights))


class _FreeColumns(NamedTuple):
    """The features of free blocks, of columns of X of length one.

    Attributes:
        opened: (n, rank), an orthonormal basis of those without a cone.
        of_cones: (n, k d), those of k blocks in cones.
        walls: of these, (n, d) each.
        blur: how far the span of `opened` may be from the one that is meant.
    """

    opened: Floats
    of_cones: Floats
    walls: list[Floats]
    blur: float

    def equalities(self, weights: Floats) -> Equalities:
        """Those of residuals where the blocks in cones (k, d) have their best weights."""
        on_walls = [
            wall[wall @ u <= _AT_KINK * float(np.linalg.norm(u))].T
            for wall, u in zip(self.walls, weights, strict=True)
        ]
        of_walls = block_diag(np.zeros((self.opened.shape[1], 0)), *on_walls)
        return Equalities(np.vstack([self.opened.T, self.of_cones.T]), of_walls, self.blur)


def _free_columns(whole: Program) -> _FreeColumns:
    given = block_weights(whole)
    assert given is not None
    free = np.flatnonzero(np.asarray(given) == 0)
    coned = np.asarray(has_cone(whole))[free]
    X = np.asarray(whole.X, np.float64)
    (n, d), size = X.shape, np.linalg.norm(X, axis=0)
    # Columns of length one: what the weights are is not asked for.
    X = X / np.where(size > 0, size, 1.0)
    opened, of_cones = (
        np.hstack([np.zeros((n, 0)), *(_features(whole, X, int(b)) for b in some)])
        for some in (free[~coned], free[coned])
    )
    walls = [_walls(whole, X, int(b)) for b in free[coned]]
    left, sizes, _ = np.linalg.svd(opened, full_matrices=False)
    rank = int(np.sum(sizes > _RANK * np.max(sizes, initial=0.0)))
    blur = 8.0 * d * eps(X.dtype) * (sizes[0] / sizes[rank - 1] if rank else 0.0)
    return _FreeColumns(left[:, :rank], of_cones, walls, float(blur))


def _least_loss(
    free: _FreeColumns, y: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats] | None:
    """The linear program: the weights (k, d) of blocks in cones, and fit minus target.

    Args:
        free: the features.
        y: (n,), in units of what is usual.
        low: (n,), slopes of the weighted loss of smaller fits.
        high: (n,), of larger ones.
    """
    (n, rank), walls = free.opened.shape, free.walls
    moving = rank + free.of_cones.shape[1]
    columns = sparse.hstack([
        sparse.csr_array(np.hstack([free.opened, free.of_cones])),
        -sparse.eye_array(n), sparse.eye_array(n),
    ])  # fmt: skip
    confined: dict[str, Any] = {}
    if walls:
        outer = sparse.csr_array(np.hstack([np.zeros((n * len(walls), rank)), -block_diag(*walls)]))
        slack = sparse.csr_array((n * len(walls), 2 * n))
        confined = {"A_ub": sparse.hstack([outer, slack]), "b_ub": np.zeros(n * len(walls))}
    costs = np.concatenate([high, -low])
    found = linprog(
        np.concatenate([np.zeros(moving), costs / (np.max(costs, initial=0.0) or 1.0)]),
        A_eq=columns,
        b_eq=y,
        bounds=[(None, None)] * moving + [(0.0, None)] * (2 * n),
        method="highs",
        options=TOLERANCES,
        **confined,
    )
    if found.status != 0:
        return None
    error = found.x[moving : moving + n] - found.x[moving + n :]
    return found.x[rank:moving].reshape(-1, walls[0].shape[1] if walls else 1), error


def _features(program: Program, X: Floats, block: int) -> Floats:
    """The columns (n, d) that the weights of a block stand before, of features X (n, d)."""
    mask, pattern = _mask(program, block)
    shown: Any = seen(program, jnp.asarray([pattern]), jnp.ones((1, X.shape[1]), program.X.dtype))
    sign = float(np.asarray(block_signs(program))[block])
    return sign * mask[:, None] * X * np.asarray(shown, np.float64)


def _walls(program: Program, X: Floats, block: int) -> Floats:
    """The rows (n, d) of a block's cone, of length one."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return (2.0 * _mask(program, block)[0][:, None] - 1.0) * X / np.where(length > 0, length, 1.0)


def _mask(program: Program, block: int) -> tuple[Floats, int]:
    pattern = int(np.asarray(block_patterns(program.block_shape))[block])
    return np.asarray(program.patterns.masks[:, pattern], np.float64), pattern
