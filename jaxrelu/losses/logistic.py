"""The logistic loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlog1py, xlogy

from jaxrelu.core.checks import as_float
from jaxrelu.core.pytrees import register
from jaxrelu.core.rounding import ELEMENTARY
from jaxrelu.core.tracing import is_traced
from jaxrelu.losses.checks import check_labels


@register
@dataclass(frozen=True)
class LogisticLoss:
    """The logistic loss, l(f, y) = log(1 + exp(-y f)) with labels y in {-1, +1}.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import LogisticLoss
        >>> LogisticLoss().gradient(jnp.asarray([0.0]), jnp.asarray([1.0])).tolist()
        [-0.5]
    """

    @property
    def smoothness(self) -> float:
        """1/4."""
        return 0.25

    def value(self, fit: Array, target: Array) -> Array:
        """Value log(1 + exp(-y f)), shape (n,), without overflow."""
        return jax.nn.softplus(-target * fit)

    def gradient(self, fit: Array, target: Array) -> Array:
        """Derivative -y / (1 + exp(y f)), shape (n,)."""
        return -target * jax.nn.sigmoid(-target * fit)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Entropy p log p + (1-p) log(1-p), p = -y dual, shape (n,); +inf unless 0 <= p <= 1.

        Zero at both ends of the domain. The derivative there is infinite; 0 is returned instead,
        so that a saturated sample does not turn a derivative into NaN.
        """
        p = -target * dual
        inside = (p > 0) & (p < 1)
        q = jnp.where(inside, p, 0.5)
        entropy = xlogy(q, q) + xlog1py(1.0 - q, -q)
        edge = jnp.where((p == 0) | (p == 1), 0.0, jnp.inf)
        return jnp.where(inside, entropy, jnp.where(jnp.isnan(p), p, edge))

    def value_error(self, fit: Array, target: Array) -> Array:
        """One of exp and log1p, relative."""
        return ELEMENTARY * self.value(fit, target)

    def conjugate_error(self, dual: Array, target: Array) -> Array:
        """Logarithms, relative, and what rounding of p near one does to log(1 - p)."""
        p = jnp.abs(dual * target)
        return ELEMENTARY * jnp.abs(self.conjugate(dual, target)) + 64.0 * p

    def check_target(self, target: Any) -> None:
        """Labels must be -1 and +1; NaN is let through and ends as `Status.NONFINITE`."""
        if is_traced(target):
            return
        as_float(target, "y")
        check_labels(target, "LogisticLoss", instead="SquaredLoss")
