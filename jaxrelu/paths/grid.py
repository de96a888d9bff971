"""`solve_grid`: many lams as one batch on one device, or spread over several.

On a CPU a batch gains nothing, so that lams are taken one at a time there; on an accelerator the
batch is what fills the device, and `jaxrelu.solvers.active_newton.lanes` keeps it full. Inside a
trace, with first-order solvers and with very many samples the lanes of a batch run in lockstep.
Over a mesh every device has lams of its own and stops on its own: no loop holds a collective.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jax.sharding import Mesh

from jaxrelu.core.checks import check_type
from jaxrelu.core.options import count, flag
from jaxrelu.core.tracing import is_traced, refuse_traced
from jaxrelu.paths.batches import (
    GridRequest,
    in_chunks,
    keeps_lanes,
    mapped,
    one_by_one,
    over_mesh,
    whole,
)
from jaxrelu.paths.checks import check_lams, checked_solver, step_limit, warm_point
from jaxrelu.paths.memory import batch_size
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.solvers.active_newton.lanes import solve_lanes
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Solver, tolerances


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
    asked = GridRequest(program, lams, tolerance, steps, warm, solver)
    traced = is_traced(asked)
    batch = batch_size(program, solver, asked.num_lams, lam_batch_size, traced)
    lanes = keeps_lanes(solver, program) and not traced
    if mesh is not None and traced:
        raise TypeError("a mesh is for calls from the host: leave mesh out inside a trace.")
    if mesh is not None and warm_starts:
        raise ValueError("lams on several devices do not start from each other: pass one only.")
    if warm_starts and not lanes:
        raise ValueError(
            "warm_starts is for ActiveNewton, called from the host, and cones of at most "
            "8192 samples: leave it out, or use solve_path."
        )
    if mesh is not None:
        return over_mesh(asked, mesh, batch)
    if lanes and (batch > 1 or warm_starts):
        return solve_lanes(*asked, batch, warm_starts)
    if batch == 1 and not traced:
        return one_by_one(asked)
    if batch >= asked.num_lams:
        return shared(whole(*asked))
    return mapped(asked, batch) if traced else in_chunks(asked, batch)
