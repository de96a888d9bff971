r"""From the optimum over some cells to a stationary network, one wall at a time.

An optimum over sampled cells need not be stationary for the training problem: a neuron theta of
sign s on a wall x_j . theta = 0 of its cell may want to go through it. The cell beyond has the
correlation

    q' = projection of s X^T D' r onto K_{D'},    D' = D with the bit of row j flipped.

theta is feasible there too, with correlation lam, so ||q'|| >= lam, and equality means that theta
is stationary in that cell as well: its multiplier rho_j is at most -s r_j (on the side D_j = 0).
Where ||q'|| > lam the block of D' lowers the objective, so its cell is added and the program solved
again. The objective falls strictly whenever a cell is added, so no set of cells comes twice, and
the search ends at a network that no single wall holds back; if the rows of every neuron's walls are
independent that is a directionally stationary one.

Reference: the conditions are those of every adjacent cell's block
(`jaxrelu.networks.stationarity`); taken one wall at a time they are 0 <= rho_j <= -s r_j.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.core.status import Status
from jaxrelu.geometry.host.bits import unit_columns
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.global_optimality.checks import check_search, one_lam
from jaxrelu.global_optimality.restricted_master import Master
from jaxrelu.networks.network import Network
from jaxrelu.programs.mapping import to_network
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.active_newton.solver import ActiveNewton

_INNER = 0.01
_ON_WALL = 1e-4
_PARALLEL = 1e-10


@dataclass(frozen=True)
class Crossed:
    """The end of a search through walls.

    Attributes:
        network: the network.
        program: the `ConvexProgram` over the final cells.
        solution: its `Solution`.
        objectives: one a round, the best until then; the last is that of `network`.
        status: ``Status.OPTIMAL``: no wall is left to cross. ``Status.MAX_STEPS``: rounds, time or
            places ran out. ``Status.STALLED``: the program over the cells could not be solved to
            the accuracy needed to tell.
    """

    network: Network
    program: ConvexProgram
    solution: Solution
    objectives: tuple[float, ...]
    status: Status


def cross_walls(
    program: ConvexProgram,
    lam: Any,
    *,
    rtol: Any = None,
    max_patterns: int = 256,
    max_rounds: int = 100,
    max_seconds: float = 60.0,
    init: Solution | None = None,
    solver: ActiveNewton | None = None,
) -> Crossed:
    r"""Turns the optimum over some cells into a network that no wall holds back.

    A neighbour cell D' of an active neuron of sign s is added while
    ||projection of s X^T D' r onto its cone|| > lam (1 + rtol).

    Args:
        program: a `ConvexProgram`, for example over the cells of a trained network
            (`from_network`).
        lam: scalar, > 0.
        rtol: relative excess over lam that counts; default that of `solve`.
        max_patterns: places for patterns.
        max_rounds: limit on rounds of adding cells.
        max_seconds: no round is begun after this time.
        init: a `Solution` of the program.
        solver: as in `solve_path`.

    Returns:
        `Crossed`; its objective is at most that of the program it was given.

    Raises:
        ValueError, TypeError: as `solve`; a program that is not a `ConvexProgram`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0], [-0.5, 0.8]], "float32")
        >>> y = np.asarray([1.0, -1.0, 2.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 1))
        >>> jr.cross_walls(program, 0.1, rtol=1e-3).status.name
        'OPTIMAL'

    Reference: `jaxrelu.global_optimality.wall_crossing`.
    """
    budget = max_patterns, max_rounds, max_seconds
    search = check_search(program, one_lam(program, lam), rtol, *budget, init, solver)
    strength, tolerance = search.lams[0], search.rtol
    start = time.monotonic()
    master = Master(program, search.max_patterns, tolerance, solver, init)
    objectives: list[float] = []
    best: tuple[ConvexProgram, Solution] | None = None
    while True:
        pool, solution = master.solve(strength, _INNER * tolerance)
        here = pool.compact(solution)
        value = float(solution.certificate.upper)
        if best is None or value <= objectives[-1]:
            best = here
        objectives.append(min([value, *objectives[-1:]]))
        beyond = _beyond_walls(*here, float(strength) * (1 + tolerance))
        late = time.monotonic() - start >= search.max_seconds
        late = late or len(objectives) >= search.max_rounds
        if len(beyond) == 0 or late or pool.add(beyond, search.max_patterns) == 0:
            break
    network = to_network(*best).compact()
    assert isinstance(network, Network)
    # The walls are those of the last answer, which must be precise and the best one.
    through = len(beyond) == 0 and best is here and master.is_precise
    status = Status.OPTIMAL if through else Status.MAX_STEPS if len(beyond) else Status.STALLED
    return Crossed(network, *best, tuple(objectives), status)


def _beyond_walls(program: ConvexProgram, solution: Solution, least: float) -> Floats:
    """Directions (m, d) in neighbour cells whose correlation is above `least`, best first."""
    X = np.asarray(program.X, np.float64)
    unit = unit_columns(X.T).T
    masks = np.asarray(program.patterns.masks).astype(np.bool_)
    weights = np.asarray(solution.weights, np.float64)
    residual = np.asarray(solution.residual, np.float64)
    values: list[float] = []
    directions: list[Floats] = []
    for side, pattern in np.argwhere(np.any(weights != 0, axis=2)):
        theta = weights[side, pattern] / np.linalg.norm(weights[side, pattern])
        pull = residual if side == 0 else -residual
        heights = unit @ theta
        for line in _lines(unit, np.flatnonzero((np.abs(heights) <= _ON_WALL) & X.any(axis=1))):
            mask = masks[:, pattern].copy()
            mask[line] = ~mask[line]
            q = _correlation(unit, mask, X.T @ (mask * pull))
            direction = q / max(float(np.linalg.norm(q)), 1e-300)
            # Its value, not the length of q: a projection that is off is no reason to cross.
            value = float(pull @ np.maximum(X @ direction, 0.0))
            if value > least:
                values.append(value)
                directions.append(direction)
    order = np.argsort(-np.asarray(values), kind="stable")
    return np.asarray(directions).reshape(len(values), X.shape[1])[order]


def _lines(unit: Floats, walls: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Rows of one line have one wall: they are crossed together."""
    lines = []
    while walls.size:
        cosine = unit[walls] @ unit[walls[0]]
        together = np.abs(np.abs(cosine) - 1.0) <= _PARALLEL
        lines.append(walls[together])
        walls = walls[~together]
    return lines


def _correlation(unit: Floats, mask: Bools, c: Floats) -> Floats:
    """The projection of c onto the cone of a pattern."""
    K = np.where(mask, 1.0, -1.0)[:, None] * unit
    K = K[np.any(K != 0, axis=1)]
    multipliers, _ = nonnegative_least_squares(K.T, -c)
    found: Floats = c + K.T @ multipliers
    return found
