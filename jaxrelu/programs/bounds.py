r"""Both values of a certificate with the rounding of their own evaluation.

Weights inside their cones give the upper value, a feasible dual point the lower one. Every number
that they are made of is computed with a bound of its error (`jaxrelu.core.rounding`):

* a fit f_i = sum_b s_b d_bi <x_i, theta_b> is off by at most
  delta_i = (d + k) u sum_b d_bi <|x_i|, |theta_b|> for k non-zero blocks, the loss of a sample by
  |l'(f_i)| delta_i + L delta_i^2 / 2 and by what the loss says of itself;
* weights are *inside*: (2 d_bi - 1) <x_i, theta_b> >= 0 holds exactly, because the computed number
  exceeds its own error;
* a correlation c_b = s_b X^T D_b r is off by at most n u || |X|^T |r| ||, an element K_b^T mu of
  a dual cone by n u sum_i mu_i ||x_i||, its `mass`.

The program is in numbers around one (`jaxrelu.programs.units`), where nothing that matters
underflows.

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), Chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import chunk_size, in_chunks, sum_in_chunks
from jaxrelu.core.numerics import eps, matmul, safe_norm
from jaxrelu.core.rounding import added, downward, product, roundoff, sum_roundings, upward
from jaxrelu.geometry.bias_metric import most_in_polar_size, reach_of, safe_polar_size
from jaxrelu.geometry.cones import cone_signs, pushed_inside
from jaxrelu.geometry.correlation_bounds import DualElements, best_multiple
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.base import (
    conjugate_error,
    rise_within,
    total_conjugate,
    value_error,
)
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.programs.bias import has_bias
from jaxrelu.programs.penalties import block_weights, seen, sizes
from jaxrelu.programs.preparation import Coordinates
from jaxrelu.programs.program import Program, block_signs, sample_weights
from jaxrelu.programs.skip import has_cone, without_cone
from jaxrelu.programs.unpenalised import Violation, unpenalised_loss


class Blocks(NamedTuple):
    """Some blocks of a program: their flat indices `ids` (k,), and weights (k, d).

    An index equal to the number of blocks of the program marks a place that is not used.
    """

    ids: Array
    weights: Array


class Value(NamedTuple):
    """A value of the program rounded to the safe side, and how much that was."""

    value: Array
    rounding: Array


def all_blocks(weights: Array) -> Blocks:
    """Dense weights (2, p, d) or (p, d) as `Blocks`."""
    flat = weights.reshape(-1, weights.shape[-1])
    return Blocks(jnp.arange(flat.shape[0], dtype=jnp.int32), flat)


def dense(program: Program, blocks: Blocks) -> Array:
    """`Blocks` as weights of the program's shape."""
    total = block_signs(program).shape[0]
    flat = jnp.zeros((total, blocks.weights.shape[-1]), blocks.weights.dtype)
    flat = flat.at[blocks.ids].set(blocks.weights, mode="drop")
    return flat.reshape(*program.block_shape, -1)


def inside(program: Program, blocks: Blocks) -> Blocks:
    """Blocks moved along their witnesses until every row of their cones holds exactly.

    They are nearly feasible already. One that no small step brings inside, as in a cone without
    interior, becomes zero.
    """
    if not program.has_cones:
        return blocks
    rows, masks = shared_rows(jnp.asarray(program.X)), jnp.asarray(program.patterns.masks)
    witnesses = jnp.asarray(program.patterns.interior).T
    num_patterns = masks.shape[1]

    def some(part: Blocks) -> Array:
        pattern = part.ids % num_patterns
        skip = without_cone(program, pattern)
        # What has no cone is inside; the first one stands in.
        where = pattern if skip is None else jnp.where(skip, 0, pattern)
        signs = cone_signs(masks, where, part.weights.dtype)
        moved = pushed_inside(rows, signs, part.weights, witnesses[where])
        return moved if skip is None else jnp.where(skip[:, None], part.weights, moved)

    weights = in_chunks(some, blocks, chunk_size(masks.shape[0]))
    return blocks._replace(weights=weights)


