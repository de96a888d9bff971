"""`solve` of a program of several outputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.checks import check_type
from jaxrelu.core.options import count, scalar
from jaxrelu.core.tracing import is_traced
from jaxrelu.paths.several_outputs.exact import solve_exact
from jaxrelu.paths.several_outputs.gated import solve_gated
from jaxrelu.paths.several_outputs.one_vs_all import solve_columns
from jaxrelu.programs.checks import check_lam
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.programs.vector_checks import check_vector_weights, checked_outputs
from jaxrelu.programs.vector_program import VectorProgram
from jaxrelu.solvers.base import tolerances

DEFAULT_STEPS = 500


def solve_outputs(
    program: VectorProgram,
    lam: Any,
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = None,
    init: Solution | None = None,
    solver: Any = None,
) -> Solution:
    """`jaxrelu.solve` of a program of several outputs."""
    program = checked_outputs(program)
    lam = check_lam(program, lam)  # type: ignore[arg-type]
    tolerance = tolerances(program, rtol, atol)  # type: ignore[arg-type]
    if program.kind == "one_vs_all":
        return solve_columns(program, lam, tolerance, max_steps, init, solver)
    check_no_solver(program, solver)
    start = start_of(program, init)
    if program.kind == "exact":
        found = solve_exact(program, lam[None], tolerance, max_steps, start)
        return shared(jax.tree.map(lambda leaf: leaf[0], found))
    steps = step_limit(max_steps)
    return solve_gated(program, lam, tolerance, steps, start)


def check_no_solver(program: VectorProgram, solver: Any) -> None:
    """Refuses a solver where there is no choice."""
    if solver is not None:
        raise ValueError(
            f'solver is given, and kind="{program.kind}" has one of its own: leave it out.'
        )


def step_limit(max_steps: Any) -> Array:
    """The limit on Newton steps as data."""
    if is_traced(max_steps):
        return scalar(max_steps, "max_steps", jnp.int32)
    most = DEFAULT_STEPS if max_steps is None else max_steps
    return jnp.asarray(count(most, "max_steps", least=0), jnp.int32)


def start_of(program: VectorProgram, init: Any) -> Any:
    """The weights of a previous solution, checked."""
    if init is None:
        return None
    check_type(init, "init", Solution, "a Solution of jr.solve")
    return check_vector_weights(program, init.weights, "init.weights")
