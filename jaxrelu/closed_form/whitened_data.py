r"""Whitened data, X X^T = I: a soft threshold of each sign of the target.

With q_i = x_i . u the inputs ||u|| <= 1 give every q with ||q|| <= 1, so

    polar(r) = max over ||q|| <= 1 of |r . (q)_+| = max(||(r)_+||, ||(-r)_+||),
    R(f) = ||(f)_+|| + ||(-f)_+||,

R with two neurons, X^T (f)_+ and X^T (-f)_+ over their norms. The problem
min loss(f) + lam R(f) has (f_i) of the sign of r_i at f = 0, so it splits into one problem a sign,
min over f of sum_i loss(f_i) + lam ||f||. Unless f = 0, which holds for ||r(0)|| <= lam, its
condition is r_i(f_i) = c f_i with c = lam / ||f||: for every c each f_i(c) is a scalar root, the
norm ||c f(c)|| rises with c, and one scalar c remains to be found such that it is lam. Where the
loss has a kink, c f_i is the subgradient that the condition selects there.

Squared loss: f = (1 - lam / ||y||)_+ y on each sign. Logistic loss, a sign with k samples:
f_i = log(sqrt(k) / lam - 1) for lam < sqrt(k) / 2, and zero otherwise. Hinge loss
max(0, 1 - y f): f_i = y_i for lam < sqrt(k), at a cost of lam sqrt(k), and zero, at a cost of k,
otherwise (at lam = sqrt(k) all between are optimal).

Reference: Ergen and Pilanci, "Convex geometry and duality of over-parameterized neural networks",
JMLR 22 (2021), on whitened data; general losses derived here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq

from jaxrelu.closed_form.answer import ClosedForm, Samples, checked, tolerance
from jaxrelu.core.aliases import Floats
from jaxrelu.core.options import positive
from jaxrelu.core.tracing import on_host
from jaxrelu.losses.base import Loss
from jaxrelu.losses.logistic import LogisticLoss
from jaxrelu.losses.squared import SquaredLoss

_SQUARED_LOSS = SquaredLoss()


@on_host()
def whitened(X: Any, y: Any, lam: Any, loss: Loss = _SQUARED_LOSS) -> ClosedForm:
    r"""The optimal network of data with orthonormal rows, for every convex loss.

    min over f of sum_i loss(f_i, y_i) + lam (||(f)_+|| + ||(-f)_+||),   X X^T = I

    Args:
        X: array (n, d), n <= d, X X^T = I up to rounding.
        y: array (n,).
        lam: scalar, > 0.
        loss: a `Loss`, of which a kink may be at any fit but zero (a hinge, for example).
            Formulas for the squared and the logistic loss, scalar roots for others.

    Returns:
        `ClosedForm` with at most two neurons, X^T (f)_+ / ||f_+|| and X^T (-f)_+ / ||f_-||.

    Raises:
        ValueError, TypeError: rows that are not orthonormal, shapes that do not fit, lam that is
            not positive; a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> X, y = np.eye(3, dtype="float32"), np.asarray([3.0, 4.0, -2.0], "float32")
        >>> found = closed_form.whitened(X, y, 1.0)
        >>> [round(float(f), 4) for f in found.fit], found.exact
        ([2.4, 3.2, -1.0], True)

    Reference: Ergen and Pilanci (JMLR 22, 2021), on whitened data.
    """
    samples, strength = checked(X, y, loss), positive(lam, "lam")
    samples, strength = samples.scaled(strength, keep_data=True)
    check_orthonormal(samples)
    fit = np.zeros_like(samples.y)
    at_zero = samples.residual(fit)
    dual = at_zero.copy()
    for side in (at_zero > 0, at_zero < 0):
        if float(np.linalg.norm(at_zero[side])) > strength:
            fit[side] = _one_sign(samples, at_zero, side, strength)
            dual[side] = strength / float(np.linalg.norm(fit[side])) * fit[side]
    parts = np.maximum(np.stack([fit, -fit], axis=1), 0.0)
    sizes = np.linalg.norm(parts, axis=0)
    directions = samples.X.T @ (parts / np.where(sizes > 0, sizes, 1.0))
    # Rows of which X X^T - I is not quite zero let X u reach a little beyond the unit ball.
    reach = np.sqrt(1.0 + float(np.linalg.norm(samples.X @ samples.X.T - np.eye(len(fit)), 2)))

    def polar(r: Floats) -> float:
        return float(reach) * max(float(np.linalg.norm(r[r > 0])), float(np.linalg.norm(r[r < 0])))

    return samples.answer(strength, directions, sizes * np.asarray([1.0, -1.0]), polar, dual)


def _one_sign(samples: Samples, at_zero: Floats, side: Any, lam: float) -> Floats:
    """The fit on the samples of one sign, where it is not zero."""
    if isinstance(samples.loss, SquaredLoss):
        y: Floats = samples.y[side]
        return (1.0 - lam / float(np.linalg.norm(y))) * y
    if isinstance(samples.loss, LogisticLoss):
        return samples.y[side] * np.log(np.sqrt(np.sum(side)) / lam - 1.0)
    return _roots(samples, at_zero, side, lam)


def _roots(samples: Samples, at_zero: Floats, side: Any, lam: float) -> Floats:
    """The same for any loss: r_i(f_i) = c f_i for every sample, and ||c f|| = lam."""

    def excess(log_c: float) -> float:
        c = float(np.exp(log_c))
        return c * float(np.linalg.norm(_at_scale(samples, at_zero, side, c)[side])) - lam

    low = high = 0.0
    while excess(high) < 0:
        low, high = high, high + 2.0
    while excess(low) > 0:
        low, high = low - 2.0, low
        if low < -600.0:
            raise ValueError(
                "the loss keeps falling faster than lam: it is unbounded below; check the loss."
            )
    found = low if low == high else brentq(excess, low, high, xtol=1e-15, rtol=1e-15)
    return _at_scale(samples, at_zero, side, float(np.exp(found)))[side]


def _at_scale(samples: Samples, at_zero: Floats, side: Any, c: float) -> Floats:
    """The roots f_i of r_i(f_i) = c f_i, between 0 and r_i(0) / c, by bisection."""
    sign = np.sign(at_zero)
    low, high = np.zeros_like(at_zero), np.where(side, np.abs(at_zero) / c, 0.0)
    while True:
        middle = 0.5 * (low + high)
        if np.all((middle <= low) | (middle >= high)):
            return sign * low
        above = sign * samples.residual(sign * middle) > c * middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)


def check_orthonormal(samples: Samples) -> None:
    """Refuses rows that are not orthonormal, to rounding of the dtype that X had."""
    n, d = samples.X.shape
    error = float(np.max(np.abs(samples.X @ samples.X.T - np.eye(n))))
    if n > d:
        raise ValueError(
            f"X has {n} rows and {d} columns, so X X^T cannot be the identity: whitened data have "
            "n <= d; use jr.solve, or rank_one or spike_free where they apply."
        )
    if error > tolerance(samples) * np.sqrt(d):
        raise ValueError(
            f"X X^T differs from the identity by {error:.1e}: whiten the rows first, for example "
            "with u, _, vt = np.linalg.svd(X, full_matrices=False) and X = u @ vt. If X X^T = s^2 "
            "I, pass X / s and lam / s."
        )
