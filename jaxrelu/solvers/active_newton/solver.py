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
from jaxrelu.core.options import check_static_count
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.programs.bounds import Blocks
from jaxrelu.programs.extension import extended_shape
from jaxrelu.programs.program import Program
from jaxrelu.solvers.active_newton.rounds import (
    MAX_ROUNDS,
    Finding,
    Schedule,
    Solved,
    after_certificate,
    after_screening,
    first_schedule,
    round_limit,
    solve_slots,
)
from jaxrelu.solvers.active_newton.slot_certificates import (
    Best,
    certify_slots,
    closer,
    no_certificate,
)
from jaxrelu.solvers.active_newton.working_set import (
    WorkingSet,
    at_stage,
    cold_start,
    enter,
    known_stage,
    screen,
    warm_start,
)
from jaxrelu.solvers.base import Evidence, Tolerance, WarmStart
from jaxrelu.solvers.scaled_program import ScaledProgram, scaled_program


class RoundState(NamedTuple):
    """Where a solve stands between two rounds; `done` or not `finite` is its end."""

    schedule: Schedule
    working: WorkingSet
    best: Best
    done: Array
    finite: Array


class Candidate(NamedTuple):
    """What a round has for a certificate: blocks of the slots, a residual, dual elements."""

    blocks: Blocks
    residual: Array
    duals: DualElements
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
        """Raises ValueError or TypeError for sizes that are no positive integers."""
        for name in ("capacity", "pattern_batch_size"):
            value = getattr(self, name)
            if value is not None:
                check_static_count(value, name)

    def slots(self, program: Program) -> int:
        """The number of slots for a program."""
        blocks = 1
        for size in extended_shape(program):
            blocks *= size
        if self.capacity is not None:
            return min(self.capacity, blocks)
        return default_capacity(blocks, min(len(program.X), program.block_size))

    def run(
        self,
        program: Program,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Array,
        init: WarmStart | None,
    ) -> Evidence:
        """See `jaxrelu.solvers.base.Solver.run`."""
        scaled = scaled_program(program)
        first = first_round(scaled, lam, tolerance, init, self.slots(program))

        def step(state: RoundState) -> RoundState:
            now = state.schedule
            solved = solve_slots(
                scaled, now.stage, state.working, now.precision, max_steps - now.steps
            )
            return self.after(scaled, lam, tolerance, max_steps, state, solved)

        # A round says itself whether it broke, and what it breaks is no certificate.
        end = iterate(
            step, first, done=lambda s: s.done | ~s.finite, max_steps=MAX_ROUNDS,
            watch=lambda _: (),
        )  # fmt: skip
        return self.evidence(end.state, max_steps, end.finite & end.state.finite)

    def after(
        self,
        scaled: ScaledProgram,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Any,
        state: RoundState,
        solved: Solved,
    ) -> RoundState:
        """The next round, from a solve on the slots: screening, newcomers, a certificate."""
        new, shown = self.screened(scaled, lam, tolerance, max_steps, state, solved)
        return judged(scaled, lam, tolerance, new, shown)

    def screened(
        self,
        scaled: ScaledProgram,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Any,
        state: RoundState,
        solved: Solved,
    ) -> tuple[RoundState, Candidate]:
        """The next round before `judged`, and what is to be certified."""
        before, slots, now = state.schedule, solved.blocks.shape[0], solved.overall
        limit = round_limit(scaled, lam, tolerance, max_steps, before, now)
        screened = screen(
            scaled, now.duals, now.inside, now.residual, limit, self.pattern_batch_size
        )
        schedule, found = after_screening(
            scaled, lam, tolerance, max_steps, before, slots, now, screened
        )
        working = solved.working._replace(duals=screened.bounds.duals)
        working = at_stage(working, schedule.stage / before.stage)
        working = enter(scaled, schedule.stage, working, screened)
        new = state._replace(schedule=schedule, working=working, finite=solved.finite)
        blocks = Blocks(solved.blocks, solved.weights)
        return new, Candidate(blocks, solved.residual, screened.bounds.duals, found)

    def evidence(self, state: RoundState, max_steps: Any, finite: Array) -> Evidence:
        """The answer of the last round."""
        best, steps = state.best, state.schedule.steps
        return Evidence(best.blocks, best.residual, best.duals, steps, finite, steps >= max_steps)


def judged(
    scaled: ScaledProgram, lam: Array, tolerance: Tolerance, state: RoundState, shown: Candidate
) -> RoundState:
    """A round with its certificate, where one is due, and the verdict whether it is the last."""
    before, due = state.best, shown.found.due

    def certified() -> Best:
        # In a batch every lane comes here; zero weights make it cheap where it is not due.
        weights = jnp.where(due, shown.blocks.weights, 0.0)
        blocks = shown.blocks._replace(weights=weights)
        new = certify_slots(scaled, lam, blocks, shown.residual, shown.duals, shown.found.lower)
        return jax.tree.map(lambda a, b: jnp.where(due, a, b), closer(new, before), before)

    best = jax.lax.cond(due, certified, lambda: before)
    schedule, done = after_certificate(
        tolerance, state.schedule, shown.found, best.upper, best.gap, before.gap
    )
    return state._replace(schedule=schedule, best=best, done=done)


def first_round(
    scaled: ScaledProgram, lam: Array, tolerance: Tolerance, init: WarmStart | None, slots: int
) -> RoundState:
    """The state before the first round: from nothing, or a known point, both at a lam above."""
    if init is None:
        schedule = first_schedule(scaled, lam, jnp.inf, tolerance)
        working = cold_start(scaled, slots)
    else:
        schedule = first_schedule(scaled, lam, known_stage(scaled, lam, init), tolerance)
        working = warm_start(scaled, schedule.stage, init, slots)
    return _unproved(scaled, schedule, working, jnp.asarray(True))


def next_lam(
    scaled: ScaledProgram, state: RoundState, lam: Array, tolerance: Tolerance
) -> RoundState:
    """The first round on the way from a lam that was reached to a smaller one."""
    known = state.schedule.stage
    schedule = first_schedule(scaled, lam, known, tolerance)
    working = at_stage(state.working, schedule.stage / known)
    return _unproved(scaled, schedule, working, state.finite)


def _unproved(
    scaled: ScaledProgram, schedule: Schedule, working: WorkingSet, finite: Array
) -> RoundState:
    return RoundState(
        schedule, working, no_certificate(scaled, working), jnp.asarray(False), finite
    )


def no_candidate(state: RoundState) -> Candidate:
    """What is to be certified before the first round."""
    best, no, none = state.best, jnp.asarray(False), jnp.asarray(0, jnp.int32)
    found = Finding(jnp.zeros_like(best.gap), none, *[no] * 6)
    return Candidate(best.blocks, best.residual, best.duals, found)
