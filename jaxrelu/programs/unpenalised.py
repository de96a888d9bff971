r"""Blocks that are not penalised: what their equalities cost a lower bound.

For any r that is a feasible dual vector of the penalised blocks, Fenchel's inequality leaves

    objective  >=  D(r) - sum_{b free} <q_b(r), theta_b>  >=  D(r) - v sum_{b free} ||theta_b||

with v = max_{b free} ||q_b(r)||. Scaling reaches v = 0 only at r = 0, and rounding never meets it;
so what is left is charged, with a bound B of sum_{b free} ||theta_b|| over all theta whose
objective is at most a known value U. With L_i(f) = c_i (l(f) + l*(-r_i / c_i)) + r_i f >= 0, a
sample's part of the distance between loss and dual value, all of them have

    sum_i L_i(f_i)  <=  U - D(r) + v B  <=  G,

so |f_i - g_i| <= rho_i, for any fit g with L_i(g_i) <= G, where L_i exceeds G at g_i +- rho_i. (And
where it exceeds U - D(0) for r = 0: a loss that is linear far away, as Huber's, is bounded by its
own size.) The loss is convex, so that its penalty is at most

    lam sum_b w_b ||theta_b||  <=  U - loss(g) + sum_i |loss'(g)_i| rho_i  =:  lam T.

Let e_i = |g_i| + rho_i, and Omega the diagonal of min(1, tau / e_i) for a usual size tau of them.
With A the features D_j X of the free patterns side by side, and u the difference of the free
weights of both signs (columns of zeros left out),

    sigma_min(Omega A) ||u||  <=  || min(e, tau) || + || Omega X || T / min_b w_b.

Where only one sign of a pattern is free, u is its weight; where both are, each of them is at most
1 / m times as long as u and longer, m the margin of the pattern's witness, in the shortest pair.
There is no bound where the features of free blocks depend on each other, where samples without a
residual leave them free (labels that they separate), or of more than `MOST` free patterns; then B
is infinite and so is the loss.

Reference: Fenchel duality; Ndiaye et al. (JMLR 2017) for balls around a solution from its gap.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, matmul, safe_norm
from jaxrelu.core.rounding import roundoff, sum_roundings
from jaxrelu.geometry.cones import cone_signs, margins
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.base import total, total_conjugate, total_gradient
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.program import Program, sample_weights

# Free patterns up to which there is a bound: all of them make one system.
MOST = 4
# What is allowed for v B in G, in units of U; the least that is enough is the best.
_ALLOWED = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
# Distances that are tried: powers of four, these many from this one on.
_NEAREST, _TRIALS = -24, 64
# Samples count in full up to so many times the usual size.
_USUAL = 4.0


def unpenalised_loss(
    program: Program,
    lam: Array,
    dual: Array,
    lower: Array,
    violation: Array,
    upper: Array,
    fit: Array,
) -> Array:
    """What a dual value has to be lowered by for the blocks of weight zero; zero without any.

    Args:
        program: in units, with block weights.
        lam: scalar.
        dual: (n,), r.
        lower: scalar, at most D(r).
        violation: scalar, v.
        upper: scalar, U: the objective at some weights.
        fit: (n,), g, of those.

    Returns:
        Scalar, infinite where there is no bound.
    """
    weight = block_weights(program)
    assert weight is not None
    free = (weight == 0).reshape(-1, program.patterns.masks.shape[1])
    nothing = jnp.zeros_like(dual)
    lowest = -total_conjugate(
        program.loss, nothing, jnp.asarray(program.y), sample_weights(program)
    )
    level = upper - lowest + 1e-3 * jnp.abs(upper)
    at_most = distances(program, nothing, level, fit)

    def cost(share: Array) -> Array:
        allowed = share * jnp.abs(upper)
        away = jnp.minimum(at_most, distances(program, dual, upper - lower + allowed, fit))
        most = _most(program, lam, away, upper, fit, free)
        found = violation * most
        # The bound holds if it was allowed for.
        return jnp.where(found <= allowed, found, jnp.inf)

    costs = jax.lax.map(cost, jnp.asarray(_ALLOWED, fit.dtype))
    return jnp.where(jnp.any(free), jnp.min(costs), 0.0)


def _most(
    program: Program, lam: Array, away: Array, upper: Array, fit: Array, free: Array
) -> Array:
    """B of the module's docstring, from rho = `away` (n,)."""
    X, y, dtype = jnp.asarray(program.X), jnp.asarray(program.y), program.X.dtype
    weight, given = sample_weights(program), block_weights(program)
    assert given is not None
    reach = jnp.abs(fit) + away
    usual = _USUAL * jnp.median(reach)
    usual = jnp.where(jnp.isfinite(usual), usual, _USUAL * jnp.min(reach))
    omega = jnp.minimum(1.0, usual / jnp.where(reach > 0, reach, 1.0))
    omega = jnp.where(reach == 0, 1.0, omega)

    # Samples that may be anywhere have no say in how much is left for the penalty.
    slope = jnp.abs(total_gradient(program.loss, fit, y, weight))
    change = jnp.sum(jnp.where(slope == 0, 0.0, slope * away))
    left = jnp.minimum(upper - total(program.loss, fit, y, weight) + change, upper)
    lightest = jnp.min(jnp.where(given == 0, jnp.inf, given), initial=jnp.inf)
    of_penalised = largest_singular(omega[:, None] * X) * left / (lam * lightest)
    of_fit = safe_norm(jnp.minimum(reach, usual)[None])[0]

    few, sigma = free_patterns(free), smallest_of_free(program, omega, free)
    longer = jnp.ones((), dtype)
    if program.has_cones:
        witnesses = jnp.asarray(program.patterns.interior).T[few.chosen]
        signs = cone_signs(jnp.asarray(program.patterns.masks), few.chosen, dtype)
        margin = margins(shared_rows(X), signs, witnesses)
        margin = margin / safe_norm(witnesses) - 8.0 * X.shape[1] * eps(dtype)
        each = jnp.where(margin > 0, 1.0 + 2.0 / jnp.where(margin > 0, margin, 1.0), jnp.inf)
        longer = jnp.max(jnp.where(few.pair, each, 1.0))
    size = jnp.sqrt(jnp.sum(few.used).astype(dtype)) * longer * (of_fit + of_penalised)
    # Roundings of all that, with room to spare.
    size = 1.1 * size / jnp.where(sigma > 0, sigma, 1.0)
    return jnp.where((sigma > 0) & (size >= 0), size, jnp.inf)


