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
    WorkingSet,
    first_scale,
    in_slots,
    remember,
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
MOST_FUTILE = 4


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
