"""The hinge loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.checks import as_float
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import is_traced
from jaxrelu.losses.checks import check_labels
from jaxrelu.losses.kinks import TwoSlopes


@register
@dataclass(frozen=True)
class HingeLoss(TwoSlopes):
    """The hinge loss of support vector machines, l(f, y) = max(1 - y f, 0), labels -1 and +1.

    It is zero on samples that are classified with a margin of one; y f = 1 is f = y, its kink.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import HingeLoss
        >>> HingeLoss().value(jnp.asarray([0.0, 2.0]), jnp.ones(2)).tolist()
        [1.0, 0.0]

    Reference: Cortes and Vapnik (Machine Learning, 1995).
    """

    def slopes(self, target: Array) -> tuple[Array, Array]:
        """-max(y, 0) and max(-y, 0), (n,) and (n,)."""
        return -jnp.maximum(target, 0.0), jnp.maximum(-target, 0.0)

    def check_target(self, target: Any) -> None:
        """Labels must be -1 and +1; NaN is let through and ends as `Status.NONFINITE`."""
        if is_traced(target):
            return
        as_float(target, "y")
        check_labels(target, "HingeLoss", instead="AbsoluteLoss")