class FreePatterns(NamedTuple):
    """Patterns that hold blocks without a penalty: which (k,), whether one is, and a pair."""

    chosen: Array
    used: Array
    pair: Array


def free_patterns(free: Array) -> FreePatterns:
    """The free patterns, `MOST` at most, of flags (signs, p)."""
    few = min(MOST, free.shape[1])
    there, chosen = jax.lax.top_k(jnp.any(free, axis=0).astype(jnp.int32), few)
    pair = jnp.all(free, axis=0)[chosen] & (len(free) > 1)
    return FreePatterns(chosen, there > 0, pair)


def smallest_of_free(program: Program, omega: Array, free: Array) -> Array:
    """The least singular value of diag(omega) A, A the features of the free patterns, or less.

    Zero where there are more patterns than `MOST`, or none can be told from zero.
    """
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    (n, d), dtype, few = X.shape, X.dtype, free_patterns(free)
    features = (masks.T[few.chosen].astype(dtype) * omega[None])[:, :, None] * X[None]
    A = features.transpose(1, 0, 2).reshape(n, -1)
    gram = matmul(A.T, A)
    # A column of zeros computes nothing, and has no weight in the shortest of all.
    absent = jnp.repeat(~few.used, d) | (jnp.diagonal(gram) == 0)
    gram = jnp.where(absent[:, None] | absent[None], 0.0, gram)
    trace = jnp.trace(gram)
    gram = gram + jnp.diag(jnp.where(absent, trace, 0.0))
    # Roundings of the products and of the eigenvalues.
    lost = 2.0 * roundoff(dtype) * (sum_roundings(n, dtype) + 16.0 * len(gram)) * trace
    smallest = jnp.maximum(jnp.linalg.eigvalsh(gram)[0] - lost, 0.0)
    known = jnp.sum(jnp.any(free, axis=0)) <= len(few.chosen)
    return jnp.where(known, jnp.sqrt(smallest), 0.0)


def largest_singular(X: Array) -> Array:
    """At least the largest singular value."""
    gram = matmul(X.T, X) if X.shape[1] <= X.shape[0] else matmul(X, X.T)
    return jnp.sqrt(jnp.max(jnp.linalg.eigvalsh(gram), initial=0.0)) * (1.0 + 1e-2)


def distances(program: Program, dual: Array, allowed: Array, fit: Array) -> Array:
    """Rho of the module's docstring, (n,); infinite where there is none.

    That is, too, where g = `fit` has L_i(g_i) > G, and is no point to measure from.
    """
    loss, y, weight = program.loss, jnp.asarray(program.y), sample_weights(program)
    counts = weight > 0
    share = -dual / jnp.where(counts, weight, 1.0)
    conjugate = loss.conjugate(share, y)

    def part(f: Array, side: float) -> Array:
        """L (n,), rounded to a side."""
        value = loss.value(f, y)
        size = weight * (jnp.abs(value) + jnp.abs(conjugate)) + jnp.abs(dual * f)
        return weight * (value + conjugate) + dual * f + side * 256.0 * eps(f.dtype) * size

    # Where the fit itself exceeds it, what does not may lie on one side of both ends.
    within = part(fit, 1.0) <= allowed

    def enough(distance: Array) -> Array:
        # Infinite minus infinite is no number, and is not enough.
        ends = part(fit + distance, -1.0), part(fit - distance, -1.0)
        return (ends[0] > allowed) & (ends[1] > allowed) & counts & within

    scale = jnp.max(jnp.abs(fit), initial=0.0) + 1.0

    def nearer(k: Array, found: Array) -> Array:
        distance = scale * jnp.asarray(4.0, fit.dtype) ** (_NEAREST + _TRIALS - 1 - k)
        return jnp.where(enough(distance), jnp.minimum(found, distance), found)

    return jax.lax.fori_loop(0, _TRIALS, nearer, jnp.full_like(fit, jnp.inf))
