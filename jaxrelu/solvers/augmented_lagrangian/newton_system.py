r"""The Newton system of a working set, in the smaller of its primal and dual forms.

    (A^T diag(h) A + blkdiag(B_1, ..., B_k)) p = rhs,        A = [s_1 D_1 X, ..., s_k D_k X],

with h >= 0 the curvatures of the loss (n,) and B_b (d, d) positive semidefinite. The primal form
factors the (kd, kd) matrix. The dual form (Woodbury) factors I + sum_b S_b S_b^T of size n, with
S_b = diag(sqrt h) A_b L_b^{-T} and L_b L_b^T = B_b; it is the cheaper one when kd is well above n.
B_b is singular along its own block of weights (the Hessian of a norm is), so the dual form needs
it lifted a little; the direction stays a descent direction and Newton's method corrects the rest.

Without cones every B_b is alpha_b I - beta_b u_b u_b^T, and the dual matrix comes from products of
masks: with z_b = s_b D_b X u_b and C = XX^T o sum_b m_b m_b^T / alpha_b - sum_b z_b z_b^T / alpha_b
it is I + C in units of sqrt h, at a cost of n^2 k instead of n^2 k d; the sizes t_b of the steps
along u_b, where B_b is (nearly) singular, are kept as k unknowns of their own.

Large primal systems in float64 are not factored. The walls of a block make B_b stiff against its
Gram matrix in all but a few directions: on real data one to five of a block's d are soft. They are
found by two steps of subspace iteration with the inverse of the block's own d x d system. Conjugate
gradients, preconditioned by the factored system of the soft directions and by the inverses of the
blocks on the rest, take some 3 to 5 iterations; every iterate is a descent direction. Where they
take too many (a skip connection beside blocks that have more unknowns than there are samples) a
system that is there as a matrix is factored after all: poor directions make four times the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jax.scipy.sparse.linalg import cg

from jaxrelu.core.numerics import einsum, eps, matmul, plain_norm
from jaxrelu.solvers.augmented_lagrangian.coupling import Matrix, Products

# From so many unknowns on, eigenvectors and conjugate gradients are cheaper than a factorisation.
_FEWEST_UNKNOWNS = 640
# Soft directions looked for in one block, and taken of all of them, for each block on average.
_SOFT_OF_A_BLOCK = 8
_SOFT_ON_AVERAGE = 4
# A larger matrix is read more slowly than the samples are passed twice.
_LARGEST_MATRIX = 2048
_MOST_ITERATIONS = 60
# Of the residual, against the gradient: a finer one takes more iterations and saves few Newton
# steps, a coarser one takes more steps than it saves.
_PRECISION = 1e-2


def uses_dual_form(slots: int, features: int, samples: int, dtype: Any) -> bool:
    """Whether the n x n system is the cheaper one, or in float32 the better conditioned one."""
    # Measured against conjugate gradients, and against a factored primal system.
    if _iterates(dtype):
        return slots * features > 8 * samples
    # On breast cancer, 100 gates, 41 of 50 lams close to 1e-4 by the dual form, 4 by the primal.
    return samples <= _LARGEST_MATRIX or slots * features > 3 * samples


def uses_gated_form(slots: int, features: int, samples: int, dtype: Any) -> bool:
    """Whether, without cones, the dual form by products of masks is the cheapest one."""
    size = slots * features
    primal = size**3 / 3 + samples * size**2 / 2
    if size >= _FEWEST_UNKNOWNS and _iterates(dtype):
        primal = 2.5 * _MOST_ITERATIONS * size**2
    return 4 * samples**2 * slots + samples**3 / 3 < primal


def _iterates(dtype: Any) -> bool:
    """Whether large systems are solved by conjugate gradients and not factored."""
    # float32 cannot tell soft from stiff.
    return bool(dtype == jnp.float64)


def working_matrix(X: Array, signed_masks: Array) -> Array:
    """A of the module's docstring, (n, k d), from X (n, d) and s_b D_b as (k, n)."""
    blocks = signed_masks.T[:, :, None] * X[:, None, :]
    return blocks.reshape(X.shape[0], -1)


