"""Certificates of a round: the blocks of the slots inside their cones, and the objective there."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.geometry.cones import cone_signs, make_feasible
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.programs.bounds import Blocks, correlation_bound, lower_bound, upper_value
from jaxrelu.programs.program import residual_at
from jaxrelu.programs.skip import without_cone
from jaxrelu.solvers.active_newton.working_set import WorkingSet
from jaxrelu.solvers.scaled_program import ScaledProgram


class Best(NamedTuple):
    """The best certificate so far: blocks of the slots, a residual and its dual elements."""

    blocks: Blocks
    residual: Array
    duals: DualElements
    gap: Array
    upper: Array


def repair(scaled: ScaledProgram, blocks: Blocks) -> Blocks:
    """Blocks inside their cones near given ones."""
    if not scaled.program.has_cones:
        return blocks
    signs, interior = cones_of(scaled, blocks)
    rows = scaled.rows._replace(reach=None)
    skip = without_cone(scaled.program, _pattern(scaled, blocks))
    if skip is None:
        return blocks._replace(weights=make_feasible(rows, signs, blocks.weights, interior))
    weights = jnp.where(skip[:, None], 0.0, blocks.weights)
    moved = make_feasible(rows, signs, weights, interior)
    return blocks._replace(weights=jnp.where(skip[:, None], blocks.weights, moved))


def cones_of(scaled: ScaledProgram, blocks: Blocks) -> tuple[Array, Array]:
    """The signs (k, n) and the witnesses (k, d) of the cones of blocks.

    For one that has no cone the first pattern stands in.
    """
    interior, pattern = jnp.asarray(scaled.program.patterns.interior).T, _pattern(scaled, blocks)
    skip = without_cone(scaled.program, pattern)
    pattern = pattern if skip is None else jnp.where(skip, 0, pattern)
    return cone_signs(scaled.masks, pattern, blocks.weights.dtype), interior[pattern]


def _pattern(scaled: ScaledProgram, blocks: Blocks) -> Array:
    return scaled.pattern[jnp.where(blocks.ids < scaled.num_blocks, blocks.ids, 0)]


def certify_slots(
    scaled: ScaledProgram,
    lam: Array,
    blocks: Blocks,
    residual: Array,
    duals: DualElements,
    lower: Array,
) -> Best:
    """Repairs the blocks of the slots and evaluates the objective there, beside a known bound.

    The last word is that of `jaxrelu.solvers.verdict.conclude`, which evaluates both anew.
    """
    blocks = repair(scaled, blocks)
    value, fit = upper_value(scaled.program, lam, blocks)
    upper = value.value
    if scaled.program.block_weights is not None:
        bound = correlation_bound(scaled.program, residual, duals)
        lower = lower_bound(scaled.program, lam, residual, bound, upper, fit)[0].value
    return Best(blocks, residual, duals, upper - lower, upper)


def no_certificate(scaled: ScaledProgram, working: WorkingSet) -> Best:
    """Zero weights with nothing known: replaced by the first certificate."""
    zero, dtype = jnp.zeros_like(scaled.y), scaled.X.dtype
    largest = jnp.asarray(jnp.finfo(dtype).max, dtype)  # type: ignore[no-untyped-call]
    residual = residual_at(scaled.program, zero)
    blocks = Blocks(working.blocks, jnp.zeros_like(working.at.weights))
    nothing = DualElements.nothing(scaled.num_blocks, scaled.X.shape[1], dtype)
    return Best(blocks, residual, nothing, largest, scaled.at_zero)


def closer(new: Best, old: Best) -> Best:
    """The one with the smaller gap."""
    take = new.gap < old.gap
    return jax.tree.map(lambda a, b: jnp.where(take, a, b), new, old)
