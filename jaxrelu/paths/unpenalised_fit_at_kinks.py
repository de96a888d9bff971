r"""The best fit of what is not penalised under a loss of two slopes, which is a linear program.

With A the features of free blocks without a cone (a skip connection, a constant, gates), and B, K
those of free blocks in cones and the walls of these,

    minimise  sum_i c_i (high_i p_i - low_i m_i)   over   A x + B u = y + p - m,   K u >= 0,
    p, m >= 0.

Its dual vectors are the residuals that may belong to zero weights: all r between the slopes of the
loss at the best fit with

    A^T r = 0,     B^T r + K^T mu = 0 for some mu >= 0 of the walls that u lies on,

whichever best fit that is. For A stand orthonormal columns of the same span.

Reference: Koenker and Bassett (Econometrica, 1978) for least absolute deviations as such a program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import linprog

from jaxrelu.core.aliases import Floats
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.losses.kinks import TwoSlopes
from jaxrelu.programs.extension import extended
from jaxrelu.programs.penalties import block_weights, seen
from jaxrelu.programs.program import Program, block_signs, sample_weights
from jaxrelu.programs.skip import has_cone

# Singular values below this share of the largest are of columns that depend on others.
_RANK = 1e-10
# A fit that is so near its target, against the largest error, is at the kink.
_AT_KINK = 1e-9


class Equalities(NamedTuple):
    """What a residual (n,) of zero weights fulfils: of_residual r + of_walls mu = 0, mu >= 0.

    Attributes:
        of_residual: (k, n).
        of_walls: (k, walls), of those that the best fit lies on.
    """

    of_residual: Floats
    of_walls: Floats

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
        )
        if found.x is None:
            return given * scale, float("inf")
        r, mu = given + found.x[:n] - found.x[n : 2 * n], found.x[2 * n :]
        # What the tolerances of the program leave goes to those that have room on both sides.
        span = np.where(high > low, high - low, 1.0)
        moves = np.concatenate([np.minimum(r - low, high - r) > 1e-6 * span, mu > 1e-6])
        both = np.hstack([self.of_residual, self.of_walls])
        away = 0.0
        for _ in range(2):
            left = self.of_residual @ r + self.of_walls @ mu
            step, _, rank, _ = np.linalg.lstsq(both[:, moves], -left, rcond=1e-12)
            if rank < k and np.linalg.norm(both[:, moves] @ step + left) > 1e-14:
                return r * scale, float("inf")
            change = np.zeros(n + walls)
            change[moves] = step
            away = float(np.linalg.norm(change))
            r = np.clip(r + change[:n], low, high)
            mu = np.maximum(mu + change[n:], 0.0)
        return r * scale, (2.0 * away + 1e-15 * np.sqrt(n)) * scale


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
    whole, loss = extended(program), program.loss
    assert isinstance(loss, TwoSlopes)
    y = np.asarray(program.y, np.float64)
    c = np.asarray(sample_weights(program), np.float64)
    low, high = (np.asarray(end, np.float64) for end in loss.slopes(jnp.asarray(program.y)))
    given = block_weights(whole)
    assert given is not None
    free = np.flatnonzero(np.asarray(given) == 0)
    coned = np.asarray(has_cone(whole))[free]
    blocks = [_features(whole, int(b)) for b in free]
    n, d = whole.X.shape
    opened = np.hstack(
        [np.zeros((n, 0)), *(f for f, c in zip(blocks, coned, strict=True) if not c)]
    )
    of_cones = np.hstack([np.zeros((n, 0)), *(f for f, c in zip(blocks, coned, strict=True) if c)])
    walls = [_walls(whole, int(b)) for b in free[coned]]
    left, sizes, _ = np.linalg.svd(opened, full_matrices=False)
    rank = int(np.sum(sizes > _RANK * np.max(sizes, initial=0.0)))
    left = left[:, :rank]

    # What the open columns fit is left out: targets may be far away.
    largest = float(np.max(np.abs(y), initial=0.0))
    y = y - left @ (left.T @ y)
    scale = float(np.max(np.abs(y), initial=0.0)) or 1.0
    columns = np.hstack([left, of_cones, -np.eye(n), np.eye(n)])
    outer = np.zeros((n * len(walls), columns.shape[1]))
    for k, wall in enumerate(walls):
        outer[k * n : (k + 1) * n, rank + k * d : rank + (k + 1) * d] = -wall
    moving = rank + of_cones.shape[1]
    costs = np.concatenate([c * high, -c * low])
    found = linprog(
        np.concatenate([np.zeros(moving), costs / (np.max(costs, initial=0.0) or 1.0)]),
        A_ub=outer if len(walls) else None,
        b_ub=np.zeros(len(outer)) if len(walls) else None,
        A_eq=columns,
        b_eq=y / scale,
        bounds=[(None, None)] * moving + [(0.0, None)] * (2 * n),
        method="highs",
    )
    if found.x is None:
        return None
    error = scale * (found.x[moving : moving + n] - found.x[moving + n :])
    near = max(_AT_KINK * max(scale, float(np.max(np.abs(error)))), 1e-3 * _AT_KINK * largest)
    above, below = np.where(error < -near, low, high), np.where(error > near, high, low)

    on_walls = []
    for wall, u in zip(walls, found.x[rank:moving].reshape(-1, d), strict=True):
        on_walls.append(wall[wall @ u <= _AT_KINK * max(1.0, float(np.linalg.norm(u)))].T)
    of_walls = block_diag(np.zeros((rank, 0)), *on_walls)
    equalities = Equalities(np.vstack([left.T, of_cones.T]), of_walls)
    return KinkedFit(above, below, equalities)


def _features(program: Program, block: int) -> Floats:
    """The columns (n, d) that the weights of a block stand before."""
    mask, X, pattern = _masked(program, block)
    shown: Any = seen(program, jnp.asarray([pattern]), jnp.ones((1, X.shape[1]), program.X.dtype))
    sign = float(np.asarray(block_signs(program))[block])
    return sign * mask[:, None] * X * np.asarray(shown, np.float64)


def _walls(program: Program, block: int) -> Floats:
    """The rows (n, d) of a block's cone, of length one."""
    mask, X, _ = _masked(program, block)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return (2.0 * mask[:, None] - 1.0) * X / np.where(length > 0, length, 1.0)


def _masked(program: Program, block: int) -> tuple[Floats, Floats, int]:
    pattern = int(np.asarray(block_patterns(program.block_shape))[block])
    mask = np.asarray(program.patterns.masks[:, pattern], np.float64)
    return mask, np.asarray(program.X, np.float64), pattern
