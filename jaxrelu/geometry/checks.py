"""Matrices as arguments: of one dtype, of the right shape, finite, on the host."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxrelu.core.aliases import FloatArray

NOT_FINITE = "{name} has NaN or infinite entries: remove or impute them first."


def check_matrix(value: Any, name: str, letters: str, dtype: Any = None) -> None:
    """Raises unless the value is a float32 or float64 matrix, of the dtype of X if one is given."""
    kind = getattr(value, "dtype", None)
    if kind not in (np.float32, np.float64):
        raise TypeError(
            f"{name} has dtype {kind}; pass an array of float32 or float64, for example "
            f"np.asarray({name}, dtype='float32')."
        )
    if kind == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise TypeError(
            f"{name} is float64, but JAX's x64 mode is off and would narrow it to float32: call "
            "jax.config.update('jax_enable_x64', True) first to work in float64, or pass "
            f"{name}.astype('float32') to work in float32."
        )
    if dtype is not None and kind != dtype:
        raise TypeError(f"{name} is {kind}, but X is {dtype}: pass {name}.astype(X.dtype).")
    if value.ndim != 2:
        raise ValueError(
            f"{name} has shape {value.shape}; pass a matrix of shape {letters}, for example "
            f"{name}[:, None] for a single column."
        )
    if 0 in value.shape:
        raise ValueError(
            f"{name} is empty (shape {value.shape}); pass at least one row and column."
        )


def host_matrix(value: Any, name: str, letters: str, data: FloatArray | None = None) -> FloatArray:
    """The checked argument of a function that runs on the host, as a NumPy array.

    With the data X (n, d) given, the argument must have the dtype of X and d rows.
    """
    array = np.asarray(value)
    check_matrix(array, name, letters, None if data is None else data.dtype)
    if data is not None and len(array) != data.shape[1]:
        raise ValueError(
            f"{name} has shape {array.shape}, but X has {data.shape[1]} features: pass one column "
            f"per gate or neuron, {name}.T if they are rows."
        )
    if not np.isfinite(array).all():
        raise ValueError(NOT_FINITE.format(name=name))
    return array
