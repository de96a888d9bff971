"""Rounds of a working-set method driven from the host, with as many slots as each round needs.

Compiled for every number of slots are the solve, the entry of blocks and the evaluation, for all of
them at once screening and repair. Slots come as 16, 24, 32, 48, 64, ...: a Newton system has
slots * d unknowns and costs their cube, so that empty slots are dear, while few numbers of slots
mean few compiled shapes.
"""

from __future__ import annotations

from functools import cached_property
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
    MAX_ROUNDS,
    MOST_FUTILE,
    Solved,
    finer,
    finest_precision,
    first_precision,
    promising,
    repair,
    screening_limit,
    solve_slots,
)
from jaxrelu.solvers.active_newton.solver import SHRINK, ActiveNewton
from jaxrelu.solvers.active_newton.working_set import (
    Screened,
    WorkingSet,
    cold_start,
    enter,
    entering,
    screen,
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


class _Screenable(NamedTuple):
    """What screening needs of a `Solved`: nothing whose shape depends on the slots."""

    duals: Array
    inside: Array
    residual: Array
    value: Array

    @staticmethod
    def of(solved: Solved) -> _Screenable:
        return _Screenable(solved.held.duals, solved.inside, solved.residual, solved.value)


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
        self.held = cold_start(setting, self._slots(0))
        self.lam: Array | None = None
        self.first_precision = float(first_precision(setting, tolerance))
        # The coupling of the blocks in slots, the dearest part of a Newton system, and the blocks.
        self.coupling: Array | None = None
        self.coupled = np.zeros(0, np.int32)

    def start_from(self, warm: Warm, lam: Array) -> None:
        """Takes the working set of a previous solution."""
        active = int(np.count_nonzero(np.any(np.asarray(warm.weights) != 0, axis=-1)))
        self.lam = jnp.where(jnp.isfinite(warm.lam), jnp.maximum(lam, warm.lam), lam)
        empty = cold_start(self.setting, self._slots(active))
        self.held = _warm(self.setting, self.lam, warm, empty)

    def solve(self, lam: Array) -> Answer:
        """One lam, from the working set of the last, or from nothing where that leads nowhere."""
        warm = self._holds_blocks()
        answer = self._come_down(lam, self.limit)
        if not (warm and self._is_lost(answer)):
            return answer
        self.held, self.lam = cold_start(self.setting, self._slots(0)), None
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
        """One lam, roughly through those between where the working set is and far below it."""
        start = self._start if self.lam is None or not self._holds_blocks() else float(self.lam)
        taken = 0
        if 0 < float(lam) < SHRINK * start < np.inf:
            count = int(np.ceil(np.log(start / float(lam)) / -np.log(SHRINK)))
            for stage in np.geomspace(start, float(lam), count + 1)[1:-1]:
                if taken >= limit:
                    break
                taken += self._rounds(jnp.asarray(stage, lam.dtype), limit - taken, rough=True)[1]
        answer, steps = self._rounds(lam, limit - taken)
        assert answer is not None
        return answer._replace(num_steps=np.int32(taken + steps))

    def _rounds(self, lam: Array, limit: int, rough: bool = False) -> tuple[Answer | None, int]:
        """Rounds at one lam until its certificate closes, or only until no block is missing."""
        setting, tolerance = self.setting, self.tolerance
        held, ratio = self.held, 1.0 if self.lam is None else float(lam) / float(self.lam)
        precision, finest = self.first_precision, finest_precision(setting)
        best: Answer | None = None
        taken = futile = 0
        for _ in range(MAX_ROUNDS):
            coupling = self._coupling_of(held)
            solved = _solve(setting, lam, held, ratio, precision, limit - taken, coupling)
            ratio = 1.0
            screened, violating, ready = _screen(
                setting, self.solver, lam, tolerance, _Screenable.of(solved)
            )
            steps, active, finite, violators, ready = jax.device_get(
                (solved.num_steps, solved.active, solved.finite, violating, ready)
            )
            taken += int(steps)
            held = solved.held._replace(duals=screened.bounds.duals)
            exhausted = taken >= limit
            last = exhausted or not finite or (violators > 0 and active >= self.most)
            if rough and (last or violators == 0):
                break
            if last or (violators == 0 and (ready or precision <= finest)):
                # The repair is worth its projections only where it may be the last one.
                answer = self._certified(lam, solved, screened, exhausted)
                progress = best is None or _gap(answer) <= 0.5 * _gap(best)
                futile = 0 if progress else futile + 1
                best = answer if best is None or _gap(answer) < _gap(best) else best
                ended = int(best.status) in (Status.OPTIMAL, Status.NONFINITE)
                if last or ended or futile >= MOST_FUTILE:
                    break
            if violators == 0:
                precision = float(finer(setting, precision))
                continue
            slots = self._slots(int(active))
            newcomers = min(int(violators), entering(screened.found.shape[0], slots))
            held = _resized(held, setting.num_blocks, self._slots(int(active) + newcomers))
            held = _enter(setting, lam, held, screened)
        if best is None and not rough:
            best = self._certified(lam, solved, screened, exhausted=False)
        occupied = int(np.sum(np.asarray(held.blocks) < setting.num_blocks))
        self.held = _resized(held, setting.num_blocks, self._slots(occupied))
        self.lam = lam
        # Judged before the last round.
        if best is not None and exhausted and int(best.status) == Status.STALLED:
            best = best._replace(status=np.int32(Status.MAX_STEPS))
        return best, taken

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

    def _certified(self, lam: Array, solved: Solved, screened: Screened, exhausted: bool) -> Answer:
        """Repairs the non-zero blocks, a few at a time in one shape, and evaluates both values."""
        blocks = np.asarray(solved.blocks)
        weights = np.array(solved.weights)
        active = np.flatnonzero(np.any(weights != 0, axis=1))
        for start in range(0, active.size, _FEWEST_SLOTS):
            index = active[start : start + _FEWEST_SLOTS]
            padding = _FEWEST_SLOTS - index.size
            block = np.pad(blocks[index], (0, padding), constant_values=self.setting.num_blocks)
            weight = np.pad(weights[index], ((0, padding), (0, 0)))
            weights[index] = np.asarray(_repair(self.setting, block, weight))[: index.size]
        return jax.device_get(  # type: ignore[no-any-return]
            _conclude(self.setting, lam, self.tolerance, solved, weights, screened.bound, exhausted)
        )

    @cached_property
    def _start(self) -> float:
        """Where a working set of no blocks comes down from."""
        return float(_highest(self.setting, self.solver))

    def _holds_blocks(self) -> bool:
        return bool(np.any(np.asarray(self.held.blocks) < self.setting.num_blocks))

    def _slots(self, active: int) -> int:
        return min(room(active, self.setting.X.shape[1]), self.most)


def _gap(answer: Answer) -> float:
    return float(answer.upper - answer.lower)


@compiled
def _highest(setting: Setting, solver: ActiveNewton) -> Array:
    """About lambda_max: half of what correlations without cones are, up to twice as large."""
    zero = jnp.zeros_like(jnp.asarray(setting.program.y))
    c = setting.correlations(residual_at(setting.program, zero), solver.pattern_batch_size)
    return 0.5 * jnp.max(safe_norm(c), initial=0.0) * setting.scale


@compiled
def _warm(setting: Setting, lam: Array, warm: Warm, empty: WorkingSet) -> WorkingSet:
    return warm_start(setting, lam, warm, empty.blocks.shape[0])


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
    lam: Array,
    held: WorkingSet,
    ratio: Array,
    precision: Array,
    steps: Array,
    coupling: Array | None,
) -> Solved:
    # Multipliers of a lam before this one are proportional to lam, to first order.
    at = held.at._replace(norm_dual=held.at.norm_dual * ratio, cone_dual=held.at.cone_dual * ratio)
    held = held._replace(at=at)
    return solve_slots(setting, lam / setting.scale, held, precision, steps, coupling)


@compiled
def _screen(
    setting: Setting, solver: ActiveNewton, lam: Array, tolerance: Tolerance, point: _Screenable
) -> tuple[Screened, Array, Array]:
    lam = lam / setting.scale
    limit = screening_limit(setting, lam, tolerance)
    screened = screen(
        setting, point.duals, point.inside, point.residual, limit, solver.pattern_batch_size
    )
    ready = promising(setting, lam, tolerance, point.residual, point.value, screened.bound)
    return screened, jnp.sum(screened.found), ready


@compiled
def _enter(setting: Setting, lam: Array, held: WorkingSet, screened: Screened) -> WorkingSet:
    return enter(setting, lam / setting.scale, held, screened)[0]


_repair = compiled(repair)


@compiled
def _conclude(
    setting: Setting,
    lam: Array,
    tolerance: Tolerance,
    solved: Solved,
    weights: Array,
    bound: Array,
    exhausted: Array,
) -> Answer:
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
    status = verdict(lam, tolerance, upper, lower, rounding, finite, exhausted)
    return Answer(
        solved.blocks, weights, fit, residual_at(program, fit), dual, lower, upper, status,
        solved.num_steps,
    )  # fmt: skip


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
