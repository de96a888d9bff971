r"""Branch and bound over the signs of the lines on which the value is convex.

For s in {1, -1} the value of a direction over unit lines z_j of height h_j = z_j . u is

    s sum_j a_j (h_j)_+ + b_j (-h_j)_+ = sum_j -s b_j h_j + c_j (h_j)_+,    c = s (a + b).

Where c_j < 0 it is concave and no branching is needed. A node fixes the signs of some lines with
c_j > 0, which makes them linear and puts u into a cone; on the cone the height of every line has a
range [l_j, t_j], the norms of the projections of z_j and -z_j, and for a line that is not fixed

    (h_j)_+ <= t_j (h_j - l_j) / (t_j - l_j).

What is left is concave: its maximum over the cone and the ball is a distance from a zonotope and a
cone (`jaxrelu.global_optimality.polar_gauge.zonotope`), and any multipliers give a valid bound.
Nodes are taken best first, in batches of one compiled shape; the interval is valid whenever the
search stops.

Reference: A. H. Land and A. G. Doig (1960); the secant bound is the concave envelope of a convex
function of one variable (J. E. Falk and R. M. Soland 1969).
"""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import CALL, Meter
from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import eps, matmul, unit
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.global_optimality.polar_gauge.lines import values_of
from jaxrelu.global_optimality.polar_gauge.zonotope import (
    capacity,
    distances,
    exact_difference,
    padded,
)

_PARENTS = 16
_MOST_NUMBERS = 2**24  # 128 MiB
_RANGE_STEPS = 12
_INFINITE = 1e30
_BLUR = 100.0


class Interval(NamedTuple):
    """lower <= R <= upper, a direction (k,) of value `lower`, and the number of nodes bounded."""

    lower: float
    upper: float
    direction: Floats
    nodes: int


class _Nodes(NamedTuple):
    """Nodes of either sign: s (m,), fixed signs (m, L) in {-1, 0, 1}, ranges (m, L)."""

    side: Any
    signs: Any
    low: Any
    high: Any


class _Bounds(NamedTuple):
    """For every node: bound, ranges, the line to branch on, the best direction met.

    And the bound as a problem: the distance of `point` from `sides` with `caps`, and a constant.
    """

    bound: Any
    low: Any
    high: Any
    branch: Any
    value: Any
    direction: Any
    point: Any
    sides: Any
    caps: Any
    constant: Any


