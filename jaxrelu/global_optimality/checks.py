"""Arguments of the searches: one lam, and one budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.budgets import Meter, check_budget
from jaxrelu.core.status import Status
from jaxrelu.paths.checks import check_lams
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.units import are_lost
from jaxrelu.solvers.base import tolerances

_WORK = 40.0


@dataclass(frozen=True)
class Budget:
    """What a search may use at each lam, as it was asked for.

    Attributes:
        patterns: places for patterns.
        rounds: limit on rounds.
        work: in the units of `jaxrelu.core.budgets`; None for the default, or for no limit where
            seconds are given.
        seconds: None for no limit.
    """

    patterns: int
    rounds: int
    work: float | None
    seconds: float | None

    def meter(self) -> Meter:
        """Work and seconds, from now on."""
        return check_budget(self.work, self.seconds, _WORK)


def check_search(
    caller: str, program: Any, lams: Any, rtol: Any, budget: Budget
) -> tuple[Array, float]:
    """The checked lams and tolerance of a search over patterns.

    Raises:
        ValueError, TypeError: as `solve`; a gated program, limits below one, negative work or time.
    """
    if not isinstance(program, ConvexProgram):
        raise TypeError(
            f"{caller} takes a ConvexProgram, not a {type(program).__name__}: the gates of a gated "
            "program are part of its model, and its optimum is global as it stands."
        )
    check_program(program)
    strengths = check_lams(program, lams)
    for name, value in (("max_patterns", budget.patterns), ("max_rounds", budget.rounds)):
        if int(value) < 1:
            raise ValueError(f"{name} is {value}: pass at least 1.")
    budget.meter()
    return strengths, float(tolerances(program, rtol, None).relative)


def status_out_of_units(
    status: Status, before: Solution, certificate: Certificate, after: Solution
) -> Status:
    """The status of a search once its numbers are out of units: what is out of range is no OPTIMAL.

    Args:
        status: in units.
        before: the solution in units.
        certificate: what is handed out.
        after: the solution that is handed out.
    """
    if status != Status.OPTIMAL:
        return status
    numbers = certificate.lower, certificate.upper, after.weights
    if not all(bool(jnp.all(jnp.isfinite(number))) for number in numbers):
        return Status.NONFINITE
    pairs = (before.weights, after.weights), (before.certificate.upper, certificate.upper)
    lost = any(bool(jnp.any(are_lost(*pair))) for pair in pairs)
    return Status.PRECISION_FLOOR if lost else Status.OPTIMAL


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
