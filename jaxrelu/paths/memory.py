"""The memory of a grid: how many lams it holds at once, and the compiler's own plan of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.options import count
from jaxrelu.core.tracing import on_host
from jaxrelu.paths.batches import keeps_lanes, whole
from jaxrelu.paths.checks import check_lams, checked_solver, step_limit
from jaxrelu.paths.traced_solve import solve_compiled
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.program import Program
from jaxrelu.solvers.active_newton import lane_steps
from jaxrelu.solvers.active_newton.lanes import TURN
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.augmented_lagrangian.newton_system import forms_matrix
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
    number = lams.shape[0]
    size = batch_size(program, solver, number, lam_batch_size)
    tolerance, steps = tolerances(program, None, None), step_limit(solver, None)
    if size > 1 and keeps_lanes(solver, program):
        working, held, answer = planned_memory(program, lams[0], tolerance, solver, size)
        # The results are joined at the end: once one by one, once whole.
        return int(max(working + number * answer, held + 2 * number * answer))
    function = solve_compiled if size == 1 else whole
    some = lams[0] if size == 1 else lams[:size]
    args = (program, some, tolerance, steps, None, solver)
    plan = function.lower(*args).compile().memory_analysis()  # type: ignore[attr-defined]
    if plan is None:
        raise RuntimeError(no_plan())
    answer = answer_bytes(jax.eval_shape(lambda: function(*args)))
    earlier = (-(-number // size) - 1) * answer
    working = plan.temp_size_in_bytes + plan.output_size_in_bytes + earlier
    joining = 2 * (earlier + answer) if earlier else 0
    return int(plan.argument_size_in_bytes + max(working, joining))


def batch_size(
    program: Program, solver: Solver, number: int, lam_batch_size: int | None, traced: bool = False
) -> int:
    """Lams solved at once: what was asked for, or a default.

    That is all in a trace, one on a CPU, elsewhere as many as half of the device's memory holds.
    """
    if lam_batch_size is None:
        if traced:
            return number
        if jax.default_backend() == "cpu":
            return 1
        limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 2**34)
        return int(min(number, max(1, limit // 2 // lane_bytes(program, solver))))
    return min(count(lam_batch_size, "lam_batch_size"), number)


def lane_bytes(program: Program, solver: Solver) -> int:
    """Roughly what one lam of a batch takes: its largest arrays, and copies of them at work."""
    n, d = program.X.shape[0], program.block_size
    entries = int(np.prod((*program.block_shape, n)))
    if isinstance(solver, ActiveNewton):
        slots, features = solver.slots(program), min(n, d)
        matrix = forms_matrix(slots, features, program.X.dtype)
        system = (slots * features) ** 2 if matrix else 3 * slots * features**2
        screened = solver.pattern_batch_size or program.block_shape[-1]
        entries = 4 * system + (10 * slots + 3 * screened) * n
    else:
        entries = 12 * entries  # iterates, and those that are remembered
    return int(entries * jnp.dtype(program.X.dtype).itemsize)


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
    at, inside = jax.eval_shape(prepare, *asked)
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
    before = prepare.lower(*asked)  # type: ignore[attr-defined]
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
