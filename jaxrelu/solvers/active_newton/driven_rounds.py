"""The pieces of a round, compiled one by one for a driver on the host.

Compiled for every number of slots are `solve`, `enter`, `couple` and `recouple`; the others have
one shape, whatever the number of slots.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import driven
from jaxrelu.geometry.correlation_bounds import (
    DualElements,
    Lanes,
    Search,
    after_projection,
    is_over,
)
from jaxrelu.losses.base import usual_curvature
from jaxrelu.programs.bounds import Blocks
from jaxrelu.programs.units import into_units, out_of_units
from jaxrelu.solvers import verdict
from jaxrelu.solvers.active_newton import rounds, slot_certificates, working_set
from jaxrelu.solvers.active_newton.rounds import Finding, Overall, Schedule, Solved
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.active_newton.working_set import Screened, WorkingSet
from jaxrelu.solvers.augmented_lagrangian.newton_direction import (
    constant_coupling,
    updated_coupling,
)
from jaxrelu.solvers.base import Evidence, Tolerance, WarmStart
from jaxrelu.solvers.scaled_program import Prepared, ScaledProgram


class Answer(NamedTuple):
    """A certified answer at one lam.

    Attributes:
        verdict: `Verdict`, of the slots alone.
        num_steps: int32, Newton steps taken.
        reach: how far below this lam, relative to it, the answer may still be within the tolerance.
        allowed: the gap that the tolerance asks for.
    """

    verdict: verdict.Verdict
    num_steps: Any
    reach: Any
    allowed: Any

    @property
    def gap(self) -> float:
        """Upper - lower."""
        with np.errstate(invalid="ignore"):  # both may be infinite
            return float(self.verdict.upper - self.verdict.lower)

    @property
    def active(self) -> int:
        """Blocks that are not zero."""
        return int(np.count_nonzero(np.any(self.verdict.weights != 0, axis=1)))


@partial(driven, optimised=False)
def begin(scaled: ScaledProgram, lam: Array, known: Array, tolerance: Tolerance) -> Schedule:
    """`rounds.first_schedule`."""
    return rounds.first_schedule(scaled, lam, known, tolerance)


@partial(driven, optimised=False)
def warm_start(
    scaled: ScaledProgram, lam: Array, warm: WarmStart, empty: WorkingSet
) -> tuple[Array, WorkingSet]:
    """The lam of a known point, and its working set in as many slots as an empty one has."""
    known = working_set.known_stage(scaled, lam, warm)
    return known, working_set.warm_start(scaled, known, warm, empty.blocks.shape[0])


@driven
def couple(scaled: ScaledProgram, blocks: Array) -> Array | None:
    """`constant_coupling` of the blocks in slots."""
    problem = working_set.subproblem_of(scaled, jnp.ones((), scaled.X.dtype), blocks)
    return constant_coupling(problem)


def _recouple(scaled: ScaledProgram, blocks: Array, coupling: Array, changed: Array) -> Array:
    problem = working_set.subproblem_of(scaled, jnp.ones((), scaled.X.dtype), blocks)
    return updated_coupling(problem, coupling, changed)


# `updated_coupling`; the old one is given up.
recouple = driven(_recouple, donate=(2,))


@driven
def solve(
    scaled: ScaledProgram,
    schedule: Schedule,
    working: WorkingSet,
    ratio: Array,
    max_steps: Array,
    coupling: Array | None,
) -> Solved:
    """`rounds.solve_slots` from a working set of another lam."""
    working, most = working_set.at_stage(working, ratio), max_steps - schedule.steps
    return rounds.solve_slots(scaled, schedule.stage, working, schedule.precision, most, coupling)


@driven
def begin_screening(
    scaled: ScaledProgram,
    solver: ActiveNewton,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    schedule: Schedule,
    solved: Overall,
) -> tuple[Array, Array, Search, Lanes, Array]:
    """The limit, the raw correlations, the search, the first lanes, and whether it is over."""
    limit = rounds.round_limit(scaled, lam, tolerance, max_steps, schedule, solved)
    c, search = working_set.begin_screening(
        scaled, solved.duals, solved.inside, solved.residual, limit, solver.pattern_batch_size
    )
    lanes = working_set.next_to_project(scaled, search, c)
    return limit, c, search, lanes, is_over(search, True)


@driven
def go_on_screening(
    scaled: ScaledProgram,
    solver: ActiveNewton,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    schedule: Schedule,
    slots: Array,
    solved: Overall,
    limit: Array,
    c: Array,
    search: Search,
    lanes: Lanes,
    points: Array,
    multipliers: Array,
) -> tuple[Search, Lanes, Array, tuple[Schedule, Finding, Screened]]:
    """The search after a projection, the next lanes, whether it is over, and what follows then."""
    search = after_projection(search, scaled.rows, lanes, points, multipliers, limit, rising=False)
    every = working_set.screened(search.bounds, limit, scaled.has_bias)
    following = rounds.after_screening(
        scaled, lam, tolerance, max_steps, schedule, slots, solved, every
    )
    lanes = working_set.next_to_project(scaled, search, c)
    return search, lanes, is_over(search, True), (*following, every)


@partial(driven, optimised=False)
def enter(
    scaled: ScaledProgram, stage: Array, working: WorkingSet, screened: Screened, ratio: Array
) -> WorkingSet:
    """`working_set.enter` after a change of lam."""
    return working_set.enter(scaled, stage, working_set.at_stage(working, ratio), screened)


cones_of = driven(slot_certificates.cones_of)


@driven
def conclude(
    at: Prepared,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    schedule: Schedule,
    found: Finding,
    solved: Overall,
    blocks: Blocks,
    duals: DualElements,
    gap_before: Array,
) -> tuple[Answer, Schedule, Array]:
    """A certificate, the schedule after it, and whether the last round has been."""
    steps = schedule.steps
    evidence = Evidence(blocks, solved.residual, duals, steps, solved.finite, steps >= max_steps)
    judged = verdict.conclude(at, lam, tolerance, evidence)
    # The rounds go by the values as they are printed.
    given = verdict.in_users_numbers(at, tolerance)
    upper, gap = judged.upper, judged.upper - judged.lower
    allowed = given.absolute + given.relative * jnp.abs(upper)
    reach = _reach(at, solved.residual, judged.fit, allowed)
    answer = Answer(judged, steps, reach, allowed)
    return answer, *rounds.after_certificate(given, schedule, found, upper, gap, gap_before)


def _reach(at: Prepared, residual: Array, users_fit: Array, allowed: Array) -> Array:
    r"""The largest 1 - t at which weights with the dual point t r may have an allowed gap.

    Fenchel and Young leave sum_i (1 - t)^2 r_i^2 / (2 L c_i) at least for l'' <= L, and just that
    for the squared loss. A loss without an L has about as much with its curvature at the fit.
    """
    fit, y = into_units(users_fit, at.units.fit), jnp.asarray(at.scaled.program.y)
    weight, bend = at.scaled.weight, usual_curvature(at.loss, fit, y)
    some = (weight > 0) & (bend > 0)
    share = jnp.where(some, residual**2 / jnp.where(some, weight * bend, 1.0), 0.0)
    least = out_of_units(0.5 * jnp.sum(share), at.units.objective)
    return jnp.where(least > 0, jnp.sqrt(allowed / jnp.where(least > 0, least, 1.0)), jnp.inf)
