r"""The support of an answer: its neurons, on their walls, and whether they stay when data move.

A block is *tight* if ||q_b|| = lam. Blocks of one sign that are tight with the same direction (a
neuron on a wall belongs to the cells on both sides, a pattern may be there twice) are one neuron:
its weight is their sum, of which each has a share. On its walls, with null space P, a neuron solves

    P ( s X^T D grad(f) + lam u ) = 0,   theta in the range of P,

and all neurons together are polished by Newton's method on these equations. They are the optimum,
and stay when something moves a little, if

 * every tight block belongs to a neuron, and has a multiplier that is positive on walls which span
   all rows that the neuron lies on;
 * no other block has a correlation as large as lam.

Reference: Bonnans and Shapiro (2000), Section 4; Mishkin and Pilanci (ICML 2023), on the tight
blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.derivatives import close
from jaxrelu.core.numerics import eps, matmul, safe_norm, unit
from jaxrelu.geometry.cone_faces import Contact, Faces, contact, faces, positive
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import block_patterns, cone_signs, projection_batch
from jaxrelu.geometry.correlation_bounds import DualElements, polar_bounds
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.base import total_curvature, total_gradient
from jaxrelu.programs.penalties import (
    block_factors,
    is_free,
    norm_shares,
    weighed_correlations,
)
from jaxrelu.programs.program import (
    Program,
    float_masks,
    residual_at,
    sample_weights,
)
from jaxrelu.programs.skip import without_cone
from jaxrelu.solvers.support_system import SupportSystem, support_system

# Correlations this near lam, relative, are tight; nearer than half of it no other may come.
_TIGHT = 1e-6
# Directions at a smaller angle are one.
_SAME = 1e-6
# Neurons that are smaller, relative to all of them, and what may be lost of an answer.
_SMALLEST = 1e-9
_LOST = 1e-6
_NEWTON_STEPS = 8


class ActiveSupport(NamedTuple):
    """Tight blocks in k slots, the neurons that they make, and what is true of them.

    Attributes:
        blocks: (k,) int32, in flat order; the number of blocks for slots that hold none. Blocks
            with weights w_b in the penalty are w_b theta_b here (`jaxrelu.programs.penalties`).
        neuron: (k,) int32, the slot that stands for the neuron of a block.
        shares: (k,), of the neuron's weight.
        weights: (k, d), of neurons, in the slots that stand for them; zero elsewhere.
        multipliers: (k, n), of unit rows.
        fit: (n,), of the neurons.
        system: `SupportSystem` of the neurons.
        optimal: scalar bool, they are the optimum.
        stays: scalar bool, and remain its support under small changes of all but X.
        free: (n,) bool, rows of X by which they do.
        unique: scalar bool, blocks of one neuron compute the same for all data.
    """

    blocks: Array
    neuron: Array
    shares: Array
    weights: Array
    multipliers: Array
    fit: Array
    system: SupportSystem
    optimal: Array
    stays: Array
    free: Array
    unique: Array


class _Tight(NamedTuple):
    """Candidates in slots: blocks, whether tight, signs of rows, s D, multipliers, directions."""

    blocks: Array
    tight: Array
    signs: Array
    signed_masks: Array
    multipliers: Array
    directions: Array
    all_here: Array


def active_support(
    program: Program, lam: Array, weights: Array, residual: Array, slots: int
) -> ActiveSupport:
    """The support of an answer that is nearly exact.

    Args:
        program: a program with d <= n.
        lam: scalar.
        weights: of the program's shape, times those of the blocks in the penalty.
        residual: (n,), minus the gradient of the loss at their fit.
        slots: room for tight blocks.

    Returns:
        `ActiveSupport`; nothing is `optimal` where there are more tight blocks than slots.
    """
    flat = weights.reshape(-1, weights.shape[-1])
    sizes, total = safe_norm(flat), jnp.sum(safe_norm(flat))
    found = _tight(program, lam, flat, residual, min(slots, len(flat)))
    radius = lam * norm_shares(program, found.blocks)
    same, unique = _same(program, found)
    neuron = jnp.argmax(same, axis=1).astype(jnp.int32)
    mass = jnp.where(found.tight, sizes[found.blocks], 0.0)
    size = jnp.sum(jnp.where(same, mass[None], 0.0), axis=1)
    first = neuron == jnp.arange(len(neuron), dtype=neuron.dtype)
    used = found.tight & first & (size > _SMALLEST * total)

    rows = shared_rows(jnp.asarray(program.X))
    walls = found.tight[:, None] & (found.multipliers > positive(flat.dtype) * lam)
    face = faces(rows, found.signs, walls)
    masks = jnp.where(used[:, None], found.signed_masks, 0.0)
    start = jnp.where(used, size, 0.0)[:, None] * unit(face.onto(found.directions))
    theta, system = _polished(program, radius, face, masks, start)
    f = system.fit(theta)
    exact = residual_at(program, f)

    near = jnp.all(safe_norm(theta - start) <= 0.5 * safe_norm(start))
    # Nothing that was not tight may have become so.
    reach = safe_norm(rows.length[None])[0] * safe_norm((exact - residual)[None])[0]
    if program.block_weights is not None:
        reach = reach * jnp.max(jnp.abs(block_factors(program)))
    lost = total - jnp.sum(mass)
    near = near & (reach <= 0.5 * _TIGHT * lam) & (lost <= _LOST * total) & found.all_here
    right, touch, mu = _checked(lam, radius, found, system, theta[neuron], exact, program.has_cones)
    optimal = near & jnp.all(~used | right)
    stay = jnp.all(~found.tight | (used[neuron] & right & touch.stays))
    return ActiveSupport(
        jnp.where(found.tight, found.blocks, len(flat)).astype(jnp.int32),
        neuron,
        jnp.where(used[neuron], mass / jnp.where(size > 0, size, 1.0)[neuron], 0.0),
        theta,
        mu,
        f,
        system,
        optimal,
        optimal & stay,
        jnp.all(~found.tight[:, None] | touch.free, axis=0),
        unique,
    )


def _tight(program: Program, lam: Array, flat: Array, residual: Array, slots: int) -> _Tight:
    X, limit = jnp.asarray(program.X), lam * (1.0 - _margin(program, _TIGHT))
    pattern = block_patterns(program.block_shape)
    c = weighed_correlations(program, residual)
    bound = safe_norm(c)
    if program.has_cones:
        masks, batch = jnp.asarray(program.patterns.masks), projection_batch(len(pattern), len(X))
        zero = DualElements.nothing(c.shape[0], c.shape[1], c.dtype)
        bound = polar_bounds(shared_rows(X), masks, pattern, c, zero, limit, batch=batch).bound
    free = is_free(program)
    if free is not None:  # a block without a penalty has no correlation to go by
        bound = jnp.where(free & (safe_norm(flat) > 0), jnp.inf, bound)
    size, blocks = jax.lax.top_k(bound, slots)
    tight = size > limit
    all_here = jnp.sum(bound > limit) <= slots
    signs = cone_signs(jnp.asarray(program.patterns.masks), pattern[blocks], X.dtype)
    signed = block_factors(program)[blocks][:, None] * float_masks(program).T[pattern[blocks]]
    q, mu, u = c[blocks], jnp.zeros_like(signs), unit(c[blocks])
    if free is not None:
        own = weighed_correlations(program, residual, free=1.0)
        q = own.reshape(c.shape)[blocks]
    if program.has_cones:
        skip = without_cone(program, pattern[blocks])
        walled = tight if skip is None else tight & ~skip
        there = project(shared_rows(X), signs, jnp.where(walled[:, None], q, 0.0))
        mu, u = there.multipliers, unit(there.points)
        if skip is not None:
            signs = jnp.where(skip[:, None], 0.0, signs)
            mu = jnp.where(skip[:, None], 0.0, mu)
    if free is not None:
        u = jnp.where(free[blocks][:, None], unit(flat[blocks]), u)
    return _Tight(blocks, tight, signs, signed, mu, u, all_here)


def _margin(program: Program, share: float) -> float:
    return max(share, 1e3 * eps(program.X.dtype))


def _same(program: Program, found: _Tight) -> tuple[Array, Array]:
    """Which slots (k, k) hold the same neuron, and whether that is the same for all data."""
    u, dtype = found.directions, found.directions.dtype
    both = found.tight[:, None] & found.tight[None]
    angle = 2.0 - 2.0 * matmul(u, u.T)
    close_by = angle <= max(_SAME**2, 16 * eps(dtype))
    factor = block_factors(program)[found.blocks]
    same = both & close_by & (factor[:, None] == factor[None])
    if program.has_cones:
        return same, jnp.asarray(True)
    # Without cones a direction computes what its mask lets through.
    real = (safe_norm(jnp.asarray(program.X)) > 0).astype(dtype)
    masks = (found.signed_masks != 0).astype(dtype)
    ones = jnp.sum(masks * real[None], axis=1)
    apart = ones[:, None] + ones[None] - 2.0 * matmul(masks * real[None], masks.T)
    same = both & (apart < 0.5)
    gates = jnp.asarray(program.patterns.gates).T[found.blocks]
    return same, jnp.all(~same | jnp.all(gates[:, None] == gates[None], axis=2))


def _polished(
    program: Program, radius: Array, face: Faces, masks: Array, start: Array
) -> tuple[Array, SupportSystem]:
    """The neurons where their equations hold to rounding, by Newton's method, and their system."""
    y, weight = jnp.asarray(program.y), sample_weights(program)

    def bends(theta: Array) -> Array:
        f = jnp.sum(masks * matmul(theta, jnp.asarray(program.X).T), axis=0)
        return total_curvature(program.loss, f, y, weight)

    # The inverse of the start serves to the end, which is near.
    system = support_system(face, masks, start, bends(start), radius)
    pull = radius if radius.ndim == 0 else radius[:, None]

    def newton(theta: Array, _: None) -> tuple[Array, None]:
        gradient = total_gradient(program.loss, system.fit(theta), y, weight)
        return theta - system.step(system.back(gradient) + pull * unit(theta)), None

    theta, _ = jax.lax.scan(newton, start, None, length=_NEWTON_STEPS)
    return theta, system.at(theta, bends(theta), radius)


