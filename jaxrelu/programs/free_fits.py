r"""The best fit of what is neither penalised nor confined, from any other fit.

With A the features of such blocks (a skip connection, gates of weight zero) the optimum has
A^T r = 0. Newton's method for the smallest loss(f + A u) gets there from a fit nearby:

    u = (A^T H A)^-1 A^T r,     H = diag(c_i l''(f_i)),

in steps 1, 1/4, 1/16, ... of it, of which the one with the smallest ||A^T r||_(A^T H A)^-1 is taken
as long as there is one that is smaller. The residual there is a better dual vector than that of the
fit that was given, and as valid.

With kinks the fit does not say the residual, and one that is given is taken to the nearest between
the slopes [low, high] with A^T r = 0, which is clip(r + A x) at the smallest

    phi(x) = sum_i psi(r_i + (A x)_i),     psi' = clip,

piecewise quadratic and convex. Newton's steps end on its last piece; one of the steps that are
tried takes A^T A, which is at least the second derivative, and always leads down.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, matmul
from jaxrelu.losses.base import total_curvature
from jaxrelu.losses.kinks import TwoSlopes, has_kinks
from jaxrelu.programs.bias import has_bias
from jaxrelu.programs.constants import best_constant, has_constant_alone, of_sum_zero
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.program import Program, residual_at, sample_weights
from jaxrelu.programs.skip import SkipGatedProgram, SkipProgram
from jaxrelu.programs.unpenalised import (
    FreeFeatures,
    absent_as_one,
    free_features,
    scaled_gram,
)

_MOST_STEPS = 30
# The shares of a step that are tried.
_SHARES = (1.0, 0.25, 0.0625, 0.015625)
# And those of a step to the nearest residual, the last of another step.
_SHARES_OF_DUAL = (1.0, 0.25, 0.0625, 0.0)


class _Reached(NamedTuple):
    fit: Array
    done: Array
    steps: Array


def residual_of_best(program: Program, fit: Array) -> Array:
    """The residual (n,) at the best fit; that of the fit (n,) itself without such blocks."""
    given = residual_at(program, fit)
    weight = block_weights(program)
    if weight is None:
        return given
    features = free_features(program, (weight == 0).reshape(-1, program.patterns.masks.shape[1]))

    def found() -> Array:
        return residual_at(program, _best(program, fit, _open_columns(program, features)))

    best: Array = jax.lax.cond(jnp.any(features.open), found, lambda: given)
    return best


def balanced(program: Program, residual: Array) -> Array:
    """A residual (n,) of a loss with kinks as one that what has no cone and no weight asks for.

    That of any other program or loss is what it was.
    """
    weight = block_weights(program)
    if not has_kinks(program.loss) or weight is None:
        return residual
    if has_constant_alone(program):
        return of_sum_zero(program, residual)
    features = free_features(program, (weight == 0).reshape(-1, program.patterns.masks.shape[1]))

    def found() -> Array:
        return _nearest_dual(program, residual, _open_columns(program, features))

    best: Array = jax.lax.cond(jnp.any(features.open), found, lambda: residual)
    return best


def best_fit(program: Program) -> Array:
    """The best fit (n,) of such blocks alone."""
    weight, zero = block_weights(program), jnp.zeros_like(jnp.asarray(program.y))
    assert weight is not None
    features = free_features(program, (weight == 0).reshape(-1, program.patterns.masks.shape[1]))
    return _best(program, zero, _open_columns(program, features))


def fit_of_nothing(program: Program) -> Array:
    """The fit (n,) of zero weights, with a skip connection or a constant at its best."""
    if isinstance(program, SkipProgram | SkipGatedProgram):
        if not has_kinks(program.loss):
            return best_fit(program)
        if has_bias(program) and isinstance(program.loss, TwoSlopes):
            return jnp.full_like(jnp.asarray(program.y), best_constant(program))
    return jnp.zeros_like(jnp.asarray(program.y))


def _open_columns(program: Program, features: FreeFeatures) -> Array:
    """The features (n, k d) of such blocks, zeros in the place of others."""
    open_ones = jnp.repeat(features.open, program.X.shape[1])
    return jnp.where(open_ones[None], features.columns, 0.0)


def _best(program: Program, fit: Array, A: Array) -> Array:
    y, weight = jnp.asarray(program.y), sample_weights(program)
    shares = jnp.asarray(_SHARES, fit.dtype)

    def step(now: _Reached) -> _Reached:
        bend = total_curvature(program.loss, now.fit, y, weight)
        gram = absent_as_one(scaled_gram(A, jnp.sqrt(jnp.maximum(bend, 0.0))))
        ridge = 8.0 * len(gram) * eps(fit.dtype) * jnp.trace(gram)
        factor = jax.scipy.linalg.cho_factor(gram + ridge * jnp.eye(len(gram), dtype=gram.dtype))

        def newton(at: Array) -> tuple[Array, Array]:
            """The step, and the merit."""
            z = matmul(residual_at(program, at), A)
            u = jax.scipy.linalg.cho_solve(factor, z)
            return u, jnp.sum(z * u)

        u, merit = newton(now.fit)
        tried = now.fit[None] + shares[:, None] * matmul(A, u)[None]
        merits = jax.vmap(lambda at: newton(at)[1])(tried)
        best = jnp.argmin(jnp.where(merits >= 0, merits, jnp.inf))
        better = merits[best] < 0.5 * merit
        at = jnp.where(better, tried[best], now.fit)
        return _Reached(at, ~better, now.steps + 1)

    start = _Reached(fit, jnp.asarray(False), jnp.asarray(0, jnp.int32))
    end = jax.lax.while_loop(lambda s: ~s.done & (s.steps < _MOST_STEPS), step, start)
    return end.fit


class _Moved(NamedTuple):
    x: Array
    done: Array
    steps: Array


def _nearest_dual(program: Program, residual: Array, A: Array) -> Array:
    c, (low, high) = sample_weights(program), program.loss.slopes(jnp.asarray(program.y))  # type: ignore[attr-defined]
    least, most = -c * high, -c * low
    shares = jnp.asarray(_SHARES_OF_DUAL, A.dtype)
    other = shares == 0

    def factor(inside: Array) -> Any:
        gram = absent_as_one(scaled_gram(A, inside))
        ridge = 8.0 * len(gram) * eps(A.dtype) * jnp.trace(gram)
        return jax.scipy.linalg.cho_factor(gram + ridge * jnp.eye(len(gram), dtype=A.dtype))

    whole = factor(jnp.ones_like(residual))

    def at(x: Array) -> tuple[Array, Array, Array]:
        """Phi, the gradient and its length."""
        point = residual + matmul(A, x)
        r = jnp.clip(point, least, most)
        slope = matmul(r, A)
        size = jnp.sum(slope * jax.scipy.linalg.cho_solve(whole, slope))
        return jnp.sum(r * (point - 0.5 * r)), slope, size

    def step(now: _Moved) -> _Moved:
        value, slope, size = at(now.x)
        point = residual + matmul(A, now.x)
        inside = ((point > least) & (point < most)).astype(A.dtype)
        newton = jax.scipy.linalg.cho_solve(factor(inside), slope)
        safe = jax.scipy.linalg.cho_solve(whole, slope)
        steps = jnp.where(other[:, None], safe[None], shares[:, None] * newton[None])
        tried = now.x[None] - steps
        values, _, sizes = jax.vmap(at)(tried)
        # A step that is no number is none.
        values, sizes = (jnp.where(jnp.isnan(v), jnp.inf, v) for v in (values, sizes))
        lowest, shortest = jnp.argmin(values), jnp.argmin(sizes)
        falls = values[lowest] < value - 16.0 * eps(A.dtype) * jnp.abs(value)
        better = falls | (sizes[shortest] < 0.25 * size)
        x = jnp.where(falls, tried[lowest], jnp.where(better, tried[shortest], now.x))
        return _Moved(x, ~better, now.steps + 1)

    start = _Moved(jnp.zeros_like(A[0]), jnp.asarray(False), jnp.asarray(0, jnp.int32))
    end = jax.lax.while_loop(lambda s: ~s.done & (s.steps < _MOST_STEPS), step, start)
    return jnp.clip(residual + matmul(A, end.x), least, most)
