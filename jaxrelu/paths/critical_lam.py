"""The critical lam, from which on the weights are zero.

lambda_max = max over blocks of ||Proj_{K_b}(c_b)|| / w_b, c_b = s X^T D_j r, r the residual of zero
weights, or of the best fit of blocks that are not penalised, bounded from both sides by
`jaxrelu.paths.correlations_at_zero`; where a loss has kinks there, r is one of many
(`jaxrelu.paths.critical_lam_at_kinks`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.derivatives import known_where, longest, nowhere
from jaxrelu.core.numerics import matmul, unit
from jaxrelu.core.tracing import is_traced, outside_traces
from jaxrelu.geometry.correlations import longest_correlation
from jaxrelu.losses.kinks import TwoSlopes, has_kinks
from jaxrelu.paths.correlations_at_zero import (
    at_zero,
    close,
    ends_at,
    interval_at,
    nearness,
    projected,
)
from jaxrelu.paths.critical_lam_at_kinks import at_kink, critical_with_kinks
from jaxrelu.paths.several_outputs.critical_lam import critical_interval, critical_of_outputs
from jaxrelu.paths.unpenalised_fit import (
    has_free,
    known_data_are_finite,
    known_free_fit,
    may_have_free,
    traced_free_fit,
)
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.penalties import bounded_factors, weighed_correlations
from jaxrelu.programs.program import Program, float_masks, residual_at
from jaxrelu.programs.units import in_units, out_of_units
from jaxrelu.programs.vector_program import VectorProgram


def lambda_max(program: Program | VectorProgram) -> Array:
    r"""The smallest lam at which zero weights are optimal.

    max over blocks of ||Proj_K(s X^T D_j r)|| / w at r = -(c o loss')(0); without cones
    max_j ||X^T D_j r|| / w_j. The cone-free value is up to twice too large on real data.

    Args:
        program: a `ConvexProgram`, `GatedProgram` or `VectorProgram`.

    Returns:
        Scalar, an upper bound within 1e-6 of the value (1e-3 in float32), relative: weights are
        zero for lam >= lambda_max. Inside a trace it is NaN where the projections did not get that
        close. Its derivative is NaN where the largest correlation is that of several directions.
        Where a loss has kinks at zero weights, as the absolute one of targets that are zero, it is
        a convex program of its own, solved on the host (where lambda_max is next to nothing against
        the targets it may be no lower than zero); inside a trace it is NaN then.
        With blocks that are not penalised r is the residual of their best fit, all others zero; it
        is known less well (1e-3; in float32 lambda_max may be a tenth too large; with kinks it is a
        linear program, and known as well as others), and there is no derivative.

    Raises:
        ValueError, TypeError: see `check_program`.
        ArithmeticError: the projections did not get that close, as where columns of X differ by
            many orders of magnitude; `lambda_max_interval` says how close they got. Or the blocks
            that are not penalised have no best fit, or too many.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> bool(jr.lambda_max(jr.ConvexProgram(X, y, patterns)) > 0)
        True

    Reference: Mishkin and Pilanci (ICML 2023), KKT conditions; tested on both sides.
    """
    if isinstance(program, VectorProgram):
        return critical_of_outputs(program, lambda_max_interval)
    check_program(program)
    if is_traced(program):
        value: Array = _lambda_max(program)
        return value
    with outside_traces():
        lower, upper = (np.asarray(end) for end in lambda_max_interval(program))
        if not np.isfinite(upper - lower):  # of the data
            if may_have_free(program) and known_data_are_finite(program):
                raise ArithmeticError(
                    "lambda_max is not known: the best fit of the blocks that are not penalised "
                    "was not found. Columns of X that depend on each other have many, labels that "
                    "these blocks separate may have none, and numbers of very different sizes "
                    "hide it: penalise them, scale the data, or pass lams of your own."
                )
            return jnp.asarray(np.nan, program.X.dtype)
        if not close(program, lower, upper) and not _is_negligible(program, upper):
            raise ArithmeticError(
                f"lambda_max is only known to lie between {lower:.6g} and {upper:.6g}: scale the "
                "columns of X to one size, or take the upper end from lambda_max_interval(program)."
            )
        return jnp.asarray(upper, program.X.dtype)


def lambda_max_interval(program: Program | VectorProgram) -> tuple[Array, Array]:
    """Two numbers that lambda_max lies between, as printed.

    From the host, blocks whose batched projection did not end are projected one by one.

    Args:
        program: a `ConvexProgram`, `GatedProgram` or `VectorProgram`.

    Returns:
        ``(lower, upper)``, scalars; NaN for data with NaN. Their derivatives are NaN.

    Raises:
        ValueError, TypeError: see `check_program`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> lower, upper = jr.lambda_max_interval(jr.ConvexProgram(X, y, patterns))
        >>> bool(0 < lower <= upper < 1.001 * lower)
        True
    """
    if isinstance(program, VectorProgram):
        return critical_interval(program, lambda_max_interval)
    check_program(program)
    if is_traced(program):
        ends: tuple[Array, Array] = _interval(program)
        return ends
    with outside_traces():
        if has_kinks(program.loss):
            return _interval_of_kinks(program)
        if not program.has_cones and not may_have_free(program):
            return _interval(program)  # type: ignore[no-any-return]
        return interval_at(program, known_free_fit(program))


def _interval_of_kinks(program: Program) -> tuple[Array, Array]:
    """On the host, for a loss that may have kinks at zero weights."""
    free = may_have_free(program)
    if free and not isinstance(program.loss, TwoSlopes):
        raise ValueError(
            f"lambda_max of a {type(program.loss).__name__} is not known where blocks are not "
            "penalised, for its best fit has kinks: pass lams of your own, or give the loss two "
            "slopes, as those of jaxrelu.losses.kinks.TwoSlopes."
        )
    dtype = program.X.dtype
    if not known_data_are_finite(program):
        nothing = jnp.full((), np.nan, dtype)
        return nothing, nothing
    if not free and not bool(np.any(at_kink(program))):
        return interval_at(program, None)

    lower, upper = critical_with_kinks(program)
    low = np.asarray(lower, dtype)
    low = np.nextafter(low, np.zeros_like(low)) if low > lower else low
    return jnp.asarray(low), jnp.asarray(upper, dtype)


def _is_negligible(program: Program, upper: Any) -> bool:
    """Whether it is next to nothing, of a loss with kinks."""
    if not has_kinks(program.loss):
        return False
    return bool(upper <= nearness(program) * np.asarray(interval_at(program, None)[1]))


@compiled
def _interval(program: Program) -> tuple[Array, Array]:
    ends: tuple[Array, Array] = _two_ends(program)
    return ends


@jax.custom_jvp
def _two_ends(program: Program) -> tuple[Array, Array]:
    if not has_kinks(program.loss):
        at = at_zero(program, traced_free_fit(program))
        return ends_at(at, *projected(at))  # type: ignore[no-any-return]
    at = at_zero(program)
    lower, upper = ends_at(at, *projected(at))
    # Where kinks leave a choice of residuals, one of them gives an upper end alone.
    unknown = jnp.where(has_free(program), jnp.nan, 0.0).astype(upper.dtype)
    some = has_free(program) | jnp.any(at_kink(program))
    return jnp.where(some, unknown, lower), upper + unknown


@_two_ends.defjvp
def _two_ends_jvp(primals: Any, tangents: Any) -> Any:
    ends = _two_ends(*primals)
    return ends, nowhere(tangents, ends)


@compiled
def _lambda_max(program: Program) -> Array:
    value: Array = _upper_end(program)
    return value


@jax.custom_jvp
def _upper_end(program: Program) -> Array:
    lower, upper = _interval(program)
    return jnp.where(close(program, lower, upper), upper, jnp.nan)


@_upper_end.defjvp
def _upper_end_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    value = _upper_end(*primals)
    if may_have_free(primals[0]):
        # The best unpenalised fit moves with the data, too.
        change = jax.jvp(_largest_length, primals, tangents)[1]
        return value, known_where(~has_free(primals[0]), change)
    return value, jax.jvp(_largest_length, primals, tangents)[1]


def _largest_length(program: Program) -> Array:
    """The value with the derivative of the envelope theorem."""
    program, units = in_units(program)
    X = jnp.asarray(program.X)
    residual = residual_at(program, jnp.zeros((X.shape[0],), X.dtype))
    if program.has_cones:
        factors = None if program.block_weights is None else bounded_factors(program)
        masks = jnp.asarray(program.patterns.masks)
        value = longest_correlation(X, masks, residual, factors)
    else:
        c = weighed_correlations(program, residual)
        # The derivative of ||X^T D_j r|| by r is D_j X u, u its direction.
        features = float_masks(program).T * matmul(unit(c), X.T)
        if program.block_weights is not None:
            features = bounded_factors(program)[:, None] * features
        value = longest(c, features)
    return out_of_units(value, units.lam)