def _checked(
    lam: Array,
    radius: Array,
    found: _Tight,
    system: SupportSystem,
    theta: Array,
    residual: Array,
    cones: bool,
) -> tuple[Array, Contact, Array]:
    """Whether slots are tight with given neurons (k,), what becomes of them, and multipliers."""
    face, dtype = system.face, theta.dtype
    u, c = unit(theta), matmul(found.signed_masks * residual[None], system.X)
    small = close(dtype) * lam + 1e3 * eps(dtype) * safe_norm(c)
    pull = (radius if radius.ndim == 0 else radius[:, None]) * u
    if not cones:
        right, every = safe_norm(c - pull) <= small, jnp.ones(found.signs.shape, bool)
        return right, Contact(every[:, 0], every), found.multipliers
    mu = jnp.where(face.walls, found.multipliers, 0.0)
    mu = mu + face.multipliers(pull - c - face.push(mu))
    right = safe_norm(pull - c - face.push(mu)) <= small
    # What has no cone lies on no wall.
    slack = jnp.where(found.signs == 0, 1.0, face.slack(u))
    on = ~face.walls | ((slack <= close(dtype)) & (mu > 0))
    right = right & jnp.all(on & (slack >= -close(dtype)), axis=1)
    return right, contact(face, slack <= close(dtype)), mu
