"""Safe norms and products at full precision.

Every norm of the package goes through this file: a block of weights that is exactly zero is the
normal case here, and `jnp.linalg.norm` has a NaN derivative there.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def matmul(a: Array, b: Array) -> Array:
    """Matrix product at the highest precision of the device.

    TF32 and bfloat16 products, the default on accelerators, stall the duality gap.

    Args:
        a: array (..., k, l) or (l,), floating.
        b: array (..., l, m) or (l,), same dtype as `a`.

    Returns:
        The product, as `jnp.matmul`.
    """
    return jnp.matmul(a, b, precision="highest")


def einsum(spec: str, *args: Array) -> Array:
    """`jnp.einsum` at the highest precision of the device.

    Args:
        spec: subscripts, for example ``"nd,dp->np"``.
        *args: the operands, all of one dtype.

    Returns:
        The contraction, as `jnp.einsum`.
    """
    return jnp.einsum(spec, *args, precision="highest")


def eps(dtype: Any) -> float:
    """Distance from 1 to the next number of a floating dtype, as a Python float.

    Args:
        dtype: a floating dtype, or an array's ``.dtype``.

    Returns:
        2.2e-16 for float64, 1.2e-7 for float32.
    """
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _scaled(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Splits x = scale * z with max |z| = 1, and sums z * z; all keep the reduced axis."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0.0))
    # float32 squares underflow below 1e-19; the norm does not depend on the scale, so no
    # derivative is lost. A non-finite or a zero row keeps its own values (scale 1).
    smallest = jnp.finfo(x.dtype).tiny  # type: ignore[no-untyped-call]
    usable = jnp.isfinite(largest) & (largest >= smallest)
    scale = jnp.where(usable, largest, 1.0)
    z = x / scale
    return z, scale, jnp.sum(z * z, axis=axis, keepdims=True)


def safe_norm(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Euclidean norm with derivative zero at zero.

    ||x||_2 along one axis; its derivative is x / ||x||, and 0 (a subgradient) where x = 0.

    Args:
        x: array (..., d), floating; the axis may be empty.
        axis: the axis that is reduced.
        keepdims: keep the reduced axis with size one.

    Returns:
        The norms. A NaN in a row makes that row's norm NaN; no overflow or underflow of squares.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrelu.core.numerics import safe_norm
        >>> jax.grad(safe_norm)(jnp.zeros(3)).tolist()
        [0.0, 0.0, 0.0]
    """
    _, scale, square = _scaled(x, axis)
    # `== 0` is false for NaN, so NaN takes the branch of the square root and stays NaN.
    zero = square == 0
    norm = jnp.where(zero, 0.0, scale * jnp.sqrt(jnp.where(zero, 1.0, square)))
    return norm if keepdims else jnp.squeeze(norm, axis=axis)


def safe_sqrt(x: Array) -> Array:
    """The square root, with derivatives zero at zero.

    Args:
        x: array of any shape, floating, >= 0.

    Returns:
        The roots; NaN stays NaN.
    """
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, x)))


def plain_norm(x: Array, axis: int = -1) -> Array:
    """Euclidean norm of numbers of ordinary size, for the inner loops of the solvers.

    sqrt(sum x^2) along one axis, a third of the work of `safe_norm` to compile: squares may
    underflow, and it has no derivative at zero.

    Args:
        x: array (..., d), floating.
        axis: the axis that is reduced.

    Returns:
        The norms; NaN stays NaN.
    """
    return jnp.sqrt(jnp.sum(x * x, axis=axis))


def unit(x: Array, axis: int = -1) -> Array:
    """The direction x / ||x||_2 along one axis; value and derivative zero where x = 0.

    Args:
        x: array (..., d), floating.
        axis: the axis along which the norm is taken.

    Returns:
        Array of the shape of `x`. A row with a NaN or an infinity is returned as NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.core.numerics import unit
        >>> unit(jnp.asarray([[0.0, 2.0], [0.0, 0.0]])).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    z, _, square = _scaled(x, axis)
    zero = square == 0
    return jnp.where(zero, 0.0, z / jnp.sqrt(jnp.where(zero, 1.0, square)))


def weighted(weights: Array, sizes: Array) -> Array:
    """Weights in [0, inf] times sizes >= 0 with inf x 0 = 0, in derivatives too; NaN stays NaN."""
    empty = sizes == 0
    product = jnp.where(empty, 1.0, weights) * sizes
    return jnp.where(empty, jnp.where(jnp.isnan(weights), weights, 0.0), product)
