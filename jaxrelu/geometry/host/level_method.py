"""A convex function of the coefficients, minimised over their polytope with a proof: level method.

The largest of the tangents at the points met is below the function, and a linear program has its
minimum over the polytope.

Reference: Kelley (1960) on cutting planes; Lemarechal, Nemirovskii and Nesterov (1995).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog, minimize

from jaxrelu.core.aliases import Floats
from jaxrelu.geometry.host.polytopes import ROUNDING, Polytope, shortest

_MOST_ROUNDS = 300
_CLOSE = 1e-8
_CLOSE_ENOUGH = 1e-6


def minimise(
    P: Polytope, value: Callable[[Floats], float], slope: Callable[[Floats], Floats]
) -> Floats:
    """The member (k,) where a convex function of it is smallest, shown to be so by a lower bound.

    The next point is the projection of the last onto where the tangents are
    half-way between that bound and the best value: the level method. Kinks do no harm. Scipy's
    SLSQP finds the first point, which spares smooth functions most of the rounds; its word is not
    taken, as it also says that it converged where it did not.

    Raises:
        RuntimeError: the bounds did not meet, to 1e-6 of the value there or at the start (or of a
            hundredth of the steepest tangent); 1e-8 is what the rounds aim at.
    """
    k = P.num
    if P.null.shape[1] == 0:
        return P.start[:k]
    N, size = P.null, P.size

    # Of all coordinates (K,): distances from ends do not enter.
    def height_at(x: Floats) -> float:
        return value(x[:k])

    def slope_at(x: Floats) -> Floats:
        return np.append(slope(x[:k]), np.zeros(len(x) - k))

    best, upper, lower = P.start, height_at(P.start), -np.inf
    first, gap = (abs(upper) if np.isfinite(upper) else 0.0), np.inf
    steepest = float(np.nan_to_num(size * np.linalg.norm(N.T @ slope_at(P.start)), posinf=0.0))
    tangents: list[Floats] = []
    heights: list[float] = []
    here = _descent(P, height_at, slope_at)
    for _ in range(_MOST_ROUNDS):
        height, tangent = height_at(here), _along(P, slope_at(here))
        if not (np.isfinite(height) and np.all(np.isfinite(tangent))):
            here = 0.5 * (here + best)
            continue
        tangents.append(tangent)
        heights.append(float(height - tangent @ here / size))
        steepest = max(steepest, float(np.linalg.norm(tangent)))
        G, c = np.array(tangents), np.array(heights)
        corner, bound = _lowest(P, G, c)
        best, upper = min(
            [(best, upper), (here, height), (corner, height_at(corner))],
            key=lambda pair: pair[1] if np.isfinite(pair[1]) else np.inf,
        )
        lower = max(lower, bound)
        # Linear programs leave 1e-10 of the numbers in them.
        gap = (upper - lower) / max(abs(upper), first, 1e-2 * steepest, 1e-300)
        if gap < -_CLOSE_ENOUGH:
            break  # a tangent above the function
        if gap <= _CLOSE:
            return best[:k]
        level = 0.5 * (lower + upper)
        low = np.concatenate([-here / size, c + G @ here / size - level])
        step = shortest(np.vstack([N, -G @ N]), low) if np.isfinite(level) else None
        moved = None if step is None else _member(P, here + size * (N @ step))
        here = corner if moved is None else moved
    # What is left can be the rounding of steep functions.
    if abs(gap) <= _CLOSE_ENOUGH:
        return best[:k]
    raise RuntimeError(
        f"the criterion was not minimised over the optimal set: the bounds are {lower:.9g} and "
        f"{upper:.9g}. Pass a function that is convex, and finite on the set."
    )


def _along(P: Polytope, slope: Floats) -> Floats:
    """A slope of the coefficients in units of their sum, along the polytope alone."""
    inside = P.size * (P.moves @ (P.null.T @ slope))
    return np.append(inside, np.zeros(len(slope) - P.num))


def _member(P: Polytope, point: Floats) -> Floats | None:
    """A point near P on its affine hull, or None if more than rounding is then below zero."""
    point = P.start + P.null @ (P.moves.T @ (point - P.start)[: P.num])
    return np.maximum(point, 0.0) if np.min(point) >= -ROUNDING * P.size else None


def _descent(
    P: Polytope, value: Callable[[Floats], float], slope: Callable[[Floats], Floats]
) -> Floats:
    """Where SLSQP ends, or the start of P where that is no better."""
    N, size = P.null, P.size
    scale = size * float(np.linalg.norm(N.T @ slope(P.start))) or 1.0

    def inside(t: Floats) -> Floats:
        return np.maximum(P.start + size * (N @ t), 0.0)

    found = minimize(
        lambda t: value(inside(t)) / scale,
        np.zeros(N.shape[1]),
        jac=lambda t: size / scale * (N.T @ slope(inside(t))),
        constraints=[{"type": "ineq", "fun": lambda t: P.start / size + N @ t, "jac": lambda t: N}],
        method="SLSQP",
        options={"maxiter": 200, "ftol": 1e-14},
    )
    member = _member(P, P.start + size * (N @ found.x))
    return member if member is not None and value(member) < value(P.start) else P.start


def _lowest(P: Polytope, tangents: Floats, heights: Floats) -> tuple[Floats, float]:
    """A member a where max_i <tangents_i, a / size> + heights_i is smallest, and that value."""
    rank, K = P.rows.shape
    shift, unit = float(np.max(heights)), float(np.max(np.linalg.norm(tangents, axis=1))) or 1.0
    found = linprog(
        np.append(np.zeros(K), 1.0),
        A_ub=np.hstack([tangents / unit, -np.ones((len(tangents), 1))]),
        b_ub=(shift - heights) / unit,
        A_eq=np.hstack([P.rows, np.zeros((rank, 1))]),
        b_eq=P.rows @ P.start / P.size,
        bounds=[(0.0, None)] * K + [(None, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        return P.start, -np.inf
    return P.size * np.maximum(found.x[:K], 0.0), unit * float(found.x[K]) + shift
