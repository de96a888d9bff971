r"""Directions of large value: the convex-concave procedure from many starts at once.

With s in {1, -1}, the value s r^T (X u)_+ is convex in u over the rows where s r_j > 0 and concave
over the others. A step replaces the convex part by its tangent at u, and maximises what is left
over the unit ball exactly: a distance from a zonotope
(`jaxrelu.global_optimality.polar_gauge.zonotope`). The value never falls, walls of the concave rows
are no obstacle (most maxima lie on many of them, where gradient steps zigzag), and the vertices
visited are finitely many.

All starts take cheap steps first, in which the distance is approached by projected gradients, warm
from step to step; the best distinct ones take exact steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import CALL
from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.global_optimality.polar_gauge.zonotope import distances

_CHEAP_STEPS = 40
_INNER_STEPS = 4
_EXACT_STEPS = 8
# What a projection takes, roughly, and how much dearer thin products and comparisons are.
_PROJECTION_STEPS = 30
_ELEMENTWISE = 4


class Maxima(NamedTuple):
    """Local maxima of |r^T (X u)_+|, the largest first.

    Attributes:
        values: (m,), of s r^T (X u)_+.
        directions: (m, d), unit u.
        signs: (m,), s.
    """

    values: Floats
    directions: Floats
    signs: Floats


def ascent_cost(starts: int, rows: int, rank: int, keep: int = 64) -> float:
    """Operations of `local_maxima`."""
    cheap = 2 * starts * _CHEAP_STEPS * (4 * _INNER_STEPS + 4)
    exact = keep * _EXACT_STEPS * _PROJECTION_STEPS * (rank + 2)
    return CALL + _ELEMENTWISE * float(rows * rank * (cheap + exact))


def local_maxima(X: Array, r: Array, starts: Array, keep: int = 64) -> Maxima:
    """The best of the local maxima that the starts lead to.

    Args:
        X: (n, d).
        r: (n,).
        starts: (m, d), directions of any length; each is used for both signs.
        keep: so many take exact steps.

    Returns:
        `Maxima` of at most `keep` directions, one for each value.
    """
    signs = jnp.repeat(jnp.asarray([1.0, -1.0], X.dtype), len(starts))
    values, directions = _cheap(X, r, signs, jnp.tile(starts, (2, 1)))
    chosen = _distinct(np.asarray(values), keep)
    # Repeats fill the batch up, so that it has one shape.
    chosen = np.resize(chosen, keep)
    _, directions = _exact(X, r, signs[chosen], directions[chosen])
    # Whatever precision JAX worked in: these are values of unit vectors in float64.
    found = unit_rows(np.asarray(directions, np.float64))[0]
    side = np.asarray(signs, np.float64)[chosen]
    heights = found @ np.asarray(X, np.float64).T
    values = side * (np.maximum(heights, 0.0) @ np.asarray(r, np.float64))
    best = _distinct(values, keep)
    return Maxima(values[best], found[best], side[best])


def _distinct(values: Floats, keep: int) -> NDArray[np.intp]:
    """Indices of the largest values, one of each group that agrees to single precision."""
    order = np.argsort(-values, kind="stable")
    gaps = -np.diff(values[order], prepend=np.inf)
    fresh = gaps > 1e-6 * np.abs(values[order])
    return order[fresh][:keep]


def _value(X: Array, r: Array, signs: Array, directions: Array) -> Array:
    return signs * matmul(jnp.maximum(matmul(directions, X.T), 0.0), r)


def _tangent(X: Array, pull: Array, directions: Array) -> Array:
    """Gradients (m, d) of sum_j pull_j (x_j . u)_+."""
    return matmul(jnp.where(matmul(directions, X.T) > 0, pull, 0.0), X)


def _sides(r: Array, signs: Array) -> tuple[Array, Array]:
    """|r_j| (m, n) on the convex rows, and on the concave ones; zero elsewhere."""
    signed = signs[:, None] * r[None]
    return jnp.maximum(signed, 0.0), jnp.maximum(-signed, 0.0)


@compiled
def _cheap(X: Array, r: Array, signs: Array, starts: Array) -> tuple[Array, Array]:
    pull, push = _sides(r, signs)
    # Rows are scaled by their weights: t in [0, 1] then has one step size for all of them.
    spread = jnp.linalg.norm(X * jnp.abs(r)[:, None], 2) ** 2
    step = 1.0 / jnp.where(spread > 0, spread, 1.0)

    def ascend(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
        u, t, best, kept = state
        c = _tangent(X, pull, u)

        def descend(_: int, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            u, t = pair
            t = jnp.clip(t + step * push * matmul(u, X.T), 0.0, 1.0)
            return c - matmul(t * push, X), t

        u, t = jax.lax.fori_loop(0, _INNER_STEPS, descend, (c - matmul(t * push, X), t))
        u = unit(u)
        value = _value(X, r, signs, u)
        better = value > best
        return u, t, jnp.maximum(value, best), jnp.where(better[:, None], u, kept)

    u = unit(starts)
    t = 0.5 * (push > 0).astype(X.dtype)
    state = (u, t, _value(X, r, signs, u), u)
    _, _, values, directions = jax.lax.fori_loop(0, _CHEAP_STEPS, ascend, state)
    return values, directions


@compiled
def _exact(X: Array, r: Array, signs: Array, starts: Array) -> tuple[Array, Array]:
    pull, push = _sides(r, signs)
    rows = shared_rows(X)
    caps = push * rows.length[None]

    def ascend(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        value, u = state
        new = unit(distances(rows, jnp.ones_like(caps), _tangent(X, pull, u), caps).points)
        found = _value(X, r, signs, new)
        better = found > value
        return jnp.where(better, found, value), jnp.where(better[:, None], new, u)

    start = (_value(X, r, signs, starts), starts)
    values, directions = jax.lax.fori_loop(0, _EXACT_STEPS, ascend, start)
    return jnp.where(safe_norm(directions) > 0, values, 0.0), directions
