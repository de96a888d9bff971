r"""Implicit derivatives of an answer, by its optimality conditions on the support and the walls.

An answer of neurons theta_k with u_k = theta_k / ||theta_k|| and multipliers mu_k on their walls W
(`jaxrelu.solvers.active_support`) solves, with r minus the gradient of the loss at the fit,

    -s_k X^T D_k r - K_W^T mu_k + lam u_k = 0,        K_W theta_k = 0.

If support and walls stay, differentiating both gives, with P the projector onto the null space of
the walls, the moves of the data on the right, and H the system of `jaxrelu.solvers.support_system`,

    d theta = -K_W^+ dK_W theta + x,   P H x = -P ( d(-s X^T D r) + dlam u - dK_W^T mu
                                                    - H K_W^+ dK_W theta ).

Blocks of one neuron keep their shares of it. The derivative of the optimal value needs no system:
it is the partial derivative of the Lagrangian (envelope theorem).

Whatever is not known is NaN: the derivatives of weights, fit and residual where support or walls
are about to change (the hypotheses of `jaxrelu.optimal_sets.sensitivity`) or the loss bends; that
of the weights alone where the optimal network is not unique; those by rows of X on walls that
depend on each other, by rows that are zero, or by any row where the network is not unique: by these
the optimum has kinks. The derivative of a zero block is 0, as differences have it where the block
stays zero. Of a loss with kinks, and with a free bias, only the value has one
(`jaxrelu.solvers.value_alone`).

Reference: Bonnans and Shapiro (2000), Section 4; Mishkin and Pilanci (ICML 2023), on the
sensitivity of the solution map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.derivatives import close, first_order, known_where, nowhere, still
from jaxrelu.core.numerics import eps, matmul, safe_norm, unit
from jaxrelu.losses.base import total, total_curvature, total_gradient
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.extension import Parts, apart, extended, joined
from jaxrelu.programs.penalties import norm_shares, sizes, weighed, working_weights
from jaxrelu.programs.program import Program, sample_weights
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.active_support import ActiveSupport, active_support
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.value_alone import value_alone

# A gap of an answer, relative, at which the partial derivatives of its value are exact enough.
_CLOSED = 1e-11


class Parameters(NamedTuple):
    """What an answer can be differentiated by."""

    X: Any
    y: Any
    sample_weight: Any
    loss: Any
    lam: Any
    block_weights: Any


def parameters(program: Program, lam: Array) -> Parameters:
    """The differentiable leaves of a program and lam."""
    return Parameters(
        program.X, program.y, program.sample_weight, program.loss, lam, program.block_weights
    )


def finest(tolerance: Tolerance) -> Tolerance:
    """The tolerance to which an answer is solved that is differentiated, whatever was asked for.

    Support and walls are known from there on, and no derivative depends on the tolerance.
    """
    relative = jnp.minimum(tolerance.relative, 64 * eps(tolerance.relative.dtype))
    return Tolerance(relative, jnp.zeros_like(relative))


def tangent(
    program: Program,
    lam: Array,
    solution: Solution,
    change: Parameters,
    slots: int,
    basis: Array | None,
) -> Solution:
    """The derivative of an answer along a change of the parameters.

    Args:
        program: the program.
        lam: scalar.
        solution: its answer, solved to the `finest` tolerance.
        change: tangents of `parameters`.
        slots: room for tight blocks; an answer with more of them has NaN derivatives.
        basis: (d, n), orthonormal columns that span the rows of X where d > n, None elsewhere.

    Returns:
        A `Solution` of tangents; those of `lower` and `upper` are the derivative of the optimum.
    """
    program, lam, solution, basis = first_order("solve", (program, lam, solution, basis))
    given, program = program, extended(program)
    if given.skip or given.bias == "free":
        every = joined(given, Parts(solution.weights, solution.skip, solution.constant))
        solution = replace(solution, weights=every, skip=None, constant=None)
        change = change._replace(block_weights=_of_all(given, program, change.block_weights))
    if given.bias == "free":
        change = change._replace(X=jnp.pad(jnp.asarray(change.X), ((0, 0), (0, 1))))
    if has_kinks(program.loss) or given.bias == "free":
        return _of_value_alone(
            given, lam, solution, value_alone(program, solution, change, slots), change
        )
    point, X = parameters(program, lam), jnp.asarray(program.X)
    reduced = program if basis is None else replace(program, X=matmul(X, basis))
    flat = weighed(program, solution.weights.reshape(-1, X.shape[1]))
    inner = flat if basis is None else matmul(flat, basis)
    support = active_support(reduced, lam, inner, solution.residual, slots)
    system, mu = support.system, support.multipliers
    masks, face = system.signed_masks, system.face
    theta = support.weights if basis is None else matmul(support.weights, basis.T)
    u, dX = unit(theta), jnp.asarray(change.X)

    def gradient(p: Parameters, f: Array) -> Array:
        given = sample_weights(program) if p.sample_weight is None else p.sample_weight
        return total_gradient(p.loss, f, jnp.asarray(p.y), jnp.asarray(given))

    weights = _BlockWeights.of(program, change, support)
    shares = norm_shares(program, support.blocks)
    pull = u if shares.ndim == 0 else shares[:, None] * u

    def stationarity(p: Parameters) -> tuple[Array, Array]:
        signed = masks if weights is None else weights.signed_masks(masks, p)
        f = jnp.sum(signed * matmul(theta, jnp.asarray(p.X).T), axis=0)
        return matmul(signed * gradient(p, f)[None], jnp.asarray(p.X)) + p.lam * pull, f

    _, (moved, fit_moved) = jax.jvp(stationarity, (point,), (change,))
    moved = moved - face.pulled(mu, dX)
    d_theta = -face.meet(face.slid(theta, dX))
    inside = moved if basis is None else matmul(moved, basis)
    d_theta = d_theta - system.solve(inside + system.apply(d_theta))
    if basis is not None:
        # Outside the row space of X only the norms bend.
        soft = jnp.where(system.bend > 0, 1.0 / jnp.where(system.bend > 0, system.bend, 1.0), 0.0)
        aside = soft[:, None] * (moved - matmul(inside, basis.T))
        d_theta = matmul(d_theta, basis.T) - aside
    d_fit = fit_moved + jnp.sum(masks * matmul(d_theta, X.T), axis=0)
    _, d_gradient = jax.jvp(gradient, (point, support.fit), (change, d_fit))
    parts = support.shares[:, None] * d_theta[support.neuron]
    if weights is not None:
        parts = weights.unweighed(parts, support.shares[:, None] * theta[support.neuron])
    d_weights = jnp.zeros_like(flat).at[support.blocks].add(parts, mode="drop")

    finite = jnp.isfinite(lam) & (lam > 0) & jnp.all(jnp.isfinite(solution.weights))
    regular = system.is_regular()
    smooth = _bends_nowhere(program, support.fit, system.curvature)
    known = finite & support.stays & smooth & (regular | system.moves_one_fit())
    free = (support.free & regular & known)[None]

    def where(there: Array, x: Array) -> Array:
        """NaN where there is no derivative at all, and where there is none by X and X moves."""
        x = x + still(free, dX, x.size).reshape(x.shape)
        if weights is not None:
            x = x + weights.still(x.size).reshape(x.shape)
        return known_where(there, x)

    d_value = _value(program, lam, solution, support, theta, shares, change)
    value = where(finite & (support.optimal | _closed(solution)), d_value)
    d_fit, d_residual = where(known, d_fit), where(known, -d_gradient)
    d_weights = where(known & regular & support.unique, d_weights)
    d_weights, d_skip, _ = apart(given, d_weights.reshape(solution.weights.shape))
    none = jnp.zeros_like(value)
    certificate = Certificate(value, value, none, d_weights, d_residual, skip=d_skip)
    nothing: Any = np.zeros((), jax.dtypes.float0)  # integers have no derivative
    return Solution(
        d_weights, jnp.asarray(change.lam), d_fit, d_residual, certificate, nothing, nothing, d_skip
    )


def _of_value_alone(
    given: Program, lam: Array, solution: Solution, d_value: Array, change: Parameters
) -> Solution:
    """The derivative of an answer whose weights have none."""
    value = known_where(jnp.isfinite(lam) & (lam > 0), d_value)
    unknown, weights = nowhere(change, (solution.fit, solution.weights))
    d_weights, *beside = apart(given, weights)
    none = jnp.zeros_like(value)
    certificate = Certificate(value, value, none, d_weights, unknown, None, *beside)
    nothing: Any = np.zeros((), jax.dtypes.float0)  # integers have no derivative
    return Solution(
        d_weights, jnp.asarray(change.lam), unknown, unknown, certificate, nothing, nothing, *beside
    )


def _of_all(given: Program, program: Program, change: Any) -> Array:
    """The change of the weights of all blocks, the one that is not penalised among them."""
    zero = jnp.zeros(program.block_shape, program.X.dtype)
    return zero if given.block_weights is None else zero.at[..., :-1].set(jnp.asarray(change))


class _BlockWeights(NamedTuple):
    """The weights w of the blocks in slots, and how they change.

    Attributes:
        blocks: (k,), the slots' blocks.
        own: (k,), one where a slot holds none.
        change: (k,), of those.
        alone: (b,) bool, whether a block shares its neuron with no other one: where it does, the
            cheaper one takes all.
        moves: (b,), the change of the weights of all blocks.
    """

    blocks: Array
    own: Array
    change: Array
    alone: Array
    moves: Array

    @classmethod
    def of(
        cls, program: Program, change: Parameters, support: ActiveSupport
    ) -> _BlockWeights | None:
        weight = working_weights(program)
        if weight is None:
            return None
        moves = jnp.asarray(change.block_weights).reshape(-1)
        blocks, k = support.blocks, len(support.blocks)
        there = (blocks < len(weight)).astype(jnp.int32)
        crowd = jnp.zeros((k,), jnp.int32).at[support.neuron].add(there)[support.neuron]
        alone = jnp.ones(weight.shape, bool).at[blocks].set(crowd <= 1, mode="drop")
        # A weight of zero can only grow.
        alone = alone & (jnp.asarray(program.block_weights).reshape(-1) > 0)
        return cls(
            blocks,
            weight.at[blocks].get(mode="fill", fill_value=1.0),
            moves.at[blocks].get(mode="fill", fill_value=0.0),
            alone,
            moves,
        )

    def signed_masks(self, masks: Array, p: Parameters) -> Array:
        """(s_k / w_k) D_k of the parameters, from that at the point."""
        weight = jnp.asarray(p.block_weights).reshape(-1)
        weight = weight.at[self.blocks].get(mode="fill", fill_value=1.0)
        # A weight of zero is worked with as another one, and has no derivative.
        ratio = jnp.where(weight == self.own, self.own / weight, 1.0)
        return ratio[:, None] * masks

    def unweighed(self, d_theta: Array, theta: Array) -> Array:
        """The derivative of theta' / w from those of theta' and w."""
        own = self.own[:, None]
        return (d_theta - theta * (self.change / self.own)[:, None]) / own

    def still(self, size: int) -> Array:
        """Zeros, or NaN where a weight moves whose block is not alone."""
        return still(self.alone[None], self.moves[:, None], size)


def _value(
    program: Program,
    lam: Array,
    solution: Solution,
    support: ActiveSupport,
    theta: Array,
    shares: Array,
    change: Parameters,
) -> Array:
    """The partial derivative of the Lagrangian, at the neurons or else at the answer as it is."""
    exact, weights = support.optimal, sizes(program, solution.weights.reshape(-1, theta.shape[1]))
    f = jnp.where(exact, support.fit, solution.fit)
    norms = jnp.where(exact, jnp.sum(shares * safe_norm(theta)), jnp.sum(weights))
    dX = jnp.asarray(change.X)
    features = jnp.sum(support.system.signed_masks * matmul(theta, dX.T), axis=0)
    walls = jnp.sum(support.multipliers * support.system.face.slid(theta, dX))

    def loss_at(y: Any, weight: Any, loss: Any, at: Array) -> Array:
        given = sample_weights(program) if weight is None else jnp.asarray(weight)
        return total(loss, at, jnp.asarray(y), given)

    point = (program.y, program.sample_weight, program.loss, f)
    moves = (change.y, change.sample_weight, change.loss, features)
    by_weights: Any = 0.0
    if program.block_weights is not None:
        # Of an infinite weight nothing changes.
        lengths, moved = safe_norm(solution.weights), jnp.asarray(change.block_weights)
        by_weights = lam * jnp.sum(jnp.where(lengths > 0, moved, 0.0) * lengths)
    return jax.jvp(loss_at, point, moves)[1] + change.lam * norms + by_weights - walls


def _closed(solution: Solution) -> Array:
    bounds = solution.certificate
    return bounds.gap <= _CLOSED * jnp.abs(bounds.upper)


def _bends_nowhere(program: Program, f: Array, curvature: Array) -> Array:
    """Whether the loss has one second derivative at the fit of every sample."""
    y, weight = jnp.asarray(program.y), sample_weights(program)
    step = 10 * close(f.dtype) * (1.0 + jnp.abs(f))
    sides = [total_curvature(program.loss, f + h, y, weight) for h in (step, -step)]
    return jnp.all(jnp.abs(sides[0] - sides[1]) <= 1e-3 * jnp.abs(curvature))
