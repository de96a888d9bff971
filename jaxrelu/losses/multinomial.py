"""The multinomial loss: classes as probabilities, the softmax of several outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import xlogy

from jaxrelu.core.checks import as_float
from jaxrelu.core.numerics import eps
from jaxrelu.core.pytrees import register
from jaxrelu.core.rounding import EXPONENTIAL
from jaxrelu.core.tracing import is_traced

# Rows of probabilities sum to one up to this, whatever made them; those of the conjugate, which
# are computed, up to this times the root of eps.
_NEAR_ONE = 1e-5
_COMPUTED = 1e-2


@register
@dataclass(frozen=True)
class MultinomialLoss:
    """The multinomial (softmax, cross-entropy) loss of c outputs, one value a sample.

    l(f_i, y_i) = log(sum_k exp(f_ik)) - <y_i, f_i>, with rows y_i >= 0 of sum one: the class of a
    sample as a row with a single one, or probabilities. It is a sum over samples, without 1/n, and
    adding a number to all outputs of a sample changes nothing.

    With p = y + dual its conjugate is sum_k p_k log p_k on rows p >= 0 of sum one: rows of
    residuals (minus the gradient, y - softmax(f)) sum to zero.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrelu.losses import MultinomialLoss
        >>> target = jax.nn.one_hot(jnp.asarray([2]), 4)
        >>> MultinomialLoss().gradient(jnp.zeros((1, 4)), target).tolist()
        [[0.25, 0.25, -0.75, 0.25]]
    """

    several_outputs = True

    @property
    def smoothness(self) -> float:
        """1/2: the Hessian diag(p) - p p^T has no larger eigenvalue."""
        return 0.5

    def value(self, fit: Array, target: Array) -> Array:
        """Value, shape (n,) for fits (n, c), without overflow."""
        # Against the largest output: no digits are lost where all of them are large.
        top = jax.lax.stop_gradient(jnp.max(fit, axis=-1, keepdims=True))
        beyond = fit - top
        total = jnp.log(jnp.sum(jnp.exp(beyond), axis=-1))
        # An output of -inf counts for nothing where its probability is zero.
        counts = target != 0
        return total - jnp.sum(target * jnp.where(counts, beyond, 0.0), axis=-1)

    def gradient(self, fit: Array, target: Array) -> Array:
        """Derivative softmax(f) - y, shape (n, c)."""
        return jax.nn.softmax(fit, axis=-1) - target

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Entropy sum_k p_k log p_k, p = y + dual, shape (n,); +inf unless p >= 0 of sum one.

        The sum is asked for up to rounding only: a bound that needs it exactly sees to it.
        """
        p = target + dual
        inside = jnp.all(p >= 0, axis=-1)
        near = jnp.abs(jnp.sum(dual, axis=-1)) <= _COMPUTED * eps(p.dtype) ** 0.5
        q = jnp.where(p > 0, p, 1.0)
        entropy = jnp.sum(xlogy(q, q), axis=-1)
        outside = jnp.where(jnp.isnan(jnp.sum(p, axis=-1)), jnp.nan, jnp.inf)
        return jnp.where(inside & near, entropy, outside)

    def value_error(self, fit: Array, target: Array) -> Array:
        """Sums of c terms as large as the spread of the outputs, exp and log."""
        spread = jnp.max(fit, axis=-1) - jnp.min(fit, axis=-1)
        roundings = 2.0 * EXPONENTIAL + fit.shape[-1] + 4.0
        return roundings * (self.value(fit, target) + spread + 1.0)

    def conjugate_error(self, dual: Array, target: Array) -> Array:
        """Logarithms of c terms, none larger than one."""
        roundings = 2.0 * EXPONENTIAL + dual.shape[-1] + 4.0
        return roundings * (jnp.abs(self.conjugate(dual, target)) + 1.0)

    def check_target(self, target: Any) -> None:
        """Rows must be probabilities; NaN is let through and makes the value NaN."""
        rows = np.shape(target)
        if len(rows) != 2 or rows[1] < 2:
            raise ValueError(
                f"MultinomialLoss takes one column a class, but y has shape {rows}: pass "
                "jax.nn.one_hot(labels, num_classes), for a network of as many outputs; "
                "LogisticLoss is for two classes and one output."
            )
        if is_traced(target):
            return
        values = np.asarray(as_float(target, "y"))
        if bool(np.any(values < 0)):
            raise ValueError("y has negative entries; MultinomialLoss takes rows of probabilities.")
        off = np.abs(values.sum(axis=1) - 1.0)
        if bool(np.any(off > _NEAR_ONE)):
            worst = int(np.nanargmax(off))
            raise ValueError(
                f"row {worst} of y sums to {values[worst].sum():.7g}; MultinomialLoss takes rows "
                "of probabilities: a single one for the class of the sample and zeros elsewhere, "
                "or numbers divided by their sum."
            )
