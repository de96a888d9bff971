"""The program restricted to the blocks of a working set, as the inner method sees it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, matmul
from jaxrelu.geometry.bias_metric import size
from jaxrelu.geometry.gram import OwnRows, Rows
from jaxrelu.losses.augmented import Augmented
from jaxrelu.losses.base import Loss, total_curvature, total_gradient
from jaxrelu.programs.penalties import VANISHING


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
        free: (k,) bool, the blocks that are not penalised, or None where all are.
        columns: (k, d) bool, the features that blocks see, or None where they see all.
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
    free: Array | None = None
    columns: Array | None = None

    @property
    def has_bias(self) -> bool:
        """Whether norms leave out the last entry of a block (`jaxrelu.geometry.bias_metric`)."""
        return self.rows.has_bias

    def in_norm(self, rows: Array) -> Array:
        """Rows (k, d), zero where the norm does not look."""
        return rows.at[:, -1].set(0.0) if self.has_bias else rows

    def within(self, rows: Array) -> Array:
        """Rows (k, d), zero in features that blocks do not see."""
        return rows if self.columns is None else jnp.where(self.columns, rows, 0.0)

    @property
    def radius(self) -> Array:
        """Of the dual balls of the norms: lam, and next to nothing for a free block, (k,)."""
        if self.free is None:
            return self.lam
        return self.lam * jnp.where(self.free, VANISHING, 1.0)

    def penalty(self, weights: Array) -> Array:
        """Lam times the norms of the blocks that are penalised."""
        return self.lam * jnp.sum(self.sizes(weights))

    def sizes(self, weights: Array) -> Array:
        """(k,), norms of penalised blocks, zero for the others: these set no scale."""
        norms = size(weights, self.has_bias)
        return norms if self.free is None else jnp.where(self.free, 0.0, norms)

    def ridge(self, fit: Array) -> Array:
        """(k,), what stands in for the bend of a norm where there is none.

        Next to nothing beside the features of a block, and enough where these are dependent.
        """
        share = self.curvature(fit) * self.samples.length**2 / self.X.shape[1]
        own = matmul(self.signed_masks**2, share[:, None])[:, 0]
        return eps(own.dtype) ** 0.5 * own

    def stays(self, active: Array) -> Array:
        """(k,) bool, active blocks and the free ones."""
        return active if self.free is None else active | self.free

    @property
    def has_no_cones(self) -> bool:
        """Whether this is a gated program."""
        return self.cone_signs.shape[1] == 0

    def fit(self, weights: Array) -> Array:
        """F theta, (n,)."""
        return jnp.sum(self.signed_masks * matmul(weights, self.X.T), axis=0)

    def adjoint(self, residual: Array) -> Array:
        """F^T r, (k, d)."""
        return self.within(matmul(self.signed_masks * residual[None], self.X))

    def slack(self, weights: Array) -> Array:
        """K theta, (k, n)."""
        return self.cone_signs * self.rows.forward(weights)

    def cone_adjoint(self, multipliers: Array) -> Array:
        """K^T mu, (k, d)."""
        return self.rows.transpose(self.cone_signs * multipliers)

    def augmented(self, loss_dual: Array, penalty: Array) -> Subproblem:
        """The problem with the augmented Lagrangian of a loss with kinks in place of the loss.

        Args:
            loss_dual: (n,), the multiplier.
            penalty: scalar.
        """
        c = self.sample_weight
        share = jnp.where(c > 0, loss_dual / jnp.where(c > 0, c, 1.0), 0.0)
        return self._replace(loss=Augmented(self.loss, share, penalty))

    def gradient(self, fit: Array) -> Array:
        """Gradient of the loss in the fit, (n,)."""
        return total_gradient(self.loss, fit, self.y, self.sample_weight)

    def curvature(self, fit: Array) -> Array:
        """Curvatures of the loss, (n,)."""
        return total_curvature(self.loss, fit, self.y, self.sample_weight)
