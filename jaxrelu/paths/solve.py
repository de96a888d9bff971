"""`solve`: one lam, one algorithm of fixed shapes, one verdict."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.tracing import is_staged, is_traced
from jaxrelu.paths.checks import checked_solver, step_limit, warm_point
from jaxrelu.programs.checks import check_lam, check_program
from jaxrelu.programs.program import Program
from jaxrelu.programs.row_space import RowSpace
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.programs.units import into_units
from jaxrelu.solvers.active_newton.path_driver import PathDriver
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Solver, Tolerance, WarmStart, tolerances
from jaxrelu.solvers.implicit_differentiation import finest, parameters, tangent
from jaxrelu.solvers.scaled_program import Prepared, prepare, prepared
from jaxrelu.solvers.verdict import given_solution, solution_of


def solve(
    program: Program,
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
        program: a `ConvexProgram` or `GatedProgram`.
        lam: scalar, > 0.
        rtol: relative tolerance of the gap; default 1e-6 in float64, 1e-3 in float32.
        atol: absolute tolerance; default 50 eps times the objective at zero weights.
        max_steps: limit on steps of the solver; default 2000 Newton steps.
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
    check_program(program)
    solver = checked_solver(program, solver)
    lam = check_lam(program, lam)
    warm = warm_point(program, init)
    tolerance = tolerances(program, rtol, atol)
    steps = step_limit(solver, max_steps)
    return solved(program, lam, tolerance, steps, warm, solver)


def solved(
    program: Program,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: WarmStart | None,
    solver: Solver,
) -> Solution:
    """`solve` after its checks: one program where it is traced, or where data were placed."""
    request = (program, lam, tolerance, max_steps, init, solver)
    at_once = is_traced(request) or is_staged() or _is_placed(request)
    if at_once or type(solver) is not ActiveNewton:
        return shared(solve_compiled(*request))
    at, asked = prepare(program, np.asarray(lam)[None], tolerance, init)
    slots = solver.slots(program)
    driver = PathDriver(solver, at, asked, tolerance, int(max_steps), slots)
    (scaled_lam,) = np.asarray(asked.lams)
    if asked.init is not None:
        driver.start_from(asked.init, scaled_lam)
    answer = driver.solve(scaled_lam)
    return given_solution(program, lam, answer.verdict, answer.num_steps)


def _is_placed(values: Any) -> bool:
    """Whether arrays were put on devices, where answers then are, too."""
    leaves = jax.tree.leaves(values)
    return any(isinstance(leaf, Array) and leaf.committed for leaf in leaves)


@compiled
def solve_compiled(
    program: Program,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: WarmStart | None,
    solver: Any,
) -> Solution:
    """`solve` after its checks, compiled."""
    return solve_traced(program, lam, tolerance, max_steps, init, solver)


@jax.custom_jvp
def solve_traced(
    program: Program,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: WarmStart | None,
    solver: Solver,
) -> Solution:
    """`solve` after its checks: pure and traceable, with an implicit derivative."""
    return _solved(_prepared(program), lam, tolerance, tolerance, max_steps, init, solver)


@solve_traced.defjvp
def _solve_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Solution, Solution]:
    program, lam, tolerance, max_steps, init, solver = primals
    at, goal = _prepared(program), finest(tolerance)
    if isinstance(solver, ActiveNewton):
        end = solution = _solved(at, lam, tolerance, goal, max_steps, init, solver)
    else:
        solution = _solved(at, lam, tolerance, tolerance, max_steps, init, solver)
        near = WarmStart(solution.weights, solution.residual, solution.lam)
        solver = ActiveNewton()
        steps = jnp.asarray(solver.default_max_steps)
        end = _solved(at, lam, tolerance, goal, steps, near, solver)
    basis = at.space.basis if isinstance(at.space, RowSpace) else None
    change = parameters(*tangents[:2])
    return solution, tangent(program, lam, end, change, solver.slots(program), basis)


def _prepared(program: Program) -> Prepared:
    # Or XLA folds products of a program that `jit` closes over, for minutes.
    return prepared(jax.lax.optimization_barrier(program))


def _solved(
    at: Prepared,
    lam: Array,
    tolerance: Tolerance,
    goal: Tolerance,
    max_steps: Array,
    init: WarmStart | None,
    solver: Solver,
) -> Solution:
    """An answer solved to a goal, and judged by a tolerance."""
    scaled_lam = into_units(lam, at.units.lam)
    positive = (scaled_lam > 0) & jnp.isfinite(scaled_lam)
    safe_lam = jnp.where(positive, scaled_lam, 1.0)
    found = solver.run(at.scaled.program, safe_lam, at.tolerance(goal), max_steps, at.start(init))
    return solution_of(at, scaled_lam, lam, tolerance, found)
