r"""Singular values of many matrices at once: their threshold, its derivative, bounds that hold.

Blocks V_j (d, c) of several outputs are penalised by nuclear norms, the sums of their singular
values. All of it goes by the eigenvalues of the smaller Gram matrix, V^T V = Q S^2 Q^T for c <= d:

    threshold_t(V) = V Q phi Q^T,     phi_k = (1 - t / s_k)_+,

and, with the products K = (V Q)^T dV Q and divided differences of phi by s^2,

    d threshold = dV Q phi Q^T + V Q (Omega o (K + K^T)) Q^T,
    Omega_kl = (phi_k - phi_l) / (s_k^2 - s_l^2) = t / (s_k s_l (s_k + s_l)) where both are above t.

Bounds do not rest on the eigenvectors' accuracy. For any square Q,

    ||V||_* <= sum_k ||V q_k|| ||q_k|| + sqrt(rank) ||V - V Q Q^T||_F,
    ||V||_2 <= max_k (a_kk + sum_{l != k} |a_kl|)^(1/2) / (1 - e),     A = (V Q)^T V Q,

by Gershgorin's circles, where e bounds ||Q^T Q - I||.

Reference: Cai, Candes and Shen, SIAM J. Optim. 20 (2010), for the threshold; Lewis and Sendov, SIAM
J. Matrix Anal. Appl. 23 (2001), for divided differences.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import einsum, matmul, plain_norm
from jaxrelu.core.rounding import roundoff, sum_roundings


class Threshold(NamedTuple):
    """Matrices (p, a, b), b <= a, whose singular values were lowered by t, and the derivative.

    Attributes:
        rotated: (p, a, b), V Q.
        vectors: (p, b, b), Q.
        values: (p, b), the singular values before.
        shares: (p, b), phi, zero where a value is at most t.
        slopes: (p, b, b), Omega.
    """

    rotated: Array
    vectors: Array
    values: Array
    shares: Array
    slopes: Array

    def matrices(self) -> Array:
        """The matrices with lowered singular values, tall: (p, a, b)."""
        return self._back(self.rotated * self.shares[:, None])

    def sizes(self) -> Array:
        """(p, b), their singular values."""
        return self.values * self.shares

    def derivative(self, change: Array) -> Array:
        """The change of `matrices` with a change (p, a, b) of what was thresholded."""
        along = matmul(change, self.vectors)
        inner = einsum("pak,pal->pkl", self.rotated, along)
        both = self.slopes * (inner + jnp.swapaxes(inner, 1, 2))
        return self._back(along * self.shares[:, None] + matmul(self.rotated, both))

    def _back(self, rotated: Array) -> Array:
        return matmul(rotated, jnp.swapaxes(self.vectors, 1, 2))


def tall(matrices: Array) -> Array:
    """Matrices (p, d, c), or their transposes where these have fewer columns."""
    return jnp.swapaxes(matrices, 1, 2) if matrices.shape[1] < matrices.shape[2] else matrices


def singular_values(matrices: Array) -> Array:
    """The singular values (p, b) of matrices (p, a, b), b <= a, ascending, as computed."""
    square = jnp.linalg.eigvalsh(einsum("pak,pal->pkl", matrices, matrices))
    return jnp.sqrt(jnp.maximum(square, 0.0))


def threshold(matrices: Array, level: Array) -> Threshold:
    """Lowers the singular values of matrices (p, a, b), b <= a, by a level, to zero at least."""
    square, vectors = jnp.linalg.eigh(einsum("pak,pal->pkl", matrices, matrices))
    values = jnp.sqrt(jnp.maximum(square, 0.0))
    above = values > level
    shares = jnp.where(above, 1.0 - level / jnp.where(above, values, 1.0), 0.0)
    one, other = values[:, :, None], values[:, None, :]
    first, second = above[:, :, None], above[:, None, :]
    # Where both are above, without a difference of nearly equal numbers.
    product = jnp.where(first & second, one * other * (one + other), 1.0)
    apart = one**2 - other**2
    apart = jnp.where(apart == 0, 1.0, apart)
    lower = jnp.where(first ^ second, (shares[:, :, None] - shares[:, None, :]) / apart, 0.0)
    slopes = jnp.where(first & second, level / product, lower)
    return Threshold(matmul(matrices, vectors), vectors, values, shares, slopes)


def spectral_norm_bounds(matrices: Array) -> Array:
    """Upper bounds (p,) of the largest singular values of matrices (p, d, c), rounding included."""
    rotated, off = _rotated(tall(matrices))
    gram = jnp.abs(einsum("pak,pal->pkl", rotated, rotated))
    a, b = rotated.shape[1:]
    unit = roundoff(matrices.dtype)
    # Its entries are off by at most this share of the products of their columns' norms, which the
    # trace bounds.
    wrong = unit * sum_roundings(a, matrices.dtype) * jnp.trace(gram, axis1=1, axis2=2)
    circles = jnp.max(jnp.sum(gram, axis=2), axis=1, initial=0.0) + b * wrong
    return jnp.sqrt(circles) * (1.0 + off + unit * (b + 8.0))


def nuclear_norm_bounds(matrices: Array) -> Array:
    """Upper bounds (p,) of the nuclear norms of matrices (p, d, c), rounding included."""
    matrices = tall(matrices)
    a, b = matrices.shape[1:]
    unit = roundoff(matrices.dtype)
    vectors = _vectors(matrices)
    rotated = matmul(matrices, vectors)
    lengths, own = plain_norm(rotated, axis=1), plain_norm(vectors, axis=1)
    left = matrices - matmul(rotated, jnp.swapaxes(vectors, 1, 2))
    size = plain_norm(matrices.reshape(-1, a * b))
    # Two products of b terms each, of unit vectors.
    wrong = 4.0 * unit * (b + 4.0) * b**0.5 * size
    total = jnp.sum(lengths * own, axis=1) + b**0.5 * (plain_norm(left.reshape(-1, a * b)) + wrong)
    return total * (1.0 + unit * (a + b + 16.0))


def _vectors(matrices: Array) -> Array:
    """Nearly orthonormal columns (p, b, b), whatever the matrices are."""
    gram = einsum("pak,pal->pkl", matrices, matrices)
    return jnp.linalg.eigh(gram)[1]


def _rotated(matrices: Array) -> tuple[Array, Array]:
    """V Q (p, a, b), and a bound (p,) of | 1 / ||Q^-1|| - 1 | and what the product rounds."""
    vectors = _vectors(matrices)
    b, unit = matrices.shape[2], roundoff(matrices.dtype)
    gram = einsum("pka,pkb->pab", vectors, vectors) - jnp.eye(b, dtype=matrices.dtype)[None]
    off = plain_norm(gram.reshape(-1, b * b)) + unit * b * (b + 4.0)
    # ||V|| <= ||V Q|| / smallest singular value of Q, which is at least sqrt(1 - off).
    return matmul(matrices, vectors), 2.0 * (off + unit * b * (b + 4.0))
