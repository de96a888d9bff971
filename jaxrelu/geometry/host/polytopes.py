r"""The polytope P = {a >= 0 : Z a = f} of coefficients, by linear programs and linear algebra.

Everything happens around one known member `start`: with N an orthonormal basis of the null space of
Z, P = {start + N t >= 0}, so that the rounding of f plays no part. Coefficients are measured
against their sum, which is constant on the polytopes of this package.

Linear and mixed-integer programs go to HiGHS through scipy; projections are least-distance programs
and go to its non-negative least squares (Lawson and Hanson, 1974, chapter 23). NumPy, float64, on
the host.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp, minimize

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.scaling import exponents, unit_rows

# Coefficients below this share of their sum are zero; HiGHS keeps its constraints to 1e-7.
ZERO = 1e-6
_RANK_TOLERANCE = 1e-9
_MOST_BASES = 200_000
_MOST_WORK = 2e10  # products in the factors of all bases
_AT_ONCE = 2**22  # entries of matrices: 32 MiB
_SLACK = 1e-11
_MOST_ROUNDS = 300
_CLOSE = 1e-8
_CLOSE_ENOUGH = 1e-6
_ROUNDING = 1e-9


class Polytope(NamedTuple):
    """P = {start + null t >= 0}.

    Attributes:
        start: (k,), a member.
        null: (k, m), orthonormal columns; m = 0 for a single point.
        rows: (rank, k), orthonormal rows that span the row space of Z.
        clear: no singular value of Z is near the line between zero and not zero.
    """

    start: Floats
    null: Floats
    rows: Floats
    clear: bool

    @property
    def size(self) -> float:
        """The sum of the coefficients, or one where they are all zero."""
        total = float(np.sum(self.start))
        return total if total > 0 else 1.0


def polytope(columns: Floats, start: Floats) -> Polytope:
    """The polytope of the members with the same Z a as `start`; Z (n, k)."""
    unit, norms = unit_rows(np.ldexp(columns, -exponents(columns)).T)
    scale = np.where(norms > 0, norms, 1.0)
    _, sigma, right = np.linalg.svd(unit.T, full_matrices=True)
    cut = _RANK_TOLERANCE * (sigma[0] if sigma.size else 0.0)
    rank = int(np.sum(sigma > cut))
    # In units of the columns themselves; orthonormal again.
    null = np.linalg.qr(right[rank:].T / scale[:, None])[0]
    rows = np.linalg.qr((right[:rank] * scale).T)[0].T
    clear = not np.any((sigma > 0.01 * cut) & (sigma < 100 * cut))
    return Polytope(np.asarray(start, float), null, rows, clear)


def maximise(P: Polytope, objective: Floats) -> Floats:
    """A vertex where <objective, a> is largest."""
    if P.null.shape[1] == 0:
        return P.start
    size = P.size
    t = _program(-P.null.T @ objective, -P.null, P.start / size, (None, None))
    member: Floats = np.maximum(P.start + size * (P.null @ t), 0.0)
    # What is zero but for rounding is zero, where the rest has the same Z a.
    exact = _on_support(P, member > ZERO * size)
    return member if exact is None else exact


def _program(cost: Floats, above: Floats, limit: Floats, bounds: Any) -> Floats:
    """Argmin of <cost, x> over above @ x <= limit and bounds, which has one."""
    for method in ("highs", "highs-ipm"):
        found = linprog(cost, A_ub=above, b_ub=limit, bounds=bounds, method=method)
        if found.x is not None:
            x: Floats = found.x
            return x
    raise RuntimeError(
        f"HiGHS did not solve a linear program over the optimal set ({found.message}): directions "
        "are too nearly equal. Remove samples or patterns that nearly repeat others."
    )


def _on_support(P: Polytope, used: Bools) -> Floats | None:
    """A member with these coefficients alone; None where there is none."""
    if not np.any(used):
        return None
    values, error = nonnegative_least_squares(P.rows[:, used], P.rows @ P.start / P.size)
    if error > _ROUNDING:
        return None
    member = np.zeros(used.size)
    member[used] = values * P.size
    return member


def relative_interior(P: Polytope) -> tuple[Floats, Bools, bool]:
    """A member of largest support, that support, and whether both ways to it agree.

    One linear program finds it: maximise sum s over s <= tau a, 0 <= s <= 1, tau >= 1, which is
    solved by s = 1 on the support. Each coefficient outside is then maximised on its own.
    """
    k, m = P.null.shape
    if m == 0:
        small = (P.start > _ROUNDING * P.size) & (P.start <= ZERO * P.size)
        return P.start, P.start > ZERO * P.size, not np.any(small)
    a0 = P.start / P.size
    # Variables: t (m), tau, s (k);  a = tau a0 + N t >= s.
    cost = np.concatenate([np.zeros(m + 1), -np.ones(k)])
    above = np.hstack([-P.null, -a0[:, None], np.eye(k)])
    bounds = [(None, None)] * m + [(1.0, None)] + [(0.0, 1.0)] * k
    x = _program(cost, above, np.zeros(k), bounds)
    t, tau, s = x[:m], x[m], x[m + 1 :]
    support = s > 0.5
    inside = np.maximum(a0 + (P.null @ t) / tau, 0.0)
    agree = True
    for index in np.flatnonzero(~support | (inside <= ZERO)):
        largest = maximise(P, np.eye(k)[index])[index]
        agree &= bool((largest > ZERO * P.size) == support[index])
    return np.where(support, inside, 0.0) * P.size, support, agree


def project(P: Polytope, point: Floats) -> Floats:
    """The member nearest to a point (k,), as a least-distance program."""
    N = P.null
    if N.shape[1] == 0:
        return P.start
    # a = start + N (x - N^T (start - point)), ||a - point||^2 = ||x||^2 + constant.
    size = P.size
    low = (P.start - N @ (N.T @ (P.start - point))) / size
    # Constraints that hold with equality on all of P would be violated by their rounding.
    x = _shortest(N, -(low + _SLACK))
    if x is None:
        raise RuntimeError("the projection did not converge: directions are too nearly equal.")
    member: Floats = np.maximum(size * (low + N @ x), 0.0)
    return member


def _member(P: Polytope, point: Floats) -> Floats | None:
    """A point near P on its affine hull, or None if more than rounding is then below zero."""
    point = P.start + P.null @ (P.null.T @ (point - P.start))
    return np.maximum(point, 0.0) if np.min(point) >= -_ROUNDING * P.size else None


def _shortest(rows: Floats, low: Floats) -> Floats | None:
    """The shortest x with rows @ x >= low, by non-negative least squares; None if it finds none."""
    # Rows of norm one, so that what is missing is a distance.
    norms = np.linalg.norm(rows, axis=1)
    rows, low = rows[norms > 0] / norms[norms > 0, None], low[norms > 0] / norms[norms > 0]
    scale = float(np.max(low, initial=0.0))
    if scale <= 0:
        return np.zeros(rows.shape[1])
    matrix = np.vstack([rows.T, low[None] / scale])
    last = np.append(np.zeros(rows.shape[1]), 1.0)
    residual = matrix @ nonnegative_least_squares(matrix, last)[0] - last
    # The last entry is minus the square of the distance that is left: zero where nothing fits.
    if not residual[-1] < -1e-14:
        return None
    x: Floats = -scale * residual[:-1] / residual[-1]
    return x


def smallest_maximum(P: Polytope) -> Floats:
    """A member whose largest coefficient is as small as can be."""
    k, m = P.null.shape
    if m == 0:
        return P.start
    a0, ones = P.start / P.size, np.ones((k, 1))
    above = np.vstack([np.hstack([P.null, -ones]), np.hstack([-P.null, np.zeros((k, 1))])])
    cost = np.append(np.zeros(m), 1.0)
    x = _program(cost, above, np.concatenate([-a0, a0]), (None, None))
    member: Floats = np.maximum(a0 + P.null @ x[:m], 0.0) * P.size
    return member


def minimise(
    P: Polytope, value: Callable[[Floats], float], slope: Callable[[Floats], Floats]
) -> Floats:
    """A member where a convex function is smallest, shown to be so by a lower bound.

    The largest of the tangents at the points met is below the function, and a linear program has
    its minimum over P. The next point is the projection of the last onto where the tangents are
    half-way between that bound and the best value: the level method. Kinks do no harm. Scipy's
    SLSQP finds the first point, which spares smooth functions most of the rounds; its word is not
    taken, as it also says that it converged where it did not.

    Raises:
        RuntimeError: the bounds did not meet, to 1e-6 of the value there or at the start (or of a
            hundredth of the steepest tangent); 1e-8 is what the rounds aim at.

    Reference: Kelley (1960) on cutting planes; Lemarechal, Nemirovskii and Nesterov (1995).
    """
    if P.null.shape[1] == 0:
        return P.start
    N, size = P.null, P.size
    best, upper, lower = P.start, value(P.start), -np.inf
    first, gap = (abs(upper) if np.isfinite(upper) else 0.0), np.inf
    steepest = float(np.nan_to_num(size * np.linalg.norm(N.T @ slope(P.start)), posinf=0.0))
    tangents: list[Floats] = []
    heights: list[float] = []
    here = _descent(P, value, slope)
    for _ in range(_MOST_ROUNDS):
        height, tangent = value(here), size * (N @ (N.T @ slope(here)))
        if not (np.isfinite(height) and np.all(np.isfinite(tangent))):
            here = 0.5 * (here + best)
            continue
        tangents.append(tangent)
        heights.append(float(height - tangent @ here / size))
        steepest = max(steepest, float(np.linalg.norm(tangent)))
        G, c = np.array(tangents), np.array(heights)
        corner, bound = _lowest(P, G, c)
        best, upper = min(
            [(best, upper), (here, height), (corner, value(corner))],
            key=lambda pair: pair[1] if np.isfinite(pair[1]) else np.inf,
        )
        lower = max(lower, bound)
        # Linear programs leave 1e-10 of the numbers in them.
        gap = (upper - lower) / max(abs(upper), first, 1e-2 * steepest, 1e-300)
        if gap < -_CLOSE_ENOUGH:
            break  # a tangent above the function
        if gap <= _CLOSE:
            return best
        level = 0.5 * (lower + upper)
        low = np.concatenate([-here / size, c + G @ here / size - level])
        step = _shortest(np.vstack([N, -G @ N]), low) if np.isfinite(level) else None
        moved = None if step is None else _member(P, here + size * (N @ step))
        here = corner if moved is None else moved
    # What is left can be the rounding of steep functions.
    if abs(gap) <= _CLOSE_ENOUGH:
        return best
    raise RuntimeError(
        f"the criterion was not minimised over the optimal set: the bounds are {lower:.9g} and "
        f"{upper:.9g}. Pass a function that is convex, and finite on the set."
    )


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
    rank, k = P.rows.shape
    shift, unit = float(np.max(heights)), float(np.max(np.linalg.norm(tangents, axis=1))) or 1.0
    found = linprog(
        np.append(np.zeros(k), 1.0),
        A_ub=np.hstack([tangents / unit, -np.ones((len(tangents), 1))]),
        b_ub=(shift - heights) / unit,
        A_eq=np.hstack([P.rows, np.zeros((rank, 1))]),
        b_eq=P.rows @ P.start / P.size,
        bounds=[(0.0, None)] * k + [(None, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        return P.start, -np.inf
    return P.size * np.maximum(found.x[:k], 0.0), unit * float(found.x[k]) + shift


def bases(P: Polytope) -> int:
    """How many sets of columns could be the support of a vertex."""
    return comb(P.rows.shape[1], P.rows.shape[0])


def all_vertices(P: Polytope) -> Floats | None:
    """All vertices (num, k), by trying every basis; None where there are too many of these."""
    rank, k = P.rows.shape
    if P.null.shape[1] == 0:
        return P.start[None]
    if bases(P) > _MOST_BASES or bases(P) * rank**3 > _MOST_WORK:
        return None
    target, size = P.rows @ P.start, P.size
    found: list[Floats] = []
    for chunk in _chunks(_subsets(k, rank), _AT_ONCE // max(rank, 1) ** 2 + 1):
        matrices = P.rows[:, chunk].transpose(1, 0, 2)
        regular = np.abs(np.linalg.det(matrices)) > 1e-12
        chunk, matrices = chunk[regular], matrices[regular]
        if not len(chunk):
            continue
        values = np.linalg.solve(matrices, np.broadcast_to(target[:, None], (len(chunk), rank, 1)))
        values = values[..., 0] / size
        feasible = np.all(values >= -1e-9, axis=1)
        points = np.zeros((int(feasible.sum()), k))
        np.put_along_axis(points, chunk[feasible], np.maximum(values[feasible], 0.0), axis=1)
        found.append(points)
    return _distinct(np.vstack(found)) * size


def some_vertices(P: Polytope, number: int, seed: int) -> Floats:
    """Vertices of random objectives, distinct ones."""
    rng = np.random.default_rng(seed)
    points = [maximise(P, rng.standard_normal(P.start.size)) / P.size for _ in range(number)]
    return _distinct(np.stack(points)) * P.size


class Fewest(NamedTuple):
    """A member of few non-zero coefficients.

    Attributes:
        member: (k,).
        proven: no member has fewer.
        nodes: how many of the integer program were looked at.
    """

    member: Floats
    proven: bool
    nodes: int


def fewest(P: Polytope, max_nodes: int | None, max_seconds: float | None) -> Fewest:
    """A member with as few non-zero coefficients as there can be, as far as the limits allow.

    Minimise sum b over Z a = f, 0 <= a <= size b, b binary (the sum of a is constant on P).
    """
    if P.null.shape[1] == 0:
        return Fewest(P.start, True, 0)
    k, size = P.start.size, P.size
    fit = LinearConstraint(np.hstack([P.rows, np.zeros((P.rows.shape[0], k))]), *_both(P, size))
    below = LinearConstraint(np.hstack([np.eye(k), -np.eye(k)]), -np.inf, 0.0)
    vertex = maximise(P, np.random.default_rng(0).standard_normal(k))
    if max_nodes == 0 or max_seconds == 0:
        return Fewest(vertex, False, 0)
    limits = {"node_limit": max_nodes, "time_limit": max_seconds}
    found = milp(
        np.concatenate([np.zeros(k), np.ones(k)]),
        integrality=np.concatenate([np.zeros(k), np.ones(k)]),
        bounds=Bounds(np.zeros(2 * k), np.ones(2 * k)),
        constraints=[fit, below],
        options={name: limit for name, limit in limits.items() if limit is not None},
    )
    nodes = int(found.get("mip_node_count") or 0)
    member = None if found.x is None else _on_support(P, found.x[k:] > 0.5)
    if member is None:
        return Fewest(vertex, False, nodes)
    return Fewest(member, bool(found.status == 0), nodes)


def _both(P: Polytope, size: float) -> tuple[Floats, Floats]:
    target = P.rows @ P.start / size
    return target, target


def _subsets(k: int, size: int) -> NDArray[np.int64]:
    return np.array(list(combinations(range(k), size)), dtype=np.int64).reshape(-1, size)


def _chunks(array: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [array[i : i + size] for i in range(0, len(array), size)]


def _distinct(points: Floats) -> Floats:
    """One of each set of equal points, in a fixed order."""
    kept: list[int] = []
    for index in np.lexsort(points.round(6).T[::-1]):
        if all(np.max(np.abs(points[index] - points[other])) > 1e-7 for other in kept):
            kept.append(int(index))
    return points[kept]
