r"""Minimum norm: the network of least weights that has a given fit.

    minimise R(f)  subject to  f = y

with R of `jaxrelu.margins.problem`: the limit lam -> 0 of the squared loss.

Reference: Wang and Pilanci (ICLR 2022), "The convex geometry of backpropagation", with equalities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.numerics import eps
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import times_power
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.margins.alternatives import fit_space, nearest_fit
from jaxrelu.margins.exact_fit import exact_fit
from jaxrelu.margins.method_of_multipliers import host_arrays, minimise_weights
from jaxrelu.margins.problem import (
    compact_network,
    limits,
    printed_bounds,
    printed_status,
    problem,
)
from jaxrelu.networks.network import Network
from jaxrelu.programs.certificates import Certificate
from jaxrelu.solvers.base import Solver


@register
@dataclass(frozen=True, eq=False)
class MinimumNorm:
    """The network of least weights with a given fit, and its proof.

    Attributes:
        network: the `Network`, its zero neurons dropped.
        value: scalar, sum ||theta|| = half the squared parameter norm of `network`.
        weights: (2, p, d), convex weights, feasible.
        fit: (n,), the fit asked for: y where it is representable, otherwise its least-squares fit.
        dual: (n,), R'(dual) <= 1 over the patterns; the limit of residual / lam.
        lower: scalar, fit . dual.
        upper: scalar, `value` again.
        gap: scalar, upper - lower.
        representable: bool, False if and only if `farkas` is a proof.
        farkas: (n,), zero where representable; otherwise y - fit, with X^T D_j farkas = 0 for every
            pattern and y . farkas > 0.
        status: int32, a `Status`: OPTIMAL means upper - lower <= rtol upper.
        num_steps: int32, solves taken.
    """

    network: Network
    value: Array
    weights: Array
    fit: Array
    dual: Array
    lower: Array
    upper: Array
    gap: Array
    representable: Array
    farkas: Array
    status: Array
    num_steps: Array

    @property
    def certificate(self) -> Certificate:
        """The two bounds, and the weights and the dual point that prove them."""
        return Certificate(self.lower, self.upper, self.gap, self.weights, self.dual)


@on_host()
def minimum_norm(
    X: Any,
    y: Any,
    patterns: Patterns,
    *,
    rtol: float | None = None,
    max_steps: int = 40,
    solver: Solver | None = None,
) -> MinimumNorm:
    r"""The minimum-norm fit of a target: the limit lam -> 0 of the squared loss.

    minimise sum ||theta||  subject to  sum_{s,j} s D_j X theta_{s,j} = y,  theta in K_j.

    The optimal value of `jaxrelu.solve` over lam, and its residual over lam, converge to `value`
    and to an optimal `dual`. Where no network over the patterns fits y, the fits still form a
    subspace (`jaxrelu.margins.alternatives`), and what the solutions converge to are the
    minimum-norm networks with the projection of y on it: that is the fit asked for then.

    Args:
        X: array (n, d), float64 for gaps below 1e-3.
        y: array (n,).
        patterns: `Patterns` of X, for example ``jr.enumerate_patterns(X)``.
        rtol: relative tolerance of the gap; default 1e-6 in float64, 1e-3 in float32.
        max_steps: limit on solves.
        solver: as in `jaxrelu.solve`, for every one of them.

    Returns:
        `MinimumNorm`. Targets out of reach are told by `representable`, with a proof. More
        patterns, or a column of ones in X, may help.

    Raises:
        ValueError, TypeError: a target that is not finite, shapes that do not fit, called in a
            trace.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> from jaxrelu.margins.minimum_norm import minimum_norm
        >>> X, y = jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), jnp.asarray([3.0, 4.0])
        >>> found = minimum_norm(X, y, jr.enumerate_patterns(X))
        >>> bool(found.representable), round(float(found.value), 3)
        (True, 5.0)

    Reference: Wang and Pilanci (ICLR 2022), with equalities; Savarese, Evron, Soudry and Srebro
    (COLT 2019) on what this norm is in one dimension.
    """
    program, given, units = problem(X, y, patterns, one_sided=False)
    tolerance, steps, solver = limits(program, rtol, max_steps, solver)
    data, masks = host_arrays(program)
    target, farkas = nearest_fit(fit_space(data, masks, eps(program.X.dtype)), given)
    correct = exact_fit(data, masks, np.asarray(program.patterns.interior, np.float64).T)

    def feasible(weights: Array) -> tuple[Floats, float]:
        theta = correct(np.asarray(weights, np.float64), target)
        missing = target - np.sum(masks * (data @ (theta[0] - theta[1]).T), axis=1)
        # A correction that directions of the fit elude, nearly dependent ones, is none.
        return theta, 1.0 - float(np.linalg.norm(missing) / (tolerance * np.linalg.norm(target)))

    end = minimise_weights(program, target, tolerance, steps, feasible, solver)

    def number(value: Any) -> Array:
        return jnp.asarray(value, program.X.dtype)

    weights = number(times_power(np.asarray(end.weights), units.weights))
    lower, upper = printed_bounds(end, units, program.X.dtype)
    proof = np.zeros_like(target) if farkas is None else times_power(farkas, units.fit)
    return MinimumNorm(
        compact_network(program, end.weights, units),
        upper,
        weights,
        number(times_power(target, units.fit)),
        number(times_power(end.dual, -units.features)),
        lower,
        upper,
        upper - lower,
        jnp.asarray(farkas is None),
        number(proof),
        jnp.asarray(printed_status(end, weights, upper), jnp.int32),
        jnp.asarray(end.num_steps, jnp.int32),
    )
