r"""Smaller networks: minimal ones of the same fit, and pruning beyond that.

With unit directions u_k and coefficients a_k = ||hidden_k|| |output_k|, features z_k =
sign_k relu(X u_k), the fit is sum_k a_k z_k and the penalty of the balanced network sum_k a_k.
While the features of the neurons are dependent, sum_k beta_k z_k = 0, the step a - t beta, t the
smallest a_k / beta_k over beta_k > 0, removes a neuron and keeps the fit; of beta and -beta the one
with sum beta >= 0 is taken, so that the penalty does not grow. What is left has independent
features: it is *irreducible*, a vertex of the optimal set where the network was optimal. That is
not the same as *sparsest*.

Reference: Mishkin and Pilanci (ICML 2023), Algorithm 1, with the sign of the step corrected: as
printed, a step along the wrong sign doubles a neuron and removes none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.linalg import qr_delete, qr_insert, solve_triangular
from scipy.optimize import nnls

from jaxrelu.directions import distinct
from jaxrelu.networks import GatedNetwork, Network
from jaxrelu.numerics import as_float
from jaxrelu.optimal_set import OptimalSet
from jaxrelu.pytrees import register
from jaxrelu.selection import network_from_coefficients, select

Floats = NDArray[np.float64]

# A unit feature this near the span of others depends on them.
_DEPENDENT = 1e-9
RULES = ("random", "weight", "activation", "gradient", "residual")


@register
@dataclass(frozen=True)
class Pruned:
    """A pruned network and what every step did.

    Attributes:
        network: the network that is left.
        neurons: (steps + 1,) int32, neurons at the start and after every step.
        loss: (steps + 1,), 1/2 ||fit - y||^2.
        penalty: (steps + 1,), sum_k ||hidden_k|| |output_k|.
        change: (steps + 1,), ||fit - fit before the step||.
        bound: (steps + 1,), what the error identity says that change is at most; infinite for the
            refit.
    """

    network: Network | GatedNetwork
    neurons: Array
    loss: Array
    penalty: Array
    change: Array
    bound: Array


def minimal(network: Network, X: Any) -> Network:
    """An irreducible network of the same fit on X, with the same or a smaller penalty.

    Neurons of equal direction and sign are merged, dead ones dropped, the rest balanced; then
    neurons whose features depend on those of others are removed, with one QR factorisation kept up
    to date: O(n d m + n^2 m). At most rank(features) <= n neurons are left.

    Args:
        network: a `Network` of m neurons, from anywhere; need not be optimal.
        X: array (n, d), the data on which the fit is kept.

    Returns:
        `Network`, balanced, of fewer or equally many neurons. Of an optimal network, an optimal
        one: a vertex of its optimal set.

    Raises:
        ValueError, TypeError: shapes that do not fit; called inside a trace.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.0], [0.0, 1.0]], "float32")
        >>> hidden = np.asarray([[1.0, 2.0], [0.0, 0.0]], "float32")
        >>> jr.minimal(jr.Network(hidden, np.ones(2, "float32")), X).num_neurons
        1

    Reference: Mishkin and Pilanci (ICML 2023), Algorithm 1, corrected.
    """
    X, directions, signs, a, dtype = _neurons(network, X)
    features = signs * np.maximum(X @ directions.T, 0.0)
    kept, a = independent(features, a)
    return _network(directions[kept], signs[kept], a[kept], dtype)


def independent(features: Floats, coefficients: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Indices of independent features, and coefficients (k,) >= 0 of the same fit on them alone.

    Columns come in one by one; one that depends on those kept pushes the first neuron to zero.
    """
    n, k = features.shape
    norms = np.linalg.norm(features, axis=0)
    a = np.where(norms > 0, coefficients, 0.0)
    target = features @ a
    Q, R = np.zeros((n, 0)), np.zeros((0, 0))
    kept: list[int] = []
    for index in np.argsort(-a * norms, kind="stable"):
        if a[index] <= 0:
            continue
        z = features[:, index] / norms[index]
        rest = z - Q @ (Q.T @ z)
        rest = rest - Q @ (Q.T @ rest)
        if np.linalg.norm(rest) > _DEPENDENT and len(kept) < n:
            Q, R = _with_column(Q, R, z)
            kept.append(int(index))
            continue
        # z_index = sum_j c_j z_j in units of the features themselves.
        c = solve_triangular(R, Q.T @ z) * norms[index] / norms[kept]
        beta = np.append(-c, 1.0)
        members = np.append(kept, index)
        step, gone = _first_to_vanish(a[members], beta)
        other, other_gone = _first_to_vanish(a[members], -beta)
        # Not up in penalty; where neither way is, to the nearer end.
        slope = np.sum(beta) / np.sum(np.abs(beta))
        if slope < -1e-9 or (slope < 1e-9 and other < step):
            step, gone, beta = other, other_gone, -beta
        a[members] = np.maximum(a[members] - step * beta, 0.0)
        a[members[gone]] = 0.0
        if gone < len(kept):
            Q, R = qr_delete(Q, R, gone, which="col")
            Q, R = Q[:, : R.shape[1]], R[: R.shape[1]]
            kept.pop(gone)
            Q, R = _with_column(Q, R, z)
            kept.append(int(index))
    chosen = np.sort(np.array(kept, np.int64))
    polished = np.zeros(k)
    if chosen.size:
        # The sums of many steps leave rounding behind.
        exact, *_ = np.linalg.lstsq(features[:, chosen], target, rcond=None)
        better = np.linalg.norm(features[:, chosen] @ exact - target)
        known = np.linalg.norm(features[:, chosen] @ a[chosen] - target)
        positive = bool(np.all(exact >= 0)) and better <= known
        polished[chosen] = exact if positive else a[chosen]
    polished[polished <= 1e-12 * np.max(polished, initial=0.0)] = 0.0
    return chosen[polished[chosen] > 0], polished


