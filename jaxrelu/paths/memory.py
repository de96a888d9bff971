"""How much memory a grid needs, from the compiler's own plan of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.tracing import on_host
from jaxrelu.paths.checks import check_lams, checked_solver, step_limit
from jaxrelu.paths.grid import batch_size, keeps_lanes, solve_batch
from jaxrelu.paths.solve import solve_compiled
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.program import Program
from jaxrelu.solvers.active_newton import lane_steps
from jaxrelu.solvers.active_newton.lanes import TURN
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Solver, Tolerance, tolerances
from jaxrelu.solvers.scaled_program import prepare


@on_host()
def estimate_memory(
    program: Program,
    lams: Any,
    *,
    solver: Solver | None = None,
    lam_batch_size: int | None = None,
) -> int:
    """The peak memory of `solve_grid` in bytes, on the device.

    The program, the results of all lams, and what the compiled batch holds at once, as XLA planned
    it for this device. The Python process, JAX and what its compiler leaves behind (on a CPU about
    1 GB in all) come on top.

    Args:
        program: a `ConvexProgram` or `GatedProgram`, or one of `jax.ShapeDtypeStruct` leaves.
        lams: (L,), as for `solve_grid`.
        solver: as for `solve_grid`.
        lam_batch_size: as for `solve_grid`.

    Returns:
        Bytes. It compiles the batch, as the first call of `solve_grid` does, and runs nothing.

    Raises:
        ValueError, TypeError: as `solve_grid`; RuntimeError on a device without such a plan.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4))
        >>> jr.estimate_memory(program, [0.5, 0.2]) < 10_000_000
        True

    Reference: `jax.stages.Compiled.memory_analysis`, the plan that this reads.
    """
    program = jax.tree.map(_filled, program)
    check_program(program)
    solver = checked_solver(program, solver)
    lams = check_lams(program, lams)
    count = lams.shape[0]
    size = batch_size(program, solver, count, lam_batch_size)
    tolerance, steps = tolerances(program, None, None), step_limit(solver, None)
    if size > 1 and keeps_lanes(solver, program):
        working, held, answer = planned_memory(program, lams[0], tolerance, solver, size)
        # The results are joined at the end: once one by one, once whole.
        return int(max(working + count * answer, held + 2 * count * answer))
    function = solve_compiled if size == 1 else solve_batch
    some = lams[0] if size == 1 else lams[:size]
    args = (program, some, tolerance, steps, None, solver, type(program.loss))
    plan = function.lower(*args).compile().memory_analysis()
    if plan is None:
        raise RuntimeError(no_plan())
    answer = answer_bytes(jax.eval_shape(lambda: function(*args)))
    earlier = (-(-count // size) - 1) * answer
    working = plan.temp_size_in_bytes + plan.output_size_in_bytes + earlier
    joining = 2 * (earlier + answer) if earlier else 0
    return int(plan.argument_size_in_bytes + max(working, joining))


def _filled(leaf: Any) -> Any:
    """Ones in place of an array of which only the shape is given: valid data, targets and masks."""
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    return np.ones(leaf.shape, leaf.dtype) if is_shape else leaf


def no_plan() -> str:
    """What a device that plans no memory is answered."""
    return f"XLA plans no memory on {jax.default_backend()}: bound it by lam_batch_size instead."


def planned_memory(
    program: Program, lam: Array, tolerance: Tolerance, solver: ActiveNewton, lanes: int
) -> tuple[int, int, int]:
    """Bytes that `solve_lanes` holds at work, between turns, and for one answer, as XLA plans."""
    asked = (program, lam[None], tolerance, None)
    at, inside = jax.eval_shape(lambda p, *args: prepare(p, *args, type(p.loss)), *asked)
    scaled, within = at.scaled, inside.tolerance
    steps = jnp.asarray(0, jnp.int32)
    lane = jax.eval_shape(lambda *args: lane_steps.load(*args), scaled, solver, lam, within, None)
    pool = jax.tree.map(lambda a: jax.ShapeDtypeStruct((lanes + 1, *a.shape), a.dtype), lane)
    index = jax.ShapeDtypeStruct((lanes,), jnp.int32)
    turn = lane_steps.turn.lower(scaled, pool, index, TURN, steps)  # type: ignore[attr-defined]
    screen = lane_steps.screen.lower(scaled, pool, index, solver, within, steps)  # type: ignore[attr-defined]
    judge = lane_steps.judge.lower(scaled, pool, index, within)  # type: ignore[attr-defined]
    last = (at, pool, 0, lam, tolerance, steps, solver)
    finish = lane_steps.finish.lower(*last)  # type: ignore[attr-defined]
    before = prepare.lower(*asked, type(program.loss))
    found = [each.compile().memory_analysis() for each in (turn, screen, judge, finish, before)]
    plans = [plan for plan in found if plan is not None]
    if len(plans) < len(found):
        raise RuntimeError(no_plan())
    answer = jax.eval_shape(lambda *args: lane_steps.finish(*args), *last)
    held = max(plan.argument_size_in_bytes for plan in plans)
    peak = max(
        plan.argument_size_in_bytes
        + plan.temp_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        for plan in plans
    )
    return peak, held, answer_bytes(answer)


def answer_bytes(answer: Any) -> int:
    """The bytes of a `shared` answer, from the shapes of its leaves."""
    once = replace(answer, certificate=replace(answer.certificate, weights=None))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(once))
