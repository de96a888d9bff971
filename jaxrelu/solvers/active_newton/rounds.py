"""One round of a working-set method: solve on the slots, screen all blocks, certify.

The traced solver (`jaxrelu.solvers.active_newton.solver`) repeats rounds inside one loop; the
driver of a path (`jaxrelu.solvers.active_newton.path_driver`) repeats them from the host, with as
many slots as each round needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, safe_norm
from jaxrelu.geometry.cones import cone_signs, drop_negligible, make_feasible
from jaxrelu.programs.certificates import dual_point
from jaxrelu.programs.program import loss_value, residual_at
from jaxrelu.solvers.active_newton.working_set import (
    Screened,
    WorkingSet,
    first_scale,
    in_slots,
    lasting,
    remember,
    screen,
    task_of,
)
from jaxrelu.solvers.augmented_lagrangian.nearest_rows import minimise_near_walls
from jaxrelu.solvers.augmented_lagrangian.newton_method import Outcome
from jaxrelu.solvers.augmented_lagrangian.subproblem import Task
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.scaled_program import Setting

INNER_STEPS = 60
# Precisions of the rounds: the first one, in units of the tolerance, and from one to the next.
_FIRST = 3000.0
_FINER = 0.03
MAX_ROUNDS = 300
# Rounds without violators and without progress before a solver gives up.
_MOST_FUTILE = 4
# From stage to stage on the way down to a small lam, and how far above its stage a block that is
# missing may be for the next one.
SHRINK = 0.7
_CALM = 1.1
# Slots that are full are solved so finely before they are too few: a finer solve may empty some.
_CROWDED = 1e-6
# Stages closer to each other than this do not make room.
_CLOSEST = 0.98


class Schedule(NamedTuple):
    """How the next round is to be solved, and what is counted.

    Attributes:
        stage: the strength of the round, scaled: a start from far above comes down to lam.
        shrink: from stage to stage.
        reached: bool, a stage was solved and no block was missing.
        precision: of the solve on the slots.
        rounds, steps: int32, rounds and Newton steps so far.
        futile: int32, rounds in turn that changed nothing.
    """

    stage: Array
    shrink: Array
    reached: Array
    precision: Array
    rounds: Array
    steps: Array
    futile: Array


class Finding(NamedTuple):
    """What a round has found: scalar bools.

    Attributes:
        missing: a block without a slot is above the round's stage.
        settled: none is, at lam itself.
        ready: the certificate promises to close, or nothing finer can be solved.
        full: a block is missing that no slot can be found for.
        last: the steps or the rounds are used up, or a number is not finite.
        due: a certificate is wanted.
    """

    missing: Array
    settled: Array
    ready: Array
    full: Array
    last: Array
    due: Array


def highest_stage(setting: Setting) -> Array:
    """Above every correlation at zero weights, without passing the masks: sum_i |r_i| ||x_i||."""
    zero = jnp.zeros_like(jnp.asarray(setting.program.y))
    residual = residual_at(setting.program, zero)
    return jnp.sum(jnp.abs(residual) * setting.samples.length)


def first_schedule(setting: Setting, lam: Array, known: Any, tolerance: Tolerance) -> Schedule:
    """The first round on the way to lam from what is known at another one (both scaled).

    From nothing, `known` infinite, the way begins where zero weights are optimal.
    """
    stage = jnp.maximum(lam, jnp.minimum(SHRINK * known, highest_stage(setting)))
    zero, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    shrink = jnp.asarray(SHRINK, setting.X.dtype)
    return Schedule(stage, shrink, no, first_precision(setting, tolerance), zero, zero, zero)


def screen_round(
    setting: Setting,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Any,
    schedule: Schedule,
    slots: Any,
    solved: Overall,
    pattern_batch: int | None,
) -> tuple[Schedule, Finding, Screened]:
    """Screens all blocks at the answer of a round, and says how the next one is to be solved.

    At a small lam nearly every block violates at zero weights, and far more of them would enter
    than stay: on the way down each stage finds the few that it adds. Where the slots are full and a
    block is missing, they hold blocks that the optimum does not need. Then the next stage lies
    above this one, where some of them leave, and from there on stages are closer to each other, so
    that fewer enter at once.

    Args:
        setting: the scaled program.
        lam: the end of the way down, scaled.
        tolerance: of the certificate at lam.
        max_steps: Newton steps in all.
        schedule: of the round.
        slots: how many blocks may hold one.
        solved: its answer on the slots.
        pattern_batch: as in `screen`.

    Returns:
        The `Schedule` of the next round, what was found, and all blocks screened.
    """
    stage, shrink, precision = schedule.stage, schedule.shrink, schedule.precision
    rounds, steps = schedule.rounds + 1, schedule.steps + solved.num_steps
    last = (steps >= max_steps) | (rounds >= MAX_ROUNDS) | ~solved.finite
    limit = screening_limit(setting, jnp.where(last, lam, stage), tolerance)
    duals, residual = solved.duals, solved.residual
    screened = screen(setting, duals, solved.inside, residual, limit, pattern_batch)

    missing, above = jnp.any(screened.found), stage > lam
    crowded = missing & (solved.lasting >= slots)
    finest = finest_precision(setting)
    fine, closest = precision <= max(_CROWDED, finest), shrink > _CLOSEST
    up, too_few = crowded & fine & ~closest, crowded & fine & closest
    # Once the slots were full, a stage is left only with no block missing.
    largest = jnp.max(jnp.where(screened.found, screened.size, 0.0), initial=0.0)
    calm = jnp.where(shrink > SHRINK, ~missing, ~crowded & (largest <= _CALM * stage))
    down, settled = above & calm, ~missing & ~above

    lower = jnp.maximum(lam, shrink * jnp.minimum(stage, screened.bound))
    closer = jnp.where(schedule.reached, jnp.sqrt(shrink), shrink)
    next_stage = jnp.where(down, lower, jnp.where(up, stage / closer, stage))
    shrink = jnp.where(up, closer, shrink)
    shrink = jnp.where(down, jnp.maximum(SHRINK, shrink**1.5), shrink)
    finer_next = settled | (crowded & ~fine)
    following = schedule._replace(
        # In the end the slots show at lam what they can do.
        stage=jnp.where(too_few, lam, next_stage),
        shrink=jnp.where(too_few, 1.0, shrink).astype(shrink.dtype),
        reached=schedule.reached | down,
        precision=jnp.where(finer_next, finer(setting, precision), precision),
        rounds=rounds,
        steps=steps,
    )
    promises = promising(setting, lam, tolerance, residual, solved.value, screened.bound)
    # The repair is worth its projections only where it may be the last one.
    ready, full = settled & (promises | (precision <= finest)), too_few & ~above
    found = Finding(missing, settled, ready, full, last, ready | full | last)
    return following, found, screened


def after_certificate(
    tolerance: Tolerance,
    schedule: Schedule,
    found: Finding,
    upper: Array,
    gap: Array,
    gap_before: Array,
) -> tuple[Schedule, Array]:
    """Counts rounds that leave the gap where it was; whether the last round has been."""
    # Rounds without a missing block that change nothing cannot be repeated for ever.
    idle = jnp.where(gap <= 0.5 * gap_before, 0, schedule.futile + 1)
    futile = jnp.where(found.ready, idle, schedule.futile)
    done = tolerance.met(upper, upper - gap) | found.full | found.last | (futile >= _MOST_FUTILE)
    return schedule._replace(futile=futile), found.due & done


class Solved(NamedTuple):
    """The program restricted to the slots, solved.

    Attributes:
        held: the working set, slots of zero blocks emptied.
        blocks: (k,), the block that each slot held.
        weights: (k, d), zero where a block is or is negligible; scaled units, not repaired.
        residual: (n,), minus the gradient of the loss there.
        value: scalar, the objective there and, to first order, what the repair will add.
        inside: (b,) bool, blocks that held a slot.
        active: int32, non-zero blocks.
        lasting: int32, those that are more than next to nothing.
        num_steps: Newton steps taken.
        finite: no NaN or infinity appeared.
    """

    held: WorkingSet
    blocks: Array
    weights: Array
    residual: Array
    value: Array
    inside: Array
    active: Array
    lasting: Array
    num_steps: Array
    finite: Array

    @property
    def overall(self) -> Overall:
        """What of it concerns all blocks."""
        return Overall(
            self.held.duals, self.residual, self.value, self.inside, self.lasting,
            self.num_steps, self.finite,
        )  # fmt: skip


class Overall(NamedTuple):
    """What of a `Solved` concerns all blocks: no shape hangs on the number of slots."""

    duals: Array
    residual: Array
    value: Array
    inside: Array
    lasting: Array
    num_steps: Array
    finite: Array


class Best(NamedTuple):
    """The best certificate so far: feasible weights of the slots, and a residual with its bound."""

    blocks: Array
    weights: Array
    residual: Array
    bound: Array
    gap: Array
    upper: Array


def first_precision(setting: Setting, tolerance: Tolerance) -> Array:
    """Where the rounds start: most of them only have to find the next violators."""
    dtype = setting.X.dtype
    first = _FIRST * _relative(setting, tolerance)
    return jnp.clip(first, finest_precision(setting), 1e-2).astype(dtype)


def finest_precision(setting: Setting) -> float:
    """Below this the inner method works at rounding level."""
    return 100 * eps(setting.X.dtype)


def finer(setting: Setting, precision: Any) -> Any:
    """The precision of the round after one that left no violators."""
    return jnp.maximum(_FINER * precision, finest_precision(setting))


def screening_limit(setting: Setting, lam: Array, tolerance: Tolerance) -> Array:
    """Blocks above it are violators; the excess over lam costs a tenth of the tolerance."""
    excess = 0.1 * _relative(setting, tolerance)
    return lam * (1.0 + jnp.maximum(excess, 10 * eps(setting.X.dtype)))


def _relative(setting: Setting, tolerance: Tolerance) -> Array:
    """A relative gap that is small enough: the optimum is at most the objective at zero weights."""
    some = setting.at_zero > 0
    share = jnp.where(some, tolerance.absolute / jnp.where(some, setting.at_zero, 1.0), 0.0)
    return tolerance.relative + share


def solve_slots(
    setting: Setting,
    lam: Array,
    held: WorkingSet,
    precision: Array,
    max_steps: Any,
    coupling: Array | None = None,
) -> Solved:
    """Solves on the slots at lam (scaled) to a precision of stationarity and constraints."""
    task = task_of(setting, lam, held.blocks)
    most, scale = jnp.minimum(INNER_STEPS, max_steps), first_scale(setting, lam)
    inner = minimise_near_walls(task, held.at, precision, most, scale, coupling)
    return solved_slots(setting, lam, held, task, inner)


def solved_slots(
    setting: Setting, lam: Array, held: WorkingSet, task: Task, inner: Outcome
) -> Solved:
    """What the inner method's answer on the slots means for the program."""
    weights = drop_negligible(jnp.where(inner.active[:, None], inner.iterate.weights, 0.0))
    fit = task.fit(weights)
    residual = -task.gradient(fit)
    after = remember(setting, held._replace(at=inner.iterate), task, inner.active)
    # What the constraints will cost to first order: the multipliers times the violations.
    outside = jnp.maximum(-task.slack(weights), 0.0)
    repair_cost = jnp.sum(inner.iterate.cone_dual * outside)
    return Solved(
        after,
        held.blocks,
        weights,
        residual,
        loss_value(setting.program, fit) + lam * jnp.sum(safe_norm(weights)) + repair_cost,
        in_slots(setting, after.blocks),
        jnp.sum(inner.active, dtype=jnp.int32),
        jnp.sum(lasting(setting, after), dtype=jnp.int32),
        inner.num_steps,
        inner.finite,
    )


