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

from jaxrelu.loops import iterate
from jaxrelu.program import Program
from jaxrelu.pytrees import register
from jaxrelu.solvers.base import Evidence, Tolerance, Warm
from jaxrelu.solvers.rounds import (
    MAX_ROUNDS,
    MOST_FUTILE,
    Best,
    better,
    certify_slots,
    finest_precision,
    first_precision,
    promising,
    screening_limit,
    solve_slots,
    worst,
)
from jaxrelu.solvers.working_set import (
    Setting,
    WorkingSet,
    cold_start,
    enter,
    screen,
    setting_of,
    warm_start,
)


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
        limit = screening_limit(setting, scaled_lam, tolerance)
        finest = finest_precision(setting)

        def step(state: _Round) -> _Round:
            solved = solve_slots(
                setting, scaled_lam, state.held, state.precision, max_steps - state.steps
            )
            held = solved.held
            screened = screen(
                setting, held.duals, solved.inside, solved.residual, limit, self.pattern_batch_size
            )
            held = held._replace(duals=screened.bounds.duals)
            held, full = enter(setting, scaled_lam, held, screened)
            steps = state.steps + solved.num_steps
            none = ~jnp.any(screened.found)
            # The repair is worth its projections only where it may be the last one.
            ready = promising(
                setting, scaled_lam, tolerance, solved.residual, solved.value, screened.bound
            )
            ready = none & (ready | (state.precision <= finest))
            best = jax.lax.cond(
                ready | full | (steps >= max_steps),
                lambda: better(
                    certify_slots(setting, scaled_lam, solved, screened.bound), state.best
                ),
                lambda: state.best,
            )
            met = tolerance.met(best.upper, best.upper - best.gap)
            # A round without violators that leaves the gap where it was cannot be repeated.
            futile = jnp.where(ready & (best.gap > 0.5 * state.best.gap), state.futile + 1, 0)
            finer = jnp.maximum(0.1 * state.precision, finest)
            return _Round(
                held,
                best,
                jnp.where(none, finer, state.precision),
                steps,
                futile,
                full,
                met | full | (futile >= MOST_FUTILE) | (steps >= max_steps),
                solved.finite,
            )

        first = _Round(
            held,
            worst(setting, held.blocks),
            first_precision(setting, tolerance),
            jnp.asarray(0, jnp.int32),
            jnp.asarray(0, jnp.int32),
            jnp.asarray(False),
            jnp.asarray(False),
            jnp.asarray(True),
        )
        end = iterate(step, first, done=lambda s: s.done | ~s.finite, max_steps=MAX_ROUNDS)
        state = end.state
        return SlotEvidence(
            state.best, state.held, state.steps, end.finite & state.finite,
            state.steps >= max_steps, state.full,
        )  # fmt: skip
