"""A working set of activation patterns of fixed capacity, that patterns enter and leave.

The program over the pool has one shape whatever is in it: free places hold the zero pattern, whose
features vanish, so that nothing is compiled again as the pool changes.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.bits import margins
from jaxrelu.geometry.patterns import Patterns, patterns_from_weights
from jaxrelu.programs.program import ConvexProgram, Program
from jaxrelu.programs.solution import Solution

_THINNEST = 1e-11


class PatternPool:
    """Patterns of a program in a fixed number of places.

    Attributes:
        masks: (n, capacity) bool.
        witness: (d, capacity), points inside the cones.
        used: (capacity,), which places are taken.
        idle: (capacity,), rounds since the pattern was last part of an answer.
    """

    def __init__(self, program: Program, capacity: int, kept: NDArray[np.intp]) -> None:
        """The patterns `kept` of a program, at most `capacity` of them."""
        self.X = np.asarray(program.X)
        self._program = program
        self._real = np.any(self.X != 0, axis=1)
        n, d = self.X.shape
        self.masks = np.zeros((n, capacity), dtype=np.bool_)
        self.witness = np.zeros((d, capacity), self.X.dtype)
        self.used = np.zeros(capacity, dtype=np.bool_)
        self.idle = np.zeros(capacity, dtype=np.intp)
        patterns = program.patterns
        points = patterns.gates if patterns.interior is None else patterns.interior
        self._fill(
            np.asarray(patterns.masks).astype(np.bool_)[:, kept], np.asarray(points)[:, kept]
        )

    @property
    def capacity(self) -> int:
        """Number of places."""
        return len(self.used)

    @property
    def size(self) -> int:
        """Number of patterns."""
        return int(np.sum(self.used))

    def add(self, directions: Floats, most: int) -> int:
        """Takes in cells that hold given directions (m, d), best first; returns how many are new.

        Where places run out, the patterns that have been idle longest leave, if idle at all.
        """
        if len(directions) == 0:
            return 0
        found, index = patterns_from_weights(self.X, directions.T.astype(self.X.dtype))
        masks, points = np.asarray(found.masks), np.asarray(found.interior)
        real = self._real
        thick = margins(self.X[real].astype(np.float64), masks[real], points) > _THINNEST
        thick &= np.any(masks[real], axis=0)
        known = {self.masks[real, j].tobytes() for j in np.flatnonzero(self.used)}
        fresh: list[int] = []
        for j in dict.fromkeys(np.asarray(index).tolist()):
            if len(fresh) < most and thick[j] and masks[real, j].tobytes() not in known:
                fresh.append(j)
        self._make_room(len(fresh))
        fresh = fresh[: self.capacity - self.size]
        return self._fill(masks[:, fresh], points[:, fresh])

    def program(self) -> ConvexProgram:
        """The program over all places."""
        return self._over(np.arange(self.capacity))

    def compact(self, solution: Solution) -> tuple[ConvexProgram, Solution]:
        """The program over the patterns alone, and a solution of the pool's program as its own."""
        places = np.flatnonzero(self.used)
        weights = solution.weights[:, places]
        certificate = replace(solution.certificate, weights=weights)
        return self._over(places), replace(solution, weights=weights, certificate=certificate)

    def record(self, weights: Array) -> None:
        """Notes which patterns an answer (2, capacity, d) uses."""
        active = np.any(np.asarray(weights) != 0, axis=(0, 2))
        self.idle = np.where(active, 0, self.idle + 1)

    def _over(self, places: NDArray[np.intp]) -> ConvexProgram:
        given, witness = self._program, jnp.asarray(self.witness[:, places])
        patterns = Patterns(witness, jnp.asarray(self.masks[:, places]), witness)
        return ConvexProgram(given.X, given.y, patterns, given.loss, given.sample_weight)

    def _make_room(self, wanted: int) -> None:
        short = wanted - (self.capacity - self.size)
        if short > 0:
            candidates = np.flatnonzero(self.used & (self.idle > 0))
            leaving = candidates[np.argsort(-self.idle[candidates], kind="stable")][:short]
            self.used[leaving] = False
            self.masks[:, leaving] = False
            self.witness[:, leaving] = 0.0

    def _fill(self, masks: Bools, points: Floats) -> int:
        places = np.flatnonzero(~self.used)[: masks.shape[1]]
        self.masks[:, places] = masks
        self.witness[:, places] = points
        self.used[places] = True
        self.idle[places] = 0
        return len(places)
