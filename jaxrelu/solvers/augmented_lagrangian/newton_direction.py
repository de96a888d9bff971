"""The Newton direction of the inner method at a point: which system is solved, and on which rows.

A loss with kinks bends at few samples, and there very much (`jaxrelu.losses.augmented`): no
iteration gets through such a system, and rows without curvature take no part in it. The samples
that bend are gathered, as long as they are few, and the dual form is factored on those alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, plain_norm
from jaxrelu.losses.augmented import Augmented
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
from jaxrelu.solvers.augmented_lagrangian.subproblem import Subproblem

_DAMPING = 0.1
# Samples at kinks that are gathered: of all, and at least.
_SHARE_AT_KINKS, _LEAST_AT_KINKS = 4, 64


class Point(NamedTuple):
    """Phi of `newton_method` at some weights, as far as a direction needs it.

    Attributes:
        fit: (n,).
        cone: (k, n), mu - sigma K theta.
        norm: (k, d), z + kappa theta.
        norm_size: (k,), its norms.
        active: (k,) bool, blocks away from zero.
        ball: (k, d), `norm` clipped to the dual ball.
        gradient: (k, d).
    """

    fit: Array
    cone: Array
    norm: Array
    norm_size: Array
    active: Array
    ball: Array
    gradient: Array


def _norm_curvature(problem: Subproblem, point: Point, kappa: Array) -> tuple[Array, Array]:
    """Curvature (k,) of each envelope, and the direction (k, d) in which it has none, or zero."""
    size = jnp.where(point.norm_size > 0, point.norm_size, 1.0)
    direction = jnp.where(point.active[:, None], point.norm / size[:, None], 0.0)
    bend = jnp.where(point.active, kappa * problem.radius / size, kappa)
    if problem.free is None:
        return bend, direction
    bend = bend + jnp.where(problem.free, problem.ridge(point.fit), 0.0)
    return bend, jnp.where(problem.free[:, None], 0.0, direction)


def _local_hessians(
    problem: Subproblem, point: Point, gram: Array, sigma: Array, kappa: Array
) -> tuple[Array, Array]:
    """Hessians of envelope and cone terms, (k, d, d), and the curvature of each norm (k,)."""
    d = problem.X.shape[1]
    eye = jnp.eye(d, dtype=problem.X.dtype)[None]
    bend, direction = _norm_curvature(problem, point, kappa)
    norm_part = bend[:, None, None] * (eye - direction[:, :, None] * direction[:, None, :])
    if problem.has_bias:
        # No norm bends in a bias: its features do, or else a ridge.
        norm_part = norm_part.at[:, -1, -1].set(problem.ridge(point.fit))
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
    if isinstance(problem.loss, Augmented) or forms_matrix(k, d, problem.X.dtype):
        return problem.samples.coupling(problem.signed_masks, curvature)
    return problem.samples.own_coupling(problem.signed_masks, curvature)


def newton_direction(
    problem: Subproblem,
    point: Point,
    gram: Array,
    live: Array,
    sigma: Array,
    kappa: Array,
    largest: Array,
    coupling: Array | None,
) -> Array:
    """The Newton direction (k, d), by the smallest of the systems that there are.

    Args:
        problem: its loss is smooth, or `Augmented`.
        point: where.
        gram: (k, d, d), of the walls in force.
        live: (k,) bool, blocks that may move.
        sigma: (k,), penalties of the cones.
        kappa: (k,), penalties of the norms.
        largest: scalar, the largest norm of a block.
        coupling: `constant_coupling` of the problem.
    """
    # Blocks with (nearly) collinear features make the system singular; damping in proportion
    # to the gradient keeps them from huge cancelling steps and fades at the solution.
    remaining = jnp.minimum(1.0, jnp.max(plain_norm(point.gradient), initial=0.0) / problem.lam)
    damping = _DAMPING * remaining * problem.lam / largest
    system = _System(problem, point, gram, live, sigma, kappa, damping)
    h = problem.curvature(point.fit)
    if not isinstance(problem.loss, Augmented):
        return -system.solved(problem.X, problem.signed_masks, h, coupling)

    def whole() -> Array:
        return system.solved(problem.X, problem.signed_masks, h, None)

    most = min(len(h), max(_LEAST_AT_KINKS, len(h) // _SHARE_AT_KINKS))
    if point.gradient.size <= most:
        return -whole()
    _, rows = jax.lax.top_k((h > 0).astype(jnp.int32), most)

    def gathered() -> Array:
        return system.solved(problem.X[rows], problem.signed_masks[:, rows], h[rows], None)

    found: Array = jax.lax.cond(jnp.sum(h > 0) <= most, gathered, whole)
    return -found


class _System(NamedTuple):
    """All of a Newton system but the samples."""

    problem: Subproblem
    point: Point
    gram: Array
    live: Array
    sigma: Array
    kappa: Array
    damping: Array

    def solved(self, X: Array, signed_masks: Array, h: Array, coupling: Array | None) -> Array:
        """Minus the direction (k, d), from samples with the curvatures h."""
        problem, point, live, damping = self.problem, self.point, self.live, self.damping
        (k, d), n, dtype = point.gradient.shape, len(X), X.dtype
        stiff = isinstance(problem.loss, Augmented)
        if problem.has_no_cones and uses_gated_form(k, d, n, dtype):
            bend, direction = _norm_curvature(problem, point, self.kappa)
            direction = jnp.where(live[:, None], direction, 0.0)
            return gated_direction(
                X, signed_masks, h, bend + damping, jnp.full_like(bend, damping), direction,
                point.gradient,
            )  # fmt: skip
        blocks, bend = _local_hessians(problem, point, self.gram, self.sigma, self.kappa)
        # A stiff block stays where it is, and takes no part in the system.
        stiffest = jnp.max(jnp.abs(blocks)) + jnp.sum(problem.sample_weight)
        eye = jnp.eye(d, dtype=dtype)[None]
        blocks = jnp.where(live[:, None, None], blocks + damping * eye, 1e6 * stiffest * eye)
        columns = problem.columns
        if k * d > n if stiff else uses_dual_form(k, d, n, dtype):
            matrix_a = working_matrix(X, signed_masks)
            if columns is not None:
                matrix_a = jnp.where(columns.reshape(1, -1), matrix_a, 0.0)
            return dual_direction(matrix_a, h, blocks, eps(dtype) ** 0.5 * bend, point.gradient)
        if columns is not None:
            # A feature that a block does not see stays where it is, too.
            blocks = blocks + jnp.where(columns, 0.0, 1e6 * stiffest)[:, :, None] * eye
        known = _coupling_at(problem, h) if coupling is None else coupling
        matrix = known.ndim == 4
        coupled = Matrix(known) if matrix else Products(X, signed_masks, h, known)
        walls = not problem.has_no_cones
        return primal_direction(coupled, blocks, point.gradient, walls=walls, factored=stiff)
