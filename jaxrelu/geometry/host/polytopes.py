r"""The polytope P = {a >= 0 : Z_i a = f_i, or low_i <= Z_i a <= high_i} of coefficients.

Everything happens around one known member: with N an orthonormal basis of the null space of the
rows that are equations, P = {a + N t >= 0, s + S N t >= 0}, where s >= 0 are the distances from the
ends of the intervals and S the rows that they come from, with their signs. So the rounding of f
plays no part, and a distance is one more coordinate that must not be negative. Coefficients are
measured against their sum, which is constant on most polytopes of this package.

Linear and mixed-integer programs go to HiGHS through scipy; projections are least-distance programs
and go to its non-negative least squares (Lawson and Hanson, 1974, chapter 23). NumPy, float64, on
the host.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.scaling import exponents, unit_rows

# Coefficients below this share of their sum are zero; HiGHS keeps its constraints to 1e-7.
ZERO = 1e-6
# What is below zero by this share of it is rounding.
ROUNDING = 1e-9
_RANK_TOLERANCE = 1e-9
_MOST_BASES = 200_000
_MOST_WORK = 2e10  # products in the factors of all bases
_AT_ONCE = 2**22  # entries of matrices: 32 MiB
_SLACK = 1e-11


class Polytope(NamedTuple):
    """P = {start + null t >= 0}, in K = k + s coordinates: coefficients, and distances from ends.

    Attributes:
        start: (K,), a member.
        null: (K, m); the columns are orthonormal in the k coefficients; m = 0 for a single point.
        rows: (rank, K), orthonormal rows: start + x is in the affine hull where rows x = 0.
        clear: no singular value of the equations is near the line between zero and not zero.
        equations: (e, k), the rows of Z that are.
        ends: (s, k), those whose distance from an end of an interval is a coordinate, with signs.
        sample: (s,), which row of Z each of `ends` is.
    """

    start: Floats
    null: Floats
    rows: Floats
    clear: bool
    equations: Floats
    ends: Floats
    sample: NDArray[np.int64]

    @property
    def num(self) -> int:
        """The number of coefficients, k."""
        return self.ends.shape[1]

    @property
    def size(self) -> float:
        """The sum of the coefficients, or one where they are all zero."""
        total = float(np.sum(self.start[: self.num]))
        return total if total > 0 else 1.0

    @property
    def moves(self) -> Floats:
        """(k, m), orthonormal: `null` in the coefficients alone."""
        return self.null[: self.num]


def polytope(
    columns: Floats, member: Floats, low: Floats | None = None, high: Floats | None = None
) -> Polytope:
    """The polytope around a member (k,): Z a (n,) in intervals, those of no width at the member's.

    Args:
        columns: Z (n, k).
        member: (k,), non-negative.
        low: (n,), -inf for none; without intervals P = {a >= 0 : Z a = Z member}.
        high: (n,), +inf for none.

    Returns:
        `Polytope`.
    """
    columns, member = np.asarray(columns, float), np.asarray(member, float)
    nothing = np.zeros(0, np.int64)
    if low is None or high is None:
        return _around(member, columns, columns[:0], nothing, np.zeros(0))
    fit, wide = columns @ member, low < high
    sample = np.concatenate(
        [np.flatnonzero(wide & np.isfinite(low)), np.flatnonzero(wide & np.isfinite(high))]
    )
    sign = np.repeat([1.0, -1.0], [np.sum(wide & np.isfinite(end)) for end in (low, high)])
    end = np.where(sign > 0, low[sample], high[sample])
    ends, distance = sign[:, None] * columns[sample], np.maximum(sign * (fit[sample] - end), 0.0)
    # In units in which neither a row nor a distance is large; rows of zeros hold always.
    total = float(np.sum(member)) or 1.0
    unit = np.maximum(np.max(np.abs(ends), axis=1, initial=0.0), distance / total)
    some = np.any(ends != 0, axis=1)
    ends, distance = ends[some] / unit[some, None], distance[some] / unit[some]
    return _around(member, columns[~wide], ends, sample[some], distance)


def _around(
    member: Floats, equations: Floats, ends: Floats, sample: NDArray[np.int64], distance: Floats
) -> Polytope:
    unit, norms = unit_rows(np.ldexp(equations, -exponents(equations)).T)
    scale = np.where(norms > 0, norms, 1.0)
    _, sigma, right = np.linalg.svd(unit.T, full_matrices=True)
    cut = _RANK_TOLERANCE * (sigma[0] if sigma.size else 0.0)
    rank = int(np.sum(sigma > cut))
    # In units of the columns themselves; orthonormal again.
    null = np.linalg.qr(right[rank:].T / scale[:, None])[0]
    rows = np.linalg.qr((right[:rank] * scale).T)[0].T
    clear = not np.any((sigma > 0.01 * cut) & (sigma < 100 * cut))
    if len(ends):
        null = np.vstack([null, ends @ null])
        both = np.block([[rows, np.zeros((rank, len(ends)))], [ends, -np.eye(len(ends))]])
        rows = np.linalg.qr(both.T)[0].T
    return Polytope(np.concatenate([member, distance]), null, rows, clear, equations, ends, sample)


def _restricted(P: Polytope, member: Floats, support: Bools) -> Polytope:
    """The polytope around a member (K,) of what is positive on its support alone."""
    used, free = support[: P.num], support[P.num :]
    equations = np.vstack([P.equations, P.ends[~free]])[:, used]
    at, distance = member[: P.num][used], member[P.num :][free]
    return _around(at, equations, P.ends[free][:, used], P.sample[free], distance)


def maximise(P: Polytope, objective: Floats) -> Floats:
    """The coefficients (k,) of a vertex where <objective, a> is largest."""
    return vertex(P, objective)[: P.num]


def vertex(P: Polytope, objective: Floats) -> Floats:
    """A vertex (K,) where an objective, of the coefficients (k,) or of all (K,), is largest."""
    if P.null.shape[1] == 0:
        return P.start
    size = P.size
    t = solve_lp(-P.null[: len(objective)].T @ objective, -P.null, P.start / size, (None, None))
    member: Floats = np.maximum(P.start + size * (P.null @ t), 0.0)
    # What is zero but for rounding is zero, where the rest has the same Z a.
    exact = _on_support(P, member > ZERO * size)
    return member if exact is None else exact


def solve_lp(cost: Floats, above: Floats, limit: Floats, bounds: Any) -> Floats:
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
    """A member (K,) with these coordinates alone; None where there is none."""
    if not np.any(used):
        return None
    values, error = nonnegative_least_squares(P.rows[:, used], P.rows @ P.start / P.size)
    if error > ROUNDING:
        return None
    member = np.zeros(used.size)
    member[used] = values * P.size
    return member


def relative_interior(P: Polytope) -> tuple[Polytope, Bools, bool]:
    """P over its support around a member of all of it, the support (k,), and whether it is clear.

    One linear program finds it: maximise sum s over s <= tau x, 0 <= s <= 1, tau >= 1, which is
    solved by s = 1 on the support. Each coordinate outside is then maximised on its own: it is
    clear where both ways agree. Distances from ends that are zero on all of P become equations.
    """
    K, m = P.null.shape
    if m == 0:
        small = (P.start > ROUNDING * P.size) & (P.start <= ZERO * P.size)
        support = P.start > ZERO * P.size
        return _restricted(P, P.start, support), support[: P.num], not np.any(small)
    a0 = P.start / P.size
    # Variables: t (m), tau, s (K);  x = tau a0 + N t >= s.
    cost = np.concatenate([np.zeros(m + 1), -np.ones(K)])
    above = np.hstack([-P.null, -a0[:, None], np.eye(K)])
    bounds = [(None, None)] * m + [(1.0, None)] + [(0.0, 1.0)] * K
    x = solve_lp(cost, above, np.zeros(K), bounds)
    t, tau, s = x[:m], x[m], x[m + 1 :]
    support = s > 0.5
    inside = np.maximum(a0 + (P.null @ t) / tau, 0.0)
    agree = True
    for index in np.flatnonzero(~support | (inside <= ZERO)):
        largest = vertex(P, np.eye(K)[index])[index]
        agree &= bool((largest > ZERO * P.size) == support[index])
    return _restricted(P, inside * P.size, support), support[: P.num], agree


def project(P: Polytope, point: Floats) -> Floats:
    """The member (k,) nearest to a point (k,), as a least-distance program."""
    N, k = P.null, P.num
    if N.shape[1] == 0:
        return P.start[:k]
    # x = start + N (t - moves^T (start - point)): ||a - point||^2 = ||t||^2 + constant.
    size = P.size
    low = (P.start - N @ (P.moves.T @ (P.start[:k] - point))) / size
    # Constraints that hold with equality on all of P would be violated by their rounding.
    t = shortest(N, -(low + _SLACK))
    if t is None:
        raise RuntimeError("the projection did not converge: directions are too nearly equal.")
    member: Floats = np.maximum(size * (low + N @ t), 0.0)
    return member[:k]


def shortest(rows: Floats, low: Floats) -> Floats | None:
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
    """A member (k,) whose largest coefficient is as small as can be."""
    (K, m), k = P.null.shape, P.num
    if m == 0:
        return P.start[:k]
    a0 = P.start / P.size
    below_largest = np.hstack([P.moves, -np.ones((k, 1))])
    above = np.vstack([below_largest, np.hstack([-P.null, np.zeros((K, 1))])])
    cost = np.append(np.zeros(m), 1.0)
    x = solve_lp(cost, above, np.concatenate([-a0[:k], a0]), (None, None))
    member: Floats = np.maximum(a0 + P.null @ x[:m], 0.0) * P.size
    return member[:k]


def bases(P: Polytope) -> int:
    """How many sets of coordinates could be the zeros of a vertex."""
    return comb(*P.null.shape)


def all_vertices(P: Polytope) -> Floats | None:
    """All vertices (num, k), by trying all sets of zeros; None where these are too many."""
    K, m = P.null.shape
    if m == 0:
        return P.start[None, : P.num]
    if bases(P) > _MOST_BASES or bases(P) * (m**3 + K * m) > _MOST_WORK:
        return None
    start = P.start / P.size
    found: list[Floats] = []
    for chunk in _chunks(_subsets(K, m), _AT_ONCE // max(m, K) ** 2 + 1):
        matrices = P.null[chunk]
        regular = np.abs(np.linalg.det(matrices)) > 1e-12
        chunk, matrices = chunk[regular], matrices[regular]
        if not len(chunk):
            continue
        moves = np.linalg.solve(matrices, -start[chunk][..., None])[..., 0]
        points = start + moves @ P.null.T
        np.put_along_axis(points, chunk, 0.0, axis=1)
        feasible = np.all(points >= -ROUNDING, axis=1)
        found.append(np.maximum(points[feasible, : P.num], 0.0))
    return _distinct(np.vstack(found)) * P.size


def some_vertices(P: Polytope, number: int, seed: int) -> Floats:
    """Vertices of random objectives, distinct ones (num, k)."""
    rng = np.random.default_rng(seed)
    points = [maximise(P, rng.standard_normal(P.num)) / P.size for _ in range(number)]
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

    Minimise sum b over x in P with a <= M b, b binary, where M is the largest sum of coefficients.
    """
    (K, m), k, size = P.null.shape, P.num, P.size
    if m == 0:
        return Fewest(P.start[:k], True, 0)
    corner = maximise(P, np.random.default_rng(0).standard_normal(k))
    if max_nodes == 0 or max_seconds == 0:
        return Fewest(corner, False, 0)
    most = float(np.sum(maximise(P, np.ones(k)))) / size if K > k else 1.0
    target = P.rows @ P.start / size
    inside = np.hstack([P.rows, np.zeros((len(P.rows), k))])
    below = np.hstack([np.eye(k, K), -most * np.eye(k)])
    upper = np.concatenate([np.full(k, most), np.full(K - k, np.inf), np.ones(k)])
    limits = {"node_limit": max_nodes, "time_limit": max_seconds}
    found = milp(
        np.concatenate([np.zeros(K), np.ones(k)]),
        integrality=np.concatenate([np.zeros(K), np.ones(k)]),
        bounds=Bounds(np.zeros(K + k), upper),
        constraints=[
            LinearConstraint(inside, target, target),
            LinearConstraint(below, -np.inf, 0.0),
        ],
        options={name: limit for name, limit in limits.items() if limit is not None},
    )
    nodes = int(found.get("mip_node_count") or 0)
    used = np.ones(K, bool)
    used[:k] = found.x is not None and found.x[K:] > 0.5
    member = None if found.x is None else _on_support(P, used)
    if member is None:
        return Fewest(corner, False, nodes)
    return Fewest(member[:k], bool(found.status == 0), nodes)


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
