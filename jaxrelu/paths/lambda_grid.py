"""The grid of lams below the critical one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.options import count, share
from jaxrelu.core.tracing import on_host
from jaxrelu.paths.critical_lam import lambda_max
from jaxrelu.programs.program import Program
from jaxrelu.programs.vector_program import VectorProgram


@on_host("or use lambda_max, which can be traced")
def lambda_grid(program: Program | VectorProgram, num: int = 50, ratio: float = 1e-2) -> Array:
    """A geometric grid, descending from lambda_max to ratio * lambda_max.

    Args:
        program: a `ConvexProgram`, `GatedProgram` or `VectorProgram`.
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
    num, ratio = count(num, "num"), share(ratio, "ratio")
    largest = float(lambda_max(program))
    if not np.isfinite(largest):
        raise ValueError(f"lambda_max is {largest}: check X, y and sample_weight for NaN and inf.")
    if largest <= 0:
        raise ValueError(
            "lambda_max is zero: the zero weights are optimal at every lam (y is zero, or X is), "
            "so there is no path; check y and X."
        )
    exponents = np.linspace(0.0, 1.0, num)
    return jnp.asarray(largest * ratio**exponents, program.X.dtype)
