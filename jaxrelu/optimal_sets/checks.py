"""Optimal sets, and the solutions that they come from, as arguments."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxrelu.core.checks import check_type
from jaxrelu.core.status import Status
from jaxrelu.losses.checks import check_no_kinks
from jaxrelu.optimal_sets.optimal_set import OptimalSet
from jaxrelu.programs.checks import (
    check_double,
    check_known_program,
    check_no_free_blocks,
    check_weights,
)
from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution


def check_optima(optima: Any) -> None:
    """Refuses what is no `OptimalSet`."""
    fix = "an OptimalSet, the result of jr.optimal_set(program, solution)"
    check_type(optima, "optima", OptimalSet, fix)


def check_optimum(program: Program, solution: Any) -> None:
    """Refuses what is no certified solution of a program in float64, at one lam.

    Raises:
        ValueError, TypeError: the sentence names the fix.
    """
    check_known_program(program)
    check_double(program)
    check_no_free_blocks(program, "the optimal set")
    check_no_kinks(program.loss, "the optimal set")
    check_type(solution, "solution", Solution, "a Solution of jr.solve")
    if jnp.ndim(solution.lam) != 0:
        raise ValueError(
            "solution holds several lams: pass one of them, for example path[k] or "
            "jax.tree.map(lambda leaf: leaf[k], grid)."
        )
    if int(solution.status) != Status.OPTIMAL:
        raise ValueError(
            f"solution is {Status(int(solution.status)).name}; the optimal set is known from an "
            "optimal answer only: see jr.raise_if_failed(solution)."
        )
    check_weights(program, solution.weights, "solution.weights")
