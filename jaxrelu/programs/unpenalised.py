r"""Blocks that are not penalised: what their equalities cost a lower bound.

For any r that is a feasible dual vector of the penalised blocks, Fenchel's inequality leaves

    objective  >=  D(r) - sum_{b free} <q_b(r), theta_b>  >=  D(r) - v B - |<z, u>|

with v = max ||q_b(r)|| and B >= sum ||theta_b|| over those with a cone, and z the correlations of
the others side by side (q_b = c_b is linear there). Scaling reaches zero only at r = 0, and
rounding never meets it; so what is left is charged, with bounds over all theta whose objective is
at most a known value U. With L_i(f) = c_i (l(f) + l*(-r_i / c_i)) + r_i f >= 0, a sample's part of
the distance between loss and dual value, all of them have

    sum_i L_i(f_i)  <=  U - D(r) + v B + |<z, u>|  <=  G,

so |f_i - g_i| <= rho_i, for any fit g with L_i(g_i) <= G, where L_i exceeds G at g_i +- rho_i; or
exceeds U - D(0) for r = 0: a loss that is linear far away, as Huber's, is bounded by its own size,
and that of a label that is missed (r at an end of its domain) on one side by each. The loss is
convex, so that the penalty is at most

    lam sum_b w_b ||theta_b||  <=  U - loss(g) + sum_i |loss'(g)_i| rho_i  =:  lam T.

Let e_i = |g_i| + rho_i, and Omega the diagonal of min(1, tau / e_i) for a usual size tau of them.
With A the features D_j X of the free patterns side by side (columns of zeros left out), u the
difference of the free weights of both signs, and M = A^T Omega^2 A,

    sigma_min(Omega A) ||u||  <=  ||Omega A u||  <=  S,   |<z, u>|  <=  ||M^(-1/2) z|| S,
    S = || min(e, tau) || + || Omega X || T / min_b w_b

(with a free bias 1 + reach times as much, for |b| <= reach ||u|| there);

the rounding of z, which may point anywhere, costs its norm over sigma_min. Where only one sign of a
pattern is free, u is its weight; where both are, each of them is at most 1 / m times as long as u
and longer, m the margin of the pattern's witness, in the shortest pair. There is no bound where the
features of free blocks depend on each other, where samples without a residual leave them free
(labels that they separate), or of more than `MOST` free patterns; then the loss is infinite.

Reference: Fenchel duality; Ndiaye et al. (JMLR 2017) for balls around a solution from its gap.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, matmul, safe_norm
from jaxrelu.core.rounding import accurate_product, roundoff, sum_roundings
from jaxrelu.geometry.bias_metric import reach_of
from jaxrelu.geometry.cones import cone_signs, margins
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.base import total, total_conjugate, total_gradient
from jaxrelu.programs.bias import has_bias
from jaxrelu.programs.constants import constant_loss, has_constant_alone
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.program import Program, sample_weights
from jaxrelu.programs.skip import columns_of, has_cone

# Free patterns up to which there is a bound: all of them make one system.
MOST = 4
# What is allowed for v B in G, in units of U; the least that is enough is the best.
_ALLOWED = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
# Distances that are tried: powers of four, these many from this one on.
_NEAREST, _TRIALS = -24, 64
# Samples count in full up to so many times the usual size.
_USUAL = 4.0


class Violation(NamedTuple):
    """What a dual vector leaves of the equalities, apart from z, which it says itself.

    Attributes:
        confined: scalar, v: the largest ||q_b|| of free blocks with a cone, or more.
        slip: scalar, how far leaving the row space may carry the norm of any correlation.
    """

    confined: Array
    slip: Array


def unpenalised_loss(
    program: Program,
    lam: Array,
    dual: Array,
    lower: Array,
    violation: Violation,
    upper: Array,
    fit: Array,
) -> Array:
    """What a dual value has to be lowered by for the blocks of weight zero; zero without any.

    Args:
        program: in units, with block weights.
        lam: scalar.
        dual: (n,), r.
        lower: scalar, at most D(r).
        violation: of r.
        upper: scalar, U: the objective at some weights.
        fit: (n,), g, of those.

    Returns:
        Scalar, infinite where there is no bound.
    """
    if has_constant_alone(program):
        return constant_loss(program, lam, dual, upper)
    weight = block_weights(program)
    assert weight is not None
    free = (weight == 0).reshape(-1, program.patterns.masks.shape[1])

    def charged() -> Array:
        features = free_features(program, free)
        open_ones = jnp.repeat(features.open, program.X.shape[1])
        z, off = accurate_product(dual, features.columns)
        z, off = jnp.where(open_ones, z, 0.0), jnp.where(open_ones, off, 0.0)
        slip = jnp.sqrt(jnp.sum(features.open).astype(z.dtype)) * violation.slip
        off = safe_norm(off) + slip
        nothing = jnp.zeros_like(dual)
        y = jnp.asarray(program.y)
        lowest = -total_conjugate(program.loss, nothing, y, sample_weights(program))
        level = upper - lowest + 1e-3 * jnp.abs(upper)
        at_most = distances_by_side(program, nothing, level, fit)

        def cost(share: Array) -> Array:
            allowed = share * jnp.abs(upper)
            own = distances_by_side(program, dual, upper - lower + allowed, fit)
            away = jnp.max(jnp.minimum(at_most, own), axis=0)
            omega, reach = _weighing(fit, away)
            moved = _reach_of_free(program, lam, away, upper, fit, omega, reach)
            system = free_system(features, omega)
            along = safe_norm(
                (jnp.abs(matmul(system.vectors.T, z)) + system.off * safe_norm(z))
                / jnp.sqrt(jnp.where(system.values > 0, system.values, 1.0))
            )
            sigma = jnp.sqrt(jnp.where(system.smallest > 0, system.smallest, 1.0))
            confined = violation.confined * _longer(program, features) / sigma
            # Roundings of all that, with room to spare.
            found = 1.1 * moved * (along + off / sigma + confined)
            # The bound holds if it was allowed for.
            return jnp.where((found <= allowed) & (system.smallest > 0), found, jnp.inf)

        return jnp.min(jax.lax.map(cost, jnp.asarray(_ALLOWED, fit.dtype)))

    lost: Array = jax.lax.cond(jnp.any(free), charged, lambda: jnp.zeros((), dual.dtype))
    return lost


def _weighing(fit: Array, away: Array) -> tuple[Array, Array]:
    """Omega and min(e, tau), both (n,), from rho = `away`."""
    reach = jnp.abs(fit) + away
    usual = _USUAL * jnp.median(reach)
    usual = jnp.where(jnp.isfinite(usual), usual, _USUAL * jnp.min(reach))
    omega = jnp.minimum(1.0, usual / jnp.where(reach > 0, reach, 1.0))
    return jnp.where(reach == 0, 1.0, omega), jnp.minimum(reach, usual)


def _reach_of_free(
    program: Program,
    lam: Array,
    away: Array,
    upper: Array,
    fit: Array,
    omega: Array,
    reach: Array,
) -> Array:
    """S of the module's docstring."""
    X, y = jnp.asarray(program.X), jnp.asarray(program.y)
    weight, given = sample_weights(program), block_weights(program)
    assert given is not None
    # Samples that may be anywhere have no say in how much is left for the penalty.
    slope = jnp.abs(total_gradient(program.loss, fit, y, weight))
    change = jnp.sum(jnp.where(slope == 0, 0.0, slope * away))
    left = jnp.minimum(upper - total(program.loss, fit, y, weight) + change, upper)
    lightest = jnp.min(jnp.where(given == 0, jnp.inf, given), initial=jnp.inf)
    of_penalised = largest_singular(omega[:, None] * X) * left / (lam * lightest)
    if has_bias(program):
        # Of (u, b), whose bias is so many times as long as u at most.
        of_penalised = (1.0 + reach_of(X)) * of_penalised
    return safe_norm(reach) + of_penalised


