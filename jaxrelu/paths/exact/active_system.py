r"""An optimum as smooth equations: which neurons it has and on which walls, and when that holds.

Neuron k of block (sign s_k, pattern D_k) lies on walls J_k. With N_k an orthonormal basis of the
null space of X_J, A_k = s_k D_k X N_k, theta_k = c_k N_k v_k and ||v_k|| = 1, an optimum solves

    A_k^T g + lam v_k = 0  for every k,    f = sum_k c_k A_k v_k,    g = gradient of the loss at f,

in c and v. Unlike the same in theta these equations are regular where a neuron is born or dies
(c_k = 0): they can be followed through it. Their solution is optimal if and only if

    sizes        c_k >= 0
    slack        rows off the walls are on the side of their pattern
    multipliers  in every cell of the program that holds neuron k, lam u_k - s X^T D r = K_J^T rho
                 has a solution rho >= 0
    excess       ||q_b|| <= lam for every other block b

Where features are independent the equations are regular; on real data the walls of a neuron are
many and dependent, so that rho is not unique and the third condition is a linear program.

Reference: the active system of Bonnans and Shapiro (2000), Section 4, for a group penalty with
cones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, LinAlgWarning, solve
from scipy.optimize import linprog

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.core.compilation import compiled
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.geometry.host.projection import block_correlation, cone_rows
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.losses.base import same_gradient, total_curvature, total_gradient
from jaxrelu.programs.penalties import block_factors
from jaxrelu.programs.program import Program, sample_weights

_RANK = 1e-7
_NEWTON_STEPS = 30
_CONVERGED = 1e-12
_ROUNDING = 1e-9
_LARGEST_TURN = 0.5


class Neuron(NamedTuple):
    """One neuron of a structure: its block, and the samples on whose walls it lies (n,)."""

    block: int
    walls: Bools


class ActivePoint(NamedTuple):
    """A solution of the equations: sizes (k,), unit directions (k, d), fit and residual (n,)."""

    lam: float
    sizes: Floats
    directions: Floats
    fit: Floats
    residual: Floats


class Conditions(NamedTuple):
    """How far each condition of optimality is from failing, relative; negative where it fails.

    Attributes:
        sizes: (k,), of the sum of all sizes.
        slack: (k, n), cosines with the rows; infinite on the walls.
        multipliers: one a (neuron, block of a cell that holds it), in units of lam.
        blocks: (B,), 1 - ||q_b|| / lam; infinite for the cells of neurons.
    """

    sizes: Floats
    slack: Floats
    multipliers: Floats
    blocks: Floats

    @property
    def worst(self) -> float:
        """The smallest of all."""
        return min(float(np.min(part, initial=np.inf)) for part in self)


@dataclass(frozen=True, eq=False)
class HostProgram:
    """The data of a program on the host, block by block.

    Attributes:
        X: (n, d).
        unit: (n, d), rows of length one; zero rows stay zero.
        patterns: (B, n) bool.
        factors: (B,), signs over weights; the weights of blocks are theta' of
            `jaxrelu.programs.penalties`.
        has_cones: False for a gated program.
        derivatives: fit -> (gradient, curvature) of the loss, (n,) each.
        same_gradient: fit -> the ends of the intervals of fits with that gradient, (n,) each.
        seen: residual / lam, (B, n), at which `lengths` was computed.
        lengths: (B,), ||q_b|| / lam there; `shortfalls` keeps both up to date.
    """

    X: Floats
    unit: Floats
    patterns: Bools
    factors: Floats
    has_cones: bool
    derivatives: Callable[[Floats], tuple[Floats, Floats]]
    same_gradient: Callable[[Floats], tuple[Floats, Floats]]
    seen: Floats
    lengths: Floats

    @cached_property
    def spread(self) -> Floats:
        """(B,), the largest singular value of D_b X, over the weight."""
        masks, block = np.unique(self.patterns, axis=0, return_inverse=True)
        sizes = [np.linalg.norm(self.X[mask], 2) if mask.any() else 0.0 for mask in masks]
        spread: Floats = np.array(sizes)[block.reshape(-1)] * np.abs(self.factors)
        return spread

    def correlation(self, block: int, residual: Floats) -> Floats:
        """The correlation q_b (d,) of one block, exact to rounding."""
        mask, pull = self.patterns[block], self.factors[block] * residual
        if self.has_cones:
            return block_correlation(self.X, self.unit, mask, pull)
        c: Floats = self.X.T @ (mask * pull)
        return c

    def largest(self, residual: Floats) -> float:
        """The length of the longest correlation."""
        size = [np.linalg.norm(self.correlation(b, residual)) for b in range(len(self.factors))]
        return float(np.max(size))

    def shortfalls(self, blocks: NDArray[np.int64], dual: Floats) -> Floats:
        """1 - ||q_b|| / lam at residual / lam, or less: exact where it is not plainly positive.

        Projections do not expand: ||q_b|| moves by at most `spread` times the move of the residual.
        """
        moved = np.linalg.norm(self.seen[blocks] - dual[None], axis=1)
        bound = self.lengths[blocks] + self.spread[blocks] * moved
        for block in blocks[~(bound <= 1.0 - 1e-6)]:
            self.lengths[block] = np.linalg.norm(self.correlation(int(block), dual))
            self.seen[block] = dual
        moved = np.linalg.norm(self.seen[blocks] - dual[None], axis=1)
        shortfall: Floats = 1.0 - (self.lengths[blocks] + self.spread[blocks] * moved)
        return shortfall


@compiled
def _derivatives(loss: Any, fit: Any, y: Any, weight: Any) -> Any:
    """Gradient and curvature of the loss."""
    return (
        total_gradient(loss, fit, y, weight),
        total_curvature(loss, fit, y, weight),
    )


def host_program(program: Program) -> HostProgram:
    """The data of a concrete program in float64, with nothing known about its correlations yet."""
    X = np.asarray(program.X, np.float64)
    masks = np.asarray(program.patterns.masks) > 0
    patterns = masks.T[np.asarray(block_patterns(program.block_shape))]
    loss, y, weight = program.loss, jnp.asarray(program.y), sample_weights(program)

    def derivatives(fit: Floats) -> tuple[Floats, Floats]:
        gradient, curvature = _derivatives(loss, fit, y, weight)
        return np.asarray(gradient), np.asarray(curvature)

    def intervals(fit: Floats) -> tuple[Floats, Floats]:
        low, high = same_gradient(loss, jnp.asarray(fit), y, weight)
        return np.asarray(low), np.asarray(high)

    blocks = len(patterns)
    return HostProgram(
        X,
        unit_rows(X)[0],
        patterns,
        np.asarray(block_factors(program), np.float64),
        program.has_cones,
        derivatives,
        intervals,
        np.zeros((blocks, len(X))),
        np.full(blocks, np.inf),
    )


def empty(host: HostProgram, lam: float) -> ActivePoint:
    """The network without neurons."""
    n, d = host.X.shape
    fit = np.zeros(n)
    return ActivePoint(lam, np.zeros(0), np.zeros((0, d)), fit, -host.derivatives(fit)[0])


def null_space(rows: Floats) -> Floats:
    """Orthonormal columns that span {x : rows x = 0}, rank-revealing."""
    if not len(rows):
        return np.eye(rows.shape[1])
    _, sigma, right = np.linalg.svd(rows, full_matrices=True)
    null: Floats = right[int(np.sum(sigma > _RANK * sigma[0])) :].T
    return null


def moves(host: HostProgram, neurons: list[Neuron]) -> list[tuple[Floats, Floats]]:
    """For every neuron the basis N_k of the moves that its walls leave, and their features A_k."""
    bases = [null_space(host.unit[neuron.walls]) for neuron in neurons]
    return [
        (N, host.factors[k.block] * host.patterns[k.block][:, None] * (host.X @ N))
        for k, N in zip(neurons, bases, strict=True)
    ]


def solve_equations(
    host: HostProgram, neurons: list[Neuron], near: ActivePoint, lam: float
) -> ActivePoint | None:
    """The solution of the equations near a point, by Newton's method; None if there is none.

    Args:
        host: the data.
        neurons: the structure, as many as the point has.
        near: a solution at another lam, say.
        lam: where to solve.

    Returns:
        The `ActivePoint`; None where the system is singular (dependent features) or too far.
    """
    if not neurons:
        return empty(host, lam)
    bases, columns = zip(*moves(host, neurons), strict=True)
    if any(N.shape[1] == 0 for N in bases):
        return None
    v = [_unit(N.T @ u) for N, u in zip(bases, near.directions, strict=True)]
    c = near.sizes.copy()
    dims = [N.shape[1] for N in bases]
    start = np.concatenate([[0], np.cumsum(dims)])
    sizes = np.isin(np.arange(start[-1]), start[:-1])
    last = np.inf
    for _ in range(_NEWTON_STEPS):
        f = np.sum([ck * (A @ vk) for ck, A, vk in zip(c, columns, v, strict=True)], axis=0)
        g, h = host.derivatives(f)
        error = [A.T @ g + lam * vk for A, vk in zip(columns, v, strict=True)]
        size = max(float(np.max(np.abs(e))) for e in error) / lam
        if size <= _CONVERGED or (size <= _ROUNDING and size >= 0.5 * last):
            u = np.stack([N @ vk for N, vk in zip(bases, v, strict=True)])
            return ActivePoint(lam, c, u, f, -g)
        last = size
        frames = [_frame(vk) for vk in v]
        R = np.hstack([A @ Q for A, Q in zip(columns, frames, strict=True)])
        scale = np.where(sizes, 1.0, np.repeat(c, dims))
        system = (R.T @ (h[:, None] * R)) * scale + np.diag(np.where(sizes, 0.0, lam))
        rhs = -np.concatenate([Q.T @ e for Q, e in zip(frames, error, strict=True)])
        step = _solved(system, rhs)
        if step is None:
            return None
        turn = step * ~sizes
        if np.max(np.abs(turn), initial=0.0) > _LARGEST_TURN:
            return None
        c = c + step[start[:-1]]
        v = [
            _unit(vk + Q @ turn[a : a + len(vk)])
            for vk, Q, a in zip(v, frames, start[:-1], strict=True)
        ]
    return None


def families(host: HostProgram, neurons: list[Neuron]) -> list[tuple[int, int]]:
    """(neuron, block) for every block whose closed cone holds a neuron of the structure."""
    pairs = []
    for k, neuron in enumerate(neurons):
        own = host.patterns[neuron.block]
        if host.has_cones:
            matter = ~neuron.walls & np.any(host.unit != 0, axis=1)
            same = np.all(host.patterns[:, matter] == own[matter], axis=1)
            same &= host.factors == host.factors[neuron.block]
        else:
            same = np.arange(len(host.factors)) == neuron.block
        pairs += [(k, int(block)) for block in np.flatnonzero(same)]
    return pairs


def conditions(host: HostProgram, neurons: list[Neuron], point: ActivePoint) -> Conditions:
    """The four conditions of optimality at a solution of the equations."""
    k, lam = len(neurons), point.lam
    total = float(np.sum(np.abs(point.sizes)))
    sizes = point.sizes / (total if total > 0 else 1.0)
    slack = np.full((k, len(host.X)), np.inf)
    pairs = families(host, neurons)
    multipliers: Floats = np.full(len(pairs), np.inf)
    if host.has_cones and k:
        side = np.where(host.patterns[[neuron.block for neuron in neurons]], 1.0, -1.0)
        free = ~np.stack([neuron.walls for neuron in neurons])
        free &= np.any(host.unit != 0, axis=1)[None]
        slack = np.where(free, side * (point.directions @ host.unit.T), np.inf)
        for place, (which, block) in enumerate(pairs):
            multipliers[place] = multiplier_margin(*wall_system(host, neurons, point, which, block))
    blocks = np.full(len(host.factors), np.inf)
    others = np.setdiff1d(np.arange(len(blocks)), [block for _, block in pairs])
    blocks[others] = host.shortfalls(others, point.residual / lam)
    return Conditions(sizes, slack, multipliers, blocks)


def wall_system(
    host: HostProgram, neurons: list[Neuron], point: ActivePoint, which: int, block: int
) -> tuple[Floats, Floats]:
    """Unit rows K_J of the walls of a neuron, in a cell that holds it, and u - s X^T D r / lam."""
    mask, walls = host.patterns[block], neurons[which].walls
    rows = cone_rows(mask[walls], host.unit[walls])
    pull = host.factors[block] * (host.X.T @ (mask * point.residual))
    return rows, point.directions[which] - pull / point.lam


def multiplier_margin(rows: Floats, target: Floats) -> float:
    """The largest t with rows^T rho = target, rho >= t; infinite without rows.

    The target is taken to be in the span of the rows.
    """
    if not len(rows):
        return np.inf
    start, *_ = np.linalg.lstsq(rows.T, target, rcond=_RANK)
    null = null_space(rows.T)
    m = null.shape[1]
    if m == 0:
        return float(np.min(start))
    # Bounded, so that a solution exists.
    found = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=np.hstack([-null, np.ones((len(start), 1))]),
        b_ub=start,
        bounds=[(None, None)] * m + [(None, 1.0)],
        method="highs",
    )
    return float(found.x[-1]) if found.x is not None else -np.inf


def largest_multipliers(rows: Floats, target: Floats) -> Floats:
    """The largest value that each rho_j can have with rows^T rho = target, rho >= 0.

    The target is taken to be in the span of the rows, and such a rho to exist.
    """
    start = np.asarray(np.linalg.lstsq(rows.T, target, rcond=_RANK)[0], np.float64)
    null = null_space(rows.T)
    if null.shape[1] == 0:
        return start
    largest = np.zeros(len(rows))
    for j, row in enumerate(null):
        found = linprog(
            -row, A_ub=-null, b_ub=start + _ROUNDING, bounds=(None, None), method="highs"
        )
        largest[j] = np.inf if found.x is None else start[j] + row @ found.x
    return largest


def _unit(x: Floats) -> Floats:
    u: Floats = x / np.linalg.norm(x)
    return u


def _frame(v: Floats) -> Floats:
    """An orthogonal matrix whose first column is the unit vector v."""
    Q, R = np.linalg.qr(np.column_stack([v, np.eye(len(v))[:, : len(v)]]))
    frame: Floats = Q[:, : len(v)] * np.sign(R[0, 0])
    return frame


def _solved(system: Floats, rhs: Floats) -> Floats | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LinAlgWarning)
        try:
            step: Floats = solve(system, rhs, check_finite=False)
        except (LinAlgError, LinAlgWarning, ValueError):
            return None
    return step if np.all(np.isfinite(step)) else None
