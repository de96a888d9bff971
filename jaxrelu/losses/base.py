"""Losses: convex in the fit, a sum over samples.

A loss is used elementwise: sample i contributes ``loss.value(fit, target)[i]``, and the program's
loss is the (weighted) sum, never the mean. The residual of the package is minus the gradient,
r = -gradient(fit, target); for the squared loss r = y - f.

A loss of your own is a frozen dataclass with the five members of `Loss`, registered as a pytree by
`jaxrelu.core.pytrees.register` (which says why); its parameters are leaves, so one may trace, batch
and differentiate them. Parameters that are arrays do not compare or hash: give it ``eq=False``.
More members may be there:

* ``homogeneity`` (int): m with l(t f, t y) = t^m l(f, y) for t > 0. It lets targets of any size be
  solved in numbers around one; without it they are taken as they are. Where parameters have to be
  multiplied by t as well, ``scaled(exponent)`` is the loss with those times 2^exponent.
* ``curvature_within(fit, radius, target)`` (n,): the largest second derivative at fits that close.
  Only a loss whose ``smoothness`` is infinite needs it.
* ``same_gradient(fit, target)`` (two arrays (n,)): the ends, -inf and +inf among them, of the
  interval of fits whose gradient is that of this fit: where a loss has linear pieces, networks of
  different fits can be optimal, and `optimal_set` finds them by this.
* ``prox(point, step, target)`` and ``slopes(target)``: of a loss with kinks, whose ``gradient`` is
  any of its slopes there (`jaxrelu.losses.kinks`).
* ``several_outputs = True``: of a loss of rows of fits (n, c), the outputs of a sample together,
  whose value and conjugate are (n,) and whose gradient is (n, c), for a `VectorProgram`.
* ``value_error(fit, target)`` and ``conjugate_error(dual, target)`` (n,): how far the two, as
  computed, may be off, in units of eps. By default every function is taken to be `ELEMENTARY` of
  them off, relative to the largest terms that a smooth loss can be made of.

Reference: the conjugates enter the dual value -sum_i w_i conjugate(-r_i / w_i, y_i).
"""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.rounding import ELEMENTARY
from jaxrelu.losses.kinks import has_kinks


class Loss(Protocol):
    """What the package asks of a loss l(f, y): differentiable and convex in the fit f."""

    @property
    def smoothness(self) -> Any:
        """Lipschitz constant of the gradient in the fit, one sample: l'' <= smoothness.

        Infinite where there is none: a loss with an exponential, say.
        """

    def value(self, fit: Array, target: Array) -> Array:
        """l(f_i, y_i) for every sample, shape (n,)."""

    def gradient(self, fit: Array, target: Array) -> Array:
        """Derivative of the value in the fit, shape (n,)."""

    def conjugate(self, dual: Array, target: Array) -> Array:
        """sup_f dual_i f - l(f, y_i), shape (n,); +inf outside the domain."""

    def check_target(self, target: Any) -> None:
        """Raises ValueError, naming the fix, for a target that the loss cannot take.

        It is asked about known values only, outside of any trace.
        """


L = TypeVar("L", bound=Loss)


def homogeneity(loss: Loss) -> int:
    """M with l(t f, t y) = t^m l(f, y) for t > 0, or 0 where there is none."""
    return int(getattr(loss, "homogeneity", 0))


def scaled(loss: L, exponent: Array) -> L:
    """The loss l' of targets that are 2^e times as large: l'(2^e f, 2^e y) = 2^(m e) l(f, y)."""
    return loss.scaled(exponent) if hasattr(loss, "scaled") else loss


def curvature_within(loss: Loss, fit: Array, radius: Array, target: Array) -> Array:
    """The largest l'' (n,) at fits that are as close as `radius` (n,)."""
    if hasattr(loss, "curvature_within"):
        return loss.curvature_within(fit, radius, target)  # type: ignore[no-any-return]
    return jnp.broadcast_to(jnp.asarray(loss.smoothness, fit.dtype), fit.shape)


def rise_within(loss: Loss, fit: Array, radius: Array, target: Array) -> Array:
    """How much larger the values (n,) may be at fits that are as close as `radius` (n,)."""
    if has_kinks(loss):
        low, high = loss.slopes(target)  # type: ignore[attr-defined]
        return jnp.maximum(-low, high) * radius
    # A curvature may be infinite.
    bend = curvature_within(loss, fit, radius, target)
    bent = jnp.where(radius == 0, 0.0, 0.5 * bend * radius**2)
    return jnp.abs(loss.gradient(fit, target)) * radius + bent


def usual_curvature(loss: Loss, fit: Array, target: Array) -> Array:
    """What l'' (n,) is measured against: its bound, or where it has none, what it is at the fit."""
    bound = jnp.asarray(loss.smoothness, fit.dtype)
    if isinstance(loss.smoothness, int | float) and math.isfinite(loss.smoothness):
        return jnp.broadcast_to(bound, fit.shape)
    return jnp.where(jnp.isfinite(bound), bound, curvature(loss, fit, target))


