r"""Block correlations as functions of X and the residual, with their derivatives.

q = Proj_K(c) with c = s X^T D r solves, with its walls W (`jaxrelu.geometry.cone_faces`),

    q - c - K_W^T rho = 0,   K_W q = 0,   rho >= 0,

and while the face stays where it is, with P the projector onto the null space of K_W,

    dq = P (dc + dK_W^T rho) - K_W^+ dK_W q.

Where a wall has no multiplier the projection bends, and has no derivative. If X moves, rho must be
unique too: the walls are independent.

The *length* of q bends nowhere: it is max {<v, c> : v in K, ||v|| <= 1}, and has by the envelope
theorem the derivative <u, dc + dK_W^T rho>, u = q / ||q||; the largest length of all blocks has the
derivative of that block's, unless blocks of other directions are as long.

Reference: Haraux (1977), How to differentiate the projection on a convex set in Hilbert space;
Bonnans and Shapiro (2000), Section 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.derivatives import close, first_order, known_where, still
from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.geometry.cone_faces import Faces, contact, faces, positive
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import block_patterns, cone_signs
from jaxrelu.geometry.correlation_bounds import largest_correlation
from jaxrelu.geometry.gram import Rows, shared_rows

# Blocks among which the longest is looked for.
_LONGEST = 64


@jax.custom_jvp
def correlations(X: Array, masks: Array, residual: Array) -> Array:
    """The block correlations of cones, q[s, j] = Proj_{K_j}(s X^T D_j r).

    Args:
        X: (n, d), floating.
        masks: (n, p), 0/1 or bool.
        residual: (n,).

    Returns:
        Array (2, p, d). The derivative of a block that has none is NaN.
    """
    blocks = _blocks(X, masks)
    q = project(blocks.rows, blocks.signs, blocks.raw(residual)).points
    return blocks.outer(q).reshape(2, masks.shape[1], X.shape[1])


@correlations.defjvp
def _correlations_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    X, masks, residual = first_order("block_correlations", primals)
    dX, dr = tangents[0], tangents[2]
    blocks = _blocks(X, masks)
    q, mu, face, known, free = _settled(blocks, residual)
    dc = blocks.change(X, residual, dX, dr) + face.pulled(mu, dX)
    dq = face.onto(dc) - face.meet(face.slid(q, dX)) + still(free, dX, X.shape[1])
    # A dead pattern has no correlation, whatever moves.
    dead = ~jnp.any((blocks.signs > 0) & (blocks.rows.length > 0)[None], axis=1)
    shape = (2, masks.shape[1], X.shape[1])
    return q.reshape(shape), known_where((dead | known)[:, None], dq).reshape(shape)


@jax.custom_jvp
def longest_correlation(
    X: Array, masks: Array, residual: Array, factors: Array | None = None
) -> Array:
    """The largest length of a block correlation.

    Args:
        X: (n, d), floating.
        masks: (n, p), 0/1 or bool.
        residual: (n,).
        factors: (2p,), what correlations are multiplied by in place of their signs.

    Returns:
        Scalar. Its derivative is NaN where blocks of different directions have the same length, and
        by the factors where two blocks have it.
    """
    blocks = _blocks(X, masks, factors)
    found = largest_correlation(blocks.rows, masks, blocks.pattern, blocks.raw(residual))
    return jnp.max(found.bound, initial=0.0)


@longest_correlation.defjvp
def _longest_correlation_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    X, masks, residual, factors = first_order("lambda_max", primals)
    blocks = _blocks(X, masks, factors)
    c, small = blocks.raw(residual), close(X.dtype)
    bound = largest_correlation(blocks.rows, masks, blocks.pattern, c).bound
    # All but a few are known to be shorter.
    index = jax.lax.top_k(bound, min(_LONGEST, len(bound)))[1]
    few = blocks.chosen(index)
    q, mu, face, _, free = _settled(few, residual)
    length, direction = safe_norm(q), unit(q)
    best = jnp.argmax(length)
    value = length[best]
    other = jnp.sign(few.sides) != jnp.sign(few.sides[best])
    other = other | (safe_norm(direction - direction[best][None]) > 100 * small)
    near = (1.0 - small) * value
    tied = jnp.any((length >= near) & other) | (jnp.sum(bound >= near) > len(length))
    dX, dr = tangents[0], tangents[2]
    dc = few.change(X, residual, dX, dr) + face.pulled(mu, dX)
    change = jnp.sum(direction[best] * dc[best]) + still(free[best][None], dX, 1)[0, 0]
    if factors is not None:
        moves = jnp.asarray(tangents[3])
        alone = jnp.sum(length >= near) == 1
        change = change + value * moves[index[best]] / few.sides[best]
        change = change + still(jnp.broadcast_to(alone, (1, len(moves))), moves[:, None], 1)[0, 0]
    return value, known_where((value > 0) & ~tied, change)


class _Blocks(NamedTuple):
    """Blocks of cones in flat order: rows in a basis where d > n, patterns, sides, signs (m, n).

    A side is +1 or -1, or what stands in its place.
    """

    rows: Rows
    basis: Array | None
    pattern: Array
    sides: Array
    signs: Array

    def chosen(self, index: Array) -> _Blocks:
        return self._replace(
            pattern=self.pattern[index], sides=self.sides[index], signs=self.signs[index]
        )

    def outer(self, x: Array) -> Array:
        return x if self.basis is None else matmul(x, self.basis.T)

    @property
    def _signed_masks(self) -> Array:
        return jnp.where(self.signs > 0, self.sides[:, None], 0.0)

    def raw(self, residual: Array) -> Array:
        """The raw correlations (m, r), in the basis."""
        return self.rows.transpose(self._signed_masks * (self.rows.length * residual)[None])

    def change(self, X: Array, residual: Array, dX: Array, change: Array) -> Array:
        """The derivative (m, d) of the raw correlations."""
        masks = self._signed_masks
        return matmul(masks * change[None], X) + matmul(masks * residual[None], dX)


def _blocks(X: Array, masks: Array, factors: Array | None = None) -> _Blocks:
    basis, inner = None, X
    if X.shape[1] > X.shape[0]:
        basis, r = jnp.linalg.qr(X.T)
        inner = r.T
    p = masks.shape[1]
    pattern = block_patterns((2, p))
    sides = jnp.concatenate([jnp.ones(p, X.dtype), -jnp.ones(p, X.dtype)])
    sides = sides if factors is None else factors
    return _Blocks(shared_rows(inner), basis, pattern, sides, cone_signs(masks, pattern, X.dtype))


class _Settled(NamedTuple):
    """Correlations (m, d), multipliers of unit rows (m, n), their faces, and what these do.

    `known` (m,): they are what they seem to be, and stay; `free` (m, n) as in `Contact`.
    """

    q: Array
    multipliers: Array
    face: Faces
    known: Array
    free: Array


def _settled(blocks: _Blocks, residual: Array) -> _Settled:
    c = blocks.raw(residual)
    found = project(blocks.rows, blocks.signs, c)
    size, dtype = safe_norm(c)[:, None], c.dtype
    face = faces(blocks.rows, blocks.signs, found.multipliers > positive(dtype) * size)
    # Exact on the face that the projection found.
    q = face.onto(c)
    mu = jnp.where(face.walls, found.multipliers, 0.0)
    mu = mu + face.multipliers(q - c - face.push(mu))
    slack = face.slack(q)
    there = contact(face, slack <= close(dtype) * size)
    right = jnp.all((slack >= -close(dtype) * size) & (mu >= 0), axis=1)
    face = face._replace(basis=blocks.basis)
    return _Settled(blocks.outer(q), mu, face, there.stays & right, there.free)
