r"""Exact polar gauges of lines: orthogonal, spike-free, of two and three dimensions, all cells.

The value of a direction u over lines z with coefficients a, b is
g(u) = sum a (z . u)_+ + b (-z . u)_+; the gauge is the largest |g| on the unit ball.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Meter
from jaxrelu.geometry.host.bits import row_keys
from jaxrelu.geometry.host.projection import project
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement, values_of
from jaxrelu.global_optimality.polar_gauge.sphere import sphere_maximum
from jaxrelu.global_optimality.polar_gauge.spikes import spike_bounds
from jaxrelu.global_optimality.polar_gauge.zonotope import distance_cost, host_distances

_ORTHOGONAL = 1e-12
_SPIKE_FREE = 1e-9
_AT_ONCE = 64
_EPS = float(np.finfo(np.float64).eps)
# Cells so thin are left out of lists; directions in them are near those of a neighbour.
_THINNEST = 100 * _EPS


class Exact(NamedTuple):
    """The gauge of a small problem.

    Attributes:
        lower: the value of the direction.
        upper: equal to it up to rounding.
        direction: (k,), of unit norm.
        method: how it was found.
        values: (m,), |g| of more directions, most of them local maxima.
        directions: (m, k).
        rounding: how much of `upper` is for rounding alone.
    """

    lower: float
    upper: float
    direction: Floats
    method: str
    values: Floats
    directions: Floats
    rounding: float = 0.0


def _best(
    method: str, bound: float, lines: Floats, front: Floats, back: Floats, directions: Floats
) -> Exact:
    """The best of some directions, and a bound of all that were looked at."""
    values = np.abs(values_of(lines, front, back, directions))
    k = int(np.argmax(values))
    lower = float(values[k])
    return Exact(lower, max(lower, bound), directions[k], method, values, directions)


def exact_gauge(
    arrangement: Arrangement, front: Floats, back: Floats, meter: Meter
) -> Exact | None:
    """The gauge by the first method that applies, None if there is none.

    Where no work is left cells are bounded cheaply, and the interval is wider.
    """
    largest = max(float(np.max(np.abs(side), initial=0.0)) for side in (front, back))
    scale = float(largest) if largest > 0 else 1.0
    found = _exact_gauge(arrangement, front / scale, back / scale, meter)
    if found is None:
        return None
    return found._replace(
        lower=scale * found.lower,
        upper=scale * found.upper,
        values=scale * found.values,
        rounding=scale * found.rounding,
    )


def _exact_gauge(
    arrangement: Arrangement, front: Floats, back: Floats, meter: Meter
) -> Exact | None:
    """The same for sides of at most one."""
    lines = arrangement.lines
    if len(lines) == 0:
        return _best("zero data", 0.0, lines, front, back, np.zeros((1, arrangement.rank)))
    if len(lines) <= arrangement.rank:
        off = float(np.max(np.abs(lines @ lines.T - np.eye(len(lines)))))
        if off <= _ORTHOGONAL:
            return _orthogonal(lines, front, back, off)
    if arrangement.rank == 2:
        return _sweep(lines, front, back)
    if not arrangement.two_sided:
        found = _spike_free(lines, front)
        if found is not None:
            return found
    if arrangement.rank == 3:
        found = _sweep_walls(lines, front, back, meter)
        if found is not None:
            return found
    if arrangement.has_few_cells:
        return _all_cells(arrangement, front, back, meter)
    return None


def _orthogonal(lines: Floats, front: Floats, back: Floats, off: float) -> Exact:
    """Orthonormal lines: a ball in the coordinates z . u, so that every line adds its better side.

    R^2 = sum over lines of max(a, b, 0)^2, or the same for -r: max(||r_+||, ||r_-||) for X X^T = I,
    and the rank-one formula where there is one line.
    """
    heights = []
    for sign in (1.0, -1.0):
        a, b = sign * front, sign * back
        heights.append(np.where(a >= b, np.maximum(a, 0.0), -np.maximum(b, 0.0)))
    bound = float(np.max(np.linalg.norm(heights, axis=1))) * (1.0 + len(lines) * off)
    directions = unit_rows(np.stack(heights) @ lines)[0]
    return _best("orthogonal rows", bound, lines, front, back, directions)


def _spike_free(lines: Floats, front: Floats) -> Exact | None:
    """Lines with rows on one side where (Z u)_+ = Z w has a solution ||w|| <= M ||u||, M = 1.

    Then the directions with Z u >= 0 are enough: R = max over both signs of the norm of the
    projection of s Z^T a onto that cone, and any multipliers bound it from above. None where M is
    not one up to rounding.
    """
    spikes = spike_bounds(lines, _THINNEST)
    if spikes is None or not spikes.upper <= 1.0 + _SPIKE_FREE:
        return None
    projections = []
    for sign in (1.0, -1.0):
        projections.append(project(lines, sign * front @ lines))
    bound = float(np.max(np.linalg.norm(projections, axis=1))) * spikes.upper
    directions = unit_rows(np.stack(projections))[0]
    return _best("spike-free rows", bound, lines, front, np.zeros_like(front), directions)


def _sweep(lines: Floats, front: Floats, back: Floats) -> Exact:
    """Two dimensions: the walls in order of their angle, and in every cell one formula.

    On a cell g(u) = v . u with v the sum of its sides, so that |g| is largest at v or -v where
    that is inside, and on a wall otherwise. Going around, every wall changes v by one line.
    """
    # A wall is where z . u = 0: at a quarter turn before z its height turns positive.
    enters = (np.arctan2(lines[:, 1], lines[:, 0]) - np.pi / 2) % (2 * np.pi)
    angles = np.concatenate([enters, (enters + np.pi) % (2 * np.pi)])
    change = np.concatenate([lines, -lines])  # of the height's sign, from - to +
    jump = (np.tile(front + back, 2))[:, None] * change
    order = np.argsort(angles, kind="stable")
    gaps = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
    # The first cell is the widest, where no sign is a matter of rounding.
    order = np.roll(order, -int(np.argmax(gaps)))
    angles, jump = angles[order], jump[order]
    middle = angles[0] + np.max(gaps) / 2
    at = np.asarray([[np.cos(middle), np.sin(middle)]]) @ lines.T
    first = np.where(at > 0, front, -back) @ lines
    vectors = first + np.concatenate([np.zeros((1, 2)), np.cumsum(jump[1:], axis=0)])
    walls = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    inside = unit_rows(vectors)[0]
    # Where a candidate lies does not matter: the value of any direction is a lower bound.
    return _best("sweep", 0.0, lines, front, back, np.concatenate([walls, inside, -inside]))


def _sweep_walls(lines: Floats, front: Floats, back: Floats, meter: Meter) -> Exact | None:
    """Three dimensions: every wall swept (`sphere`), None where that cannot be."""
    found = sphere_maximum(lines, front, back, meter)
    if found is None:
        return None
    bound, rounding, directions = found
    best = _best("sweep of walls", bound + rounding, lines, front, back, directions)
    return best._replace(rounding=rounding)


def _all_cells(arrangement: Arrangement, front: Floats, back: Floats, meter: Meter) -> Exact:
    """Every cell, most of them by a bound.

    On the cell of D the largest value is at most ||s v_D||, v_D the sum of the sides of D. Cells of
    one pattern on the lines that pull upwards (s (a + b) > 0: there g is convex) share their
    maximum, the distance of a point from a zonotope
    (`jaxrelu.global_optimality.polar_gauge.zonotope`), so the least bound of such a group holds for
    all of it; distances are computed for what remains.
    """
    lines, cells = arrangement.lines, arrangement.cells
    bits = np.concatenate([cells, ~cells])
    bend = front + back
    vectors = -back @ lines + bits @ (bend[:, None] * lines)
    norms = np.linalg.norm(vectors, axis=1)
    lower, upper, found = 0.0, 0.0, [np.zeros((1, arrangement.rank))]
    for sign in (1.0, -1.0):
        convex = sign * bend > 0
        keys = np.zeros(len(bits))
        if convex.any():
            keys = row_keys(np.packbits(bits[:, convex], axis=1))
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        bound = np.full(len(first), np.inf)
        np.minimum.at(bound, group, norms)
        points = sign * (-back @ lines + (bits[first] & convex) @ (bend[:, None] * lines))
        weights = np.where(convex, 0.0, np.abs(bend))
        order = np.argsort(-bound)
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            some = some[bound[some] > lower]
            if len(some) == 0:
                break
            cost = distance_cost(len(some), *lines.shape)
            if start and not meter.allows(cost):
                upper = max(upper, float(bound[some[0]]))  # they descend
                break
            meter.spend(cost)
            distance, vectors = host_distances(lines, points[some], weights, lower)
            found.append(unit_rows(vectors)[0])
            lower = max(lower, float(np.max(np.abs(values_of(lines, front, back, found[-1])))))
            upper = max(upper, float(np.max(np.minimum(distance, bound[some]))))
    rounding = _THINNEST * float(np.sum(np.abs(front) + np.abs(back)))
    best = _best("all cells", upper + rounding, lines, front, back, np.concatenate(found))
    return best._replace(rounding=rounding)
