r"""Maximum margin: the network of least weights that gives every label a margin.

    minimise R(f)  subject to  y_i f_i >= 1   (labels -1 and +1)

with R of `jaxrelu.margins.problem`. It is the margin problem, since f is homogeneous of degree one
in theta: a network of sum ||theta|| = 1 has min_i y_i f_i at most 1 / value.

Reference: Wang and Pilanci (ICLR 2022), "The convex geometry of backpropagation", for the convex
max-margin program and its dual.
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
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import times_power
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.losses.checks import check_labels
from jaxrelu.margins.alternatives import fit_space, separation
from jaxrelu.margins.method_of_multipliers import End, host_arrays, minimise_weights, sum_error
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

_SPECK = 1e-3  # of the tolerance, of the largest block


@register
@dataclass(frozen=True, eq=False)
class MaxMargin:
    """The network of least weights with y_i f_i >= 1, and its proof.

    Attributes:
        network: the `Network`, with min_i y_i f_i = 1, its zero neurons dropped.
        value: scalar, sum ||theta|| = half the squared parameter norm of `network`; infinite where
            the labels are not separable.
        margin: scalar, 1 / value: the margin of `network` scaled to sum ||theta|| = 1, the largest
            there is; 0 where the labels are not separable.
        weights: (2, p, d), convex weights, feasible.
        dual: (n,), y_i dual_i >= 0 and R'(dual) <= 1 over the patterns.
        lower: scalar, y . dual.
        upper: scalar, `value` again.
        gap: scalar, upper - lower; 0 where both are infinite.
        separable: bool, False if and only if `farkas` is a proof.
        farkas: (n,), zero where separable; otherwise y_i farkas_i >= 0, not zero, and
            X^T D_j farkas = 0 for every pattern, so that farkas . f = 0 for all their networks. Its
            non-zero entries are samples whose labels no network over these patterns can have at
            once.
        status: int32, a `Status`: OPTIMAL means upper - lower <= rtol upper. INFEASIBLE where the
            labels are not separable: nothing was solved, and nothing failed.
        num_steps: int32, solves taken.
    """

    network: Network
    value: Array
    margin: Array
    weights: Array
    dual: Array
    lower: Array
    upper: Array
    gap: Array
    separable: Array
    farkas: Array
    status: Array
    num_steps: Array

    @property
    def certificate(self) -> Certificate:
        """The two bounds, and the weights and the dual point that prove them."""
        return Certificate(self.lower, self.upper, self.gap, self.weights, self.dual)


@on_host()
def max_margin(
    X: Any,
    y: Any,
    patterns: Patterns,
    *,
    rtol: float | None = None,
    max_steps: int = 40,
    solver: Solver | None = None,
) -> MaxMargin:
    r"""The maximum-margin two-layer ReLU network over given patterns, to a certified gap.

    minimise sum ||theta||  subject to  y_i sum_{s,j} s (D_j X theta_{s,j})_i >= 1,  theta in K_j.

    With all patterns it is the network that maximises min_i y_i f_i at a given parameter norm, of
    any width; gradient flow on the logistic loss converges in direction to a KKT point of that.

    Args:
        X: array (n, d), float64 for gaps below 1e-3.
        y: array (n,), labels -1 and +1.
        patterns: `Patterns` of X, for example ``jr.enumerate_patterns(X)``.
        rtol: relative tolerance of the gap; default 1e-6 in float64, 1e-3 in float32.
        max_steps: limit on solves.
        solver: as in `jaxrelu.solve`, for every one of them.

    Returns:
        `MaxMargin`. Labels that no network over these patterns can have are told by `separable`,
        with a proof. More patterns, or a column of ones in X, may separate them; parallel rows of
        different labels never are separated.

    Raises:
        ValueError, TypeError: other labels, shapes that do not fit, a traced argument.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> from jaxrelu.margins.max_margin import max_margin
        >>> X, y = jnp.asarray([[1.0, 0.0], [0.0, 2.0]]), jnp.asarray([1.0, -1.0])
        >>> found = max_margin(X, y, jr.enumerate_patterns(X))
        >>> bool(found.separable), round(float(found.value), 3)
        (True, 1.5)

    Reference: Wang and Pilanci (ICLR 2022), the convex max-margin program and its dual; Lyu and Li
    (ICLR 2020), Theorem 4.4, on gradient flow.
    """
    program, target, units = problem(X, y, patterns, one_sided=True)
    check_labels(target, "max_margin", instead="minimum_norm")
    tolerance, steps, solver = limits(program, rtol, max_steps, solver)
    data, masks = host_arrays(program)
    farkas = separation(fit_space(data, masks, eps(program.X.dtype)), target)

    def feasible(weights: Array) -> tuple[Floats, float]:
        theta = np.asarray(weights, np.float64)
        sizes = np.linalg.norm(theta, axis=-1, keepdims=True)
        theta = np.where(sizes > _SPECK * tolerance * np.max(sizes), theta, 0.0)
        parts = masks * (data @ (theta[0] - theta[1]).T)
        errors = masks * (np.abs(data) @ np.abs(theta).sum(axis=0).T)
        slack = [sum_error(sum(theta.shape[1:]), error) for error in errors]
        reached = float(np.min(target * np.sum(parts, axis=1) - slack))
        return theta / (reached if reached > 0 else 1.0), reached

    if farkas is None:
        end = minimise_weights(program, target, tolerance, steps, feasible, solver)
    else:
        zero = jnp.zeros((*program.block_shape, program.X.shape[1]), program.X.dtype)
        end = End(zero, np.zeros_like(target), np.inf, np.inf, Status.INFEASIBLE, 0)

    def number(value: Any) -> Array:
        return jnp.asarray(value, program.X.dtype)

    weights = number(times_power(np.asarray(end.weights), units.weights))
    lower, upper = printed_bounds(end, units, program.X.dtype)
    return MaxMargin(
        compact_network(program, end.weights, units),
        upper,
        1.0 / upper,
        weights,
        number(times_power(end.dual, -units.features)),
        lower,
        upper,
        number(upper - lower if farkas is None else 0.0),
        jnp.asarray(farkas is None),
        jnp.asarray(np.zeros_like(target) if farkas is None else farkas, program.X.dtype),
        jnp.asarray(printed_status(end, weights, upper), jnp.int32),
        jnp.asarray(end.num_steps, jnp.int32),
    )
