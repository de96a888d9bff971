r"""Certificates: feasible points on both sides, and the bounds of the optimum that they prove.

A certificate is two numbers, lower <= optimum <= upper. `upper` is the objective at weights that
are feasible (repaired if need be). `lower` is the dual value -sum_i c_i loss*(-t r_i / c_i) of a
multiple t r of the residual, t <= lam / max_b bound_b, where bound_b >= ||q_b|| holds for any
multipliers; so both are valid however unfinished the computation was.

Reference: Fenchel duality; the block correlations q_b are those of `jaxrelu.programs.optimality`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import at_once, in_chunks, sum_in_chunks
from jaxrelu.core.numerics import eps, matmul, safe_norm
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.cones import (
    block_patterns,
    cone_signs,
    drop_negligible,
    make_feasible,
    projection_batch,
)
from jaxrelu.geometry.correlation_bounds import polar_bounds
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.base import total_conjugate
from jaxrelu.programs.checks import check_lam, check_program, check_weights
from jaxrelu.programs.preparation import lift, row_space, with_interior
from jaxrelu.programs.program import (
    Program,
    fit,
    loss_value,
    objective,
    raw_correlations,
    residual_at,
    sample_weights,
)


@register
@dataclass(frozen=True, eq=False)
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


class Certified:
    """What has a certificate shows its bounds by their own names."""

    if TYPE_CHECKING:  # a field of some, a property of others

        @property
        def certificate(self) -> Certificate:
            """The two bounds and their proof."""

    @property
    def lower(self) -> Array:
        """That of the certificate."""
        return self.certificate.lower

    @property
    def upper(self) -> Array:
        """That of the certificate."""
        return self.certificate.upper

    @property
    def gap(self) -> Array:
        """That of the certificate, upper - lower."""
        return self.certificate.gap


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
        ValueError, TypeError: see `jaxrelu.programs.checks.check_program`; a lam that is not
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
    weights = lift(weights, basis)
    dual, lower = dual_point(program, lam, residual, bound)
    upper = objective(program, lam, weights)
    return Certificate(lower, upper, upper - lower, weights, dual)


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
