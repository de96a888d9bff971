"""The absolute loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.checks import as_float
from jaxrelu.core.pytrees import register
from jaxrelu.losses.kinks import TwoSlopes


@register
@dataclass(frozen=True)
class AbsoluteLoss(TwoSlopes):
    """The absolute loss, l(f, y) = |f - y|: the median, which no outlier moves far.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.losses import AbsoluteLoss
        >>> AbsoluteLoss().value(jnp.asarray([0.5, 3.0]), jnp.ones(2)).tolist()
        [0.5, 2.0]

    Reference: Koenker and Bassett (Econometrica, 1978), at one half.
    """

    @property
    def homogeneity(self) -> int:
        """1: targets of twice the size, twice the loss."""
        return 1

    def slopes(self, target: Array) -> tuple[Array, Array]:
        """-1 and 1, (n,) and (n,)."""
        one = jnp.ones_like(target)
        return -one, one

    def check_target(self, target: Any) -> None:
        """Any real target."""
        as_float(target, "y")
