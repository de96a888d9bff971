"""The critical lam, from which on the weights are zero.

lambda_max = max over blocks of ||Proj_{K_b}(c_b)|| / w_b, c_b = s X^T D_j r, r the residual of zero
weights, or of the best fit of blocks that are not penalised. From above it is bounded by
||c_b + v_b|| for elements v_b of the dual cones, from below by <u, c_b> / ||u|| for any u in K_b; a
projection gives both, and both are rounded outward.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.derivatives import known_where, longest, nowhere
from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.core.rounding import added, downward, product, roundoff, sum_roundings, upward
from jaxrelu.core.tracing import is_traced, outside_traces
from jaxrelu.geometry import driven_projection
from jaxrelu.geometry.bias_metric import direction as along
from jaxrelu.geometry.cones import block_patterns, cone_signs, pushed_inside
from jaxrelu.geometry.correlation_bounds import DualElements, largest_correlation
from jaxrelu.geometry.correlations import longest_correlation
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.losses.kinks import TwoSlopes, has_kinks
from jaxrelu.paths.critical_lam_at_kinks import at_kink, critical_with_kinks
from jaxrelu.paths.critical_lam_by_active_sets import largest_one_by_one
from jaxrelu.paths.unpenalised_fit import (
    FreeFit,
    has_free,
    known_data_are_finite,
    known_free_fit,
    may_have_free,
    traced_free_fit,
)
from jaxrelu.programs.bias import has_bias, smallest_biases
from jaxrelu.programs.bounds import correlation_bound
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.penalties import block_weights, bounded_factors, weighed_correlations
from jaxrelu.programs.preparation import Coordinates, lifted, row_space
from jaxrelu.programs.program import Program, float_masks, residual_at
from jaxrelu.programs.skip import without_cone
from jaxrelu.programs.units import Units, in_units, into_units, out_of_units, printed


def lambda_max(program: Program) -> Array:
    r"""The smallest lam at which zero weights are optimal.

    max over blocks of ||Proj_K(s X^T D_j r)|| / w at r = -(c o loss')(0); without cones
    max_j ||X^T D_j r|| / w_j. The cone-free value is up to twice too large on real data.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.

    Returns:
        Scalar, an upper bound within 1e-6 of the value (1e-3 in float32), relative: weights are
        zero for lam >= lambda_max. Inside a trace it is NaN where the projections did not get that
        close. Its derivative is NaN where the largest correlation is that of several directions.
        Where a loss has kinks at zero weights, as the absolute one of targets that are zero, it is
        a convex program of its own, solved on the host (where lambda_max is next to nothing against
        the targets it may be no lower than zero); inside a trace it is NaN then.
        With blocks that are not penalised r is the residual of their best fit, all others zero; it
        is known less well (1e-3, beside a loss with kinks 1e-4; in float32 lambda_max may be a
        tenth too large), and there is no derivative.

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
                    "was not found. Columns of X that depend on each other have many, and labels "
                    "that these blocks separate have none: penalise them, or pass lams of your own."
                )
            return jnp.asarray(np.nan, program.X.dtype)
        if not _close(program, lower, upper) and not _is_negligible(program, upper):
            raise ArithmeticError(
                f"lambda_max is only known to lie between {lower:.6g} and {upper:.6g}: scale the "
                "columns of X to one size, or take the upper end from lambda_max_interval(program)."
            )
        return jnp.asarray(upper, program.X.dtype)


