"""The critical lam of programs of several outputs, from which on the weights are zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.tracing import is_traced
from jaxrelu.paths.several_outputs.exact import critical_exact
from jaxrelu.paths.several_outputs.gated import critical_gated
from jaxrelu.programs.vector_checks import checked_outputs
from jaxrelu.programs.vector_program import VectorProgram, column_program

Interval = tuple[Array, Array]


def critical_of_outputs(program: VectorProgram, of_one: Callable[[Any], Interval]) -> Array:
    """`jaxrelu.lambda_max` of a program of several outputs."""
    lower, upper = critical_interval(program, of_one)
    near = 1e-6 if program.X.dtype == jnp.float64 else 1e-3
    if is_traced((lower, upper)):
        return jnp.where(upper - lower <= near * upper, upper, jnp.nan)
    low, high = float(lower), float(upper)
    if np.isfinite(high - low) and not high - low <= near * high:
        raise ArithmeticError(
            f"lambda_max is only known to lie between {low:.6g} and {high:.6g}: take the upper end "
            "from lambda_max_interval(program)."
        )
    return upper if np.isfinite(high - low) else jnp.asarray(np.nan, program.X.dtype)


def critical_interval(
    program: VectorProgram, of_one: Callable[[Any], tuple[Array, Array]]
) -> tuple[Array, Array]:
    """`jaxrelu.lambda_max_interval` of a program of several outputs; `of_one` that of one."""
    program = checked_outputs(program)
    if program.kind == "gated":
        ends: tuple[Array, Array] = critical_gated(program)
        return ends
    if program.kind == "exact":
        return critical_exact(program)
    each = [of_one(column_program(program, k)) for k in range(program.num_outputs)]
    lower, upper = (jnp.stack(list(side)) for side in zip(*each, strict=True))
    return jnp.max(lower), jnp.max(upper)
