"""Rounds of a working-set method driven from the host, with as many slots as each round needs.

Compiled for every number of slots are the solve, the entry of blocks and the evaluation, for all of
them at once screening and repair. Slots come as 16, 24, 32, 48, 64, ...: a Newton system has
slots * d unknowns and costs their cube, so that empty slots are dear, while few numbers of slots
mean few compiled shapes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.numerics import safe_norm
from jaxrelu.core.status import Status
from jaxrelu.programs.certificates import dual_point, rounding_of_values
from jaxrelu.programs.program import loss_value, residual_at
from jaxrelu.solvers.active_newton.rounds import (
    Finding,
    Overall,
    Schedule,
    Solved,
    after_certificate,
    first_schedule,
    repair,
    screen_round,
    solve_slots,
)
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.active_newton.working_set import (
    Screened,
    WorkingSet,
    at_stage,
    cold_start,
    enter,
    entering,
    known_stage,
    slot_features,
    task_of,
    warm_start,
)
from jaxrelu.solvers.augmented_lagrangian.newton_method import (
    Iterate,
    constant_coupling,
    updated_coupling,
)
from jaxrelu.solvers.base import Tolerance, Warm
from jaxrelu.solvers.scaled_program import Setting, compiled
from jaxrelu.solvers.verdict import verdict

_FEWEST_SLOTS = 16
# A warm start that ends this many tolerances from the optimum is given up.
_FAR = 1e3
# Slots whose rows of the coupling are computed at once.
_CHANGES = 4


class Answer(NamedTuple):
    """A certified answer at one lam; weights (k, d) of the slots `blocks` (k,) alone."""

    blocks: Any
    weights: Any
    fit: Any
    residual: Any
    dual: Any
    lower: Any
    upper: Any
    status: Any
    num_steps: Any


def room(active: int, features: int = 1000) -> int:
    """The smallest of 16, 24, 32, 48, 64, ... that holds so many blocks.

    With few features it begins higher: below some 300 unknowns a step costs next to nothing.
    """
    slots = _FEWEST_SLOTS
    while slots < max(active, min(300 // features, 64)):
        slots = slots * 3 // 2 if slots & (slots - 1) == 0 else slots * 4 // 3
    return slots


class Driver:
    """The working set of a path and its number of slots; the only mutable thing here."""

    def __init__(
        self, solver: ActiveNewton, setting: Setting, tolerance: Tolerance, limit: int
    ) -> None:
        self.solver, self.setting = solver, setting
        self.tolerance, self.limit = tolerance, limit
        blocks = setting.num_blocks
        self.most = blocks if solver.capacity is None else min(solver.capacity, blocks)
        self._forget()
        # The coupling of the blocks in slots, the dearest part of a Newton system, and the blocks.
        self.coupling: Array | None = None
        self.coupled = np.zeros(0, np.int32)

    def _forget(self) -> None:
        """Begins from nothing: a working set of no blocks, known where zero weights are optimal."""
        self.held, self.known = cold_start(self.setting, self._slots(0)), np.inf

    def start_from(self, warm: Warm, lam: Array) -> None:
        """Takes the working set of a previous solution."""
        active = int(np.count_nonzero(np.any(np.asarray(warm.weights) != 0, axis=-1)))
        empty = cold_start(self.setting, self._slots(active))
        known, self.held = _warm(self.setting, lam, warm, empty)
        self.known = float(known)

    def solve(self, lam: Array) -> Answer:
        """One lam, from the working set of the last, or from nothing where that leads nowhere."""
        warm = bool(np.any(np.asarray(self.held.blocks) < self.setting.num_blocks))
        answer = self._come_down(lam, self.limit)
        if not (warm and self._is_lost(answer)):
            return answer
        self._forget()
        again = self._come_down(lam, self.limit - int(answer.num_steps))
        steps = answer.num_steps + again.num_steps
        closer = np.isfinite(_gap(again)) and not _gap(answer) <= _gap(again)
        return (again if closer else answer)._replace(num_steps=steps)

    def _is_lost(self, answer: Answer) -> bool:
        """Whether an answer is so far off that another start may do better."""
        full = np.count_nonzero(np.any(answer.weights != 0, axis=1)) >= self.most
        far = Tolerance(_FAR * self.tolerance.relative, _FAR * self.tolerance.absolute)
        failed = int(answer.status) in (Status.STALLED, Status.NONFINITE)
        return failed and not full and not bool(far.met(answer.upper, answer.lower))

    def _come_down(self, lam: Array, limit: int) -> Answer:
        """Rounds from what is known down to a lam, until its certificate closes."""
        setting, steps = self.setting, np.int32(limit)
        schedule = _begin(setting, lam, self.known, self.tolerance)
        held, ratio = self.held, float(schedule.stage) / self.known
        best: Answer | None = None
        done = False
        while not done:
            solved = _solve(setting, schedule, held, ratio, steps, self._coupling_of(held))
            before, ratio = schedule.stage, 1.0
            schedule, found, screened = _screen(
                setting, self.solver, lam, self.tolerance, steps, schedule, np.int32(self.most),
                solved.overall,
            )  # fmt: skip
            held = solved.held._replace(duals=screened.bounds.duals)
            active, newcomers, due = jax.device_get(
                (solved.active, jnp.sum(screened.found), found.due)
            )
            if due:
                gap = np.inf if best is None else _gap(best)
                weights = self._repaired(solved)
                answer, schedule, done = jax.device_get(
                    _conclude(
                        setting, lam, self.tolerance, steps, schedule, found, solved, weights,
                        screened.bound, gap,
                    )
                )  # fmt: skip
                best = answer if best is None or _gap(answer) < gap else best
            if not done:
                slots = self._slots(int(active))
                few = min(int(newcomers), entering(screened.found.shape[0], slots))
                held = _resized(held, setting.num_blocks, self._slots(int(active) + few))
                held = _enter(setting, before, schedule.stage, held, screened)
        assert best is not None
        occupied = int(np.sum(np.asarray(held.blocks) < setting.num_blocks))
        self.held = _resized(held, setting.num_blocks, self._slots(occupied))
        self.known = float(schedule.stage)
        # Judged before the last round.
        if int(schedule.steps) >= limit and int(best.status) == Status.STALLED:
            best = best._replace(status=np.int32(Status.MAX_STEPS))
        return best._replace(num_steps=np.asarray(schedule.steps))

    def _coupling_of(self, held: WorkingSet) -> Array | None:
        """The coupling of the blocks in slots, brought up to date where only some have changed."""
        blocks = np.asarray(held.blocks)
        if self.coupled.size != blocks.size:
            self.coupling = _couple(self.setting, held.blocks)
        elif self.coupling is not None:
            (changed,) = np.nonzero(blocks != self.coupled)
            if changed.size > blocks.size // 4:
                self.coupling = _couple(self.setting, held.blocks)
            else:
                for start in range(0, changed.size, _CHANGES):
                    some = changed[start : start + _CHANGES]
                    some = np.pad(some, (0, _CHANGES - some.size), mode="edge")
                    self.coupling = _recouple(self.setting, held.blocks, self.coupling, some)
        self.coupled = blocks.copy()
        return self.coupling

    def _repaired(self, solved: Solved) -> Any:
        """The weights inside their cones: non-zero blocks only, a few at a time in one shape."""
        blocks = np.asarray(solved.blocks)
        weights = np.array(solved.weights)
        active = np.flatnonzero(np.any(weights != 0, axis=1))
        for start in range(0, active.size, _FEWEST_SLOTS):
            index = active[start : start + _FEWEST_SLOTS]
            padding = _FEWEST_SLOTS - index.size
            block = np.pad(blocks[index], (0, padding), constant_values=self.setting.num_blocks)
            weight = np.pad(weights[index], ((0, padding), (0, 0)))
            weights[index] = np.asarray(_repair(self.setting, block, weight))[: index.size]
        return weights

    def _slots(self, active: int) -> int:
        return min(room(active, self.setting.X.shape[1]), self.most)


def _gap(answer: Answer) -> float:
    return float(answer.upper - answer.lower)


@compiled
def _begin(setting: Setting, lam: Array, known: Array, tolerance: Tolerance) -> Schedule:
    return first_schedule(setting, lam / setting.scale, known, tolerance)


@compiled
def _warm(setting: Setting, lam: Array, warm: Warm, empty: WorkingSet) -> tuple[Array, WorkingSet]:
    known = known_stage(setting, lam / setting.scale, warm)
    return known, warm_start(setting, known, warm, empty.blocks.shape[0])


@compiled
def _couple(setting: Setting, blocks: Array) -> Array | None:
    return constant_coupling(task_of(setting, jnp.ones((), setting.X.dtype), blocks))


def _change_coupling(setting: Setting, blocks: Array, coupling: Array, changed: Array) -> Array:
    task = task_of(setting, jnp.ones((), setting.X.dtype), blocks)
    return updated_coupling(task, coupling, changed)


_recouple = compiled(_change_coupling, donate=(2,))


@compiled
def _solve(
    setting: Setting,
    schedule: Schedule,
    held: WorkingSet,
    ratio: Array,
    max_steps: Array,
    coupling: Array | None,
) -> Solved:
    held, most = at_stage(held, ratio), max_steps - schedule.steps
    return solve_slots(setting, schedule.stage, held, schedule.precision, most, coupling)


@compiled
def _screen(
    setting: Setting,
    solver: ActiveNewton,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    schedule: Schedule,
    slots: Array,
    solved: Overall,
) -> tuple[Schedule, Finding, Screened]:
    return screen_round(
        setting, lam / setting.scale, tolerance, max_steps, schedule, slots, solved,
        solver.pattern_batch_size,
    )  # fmt: skip


@compiled
def _enter(
    setting: Setting, before: Array, stage: Array, held: WorkingSet, screened: Screened
) -> WorkingSet:
    return enter(setting, stage, at_stage(held, stage / before), screened)


_repair = compiled(repair)


@compiled
def _conclude(
    setting: Setting,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    schedule: Schedule,
    found: Finding,
    solved: Solved,
    weights: Array,
    bound: Array,
    gap_before: Array,
) -> tuple[Answer, Schedule, Array]:
    program = setting.program
    signed, features = slot_features(setting, solved.blocks, weights)
    weights = weights / setting.scale
    fit = jnp.sum(signed * features, axis=0)
    penalty = lam * jnp.sum(safe_norm(weights))
    upper = loss_value(program, fit) + penalty
    dual, lower = dual_point(program, lam, solved.residual, bound * setting.scale)
    spread = jnp.sum(jnp.abs(signed * features), axis=0)
    rounding = rounding_of_values(program, fit, solved.residual, spread, penalty)
    finite = solved.finite & jnp.all(jnp.isfinite(weights))
    exhausted = schedule.steps >= max_steps
    status = verdict(lam, tolerance, upper, lower, rounding, finite, exhausted)
    answer = Answer(
        solved.blocks, weights, fit, residual_at(program, fit), dual, lower, upper, status,
        schedule.steps,
    )  # fmt: skip
    gap = upper - lower
    return answer, *after_certificate(tolerance, schedule, found, upper, gap, gap_before)


def _resized(held: WorkingSet, num_blocks: int, slots: int) -> WorkingSet:
    """The occupied slots moved to the front of a working set of another size (on the host)."""
    if held.blocks.shape[0] == slots:
        return held
    chosen = np.flatnonzero(np.asarray(held.blocks) < num_blocks)[:slots]

    def move(array: Array, empty: float) -> Any:
        values = np.asarray(array)
        out = np.full((slots, *values.shape[1:]), empty, values.dtype)
        out[: chosen.size] = values[chosen]
        return jnp.asarray(out)

    at = Iterate(*(move(a, 0.0) for a in held.at))
    return WorkingSet(move(held.blocks, num_blocks), at, held.duals)
