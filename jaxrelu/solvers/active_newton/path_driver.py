"""Rounds of a working-set method driven from the host.

The pieces are those of `jaxrelu.solvers.active_newton.driven_rounds`, compiled one by one. A single
`solve` takes the number of slots that the traced solver has, and so its very rounds; a path takes
as many as each round needs. They come as 16, 32, 48, 64, 96, ...: a Newton system has slots * d
unknowns and costs their cube, so that empty slots are dear, while few numbers of slots mean few
compiled shapes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxrelu.core.status import Status
from jaxrelu.geometry.cones import lanes_at_once
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.geometry.driven_projection import correlations_of, make_feasible
from jaxrelu.programs.bounds import Blocks
from jaxrelu.programs.skip import without_cone
from jaxrelu.solvers.active_newton import driven_rounds as driven
from jaxrelu.solvers.active_newton.driven_rounds import Answer
from jaxrelu.solvers.active_newton.rounds import Finding, Overall, Schedule, Solved
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.active_newton.working_set import Screened, WorkingSet, cold_start, entering
from jaxrelu.solvers.augmented_lagrangian.newton_method import Iterate
from jaxrelu.solvers.base import Tolerance, WarmStart
from jaxrelu.solvers.scaled_program import Prepared, Request

_FEWEST_SLOTS = 16
# Blocks that are certified come as 128, 512, 2048, ...: next to screening, empty ones cost nothing.
_FEWEST_CERTIFIED = 128
# A warm start that ends this many tolerances from the optimum is given up.
_FAR = 1e3
# Slots whose rows of the coupling are computed at once.
_CHANGES = 4


def slot_count(active: int, features: int = 1000) -> int:
    """The smallest of 16, 32, 48, 64, 96, 128, ... that holds so many blocks.

    With few features it begins higher: below some 300 unknowns a step costs next to nothing.
    """
    slots = _FEWEST_SLOTS
    while slots < max(active, min(300 // features, 64)):
        # No 24: it saved a tenth of the steady state and cost three seconds of compilation.
        power = slots & (slots - 1) == 0
        slots = 2 * slots if slots < 32 else slots * 3 // 2 if power else slots * 4 // 3
    return slots


class _Certified(NamedTuple):
    """The last answer, its lam in units, and what it was concluded from."""

    answer: Answer
    lam: Array
    evidence: tuple[Schedule, Finding, Overall, Blocks, DualElements]


class PathDriver:
    """The working set of a path and its number of slots; the only mutable thing here.

    Args:
        solver: its capacity limits the slots.
        at: the program.
        asked: what is asked of it, in units.
        tolerance: of the answers, in the numbers of the user.
        limit: Newton steps for each lam.
        slots: how many there always are; None for as many as are needed.
    """

    def __init__(
        self,
        solver: ActiveNewton,
        at: Prepared,
        asked: Request,
        tolerance: Tolerance,
        limit: int,
        slots: int | None = None,
    ) -> None:
        self.solver, self.at, self.scaled, self.fixed = solver, at, at.scaled, slots
        # Of the solve, in units, and of the answers.
        self.within, self.tolerance, self.limit = asked.tolerance, tolerance, limit
        blocks = self.scaled.num_blocks
        most = blocks if solver.capacity is None else min(solver.capacity, blocks)
        self.most = most if slots is None else slots
        self._forget()
        # The coupling of the blocks in slots, the dearest part of a Newton system, and the blocks.
        self.coupling: Array | None = None
        self.coupled = np.zeros(0, np.int32)
        self.last: _Certified | None = None

    def _forget(self) -> None:
        """Begins from nothing: a working set of no blocks, known where zero weights are optimal."""
        self.working, self.known = cold_start(self.scaled, self._slots(0)), np.inf

    def start_from(self, warm: WarmStart, lam: Array) -> None:
        """Takes the working set of a previous solution."""
        active = int(np.count_nonzero(np.any(np.asarray(warm.weights) != 0, axis=-1)))
        active += self.scaled.has_bias
        empty = cold_start(self.scaled, self._slots(active))
        known, self.working = driven.warm_start(self.scaled, lam, warm, empty)
        self.known = float(known)

    def solve(self, lam: Array) -> Answer:
        """One lam: the last answer where that will do, or from its working set, or from nothing."""
        carried = self._carried(lam)
        if carried is not None:
            return carried
        warm = bool(np.any(np.asarray(self.working.blocks) < self.scaled.num_blocks))
        answer = self._come_down(lam, self.limit)
        if not (warm and self._is_lost(answer)):
            return answer
        self._forget()
        again = self._come_down(lam, self.limit - int(answer.num_steps))
        steps = answer.num_steps + again.num_steps
        closer = np.isfinite(again.gap) and not answer.gap <= again.gap
        return (again if closer else answer)._replace(num_steps=steps)

    def _carried(self, lam: Array) -> Answer | None:
        """The last answer where it is within the tolerance at this lam, too.

        With dual points t r in proportion to lam the gap grows with the square of the distance: at
        1e-2, and with lams a tenth apart, some half of them need no step.
        """
        last = self.last
        if last is None or not 1.0 - float(lam / last.lam) <= float(last.answer.reach):
            return None
        schedule, *evidence = last.evidence
        no_steps = schedule._replace(steps=np.int32(0))  # type: ignore[arg-type]
        answer, *_ = self._concluded(lam, np.int32(self.limit), no_steps, *evidence, np.inf)
        return answer if int(answer.verdict.status) == Status.OPTIMAL else None

    def _concluded(self, lam: Array, *judged: Any) -> tuple[Answer, Schedule, Any]:
        """`driven_rounds.conclude`, on the host."""
        found = driven.conclude(self.at, lam, self.tolerance, *judged)
        return jax.device_get(found)  # type: ignore[no-any-return]

    def _is_lost(self, answer: Answer) -> bool:
        """Whether an answer is so far off that another start may do better."""
        verdict = answer.verdict
        failed = int(verdict.status) in (Status.STALLED, Status.NONFINITE)
        if not failed or answer.active >= self.most:
            return False
        return not answer.gap <= _FAR * float(answer.allowed)

    def _come_down(self, lam: Array, limit: int) -> Answer:
        """Rounds from what is known down to a lam, until its certificate closes."""
        scaled, steps = self.scaled, np.int32(limit)
        schedule = driven.begin(scaled, lam, self.known, self.within)
        stage = float(schedule.stage)
        working, ratio = self.working, stage / self.known
        best: Answer | None = None
        done = False
        while not done:
            solved = driven.solve(
                scaled, schedule, working, ratio, steps, self._coupling_of(working)
            )
            before = stage
            schedule, found, screened = self._screened(lam, steps, schedule, solved.overall)
            duals = screened.bounds.duals
            working = solved.working._replace(duals=duals)
            active, newcomers, due, stage = jax.device_get(
                (solved.active, found.newcomers, found.due, schedule.stage)
            )
            if due:
                gap = np.inf if best is None else best.gap
                evidence = (schedule, found, solved.overall, self._non_zero(solved), duals)
                answer, schedule, done = self._certified(lam, steps, evidence, gap)
                best = answer if best is None or answer.gap < gap else best
            ratio = float(stage) / float(before)
            if newcomers and not done:
                slots = self._slots(int(active))
                few = min(int(newcomers), entering(screened.found.shape[0], slots))
                working = _resized(working, scaled.num_blocks, self._slots(int(active) + few))
                working, ratio = driven.enter(scaled, stage, working, screened, ratio), 1.0
        assert best is not None
        occupied = int(np.sum(np.asarray(working.blocks) < scaled.num_blocks))
        self.working = _resized(working, scaled.num_blocks, self._slots(occupied))
        self.known = float(before)
        # Judged before the last round.
        verdict = best.verdict
        if int(schedule.steps) >= limit and int(verdict.status) == Status.STALLED:
            verdict = verdict._replace(status=np.int32(Status.MAX_STEPS))
        return best._replace(verdict=verdict, num_steps=np.asarray(schedule.steps))

    def _screened(
        self, lam: Array, steps: Any, schedule: Schedule, solved: Overall
    ) -> tuple[Schedule, Finding, Screened]:
        """All blocks screened, some at a time until a violator is found, and what follows."""
        asked = (self.scaled, self.solver, lam, self.within, steps, schedule)
        limit, c, search, lanes, over = driven.begin_screening(*asked, solved)
        points, multipliers = search.bounds.points, search.bounds.multipliers
        slots = np.int32(self.most)
        while True:
            if not over:
                points, multipliers = correlations_of(self.scaled.rows, lanes, search.level)
            search, lanes, over, answer = driven.go_on_screening(
                *asked, slots, solved, limit, c, search, lanes, points, multipliers
            )
            if over:
                return answer  # type: ignore[no-any-return]

    def _coupling_of(self, working: WorkingSet) -> Array | None:
        """The coupling of the blocks in slots, brought up to date where only some have changed."""
        blocks = np.asarray(working.blocks)
        if self.coupled.size != blocks.size:
            self.coupling = driven.couple(self.scaled, working.blocks)
            if self.coupling is not None:
                # What a later round may be the first to need is compiled now.
                self.coupling = self._recoupled(working, self.coupling, np.arange(_CHANGES))
        elif self.coupling is not None:
            (changed,) = np.nonzero(blocks != self.coupled)
            if changed.size > blocks.size // 4:
                self.coupling = driven.couple(self.scaled, working.blocks)
            else:
                for start in range(0, changed.size, _CHANGES):
                    some = changed[start : start + _CHANGES]
                    some = np.pad(some, (0, _CHANGES - some.size), mode="edge")
                    self.coupling = self._recoupled(working, self.coupling, some)
        self.coupled = blocks.copy()
        return self.coupling

    def _recoupled(self, working: WorkingSet, coupling: Array, some: Any) -> Array:
        new: Array = driven.recouple(self.scaled, working.blocks, coupling, some)
        return new

    def _certified(
        self, lam: Array, steps: Any, evidence: tuple[Any, ...], gap: float
    ) -> tuple[Answer, Schedule, Any]:
        """What `_concluded` says of the blocks as they are, or else of the blocks repaired.

        They violate their cones by so little that a push along the witnesses will do mostly: it is
        part of every certificate, and costs nothing next to the projections of a repair. A single
        solve repairs at once: its answer is that of the traced solver.
        """
        schedule, found, solved, blocks, duals = evidence
        ways = (False, True) if self.fixed is None else (True,)
        for repair in ways if self.scaled.program.has_cones else (False,):
            blocks = self._repaired(blocks) if repair else blocks
            evidence = schedule, found, solved, blocks, duals
            answer, after, done = self._concluded(lam, steps, *evidence, gap)
            if int(answer.verdict.status) == Status.OPTIMAL:
                break
        if answer.gap < gap:
            self.last = _Certified(answer, lam, evidence)
        return answer, after, done

    def _repaired(self, given: Blocks) -> Blocks:
        """Blocks inside their cones, a few at a time in one shape."""
        blocks, weights = given.ids, np.array(given.weights)
        # A skip connection has no cone.
        skip = without_cone(self.scaled.program, self.scaled.pattern)
        apart = np.zeros(0, bool) if skip is None else np.append(np.asarray(skip), False)[blocks]
        kept = np.flatnonzero(apart)
        given_apart = weights[kept]
        weights[kept] = 0.0
        # A constant of zero may come before others.
        active = int(np.max(np.flatnonzero(np.any(weights != 0, axis=1)), initial=-1)) + 1
        lanes = lanes_at_once(self.scaled.rows.unit.shape[0])
        for start in range(0, active, lanes):
            some = np.arange(start, start + lanes) % len(blocks)
            part = Blocks(jax.device_put(blocks[some]), jax.device_put(weights[some]))
            signs, interior = driven.cones_of(self.scaled, part)
            rows = self.scaled.rows._replace(reach=None)
            moved = make_feasible(rows, signs, part.weights, interior)
            weights[some] = np.asarray(moved)
        weights[kept] = given_apart
        return Blocks(blocks, weights)  # type: ignore[arg-type]

    def _non_zero(self, solved: Solved) -> Blocks:
        """The non-zero blocks, on the host, and the constant of a free bias."""
        given, all_weights = np.asarray(solved.blocks), np.asarray(solved.weights)
        kept = np.any(all_weights != 0, axis=1)
        if self.scaled.has_bias:
            kept |= given == self.scaled.masks.shape[1] - 1
        active = np.flatnonzero(kept)
        blocks, weights = self._no_blocks(active.size)
        blocks[: active.size], weights[: active.size] = given[active], all_weights[active]
        return Blocks(blocks, weights)  # type: ignore[arg-type]

    def _no_blocks(self, active: int) -> tuple[Any, Any]:
        """Room on the host for blocks that are certified: ids (m,) and weights (m, d)."""
        width, most = _FEWEST_CERTIFIED, active if self.fixed is None else self.fixed
        while width < most:
            width *= 4
        weights = np.zeros((width, self.scaled.X.shape[1]), self.scaled.X.dtype)
        return np.full(width, self.scaled.num_blocks, np.int32), weights

    def compile_slots(self, lam: Array, active: int) -> None:
        """Compiles what supports of up to so many blocks will need, by rounds of no steps."""
        scaled, steps, slots = self.scaled, np.int32(0), 0
        schedule = driven.begin(scaled, lam, np.inf, self.within)
        if scaled.program.has_cones:
            ids, weights = self._no_blocks(1)
            ids[0], weights[0] = 0, 1.0
            self._repaired(Blocks(ids, weights))
        while slots < self._slots(active):
            slots = self._slots(slots + 1)
            working = cold_start(scaled, slots)
            coupling = self._coupling_of(working)
            solved = driven.solve(scaled, schedule, working, 0.0, steps, coupling)
            after, found, screened = self._screened(lam, steps, schedule, solved.overall)
            driven.enter(scaled, jax.device_get(after.stage), solved.working, screened, 1.0)
            driven.conclude(
                self.at, lam, self.tolerance, steps, after, found, solved.overall,
                Blocks(*self._no_blocks(slots)), screened.bounds.duals, np.inf,
            )  # fmt: skip

    def _slots(self, active: int) -> int:
        if self.fixed is not None:
            return self.fixed
        return min(slot_count(active, self.scaled.X.shape[1]), self.most)


def _resized(working: WorkingSet, num_blocks: int, slots: int) -> WorkingSet:
    """The occupied slots moved to the front of a working set of another size (on the host)."""
    if working.blocks.shape[0] == slots:
        return working
    chosen = np.flatnonzero(np.asarray(working.blocks) < num_blocks)[:slots]

    def move(array: Array, empty: float) -> Any:
        values = np.asarray(array)
        out = np.full((slots, *values.shape[1:]), empty, values.dtype)
        out[: chosen.size] = values[chosen]
        return jax.device_put(out)

    given = working.at
    weights, norm_dual, cone_dual = (
        move(a, 0.0) for a in (given.weights, given.norm_dual, given.cone_dual)
    )
    at = Iterate(weights, norm_dual, cone_dual, given.loss_dual)
    return WorkingSet(move(working.blocks, num_blocks), at, working.duals)
