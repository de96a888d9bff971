"""One program of one lam, traced or compiled: what `solve`, grids and certificates call."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.tracing import is_staged, is_traced
from jaxrelu.programs.program import Program
from jaxrelu.programs.row_space import RowSpace
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.programs.units import into_units
from jaxrelu.solvers.active_newton.path_driver import PathDriver
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Solver, Tolerance, WarmStart
from jaxrelu.solvers.implicit_differentiation import finest, parameters, tangent
from jaxrelu.solvers.scaled_program import Prepared, prepare, prepared
from jaxrelu.solvers.verdict import given_solution, solution_of


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
