r"""Orthogonally separable data: the max-margin network is two support vector machines.

Orthogonally separable means x_i . x_j > 0 inside a class and x_i . x_j <= 0 across the classes. The
max-margin problem

    minimise 1/2 sum_k (||u_k||^2 + a_k^2)   subject to   y_i f(x_i) >= 1

has the dual max y . nu over y_i nu_i >= 0 with |nu . (X u)_+| <= 1 for all ||u|| <= 1. Let u_+ be
the shortest u with X_+ u >= 1, X_+ the rows of class +1, and u_- likewise. Then u_+ = X_+^T m with
m >= 0, so X_- u_+ <= 0 and the neurons do not meet: the network relu(X u_+) - relu(X u_-) is
feasible at ||u_+|| + ||u_-||. With nu_+ = m / ||u_+|| one has ||X_+^T nu_+|| = 1 and y . nu =
||u_+|| + ||u_-||. This nu is feasible: for positive nu . (X u)_+ only the samples of class +1
count, nu_+ . (X_+ u)_+ <= ||sum over an active set T of nu_i x_i||, and this norm grows with T
since all inner products are positive. So the two bounds meet.

Reference: Wang and Pilanci, "The convex geometry of backpropagation", ICLR 2022, on orthogonally
separable data (Phuong and Lampert, ICLR 2021); the closed form and its dual derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from jaxrelu.closed_form.answer import Samples, checked
from jaxrelu.closed_form.support_vectors import shortest
from jaxrelu.core.aliases import Floats
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import power_down, power_up, times_power, unit_rows
from jaxrelu.losses.logistic import LogisticLoss
from jaxrelu.networks.network import Network


@register
@dataclass(frozen=True, eq=False)
class Separable:
    """A max-margin network with its proof, lower <= optimum <= value.

    Attributes:
        network: `Network` with a neuron for each class that has samples, balanced.
        fit: (n,), its predictions; y fit >= 1.
        dual: (n,), nu, with y nu >= 0 and polar 1.
        value: ||u_+|| + ||u_-||, which is half the squared norm of all weights.
        lower: y . nu over the larger of 1 and the polar of nu.
    """

    network: Network
    fit: Array
    dual: Array
    value: float
    lower: float

    @property
    def upper(self) -> float:
        """The value, by the name that it has in a certificate."""
        return self.value

    @property
    def gap(self) -> float:
        """Value - lower."""
        return self.value - self.lower


@on_host()
def separable(X: Any, y: Any) -> Separable:
    r"""The max-margin network of orthogonally separable data.

    minimise sum_k ||u_k|| |a_k|  subject to  y_i sum_k (x_i . u_k)_+ a_k >= 1;
    value ||u_+|| + ||u_-||,  u_s = argmin { ||u|| : x_i . u >= 1 for the samples of class s }.

    Args:
        X: array (n, d), x_i . x_j > 0 inside a class and <= 0 across the classes.
        y: array (n,) of -1 and +1.

    Returns:
        `Separable`.

    Raises:
        ValueError, TypeError: data that are not orthogonally separable, with the two rows that show
            it; rows too short for a margin of one beside the others; labels that are not -1 and
            +1; shapes that do not fit; a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> X = np.asarray([[2.0, 0.0], [0.0, -1.0]], "float32")
        >>> found = closed_form.separable(X, np.asarray([1.0, -1.0], "float32"))
        >>> found.value, found.fit.tolist(), found.dual.tolist()
        (1.5, [1.0, -1.0], [0.5, -1.0])

    Reference: Wang and Pilanci (ICLR 2022); see the module for the proof.
    """
    samples, _ = checked(X, y, LogisticLoss()).scaled()
    _check(samples)
    directions, sizes = np.zeros((samples.X.shape[1], 2)), np.zeros(2)
    dual, polar = np.zeros_like(samples.y), 1.0
    for k, sign in enumerate((1.0, -1.0)):
        side = samples.y == sign
        if not side.any():
            continue
        found = shortest(samples.X[side])
        if found is None:  # the sum of the rows is at an acute angle to each, but for rounding
            raise ValueError(
                "some rows of one class are too short for a margin of one beside the others: "
                "leave them out."
            )
        u, multipliers = found
        length = float(np.linalg.norm(u))
        directions[:, k], sizes[k] = u / length, sign * length
        dual[side] = sign * multipliers / length
        polar = max(polar, float(np.linalg.norm(samples.X[side].T @ dual[side])))
    fit = np.maximum(samples.X @ directions, 0.0) @ sizes
    power = samples.units.weights
    return Separable(
        network=samples.network(directions, sizes),
        fit=samples.cast(fit),
        dual=samples.cast(times_power(dual, power)),
        value=power_up(float(np.sum(np.abs(sizes))), power),
        lower=power_down(float(samples.y @ dual) / polar, power),
    )


def _check(samples: Samples) -> None:
    unit = _unit_rows(samples)
    cosines = unit @ unit.T
    same = samples.y[:, None] == samples.y[None]
    rounding = 4.0 * float(np.finfo(samples.dtype).eps)
    wrong = np.where(same, cosines <= 0.0, cosines > rounding)
    if wrong.any():
        i, j = (int(k) for k in np.argwhere(wrong)[0])
        where = "inside a class, where it must be positive" if same[i, j] else "across the classes"
        more = "" if same[i, j] else ", where it must not be positive"
        raise ValueError(
            f"rows {i} and {j} have cosine {cosines[i, j]:.3g} {where}{more}: the data are not "
            "orthogonally separable; solve the logistic program at a small lam instead."
        )


def _unit_rows(samples: Samples) -> Floats:
    unit, norms = unit_rows(samples.X)
    if not np.all(norms > 0):
        raise ValueError(
            f"row {int(np.argmin(norms))} of X is zero, so no network without a bias separates it: "
            "remove it, or append a column of ones."
        )
    return unit