def _longer(program: Program, features: FreeFeatures) -> Array:
    """B over ||u||: root of the number of patterns, times what a pair is longer at most."""
    longer = jnp.ones((), program.X.dtype)
    if program.has_cones:
        X, few = jnp.asarray(program.X), features.patterns
        witnesses = jnp.asarray(program.patterns.interior).T[few.chosen]
        signs = cone_signs(jnp.asarray(program.patterns.masks), few.chosen, X.dtype)
        margin = margins(shared_rows(X), signs, witnesses)
        margin = margin / safe_norm(witnesses) - 8.0 * X.shape[1] * eps(X.dtype)
        each = jnp.where(margin > 0, 1.0 + 2.0 / jnp.where(margin > 0, margin, 1.0), jnp.inf)
        longer = jnp.max(jnp.where(few.pair, each, 1.0))
    return jnp.sqrt(jnp.sum(features.patterns.used).astype(longer.dtype)) * longer


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


class FreeFeatures(NamedTuple):
    """A: the features of the free patterns side by side.

    Attributes:
        patterns: which they are.
        open: (k,) bool, those that are not confined to a cone.
        columns: (n, k d), zeros for a place that no pattern takes.
        known: scalar bool, whether these are all.
    """

    patterns: FreePatterns
    open: Array
    columns: Array
    known: Array


