"""Arguments of the searches: one lam or several, budgets, and where to start."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax import Array

from jaxrelu.core.checks import check_known
from jaxrelu.core.options import count, seconds
from jaxrelu.paths.checks import check_lams, warm_point, working_set_solver
from jaxrelu.programs.checks import check_kind, check_known_program, check_lam
from jaxrelu.programs.program import GatedProgram
from jaxrelu.solvers.base import tolerances


class Search(NamedTuple):
    """The checked lams (L,), relative tolerance and budget of a search over patterns."""

    lams: Array
    rtol: float
    max_patterns: int
    max_rounds: int
    max_seconds: float


def check_search(
    program: Any,
    lams: Any,
    rtol: Any,
    max_patterns: Any,
    max_rounds: Any,
    max_seconds: Any,
    init: Any,
    solver: Any,
) -> Search:
    """The arguments of a search over patterns as numbers.

    Raises:
        ValueError, TypeError: as `solve`; a gated program, limits below one, a negative time, a
            traced value, a target or weight that is not finite.
    """
    if isinstance(program, GatedProgram):
        raise TypeError(
            "program is a GatedProgram: its gates are part of its model, and its optimum is global "
            "as it stands. Pass a ConvexProgram."
        )
    check_known_program(program)
    check_known(lams=lams, init=init, rtol=rtol)
    working_set_solver(program, solver)
    warm_point(program, init)
    return Search(
        check_lams(program, lams),
        float(tolerances(program, rtol, None).relative),
        count(max_patterns, "max_patterns"),
        count(max_rounds, "max_rounds"),
        seconds(max_seconds, "max_seconds"),
    )


def one_lam(program: Any, lam: Any) -> Array:
    """One known lam as a vector."""
    check_kind(program)
    check_known(lam=lam)
    return check_lam(program, lam)[None]
