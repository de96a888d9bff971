r"""The gated program of several outputs, solved to a certified gap.

    min over V of sum_i w_i loss(f_i, y_i) + lam sum_j ||V_j||_*,     F = sum_j D_j X V_j

One compiled function of fixed shapes for a lam, and a scan of it for a path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.derivatives import nowhere
from jaxrelu.core.numerics import einsum, eps
from jaxrelu.geometry.singular_values import singular_values, tall
from jaxrelu.programs.row_space import RowSpace, row_space_of
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.programs.units import into_units, printed
from jaxrelu.programs.vector_bounds import spectral_bound, upper_of_blocks
from jaxrelu.programs.vector_program import (
    VectorProgram,
    output_weights,
    outputs_fit,
    outputs_residual,
    targets,
)
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.nuclear_norm.method import Blocks, Found, Point, solve_blocks
from jaxrelu.solvers.outputs_verdict import (
    Claim,
    PreparedOutputs,
    conclude_outputs,
    prepared_outputs,
)


class _Inner(NamedTuple):
    """The program as the solver sees it: in units, in the row space of X where d > n."""

    at: PreparedOutputs
    problem: Blocks
    space: RowSpace | None

    def start(self, weights: Array | None) -> Point:
        n, c = self.problem.targets.shape
        p, d, dtype = self.problem.factors.shape[1], self.problem.X.shape[1], self.problem.X.dtype
        blocks = jnp.zeros((p, d, c), dtype)
        if weights is not None:
            given = into_units(weights, self.at.units.weights)
            if self.space is not None:
                given = einsum("pdc,dn->pnc", given, self.space.basis)
            # One with a NaN is left out.
            blocks = jnp.where(jnp.all(jnp.isfinite(given)), given, blocks)
        return Point(blocks, self.problem.fit(blocks), jnp.zeros((), dtype))

    def concluded(self, lam: Array, tolerance: Tolerance, found: Found) -> Solution:
        weights = found.blocks
        if self.space is not None:
            weights = einsum("pnc,dn->pdc", weights, self.space.basis)
        return claimed(
            self.at, lam, tolerance, weights, found.residual, found.num_steps, found.finite,
            found.exhausted,
        )  # fmt: skip


def claimed(
    at: PreparedOutputs,
    lam: Array,
    tolerance: Tolerance,
    weights: Array,
    residual: Array,
    num_steps: Any,
    finite: Any,
    exhausted: Any,
) -> Solution:
    """The verdict on blocks (p, d, c) in units and a residual."""
    program = at.program
    upper, fit = upper_of_blocks(program, at.lam(lam), weights)
    claim = Claim(
        weights=weights,
        upper=upper,
        size=jnp.sum(singular_values(tall(weights))),
        fit=fit,
        residual=residual,
        bound=spectral_bound(program, residual),
        num_steps=jnp.asarray(num_steps, jnp.int32),
        finite=jnp.asarray(finite),
        exhausted=jnp.asarray(exhausted),
    )
    return conclude_outputs(at, lam, tolerance, claim, at.units.weights)


def _inner(program: VectorProgram) -> _Inner:
    # Or XLA folds products of a program that `jit` closes over, for minutes.
    program = jax.lax.optimization_barrier(program)
    at = prepared_outputs(program)
    inside = at.program
    X, space = jnp.asarray(inside.X), None
    if X.shape[1] > X.shape[0]:
        X, space = row_space_of(X)
    masks = jnp.asarray(inside.patterns.masks).astype(X.dtype)
    problem = Blocks(X, masks, targets(inside), output_weights(inside), inside.loss)
    return _Inner(at, problem, space)


def solve_gated(
    program: VectorProgram, lam: Array, tolerance: Tolerance, max_steps: Array, init: Array | None
) -> Solution:
    """The solution at one lam, from blocks (p, d, c) where there are some."""
    return shared(_solve(program, lam, tolerance, max_steps, init))


@compiled
def _solve(
    program: VectorProgram, lam: Array, tolerance: Tolerance, max_steps: Array, init: Array | None
) -> Solution:
    return _solve_traced(program, lam, tolerance, max_steps, init)


@jax.custom_jvp
def _solve_traced(
    program: VectorProgram, lam: Array, tolerance: Tolerance, max_steps: Array, init: Array | None
) -> Solution:
    inner = _inner(program)
    found = _solve_inner(inner, lam, tolerance, max_steps, inner.start(init))
    return inner.concluded(lam, tolerance, found)


@_solve_traced.defjvp
def _solve_jvp(primals: Any, tangents: Any) -> Any:
    answer = _solve_traced(*primals)
    return answer, nowhere(tangents, answer)


def _solve_inner(
    inner: _Inner, lam: Array, tolerance: Tolerance, max_steps: Array, start: Point
) -> Found:
    scaled = inner.at.lam(lam)
    positive = (scaled > 0) & jnp.isfinite(scaled)
    safe = jnp.where(positive, scaled, 1.0)
    return solve_blocks(inner.problem, safe, inner.at.tolerance(tolerance), max_steps, start)


def solve_gated_path(
    program: VectorProgram, lams: Array, tolerance: Tolerance, max_steps: Array, init: Array | None
) -> Solution:
    """The solutions at lams (L,), each from the one before, in descending order."""
    return shared(_solve_path(program, lams, tolerance, max_steps, init))


@compiled
def _solve_path(
    program: VectorProgram, lams: Array, tolerance: Tolerance, max_steps: Array, init: Array | None
) -> Solution:
    inner = _inner(program)

    def one(point: Point, lam: Array) -> tuple[Point, Solution]:
        found = _solve_inner(inner, lam, tolerance, max_steps, point)
        return found.point, inner.concluded(lam, tolerance, found)

    order = jnp.argsort(-lams)
    _, answers = jax.lax.scan(one, inner.start(init), lams[order])
    back = jnp.argsort(order)
    return jax.tree.map(lambda leaf: leaf[back], answers)


@compiled
def certified_gated(
    program: VectorProgram, lam: Array, weights: Array, residual: Array | None, tolerance: Tolerance
) -> Solution:
    """Blocks from anywhere as a `Solution`."""
    at = prepared_outputs(program)
    inside, given = at.program, into_units(weights, at.units.weights)
    if residual is None:
        fit = outputs_fit(jnp.asarray(inside.X), jnp.asarray(inside.patterns.masks), given)
        near = outputs_residual(inside, fit)
    else:
        near = into_units(residual, at.units.residual)
    return claimed(at, lam, tolerance, given, near, 0, True, False)


@compiled
def critical_gated(program: VectorProgram) -> tuple[Array, Array]:
    """Two numbers that the critical lam lies between."""
    at = prepared_outputs(program)
    inside = at.program
    residual = outputs_residual(inside, jnp.zeros_like(targets(inside)))
    found = spectral_bound(inside, residual)
    c = residual.shape[1]
    share = 1.0 - 8.0 * (c + 8.0) ** 2 * eps(residual.dtype)
    low = jnp.maximum(share * found.bound - 4.0 * found.rounding, 0.0)
    return printed(low, at.units.lam, -1), printed(found.bound, at.units.lam, 1)
