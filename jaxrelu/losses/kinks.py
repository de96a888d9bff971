r"""Losses with a kink: piecewise linear in the error, convex, and not differentiable at a fit.

    l(f, y) = max(low e, high e),     e = f - y,     low <= 0 <= high,

covers the hinge of labels (its kink is at f = y, too), the absolute and the quantile loss. What the
package needs of them beyond `jaxrelu.losses.base.Loss` is the proximal operator, and the interval
of slopes, to which residuals are confined:

    prox(v) = argmin_g l(g, y) + (g - v)^2 / (2 t) = y + e - clip(e, t low, t high),   e = v - y,
    l*(s, y) = s y for low <= s <= high, and +inf elsewhere.

A loss of your own with kinks has the members `prox` and `slopes` of `Kinked`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array


@runtime_checkable
class Kinked(Protocol):
    """What is asked of a loss with kinks beyond a `Loss`."""

    def prox(self, point: Array, step: Array, target: Array) -> Array:
        """argmin_g l(g, y) + (g - point)^2 / (2 step), (n,); its derivative is that of the code."""

    def slopes(self, target: Array) -> tuple[Array, Array]:
        """The least and the largest slope (n,) and (n,), the domain of the conjugate."""


class TwoSlopes:
    """A loss of two slopes that meet where the fit is the target."""

    @property
    def smoothness(self) -> float:
        """Infinite."""
        return float("inf")

    def slopes(self, target: Array) -> tuple[Array, Array]:
        """The slopes (n,), (n,) below the target, <= 0, and above it, >= 0."""
        raise NotImplementedError

    def value(self, fit: Array, target: Array) -> Array:
        """Value max(low e, high e) with e = f - y, shape (n,)."""
        (low, high), error = self.slopes(target), fit - target
        return jnp.maximum(low * error, high * error)

    def gradient(self, fit: Array, target: Array) -> Array:
        """The slope (n,); at the kink zero, of all that there are the smallest."""
        (low, high), error = self.slopes(target), fit - target
        return jnp.where(error > 0, high, jnp.where(error < 0, low, 0.0 * error))

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Conjugate dual * y, (n,); +inf unless dual is one of the slopes or between them."""
        low, high = self.slopes(target)
        return jnp.where((dual < low) | (dual > high), jnp.inf, dual * target)

    def prox(self, point: Array, step: Array, target: Array) -> Array:
        """argmin_g l(g, y) + (g - point)^2 / (2 step), shape (n,)."""
        (low, high), error = self.slopes(target), point - target
        above, below = error - step * high, error - step * low
        moved = jnp.where(above > 0, above, jnp.where(below < 0, below, 0.0))
        return target + moved

    def value_error(self, fit: Array, target: Array) -> Array:
        """A difference and a product."""
        return 2.0 * jnp.abs(self.value(fit, target))

    def conjugate_error(self, dual: Array, target: Array) -> Array:
        """A product, of a dual that may lie outside by its rounding."""
        return 4.0 * jnp.abs(dual * target)


def has_kinks(loss: Any) -> bool:
    """Whether a loss is solved by its proximal operator."""
    return isinstance(loss, Kinked)
