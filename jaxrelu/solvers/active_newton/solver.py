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
from jaxrelu.programs.program import Program, residual_at
from jaxrelu.solvers.active_newton.rounds import (
    MAX_ROUNDS,
    MOST_FUTILE,
    Best,
    Solved,
    better,
    certify_slots,
    finer,
    finest_precision,
    first_precision,
    promising,
    screening_limit,
    solve_slots,
    worst,
)
from jaxrelu.solvers.active_newton.working_set import (
    Screened,
    WorkingSet,
    cold_start,
    enter,
    screen,
    warm_start,
)
from jaxrelu.solvers.base import Evidence, Tolerance, Warm
from jaxrelu.solvers.scaled_program import Setting, setting_of

# From stage to stage on the way down to a small lam, and how far above its stage a block that is
# missing may be for the next one.
SHRINK = 0.7
_CALM = 1.1


class Round(NamedTuple):
    """Where a solve stands between two rounds; `done` or not `finite` is its end.

    `stage` is the strength of the current round, scaled: a start from far above comes down to lam.
    """

    stage: Array
    held: WorkingSet
    best: Best
    precision: Array
    rounds: Array
    steps: Array
    futile: Array
    full: Array
    done: Array
    finite: Array


class Shown(NamedTuple):
    """What a round has for a certificate: weights of the slots `blocks`, a residual and its bound.

    `needed` where it may be the last round, `ready` where it promises to meet the tolerance.
    """

    blocks: Array
    weights: Array
    residual: Array
    bound: Array
    needed: Array
    ready: Array


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
            steps = max_steps - state.steps
            solved = solve_slots(setting, state.stage, state.held, state.precision, steps)
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
        new, shown, _ = self.screened(setting, lam, tolerance, max_steps, state, solved)
        return judged(setting, lam, tolerance, max_steps, new, shown)

    def screened(
        self,
        setting: Setting,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Any,
        state: Round,
        solved: Solved,
    ) -> tuple[Round, Shown, Array]:
        """The next round before `judged`, what is to be certified, and whether no block is missing.

        The last is about lam itself, not a stage above it.
        """
        lam = lam / setting.scale
        held, rounds, steps = solved.held, state.rounds + 1, state.steps + solved.num_steps
        last = (steps >= max_steps) | (rounds >= MAX_ROUNDS)
        limit = screening_limit(setting, jnp.where(last, lam, state.stage), tolerance)
        screened = screen(
            setting, held.duals, solved.inside, solved.residual, limit, self.pattern_batch_size
        )
        held = held._replace(duals=screened.bounds.duals)
        stage = next_stage(state.stage, lam, screened)
        held, full = enter(setting, stage, at_stage(held, stage / state.stage), screened)
        # Slots that are full on the way down show at its end what they can do.
        early = full & (stage > lam)
        held = at_stage(held, jnp.where(early, lam / stage, 1.0))
        stage, full = jnp.where(early, lam, stage), full & ~early
        # A finer solve may empty slots: only then are they too few.
        crowded = full & (state.precision > finest_precision(setting))
        full = full & ~crowded
        none = ~jnp.any(screened.found) & (state.stage <= lam)
        # The repair is worth its projections only where it may be the last one.
        ready = promising(setting, lam, tolerance, solved.residual, solved.value, screened.bound)
        ready = none & (ready | (state.precision <= finest_precision(setting)))
        needed = ready | full | last
        new = state._replace(
            stage=stage,
            held=held,
            precision=jnp.where(none | crowded, finer(setting, state.precision), state.precision),
            rounds=rounds,
            steps=steps,
            full=full,
            finite=solved.finite,
        )
        shown = Shown(solved.blocks, solved.weights, solved.residual, screened.bound, needed, ready)
        return new, shown, none

    def evidence(self, setting: Setting, state: Round, max_steps: Any, finite: Array) -> Evidence:
        """The answer of the last round, in the shape and the units of the program."""
        best = state.best
        flat = jnp.zeros((setting.num_blocks, setting.X.shape[1]), setting.X.dtype)
        flat = flat.at[best.blocks].set(best.weights / setting.scale, mode="drop")
        return Evidence(
            flat.reshape(*setting.program.block_shape, -1),
            best.residual,
            best.bound * setting.scale,
            state.steps,
            finite,
            state.steps >= max_steps,
        )


