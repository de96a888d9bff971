"""The splitting of `jaxrelu.solvers.admm`: its operators, its prox maps and one relaxed step."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from jaxrelu.core.numerics import matmul
from jaxrelu.geometry.cones import cone_signs
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.losses.base import Loss, curvature, total_curvature
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.programs.penalties import block_soft_threshold, block_weights
from jaxrelu.programs.program import (
    Program,
    fit,
    float_masks,
    raw_correlations,
    sample_weights,
)

# Measured on the reference problems: flat around these values.
_RELAXATION = 1.8
_CONE_WEIGHT = 30.0
_PROX_STEPS = 8


class Splitting(NamedTuple):
    """What one call shares over all steps: the rows of the cones are `length` unit rows."""

    program: Program
    lam: Array
    cone_rows: Rows
    length: float
    signs: Array
    inverse: Array
    vectors: Array
    values: Array
    root: Array

    @property
    def threshold(self) -> Array:
        """What lengths of blocks are shrunk by: lam, or lam w (2, p) or (p,)."""
        weight = block_weights(self.program)
        return self.lam if weight is None else self.lam * weight.reshape(self.program.block_shape)

    @property
    def quadratic(self) -> bool:
        """The loss stays in the quadratic."""
        return isinstance(self.program.loss, SquaredLoss)

    def cone(self, weights: Array) -> Array:
        """K theta."""
        return self.length * self.signs * matmul(weights, self.cone_rows.unit.T)

    def cone_adjoint(self, multipliers: Array) -> Array:
        """K^T mu."""
        return self.length * matmul(self.signs * multipliers, self.cone_rows.unit)

    def dual_elements(self, multipliers: Array) -> DualElements:
        """K^T mu of all blocks in flat order, for mu >= 0."""
        # Without cones there are no rows, and -1 would be any number of blocks.
        blocks = math.prod(multipliers.shape[:-1])
        mu = self.length * multipliers.reshape(blocks, multipliers.shape[-1])
        signs = jnp.broadcast_to(self.signs, multipliers.shape).reshape(mu.shape)
        return DualElements.of(self.cone_rows, signs, mu)


class Point(NamedTuple):
    """Copy plus scaled multiplier of each split."""

    norm: Array
    cone: Array
    loss: Array


class Penalty(NamedTuple):
    """rho of the norm and cone split, eta of the loss split."""

    rho: Array
    eta: Array


def split_program(program: Program, lam: Array) -> Splitting:
    """The splitting of a program, and its eigendecomposition."""
    X, masks = jnp.asarray(program.X), float_masks(program)
    n, d = X.shape
    length = (_CONE_WEIGHT * d / n) ** 0.5
    cone_rows = shared_rows(X if program.has_cones else X[:0])
    rows = length * cone_rows.unit
    signs = cone_signs(masks[: rows.shape[0]], jnp.arange(masks.shape[1]), X.dtype)
    eye = jnp.eye(d, dtype=X.dtype)
    inverse = cho_solve(cho_factor(eye + matmul(rows.T, rows)), eye)
    root = jnp.sqrt(sample_weights(program))
    shared = matmul(masks, masks.T) * (2.0 if program.has_cones else 1.0)
    gram = shared * matmul(matmul(X, inverse), X.T) * root[:, None] * root[None]
    values, vectors = jnp.linalg.eigh(gram)
    return Splitting(
        program,
        lam,
        cone_rows,
        length,
        signs[None] if program.has_cones else signs,
        inverse,
        vectors,
        jnp.maximum(values, 0.0),
        root,
    )


def joint_norm(*arrays: Array) -> Array:
    """Euclidean norm of several arrays taken together."""
    return jnp.sqrt(sum((jnp.sum(a * a) for a in arrays), jnp.zeros((), arrays[0].dtype)))


def loss_penalty(split: Splitting, f: Array) -> Array:
    """eta: the mean curvature of the loss, as if it were a quadratic; 1 for the squared loss."""
    program = split.program
    if split.quadratic:
        return jnp.ones((), f.dtype)
    y, weight = jnp.asarray(program.y), sample_weights(program)
    total = jnp.sum(weight)
    mean = jnp.sum(total_curvature(program.loss, f, y, weight)) / jnp.where(total > 0, total, 1.0)
    return jnp.maximum(mean, jnp.asarray(1e-2 * program.loss.smoothness, f.dtype))


def prox_loss(loss: Loss, point: Array, target: Array, eta: Array) -> Array:
    """argmin_f loss(f) + eta/2 (f - point)^2 for every sample, by safeguarded Newton steps."""
    # loss' is increasing, so that the solution lies between these two.
    other = point - loss.gradient(point, target) / eta
    bracket = jnp.minimum(point, other), jnp.maximum(point, other)

    def newton(_: int, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        f, low, high = state
        slope = loss.gradient(f, target) + eta * (f - point)
        low, high = jnp.where(slope < 0, f, low), jnp.where(slope > 0, f, high)
        new = f - slope / (curvature(loss, f, target) + eta)
        return jnp.where((new >= low) & (new <= high), new, 0.5 * (low + high)), low, high

    return jax.lax.fori_loop(0, _PROX_STEPS, newton, (point, *bracket))[0]


def copies(split: Splitting, point: Point, rho: Array) -> tuple[Array, Array]:
    """The copies a and s of the module's docstring."""
    return block_soft_threshold(point.norm, split.threshold / rho), jnp.maximum(point.cone, 0.0)


def relaxed_step(split: Splitting, point: Point, penalty: Penalty) -> tuple[Point, Array, Array]:
    """One relaxed step; also theta and K theta."""
    program, (rho, eta) = split.program, penalty
    a, s = copies(split, point, rho)
    y = jnp.asarray(program.y)
    f = y if split.quadratic else prox_loss(program.loss, point.loss, y, eta)
    target = y if split.quadratic else 2.0 * f - point.loss
    reflected = 2.0 * a - point.norm + split.cone_adjoint(jnp.abs(point.cone))
    theta = matmul(reflected, split.inverse)
    partial = fit(program, theta)
    missing = matmul(split.root * (target - partial), split.vectors)
    delta = matmul(split.vectors, missing / (rho / eta + split.values))
    theta = theta + matmul(raw_correlations(program, split.root * delta), split.inverse)
    cone = split.cone(theta)
    loss = point.loss
    if not split.quadratic:
        # F theta, without another product; a sample of weight zero has no say.
        seen = split.root > 0
        final = target - (rho / eta) * delta / jnp.where(seen, split.root, 1.0)
        loss = loss + _RELAXATION * (jnp.where(seen, final, partial) - f)
    point = Point(
        point.norm + _RELAXATION * (theta - a), point.cone + _RELAXATION * (cone - s), loss
    )
    return point, theta, cone


def rescale(split: Splitting, point: Point, old: Penalty, new: Penalty) -> Point:
    """The point of the same copies and multipliers under other penalties."""
    a, s = copies(split, point, old.rho)
    ratio = old.rho / new.rho
    return point._replace(norm=a + ratio * (point.norm - a), cone=s + ratio * (point.cone - s))
