"""From evidence to a certificate and a status: the only place that says OPTIMAL."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.status import Status
from jaxrelu.programs.certificates import Certificate, certify, dual_point, rounding_error
from jaxrelu.programs.program import Program, fit, objective, residual_at
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.base import Evidence, Tolerance, tolerances


def conclude(program: Program, lam: Array, tolerance: Tolerance, evidence: Evidence) -> Solution:
    """Evaluates both values at what a solver returned, and gives the status."""
    weights = evidence.weights
    f = fit(program, weights)
    upper = objective(program, lam, weights)
    dual, lower = dual_point(program, lam, evidence.residual, evidence.bound)
    rounding = rounding_error(program, lam, weights, evidence.residual)
    finite = evidence.finite & jnp.all(jnp.isfinite(weights))
    status = verdict(lam, tolerance, upper, lower, rounding, finite, evidence.exhausted)
    certificate = Certificate(lower, upper, upper - lower, weights, dual)
    return Solution(
        weights, lam, f, residual_at(program, f), certificate, status, evidence.num_steps
    )


def verdict(
    lam: Array,
    tolerance: Tolerance,
    upper: Array,
    lower: Array,
    rounding: Array,
    finite: Array,
    exhausted: Array,
) -> Array:
    """The status of an answer, from its two values alone; the later rules win."""
    status = jnp.where(exhausted, Status.MAX_STEPS, Status.STALLED)
    status = jnp.where(upper - lower <= rounding, Status.PRECISION_FLOOR, status)
    status = jnp.where(tolerance.met(upper, lower), Status.OPTIMAL, status)
    sound = finite & jnp.isfinite(upper) & jnp.isfinite(lower)
    status = jnp.where(sound, status, Status.NONFINITE)
    status = jnp.where((lam > 0) & jnp.isfinite(lam), status, Status.INVALID)
    return status.astype(jnp.int32)


def certified(program: Program, lam: Array, weights: Array) -> Solution:
    """Weights from anywhere as a `Solution`: judged at the default tolerance, no steps taken."""
    bounds = certify(program, lam, weights)
    f = fit(program, bounds.weights)
    residual = residual_at(program, f)
    rounding = rounding_error(program, lam, bounds.weights, residual)
    yes = jnp.asarray(True)
    status = verdict(
        lam, tolerances(program, None, None), bounds.upper, bounds.lower, rounding, yes, yes
    )
    return Solution(bounds.weights, lam, f, residual, bounds, status, jnp.asarray(0, jnp.int32))