def highest_stage(setting: Setting) -> Array:
    """Above every correlation at zero weights, without passing the masks: sum_i |r_i| ||x_i||."""
    zero = jnp.zeros_like(jnp.asarray(setting.program.y))
    residual = residual_at(setting.program, zero)
    return jnp.sum(jnp.abs(residual) * setting.samples.length)


def judged(
    setting: Setting,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Any,
    state: Round,
    shown: Shown,
) -> Round:
    """A round with its certificate, where one is needed, and the verdict whether it is the last."""
    before = state.best

    def certified() -> Best:
        # In a batch every lane comes here; zero weights make it cheap where it is not needed.
        weights = jnp.where(shown.needed, shown.weights, 0.0)
        new = certify_slots(
            setting, lam / setting.scale, shown.blocks, weights, shown.residual, shown.bound
        )
        best = better(new, before)
        return jax.tree.map(lambda a, b: jnp.where(shown.needed, a, b), best, before)

    best = jax.lax.cond(shown.needed, certified, lambda: before)
    met = tolerance.met(best.upper, best.upper - best.gap)
    # Rounds without violators that leave the gap where it was cannot be repeated for ever.
    idle = jnp.where(best.gap > 0.5 * before.gap, state.futile + 1, 0)
    futile = jnp.where(shown.ready, idle, state.futile)
    used_up = (state.steps >= max_steps) | (state.rounds >= MAX_ROUNDS)
    done = met | state.full | (futile >= MOST_FUTILE) | used_up
    return state._replace(best=best, futile=futile, done=done)


def first_round(
    setting: Setting, lam: Array, tolerance: Tolerance, init: Warm | None, slots: int
) -> Round:
    """The state before the first round: from nothing, or a known point, both at a lam above."""
    zero, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    precision = first_precision(setting, tolerance)
    scaled = lam / setting.scale
    if init is None:
        held = cold_start(setting, slots)
        stage = jnp.maximum(scaled, highest_stage(setting))
    else:
        known = jnp.where(jnp.isfinite(init.lam), init.lam / setting.scale, 0.0)
        stage = jnp.maximum(scaled, jnp.minimum(SHRINK * known, highest_stage(setting)))
        held = warm_start(setting, stage * setting.scale, init, slots)
    best = worst(setting, held.blocks)
    return Round(stage, held, best, precision, zero, zero, zero, no, no, jnp.asarray(True))


def nothing_shown(state: Round) -> Shown:
    """What is to be certified before the first round."""
    best, no = state.best, jnp.asarray(False)
    return Shown(best.blocks, best.weights, best.residual, best.bound, no, no)


def further(setting: Setting, state: Round, lam: Array, tolerance: Tolerance) -> Round:
    """The first round on the way from a lam that was reached to a smaller one."""
    zero, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    stage = jnp.maximum(lam / setting.scale, SHRINK * state.stage)
    held = at_stage(state.held, stage / state.stage)
    best, precision = worst(setting, held.blocks), first_precision(setting, tolerance)
    return Round(stage, held, best, precision, zero, zero, zero, no, no, state.finite)


def next_stage(stage: Array, lam: Array, screened: Screened) -> Array:
    """Further down to lam (scaled), once the blocks that are missing are those of the next stage.

    At a small lam nearly every block violates at zero weights, and far more of them would enter
    than stay. On the way down each stage finds the few that it adds.
    """
    largest = jnp.max(jnp.where(screened.found, screened.size, 0.0), initial=0.0)
    calm = largest <= _CALM * stage
    lowest = SHRINK * jnp.minimum(stage, screened.bound)
    return jnp.where(calm, jnp.maximum(lam, lowest), stage)


def at_stage(held: WorkingSet, ratio: Array) -> WorkingSet:
    """Multipliers of another lam: proportional to it, to first order."""
    at = held.at._replace(norm_dual=ratio * held.at.norm_dual, cone_dual=ratio * held.at.cone_dual)
    return held._replace(at=at)
