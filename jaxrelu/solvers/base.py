"""The contract of the solvers: a program and a lam in, two-sided evidence out.

A solver is a frozen dataclass registered as a pytree. Its fields that fix shapes are static;
everything else, lam and tolerances above all, is data. It has one method, ``run``, that is pure and
traceable. What it returns is evidence, not a verdict: feasible weights, a residual, and an upper
bound of the block correlations at that residual. `jaxrelu.solvers.verdict` evaluates both values
there and gives the status.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import host_float
from jaxrelu.core.numerics import eps
from jaxrelu.core.tracing import is_traced
from jaxrelu.programs.program import Program, loss_value


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


def tolerances(program: Program, rtol: Any, atol: Any) -> Tolerance:
    """The tolerances as data of the program's dtype, defaults filled in."""
    dtype = program.X.dtype
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not is_traced(value):
            number = host_float(value, name)
            if number.ndim != 0 or not 0 <= float(number) < np.inf:
                raise ValueError(f"{name} is {value}; pass one finite number >= 0.")
    if rtol is None:
        rtol = 1e-6 if dtype == jnp.float64 else 1e-4
    if atol is None:
        zero = jnp.zeros_like(jnp.asarray(program.y))
        atol = 50 * eps(dtype) * loss_value(program, zero)
    return Tolerance(jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype))
