"""Lams, solver, step limit and warm start as arguments."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import (
    as_float,
    check_per_row,
    check_type,
    described,
    host_numbers,
    real_array,
)
from jaxrelu.core.options import count, scalar
from jaxrelu.core.tracing import is_traced, refuse_traced
from jaxrelu.programs.checks import check_constant, check_skip, check_weights
from jaxrelu.programs.extension import Parts, joined
from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Solver, WarmStart


def check_lams(program: Program, lams: Any) -> Array:
    """Lams as a vector of the program's dtype; where they are known, positive and finite."""
    known = not is_traced(lams)
    values = host_numbers(lams, "lams") if known else real_array(lams, "lams")
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"lams has shape {values.shape}; pass a vector (L,) with L >= 1.")
    # Without a dtype of their own, lams take the precision of the program.
    values = values.astype(program.X.dtype)
    bad = [float(v) for v in values if not (np.isfinite(v) and v > 0)] if known else []
    if bad:
        raise ValueError(
            f"lams holds {bad[0]}; every lam must be positive and finite. For lam = 0 pass a "
            "small one, for example 1e-6 * lambda_max(program)."
        )
    return jnp.asarray(values)


def path_index(k: Any, length: int) -> int:
    """The place of ``path[k]`` on a path of so many lams, counted from the end where negative."""
    refuse_traced("path[k]", {"k": k}, "or index the leaves of the path")
    k = count(k, "k", least=-(2**63))
    if not -length <= k < length:
        raise IndexError(f"k is {k}, but the path has {length} lams.")
    return k % length


def checked_solver(program: Program, solver: Any) -> Solver:
    """The solver, the default one if none is given, after its own checks."""
    if solver is None:
        solver = ActiveNewton()
    if isinstance(solver, type) or not (hasattr(solver, "run") and hasattr(solver, "check")):
        raise TypeError(
            f"solver is {described(solver)}; pass an instance, such as jr.ActiveNewton()."
        )
    solver.check(program)
    checked: Solver = solver
    return checked


def working_set_solver(program: Program, solver: Any) -> ActiveNewton:
    """The solver of functions that keep working sets; None for the default one."""
    solver = ActiveNewton() if solver is None else solver
    fix = "an ActiveNewton, which keeps working sets, or use solve_grid for other solvers"
    check_type(solver, "solver", ActiveNewton, fix)
    solver.check(program)
    checked: ActiveNewton = solver
    return checked


def step_limit(solver: Solver, max_steps: Any) -> Array:
    """The step limit as data."""
    if is_traced(max_steps):
        return scalar(max_steps, "max_steps", jnp.int32)
    most = solver.default_max_steps if max_steps is None else max_steps
    return jnp.asarray(count(most, "max_steps", least=0), jnp.int32)


def warm_point(program: Program, init: Any) -> WarmStart | None:
    """What a solver needs of a previous solution, checked."""
    if init is None:
        return None
    check_type(init, "init", Solution, "a Solution of jr.solve")
    weights = check_weights(program, init.weights, "init.weights")
    skip = check_skip(program, init.skip, "init.skip")
    constant = check_constant(program, init.constant, "init.constant")
    weights = joined(program, Parts(weights, skip, constant))
    residual = as_float(init.residual, "init.residual")
    check_per_row(residual, "init.residual", program.X.shape[0])
    return WarmStart(weights, residual, scalar(init.lam, "init.lam", weights.dtype))
