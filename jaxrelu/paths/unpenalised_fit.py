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
from jaxrelu.geometry.bias_metric import most_in_polar_size, reach_of
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.losses.base import curvature, curvature_within
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.paths.solve import solve
from jaxrelu.paths.traced_solve import solve_traced
from jaxrelu.programs.bias import has_bias
from jaxrelu.programs.bounds import (
    CorrelationBound,
    correlation_rounding,
    lower_bound,
    objective_at,
)
from jaxrelu.programs.free_fits import best_fit
from jaxrelu.programs.penalties import block_weights, seen
from jaxrelu.programs.preparation import row_space
from jaxrelu.programs.program import Program, raw_correlations, residual_at, sample_weights
from jaxrelu.programs.skip import without_cone
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
    always = program.skip or program.bias == "free"
    if always or weights is None or is_traced(weights):
        return always or weights is not None
    return bool(np.any(np.asarray(weights) == 0))


# Of the largest correlation that there may be.
_SMALL = 1e-3


def known_data_are_finite(program: Program) -> bool:
    """Whether features, sample weights and the targets that count are, on the host."""
    c, y = np.asarray(sample_weights(program)), np.asarray(program.y)
    return all(bool(np.all(np.isfinite(a))) for a in (np.asarray(program.X), c, y[c != 0]))


def has_free(program: Program) -> Array:
    """Scalar bool, whether there are any."""
    always = program.skip or program.bias == "free"
    if always or program.block_weights is None:
        return jnp.asarray(always)
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
    if _has_no_cones_free(program):
        found: FreeFit = _open_fit(program)
        # From zero Newton's method may be far: counts have curvatures of any size.
        if bool(np.isfinite(np.asarray(found.slip))):
            return found
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


def _has_no_cones_free(program: Program) -> bool:
    """Whether no block in a cone is free: only a skip connection, a constant, or gates."""
    if not program.has_cones:
        return not has_kinks(program.loss)
    given = program.block_weights
    penalised = given is None or bool(np.all(np.asarray(given) > 0))
    return penalised and not has_kinks(program.loss)


@partial(compiled, optimised=False)
def _open_fit(program: Program) -> FreeFit:
    """The `FreeFit` of a program whose free blocks have no cones: Newton's method finds it.

    What it ends with is proved like any other answer.
    """
    given, units = in_units(program)
    whole, _ = row_space(given)
    fit = best_fit(whole)
    residual, one = residual_at(whole, fit), jnp.ones((), fit.dtype)
    upper = objective_at(whole, one, fit, jnp.zeros_like(fit), jnp.zeros_like(fit[:1]), 0.0).value
    nothing = CorrelationBound(*[jnp.zeros((), fit.dtype)] * 4)
    lower, _ = lower_bound(whole, one, residual, nothing, upper, fit)
    slip = _slip(whole, fit, residual, upper, lower.value)
    return FreeFit(out_of_units(residual, units.residual), out_of_units(slip, units.lam))


@partial(compiled, optimised=False)
def _free_fit(program: Program, answer: Solution) -> FreeFit:
    """The residual of an answer, and how far correlations of the optimum's may be from it."""
    given, units = in_units(program)
    whole, _ = row_space(given)
    fit, residual = into_units(answer.fit, units.fit), into_units(answer.residual, units.residual)
    upper, lower = (into_units(v, units.objective) for v in (answer.upper, answer.lower))
    slip = _slip(whole, fit, residual, upper, lower)
    return FreeFit(answer.residual, out_of_units(slip, units.lam))


def _slip(whole: Program, fit: Array, residual: Array, upper: Array, lower: Array) -> Array:
    r"""How far correlations, over weights, at the residual of a fit may be from the optimum's.

    A loss g of curvature at most L has ||r - r*||^2 <= 2 L (g - g*). Blocks without cones do
    better: with A their features and H the curvatures on the way, A^T r* = 0 leaves

        X^T D (r - r*) = X^T D H A (A^T H A)^-1 A^T r,

    at most ||H^(1/2) X|| ||A^T r|| / sigma_min(H^(1/2) A) long; curvatures are least at the ends of
    the interval that a sample's fit is known to lie in.
    """
    X, weight, y = jnp.asarray(whole.X), sample_weights(whole), jnp.asarray(whole.y)
    gap = upper - lower + eps(fit.dtype) * jnp.abs(upper)
    # More than the gap, so that rounding has no say in how far that is.
    away = distances(whole, residual, gap + eps(fit.dtype) ** 0.5 * jnp.abs(upper), fit)
    bend = weight * curvature_within(whole.loss, fit, away, y)
    slip = largest_singular(X) * jnp.sqrt(2.0 * jnp.max(bend, initial=0.0) * gap)

    weights = block_weights(whole)
    assert weights is not None
    free = (weights == 0).reshape(whole.block_shape)
    free = free if free.ndim == 2 else free[None]
    ends = [curvature(whole.loss, fit + side * away, y) for side in (1.0, -1.0)]
    least = weight * jnp.minimum(*ends)
    root = jnp.sqrt(jnp.where(least >= 0, least, 0.0))
    sigma = jnp.sqrt(free_system(free_features(whole, free), root).smallest)
    pattern = block_patterns(whole.block_shape)
    c = seen(whole, pattern, raw_correlations(whole, residual).reshape(len(weights), -1))
    left = safe_norm(jnp.where((weights == 0)[:, None], c, 0.0).reshape(1, -1))[0]
    left = left + jnp.sum((weights == 0).astype(fit.dtype)) * correlation_rounding(whole, residual)
    linear = largest_singular(jnp.sqrt(bend)[:, None] * X) * left / jnp.where(sigma > 0, sigma, 1.0)
    skip = without_cone(whole, pattern)
    walled = jnp.any((weights == 0) & (~skip if skip is not None else whole.has_cones))
    better = (sigma > 0) & ~walled & (linear < slip)
    slip = jnp.where(better, linear, slip)

    if has_bias(whole):  # polar sizes are at most so many times norms
        slip = most_in_polar_size(reach_of(X)) * slip
    lightest = jnp.min(jnp.where(weights == 0, jnp.inf, weights), initial=jnp.inf)
    # With nothing unpenalised the fit is zero, and exact.
    return jnp.where(jnp.any(weights == 0), slip / lightest, 0.0)
