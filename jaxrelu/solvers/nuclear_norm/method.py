r"""An augmented Lagrangian for blocks under nuclear norms, with Newton steps in the fit.

For min loss(A V) + lam sum_j ||V_j||_* the method of multipliers on the dual minimises, for given V
and sigma, over residuals R

    psi(R) = loss*(-R) + 1/(2 sigma) sum_j || T_j ||_F^2,
    T = threshold(V + sigma A^T R, sigma lam),

and goes on from V = T. Residuals are taken where some fit F has them, R(F) = -loss'(F): then
loss*(-R) = -<R, F> - loss(F), the gradient of psi is G = A T - F, and where it is zero T has the
fit F. The step of F along the solution D of the Newton system lowers psi, with slope -<D, H G>.
sigma grows while subproblems are easy: near the end one or two steps solve each.

Reference: Zhang, Zhang, Sun and Toh, Math. Program. 179 (2020), for group lassos with one output;
Jiang, Sun and Toh, Math. Program. Comput. 6 (2014), for nuclear norms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps
from jaxrelu.geometry.singular_values import Threshold, singular_values, tall, threshold
from jaxrelu.losses.base import Loss, total, total_gradient
from jaxrelu.programs.vector_program import outputs_correlations, outputs_fit
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.nuclear_norm.newton_system import newton_step

_POWER_STEPS = 12
_FIRST_SIGMA = 4.0
# Of the size of A (T - V), how far off the fit of a subproblem may be.
_INEXACT = 0.1
_LEAST_ACCURACY = 1e-3
_HALVINGS = 16
# Newton steps that a subproblem may take.
_HARD = 16
_DECREASE = 1e-4
# Newton steps that lead nowhere before the end.
_PATIENCE = 6


class Blocks(NamedTuple):
    """Data of the problem: X (n, d), factors (n, p), targets (n, c), weights (n,), the loss."""

    X: Array
    factors: Array
    targets: Array
    weight: Array
    loss: Loss

    def fit(self, blocks: Array) -> Array:
        """A V (n, c)."""
        return outputs_fit(self.X, self.factors, blocks)

    def correlations(self, residual: Array) -> Array:
        """A^T R (p, d, c)."""
        return outputs_correlations(self.X, self.factors, residual)

    def gradient(self, fit: Array) -> Array:
        """Of the loss, (n, c)."""
        return total_gradient(self.loss, fit, self.targets, self.weight)

    def value(self, fit: Array) -> Array:
        """Of the loss."""
        return total(self.loss, fit, self.targets, self.weight)

    def curvature(self) -> Array:
        """The largest eigenvalue of A A^T, nearly, from below."""
        vector = jnp.ones((self.X.shape[0], 1), self.X.dtype)
        size = jnp.ones((), self.X.dtype)
        for _ in range(_POWER_STEPS):
            vector = self.fit(self.correlations(vector))
            size = jnp.sqrt(jnp.sum(vector**2))
            vector = vector / jnp.where(size > 0, size, 1.0)
        return jnp.where(size > 0, size, 1.0)


class Point(NamedTuple):
    """Where a solve stands: blocks (p, d, c), a fit (n, c), sigma (0 if it is not known)."""

    blocks: Array
    fit: Array
    sigma: Array


class Found(NamedTuple):
    """What a solve ends with.

    Attributes:
        blocks: (p, d, c), of the lowest objective.
        residual: (n, c), of the highest dual value.
        point: where to go on from.
        num_steps: int32, Newton steps.
        finite: bool.
        exhausted: bool, the steps ran out.
    """

    blocks: Array
    residual: Array
    point: Point
    num_steps: Array
    finite: Array
    exhausted: Array


class _Trial(NamedTuple):
    """psi at a fit, and what it is made of."""

    residual: Array
    lowered: Threshold
    blocks: Array
    value: Array


class _State(NamedTuple):
    point: Point
    best: Array
    residual: Array
    upper: Array
    lower: Array
    inner: Array
    idle: Array
    steps: Array
    finite: Array


def solve_blocks(
    problem: Blocks, lam: Array, tolerance: Tolerance, max_steps: Array, start: Point
) -> Found:
    """Solves the problem at lam as far as the tolerance asks and the steps allow."""
    dtype = problem.X.dtype
    tiny = 10 * eps(dtype)
    as_tall = tall(start.blocks).shape != start.blocks.shape

    def back(blocks: Array) -> Array:
        return jnp.swapaxes(blocks, 1, 2) if as_tall else blocks

    def trial(point: Point, fit: Array) -> _Trial:
        residual = -problem.gradient(fit)
        moved = tall(point.blocks + point.sigma * problem.correlations(residual))
        lowered = threshold(moved, point.sigma * lam)
        conjugate = -jnp.sum(residual * fit) - problem.value(fit)
        value = conjugate + jnp.sum(lowered.sizes() ** 2) / (2.0 * point.sigma)
        return _Trial(residual, lowered, back(lowered.matrices()), value)

    def newton(state: _State, at: _Trial, gradient: Array, share: Array) -> tuple[Array, Array]:
        """The fit after a step, and whether psi went down."""
        point = state.point
        _, hessian = jax.linearize(problem.gradient, point.fit)

        def smoothed(change: Array) -> Array:
            blocks = at.lowered.derivative(tall(problem.correlations(change)))
            return point.sigma * problem.fit(back(blocks))

        accuracy = jnp.clip(share, tiny, _LEAST_ACCURACY)
        step = newton_step(smoothed, hessian, gradient, accuracy)
        slope = -jnp.sum(step * hessian(gradient))

        def searching(search: tuple[Array, Array, Array]) -> Array:
            _, count, lower = search
            return ~lower & (count < _HALVINGS)

        def search(search: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            length, count, _ = search
            length = jnp.where(count == 0, length, 0.5 * length)
            value = trial(point, point.fit + length * step).value
            allowed = at.value + _DECREASE * length * slope + tiny * jnp.abs(at.value)
            return length, count + 1, value <= allowed

        one = jnp.ones((), dtype)
        first = one, jnp.asarray(0, jnp.int32), jnp.asarray(False)
        length, _, lower = jax.lax.while_loop(searching, search, first)
        return point.fit + length * step, lower

    def step(state: _State) -> _State:
        point = state.point
        at = trial(point, point.fit)
        image = problem.fit(at.blocks)
        gradient = image - point.fit
        upper = problem.value(image) + lam * jnp.sum(at.lowered.sizes())
        lower = _dual_value(problem, lam, at.residual)
        better = upper < state.upper
        best = jnp.where(better, at.blocks, state.best)
        higher = lower > state.lower
        residual = jnp.where(higher, at.residual, state.residual)
        size = jnp.sqrt(jnp.sum(gradient**2))
        progress = jnp.sqrt(jnp.sum(problem.fit(at.blocks - point.blocks) ** 2))
        reach = jnp.sqrt(jnp.sum(point.fit**2))
        solved = (size <= _INEXACT * progress) | (size <= tiny * reach)
        share = size / jnp.where(reach > 0, reach, 1.0)

        def go_on(_: None) -> tuple[Point, Array, Array]:
            easy = jnp.where(state.inner <= 5, 3.0, jnp.where(state.inner <= 10, 1.5, 0.7))
            factor = jnp.where(state.inner <= 2, 8.0, easy).astype(dtype)
            return (
                Point(at.blocks, point.fit, factor * point.sigma),
                0 * state.inner,
                jnp.asarray(False),
            )

        def inside(_: None) -> tuple[Point, Array, Array]:
            fit, lower = newton(state, at, gradient, share)
            return point._replace(fit=fit), state.inner + 1, ~lower

        moved, inner, failed = jax.lax.cond(solved, go_on, inside, None)
        # psi is as low as its rounding lets it be; or sigma is too large for Newton's method.
        hard = inner >= _HARD
        smaller = jnp.where(hard, 0.1, jnp.where(failed, 0.5, 1.0)).astype(dtype)
        moved = moved._replace(
            blocks=jnp.where(failed, at.blocks, moved.blocks), sigma=smaller * moved.sigma
        )
        inner = jnp.where(hard, 0, inner)
        closer = jnp.minimum(upper, state.upper) - jnp.maximum(lower, state.lower) < 0.99 * (
            state.upper - state.lower
        )
        idle = jnp.where(closer, 0, state.idle + _one(failed | solved | hard))
        finite = jnp.isfinite(size) & jnp.isfinite(upper)
        after = _State(
            moved, best, residual, jnp.where(better, upper, state.upper),
            jnp.where(higher, lower, state.lower), inner, idle, state.steps + _one(~solved), finite,
        )  # fmt: skip
        # The last point that is finite is kept.
        after = jax.tree.map(lambda a, b: jnp.where(finite, a, b), after, state)
        return after._replace(finite=finite)  # type: ignore[no-any-return]

    def going(state: _State) -> Array:
        open_ = ~tolerance.met(state.upper, state.lower)
        return open_ & state.finite & (state.steps < max_steps) & (state.idle < _PATIENCE)

    zero = jnp.asarray(0, jnp.int32)
    sigma = jnp.where(start.sigma > 0, start.sigma, _FIRST_SIGMA / problem.curvature())
    residual = -problem.gradient(start.fit)
    upper = problem.value(start.fit) + lam * jnp.sum(singular_values(tall(start.blocks)))
    first = _State(
        start._replace(sigma=sigma), start.blocks, residual, upper,
        _dual_value(problem, lam, residual), zero, zero, zero, jnp.isfinite(upper),
    )  # fmt: skip
    end = jax.lax.while_loop(going, step, first)
    out = (end.steps >= max_steps) & ~tolerance.met(end.upper, end.lower)
    return Found(end.best, end.residual, end.point, end.steps, end.finite, out)


def _one(condition: Array) -> Array:
    return condition.astype(jnp.int32)


def _dual_value(problem: Blocks, lam: Array, residual: Array) -> Array:
    """Of the residual, shortened until it is feasible."""
    largest = jnp.max(singular_values(tall(problem.correlations(residual))), initial=0.0)
    t = jnp.minimum(1.0, lam / jnp.where(largest > 0, largest, 1.0))
    absent = (problem.weight == 0)[:, None]
    share = -t * residual / jnp.where(absent, 1.0, problem.weight[:, None])
    terms: Any = problem.loss.conjugate(share, problem.targets)
    terms = terms if terms.ndim == 1 else jnp.sum(terms, axis=1)
    return -jnp.sum(jnp.where(absent[:, 0], 0.0, problem.weight * terms))