def promising(
    setting: Setting, lam: Array, tolerance: Tolerance, residual: Array, value: Array, bound: Array
) -> Array:
    """Whether the tolerance would be met if the repair of the weights cost nothing."""
    _, lower = dual_point(setting.program, lam, residual, bound)
    return tolerance.met(value, lower)


def repair(setting: Setting, blocks: Array, weights: Array) -> Array:
    """Feasible weights (m, d) of some blocks (m,), scaled units."""
    if not setting.program.has_cones:
        return weights
    interior = jnp.asarray(setting.program.patterns.interior).T
    safe = jnp.where(blocks < setting.num_blocks, blocks, 0)
    signs = cone_signs(setting.masks, setting.pattern[safe], weights.dtype)
    return make_feasible(setting.rows, signs, weights, interior[setting.pattern[safe]])


def certify_slots(
    setting: Setting, lam: Array, blocks: Array, weights: Array, residual: Array, bound: Array
) -> Best:
    """Repairs the weights of the slots and evaluates both values (lam scaled)."""
    program = setting.program
    weights = repair(setting, blocks, weights)
    task = task_of(setting, lam, blocks)
    upper = loss_value(program, task.fit(weights)) + lam * jnp.sum(safe_norm(weights))
    _, lower = dual_point(program, lam, residual, bound)
    return Best(blocks, weights, residual, bound, upper - lower, upper)


def worst(setting: Setting, blocks: Array) -> Best:
    """Zero weights with no bound yet: replaced by the first certificate."""
    zero = jnp.zeros_like(jnp.asarray(setting.program.y))
    dtype = setting.X.dtype
    largest = jnp.asarray(jnp.finfo(dtype).max, dtype)  # type: ignore[no-untyped-call]
    return Best(
        blocks,
        jnp.zeros((blocks.shape[0], setting.X.shape[1]), dtype),
        residual_at(setting.program, zero),
        largest,
        largest,
        loss_value(setting.program, zero),
    )


def better(new: Best, old: Best) -> Best:
    """The one with the smaller gap."""
    take = new.gap < old.gap
    return jax.tree.map(lambda a, b: jnp.where(take, a, b), new, old)
