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
from jaxrelu.core.checks import check_known, known_floats, known_matrix
from jaxrelu.core.options import count, share
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.margins.method_of_multipliers import Shortfall
from jaxrelu.networks.network import Network
from jaxrelu.paths.checks import checked_solver
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.mapping import to_network
from jaxrelu.programs.preparation import with_interior
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.solvers.base import Solver, default_rtol


def problem(X: Any, y: Any, patterns: Patterns, *, one_sided: bool) -> tuple[ConvexProgram, Floats]:
    """The checked program with its witnesses, and its target in float64."""
    data = jnp.asarray(known_matrix(X, "X"))
    target = known_floats(y, "y")
    check_known(patterns=patterns)
    y = jnp.asarray(target).astype(data.dtype)
    program = ConvexProgram(data, y, patterns, Shortfall(jnp.asarray(one_sided)))
    check_program(program)
    patterns = with_interior(program).patterns
    program = ConvexProgram(data, y, patterns, program.loss)
    return program, np.asarray(y, np.float64)


def limits(
    program: ConvexProgram, rtol: Any, max_steps: Any, solver: Any
) -> tuple[float, int, Solver]:
    """The relative tolerance, the limit on solves and their solver, checked."""
    tolerance = default_rtol(program.X.dtype) if rtol is None else share(rtol, "rtol")
    return tolerance, count(max_steps, "max_steps"), checked_solver(program, solver)


def compact_network(program: ConvexProgram, weights: Array) -> Network:
    """The network of convex weights, its zero neurons dropped."""
    network = to_network(program, weights)
    assert isinstance(network, Network)
    return network.compact()
