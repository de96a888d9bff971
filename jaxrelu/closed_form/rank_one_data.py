r"""Data of rank one without a bias, X = c a^T: two scalar problems.

A neuron u sees (X u)_+ = (a.u)_+ (c)_+ or (-a.u)_+ (-c)_+, so with the two features
phi_+ = ||a|| (c)_+ and phi_- = ||a|| (-c)_+ every fit is alpha phi_+ + beta phi_-, and

    R = |alpha| + |beta|,     polar(r) = max(|r . phi_+|, |r . phi_-|).

The features have disjoint supports, so the two coefficients are found one by one: alpha = 0 where
|phi . r(0)| <= lam, and otherwise the root of s phi . r(s t phi) = lam in t > 0, s the sign of
phi . r(0). Squared loss: alpha = soft(phi . y, lam) / ||phi||^2.

Reference: Ergen and Pilanci, JMLR 22 (2021), on rank-one data; here without a bias.
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
from jaxrelu.losses.squared import SquaredLoss

_SQUARED_LOSS = SquaredLoss()


@on_host()
def rank_one(X: Any, y: Any, lam: Any, loss: Loss = _SQUARED_LOSS) -> ClosedForm:
    r"""The optimal network of data on a line through the origin, without a bias.

    min over alpha, beta of sum_i loss(alpha phi_+ + beta phi_-, y)_i + lam (|alpha| + |beta|)

    with phi_+ = ||a|| (c)_+ and phi_- = ||a|| (-c)_+ for X = c a^T.

    Args:
        X: array (n, d) of rank one; a single feature (n, 1) is.
        y: array (n,).
        lam: scalar, > 0.
        loss: a `Loss`. A formula for the squared loss, two scalar roots for others.

    Returns:
        `ClosedForm` with at most two neurons, along a and -a.

    Raises:
        ValueError, TypeError: X of another rank, shapes that do not fit, lam that is not positive;
            a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> X = np.asarray([[2.0], [-1.0]], "float32")
        >>> found = closed_form.rank_one(X, np.asarray([3.0, -2.0], "float32"), 1.0)
        >>> found.fit.tolist(), round(found.value, 4)
        ([2.5, -1.0], 2.875)

    Reference: Ergen and Pilanci (JMLR 22, 2021), on rank-one data.
    """
    samples, strength = checked(X, y, loss), positive(lam, "lam")
    samples, strength = samples.scaled(strength)
    c, a = line(samples)
    features = np.maximum(np.stack([c, -c], axis=1), 0.0)
    sizes = np.asarray([_coefficient(samples, phi, strength) for phi in features.T])
    # What rounding leaves of X beside the line.
    beside = np.linalg.norm(samples.X - np.outer(c, a), axis=1)

    def polar(r: Floats) -> float:
        return float(np.max(np.abs(features.T @ r)) + np.abs(r) @ beside)

    return samples.answer(strength, np.stack([a, -a], axis=1), sizes, polar)


def line(samples: Samples) -> tuple[Floats, Floats]:
    """X = c a^T with ||a|| = 1: c (n,) and a (d,), the largest entry of a positive.

    Raises:
        ValueError: X is not of rank one.
    """
    _, sigma, right = np.linalg.svd(samples.X, full_matrices=False)
    if sigma[0] == 0.0 or (len(sigma) > 1 and sigma[1] > tolerance(samples) * sigma[0]):
        rank = int(np.sum(sigma > tolerance(samples) * sigma[0]))
        raise ValueError(
            f"X has rank {rank}, not one: rank-one closed forms need rows on one line through the "
            "origin; use jr.solve(jr.ConvexProgram(X, y, jr.enumerate_patterns(X)), lam)."
        )
    a: Floats = right[0] * np.sign(right[0, np.argmax(np.abs(right[0]))])
    return samples.X @ a, a


def _coefficient(samples: Samples, phi: Floats, lam: float) -> float:
    slope = float(phi @ samples.residual(np.zeros_like(phi)))
    if abs(slope) <= lam:
        return 0.0
    sign = float(np.sign(slope))
    if isinstance(samples.loss, SquaredLoss):
        return sign * (abs(slope) - lam) / float(phi @ phi)

    def excess(t: float) -> float:
        return sign * float(phi @ samples.residual(sign * t * phi)) - lam

    high = 1.0 / float(np.max(phi))
    for _ in range(200):
        if excess(high) <= 0:
            return sign * float(brentq(excess, 0.0, high, xtol=1e-300, rtol=1e-15))
        high *= 2.0
    raise ValueError(
        "the loss keeps falling faster than lam: it is unbounded below; check the loss."
    )
