r"""When the network with the fewest neurons is also the one of least norm: l0 and l1 interpolation.

Rows of X independent, so every target is interpolated by at most two neurons, one a sign,

    f = (X u_+)_+ ||X^+ (y)_+|| - (X u_-)_+ ||X^+ (-y)_+||,   u_+- proportional to X^+ (+-y)_+,

since X u_+ is a multiple of (y)_+ >= 0: the fewest neurons that targets of both signs allow. The
norm of this network is K = ||X^+ (y)_+|| + ||X^+ (-y)_+||. It is the least norm R(y) if and only if
some v with polar(v) <= 1 has y . v = K, that is, v . (X u_+)_+ = 1 and v . (X u_-)_+ = -1. So with

    t = min { polar(v) : v . (X u_+)_+ = 1, v . (X u_-)_+ = -1 } >= 1

the two problems have a common solution if and only if t = 1. Then t = 1 for all targets with the
same two directions; if not, K / R(y) <= t. polar(v) is the maximum of ||Proj_K(s X^T D v)|| over
cones and signs, so this is a second-order cone program; here it is solved by cutting planes, whose
linear programs bound t from below and whose v bound it from above.

Reference: Ergen and Pilanci, JMLR 22 (2021), on the equivalence of l0 and l1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from jaxrelu.closed_form.answer import checked, tolerance
from jaxrelu.closed_form.dictionary import Cells, least_polar
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import power_up, times_power
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.networks.network import Network

_SQUARED_LOSS = SquaredLoss()
_PROVEN = 1e-6


@register
@dataclass(frozen=True, eq=False)
class L0L1:
    """Whether the interpolant with the fewest neurons has the least norm: lower <= t <= upper.

    Attributes:
        holds: True where upper <= 1 + 1e-6, False where lower > 1 + 1e-6, None between them.
        lower: a lower bound of t, at least 1.
        upper: an upper bound of t, polar(dual).
        dual: (n,), the v of the upper bound.
        network: `Network` with the fewest neurons, one a sign of y.
        norm: K, the sum of ||u|| |a| over it; the least norm of an interpolant is between K / upper
            and K, and is K where `holds` is True.
    """

    holds: bool | None
    lower: float
    upper: float
    dual: Array
    network: Network
    norm: float


@on_host()
def l0_l1_equivalent(X: Any, y: Any) -> L0L1:
    r"""Whether the interpolant with the fewest neurons is one of least norm.

    t = min { max over ||u|| <= 1 of |v . (X u)_+| : v . (X u_+)_+ = 1, v . (X u_-)_+ = -1 } = 1 ?

    with u_+- = X^+ (+-y)_+ over its norm; where y has one sign, with that equation alone.

    Args:
        X: array (n, d) with independent rows.
        y: array (n,), not zero.

    Returns:
        `L0L1`, with a verified interval for t.

    Raises:
        ValueError, TypeError: dependent rows, y = 0, shapes that do not fit, too many patterns to
            list (2^n); a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> X, y = np.eye(3, dtype="float32"), np.asarray([1.0, 2.0, -1.0], "float32")
        >>> closed_form.l0_l1_equivalent(X, y).holds
        True

    Reference: Ergen and Pilanci (JMLR 22, 2021), on the equivalence of l0 and l1.
    """
    samples, _ = checked(X, y, _SQUARED_LOSS).scaled()
    n = len(samples.y)
    sigma = np.linalg.svd(samples.X, compute_uv=False)
    if n > samples.X.shape[1] or sigma[-1] <= tolerance(samples) * sigma[0]:
        raise ValueError(
            f"the {n} rows of X are dependent, so two neurons do not interpolate every target: "
            "this test needs n <= d and full row rank; remove rows, or add features."
        )
    if not np.any(samples.y):
        raise ValueError("y is zero, which no neuron interpolates best: pass another target.")
    parts = np.maximum(np.stack([samples.y, -samples.y], axis=1), 0.0)
    weights = np.linalg.lstsq(samples.X, parts, rcond=None)[0]
    sizes = np.linalg.norm(weights, axis=0)
    used = sizes > 0
    directions = weights[:, used] / sizes[used]
    signs = np.asarray([1.0, -1.0])
    features = (parts[:, used] / sizes[used]).T
    # The row space alone matters: X has n columns in it.
    rows = np.linalg.qr(samples.X.T)[1].T
    cells = Cells.of(rows)
    first = np.linalg.solve(rows, np.hstack([features.T, np.eye(n)]))
    found = least_polar(cells.columns(first), features, signs[used], cells)
    lower, upper = max(1.0, found.lower), found.upper
    holds = True if upper <= 1.0 + _PROVEN else (False if lower > 1.0 + _PROVEN else None)
    return L0L1(
        holds=holds,
        lower=lower,
        upper=upper,
        dual=samples.cast(times_power(found.v, -samples.units.features)),
        network=samples.network(directions, (sizes * signs)[used]),
        norm=power_up(float(np.sum(sizes)), samples.units.weights),
    )
