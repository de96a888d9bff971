"""One round of a working-set method: the solve on the slots, and what screening makes of it.

The traced solver (`jaxrelu.solvers.active_newton.solver`) repeats rounds inside one loop; the
driver of a path (`jaxrelu.solvers.active_newton.path_driver`) repeats them from the host, with as
many slots as each round needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps
from jaxrelu.core.rounding import upward
from jaxrelu.geometry.cones import drop_negligible
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.programs.bounds import correlation_rounding, lower_value
from jaxrelu.programs.free_fits import balanced, residual_of_best
from jaxrelu.programs.penalties import bounded_factors, unweighed
from jaxrelu.programs.program import loss_value, residual_at
from jaxrelu.solvers.active_newton.working_set import (
    Screened,
    WorkingSet,
    first_scale,
    holds_slot,
    lasting,
    remember,
    subproblem_of,
)
from jaxrelu.solvers.augmented_lagrangian.nearest_rows import minimise_near_walls
from jaxrelu.solvers.augmented_lagrangian.newton_method import Outcome
from jaxrelu.solvers.augmented_lagrangian.subproblem import Subproblem
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.scaled_program import ScaledProgram

INNER_STEPS = 60
# Precisions of the rounds: the first, in units of the tolerance and at most, and one to the next.
_FIRST = 3000.0
_COARSEST = 5e-3
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
        stage: the strength of the round: a start from far above comes down to lam.
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
    """What a round has found: scalars, bools but for the first two.

    Attributes:
        lower: what the residual proves of the optimum at lam, as far as screening got.
        newcomers: int32, blocks in the last batch that are above the round's stage without a slot.
        missing: there is one.
        settled: none is, at lam itself.
        ready: the certificate promises to close, or nothing finer can be solved.
        full: a block is missing that no slot can be found for.
        last: the steps or the rounds are used up, or no step can be taken.
        due: a certificate is wanted.
    """

    lower: Array
    newcomers: Array
    missing: Array
    settled: Array
    ready: Array
    full: Array
    last: Array
    due: Array


def highest_stage(scaled: ScaledProgram) -> Array:
    """Above every correlation at zero weights, without passing the masks: sum_i |r_i| ||x_i||."""
    zero = jnp.zeros_like(jnp.asarray(scaled.program.y))
    residual = residual_at(scaled.program, zero)
    most = jnp.sum(jnp.abs(residual) * scaled.samples.length)
    if scaled.program.block_weights is None:
        return most
    return most * jnp.max(jnp.abs(bounded_factors(scaled.program)))


def first_schedule(scaled: ScaledProgram, lam: Array, known: Any, tolerance: Tolerance) -> Schedule:
    """The first round on the way to lam from what is known at another one.

    From nothing, `known` infinite, the way begins where zero weights are optimal.
    """
    stage = jnp.maximum(lam, jnp.minimum(SHRINK * known, highest_stage(scaled)))
    zero, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    shrink = jnp.asarray(SHRINK, scaled.X.dtype)
    return Schedule(stage, shrink, no, first_precision(scaled, tolerance), zero, zero, zero)


def is_last(schedule: Schedule, solved: Overall, max_steps: Any) -> Array:
    """Whether no other round can follow: the steps or the rounds are used up, or it broke."""
    rounds, steps = schedule.rounds + 1, schedule.steps + solved.num_steps
    over = (steps >= max_steps) | (rounds >= MAX_ROUNDS)
    return over | ~solved.finite | solved.stuck


def round_limit(
    scaled: ScaledProgram,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Any,
    schedule: Schedule,
    solved: Overall,
) -> Array:
    """What correlations are held against after a round: its stage, and lam after the last."""
    stage = jnp.where(is_last(schedule, solved, max_steps), lam, schedule.stage)
    return screening_limit(scaled, stage, tolerance)


def after_screening(
    scaled: ScaledProgram,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Any,
    schedule: Schedule,
    slots: Any,
    solved: Overall,
    screened: Screened,
) -> tuple[Schedule, Finding]:
    """What a round has found, and how the next one is to be solved.

    At a small lam nearly every block violates at zero weights, and far more of them would enter
    than stay: on the way down each stage finds the few that it adds. Where the slots are full and a
    block is missing, they hold blocks that the optimum does not need. Then the next stage lies
    above this one, where some of them leave, and from there on stages are closer to each other, so
    that fewer enter at once.

    Args:
        scaled: the scaled program.
        lam: the end of the way down.
        tolerance: of the certificate at lam.
        max_steps: Newton steps in all.
        schedule: of the round.
        slots: how many blocks may hold one.
        solved: its answer on the slots.
        screened: all blocks, against the `round_limit`.

    Returns:
        The `Schedule` of the next round, and what was found.
    """
    stage, shrink, precision = schedule.stage, schedule.shrink, schedule.precision
    rounds, steps = schedule.rounds + 1, schedule.steps + solved.num_steps
    last, residual = is_last(schedule, solved, max_steps), solved.residual

    newcomers, above = jnp.sum(screened.found, dtype=jnp.int32), stage > lam
    missing = newcomers > 0
    crowded = missing & (solved.lasting >= slots)
    finest = finest_precision(scaled)
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
        precision=jnp.where(finer_next, finer(scaled, precision), precision),
        rounds=rounds,
        steps=steps,
    )
    rounding = correlation_rounding(scaled.program, residual)
    bound = upward(screened.bound, rounding)
    if scaled.program.block_weights is not None:
        factor = jnp.abs(bounded_factors(scaled.program))
        each = upward(screened.bounds.bound, rounding * factor)
        bound = jnp.max(each, initial=0.0, where=factor > 0)
    proved = lower_value(scaled.program, lam, residual, bound)[0].value
    # Whether the tolerance would be met if the repair cost nothing.
    promises = tolerance.met(solved.value, proved)
    # The repair is worth its projections only where it may be the last one.
    ready, full = settled & (promises | (precision <= finest)), too_few & ~above
    found = Finding(proved, newcomers, missing, settled, ready, full, last, ready | full | last)
    return following, found


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
        working: the working set, slots of zero blocks emptied.
        blocks: (k,), the block that each slot working.
        weights: (k, d), zero where a block is or is negligible; not repaired.
        residual: (n,), minus the gradient of the loss there.
        value: scalar, the objective there and, to first order, what the repair will add.
        inside: (b,) bool, blocks that working a slot.
        active: int32, non-zero blocks.
        lasting: int32, those that are more than next to nothing.
        num_steps: Newton steps taken.
        finite: the residual is.
        stuck: the first Newton step broke down, as a factorisation in float32 may at a tiny lam.
    """

    working: WorkingSet
    blocks: Array
    weights: Array
    residual: Array
    value: Array
    inside: Array
    active: Array
    lasting: Array
    num_steps: Array
    finite: Array
    stuck: Array

    @property
    def overall(self) -> Overall:
        """What of it concerns all blocks."""
        return Overall(
            self.working.duals, self.residual, self.value, self.inside, self.lasting,
            self.num_steps, self.finite, self.stuck,
        )  # fmt: skip


