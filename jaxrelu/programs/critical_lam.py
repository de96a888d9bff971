"""The critical lam, from which on the weights are zero, and the grid below it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.derivatives import longest
from jaxrelu.core.numerics import matmul, unit
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.correlations import longest_correlation
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.program import Program, float_masks, raw_correlations, residual_at


def lambda_max(program: Program) -> Array:
    r"""The smallest lam at which zero weights are optimal.

    max over blocks of ||Proj_K(s X^T D_j r)|| at r = -(c o loss')(0); without cones
    max_j ||X^T D_j r||. The cone-free value is up to twice too large on real data.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.

    Returns:
        Scalar. Weights are zero for lam >= lambda_max and not zero below. Its derivative is NaN
        where blocks of different directions have the same correlation.

    Raises:
        ValueError, TypeError: see `check_program`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> bool(jr.lambda_max(jr.ConvexProgram(X, y, patterns)) > 0)
        True

    Reference: Mishkin and Pilanci (ICML 2023), KKT conditions; tested on both sides.
    """
    check_program(program)
    return _lambda_max(program)


@jax.jit
def _lambda_max(program: Program) -> Array:
    X = jnp.asarray(program.X)
    residual = residual_at(program, jnp.zeros((X.shape[0],), X.dtype))
    if program.has_cones:
        return longest_correlation(X, jnp.asarray(program.patterns.masks), residual)
    c = raw_correlations(program, residual)
    # The derivative of ||X^T D_j r|| by r is D_j X u, u its direction.
    return longest(c, float_masks(program).T * matmul(unit(c), X.T))


@on_host("or use lambda_max, which can be traced")
def lambda_grid(program: Program, num: int = 50, ratio: float = 1e-2) -> Array:
    """A geometric grid, descending from lambda_max to ratio * lambda_max.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        num: number of values.
        ratio: last value over the first, in (0, 1).

    Returns:
        Array (num,), descending.

    Raises:
        ValueError: num or ratio out of range, or a program whose lambda_max is zero.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> jr.lambda_grid(jr.ConvexProgram(X, y, patterns), num=3, ratio=0.1).shape
        (3,)
    """
    if num < 1:
        raise ValueError(f"num is {num}; ask for at least one lam.")
    if not 0 < ratio < 1:
        raise ValueError(f"ratio is {ratio}; it is the last lam over the first, between 0 and 1.")
    largest = float(lambda_max(program))
    if not np.isfinite(largest):
        raise ValueError(f"lambda_max is {largest}: check X, y and sample_weight for NaN and inf.")
    if largest <= 0:
        raise ValueError(
            "lambda_max is zero: the zero weights are optimal at every lam (y is zero, or X is), "
            "so there is no path; check y and X."
        )
    exponents = np.linspace(0.0, 1.0, num)
    return jnp.asarray(largest * float(ratio) ** exponents, program.X.dtype)
