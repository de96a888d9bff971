r"""Stationary networks: Clarke's condition and the directional one, as residuals.

For a neuron (u, a), r minus the gradient of the loss at the fit, J its walls {j : x_j . u = 0}:

    Clarke        0 in  lam u - a X^T diag(c) r,  c_j = 1[x_j . u > 0] off the walls, on them any
                  mixture of the patterns of the cells around u
    directional   lam u - a X^T D r in {K_D^T rho, rho >= 0} for *every* cell D around u

and lam a = r^T (X u)_+ for both. Every local minimum is directionally stationary, and a
directionally stationary network is balanced, nearly minimal and optimal over its own signed
patterns; of a Clarke stationary one that is false where a wall has a positive coefficient a r_j:
the objective has a concave kink there.

Reference: Mishkin and Pilanci (ICML 2023) and Wang, Lacotte and Pilanci (ICLR 2022) on stationary
points as optima of sub-sampled programs, corrected for neurons on walls.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import lsq_linear

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import known_matrix
from jaxrelu.core.options import nonnegative, positive
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.projection import cone_rows, project
from jaxrelu.geometry.host.scaling import exponents, times_power, unit_rows
from jaxrelu.geometry.host.walls import SOLVED, walls_of
from jaxrelu.geometry.patterns import enumerate_patterns
from jaxrelu.losses.base import Loss, total_gradient
from jaxrelu.losses.checks import check_known_samples, check_no_kinks, checked_samples, chosen_loss
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import Network

_RANK = 1e-9


class Stationarity(NamedTuple):
    """Residuals of every neuron, relative to lam times its size; zero where the condition holds.

    Attributes:
        clarke: (m,), the distance of zero from the Clarke subdifferential.
        directional: (m,), zero only where no one-sided directional derivative is negative; never
            below `clarke`.
        walls: (m,) int32, how many samples each neuron has on its walls.
        concave: (m,) bool, neurons with a wall of positive coefficient a r_j, where the two differ.
        coefficients: (m, n), c of every neuron at which `clarke` is attained: 1 on the samples that
            it sees, 0 on those that it does not, in [0, 1] on its walls; zeros for a zero neuron.
    """

    clarke: Array
    directional: Array
    walls: Array
    concave: Array
    coefficients: Array


@on_host()
def stationarity(
    network: Network,
    X: Any,
    y: Any,
    lam: Any,
    loss: Loss | None = None,
    *,
    sample_weight: Any = None,
    wall_tolerance: float = SOLVED,
) -> Stationarity:
    """How far a network is from being stationary for `nonconvex_objective`, neuron by neuron.

    Args:
        network: a `Network`, concrete.
        X: array (n, d).
        y: array (n,).
        lam: scalar, > 0.
        loss: a `Loss`; default the squared loss.
        sample_weight: array (n,), or None.
        wall_tolerance: sample j is on a wall where |x_j . u| is at most this, times both norms.

    Returns:
        `Stationarity`, its residuals evaluated in float64, the fit in the dtype of the network; for
        a float32 network let `wall_tolerance` be 1e-5. A zero neuron is stationary in both senses.

    Raises:
        ValueError, TypeError: shapes that do not fit, lam that is not positive; a traced argument;
            a neuron with so many dependent walls that the cells around it cannot be listed.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X, y = np.eye(2), np.asarray([1.5, 2.5])
        >>> hidden = np.asarray([[0.0, 1.0], [2**0.5, 0.0]])
        >>> network = jr.Network(hidden, np.asarray([2**0.5, 1.0]))
        >>> found = jr.stationarity(network, X, y, 0.5)
        >>> bool(found.clarke.max() < 1e-9), bool(found.directional.max() > 0.1)
        (True, True)

    Reference: the counterexample above, in which both neurons share a cone without being collinear,
    shows that Clarke's condition is not enough.
    """
    check_known_network(network, skip=True)
    loss, strength = chosen_loss(loss), positive(lam, "lam")
    check_no_kinks(loss, "stationarity")
    wall_tolerance = nonnegative(wall_tolerance, "wall_tolerance")
    X = known_matrix(X, "X")
    check_known_samples(len(X), y, sample_weight)
    fit = network(X)
    target, weight = checked_samples(loss, fit, y, sample_weight)
    r = -np.asarray(total_gradient(loss, fit, target, weight), np.float64)
    rows = np.asarray(X, np.float64)
    # Numbers around one, of which the residuals are the same.
    data, pull = int(exponents(rows)), int(exponents(r))
    rows, r = np.ldexp(rows, -data), np.ldexp(r, -pull)
    strength = float(times_power(strength, -data - pull))
    hidden = np.asarray(network.hidden, np.float64)
    output = np.asarray(network.output, np.float64)
    found = [
        _of_neuron(u, a, rows, r, strength, wall_tolerance)
        for u, a in zip(hidden.T, output, strict=True)
    ]
    kinds: tuple[Any, ...] = (fit.dtype, fit.dtype, np.int32, bool, fit.dtype)
    shapes = ((0,), (0,), (0,), (0,), (0, len(rows)))
    columns = zip(*found, strict=True) if found else map(np.zeros, shapes)
    return Stationarity(
        *(jnp.asarray(np.asarray(c), k) for c, k in zip(columns, kinds, strict=True))
    )


def _of_neuron(
    u: Floats, a: float, X: Floats, r: Floats, lam: float, tolerance: float
) -> tuple[float, float, int, bool, Floats]:
    if not (np.any(u) or a):
        return 0.0, 0.0, len(X), False, np.zeros(len(X))
    if not np.any(u):  # lam a is not zero, whatever the cells around u = 0 say
        return 1.0, 1.0, len(X), False, np.zeros(len(X))
    unit, lengths = unit_rows(X)
    on_wall = walls_of(unit, u, tolerance)
    active = (X @ unit_rows(u[None])[0][0] > 0) & ~on_wall
    # The residuals are relative to the size of the neuron.
    power = int(exponents(np.append(u, a)))
    u, a = times_power(u, -power), float(times_power(a, -power))
    along, size = X @ u, max(float(np.linalg.norm(u)), abs(a))
    outer = abs(lam * a - r[active] @ along[active])
    base = lam * u - a * (X[active].T @ r[active])
    walls, kinks = X[on_wall], a * r[on_wall]
    concave = bool(np.any(kinks * lengths[on_wall] > tolerance * lam * size))
    coefficients = active.astype(np.float64)
    if not len(walls):
        clarke = directional = float(np.linalg.norm(base))
    elif np.linalg.matrix_rank(walls, tol=_RANK * np.linalg.norm(walls, 2)) == len(walls):
        clarke, directional, coefficients[on_wall] = _independent_walls(base, walls, kinks)
    else:
        clarke, directional, coefficients[on_wall] = _dependent_walls(base, walls, kinks)
    scale = lam * size
    clarke, directional = math.hypot(clarke, outer) / scale, math.hypot(directional, outer) / scale
    directional = max(clarke, directional)
    return clarke, directional, int(on_wall.sum()), concave, coefficients


def _independent_walls(base: Floats, walls: Floats, kinks: Floats) -> tuple[float, float, Floats]:
    """Distances and coefficients for independent rows: all 0/1 patterns of walls have a cell.

    With base = walls^T beta + rest, all cells are stationary if and only if rest = 0 and
    kinks <= beta <= 0.
    """
    box = lsq_linear(walls.T * kinks[None], base, bounds=(0.0, 1.0), tol=1e-14)
    beta, *_ = np.linalg.lstsq(walls.T, base, rcond=None)
    rest = base - walls.T @ beta
    wrong = np.maximum(beta, 0.0) + np.maximum(kinks - beta, 0.0)
    clarke = float(np.linalg.norm(walls.T @ (kinks * box.x) - base))
    return clarke, float(np.linalg.norm(rest + walls.T @ wrong)), box.x


def _dependent_walls(base: Floats, walls: Floats, kinks: Floats) -> tuple[float, float, Floats]:
    """Distances and coefficients over the cells around a neuron, listed one by one."""
    try:
        half = np.asarray(enumerate_patterns(walls).masks, bool).T
    except ValueError as error:
        raise ValueError(
            f"a neuron lies on {len(walls)} dependent walls, with too many cells around it to list"
        ) from error
    cells = np.unique(np.concatenate([half, ~half]), axis=0)
    gradients = base[None] - (cells * kinks[None]) @ walls
    # The point of a convex hull nearest to zero: min ||V z||^2 + (1 - sum z)^2 over z >= 0.
    last = np.append(np.zeros(len(base)), 1.0)
    z, _ = nonnegative_least_squares(np.vstack([gradients.T, np.ones(len(cells))]), last)
    shares = z / max(np.sum(z), 1e-300)
    clarke = float(np.linalg.norm(gradients.T @ shares))
    # The distance of g from {K^T rho, rho >= 0} is the length of the projection of -g.
    each = zip(cells, gradients, strict=True)
    outside = [np.linalg.norm(project(cone_rows(cell, walls), -g)) for cell, g in each]
    return clarke, float(max(outside)), shares @ cells
