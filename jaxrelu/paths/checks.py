"""Lams, solver, step limit and warm start as arguments."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import as_float, host_float
from jaxrelu.core.tracing import is_traced
from jaxrelu.programs.checks import check_weights
from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Solver, WarmStart


def check_lams(program: Program, lams: Any) -> Array:
    """Lams as a vector of the program's dtype; where they are known, positive and finite."""
    if not is_traced(lams):
        # Without a dtype of their own, lams take the precision of the program.
        values = host_float(lams, "lams").astype(program.X.dtype)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"lams has shape {values.shape}; pass a vector (L,) with L >= 1.")
        bad = [float(v) for v in values if not (np.isfinite(v) and v > 0)]
        if bad:
            raise ValueError(
                f"lams holds {bad[0]}; every lam must be positive and finite. For lam = 0 pass a "
                "small one, for example 1e-6 * lambda_max(program)."
            )
        return jnp.asarray(values, program.X.dtype)
    if lams.ndim != 1:
        raise ValueError(f"lams has shape {lams.shape}; pass a vector (L,) with L >= 1.")
    return lams.astype(program.X.dtype)


def checked_solver(program: Program, solver: Any) -> Solver:
    """The solver, the default one if none is given, after its own checks."""
    if solver is None:
        solver = ActiveNewton()
    if isinstance(solver, type) or not hasattr(solver, "run"):
        raise TypeError(f"solver is {solver!r}; pass an instance, such as jr.ActiveNewton().")
    solver.check(program)
    checked: Solver = solver
    return checked


def step_limit(solver: Solver, max_steps: Any) -> Array:
    """The step limit as data."""
    if max_steps is None:
        max_steps = solver.default_max_steps
    if not is_traced(max_steps):
        given = np.asarray(max_steps)
        if given.ndim != 0 or given.dtype.kind not in "iu":
            raise TypeError(f"max_steps is {max_steps!r}; pass an integer >= 0.")
        if given < 0:
            raise ValueError(f"max_steps is {max_steps}; pass an integer >= 0.")
    return jnp.asarray(max_steps, jnp.int32)


def warm_point(program: Program, init: Any) -> WarmStart | None:
    """What a solver needs of a previous solution, checked."""
    if init is None:
        return None
    if not isinstance(init, Solution):
        raise TypeError(f"init is a {type(init).__name__}; pass a Solution of jr.solve.")
    weights = check_weights(program, init.weights)
    residual = as_float(init.residual, "init.residual")
    if residual.shape != (program.X.shape[0],):
        raise ValueError(
            f"init.residual has shape {residual.shape}, but the program has "
            f"{program.X.shape[0]} samples: pass a Solution of a program of equal shape."
        )
    return WarmStart(weights, residual, jnp.asarray(init.lam, weights.dtype))