class Overall(NamedTuple):
    """What of a `Solved` concerns all blocks: no shape hangs on the number of slots."""

    duals: DualElements
    residual: Array
    value: Array
    inside: Array
    lasting: Array
    num_steps: Array
    finite: Array
    stuck: Array


def first_precision(scaled: ScaledProgram, tolerance: Tolerance) -> Array:
    """Where the rounds start: most of them only have to find the next violators."""
    dtype = scaled.X.dtype
    first = _FIRST * _relative(scaled, tolerance)
    return jnp.clip(first, finest_precision(scaled), _COARSEST).astype(dtype)


def finest_precision(scaled: ScaledProgram) -> float:
    """Below this the inner method works at rounding level."""
    return 100 * eps(scaled.X.dtype)


def finer(scaled: ScaledProgram, precision: Any) -> Any:
    """The precision of the round after one that left no violators."""
    return jnp.maximum(_FINER * precision, finest_precision(scaled))


def screening_limit(scaled: ScaledProgram, lam: Array, tolerance: Tolerance) -> Array:
    """Blocks above it are violators; the excess over lam costs a tenth of the tolerance."""
    excess = 0.1 * _relative(scaled, tolerance)
    return lam * (1.0 + jnp.maximum(excess, 10 * eps(scaled.X.dtype)))


def _relative(scaled: ScaledProgram, tolerance: Tolerance) -> Array:
    """A relative gap that is small enough: the optimum is at most the objective at zero weights."""
    some = scaled.at_zero > 0
    share = jnp.where(some, tolerance.absolute / jnp.where(some, scaled.at_zero, 1.0), 0.0)
    return tolerance.relative + share


def solve_slots(
    scaled: ScaledProgram,
    lam: Array,
    working: WorkingSet,
    precision: Array,
    max_steps: Any,
    coupling: Array | None = None,
) -> Solved:
    """Solves on the slots at lam to a precision of stationarity and constraints."""
    problem = subproblem_of(scaled, lam, working.blocks)
    most, scale = jnp.minimum(INNER_STEPS, max_steps), first_scale(scaled, lam)
    inner = minimise_near_walls(problem, working.at, precision, most, scale, coupling)
    return solved_slots(scaled, lam, working, problem, inner)


def solved_slots(
    scaled: ScaledProgram, lam: Array, working: WorkingSet, problem: Subproblem, inner: Outcome
) -> Solved:
    """What the inner method's answer on the slots means for the program."""
    weights = drop_negligible(jnp.where(inner.active[:, None], inner.iterate.weights, 0.0))
    fit = problem.fit(weights)
    loss_dual = inner.iterate.loss_dual
    residual = -problem.gradient(fit)
    if loss_dual is not None:
        residual = balanced(scaled.program, loss_dual)
    if scaled.program.block_weights is not None and loss_dual is None:
        residual = residual_of_best(scaled.program, fit)
    after = remember(scaled, working._replace(at=inner.iterate), problem, inner.active)
    # What the constraints will cost to first order: the multipliers times the violations.
    outside = jnp.maximum(-problem.slack(weights), 0.0)
    repair_cost = jnp.sum(inner.iterate.cone_dual * outside)
    return Solved(
        after,
        working.blocks,
        unweighed(scaled.program, weights, working.blocks),
        residual,
        loss_value(scaled.program, fit) + problem.penalty(weights) + repair_cost,
        holds_slot(scaled, after.blocks),
        jnp.sum(inner.active, dtype=jnp.int32),
        jnp.sum(lasting(scaled, after), dtype=jnp.int32),
        inner.num_steps,
        jnp.all(jnp.isfinite(residual)),
        ~inner.finite & (inner.num_steps == 0),
    )
