r"""Optimality: block correlations, KKT residual, feasible points on both sides, the certificate.

With r = -(c o loss')(f) and q_b = Proj_{K_b}(s X^T D_j r), weights are optimal if and only if they
are feasible, ||q_b|| <= lam for every block, and theta_b = (||theta_b|| / lam) q_b.

A certificate is two numbers, lower <= optimum <= upper. `upper` is the objective at weights that
are feasible (repaired if need be). `lower` is the dual value -sum_i c_i loss*(-t r_i / c_i) of a
multiple t r of the residual, t <= lam / max_b bound_b, where bound_b >= ||q_b|| holds for any
multipliers; so both are valid however unfinished the computation was.

Reference: Mishkin and Pilanci (ICML 2023), Section 3 (KKT conditions of C-ReLU), with the sign of
the residual corrected; Fenchel duality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import as_float, host_float
from jaxrelu.core.chunks import at_once, in_chunks, sum_in_chunks
from jaxrelu.core.numerics import eps, matmul, safe_norm
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.cones import (
    block_patterns,
    cone_signs,
    drop_negligible,
    interior_directions,
    make_feasible,
    polar_bounds,
    project_cones,
    projection_batch,
)
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.losses.base import total_conjugate
from jaxrelu.programs.program import (
    Program,
    check_program,
    cone_values,
    fit,
    loss_value,
    objective,
    raw_correlations,
    residual_at,
    row_space,
    sample_weights,
)


@register
@dataclass(frozen=True)
class Certificate:
    """Two-sided bounds of the optimum, lower <= optimum <= upper.

    Attributes:
        lower: scalar, the dual value at `dual`.
        upper: scalar, the objective at `weights`.
        gap: scalar, upper - lower, not clipped: rounding may leave it slightly negative.
        weights: the feasible weights (2, p, d), or (p, d) for a gated program.
        dual: (n,), dual feasible: ||Proj_K(s X^T D_j dual)|| <= lam for every block.
    """

    lower: Array
    upper: Array
    gap: Array
    weights: Array
    dual: Array


class KKTResidual(NamedTuple):
    """Relative violations of the three optimality conditions, all zero at an optimum.

    Attributes:
        stationarity: max over non-zero blocks of ||q - lam theta / ||theta|| || / lam.
        dual_feasibility: max over blocks of (||q|| - lam)_+ / lam.
        primal_feasibility: max over rows and blocks of [-(2 d - 1) <x, theta>]_+ over
            ||x|| ||theta||.
    """

    stationarity: Array
    dual_feasibility: Array
    primal_feasibility: Array


def block_correlations(program: Program, residual: Any) -> Array:
    r"""The block correlations q, a unique function of the residual.

    q[s, j] = Proj_{K_j}(s X^T D_j r) for the ReLU program, X^T D_j r for the gated one.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        residual: array (n,), r = -(c o loss')(f).

    Returns:
        Array of the shape of the weights.

    Raises:
        ValueError, TypeError: see `jaxrelu.programs.program.check_program`.

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
    residual = as_float(residual, "residual")
    n = program.X.shape[0]
    if residual.shape != (n,):
        raise ValueError(f"residual has shape {residual.shape}; pass one number a sample, ({n},).")
    return _block_correlations(program, residual.astype(program.X.dtype))


@jax.jit
def _block_correlations(program: Program, residual: Array) -> Array:
    reduced, basis = row_space(program)
    c = raw_correlations(reduced, residual)
    if not program.has_cones:
        return _lift(c, basis)
    return _lift(project_cones(reduced.X, reduced.patterns.masks, c).points, basis)


def kkt_residual(program: Program, lam: Any, weights: Any) -> KKTResidual:
    """How far weights are from the optimality conditions, relative.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        lam: scalar, > 0.
        weights: array (2, p, d), or (p, d) for a gated program.

    Returns:
        `KKTResidual`, three scalars.

    Raises:
        ValueError, TypeError: see `jaxrelu.programs.program.check_program`; a lam that is not
        positive.

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
    check_program(program)
    lam = check_lam(program, lam)
    return _kkt_residual(program, lam, check_weights(program, weights))


@jax.jit
def _kkt_residual(program: Program, lam: Array, weights: Array) -> KKTResidual:
    q = _block_correlations(program, residual_at(program, fit(program, weights)))
    size = safe_norm(weights)
    direction = weights / jnp.where(size > 0, size, 1.0)[..., None]
    away = jnp.where(size > 0, safe_norm(q - lam * direction), 0.0)
    violation = jnp.zeros((), weights.dtype)
    if program.has_cones:
        rows = safe_norm(jnp.asarray(program.X))
        scale = size[..., None] * rows[None, None]
        outside = jnp.maximum(-cone_values(program, weights), 0.0)
        violation = jnp.max(jnp.where(scale > 0, outside / jnp.where(scale > 0, scale, 1.0), 0.0))
    return KKTResidual(
        jnp.max(away) / lam, jnp.max(jnp.maximum(safe_norm(q) - lam, 0.0)) / lam, violation
    )


def certify(program: Program, lam: Any, weights: Any) -> Certificate:
    r"""Certified bounds of the optimum from weights of any origin.

    The weights are repaired (negligible blocks dropped, each block projected onto its cone, then
    moved along the cone's interior witness by the smallest step that clears what is left); `upper`
    is their objective, and `lower` the dual value of the best feasible multiple of their residual.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        lam: scalar, > 0.
        weights: array (2, p, d), or (p, d) for a gated program: optimal, infeasible, random.

    Returns:
        `Certificate`, with lower <= optimum <= upper up to rounding. Bad weights give a wide gap,
        never a wrong one.

    Raises:
        ValueError, TypeError: see `jaxrelu.programs.program.check_program`; a lam that is not
        positive.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> c = jr.certify(program, 0.1, jnp.zeros((*program.block_shape, 2), "float32"))
        >>> bool(c.lower <= c.upper)
        True
    """
    check_program(program)
    lam = check_lam(program, lam)
    return _certify(program, lam, check_weights(program, weights))


@jax.jit
def _certify(program: Program, lam: Array, weights: Array) -> Certificate:
    reduced, basis = row_space(with_interior(program))
    if basis is not None:
        weights = matmul(weights, basis)
    weights = feasible_weights(reduced, weights)
    residual = residual_at(reduced, fit(reduced, weights))
    bound = correlation_bound(reduced, residual, lam)
    weights = _lift(weights, basis)
    dual, lower = dual_point(program, lam, residual, bound)
    upper = objective(program, lam, weights)
    return Certificate(lower, upper, upper - lower, weights, dual)


def with_interior(program: Program) -> Program:
    """The program with interior witnesses of its cones, computed here if they are missing."""
    patterns = program.patterns
    if patterns.interior is not None or not program.has_cones:
        return program
    # Witnesses serve the repair; no derivative passes through them.
    X, masks, gates = (
        jax.lax.stop_gradient(jnp.asarray(a)) for a in (program.X, patterns.masks, patterns.gates)
    )

    def directions(some: tuple[Array, Array]) -> Array:
        return interior_directions(X, some[0].T, some[1].T)[0].T

    batch = projection_batch(masks.shape[1], masks.shape[0])
    interior = in_chunks(directions, (masks.T, gates.T), batch).T
    patterns = Patterns(patterns.gates, patterns.masks, interior)
    return type(program)(program.X, program.y, patterns, program.loss, program.sample_weight)


def feasible_weights(program: Program, weights: Array) -> Array:
    """Weights inside the cones near given ones (the program carries its interior witnesses)."""
    if not program.has_cones:
        return weights
    flat = weights.reshape(-1, weights.shape[-1])
    pattern = block_patterns(program.block_shape)
    interior = jnp.asarray(program.patterns.interior).T[pattern]
    masks = jnp.asarray(program.patterns.masks)
    rows = shared_rows(jnp.asarray(program.X))

    def repair(block: tuple[Array, Array, Array]) -> Array:
        theta, witness, index = block
        signs = cone_signs(masks, index, theta.dtype)
        return make_feasible(rows, signs, theta, witness)

    # A chunk drops what is negligible in it, so negligible is decided here, over all blocks.
    flat = drop_negligible(flat)
    batch = projection_batch(flat.shape[0], masks.shape[0])
    if batch == flat.shape[0]:
        return repair((flat, interior, pattern)).reshape(weights.shape)
    # Zero blocks need no work: with the others first, most chunks are free.
    order = jnp.argsort(-safe_norm(flat))
    repaired = in_chunks(repair, (flat[order], interior[order], pattern[order]), batch)
    return jnp.zeros_like(flat).at[order].set(repaired).reshape(weights.shape)


def correlation_bound(program: Program, residual: Array, lam: Array) -> Array:
    """An upper bound of max_b ||q_b||, exact where it exceeds lam."""
    c = raw_correlations(program, residual)
    c = c.reshape(-1, c.shape[-1])
    if not program.has_cones:
        return jnp.max(safe_norm(c), initial=0.0)
    bounds = polar_bounds(
        shared_rows(jnp.asarray(program.X)),
        jnp.asarray(program.patterns.masks),
        block_patterns(program.block_shape),
        c,
        jnp.zeros_like(c),
        lam,
        batch=projection_batch(c.shape[0], program.X.shape[0]),
    )
    return jnp.max(bounds.bound, initial=0.0)


def dual_value(program: Program, dual: Array) -> Array:
    """-sum_i c_i loss*(-dual_i / c_i), the dual objective at a dual vector (n,)."""
    return -total_conjugate(program.loss, -dual, jnp.asarray(program.y), sample_weights(program))


def dual_point(program: Program, lam: Array, residual: Array, bound: Array) -> tuple[Array, Array]:
    """The best multiple t r, 0 <= t <= lam / bound, of a residual, and its dual value.

    The dual value is concave in t: a fixed search on a grid that is refined twice finds the best t
    for any loss, and min(1, lam / bound) is always among the candidates.
    """
    # The rounding of the bound itself must not make the dual point infeasible.
    bound = bound * (1.0 + 4 * eps(residual.dtype))
    # Far below the bound any multiple is feasible; twice the residual is then enough.
    # A bound that is NaN allows none.
    largest = jnp.where(bound <= 0.5 * lam, 2.0, lam / jnp.where(bound == 0, 1.0, bound))
    grid = jnp.linspace(0.0, 1.0, 17, dtype=residual.dtype)

    def values(t: Array) -> Array:
        v = jax.vmap(lambda s: dual_value(program, s * residual))(t)
        return jnp.where(jnp.isnan(v), -jnp.inf, v)

    low, high = jnp.zeros_like(largest), largest
    for _ in range(2):
        points = low + (high - low) * grid
        best = jnp.argmax(values(points))
        low, high = points[jnp.maximum(best - 1, 0)], points[jnp.minimum(best + 1, 16)]
    whole = jnp.minimum(1.0, largest)
    # The residual itself may lie on the edge of the conjugate's domain, or outside by rounding.
    candidates = jnp.stack([whole, whole * (1.0 - 8 * eps(residual.dtype)), points[best]])
    t = candidates[jnp.argmax(values(candidates))]
    dual = t * residual
    return dual, dual_value(program, dual)


def rounding_error(program: Program, lam: Array, weights: Array, residual: Array) -> Array:
    """Estimated rounding error of the two values of a certificate, for dense weights."""
    X, n = jnp.asarray(program.X), program.X.shape[0]

    def some(rows: tuple[Array, Array], real: Array) -> Array:
        masks, weights = rows
        features = jnp.sum(jnp.abs(matmul(weights, X.T)).reshape(len(masks), -1, n), axis=1)
        return jnp.sum(jnp.where(masks & real[:, None], features, 0.0), axis=0)

    rows = jnp.asarray(program.patterns.masks, bool).T, jnp.moveaxis(weights, -2, 0)
    spread = sum_in_chunks(some, rows, at_once(n))
    penalty = lam * jnp.sum(safe_norm(weights))
    return rounding_of_values(program, fit(program, weights), residual, spread, penalty)


def rounding_of_values(
    program: Program, fit: Array, residual: Array, spread: Array, penalty: Array
) -> Array:
    """Estimated rounding error of the two values, from the parts they are sums of.

    A fit is a sum of block features, so it is wrong by eps times the sum of their absolute values,
    `spread` (n,); the loss then by |r_i| eps spread_i, and the correlations, relative to lam, by as
    much. As the optimum goes to zero this stays, and the gap cannot fall below it.
    """
    spread = spread + jnp.abs(jnp.asarray(program.y))
    # A sample of weight zero may have no target.
    shares = jnp.where(residual == 0, 0.0, jnp.abs(residual) * spread)
    rough = jnp.sum(shares) + penalty + jnp.abs(loss_value(program, fit))
    return 4 * eps(fit.dtype) * rough


def _lift(weights: Array, basis: Array | None) -> Array:
    return weights if basis is None else matmul(weights, basis.T)


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
