r"""Working sets with a second-order inner method: the default solver.

At most `capacity` blocks are held in slots (`jaxrelu.solvers.working_set`); the program restricted
to them is solved by the augmented Lagrangian Newton method of `jaxrelu.solvers.lagrangian`; then
all blocks are screened, the worst violators enter, and so on until the certificate of the whole
program closes. Shapes are fixed, so the same code runs traced, batched over lam, and driven along a
path from the host.

Reference: Mishkin and Pilanci (ICML 2023), Section 3, for the conditions that screening checks.
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
from jaxrelu.solvers.working_set import (
    Setting,
    WorkingSet,
    cold_start,
    enter,
    screen,
    setting_of,
    warm_start,
)


class Round(NamedTuple):
    """Where a solve stands between two rounds; `done` or not `finite` is its end."""

    held: WorkingSet
    best: Best
    precision: Array
    steps: Array
    futile: Array
    full: Array
    done: Array
    finite: Array


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

        def step(state: Round) -> Round:
            steps = max_steps - state.steps
            solved = solve_slots(setting, lam / setting.scale, state.held, state.precision, steps)
            return self.after(setting, lam, tolerance, max_steps, state, solved)

        first = first_round(setting, tolerance, held)
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
        lam = lam / setting.scale
        held, limit = solved.held, screening_limit(setting, lam, tolerance)
        screened = screen(
            setting, held.duals, solved.inside, solved.residual, limit, self.pattern_batch_size
        )
        held = held._replace(duals=screened.bounds.duals)
        held, full = enter(setting, lam, held, screened)
        steps = state.steps + solved.num_steps
        none = ~jnp.any(screened.found)
        finest = finest_precision(setting)
        # The repair is worth its projections only where it may be the last one.
        ready = promising(setting, lam, tolerance, solved.residual, solved.value, screened.bound)
        ready = none & (ready | (state.precision <= finest))
        needed = ready | full | (steps >= max_steps)

        def certified() -> Best:
            # In a batch every lane comes here; zero weights make it cheap where it is not needed.
            shown = solved._replace(weights=jnp.where(needed, solved.weights, 0.0))
            best = better(certify_slots(setting, lam, shown, screened.bound), state.best)
            return jax.tree.map(lambda a, b: jnp.where(needed, a, b), best, state.best)

        best = jax.lax.cond(needed, certified, lambda: state.best)
        met = tolerance.met(best.upper, best.upper - best.gap)
        # A round without violators that leaves the gap where it was cannot be repeated.
        futile = jnp.where(ready & (best.gap > 0.5 * state.best.gap), state.futile + 1, 0)
        return Round(
            held,
            best,
            jnp.where(none, finer(setting, state.precision), state.precision),
            steps,
            futile,
            full,
            met | full | (futile >= MOST_FUTILE) | (steps >= max_steps),
            solved.finite,
        )

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


def first_round(setting: Setting, tolerance: Tolerance, held: WorkingSet) -> Round:
    """The state before the first round, from a working set."""
    zero, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    precision = first_precision(setting, tolerance)
    best = worst(setting, held.blocks)
    return Round(held, best, precision, zero, zero, no, no, jnp.asarray(True))
