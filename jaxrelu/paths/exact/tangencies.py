r"""Lams at which a direction joins the optimal set for that lam alone.

Along a stretch, the correlation of a block outside can rise to lam, touch it and fall again. No
condition of optimality fails there, and the neurons that are followed stay. But where the feature
of the new direction depends on theirs, there are many optimal networks at that one lam, and the one
of minimum norm jumps to another and back.

With rho = residual / lam, the length of a correlation relative to lam moves along a stretch by

    d ||q_b(rho)|| = z_b . d rho,    z_b = s D_b X u_b,    u_b = q_b / ||q_b||.

The lengths of the neurons' own correlations stay one. So where z_b depends on their features the
length of q_b stands still: that it touches there is no coincidence of its own.

Reference: Mishkin and Pilanci (ICML 2023), Section 4.1, on where the solution map is continuous.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from jaxrelu.core.aliases import Floats
from jaxrelu.paths.exact import active_system
from jaxrelu.paths.exact.active_system import ActivePoint, HostProgram
from jaxrelu.paths.exact.breakpoints import TOLERANCE, TOUCHES, Event, Stretch

# Blocks whose correlation is this near lam are looked at, at lams at most this far apart.
_NEAR = 0.02
_RATIO = 0.95
# A block that is this near lam at both ends of an interval is tight all along; at one end of a
# stretch it belongs to the event there: the correlation of a cell that a neuron is about to enter
# comes up to lam as slowly.
_TIGHT = 1e-7
_INSIDE = 1e-6
# A parabola through both ends of an interval comes this near lam, of how far they are from it.
_PROMISING = 0.25
# Of differences of fourth order: either error is 1e-12.
_APART = 1e-3


class _Sight(NamedTuple):
    """Near blocks (m,) at a lam: 1 - ||q_b|| / lam, and the slope of ||q_b|| / lam by lam."""

    lam: float
    blocks: NDArray[np.int64]
    shortfalls: Floats
    slopes: Floats


def split_at_touches(
    host: HostProgram, stretches: list[Stretch], events: list[Event]
) -> tuple[list[Stretch], list[Event]]:
    """Stretches and events, with those at which a block touches lam put in."""
    parts, found = list[Stretch](), list(events)
    for stretch in stretches:
        high = stretch.high
        for point, block in _touches(host, stretch):
            parts.append(stretch._replace(high=high, low=point))
            found.append(Event(point.lam, TOUCHES, block, -1))
            high = point
        parts.append(stretch._replace(high=high))
    return parts, sorted(found, key=lambda event: -event.lam)


def _touches(host: HostProgram, stretch: Stretch) -> list[tuple[ActivePoint, int]]:
    """Points inside a stretch at which a block outside touches lam, from the largest lam down."""
    neurons, point, low = stretch
    own = [block for _, block in active_system.families(host, neurons)]
    others = np.setdiff1d(np.arange(len(host.factors)), own)
    if not neurons or not others.size:
        return []
    intervals = max(1, int(np.ceil(np.log(low.lam / point.lam) / np.log(_RATIO))))
    found: list[tuple[ActivePoint, int]] = []
    above = None
    for lam in np.geomspace(point.lam, low.lam, intervals + 1):
        at_lam = active_system.solve_equations(host, neurons, point, float(lam))
        if at_lam is None:
            break
        point = at_lam
        here = _sight(host, stretch, point, others)
        if above is not None and here is not None:
            found += _between(host, stretch, point, above, here)
        above = here
    ends = stretch.high.lam * (1 - _INSIDE), stretch.low.lam * (1 + _INSIDE)
    return [(point, block) for point, block in found if ends[1] < point.lam < ends[0]]


def _sight(
    host: HostProgram, stretch: Stretch, point: ActivePoint, blocks: NDArray[np.int64]
) -> _Sight | None:
    """How near blocks are to lam, and how they move; of those that are near. None for no answer."""
    rho = point.residual / point.lam
    near = blocks[host.shortfalls(blocks, rho) <= _NEAR]
    q = np.array([host.correlation(int(block), rho) for block in near])
    q = q.reshape(len(near), host.X.shape[1])
    length = np.linalg.norm(q, axis=1)
    seen = length >= 1.0 - _NEAR
    near, q, length = near[seen], q[seen], length[seen]
    if not near.size:
        return _Sight(point.lam, near, length, length)
    moves = []
    for k in (-2, -1, 1, 2):
        moved = active_system.solve_equations(
            host, stretch.neurons, point, point.lam * (1 + k * _APART)
        )
        if moved is None:
            return None
        moves.append(moved.residual / moved.lam)
    rate = (moves[0] - moves[3] + 8 * (moves[2] - moves[1])) / (12 * _APART * point.lam)
    z = host.factors[near, None] * host.patterns[near] * (q @ host.X.T)
    return _Sight(point.lam, near, 1.0 - length, (z @ rate) / length)


def _between(
    host: HostProgram, stretch: Stretch, point: ActivePoint, above: _Sight, below: _Sight
) -> list[tuple[ActivePoint, int]]:
    """Touches between two lams: a length that rises below the upper and falls above the lower."""
    found: dict[float, tuple[ActivePoint, int]] = {}
    blocks, up, down = np.intersect1d(above.blocks, below.blocks, return_indices=True)
    ends = np.stack([above.shortfalls[up], below.shortfalls[down]])
    rises, falls = -above.slopes[up], below.slopes[down]
    turns = (rises > 0) & (falls > 0) & np.any(ends > _TIGHT, axis=0)
    turns &= (ends[0] > _TIGHT) | (above.lam < stretch.high.lam * (1 - _INSIDE))
    turns &= (ends[1] > _TIGHT) | (below.lam > stretch.low.lam * (1 + _INSIDE))
    gain = 0.5 * rises**2 / np.where(turns, rises + falls, 1.0) * (above.lam - below.lam)
    turns &= ends[0] - gain <= _PROMISING * np.max(ends, axis=0)
    for block in blocks[turns]:
        one = np.array([block])

        def slope(lam: float, one: NDArray[np.int64] = one) -> float:
            near = active_system.solve_equations(host, stretch.neurons, point, lam)
            sight = None if near is None else _sight(host, stretch, near, one)
            # No answer ends the search there, and what it found is looked at anyway.
            return 0.0 if sight is None or not sight.slopes.size else float(sight.slopes[0])

        if not slope(above.lam) < 0 < slope(below.lam):
            continue
        lam = float(brentq(slope, below.lam, above.lam, xtol=1e-13 * above.lam))
        there = active_system.solve_equations(host, stretch.neurons, point, lam)
        if there is None:
            continue
        length = np.linalg.norm(host.correlation(int(block), there.residual)) / lam
        # Cells that share the direction touch together.
        if length >= 1.0 - TOLERANCE and not any(abs(lam - x) <= TOLERANCE * lam for x in found):
            found[lam] = there, int(block)
    return [found[lam] for lam in sorted(found, reverse=True)]
