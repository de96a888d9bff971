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

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Limit, Meter
from jaxrelu.core.numerics import eps
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.projection import block_correlation
from jaxrelu.geometry.host.scaling import times_power, unit_rows
from jaxrelu.geometry.host.walls import NEARBY, walls_of
from jaxrelu.global_optimality.checks import Budget, check_search, one_lam, status_out_of_units
from jaxrelu.global_optimality.restricted_master import RestrictedMaster
from jaxrelu.networks.network import Network
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.mapping import to_network
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.programs.solution import (
    Solution,
    Solved,
    solution_in_units,
    solution_out_of_units,
)
from jaxrelu.programs.units import in_units, into_units
from jaxrelu.solvers.active_newton.solver import ActiveNewton

# How precisely the program is solved, in units of the excess that counts; and each finer try.
_INNER = 0.01
_FINER = 0.01
_PARALLEL = 1e-10
_PROJECTION = 5e7  # operations that one is worth


@dataclass(frozen=True, eq=False)
class Crossed(Solved):
    """The end of a search through walls.

    Attributes:
        network: the network.
        program: the `ConvexProgram` over the final cells.
        solution: its `Solution`; `certificate`, with `lower`, `upper` and `gap`, `lam`, `fit` and
            `residual` are its own.
        objectives: one a round, the best until then; the last is that of `network`.
        status: ``Status.OPTIMAL``: no wall is left to cross. ``Status.MAX_STEPS``: a budget ran
            out. ``Status.STALLED``: the program over the cells could not be solved to the accuracy
            needed to tell.
        ended_by: which budget ended it, `Limit.NONE` where none did.
    """

    network: Network
    program: ConvexProgram
    solution: Solution
    objectives: tuple[float, ...]
    status: Status
    ended_by: Limit

    @property
    def certificate(self) -> Certificate:
        """That of the solution: about the final cells alone."""
        return self.solution.certificate


@on_host()
def cross_walls(
    program: ConvexProgram,
    lam: Any,
    *,
    rtol: Any = None,
    max_patterns: int = 256,
    max_rounds: int = 100,
    max_work: float | None = None,
    max_seconds: float | None = None,
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
        max_work: limit on work, as in `refine`; no round is begun after it.
        max_seconds: no round is begun after this time; no limit by default.
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
    budget, given = Budget(max_patterns, max_rounds, max_work, max_seconds), one_lam(program, lam)
    strengths, tolerance = check_search(program, given, rtol, budget, init, solver)
    whole, units = in_units(program)
    strength, meter = into_units(strengths[0], units.lam), budget.meter()
    start = None if init is None else solution_in_units(init, units)
    master, ended_by = (
        RestrictedMaster(whole, budget.patterns, tolerance, solver, start),
        Limit.NONE,
    )
    objectives: list[float] = []
    best: tuple[ConvexProgram, Solution] | None = None
    inner, finest = _INNER * tolerance, 50 * eps(program.X.dtype)
    while True:
        pool, solution = master.solve(strength, inner, meter)
        here = pool.compact(solution)
        value = float(solution.certificate.upper)
        if best is None or value <= objectives[-1]:
            best = here
        objectives.append(min([float(np.nan_to_num(value, nan=np.inf)), *objectives[-1:]]))
        beyond = _beyond_walls(*here, float(strength) * (1 + tolerance), meter)
        if len(beyond) == 0:
            break
        if len(objectives) >= budget.rounds:
            ended_by = Limit.ROUNDS
        elif not meter.allows():
            ended_by = meter.refused
        elif pool.add(beyond, budget.patterns) == 0:
            # Correlations are known to the root of the gap: a finer answer may show no excess.
            if inner <= finest:
                ended_by = Limit.PATTERNS
            inner = max(_FINER * inner, finest)
        if ended_by:
            break
    # The walls are those of the last answer, which must be precise and the best one.
    through = len(beyond) == 0 and best is here and master.is_precise
    status = Status.OPTIMAL if through else Status.MAX_STEPS if len(beyond) else Status.STALLED
    solution = replace(solution_out_of_units(best[1], units), lam=strengths[0])
    status = status_out_of_units(status, best[1], solution.certificate, solution)
    program = replace(program, patterns=best[0].patterns)
    network = to_network(program, solution).compact()
    assert isinstance(network, Network)
    values = tuple(float(times_power(value, int(units.objective))) for value in objectives)
    return Crossed(network, program, solution, values, status, ended_by)


def _beyond_walls(program: ConvexProgram, solution: Solution, least: float, meter: Meter) -> Floats:
    """Directions (m, d) in neighbour cells whose correlation is above `least`, best first."""
    X = np.asarray(program.X, np.float64)
    unit = unit_rows(X)[0]
    masks = np.asarray(program.patterns.masks).astype(np.bool_)
    weights = np.asarray(solution.weights, np.float64)
    residual = np.asarray(solution.residual, np.float64)
    values: list[float] = []
    directions: list[Floats] = []
    for side, pattern in np.argwhere(np.any(weights != 0, axis=2)):
        pull = residual if side == 0 else -residual
        walls = walls_of(unit, weights[side, pattern], NEARBY)
        for line in _lines(unit, np.flatnonzero(walls)):
            mask = masks[:, pattern].copy()
            mask[line] = ~mask[line]
            meter.spend(_PROJECTION)
            direction = unit_rows(block_correlation(X, unit, mask, pull)[None])[0][0]
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
