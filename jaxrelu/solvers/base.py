"""The contract of the solvers: a program and a lam in, two-sided evidence out.

A solver is a frozen dataclass registered as a pytree. Its fields that fix shapes are static;
everything else, lam and tolerances above all, is data. It has one method, ``run``, that is pure and
traceable. What it returns is evidence, not a verdict: feasible weights, a residual, and an upper
bound of the block correlations at that residual. `jaxrelu.solve` evaluates both values there and
gives the status.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jax import Array

from jaxrelu.programs.program import Program


class Tolerance(NamedTuple):
    """Stop once ``upper - lower <= absolute + relative * |upper|``; scalars, data."""

    relative: Array
    absolute: Array

    def met(self, upper: Array, lower: Array) -> Array:
        """Scalar bool; False for NaN."""
        return upper - lower <= self.absolute + self.relative * abs(upper)


class Warm(NamedTuple):
    """A point to start from: weights, the residual there, and its lam."""

    weights: Array
    residual: Array
    lam: Array


class Evidence(NamedTuple):
    """What a solver returns.

    Attributes:
        weights: feasible weights, of the program's shape.
        residual: (n,), a direction for the dual point (minus a loss gradient near `weights`).
        bound: scalar, an upper bound of max_b ||q_b|| at `residual`.
        num_steps: int32.
        finite: bool, no NaN or infinity appeared.
        exhausted: bool, the steps ran out.
    """

    weights: Array
    residual: Array
    bound: Array
    num_steps: Array
    finite: Array
    exhausted: Array


class Solver(Protocol):
    """Anything with this method can be passed as ``solver=``."""

    def run(
        self,
        program: Program,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Array,
        init: Warm | None,
    ) -> Evidence:
        """Solves the program at lam as far as the tolerance asks and the steps allow.

        Args:
            program: with d <= n and interior witnesses (see `jaxrelu.solve`).
            lam: scalar.
            tolerance: `Tolerance`.
            max_steps: int32 scalar.
            init: `Warm`, or None for a cold start.

        Returns:
            `Evidence`.
        """

    @property
    def default_max_steps(self) -> int:
        """Steps allowed when the caller does not say."""
        return 0

    def check(self, program: Any) -> None:
        """Raises ValueError for a program that this solver cannot take."""
