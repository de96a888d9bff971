"""From evidence on a program of several outputs to a certificate and a status."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps
from jaxrelu.programs.bounds import Value
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.units import Units, are_lost, into_units, out_of_units, printed
from jaxrelu.programs.vector_bounds import OutputsBound, outputs_in_units, outputs_lower_value
from jaxrelu.programs.vector_program import VectorProgram, outputs_loss, outputs_residual
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.verdict import status_of


class PreparedOutputs(NamedTuple):
    """A program of several outputs in numbers around one, and what does not depend on lam."""

    program: VectorProgram
    units: Units
    at_zero: Array

    def tolerance(self, given: Tolerance) -> Tolerance:
        """A tolerance in units, the default filled in."""
        return given.filled(self._default, self.units.objective)

    def users_tolerance(self, given: Tolerance) -> Tolerance:
        """A tolerance for values as they are printed, the default filled in."""
        default = out_of_units(self._default, self.units.objective)
        # A default that overflows would be met by anything.
        return given.filled(jnp.where(jnp.isfinite(default), default, 0.0))

    @property
    def _default(self) -> Array:
        return 50 * eps(self.program.X.dtype) * self.at_zero

    def lam(self, users_lam: Array) -> Array:
        """Lam in units."""
        return into_units(users_lam, self.units.lam)


def prepared_outputs(program: VectorProgram) -> PreparedOutputs:
    """A program in numbers around one."""
    inside, units = outputs_in_units(program)
    nothing = jnp.zeros((inside.X.shape[0], program.num_outputs), inside.X.dtype)
    return PreparedOutputs(inside, units, outputs_loss(inside, nothing))


class Claim(NamedTuple):
    """What is claimed of a program in units.

    Attributes:
        weights: feasible, a pytree.
        upper: their objective, rounded up.
        size: scalar, the penalty of the weights over lam.
        fit: (n, c), of the weights.
        residual: (n, c).
        bound: of the largest ||R^T D_j X u|| at the residual.
        num_steps: int32.
        finite: bool, nothing broke.
        exhausted: bool, the steps ran out.
    """

    weights: Any
    upper: Value
    size: Array
    fit: Array
    residual: Array
    bound: OutputsBound
    num_steps: Array
    finite: Array
    exhausted: Array


def conclude_outputs(
    at: PreparedOutputs, users_lam: Array, tolerance: Tolerance, claim: Claim, exponents: Any
) -> Solution:
    """Evaluates both values at what was found, and gives the status.

    Args:
        at: the program.
        users_lam: as it was given; what is not positive and finite ends as INVALID.
        tolerance: in the numbers of the user.
        claim: in units.
        exponents: of the units of the weights, a pytree like these; None for a leaf without units.

    Returns:
        `Solution`, in the numbers of the user.
    """
    program, units, lam = at.program, at.units, at.lam(users_lam)
    lower, t = outputs_lower_value(program, lam, claim.residual, claim.bound.bound)
    dual = t * claim.residual
    # A bound that is too large by its rounding shortens the dual point by as much.
    rounding = claim.upper.rounding + lower.rounding + claim.bound.rounding * claim.size
    weights = jax.tree.map(
        lambda leaf, power: leaf if power is None else out_of_units(leaf, power),
        claim.weights, exponents, is_leaf=lambda leaf: leaf is None,
    )  # fmt: skip
    given_dual = out_of_units(dual, units.residual)
    high = printed(claim.upper.value, units.objective, 1)
    low = printed(lower.value, units.objective, -1)
    pairs = [
        *zip(jax.tree.leaves(claim.weights), jax.tree.leaves(weights), strict=True),
        (dual, given_dual),
        (claim.upper.value, out_of_units(claim.upper.value, units.objective)),
        (lower.value, out_of_units(lower.value, units.objective)),
    ]
    floats = [pair for pair in pairs if jnp.issubdtype(pair[0].dtype, jnp.floating)]
    lost = jnp.any(jnp.stack([jnp.any(are_lost(*pair)) for pair in floats]))
    finite = [jnp.all(jnp.isfinite(pair[1])) for pair in floats]
    status = status_of(
        valid=(lam > 0) & jnp.isfinite(lam),
        sound=claim.finite & jnp.all(jnp.stack(finite)),
        met=at.users_tolerance(tolerance).met(high, low) & ~lost,
        close=(claim.upper.value - lower.value <= 4.0 * rounding) | lost,
        exhausted=claim.exhausted,
    )
    proof = Certificate(lower=low, upper=high, gap=high - low, weights=weights, dual=given_dual)
    return Solution(
        weights=weights,
        lam=users_lam,
        fit=out_of_units(claim.fit, units.fit),
        residual=out_of_units(outputs_residual(program, claim.fit), units.residual),
        certificate=proof,
        status=status,
        num_steps=claim.num_steps,
    )
