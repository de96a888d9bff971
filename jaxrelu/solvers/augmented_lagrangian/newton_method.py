r"""The inner method: augmented Lagrangian semismooth Newton on a working set of blocks.

On the k blocks of a working set, with unit rows K_b and multipliers z_b (norm), mu_b >= 0 (cone),

    phi(theta) = sum_i c_i loss(f_i, y_i)
                 + sum_b env(z_b + kappa theta_b)
                 + 1/(2 sigma) sum_b || [mu_b - sigma K_b theta_b]_+ ||^2

is minimised by Newton's method with an exact line search, of every block on its own where one size
for all is short (`jaxrelu.solvers.augmented_lagrangian.step_sizes`); env is the Moreau envelope of
lam ||.|| with penalty kappa, so that its gradient is z_b + kappa theta_b clipped to the ball of
radius lam. phi is convex and once differentiable *everywhere*: a block leaves zero, or returns to
it, within Newton's method and without any rule. Then z_b and mu_b become those gradients, and so
on.

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
from jaxrelu.losses.base import total
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.solvers.augmented_lagrangian.coupling import Matrix, Products
from jaxrelu.solvers.augmented_lagrangian.newton_system import (
    dual_direction,
    forms_matrix,
    gated_direction,
    primal_direction,
    uses_dual_form,
    uses_gated_form,
    working_matrix,
)
from jaxrelu.solvers.augmented_lagrangian.step_sizes import step_along
from jaxrelu.solvers.augmented_lagrangian.subproblem import Subproblem

_NORM_SHARE = 0.1
_STIFFNESS = 3e3
_SMALLEST = 1e-2
_DAMPING = 0.1
_DRIFT = 10.0
# Stationarity, in roundings of the stiffest term, that is as good as can be. In float32 it is what
# bounds the correlations of blocks in slots: at 10 some lams of counts do not close to 1e-3.
_ROUNDED = 3.0
# Newton steps without a multiplier update before the line search becomes exact.
_PATIENCE = 10


class Iterate(NamedTuple):
    """Weights of the working set with the multipliers of norm and cone."""

    weights: Array
    norm_dual: Array
    cone_dual: Array


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


class _Point(NamedTuple):
    fit: Array
    cone: Array
    norm: Array
    norm_size: Array
    active: Array
    ball: Array
    gradient: Array


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


def _evaluate(problem: Subproblem, at: Iterate, live: Array, sigma: Array, kappa: Array) -> _Point:
    fit = problem.fit(at.weights)
    cone = at.cone_dual - sigma[:, None] * problem.slack(at.weights)
    norm = at.norm_dual + kappa[:, None] * at.weights
    size = plain_norm(norm)
    active = size > problem.radius
    shrink = jnp.where(active, problem.radius / jnp.where(active, size, 1.0), 1.0)
    active = problem.stays(active)
    ball = norm * shrink[:, None]
    gradient = problem.adjoint(problem.gradient(fit)) + ball
    gradient = gradient - problem.cone_adjoint(jnp.maximum(cone, 0.0))
    gradient = jnp.where(live[:, None], gradient, 0.0)
    return _Point(fit, cone, norm, size, active & live, ball, gradient)


def _norm_curvature(problem: Subproblem, point: _Point, kappa: Array) -> tuple[Array, Array]:
    """Curvature (k,) of each envelope, and the direction (k, d) in which it has none, or zero."""
    size = jnp.where(point.norm_size > 0, point.norm_size, 1.0)
    direction = jnp.where(point.active[:, None], point.norm / size[:, None], 0.0)
    bend = jnp.where(point.active, kappa * problem.radius / size, kappa)
    if problem.free is None:
        return bend, direction
    bend = bend + jnp.where(problem.free, problem.ridge(point.fit), 0.0)
    return bend, jnp.where(problem.free[:, None], 0.0, direction)


def _local_hessians(
    problem: Subproblem, point: _Point, gram: Array, sigma: Array, kappa: Array
) -> tuple[Array, Array]:
    """Hessians of envelope and cone terms, (k, d, d), and the curvature of each norm (k,)."""
    d = problem.X.shape[1]
    eye = jnp.eye(d, dtype=problem.X.dtype)[None]
    bend, direction = _norm_curvature(problem, point, kappa)
    norm_part = bend[:, None, None] * (eye - direction[:, :, None] * direction[:, None, :])
    return norm_part + sigma[:, None, None] * gram, bend


def constant_coupling(problem: Subproblem) -> Array | None:
    """What of A^T diag(h) A stays constant: all of it or its diagonal blocks, or nothing (None)."""
    k, (n, d) = problem.signed_masks.shape[0], problem.X.shape
    dual = uses_dual_form(k, d, n, problem.X.dtype)
    gated = problem.has_no_cones and uses_gated_form(k, d, n, problem.X.dtype)
    if dual or gated or not isinstance(problem.loss, SquaredLoss):
        return None
    return _coupling_at(problem, problem.sample_weight)


def updated_coupling(problem: Subproblem, coupling: Array, changed: Array) -> Array:
    """The coupling after some slots (c,) have got other blocks; a slot may be named twice."""
    h = problem.sample_weight
    if coupling.ndim == 3:
        return coupling.at[changed].set(
            problem.samples.own_coupling(problem.signed_masks[changed], h)
        )
    some = problem.samples.cross_coupling(problem.signed_masks[changed], problem.signed_masks, h)
    coupling = coupling.at[changed].set(some)
    return coupling.at[:, :, changed].set(some.transpose(2, 3, 0, 1))


def _coupling_at(problem: Subproblem, curvature: Array) -> Array:
    """A^T diag(h) A, (k, d, k, d), or its diagonal blocks, (k, d, d), where that is enough."""
    k, d = problem.signed_masks.shape[0], problem.X.shape[1]
    if forms_matrix(k, d, problem.X.dtype):
        return problem.samples.coupling(problem.signed_masks, curvature)
    return problem.samples.own_coupling(problem.signed_masks, curvature)


def begin(problem: Subproblem, start: Iterate, scale: Array) -> Progress:
    """The state before the first Newton step; `scale` as in `minimise`."""
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
    )


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
    size_before = _penalty_scale(problem, state, scale)
    sigma, kappa = _penalties(lam, state, size_before)
    point = _evaluate(problem, at, live, sigma, kappa)
    walls = (point.cone > 0).astype(dtype)
    gram = problem.rows.updated_gram(state.gram, state.walls.astype(dtype), walls)
    p = _direction(problem, point, gram, live, sigma, kappa, size_before, coupling)
    p = jnp.where(live[:, None], p, 0.0)
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
    stiff = _first_stiffness(dtype)
    precise = jnp.maximum(tolerance, _ROUNDED * roundoff * stiff)
    near = stationarity <= jnp.maximum(jnp.minimum(0.01, 0.1 * violation), precise)
    # Where a step gains nothing more, the multipliers are what has to move.
    update = near | settled
    done = settled | (near & (violation <= tolerance) & (stationarity <= precise))
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
    )
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
    )


def outcome(
    problem: Subproblem, state: Progress, scale: Array, num_steps: Array, finite: Array
) -> Outcome:
    """What `minimise` returns, from where it stands."""
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
        begin(problem, start, scale),
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
    return jnp.maximum(plain_norm(weights) / _largest_norm(problem, weights, scale), _SMALLEST)


def _penalties(lam: Array, state: Progress, largest: Array) -> tuple[Array, Array]:
    """Sigma and kappa of every block, in units of the curvature lam / ||theta_b|| of its norm.

    A block crosses zero where its norm is below lam / kappa: too stiff a kappa for a small
    block and Newton's method jumps to and fro across zero.
    """
    stiffness = state.stiffness * lam / largest
    return stiffness / state.size, _NORM_SHARE * stiffness / jnp.maximum(state.size, 0.03)


def _direction(
    problem: Subproblem,
    point: _Point,
    gram: Array,
    live: Array,
    sigma: Array,
    kappa: Array,
    largest: Array,
    coupling: Array | None,
) -> Array:
    """The Newton direction (k, d), by the smaller of the primal and the dual system."""
    dtype = problem.X.dtype
    (k, d), (n, _) = point.gradient.shape, problem.X.shape
    # Blocks with (nearly) collinear features make the system singular; damping in proportion
    # to the gradient keeps them from huge cancelling steps and fades at the solution.
    remaining = jnp.minimum(1.0, jnp.max(plain_norm(point.gradient), initial=0.0) / problem.lam)
    damping = _DAMPING * remaining * problem.lam / largest
    h = problem.curvature(point.fit)
    if problem.has_no_cones and uses_gated_form(k, d, n, problem.X.dtype):
        bend, direction = _norm_curvature(problem, point, kappa)
        direction = jnp.where(live[:, None], direction, 0.0)
        return -gated_direction(
            problem.X, problem.signed_masks, h, bend + damping, jnp.full_like(bend, damping),
            direction, point.gradient,
        )  # fmt: skip
    blocks, bend = _local_hessians(problem, point, gram, sigma, kappa)
    # A stiff block stays where it is, and takes no part in the system.
    stiffest = jnp.max(jnp.abs(blocks)) + jnp.sum(problem.sample_weight)
    eye = jnp.eye(d, dtype=dtype)[None]
    blocks = jnp.where(live[:, None, None], blocks + damping * eye, 1e6 * stiffest * eye)
    if uses_dual_form(k, d, n, dtype):
        matrix_a = working_matrix(problem.X, problem.signed_masks)
        return -dual_direction(matrix_a, h, blocks, eps(dtype) ** 0.5 * bend, point.gradient)
    known = _coupling_at(problem, h) if coupling is None else coupling
    coupled = (
        Matrix(known) if known.ndim == 4 else Products(problem.X, problem.signed_masks, h, known)
    )
    return -primal_direction(coupled, blocks, point.gradient, walls=not problem.has_no_cones)


def _violation(problem: Subproblem, at: Iterate, point: _Point, live: Array, kappa: Array) -> Array:
    """The largest distance from the cones, or of a norm from what its multiplier says."""
    outside = jnp.max(jnp.maximum(-problem.slack(at.weights), 0.0), initial=0.0)
    moved = plain_norm(point.ball - at.norm_dual) / kappa
    return jnp.maximum(outside, jnp.max(jnp.where(live, moved, 0.0), initial=0.0))
