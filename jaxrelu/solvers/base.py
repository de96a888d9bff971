"""The contract of the solvers: a program and a lam in, two-sided evidence out.

A solver is a frozen dataclass registered as a pytree. Its fields that fix shapes are static;
everything else, lam and tolerances above all, is data. It has one method, ``run``, that is pure and
traceable. What it returns is evidence, not a verdict: nearly feasible blocks, a residual, and an
element of every block's dual cone, which bounds its correlation at that residual.
`jaxrelu.solvers.verdict` evaluates both values there and gives the status.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.options import nonnegative_scalar
from jaxrelu.core.rounding import times_power
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.programs.bounds import Blocks
from jaxrelu.programs.program import Program


class Tolerance(NamedTuple):
    """Stop once ``upper - lower <= absolute + relative * |upper|``; scalars, data.

    Without an absolute one it is 50 eps times the objective at zero weights, which only the program
    in units knows: `filled`.
    """

    relative: Array
    absolute: Any

    def filled(self, default: Array, exponent: Array | None = None) -> Tolerance:
        """With the default if none is given; a given one is divided by 2^exponent."""
        absolute = self.absolute
        if absolute is not None and exponent is not None:
            absolute = times_power(absolute, -exponent)
        return Tolerance(self.relative, default if absolute is None else absolute)

    def met(self, upper: Array, lower: Array) -> Array:
        """Scalar bool; False for NaN."""
        return upper - lower <= self.absolute + self.relative * abs(upper)


class WarmStart(NamedTuple):
    """A point to start from: weights, with a skip connection one of them; residual there; lam."""

    weights: Array
    residual: Array
    lam: Array


class Evidence(NamedTuple):
    """What a solver returns.

    Attributes:
        blocks: nearly feasible blocks, those that are not zero among them.
        residual: (n,), a direction for the dual point (minus a loss gradient near their fit).
        duals: an element of every block's dual cone, such that ||s_b X^T D_b r + v_b|| is small.
        num_steps: int32.
        finite: bool, no NaN or infinity appeared.
        exhausted: bool, the steps ran out.
    """

    blocks: Blocks
    residual: Array
    duals: DualElements
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
        init: WarmStart | None,
    ) -> Evidence:
        """Solves the program at lam as far as the tolerance asks and the steps allow.

        Args:
            program: in numbers around one, with d <= n and interior witnesses.
            lam: scalar.
            tolerance: `Tolerance`, filled.
            max_steps: int32 scalar.
            init: `WarmStart`, or None for a cold start.

        Returns:
            `Evidence`.
        """

    @property
    def default_max_steps(self) -> int:
        """Steps allowed when the caller does not say."""
        return 0

    def check(self, program: Any) -> None:
        """Raises ValueError for a program that this solver cannot take."""


def tolerances(program: Program, rtol: Any, atol: Any) -> Tolerance:
    """The tolerances as data of the program's dtype, defaults filled in."""
    dtype = program.X.dtype
    rtol = default_rtol(dtype) if rtol is None else rtol
    absolute = None if atol is None else nonnegative_scalar(atol, "atol", dtype)
    return Tolerance(nonnegative_scalar(rtol, "rtol", dtype), absolute)


def default_rtol(dtype: Any) -> float:
    """The relative gap asked for by default: well above what bounds that hold leave in a dtype."""
    return 1e-6 if dtype == jnp.float64 else 1e-3
