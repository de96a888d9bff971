r"""The penalty sum_b w_b ||theta_b||_2: its value, its proximal operator, and the way past w.

With theta'_b = w_b theta_b the penalty is sum_b ||theta'_b|| and the fit
sum_b (s_b / w_b) D_b X theta'_b, cones are what they were, and the conditions of optimality read
||q_b|| / w_b <= lam. So solvers work on theta' and on the `block_factors` s_b / w_b in place of the
signs; a weight of inf makes a factor of zero, and nothing ever enters.

Blocks of weight zero are not penalised: their theta' is theta, the norms that solvers see have the
vanishing share `VANISHING` of lam, and they hold a slot whatever their correlation is. What that
means for bounds is in `jaxrelu.programs.unpenalised`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrelu.core.numerics import matmul, safe_norm, weighted
from jaxrelu.geometry.bias_metric import sized
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.programs.bias import has_bias
from jaxrelu.programs.program import Program, block_signs, float_masks, raw_correlations
from jaxrelu.programs.skip import columns_of

# Of lam, for blocks that are not penalised: of all their optimal weights the shortest are near.
VANISHING = 2.0**-40


def block_soft_threshold(points: Array, threshold: ArrayLike) -> Array:
    """Proximal operator of the group norm, one block a row.

    prox(v) = argmin_u 1/2 ||u - v||^2 + t ||u||_2 = max(0, 1 - t / ||v||) v

    The proximal operator of t ||.|| plus the indicator of a convex cone is this map after the
    Euclidean projection onto the cone.

    Args:
        points: array (..., d), floating; one block a row.
        threshold: t >= 0, a scalar or an array (...), one value a block.

    Returns:
        Array (..., d), the shrunk blocks. Derivatives are finite everywhere: zero inside the ball
        ||v|| <= t, and the identity for t = 0. NaN in a block or in its threshold gives NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.programs.penalties import block_soft_threshold
        >>> block_soft_threshold(jnp.asarray([[3.0, 4.0], [0.3, 0.4]]), 2.5).tolist()
        [[1.5, 2.0], [0.0, 0.0]]

    Reference:
        Yu, "On decomposing the proximal map", NeurIPS 2013 (norm after cone).
    """
    threshold = jnp.asarray(threshold, dtype=points.dtype)
    threshold = jnp.broadcast_to(threshold, points.shape[:-1])[..., None]
    norm = safe_norm(points, keepdims=True)
    # Both comparisons are false for NaN, which therefore reaches the quotient.
    inside = (norm <= threshold) & (threshold > 0)
    divisor = jnp.where(inside | (norm == 0), 1.0, norm)
    return jnp.where(inside, 0.0, 1.0 - threshold / divisor) * points


def block_weights(program: Program) -> Array | None:
    """The weights w of the blocks in flat order, (2p,) or (p,); None if none were given.

    Traced negative weights cannot raise: they become NaN, so that no answer comes out OPTIMAL.
    """
    if program.block_weights is None:
        return None
    weight = jnp.asarray(program.block_weights).reshape(-1)
    return jnp.where(weight < 0, jnp.nan, weight)


def sizes(program: Program, flat: Array, blocks: Array | None = None) -> Array:
    """w_b ||theta_b|| of blocks in rows, with inf x 0 = 0 in values and derivatives.

    Args:
        program: whose weights count.
        flat: (k, d), weights of blocks; a free bias does not count.
        blocks: (k,), which they are; None for all. One that the program has not counts nothing.
    """
    norm, weight = safe_norm(sized(flat, has_bias(program))), block_weights(program)
    if weight is None:
        return norm
    if blocks is not None:
        weight = weight.at[blocks].get(mode="fill", fill_value=0.0)
    return weighted(weight, norm)


def weighing(program: Program) -> Array:
    """(b,), what correlations are divided by to be held against lam.

    It is the weight of a block, and the largest finite one for a block of weight zero.
    """
    weight = block_weights(program)
    if weight is None:
        return jnp.ones_like(block_signs(program))
    some = jnp.max(jnp.where(jnp.isfinite(weight), weight, 0.0), initial=0.0)
    return jnp.where(weight == 0, some, weight)


def weighed_correlations(program: Program, residual: Array, free: float = 0.0) -> Array:
    """Raw correlations over the weights of their blocks, (b, d): their projections meet lam.

    Blocks of infinite weight have none, and those of weight zero `free` times their own.
    """
    if program.block_weights is None:
        g = raw_correlations(program, residual)
        return g.reshape(-1, g.shape[-1])
    pattern = block_patterns(program.block_shape)
    # Both signs share their products.
    g = matmul((float_masks(program) * residual[:, None]).T, jnp.asarray(program.X))
    return seen(program, pattern, bounded_factors(program, free)[:, None] * g[pattern])


def seen(program: Program, pattern: Array, rows: Array) -> Array:
    """Rows (k, d) of blocks of some patterns, zero in features that these do not see."""
    columns = columns_of(program, pattern)
    return rows if columns is None else jnp.where(columns, rows, 0.0)


def bounded_factors(program: Program, free: float = 0.0) -> Array:
    """s_b / w_b in flat order, and s_b times `free` for blocks of weight zero."""
    weight, sign = block_weights(program), block_signs(program)
    if weight is None:
        return sign
    unbounded = weight == 0
    return sign * jnp.where(unbounded, free, 1.0 / jnp.where(unbounded, 1.0, weight))


def working_weights(program: Program) -> Array | None:
    """What takes theta to theta', (b,): the weights, and one for those of zero."""
    weight = block_weights(program)
    return None if weight is None else jnp.where(weight == 0, 1.0, weight)


def block_factors(program: Program) -> Array:
    """s_b / w_b in flat order, what theta' is multiplied by in the fit."""
    weight, sign = working_weights(program), block_signs(program)
    return sign if weight is None else sign / weight


def is_free(program: Program) -> Array | None:
    """(b,) bool, the blocks that are not penalised; None where there are no weights."""
    weight = block_weights(program)
    return None if weight is None else weight == 0


def norm_shares(program: Program, blocks: Array) -> Array:
    """What of lam the norms of blocks (k,) are penalised by: one, or `VANISHING` if they are free.

    A scalar one where no block has a weight.
    """
    free = is_free(program)
    if free is None:
        return jnp.ones((), program.X.dtype)
    own = free.at[blocks].get(mode="fill", fill_value=False)
    return jnp.where(own, VANISHING, 1.0).astype(program.X.dtype)


def weighed(program: Program, flat: Array) -> Array:
    """Weights theta (b, d) as theta'; zero where a weight is infinite."""
    weight = working_weights(program)
    if weight is None:
        return flat
    return jnp.where((weight == jnp.inf)[:, None], 0.0, weight[:, None] * flat)


def unweighed(program: Program, rows: Array, blocks: Array) -> Array:
    """Theta' of some blocks (k,), in rows (k, d), as weights theta."""
    weight = working_weights(program)
    if weight is None:
        return rows
    return rows / weight.at[blocks].get(mode="fill", fill_value=1.0)[:, None]
