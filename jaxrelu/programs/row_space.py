"""The row space of X, in which optimal weights lie when there are more features than samples."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import matmul, safe_norm
from jaxrelu.core.rounding import roundoff


class RowSpace(NamedTuple):
    """The row space of X, and how exactly it is known.

    Attributes:
        basis: (d, n), Q with orthonormal columns.
        slip: scalar, at least || x_i - Q R e_i || / || x_i || of every row.
        stretch: scalar, at least || Q z || / || z || - 1.
    """

    basis: Array
    slip: Array
    stretch: Array

    def lifted(self, weights: Array) -> Array:
        """Weights (..., n) in the row space as weights of the features themselves."""
        return matmul(weights, self.basis.T)

    def lowered(self, weights: Array) -> Array:
        """Weights (..., d) of the features in the coordinates of the row space."""
        return matmul(weights, self.basis)


def row_space_of(X: Array) -> tuple[Array, RowSpace]:
    """The rows of X (n, d), d > n, in their own space: R^T (n, n) with X^T = Q R, and Q."""
    n, d = X.shape
    q, r = jnp.linalg.qr(X.T)
    # What the factors leave, and what their products may be off themselves.
    unit = roundoff(X.dtype)
    length = safe_norm(X)
    apart = safe_norm(X - matmul(r.T, q.T)) + unit * (n + 4) * (
        safe_norm(r.T) * jnp.sqrt(jnp.sum(q * q)) + length
    )
    apart = jnp.where(length > 0, apart / jnp.where(length > 0, length, 1.0), 0.0)
    gram = matmul(q.T, q) - jnp.eye(n, dtype=X.dtype)
    skew = jnp.sqrt(jnp.sum(gram**2)) + unit * (d + 4) * (1.0 + n)
    return r.T, RowSpace(q, 2.0 * jnp.max(apart), skew)
