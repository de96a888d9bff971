"""Matrices and patterns as arguments: of one dtype, of the right shape, finite, on the host."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import FloatArray
from jaxrelu.core.numerics import matmul, unit

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
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced, but patterns are chosen on the host: call this outside jit, vmap "
            "and grad, and pass its result in."
        )
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


def check_patterns(patterns: Any, X: Array | FloatArray) -> None:
    """Raises if the patterns do not belong to X; shapes and dtypes only where values are traced.

    masks must equal 1[X gates >= 0], except that an entry with |x_j . g| at most 1e-12 (float64)
    or 1e-5 (float32) times ||x_j|| ||g|| may carry either bit; so may rows of zeros.

    Args:
        patterns: `Patterns`: gates (d, p), masks (n, p), interior (d, p) or None.
        X: array (n, d), float32 or float64.

    Raises:
        ValueError: shapes that do not fit, non-finite values, masks that are not 0 or 1 or that do
            not match `X @ gates >= 0`.
        TypeError: dtypes other than that of X.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrelu as jr
        >>> from jaxrelu.geometry.checks import check_patterns
        >>> X = jax.random.normal(jax.random.key(1), (5, 2))
        >>> check_patterns(jr.sample_patterns(jax.random.key(0), X, 10), X)
    """
    check_matrix(X, "X", "(n, d)")
    check_matrix(patterns.gates, "gates", "(d, p)", X.dtype)
    kind = getattr(patterns.masks, "dtype", np.dtype(object))
    if not any(jnp.issubdtype(kind, allowed) for allowed in (jnp.bool_, jnp.integer, X.dtype)):
        raise TypeError(f"masks has dtype {kind}, but X {X.dtype}: pass masks.astype(bool).")
    (n, d), p = X.shape, patterns.num_patterns
    shapes = {"gates": (d, p), "masks": (n, p), "interior": (d, p)}
    given = {name: getattr(patterns, name) for name in shapes}
    if patterns.interior is None:
        del given["interior"]
    else:
        check_matrix(patterns.interior, "interior", "(d, p)", X.dtype)
    for name, value in given.items():
        if jnp.shape(value) != shapes[name]:
            raise ValueError(
                f"{name} has shape {jnp.shape(value)}, but X {X.shape} with {p} gates needs "
                f"{shapes[name]}: build the patterns from this X, for example with "
                "patterns_from_gates(X, gates)."
            )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (X, *given.values())):
        return
    # Known values that a trace closes over are compared now, not when its program runs.
    with jax.ensure_compile_time_eval():
        finite, binary, wrong = jax.device_get(_compare(X, patterns))
    for name, fine in finite.items():
        if not fine:
            raise ValueError(NOT_FINITE.format(name=name))
    if not binary:
        raise ValueError("masks has entries other than 0 and 1: pass X @ gates >= 0.")
    if wrong.any():
        raise ValueError(
            f"masks differs from X @ gates >= 0 in {np.sum(wrong)} of {p} patterns (the first "
            f"is pattern {np.argmax(wrong)}): pass patterns_from_gates(X, gates), with the "
            "X that the program has."
        )


@jax.jit
def _compare(X: Array, patterns: Any) -> tuple[dict[str, Array], Array, Array]:
    """Which arrays are finite, whether the masks are zeros and ones, which patterns are wrong."""
    arrays = {"X": X, "gates": patterns.gates}
    if patterns.interior is not None:
        arrays["interior"] = patterns.interior
    finite = {name: jnp.all(jnp.isfinite(value)) for name, value in arrays.items()}
    products = matmul(unit(X), unit(patterns.gates, axis=0))
    tolerance = 1e-12 if X.dtype == jnp.float64 else 1e-5
    ones = patterns.masks.astype(bool)
    wrong = ((products >= 0) != ones) & (jnp.abs(products) > tolerance)
    binary = jnp.all(ones.astype(patterns.masks.dtype) == patterns.masks)
    return finite, binary, jnp.any(wrong, axis=0)
