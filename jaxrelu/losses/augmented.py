r"""A loss with kinks as one more term of an augmented Lagrangian.

With a copy g of the fit, the constraint g = f, its multiplier s (the residual of a sample of weight
one) and a penalty tau,

    phi(f) = min_g  l(g, y) + s (g - f) + tau/2 (g - f)^2,      g = prox(f - s / tau)

with the step 1 / tau, is convex with the derivative -s+, s+ = s + tau (g - f) in minus the
subdifferential of l at g, and with a second derivative of at most tau. s+ is the next multiplier:
the proximal point method on the dual, whose iterates are in the domain of the conjugate.

Reference: Rockafellar (1976), "Augmented Lagrangians and applications of the proximal point
algorithm in convex programming".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array


class Augmented(NamedTuple):
    """Phi of the module's docstring, a loss as the inner method takes it.

    Attributes:
        loss: with kinks.
        multiplier: (n,), s.
        penalty: scalar, tau.
    """

    loss: Any
    multiplier: Array
    penalty: Array

    def copy(self, fit: Array, target: Array) -> Array:
        """G, shape (n,)."""
        return self.loss.prox(fit - self.multiplier / self.penalty, 1.0 / self.penalty, target)  # type: ignore[no-any-return]

    @property
    def smoothness(self) -> Array:
        """Tau."""
        return self.penalty

    def value(self, fit: Array, target: Array) -> Array:
        """Phi, shape (n,)."""
        copy = self.copy(fit, target)
        away = copy - fit
        linear = self.loss.value(copy, target) + self.multiplier * away
        return linear + 0.5 * self.penalty * away**2  # type: ignore[no-any-return]

    def gradient(self, fit: Array, target: Array) -> Array:
        """-s+, shape (n,), put between the slopes where rounding left them."""
        low, high = self.loss.slopes(target)
        away = self.copy(fit, target) - fit
        return jnp.clip(-self.multiplier - self.penalty * away, low, high)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """That of the loss, moved by the multiplier, and half a square over tau."""
        moved = dual + self.multiplier
        linear = self.loss.conjugate(dual, target)
        return linear + 0.5 * moved**2 / self.penalty  # type: ignore[no-any-return]

    def check_target(self, target: Any) -> None:
        """As the loss does."""
        self.loss.check_target(target)
