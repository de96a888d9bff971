"""The Poisson loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import xlogy

from jaxrelu.core.checks import as_float
from jaxrelu.core.numerics import eps
from jaxrelu.core.pytrees import register
from jaxrelu.core.rounding import EXPONENTIAL
from jaxrelu.core.tracing import is_traced
from jaxrelu.losses.checks import check_parameter, parameter

# Duals up to this share of the target are close to it.
_CLOSE = 0.25
# Of a series in powers of 1/49, to eps of float64.
_TERMS = 10


@register
@dataclass(frozen=True, eq=False)
class PoissonLoss:
    r"""The Poisson loss of counts, with the logarithm of the rate as the fit.

    l(f, y) = e^g - y g + (y log y - y),  g = f + offset,  0 log 0 = 0: half the deviance, whose
    minimum over f is zero. For counts k over exposures E pass the rates ``y = k / E`` and
    ``sample_weight = E``: then the program's loss is that of the counts.

    Args:
        offset: scalar, or (n,), one a sample: a known part of the logarithm of the rate; None for
            zero. A leaf: `jax.vmap` and `jax.grad` take it.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import PoissonLoss
        >>> PoissonLoss().value(jnp.zeros(2), jnp.asarray([1.0, 0.0])).tolist()
        [0.0, 1.0]

    Reference: McCullagh and Nelder (1989), Section 6.2.
    """

    offset: Any = None

    @property
    def smoothness(self) -> float:
        """Infinite: see `curvature_within`."""
        return math.inf

    def curvature_within(self, fit: Array, radius: Array, target: Array) -> Array:
        """The largest second derivative at fits that close, e^(g + radius), shape (n,).

        Infinite where the gradient is capped: by it nothing is bounded there.
        """
        del target
        g = self._log_rate(fit) + radius
        return jnp.where(g > _largest_log_rate(fit.dtype), jnp.inf, jnp.exp(g))

    def value(self, fit: Array, target: Array) -> Array:
        """Value (n,): y (e^t - 1 - t) with t = g - log y, and e^g where y = 0."""
        g, some = self._log_rate(fit), target > 0
        t = g - jnp.log(jnp.where(some, target, 1.0))
        # Close to the target the terms cancel, far above it y (e^t) may overflow before e^g does.
        near = target * (jnp.expm1(jnp.minimum(t, 1.0)) - t)
        far = jnp.exp(g) - target * (1.0 + t)
        return jnp.where(some, jnp.where(t <= 1.0, near, far), jnp.exp(g) - target)

    def gradient(self, fit: Array, target: Array) -> Array:
        """Derivative e^g - y, shape (n,); e^g at most the square root of the largest number.

        No step is so long that a search along it meets infinities.
        """
        return jnp.exp(jnp.minimum(self._log_rate(fit), _largest_log_rate(fit.dtype))) - target

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Conjugate a log a - dual - y log y - dual offset with a = dual + y, (n,).

        +inf unless a >= 0. The derivative at a = 0 is infinite; 0 is returned instead, so that a
        sample at the edge does not turn a derivative into NaN.
        """
        rate, some = dual + target, target > 0
        inside, y = rate > 0, jnp.where(some, target, 1.0)
        s = dual / y
        close = some & (jnp.abs(s) <= _CLOSE)
        # a log a - y log y = dual log y + a log(1 + s): close to the target the terms cancel.
        small = jnp.where(close, s, 0.0)
        near = dual * jnp.log(y) + y * ((1.0 + small) * _log_of_one_and(small) - small)
        a = jnp.where(inside, rate, 1.0)
        far = jnp.where(inside, a * jnp.log(a), 0.0) - dual - xlogy(target, y)
        value = jnp.where(close, near, far)
        if self.offset is not None:
            value = value - dual * parameter(self.offset, dual)
        return jnp.where(rate < 0, jnp.inf, value)

    def value_error(self, fit: Array, target: Array) -> Array:
        """Exponentials and a logarithm, of a sum that is rounded itself."""
        g, some = self._log_rate(fit), target > 0
        log_y = jnp.log(jnp.where(some, target, 1.0))
        t, rate = jnp.where(some, g - log_y, 0.0), jnp.exp(g)
        terms = 1.0 + jnp.abs(log_y) + self._terms(fit)
        # The slope is off itself.
        unit = 2.0 * EXPONENTIAL * eps(fit.dtype)
        slope = jnp.abs(rate - target) + unit * (rate + target) * terms
        apart = jnp.where(t > 1.0, rate + target * (1.0 + t), slope + target * jnp.abs(t))
        return EXPONENTIAL * (slope * terms + jnp.abs(self.value(fit, target)) + apart)

    def conjugate_error(self, dual: Array, target: Array) -> Array:
        """Logarithms, of a dual that is rounded itself."""
        rate, some = jnp.abs(dual + target), target > 0
        size, y = jnp.abs(dual), jnp.where(some, target, 1.0)
        close = some & (size <= _CLOSE * y)
        # Rounding of the dual moves a rate that is next to zero by eps of the target.
        least = jnp.maximum(rate, eps(rate.dtype) * jnp.maximum(size, target))
        log_rate = jnp.abs(jnp.log(jnp.where(least > 0, least, 1.0)))
        log_y = jnp.abs(jnp.log(y))
        near = size * (4.0 + log_y)
        far = least * (1.0 + log_rate) + size + target * (1.0 + log_y)
        moved = size * (1.0 + log_rate + self._terms(dual))
        return EXPONENTIAL * jnp.where(close, near, far) + 4.0 * moved

    def check_target(self, target: Any) -> None:
        """Rates must be >= 0; NaN is let through and ends as `Status.NONFINITE`.

        An offset must be a scalar, or one number a sample.
        """
        check_parameter(self.offset, "offset", target)
        if is_traced(target):
            return
        as_float(target, "y")
        lowest = float(np.nanmin(np.asarray(target), initial=0.0))
        if lowest < 0:
            raise ValueError(
                f"PoissonLoss takes rates and counts >= 0, but y holds {lowest:g}: pass counts "
                "over exposures, not their logarithm, or use SquaredLoss for a real target."
            )

    def _log_rate(self, fit: Array) -> Array:
        return fit if self.offset is None else fit + parameter(self.offset, fit)

    def _terms(self, fit: Array) -> Array:
        """The size of what is added up to g."""
        if self.offset is None:
            return jnp.abs(fit)
        return jnp.abs(fit) + jnp.abs(parameter(self.offset, fit))


def _largest_log_rate(dtype: Any) -> float:
    """The g up to which e^g is not capped in the gradient."""
    return 0.5 * math.log(float(jnp.finfo(dtype).max))


def _log_of_one_and(s: Array) -> Array:
    """log(1 + s) for |s| <= `_CLOSE`, to a few eps: XLA's log1p is some hundred off on a CPU.

    2 artanh z with z = s / (2 + s), |z| <= 1/7, by its series in z^2.
    """
    z = s / (2.0 + s)
    square, series = z * z, jnp.zeros_like(z)
    for k in reversed(range(_TERMS)):
        series = series * square + 2.0 / (2 * k + 1)
    return z * series
