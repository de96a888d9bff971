r"""Pruning beyond an irreducible network: by the rules of the literature, plain and corrected.

What a step may cost is known before it is taken: with a_j z_j the part of neuron j in the fit and e
what least squares over the others leave of it, dropping j changes the fit by ||a_j z_j||, the
corrected removal by at most ||e||.

Reference: Mishkin and Pilanci (ICML 2023), Section 5 and Appendix D, corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.optimize import minimize

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import as_float, known_matrix
from jaxrelu.core.options import check_choice, count, flag, nonnegative
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.scaling import exponents, times_power
from jaxrelu.losses.base import Loss, homogeneity, scaled, total, total_gradient
from jaxrelu.losses.checks import check_known_samples, check_no_kinks, checked_samples, chosen_loss
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.networks.checks import check_network
from jaxrelu.networks.irreducible import DEPENDENT, Neurons, neurons_of, reductions
from jaxrelu.networks.network import GatedNetwork, Network

RULES = ("random", "weight", "activation", "gradient", "residual")


@register
@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned network and what every step did.

    Attributes:
        network: the network that is left.
        neurons: (steps + 1,) int32, neurons at the start, equal ones counted once, and after every
            step.
        loss: (steps + 1,), sum_i loss(fit_i, y_i).
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


@on_host()
def prune(
    network: Network | GatedNetwork,
    X: Any,
    y: Any,
    *,
    to: int,
    rule: str = "residual",
    corrected: bool = True,
    refit: bool = True,
    loss: Loss | None = None,
    lam: Any = 0.0,
    seed: int = 0,
) -> Pruned:
    r"""Prunes a network to a number of neurons, the fit changing as little as the rule allows.

    While features are dependent neurons go for free, as in `minimal`. Then, one at a time, the rule
    picks a victim j. Plain pruning drops it. Corrected pruning writes its feature by the others,
    beta = argmin ||sum_{k != j} beta_k a_k z_k - a_j z_j||, beta_j = -1, and scales neuron k by
    1 - beta_k / beta_k*, where |beta_k*| is largest: k* vanishes, which need not be j, and the fit
    changes by ||e|| / |beta_k*| <= ||e||, e the residual of that least-squares problem.

    Args:
        network: a `Network` or `GatedNetwork`, from anywhere.
        X: array (n, d).
        y: array (n,), the target of the refit, of the rule "gradient" and of the recorded loss.
        to: neurons to keep at most.
        rule: "random"; "weight", the smallest ||theta_j||; "activation", the smallest ||a_j z_j||;
            "gradient", the smallest ||theta_j o gradient||; "residual", the smallest ||e||.
        corrected: as above, or plain.
        refit: at the end, the survivors' coefficients a >= 0 are those of the smallest
            sum_i loss((Z a)_i, y_i) + lam sum a, also where nothing had to be pruned.
        loss: a `Loss`; default the squared loss.
        lam: scalar >= 0, of the refit: zero for the best fit alone, which has no end where labels
            are separable and the loss is logistic.
        seed: of the rule "random".

    Returns:
        `Pruned`.

    Raises:
        ValueError, TypeError: an unknown rule, `to` < 0, a negative lam, shapes that do not fit,
            labels that the loss cannot take.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.standard_normal((20, 3)).astype("float32"), np.ones(20, "float32")
        >>> net = jr.Network(rng.standard_normal((3, 9)).astype("float32"), np.ones(9, "float32"))
        >>> jr.prune(net, X, y, to=4).network.num_neurons
        4

    Reference: Mishkin and Pilanci (ICML 2023), Section 5 and Appendix D, corrected.
    """
    check_choice(rule, "rule", RULES)
    to, strength = count(to, "to", least=0), nonnegative(lam, "lam")
    corrected, refit = flag(corrected, "corrected"), flag(refit, "refit")
    rng = np.random.default_rng(count(seed, "seed", least=0))
    loss = chosen_loss(loss)
    check_no_kinks(loss, "prune")
    X = known_matrix(X, "X")
    check_known_samples(len(X), y)
    check_network(network, gated=True)
    neurons = neurons_of(network, X)
    features, X = neurons.features, X.astype(np.float64)
    # Targets and fits are in units of 2^power, coefficients in those of 2^neurons.size.
    power, degree = 0, homogeneity(loss)
    if degree:
        power = max(int(exponents(np.asarray(y, np.float64))), neurons.data + neurons.size)
        y = np.ldexp(np.asarray(as_float(y, "y")), -power)
        loss = scaled(loss, jnp.asarray(-power))
    a = times_power(neurons.coefficients, neurons.size + neurons.data - power)
    neurons = neurons._replace(size=power - neurons.data)
    strength = float(times_power(strength, -neurons.data - (degree - 1) * power))
    X, fit = np.ldexp(X, -neurons.data), features @ a
    risk = _Risk(loss, y, fit)
    record = [(int(np.sum(a > 0)), risk.value(fit), float(a.sum()), 0.0, 0.0)]

    def note(bound: float) -> None:
        nonlocal fit
        new = features @ a
        change = float(np.linalg.norm(new - fit))
        record.append((int(np.sum(a > 0)), risk.value(new), float(a.sum()), change, bound))
        fit = new

    if corrected and int(np.sum(a > 0)) > to:
        # While features are dependent a neuron can go at no change of the fit, whatever the rule.
        for reduced in reductions(features, a):
            a = reduced
            if int(np.sum(a > 0)) < record[-1][0]:
                note(0.0)
            if int(np.sum(a > 0)) <= to:
                break
    while int(np.sum(a > 0)) > to:
        alive = np.flatnonzero(a > 0)
        columns = features[:, alive] * a[alive]
        errors = _errors(columns)
        victim = _victim(rule, neurons, alive, a, columns, errors, X, risk.gradient(fit), rng)
        if corrected:
            factors, error = _without(columns, victim)
            a[alive] = np.where(factors <= 1e-14, 0.0, a[alive] * factors)
        else:
            error = float(np.linalg.norm(columns[:, victim]))
            a[alive[victim]] = 0.0
        note(error)
    if refit:
        alive = np.flatnonzero(a > 0)
        a[alive] = risk.smallest(features[:, alive], a[alive], strength)
        note(np.inf)
    units = (0, degree * power, neurons.size, power, power)
    columns_of = [
        jnp.asarray(times_power(np.asarray(column), unit) if unit else np.asarray(column))
        for column, unit in zip(zip(*record, strict=True), units, strict=True)
    ]
    return Pruned(neurons.network(a), *columns_of)


class _Risk:
    """The loss of fits to given targets, on the host."""

    def __init__(self, loss: Loss, y: Any, fit: Floats) -> None:
        self.loss = loss
        self.target, self.weight = checked_samples(loss, jnp.asarray(fit), y)

    def value(self, fit: Floats) -> float:
        return float(total(self.loss, jnp.asarray(fit), self.target, self.weight))

    def gradient(self, fit: Floats) -> Floats:
        slope = total_gradient(self.loss, jnp.asarray(fit), self.target, self.weight)
        return np.asarray(slope, np.float64)

    def smallest(self, columns: Floats, a: Floats, lam: float) -> Floats:
        """Coefficients >= 0 of the smallest loss + lam sum a, from some that are known."""
        if not a.size:
            return a
        norms = np.linalg.norm(columns, axis=0)
        unit = columns / norms
        if isinstance(self.loss, SquaredLoss) and lam == 0:
            # A last row that is next to nothing: of features that differ by rounding alone no
            # huge coefficients are worth what they fit.
            rows = np.vstack([unit, np.full(a.size, DEPENDENT)])
            target = np.append(np.asarray(self.target, np.float64), 0.0)
            return nonnegative_least_squares(rows, target)[0] / norms

        def penalised(b: Floats) -> tuple[float, Floats]:
            fit = unit @ b
            value = self.value(fit) + lam * float(np.sum(b / norms))
            return value, unit.T @ self.gradient(fit) + lam / norms

        options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-10}
        best = minimize(
            penalised, a * norms, jac=True, method="L-BFGS-B",
            bounds=[(0.0, None)] * a.size, options=options,
        )  # fmt: skip
        return np.asarray(best.x) / norms


def _errors(columns: Floats) -> Floats:
    """||e_j|| of every column on the others, from the inverse of the Gram matrix."""
    norms = np.linalg.norm(columns, axis=0)
    _, sigma, right = np.linalg.svd(np.linalg.qr(columns / norms)[1])
    rank = int(np.sum(sigma > DEPENDENT * sigma[0]))
    inverse = np.sum((right[:rank] / sigma[:rank, None]) ** 2, axis=0)
    # A column with a share in the null space is a combination of others.
    free = np.linalg.norm(right[rank:], axis=0) <= DEPENDENT**0.5
    errors: Floats = np.where(free, norms / np.sqrt(inverse), 0.0)
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
    neurons: Neurons,
    alive: NDArray[np.int64],
    a: Floats,
    columns: Floats,
    errors: Floats,
    X: Floats,
    error: Floats,
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
    # The gradient of the loss in theta_j = a_j u_j is s_j X^T D_j times that in the fit.
    active = neurons.masks[:, alive] * error[:, None]
    gradient = neurons.signs[alive][:, None] * (active.T @ X)
    weights = a[alive][:, None] * neurons.directions[alive]
    return int(np.argmin(np.linalg.norm(weights * gradient, axis=1)))
