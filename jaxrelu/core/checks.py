"""Arguments as the arrays and objects that they must be, each refused in one sentence.

A sentence names the argument, says what it is in a few words (never an array's numbers), and names
the fix. Numbers and words are checked by `jaxrelu.core.options`; the `checks` of the other folders
are made of these two.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import FloatArray, Floats
from jaxrelu.core.tracing import is_traced

_LONGEST = 40  # characters of a value in a message


def described(value: Any) -> str:
    """What a value is, in a few words: the number or the word itself, of others type and shape."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        quoted = isinstance(value, str | bytes)
        text = repr(value) if quoted else str(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    kind = type(value).__name__
    if isinstance(shape, tuple) and dtype is not None:
        whose = "an array" if isinstance(value, Array | np.ndarray) else f"a {kind}"
        return f"{whose} of shape {shape} and dtype {dtype}"
    if isinstance(value, list | tuple | dict):
        return f"a {kind} of length {len(value)}"
    return f"of type {kind}"


def default_float() -> Any:
    """The dtype that numbers without one get: float64 where JAX's x64 mode is on, else float32."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def real_array(value: Any, name: str) -> Any:
    """The argument as a NumPy or JAX array of real numbers, its dtype as it is.

    Args:
        value: an array, also traced, a number, or a list of numbers.
        name: the argument's name, for the message.

    Returns:
        The array: of integers, booleans or any floating dtype.

    Raises:
        TypeError: something else: masked arrays, whose mask would be lost, sparse matrices, tables
            (pandas and others), text, objects, complex numbers.
        ValueError: rows of different lengths.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost: drop the masked rows, or pass "
            f"np.ma.filled({name}, value) to give them a value."
        )
    if not isinstance(value, Array):
        value = _host_array(value, name)
    if not (jnp.issubdtype(value.dtype, jnp.floating) or _counts(value.dtype)):
        raise TypeError(f"{name} has dtype {value.dtype}; pass real numbers (float32 or float64).")
    return value


def _host_array(value: Any, name: str) -> Any:
    if hasattr(value, "toarray"):
        raise TypeError(f"{name} is a sparse {type(value).__name__}: pass {name}.toarray().")
    if hasattr(value, "to_numpy"):
        raise TypeError(f"{name} is a {type(value).__name__}: pass {name}.to_numpy().")
    if hasattr(value, "__jax_array__") or (isinstance(value, list | tuple) and is_traced(value)):
        return jnp.asarray(value)
    plain = isinstance(value, np.ndarray | np.generic | bool | int | float | complex | str | bytes)
    if not plain and not isinstance(value, list | tuple):
        like = hasattr(value, "__array__") and not isinstance(value, type)
        advice = f"np.asarray({name})" if like else "real numbers, in an array or a list"
        raise TypeError(f"{name} is {described(value)}; pass {advice}.")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} is {described(value)} with rows of different lengths; pass rows of one length."
        ) from None


def _counts(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or dtype == np.bool_


def float_array(value: Any, name: str) -> Any:
    """The argument as a NumPy or JAX array of float32 or float64, never narrowed in silence.

    Args:
        value: as for `real_array`. Integers, booleans and lists take the default float.
        name: the argument's name, for the message.

    Returns:
        The array.

    Raises:
        ValueError: float64 values while JAX's x64 mode is off.
        TypeError: as `real_array`; floats of other than single or double precision.
    """
    array = real_array(value, name)
    # A Python list has no dtype of its own: it takes the default float.
    if _counts(array.dtype) or not hasattr(value, "dtype"):
        array = array.astype(default_float())
    check_precision(array, name)
    return array


def as_float(value: Any, name: str) -> Array:
    """The argument as a JAX array of float32 or float64; see `float_array`."""
    return jnp.asarray(float_array(value, name))


def known_floats(value: Any, name: str) -> FloatArray:
    """The argument of a function of the host as a finite NumPy array; see `float_array`."""
    array = np.asarray(float_array(value, name))
    check_finite(array, name)
    return array


def known_matrix(value: Any, name: str, letters: str = "(n, d)") -> FloatArray:
    """The argument of a function of the host as a finite matrix; see `float_array`."""
    array = np.asarray(float_array(value, name))
    check_matrix_shape(array, name, letters)
    check_finite(array, name)
    return array


def check_precision(array: Any, name: str) -> None:
    """Refuses an array of real numbers that is not of float32 or float64.

    Raises:
        ValueError: float64 values while JAX's x64 mode is off.
        TypeError: other dtypes.
    """
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} has dtype {array.dtype}; pass {name}.astype('{default_float()}').")
    if array.dtype == np.float64 and default_float() != np.float64:
        raise ValueError(
            f"{name} is float64, but JAX's x64 mode is off and would narrow it to float32: "
            "call jax.config.update('jax_enable_x64', True) first to work in float64, or pass "
            f"{name}.astype('float32') to work in float32."
        )


