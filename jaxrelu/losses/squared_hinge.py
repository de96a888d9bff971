"""The squared hinge loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.checks import as_float
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import is_traced
from jaxrelu.losses.checks import check_labels


@register
@dataclass(frozen=True)
class SquaredHingeLoss:
    """The squared hinge loss, l(f, y) = max(1 - y f, 0)^2 / 2 with labels y in {-1, +1}.

    It is zero on samples that are classified with a margin of one.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import SquaredHingeLoss
        >>> SquaredHingeLoss().value(jnp.asarray([0.0, 2.0]), jnp.ones(2)).tolist()
        [0.5, 0.0]

    Reference: Lee and Mangasarian (Computational Optimization and Applications, 2001), whose loss
    this is before it is smoothed.
    """

    @property
    def smoothness(self) -> float:
        """1."""
        return 1.0

    def value(self, fit: Array, target: Array) -> Array:
        """Value max(1 - y f, 0)^2 / 2, shape (n,)."""
        return 0.5 * jnp.maximum(1.0 - target * fit, 0.0) ** 2

    def gradient(self, fit: Array, target: Array) -> Array:
        """Derivative -y max(1 - y f, 0), shape (n,)."""
        return -target * jnp.maximum(1.0 - target * fit, 0.0)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Conjugate p^2 / 2 - p with p = -y dual, shape (n,); +inf unless p >= 0."""
        p = -target * dual
        return jnp.where(p < 0, jnp.inf, 0.5 * p**2 - p)

    def same_gradient(self, fit: Array, target: Array) -> tuple[Array, Array]:
        """Ends (n,), (n,) of the fits of this slope: all of margin one where it is zero."""
        flat = target * fit >= 1.0
        low = jnp.where(flat, jnp.where(target > 0, target, -jnp.inf), fit)
        return low, jnp.where(flat, jnp.where(target < 0, target, jnp.inf), fit)

    def value_error(self, fit: Array, target: Array) -> Array:
        """A difference that is rounded as its terms are, and a square."""
        margin = jnp.maximum(1.0 - target * fit, 0.0)
        return margin * (4.0 * margin + 2.0 * jnp.abs(fit) + 2.0)

    def conjugate_error(self, dual: Array, target: Array) -> Array:
        """A square and a difference, of a dual that is rounded itself."""
        return 4.0 * (jnp.abs(dual) + dual**2)

    def check_target(self, target: Any) -> None:
        """Labels must be -1 and +1; NaN is let through and ends as `Status.NONFINITE`."""
        if is_traced(target):
            return
        as_float(target, "y")
        check_labels(target, "SquaredHingeLoss", instead="SquaredLoss")
