r"""Working sets with a second-order inner method: the default solver.

At most `capacity` blocks are held in slots (`jaxrelu.solvers.working_set`); the program restricted
to them is solved by the augmented Lagrangian Newton method of `jaxrelu.solvers.lagrangian`; then
all blocks are screened, the worst violators enter, and so on until the certificate of the whole
program closes. Shapes are fixed, so the same code runs traced, batched over lam, and driven along a
path from the host.

Reference: THEORY of gap-safe working sets; Mishkin and Pilanci (ICML 2023), Section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.cones import PolarBounds, make_feasible, projection_batch
from jaxrelu.loops import iterate
from jaxrelu.numerics import eps, safe_norm
from jaxrelu.optimality import dual_point
from jaxrelu.program import Program, loss_value, residual_at
from jaxrelu.pytrees import register
from jaxrelu.solvers.base import Evidence, Tolerance, Warm
from jaxrelu.solvers.lagrangian import Task, minimise
from jaxrelu.solvers.working_set import (
    Setting,
    WorkingSet,
    cold_start,
    enter,
    first_scale,
    remember,
    screen,
    setting_of,
    task_of,
    violators,
    warm_start,
)

_INNER_STEPS = 60
_MAX_ROUNDS = 300


class Best(NamedTuple):
    """The best certificate so far: feasible weights of the slots, and a residual with its bound."""

    blocks: Array
    weights: Array
    residual: Array
    bound: Array
    gap: Array
    upper: Array


class _Round(NamedTuple):
    held: WorkingSet
    best: Best
    precision: Array
    steps: Array
    futile: Array
    full: Array
    done: Array
    finite: Array


class SlotEvidence(NamedTuple):
    """`Evidence` with the weights still in their slots, and the working set to go on from."""

    best: Best
    held: WorkingSet
    num_steps: Array
    finite: Array
    exhausted: Array
    full: Array


def default_capacity(num_blocks: int, features: int) -> int:
    """Slots of a solve: room for the supports met in practice, in a system of 2000 unknowns."""
    return min(num_blocks, max(64, 2048 // max(features, 1)))


@register
@dataclass(frozen=True)
class ActiveNewton:
    """Working sets with augmented Lagrangian Newton; the default solver.

    Args:
        capacity: slots for non-zero blocks, or None for `default_capacity`. An optimum with more
            non-zero blocks than this ends as STALLED: raise it.
        screen_batch: blocks projected at once when screening, or None for a default.

    Example:
        >>> import jaxrelu as jr
        >>> jr.ActiveNewton(capacity=32).capacity
        32
    """

    capacity: int | None = field(default=None, metadata={"static": True})
    screen_batch: int | None = field(default=None, metadata={"static": True})

    @property
    def default_max_steps(self) -> int:
        """Newton steps allowed when the caller does not say."""
        return 2000

    def check(self, program: Any) -> None:
        """Raises ValueError for sizes that are not positive."""
        for name in ("capacity", "screen_batch"):
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
        k = self.slots(program)
        held = cold_start(setting, k) if init is None else warm_start(setting, lam, init, k)
        end = self.advance(setting, lam, tolerance, max_steps, held)
        blocks, best = setting.num_blocks, end.best
        flat = jnp.zeros((blocks, setting.X.shape[1]), setting.X.dtype)
        flat = flat.at[best.blocks].set(best.weights / setting.scale, mode="drop")
        return Evidence(
            flat.reshape(*program.block_shape, -1),
            best.residual,
            best.bound * setting.scale,
            end.num_steps,
            end.finite,
            end.exhausted,
        )

    def advance(
        self, setting: Setting, lam: Array, tolerance: Tolerance, max_steps: Any, held: WorkingSet
    ) -> SlotEvidence:
        """Solves at lam from a working set; the weights stay in their slots, in scaled units."""
        scaled_lam = lam / setting.scale
        batch = projection_batch(setting.num_blocks, setting.rows.unit.shape[0])
        batch = min(batch, self.screen_batch or 32)
        slack = jnp.maximum(0.1 * tolerance.relative, 10 * eps(setting.X.dtype))
        limit = scaled_lam * (1.0 + slack)
        finest = 100 * eps(setting.X.dtype)

        def step(state: _Round) -> _Round:
            task = task_of(setting, scaled_lam, state.held.blocks)
            inner = minimise(
                task,
                state.held.at,
                state.precision,
                jnp.minimum(_INNER_STEPS, max_steps - state.steps),
                first_scale(setting, scaled_lam),
            )
            at = inner.iterate
            weights = jnp.where(inner.active[:, None], at.weights, 0.0)
            residual = -task.gradient(task.fit(weights))
            held = remember(setting, state.held._replace(at=at), task, inner.active)
            screened = screen(setting, held, residual, limit, batch)
            found, size = violators(setting, held, screened, limit)
            candidate = _certificate(setting, scaled_lam, held, task, weights, residual, screened)
            best = _better(candidate, state.best)
            met = tolerance.met(best.upper, best.upper - best.gap)
            none = ~jnp.any(found)
            # A round without violators that leaves the gap where it was cannot be repeated.
            futile = jnp.where(none & (best.gap > 0.5 * state.best.gap), state.futile + 1, 0)
            precision = jnp.where(none, jnp.maximum(0.1 * state.precision, finest), state.precision)
            held = held._replace(duals=screened.duals)
            held, full = enter(setting, scaled_lam, held, task, screened, found, size)
            steps = state.steps + inner.num_steps
            return _Round(
                held,
                best,
                precision,
                steps,
                futile,
                full,
                met | full | (futile >= 4) | (steps >= max_steps),
                inner.finite,
            )

        first = _Round(
            held,
            _worst(setting, held),
            jnp.clip(0.1 * tolerance.relative, finest, 1e-4).astype(setting.X.dtype),
            jnp.asarray(0, jnp.int32),
            jnp.asarray(0, jnp.int32),
            jnp.asarray(False),
            jnp.asarray(False),
            jnp.asarray(True),
        )
        end = iterate(step, first, done=lambda s: s.done | ~s.finite, max_steps=_MAX_ROUNDS)
        state = end.state
        return SlotEvidence(
            state.best, state.held, state.steps, end.finite & state.finite,
            state.steps >= max_steps, state.full,
        )  # fmt: skip


def _certificate(
    setting: Setting,
    lam: Array,
    held: WorkingSet,
    task: Task,
    weights: Array,
    residual: Array,
    screened: PolarBounds,
) -> Best:
    program = setting.program
    if program.has_cones:
        safe = jnp.where(held.blocks < setting.num_blocks, held.blocks, 0)
        interior = jnp.asarray(program.patterns.interior).T[setting.pattern[safe]]
        weights = make_feasible(setting.rows, task.cone_signs, weights, interior)
    upper = loss_value(program, task.fit(weights)) + lam * jnp.sum(safe_norm(weights))
    bound = jnp.max(screened.bound, initial=0.0)
    _, lower = dual_point(program, lam, residual, bound)
    return Best(held.blocks, weights, residual, bound, upper - lower, upper)


def _worst(setting: Setting, held: WorkingSet) -> Best:
    """Zero weights with no bound yet: replaced by the first round."""
    zero = jnp.zeros_like(jnp.asarray(setting.program.y))
    upper = loss_value(setting.program, zero)
    largest = jnp.asarray(jnp.finfo(setting.X.dtype).max, setting.X.dtype)
    return Best(
        held.blocks,
        jnp.zeros_like(held.at.weights),
        residual_at(setting.program, zero),
        largest,
        largest,
        upper,
    )


def _better(new: Best, old: Best) -> Best:
    take = new.gap < old.gap
    return jax.tree.map(lambda a, b: jnp.where(take, a, b), new, old)