def check_leaf(value: Any, name: str, dtype: Any = None) -> None:
    """Refuses what is no array of float32 or float64: jit sees a leaf as it is.

    Args:
        value: the leaf of a program or network, also traced.
        name: its name, for the message.
        dtype: that of X, which it must have.

    Raises:
        ValueError, TypeError: as `real_array` and `check_precision`; numbers that are no array, a
            dtype that is not the one of X.
    """
    array = real_array(value, name)
    if not isinstance(value, Array | np.ndarray):
        raise TypeError(
            f"{name} is {described(value)}; pass an array, np.asarray({name}, '{default_float()}')."
        )
    check_precision(array, name)
    check_dtype(array, name, dtype)


def check_dtype(array: Any, name: str, dtype: Any) -> None:
    """Refuses an array whose dtype is not that of X, if one is given."""
    if dtype is not None and array.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype} and X has {dtype}; pass {name}.astype('{dtype}')."
        )


def check_matrix_shape(array: Any, name: str, letters: str = "(n, d)") -> None:
    """Refuses an array that is no matrix, or an empty one."""
    if array.ndim != 2:
        raise ValueError(
            f"{name} has shape {array.shape}; pass a matrix {letters}, for example "
            f"{name}[:, None] for a single column."
        )
    if 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape}; it needs at least one row and one column."
        )


def check_shape(array: Any, name: str, shape: tuple[int, ...], reason: str = "") -> None:
    """Refuses an array of another shape, with a reason if the shape alone does not tell."""
    if array.shape != shape:
        because = f", {reason}" if reason else ""
        raise ValueError(f"{name} has shape {array.shape}; pass shape {shape}{because}.")


def check_per_row(array: Any, name: str, rows: int, data: str = "X") -> None:
    """Refuses an array that has not one number for each row of the data."""
    if array.shape != (rows,):
        raise ValueError(
            f"{name} has shape {array.shape}, but {data} has {rows} rows: pass one number a row, "
            f"shape ({rows},)."
        )


def not_finite(name: str) -> str:
    """The sentence for an array with a NaN or an infinity."""
    return f"{name} has NaN or infinite entries: remove or impute them first."


def check_finite(array: Any, name: str) -> None:
    """Refuses a known array with a NaN or an infinity."""
    if not np.isfinite(np.asarray(array)).all():
        raise ValueError(not_finite(name))


def known_doubles(value: Any, name: str) -> Floats:
    """The argument of a function that works in NumPy's float64, of any real dtype, finite."""
    array = np.asarray(real_array(value, name), np.float64)
    check_finite(array, name)
    return array


def host_numbers(value: Any, name: str) -> FloatArray:
    """Known numbers of any real dtype as a NumPy array of the default float.

    Raises:
        ValueError, TypeError: as `real_array`; booleans.
    """
    array = np.asarray(real_array(value, name))
    if array.dtype == np.bool_:
        raise TypeError(f"{name} has dtype bool; pass real numbers (float32 or float64).")
    return array.astype(default_float())


def check_type(value: Any, name: str, types: type | tuple[type, ...], fix: str) -> None:
    """Refuses what is no instance of some classes; the fix says what to pass."""
    if not isinstance(value, types):
        raise TypeError(f"{name} is {described(value)}; pass {fix}.")
