r"""Exact polar gauges of three dimensions: all walls of the arrangement, each swept like a plane.

The value g(u) = sum a (z . u)_+ + b (-z . u)_+ of a direction is linear on every cell of the
arrangement of the lines z, v . u with v the sum of the cell's sides. So the largest |g| on the unit
sphere is ||v|| of a cell that holds v or -v, or it lies on a wall. On the wall z_i . u = 0, a
circle, the other lines have their zeros at angles theta_1 <= theta_2 <= ...; between two of them v
is constant, and the largest value of v . u is ||P_i v|| cos(distance of the angle of P_i v to the
arc). Walking around, each angle changes v by one line; the two cells that meet in an arc have
v + a_i z_i and v - b_i z_i, and every cell has such an arc. For n lines that is n^2 arcs and a sort
of each circle, in place of n^2 cells of n signs.

Where v lies need not be known for sure: |g| at v / ||v|| is a value, and ||v|| where v is inside.
Where two walls cross is known to eps over the angle delta between them; a cell that is overlooked
lies in strips of that width, and its maximum is above that of the walls nearby by no more than
(eps / delta)^2 / 2 of itself. Lines that are nearer than this allows are left to other methods.

Reference: H. Edelsbrunner, "Algorithms in combinatorial geometry" (1987), chapter 7, on walking
through arrangements of planes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Meter
from jaxrelu.global_optimality.polar_gauge.lines import values_of

_MOST_ARCS = 2**17  # at once: some 50 MiB
_PAIR = 1e4  # operations that the two arcs of a line on a wall are worth: sorts and roots
_TRIED = (16, 128)
_MOST_BLUR = 1e-12
# Of a sum over all lines, in units of their number and of the sum of all |a| + |b|.
_ROUNDING = 4 * float(np.finfo(np.float64).eps)


class _Circles(NamedTuple):
    """Some walls (w,), and the 2 n arcs on each in order.

    Attributes:
        normals: (w, 3), the line of the wall.
        frames: (w, 2, 3), an orthonormal basis of the wall's plane.
        angles: (w, 2 n), where arcs begin.
        widths: (w, 2 n).
        crossed: (w, 2 n, 3), the line whose height changes its sign there, towards where it rises.
        vectors: (w, 2 n, 3), v of the arc; the wall's own line adds nothing.
    """

    normals: Floats
    frames: Floats
    angles: Floats
    widths: Floats
    crossed: Floats
    vectors: Floats


def sphere_maximum(
    lines: Floats, front: Floats, back: Floats, meter: Meter
) -> tuple[float, float, Floats] | None:
    """The largest |g| over the unit sphere of R^3, and directions that attain it and others.

    Args:
        lines: (n, 3), unit vectors of distinct lines.
        front: (n,), a.
        back: (n,), b.
        meter: what work is left.

    Returns:
        The largest |g|, what rounding may add to it, and directions (m, 3): the best one, and local
        maxima on walls and inside cells. None where that is more work than is left, and where two
        lines are so near each other that rounding is not small.
    """
    rounding = _ROUNDING * len(lines) * float(np.sum(np.abs(front) + np.abs(back)))
    count, some = len(lines), max(1, _MOST_ARCS // (2 * len(lines)))
    largest, blur, found = 0.0, 0.0, []
    if not meter.allows(_PAIR * count**2):
        return None
    for start in range(0, count, some):
        if not meter.allows():
            return None
        walls = np.arange(start, min(start + some, count))
        meter.spend(_PAIR * len(walls) * count)
        circles, nearest = _circles(lines, front, back, walls)
        blur = max(blur, (_ROUNDING * count / max(nearest, 1e-300)) ** 2)
        if not blur <= _MOST_BLUR:
            return None
        values, on_walls = _on_walls(circles, front[walls], back[walls])
        in_cells = _in_cells(lines, circles, front[walls], back[walls], rounding)
        inside = np.abs(values_of(lines, front, back, in_cells))
        found += [on_walls, in_cells]
        largest = max(largest, float(values.max()), float(np.max(inside, initial=0.0)))
    directions = np.concatenate(found)
    # A maximum is met from every wall around it.
    _, first = np.unique(np.round(directions, 9), axis=0, return_index=True)
    return largest, rounding + blur * largest, directions[np.sort(first)]


def _circles(
    lines: Floats, front: Floats, back: Floats, walls: NDArray[np.intp]
) -> tuple[_Circles, float]:
    """The arcs of some walls, and the least angle (its sine) of their lines to any other."""
    normals, each = lines[walls], np.arange(len(walls))
    # The axis that is least along a normal gives a well-conditioned frame.
    first = np.cross(normals, np.eye(3)[np.argmin(np.abs(normals), axis=1)])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    frames = np.stack([first, np.cross(normals, first)], axis=1)
    flat = frames @ lines.T
    apart = np.linalg.norm(flat, axis=1)
    apart[each, walls] = 1.0
    # A quarter turn before its projection the height of a line turns positive.
    enters = (np.arctan2(flat[:, 1], flat[:, 0]) - np.pi / 2) % (2 * np.pi)
    angles = np.concatenate([enters, (enters + np.pi) % (2 * np.pi)], axis=1)
    order = np.argsort(angles, axis=1)
    angles = np.take_along_axis(angles, order, axis=1)
    widths = np.diff(angles, axis=1, append=angles[:, :1] + 2 * np.pi)
    line = order % len(lines)
    crossed = np.where(order < len(lines), 1.0, -1.0)[:, :, None] * lines[line]
    crossed[line == walls[:, None]] = 0.0
    # The sum starts in the widest arc, where no sign is a matter of rounding.
    widest = np.argmax(widths, axis=1)
    middle = angles[each, widest] + widths[each, widest] / 2
    at = np.cos(middle)[:, None] * flat[:, 0] + np.sin(middle)[:, None] * flat[:, 1]
    sides = np.where(at > 0, front, -back)
    sides[each, walls] = 0.0
    steps = np.cumsum((front + back)[line][:, :, None] * crossed, axis=1)
    vectors = (sides @ lines - steps[each, widest])[:, None] + steps
    circles = _Circles(normals, frames, angles, widths, crossed, vectors)
    return circles, float(np.min(apart))


def _on_walls(circles: _Circles, front: Floats, back: Floats) -> tuple[Floats, Floats]:
    """The largest |g| on each wall (w,), and where (m, 3): the best of all, and local maxima."""
    flat = circles.vectors @ circles.frames.transpose(0, 2, 1)
    norms, ahead = np.linalg.norm(flat, axis=2), np.arctan2(flat[:, :, 1], flat[:, :, 0])
    values, places, peaks = [], [], []
    for sign, turn in ((1.0, 0.0), (-1.0, np.pi)):  # v, and -v
        angle = (ahead + turn - circles.angles) % (2 * np.pi)
        # Outside the arc the nearer of its two ends is what is left.
        past, before = angle - circles.widths, 2 * np.pi - angle
        value = norms * np.cos(np.maximum(np.minimum(past, before), 0.0))
        best = np.arange(len(value)), np.argmax(value, axis=1)
        within = np.where(past < before, circles.widths, 0.0)
        at = circles.angles[best] + np.where(past <= 0, angle, within)[best]
        # To either side of the wall a slope that leads down.
        height = np.sum(circles.vectors[best] * circles.normals, axis=1)
        peaks.append((sign * (height + front) <= 0) & (sign * (height - back) >= 0))
        values.append(value[best])
        places.append(np.cos(at)[:, None] * circles.frames[:, 0])
        places[-1] += np.sin(at)[:, None] * circles.frames[:, 1]
    both, peak = np.concatenate(values), np.concatenate(peaks)
    peak[np.argmax(both)] = True
    return np.maximum(*values), np.concatenate(places)[peak]


def _in_cells(
    lines: Floats, circles: _Circles, front: Floats, back: Floats, rounding: float
) -> Floats:
    """Directions (m, 3) of the vectors of cells that may lie inside, front and back of the walls.

    A cell that meets its wall in an arc is on one side of the wall, and on the side of every other
    line where the middle of the arc is. Most vectors fail at the few lines that are tried first.
    """
    begin, end = circles.crossed, np.roll(circles.crossed, -1, axis=1)
    angle = circles.angles + circles.widths / 2
    around = np.stack([np.cos(angle), np.sin(angle)], axis=2)
    found = []
    for side, own in ((1.0, front), (-1.0, -back)):
        vectors = circles.vectors + (own[:, None] * circles.normals)[:, None]
        norms = np.linalg.norm(vectors, axis=2)
        heights = (
            side * (vectors @ circles.normals[:, :, None])[:, :, 0],
            np.sum(vectors * begin, axis=2),
            -np.sum(vectors * end, axis=2),
        )
        for sign in (1.0, -1.0):
            may = norms > rounding
            for height in heights:
                may &= sign * height >= -rounding
            wall, arc = np.nonzero(may)
            inside = sign * vectors[wall, arc] / norms[wall, arc][:, None]
            middle = np.einsum("ma,mak->mk", around[wall, arc], circles.frames[wall])
            tolerance = rounding / norms[wall, arc]
            for tried in _TRIED:
                some = lines[:: max(1, len(lines) // tried)].T
                keep = np.all((inside @ some) * (middle @ some) >= -tolerance[:, None], axis=1)
                inside, middle, tolerance = inside[keep], middle[keep], tolerance[keep]
            found.append(inside)
    return np.concatenate(found)
