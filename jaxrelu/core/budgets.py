"""Limits of work that are the same on every machine, however busy it is.

A search that ends by the clock ends at another answer on another machine. What it may do is counted
here instead, from the shapes of the arrays at hand, before it is begun: solvers of integer programs
call such a count deterministic time. Seconds are an option beside it.
"""

from __future__ import annotations

import math
import time
from enum import IntEnum
from typing import Any

from jaxrelu.core.options import limit

# Operations, most of them in products of matrices, that one core of a Xeon did in a second (2026):
# work in these units is close to the seconds of one idle core.
UNIT = 1.25e10
# One call of a compiled program with what is done around it on the host, in operations: 40 ms.
CALL = 5e8


class Limit(IntEnum):
    """Which limit ended a search.

    NONE: none did; it reached its goal, or had nothing left to do. WORK, SECONDS, ROUNDS, PATTERNS,
    NODES: `max_work`, `max_seconds`, `max_rounds`, `max_patterns` or `max_nodes` did.

    Example:
        >>> from jaxrelu.core.budgets import Limit
        >>> Limit(0).name
        'NONE'
    """

    NONE = 0
    WORK = 1
    SECONDS = 2
    ROUNDS = 3
    PATTERNS = 4
    NODES = 5


class Meter:
    """Work that is left, and time where that is limited too.

    Attributes:
        spent: units of work so far.
        refused: the limit that work was last refused for, `Limit.NONE` until then.
    """

    def __init__(self, work: float, seconds: float | None = None) -> None:
        """So many units of work, and seconds from now on."""
        self._left, self.spent = work * UNIT, 0.0
        self._until = math.inf if seconds is None else time.monotonic() + seconds
        self._whole: Meter | None = None
        self.refused = Limit.NONE

    def allows(self, operations: float = 0.0) -> bool:
        """Whether so many operations may begin."""
        if not operations < self._left:
            self.refused = Limit.WORK
        elif self._until < math.inf and not time.monotonic() < self._until:
            self.refused = Limit.SECONDS
        else:
            return True
        return False

    def spend(self, operations: float) -> None:
        """Notes operations that were begun."""
        self._left -= operations
        self.spent += operations / UNIT
        if self._whole is not None:
            self._whole.spend(operations)

    def share(self, fraction: float) -> Meter:
        """A meter of a share of what is left, which draws on this one."""
        part = Meter(0.0)
        part._left, part._whole = fraction * self._left, self
        if self._until < math.inf:
            now = time.monotonic()
            part._until = now + fraction * (self._until - now)
        return part


def check_budget(max_work: Any, max_seconds: Any, default: float) -> Meter:
    """The meter of two limits as arguments.

    Args:
        max_work: None for the default; where seconds are given, for no limit.
        max_seconds: None for no limit.
        default: in the same units.

    Raises:
        ValueError, TypeError: one of them is negative or not a number.
    """
    if max_work is None:
        max_work = default if max_seconds is None else math.inf
    seconds = None if max_seconds is None else limit(max_seconds, "max_seconds")
    return Meter(limit(max_work, "max_work"), seconds)
