r"""Units: a program in numbers around one, by powers of two, which change no digit.

X = 2^a X', c = 2^e c' and, for a loss with l(t f, t y) = t^m l(f, y), y = 2^b y', together with the
parameters of the loss that are in units of y (b = 0 for all other losses), and weights of blocks
w = 2^g w' (g = 0 where there are none). Then weights are theta = 2^(b - a) theta', the objective is
2^(e + m b) times as large, and lam = 2^(a + e + (m - 1) b - g) lam'. Targets of 1e-153 or 1e200,
whose squares no float64 holds, are ordinary numbers in between; what does not fit on the way out
shows in the answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import safe_norm
from jaxrelu.core.rounding import largest_exponent, times_power, tiny
from jaxrelu.geometry.bias_metric import sized
from jaxrelu.losses.base import homogeneity, scaled
from jaxrelu.programs.bias import has_bias, in_bias_units
from jaxrelu.programs.extension import extended
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.program import Program, sample_weights


class Units(NamedTuple):
    """Exponents of the powers of two between a program and the one in numbers around one.

    A value of the program is 2^exponent times that in units: of the weights (one exponent, or one
    for each of a block with a free bias), of lam, of the residual (and the dual vector) and of the
    objective.
    """

    features: Any
    fit: Any
    weights: Any
    lam: Any
    residual: Any
    objective: Any

    @classmethod
    def of(cls, features: Any, target: Any, sample_weight: Any, degree: int) -> Units:
        """From the exponents of the data, and the m of the loss; arrays, or numbers on the host."""
        fit = target if degree else 0 * target
        residual = sample_weight + (degree - 1) * fit
        return cls(features, fit, fit - features, features + residual, residual, residual + fit)


def in_units(program: Program) -> tuple[Any, Units]:
    """The program in numbers around one, its skip connection a block of it, and the way back."""
    program = extended(program)
    biased = has_bias(program)
    X, feature = features_in_units(sized(jnp.asarray(program.X), biased), centred=biased)
    patterns = in_bias_units(program, program.patterns, feature)
    if biased:
        X = jnp.concatenate([X, jnp.ones((len(X), 1), X.dtype)], axis=1)
    given = None if program.sample_weight is None else sample_weights(program)
    samples, target, weight = samples_in_units(program.loss, jnp.asarray(program.y), given)
    degree = homogeneity(program.loss)
    inside = replace(
        program, X=X, y=samples.y, patterns=patterns, loss=samples.loss,
        sample_weight=samples.weight,
    )  # fmt: skip
    units = Units.of(feature, target, weight, degree)
    if biased:
        # A bias is in units of the fit.
        own = jnp.full((X.shape[1],), units.weights).at[-1].set(units.fit)
        units = units._replace(weights=own)
    blocks = block_weights(program)
    if blocks is not None:
        power = largest_exponent(jnp.where(jnp.isfinite(blocks), blocks, 0.0))
        blocks = times_power(blocks, -power).reshape(program.block_shape)
        inside, units = replace(inside, block_weights=blocks), units._replace(lam=units.lam - power)
    return inside, units


def features_in_units(X: Array, *, centred: bool = False) -> tuple[Array, Array]:
    """Rows of norm about one, or of such a distance from their mean; and the exponent taken out."""
    feature = largest_exponent(X)
    X = times_power(X, -feature)
    mean = jnp.mean(safe_norm(X - jnp.mean(X, axis=0)[None] if centred else X))
    usable = (mean > 0) & jnp.isfinite(mean)
    rows = jnp.round(jnp.log2(jnp.where(usable, mean, 1.0))).astype(jnp.int32)
    return times_power(X, -rows), feature + rows


class Samples(NamedTuple):
    """A loss with the targets and the weights (None for ones) of the samples."""

    loss: Any
    y: Array
    weight: Array | None


def samples_in_units(loss: Any, y: Array, weight: Array | None) -> tuple[Samples, Array, Array]:
    """Targets, where the loss allows, and weights around one; and the exponents taken out."""
    target = largest_exponent(y) if homogeneity(loss) else jnp.zeros((), jnp.int32)
    power = jnp.zeros((), jnp.int32) if weight is None else largest_exponent(weight)
    inside = None if weight is None else times_power(weight, -power)
    return Samples(scaled(loss, -target), times_power(y, -target), inside), target, power


def into_units(values: Any, exponent: Array) -> Array:
    """Values of a program in its units: 2^-exponent times as large."""
    values = jnp.asarray(values)
    return times_power(values, -_along(exponent, values))


def out_of_units(values: Array, exponent: Array) -> Array:
    """Values in units as those of the program: 2^exponent times as large."""
    return times_power(values, _along(exponent, values))


def _along(exponent: Array, values: Array) -> Array:
    """An exponent for all values, or one for each of their last axis."""
    own = jnp.asarray(exponent)
    return own if own.ndim == 0 else own.reshape((1,) * (values.ndim - own.ndim) + own.shape)


def printed(value: Array, exponent: Array, side: int) -> Array:
    """A bound in units as a number of the program; rounded to its side where digits are lost."""
    out, least = times_power(value, exponent), tiny(value.dtype)
    outward = jnp.where(side * value > 0, side * least, 0.0)
    return jnp.where(are_lost(value, out), outward.astype(out.dtype), out)


def are_lost(before: Array, after: Array) -> Array:
    """Elementwise, whether a number that is not zero came out below the normal range."""
    return (before != 0) & (jnp.abs(after) < tiny(after.dtype))
