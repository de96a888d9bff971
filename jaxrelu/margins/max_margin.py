r"""Maximum margin and minimum norm: the networks of least weights that meet constraints.

With R(f) = min { sum ||theta|| : f = sum s D_j X theta_{s,j}, theta_{s,j} in K_j } over given
patterns (the cells of `jaxrelu.programs.program`, both signs), which is also half the least squared
parameter norm (||W1||^2 + ||w2||^2) / 2 of a ReLU network with the fit f,

    max margin      minimise R(f)  subject to  y_i f_i >= 1   (labels -1 and +1)
    minimum norm    minimise R(f)  subject to  f = y

The first is the margin problem, since f is homogeneous of degree one in theta: a network of
sum ||theta|| = 1 has min_i y_i f_i at most 1 / value. The second is the limit lam -> 0 of
the squared loss. With the polar gauge R'(nu) = max over blocks ||Proj_K(s X^T D_j nu)||,
R(f) >= nu . f for R'(nu) <= 1, so that their duals are

    maximise y . nu  subject to  R'(nu) <= 1, and y_i nu_i >= 0 for the margin only.

They are solved by `jaxrelu.margins.method_of_multipliers`; which constraints can be met is
`jaxrelu.margins.alternatives`.

Reference: Wang and Pilanci (ICLR 2022), "The convex geometry of backpropagation", for the convex
max-margin program and its dual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import as_float, host_float
from jaxrelu.core.numerics import eps
from jaxrelu.core.pytrees import register
from jaxrelu.core.status import Status
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.margins.alternatives import fit_space, nearest_fit, separation
from jaxrelu.margins.exact_fit import exact_fit
from jaxrelu.margins.method_of_multipliers import End, Shortfall, host_arrays, minimise_weights
from jaxrelu.networks.network import Network
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.mapping import to_network
from jaxrelu.programs.preparation import with_interior
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.solvers.base import Solver

_SPECK = 1e-3  # of the tolerance, of the largest block


@register
@dataclass(frozen=True)
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


@register
@dataclass(frozen=True)
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
        ValueError, TypeError: other labels, shapes that do not fit, called in a trace.

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
    program, target = _problem(X, y, patterns, one_sided=True)
    if not np.all(np.isin(target, (-1.0, 1.0))):
        raise ValueError(
            f"max_margin takes labels -1 and +1, but y holds {np.unique(target)[:5].tolist()}: map "
            "the two classes to -1 and +1, or use minimum_norm for a real target."
        )
    tolerance, steps = _limits(program, rtol, max_steps)
    data, masks = host_arrays(program)
    farkas = separation(fit_space(data, masks, eps(program.X.dtype)), target)

    def feasible(weights: Array) -> tuple[Floats, float]:
        theta = np.asarray(weights, np.float64)
        sizes = np.linalg.norm(theta, axis=-1, keepdims=True)
        theta = np.where(sizes > _SPECK * tolerance * np.max(sizes), theta, 0.0)
        fit = np.sum(masks * (data @ (theta[0] - theta[1]).T), axis=1)
        reached = float(np.min(target * fit))
        return theta / (reached if reached > 0 else 1.0), reached

    if farkas is None:
        end = minimise_weights(program, target, tolerance, steps, feasible, solver)
    else:
        zero = jnp.zeros((*program.block_shape, program.X.shape[1]), program.X.dtype)
        end = End(zero, np.zeros_like(target), np.inf, np.inf, Status.INFEASIBLE, 0)

    def number(value: float) -> Array:
        return jnp.asarray(value, program.X.dtype)

    return MaxMargin(
        _network(program, end.weights),
        number(end.upper),
        number(1.0 / end.upper),
        end.weights,
        jnp.asarray(end.dual, program.X.dtype),
        number(end.lower),
        number(end.upper),
        number(end.upper - end.lower if np.isfinite(end.lower) else 0.0),
        jnp.asarray(farkas is None),
        jnp.asarray(np.zeros_like(target) if farkas is None else farkas, program.X.dtype),
        jnp.asarray(end.status, jnp.int32),
        jnp.asarray(end.num_steps, jnp.int32),
    )


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
        >>> from jaxrelu.margins.max_margin import minimum_norm
        >>> X, y = jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), jnp.asarray([3.0, 4.0])
        >>> found = minimum_norm(X, y, jr.enumerate_patterns(X))
        >>> bool(found.representable), round(float(found.value), 3)
        (True, 5.0)

    Reference: Wang and Pilanci (ICLR 2022), with equalities; Savarese, Evron, Soudry and Srebro
    (COLT 2019) on what this norm is in one dimension.
    """
    program, given = _problem(X, y, patterns, one_sided=False)
    if not np.all(np.isfinite(given)):
        raise ValueError("y has a NaN or an infinity: drop or impute those samples.")
    tolerance, steps = _limits(program, rtol, max_steps)
    data, masks = host_arrays(program)
    target, farkas = nearest_fit(fit_space(data, masks, eps(program.X.dtype)), given)
    correct = exact_fit(data, masks, np.asarray(program.patterns.interior, np.float64).T)

    def feasible(weights: Array) -> tuple[Floats, float]:
        theta = correct(np.asarray(weights, np.float64), target)
        missing = target - np.sum(masks * (data @ (theta[0] - theta[1]).T), axis=1)
        # A correction that directions of the fit elude, nearly dependent ones, is none.
        return theta, 1.0 - float(np.linalg.norm(missing) / (tolerance * np.linalg.norm(target)))

    end = minimise_weights(program, target, tolerance, steps, feasible, solver)

    def number(value: float) -> Array:
        return jnp.asarray(value, program.X.dtype)

    return MinimumNorm(
        _network(program, end.weights),
        number(end.upper),
        end.weights,
        jnp.asarray(target, program.X.dtype),
        jnp.asarray(end.dual, program.X.dtype),
        number(end.lower),
        number(end.upper),
        number(end.upper - end.lower),
        jnp.asarray(farkas is None),
        jnp.asarray(np.zeros_like(target) if farkas is None else farkas, program.X.dtype),
        jnp.asarray(end.status, jnp.int32),
        jnp.asarray(end.num_steps, jnp.int32),
    )


def _problem(
    X: Any, y: Any, patterns: Patterns, *, one_sided: bool
) -> tuple[ConvexProgram, Floats]:
    """The checked program with its witnesses, and its target in float64."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((X, y, patterns))):
        raise TypeError("this looks at values: call it on the host, outside jit and vmap.")
    X = as_float(X, "X")
    y = as_float(y, "y").astype(X.dtype)
    program = ConvexProgram(X, y, patterns, Shortfall(jnp.asarray(one_sided)))
    check_program(program)
    patterns = with_interior(program).patterns
    program = ConvexProgram(X, y, patterns, program.loss)
    return program, np.asarray(y, np.float64)


def _limits(program: ConvexProgram, rtol: Any, max_steps: Any) -> tuple[float, int]:
    if rtol is None:
        rtol = 1e-6 if program.X.dtype == jnp.float64 else 1e-3
    tolerance = host_float(rtol, "rtol")
    if tolerance.ndim != 0 or not 0 < float(tolerance) < 1:
        raise ValueError(f"rtol is {rtol}; pass one number between 0 and 1, for example 1e-6.")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int | np.integer) or max_steps < 1:
        raise ValueError(f"max_steps is {max_steps!r}; pass an integer >= 1.")
    return float(tolerance), int(max_steps)


def _network(program: ConvexProgram, weights: Array) -> Network:
    network = to_network(program, weights)
    assert isinstance(network, Network)
    return network.compact()
