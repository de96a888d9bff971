"""One network an output: the ReLU programs of all columns of Y, side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.checks import check_type
from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import eps
from jaxrelu.core.rounding import downward, upward
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import is_staged, is_traced
from jaxrelu.paths.checks import checked_solver, step_limit
from jaxrelu.paths.traced_solve import solve_traced, solved
from jaxrelu.programs.certificates import Certificate, proved
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.programs.vector_checks import check_vector_weights
from jaxrelu.programs.vector_program import VectorProgram, column_program, column_programs
from jaxrelu.solvers.base import Solver, Tolerance, WarmStart


def solve_columns(
    program: VectorProgram,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Any,
    init: Solution | None,
    solver: Any,
) -> Solution:
    """The solution of all columns at one lam, certified together."""
    inner, _ = column_programs(program)
    solver = checked_solver(inner, solver)
    start = None
    if init is not None:
        check_type(init, "init", Solution, "a Solution of jr.solve")
        weights = check_vector_weights(program, init.weights, "init.weights")
        start = WarmStart(weights, jnp.asarray(init.residual), jnp.asarray(init.lam))
    steps = step_limit(solver, max_steps)
    if is_traced((program, lam, tolerance, steps, start)) or is_staged():
        return shared(_solve(program, lam, tolerance, steps, start, solver))
    # From the host they share the pieces that `solve` compiles.
    answers = [
        solved(column_program(program, k), lam, _share(tolerance, program), steps, at, solver)
        for k, at in enumerate(_columns_of(start, program.num_outputs))
    ]
    return shared(_together(stacked(answers), lam, tolerance))


def _share(tolerance: Tolerance, program: VectorProgram) -> Tolerance:
    """The tolerance of each column, which may leave its share of an absolute gap."""
    absolute = tolerance.absolute
    share = None if absolute is None else absolute / program.num_outputs
    return tolerance._replace(absolute=share)


def _columns_of(start: WarmStart | None, columns: int) -> list[WarmStart | None]:
    if start is None:
        return [None] * columns
    weights, residual, lam = start
    return [WarmStart(weights[..., k], residual[:, k], lam) for k in range(columns)]


def stacked(answers: list[Solution]) -> Solution:
    """The solutions of all columns side by side along the last axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=-1), *answers)  # type: ignore[no-any-return]


@compiled
def _solve(
    program: VectorProgram,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: WarmStart | None,
    solver: Solver,
) -> Solution:
    inner, axes = column_programs(program)
    own = _share(tolerance, program)
    starts: Any = None if init is None else WarmStart(-1, 1, None)  # type: ignore[arg-type]

    def one(column: Any, start: WarmStart | None) -> Solution:
        return solve_traced(column, lam, own, max_steps, start, solver)

    answers = jax.vmap(one, in_axes=(axes, starts), out_axes=-1)(inner, init)
    return together(answers, lam, tolerance)


def together(answers: Solution, lam: Array, tolerance: Tolerance) -> Solution:
    """The solutions of columns, stacked along the last axis, as one of all of them."""
    proof = answers.certificate
    lower, upper = summed(proof.lower, -1), summed(proof.upper, 1)
    weights, upper_of = answers.weights, proof.upper
    certificate = Certificate(
        lower=lower, upper=upper, gap=upper - lower, weights=weights, dual=proof.dual
    )
    worst = jnp.max(answers.status, axis=-1)
    absolute = 0.0 if tolerance.absolute is None else tolerance.absolute
    met = upper - lower <= absolute + tolerance.relative * jnp.abs(upper)
    # A column whose own optimum is next to nothing need not close its own gap; and where values of
    # both signs cancel, gaps of columns that do may not be small beside the sum.
    small = worst <= Status.PRECISION_FLOOR
    every = (worst == Status.OPTIMAL) & (jnp.min(upper_of, axis=-1) >= 0)
    fine = every | (met & small)
    worst = jnp.where((worst == Status.OPTIMAL) & ~fine, Status.STALLED, worst)
    return Solution(
        weights=weights,
        lam=lam,
        fit=answers.fit,
        residual=answers.residual,
        certificate=certificate,
        status=jnp.where(fine, Status.OPTIMAL, worst).astype(jnp.int32),
        num_steps=jnp.sum(answers.num_steps, axis=-1),
    )


_together = compiled(together, optimised=False)


def summed(bounds: Array, side: int) -> Array:
    """The sum of the bounds (..., c) of all columns, rounded to its side."""
    total = jnp.sum(bounds, axis=-1)
    error = (bounds.shape[-1] + 1.0) * eps(bounds.dtype) * jnp.sum(jnp.abs(bounds), axis=-1)
    return upward(total, error) if side > 0 else downward(total, error)


@compiled
def proved_columns(
    program: VectorProgram, lam: Array, weights: Array, residual: Array | None
) -> Certificate:
    """The certificate of weights (2, p, d, c) from anywhere."""
    inner, axes = column_programs(program)

    def one(column: Any, own: Array, r: Array | None) -> Certificate:
        return proved(column, lam, own, r)

    given = None if residual is None else 1
    each = jax.vmap(one, in_axes=(axes, -1, given), out_axes=-1)(inner, weights, residual)
    lower, upper = summed(each.lower, -1), summed(each.upper, 1)
    return replace(each, lower=lower, upper=upper, gap=upper - lower)
