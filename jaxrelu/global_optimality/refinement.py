r"""Closing the gap between sampled patterns and the global optimum: pattern generation.

The convex program over some patterns bounds the training problem from above. Its residual r is dual
feasible for the whole problem if and only if R(r) <= lam; a direction u with |r^T (X u)_+| > lam
names a cell whose block would lower the objective. So: solve, look for the best such directions,
add their cells, drop cells that no answer uses, and start again from the answer. Every round that
does not end adds a cell, so there are finitely many; where the oracle's upper bound says that no
direction is left, the answer is the global optimum of the non-convex problem.

Reference: the semi-infinite dual of Pilanci and Ergen (ICML 2020), Section 4; column generation of
L. R. Ford and D. R. Fulkerson (1958), as cutting planes of the dual.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Limit, Meter
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import times_power
from jaxrelu.global_optimality.certificate import global_lower
from jaxrelu.global_optimality.checks import Budget, check_search, one_lam, status_out_of_units
from jaxrelu.global_optimality.local_training import train_from
from jaxrelu.global_optimality.pattern_pool import PatternPool
from jaxrelu.global_optimality.polar_gauge.gauge import (
    PolarGauge,
    gauge,
    random_starts,
    scaled_gauge,
)
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement
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
from jaxrelu.programs.units import Units, in_units, into_units, out_of_units, printed
from jaxrelu.solvers.active_newton.solver import ActiveNewton

_STARTS = 256
_INNER = 0.01
_SEARCH_SHARE = 0.75
_FINEST = 1e-12
_COARSE = 1e-4


class RefinementRound(NamedTuple):
    """One round of a refinement.

    Attributes:
        patterns: number of patterns in the program.
        upper: objective of its answer.
        lower: global lower bound, -inf where the oracle only looked for directions.
        correlation: the largest |r^T (X u)_+| found, over lam.
        work: done until then, in the units of `polar_gauge`.
    """

    patterns: int
    upper: float
    lower: float
    correlation: float
    work: float


@dataclass(frozen=True, eq=False)
class Refined(Solved):
    """An answer to the non-convex training problem with its global certificate.

    Attributes:
        network: the network.
        program: the `ConvexProgram` over the final patterns.
        solution: its `Solution`; ``solution.certificate`` is about these patterns alone.
        certificate: `Certificate` of the training problem over all networks; its `lower`, `upper`
            and `gap` are attributes as well.
        gauge: the `PolarGauge` of the residual that it rests on.
        status: ``Status.OPTIMAL``: the global gap is closed. ``Status.MAX_STEPS``: a budget ran
            out. ``Status.STALLED``: no direction above lam was found, but the upper bound of the
            gauge does not reach lam either, so that optimality is likely and not proven; or the
            program over the patterns could not be solved to the accuracy needed.
        ended_by: which budget ended it, `Limit.NONE` where none did.
        history: one `RefinementRound` after the other.
    """

    network: Network
    program: ConvexProgram
    solution: Solution
    certificate: Certificate
    gauge: PolarGauge
    status: Status
    ended_by: Limit
    history: tuple[RefinementRound, ...]


@on_host()
def refine(
    program: ConvexProgram,
    lam: Any,
    *,
    rtol: Any = None,
    max_patterns: int = 128,
    max_rounds: int = 200,
    max_work: float | None = None,
    max_seconds: float | None = None,
    init: Solution | None = None,
    solver: ActiveNewton | None = None,
) -> Refined:
    r"""Moves a program's patterns until its optimum is that of the non-convex training problem.

        min over networks of any width of  sum_i c_i loss(f_i, y_i)
                                           + lam/2 sum_k (||hidden_k||^2 + output_k^2)

    Args:
        program: a `ConvexProgram`; its patterns are the start, a few sampled ones will do.
        lam: scalar, > 0.
        rtol: relative *global* gap, (upper - lower) / |upper|, at which to stop; default 1e-6 in
            float64, 1e-3 in float32.
        max_patterns: places for patterns. Idle ones leave when there is no room.
        max_rounds: limit on rounds.
        max_work: limit on work in the units of `polar_gauge`, the same on any machine: about
            seconds of one core, without those of compilation. A quarter is kept for the oracle's
            upper bound. Default 40, and no limit where `max_seconds` is given.
        max_seconds: no new work is begun after this time; no limit by default. The certificate is
            valid whatever ends the search.
        init: a `Solution` of this program to start from.
        solver: as in `solve_path`.

    Returns:
        `Refined`. The objective never rises from round to round, and is never above that of the
        program it was given by more than the first round's precision, 1e-4 relative, if the support
        of its optimum fits into `max_patterns`.

    Raises:
        ValueError, TypeError: as `solve`; a program that is not a `ConvexProgram`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0], [-0.5, 0.8]], "float32")
        >>> y = np.asarray([1.0, -1.0, 2.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 1))
        >>> found = jr.refine(program, 0.1, rtol=1e-3)
        >>> found.status.name
        'OPTIMAL'

    Reference: `jaxrelu.global_optimality.refinement`.
    """
    return refine_path(
        program,
        one_lam(program, lam),
        rtol=rtol,
        max_patterns=max_patterns,
        max_rounds=max_rounds,
        max_work=max_work,
        max_seconds=max_seconds,
        init=init,
        solver=solver,
    )[0]


@on_host()
def refine_path(
    program: ConvexProgram,
    lams: Any,
    *,
    rtol: Any = None,
    max_patterns: int = 128,
    max_rounds: int = 200,
    max_work: float | None = None,
    max_seconds: float | None = None,
    init: Solution | None = None,
    solver: ActiveNewton | None = None,
) -> list[Refined]:
    """`refine` for several lams, the largest first, each from the patterns and weights before.

    Args:
        program: a `ConvexProgram`.
        lams: (L,), each > 0, in any order.
        rtol: relative global gap, as in `refine`.
        max_patterns: as in `refine`.
        max_rounds: for each lam.
        max_work: for each lam.
        max_seconds: for each lam.
        init: as in `refine`, for the largest lam.
        solver: as in `solve_path`.

    Returns:
        A list of `Refined`; entry k belongs to ``lams[k]``.

    Raises:
        ValueError, TypeError: as `refine`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X, y = np.eye(2, dtype="float32"), np.asarray([1.0, -2.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 2))
        >>> [found.status.name for found in jr.refine_path(program, [0.5, 0.1], rtol=1e-3)]
        ['OPTIMAL', 'OPTIMAL']

    Reference: `jaxrelu.global_optimality.refinement`.
    """
    budget = Budget(max_patterns, max_rounds, max_work, max_seconds)
    strengths, tolerance = check_search(program, lams, rtol, budget, init, solver)
    whole, units = in_units(program)
    start = None if init is None else solution_in_units(init, units)
    search = _Search(whole, tolerance, budget, solver, start)
    order = np.argsort(-np.asarray(strengths), kind="stable")
    found: dict[int, Refined] = {}
    for k in order:
        answer = search.run(into_units(strengths[k], units.lam))
        found[int(k)] = _out_of_units(answer, program, strengths[k], units)
    return [found[k] for k in range(len(order))]


def _out_of_units(found: Refined, given: ConvexProgram, lam: Array, units: Units) -> Refined:
    """The answer to a program in units as one to the program that was given, at its lam."""
    program = replace(given, patterns=found.program.patterns)
    solution = replace(solution_out_of_units(found.solution, units), lam=lam)
    proof = found.certificate
    lower, upper = (
        printed(value, units.objective, side)
        for value, side in ((proof.lower, -1), (proof.upper, 1))
    )
    dual = out_of_units(proof.dual, units.residual)
    certificate = Certificate(
        lower=lower, upper=upper, gap=upper - lower, weights=solution.weights, dual=dual
    )
    history = tuple(
        step._replace(
            upper=float(times_power(step.upper, int(units.objective))),
            lower=float(times_power(step.lower, int(units.objective))),
        )
        for step in found.history
    )
    network = to_network(program, solution).compact()
    assert isinstance(network, Network)
    return replace(
        found,
        network=network,
        program=program,
        solution=solution,
        certificate=certificate,
        gauge=scaled_gauge(found.gauge, int(units.lam)),
        status=status_out_of_units(found.status, found.solution, certificate, solution),
        history=history,
    )


class _Search:
    """The state of a refinement that goes from lam to lam."""

    def __init__(
        self,
        program: ConvexProgram,
        rtol: float,
        budget: Budget,
        solver: ActiveNewton | None,
        init: Solution | None,
    ) -> None:
        self.program, self.rtol, self.budget = program, rtol, budget
        self.master = RestrictedMaster(program, budget.patterns, rtol, solver, init)
        self.arrangement = Arrangement(np.asarray(program.X, np.float64))
        self.rng = np.random.default_rng(0)

    def run(self, lam: Array) -> Refined:
        """Refines at one lam."""
        strength, meter = float(lam), self.budget.meter()
        searching = meter.share(_SEARCH_SHARE)
        goal = max(_INNER * self.rtol, _FINEST)  # the precision of an answer worth certifying
        precision = max(goal, _COARSE)
        history: list[RefinementRound] = []
        best: tuple[ConvexProgram, Solution] | None = None
        lowest = np.inf
        certificate: Certificate | None = None

        while True:
            pool, solution = self.master.solve(lam, precision, searching)
            if best is None or float(solution.certificate.upper) <= lowest:
                best = pool.compact(solution)
                lowest = float(np.nan_to_num(best[1].certificate.upper, nan=np.inf))
            size = pool.size
            found, maxima = self._gauge(lam, solution, searching, narrow=False)
            last = len(history) + 1 >= self.budget.rounds
            late = last or not searching.allows()
            again = not late and self._grow(
                pool, lam, solution, found, maxima, precision, searching
            )
            if again:
                # Far from the optimum an answer over the wrong cells need not be precise.
                excess = found.lower / strength - 1.0
                precision = max(goal, min(precision, _COARSE * excess))
            elif not late and precision > goal:
                precision, again = goal, True
            else:
                if not found.closed:
                    found, _ = self._gauge(lam, solution, meter)
                    late = late or not meter.allows()
                # The gauge is that of the last residual, which need not be the best answer's.
                lower, dual = global_lower(best[0], lam, solution.residual, found)
                upper = best[1].certificate.upper
                certificate = Certificate(lower, upper, upper - lower, best[1].weights, dual)
                closed = bool(np.isfinite(upper) and certificate.gap <= self.rtol * abs(upper))
                if not (closed or late):
                    again = (
                        found.lower > strength * (1 + goal)
                        and pool.add(found.direction[None], 1) > 0
                    )
                if not (closed or late or again) and found.closed and goal > _FINEST:
                    # Closed above lam without a new cell: the answer is not precise enough.
                    goal = precision = max(_INNER * goal, _FINEST)
                    again = True
            history.append(
                RefinementRound(
                    size,
                    float(best[1].certificate.upper),
                    -np.inf if certificate is None else float(certificate.lower),
                    found.lower / strength,
                    meter.spent,
                )
            )
            if not again:
                break
            certificate = None
        assert certificate is not None
        full = pool.size == pool.capacity and found.lower > strength * (1 + goal)
        ended_by = Limit.NONE
        if not closed:
            out = Limit.ROUNDS if last else searching.refused if late else found.ended_by
            ended_by = out or (Limit.PATTERNS if full else Limit.NONE)
        status = Status.OPTIMAL if closed else Status.MAX_STEPS if ended_by else Status.STALLED
        network = to_network(*best).compact()
        assert isinstance(network, Network)
        return Refined(network, *best, certificate, found, status, ended_by, tuple(history))

    def _grow(
        self,
        pool: PatternPool,
        lam: Array,
        solution: Solution,
        found: PolarGauge,
        maxima: tuple[Floats, Floats],
        precision: float,
        meter: Meter,
    ) -> bool:
        """Adds the cells of directions above lam, and those that local search from there finds."""
        values, directions = maxima
        directions = directions[values > float(lam) * (1 + precision)] @ self.arrangement.basis.T
        if len(directions) == 0:
            return False
        if not found.closed:
            weights = np.asarray(solution.weights, np.float64)
            residual = np.asarray(solution.residual, np.float64)
            trained = train_from(
                self.program, lam, weights, residual, directions, self.budget.patterns, self.rng,
                meter,
            )  # fmt: skip
            directions = np.concatenate([directions, trained])
        return pool.add(directions, self.budget.patterns) > 0

    def _gauge(
        self, lam: Array, solution: Solution, meter: Meter, narrow: bool = True
    ) -> tuple[PolarGauge, tuple[Floats, Floats]]:
        weights = np.asarray(solution.weights, np.float64).reshape(-1, self.program.X.shape[1])
        neurons = weights[np.any(weights != 0, axis=1)]
        return gauge(
            self.arrangement,
            np.asarray(solution.residual, np.float64),
            random_starts(self.rng, _STARTS, self.arrangement, neurons),
            rtol=_INNER * self.rtol,
            threshold=float(lam) * (1 + _INNER * self.rtol),
            meter=meter,
            narrow=narrow,
        )
