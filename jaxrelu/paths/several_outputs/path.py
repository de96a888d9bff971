"""Paths of programs of several outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrelu.core.pytrees import register
from jaxrelu.paths.checks import check_lams, path_index
from jaxrelu.paths.several_outputs.exact import solve_exact
from jaxrelu.paths.several_outputs.gated import solve_gated_path
from jaxrelu.paths.several_outputs.one_vs_all import stacked, together
from jaxrelu.paths.several_outputs.solve import check_no_solver, start_of, step_limit
from jaxrelu.programs.certificates import Certificate, Certified
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.vector_checks import checked_outputs
from jaxrelu.programs.vector_program import VectorProgram, column_program
from jaxrelu.solvers.base import tolerances


@register
@dataclass(frozen=True, eq=False)
class VectorPath(Certified):
    """Certified answers of a program of several outputs along a sequence of lams.

    Row k belongs to ``lams[k]``, in the order the lams were given in; ``path[k]`` is a `Solution`.

    Attributes:
        program: the program, with targets (n, c).
        lams: (L,).
        solutions: a `Solution` whose leaves have a first axis of L.
    """

    program: VectorProgram
    lams: Array
    solutions: Solution

    @property
    def lam(self) -> Array:
        """(L,), the lams, by the name that they have on a `Solution`."""
        return self.lams

    @property
    def certificate(self) -> Certificate:
        """That of the solutions, batched."""
        return self.solutions.certificate

    @property
    def weights(self) -> Any:
        """That of the solutions, with a first axis of L."""
        return self.solutions.weights

    @property
    def fit(self) -> Array:
        """(L, n, c), that of the solutions."""
        return self.solutions.fit

    @property
    def residual(self) -> Array:
        """(L, n, c), that of the solutions."""
        return self.solutions.residual

    @property
    def status(self) -> Array:
        """(L,) int32, that of the solutions."""
        return self.solutions.status

    @property
    def num_steps(self) -> Array:
        """(L,) int32, that of the solutions."""
        return self.solutions.num_steps

    def __len__(self) -> int:
        """Number of lams."""
        return int(self.lams.shape[0])

    def __getitem__(self, k: int) -> Solution:
        """The `Solution` at ``lams[k]``."""
        place = path_index(k, len(self))
        return jax.tree.map(lambda leaf: leaf[place], self.solutions)  # type: ignore[no-any-return]


def solve_outputs_path(
    program: VectorProgram,
    lams: Any,
    of_one: Callable[..., Any],
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = None,
    init: Solution | None = None,
    solver: Any = None,
    max_active: Any = None,
) -> VectorPath:
    """`jaxrelu.solve_path` of a program of several outputs; `of_one` is that of one output."""
    if max_active is not None:
        raise ValueError(
            "max_active is given, and paths of several outputs go to their end: leave it out, and "
            "pass fewer lams."
        )
    program = checked_outputs(program)
    lams = check_lams(program, lams)  # type: ignore[arg-type]
    tolerance = tolerances(program, rtol, atol)  # type: ignore[arg-type]
    if program.kind == "one_vs_all":
        start_of(program, init)
        share = None if atol is None else np.asarray(atol) / program.num_outputs
        columns = []
        for k in range(program.num_outputs):
            start = None if init is None else _column_of(init, k)
            path = of_one(
                column_program(program, k), lams, rtol=rtol, atol=share, max_steps=max_steps,
                init=start, solver=solver,
            )  # fmt: skip
            columns.append(_batched(path))
        return VectorPath(program, lams, together(stacked(columns), lams, tolerance))
    check_no_solver(program, solver)
    start = start_of(program, init)
    if program.kind == "exact":
        return VectorPath(program, lams, solve_exact(program, lams, tolerance, max_steps, start))
    steps = step_limit(max_steps)
    return VectorPath(program, lams, solve_gated_path(program, lams, tolerance, steps, start))


def _column_of(init: Solution, k: int) -> Solution:
    return replace(init, weights=init.weights[..., k], residual=init.residual[:, k])


def _batched(path: Any) -> Solution:
    """A path of one output as a `Solution` with a first axis of L, its weights dense."""
    weights = path.weights
    proof = Certificate(
        lower=path.lower, upper=path.upper, gap=path.gap, weights=weights, dual=path.dual
    )
    return Solution(
        weights=weights, lam=path.lams, fit=path.fit, residual=path.residual, certificate=proof,
        status=path.status, num_steps=path.num_steps,
    )  # fmt: skip