def same_gradient(loss: Loss, fit: Array, target: Array, weight: Array) -> tuple[Array, Array]:
    """The intervals of fits, (n,) and (n,), with the weighted gradient of this one."""
    low, high = fit, fit
    if hasattr(loss, "same_gradient"):
        low, high = loss.same_gradient(fit, target)
    absent = weight == 0
    return jnp.where(absent, -jnp.inf, low), jnp.where(absent, jnp.inf, high)


def value_error(loss: Loss, fit: Array, target: Array) -> Array:
    """How far the values (n,) may be off as computed, in units of eps."""
    if hasattr(loss, "value_error"):
        return loss.value_error(fit, target)  # type: ignore[no-any-return]
    size = jnp.abs(fit) + jnp.abs(target)
    if has_kinks(loss):
        largest = rise_within(loss, fit, size, target)
    else:
        largest = curvature_within(loss, fit, 0.0 * size, target) * size**2
    return ELEMENTARY * (jnp.abs(loss.value(fit, target)) + largest)


def conjugate_error(loss: Loss, dual: Array, target: Array) -> Array:
    """How far the conjugates (n,) may be off as computed, in units of eps."""
    if hasattr(loss, "conjugate_error"):
        return loss.conjugate_error(dual, target)  # type: ignore[no-any-return]
    largest = jnp.abs(dual) * (jnp.abs(target) + jnp.abs(dual) / loss.smoothness)
    return ELEMENTARY * (jnp.abs(loss.conjugate(dual, target)) + largest)


def curvature(loss: Loss, fit: Array, target: Array) -> Array:
    """Second derivative of a loss in the fit, l''(f_i, y_i).

    Args:
        loss: a `Loss`.
        fit: array (n,).
        target: array (n,).

    Returns:
        Array (n,), between 0 and ``loss.smoothness``.
    """
    return jax.jvp(lambda f: loss.gradient(f, target), (fit,), (jnp.ones_like(fit),))[1]


def total(loss: Loss, fit: Array, target: Array, weight: Array) -> Array:
    """The loss of the program, sum_i weight_i l(f_i, y_i).

    Args:
        loss: a `Loss`.
        fit: array (n,), or (n, c) for c outputs, over which losses of single numbers are summed.
        target: array (n,), or (n, c).
        weight: array (n,), non-negative; a sample of weight zero counts for nothing.

    Returns:
        A scalar.
    """
    values = loss.value(fit, target)
    # Of several outputs a loss of single numbers has one value each.
    return jnp.sum(_weighted(weight, values if values.ndim == 1 else jnp.sum(values, axis=1)))


def total_gradient(loss: Loss, fit: Array, target: Array, weight: Array) -> Array:
    """Gradient of `total` in the fit, weight_i l'(f_i, y_i); the residual is its negative.

    Args:
        loss: a `Loss`.
        fit: array (n,), or (n, c) for c outputs.
        target: array (n,), or (n, c).
        weight: array (n,), non-negative.

    Returns:
        Array of the shape of the fit, exactly zero where the weight is.
    """
    return _weighted(weight, loss.gradient(fit, target))


def _weighted(weight: Array, value: Array) -> Array:
    """The product, zero where the weight is, with its derivative in the weight there too."""
    weight = weight.reshape(*weight.shape, *(1,) * (value.ndim - 1))
    return weight * jnp.where((weight == 0) & ~jnp.isfinite(value), 0.0, value)


def total_curvature(loss: Loss, fit: Array, target: Array, weight: Array) -> Array:
    """Diagonal of the Hessian of `total` in the fit, weight_i l''(f_i, y_i).

    Args:
        loss: a `Loss`.
        fit: array (n,).
        target: array (n,).
        weight: array (n,), non-negative.

    Returns:
        Array (n,), exactly zero where the weight is.
    """
    return jnp.where(weight == 0, 0.0, weight * curvature(loss, fit, target))


def total_conjugate(loss: Loss, dual: Array, target: Array, weight: Array) -> Array:
    """Convex conjugate of `total` in the fit, sum_i weight_i l*(dual_i / weight_i, y_i).

    The dual value of the program at a feasible r is ``-total_conjugate(loss, -r, y, weight)``.

    Args:
        loss: a `Loss`.
        dual: array (n,).
        target: array (n,).
        weight: array (n,), non-negative. Where it is zero the conjugate is the indicator of zero.

    Returns:
        A scalar, +inf outside the domain, NaN if `dual` holds a NaN.
    """
    absent = weight == 0
    terms = weight * loss.conjugate(dual / jnp.where(absent, 1.0, weight), target)
    indicator = jnp.where(dual == 0, 0.0, jnp.where(jnp.isnan(dual), dual, jnp.inf))
    return jnp.sum(jnp.where(absent, indicator, terms))
