r"""Both values of the programs of several outputs, with the rounding of their own evaluation.

As `jaxrelu.programs.bounds` for one output: every number is computed with a bound of its error.

* a fit F = sum_j D_j X V_j is off by at most (d + p + 2) u sum_j D_j |X| |V_j|;
* X^T D_j R is off by n u || |X|^T |R| ||_F in norm, and singular values are bounded from above
  whatever the accuracy of their vectors (`jaxrelu.geometry.singular_values`);
* of the multinomial loss rows of R must sum to zero exactly: one entry of each is taken to be minus
  the sum of the others, which moves X^T D_j R by at most the sum of ||x_i|| times what R_i adds
  up to, rounding included.

The program is in numbers around one (`outputs_in_units`).

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), Chapter 3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import chunk_size, in_chunks
from jaxrelu.core.numerics import eps, matmul, plain_norm, safe_norm
from jaxrelu.core.rounding import added, downward, product, roundoff, sum_roundings, upward
from jaxrelu.geometry.singular_values import nuclear_norm_bounds, spectral_norm_bounds
from jaxrelu.losses.base import (
    conjugate_error,
    homogeneity,
    rise_within,
    value_error,
)
from jaxrelu.programs.bounds import Value, best_multiplier
from jaxrelu.programs.units import Units, features_in_units, samples_in_units
from jaxrelu.programs.vector_program import (
    VectorProgram,
    has_joint_outputs,
    output_weights,
    outputs_fit,
    targets,
)


def outputs_in_units(program: VectorProgram) -> tuple[VectorProgram, Units]:
    """The program in numbers around one, its targets (n, c), and the way back."""
    X, feature = features_in_units(jnp.asarray(program.X))
    given = None if program.sample_weight is None else output_weights(program)
    samples, target, weight = samples_in_units(program.loss, targets(program), given)
    inside = replace(program, X=X, Y=samples.y, loss=samples.loss, sample_weight=samples.weight)
    return inside, Units.of(feature, target, weight, homogeneity(program.loss))


def outputs_fit_bound(program: VectorProgram, weights: Array) -> tuple[Array, Array]:
    """The fit (n, c) of blocks (p, d, c), and how far it may be off in units of roundoff."""
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    p, d, _ = weights.shape
    fit = outputs_fit(X, masks, weights)
    size = outputs_fit(jnp.abs(X), masks, jnp.abs(weights))
    return fit, (d + p + 4.0) * size


def outputs_objective(
    program: VectorProgram, lam: Array, fit: Array, off: Array, size: Array, roundings: float
) -> Value:
    """loss(fit) + lam sum of sizes, rounded up.

    Args:
        program: in units.
        lam: scalar.
        fit: (n, c).
        off: (n, c), how far it may be off in units of roundoff.
        size: (k,), norms of blocks or neurons.
        roundings: how often each of them was rounded.
    """
    loss, Y, weight = program.loss, targets(program), output_weights(program)
    (n, c), dtype = fit.shape, fit.dtype
    unit = roundoff(dtype)
    off = unit * off
    if has_joint_outputs(loss):
        values = loss.value(fit, Y)
        slope = jnp.sum(jnp.abs(loss.gradient(fit, Y)) * off, axis=1)
        wrong = slope + 0.5 * loss.smoothness * jnp.sum(off**2, axis=1)
        wrong = wrong * (1.0 + (c + 8.0) * unit) + eps(dtype) * value_error(loss, fit, Y)
        each = jnp.abs(values)
    else:
        values = added(loss.value(fit, Y))
        each = added(jnp.abs(loss.value(fit, Y)))
        wrong = added(rise_within(loss, fit, off, Y) + eps(dtype) * value_error(loss, fit, Y))
    terms = weight * _present(weight, values)
    penalty = lam * added(size)
    of_penalty = roundings + sum_roundings(size.shape[0], dtype) + 8.0
    of_loss = sum_roundings(n, dtype) + sum_roundings(c, dtype) + 4.0
    rounding = added(_present(weight, weight * wrong)) * (1.0 + unit * of_loss) + unit * (
        of_loss * added(weight * _present(weight, each)) + of_penalty * penalty
    )
    value = added(terms) + penalty
    rounding = rounding + 2 * unit * jnp.abs(value)
    return Value(upward(value, rounding), rounding)


def _present(weight: Array, values: Array) -> Array:
    return jnp.where(weight == 0, 0.0, values)


def upper_of_blocks(program: VectorProgram, lam: Array, weights: Array) -> tuple[Value, Array]:
    """The gated objective at blocks (p, d, c), rounded up; and their fit."""
    fit, off = outputs_fit_bound(program, weights)
    # Rounded up already.
    return outputs_objective(program, lam, fit, off, nuclear_norm_bounds(weights), 1.0), fit


class Neurons(NamedTuple):
    """Neurons of an exact program; those that are not used are zero.

    Attributes:
        directions: (k, d), u_k, each in the cell of its pattern.
        outputs: (k, c), v_k.
        cells: (k,) int32, the patterns.
    """

    directions: Any
    outputs: Any
    cells: Any


def neuron_features(program: VectorProgram, neurons: Neurons) -> Array:
    """(k, n), D_j X u_k, which is relu(X u_k) for directions in their cells."""
    masks = jnp.asarray(program.patterns.masks, bool).T[neurons.cells]
    return jnp.where(masks, matmul(neurons.directions, jnp.asarray(program.X).T), 0.0)


def upper_of_neurons(program: VectorProgram, lam: Array, neurons: Neurons) -> tuple[Value, Array]:
    """The exact objective at neurons inside their cells, rounded up; and their fit."""
    X = jnp.asarray(program.X)
    k, d = neurons.directions.shape
    features = neuron_features(program, neurons)
    fit = matmul(features.T, neurons.outputs)
    masks = jnp.asarray(program.patterns.masks, bool).T[neurons.cells]
    size = jnp.where(masks, matmul(jnp.abs(neurons.directions), jnp.abs(X).T), 0.0)
    off = (d + k + 4.0) * matmul(size.T, jnp.abs(neurons.outputs))
    sizes = safe_norm(neurons.directions) * safe_norm(neurons.outputs)
    roundings = d + neurons.outputs.shape[1] + 8.0
    return outputs_objective(program, lam, fit, off, sizes, roundings), fit


class OutputsBound(NamedTuple):
    """An upper bound of the largest ||R^T D_j X u|| of any block, and the part that is rounding."""

    bound: Array
    rounding: Array


def residual_rounding(program: VectorProgram, residual: Array) -> Array:
    """How far rounding may carry any X^T D_j R at a residual (n, c), in Frobenius norm."""
    X, size = jnp.asarray(program.X), jnp.abs(residual)
    (n, _), c = X.shape, residual.shape[1]
    unit, times = roundoff(X.dtype), sum_roundings(n, X.dtype)
    reach = plain_norm(product(size.T, jnp.abs(X)).ravel())
    rounding = unit * (times + 4.0) * reach * (1.0 + unit * (times + c + 8.0))
    if has_joint_outputs(program.loss):
        weight = output_weights(program)
        moved = jnp.abs(jnp.sum(residual, axis=1)) + (c + 4.0) * unit * (
            weight + 2.0 * jnp.sum(size, axis=1)
        )
        rounding = rounding + added(safe_norm(X) * moved) * (1.0 + unit * (times + 8.0))
    return rounding


def spectral_bound(program: VectorProgram, residual: Array) -> OutputsBound:
    """max_j ||X^T D_j R||_2 over all gates, rounded up."""
    rounding = residual_rounding(program, residual)
    found = jnp.max(spectral_norm_bounds(accurate_correlations(program, residual)), initial=0.0)
    return OutputsBound(upward(found, rounding), rounding)


def accurate_correlations(program: VectorProgram, residual: Array) -> Array:
    """X^T D_j R of all gates (p, d, c), within `residual_rounding`."""
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    (n, d), c = X.shape, residual.shape[1]

    def some(own: Array) -> Array:
        weighed = own[:, None].astype(X.dtype) * residual.T[None]
        found = product(weighed.reshape(-1, n), X).reshape(-1, c, d)
        return jnp.swapaxes(found, 1, 2)

    return in_chunks(some, masks.T, chunk_size(n * c))  # type: ignore[no-any-return]


def outputs_lower_value(
    program: VectorProgram, lam: Array, residual: Array, bound: Array
) -> tuple[Value, Array]:
    """The dual value of the best feasible multiple t R of a residual, rounded down; and that t."""
    loss, Y, weight = program.loss, targets(program), output_weights(program)
    (n, c), dtype = residual.shape, residual.dtype
    unit = roundoff(dtype)
    at_most = bound * (1.0 + unit * 8.0)
    t = best_multiplier(lambda t: outputs_dual_value(program, t * residual), lam, at_most)
    dual = t * residual
    absent = (weight == 0)[:, None]
    share = -dual / jnp.where(absent, 1.0, weight[:, None])
    joint = has_joint_outputs(loss)
    conjugate, error = loss.conjugate(share, Y), conjugate_error(loss, share, Y)
    if joint:
        each, wrong = jnp.abs(conjugate), error
    else:
        each, conjugate, wrong = added(jnp.abs(conjugate)), added(conjugate), added(error)
    terms = jnp.where(absent[:, 0], _indicator(dual), -weight * conjugate)
    times = sum_roundings(n, dtype) + sum_roundings(c, dtype) + 4.0
    wrong = _present(weight, weight * wrong)
    wrong = eps(dtype) * added(wrong) * (1.0 + unit * times)
    rounding = wrong + unit * times * added(_present(weight, weight * each))
    return Value(downward(added(terms), rounding), rounding), t


def _indicator(dual: Array) -> Array:
    inside, nan = jnp.all(dual == 0, axis=1), jnp.any(jnp.isnan(dual), axis=1)
    return jnp.where(inside, 0.0, jnp.where(nan, jnp.nan, -jnp.inf))


def outputs_dual_value(program: VectorProgram, dual: Array) -> Array:
    """-sum_i w_i loss*(-dual_i / w_i) at a dual matrix (n, c), as computed."""
    weight = output_weights(program)
    absent = (weight == 0)[:, None]
    terms = program.loss.conjugate(
        -dual / jnp.where(absent, 1.0, weight[:, None]), targets(program)
    )
    terms = terms if terms.ndim == 1 else jnp.sum(terms, axis=1)
    return jnp.sum(jnp.where(absent[:, 0], _indicator(dual), -weight * terms))
