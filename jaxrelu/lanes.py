"""Many lams at once without waiting for each other: a batch that the host keeps full.

Lanes of a plain `vmap` run in lockstep: each waits for the slowest, in every inner loop. Here a
lane takes a few Newton steps in one compiled turn and is then free to go where it belongs: into the
next turn, to screening, or out, and the next lam takes its place. The host only says which lanes go
together. Batches come in few widths, each a quarter of the one before, so that few shapes are
compiled.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.loops import all_finite, iterate
from jaxrelu.numerics import matmul
from jaxrelu.program import Program
from jaxrelu.solution import Solution, answer_bytes, joined, shared
from jaxrelu.solve import conclude, prepare
from jaxrelu.solvers.active_newton import ActiveNewton, Round, first_round
from jaxrelu.solvers.base import Tolerance, Warm
from jaxrelu.solvers.lagrangian import (
    Progress,
    begin,
    constant_coupling,
    newton_step,
    outcome,
    watched,
)
from jaxrelu.solvers.rounds import INNER_STEPS, MAX_ROUNDS, solved_slots
from jaxrelu.solvers.working_set import (
    Setting,
    cold_start,
    compiled,
    first_scale,
    task_of,
    warm_start,
)

_logger = logging.getLogger("jaxrelu")

# Newton steps a turn: more, and lanes wait for each other; fewer, and the host is asked too often.
_TURN = 4
# Empty lanes are worth taking along while a batch is at least so full.
_FULL_ENOUGH = 0.75


class Lane(NamedTuple):
    """One lam on its way: its round, and where the solve of that round on the slots stands."""

    lam: Array
    round: Round
    inner: Progress
    coupling: Array | None
    taken: Array
    finite: Array


def solve_lanes(
    program: Program,
    lams: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: Warm | None,
    solver: ActiveNewton,
    lanes: int,
) -> Solution:
    """`solve` at every lam, `lanes` of them at a time; from the host.

    The logger "jaxrelu" is told, at INFO, how many Newton steps were needed and how many the lanes
    executed, waiting included.
    """
    setting, basis = prepare(program, type(program.loss))
    if init is not None and basis is not None:
        init = init._replace(weights=matmul(init.weights, basis))
    count, lanes = lams.shape[0], min(lanes, lams.shape[0])
    first = _load(setting, solver, lams[0], tolerance, init)
    pool = jax.tree.map(lambda a: jnp.broadcast_to(a, (lanes, *a.shape)), first)
    at_work: list[int] = [-1] * lanes  # which lam a lane holds
    rounds = np.zeros(lanes, int)
    stepping: list[int] = []
    screening: list[int] = []
    waiting = list(range(count - 1, -1, -1))
    answers: dict[int, Solution] = {}
    needed = executed = 0
    while True:
        for lane in range(lanes):
            if at_work[lane] < 0 and waiting:
                at_work[lane] = waiting.pop()
                rounds[lane] = 0
                new = _load(setting, solver, lams[at_work[lane]], tolerance, init)
                pool = _put(setting, pool, lane, new)
                stepping.append(lane)
        if not stepping and not screening:
            break
        if len(stepping) >= len(screening):
            group, stepping = _group(stepping, lanes)
            index = _padded(group, lanes)
            pool, steps, ended = _turn(setting, pool, index, max_steps)
            steps, ended = np.asarray(steps), np.asarray(ended)
            needed, executed = needed + int(steps.sum()), executed + steps.size * int(steps.max())
            screening += [lane for lane, end in zip(group, ended, strict=False) if end]
            stepping += [lane for lane, end in zip(group, ended, strict=False) if not end]
            continue
        group, screening = _group(screening, lanes)
        pool, done = _screen(setting, pool, _padded(group, lanes), solver, tolerance, max_steps)
        for lane, end in zip(group, np.asarray(done), strict=False):
            rounds[lane] += 1
            if end or rounds[lane] >= MAX_ROUNDS:
                answers[at_work[lane]] = shared(
                    _finish(setting, program, basis, pool, lane, solver, tolerance, max_steps)
                )
                at_work[lane] = -1
            else:
                stepping.append(lane)
    _logger.info("%d lams: %d Newton steps needed, %d executed", count, needed, executed)
    return joined([answers[k] for k in range(count)], jnp.stack)


def no_plan() -> str:
    """What a device that plans no memory is answered."""
    return f"XLA plans no memory on {jax.default_backend()}: bound it by lam_batch_size instead."


def planned_memory(
    program: Program, lam: Array, tolerance: Tolerance, solver: ActiveNewton, lanes: int
) -> tuple[int, int, int]:
    """Bytes that `solve_lanes` holds at work, between turns, and for one answer, as XLA plans."""
    setting, basis = jax.eval_shape(lambda p: prepare(p, type(p.loss)), program)
    steps = jnp.asarray(0, jnp.int32)
    lane = jax.eval_shape(lambda *args: _load(*args), setting, solver, lam, tolerance, None)
    pool = jax.tree.map(lambda a: jax.ShapeDtypeStruct((lanes, *a.shape), a.dtype), lane)
    index = jax.ShapeDtypeStruct((lanes,), jnp.int32)
    turn = _turn.lower(setting, pool, index, steps)  # type: ignore[attr-defined]
    screen = _screen.lower(setting, pool, index, solver, tolerance, steps)  # type: ignore[attr-defined]
    finish = _finish.lower(setting, program, basis, pool, 0, solver, tolerance, steps)  # type: ignore[attr-defined]
    plans = [lowered.compile().memory_analysis() for lowered in (turn, screen, finish)]
    if None in plans:
        raise RuntimeError(no_plan())
    answer = jax.eval_shape(
        lambda *args: _finish(*args), setting, program, basis, pool, 0, solver, tolerance, steps
    )
    held = max(plan.argument_size_in_bytes for plan in plans)
    peak = max(
        plan.argument_size_in_bytes
        + plan.temp_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        for plan in plans
    )
    return peak, held, answer_bytes(answer)


def widths(lanes: int) -> list[int]:
    """The numbers of lanes that are compiled for: all, a quarter, ..., one."""
    sizes = [lanes]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 4))
    return sizes


def _group(ready: list[int], lanes: int) -> tuple[list[int], list[int]]:
    """Those that go now, and those that wait for the next turn."""
    width = next(w for w in widths(lanes) if len(ready) >= _FULL_ENOUGH * w)
    return ready[:width], ready[width:]


def _padded(group: list[int], lanes: int) -> Any:
    """Indices of a group, filled up to a width with one that belongs to no lane."""
    width = min(w for w in widths(lanes) if w >= len(group))
    return np.asarray(group + [lanes] * (width - len(group)), np.int32)


def _gather(tree: Any, index: Array) -> Any:
    return jax.tree.map(lambda a: jnp.take(a, index, axis=0, mode="clip"), tree)


def _scatter(tree: Any, index: Array, new: Any) -> Any:
    return jax.tree.map(lambda a, b: a.at[index].set(b, mode="drop"), tree, new)


@compiled
def _load(
    setting: Setting, solver: ActiveNewton, lam: Array, tolerance: Tolerance, init: Warm | None
) -> Lane:
    slots = solver.slots(setting.program)
    held = cold_start(setting, slots) if init is None else warm_start(setting, lam, init, slots)
    return _lane(setting, lam, first_round(setting, tolerance, held), jnp.asarray(True))


def _lane(setting: Setting, lam: Array, state: Round, finite: Array) -> Lane:
    """A lane at the beginning of a round."""
    scaled = lam / setting.scale
    task = task_of(setting, scaled, state.held.blocks)
    inner = begin(task, state.held.at, first_scale(setting, scaled))
    return Lane(lam, state, inner, constant_coupling(task), jnp.asarray(0, jnp.int32), finite)


@partial(compiled, donate=(1,))
def _put(setting: Setting, pool: Lane, lane: Array, new: Lane) -> Lane:
    del setting
    return jax.tree.map(lambda a, b: a.at[lane].set(b), pool, new)


@partial(compiled, donate=(1,))
def _turn(
    setting: Setting, pool: Lane, index: Array, max_steps: Array
) -> tuple[Lane, Array, Array]:
    """A few Newton steps of some lanes; how many each took, and which have ended their round."""

    def one(lane: Lane, real: Array) -> tuple[tuple[Progress, Array, Array], Array, Array]:
        scaled = lane.lam / setting.scale
        task = task_of(setting, scaled, lane.round.held.blocks)
        scale = first_scale(setting, scaled)
        most = jnp.minimum(INNER_STEPS, max_steps - lane.round.steps)
        end = iterate(
            lambda s: newton_step(task, s, lane.round.precision, scale, lane.coupling),
            lane.inner,
            done=lambda s: s.done,
            max_steps=jnp.where(real, jnp.minimum(_TURN, most - lane.taken), 0),
            watch=watched,
        )
        taken, finite = lane.taken + end.num_steps, lane.finite & end.finite
        ended = end.state.done | (taken >= most) | ~finite
        return (end.state, taken, finite), end.num_steps, ended

    lanes = _gather(pool, index)
    (inner, taken, finite), steps, ended = jax.vmap(one)(lanes, index < pool.lam.shape[0])
    # The coupling, by far the largest, stays where it is.
    moved = _scatter((pool.inner, pool.taken, pool.finite), index, (inner, taken, finite))
    return pool._replace(inner=moved[0], taken=moved[1], finite=moved[2]), steps, ended


@partial(compiled, donate=(1,))
def _screen(
    setting: Setting,
    pool: Lane,
    index: Array,
    solver: ActiveNewton,
    tolerance: Tolerance,
    max_steps: Array,
) -> tuple[Lane, Array]:
    """Ends the round of some lanes and begins the next; says which need none."""

    def one(lane: Lane) -> tuple[Lane, Array]:
        scaled, held = lane.lam / setting.scale, lane.round.held
        task, scale = task_of(setting, scaled, held.blocks), first_scale(setting, scaled)
        inner = outcome(task, lane.inner, scale, lane.taken, lane.finite)
        solved = solved_slots(setting, scaled, held, task, inner)
        new = solver.after(setting, lane.lam, tolerance, max_steps, lane.round, solved)
        sound = all_finite(new)
        state = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, lane.round)
        finite = lane.finite & sound & new.finite
        return _lane(setting, lane.lam, state, finite), state.done | ~finite

    lanes, done = jax.vmap(one)(_gather(pool, index))
    return _scatter(pool, index, lanes), done


@compiled
def _finish(
    setting: Setting,
    program: Program,
    basis: Array | None,
    pool: Lane,
    lane: Array,
    solver: ActiveNewton,
    tolerance: Tolerance,
    max_steps: Array,
) -> Solution:
    one = jax.tree.map(lambda a: a[lane], pool._replace(coupling=None))
    evidence = solver.evidence(setting, one.round, max_steps, one.finite)
    if basis is not None:
        evidence = evidence._replace(weights=matmul(evidence.weights, basis.T))
    return conclude(program, one.lam, tolerance, evidence)