def _first_to_vanish(a: Floats, beta: Floats) -> tuple[float, int]:
    """The largest t with a - t beta >= 0, and which coefficient ends there."""
    falling = beta > 1e-14 * np.max(np.abs(beta))
    ratio = np.where(falling, a / np.where(falling, beta, 1.0), np.inf)
    gone = int(np.argmin(ratio))
    return float(ratio[gone]), gone


def sparsest(optima: OptimalSet) -> Network | GatedNetwork:
    """An optimal network with as few neurons as an optimal network can have.

    Args:
        optima: an `OptimalSet`; `minimal_width_exact` says whether the width is proven.

    Returns:
        The network, with `minimal_width` neurons.
    """
    return network_from_coefficients(optima, select(optima, "fewest")).compact()


def prune(
    network: Network,
    X: Any,
    y: Any,
    *,
    to: int,
    rule: str = "residual",
    corrected: bool = True,
    refit: bool = True,
    seed: int = 0,
) -> Pruned:
    r"""Prunes a network to a number of neurons, the fit changing as little as the rule allows.

    While features are dependent neurons go for free, as in `minimal`. Then, one at a time, the rule
    picks a victim j. Plain pruning drops it. Corrected pruning writes its feature by the others,
    beta = argmin ||sum_{k != j} beta_k a_k z_k - a_j z_j||, beta_j = -1, and scales neuron k by
    1 - beta_k / beta_k*, where |beta_k*| is largest: k* vanishes, which need not be j, and the fit
    changes by ||e|| / |beta_k*| <= ||e||, e the residual of that least-squares problem.

    Args:
        network: a `Network`, from anywhere.
        X: array (n, d).
        y: array (n,), the target that `refit`, the rule "gradient" and the recorded loss refer to.
        to: neurons to keep at most.
        rule: "random"; "weight", the smallest ||theta_j||; "activation", the smallest ||a_j z_j||;
            "gradient", the smallest ||theta_j o gradient||; "residual", the smallest ||e||.
        corrected: as above, or plain.
        refit: at the end, least squares over coefficients >= 0 of the survivors, to y.
        seed: of the rule "random".

    Returns:
        `Pruned`.

    Raises:
        ValueError, TypeError: an unknown rule, `to` < 0, shapes that do not fit.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.standard_normal((20, 3)).astype("float32"), np.ones(20, "float32")
        >>> net = jr.Network(rng.standard_normal((3, 9)).astype("float32"), np.ones(9, "float32"))
        >>> jr.prune(net, X, y, to=4).network.num_neurons
        4

    Reference: Mishkin and Pilanci (ICML 2023), Section 5 and Appendix D, corrected.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; pass one of {', '.join(RULES)}.")
    if to < 0:
        raise ValueError(f"to is {to}; pass a number of neurons >= 0.")
    y = np.asarray(as_float(y, "y"), float)
    X, directions, signs, a, dtype = _neurons(network, X)
    if y.shape != (len(X),):
        raise ValueError(f"y has shape {y.shape}, but X has {len(X)} rows: pass one value a row.")
    features = signs * np.maximum(X @ directions.T, 0.0)
    rng = np.random.default_rng(seed)
    fit = features @ a
    record = [(int(np.sum(a > 0)), _loss(fit, y), float(a.sum()), 0.0, 0.0)]

    def note(bound: float) -> None:
        nonlocal fit
        new = features @ a
        change = float(np.linalg.norm(new - fit))
        record.append((int(np.sum(a > 0)), _loss(new, y), float(a.sum()), change, bound))
        fit = new

    if int(np.sum(a > 0)) > to:
        _, a = independent(features, a)
        note(0.0)
    while int(np.sum(a > 0)) > to:
        alive = np.flatnonzero(a > 0)
        columns = features[:, alive] * a[alive]
        errors = _errors(columns)
        victim = _victim(rule, alive, a, columns, errors, X, directions, signs, fit, y, rng)
        if corrected:
            factors, error = _without(columns, victim)
            a[alive] = np.where(factors <= 1e-14, 0.0, a[alive] * factors)
            note(error)
        else:
            error = float(np.linalg.norm(columns[:, victim]))
            a[alive[victim]] = 0.0
            note(error)
    if refit:
        alive = np.flatnonzero(a > 0)
        if alive.size:
            a = np.zeros_like(a)
            a[alive] = nnls(features[:, alive], y)[0]
        note(np.inf)
    kept = np.flatnonzero(a > 0)
    columns_of = [jnp.asarray(column) for column in zip(*record, strict=True)]
    return Pruned(_network(directions[kept], signs[kept], a[kept], dtype), *columns_of)


def _loss(fit: Floats, y: Floats) -> float:
    return float(0.5 * np.sum((fit - y) ** 2))


def _errors(columns: Floats) -> Floats:
    """||e_j|| of every column on the others, from the inverse of the Gram matrix."""
    _, R = np.linalg.qr(columns)
    inverse = np.linalg.pinv(R)
    diagonal = np.sum(inverse**2, axis=1)
    errors: Floats = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, np.inf))
    return errors


def _without(columns: Floats, victim: int) -> tuple[Floats, float]:
    """Factors of all neurons after the corrected removal, and how much the fit changes."""
    others = np.delete(np.arange(columns.shape[1]), victim)
    found, *_ = np.linalg.lstsq(columns[:, others], columns[:, victim], rcond=None)
    beta = np.full(columns.shape[1], -1.0)
    beta[others] = found
    error = float(np.linalg.norm(columns @ beta))
    largest = int(np.argmax(np.abs(beta)))
    factors = 1.0 - beta / beta[largest]
    factors[largest] = 0.0
    return factors, error / abs(float(beta[largest]))


def _victim(
    rule: str,
    alive: NDArray[np.int64],
    a: Floats,
    columns: Floats,
    errors: Floats,
    X: Floats,
    directions: Floats,
    signs: Floats,
    fit: Floats,
    y: Floats,
    rng: np.random.Generator,
) -> int:
    if rule == "random":
        return int(rng.integers(alive.size))
    if rule == "weight":
        return int(np.argmin(a[alive]))
    if rule == "activation":
        return int(np.argmin(np.linalg.norm(columns, axis=0)))
    if rule == "residual":
        return int(np.argmin(errors))
    # The gradient of the loss in theta_j = a_j u_j is s_j X^T D_j (fit - y).
    active = (X @ directions[alive].T > 0) * (fit - y)[:, None]
    gradient = signs[alive][:, None] * (active.T @ X)
    return int(np.argmin(np.linalg.norm(a[alive][:, None] * directions[alive] * gradient, axis=1)))


def _with_column(Q: Floats, R: Floats, z: Floats) -> tuple[Floats, Floats]:
    if R.shape[1] == 0:
        size = np.linalg.norm(z)
        return z[:, None] / size, np.array([[size]])
    return qr_insert(Q, R, z, R.shape[1], which="col")  # type: ignore[no-any-return]


def _neurons(network: Network, X: Any) -> tuple[Floats, Floats, Floats, Floats, Any]:
    """X, and directions (k, d), signs, coefficients of merged living neurons; the dtype."""
    if not isinstance(network, Network):
        raise TypeError(f"expected a Network, got {type(network).__name__}.")
    hidden, output = as_float(network.hidden, "hidden"), as_float(network.output, "output")
    data = as_float(X, "X")
    if any(isinstance(x, jax.core.Tracer) for x in (hidden, output, data)):
        raise TypeError("pruning looks at values: call it on the host, outside jit and vmap.")
    if data.ndim != 2 or hidden.ndim != 2 or hidden.shape != (data.shape[1], output.size):
        raise ValueError(
            f"hidden has shape {hidden.shape}, output {output.shape} and X {data.shape}: pass a "
            "network with hidden (d, m) and output (m,) for X (n, d)."
        )
    dtype = hidden.dtype
    X, u, w = (np.asarray(value, np.float64) for value in (data, hidden, output))
    for name, value in (("hidden", u), ("output", w), ("X", X)):
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name} has entries that are not finite.")
    norms = np.linalg.norm(u, axis=0)
    dead = (norms == 0) | (w == 0) | ~np.any(X @ u > 0, axis=0)
    directions = (u[:, ~dead] / norms[~dead]).T
    signs, a = np.sign(w[~dead]), norms[~dead] * np.abs(w[~dead])
    first, member_of = distinct(directions, signs)
    merged: Floats = np.zeros(first.size)
    np.add.at(merged, member_of, a)
    return X, directions[first], signs[first], merged, dtype


def _network(directions: Floats, signs: Floats, a: Floats, dtype: Any) -> Network:
    root = np.sqrt(a)
    hidden = (directions * root[:, None]).T
    return Network(jnp.asarray(hidden, dtype), jnp.asarray(signs * root, dtype))
