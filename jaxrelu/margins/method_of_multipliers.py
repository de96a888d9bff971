r"""The method of multipliers for constraints on the fit, by solves of the convex program.

For minimise R(f) subject to y_i f_i >= 1, or to f = y, with R and the polar gauge R' as in
`jaxrelu.margins.problem`: the proximal point method on the dual,

    nu+ = argmax y . nu - lam/2 ||nu - nu_k||^2   (R'(nu) <= 1; y_i nu_i >= 0 for the margin only),

is the method of multipliers on the primal. With r = lam nu and the shifted target
t = y + lam nu_k (which has the signs of y, for nu_k has), nu+ is the residual over lam of

    minimise  sum_i loss(f_i, t_i) + lam R(f),   loss(f, t) = (t - f)^2 / 2,

where for the margin samples beyond their target count for nothing. That is `jaxrelu.solve` at a
moderate lam. Its own dual point r has R'(r) <= lam, so that r / lam is feasible for the dual above
and y . r / lam a lower bound of the optimum; an upper bound is R at weights that meet the
constraints. Both are rounded outward. Convergence is superlinear as lam falls, and lam need not
fall far.

Reference: Rockafellar (1976), "Augmented Lagrangians and applications of the proximal point
algorithm in convex programming".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.core.numerics import eps
from jaxrelu.core.pytrees import register
from jaxrelu.core.status import Status
from jaxrelu.paths.solve import solve
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.program import ConvexProgram, residual_at
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.base import Solver

_FIRST_LAM = 0.1  # of lambda_max at y
_LAM_FACTOR = 0.1
_INNER = 1e-2  # relative to the tolerance asked for
_FUTILE = 6


@register
@dataclass(frozen=True, eq=False)
class Shortfall:
    """Half the squared distance of a fit to its target, or only of fits that fall short of it.

    (t - f)^2 / 2, and zero where `one_sided` and f is beyond t, seen from zero. Targets of the
    one-sided loss are not zero.

    Attributes:
        one_sided: scalar bool. It is data: both problems share one compiled solve.
    """

    one_sided: Any

    @property
    def smoothness(self) -> float:
        """1."""
        return 1.0

    def _missing(self, fit: Array, target: Array) -> Array:
        missing = target - fit
        return jnp.where(self.one_sided & (jnp.sign(target) * missing <= 0), 0.0, missing)

    def value(self, fit: Array, target: Array) -> Array:
        """Half the squared shortfall, shape (n,)."""
        return 0.5 * self._missing(fit, target) ** 2

    def gradient(self, fit: Array, target: Array) -> Array:
        """Minus the shortfall, shape (n,)."""
        return -self._missing(fit, target)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Conjugate dual * t + dual^2 / 2; one-sided, +inf where dual has the sign of t."""
        wrong = self.one_sided & (jnp.sign(target) * dual > 0)
        return jnp.where(wrong, jnp.inf, dual * target + 0.5 * dual**2)

    def check_target(self, target: Any) -> None:
        """Targets are built here."""


class End(NamedTuple):
    """What the method of multipliers ends with."""

    weights: Array
    dual: Floats
    lower: float
    upper: float
    status: Status
    num_steps: int


def minimise_weights(
    program: ConvexProgram,
    y: Floats,
    rtol: float,
    max_steps: int,
    feasible: Callable[[Array], tuple[Floats, float]],
    solver: Solver | None,
) -> End:
    """The method of the module's docstring, until the gap closes or no longer falls.

    `feasible` makes weights that meet the constraints out of weights in the cones, and says by a
    number that is not positive if it could not.
    """
    dtype = program.X.dtype
    data, masks = host_arrays(program)
    program = _with_target(program, y)
    # Without cones: lambda_max or up to twice as much.
    top = float(np.max(np.linalg.norm((masks * y[:, None]).T @ data, axis=1), initial=0.0))
    zero = jnp.zeros((*program.block_shape, data.shape[1]), dtype)
    best = End(zero, np.zeros_like(y), 0.0, np.inf, Status.MAX_STEPS, 0)
    if top == 0.0:  # the target is zero
        return best._replace(upper=0.0, status=Status.OPTIMAL)
    lam, least, nu, inner = _FIRST_LAM * top, eps(dtype) ** 0.5 * top, best.dual, _INNER * rtol
    solution = _nothing(program, lam)
    futile = 0
    for step in range(1, max_steps + 1):
        here = _with_target(program, y + lam * nu)
        solution = solve(here, lam, rtol=inner, init=solution, solver=solver)
        nu = np.asarray(solution.certificate.dual, np.float64) / lam
        if not (np.all(np.isfinite(nu)) and np.all(np.isfinite(np.asarray(solution.fit)))):
            return best._replace(status=Status.NONFINITE, num_steps=step)
        before = best.upper - best.lower
        lower = float(y @ nu) - sum_error(len(y), y * nu)
        if lower > best.lower:
            best = best._replace(dual=nu, lower=lower)
        weights, reached = feasible(solution.weights)
        sizes = np.linalg.norm(weights, axis=-1)
        upper = float(np.sum(sizes)) + sum_error(sizes.size + data.shape[1], sizes)
        if reached > 0 and upper < best.upper:
            best = best._replace(weights=jnp.asarray(weights, dtype), upper=upper)
        best = best._replace(num_steps=step)
        # Bounds that cross by more are not known well enough.
        if np.isfinite(best.upper) and abs(best.upper - best.lower) <= rtol * best.upper:
            return best._replace(status=Status.OPTIMAL)
        # Where rounding let the bounds cross nothing is gained either.
        futile = 0 if best.upper - best.lower < 0.9 * max(before, 0.0) else futile + 1
        if futile >= _FUTILE and np.isfinite(best.upper):
            return best._replace(status=Status.STALLED)
        # A smaller lam is faster and less accurate: only while constraints are not met closely.
        missed = np.abs(np.asarray(program.loss.gradient(solution.fit, program.y)))
        far = float(np.max(missed)) > 0.1 * rtol * float(np.max(np.abs(y)))
        if far and int(solution.status) in (Status.OPTIMAL, Status.PRECISION_FLOOR):
            lam = max(_LAM_FACTOR * lam, least)
        else:
            inner = max(_INNER * inner, eps(dtype))
    return best


def sum_error(count: int, terms: Floats) -> float:
    """What a sum in float64 can be off where every term was rounded `count` times, and a few more.

    See `jaxrelu.core.rounding`.
    """
    return (count + 8) * 0.51 * eps(np.float64) * float(np.sum(np.abs(terms)))


def _with_target(program: ConvexProgram, target: Floats) -> ConvexProgram:
    y = jnp.asarray(target, program.X.dtype)
    return ConvexProgram(program.X, y, program.patterns, program.loss)


def _nothing(program: ConvexProgram, lam: float) -> Solution:
    """Zero weights as a start, so that the first solve and the others are compiled as one."""
    n, d = program.X.shape
    weights = jnp.zeros((*program.block_shape, d), program.X.dtype)
    fit = jnp.zeros((n,), program.X.dtype)
    nought = jnp.zeros((), program.X.dtype)
    residual = residual_at(program, fit)
    return Solution(
        weights, jnp.asarray(lam, program.X.dtype), fit, residual,
        Certificate(nought, nought, nought, weights, fit),
        jnp.asarray(Status.STALLED, jnp.int32), jnp.asarray(0, jnp.int32),
    )  # fmt: skip


def host_arrays(program: ConvexProgram) -> tuple[Floats, Bools]:
    """X and the masks (bool) of a program in NumPy."""
    return np.asarray(program.X, np.float64), np.asarray(program.patterns.masks) > 0
