r"""Faces of cones: the walls that a point of a cone lies on, and what moves with it.

A point u in the cone K = {u : s_j <x_j, u> >= 0} lies on the rows with <x_j, u> = 0. If it is the
solution of a problem over K, those with a positive multiplier are its walls W; it is then confined
to the null space of K_W, onto which P projects, and K_W^+ is the pseudo-inverse. The face *stays*
under small changes if every row that u lies on is a wall, or depends on walls, or does not feel the
changes: with the active rows A = {x_i : the pattern has sample i} these move u within P span(A).

Reference: strict complementarity, Bonnans and Shapiro (2000), Section 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, matmul
from jaxrelu.geometry.gram import Rows

# A row that is further than this outside the span of others, squared, is independent of them.
_APART = 1e-12


def positive(dtype: Any) -> float:
    """Multipliers above it, relative, are no rounding: steps of the projection amplify theirs."""
    return 10 * eps(dtype) ** 0.5


class Faces(NamedTuple):
    """Faces of cones, one a block: the null spaces of their walls.

    Attributes:
        rows: `shared_rows` of X, in the basis.
        basis: (d, r), orthonormal columns that span the rows of X where d > n; None for all of R^d.
        signs: (m, n), +1 where the pattern has the sample, -1 elsewhere.
        walls: (m, n) bool, rows with a positive multiplier.
        vectors: (m, r, r), eigenvectors of the walls' Gram matrices.
        inverse: (m, r), the reciprocal eigenvalues, 0 on the null space.
    """

    rows: Rows
    basis: Array | None
    signs: Array
    walls: Array
    vectors: Array
    inverse: Array

    def onto(self, x: Array) -> Array:
        """P x, the nearest points on the spans of the faces: (m, d) -> (m, d)."""
        for _ in range(2):  # the second time takes away the rounding of Gram matrices
            x = x - self.meet(self.slack(x))
        return x

    def slack(self, x: Array) -> Array:
        """K x for unit rows, (m, d) -> (m, n)."""
        return self.signs * self.rows.forward(self._inner(x))

    def meet(self, values: Array) -> Array:
        """The smallest x with K_W x = values, for unit rows: (m, n) -> (m, d)."""
        return self._outer(self._solve(self.rows.transpose(self._on_walls(values))))

    def multipliers(self, x: Array) -> Array:
        """The smallest rho with K_W^T rho = x, for unit rows: (m, d) -> (m, n)."""
        return self._on_walls(self.rows.forward(self._solve(self._inner(x))))

    def push(self, multipliers: Array) -> Array:
        """K_W^T rho for unit rows: (m, n) -> (m, d)."""
        return self._outer(self.rows.transpose(self._on_walls(multipliers)))

    def pulled(self, multipliers: Array, dX: Array) -> Array:
        """dK_W^T rho for multipliers of unit rows: (m, n), (n, d) -> (m, d)."""
        return matmul(self._on_walls(multipliers) / self._lengths, dX)

    def slid(self, points: Array, dX: Array) -> Array:
        """dK_W u in units of the rows: (m, d), (n, d) -> (m, n)."""
        return self._on_walls(matmul(points, dX.T)) / self._lengths

    def _on_walls(self, values: Array) -> Array:
        return jnp.where(self.walls, self.signs * values, 0.0)

    @property
    def _lengths(self) -> Array:
        return jnp.where(self.rows.length > 0, self.rows.length, 1.0)[None]

    def _inner(self, x: Array) -> Array:
        return x if self.basis is None else matmul(x, self.basis)

    def _outer(self, x: Array) -> Array:
        return x if self.basis is None else matmul(x, self.basis.T)

    def _solve(self, x: Array) -> Array:
        along = self.inverse * jnp.sum(self.vectors * x[:, :, None], axis=1)
        return jnp.sum(self.vectors * along[:, None], axis=2)


def faces(rows: Rows, signs: Array, walls: Array, basis: Array | None = None) -> Faces:
    """The faces that walls (m, n) cut out; `rows` and `signs` as in `Faces`."""
    walls = walls & (rows.length > 0)[None]
    dtype = rows.unit.dtype
    values, vectors = jnp.linalg.eigh(rows.gram(walls.astype(dtype)))
    some = values > eps(dtype) ** 0.75 * jnp.maximum(values[:, -1:], 1.0)
    inverse = jnp.where(some, 1.0 / jnp.where(some, values, 1.0), 0.0)
    return Faces(rows, basis, signs, walls, vectors, inverse)


class Contact(NamedTuple):
    """What becomes of a face when something moves.

    Attributes:
        stays: (m,) bool, it does under changes of the residual: every row that the block lies on is
            a wall, or depends on walls, or does not feel the active rows.
        free: (m, n) bool, rows of X by which what happens on it has a derivative. A row that the
            block lies on must be independent of the others, or the block lie at the tip of its
            cone; no row may leave zero, which would be a new constraint; and where a row does not
            feel the active ones, these must not move.
    """

    stays: Array
    free: Array


def contact(face: Faces, touched: Array) -> Contact:
    """What becomes of faces whose blocks lie on the rows `touched` (m, n) and nowhere else."""
    rows, active = face.rows, face.signs > 0
    zero = (rows.length == 0)[None]
    touched = (touched | face.walls) & ~zero

    def outside(block: tuple[Array, Array]) -> tuple[Array, Array]:
        null, gram = block
        parts = matmul(rows.unit, null)
        reach = matmul(matmul(null.T, gram), null)
        return jnp.sum(parts**2, axis=1), jnp.sum(matmul(parts, reach) * parts, axis=1)

    null = jnp.where(face.inverse[:, None] > 0, 0.0, face.vectors)
    apart, felt = jax.lax.map(outside, (null, rows.gram(active.astype(null.dtype))))
    weak = touched & ~face.walls
    fixed, stays = (~jnp.any(weak & (far > _APART), axis=1) for far in (apart, felt))
    rank = jnp.sum(face.inverse > 0, axis=1)
    dimension = rows.unit.shape[1] if face.basis is None else face.basis.shape[0]
    dependent = rank < jnp.minimum(jnp.sum(touched, axis=1), dimension)
    bound = (touched & dependent[:, None]) | (zero & (rank < dimension)[:, None])
    return Contact(stays, ~(bound | (active & ~fixed[:, None])))
