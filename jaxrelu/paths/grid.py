"""`solve_grid`: many lams as one batch on one device, or spread over several.

On a CPU a batch gains nothing, so that lams are taken one at a time there; on an accelerator the
batch is what fills the device, and `jaxrelu.solvers.active_newton.lanes` keeps it full. Inside a
trace, with first-order solvers and with very many samples the lanes of a batch run in lockstep.
Over a mesh every device has lams of its own and stops on its own: no loop holds a collective.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrelu.core.checks import check_type
from jaxrelu.core.options import count, flag
from jaxrelu.core.tracing import is_traced, refuse_traced
from jaxrelu.geometry.gram import are_many
from jaxrelu.paths.checks import check_lams, checked_solver, step_limit, warm_point
from jaxrelu.paths.solve import solve_compiled, solve_traced
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.preparation import with_interior
from jaxrelu.programs.program import Program
from jaxrelu.programs.sharding import automatic
from jaxrelu.programs.solution import Solution, joined, shared
from jaxrelu.solvers.active_newton.lanes import solve_lanes
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.augmented_lagrangian.newton_system import forms_matrix
from jaxrelu.solvers.base import Solver, Tolerance, WarmStart, tolerances


def solve_grid(
    program: Program,
    lams: Any,
    *,
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = None,
    init: Solution | None = None,
    solver: Solver | None = None,
    lam_batch_size: int | None = None,
    pattern_batch_size: int | None = None,
    warm_starts: bool = False,
    mesh: Mesh | None = None,
) -> Solution:
    r"""Solves a convex program at many lams as one batch.

    Inside a trace this is ``vmap`` of `solve` over lam. On the host the lams are taken
    `lam_batch_size` at a time; with the default solver a lam begins as soon as another ends. On a
    CPU, where batching gains nothing, the default is one at a time.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        lams: (L,), each > 0, in any order.
        rtol: relative tolerance of the gap, as in `solve`.
        atol: absolute tolerance of the gap, as in `solve`.
        max_steps: limit on steps of the solver for each lam.
        init: a `Solution` that every lam starts from.
        solver: as in `solve`.
        lam_batch_size: lams solved at once (on each device); bounds the memory. By default one on a
            CPU, elsewhere as many as half of the device's memory holds, in a trace all.
        pattern_batch_size: patterns handled at once, as in `ActiveNewton`; bounds the memory.
        warm_starts: let the lams start from each other, as a path does: one lane goes ahead, down
            through all of them, and leaves a rough solution at each. Much faster on an accelerator;
            answers are certified as always, but agree with those of `solve` within the tolerances
            only, where without it float leaves are equal to 1e-6. For `ActiveNewton`, on the host.
        mesh: devices to spread the lams over, along the first axis of the mesh, also those of
            several processes (`jax.distributed`). The answers come back on all of them.

    Returns:
        `Solution` with a leading axis L on every leaf; row k belongs to ``lams[k]``.

    Raises:
        ValueError, TypeError: as `solve`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4))
        >>> jr.solve_grid(program, [0.5, 0.2]).status.tolist()
        [0, 0]

    Reference: Friedman, Hastie and Tibshirani (Journal of Statistical Software, 2010) on grids of
    lam and warm starts along them.
    """
    check_program(program)
    sizes = {"lam_batch_size": lam_batch_size, "pattern_batch_size": pattern_batch_size}
    refuse_traced("solve_grid", sizes)
    solver = checked_solver(program, solver)
    if pattern_batch_size is not None:
        if not isinstance(solver, ActiveNewton):
            raise TypeError(
                "pattern_batch_size is for ActiveNewton, which screens all patterns; leave it out "
                f"for {type(solver).__name__}."
            )
        at_once = count(pattern_batch_size, "pattern_batch_size")
        solver = replace(solver, pattern_batch_size=at_once)
    warm_starts = flag(warm_starts, "warm_starts")
    if mesh is not None:
        check_type(mesh, "mesh", Mesh, "a mesh of devices, such as jax.make_mesh((1,), ('lams',))")
    lams = check_lams(program, lams)
    warm = warm_point(program, init)
    tolerance = tolerances(program, rtol, atol)
    steps = step_limit(solver, max_steps)
    number = lams.shape[0]
    inside = is_traced(program, lams, warm, tolerance, steps)
    if inside and lam_batch_size is None:
        lam_batch_size = number
    lam_batch_size = batch_size(program, solver, number, lam_batch_size)
    loss_type = type(program.loss)
    if mesh is not None:
        if inside:
            raise TypeError("a mesh is for calls from the host: leave mesh out inside a trace.")
        if warm_starts:
            raise ValueError("lams on several devices do not start from each other: pass one only.")
        spread = _over_mesh(automatic(mesh), lam_batch_size if lam_batch_size < number else None)
        devices = mesh.devices.shape[0]
        # Every device gets equally many: the last lam fills up.
        index = np.minimum(np.arange(-(-number // devices) * devices), number - 1)
        warm = None if warm is None else jax.tree.map(np.asarray, warm)
        filled = spread(program, np.asarray(lams)[index], tolerance, steps, warm, solver, loss_type)
        return shared(jax.tree.map(lambda a: a[:number], filled))
    if keeps_lanes(solver, program) and not inside:
        if lam_batch_size > 1 or warm_starts:
            args = (tolerance, steps, warm, solver, lam_batch_size, warm_starts)
            return solve_lanes(program, lams, *args)
    elif warm_starts:
        raise ValueError(
            "warm_starts is for ActiveNewton, called from the host, and cones of at most "
            "8192 samples: leave it out, or use solve_path."
        )
    if lam_batch_size == 1 and not inside:
        one_by_one = [
            shared(solve_compiled(program, lam, tolerance, steps, warm, solver, loss_type))
            for lam in lams
        ]
        return joined(one_by_one, jnp.stack)
    if inside and lam_batch_size < number:
        program = with_interior(program)
        return jax.lax.map(
            lambda lam: solve_traced(program, lam, tolerance, steps, warm, solver),
            lams,
            batch_size=lam_batch_size if lam_batch_size > 1 else None,
        )
    if lam_batch_size >= number:
        return shared(solve_batch(program, lams, tolerance, steps, warm, solver, loss_type))
    parts = []
    for start in range(0, number, lam_batch_size):
        # The last chunk is filled up with its last lam, so that one shape serves all.
        index = np.minimum(np.arange(start, start + lam_batch_size), number - 1)
        part = shared(solve_batch(program, lams[index], tolerance, steps, warm, solver, loss_type))
        parts.append(jax.tree.map(lambda a, s=start: a[: number - s], part))
    return joined(parts, jnp.concatenate)


def keeps_lanes(solver: Solver, program: Program) -> TypeGuard[ActiveNewton]:
    """Whether a batch from the host is one of `jaxrelu.solvers.active_newton.lanes`."""
    many = program.has_cones and are_many(program.X.shape[0])
    return isinstance(solver, ActiveNewton) and not many


def batch_size(program: Program, solver: Solver, number: int, lam_batch_size: int | None) -> int:
    """Lams solved at once: what was asked for, one on a CPU, elsewhere as many as memory holds."""
    if lam_batch_size is None:
        if jax.default_backend() == "cpu":
            return 1
        limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 2**34)
        return int(min(number, max(1, limit // 2 // lane_bytes(program, solver))))
    return min(count(lam_batch_size, "lam_batch_size"), number)


def lane_bytes(program: Program, solver: Solver) -> int:
    """Roughly what one lam of a batch takes: its largest arrays, and copies of them at work."""
    (n, d), entries = program.X.shape, int(np.prod((*program.block_shape, program.X.shape[0])))
    if isinstance(solver, ActiveNewton):
        slots, features = solver.slots(program), min(n, d)
        matrix = forms_matrix(slots, features, program.X.dtype)
        system = (slots * features) ** 2 if matrix else 3 * slots * features**2
        screened = solver.pattern_batch_size or program.block_shape[-1]
        entries = 4 * system + (10 * slots + 3 * screened) * n
    else:
        entries = 12 * entries  # iterates, and those that are remembered
    return int(entries * jnp.dtype(program.X.dtype).itemsize)


@partial(jax.jit, static_argnames=("loss_type",))
def solve_batch(
    program: Program,
    lams: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: WarmStart | None,
    solver: Any,
    loss_type: type,
) -> Solution:
    """The whole batch, compiled; `loss_type` is part of the key (`core.pytrees`)."""
    del loss_type
    # What does not depend on lam is computed once, outside the batch.
    program = with_interior(program)
    return jax.vmap(lambda lam: solve_traced(program, lam, tolerance, max_steps, init, solver))(
        lams
    )


@cache
def _over_mesh(mesh: Mesh, batch: int | None) -> Any:
    """The compiled grid over a mesh, one function for a mesh and a batch size."""
    axis = mesh.axis_names[0]

    def run(
        program: Program,
        lams: Array,
        tolerance: Tolerance,
        max_steps: Array,
        init: WarmStart | None,
        solver: Any,
        loss_type: type,
    ) -> Solution:
        del loss_type
        program = with_interior(program)

        def local(*args: Any) -> Solution:
            program, lams, tolerance, max_steps, init = args

            def one(lam: Array) -> Solution:
                return solve_traced(program, lam, tolerance, max_steps, init, solver)

            size = lams.shape[0] if batch is None else batch
            return jax.lax.map(one, lams, batch_size=size if size > 1 else None)

        everywhere, spread = PartitionSpec(), PartitionSpec(axis)
        specs = (everywhere, spread, everywhere, everywhere, everywhere)
        sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=spread, check_vma=False)
        return sharded(program, lams, tolerance, max_steps, init)

    gathered = NamedSharding(mesh, PartitionSpec())
    return jax.jit(run, static_argnames=("loss_type",), out_shardings=gathered)
