"""Arguments of the searches: one lam or several, budgets, and where to start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.budgets import Meter, check_budget
from jaxrelu.core.options import count
from jaxrelu.core.status import Status
from jaxrelu.paths.checks import check_lams, warm_point, working_set_solver
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.checks import (
    check_kind,
    check_known_program,
    check_lam,
    check_no_block_weights,
)
from jaxrelu.programs.program import GatedProgram
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
    program: Any, lams: Any, rtol: Any, budget: Budget, init: Any, solver: Any
) -> tuple[Array, float]:
    """The checked lams (L,) and relative tolerance of a search over patterns.

    Raises:
        ValueError, TypeError: as `solve`; a gated program, limits below one, negative work or time,
            a target or weight that is not finite.
    """
    if isinstance(program, GatedProgram):
        raise TypeError(
            "program is a GatedProgram: its gates are part of its model, and its optimum is global "
            "as it stands. Pass a ConvexProgram."
        )
    check_known_program(program)
    check_no_block_weights(program, "a search goes through patterns that it does not name")
    working_set_solver(program, solver)
    warm_point(program, init)
    for name in ("patterns", "rounds"):
        count(getattr(budget, name), f"max_{name}")
    budget.meter()
    return check_lams(program, lams), float(tolerances(program, rtol, None).relative)


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


def one_lam(program: Any, lam: Any) -> Array:
    """One lam as a vector."""
    check_kind(program)
    return check_lam(program, lam)[None]