def lambda_max_interval(program: Program) -> tuple[Array, Array]:
    """Two numbers that lambda_max lies between, as printed.

    From the host, blocks whose batched projection did not end are projected one by one.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.

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
    check_program(program)
    if is_traced(program):
        ends: tuple[Array, Array] = _interval(program)
        return ends
    with outside_traces():
        if has_kinks(program.loss):
            return _interval_of_kinks(program)
        if not program.has_cones and not may_have_free(program):
            return _interval(program)  # type: ignore[no-any-return]
        return _interval_at(program, known_free_fit(program))


def _interval_at(program: Program, free: FreeFit | None) -> tuple[Array, Array]:
    """On the host, from the residual of zero weights or a given one."""
    at = _start(program, free)
    if not program.has_cones:
        return _ends(at, *_projected_at_once(at))  # type: ignore[no-any-return]
    found = _projected_from_host(at)
    ends = _ends(at, *found)
    low, high = np.asarray(ends)
    if not np.isfinite(high - low) or _close(program, low, high):
        return ends  # type: ignore[no-any-return]
    return _ends(at, *_projected_one_by_one(at, found.duals))  # type: ignore[no-any-return]


def _interval_of_kinks(program: Program) -> tuple[Array, Array]:
    """On the host, for a loss that may have kinks at zero weights."""
    biased = program.bias == "free" and isinstance(program.loss, TwoSlopes) and not program.skip
    if may_have_free(program) and not biased:
        raise ValueError(
            f"lambda_max of a {type(program.loss).__name__} is not known where blocks are not "
            "penalised, for its best fit has kinks: pass lams of your own."
        )
    if not biased and not bool(np.any(at_kink(program))):
        return _interval_at(program, None)
    dtype = program.X.dtype

    def upper_at(residual: Array) -> float:
        slip = _left_of_sum(program, residual) if biased else jnp.zeros((), dtype)
        return float(_interval_at(program, FreeFit(residual, slip))[1])

    lower, upper = critical_with_kinks(program, upper_at, _near(program))
    return jnp.asarray(lower, dtype), jnp.asarray(upper, dtype)


def _left_of_sum(program: Program, residual: Array) -> Array:
    """How far correlations, over weights, may be from those of a sum that is exactly zero."""
    X = np.asarray(program.X)
    reach = np.max(np.linalg.norm(X - np.mean(X, axis=0), axis=1), initial=0.0)
    r, lightest = np.asarray(residual), 1.0
    if program.block_weights is not None:
        lightest = float(np.min(np.asarray(program.block_weights)))
    left = np.abs(np.sum(r)) + len(r) * roundoff(X.dtype) * np.sum(np.abs(r))
    return jnp.asarray(4.0 * reach * left / lightest, X.dtype)


def _close(program: Program, lower: Any, upper: Any) -> Any:
    """Whether the upper end is near enough to be the value."""
    return upper - lower <= _near(program) * upper


def _is_negligible(program: Program, upper: Any) -> bool:
    """Whether it is next to nothing, of a loss with kinks."""
    if not has_kinks(program.loss):
        return False
    return bool(upper <= _near(program) * np.asarray(_interval_at(program, None)[1]))


def _near(program: Program) -> float:
    double = program.X.dtype == np.float64
    if not may_have_free(program):
        return 1e-6 if double else 1e-3
    if has_kinks(program.loss):
        # So many samples are tied near it that finer solves stall.
        return 1e-4 if double else 1e-3
    # The residual of the best unpenalised fit is known to the root of its gap.
    return 1e-3 if double else 0.5


class _Start(NamedTuple):
    """A program in units, itself and in its row space, and the residual where lam is critical.

    It is that of zero weights, or of the best fit of the blocks that are not penalised, which may
    be off by `slip`.
    """

    whole: Program
    reduced: Program
    space: Coordinates | None
    units: Units
    residual: Array
    slip: Array | None


@partial(compiled, optimised=False)
def _start(program: Program, free: FreeFit | None = None) -> _Start:
    whole, units = in_units(program)
    reduced, space = row_space(whole)
    if free is None:
        residual = residual_at(whole, jnp.zeros((whole.X.shape[0],), whole.X.dtype))
        return _Start(whole, reduced, space, units, residual, None)
    residual = into_units(free.residual, units.residual)
    return _Start(whole, reduced, space, units, residual, into_units(free.slip, units.lam))


class _Projected(NamedTuple):
    """What proves both ends: `DualElements` of all blocks, and a long projection (d,) of one."""

    duals: DualElements
    block: Array
    point: Array


@compiled
def _interval(program: Program) -> tuple[Array, Array]:
    ends: tuple[Array, Array] = _two_ends(program)
    return ends


@jax.custom_jvp
def _two_ends(program: Program) -> tuple[Array, Array]:
    if not has_kinks(program.loss):
        at = _start(program, traced_free_fit(program))
        return _ends(at, *_projected(at))  # type: ignore[no-any-return]
    at = _start(program)
    lower, upper = _ends(at, *_projected(at))
    # Where kinks leave a choice of residuals, one of them gives an upper end alone.
    unknown = jnp.where(has_free(program), jnp.nan, 0.0).astype(upper.dtype)
    some = has_free(program) | jnp.any(at_kink(program))
    return jnp.where(some, unknown, lower), upper + unknown


@_two_ends.defjvp
def _two_ends_jvp(primals: Any, tangents: Any) -> Any:
    ends = _two_ends(*primals)
    return ends, nowhere(tangents, ends)


def _projected(at: _Start) -> _Projected:
    rows, masks, pattern, c = _to_project(at)
    if not at.reduced.has_cones:
        best = jnp.argmax(safe_norm(c)).astype(jnp.int32)
        return _Projected(DualElements.nothing(len(c), c.shape[1], c.dtype), best, c[best])
    found = largest_correlation(rows, masks, pattern, c)
    return _Projected(found.duals, found.longest, found.longest_point)


_projected_at_once = compiled(_projected, optimised=False)


def _projected_from_host(at: _Start) -> _Projected:
    found = driven_projection.largest_correlation(*_to_project_at_once(at))
    return _Projected(found.duals, found.longest, found.longest_point)


def _to_project(at: _Start) -> tuple[Rows, Array, Array, Array]:
    """What `largest_correlation` takes."""
    c = weighed_correlations(at.reduced, at.residual)
    masks, pattern = jnp.asarray(at.reduced.patterns.masks), block_patterns(at.reduced.block_shape)
    rows = shared_rows(jnp.asarray(at.reduced.X), has_bias(at.reduced))
    return rows, masks, pattern, c


_to_project_at_once = compiled(_to_project, optimised=False)


@partial(compiled, optimised=False)
def _ends(at: _Start, duals: DualElements, block: Array, point: Array) -> tuple[Array, Array]:
    """Both ends as printed."""
    X, masks = jnp.asarray(at.whole.X), jnp.asarray(at.whole.patterns.masks)
    (n, d), p, dtype = X.shape, masks.shape[1], X.dtype
    times = sum_roundings(n, dtype) + sum_roundings(d, dtype) + 8.0
    # A residual with sample weights is rounded itself.
    weighted = 2.0 * roundoff(dtype) * safe_norm(added((jnp.abs(X * at.residual[:, None])).T))
    bound = correlation_bound(at.reduced, at.residual, duals, at.space)
    upper = upward(bound.bound, weighted)

    u, pattern = lifted(point[None], at.space), block % p
    u = smallest_biases(at.whole, block[None], u)
    if at.whole.has_cones:
        interior = at.whole.patterns.interior
        witness = jnp.asarray(at.whole.patterns.gates if interior is None else interior)
        signs = cone_signs(masks, pattern[None], dtype)
        u = pushed_inside(shared_rows(X), signs, u, unit(witness[:, pattern])[None])
    biased = has_bias(at.whole)
    direction = along(u, True) if biased else unit(u)
    seen = masks[:, pattern].astype(dtype) * at.residual
    side = jnp.where(block < p, 1.0, -1.0).astype(dtype)
    value = side * added(seen * product(direction, X.T)[0])
    off = added(jnp.abs(seen) * matmul(jnp.abs(direction), jnp.abs(X).T)[0])
    off = roundoff(dtype) * times * off + roundoff(dtype) * 8.0 * jnp.abs(value)
    weight = block_weights(at.whole)
    if weight is not None:
        value, off = value / weight[block], off / weight[block]
        off = off + roundoff(dtype) * 4.0 * jnp.abs(value)
    if at.slip is not None:
        upper, off = upward(upper, at.slip), off + at.slip
    lower = jnp.maximum(downward(value, off), jnp.where(jnp.isnan(value), jnp.nan, 0.0))
    return printed(lower, at.units.lam, -1), printed(upper, at.units.lam, 1)


def _projected_one_by_one(at: _Start, known: DualElements) -> _Projected:
    """By active sets on the host."""
    rows, masks, pattern, c = _to_project_at_once(at)
    free = without_cone(at.reduced, pattern)
    found = largest_one_by_one(rows, masks, pattern, c, known, free)
    vectors, mass, block, point = found
    dtype = at.residual.dtype
    duals = DualElements(jnp.asarray(vectors, dtype), jnp.asarray(mass, dtype))
    return _Projected(duals, jnp.asarray(block, jnp.int32), jnp.asarray(point, dtype))


@compiled
def _lambda_max(program: Program) -> Array:
    value: Array = _upper_end(program)
    return value


@jax.custom_jvp
def _upper_end(program: Program) -> Array:
    lower, upper = _interval(program)
    return jnp.where(_close(program, lower, upper), upper, jnp.nan)


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
