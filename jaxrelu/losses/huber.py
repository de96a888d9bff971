"""The Huber loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.checks import as_float
from jaxrelu.core.pytrees import register
from jaxrelu.core.rounding import times_power
from jaxrelu.losses.checks import check_parameter, parameter


@register
@dataclass(frozen=True, eq=False)
class HuberLoss:
    r"""The Huber loss: squared for errors up to delta, linear beyond, so that outliers pull less.

    l(f, y) = e^2 / 2 where |e| <= delta, delta |e| - delta^2 / 2 elsewhere, with e = f - y.

    Args:
        delta: > 0, in the units of the target; scalar, or (n,), one a sample. A leaf: `jax.vmap`
            and `jax.grad` take it.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import HuberLoss
        >>> HuberLoss(1.0).value(jnp.asarray([0.5, 3.0]), jnp.zeros(2)).tolist()
        [0.125, 2.5]

    Reference: Huber (Annals of Mathematical Statistics, 1964).
    """

    delta: Any

    @property
    def smoothness(self) -> float:
        """1."""
        return 1.0

    @property
    def homogeneity(self) -> int:
        """2: targets and delta of twice the size, four times the loss."""
        return 2

    def scaled(self, exponent: Any) -> HuberLoss:
        """The loss of targets that are 2^exponent times as large."""
        return HuberLoss(times_power(jnp.asarray(self.delta), exponent))

    def value(self, fit: Array, target: Array) -> Array:
        """Value (n,): with m = min(|e|, delta), m |e| - m^2 / 2."""
        size = jnp.abs(fit - target)
        inner = jnp.minimum(size, self._delta(fit))
        return inner * (size - 0.5 * inner)

    def gradient(self, fit: Array, target: Array) -> Array:
        """Derivative (n,): e, clipped to [-delta, delta]."""
        delta = self._delta(fit)
        return jnp.clip(fit - target, -delta, delta)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Conjugate dual * y + dual^2 / 2, (n,); +inf unless |dual| <= delta."""
        quadratic = dual * target + 0.5 * dual**2
        return jnp.where(jnp.abs(dual) > self._delta(dual), jnp.inf, quadratic)

    def same_gradient(self, fit: Array, target: Array) -> tuple[Array, Array]:
        """Ends (n,), (n,) of the fits of this slope: all beyond delta on a linear piece."""
        delta, error = self._delta(fit), fit - target
        low = jnp.where(error <= -delta, -jnp.inf, jnp.where(error >= delta, target + delta, fit))
        high = jnp.where(error >= delta, jnp.inf, jnp.where(error <= -delta, target - delta, fit))
        return low, high

    def value_error(self, fit: Array, target: Array) -> Array:
        """A difference, two products."""
        return 8.0 * self.value(fit, target)

    def conjugate_error(self, dual: Array, target: Array) -> Array:
        """Two products and their sum, of a dual that is rounded itself."""
        return 4.0 * (jnp.abs(dual * target) + dual**2)

    def check_target(self, target: Any) -> None:
        """Any real target will do; delta must be positive, one for all samples or one a sample."""
        as_float(target, "y")
        check_parameter(self.delta, "delta", target, positive=True)

    def _delta(self, like: Array) -> Array:
        return parameter(self.delta, like)