def primal_direction(
    coupling: Matrix | Products,
    blocks: Array,
    rhs: Array,
    walls: bool = True,
    factored: bool = False,
) -> Array:
    """Solves with A^T diag(h) A itself: blocks (k, d, d), rhs (k, d).

    Without `walls` no direction is stiff, and the block diagonal preconditions the iterations.
    A stiff h is for no iteration: its matrix is to be `factored` whatever its size.
    """
    k, d, _ = blocks.shape
    own = coupling.own
    # Relative to the diagonal: large penalties make an absolute shift too small or too large.
    lift = 100 * eps(rhs.dtype) ** 0.8 * jnp.diagonal(own + blocks, axis1=1, axis2=2)
    blocks = blocks + lift[:, :, None] * jnp.eye(d, dtype=rhs.dtype)[None]
    if isinstance(coupling, Matrix) and (factored or is_factored(k, d, rhs.dtype)):
        return _factored(coupling.entries, blocks, rhs)
    return _conjugate_gradients(coupling, own, blocks, rhs, walls)


def is_factored(slots: int, features: int, dtype: Any) -> bool:
    """Whether a primal system is factored, and not solved by conjugate gradients."""
    return slots * features < _FEWEST_UNKNOWNS or not _iterates(dtype)


def forms_matrix(slots: int, features: int, dtype: Any) -> bool:
    """Whether a primal system needs A^T diag(h) A as a `Matrix`."""
    return is_factored(slots, features, dtype) or slots * features <= _LARGEST_MATRIX


def _factored(matrix: Array, blocks: Array, rhs: Array) -> Array:
    k, d, _ = blocks.shape
    index = jnp.arange(k)
    full = matrix.at[index, :, index, :].add(blocks).reshape(k * d, k * d)
    return cho_solve(cho_factor(full), rhs.reshape(-1)).reshape(k, d)


def _conjugate_gradients(
    coupling: Matrix | Products, own: Array, blocks: Array, rhs: Array, walls: bool
) -> Array:
    def apply(x: Array) -> Array:
        return coupling.apply(x) + einsum("kij,kj->ki", blocks, x)

    diagonal = own + blocks
    precondition = (
        _of_soft_directions(coupling, own, blocks, diagonal) if walls else _of_blocks(diagonal)
    )

    found = cg(apply, rhs, tol=_PRECISION, maxiter=_MOST_ITERATIONS, M=precondition)[0]
    if not isinstance(coupling, Matrix):
        return found
    # The residual of the iteration is not the one that is left, to a few roundings.
    left = jnp.linalg.norm(rhs - apply(found))
    failed = ~(left <= 1.1 * _PRECISION * jnp.linalg.norm(rhs))

    def instead(_: tuple[Array, Array]) -> tuple[Array, Array]:
        exact = _factored(coupling.entries, blocks, rhs)
        # What the iteration has is a descent direction at least.
        exact = jnp.where(jnp.all(jnp.isfinite(exact)), exact, found)
        return exact, jnp.zeros_like(failed)

    # A loop, which the lanes of a batch pay for only where one of them needs it.
    end: tuple[Array, Array] = jax.lax.while_loop(lambda s: s[1], instead, (found, failed))
    return end[0]


def _of_blocks(diagonal: Array) -> Callable[[Array], Array]:
    """The inverse of the diagonal blocks (k, d, d)."""
    inverse = _inverse(diagonal)
    return lambda x: einsum("kij,kj->ki", inverse, x)


