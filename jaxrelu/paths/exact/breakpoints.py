r"""`follow_path`: the optimal network as an exact function of lam, with every breakpoint.

Between breakpoints the optimum solves smooth equations (`jaxrelu.paths.exact.active_system`): a
Newton step from the last point is Euler's predictor, further ones correct it, and the conditions of
optimality are checked at every point, so that each of them is optimal to rounding and not
approximately. The first condition to fail is the next event; its lam is found between the last good
point and the first bad one. Equations in sizes and unit directions are regular where a neuron has
size zero, so that births and deaths are walked through like any other point:

    a neuron dies           its size reaches zero
    a neuron is born        the correlation of another block reaches lam
    a wall is hit           a sample reaches the wall of a neuron
    a wall is left          a multiplier reaches zero, in one of the cells around the neuron

A correlation that touches lam and falls again lets no condition fail;
`jaxrelu.paths.exact.tangencies` looks for those.

Where features become dependent, or several things happen at one lam, the next structure is read off
a new solution just below instead, pruned to independent features, and followed back up.

Reference: Park and Hastie (JRSS B, 2007) for predictor-corrector paths; Mishkin and Pilanci (ICML
2023), Section 4, for the path itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host import vertex_walks
from jaxrelu.geometry.host.directions import distinct
from jaxrelu.geometry.host.walls import EXACT, IN_TURN, walls_of
from jaxrelu.paths.exact import active_system
from jaxrelu.paths.exact.active_system import ActivePoint, Conditions, HostProgram, Neuron
from jaxrelu.paths.solve import solve
from jaxrelu.programs.program import Program

BORN, DIED, HIT, LEFT, SEVERAL, TOUCHES = range(6)
KINDS = ("born", "dies", "wall hit", "wall left", "several", "touches")

TOLERANCE = 1e-9
_WIDTH = 1e-10
_LARGEST_STEP = 0.95
_SMALLEST_STEP = 1 - 1e-7
_BELOW = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class Stretch(NamedTuple):
    """An interval of lam with one structure: its neurons, and the points at both ends."""

    neurons: list[Neuron]
    high: ActivePoint
    low: ActivePoint


class Event(NamedTuple):
    """A breakpoint: lam, what happens, to which block, at which sample (-1 for none)."""

    lam: float
    kind: int
    block: int
    sample: int


class Failure(NamedTuple):
    """The conditions at the first bad point, which brackets an event with the last good one."""

    point: ActivePoint
    conditions: Conditions


def walk(
    program: Program, host: HostProgram, lowest: float, most_events: int
) -> tuple[list[Stretch], list[Event], bool]:
    """All stretches and events from lambda_max down to `lowest`, and whether that was reached."""
    nothing = active_system.empty(host, 1.0)
    top = host.largest(nothing.residual)
    if top <= lowest:
        still = nothing._replace(lam=lowest)
        return [Stretch([], still, still)], [], True
    point, neurons = nothing._replace(lam=top), list[Neuron]()
    below = nothing._replace(lam=top * (1 - _WIDTH))
    failure: Failure | None = Failure(below, active_system.conditions(host, neurons, below))
    stretches: list[Stretch] = []
    events: list[Event] = []
    seen: set[bytes] = set()
    while point.lam > lowest and len(events) < most_events:
        after = None
        if failure is not None:
            after = _next(host, neurons, point, failure)
        if after is not None and _key(after[0]) in seen:
            after = None
        if after is not None:
            neurons, start, event = after
            inside = start
            events.append(event)
        else:
            found = _anew(program, host, point.lam, lowest)
            if found is None:
                return stretches, events, False
            neurons, start, inside = found
            events.append(Event(start.lam, SEVERAL, -1, -1))
        seen = {*seen, _key(neurons)} if start.lam >= point.lam * (1 - 10 * _WIDTH) else set()
        point, failure = advance(host, neurons, inside, lowest)
        if point.lam < start.lam * (1 - 10 * _WIDTH):
            stretches.append(Stretch(neurons, start, point))
            seen = set()
    return stretches, events, point.lam <= lowest


def advance(
    host: HostProgram, neurons: list[Neuron], point: ActivePoint, goal: float
) -> tuple[ActivePoint, Failure | None]:
    """The last point towards a goal, up or down, at which a structure is optimal.

    Returns:
        That point, and the conditions just beyond; None at the goal, or where the equations have no
        solution further on.
    """
    good, known = point, active_system.conditions(host, neurons, point)
    ratio = _LARGEST_STEP
    while good.lam != goal:
        down = goal < good.lam
        target = max(goal, good.lam * ratio) if down else min(goal, good.lam / ratio)
        trial = active_system.solve_equations(host, neurons, good, target)
        if trial is None:
            ratio = np.sqrt(ratio)
            if ratio > _SMALLEST_STEP:
                return good, None
            continue
        found = active_system.conditions(host, neurons, trial)
        if found.worst < -TOLERANCE:
            return _located(host, neurons, (good, known), (trial, found))
        good, known = trial, found
        ratio = max(_LARGEST_STEP, ratio**2)
    return good, None


def _located(
    host: HostProgram,
    neurons: list[Neuron],
    good: tuple[ActivePoint, Conditions],
    bad: tuple[ActivePoint, Conditions],
) -> tuple[ActivePoint, Failure | None]:
    """The event between a good point and a bad one, bracketed to rounding."""
    known: Conditions | None = bad[1]
    end = bad[0]
    for turn in range(100):
        high, low = good[0].lam, end.lam
        if abs(high - low) <= _WIDTH * high:
            break
        share = 0.5
        if turn % 3 < 2 and known is not None:
            # Where the first condition fails if all move linearly; a little below, then above.
            share = _first_failure(good[1], known)
            share += 1e-3 * (1 - share) if turn % 3 == 0 else -1e-3 * share
            edge = 0.1 * _WIDTH * high / abs(high - low)
            share = min(max(share, edge), 1 - edge)
        lam = high + share * (low - high)
        trial = active_system.solve_equations(host, neurons, good[0], lam)
        if trial is None:  # nearer, then
            end, known = end._replace(lam=lam), None
            continue
        found = active_system.conditions(host, neurons, trial)
        if found.worst < -TOLERANCE:
            end, known = trial, found
        else:
            good = trial, found
    return good[0], None if known is None else Failure(end, known)


def _first_failure(good: Conditions, bad: Conditions) -> float:
    """The share of the way from good to bad at which the first of the failed conditions fails."""
    shares = []
    for before, after in zip(good, bad, strict=True):
        failed = after < -TOLERANCE
        start = np.clip(before[failed], 0.0, 1e300)
        shares.append(np.min(start / (start - after[failed]), initial=1.0))
    return float(min(shares))


def _next(
    host: HostProgram, neurons: list[Neuron], point: ActivePoint, failure: Failure
) -> tuple[list[Neuron], ActivePoint, Event] | None:
    """The structure after the condition that failed most, and its point at the same lam."""
    beyond, failed = failure
    part = int(np.argmin([np.min(values, initial=np.inf) for values in failed]))
    place = int(np.argmin(failed[part]))
    sizes, directions = point.sizes, point.directions
    changed, sample = list(neurons), -1
    if part == 0:  # the size of a neuron
        kind, block = DIED, neurons[place].block
        del changed[place]
        sizes, directions = np.delete(sizes, place), np.delete(directions, place, axis=0)
    elif part == 1:  # the slack of a sample
        which, sample = divmod(place, len(host.X))
        kind, block = HIT, neurons[which].block
        new = failed.slack[which] <= EXACT
        changed[which] = neurons[which]._replace(walls=neurons[which].walls | new)
        N = active_system.null_space(host.unit[changed[which].walls])
        inside = N @ (N.T @ directions[which])
        if not np.linalg.norm(inside) > 0.5:
            return None
        directions = directions.copy()
        directions[which] = inside / np.linalg.norm(inside)
    elif part == 2:  # the multipliers of a wall
        which, block = active_system.families(host, neurons)[place]
        left = _walls_left(host, neurons, point, beyond, which, block)
        if left is None:
            return None
        kind, sample = LEFT, int(np.flatnonzero(left)[0])
        changed[which] = Neuron(block, neurons[which].walls & ~left)
    else:  # the correlation of another block
        kind, block = BORN, place
        q = host.correlation(block, beyond.residual)
        u = q / np.linalg.norm(q)
        changed.append(Neuron(block, _walls(host, u, EXACT)))
        sizes, directions = np.append(sizes, 0.0), np.vstack([directions, u])
    start = active_system.solve_equations(
        host, changed, point._replace(sizes=sizes, directions=directions), point.lam
    )
    scale = 1.0 + float(np.linalg.norm(point.residual))
    if start is None or np.linalg.norm(start.fit - point.fit) > 1e-6 * scale:
        return None
    return changed, start, Event(point.lam, kind, block, sample)


def _walls_left(
    host: HostProgram,
    neurons: list[Neuron],
    point: ActivePoint,
    beyond: ActivePoint,
    which: int,
    block: int,
) -> Bools | None:
    """Samples (n,) whose walls a neuron leaves into a block."""
    rows, target = active_system.wall_system(host, neurons, beyond, which, block)
    walls = np.flatnonzero(neurons[which].walls)
    left: Bools = np.zeros(len(host.X), bool)
    if np.linalg.matrix_rank(rows, tol=1e-7) == len(rows):
        rho = np.linalg.lstsq(rows.T, target, rcond=None)[0]
        left[walls[int(np.argmin(rho))]] = True
        return left
    # Dependent walls: a little further on, the projection shows which ones it leaves.
    further = active_system.solve_equations(host, neurons, point, point.lam * (1 - 1e-4))
    if further is None:
        return None
    q = host.correlation(block, further.residual)
    u = q / np.linalg.norm(q)
    apart = float(np.linalg.norm(u - further.directions[which]))
    left[walls[np.abs(host.unit[walls] @ u) > 1e-3 * apart]] = True
    return left if np.any(left) else None


def _anew(
    program: Program, host: HostProgram, lam: float, lowest: float
) -> tuple[list[Neuron], ActivePoint, ActivePoint] | None:
    """A structure read off a solution below lam, its highest point up to there, and that below."""
    for below in _BELOW:
        here = max(lam * (1 - below), lowest)
        answer = solve(program, here, rtol=0.0, atol=0.0)
        for tolerance in IN_TURN:
            found = _read_off(host, np.asarray(answer.weights), here, tolerance)
            if found is None:
                continue
            neurons, point = found
            if active_system.conditions(host, neurons, point).worst >= -TOLERANCE:
                top, _ = advance(host, neurons, point, lam)
                return neurons, top, point
    return None


def _read_off(
    host: HostProgram, weights: Floats, lam: float, tolerance: float
) -> tuple[list[Neuron], ActivePoint] | None:
    """Neurons of independent features from weights, walls to a tolerance, and their exact point."""
    flat = weights.reshape(len(host.factors), -1)
    some = host.factors != 0
    flat = flat / np.where(some, np.abs(host.factors), np.inf)[:, None]
    size = np.linalg.norm(flat, axis=1)
    blocks = np.flatnonzero(size > 1e-7 * np.sum(size))
    if not blocks.size:
        return None
    u = flat[blocks] / size[blocks, None]
    linear = host.patterns[blocks] * (u @ host.X.T)
    features = (host.factors[blocks, None] * linear).T
    first, member_of = distinct(u, host.factors[blocks], None if host.has_cones else features)
    a = np.zeros(first.size)
    np.add.at(a, member_of, size[blocks])
    corners = vertex_walks.to_vertex(features[:, first], a)
    a = corners[-1] if corners else a
    kept = np.flatnonzero(a > 0)
    blocks, u, a = blocks[first][kept], u[first][kept], a[kept]
    walls = _walls(host, u, tolerance)
    neurons = [Neuron(int(b), on) for b, on in zip(blocks, walls, strict=True)]
    fit = features[:, first][:, kept] @ a
    near = ActivePoint(lam, a, u, fit, -host.derivatives(fit)[0])
    point = active_system.solve_equations(host, neurons, near, lam)
    return None if point is None else (neurons, point)


def _walls(host: HostProgram, directions: Floats, tolerance: float) -> Bools:
    """As `walls_of`; a gated program has no walls."""
    return walls_of(host.unit, directions, tolerance) & host.has_cones


def _key(neurons: list[Neuron]) -> bytes:
    parts = sorted(str(neuron.block).encode() + neuron.walls.tobytes() for neuron in neurons)
    return b"|".join(parts)