def free_features(program: Program, free: Array) -> FreeFeatures:
    """`FreeFeatures` of flags (signs, p)."""
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    few = free_patterns(free)
    seen = masks.T[few.chosen] & few.used[:, None]
    columns = jnp.where(seen[:, :, None], X[None], 0.0)
    own = columns_of(program, few.chosen)
    columns = columns if own is None else jnp.where(own[:, None], columns, 0.0)
    columns = columns.transpose(1, 0, 2).reshape(len(X), -1)
    cones = has_cone(program)[few.chosen]
    known = jnp.sum(jnp.any(free, axis=0)) <= len(few.chosen)
    return FreeFeatures(few, few.used & ~cones, columns, known)


class FreeSystem(NamedTuple):
    """A^T Omega^2 A by its eigenvectors.

    Attributes:
        values: (m,), the eigenvalues or less.
        vectors: (m, m), as computed.
        smallest: scalar, of the values; zero where it cannot be told from zero, or not all free
            patterns are in A.
        off: how far a vector may be off.
    """

    values: Array
    vectors: Array
    smallest: Array
    off: Array


def free_system(features: FreeFeatures, omega: Array) -> FreeSystem:
    """`FreeSystem` for some omega (n,)."""
    gram = scaled_gram(features.columns, omega)
    trace, dtype, n, size = jnp.trace(gram), gram.dtype, len(omega), len(gram)
    # Roundings of the products and of the eigenvalues.
    share = 2.0 * roundoff(dtype) * (sum_roundings(n, dtype) + 16.0 * size)
    values, vectors = jnp.linalg.eigh(absent_as_one(gram))
    values = jnp.maximum(values - share * trace, 0.0)
    smallest = jnp.where(features.known, values[0], 0.0)
    return FreeSystem(values, vectors, smallest, jnp.asarray(16.0 * size * roundoff(dtype), dtype))


def scaled_gram(columns: Array, omega: Array) -> Array:
    """A^T Omega^2 A."""
    scaled = omega[:, None] * columns
    return matmul(scaled.T, scaled)


def absent_as_one(gram: Array) -> Array:
    """A Gram matrix whose columns of zeros, which compute nothing, have the trace for a length.

    They have no weight in the shortest of all answers.
    """
    trace, absent = jnp.trace(gram), jnp.diagonal(gram) == 0
    return gram + jnp.diag(jnp.where(absent, jnp.where(trace > 0, trace, 1.0), 0.0))


def largest_singular(X: Array) -> Array:
    """At least the largest singular value."""
    gram = matmul(X.T, X) if X.shape[1] <= X.shape[0] else matmul(X, X.T)
    return jnp.sqrt(jnp.max(jnp.linalg.eigvalsh(gram), initial=0.0)) * (1.0 + 1e-2)


def distances(program: Program, dual: Array, allowed: Array, fit: Array) -> Array:
    """Rho of the module's docstring, (n,); infinite where there is none.

    That is, too, where g = `fit` has L_i(g_i) > G, and is no point to measure from.
    """
    return jnp.max(distances_by_side(program, dual, allowed, fit), axis=0)


def distances_by_side(program: Program, dual: Array, allowed: Array, fit: Array) -> Array:
    """The same for larger and for smaller fits, (2, n)."""
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
        ends = jnp.stack([part(fit + distance, -1.0), part(fit - distance, -1.0)])
        return (ends > allowed) & (counts & within)[None]

    scale = jnp.max(jnp.abs(fit), initial=0.0) + 1.0

    def nearer(k: Array, found: Array) -> Array:
        distance = scale * jnp.asarray(4.0, fit.dtype) ** (_NEAREST + _TRIALS - 1 - k)
        return jnp.where(enough(distance), jnp.minimum(found, distance), found)

    start = jnp.full((2, len(fit)), jnp.inf, fit.dtype)
    found: Array = jax.lax.fori_loop(0, _TRIALS, nearer, start)
    return found
