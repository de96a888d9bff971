r"""A bound of a quadratic form over a cone by a semidefinite program, the doubly non-negative one.

For K = {u : k_i . u >= 0} every matrix U = u u^T of a unit vector of K has trace one, is positive
semidefinite and has (K U K^T)_ij >= 0. So, with any symmetric N >= 0,

    max over u in K, ||u|| = 1 of u^T M u  <=  lambda_max(M + K^T N K),

and the best N is that of max { <M, U> : tr U = 1, U >= 0, K U K^T >= 0 }, solved here by a barrier:
its gradient t M + U^-1 + K^T W K, W_ij = 1 / (K U K^T)_ij, is a multiple of the identity at the end
of Newton's method, and N = W / t leaves a gap of (d + m^2) / t. Cones of four walls that are
independent have no gap besides; others may.

Reference: Diananda (1962) on copositive matrices of order four; Boyd and Vandenberghe, Convex
Optimization (2004), Chapter 11, for the barrier.
"""

from __future__ import annotations

import numpy as np

from jaxrelu.core.aliases import Floats

_EPS = 2.0**-52
_FASTER = 4.0
_MOST_STEPS = 300
_HALVINGS = 40
_CLOSE = 1e-10
_ROUGH = 1e-3


def relaxed_maximum(form: Floats, walls: Floats, inside: Floats, level: float) -> float:
    """An upper bound of u^T M u over the unit vectors of a cone.

    Args:
        form: M, (d, d), symmetric and positive semidefinite.
        walls: (m, d), k_i; some of those of the cone will do.
        inside: (d,), with k_i . u > 0 for all of them.
        level: a bound below this is good enough.

    Returns:
        The bound, rounding included; at most the largest eigenvalue.
    """
    d, m = len(form), len(walls)
    values = np.linalg.eigvalsh(form)
    share = (64.0 + d) * _EPS
    best = float(values[-1]) * (1.0 + share)
    scale = float(values[-1])
    heights = walls @ inside
    if best <= level or scale <= 0 or not np.all(heights > 0):
        return best
    M = form / scale
    basis = _symmetric_basis(d)
    pulled = np.einsum("id,ade,je->aij", walls, basis, walls, optimize=True).reshape(len(basis), -1)
    traces = np.einsum("add->a", basis)
    U = _start(walls, inside / np.linalg.norm(inside))
    lengths = np.linalg.norm(walls, axis=1)
    goal, t = float(d + m * m), 1.0
    for _ in range(_MOST_STEPS):
        inverse = np.linalg.inv(U)
        W = 1.0 / (walls @ U @ walls.T)
        gradient = t * M + inverse + walls.T @ W @ walls
        slope = np.einsum("ade,de->a", basis, gradient)
        own = np.einsum("ade,ef->adf", basis, inverse)
        hessian = np.einsum("adf,bfd->ab", own, own, optimize=True)
        hessian += (pulled * (W * W).ravel()) @ pulled.T
        system = np.block([[hessian, traces[:, None]], [traces[None], np.zeros((1, 1))]])
        try:
            step = np.linalg.solve(system, np.append(slope, 0.0))[:-1]
        except np.linalg.LinAlgError:
            break
        change = np.einsum("a,ade->de", step, basis)
        decrement = float(step @ slope)
        # To first order the multipliers after the step: it is these that balance the gradient.
        N = np.maximum(W - W * W * (walls @ change @ walls.T), 0.0) / t
        N = 0.5 * (N + N.T)
        raised = M + walls.T @ N @ walls
        raised = 0.5 * (raised + raised.T)
        # Rows may be off in coordinates of their span.
        rounding = (m + 136.0) * _EPS * (1.0 + float(lengths @ N @ lengths))
        bound = float(np.linalg.eigvalsh(raised)[-1]) + rounding
        best = min(best, scale * bound * (1.0 + share))
        if best <= level:
            break
        if decrement <= 0.5:
            reached = float(np.sum(M * U))
            # The relaxation itself is above the level.
            above = goal / t <= _ROUGH and scale * reached > level * (1.0 + _ROUGH)
            if goal / t <= _CLOSE or above:
                break
            t *= _FASTER
            continue
        new = _stepped(U, change, decrement, t * M, walls)
        if new is None:
            break
        U = new
    return best


def _start(walls: Floats, inside: Floats) -> Floats:
    """The mean of u u^T over points of the cone about half-way to its walls."""
    d = len(inside)
    directions = np.random.default_rng(0).standard_normal((4 * d, d))
    directions = np.concatenate([directions, -directions])
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    heights, slopes = walls @ inside, directions @ walls.T
    with np.errstate(divide="ignore"):
        reach = np.min(np.where(slopes < 0, heights / -np.minimum(slopes, 0.0), np.inf), axis=1)
    points = inside + 0.7 * np.minimum(reach, 1.0)[:, None] * directions
    U = points.T @ points
    return np.asarray(U / np.trace(U))


def _stepped(
    U: Floats, change: Floats, decrement: float, pull: Floats, walls: Floats
) -> Floats | None:
    """The point after a step that raises the barrier problem; None where none does."""

    def value(point: Floats) -> float:
        products = walls @ point @ walls.T
        sign, size = np.linalg.slogdet(point)
        if sign <= 0 or np.min(products) <= 0 or np.linalg.eigvalsh(point)[0] <= 0:
            return -np.inf
        return float(np.sum(pull * point) + size + np.sum(np.log(products)))

    length, before = 1.0, value(U)
    for _ in range(_HALVINGS):
        new = U + length * change
        if value(new) >= before + 0.1 * length * decrement:
            return new
        length *= 0.5
    return None


def _symmetric_basis(d: int) -> Floats:
    i, j = np.triu_indices(d)
    basis = np.zeros((len(i), d, d))
    basis[np.arange(len(i)), i, j] = 1.0
    basis[np.arange(len(i)), j, i] = 1.0
    return basis
