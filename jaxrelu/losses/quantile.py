"""The quantile loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import as_float
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import is_traced
from jaxrelu.losses.checks import check_parameter, parameter
from jaxrelu.losses.kinks import TwoSlopes


@register
@dataclass(frozen=True, eq=False)
class QuantileLoss(TwoSlopes):
    """The quantile (pinball) loss: its best fit has a share q of the targets below it.

    l(f, y) = q (y - f) where the target is above the fit, (1 - q) (f - y) where it is below.

    Args:
        q: in (0, 1); scalar, or (n,), one a sample. A leaf: `jax.vmap` over it is a fan of
            quantiles.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import QuantileLoss
        >>> QuantileLoss(0.75).value(jnp.asarray([0.0, 4.0]), jnp.full(2, 2.0)).tolist()
        [1.5, 0.5]

    Reference: Koenker and Bassett (Econometrica, 1978).
    """

    q: Any

    @property
    def homogeneity(self) -> int:
        """1: targets of twice the size, twice the loss."""
        return 1

    def slopes(self, target: Array) -> tuple[Array, Array]:
        """-q and 1 - q, (n,) and (n,)."""
        q = jnp.broadcast_to(parameter(self.q, target), target.shape)
        return -q, 1.0 - q

    def check_target(self, target: Any) -> None:
        """Any real target; q is checked, too."""
        as_float(target, "y")
        check_parameter(self.q, "q", target, positive=True)
        if not is_traced(self.q) and bool(np.any(np.asarray(self.q) >= 1)):
            raise ValueError(f"q is {float(np.max(self.q)):g}; pass numbers between 0 and 1.")