def branch_and_bound(
    lines: Floats,
    front: Floats,
    back: Floats,
    start: Interval,
    *,
    rtol: float,
    meter: Meter,
    threshold: float,
) -> Interval:
    """Narrows an interval until upper <= lower (1 + rtol), upper <= threshold, or no work.

    Args:
        lines: (L, k), unit.
        front: (L,), the coefficients of the side of each line's vector.
        back: (L,), those of the other side.
        start: what is known so far.
        rtol: relative width at which to stop.
        meter: what work is left.
        threshold: a value of interest: an upper bound below it is good enough.
    """
    L, k = lines.shape
    size, wide = capacity(L, 16), capacity(k, 4)
    blur = _BLUR * float(eps(jnp.zeros(()).dtype))  # of what the batches compute
    # The heights of all lines over all nodes of a batch: (2 parents, 2 size, size) numbers.
    parents_at_once = min(_PARENTS, _MOST_NUMBERS // (4 * size**2))
    if parents_at_once < 1:
        return start
    Z = jnp.asarray(padded(lines, size, wide))
    a, b = (jnp.asarray(padded(side, size)) for side in (front, back))
    batch = 2 * parents_at_once
    cost = CALL + _RANGE_STEPS * 2 * batch * size**2 * wide * (wide + 2)

    def bound(nodes: _Nodes, lower: float) -> _Bounds:
        some = len(nodes.side)
        filled = _Nodes(*(np.resize(part, (batch, *part.shape[1:])) for part in nodes))
        found = _bounds(Z, a, b, filled, jnp.asarray(lower, Z.dtype))
        return _Bounds(*(np.asarray(part, np.float64)[:some] for part in found))

    roots = _Nodes(
        np.array([1.0, -1.0]),
        np.zeros((2, size)),
        np.full((2, size), -1.0),
        np.ones((2, size)),
    )
    lower, direction, nodes = start.lower, start.direction, 0
    closed = 0.0  # the largest bound among nodes that were put aside
    heap: list[tuple[float, int, tuple[Any, ...]]] = []

    def look_at(vector: Floats) -> None:
        nonlocal lower, direction
        # Whatever precision JAX worked in: this is the value of a unit vector in float64.
        u = unit_rows(vector[None])[0]
        value = float(np.abs(values_of(lines, front, back, u))[0])
        if value > lower:
            lower, direction = value, u[0]

    def add(children: _Nodes) -> None:
        nonlocal nodes, closed
        meter.spend(cost)
        found = bound(children, lower)
        best = int(np.argmax(found.value))
        if found.value[best] > lower:
            look_at(found.direction[best, :k])
        for j in range(len(children.side)):
            nodes += 1
            top = float(found.bound[j]) if np.isfinite(found.bound[j]) else np.inf
            if top > max(lower * (1 + rtol), threshold) and found.branch[j] < 0:
                exact, difference = _exact_bound(lines, front, back, found, j, blur)
                look_at(difference)
                top = min(top, exact)
            if top <= max(lower * (1 + rtol), threshold) or found.branch[j] < 0:
                closed = max(closed, top)
            else:
                node = (children.side[j], children.signs[j], found.low[j], found.high[j])
                heapq.heappush(heap, (-top, nodes, (*node, found.branch[j])))

    add(roots)
    while heap:
        if max(-heap[0][0], closed) <= max(lower * (1 + rtol), threshold):
            break
        if not meter.allows(cost):
            break
        parents: list[tuple[float, tuple[Any, ...]]] = []
        while heap and len(parents) < parents_at_once:
            top, _, node = heapq.heappop(heap)
            if -top <= max(lower * (1 + rtol), threshold):
                closed = max(closed, -top)
            else:
                parents.append((-top, node))
        if not parents:
            break
        nodes_of = zip(*(node for _, node in parents), strict=True)
        side, signs, low, high, line = (np.stack(part) for part in nodes_of)
        children = []
        for sign in (1.0, -1.0):
            child = signs.copy()
            child[np.arange(len(child)), line.astype(int)] = sign
            children.append(child)
        add(
            _Nodes(
                np.tile(side, 2),
                np.concatenate(children),
                np.tile(low, (2, 1)),
                np.tile(high, (2, 1)),
            )
        )
    upper = max([closed, lower, *(-top for top, _, _ in heap)])
    return Interval(lower, min(start.upper, upper), direction, nodes)


def _exact_bound(
    lines: Floats, front: Floats, back: Floats, found: _Bounds, j: int, blur: float
) -> tuple[float, Floats]:
    """Bound and best direction of a node without lines to branch on, by active sets."""
    L, k = lines.shape
    caps = np.where(found.caps[j, :L] >= _INFINITE, np.inf, found.caps[j, :L])
    sided = found.sides[j, :L, None] * lines
    difference, multipliers = exact_difference(sided, found.point[j, :k], caps)
    rounding = blur * float(np.sum(np.abs(front) + np.abs(back)) + multipliers)
    length = float(np.linalg.norm(difference)) + float(found.constant[j])
    return length * (1 + blur) + rounding, difference


@compiled
def _bounds(Z: Array, a: Array, b: Array, nodes: _Nodes, lower: Array) -> _Bounds:
    rows = shared_rows(Z)
    batch, size = nodes.signs.shape
    bend = nodes.side[:, None] * (a + b)[None]
    fixed = nodes.signs != 0
    blur = _BLUR * eps(Z.dtype)

    # Heights of all lines over the cone: upper bounds of both projections' norms.
    both = jnp.concatenate([Z, -Z])
    lanes = 2 * size
    found = project(
        rows,
        jnp.repeat(nodes.signs, lanes, axis=0),
        jnp.tile(both, (batch, 1)),
        multipliers=jnp.zeros((batch * lanes, size), Z.dtype),
        cap=jnp.where(jnp.repeat(fixed, lanes, axis=0), _INFINITE, 0.0),
        max_steps=_RANGE_STEPS,
    )
    reach = (found.bound + blur * (1.0 + jnp.sum(found.multipliers, axis=1))).reshape(
        batch, 2, size
    )
    high = jnp.minimum(nodes.high, reach[:, 0])
    low = jnp.maximum(nodes.low, -reach[:, 1])
    high, low = jnp.maximum(high, 0.0), jnp.minimum(low, 0.0)
    high = jnp.where(nodes.signs < 0, 0.0, high)
    low = jnp.where(nodes.signs > 0, 0.0, low)

    # The secant of h_+ over its range: slope * (h - low), exact where the sign is known.
    width = high - low
    slope = jnp.where(width > 0, high / jnp.where(width > 0, width, 1.0), 0.0)
    rise = jnp.maximum(bend, 0.0)
    constant = jnp.sum(-rise * slope * low, axis=1)
    points = matmul(-nodes.side[:, None] * b[None] + rise * slope, Z)
    concave = bend < 0
    caps = jnp.where(fixed, _INFINITE, jnp.where(concave, -bend, 0.0))
    sides = jnp.where(fixed, -nodes.signs, 1.0)
    found = distances(rows, sides, points, caps, lower - constant)
    # Multipliers of narrow cones are large, and their sum is rounded.
    rounding = blur * (jnp.sum(jnp.abs(a) + jnp.abs(b)) + jnp.sum(found.multipliers, axis=1))
    bound = (found.bound + constant) * (1 + blur) + rounding
    u = unit(found.points)
    height = matmul(u, Z.T)
    gap = rise * (slope * (height - low) - jnp.maximum(height, 0.0))
    gap = jnp.where(fixed | (rise <= 0) | (slope <= 0) | (slope >= 1), -1.0, gap)
    branch = jnp.where(jnp.max(gap, axis=1) >= 0, jnp.argmax(gap, axis=1), -1)
    value = jnp.abs(matmul(jnp.maximum(height, 0.0), a) + matmul(jnp.maximum(-height, 0.0), b))
    return _Bounds(bound, low, high, branch, value, u, points, sides, caps, constant)
