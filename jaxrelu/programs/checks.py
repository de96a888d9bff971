"""Programs, weights and lam as arguments: each checked once, with a sentence that names the fix."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import (
    as_float,
    check_dtype,
    check_leaf,
    check_matrix_shape,
    check_per_row,
    check_shape,
    check_type,
)
from jaxrelu.core.device import check_device
from jaxrelu.core.options import check_choice, number, scalar
from jaxrelu.core.tracing import is_traced
from jaxrelu.geometry.checks import check_patterns
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.losses.checks import (
    check_known_samples,
    check_one_output,
    check_target,
    check_weights_sign,
    checked_loss,
)
from jaxrelu.programs.program import ConvexProgram, GatedProgram, Program


def check_kind(program: Any) -> None:
    """Refuses what is no program."""
    fix = "jr.ConvexProgram(X, y, patterns) or jr.GatedProgram(X, y, patterns)"
    check_type(program, "program", (ConvexProgram, GatedProgram), fix)


def check_program(program: Program) -> None:
    """Checks a program's arrays; values only where they are concrete.

    Raises:
        TypeError: something that is not a program, arrays of other types, or mixed dtypes.
        ValueError: wrong shapes, empty data, labels that the loss cannot take, masks that are not
            0/1 or do not match the gates, negative weights of samples or blocks. The sentence
            names the fix.
        RuntimeError: a jaxlib or a device that computes wrong values.
    """
    check_kind(program)
    check_data(program)
    check_type(program.skip, "skip", bool, "True or False")
    check_choice(program.bias, "bias", ("none", "free"))
    check_device(program.X.dtype)
    if program.sample_weight is not None:
        check_weights_sign(program.sample_weight)
    if program.block_weights is not None:
        check_block_weights(program.block_weights, program.skip, program.bias)
    check_patterns(program.patterns, program.X, program.bias)
    check_target(checked_loss(program.loss), program.y)


def check_data(program: Program) -> None:
    """Checks the arrays of a program without a look at their values."""
    X = program.X
    check_leaf(X, "X")
    check_matrix_shape(X, "X")
    check_one_output(program.loss)
    for name in ("y", "sample_weight"):
        value = getattr(program, name)
        if value is not None or name == "y":
            check_leaf(value, name, X.dtype)
            check_per_row(value, name, X.shape[0])
    fix = "jr.sample_patterns(key, X, num_gates) or jr.Patterns(gates, masks)"
    check_type(program.patterns, "patterns", Patterns, fix)
    weights = program.block_weights
    if weights is not None:
        check_leaf(weights, "block_weights", X.dtype)
        check_shape(weights, "block_weights", program.block_shape, "one a block of the program")


def check_block_weights(weights: Any, skip: bool = False, bias: str = "none") -> None:
    """Refuses known weights of blocks that are negative or NaN, and such that leave no block."""
    if is_traced(weights):
        return
    known = np.asarray(weights)
    if not bool(np.all(known >= 0)):
        raise ValueError(
            "block_weights holds a negative number or NaN: weights are >= 0, and inf for a block "
            "that is not there."
        )
    if bias == "free" and bool(np.any(known == 0)):
        raise ValueError(
            'block_weights holds zeros, and bias="free" leaves no bound of such a block: pass a '
            "small weight, 1e-6 times the others, say."
        )
    if known.size and not skip and bias == "none" and bool(np.all(np.isinf(known))):
        raise ValueError("block_weights are all inf, which leaves no block: make some finite.")


def check_skip(program: Program, skip: Any, name: str = "skip") -> Array | None:
    """The skip connection of a program that has one, or None for zero."""
    if skip is None:
        return None
    if not program.skip:
        raise ValueError(f"{name} is given, and the program has none: build it with skip=True.")
    skip = as_float(skip, name)
    check_shape(skip, name, program.X.shape[1:], "one a feature")
    check_dtype(skip, name, program.X.dtype)
    return skip


def check_constant(program: Program, constant: Any, name: str = "constant") -> Array | None:
    """The constant of a program with a free bias, or None for zero."""
    if constant is None:
        return None
    if program.bias != "free":
        raise ValueError(f'{name} is given, and the program has none: build it with bias="free".')
    return scalar(constant, name, program.X.dtype)


def check_no_bias(program: Program, why: str) -> None:
    """Refuses a program with a free bias where it has no meaning, or is not known."""
    if program.bias == "free":
        raise ValueError(
            f'the program has bias="free", and {why}: append a column of ones to X, whose bias is '
            "penalised."
        )


def check_no_skip(program: Program, why: str) -> None:
    """Refuses a program with a skip connection where it has no meaning."""
    if program.skip:
        raise ValueError(f"the program has a skip connection, and {why}: build it with skip=False.")


def check_no_free_blocks(program: Program, who: str) -> None:
    """Refuses a known program some of whose blocks are not penalised."""
    check_no_bias(program, f"{who} goes by correlations that are projections")
    check_no_skip(program, f"{who} goes by correlations of length lam, which it has not")
    if program.block_weights is not None and bool(np.any(np.asarray(program.block_weights) == 0)):
        raise ValueError(
            f"block_weights holds zeros, and {who} goes by correlations of length lam, which a "
            "block without penalty has not: pass a small weight, 1e-6 times the others, say."
        )


def check_no_block_weights(program: Program, why: str) -> None:
    """Refuses a program with weights of blocks or a skip connection, which have no meaning."""
    check_no_bias(program, why)
    check_no_skip(program, why)
    if program.block_weights is not None:
        raise ValueError(f"the program has block_weights, and {why}: leave them out.")


def check_known_program(program: Program) -> None:
    """Checks a program whose values a function of the host looks at.

    Raises:
        ValueError, TypeError: as `check_program`; a target that counts, or a sample weight, that is
            not finite.
    """
    check_program(program)
    check_known_samples(len(program.X), program.y, program.sample_weight)


def check_double(program: Program) -> None:
    """Refuses a program of float32 where equalities are decided to the rounding of float64."""
    if program.X.dtype != jnp.float64:
        raise TypeError(
            f"the program has dtype {program.X.dtype}: what this decides takes float64. Set "
            'jax.config.update("jax_enable_x64", True) and pass float64 data.'
        )


def check_weights(program: Program, weights: Any, name: str = "weights") -> Array:
    """The weights as an array of the right shape and dtype, or an error that names the fix."""
    weights = as_float(weights, name)
    check_shape(weights, name, (*program.block_shape, program.block_size), "as this program has")
    check_dtype(weights, name, program.X.dtype)
    return weights


def check_residual(program: Program, residual: Any) -> Array:
    """A vector with one number a sample in the program's dtype, or an error that names the fix."""
    residual = as_float(residual, "residual")
    check_per_row(residual, "residual", program.X.shape[0])
    return residual.astype(program.X.dtype)


def check_lam(program: Program, lam: Any, name: str = "lam") -> Array:
    """Lam as a scalar of the program's dtype; where it is known it must be positive and finite."""
    if is_traced(lam):
        return scalar(lam, name, program.X.dtype)
    # Without a dtype of its own, lam takes the precision of the program.
    found = number(lam, name, ", or use solve_grid, solve_path or refine_path for several")
    with np.errstate(over="ignore"):
        value = np.asarray(found).astype(program.X.dtype)
    if not np.isfinite(value) or float(value) < 0:
        raise ValueError(f"{name} is {float(value)}; pass a positive finite number.")
    if float(value) == 0:
        raise ValueError(
            f"{name} is 0, where the program has no certificate: pass a small one, for example "
            "1e-6 * lambda_max(program), or solve the minimum-norm program."
        )
    return jnp.asarray(value)
