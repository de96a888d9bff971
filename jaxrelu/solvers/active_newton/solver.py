r"""Working sets with a second-order inner method: the default solver.

At most `capacity` blocks are held in slots (`jaxrelu.solvers.active_newton.working_set`); the
program restricted to them is solved by the augmented Lagrangian Newton method of
`jaxrelu.solvers.augmented_lagrangian.newton_method`; then all blocks are screened, the worst
violators enter, and so on until the certificate of the whole program closes. Shapes are fixed, so
the same code runs traced, batched over lam, and driven along a path from the host.

A start from nothing comes down to lam in stages, each a factor `SHRINK` below the one before and
solved roughly. At zero weights nearly every block violates a small lam: on breast cancer with 100
gates, at 0.01 of lambda_max, 68 slots filled up with blocks that do not stay, where 25 are enough.

Reference: Mishkin and Pilanci (ICML 2023), Section 3, for the conditions that screening checks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.loops import iterate
from jaxrelu.core.pytrees import register
from jaxrelu.programs.program import Program
from jaxrelu.solvers.active_newton.rounds import (
    MAX_ROUNDS,
    Best,
    Finding,
    Schedule,
    Solved,
    after_certificate,
    better,
    certify_slots,
    first_schedule,
    screen_round,
    solve_slots,
    worst,
)
from jaxrelu.solvers.active_newton.working_set import (
    WorkingSet,
    at_stage,
    cold_start,
    enter,
    known_stage,
    warm_start,
)
from jaxrelu.solvers.base import Evidence, Tolerance, Warm
from jaxrelu.solvers.scaled_program import Setting, setting_of


class Round(NamedTuple):
    """Where a solve stands between two rounds; `done` or not `finite` is its end."""

    schedule: Schedule
    held: WorkingSet
    best: Best
    done: Array
    finite: Array


class Shown(NamedTuple):
    """What a round has for a certificate: weights of the slots `blocks`, a residual, its bound."""

    blocks: Array
    weights: Array
    residual: Array
    bound: Array
    found: Finding


def default_capacity(num_blocks: int, features: int) -> int:
    """Slots of a solve: room for the supports met in practice, and 2000 unknowns at least."""
    return min(num_blocks, max(64, 2048 // max(features, 1)))


@register
@dataclass(frozen=True)
class ActiveNewton:
    """Working sets with augmented Lagrangian Newton; the default solver.

    Args:
        capacity: slots for non-zero blocks, or None for `default_capacity`. A solve that needs
            more, on its way or for its optimum, ends as STALLED: raise it.
        pattern_batch_size: patterns whose masks are unpacked and whose cones are projected at once;
            bounds the memory of screening. None for a default.

    Example:
        >>> import jaxrelu as jr
        >>> jr.ActiveNewton(capacity=32).capacity
        32
    """

    capacity: int | None = field(default=None, metadata={"static": True})
    pattern_batch_size: int | None = field(default=None, metadata={"static": True})

    @property
    def default_max_steps(self) -> int:
        """Newton steps allowed when the caller does not say."""
        return 2000

    def check(self, program: Any) -> None:
        """Raises ValueError for sizes that are not positive."""
        for name in ("capacity", "pattern_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"ActiveNewton({name}={value}): pass a positive integer or None.")

    def slots(self, program: Program) -> int:
        """The number of slots for a program."""
        blocks = 1
        for size in program.block_shape:
            blocks *= size
        if self.capacity is not None:
            return min(self.capacity, blocks)
        return default_capacity(blocks, min(program.X.shape))

    def run(
        self,
        program: Program,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Array,
        init: Warm | None,
    ) -> Evidence:
        """See `jaxrelu.solvers.base.Solver.run`."""
        setting = setting_of(program)
        first = first_round(setting, lam, tolerance, init, self.slots(program))

        def step(state: Round) -> Round:
            now = state.schedule
            solved = solve_slots(
                setting, now.stage, state.held, now.precision, max_steps - now.steps
            )
            return self.after(setting, lam, tolerance, max_steps, state, solved)

        end = iterate(step, first, done=lambda s: s.done | ~s.finite, max_steps=MAX_ROUNDS)
        return self.evidence(setting, end.state, max_steps, end.finite & end.state.finite)

    def after(
        self,
        setting: Setting,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Any,
        state: Round,
        solved: Solved,
    ) -> Round:
        """The next round, from a solve on the slots: screening, newcomers, a certificate."""
        new, shown = self.screened(setting, lam, tolerance, max_steps, state, solved)
        return judged(setting, lam, tolerance, new, shown)

    def screened(
        self,
        setting: Setting,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Any,
        state: Round,
        solved: Solved,
    ) -> tuple[Round, Shown]:
        """The next round before `judged`, and what is to be certified."""
        before, slots = state.schedule, solved.blocks.shape[0]
        schedule, found, screened = screen_round(
            setting, lam / setting.scale, tolerance, max_steps, before, slots, solved.overall,
            self.pattern_batch_size,
        )  # fmt: skip
        held = solved.held._replace(duals=screened.bounds.duals)
        held = enter(
            setting, schedule.stage, at_stage(held, schedule.stage / before.stage), screened
        )
        new = state._replace(schedule=schedule, held=held, finite=solved.finite)
        return new, Shown(solved.blocks, solved.weights, solved.residual, screened.bound, found)

    def evidence(self, setting: Setting, state: Round, max_steps: Any, finite: Array) -> Evidence:
        """The answer of the last round, in the shape and the units of the program."""
        best = state.best
        flat = jnp.zeros((setting.num_blocks, setting.X.shape[1]), setting.X.dtype)
        flat = flat.at[best.blocks].set(best.weights / setting.scale, mode="drop")
        return Evidence(
            flat.reshape(*setting.program.block_shape, -1),
            best.residual,
            best.bound * setting.scale,
            state.schedule.steps,
            finite,
            state.schedule.steps >= max_steps,
        )


def judged(setting: Setting, lam: Array, tolerance: Tolerance, state: Round, shown: Shown) -> Round:
    """A round with its certificate, where one is due, and the verdict whether it is the last."""
    before, due = state.best, shown.found.due

    def certified() -> Best:
        # In a batch every lane comes here; zero weights make it cheap where it is not due.
        weights = jnp.where(due, shown.weights, 0.0)
        new = certify_slots(
            setting, lam / setting.scale, shown.blocks, weights, shown.residual, shown.bound
        )
        return jax.tree.map(lambda a, b: jnp.where(due, a, b), better(new, before), before)

    best = jax.lax.cond(due, certified, lambda: before)
    schedule, done = after_certificate(
        tolerance, state.schedule, shown.found, best.upper, best.gap, before.gap
    )
    return state._replace(schedule=schedule, best=best, done=done)


def first_round(
    setting: Setting, lam: Array, tolerance: Tolerance, init: Warm | None, slots: int
) -> Round:
    """The state before the first round: from nothing, or a known point, both at a lam above."""
    lam = lam / setting.scale
    if init is None:
        schedule = first_schedule(setting, lam, jnp.inf, tolerance)
        held = cold_start(setting, slots)
    else:
        schedule = first_schedule(setting, lam, known_stage(setting, lam, init), tolerance)
        held = warm_start(setting, schedule.stage, init, slots)
    return _unproved(setting, schedule, held, jnp.asarray(True))


def further(setting: Setting, state: Round, lam: Array, tolerance: Tolerance) -> Round:
    """The first round on the way from a lam that was reached to a smaller one."""
    known = state.schedule.stage
    schedule = first_schedule(setting, lam / setting.scale, known, tolerance)
    held = at_stage(state.held, schedule.stage / known)
    return _unproved(setting, schedule, held, state.finite)


def _unproved(setting: Setting, schedule: Schedule, held: WorkingSet, finite: Array) -> Round:
    return Round(schedule, held, worst(setting, held.blocks), jnp.asarray(False), finite)


def nothing_shown(state: Round) -> Shown:
    """What is to be certified before the first round."""
    best, no = state.best, jnp.asarray(False)
    return Shown(best.blocks, best.weights, best.residual, best.bound, Finding(*[no] * 6))
