r"""What the two programs of least weights share.

With R(f) = min { sum ||theta|| : f = sum s D_j X theta_{s,j}, theta_{s,j} in K_j } over given
patterns (the cells of `jaxrelu.programs.program`, both signs), which is also half the least squared
parameter norm (||W1||^2 + ||w2||^2) / 2 of a ReLU network with the fit f,

    max margin      minimise R(f)  subject to  y_i f_i >= 1   (labels -1 and +1)
    minimum norm    minimise R(f)  subject to  f = y

With the polar gauge R'(nu) = max over blocks ||Proj_K(s X^T D_j nu)||, R(f) >= nu . f for
R'(nu) <= 1, so that their duals are

    maximise y . nu  subject to  R'(nu) <= 1, and y_i nu_i >= 0 for the margin only.

They are solved by `jaxrelu.margins.method_of_multipliers`; which constraints can be met is
`jaxrelu.margins.alternatives`.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import known_floats, known_matrix
from jaxrelu.core.options import count, share
from jaxrelu.core.status import Status
from jaxrelu.geometry.host.scaling import exponents, power_down, power_up, times_power
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.margins.method_of_multipliers import End, Shortfall
from jaxrelu.networks.network import Network
from jaxrelu.paths.checks import checked_solver
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.mapping import to_network
from jaxrelu.programs.preparation import with_interior
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.programs.units import Units
from jaxrelu.solvers.base import Solver, default_rtol


def problem(
    X: Any, y: Any, patterns: Patterns, *, one_sided: bool
) -> tuple[ConvexProgram, Floats, Units]:
    """The checked program with its witnesses and its target in float64, in numbers around one.

    With X = 2^a X' and, for real targets, y = 2^b y', weights and R are 2^(b - a) times as large,
    and dual points 2^-a times.
    """
    data = known_matrix(X, "X")
    target = known_floats(y, "y").astype(data.dtype)
    loss = Shortfall(jnp.asarray(one_sided))
    program = ConvexProgram(data, target, patterns, loss)
    check_program(program)
    patterns = with_interior(program).patterns
    units = Units.of(int(exponents(data)), 0 if one_sided else int(exponents(target)), 0, 2)
    data, target = np.ldexp(data, -units.features), np.ldexp(target, -units.fit)
    program = ConvexProgram(jnp.asarray(data), jnp.asarray(target), patterns, loss)
    return program, np.asarray(target, np.float64), units


def limits(
    program: ConvexProgram, rtol: Any, max_steps: Any, solver: Any
) -> tuple[float, int, Solver]:
    """The relative tolerance, the limit on solves and their solver, checked."""
    tolerance = default_rtol(program.X.dtype) if rtol is None else share(rtol, "rtol")
    return tolerance, count(max_steps, "max_steps"), checked_solver(program, solver)


def compact_network(program: ConvexProgram, weights: Array, units: Units) -> Network:
    """The network of convex weights in units, its zero neurons dropped."""
    half, odd = divmod(units.weights, 2)
    network = to_network(program, np.ldexp(np.asarray(weights), odd)).compact()
    assert isinstance(network, Network)
    hidden, output = (np.asarray(layer) for layer in (network.hidden, network.output))
    return Network(jnp.asarray(times_power(hidden, half)), jnp.asarray(times_power(output, half)))


def printed_bounds(end: End, units: Units, dtype: Any) -> tuple[Array, Array]:
    """Both bounds in the user's numbers, rounded outward."""
    lower, upper = power_down(end.lower, units.weights), power_up(end.upper, units.weights)
    return _down(lower, dtype), -_down(-upper, dtype)


def _down(value: float, dtype: Any) -> Array:
    """The largest number of a dtype that is at most a value."""
    rounded = np.asarray(value).astype(dtype)
    if float(rounded) > value:  # a comparison in the narrower type would round the value
        rounded = np.nextafter(rounded, np.asarray(-np.inf, dtype))
    return jnp.asarray(rounded)


def printed_status(end: End, weights: Array, upper: Array) -> Status:
    """The status of what is handed out: numbers that are out of range cannot be OPTIMAL."""
    kept = np.asarray(weights)
    if end.status != Status.OPTIMAL or end.upper == 0:
        return end.status
    if not (np.isfinite(upper) and np.all(np.isfinite(kept))):
        return Status.NONFINITE
    lost = (np.asarray(end.weights) != 0) & (np.abs(kept) < np.finfo(kept.dtype).tiny)
    return Status.PRECISION_FLOOR if np.any(lost) else Status.OPTIMAL
