"""What lanes do, compiled: Newton steps, screening, certificates, for any few of a pool at once.

A pool is a `Lane` with a leading axis on every leaf. Actions take the indices of the lanes that go
together; an index beyond the pool fills up a width and does nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.compilation import driven
from jaxrelu.core.loops import all_finite, iterate
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.active_newton.rounds import INNER_STEPS, solved_slots
from jaxrelu.solvers.active_newton.solver import (
    ActiveNewton,
    Candidate,
    RoundState,
    first_round,
    judged,
    next_lam,
    no_candidate,
)
from jaxrelu.solvers.active_newton.working_set import first_scale, subproblem_of
from jaxrelu.solvers.augmented_lagrangian.newton_direction import constant_coupling
from jaxrelu.solvers.augmented_lagrangian.newton_method import (
    Progress,
    begin,
    newton_step,
    outcome,
    watched,
)
from jaxrelu.solvers.base import Tolerance, WarmStart
from jaxrelu.solvers.scaled_program import Prepared, ScaledProgram
from jaxrelu.solvers.verdict import solution_of


class Lane(NamedTuple):
    """One lam on its way: its round, and where the solve of that round on the slots stands."""

    lam: Array
    round: RoundState
    shown: Candidate
    inner: Progress
    coupling: Array | None
    taken: Array
    finite: Array


def _gather(tree: Any, index: Array) -> Any:
    return jax.tree.map(lambda a: jnp.take(a, index, axis=0, mode="clip"), tree)


def _scatter(tree: Any, index: Array, new: Any) -> Any:
    return jax.tree.map(lambda a, b: a.at[index].set(b, mode="drop"), tree, new)


@driven
def load(
    scaled: ScaledProgram,
    solver: ActiveNewton,
    lam: Array,
    tolerance: Tolerance,
    init: WarmStart | None,
) -> Lane:
    """A new lane, from a known point or from nothing."""
    first = first_round(scaled, lam, tolerance, init, solver.slots(scaled.program))
    return _lane(scaled, lam, first, no_candidate(first), jnp.asarray(True))


def _lane(
    scaled: ScaledProgram, lam: Array, state: RoundState, shown: Candidate, finite: Array
) -> Lane:
    """A lane at the beginning of a round."""
    problem = subproblem_of(scaled, state.schedule.stage, state.working.blocks)
    scale = first_scale(scaled, state.schedule.stage)
    inner = begin(problem, state.working.at, state.schedule.precision, scale)
    taken = jnp.asarray(0, jnp.int32)
    return Lane(lam, state, shown, inner, constant_coupling(problem), taken, finite)


@partial(driven, donate=(1,))
def put(scaled: ScaledProgram, pool: Lane, lane: Array, new: Lane) -> Lane:
    """A new lane takes a place in the pool."""
    del scaled
    return jax.tree.map(lambda a, b: a.at[lane].set(b), pool, new)


@partial(driven, donate=(1,))
def copy(scaled: ScaledProgram, pool: Lane, source: Array, target: Array) -> Lane:
    """One lane becomes like another."""
    del scaled
    return jax.tree.map(lambda a: a.at[target].set(a[source]), pool)


@partial(driven, donate=(1,))
def retarget(
    scaled: ScaledProgram,
    pool: Lane,
    lane: Array,
    lost: Array,
    lam: Array,
    tolerance: Tolerance,
    init: WarmStart | None,
) -> Lane:
    """A lane that has come to its lam goes on to a smaller one; one that is lost begins again."""
    one = jax.tree.map(lambda a: a[lane], pool)
    new = jax.lax.cond(
        lost,
        lambda: first_round(scaled, lam, tolerance, init, one.round.working.blocks.shape[0]),
        lambda: next_lam(scaled, one.round, lam, tolerance),
    )
    moved = _lane(scaled, lam, new, no_candidate(new), one.finite | lost)
    return jax.tree.map(lambda a, b: a.at[lane].set(b), pool, moved)


@partial(driven, donate=(1,))
def turn(
    scaled: ScaledProgram, pool: Lane, index: Array, most: Array, max_steps: Array
) -> tuple[Lane, Array, Array]:
    """Newton steps of some lanes, at most `most`; how many they took, and who ended a round."""

    def one(lane: Lane, real: Array) -> tuple[tuple[Progress, Array, Array], Array, Array]:
        stage = lane.round.schedule.stage
        problem = subproblem_of(scaled, stage, lane.round.working.blocks)
        scale = first_scale(scaled, stage)
        limit = jnp.minimum(INNER_STEPS, max_steps - lane.round.schedule.steps)
        end = iterate(
            lambda s: newton_step(problem, s, lane.round.schedule.precision, scale, lane.coupling),
            lane.inner,
            done=lambda s: s.done,
            max_steps=jnp.where(real, jnp.minimum(most, limit - lane.taken), 0),
            watch=watched,
        )
        taken, finite = lane.taken + end.num_steps, lane.finite & end.finite
        ended = end.state.done | (taken >= limit) | ~finite
        return (end.state, taken, finite), end.num_steps, ended

    lanes = _gather(pool, index)
    (inner, taken, finite), steps, ended = jax.vmap(one)(lanes, index < pool.lam.shape[0])
    # The coupling, by far the largest, stays where it is.
    moved = _scatter((pool.inner, pool.taken, pool.finite), index, (inner, taken, finite))
    return pool._replace(inner=moved[0], taken=moved[1], finite=moved[2]), steps, ended


@partial(driven, donate=(1,))
def screen(
    scaled: ScaledProgram,
    pool: Lane,
    index: Array,
    solver: ActiveNewton,
    tolerance: Tolerance,
    max_steps: Array,
) -> tuple[Lane, tuple[Array, Array, Array]]:
    """Ends the round of some lanes and begins the next.

    Says of each whether a certificate is due (or it broke), whether no block is missing at its lam,
    and whether nothing better can come of it.
    """

    def one(lane: Lane) -> tuple[Lane, tuple[Array, Array, Array]]:
        stage, working = lane.round.schedule.stage, lane.round.working
        problem, scale = subproblem_of(scaled, stage, working.blocks), first_scale(scaled, stage)
        inner = outcome(problem, lane.inner, scale, lane.taken, lane.finite)
        solved = solved_slots(scaled, stage, working, problem, inner)
        new, shown = solver.screened(scaled, lane.lam, tolerance, max_steps, lane.round, solved)
        sound = all_finite((new, shown))
        new, shown = jax.tree.map(
            lambda a, b: jnp.where(sound, a, b), (new, shown), (lane.round, lane.shown)
        )
        finite, found = sound & new.finite, shown.found
        flags = (found.due | ~finite, found.settled, ~finite | found.full | found.last)
        return _lane(scaled, lane.lam, new, shown, finite), flags

    lanes, flags = jax.vmap(one)(_gather(pool, index))
    return _scatter(pool, index, lanes), flags


@partial(driven, donate=(1,))
def judge(
    scaled: ScaledProgram, pool: Lane, index: Array, tolerance: Tolerance
) -> tuple[Lane, Array]:
    """Certificates of some lanes, and which have ended."""

    def one(lane: Lane) -> tuple[tuple[RoundState, Array], Array]:
        new = judged(scaled, lane.lam, tolerance, lane.round, lane.shown)
        sound = all_finite(new)
        new = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, lane.round)
        finite = lane.finite & sound
        return (new, finite), new.done | ~finite

    new, done = jax.vmap(one)(_gather(pool._replace(coupling=None), index))
    rounds, finite = _scatter((pool.round, pool.finite), index, new)
    return pool._replace(round=rounds, finite=finite), done


@driven
def finish(
    at: Prepared,
    pool: Lane,
    lane: Array,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    solver: ActiveNewton,
) -> Solution:
    """The answer of a lane that has ended; lam and the tolerance are those of the user."""
    one = jax.tree.map(lambda a: a[lane], pool._replace(coupling=None))
    evidence = solver.evidence(one.round, max_steps, one.finite)
    return solution_of(at, one.lam, lam, tolerance, evidence)
