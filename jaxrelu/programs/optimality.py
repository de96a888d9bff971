r"""The objective, block correlations, and how far weights are from the optimality conditions.

With r = -(c o loss')(f) and q_b = Proj_{K_b}(s X^T D_j r), weights are optimal if and only if they
are feasible, ||q_b|| <= lam w_b for every block, and w_b theta_b = (||theta_b|| / lam) q_b.

Reference: Mishkin and Pilanci (ICML 2023), Section 3 (KKT conditions of C-ReLU), with the sign of
the residual corrected.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.derivatives import close, excess, jump_at_zero, largest, longest
from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.core.options import nonnegative_scalar
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.geometry.correlations import correlations
from jaxrelu.losses.checks import check_no_kinks
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.programs.checks import (
    check_constant,
    check_kind,
    check_lam,
    check_no_bias,
    check_program,
    check_residual,
    check_skip,
    check_weights,
)
from jaxrelu.programs.extension import Parts, extended, joined
from jaxrelu.programs.penalties import block_weights, sizes, weighing
from jaxrelu.programs.program import (
    Program,
    block_signs,
    cone_values,
    fit,
    float_masks,
    loss_value,
    raw_correlations,
    residual_at,
)
from jaxrelu.programs.skip import without_cone
from jaxrelu.programs.vector_checks import (
    check_nothing_beside,
    check_vector_weights,
    checked_outputs,
)
from jaxrelu.programs.vector_optimality import exact_violations, gated_violations
from jaxrelu.programs.vector_program import VectorProgram, column_programs


class KKTResidual(NamedTuple):
    """Relative violations of the three optimality conditions, all zero at an optimum.

    Attributes:
        stationarity: max over non-zero blocks of ||q - lam theta / ||theta|| || / lam.
        dual_feasibility: max over blocks of (||q|| - lam)_+ / lam.
        primal_feasibility: max over rows and blocks of [-(2 d - 1) <x, theta>]_+ over
            ||x|| ||theta||; inf if a block of infinite weight is not zero.

    With weights w of blocks, lam is lam w_b, which is zero for w_b = 0; a violation there counts
    relative to lam times the largest finite weight.
    """

    stationarity: Array
    dual_feasibility: Array
    primal_feasibility: Array


def objective(
    program: Program, lam: Any, weights: Any, *, skip: Any = None, constant: Any = None
) -> Array:
    r"""The objective of the convex program (see the docstring of `jaxrelu.programs.program`).

    sum_i c_i loss(f_i, y_i) + lam sum_blocks w ||theta||_2. Cone constraints are not looked at.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        lam: scalar >= 0, the regularization strength.
        weights: array (2, p, d), or (p, d) for a gated program.
        skip: array (d,), the skip connection of a program that has one, zero by default.
        constant: scalar, that of a program with a free bias, zero by default.

    Returns:
        Scalar. Differentiable; the derivative of a norm at a zero block is 0.

    Raises:
        ValueError, TypeError: weights of another shape or dtype; lam that is no number.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> float(jr.objective(program, 0.1, jnp.zeros((*program.block_shape, 2), "float32")))
        1.0
    """
    check_kind(program)
    weights, skip = check_weights(program, weights), check_skip(program, skip)
    parts = Parts(weights, skip, check_constant(program, constant))
    strength = nonnegative_scalar(lam, "lam", weights.dtype)
    whole, every = extended(program), joined(program, parts)
    flat = every.reshape(-1, every.shape[-1])
    return loss_value(whole, fit(whole, every)) + strength * jnp.sum(sizes(whole, flat))


def block_correlations(program: Program, residual: Any) -> Array:
    r"""The block correlations q, a unique function of the residual.

    q[s, j] = Proj_{K_j}(s X^T D_j r) for the ReLU program, X^T D_j r for the gated one.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        residual: array (n,), r = -(c o loss')(f).

    Returns:
        Array of the shape of the weights. Derivatives of a block are NaN where its projection
        bends: on a wall without a multiplier, or by rows of X on walls that depend on each other.

    Raises:
        ValueError, TypeError: see `jaxrelu.programs.checks.check_program`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> jr.block_correlations(program, y).shape == (*program.block_shape, 2)
        True

    Reference: Mishkin and Pilanci (ICML 2023), the minimum-norm multiplier of Section 3.
    """
    check_program(program)
    check_no_bias(program, "a block's correlation is no projection then")
    return _block_correlations(program, check_residual(program, residual))


@compiled
def _block_correlations(program: Program, residual: Array) -> Array:
    if not program.has_cones:
        return raw_correlations(program, residual)
    return correlations(jnp.asarray(program.X), jnp.asarray(program.patterns.masks), residual)


def kkt_residual(
    program: Program | VectorProgram,
    lam: Any,
    weights: Any,
    *,
    skip: Any = None,
    residual: Any = None,
) -> KKTResidual:
    """How far weights are from the optimality conditions, relative.

    Args:
        program: a `ConvexProgram`, `GatedProgram` or `VectorProgram`, of an exact one of which dual
            feasibility is an upper bound and nothing can be traced.
        lam: scalar, > 0.
        weights: array (2, p, d), or (p, d) for a gated program.
        skip: array (d,), the skip connection of a program that has one, zero by default.
        residual: array (n,), of a loss with kinks, whose fit does not say it: that of a `Solution`,
            or the `dual` of a certificate. Of any other loss it is that of the weights.

    Returns:
        `KKTResidual`, three scalars. Their derivatives are NaN at kinks: where a condition begins
        to fail, as all do at an optimum, where two blocks fail by as much, and by rows of zeros.

    Raises:
        ValueError, TypeError: see `jaxrelu.programs.checks.check_program`; a lam that is not
        positive; a loss with kinks and no residual; a free bias.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> zero = jnp.zeros((*program.block_shape, 2), "float32")
        >>> above = 1.01 * jr.lambda_max(program)
        >>> float(jr.kkt_residual(program, above, zero).dual_feasibility)
        0.0
    """
    if isinstance(program, VectorProgram):
        check_nothing_beside(skip=skip, residual=residual)
        return _violations_of_outputs(program, lam, weights)
    check_program(program)
    check_no_bias(program, "a block's correlation is no projection then (jr.certify knows it)")
    lam = check_lam(program, lam)
    parts = Parts(check_weights(program, weights), check_skip(program, skip))
    weights = joined(program, parts)
    if residual is not None:
        residual = check_residual(program, residual)
    elif has_kinks(program.loss):
        raise ValueError(
            f"at a kink of {type(program.loss).__name__} the fit does not say what the residual "
            "is: pass residual=solution.residual, or certify(...).dual."
        )
    return _kkt_residual(extended(program), lam, weights, residual)


def _violations_of_outputs(program: VectorProgram, lam: Any, weights: Any) -> KKTResidual:
    program = checked_outputs(program)
    lam = check_lam(program, lam)  # type: ignore[arg-type]
    weights = check_vector_weights(program, weights)
    if program.kind == "exact":
        return KKTResidual(*exact_violations(program, lam, weights))
    if program.kind == "gated":
        return KKTResidual(*gated_violations(program, lam, weights), jnp.zeros((), weights.dtype))
    check_no_kinks(program.loss, "kkt_residual of several outputs")
    columns, axes = column_programs(program)
    each = jax.vmap(lambda column, own: _kkt_residual(column, lam, own, None), in_axes=(axes, -1))(
        columns, weights
    )
    return KKTResidual(*(jnp.max(part) for part in each))


@compiled
def _kkt_residual(
    program: Program, lam: Array, weights: Array, residual: Array | None
) -> KKTResidual:
    X, flat = jnp.asarray(program.X), weights.reshape(-1, weights.shape[-1])
    if residual is None:
        residual = residual_at(program, fit(program, weights))
    q = _block_correlations(program, residual)
    q, size, small = q.reshape(flat.shape), safe_norm(flat), close(weights.dtype)
    skip = without_cone(program, block_patterns(program.block_shape))
    if skip is not None:  # its correlation is raw
        raw = raw_correlations(program, residual).reshape(flat.shape)
        q = jnp.where(skip[:, None], raw, q)
    # The derivative of ||q|| by the residual is s D_j X u, u its direction.
    masks = float_masks(program).T[block_patterns(program.block_shape)]
    features = block_signs(program)[:, None] * masks * matmul(unit(q), X.T)
    pull, weight = lam * unit(flat), block_weights(program)
    if weight is not None:
        # A block of weight zero has q = 0 at an optimum, and one of infinite weight any q.
        scale, bears = 1.0 / weighing(program), weight > 0
        q, features = scale[:, None] * q, scale[:, None] * features
        pull = jnp.where(bears[:, None], pull, 0.0)
    away = jnp.where((size > 0)[:, None], q - pull, 0.0)
    off = jnp.where(jnp.any(size > 0), longest(away, at_least=small * lam), 0.0)
    if weight is None:
        beyond = excess(longest(q, features) - lam, lam)
    else:
        beyond = _beyond(lam, q, features, bears)
    violation = jnp.zeros((), weights.dtype)
    if program.has_cones:
        scale = size[:, None] * safe_norm(X)[None]
        outside = -cone_values(program, weights).reshape(scale.shape)
        outside = jnp.where(scale > 0, outside / jnp.where(scale > 0, scale, 1.0), -1.0)
        outside = outside if skip is None else jnp.where(skip[:, None], -1.0, outside)
        # A row of zeros bounds no cone and is violated by nothing, until it moves.
        jump = jump_at_zero(X, jnp.any(size > 0))
        violation, off = excess(largest(outside.ravel()), 1.0) + jump, off + jump
    if weight is not None:
        violation = jnp.where(jnp.any((size > 0) & (weight == jnp.inf)), jnp.inf, violation)
    return KKTResidual(off / lam, beyond / lam, violation)


def _beyond(lam: Array, q: Array, features: Array, bears: Array) -> Array:
    """How far correlations go beyond lam, or beyond zero in blocks that are not penalised."""

    def of(some: Array) -> Array:
        return longest(jnp.where(some[:, None], q, 0.0), jnp.where(some[:, None], features, 0.0))

    free = jnp.where(jnp.any(~bears), of(~bears), 0.0)
    return jnp.maximum(excess(of(bears) - lam, lam), free)