def fit_of(program: Program, blocks: Blocks) -> tuple[Array, Array]:
    """The fit (n,) of some blocks, and how far it may be off in units of roundoff, (n,)."""
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    sign, num_patterns = block_signs(program), masks.shape[1]
    (n, d), total = X.shape, sign.shape[0]

    def some(part: Blocks, real: Array) -> Array:
        used = real & (part.ids < total)
        block = jnp.where(used, part.ids, 0)
        chosen = masks.T[block % num_patterns].astype(X.dtype)
        signed = jnp.where(used, sign[block], 0.0)[:, None] * chosen
        features, sizes = product(part.weights, X.T), matmul(jnp.abs(part.weights), jnp.abs(X).T)
        return jnp.stack([added((signed * features).T), added((jnp.abs(signed) * sizes).T)])

    found = sum_in_chunks(some, blocks, chunk_size(n))
    chunks = -(-blocks.ids.shape[0] // chunk_size(n))
    count = jnp.sum(jnp.any(blocks.weights != 0, axis=1)).astype(X.dtype)
    # Zeros that are added do not round.
    most = sum_roundings(min(blocks.ids.shape[0], chunk_size(n)), X.dtype) + chunks
    times = sum_roundings(d, X.dtype) + jnp.minimum(count, most)
    return found[0], times * found[1]


def upper_value(program: Program, lam: Array, blocks: Blocks) -> tuple[Value, Array]:
    """The objective at blocks that are inside, rounded up; and their fit."""
    fit, off = fit_of(program, blocks)
    size, roundings = sizes(program, blocks.weights, blocks.ids), blocks.weights.shape[1]
    if program.block_weights is not None:
        roundings += 1
    return objective_at(program, lam, fit, off, size, roundings), fit


def objective_at(
    program: Program, lam: Array, fit: Array, off: Array, size: Array, roundings: float
) -> Value:
    """loss(fit) + lam sum of sizes, rounded up.

    Args:
        program: in units.
        lam: scalar.
        fit: (n,).
        off: (n,), how far it may be off in units of roundoff.
        size: (k,), of blocks or neurons.
        roundings: how often each size was rounded.
    """
    loss, y, weight = program.loss, jnp.asarray(program.y), sample_weights(program)
    unit, n = roundoff(fit.dtype), fit.shape[0]
    off = unit * off
    # A sample of weight zero may have no target.
    values = _present(weight, loss.value(fit, y))
    wrong = rise_within(loss, fit, off, y) + eps(fit.dtype) * value_error(loss, fit, y)
    terms = weight * values
    penalty = lam * added(size)
    of_penalty = roundings + sum_roundings(size.shape[0], fit.dtype) + 8.0
    of_loss = sum_roundings(n, fit.dtype) + 4.0
    rounding = added(_present(weight, weight * wrong)) * (1.0 + unit * of_loss) + unit * (
        of_loss * added(jnp.abs(terms)) + of_penalty * penalty
    )
    value = added(terms) + penalty
    rounding = rounding + 2 * unit * jnp.abs(value)
    return Value(upward(value, rounding), rounding)


def _present(weight: Array, values: Array) -> Array:
    return jnp.where(weight == 0, 0.0, values)


def correlation_rounding(program: Program, residual: Array) -> Array:
    """How far rounding may carry the norm of any block's raw correlation at a residual (n,).

    One bound for all blocks: those of both signs of a pattern, and of fewer samples.
    """
    X, size = jnp.asarray(program.X), jnp.abs(residual)
    times = sum_roundings(X.shape[0], X.dtype)
    reach = safe_norm(added((jnp.abs(X) * size[:, None]).T))
    return roundoff(X.dtype) * (times + 4.0) * reach * (1.0 + roundoff(X.dtype) * times)


class CorrelationBound(NamedTuple):
    """An upper bound of max_b ||q_b|| / w_b at a residual, and the part of it that is rounding.

    Blocks of weight zero are left out of it: `free` is one of max_b ||q_b|| over those that have a
    cone. `slip` is how far leaving the row space may carry the norm of any.
    """

    bound: Array
    rounding: Array
    free: Array
    slip: Array


def correlation_bound(
    program: Program, residual: Array, duals: DualElements, space: Coordinates | None = None
) -> CorrelationBound:
    """max_b ||c_b + t_b v_b|| / w_b for elements v_b of the dual cones, rounded up.

    With a free bias, of polar sizes (`jaxrelu.geometry.bias_metric`).

    Args:
        program: in units; as solvers see it where `space` is given.
        residual: (n,).
        duals: of all blocks, zeros where nothing is known (and without cones).
        space: how that belongs to the features; the bound is that of the features.

    Returns:
        `CorrelationBound`.
    """
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    (n, d), p, dtype = X.shape, masks.shape[1], X.dtype
    unit, times = roundoff(dtype), sum_roundings(n, dtype)
    rounding = correlation_rounding(program, residual)
    signs = (1.0, -1.0) if program.has_cones else (1.0,)
    reach = reach_of(X) if has_bias(program) else None
    most = most_in_polar_size(reach)
    rounding = most * rounding

    def some(part: tuple[Array, DualElements, Array]) -> Array:
        some_masks, some_duals, pattern = part
        c = product(some_masks.astype(dtype) * residual[None], X)
        c = seen(program, pattern, c)
        bounds = []
        for k, sign in enumerate(signs):
            vectors, mass = some_duals.vectors[:, k], some_duals.mass[:, k]
            t = best_multiple(sign * c, vectors, reach)
            moved = t[:, None] * vectors
            bound = safe_polar_size(sign * c + moved, reach)
            off = t * mass * (times + 8.0) + 2.0 * safe_norm(moved)
            if space is not None:
                bound = bound * (1.0 + space.stretch)
                off = off + t * mass * space.slip / unit
            # Where no element is known there is nothing to be off, whatever t is.
            off = jnp.where(mass == 0, 0.0, most * off)
            bound = bound * (1.0 + unit * (d + 4.0))
            bounds.append(bound + unit * off)
        return jnp.stack(bounds, axis=1)

    # (2p, d) by pattern: both signs of it share a mask.
    by_pattern = jax.tree.map(
        lambda a: jnp.moveaxis(a.reshape(len(signs), p, *a.shape[1:]), 0, 1), duals
    )
    patterns = jnp.arange(p, dtype=jnp.int32)
    found = in_chunks(some, (masks.T, by_pattern, patterns), chunk_size(n))
    slip = jnp.zeros((), dtype)
    if space is not None:
        reached = added(jnp.abs(residual) * safe_norm(X)) * (1.0 + unit * times)
        slip = most * space.slip * reached * (1.0 + space.stretch)
        rounding = rounding + slip
    weight = block_weights(program)
    if weight is None:
        largest = upward(jnp.max(found, initial=0.0), rounding)
        return CorrelationBound(largest, rounding, jnp.zeros_like(largest), slip)
    confined = (weight == 0) & has_cone(program)
    free = upward(jnp.max(found.T.reshape(-1), initial=0.0, where=confined), rounding)
    free = jnp.where(jnp.any(confined), free, 0.0)
    weight = jnp.where(weight == 0, jnp.inf, weight)
    # A quotient rounds once more.
    each = upward(found.T.reshape(-1), rounding) * (1.0 + 4.0 * unit) / weight
    worst = jnp.argmax(each)
    return CorrelationBound(each[worst], rounding / weight[worst], free, slip)


def lower_bound(
    program: Program,
    lam: Array,
    residual: Array,
    bound: CorrelationBound,
    upper: Array,
    fit: Array,
    reduced: Program | None = None,
) -> tuple[Value, Array]:
    """A lower bound of the optimum from a residual, and its dual vector over the residual, t.

    Args:
        program: in units.
        lam: scalar.
        residual: (n,).
        bound: its `correlation_bound`.
        upper: scalar, the objective at some weights.
        fit: (n,), of these.
        reduced: the program in its row space; where it is not given, the program itself.
    """
    value, t = lower_value(program, lam, residual, bound.bound)
    if program.block_weights is None:
        return value, t
    inner = program if reduced is None else reduced
    dual = t * residual
    left = Violation(t * bound.free, t * bound.slip)
    lost = unpenalised_loss(inner, lam, dual, value.value, left, upper, fit)
    return Value(value.value - lost, value.rounding), t


def lower_value(program: Program, lam: Array, residual: Array, bound: Array) -> tuple[Value, Array]:
    """The dual value of the best feasible multiple t r of a residual, rounded down; and that t.

    `bound` is at least max_b ||q_b|| / w_b at the residual, its rounding included
    (`correlation_bound`). Blocks of weight zero are not looked at: `lower_bound` does.
    """
    loss, y, weight = program.loss, jnp.asarray(program.y), sample_weights(program)
    unit, n = roundoff(residual.dtype), residual.shape[0]
    t = best_share(program, lam, residual, bound * (1.0 + unit * 8.0))
    if has_kinks(loss):
        # Many samples are at an end of the domain: inside it, too, before shares are rounded.
        t = t * (1.0 - 8.0 * eps(residual.dtype))
    dual = t * residual
    absent = weight == 0
    share = -dual / jnp.where(absent, 1.0, weight)
    terms = jnp.where(absent, _indicator(dual), -weight * loss.conjugate(share, y))
    # A division by a weight that is not one rounds what the conjugate is taken of.
    wrong = jnp.where(absent, 0.0, weight * conjugate_error(loss, share, y))
    times = sum_roundings(n, residual.dtype) + 4.0
    wrong = eps(residual.dtype) * added(wrong) * (1.0 + unit * times)
    rounding = wrong + unit * times * added(jnp.abs(terms))
    return Value(downward(added(terms), rounding), rounding), t


def _indicator(dual: Array) -> Array:
    return jnp.where(dual == 0, 0.0, jnp.where(jnp.isnan(dual), dual, -jnp.inf))


def dual_value(program: Program, dual: Array) -> Array:
    """-sum_i c_i loss*(-dual_i / c_i), the dual objective at a dual vector (n,), as computed."""
    return -total_conjugate(program.loss, -dual, jnp.asarray(program.y), sample_weights(program))


def best_share(program: Program, lam: Array, residual: Array, bound: Array) -> Array:
    """The t with 0 <= t <= lam / bound of the multiple t r with the best dual value."""
    return best_multiplier(lambda t: dual_value(program, t * residual), lam, bound)


def best_multiplier(value: Callable[[Array], Array], lam: Array, bound: Array) -> Array:
    """The t with 0 <= t <= lam / bound of the largest value, which is concave in t.

    A fixed search on a grid that is refined twice finds the best t for any loss, and
    min(1, lam / bound) is always among the candidates.
    """
    # Far below the bound any multiple is feasible; twice the residual is then enough.
    # A bound that is NaN allows none.
    largest = jnp.where(bound <= 0.5 * lam, 2.0, lam / jnp.where(bound == 0, 1.0, bound))
    grid = jnp.linspace(0.0, 1.0, 17, dtype=bound.dtype)

    def values(t: Array) -> Array:
        v = jax.vmap(value)(t)
        return jnp.where(jnp.isnan(v), -jnp.inf, v)

    whole = jnp.minimum(1.0, largest)
    # The residual itself may lie on the edge of the conjugate's domain, or outside by rounding.
    always = jnp.stack([whole, whole * (1.0 - 8 * eps(bound.dtype))])

    def refined(_: Any, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, _ = found
        points = low + (high - low) * grid
        candidates = jnp.concatenate([always, points])
        value = values(candidates)
        best = jnp.argmax(value[2:])
        nearest = points[jnp.maximum(best - 1, 0)], points[jnp.minimum(best + 1, 16)]
        return *nearest, candidates[jnp.argmax(value)]

    start = jnp.zeros_like(largest), largest, jnp.zeros_like(largest)
    return jax.lax.fori_loop(0, 2, refined, start)[2]  # type: ignore[no-any-return]