def _of_soft_directions(
    coupling: Matrix | Products, own: Array, blocks: Array, diagonal: Array
) -> Callable[[Array], Array]:
    """The inverse of the system on its soft directions, and of its diagonal blocks on the rest."""
    k, d, _ = blocks.shape
    inverse = _inverse(diagonal)
    # Two steps of subspace iteration find the directions that a block's own walls leave free.
    few = min(_SOFT_OF_A_BLOCK, d)
    guess = jnp.asarray(np.random.default_rng(0).standard_normal((d, few)), blocks.dtype)
    vectors = _orthonormal(matmul(inverse, matmul(inverse, guess)))
    walls = einsum("kdf,kde,keg->kfg", vectors, blocks, vectors)
    # Soft is relative to the Gram matrix of a block; an empty slot has nothing soft.
    trace = jnp.trace(own, axis1=1, axis2=2)
    stiffness = jnp.diagonal(walls, axis1=1, axis2=2)
    stiffness = stiffness / jnp.where(trace > 0, trace, jnp.finfo(blocks.dtype).tiny)[:, None]
    _, among = jax.lax.top_k(-stiffness.reshape(-1), k * min(few, _SOFT_ON_AVERAGE))
    owner, own_index = among // few, among % few
    same = owner[:, None] == owner[None]
    inner = jnp.where(same, walls[owner[:, None], own_index[:, None], own_index[None]], 0.0)
    inner = inner + coupling.within(vectors.transpose(0, 2, 1), among)
    factor = cho_factor(inner)
    taken = jnp.zeros((k * few,), bool).at[among].set(True).reshape(k, few)

    def aside(x: Array, parts: Array) -> Array:
        return x - einsum("kdf,kf->kd", vectors, jnp.where(taken, parts, 0.0))

    def precondition(x: Array) -> Array:
        parts = einsum("kdf,kd->kf", vectors, x)
        stiff = einsum("kij,kj->ki", inverse, aside(x, parts))
        stiff = aside(stiff, einsum("kdf,kd->kf", vectors, stiff))
        solved = cho_solve(factor, parts.reshape(-1)[among])
        soft = jnp.zeros((k * few,), x.dtype).at[among].set(solved).reshape(k, few)
        return stiff + einsum("kdf,kf->kd", vectors, soft)

    return precondition


def _orthonormal(vectors: Array) -> Array:
    """Orthonormal bases (k, d, f) of the spans of few columns."""
    # Accelerators have no batched QR factorisation: they would take one block after the other.
    if jax.default_backend() == "cpu":
        return jnp.linalg.qr(vectors)[0]
    return gram_schmidt(vectors)


def gram_schmidt(vectors: Array) -> Array:
    """Orthonormal bases (k, d, f) of the spans of few columns, every column treated twice."""
    smallest = jnp.finfo(vectors.dtype).tiny
    place = jnp.arange(vectors.shape[2])

    def orthogonal(column: Array, basis: Array, index: Array) -> Array:
        parts = jnp.where(place < index, einsum("kdf,kd->kf", basis, column), 0.0)
        column = column - einsum("kdf,kf->kd", basis, parts)
        return column / jnp.maximum(plain_norm(column), smallest)[:, None]

    def step(index: Array, basis: Array) -> Array:
        column = orthogonal(basis[:, :, index], basis, index)
        return basis.at[:, :, index].set(orthogonal(column, basis, index))

    return jax.lax.fori_loop(0, vectors.shape[2], step, vectors)


def _inverse(blocks: Array) -> Array:
    """Inverses of positive definite blocks (k, d, d)."""
    eye = jnp.broadcast_to(jnp.eye(blocks.shape[-1], dtype=blocks.dtype), blocks.shape)
    inverse = cho_solve((jnp.linalg.cholesky(blocks), True), eye)
    return 0.5 * (inverse + inverse.transpose(0, 2, 1))


