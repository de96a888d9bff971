"""`solve`: one lam, one algorithm of fixed shapes, one verdict."""

from __future__ import annotations

from typing import Any

from jaxrelu.paths.checks import checked_solver, step_limit, warm_point
from jaxrelu.paths.several_outputs.solve import solve_outputs
from jaxrelu.paths.traced_solve import solved
from jaxrelu.programs.checks import check_lam, check_program
from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.vector_program import VectorProgram
from jaxrelu.solvers.base import Solver, tolerances


def solve(
    program: Program | VectorProgram,
    lam: Any,
    *,
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = None,
    init: Solution | None = None,
    solver: Solver | None = None,
) -> Solution:
    r"""Solves a convex program at one lam, to a certified duality gap.

    min over weights of sum_i c_i loss(f_i, y_i) + lam sum ||theta||, in the cones of the patterns
    (`jaxrelu.programs.program`). ``Status.OPTIMAL`` means upper - lower <= atol + rtol |upper|.

    One algorithm of fixed shapes, traced or not: `jit`, `vmap` (over lam, y, sample weights or
    whole programs of equal shape) work on it, and lam, tolerances and max_steps are data. Called
    from the host its rounds are compiled piece by piece, in the pieces of `solve_path`, unless the
    data were put on devices of your choice.
    Derivatives by X, y, sample weights, the loss and lam, in both modes, do not depend on the
    tolerance; they are NaN where there is none (`jaxrelu.solvers.implicit_differentiation`).

    Args:
        program: a `ConvexProgram`, `GatedProgram` or `VectorProgram`.
        lam: scalar, > 0.
        rtol: relative tolerance of the gap; default 1e-6 in float64, 1e-3 in float32.
        atol: absolute tolerance; default 50 eps times the objective at zero weights.
        max_steps: limit on steps of the solver; default 2000 Newton steps. Of a `VectorProgram` 500
            Newton steps if it is gated, 100 rounds if it is exact.
        init: a `Solution` of a program of equal shape, at any lam, to start from.
        solver: an `ActiveNewton` (the default), an `ADMM`, or any `Solver`.

    Returns:
        `Solution`. On the host look at `status` or call `jaxrelu.raise_if_failed`; nothing raises
        inside `jit`.

    Raises:
        ValueError, TypeError: wrong shapes, dtypes or values, with a sentence that names the fix.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> solution = jr.solve(jr.ConvexProgram(X, y, patterns), 0.5)
        >>> jr.Status(int(solution.status)).name
        'OPTIMAL'

    Reference: Pilanci and Ergen (ICML 2020); Mishkin and Pilanci (ICML 2023).
    """
    if isinstance(program, VectorProgram):
        return solve_outputs(program, lam, rtol, atol, max_steps, init, solver)
    check_program(program)
    solver = checked_solver(program, solver)
    lam = check_lam(program, lam)
    warm = warm_point(program, init)
    tolerance = tolerances(program, rtol, atol)
    steps = step_limit(solver, max_steps)
    return solved(program, lam, tolerance, steps, warm, solver)
