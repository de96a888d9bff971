r"""The Newton system of the subproblem, solved in the fit by conjugate gradients.

With S = A J A^T, J the derivative of the threshold, and H the Hessian of the loss, the step D of
the fit solves

    (I + sigma S H) D = G.

In the inner product <D, H D'> the matrix is self-adjoint and positive, so that conjugate gradients
solve it without an inverse of H, which of the multinomial loss is singular; what H does not see of
D is given by D = G - sigma S H D.

Reference: Hestenes and Stiefel (1952), in another inner product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

_MOST_STEPS = 1000
# Up to so many unknowns the matrix is made and factored: many neurons along few directions leave it
# with too few digits for conjugate gradients.
_DIRECT = 300


def newton_step(
    smoothed: Callable[[Array], Array],
    hessian: Callable[[Array], Array],
    rhs: Array,
    accuracy: Array,
) -> Array:
    """Solves (I + smoothed o hessian) D = rhs.

    Args:
        smoothed: sigma A J A^T, (n, c) -> (n, c), self-adjoint and positive semidefinite.
        hessian: H, (n, c) -> (n, c), likewise.
        rhs: (n, c).
        accuracy: scalar, how far the norm of what is left goes down, relative.

    Returns:
        D, (n, c).
    """
    if rhs.size <= _DIRECT:
        return _solved(smoothed, hessian, rhs)

    def going(state: Any) -> Array:
        _, _, _, square, count = state
        return (count < _MOST_STEPS) & (square > accuracy**2 * first)

    def step(state: Any) -> Any:
        found, left, along, square, count = state
        pulled = hessian(along)
        image = along + smoothed(pulled)
        length = square / jnp.sum(image * pulled)
        found, left = found + length * along, left - length * image
        new = jnp.sum(left * hessian(left))
        return found, left, left + (new / square) * along, new, count + 1

    first = jnp.sum(rhs * hessian(rhs))
    start = jnp.zeros_like(rhs), rhs, rhs, first, jnp.asarray(0, jnp.int32)
    found, left, *_ = jax.lax.while_loop(going, step, start)
    return found + left


def _solved(
    smoothed: Callable[[Array], Array], hessian: Callable[[Array], Array], rhs: Array
) -> Array:
    def column(unit: Array) -> Array:
        change = unit.reshape(rhs.shape)
        return (change + smoothed(hessian(change))).ravel()

    matrix = jax.lax.map(column, jnp.eye(rhs.size, dtype=rhs.dtype), batch_size=32).T
    return jnp.linalg.solve(matrix, rhs.ravel()).reshape(rhs.shape)
