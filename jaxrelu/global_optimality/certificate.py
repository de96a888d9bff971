r"""A certificate of the network itself: how far it is from the best of all networks of any width.

Training, min over networks of sum_i loss(f_i, y_i) + lam/2 sum_k (||u_k||^2 + a_k^2), has the dual

    maximise  -sum_i loss*(-r_i, y_i)   subject to   R(r) = max_{||u|| <= 1} |r^T (X u)_+| <= lam,

without any activation patterns. The residual of a network, divided by an *upper* bound of R over
lam, is dual feasible, so that its dual value is below the training objective of every network;
dividing by a lower bound, as one over sampled patterns is, proves nothing of the kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import FloatArray, Floats
from jaxrelu.core.budgets import Limit, Meter, check_budget
from jaxrelu.core.checks import as_float, known_matrix
from jaxrelu.core.numerics import eps, safe_norm, unit
from jaxrelu.core.pytrees import register
from jaxrelu.core.rounding import added, product, sum_roundings
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import exponents, times_power
from jaxrelu.global_optimality.polar_gauge.free_bias import CentredRows, gauge_with_bias
from jaxrelu.global_optimality.polar_gauge.gauge import WORK, PolarGauge, gauge, random_starts
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement
from jaxrelu.losses.base import Loss
from jaxrelu.losses.checks import chosen_loss
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import GatedNetwork, Network
from jaxrelu.paths.certify import certify, dual_near
from jaxrelu.programs.bias import centred
from jaxrelu.programs.bounds import lower_value, objective_at
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.checks import check_lam
from jaxrelu.programs.constants import constant_loss
from jaxrelu.programs.mapping import from_network
from jaxrelu.programs.program import ConvexProgram, residual_at
from jaxrelu.programs.units import Units, in_units, into_units, out_of_units, printed
from jaxrelu.solvers.base import tolerances

_STARTS = 256


@register
@dataclass(frozen=True, eq=False)
class GlobalCertificate(Certificate):
    """A `Certificate` over all networks.

    Attributes:
        lower, upper, gap, weights, dual: as in `Certificate`.
        ended_by: int32, the `Limit` that ended the work on the polar gauge before it was done.
    """

    ended_by: Any = int(Limit.NONE)


@on_host()
def certify_global(
    network: Any,
    X: Any,
    y: Any,
    lam: Any,
    loss: Loss | None = None,
    *,
    sample_weight: Any = None,
    rtol: Any = None,
    max_work: float | None = None,
    max_seconds: float | None = None,
) -> GlobalCertificate:
    r"""Bounds of the global optimum of the non-convex training problem, from any network.

        lower <= min over all networks of any width <= upper

    with upper the network's own objective after balancing, loss(f) + lam sum_k ||u_k|| |a_k|, and
    lower the dual value of the best multiple of its residual r that an upper bound of the polar
    gauge R(r) proves feasible. (At kinks of a loss the fit does not say what r is: there it is the
    dual vector of a `solve` over the network's own cells.) The network is globally optimal up to
    the gap, whatever its size.

    Args:
        network: a `Network`, of no neurons too, with biases that are not penalised or without; or
            its weights as a pair ``(hidden (d, m), output (m,))``.
        X: (n, d).
        y: (n,).
        lam: scalar, > 0; objective: sum of losses + lam/2 (||hidden||^2 + ||output||^2).
        loss: a `Loss`; default the squared loss 1/2 (f - y)^2.
        sample_weight: (n,), or None.
        rtol: relative gap at which the work on the gauge stops; default 1e-6 in float64, 1e-3 in
            float32.
        max_work: on the gauge, as in `polar_gauge`; what it has then gives the lower bound.
        max_seconds: of work on the gauge, as in `polar_gauge`.

    Returns:
        `GlobalCertificate`. Its `weights` are those of the network as convex weights over its own
        cells (`from_network`); `upper` is the objective of the network itself, and above theirs
        where neurons share a cell; with biases it is theirs. `dual` is feasible over all cells.
        ``gap <= rtol * upper`` proves global optimality; a wide gap may come from the network or
        from an interval of R that did not close (without biases `polar_gauge` of ``-gradient``
        tells which).

    Raises:
        ValueError, TypeError: as `from_network`; a `GatedNetwork`, whose program is exact already;
            a traced argument.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> X, y = np.eye(2, dtype="float32"), np.asarray([2.0, -1.0], "float32")
        >>> best = jr.Network(np.eye(2, dtype="float32"), np.asarray([1.0, -1.0], "float32"))
        >>> worse = jr.certify_global(best, X, y, lam=0.5)
        >>> bool(worse.gap > 0.1)
        True

    Reference: the dual of Pilanci and Ergen (ICML 2020), (4); the gauge is `jaxrelu.polar_gauge`.
    """
    if isinstance(network, GatedNetwork):
        raise TypeError(
            "network is a GatedNetwork, whose program is convex itself: use certify on the program "
            "of from_network(network, X, y)."
        )
    if isinstance(network, tuple) and len(network) == 2:
        hidden, output = (as_float(layer, "network") for layer in network)
        network = Network(hidden, output)
    check_known_network(network, bias=True)
    meter = check_budget(max_work, max_seconds, WORK)
    loss = chosen_loss(loss)
    X = known_matrix(X, "X")
    if network.num_neurons == 0:
        network = _with_idle_neuron(network, X)
    program, weights = from_network(network, X, y, loss, sample_weight=sample_weight)
    assert isinstance(program, ConvexProgram)
    lam_given, tolerance = check_lam(program, lam), tolerances(program, rtol, None)
    if program.bias == "free":
        return _with_biases(program, weights, lam_given, network, float(tolerance.relative), meter)
    whole, units = in_units(program)
    lam = into_units(lam_given, units.lam)
    upper, fit, directions = _value_of(network, whole, lam, units)
    residual = _residual(program, weights, lam_given, whole, fit, units)
    arrangement = Arrangement(np.asarray(whole.X, np.float64))
    found, _ = gauge(
        arrangement,
        np.asarray(residual, np.float64),
        random_starts(np.random.default_rng(0), _STARTS, arrangement, directions),
        rtol=float(tolerance.relative),
        threshold=float(lam),
        meter=meter,
    )
    lower, dual = global_lower(whole, lam, residual, found)
    low, high = printed(lower, units.objective, -1), printed(upper, units.objective, 1)
    return GlobalCertificate(
        lower=low,
        upper=high,
        gap=high - low,
        weights=weights,
        dual=out_of_units(dual, units.residual),
        ended_by=jnp.asarray(found.ended_by, jnp.int32),
    )


def _with_biases(
    program: ConvexProgram,
    weights: Array,
    lam: Array,
    network: Network,
    rtol: float,
    meter: Meter,
) -> GlobalCertificate:
    """That of a network with biases, from the certificate over its own cells.

    Its dual vector comes with a sum of zero up to rounding; what is left is charged by a bound of
    the constant that holds for all networks (`jaxrelu.programs.constants`).
    """
    own = certify(program, lam, weights, constant=network.constant)
    whole, units = in_units(program)
    lam = into_units(lam, units.lam)
    residual = into_units(own.dual, units.residual)
    X = np.asarray(whole.X, np.float64)[:, :-1]
    neurons = np.asarray(into_units(weights, units.weights), np.float64).reshape(-1, X.shape[1] + 1)
    rows = CentredRows(X, rtol)
    found = gauge_with_bias(
        rows,
        np.asarray(residual, np.float64),
        neurons[np.any(neurons != 0, axis=1)],
        num_starts=_STARTS,
        rtol=rtol,
        threshold=float(lam),
        meter=meter,
    )
    # The sum that is charged is that of a multiple as it is rounded, not of the exact one.
    r = np.abs(np.asarray(residual, np.float64))
    rounded = 4.0 * float(eps(residual.dtype)) * float(r.sum()) * rows.reach
    lower, dual = global_lower(whole, lam, residual, replace(found, upper=found.upper + rounded))
    upper = into_units(own.upper, units.objective)
    lower = lower - constant_loss(centred(whole)[0], lam, dual, upper)
    low = printed(lower, units.objective, -1)
    return GlobalCertificate(
        lower=low,
        upper=own.upper,
        gap=own.upper - low,
        weights=own.weights,
        dual=out_of_units(dual, units.residual),
        constant=own.constant,
        ended_by=jnp.asarray(found.ended_by, jnp.int32),
    )


def _residual(
    program: ConvexProgram,
    weights: Array,
    lam: Array,
    whole: ConvexProgram,
    fit: Array,
    units: Units,
) -> Array:
    """That of the fit, in units; at kinks the dual vector over the network's own cells."""
    if not has_kinks(program.loss):
        return residual_at(whole, fit)
    return into_units(dual_near(program, lam, weights), units.residual)


def _value_of(
    network: Network, whole: ConvexProgram, lam: Array, units: Units
) -> tuple[Array, Array, Floats]:
    """The objective of a network, rounded up, its fit, both in units; and its hidden weights."""
    dtype, X = whole.X.dtype, jnp.asarray(whole.X)
    hidden, output = np.asarray(network.hidden), np.asarray(network.output)
    # Neuron by neuron a power of two from one layer to the other: numbers around one, exactly.
    power = exponents(hidden, axis=0)
    hidden = np.ldexp(hidden, -power)
    output = times_power(output, power[0] - int(units.weights))
    neurons, sizes = jnp.asarray(hidden.T), jnp.asarray(np.abs(output))
    heights, most = product(neurons, X.T), product(jnp.abs(neurons), jnp.abs(X).T)
    fit = added((jnp.asarray(output)[:, None] * jnp.maximum(heights, 0.0)).T)
    off = added((sizes[:, None] * most).T)
    times = sum_roundings(X.shape[1], dtype) + sum_roundings(len(output), dtype) + 4.0
    sizes = sizes * safe_norm(neurons)
    value = objective_at(whole, lam, fit, times * off, sizes, X.shape[1] + 4.0)
    return value.value, fit, np.asarray(hidden.T, np.float64)


def _with_idle_neuron(network: Network, X: FloatArray) -> Network:
    """A neuron that sees a sample and says nothing: the cells of a program are those of neurons."""
    data = jnp.asarray(X)
    longest = jnp.argmax(safe_norm(data))
    hidden = jnp.reshape(unit(data[longest]), (-1, 1)).astype(network.hidden.dtype)
    silent = jnp.zeros(1, network.output.dtype)
    bias = None if network.bias is None else silent
    return replace(network, hidden=hidden, output=silent, bias=bias)


def global_lower(
    program: ConvexProgram, lam: Array, residual: Array, found: PolarGauge
) -> tuple[Array, Array]:
    """The lower bound that an upper bound of the polar gauge of a residual gives, and its dual."""
    bound = jnp.asarray(found.upper, residual.dtype)
    # Rounding to a narrower type must not lower the bound.
    bound = bound * (1 + jnp.finfo(residual.dtype).eps)
    lower, t = lower_value(program, lam, residual, bound)
    return lower.value, t * residual