def dual_direction(A: Array, curvature: Array, blocks: Array, lifts: Array, rhs: Array) -> Array:
    """Solves through the (n, n) matrix: blocks (k, d, d), lifts (k,) on their diagonals."""
    k, d, _ = blocks.shape
    n = A.shape[0]
    # Below this a block's own walls, not its lift, decide whether its Cholesky factor exists.
    floor = 8 * eps(blocks.dtype) * jnp.trace(blocks, axis1=1, axis2=2)
    lifts = jnp.maximum(lifts, floor)
    lifted = blocks + lifts[:, None, None] * jnp.eye(d, dtype=blocks.dtype)[None]
    factors = jnp.linalg.cholesky(lifted)
    root = jnp.sqrt(curvature)
    columns = (A * root[:, None]).T.reshape(k, d, n)
    # S_b^T = L_b^{-1} A_b^T sqrt(h)
    reduced = solve_triangular(factors, columns, lower=True).reshape(k * d, n)
    inner = jnp.eye(n, dtype=A.dtype) + matmul(reduced.T, reduced)
    inner_factor = cho_factor(inner)

    def solve(vector: Array) -> Array:
        start = solve_triangular(factors, vector[..., None], lower=True).reshape(k * d)
        correction = cho_solve(inner_factor, matmul(reduced.T, start))
        final = (start - matmul(reduced, correction)).reshape(k, d, 1)
        return solve_triangular(factors, final, lower=True, trans=1)[..., 0]

    def residual(p: Array) -> Array:
        coupled = matmul(A.T, curvature * matmul(A, p.reshape(-1))).reshape(k, d)
        return rhs - coupled - einsum("kij,kj->ki", lifted, p)

    # The small lifts make the reduced system ill-conditioned; without refinement, directions that
    # no sample sees are filled with rounding errors that grow from step to step.
    p = solve(rhs)
    for _ in range(2):
        p = p + solve(residual(p))
    return p


def gated_direction(
    X: Array,
    signed_masks: Array,
    curvature: Array,
    alpha: Array,
    along: Array,
    u: Array,
    rhs: Array,
) -> Array:
    """Solves without cones: B_b is alpha_b across u_b and along_b in its direction.

    Args:
        X: (n, d).
        signed_masks: (k, n), s_b D_b.
        curvature: (n,), of the loss.
        alpha: (k,), > 0.
        along: (k,), >= 0.
        u: (k, d), unit, or zero where B_b is alpha_b in all directions.
        rhs: (k, d).

    Returns:
        The solution (k, d).
    """
    n, dtype = X.shape[0], X.dtype
    root = jnp.sqrt(curvature)
    aside = rhs - jnp.sum(u * rhs, axis=1, keepdims=True) * u
    Z = root[:, None] * (signed_masks * matmul(u, X.T)).T
    shares = signed_masks * jnp.sqrt(1.0 / alpha)[:, None]
    scaled = root[:, None] * X
    C = matmul(scaled, scaled.T) * matmul(shares.T, shares) - matmul(Z / alpha[None], Z.T)
    factor = cho_factor(jnp.eye(n, dtype=dtype) + C)
    across = root * jnp.sum(signed_masks * matmul(aside / alpha[:, None], X.T), axis=0)
    solved = cho_solve(factor, jnp.column_stack([Z, across]))
    inner = matmul(Z.T, solved)
    # Directions that are absent, and those of no feature, stand still.
    lift = 100 * eps(dtype) * jnp.trace(inner[:, :-1]) + jnp.finfo(dtype).tiny
    absent = jnp.all(u == 0, axis=1)
    own = jnp.where(absent, 1.0, along + lift)
    pull = jnp.sum(u * rhs, axis=1) - inner[:, -1]
    t = jnp.where(absent, 0.0, cho_solve(cho_factor(inner[:, :-1] + jnp.diag(own)), pull))
    change = root * (matmul(solved[:, :-1], t) + solved[:, -1])
    back = matmul(signed_masks * change[None], X)
    back = back - jnp.sum(u * back, axis=1, keepdims=True) * u
    return t[:, None] * u + (aside - back) / alpha[:, None]
