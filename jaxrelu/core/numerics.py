"""Safe norms, products at full precision and the entry check for arrays.

Every norm of the package goes through this file: a block of weights that is exactly zero is the
normal case here, and `jnp.linalg.norm` has a NaN derivative there.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def as_float(value: Any, name: str) -> Array:
    """The argument as a floating JAX array, never narrowed in silence.

    Floating dtypes are kept; integers and booleans become JAX's default float.

    Args:
        value: anything that NumPy or JAX reads as a real array, also a tracer.
        name: the argument's name, for the message.

    Returns:
        The array.

    Raises:
        ValueError: float64 values while JAX's x64 mode is off.
        TypeError: values that are not real numbers.
    """
    return jnp.asarray(_real(value, name))


def host_float(value: Any, name: str) -> np.ndarray[Any, Any]:
    """The argument as a NumPy array of JAX's default float, also while something else is traced.

    Args:
        value: numbers on the host; a dtype of their own is not looked at.
        name: the argument's name, for the message.

    Returns:
        The array, in float64 where JAX's x64 mode is on and float32 elsewhere.

    Raises:
        TypeError: values that are not real numbers.
    """
    return np.asarray(_real(np.asarray(value).tolist(), name))


def check_seconds(max_seconds: Any) -> float:
    """A limit of time as a number.

    Raises:
        ValueError: it is negative or not a number.
    """
    seconds = float(host_float(max_seconds, "max_seconds"))
    if not seconds >= 0:
        raise ValueError(f"max_seconds is {max_seconds}: pass a number that is zero or positive.")
    return seconds


def _real(value: Any, name: str) -> Any:
    if not isinstance(value, Array):
        declared = hasattr(value, "dtype")
        value = np.asarray(value)
        # A Python list has no dtype of its own: it takes the default float.
        if not declared and value.dtype == np.float64:
            value = value.astype(jax.dtypes.canonicalize_dtype(np.float64))
    if jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == jnp.bool_:
        value = value.astype(jax.dtypes.canonicalize_dtype(np.float64))
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {value.dtype}; pass real numbers (float32 or float64).")
    if value.dtype == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise ValueError(
            f"{name} is float64, but JAX's x64 mode is off and would narrow it to float32: "
            "call jax.config.update('jax_enable_x64', True) first to work in float64, or pass "
            f"{name}.astype('float32') to work in float32."
        )
    return value


def check_jaxlib() -> None:
    """Refuses the one jaxlib that is known to compute wrong values.

    Raises:
        RuntimeError: the sentence names the versions to install.
    """
    if version("jaxlib") == "0.10.2" and jax.default_backend() == "cpu":
        raise RuntimeError(
            "jaxlib 0.10.2 compiles batched sums of products wrongly on a CPU "
            "(jax-ml/jax#39103), so that no certificate would hold: install jax and jaxlib 0.10.1, "
            "or 0.11 and later."
        )
