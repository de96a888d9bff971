r"""Column generation: the best outputs of some neurons, then the directions that are missing.

Over neurons u_k the exact program is a group lasso; its residual R is the dual vector of all cells
if no u in a cell K_j has ||R^T D_j X u|| > lam ||u||. The directions that do are new neurons, one a
cell at most a round, and those without an output are dropped. At any R the largest value of all
cells bounds the optimum from below, and every master is a network. Rounds go by the gap that there
would be if no direction were missed; where it is closed, or stuck, bounds that hold are looked for.

Reference: the exchange method for semi-infinite programs (Hettich and Kortanek, SIAM Review 1993).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.numerics import eps
from jaxrelu.geometry.cell_found import Found
from jaxrelu.geometry.cell_maxima import CellMaxima
from jaxrelu.programs.bounds import Value
from jaxrelu.programs.units import into_units
from jaxrelu.programs.vector_bounds import Neurons, OutputsBound
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.column_generation.master import (
    Solved,
    lower_value,
    placed,
    solve_master,
    valued,
)
from jaxrelu.solvers.outputs_verdict import Claim, PreparedOutputs

_MASTER_STEPS = 200
_LEAST_PLACES = 32
_BACK = 0.05
# How far a direction may move into its cell.
_REACH = 0.1
# Directions that are closer are one.
_SAME = 1e-8
# Masters are solved to a share of the gap that is left.
_SHARE = 0.05
# Cells that enter in a round, over the neurons that are there, and at least.
_GROWTH = 1.0
_LEAST_ENTERING = 16
# Rounds without a lower gap before the end.
_PATIENCE = 4
# Where the gap would be this share of what is allowed if no direction were missed, bounds decide.
_SURE = 0.1
# By how much a direction that ascents begun anew find must be longer, to go on with it.
_MISSED = 1e-7


class Answer(NamedTuple):
    """Where a lam ended: the best claim, and the neurons to go on from."""

    claim: Claim
    neurons: Neurons


class _Best(NamedTuple):
    neurons: Neurons
    upper: Value
    fit: Any
    residual: Any
    bound: OutputsBound
    lower: float


class Generator:
    """Solves an exact program, prepared, at one lam after another."""

    def __init__(self, at: PreparedOutputs, maxima: CellMaxima) -> None:
        self.at, self.maxima = at, maxima
        self.sigma = np.zeros((), at.program.X.dtype)

    def solve(
        self, users_lam: Any, tolerance: Tolerance, max_rounds: int, start: Neurons | None
    ) -> Answer:
        """One lam, from given neurons or from none."""
        lam = np.asarray(self.at.lam(jnp.asarray(users_lam)))
        within = jax.device_get(self.at.tolerance(tolerance))
        valid = bool(np.isfinite(lam) and lam > 0)
        safe = lam if valid else np.ones_like(lam)
        neurons = self._none() if start is None else self._placed(start)
        best: _Best | None = None
        upper, hoped, gap, idle, rounds = np.inf, -np.inf, np.inf, 0, 0
        while True:
            solved = self._master(safe, within, neurons, gap)
            found = self._maxima(solved, safe, closely=False)
            best = self._better(best, solved, found, safe)
            # As if no direction were missed: it is what masters and rounds go by.
            seen = self._number(np.max(found.values, initial=0.0))
            hoped = max(hoped, float(lower_value(self.at.program, safe, solved.residual, seen)))
            before, gap = gap, float(best.upper.value) - hoped
            allowed = float(within.absolute + within.relative * abs(float(best.upper.value)))
            lowered = upper - float(best.upper.value) > 0.1 * allowed
            upper, rounds = float(best.upper.value), rounds + 1
            idle = 0 if gap < 0.9 * before or lowered else idle + 1
            finite = bool(solved.finite) and np.isfinite(upper) and np.isfinite(best.lower)
            kept = _used(solved.neurons)
            neurons, entered = self._with(kept, found, float(safe))
            closed = bool(within.met(float(best.upper.value), best.lower))
            # What is missing may be the master's own accuracy.
            stuck = idle >= _PATIENCE or (not entered and idle > 1)
            over = closed or not finite or stuck or rounds > max_rounds
            if not over and gap > 0.5 * allowed:
                continue
            if finite and not closed:
                found = self._maxima(solved, safe, closely=True)
                best = self._better(best, solved, found, safe)
                closed = bool(within.met(float(best.upper.value), best.lower))
                neurons, entered = self._with(kept, found, float(safe))
                missed = float(np.max(found.values, initial=0.0)) > (1.0 + _MISSED) * float(seen)
                if missed and entered and rounds <= max_rounds:
                    gap, hoped, idle = np.inf, -np.inf, 0
                    continue
            if over or closed or gap <= _SURE * allowed:
                break
        exhausted = rounds > max_rounds and not closed
        return Answer(_claim(best, rounds - 1, finite, exhausted), kept)

    def _maxima(self, solved: Solved, lam: Any, *, closely: bool) -> Found:
        correlations = np.asarray(solved.correlations, np.float64)
        return self.maxima.at(correlations, float(lam), closely=closely)

    def _better(self, best: _Best | None, solved: Solved, found: Found, lam: Any) -> _Best:
        bound = self._bound(solved, found)
        lower = float(lower_value(self.at.program, lam, solved.residual, bound.bound))
        return _better(best, solved, bound, lower)

    def claim(self, users_lam: Any, neurons: Neurons, residual: Any) -> Claim:
        """Neurons from anywhere, moved into their cells, at a residual or at their own."""
        program, lam = self.at.program, self.at.lam(jnp.asarray(users_lam))
        finite = np.all(np.isfinite(neurons.directions), axis=1)[:, None]
        inside = placed(program, neurons.directions, neurons.cells, np.inf)
        some = np.any(inside != 0, axis=1)[:, None]
        lost = np.where(finite, 0.0, np.nan)
        outputs = np.where(some & finite, neurons.outputs, lost).astype(self._dtype)
        places = max(_LEAST_PLACES, len(neurons.cells))
        padded = _padded(Neurons(inside, outputs, neurons.cells), places)
        at = valued(program, lam, padded, self._given(residual))
        found = self.maxima.at(np.asarray(at.correlations, np.float64), float(lam))
        bound = self._bound(at, found)
        lower = lower_value(program, lam, at.residual, bound.bound)
        return _claim(_better(None, at, bound, float(lower)), 0, bool(at.finite), False)

    def critical(self) -> tuple[float, float]:
        """Two numbers that the critical lam lies between, in units."""
        program = self.at.program
        padded, one = _padded(self._none(), _LEAST_PLACES), jnp.ones((), self._dtype)
        at = valued(program, one, padded, None)
        found = self.maxima.at(np.asarray(at.correlations, np.float64), 0.0)
        bound = self._bound(at, found)
        best = np.argsort(-found.values)[:1]
        inside = placed(program, found.directions[best], best.astype(np.int32), np.inf)
        length = np.linalg.norm(inside, axis=1)
        c = np.asarray(at.correlations, np.float64)[best]
        size = np.linalg.norm(np.einsum("pdc,pd->pc", c, np.asarray(inside, np.float64)), axis=1)
        low = float(np.max(np.where(length > 0, size / np.where(length > 0, length, 1.0), 0.0)))
        low = low * (1.0 - 64.0 * eps(self._dtype)) - 2.0 * float(bound.rounding)
        return (max(low, 0.0) if np.isfinite(found.bound) else np.nan), float(bound.bound)

    def _placed(self, given: Neurons) -> Neurons:
        """Neurons from anywhere in their cells; those with no room there are left out."""
        inside = placed(self.at.program, given.directions, given.cells, _REACH)
        some = np.any(inside != 0, axis=1) & np.all(np.isfinite(given.outputs), axis=1)
        outputs = np.asarray(given.outputs, self._dtype)
        return Neurons(inside[some], outputs[some], np.asarray(given.cells, np.int32)[some])

    def _given(self, residual: Any) -> Any:
        if residual is None:
            return None
        return into_units(jnp.asarray(residual), self.at.units.residual)

    def _bound(self, solved: Solved, found: Found) -> OutputsBound:
        rounding = float(solved.rounding) * (1.0 + found.slip)
        return OutputsBound(
            self._number(found.bound * (1.0 + 8.0 * eps(self._dtype)) + rounding),
            self._number(rounding),
        )

    def _master(self, lam: Any, within: Tolerance, neurons: Neurons, gap: float) -> Solved:
        places = _LEAST_PLACES
        while places < len(neurons.cells):
            places *= 2
        share = _SHARE * gap if np.isfinite(gap) else np.inf
        goal = 0.2 * np.asarray(within.absolute), 0.2 * np.asarray(within.relative)
        absolute = max(float(goal[0]), share if np.isfinite(share) else 0.0)
        rough = self._number(float(goal[1]) if np.isfinite(share) else 1e-3)
        asked = Tolerance(rough, self._number(absolute))
        steps = np.int32(_MASTER_STEPS)
        solved: Solved = solve_master(
            self.at.program, lam, asked, steps, _padded(neurons, places), self.sigma
        )
        if np.isfinite(float(solved.sigma)) and len(neurons.cells):
            # Other neurons: what was easy need not be.
            self.sigma = np.asarray(_BACK * solved.sigma, self._dtype)
        return solved

    def _with(self, kept: Neurons, found: Any, lam: float) -> tuple[Neurons, bool]:
        """Neurons beside those that are missing most, and whether there are any."""
        worth = found.values
        order = np.argsort(-worth, kind="stable")
        most = max(_LEAST_ENTERING, int(_GROWTH * len(kept.cells)))
        chosen = order[: min(most, int(np.sum(worth > lam * (1.0 + 4.0 * eps(self._dtype)))))]
        if not len(chosen):
            return kept, False
        cells: Any = chosen.astype(np.int32)
        inside = placed(self.at.program, found.directions[chosen], cells, _REACH)
        some = np.any(inside != 0, axis=1) & _are_new(inside, kept.directions)
        outputs = np.zeros((int(np.sum(some)), kept.outputs.shape[1]), self._dtype)
        new = Neurons(inside[some], outputs, cells[some])
        joined = Neurons(*(np.concatenate(pair) for pair in zip(kept, new, strict=True)))
        return joined, bool(np.any(some))

    def _none(self) -> Neurons:
        d, c = self.at.program.X.shape[1], self.at.program.num_outputs
        empty = np.zeros((0, d), self._dtype), np.zeros((0, c), self._dtype)
        return Neurons(*empty, np.zeros(0, np.int32))

    def _number(self, value: float) -> Array:
        return jnp.asarray(value, self._dtype)

    @property
    def _dtype(self) -> Any:
        return self.at.program.X.dtype


def _better(best: _Best | None, solved: Solved, bound: OutputsBound, lower: float) -> _Best:
    new = _Best(solved.neurons, solved.upper, solved.fit, solved.residual, bound, lower)
    if best is None:
        return new
    if not float(solved.upper.value) < float(best.upper.value):
        new = new._replace(neurons=best.neurons, upper=best.upper, fit=best.fit)
    if not lower > best.lower:
        new = new._replace(residual=best.residual, bound=best.bound, lower=best.lower)
    return new


def _claim(best: _Best, rounds: int, finite: bool, exhausted: bool) -> Claim:
    neurons = best.neurons
    sizes = np.linalg.norm(np.asarray(neurons.outputs), axis=1)
    return Claim(
        weights=neurons,
        upper=best.upper,
        size=jnp.asarray(np.sum(sizes), neurons.outputs.dtype),
        fit=best.fit,
        residual=best.residual,
        bound=best.bound,
        num_steps=jnp.asarray(rounds, jnp.int32),
        finite=jnp.asarray(finite),
        exhausted=jnp.asarray(exhausted),
    )


def _used(neurons: Neurons) -> Neurons:
    """Those with an output, on the host."""
    directions, outputs, cells = (np.asarray(part) for part in neurons)
    some = np.any(outputs != 0, axis=1) & np.any(directions != 0, axis=1)
    return Neurons(directions[some], outputs[some], cells[some])


def _are_new(directions: Floats, others: Floats) -> Any:
    """Whether directions (m, d) are none of others (k, d), and none of those before them."""
    every = np.concatenate([others, directions])
    apart = np.max(np.abs(directions[:, None] - every[None]), axis=2, initial=0.0)
    before = np.arange(len(every)) < len(others) + np.arange(len(directions))[:, None]
    return ~np.any((apart <= _SAME) & before, axis=1)


def _padded(neurons: Neurons, places: int) -> Neurons:
    """With zero neurons behind."""
    more = places - len(neurons.cells)

    def longer(part: Floats) -> Any:
        return np.concatenate([part, np.zeros((more, *part.shape[1:]), part.dtype)])

    return Neurons(*(longer(np.asarray(part)) for part in neurons))
