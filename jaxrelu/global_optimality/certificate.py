r"""A certificate of the network itself: how far it is from the best of all networks of any width.

Training, min over networks of sum_i loss(f_i, y_i) + lam/2 sum_k (||u_k||^2 + a_k^2), has the dual

    maximise  -sum_i loss*(-r_i, y_i)   subject to   R(r) = max_{||u|| <= 1} |r^T (X u)_+| <= lam,

without any activation patterns. The residual of a network, divided by an *upper* bound of R over
lam, is dual feasible, so that its dual value is below the training objective of every network;
dividing by a lower bound, as one over sampled patterns is, proves nothing of the kind.
"""

from __future__ import annotations

import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import FloatArray
from jaxrelu.core.checks import as_float, check_known, known_matrix
from jaxrelu.core.numerics import safe_norm, unit
from jaxrelu.core.options import seconds
from jaxrelu.global_optimality.polar_gauge.gauge import PolarGauge, gauge, random_starts
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement
from jaxrelu.losses.base import Loss
from jaxrelu.losses.checks import chosen_loss
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import GatedNetwork, Network
from jaxrelu.programs.bounds import lower_value
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.checks import check_lam
from jaxrelu.programs.mapping import from_network
from jaxrelu.programs.program import ConvexProgram, loss_value, residual_at
from jaxrelu.solvers.base import tolerances

_STARTS = 256


def certify_global(
    network: Any,
    X: Any,
    y: Any,
    lam: Any,
    loss: Loss | None = None,
    *,
    sample_weight: Any = None,
    rtol: Any = None,
    max_seconds: float = 30.0,
) -> Certificate:
    r"""Bounds of the global optimum of the non-convex training problem, from any network.

        lower <= min over all networks of any width <= upper

    with upper the network's own objective after balancing, loss(f) + lam sum_k ||u_k|| |a_k|, and
    lower the dual value of the best multiple of its residual r that an upper bound of the polar
    gauge R(r) proves feasible. The network is globally optimal up to the gap, whatever its size.

    Args:
        network: a `Network`, of no neurons too; or its weights as a pair ``(hidden (d, m),
            output (m,))``.
        X: (n, d).
        y: (n,).
        lam: scalar, > 0; objective: sum of losses + lam/2 (||hidden||^2 + ||output||^2).
        loss: a `Loss`; default the squared loss 1/2 (f - y)^2.
        sample_weight: (n,), or None.
        rtol: relative gap at which the work on the gauge stops; default 1e-6 in float64, 1e-3 in
            float32.
        max_seconds: of work on the gauge; what it has then gives the lower bound.

    Returns:
        `Certificate`. Its `weights` are those of the network as convex weights over its own cells
        (`from_network`); `upper` is the objective of the network itself, and above theirs where
        neurons share a cell. `dual` is feasible over all cells. ``gap <= rtol * upper`` proves
        global optimality; a wide gap may come from the network or from an interval of R that did
        not close (`polar_gauge` of ``-gradient`` tells which).

    Raises:
        ValueError, TypeError: as `from_network`; a `GatedNetwork`, whose program is exact already;
            called in a trace.

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
    check_known_network(network)
    check_known(lam=lam, rtol=rtol)
    deadline = time.monotonic() + seconds(max_seconds, "max_seconds")
    loss = chosen_loss(loss)
    X = known_matrix(X, "X")
    if network.num_neurons == 0:
        network = _with_idle_neuron(network, X)
    program, weights = from_network(network, X, y, loss, sample_weight=sample_weight)
    assert isinstance(program, ConvexProgram)
    lam = check_lam(program, lam)
    outputs = network(program.X)
    sizes = safe_norm(jnp.asarray(network.hidden), axis=0) * jnp.abs(network.output)
    upper = loss_value(program, outputs) + lam * jnp.sum(sizes)
    residual = residual_at(program, outputs)
    arrangement = Arrangement(np.asarray(program.X, np.float64))
    neurons = np.asarray(network.hidden, np.float64).T
    found, _ = gauge(
        arrangement,
        np.asarray(residual, np.float64),
        random_starts(np.random.default_rng(0), _STARTS, arrangement, neurons),
        rtol=float(tolerances(program, rtol, None).relative),
        threshold=float(lam),
        deadline=deadline,
    )
    return global_certificate(program, lam, weights, residual, found, upper)


def _with_idle_neuron(network: Network, X: FloatArray) -> Network:
    """A neuron that sees a sample and says nothing: the cells of a program are those of neurons."""
    data = jnp.asarray(X)
    longest = jnp.argmax(safe_norm(data))
    hidden = jnp.reshape(unit(data[longest]), (-1, 1)).astype(network.hidden.dtype)
    return Network(hidden, jnp.zeros(1, network.output.dtype))


def global_certificate(
    program: ConvexProgram,
    lam: Array,
    weights: Array,
    residual: Array,
    found: PolarGauge,
    upper: Array,
) -> Certificate:
    """The certificate that an upper bound of the polar gauge of a residual gives."""
    bound = jnp.asarray(found.upper, residual.dtype)
    # Rounding to a narrower type must not lower the bound.
    bound = bound * (1 + jnp.finfo(residual.dtype).eps)
    found_lower, t = lower_value(program, lam, residual, bound)
    lower = found_lower.value
    return Certificate(
        lower=lower, upper=upper, gap=upper - lower, weights=weights, dual=t * residual
    )
