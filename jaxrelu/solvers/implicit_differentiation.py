r"""Implicit derivatives of an answer, by its optimality conditions on the support and the walls.

With u_b = theta_b / ||theta_b|| on the non-zero blocks and multipliers mu_b > 0 on their walls W_b,
an answer solves

    -s_b X^T D_b r - K_b^T mu_b + lam u_b = 0,        K_b theta_b = 0 on W_b,

with r minus the gradient of the loss at the fit. Differentiated with support and walls fixed, this
is the symmetric linear system

    [ H   -K_W^T ] [ d theta ]   [ minus the change of the first  ]
    [ K_W    0   ] [ d mu    ] = [ minus the change of the second ],

    H = F^T diag(h) F + blkdiag( lam / ||theta_b|| (I - u_b u_b^T) ),

which is solved by a proximal method of multipliers around one Cholesky factor. The derivative of
the optimal value needs no system: it is the partial derivative of the Lagrangian (envelope
theorem).

Before that, the answer is polished by Newton's method on the same equations: walls whose multiplier
turns negative leave, rows that become violated enter. Where the equations do not come to hold, or a
sign stays wrong, support or walls are not those of the optimum, and the derivatives of weights, fit
and residual are NaN. Ask for a small ``rtol`` (1e-10) where they are. They are NaN, too, where the
hypotheses of `jaxrelu.optimal_sets.sensitivity` fail: a direction that the answer does not use has
a correlation equal to lam (other optimal networks use it, or it is about to enter), or a wall
without a multiplier is about to enter or leave. Where H is singular, the optimal weights are not
unique, and their derivative alone is NaN.

Reference: Bonnans and Shapiro (2000), Section 4; Mishkin and Pilanci (ICML 2023), on the
sensitivity of the solution map.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from jaxrelu.core.numerics import eps, matmul, safe_norm, unit
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import block_patterns, cone_signs, projection_batch
from jaxrelu.geometry.correlation_bounds import DualElements, polar_bounds
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.losses.base import total, total_curvature, total_gradient
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.program import (
    Program,
    block_signs,
    float_masks,
    raw_correlations,
    sample_weights,
)
from jaxrelu.programs.solution import Solution

_ITERATIONS = 20
_POLISHING = 6
# A block whose correlation is further than this below lam is zero at the optimum.
_CLOSE = 1e-3
# Correlations this near lam, relative, are equal to it; directions are where 1 - cosine is this.
_TIE = 1e-6
_SAME = 1e-8
# The share of a wall's normal outside the span of others that is no rounding, squared.
_APART = 1e-3


class Parameters(NamedTuple):
    """What an answer can be differentiated by."""

    X: Any
    y: Any
    sample_weight: Any
    loss: Any
    lam: Any


class _Support(NamedTuple):
    """The non-zero blocks of an answer, in slots: weights (k, d); masks, signs and walls (k, n)."""

    blocks: Array
    used: Array
    weights: Array
    signed_masks: Array
    signs: Array
    walls: Array
    multipliers: Array
    correlations: Array


def parameters(program: Program, lam: Array) -> Parameters:
    """The differentiable leaves of a program and lam."""
    return Parameters(program.X, program.y, program.sample_weight, program.loss, lam)


def tangent(
    program: Program, solution: Solution, point: Parameters, change: Parameters, slots: int
) -> Solution:
    """The derivative of an answer along a change of the parameters.

    Args:
        program: the program.
        solution: its answer at ``point.lam``.
        point: `parameters` of the program.
        change: their tangents.
        slots: room for non-zero blocks; an answer with more of them has NaN derivatives.

    Returns:
        A `Solution` of tangents; those of `lower` and `upper` are the derivative of the optimum.
    """
    given = _support(program, solution, slots)
    support, sound = _polished(program, _identified(given, solution.lam), point)
    sound = sound & _nothing_enters(program, support, point)
    theta, sizes = support.weights, safe_norm(solution.weights)
    # Blocks that optimality does not know can only be small.
    sound = sound & (jnp.sum(safe_norm(theta)) >= 0.9 * jnp.sum(sizes))
    # More non-zero blocks than slots, or an answer that is not finite: no derivative.
    whole = (jnp.sum(_non_zero(sizes)) <= slots) & jnp.all(jnp.isfinite(sizes))

    # The optimum is flat: its derivative needs no polished answer, and outlives a failed one.
    known = jax.tree.map(lambda new, old: jnp.where(sound, new, old), support, given)

    def equations(p: Parameters) -> tuple[Array, Array, Array]:
        return *_equations(program, support, p)[:2], _equations(program, known, p)[2]

    _, (moved, slid, value) = jax.jvp(equations, (point,), (change,))
    d_theta, _, regular = _solve(program, support, point.lam, moved, slid)

    def outcome(p: Parameters, weights: Array) -> tuple[Array, Array]:
        f = jnp.sum(support.signed_masks * matmul(weights, jnp.asarray(p.X).T), axis=0)
        return f, -_gradient(p, program, f)

    _, (d_fit, d_residual) = jax.jvp(outcome, (point, theta), (change, d_theta))
    flat = jnp.zeros((int(np.prod(program.block_shape)), theta.shape[1]), theta.dtype)
    d_weights = flat.at[support.blocks].add(d_theta, mode="drop").reshape(solution.weights.shape)

    # Products, which are NaN in reverse mode too, where a selection would be zero.
    known = jnp.where(whole & sound, 1.0, jnp.nan).astype(d_fit.dtype)
    d_fit, d_residual = known * d_fit, known * d_residual
    d_weights = jnp.where(regular, known, jnp.nan) * d_weights
    value = jnp.where(whole, 1.0, jnp.nan).astype(value.dtype) * value
    certificate = Certificate(value, value, jnp.zeros_like(value), d_weights, d_residual)
    nothing: Any = np.zeros((), jax.dtypes.float0)  # integers have no derivative
    return Solution(
        d_weights, jnp.asarray(change.lam), d_fit, d_residual, certificate, nothing, nothing
    )


def _weight(p: Parameters, program: Program) -> Array:
    return sample_weights(program) if p.sample_weight is None else jnp.asarray(p.sample_weight)


def _gradient(p: Parameters, program: Program, f: Array) -> Array:
    return total_gradient(p.loss, f, jnp.asarray(p.y), _weight(p, program))


def _non_zero(size: Array) -> Array:
    """Blocks that are more than rounding of the largest: lam / ||theta|| would drown all else."""
    return size > eps(size.dtype) ** 0.75 * jnp.max(size, initial=0.0)


def _support(program: Program, solution: Solution, slots: int) -> _Support:
    X, n = jnp.asarray(program.X), program.X.shape[0]
    pattern, total = block_patterns(program.block_shape), int(np.prod(program.block_shape))
    flat = solution.weights.reshape(total, -1)
    size, blocks = jax.lax.top_k(safe_norm(flat), min(slots, total))
    used = _non_zero(size)
    sign = block_signs(program)[blocks]
    signed = sign[:, None] * float_masks(program).T[pattern[blocks]]
    q = matmul(signed * solution.residual[None], X)
    if program.has_cones:
        signs = cone_signs(jnp.asarray(program.patterns.masks), pattern[blocks], X.dtype)
        found = project(shared_rows(X), signs, q)
        lengths = safe_norm(X)
        mu = found.multipliers / jnp.where(lengths > 0, lengths, 1.0)[None]
        q = found.points
    else:
        signs = mu = jnp.zeros((blocks.shape[0], n), X.dtype)
    theta = jnp.where(used[:, None], flat[blocks], 0.0)
    signed, mu = jnp.where(used[:, None], signed, 0.0), jnp.where(used[:, None], mu, 0.0)
    return _Support(jnp.where(used, blocks, total), used, theta, signed, signs, mu > 0, mu, q)


def _identified(given: _Support, lam: Array) -> _Support:
    """The support by the correlations, and the weights along them.

    They know the directions of small blocks, and which of these are zero at the optimum, better
    than the weights do.
    """
    q = given.correlations
    used = given.used & (safe_norm(q) >= (1.0 - _CLOSE) * lam)
    size = jnp.where(used, safe_norm(given.weights), 0.0)[:, None]
    signed = jnp.where(used[:, None], given.signed_masks, 0.0)
    mu = jnp.where(used[:, None], given.multipliers, 0.0)
    return given._replace(
        used=used, weights=size * unit(q), signed_masks=signed, walls=mu > 0, multipliers=mu
    )


def _equations(program: Program, support: _Support, p: Parameters) -> tuple[Array, Array, Array]:
    """Both equations at fixed weights and multipliers, and the Lagrangian."""
    theta, mu, X = support.weights, support.multipliers, jnp.asarray(p.X)
    features = matmul(theta, X.T)
    f = jnp.sum(support.signed_masks * features, axis=0)
    cone = support.signs * features
    back = support.signed_masks * _gradient(p, program, f)[None] - support.signs * mu
    value = total(p.loss, f, jnp.asarray(p.y), _weight(p, program))
    lagrangian = value + p.lam * jnp.sum(safe_norm(theta)) - jnp.sum(mu * cone)
    return matmul(back, X) + p.lam * unit(theta), cone, lagrangian


def _polished(program: Program, support: _Support, p: Parameters) -> tuple[_Support, Array]:
    """The support where both equations hold to rounding, and whether all signs are right there."""
    X, lam = jnp.asarray(program.X), jnp.asarray(p.lam)
    lengths, size = safe_norm(X)[None], safe_norm(support.weights)[:, None]
    inverse = jnp.where(lengths > 0, 1.0 / jnp.where(lengths > 0, lengths, 1.0), 0.0)
    small = eps(X.dtype) ** 0.5
    used = support.used[:, None]

    def signs_of(s: _Support) -> tuple[Array, Array]:
        """Multipliers and slacks that have the wrong sign, in units of lam and of the weights."""
        cone = s.signs * matmul(s.weights, X.T) * inverse
        below = s.walls & (s.multipliers * lengths < -(eps(X.dtype) ** 0.75) * lam)
        return below & used, ~s.walls & (cone < -small * size) & used

    def newton(s: _Support, _: None) -> tuple[_Support, None]:
        moved, cone = _equations(program, s, p)[:2]
        moved = jnp.where(used, moved, 0.0)
        change, push = _solve(program, s, lam, moved, cone)[:2]
        s = s._replace(weights=s.weights + change, multipliers=s.multipliers + inverse * push)
        negative, violated = signs_of(s)
        walls = (s.walls & ~negative) | violated
        return s._replace(walls=walls, multipliers=jnp.where(walls, s.multipliers, 0.0)), None

    end, _ = jax.lax.scan(newton, support, None, length=_POLISHING)
    moved, cone, _ = _equations(program, end, p)
    negative, violated = signs_of(end)
    off = jnp.max(safe_norm(jnp.where(used, moved, 0.0)), initial=0.0) <= small * lam
    on = jnp.all(jnp.abs(jnp.where(end.walls & used, cone * inverse, 0.0)) <= 10 * small * size)
    near = jnp.all(safe_norm(end.weights - support.weights) <= 0.5 * size[:, 0])
    sound = off & on & near & ~jnp.any(negative | violated)
    if program.has_cones:
        sound = sound & _walls_hold(end, shared_rows(X), lam, small)
    return end, sound


def _walls_hold(s: _Support, rows: Rows, lam: Array, small: float) -> Array:
    """Whether no block is about to enter or leave a wall.

    Walls without a positive multiplier must be in the span of those with one (unit rows K): with P
    the projector onto its complement, ||P z||^2 = delta <z, (K^T K + delta I)^-1 z>, small delta.
    """
    size = safe_norm(s.weights)[:, None]
    near = jnp.abs(s.signs * rows.forward(s.weights)) <= 10 * small * size
    strong = s.walls & (s.multipliers * rows.length[None] > small * lam)
    weak = near & ~strong & s.used[:, None] & (rows.length > 0)[None]
    dtype, d = rows.unit.dtype, rows.unit.shape[1]
    delta = eps(dtype) ** 0.75

    def outside(matrix: Array) -> Array:
        factor = cho_factor(matrix + delta * jnp.eye(d, dtype=dtype))
        return delta * jnp.sum(cho_solve(factor, rows.unit.T) * rows.unit.T, axis=0)

    apart = jax.lax.map(outside, rows.gram(strong.astype(dtype)))
    return ~jnp.any(weak & (apart > _APART))


def _nothing_enters(program: Program, support: _Support, p: Parameters) -> Array:
    """Whether no direction outside the support has a correlation as large as lam."""
    X = jnp.asarray(program.X)
    f = jnp.sum(support.signed_masks * matmul(support.weights, X.T), axis=0)
    residual, pattern = -_gradient(p, program, f), block_patterns(program.block_shape)
    limit = p.lam * (1.0 - jnp.maximum(_TIE, 1e3 * eps(X.dtype)))
    q = raw_correlations(program, residual).reshape(len(pattern), -1)
    bound = safe_norm(q)
    if program.has_cones:
        masks, batch = jnp.asarray(program.patterns.masks), projection_batch(len(pattern), len(X))
        found = polar_bounds(
            shared_rows(X),
            masks,
            pattern,
            q,
            DualElements.nothing(q.shape[0], q.shape[1], q.dtype),
            limit,
            batch=batch,
        )
        q, bound = q + found.duals.vectors, found.bound
    known = jnp.zeros(len(pattern), bool).at[support.blocks].set(support.used, mode="drop")
    if program.has_cones:
        # A neuron on a wall belongs to the cells on both sides.
        sign = block_signs(program)
        own = sign[jnp.minimum(support.blocks, len(pattern) - 1)]
        cosine = matmul(unit(q), unit(support.weights).T)
        near = cosine >= 1.0 - jnp.maximum(_SAME, 4 * eps(X.dtype))
        known = known | jnp.any(near & (sign[:, None] == own[None]) & support.used[None], axis=1)
    return ~jnp.any((bound > limit) & ~known)


def _solve(
    program: Program, support: _Support, lam: Array, moved: Array, slid: Array
) -> tuple[Array, Array, Array]:
    """The changes of weights (k, d) and multipliers of unit rows (k, n) that restore both.

    And whether the system is regular: otherwise the change of the weights is one of many.
    """
    X, theta = jnp.asarray(program.X), support.weights
    n, d = X.shape
    dtype = X.dtype
    norms = safe_norm(theta)
    bend = jnp.where(support.used, lam / jnp.where(support.used, norms, 1.0), 0.0)
    aside = jnp.zeros_like(theta)
    basis = None
    if d > n:
        # Outside the row space of X only the norms bend.
        basis, r = jnp.linalg.qr(X.T)
        inside = matmul(moved, basis)
        outer = moved - matmul(inside, basis.T)
        aside = jnp.where(support.used, 1.0 / jnp.where(bend > 0, bend, 1.0), 0.0)[:, None] * -outer
        X, theta, moved, d = r.T, matmul(theta, basis), inside, n
    k = theta.shape[0]
    walls = support.walls.astype(dtype)
    rows = shared_rows(X)
    inverse = jnp.where(rows.length > 0, 1.0 / jnp.where(rows.length > 0, rows.length, 1.0), 0.0)
    slid = walls * slid * inverse[None]
    f = jnp.sum(support.signed_masks * matmul(theta, X.T), axis=0)
    curvature = total_curvature(program.loss, f, jnp.asarray(program.y), sample_weights(program))
    matrix = rows.coupling(support.signed_masks, curvature)
    u = unit(theta)
    eye = jnp.eye(d, dtype=dtype)
    norm_part = bend[:, None, None] * (eye[None] - u[:, :, None] * u[:, None, :])
    index = jnp.arange(k)
    count = jnp.maximum(jnp.sum(support.used), 1).astype(dtype) * d
    scale = (jnp.trace(matrix.reshape(k * d, -1)) + jnp.sum(bend) * (d - 1)) / count
    scale = jnp.where(scale > 0, scale, 1.0)
    sigma, delta = scale / eps(dtype) ** 0.25, scale * eps(dtype) ** 0.5
    idle = jnp.where(support.used, 0.0, scale)
    blocks = norm_part + sigma * rows.gram(walls) + (delta + idle)[:, None, None] * eye[None]
    full = matrix.at[index, :, index, :].add(blocks).reshape(k * d, k * d)
    factor = cho_factor(full)

    def forward(x: Array) -> Array:
        return walls * support.signs * matmul(x, rows.unit.T)

    def transpose(m: Array) -> Array:
        return matmul(walls * support.signs * m, rows.unit)

    def iteration(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        x, m = state
        rhs = -moved + delta * x + transpose(m - sigma * slid)
        x = cho_solve(factor, rhs.reshape(-1)).reshape(k, d)
        return (x, m - sigma * (slid + forward(x))), None

    start = (jnp.zeros_like(theta), jnp.zeros_like(walls))
    (x, m), _ = jax.lax.scan(iteration, start, None, length=_ITERATIONS)
    x = jnp.where(support.used[:, None], x, 0.0)
    # The smallest eigenvalue, from above, by inverse iteration.
    v = jnp.cos(jnp.arange(k * d, dtype=dtype) ** 2)
    for _ in range(4):
        v = cho_solve(factor, v / safe_norm(v[None])[0])
    regular = 1.0 / safe_norm(v[None])[0] > 10 * delta
    return x if basis is None else matmul(x, basis.T) + aside, m, regular
