r"""The Newton system of a working set, in the smaller of its primal and dual forms.

    (A^T diag(h) A + blkdiag(B_1, ..., B_k)) p = rhs,        A = [s_1 D_1 X, ..., s_k D_k X],

with h >= 0 the curvatures of the loss (n,) and B_b (d, d) positive semidefinite. The primal form
factors the (kd, kd) matrix. The dual form (Woodbury) factors I + sum_b S_b S_b^T of size n, with
S_b = diag(sqrt h) A_b L_b^{-T} and L_b L_b^T = B_b; it is the cheaper one when kd is well above n.
B_b is singular along its own block of weights (the Hessian of a norm is), so the dual form needs
it lifted a little; the direction stays a descent direction and Newton's method corrects the rest.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

from jaxrelu.numerics import einsum, eps, matmul


def uses_dual_form(slots: int, features: int, samples: int) -> bool:
    """Whether the n x n system is the cheaper one (measured: from kd = 3 n on)."""
    return slots * features > 3 * samples


def working_matrix(X: Array, signed_masks: Array) -> Array:
    """A of the module's docstring, (n, k d), from X (n, d) and s_b D_b as (k, n)."""
    blocks = signed_masks.T[:, :, None] * X[:, None, :]
    return blocks.reshape(X.shape[0], -1)


def primal_direction(matrix: Array, blocks: Array, rhs: Array) -> Array:
    """Solves with the matrix itself: matrix (k, d, k, d), blocks (k, d, d), rhs (k, d)."""
    k, d, _ = blocks.shape
    index = jnp.arange(k)
    full = matrix.at[index, :, index, :].add(blocks).reshape(k * d, k * d)
    diagonal = jnp.diagonal(full)
    # Relative to the diagonal: large penalties make an absolute shift too small or too large.
    lift = 100 * eps(full.dtype) ** 0.8
    full = full + jnp.diag(lift * diagonal)
    return cho_solve(cho_factor(full), rhs.reshape(-1)).reshape(k, d)


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
