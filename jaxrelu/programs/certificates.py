r"""Certificates: feasible points on both sides, and the bounds of the optimum that they prove.

A certificate is two numbers, lower <= optimum <= upper. `upper` is the objective at weights that
are feasible (repaired if need be). `lower` is the dual value -sum_i c_i loss*(-t r_i / c_i) of a
multiple t r of the residual, t <= lam / max_b bound_b, where bound_b >= ||q_b|| holds for any
multipliers; so both are valid however unfinished the computation was. Both are rounded to the safe
side by bounds of their own evaluation (`jaxrelu.programs.bounds`).

Reference: Fenchel duality; the block correlations q_b are those of `jaxrelu.programs.optimality`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import in_chunks
from jaxrelu.core.compilation import compiled
from jaxrelu.core.derivatives import nowhere
from jaxrelu.core.numerics import safe_norm
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import (
    block_patterns,
    cone_signs,
    drop_negligible,
    make_feasible,
    projection_batch,
)
from jaxrelu.geometry.correlation_bounds import DualElements, best_multiple, polar_bounds
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.programs.bias import has_bias, of_linear_blocks, smallest_biases
from jaxrelu.programs.bounds import (
    all_blocks,
    correlation_bound,
    dense,
    inside,
    lower_bound,
    upper_value,
)
from jaxrelu.programs.extension import apart
from jaxrelu.programs.free_fits import balanced, residual_of_best
from jaxrelu.programs.free_pairs import shortest_pairs
from jaxrelu.programs.penalties import VANISHING, block_weights, weighed_correlations
from jaxrelu.programs.preparation import lifted, lowered, row_space, with_interior
from jaxrelu.programs.program import Program, fit, sample_weights
from jaxrelu.programs.skip import without_cone
from jaxrelu.programs.units import in_units, into_units, out_of_units, printed


@register
@dataclass(frozen=True, eq=False)
class Certificate:
    """Two-sided bounds of the optimum, lower <= optimum <= upper, as they are printed.

    Attributes:
        lower: scalar, the dual value at `dual`, rounded down.
        upper: scalar, the objective at `weights`, rounded up.
        gap: scalar, upper - lower.
        weights: the feasible weights (2, p, d), or (p, d) for a gated program: every row of every
            cone holds exactly.
        dual: (n,), dual feasible: ||Proj_K(s X^T D_j dual)|| <= lam for every block (with a free
            bias, the value of a block of `jaxrelu.geometry.bias_metric`).
        multipliers: None, or what `jaxrelu.certify(..., multipliers=True)` returns.
        skip: (d,), the skip connection beside `weights`, or None.
        constant: scalar, that of a free bias, or None.
    """

    lower: Array
    upper: Array
    gap: Array
    weights: Array
    dual: Array
    multipliers: Array | None = None
    skip: Array | None = None
    constant: Array | None = None


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


def proved(
    program: Program,
    lam: Array,
    weights: Array,
    residual: Array | None = None,
    *,
    multipliers: bool = False,
) -> Certificate:
    """The certificate of weights, with a skip connection one of them, at their residual or another.

    Args:
        program: a program.
        lam: scalar.
        weights: of the shape of `extended`, from anywhere.
        residual: (n,), any; None for minus the gradient of the loss at the repaired weights, or
            where blocks without a cone are free at the best fit of these.
        multipliers: as in `jaxrelu.certify`.

    Returns:
        `Certificate`.
    """
    prove = _certify_with_multipliers if multipliers else _certify
    certificate: Certificate = prove(program, lam, weights, residual)
    return certificate


@compiled
def _certify(program: Program, lam: Array, weights: Array, residual: Array | None) -> Certificate:
    return _certified(False, program, lam, weights, residual)


@compiled
def _certify_with_multipliers(
    program: Program, lam: Array, weights: Array, residual: Array | None
) -> Certificate:
    return _certified(True, program, lam, weights, residual)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _certified(
    multipliers: bool, program: Program, lam: Array, weights: Array, residual: Array | None
) -> Certificate:
    whole, units = in_units(program)
    whole = with_interior(whole)
    reduced, space = row_space(whole)
    lam = into_units(lam, units.lam)
    inner = lowered(into_units(weights, units.weights), space)
    given = None if residual is None else into_units(residual, units.residual)
    found = evidence(reduced, lam, inner, given, multipliers)
    blocks = all_blocks(lifted(found.weights, space))
    paired = smallest_biases(whole, blocks.ids, shortest_pairs(whole, *blocks))
    # In fewer dimensions they are inside; lifted they were rounded again, as those of pairs were.
    if space is not None or paired is not blocks.weights:
        blocks = inside(whole, blocks._replace(weights=paired))
    upper, fit = upper_value(whole, lam, blocks)
    bound = correlation_bound(reduced, found.residual, found.duals, space)
    lower, t = lower_bound(whole, lam, found.residual, bound, upper.value, fit, reduced)
    low = printed(lower.value, units.objective, -1)
    high = printed(upper.value, units.objective, 1)
    mu = None
    if found.multipliers is not None:
        mu = out_of_units(t * found.multipliers, units.residual).reshape(*whole.block_shape, -1)
        mu = mu[..., : program.block_shape[-1], :]
    parts = apart(program, out_of_units(dense(whole, blocks), units.weights))
    return Certificate(
        lower=low,
        upper=high,
        gap=high - low,
        weights=parts.weights,
        dual=out_of_units(t * found.residual, units.residual),
        multipliers=mu,
        skip=parts.skip,
        constant=parts.constant,
    )


@_certified.defjvp
def _certified_jvp(
    multipliers: bool, primals: Any, tangents: Any
) -> tuple[Certificate, Certificate]:
    bounds = _certified(multipliers, *primals)
    return bounds, nowhere(tangents, bounds)


class Evidence(NamedTuple):
    """What proves both bounds: nearly feasible weights, the residual there, dual elements.

    Attributes:
        weights: of the program's shape.
        residual: (n,).
        duals: `DualElements` of all blocks.
        multipliers: (b, n), of the rows of X, or None.
    """

    weights: Array
    residual: Array
    duals: DualElements
    multipliers: Array | None


def evidence(
    program: Program,
    lam: Array,
    weights: Array,
    residual: Array | None = None,
    multipliers: bool = False,
) -> Evidence:
    """Evidence from weights of any origin, for a program in units with its witnesses.

    Args:
        program: with at most n features.
        lam: scalar.
        weights: of the program's shape.
        residual: (n,), as in `proved`.
        multipliers: project every block in full, and keep its multipliers.

    Returns:
        `Evidence`.
    """
    weights = feasible_weights(program, weights)
    if residual is None:
        residual = residual_of_best(program, fit(program, weights))
    else:
        residual = _in_domain(program, residual)
    # What is not penalised has no correlation at an optimum: it is projected until that is seen.
    c = weighed_correlations(program, residual, free=1.0 / VANISHING)
    duals = DualElements.nothing(c.shape[0], c.shape[1], c.dtype)
    if not program.has_cones:
        return Evidence(weights, residual, duals, None)
    rows = shared_rows(jnp.asarray(program.X), has_bias(program))
    masks = jnp.asarray(program.patterns.masks)
    pattern, batch = block_patterns(program.block_shape), projection_batch(len(c), len(masks))
    skip = without_cone(program, pattern)
    if skip is not None:
        # Without a cone there is nothing to project.
        c, pattern = jnp.where(skip[:, None], 0.0, c), jnp.where(skip, 0, pattern)
    if not multipliers:
        duals = polar_bounds(rows, masks, pattern, c, duals, lam, batch=batch).duals
        return Evidence(weights, residual, duals, None)

    def projected(some: tuple[Array, Array]) -> tuple[DualElements, Array]:
        points, index = some
        signs = cone_signs(masks, index, points.dtype)
        mu = project(rows, signs, points).multipliers
        t = best_multiple(points, DualElements.of(rows, signs, mu).vectors, rows.reach)
        lengths = jnp.where(rows.length > 0, rows.length, 1.0)[None]
        # Of the rows of X; the elements are those of exactly these numbers.
        own = jnp.where(rows.length[None] > 0, t[:, None] * mu / lengths, 0.0)
        return DualElements.of(rows, signs, own * lengths), own

    duals, mu = in_chunks(projected, (c, pattern), batch)
    return Evidence(weights, residual, duals, mu)


def _in_domain(program: Program, residual: Array) -> Array:
    """A residual as near as a loss with kinks has one; of any other loss it is what it is."""
    if not has_kinks(program.loss):
        return residual
    weight = sample_weights(program)
    low, high = program.loss.slopes(jnp.asarray(program.y))  # type: ignore[attr-defined]
    return balanced(program, jnp.clip(residual, -weight * high, -weight * low))


def feasible_weights(program: Program, weights: Array) -> Array:
    """Weights inside the cones near given ones (the program carries its interior witnesses).

    A block of infinite weight becomes zero.
    """
    weights = of_linear_blocks(program, weights)
    weight = block_weights(program)
    if weight is not None:
        there = (weight < jnp.inf).reshape(program.block_shape)[..., None]
        weights = jnp.where(there | jnp.isnan(weights), weights, 0.0)
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
    given, skip = flat, without_cone(program, pattern)
    if skip is not None:
        flat, pattern = jnp.where(skip[:, None], 0.0, flat), jnp.where(skip, 0, pattern)
        interior = jnp.where(skip[:, None], interior[:1], interior)

    def whole(repaired: Array) -> Array:
        found = repaired if skip is None else jnp.where(skip[:, None], given, repaired)
        return found.reshape(weights.shape)

    batch = projection_batch(flat.shape[0], masks.shape[0])
    if batch == flat.shape[0]:
        return whole(repair((flat, interior, pattern)))
    # Zero blocks need no work: with the others first, most chunks are free.
    order = jnp.argsort(-safe_norm(flat))
    repaired = in_chunks(repair, (flat[order], interior[order], pattern[order]), batch)
    return whole(jnp.zeros_like(flat).at[order].set(repaired))
