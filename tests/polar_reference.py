"""The polar gauge R(r) = max over ||u|| <= 1 of |r^T (X u)_+| from every face of every cell.

A maximum over the ball lies inside some face of the arrangement, where the value is linear: there u
is along the projection of the cell's vector on the span of the face, the null space of some rows.
Every candidate is evaluated, so that this can never be above R. No projection on a cone is taken:
SciPy's NNLS returns points outside of degenerate cones.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume
from scipy.optimize import lsq_linear

from jaxrelu.geometry.host.arrangements import half_cells
from jaxrelu.global_optimality.polar_gauge.ascent import local_maxima
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement, values_of

L, K, STARTS = 7, 3, 32  # the shape of `instance`, and of most data of the tests


def value(X, r, direction):
    """|r^T (X u)_+|."""
    return abs(float(np.asarray(r, float) @ np.maximum(np.asarray(X, float) @ direction, 0.0)))


def largest(X, r):
    """R(r), for data of ordinary scale."""
    X, r = np.asarray(X, float), np.asarray(r, float)
    X, r = X[X.any(axis=1)], r[X.any(axis=1)]
    if len(X) == 0:
        return 0.0
    bits = half_cells(X, np.finfo(float).eps)[0]
    masks = np.concatenate([bits, ~bits])
    vectors = (masks * r) @ X
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    best = 0.0
    for size in range(np.linalg.matrix_rank(X)):
        for rows in itertools.combinations(range(len(X)), size):
            walls = unit[list(rows)]
            inside = vectors - vectors @ (np.linalg.pinv(walls, rcond=1e-9) @ walls)
            length = np.linalg.norm(inside, axis=1)
            usable = length > 1e-9 * np.abs(vectors).max()
            if usable.any():
                u = inside[usable] / length[usable, None]
                heights = np.concatenate([u, -u]) @ X.T
                best = max(best, float(np.abs(np.maximum(heights, 0.0) @ r).max()))
    return best


def hausdorff(X, r):
    """R(r) of any rank: the farthest vertex of the zonotope of one sign's rows from the other's."""
    best = 0.0
    for sign in (1.0, -1.0):
        rows, others = (np.abs(r)[side, None] * X[side] for side in (sign * r > 0, sign * r < 0))
        for bits in itertools.product((0.0, 1.0), repeat=len(rows)):
            vertex = np.asarray(bits) @ rows
            nearest = lsq_linear(others.T, vertex, (0.0, 1.0), method="bvls").x
            best = max(best, float(np.linalg.norm(vertex - nearest @ others)))
    return best


def instance(seed):
    """Lines, both coefficients of each, and R: integers, nearly degenerate lines, both sides."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-3, 4, (L, K)).astype(float)
    X += rng.choice([0.0, 0.0, 1e-4, 1.0]) * rng.standard_normal((L, K))
    arrangement = Arrangement(X)
    assume(arrangement.lines.shape == (L, K))
    front, back = rng.integers(-3, 4, (2, L)).astype(float)
    kind = rng.integers(0, 4)
    if kind == 1:
        back = 0.0 * front
    elif kind == 2:
        back = -front + 1e-6 * rng.integers(-3, 4, L)  # almost linear
    elif kind == 3:
        front, back = -np.abs(front), -np.abs(back)  # of one sign
    lines = arrangement.lines
    exact = largest(np.concatenate([lines, -lines]), np.concatenate([front, back]))
    assume(exact > 0)
    return lines, front, back, exact


def attained(lines, front, back, direction):
    """The value of a direction, which must be a unit vector."""
    assert np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-14)
    return float(np.abs(values_of(lines, front, back, direction[None]))[0])


def maxima(lines, front, back, seed, starts=None):
    """Local maxima of both sides of lines from random starts."""
    rng = np.random.default_rng(seed)
    X, r = np.concatenate([lines, -lines]), np.concatenate([front, back])
    starts = rng.standard_normal((STARTS, K)) if starts is None else starts
    return local_maxima(jnp.asarray(X), jnp.asarray(r), jnp.asarray(starts), 16)
