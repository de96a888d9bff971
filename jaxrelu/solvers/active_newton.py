r"""Working sets with a second-order inner method: the default solver.

At most `capacity` blocks are held in slots; the program restricted to them is solved by the
augmented Lagrangian Newton method of `jaxrelu.solvers.lagrangian`; then all blocks are screened,
the worst violators enter, and so on until the certificate of the whole program closes. Shapes are
fixed, so the same code runs traced, batched over lam, and driven along a path from the host.

Screening rarely projects. Every block carries an element v_b of its dual cone, and
min_t ||c_b + t v_b|| bounds its correlation; only blocks above lam are projected, in batches, the
largest first, until one batch holds a violator. An entering block starts in the direction of its
projection q_b, with the projection's multipliers as its own and the magnitude that minimises the
objective along it, (||q_b|| - lam) / <z_b, h o z_b> with z_b = D_b X q_b / ||q_b||, shared out
when several enter; started at exactly zero it would be dropped again.

X is scaled by a power of two to rows of norm about one, which changes units and no digit.

Reference: THEORY of gap-safe working sets; Mishkin and Pilanci (ICML 2023), Section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.cones import (
    PolarBounds,
    best_bound,
    block_patterns,
    cone_signs,
    make_feasible,
    polar_bounds,
    projection_batch,
)
from jaxrelu.loops import iterate
from jaxrelu.losses import Loss
from jaxrelu.numerics import eps, matmul, safe_norm, unit
from jaxrelu.optimality import dual_point
from jaxrelu.program import (
    Program,
    block_signs,
    float_masks,
    loss_value,
    residual_at,
    sample_weights,
)
from jaxrelu.projection import Rows, project, shared_rows
from jaxrelu.pytrees import register
from jaxrelu.solvers.base import Evidence, Tolerance, Warm
from jaxrelu.solvers.lagrangian import Iterate, Task, minimise

_INNER_STEPS = 60
_MAX_ROUNDS = 300


class Setting(NamedTuple):
    """The scaled program in flat block order, computed once a call."""

    program: Program
    X: Array
    masks: Array
    rows: Rows
    pattern: Array
    sign: Array
    weight: Array
    scale: Array

    @property
    def num_blocks(self) -> int:
        """2p, or p for a gated program."""
        return self.pattern.shape[0]

    @property
    def loss(self) -> Loss:
        """The loss of the program."""
        return self.program.loss


class WorkingSet(NamedTuple):
    """The slots of a solve, and what is remembered of all blocks.

    Attributes:
        blocks: (k,) int32, the block in each slot; num_blocks where it is empty.
        at: `Iterate` of the slots, in scaled units.
        duals: (b, d), an element of every block's dual cone.
    """

    blocks: Array
    at: Iterate
    duals: Array


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


def setting_of(program: Program) -> Setting:
    """Scales a program and lays out its blocks."""
    X = jnp.asarray(program.X)
    mean = jnp.mean(safe_norm(X))
    usable = (mean > 0) & jnp.isfinite(mean)
    exponent = jnp.round(jnp.log2(jnp.where(usable, mean, 1.0))).astype(jnp.int32)
    scale = jnp.ldexp(jnp.ones((), X.dtype), exponent)
    X = X / scale
    rows = shared_rows(X if program.has_cones else X[:0])
    pattern = block_patterns(program.block_shape)
    return Setting(
        program, X, float_masks(program), rows, pattern, block_signs(program),
        sample_weights(program), scale,
    )  # fmt: skip


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
            task = _task(setting, scaled_lam, state.held.blocks)
            inner = minimise(
                task,
                state.held.at,
                state.precision,
                jnp.minimum(_INNER_STEPS, max_steps - state.steps),
                _first_scale(setting, scaled_lam),
            )
            at = inner.iterate
            held = state.held._replace(at=at)
            weights = jnp.where(inner.active[:, None], at.weights, 0.0)
            residual = -task.gradient(task.fit(weights))
            screened = _screen(setting, held, task, residual, limit, batch)
            found, size = _violators(setting, held, screened, limit)
            candidate = _certificate(setting, scaled_lam, held, task, weights, residual, screened)
            best = _better(candidate, state.best)
            met = tolerance.met(best.upper, best.upper - best.gap)
            none = ~jnp.any(found)
            # A round without violators that leaves the gap where it was cannot be repeated.
            futile = jnp.where(none & (best.gap > 0.5 * state.best.gap), state.futile + 1, 0)
            precision = jnp.where(none, jnp.maximum(0.1 * state.precision, finest), state.precision)
            held = held._replace(duals=screened.duals)
            held, full = _enter(setting, scaled_lam, held, task, screened, found, size, inner.active)
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
        end = iterate(
            step, first, done=lambda s: s.done | ~s.finite, max_steps=_MAX_ROUNDS
        )
        state = end.state
        return SlotEvidence(
            state.best, state.held, state.steps, end.finite & state.finite,
            state.steps >= max_steps, state.full,
        )  # fmt: skip


def cold_start(setting: Setting, slots: int) -> WorkingSet:
    """An empty working set."""
    b, d, n = setting.num_blocks, setting.X.shape[1], setting.rows.unit.shape[0]
    dtype = setting.X.dtype
    at = Iterate(
        jnp.zeros((slots, d), dtype), jnp.zeros((slots, d), dtype), jnp.zeros((slots, n), dtype)
    )
    return WorkingSet(jnp.full((slots,), b, jnp.int32), at, jnp.zeros((b, d), dtype))


def warm_start(setting: Setting, lam: Array, init: Warm, slots: int) -> WorkingSet:
    """The largest blocks of a known point, multipliers from one projection at its residual."""
    empty = cold_start(setting, slots)
    flat = init.weights.reshape(setting.num_blocks, -1) * setting.scale
    size, blocks = jax.lax.top_k(safe_norm(flat), slots)
    used = size > 0
    safe = jnp.where(used, blocks, 0)
    signed = setting.sign[safe][:, None] * setting.masks.T[setting.pattern[safe]]
    c = matmul(signed * init.residual[None], setting.X)
    signs = _cone_signs(setting, safe)
    mu = project(setting.rows, signs, jnp.where(used[:, None], c, 0.0)).multipliers
    # Norm and cone multipliers are proportional to lam to first order.
    mu = mu * (lam / jnp.where(init.lam > 0, init.lam, lam))
    weights = jnp.where(used[:, None], flat[safe], 0.0)
    at = Iterate(weights, (lam / setting.scale) * unit(weights), jnp.where(used[:, None], mu, 0.0))
    return WorkingSet(
        jnp.where(used, blocks, setting.num_blocks).astype(jnp.int32), at, empty.duals
    )


def _cone_signs(setting: Setting, blocks: Array) -> Array:
    n = setting.rows.unit.shape[0]
    return cone_signs(setting.masks[:n], setting.pattern[blocks], setting.X.dtype)


def _task(setting: Setting, lam: Array, blocks: Array) -> Task:
    occupied = blocks < setting.num_blocks
    safe = jnp.where(occupied, blocks, 0)
    sign = jnp.where(occupied, setting.sign[safe], 0.0)
    signs = jnp.where(occupied[:, None], _cone_signs(setting, safe), 0.0)
    return Task(
        setting.X,
        jnp.asarray(setting.program.y),
        setting.weight,
        setting.loss,
        setting.rows,
        sign[:, None] * setting.masks.T[setting.pattern[safe]],
        signs,
        lam,
    )


def _first_scale(setting: Setting, lam: Array) -> Array:
    """A positive size of weights for a working set of zeros: the loss at zero over lam."""
    zero = jnp.zeros_like(jnp.asarray(setting.program.y))
    value = loss_value(setting.program, zero) / lam
    return jnp.where(value > 0, value, 1.0)


def _screen(
    setting: Setting, held: WorkingSet, task: Task, residual: Array, limit: Array, batch: int
) -> PolarBounds:
    """Bounds of all blocks at a residual; those in slots take their own multipliers."""
    own = task.cone_adjoint(held.at.cone_dual)
    duals = held.duals.at[held.blocks].set(own, mode="drop")
    p = setting.masks.shape[1]
    g = matmul((setting.masks * residual[:, None]).T, setting.X)
    c = setting.sign[:, None] * g[setting.pattern]
    inside = jnp.zeros((setting.num_blocks,), bool).at[held.blocks].set(True, mode="drop")
    n = setting.rows.unit.shape[0]
    del p
    return polar_bounds(
        setting.rows,
        setting.masks[:n],
        setting.pattern,
        c,
        duals,
        limit,
        skip=inside,
        batch=batch,
        stop_at_violation=True,
    )


def _violators(
    setting: Setting, held: WorkingSet, screened: PolarBounds, limit: Array
) -> tuple[Array, Array]:
    """Lanes of the last batch whose projection exceeds the limit, and the norms there."""
    size = safe_norm(screened.points)
    return (size > limit) & (screened.bound[screened.chunk] > limit), size


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


def _enter(
    setting: Setting,
    lam: Array,
    held: WorkingSet,
    task: Task,
    screened: PolarBounds,
    found: Array,
    size: Array,
    active: Array,
) -> tuple[WorkingSet, Array]:
    """Puts the worst violators into empty slots, then into those of zero blocks."""
    slots = held.blocks.shape[0]
    entering = min(found.shape[0], slots, max(4, slots // 4))
    _, lane = jax.lax.top_k(jnp.where(found, size, -1.0), entering)
    wanted = found[lane]
    empty = held.blocks >= setting.num_blocks
    rank = jnp.where(empty, 0, jnp.where(active, 2, 1))
    slot = jnp.argsort(rank, stable=True)[:entering]
    free = rank[slot] < 2
    enter = wanted & free
    full = jnp.any(wanted) & ~jnp.any(enter)

    block, q = screened.chunk[lane], screened.points[lane]
    direction = unit(q)
    features = setting.masks.T[setting.pattern[block]] * matmul(direction, setting.X.T)
    bend = task.curvature(task.fit(held.at.weights))
    steepness = matmul(features * features, bend[:, None])[:, 0]
    share = jnp.maximum(jnp.sum(enter), 1).astype(q.dtype)
    magnitude = (size[lane] - lam) / jnp.where(steepness > 0, steepness, 1.0) / share
    magnitude = jnp.where(steepness > 0, magnitude, 0.0)

    target = jnp.where(enter, slot, slots)

    def put(array: Array, values: Array) -> Array:
        return array.at[target].set(values.astype(array.dtype), mode="drop")

    at = Iterate(
        put(held.at.weights, magnitude[:, None] * direction),
        put(held.at.norm_dual, lam * direction),
        put(held.at.cone_dual, screened.multipliers[lane]),
    )
    return held._replace(blocks=put(held.blocks, block), at=at), full


__all__ = ["ActiveNewton", "SlotEvidence", "WorkingSet", "best_bound", "setting_of"]
