"""Many lams at once without waiting for each other: a batch that the host keeps full.

Lanes of a plain `vmap` run in lockstep: each waits for the slowest, in every inner loop. Here a
lane takes a few Newton steps in one compiled turn and is then free to go where it belongs: into the
next turn, to screening, to its certificate, or out, and the next lam takes its place. The host only
says which lanes go together (`jaxrelu.solvers.active_newton.lane_steps` is what they do). Batches
come in few widths, each a quarter of the one before, so that few shapes are compiled; all of them
before the first lane goes, since which of them it takes hangs on the numbers, and a second call
must compile nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution, joined, shared
from jaxrelu.solvers.active_newton import lane_steps
from jaxrelu.solvers.active_newton.rounds import INNER_STEPS, MAX_ROUNDS
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Tolerance, WarmStart
from jaxrelu.solvers.scaled_program import Request, ScaledProgram, prepare

_logger = logging.getLogger("jaxrelu")

# Newton steps a turn: more, and lanes wait for each other; fewer, and the host is asked too often.
TURN = 4
# Empty lanes are worth taking along while a batch is at least so full.
_FULL_ENOUGH = 0.75


def solve_lanes(
    program: Program,
    lams: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: WarmStart | None,
    solver: ActiveNewton,
    lanes: int,
    warm_starts: bool,
) -> Solution:
    """`solve` at every lam, `lanes` of them at a time; from the host.

    With `warm_starts` a scout goes ahead of the lanes, and `init` is where it starts from.

    The logger "jaxrelu" is told, at INFO, how many Newton steps were needed and how many the lanes
    executed, waiting included.
    """
    at, asked = prepare(program, lams, tolerance, init)
    count, lanes = lams.shape[0], min(lanes, lams.shape[0])
    waiting = np.argsort(np.asarray(lams), kind="stable").tolist()  # the largest comes last
    fleet = _Fleet(at.scaled, solver, asked, max_steps, lanes, asked.lams[waiting[-1]])
    answers: dict[int, Solution] = {}
    while len(answers) < count:
        free = [lane for lane, k in enumerate(fleet.at_work) if k < 0]
        # A scout that goes on for every single lane would keep the others waiting.
        if not warm_starts or 2 * len(free) >= min(lanes, len(waiting)):
            for lane in free[: len(waiting)]:
                k = waiting.pop()
                (fleet.scout if warm_starts else fleet.load)(lane, k, asked.lams[k])
        for lane in fleet.advance():
            k, fleet.at_work[lane] = fleet.at_work[lane], -1
            args = (fleet.pool, lane, lams[k], tolerance, max_steps, solver)
            answers[k] = shared(lane_steps.finish(at, *args))
    _logger.info(
        "%d lams: %d Newton steps needed, %d executed", count, fleet.needed, fleet.executed
    )
    return joined([answers[k] for k in range(count)], jnp.stack)


class _Fleet:
    """The lanes, and a scout that goes ahead of them; the only mutable thing here.

    The scout comes down from lam to lam, at each only as far as the first round without a missing
    block, and leaves its state in a lane there. So lanes begin near their ends, where from nothing
    every one of them would come the whole way down by itself.
    """

    def __init__(
        self,
        scaled: ScaledProgram,
        solver: ActiveNewton,
        asked: Request,
        max_steps: Array,
        lanes: int,
        lam: Array,
    ) -> None:
        self.scaled, self.solver, self.tolerance = scaled, solver, asked.tolerance
        self.max_steps, self.init, self.lanes = max_steps, asked.init, lanes
        one = lane_steps.load(scaled, solver, lam, self.tolerance, self.init)
        # The lanes, and the scout behind them.
        self.pool = jax.tree.map(lambda a: jnp.broadcast_to(a, (lanes + 1, *a.shape)), one)
        self.at_work = [-1] * lanes  # which lam a lane holds
        self.ready: dict[str, list[int]] = {"turn": [], "screen": [], "judge": []}
        self.lost = True  # the scout is nowhere yet, or has come to an end
        self.needed = self.executed = 0
        self._meet_widths()

    def load(self, lane: int, k: int, lam: Array) -> None:
        """Puts a lam into a lane, from a known point or from nothing."""
        one = lane_steps.load(self.scaled, self.solver, lam, self.tolerance, self.init)
        self.pool = lane_steps.put(self.scaled, self.pool, lane, one)
        self._enter(lane, k, "turn")

    def scout(self, lane: int, k: int, lam: Array) -> None:
        """Puts a lam into a lane, from where the scout comes to at it."""
        args = (self.lanes, self.lost, lam, self.tolerance, self.init)
        self.pool = lane_steps.retarget(self.scaled, self.pool, *args)
        index = np.asarray([self.lanes], np.int32)
        for _ in range(MAX_ROUNDS):
            self._turn(index, INNER_STEPS)
            judge, settled, self.lost = (bool(flag[0]) for flag in self._screen(index))
            if judge or settled:
                break
        self.pool = lane_steps.copy(self.scaled, self.pool, self.lanes, lane)
        self._enter(lane, k, "judge" if judge else "turn")

    def advance(self) -> list[int]:
        """Does what most lanes are ready for, as many of them as a width holds; who has ended."""
        action = max(self.ready, key=lambda name: len(self.ready[name]))
        group, self.ready[action] = _group(self.ready[action], self.lanes)
        index = _padded(group, self.lanes)
        if action == "turn":
            ended = self._turn(index, TURN)
            self._sort(group, ended, "screen")
            return []
        if action == "screen":
            self._sort(group, self._screen(index)[0], "judge")
            return []
        return self._sort(group, self._judge(index), None)

    def _sort(self, group: list[int], flags: Any, action: str | None) -> list[int]:
        """Lanes with a flag go on to an action, or are returned; the others take another turn."""
        flagged = [lane for lane, flag in zip(group, flags, strict=False) if flag]
        self.ready["turn"] += [lane for lane in group if lane not in flagged]
        if action is None:
            return flagged
        self.ready[action] += flagged
        return []

    def _enter(self, lane: int, k: int, action: str) -> None:
        self.at_work[lane] = k
        self.ready[action].append(lane)

    def _meet_widths(self) -> None:
        """Every action once in every width, on no lane."""
        for width in widths(self.lanes):
            index = _padded([self.lanes + 1] * width, self.lanes)
            self._turn(index, TURN)
            self._screen(index)
            self._judge(index)

    def _turn(self, index: Any, most: int) -> Any:
        self.pool, steps, ended = lane_steps.turn(
            self.scaled, self.pool, index, most, self.max_steps
        )
        steps, ended = np.asarray(steps), np.asarray(ended)
        self.needed += int(steps.sum())
        self.executed += steps.size * int(steps.max())
        return ended

    def _screen(self, index: Any) -> Any:
        args = (index, self.solver, self.tolerance, self.max_steps)
        self.pool, flags = lane_steps.screen(self.scaled, self.pool, *args)
        return jax.device_get(flags)

    def _judge(self, index: Any) -> Any:
        self.pool, done = lane_steps.judge(self.scaled, self.pool, index, self.tolerance)
        return np.asarray(done)


def widths(lanes: int) -> list[int]:
    """The numbers of lanes that are compiled for: all, a quarter, ..., one."""
    sizes = [lanes]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 4))
    return sizes


def _group(ready: list[int], lanes: int) -> tuple[list[int], list[int]]:
    """Those that go now, and those that wait for the next turn."""
    width = next(w for w in widths(lanes) if len(ready) >= _FULL_ENOUGH * w)
    return ready[:width], ready[width:]


def _padded(group: list[int], lanes: int) -> Any:
    """Indices of a group, filled up to a width with one that belongs to no lane."""
    width = min(w for w in widths(lanes) if w >= len(group))
    return np.asarray(group + [lanes + 1] * (width - len(group)), np.int32)
