"""The squared loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from jaxrelu.core.checks import as_float
from jaxrelu.core.pytrees import register


@register
@dataclass(frozen=True)
class SquaredLoss:
    """The squared loss, l(f, y) = (f - y)^2 / 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import SquaredLoss
        >>> SquaredLoss().value(jnp.asarray([3.0]), jnp.asarray([1.0])).tolist()
        [2.0]
    """

    @property
    def smoothness(self) -> float:
        """1."""
        return 1.0

    @property
    def homogeneity(self) -> int:
        """2: targets of twice the size, four times the loss."""
        return 2

    def value(self, fit: Array, target: Array) -> Array:
        """Value (f - y)^2 / 2, shape (n,)."""
        return optax.losses.l2_loss(fit, target)

    def gradient(self, fit: Array, target: Array) -> Array:
        """Derivative f - y, shape (n,)."""
        return fit - target

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Conjugate dual * y + dual^2 / 2, shape (n,); finite everywhere."""
        return dual * target + 0.5 * dual**2

    def value_error(self, fit: Array, target: Array) -> Array:
        """A difference, a square, a half."""
        return 4.0 * self.value(fit, target)

    def conjugate_error(self, dual: Array, target: Array) -> Array:
        """Two products and their sum, of a dual that is rounded itself."""
        return 4.0 * (jnp.abs(dual * target) + dual**2)

    def check_target(self, target: Any) -> None:
        """Any real target will do; only its dtype is looked at."""
        as_float(target, "y")
