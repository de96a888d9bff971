r"""The derivative of the optimal value where that of its weights is not known.

That is where the loss has kinks, and with a free bias. With copies g of the fits the program is
min over theta and g of sum_i c_i l(g_i, y_i) + lam sum_b ||theta_b||, g = f, K theta >= 0; the
value changes as its Lagrangian does (envelope theorem),

    sum_i c_i l(g_i, y_i) + r . (g - f) + lam sum_b w_b ||theta_b|| - sum_b mu_b . K_b theta_b,

with the residual r of the answer and multipliers mu_b of one projection each. A copy at a kink
moves with it: there the derivative by the target is r. With a free bias ||theta_b|| is that of u
alone, projections are those of `jaxrelu.geometry.bias_metric` over centred features, and a block
that is active on all samples has no walls: those are the constant's.

Reference: Bonnans and Shapiro (2000), Section 4.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.derivatives import known_where
from jaxrelu.core.numerics import matmul, safe_norm
from jaxrelu.geometry.bias_metric import sized
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import block_patterns, cone_signs
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.augmented import Augmented
from jaxrelu.losses.base import total
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.programs.bias import BiasProgram, centred, has_bias
from jaxrelu.programs.penalties import sizes
from jaxrelu.programs.program import Program, block_signs, float_masks, sample_weights
from jaxrelu.programs.skip import without_cone
from jaxrelu.programs.solution import Solution

# A gap of an answer, relative, at which its dual vector is near enough.
_CLOSED = 1e-5


def value_alone(program: Program, solution: Solution, change: Any, slots: int) -> Array:
    """The derivative of the optimum along a change of the parameters.

    Args:
        program: `extended`.
        solution: its answer, whose weights are all blocks of that.
        change: tangents of X, y, sample_weight, loss, lam, block_weights.
        slots: room for blocks that are not zero.

    Returns:
        Scalar; NaN where the answer is far from the optimum, or has more blocks.
    """
    X, masks = jnp.asarray(program.X), float_masks(program)
    flat = solution.weights.reshape(-1, X.shape[1])
    lengths, norms = safe_norm(flat), safe_norm(sized(flat, has_bias(program)))
    size, blocks = jax.lax.top_k(lengths, min(slots, len(flat)))
    theta, pattern = flat[blocks], block_patterns(program.block_shape)[blocks]
    signed = block_signs(program)[blocks][:, None] * masks.T[pattern]
    dX, residual = jnp.asarray(change.X), solution.residual
    features = jnp.sum(signed * matmul(theta, dX.T), axis=0)
    walls = jnp.zeros((), X.dtype)
    if program.has_cones:
        inner: Program = program
        if isinstance(program, BiasProgram):
            inner, _ = centred(program)
        features_of_cones = jnp.asarray(inner.X)
        rows = shared_rows(features_of_cones, has_bias(program))
        free = without_cone(inner, pattern)
        signs = cone_signs(jnp.asarray(program.patterns.masks), pattern, X.dtype)
        if free is not None:
            signs = jnp.where(free[:, None], 0.0, signs)
        c = matmul(signed * residual[None], features_of_cones)
        mu = project(rows, signs, jnp.where((size > 0)[:, None], c, 0.0)).multipliers
        slid = signs * matmul(theta, dX.T) / jnp.where(rows.length > 0, rows.length, 1.0)[None]
        walls = jnp.sum(mu * slid)
    weight = sample_weights(program)
    share = residual / jnp.where(weight > 0, weight, 1.0)
    fit = solution.fit

    def loss_at(y: Any, given: Any, loss: Any) -> Array:
        c = weight if given is None else jnp.asarray(given)
        copied = Augmented(loss, share, jnp.ones((), fit.dtype)) if has_kinks(loss) else loss
        return total(copied, fit, jnp.asarray(y), c)

    point = (program.y, program.sample_weight, program.loss)
    by_data = jax.jvp(loss_at, point, (change.y, change.sample_weight, change.loss))[1]
    by_weights: Any = 0.0
    if program.block_weights is not None:
        moved = jnp.asarray(change.block_weights).reshape(-1)
        by_weights = solution.lam * jnp.sum(jnp.where(norms > 0, moved, 0.0) * norms)
    by_lam = change.lam * jnp.sum(sizes(program, flat))
    value = by_data - jnp.sum(residual * features) - walls + by_lam + by_weights
    bounds = solution.certificate
    known = bounds.gap <= _CLOSED * jnp.abs(bounds.upper)
    known = known & (jnp.sum(lengths > 0) <= len(blocks))
    return known_where(known, value)
