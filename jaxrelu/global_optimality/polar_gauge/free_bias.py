r"""The polar gauge of neurons whose bias is not penalised.

    R(r) = max over ||u|| <= 1 and |b| <= reach of |r^T (X u + b)_+|,        reach = max ||x_i||,

x_i about their mean. A larger |b| is a neuron that sees all samples or none, and what is more of it
belongs to the constant. With a column s > 0 beside X and b = s b' the set is

    { ||(u, b')|| <= 1 } within it and { ||(u, b')||^2 <= 1 + (reach / s)^2 } around it,

so that the gauge of [X, s] is a lower bound, and sqrt(1 + (reach / s)^2) times it an upper one.
With s far above the reach they are one number, for methods that end with the exact gauge; bounds by
norms and spectra are of use where s is near the reach. Both are asked.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Limit, Meter
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.global_optimality.polar_gauge.gauge import PolarGauge, branches, gauge, random_starts
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement

# The share of the tolerance that the far column may cost, and the largest one.
_LOST = 1 / 32
_FURTHEST = 2.0**20


class CentredRows:
    """Rows about their mean, with columns for the bias.

    Attributes:
        rows: (n, d).
        mean: (d,).
        reach: the largest norm of a row.
        near, far: `Arrangement` of [rows, s] for s the reach, and far above it.
        ratio: of that s to the reach.
    """

    def __init__(self, X: Floats, rtol: float) -> None:
        """X (n, d), and the relative width that the interval is to have."""
        self.mean = X.mean(axis=0)
        self.rows = X - self.mean
        self.reach = float(np.max(np.linalg.norm(self.rows, axis=1), initial=0.0)) or 1.0
        self.ratio = float(np.clip((2 * _LOST * max(rtol, 1e-16)) ** -0.5, 1.0, _FURTHEST))
        self.near, self.far = (
            Arrangement(np.column_stack([self.rows, np.full(len(X), share * self.reach)]))
            for share in (1.0, self.ratio)
        )

    def lowered(self, neurons: Floats, share: float) -> Floats:
        """Neurons (m, d + 1) over [X, 1] as directions over [rows, share x reach]."""
        u, b = neurons[:, :-1], neurons[:, -1] + neurons[:, :-1] @ self.mean
        return unit_rows(np.column_stack([u, b / (share * self.reach)]))[0]

    def neurons(self, directions: Floats, share: float) -> Floats:
        """Directions over [rows, share x reach] as neurons (m, d + 1) over [X, 1], ||u|| = 1."""
        u, size = unit_rows(directions[:, :-1])
        b = share * self.reach * directions[:, -1] / np.where(size > 0, size, 1.0)
        b = np.clip(b, -self.reach, self.reach)
        return np.column_stack([u, b - u @ self.mean])[size > 0]

    def values(self, r: Floats, neurons: Floats) -> Floats:
        """Values r^T (X u + b)_+ (m,) of neurons over [X, 1]."""
        heights = neurons[:, :-1] @ self.rows.T
        own = neurons[:, -1] + neurons[:, :-1] @ self.mean
        return np.maximum(heights + own[:, None], 0.0) @ r


def gauge_with_bias(
    rows: CentredRows,
    r: Floats,
    neurons: Floats,
    *,
    num_starts: int,
    rtol: float,
    threshold: float,
    meter: Meter,
) -> PolarGauge:
    """An interval that holds R(r); its direction is a neuron (d + 1,) over [X, 1] with ||u|| = 1.

    Args:
        rows: the data.
        r: (n,), the residual.
        neurons: (m, d + 1), to start from, over [X, 1].
        num_starts: starts in all.
        rtol: relative width at which to stop.
        threshold: an upper bound below it is good enough.
        meter: what work is left.
    """
    rng = np.random.default_rng(0)
    spread, exact = math.sqrt(2.0), branches(rows.far)
    starts = random_starts(rng, num_starts, rows.near, rows.lowered(neurons, 1.0))
    near, maxima = gauge(
        rows.near, r, starts, rtol=rtol, threshold=threshold / spread, meter=meter, narrow=not exact
    )
    known = rows.neurons(maxima[1] @ rows.near.basis.T, 1.0)
    starts = random_starts(rng, num_starts, rows.far, rows.lowered(known, rows.ratio))
    far, found = gauge(
        rows.far, r, starts, rtol=rtol, threshold=threshold, meter=meter, narrow=exact
    )
    further = rows.neurons(found[1] @ rows.far.basis.T, rows.ratio)
    ends = [
        (near.upper * spread, near.upper_by),
        (far.upper * math.sqrt(1.0 + rows.ratio**-2.0), far.upper_by),
    ]
    upper, by = min(ends)
    candidates = np.concatenate([known, further])
    values = rows.values(r, candidates)
    best = int(np.argmax(np.abs(values))) if len(values) else -1
    value = float(values[best]) if best >= 0 else 0.0
    slack = rows.near.slack(r)
    upper = max(upper * (1.0 + 1e-15), abs(value) + slack)
    closed = upper <= abs(value) * (1.0 + rtol) + 2 * slack
    direction = candidates[best] if best >= 0 else np.zeros(rows.rows.shape[1] + 1)
    return replace(
        far,
        lower=max(abs(value) - slack, 0.0),
        upper=upper,
        direction=direction,
        sign=math.copysign(1.0, value),
        upper_by=by,
        closed=closed,
        ended_by=Limit.NONE if closed or upper <= threshold else far.ended_by or near.ended_by,
    )
