"""The program restricted to the blocks of a working set, as the inner method sees it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import matmul
from jaxrelu.geometry.gram import OwnRows, Rows
from jaxrelu.losses.base import Loss, total_curvature, total_gradient


class Subproblem(NamedTuple):
    """What stays fixed during one call: data, the gathered blocks, lam.

    Attributes:
        X: (n, d).
        y: (n,).
        sample_weight: (n,).
        loss: the loss.
        samples: the rows of X.
        rows: the rows of the cones: the same, some of each block's own, or none if gated.
        signed_masks: (k, n), s_b D_b; zero for an empty slot.
        cone_signs: (k, n), one sign a row; (k, 0) for a gated program.
        lam: scalar.
    """

    X: Array
    y: Array
    sample_weight: Array
    loss: Loss
    samples: Rows
    rows: Rows | OwnRows
    signed_masks: Array
    cone_signs: Array
    lam: Array

    @property
    def has_no_cones(self) -> bool:
        """Whether this is a gated program."""
        return self.cone_signs.shape[1] == 0

    def fit(self, weights: Array) -> Array:
        """F theta, (n,)."""
        return jnp.sum(self.signed_masks * matmul(weights, self.X.T), axis=0)

    def adjoint(self, residual: Array) -> Array:
        """F^T r, (k, d)."""
        return matmul(self.signed_masks * residual[None], self.X)

    def slack(self, weights: Array) -> Array:
        """K theta, (k, n)."""
        return self.cone_signs * self.rows.forward(weights)

    def cone_adjoint(self, multipliers: Array) -> Array:
        """K^T mu, (k, d)."""
        return self.rows.transpose(self.cone_signs * multipliers)

    def gradient(self, fit: Array) -> Array:
        """Gradient of the loss in the fit, (n,)."""
        return total_gradient(self.loss, fit, self.y, self.sample_weight)

    def curvature(self, fit: Array) -> Array:
        """Curvatures of the loss, (n,)."""
        return total_curvature(self.loss, fit, self.y, self.sample_weight)
