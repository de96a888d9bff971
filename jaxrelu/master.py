"""The restricted master program: solved anew as patterns enter and leave, always warm."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import Array

from jaxrelu.path import solve_path
from jaxrelu.pattern_pool import PatternPool
from jaxrelu.program import ConvexProgram, check_program
from jaxrelu.solution import Solution
from jaxrelu.solve import check_lams, tolerances
from jaxrelu.solvers.active_newton import ActiveNewton
from jaxrelu.status import Status


def check_search(
    caller: str, program: Any, lams: Any, rtol: Any, max_patterns: int, max_rounds: int
) -> tuple[Array, float]:
    """The checked lams and tolerance of a search over patterns.

    Raises:
        ValueError, TypeError: as `solve`; a gated program, limits below one.
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
    return strengths, float(tolerances(program, rtol, None).relative)


class Master:
    """A program over a pool of patterns, and its last answer.

    Until the first solve the patterns are the given ones; where they are too many, or an answer to
    start from is given, those that their own answer uses.
    """

    def __init__(
        self,
        program: ConvexProgram,
        capacity: int,
        rtol: float,
        solver: ActiveNewton | None,
        init: Solution | None,
    ) -> None:
        """A program, places for patterns, and what its own first solve needs."""
        self._given, self._capacity, self._rtol, self._solver = program, capacity, rtol, solver
        self._pool: PatternPool | None = None
        self._warm = init

    def solve(self, lam: Array, rtol: float) -> tuple[PatternPool, Solution]:
        """The pool and the answer over it: warm, and cold where that fails."""
        if self._pool is None:
            self._pool = self._first_pool(lam)
            self._warm = None
        program, warm = self._pool.program(), self._warm
        solution = self._at(program, lam, rtol, warm)
        poor = int(solution.status) not in (Status.OPTIMAL, Status.PRECISION_FLOOR)
        if warm is not None and poor:
            cold = self._at(program, lam, rtol, None)
            if not float(solution.certificate.gap) <= float(cold.certificate.gap):
                solution = cold
        self._pool.record(solution.weights)
        self._warm = solution
        return self._pool, solution

    def _first_pool(self, lam: Array) -> PatternPool:
        count = self._given.patterns.num_patterns
        kept = np.arange(count)
        if count > self._capacity or self._warm is not None:
            solution = self._at(self._given, lam, self._rtol, self._warm)
            size = np.sum(np.linalg.norm(np.asarray(solution.weights), axis=-1), axis=0)
            order = np.argsort(-size, kind="stable")
            kept = np.sort(order[: min(self._capacity, max(1, int(np.sum(size > 0))))])
        return PatternPool(self._given, self._capacity, kept)

    def _at(
        self, program: ConvexProgram, lam: Array, rtol: float, init: Solution | None
    ) -> Solution:
        return solve_path(program, lam[None], rtol=rtol, init=init, solver=self._solver)[0]
