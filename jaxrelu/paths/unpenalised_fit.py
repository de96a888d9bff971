"""The best fit of the blocks that are not penalised: where the path begins when there are any."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import eps, matmul, safe_norm
from jaxrelu.core.tracing import is_traced
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.losses.base import curvature, curvature_within
from jaxrelu.paths.solve import solve, solve_traced
from jaxrelu.programs.bounds import correlation_rounding
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.preparation import row_space
from jaxrelu.programs.program import Program, raw_correlations, residual_at, sample_weights
from jaxrelu.programs.skip import is_skip
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.units import in_units, into_units, out_of_units
from jaxrelu.programs.unpenalised import (
    distances,
    free_features,
    free_system,
    largest_singular,
)
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import tolerances


def may_have_free(program: Program) -> bool:
    """Whether blocks may be there that are not penalised."""
    weights = program.block_weights
    if program.skip or weights is None or is_traced(weights):
        return program.skip or weights is not None
    return bool(np.any(np.asarray(weights) == 0))


# Of the largest correlation that there may be.
_SMALL = 1e-3


def known_data_are_finite(program: Program) -> bool:
    """Whether features, targets and sample weights on the host are."""
    given = program.X, program.y, program.sample_weight
    return all(bool(np.all(np.isfinite(np.asarray(a)))) for a in given if a is not None)


def has_free(program: Program) -> Array:
    """Scalar bool, whether there are any."""
    if program.skip or program.block_weights is None:
        return jnp.asarray(program.skip)
    return jnp.any(jnp.asarray(program.block_weights) == 0)


class FreeFit(NamedTuple):
    """The best fit of the blocks that are not penalised, of all others zero.

    Attributes:
        residual: (n,), there.
        slip: scalar, how far the length of a correlation, over its weight, may be off for it.
    """

    residual: Array
    slip: Array


def _free_program(program: Program) -> Program:
    """The program without the blocks that are penalised."""
    given = program.block_weights
    shape, dtype = program.block_shape, program.X.dtype
    weights = jnp.ones(shape, dtype) if given is None else jnp.asarray(given)
    return replace(program, block_weights=jnp.where(weights > 0, jnp.inf, weights))


def known_free_fit(program: Program) -> FreeFit | None:
    """`FreeFit` of a program on the host; None where all blocks are penalised."""
    if not may_have_free(program):
        return None
    free = _free_program(program)
    return _free_fit(program, solve(free, _small_lam(program), rtol=0.0, atol=0.0))


def traced_free_fit(program: Program) -> FreeFit | None:
    """The same in a trace, where weights are not known."""
    if not may_have_free(program):
        return None
    free, solver = _free_program(program), ActiveNewton()
    steps = jnp.asarray(solver.default_max_steps)
    nothing = tolerances(program, 0.0, 0.0)
    answer = solve_traced(free, _small_lam(program), nothing, steps, None, solver)
    return _free_fit(program, answer)


@partial(compiled, optimised=False)
def _small_lam(program: Program) -> Array:
    """A lam that counts for nothing in a `_free_program`, but stationarity is measured by it."""
    whole, units = in_units(program)
    X = jnp.asarray(whole.X)
    pull = jnp.abs(residual_at(whole, jnp.zeros((X.shape[0],), X.dtype)))
    size = _SMALL * jnp.max(matmul(jnp.abs(X).T, pull[:, None]), initial=0.0)
    return out_of_units(jnp.where(size > 0, size, 1.0), units.lam)


@partial(compiled, optimised=False)
def _free_fit(program: Program, answer: Solution) -> FreeFit:
    r"""The residual of an answer, and how far correlations of the optimum's may be from it.

    A loss g of curvature at most L has ||r - r*||^2 <= 2 L (g - g*). Blocks without cones do
    better: with A their features and H the curvatures on the way, A^T r* = 0 leaves

        X^T D (r - r*) = X^T D H A (A^T H A)^-1 A^T r,

    at most ||H^(1/2) X|| ||A^T r|| / sigma_min(H^(1/2) A) long; curvatures are least at the ends of
    the interval that a sample's fit is known to lie in.
    """
    whole, units = in_units(program)
    X, weight, y = jnp.asarray(whole.X), sample_weights(whole), jnp.asarray(whole.y)
    fit, residual = into_units(answer.fit, units.fit), into_units(answer.residual, units.residual)
    upper, lower = (into_units(v, units.objective) for v in (answer.upper, answer.lower))
    gap = upper - lower + eps(fit.dtype) * jnp.abs(upper)
    # More than the gap, so that rounding has no say in how far that is.
    away = distances(whole, residual, gap + eps(fit.dtype) ** 0.5 * jnp.abs(upper), fit)
    bend = weight * curvature_within(whole.loss, fit, away, y)
    slip = largest_singular(X) * jnp.sqrt(2.0 * jnp.max(bend, initial=0.0) * gap)

    weights = block_weights(whole)
    assert weights is not None
    reduced, _ = row_space(whole)
    free = (weights == 0).reshape(whole.block_shape)
    free = free if free.ndim == 2 else free[None]
    ends = [curvature(whole.loss, fit + side * away, y) for side in (1.0, -1.0)]
    least = weight * jnp.minimum(*ends)
    root = jnp.sqrt(jnp.where(least >= 0, least, 0.0))
    sigma = jnp.sqrt(free_system(free_features(reduced, free), root).smallest)
    c = raw_correlations(whole, residual).reshape(len(weights), -1)
    left = safe_norm(jnp.where((weights == 0)[:, None], c, 0.0).reshape(1, -1))[0]
    left = left + jnp.sum((weights == 0).astype(fit.dtype)) * correlation_rounding(whole, residual)
    linear = largest_singular(jnp.sqrt(bend)[:, None] * X) * left / jnp.where(sigma > 0, sigma, 1.0)
    pattern = block_patterns(whole.block_shape)
    skip = is_skip(whole, pattern)
    walled = jnp.any((weights == 0) & (~skip if skip is not None else whole.has_cones))
    better = (sigma > 0) & ~walled & (linear < slip)
    slip = jnp.where(better, linear, slip)

    lightest = jnp.min(jnp.where(weights == 0, jnp.inf, weights), initial=jnp.inf)
    # With nothing unpenalised the fit is zero, and exact.
    slip = jnp.where(jnp.any(weights == 0), slip / lightest, 0.0)
    return FreeFit(answer.residual, out_of_units(slip, units.lam))
