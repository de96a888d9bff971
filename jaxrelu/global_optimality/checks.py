"""Arguments of the searches: one lam, and budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import Array

from jaxrelu.core.checks import check_seconds
from jaxrelu.paths.checks import check_lams
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.solvers.base import tolerances


def check_search(
    caller: str,
    program: Any,
    lams: Any,
    rtol: Any,
    max_patterns: int,
    max_rounds: int,
    max_seconds: Any,
) -> tuple[Array, float, float]:
    """The checked lams, tolerance and seconds of a search over patterns.

    Raises:
        ValueError, TypeError: as `solve`; a gated program, limits below one, a negative time.
    """
    if not isinstance(program, ConvexProgram):
        raise TypeError(
            f"{caller} takes a ConvexProgram, not a {type(program).__name__}: the gates of a gated "
            "program are part of its model, and its optimum is global as it stands."
        )
    check_program(program)
    strengths = check_lams(program, lams)
    for name, value in (("max_patterns", max_patterns), ("max_rounds", max_rounds)):
        if int(value) < 1:
            raise ValueError(f"{name} is {value}: pass at least 1.")
    seconds = check_seconds(max_seconds)
    return strengths, float(tolerances(program, rtol, None).relative), seconds


def one_lam(lam: Any) -> Any:
    """One lam as a vector.

    Raises:
        ValueError: several lams.
    """
    if np.ndim(lam) != 0:
        raise ValueError(
            f"lam has shape {np.shape(lam)}: pass one number, or use refine_path for several."
        )
    return [lam]
