r"""A continuous path from any network down to an optimal one: wide networks have no bad valleys.

With m >= n + 1 slots (rank + 1 is enough, the rank of the features of both networks) every network
is joined to an optimal one by a path along which the objective

    loss(f) + lam/2 sum (||u||^2 + a^2)

never rises. Its parts: dead neurons shrink, the others are balanced and turn to one direction in
every signed cone (`nearly_minimal`); neurons are removed at constant fit until their features are
independent; at constant fit the penalty falls to the least that the directions of both networks
allow; then the fit moves in a straight line to that of the optimum,

    f_t = (1 - t) f_0 + t f*,   V(t) = min {sum a : Z a = f_t, a >= 0},

along vertices of that parametric linear program, where loss(f_t) + lam V(t) is convex in t and
least at t = 1; last, among optimal networks, it goes to the one that was asked for.

Reference: Kim, Mishkin and Pilanci (ICLR 2025), absence of spurious valleys; Haeffele and Vidal
(CVPR 2017) for n + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import known_matrix
from jaxrelu.core.options import count, positive, scalar
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host import vertex_walks
from jaxrelu.losses.base import Loss, total_gradient
from jaxrelu.losses.checks import check_known_samples, check_no_kinks, checked_samples, chosen_loss
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.connectivity import join
from jaxrelu.networks.network import Network, checked_input
from jaxrelu.networks.network_paths import NetworkPath, Slots, as_path, as_slots
from jaxrelu.networks.symmetries import DecreasingPath, nearly_minimal

# How far a correlation of the optimum may exceed lam, relative.
_OPTIMAL = 1e-3


@register
@dataclass(frozen=True, eq=False)
class DescentPath:
    """A continuous path of networks along which the objective never rises.

    Call it with t in [0, 1]: the given network at 0, the optimal one at 1. The fit is constant on
    the first half, where neurons are balanced and turned to one direction a signed cone.

    Attributes:
        turning: t up to 1/2.
        moving: t from 1/2, in pieces.
    """

    turning: DecreasingPath
    moving: NetworkPath

    @property
    def width_needed(self) -> Array:
        """Scalar int32, the largest number of neurons on the second half."""
        return self.moving.width_needed

    def __call__(self, t: Any) -> Network:
        """The network at t, a scalar; traceable."""
        t = scalar(t, "t", self.moving.start.dtype)
        first, second = self.turning(2 * t), self.moving(2 * t - 1)
        early = t < 0.5
        return Network(
            jnp.where(early, first.hidden, second.hidden),
            jnp.where(early, first.output, second.output),
        )


@on_host()
def descend(
    network: Network,
    optimum: Network,
    X: Any,
    y: Any,
    lam: Any,
    loss: Loss | None = None,
    *,
    sample_weight: Any = None,
    width: int | None = None,
) -> DescentPath:
    """A continuous path from a network to an optimal one along which the objective never rises.

    The objective is that of `nonconvex_objective`.

    Args:
        network: a `Network` from anywhere; the path at t = 0.
        optimum: a `Network` of which no direction of either is worse than lam allows, such as that
            of `improve(network, ...)` or a globally optimal one; the path at t = 1. Its rounding is
            the path's: solve with a small rtol.
        X: array (n, d).
        y: array (n,).
        lam: scalar > 0.
        loss: a `Loss`; default the squared one.
        sample_weight: array (n,) or None.
        width: slots of the networks on the path; default the larger of both. n + 1 always suffice
            where both networks have no more.

    Returns:
        `DescentPath`.

    Raises:
        ValueError: the slots are too few (the message has a width that suffices), `optimum` is not
            balanced, or the directions of `network` improve on it.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X, y = np.eye(2), np.asarray([2.0, 1.0])
        >>> poor = jr.Network(np.asarray([[0.5], [1.5]]), np.ones(1))
        >>> best = jr.improve(poor, X, y, 0.5, rtol=1e-10).network
        >>> path = jr.descend(poor, best, X, y, 0.5, width=3)
        >>> values = [jr.nonconvex_objective(path(t / 20), X, y, 0.5) for t in range(21)]
        >>> bool(np.all(np.diff(values) < 1e-9))
        True

    Reference: Kim, Mishkin and Pilanci (ICLR 2025), by construction.
    """
    check_known_network(network)
    check_known_network(optimum, "optimum")
    loss, strength = chosen_loss(loss), positive(lam, "lam")
    check_no_kinks(loss, "descend")
    X = known_matrix(X, "X")
    checked_input(X, network)
    checked_input(X, optimum, "optimum")
    check_known_samples(len(X), y, sample_weight)
    m = max(network.num_neurons, optimum.num_neurons)
    m = m if width is None else count(width, "width", m, "the slots of both networks")
    turning = nearly_minimal(_padded(network, m), X)
    directions, signs, slots = as_slots([turning(1.0), optimum], m)
    data = np.asarray(X, np.float64)
    Z = signs * np.maximum(data @ directions.T, 0.0)
    k, cost = len(signs), np.ones(len(signs))
    first, last = Slots(slots[0]), Slots(slots[1])
    _check_optimum(Z, last.total(k), y, strength, loss, sample_weight)
    rank = vertex_walks.rank(Z)
    if m < rank + 1:
        raise ValueError(f"{m} slots are too few: pass width={rank + 1}, the rank and one more.")

    for way in (first, last):
        way.gather()
        for corner in vertex_walks.to_vertex(Z, way.total(k), cost):
            way.move(corner)
    start = first.total(k)
    corners, basis = vertex_walks.pivots(Z, start, cost)
    corners += vertex_walks.follow(Z, basis, cost, Z @ start, Z @ last.total(k))
    for corner in corners:
        first.move(corner)
    join(Z, first, last)
    pieces = first.pieces + [(which, end, begin) for which, begin, end in reversed(last.pieces)]
    moving = as_path(first, pieces, directions, signs, network.hidden.dtype)
    return DescentPath(turning, moving)


def _padded(network: Network, m: int) -> Network:
    empty = m - network.num_neurons
    return Network(
        jnp.pad(jnp.asarray(network.hidden), ((0, 0), (0, empty))),
        jnp.pad(jnp.asarray(network.output), (0, empty)),
    )


def _check_optimum(
    Z: np.ndarray, a: np.ndarray, y: Any, lam: float, loss: Loss, sample_weight: Any
) -> None:
    """No direction of either network may have a correlation above lam at the optimal fit."""
    fit = jnp.asarray(Z @ a)
    target, weight = checked_samples(loss, fit, y, sample_weight)
    r = -np.asarray(total_gradient(loss, fit, target, weight), np.float64)
    correlation = r @ Z
    worst = float(np.max(correlation))
    if worst > lam * (1 + _OPTIMAL):
        raise ValueError(
            f"optimum is not optimal over the directions of both networks: a correlation is "
            f"{worst / lam:.6g} lam. Pass jr.improve(network, X, y, lam).network, or the solution "
            "of a program that has the patterns of network, at a smaller rtol."
        )
    # A coefficient that a solve left next to zero says nothing about its correlation.
    share = a / max(float(np.max(a, initial=0.0)), np.finfo(a.dtype).tiny)
    apart = np.max(share * np.abs(correlation - lam), initial=0.0)
    if apart > _OPTIMAL * lam:
        raise ValueError(
            "optimum is not optimal for these X, y and lam: its own correlations are not lam. Pass "
            "jr.improve(network, X, y, lam).network, or one of a smaller rtol."
        )
