r"""The inner method: augmented Lagrangian semismooth Newton on a working set of blocks.

On the k blocks of a working set, with unit rows K_b and multipliers z_b (norm), mu_b >= 0 (cone),

    phi(theta) = sum_i c_i loss(f_i, y_i)
                 + sum_b env(z_b + kappa theta_b)
                 + 1/(2 sigma) sum_b || [mu_b - sigma K_b theta_b]_+ ||^2

is minimised by Newton's method with an exact line search, of every block on its own where one size
for all is short (`jaxrelu.solvers.augmented_lagrangian.step_sizes`); env is the Moreau envelope of
lam ||.|| with penalty kappa, so that its gradient is z_b + kappa theta_b clipped to the ball of
radius lam (in all but a free bias, of which the norm says nothing). phi is convex and once
differentiable *everywhere*: a block leaves zero, or returns to it, within Newton's method and
without any rule. Then z_b and mu_b become those gradients, and so on.

Why this one: on warm starts along a path it needs 5 to 45 Newton systems a lam where a structured
interior point method needs 25 to 30 of the same size, a fixed-penalty splitting needs thousands of
cheap steps for four digits, and block coordinate descent cannot be driven beyond 1e-6. Penalties
much below the defaults need more multiplier updates than they save, larger ones meet more kinks; a
kappa as large as sigma makes entering blocks crawl.

Reference: Li, Sun and Toh (SIAM J. Optim. 2018) for the method on lasso problems; the working
set is that of `jaxrelu.solvers.active_newton.solver`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.loops import iterate
from jaxrelu.core.numerics import eps, plain_norm
from jaxrelu.geometry.bias_metric import size
from jaxrelu.losses.augmented import Augmented
from jaxrelu.losses.base import total
from jaxrelu.solvers.augmented_lagrangian.newton_direction import (
    Point,
    constant_coupling,
    newton_direction,
)
from jaxrelu.solvers.augmented_lagrangian.step_sizes import step_along
from jaxrelu.solvers.augmented_lagrangian.subproblem import Subproblem

_NORM_SHARE = 0.1
_STIFFNESS = 3e3
# Of a loss with kinks, in units of its slopes over fits of size one: the first, times the root of
# the tolerance, and the last, times the root of eps.
_LOSS_STIFFNESS = 30.0
_LOSS_STIFFEST = 0.1
_SMALLEST = 1e-2
_DRIFT = 10.0
# Stationarity, in roundings of the stiffest term, that is as good as can be. In float32 it is what
# bounds the correlations of blocks in slots: at 10 some lams of counts do not close to 1e-3.
_ROUNDED = 3.0
# Newton steps without a multiplier update before the line search becomes exact.
_PATIENCE = 10


class Iterate(NamedTuple):
    """Weights of the working set with the multipliers of norm, cone and a loss with kinks."""

    weights: Array
    norm_dual: Array
    cone_dual: Array
    loss_dual: Array | None = None


class Outcome(NamedTuple):
    """The end of one call.

    Attributes:
        iterate: the last `Iterate`, multipliers updated.
        active: (k,) bool, blocks away from zero.
        num_steps: Newton steps taken.
        finite: no NaN or infinity appeared.
    """

    iterate: Iterate
    active: Array
    num_steps: Array
    finite: Array


class Progress(NamedTuple):
    """Where one call stands between two Newton steps.

    Attributes:
        at: weights and multipliers.
        live: (k,) bool, occupied slots that are not at rest.
        stiffness: scalar, the penalties' common factor.
        largest: scalar, the largest norm of a block at the last update of the multipliers.
        size: (k,), norms of the blocks relative to the largest, as the penalties know them.
        violation: scalar, at the last update of the multipliers.
        walls: (k, n) bool, cone constraints in force at the last step.
        gram: (k, d, d), the sum of their outer products.
        waiting: int32, steps since then.
        done: bool, within the tolerance.
        of_loss: `LossPenalty`, or None for a loss without kinks.
    """

    at: Iterate
    live: Array
    stiffness: Array
    largest: Array
    size: Array
    violation: Array
    walls: Array
    gram: Array
    waiting: Array
    done: Array
    of_loss: LossPenalty | None


class LossPenalty(NamedTuple):
    """The penalty of a loss with kinks, tau, and how far fits were from their copies."""

    penalty: Array
    apart: Array


def _evaluate(problem: Subproblem, at: Iterate, live: Array, sigma: Array, kappa: Array) -> Point:
    fit = problem.fit(at.weights)
    cone = at.cone_dual - sigma[:, None] * problem.slack(at.weights)
    norm = problem.in_norm(at.norm_dual + kappa[:, None] * at.weights)
    length = plain_norm(norm)
    active = length > problem.radius
    shrink = jnp.where(active, problem.radius / jnp.where(active, length, 1.0), 1.0)
    active = problem.stays(active)
    ball = norm * shrink[:, None]
    gradient = problem.adjoint(problem.gradient(fit)) + ball
    gradient = gradient - problem.cone_adjoint(jnp.maximum(cone, 0.0))
    gradient = jnp.where(live[:, None], gradient, 0.0)
    return Point(fit, cone, norm, length, active & live, ball, gradient)


def begin(problem: Subproblem, start: Iterate, tolerance: Array, scale: Array) -> Progress:
    """The state before the first Newton step; `tolerance` and `scale` as in `minimise`."""
    dtype = problem.X.dtype
    occupied = jnp.any(problem.signed_masks != 0, axis=1)
    return Progress(
        start,
        occupied,
        jnp.asarray(_first_stiffness(dtype), dtype),
        _largest_norm(problem, start.weights, scale),
        _relative_sizes(problem, start.weights, scale),
        jnp.asarray(jnp.finfo(dtype).max, dtype),
        jnp.zeros(start.cone_dual.shape, bool),
        jnp.zeros((*start.weights.shape, start.weights.shape[1]), dtype),
        jnp.asarray(0, jnp.int32),
        ~jnp.any(occupied),
        None if start.loss_dual is None else _first_of_loss(tolerance),
    )


def _first_of_loss(tolerance: Array) -> LossPenalty:
    # Multipliers of samples travel by the penalty times what is left apart: the finer, the stiffer.
    most = jnp.finfo(tolerance.dtype).max  # type: ignore[no-untyped-call]
    first = jnp.minimum(_LOSS_STIFFNESS / jnp.sqrt(tolerance), _stiffest_loss(tolerance.dtype))
    return LossPenalty(first, jnp.full_like(tolerance, most))


def _stiffest_loss(dtype: Any) -> float:
    return _LOSS_STIFFEST / eps(dtype) ** 0.5


def newton_step(
    problem: Subproblem, state: Progress, tolerance: Array, scale: Array, coupling: Array | None
) -> Progress:
    """One Newton step and, where the minimum of phi is near, an update of the multipliers.

    Args:
        problem: as in `minimise`.
        state: where it stands; not done.
        tolerance: as in `minimise`.
        scale: as in `minimise`.
        coupling: `constant_coupling` of the problem.

    Returns:
        The next state.
    """
    lam, dtype, roundoff = problem.lam, problem.X.dtype, eps(problem.X.dtype)
    at, live = state.at, state.live
    problem = _smoothed(problem, state)
    size_before = _penalty_scale(problem, state, scale)
    sigma, kappa = _penalties(lam, state, size_before)
    point = _evaluate(problem, at, live, sigma, kappa)
    walls = (point.cone > 0).astype(dtype)
    gram = problem.rows.updated_gram(state.gram, state.walls.astype(dtype), walls)
    p = newton_direction(problem, point, gram, live, sigma, kappa, size_before, coupling)
    p = problem.within(jnp.where(live[:, None], p, 0.0))
    # Two full steps that overshoot can take each other back for ever.
    overshoot = jnp.where(state.waiting < _PATIENCE, 0.5, 0.01)
    # What a Newton step can gain, against the objective: gaps go with its square root.
    value = total(problem.loss, point.fit, problem.y, problem.sample_weight)
    value = value + problem.penalty(at.weights)
    settled = -jnp.sum(point.gradient * p) <= tolerance**2 * value
    step = step_along(problem, point.fit, point.norm, point.cone, p, sigma, kappa, overshoot)
    at = at._replace(weights=at.weights + step)
    point = _evaluate(problem, at, live, sigma, kappa)
    stationarity = jnp.max(plain_norm(point.gradient), initial=0.0) / lam
    violation = _violation(problem, at, point, live, kappa) / _largest_norm(
        problem, at.weights, scale
    )
    apart, loss_dual = _from_copies(problem, point.fit)
    stiff = _first_stiffness(dtype)
    precise = jnp.maximum(tolerance, _ROUNDED * roundoff * stiff)
    if isinstance(problem.loss, Augmented):
        # What a roundoff of fits of size one does to the gradient.
        bent = problem.samples.length * problem.curvature(point.fit)
        precise = jnp.maximum(precise, _ROUNDED * roundoff * jnp.sum(bent) / lam)
    worse = jnp.maximum(violation, apart)
    near = stationarity <= jnp.maximum(jnp.minimum(0.01, 0.1 * worse), precise)
    # Where a step gains nothing more, the multipliers are what has to move.
    update = near | settled
    done = settled | (near & (worse <= tolerance) & (stationarity <= precise))
    # Penalties grow only where the multipliers alone do not make the violation fall.
    slow = update & (violation > 0.1 * state.violation)
    growth = jnp.where(slow, 10.0, 1.0).astype(dtype)
    # A block at zero there is optimal at zero with the multipliers it has: it is put to rest,
    # or its walls would take most of the steps. Screening looks at it again.
    resting = update & live & ~point.active
    change = (update & live)[:, None]
    at = Iterate(
        jnp.where(resting[:, None], 0.0, at.weights),
        jnp.where(change, point.ball, at.norm_dual),
        jnp.where(change, jnp.maximum(point.cone, 0.0), at.cone_dual),
        None if at.loss_dual is None else jnp.where(update, loss_dual, at.loss_dual),
    )
    of_loss = _next_of_loss(state.of_loss, update, apart)
    return Progress(
        at,
        live & ~resting,
        jnp.minimum(state.stiffness * growth, 1e4 * stiff),
        jnp.where(update, _largest_norm(problem, at.weights, scale), state.largest),
        jnp.where(update, _relative_sizes(problem, at.weights, scale), state.size),
        jnp.where(update, violation, state.violation),
        walls > 0,
        gram,
        jnp.where(update, 0, state.waiting + 1),
        done,
        of_loss,
    )


def _next_of_loss(before: LossPenalty | None, update: Array, apart: Array) -> LossPenalty | None:
    """It grows where the multipliers alone do not bring fits and copies together."""
    if before is None:
        return None
    slow = update & (apart > 0.1 * before.apart)
    growth = jnp.where(slow, 10.0, 1.0).astype(apart.dtype)
    penalty = jnp.minimum(before.penalty * growth, _stiffest_loss(apart.dtype))
    return LossPenalty(penalty, jnp.where(update, apart, before.apart))


def outcome(
    problem: Subproblem, state: Progress, scale: Array, num_steps: Array, finite: Array
) -> Outcome:
    """What `minimise` returns, from where it stands."""
    problem = _smoothed(problem, state)
    penalties = _penalties(problem.lam, state, _penalty_scale(problem, state, scale))
    point = _evaluate(problem, state.at, state.live, *penalties)
    return Outcome(state.at, point.active, num_steps, finite)


def watched(state: Progress) -> tuple[Array, Array]:
    """A NaN or an infinity anywhere reaches the weights by the next step."""
    return state.at.weights, state.size


def minimise(
    problem: Subproblem,
    start: Iterate,
    tolerance: Array,
    max_steps: Any,
    scale: Array,
    coupling: Array | None = None,
) -> Outcome:
    """Minimises the program restricted to a working set.

    Args:
        problem: the data and the gathered blocks.
        start: weights and multipliers to start from.
        tolerance: scalar; stop when the gradient is below it relative to lam, and the violations
            of norm and cone are below it relative to the largest block.
        max_steps: Newton steps at most.
        scale: scalar > 0, a guess of the largest block norm, used while all blocks are zero.
        coupling: `constant_coupling` of the problem, if it is known already.

    Returns:
        `Outcome`.
    """
    coupling = constant_coupling(problem) if coupling is None else coupling
    end = iterate(
        lambda state: newton_step(problem, state, tolerance, scale, coupling),
        begin(problem, start, tolerance, scale),
        done=lambda state: state.done,
        max_steps=max_steps,
        watch=watched,
    )
    return outcome(problem, end.state, scale, end.num_steps, end.finite)


def _first_stiffness(dtype: Any) -> float:
    return min(_STIFFNESS, 0.03 / eps(dtype) ** 0.7)


def _largest_norm(problem: Subproblem, weights: Array, scale: Array) -> Array:
    largest = jnp.max(problem.sizes(weights), initial=0.0)
    return jnp.where(largest > 0, largest, scale)


def _penalty_scale(problem: Subproblem, state: Progress, scale: Array) -> Array:
    """The largest norm, near that of the last update: phi must be one function to descend on."""
    largest = _largest_norm(problem, state.at.weights, scale)
    return jnp.clip(largest, state.largest / _DRIFT, state.largest * _DRIFT)


def _relative_sizes(problem: Subproblem, weights: Array, scale: Array) -> Array:
    """||theta_b|| relative to the largest block, not below `SMALLEST`."""
    norms = size(weights, problem.has_bias)
    return jnp.maximum(norms / _largest_norm(problem, weights, scale), _SMALLEST)


def _penalties(lam: Array, state: Progress, largest: Array) -> tuple[Array, Array]:
    """Sigma and kappa of every block, in units of the curvature lam / ||theta_b|| of its norm.

    A block crosses zero where its norm is below lam / kappa: too stiff a kappa for a small
    block and Newton's method jumps to and fro across zero.
    """
    stiffness = state.stiffness * lam / largest
    return stiffness / state.size, _NORM_SHARE * stiffness / jnp.maximum(state.size, 0.03)


def _smoothed(problem: Subproblem, state: Progress) -> Subproblem:
    """The problem with a loss that Newton's method can take."""
    if state.of_loss is None or state.at.loss_dual is None:
        return problem
    return problem.augmented(state.at.loss_dual, state.of_loss.penalty)


def _from_copies(problem: Subproblem, fit: Array) -> tuple[Array, Array]:
    """How far fits are from their copies at most, and the next multipliers, (n,)."""
    if not isinstance(problem.loss, Augmented):
        return jnp.zeros((), fit.dtype), fit
    away = jnp.abs(problem.loss.copy(fit, problem.y) - fit)
    return jnp.max(jnp.where(problem.sample_weight > 0, away, 0.0)), -problem.gradient(fit)


def _violation(problem: Subproblem, at: Iterate, point: Point, live: Array, kappa: Array) -> Array:
    """The largest distance from the cones, or of a norm from what its multiplier says."""
    outside = jnp.max(jnp.maximum(-problem.slack(at.weights), 0.0), initial=0.0)
    moved = plain_norm(point.ball - at.norm_dual) / kappa
    return jnp.maximum(outside, jnp.max(jnp.where(live, moved, 0.0), initial=0.0))
