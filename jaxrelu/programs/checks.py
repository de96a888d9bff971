"""Programs, weights and lam as arguments: each checked once, with a sentence that names the fix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import as_float, check_jaxlib, host_float
from jaxrelu.geometry.checks import check_patterns
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.programs.program import ConvexProgram, GatedProgram, Program


def check_program(program: Program) -> None:
    """Checks a program's arrays; values only where they are concrete.

    Raises:
        TypeError: something that is not a program, or mixed dtypes.
        ValueError: wrong shapes, empty data, labels that the loss cannot take, masks that are not
            0/1 or do not match the gates, negative sample weights. The sentence names the fix.
        RuntimeError: a jaxlib that is known to compute wrong values.
    """
    check_jaxlib()
    if not isinstance(program, ConvexProgram | GatedProgram):
        raise TypeError(
            f"expected a ConvexProgram or GatedProgram, got {type(program).__name__}: "
            "build one with jr.ConvexProgram(X, y, patterns)."
        )
    X = _floating(program.X, "X")
    if X.ndim != 2:
        raise ValueError(f"X has shape {X.shape}; pass a matrix (n, d).")
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(f"X has shape {X.shape}; it needs at least one sample and one feature.")
    y = _vector(program.y, "y", X)
    if program.sample_weight is not None:
        weight = _vector(program.sample_weight, "sample_weight", X)
        if not isinstance(weight, jax.core.Tracer) and bool(np.any(np.asarray(weight) < 0)):
            raise ValueError("sample_weight has negative entries; weights are >= 0.")
    if not isinstance(program.patterns, Patterns):
        raise TypeError(
            f"patterns is a {type(program.patterns).__name__}; pass jr.sample_patterns(...) or "
            "jr.Patterns(gates, masks)."
        )
    check_patterns(program.patterns, X)
    if isinstance(program.loss, type) or not hasattr(program.loss, "check_target"):
        raise TypeError(f"loss is {program.loss!r}; pass an instance, such as jr.SquaredLoss().")
    program.loss.check_target(y)


def _floating(value: Any, name: str) -> Array:
    """The array itself: jit sees it as it is, so nothing is converted here."""
    if not hasattr(value, "dtype"):
        raise TypeError(f"{name} is a {type(value).__name__}; pass an array, np.asarray({name}).")
    array = as_float(value, name)
    if value.dtype not in (jnp.float32, jnp.float64):
        wide = array.dtype if array.dtype == jnp.float64 else "float32"
        raise TypeError(f"{name} has dtype {value.dtype}; pass {name}.astype('{wide}').")
    return array


def _vector(value: Any, name: str, X: Array) -> Array:
    value = _floating(value, name)
    if value.ndim != 1 or value.shape[0] != X.shape[0]:
        raise ValueError(
            f"{name} has shape {value.shape} but X has {X.shape[0]} rows; "
            f"pass {name} with shape ({X.shape[0]},)."
        )
    if value.dtype != X.dtype:
        raise TypeError(
            f"{name} has dtype {value.dtype} and X has {X.dtype}; pass {name}.astype('{X.dtype}')."
        )
    return value


def check_weights(program: Program, weights: Any) -> Array:
    """The weights as an array of the right shape and dtype, or an error that names the fix."""
    weights = as_float(weights, "weights")
    shape = (*program.block_shape, program.X.shape[1])
    if weights.shape != shape:
        raise ValueError(f"weights has shape {weights.shape}; this program takes {shape}.")
    if weights.dtype != program.X.dtype:
        raise TypeError(
            f"weights has dtype {weights.dtype} and X has {program.X.dtype}; "
            f"pass weights.astype('{program.X.dtype}')."
        )
    return weights


def check_lam(program: Program, lam: Any) -> Array:
    """Lam as a scalar of the program's dtype; on the host it must be positive and finite."""
    if isinstance(lam, jax.core.Tracer):
        return jnp.asarray(lam).astype(program.X.dtype)
    # Without a dtype of its own, lam takes the precision of the program.
    value = host_float(lam, "lam").astype(program.X.dtype)
    if value.ndim != 0:
        raise ValueError(
            f"lam has shape {value.shape}; pass one number, or use solve_grid or solve_path."
        )
    if not np.isfinite(value) or float(value) < 0:
        raise ValueError(f"lam is {float(value)}; pass a positive finite number.")
    if float(value) == 0:
        raise ValueError(
            "lam is 0, where the program has no certificate: pass a small lam, for example "
            "1e-6 * lambda_max(program), or solve the minimum-norm program."
        )
    return jnp.asarray(value)
