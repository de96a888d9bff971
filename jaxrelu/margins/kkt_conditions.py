r"""Is a given network of maximum margin? Its KKT conditions, a certificate, and a bound.

For min (||W1||^2 + ||w2||^2) / 2 subject to y_i f_i >= 1, with a neuron (u, a), multipliers
mu_i >= 0 and nu_i = y_i mu_i, stationarity in the sense of Clarke reads

    u = a X^T diag(c) nu,    a = nu . (X u)_+,    mu_i (y_i f_i - 1) = 0,

c_i = 1[x_i . u > 0] off the walls of the neuron, and any number in [0, 1] on them, one a neuron
and wall. With m_i = c_i mu_i on walls the conditions are linear in (mu, m):

    u = a (sum_{active i} x_i y_i mu_i + sum_{walls i} x_i y_i m_i),    0 <= m_i <= mu_i,

a non-negative least-squares problem once m_i + slack_i = mu_i is an equation. At a KKT point
sum mu = y . nu = ||w2||^2 = (||W1||^2 + ||w2||^2) / 2, by a times the second condition.

**Certificate.** With R'(nu) = max_{||u|| <= 1} |nu . (X u)_+|, nu / R'(nu) is a feasible dual point
of the convex program (`jaxrelu.max_margin`), so that

    y . nu / R'(nu) <= optimum <= (||W1||^2 + ||w2||^2) / 2,

for a KKT point the second over R'(nu): with R'(nu) <= 1 it is globally optimal. Conversely an
optimal dual point satisfies the conditions at *every* optimal network; hence where the multipliers
are unique and R'(nu) > 1, the network is not globally optimal.

Reference: Wang and Pilanci (ICLR 2022), the KKT points whose multipliers are dual feasible; Lyu and
Li (ICLR 2020) on KKT points, exact and approximate, as limits of training.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Limit, check_budget
from jaxrelu.core.checks import check_per_row, check_type, described, known_floats, known_matrix
from jaxrelu.core.options import nonnegative
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.scaling import (
    exponents,
    power_down,
    power_up,
    times_power,
    unit_columns,
    unit_rows,
)
from jaxrelu.geometry.host.walls import SOLVED, walls_of
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.global_optimality.polar_gauge.gauge import WORK, polar_gauge
from jaxrelu.losses.checks import check_labels
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import Network
from jaxrelu.paths.critical_lam import lambda_max
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.program import ConvexProgram

_SUPPORT = 1e-6
_LINK = 10.0
_RANK = 1e-8
_MOST_APART = 400


class MarginConditions(NamedTuple):
    """A network at margin one, its multipliers, and what they prove.

    Attributes:
        network: the `Network`, both layers scaled by the same number so that min_i y_i f_i = 1.
        value: scalar, half its squared parameter norm: an upper bound of the optimum.
        stationarity: (m,), the distance of each neuron (u, a) from its two conditions, relative to
            the norm of all parameters. The root of the sum of squares is the epsilon of an
            approximate KKT point.
        complementarity: scalar, sum_i mu_i (y_i f_i - 1), relative to `value`.
        dual: (n,), the multipliers nu, y_i nu_i >= 0.
        gauge: scalar, an upper bound of R'(nu).
        lower: scalar, y . nu / gauge, a lower bound of the optimum whatever the residuals are.
        unique: bool, the conditions leave no choice of nu.
        ended_by: int32, the `Limit` that left the interval of R'(nu) open.
    """

    network: Network
    value: Array
    stationarity: Array
    complementarity: Array
    dual: Array
    gauge: Array
    lower: Array
    unique: Array
    ended_by: Array

    @property
    def upper(self) -> Array:
        """The value, by the name that it has in a certificate."""
        return self.value

    @property
    def gap(self) -> Array:
        """Value - lower: how far the network can be from the optimum."""
        return self.value - self.lower


@on_host()
def margin_conditions(
    network: Network,
    X: Any,
    y: Any,
    *,
    patterns: Patterns | None = None,
    gauge_upper: Any = None,
    max_work: float | None = None,
    max_seconds: float | None = None,
    wall_tolerance: float = SOLVED,
    support_tolerance: float = _SUPPORT,
) -> MarginConditions:
    r"""The KKT conditions of the max-margin problem at a given network, and a bound.

    min_{nu} ||theta - sum_i nu_i df_i||  subject to  y_i nu_i >= 0,  nu_i = 0 where y_i f_i > 1,

    after theta = (W1, w2) was scaled to min_i y_i f_i = 1; df_i is Clarke's derivative.

    Args:
        network: a `Network` that separates the data, trained by anything.
        X: array (n, d).
        y: array (n,), labels -1 and +1.
        patterns: cells over which R'(nu) is taken; `lower` is then a bound for the networks over
            these cells. By default all cells count, through `polar_gauge`.
        gauge_upper: a function nu (n,) -> an upper bound of R'(nu), in place of patterns.
        max_work: as in `polar_gauge`, whose upper bound is valid whatever ends it.
        max_seconds: as in `polar_gauge`.
        wall_tolerance: sample j is on a wall where |x_j . u| is at most this, times both norms.
        support_tolerance: samples with y_i f_i <= 1 + this may have multipliers.

    Returns:
        `MarginConditions`, evaluated in float64. The network is certified globally optimal to the
        relative accuracy ``gap / value``.

    Raises:
        ValueError: a network that does not separate the data, other labels, shapes that do not fit.
        TypeError: a traced argument; both patterns and gauge_upper.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> from jaxrelu.margins.kkt_conditions import margin_conditions
        >>> network = jr.Network(jnp.eye(2), jnp.asarray([1.0, -1.0]))
        >>> found = margin_conditions(network, jnp.eye(2), jnp.asarray([1.0, -1.0]))
        >>> round(float(found.value), 4), round(float(found.lower), 4)
        (2.0, 2.0)

    Reference: Wang and Pilanci (ICLR 2022), the condition on the dual variables; Lyu and Li
    (ICLR 2020), Section 4.
    """
    check_known_network(network)
    X = jnp.asarray(known_matrix(X, "X"))
    fit = network(X)
    labels, rows = known_floats(y, "y").astype(np.float64), np.asarray(X, np.float64)
    check_per_row(labels, "y", len(rows))
    check_labels(labels, "margin_conditions")
    if patterns is not None and gauge_upper is not None:
        raise TypeError("pass either patterns or gauge_upper: both say how to bound R'(nu).")
    if patterns is not None:
        check_type(patterns, "patterns", Patterns, "jr.enumerate_patterns(X), for example")
        check_program(ConvexProgram(X, jnp.asarray(labels, X.dtype), patterns))
    if gauge_upper is not None and (isinstance(gauge_upper, type) or not callable(gauge_upper)):
        raise TypeError(
            f"gauge_upper is {described(gauge_upper)}; pass a function of nu (n,), or None."
        )
    check_budget(max_work, max_seconds, WORK)
    wall_tolerance = nonnegative(wall_tolerance, "wall_tolerance")
    support_tolerance = nonnegative(support_tolerance, "support_tolerance")
    # Numbers around one: X = 2^a X' with a network 2^(-a/2) times that of X'.
    power = 2 * (int(exponents(rows)) // 2)
    rows = np.ldexp(rows, -power)
    hidden, output, margins = _of_margin_one(network, rows, labels)
    support = np.flatnonzero(margins <= 1.0 + support_tolerance)
    mu, stationarity, unique = _multipliers(rows, labels, hidden, output, support, wall_tolerance)
    # What is returned is what the bound is about: multipliers in the dtype of the data.
    nu = np.asarray(jnp.asarray(labels * mu, X.dtype), np.float64)
    value = 0.5 * float(np.sum(hidden**2) + np.sum(output**2))
    ended_by = Limit.NONE
    if gauge_upper is not None:
        gauge = float(gauge_upper(jnp.asarray(times_power(nu, -power), X.dtype)))
    elif patterns is not None:
        # Over given patterns it is lambda_max of the squared loss with the target nu.
        data, target = jnp.asarray(rows, X.dtype), jnp.asarray(nu, X.dtype)
        gauge = float(lambda_max(ConvexProgram(data, target, patterns)))
    else:
        # In the dtype of the data, which both are exact in.
        found = polar_gauge(
            rows.astype(X.dtype), nu.astype(X.dtype), max_work=max_work, max_seconds=max_seconds
        )
        gauge, ended_by = found.upper, found.ended_by
    lower = float(labels @ nu) / gauge if gauge > 0 else 0.0

    def array(result: Any, exponent: int = 0) -> Array:
        return jnp.asarray(times_power(np.asarray(result, np.float64), exponent), fit.dtype)

    return MarginConditions(
        Network(array(hidden, -power // 2), array(output, -power // 2)),
        array(power_up(value, -power)),
        array(stationarity),
        array(np.sum(mu * np.maximum(margins - 1.0, 0.0)) / value),
        array(nu, -power),
        array(gauge),
        array(power_down(lower, -power)),
        jnp.asarray(unique),
        jnp.asarray(ended_by, jnp.int32),
    )


def _of_margin_one(network: Network, X: Floats, labels: Floats) -> tuple[Floats, Floats, Floats]:
    """Hidden and output weights, scaled by one number to the least margin one, and all margins.

    Raises:
        ValueError: the network does not separate the data; its weights are out of range then.
    """
    hidden = np.asarray(network.hidden, np.float64)
    output = np.asarray(network.output, np.float64)
    first, last = int(exponents(hidden)), int(exponents(output))
    hidden, output = np.ldexp(hidden, -first), np.ldexp(output, -last)
    margins = labels * (np.maximum(X @ hidden, 0.0) @ output)
    margin = float(np.min(margins))
    if not margin > 0:
        raise ValueError(
            f"min_i y_i f_i is {float(times_power(margin, first + last)):.3g}: the network does "
            "not separate the data, so it has no margin; train it further, or call max_margin, "
            "which tells whether any network does."
        )
    # Both layers by the same number, 1 / (margin 2^(first + last))^(1/2).
    half, odd = divmod(first - last, 2)
    root = (margin * 2.0**odd) ** 0.5
    hidden, output = times_power(hidden / root, half + odd), times_power(output / root, -half)
    if not max(abs(half), abs(-half - odd)) < _MOST_APART:
        raise ValueError(
            f"the layers of the network are 2^{first - last} apart, so that its squared norm is "
            "out of range: pass jr.balance(network)."
        )
    return hidden, output, margins / margin


def _multipliers(
    X: Floats, y: Floats, hidden: Floats, output: Floats, support: NDArray[Any], tolerance: float
) -> tuple[Floats, Floats, bool]:
    """Multipliers mu (n,), the distances of all neurons, and whether mu is the only one.

    Unknowns: mu of the support, then m and its slack of every neuron and wall of the support.
    """
    (n, d), m = X.shape, len(output)
    total = float(np.sqrt(np.sum(hidden**2) + np.sum(output**2)))
    along = X @ hidden
    walls = walls_of(unit_rows(X)[0], hidden.T, tolerance).T
    # A neuron without hidden weights is on every wall.
    active = (along > 0) & ~walls
    signed = X[support] * y[support, None]  # rows y_i x_i
    count = len(support)
    pairs = [(k, i) for k in range(m) if output[k] != 0 for i in np.flatnonzero(walls[support, k])]

    system = np.zeros((m * (d + 1) + len(pairs), count + 2 * len(pairs)))
    target = np.zeros(len(system))
    for k in range(m):
        first, on = k * (d + 1), active[support, k]
        system[first : first + d, :count] = output[k] * (signed * on[:, None]).T
        system[first + d, :count] = y[support] * on * along[support, k]
        target[first : first + d], target[first + d] = hidden[:, k], output[k]
    equations = m * (d + 1)
    for place, (k, i) in enumerate(pairs):
        system[k * (d + 1) : k * (d + 1) + d, count + place] = output[k] * signed[i]
    link = _LINK * float(np.max(np.linalg.norm(system[:equations], axis=0), initial=0.0))
    for place, (_, i) in enumerate(pairs):
        row = system[equations + place]
        row[i], row[count + place], row[count + len(pairs) + place] = link, -link, -link

    x, _ = nonnegative_least_squares(system, target / total)
    inside = np.asarray([x[i] for _, i in pairs])
    x[count : count + len(pairs)] = np.minimum(x[count : count + len(pairs)], inside)
    part = count + len(pairs)
    rest = (target[:equations] / total - system[:equations, :part] @ x[:part]).reshape(m, d + 1)
    mu = np.zeros(n)
    mu[support] = total * x[:count]
    return mu, np.linalg.norm(rest, axis=1), _determined(system[:equations, :part], count)


def _determined(equations: Floats, count: int) -> bool:
    """Whether solutions of the equations agree in their first `count` entries."""
    if not equations.size:
        return count == 0
    _, sigma, right = np.linalg.svd(unit_columns(equations))
    null = right[int(np.sum(sigma > _RANK * sigma[0])) :]
    return not bool(np.any(np.abs(null[:, :count]) > _RANK))
