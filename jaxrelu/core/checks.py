"""Arguments as the arrays and numbers that they must be, with a sentence that names the fix."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


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
