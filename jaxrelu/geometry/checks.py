"""Matrices and patterns as arguments: of one dtype, of the right shape, finite, on the host."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import FloatArray
from jaxrelu.core.checks import (
    check_dtype,
    check_finite,
    check_leaf,
    check_matrix_shape,
    check_precision,
    described,
    not_finite,
    real_array,
)
from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import matmul, unit
from jaxrelu.core.tracing import is_traced, outside_traces


def host_matrix(
    value: Any, name: str, letters: str = "(n, d)", data: FloatArray | None = None
) -> FloatArray:
    """The argument of a function that runs on the host, as a finite matrix of float32 or float64.

    With the data X (n, d) given, it must have the dtype of X and d rows.

    Raises:
        ValueError, TypeError: something else.
    """
    array = np.asarray(real_array(value, name))
    check_precision(array, name)
    check_dtype(array, name, None if data is None else data.dtype)
    check_matrix_shape(array, name, letters)
    if data is not None and len(array) != data.shape[1]:
        raise ValueError(
            f"{name} has shape {array.shape}, but X has {data.shape[1]} features: pass one column "
            f"per gate or neuron, {name}.T if they are rows."
        )
    check_finite(array, name)
    return array


def check_patterns(patterns: Any, X: Array | FloatArray, bias: str = "none") -> None:
    """Raises if the patterns do not belong to X; shapes and dtypes only where values are traced.

    masks must equal 1[X gates >= 0], except that an entry with |x_j . g| at most 1e-12 (float64)
    or 1e-5 (float32) times ||x_j|| ||g|| may carry either bit; so may rows of zeros.

    Args:
        patterns: `Patterns`: gates (d, p), masks (n, p), interior (d, p) or None.
        X: array (n, d), float32 or float64.
        bias: "free" for gates (d + 1, p) of [X, 1].

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
    check_leaf(X, "X")
    check_matrix_shape(X, "X")
    given = {"gates": patterns.gates, "masks": patterns.masks, "interior": patterns.interior}
    if patterns.interior is None:
        del given["interior"]
    for name, value in given.items():
        if name == "masks":
            _check_mask_type(value, X.dtype)
        else:
            check_leaf(value, name, X.dtype)
        check_matrix_shape(value, name, "(n, p)" if name == "masks" else "(d, p)")
    (n, d), p = X.shape, patterns.num_patterns
    d += bias == "free"
    for name, value in given.items():
        shape = (n if name == "masks" else d, p)
        if value.shape != shape:
            raise ValueError(
                f"{name} has shape {value.shape}, but X {X.shape} with {p} gates needs {shape}: "
                f"build the patterns from this X, for example with {_builder(bias)}."
            )
    if is_traced(X, given):
        return
    # Known values that a trace closes over are compared now, not when its program runs.
    with outside_traces():
        rows = with_ones(X) if bias == "free" else X
        finite, binary, wrong = jax.device_get(_compare(rows, patterns))
    for name, fine in finite.items():
        if not fine:
            raise ValueError(not_finite(name))
    if not binary:
        raise ValueError("masks has entries other than 0 and 1: pass X @ gates >= 0.")
    if wrong.any():
        raise ValueError(
            f"masks differs from X @ gates >= 0 in {np.sum(wrong)} of {p} patterns (the first "
            f"is pattern {np.argmax(wrong)}): pass {_builder(bias)}, with the "
            "X that the program has."
        )


def _builder(bias: str) -> str:
    """How patterns are made of gates."""
    return "patterns_from_gates(X, gates" + (", bias='free')" if bias == "free" else ")")


def _check_mask_type(masks: Any, dtype: Any) -> None:
    array = real_array(masks, "masks")
    known = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.bool_, jnp.integer, dtype))
    if not (known and isinstance(masks, Array | np.ndarray)):
        raise TypeError(f"masks is {described(masks)}; pass np.asarray(masks, bool).")


def with_ones(X: Any) -> Array:
    """[X, 1], the features of neurons with a bias, (n, d + 1)."""
    X = jnp.asarray(X)
    return jnp.concatenate([X, jnp.ones((len(X), 1), X.dtype)], axis=1)


@compiled
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
