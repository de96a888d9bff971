r"""Spike-free data: an exact test, and the program with one pattern, D = I.

X is spike-free when for every ||u|| <= 1 there is a ||z|| <= 1 with (X u)_+ = X z. Then the D = I
program, min loss(X (w_1 - w_2)) + lam (||w_1|| + ||w_2||) over X w_1, X w_2 >= 0, is the whole
training problem. With M = max over ||u|| <= 1 of ||X^+ (X u)_+||, infinite where some (X u)_+ is
not in the range of X, spike-free is M = 1, and in general D = I costs at most M times the penalty.

The test, derived here. (1) All (X u)_+ lie in the range if and only if the non-zero rows are
positive multiples of independent unit rows V (k, d). If so, take z with V z = e_j. Conversely,
across the wall of a line of rows c_i v, (X u)_+ changes by (v.u) |c_i| on these rows; so some z
has x_i . z = |c_i| on them and 0 on all others: no two of them are opposite, and v is independent
of the other lines. (2) For such V, M is that of `jaxrelu.global_optimality.polar_gauge.spikes`:

    X is spike-free  <=>  the off-diagonal entries of (V V^T)^{-1} are all <= 0,

with bounds of M that the largest entry gives where they are not.

The criterion of the paper that maximises only over u with (X u)_+ in the range is not enough: X =
[1; -1] passes it with no u to look at.

Reference: Ergen and Pilanci, JMLR 22 (2021), on spike-free matrices; the exact test derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.closed_form.answer import ClosedForm, Samples, checked, tolerance
from jaxrelu.closed_form.support_vectors import shortest
from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import known_matrix
from jaxrelu.core.options import positive
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.geometry.host.units import column_units
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.global_optimality.polar_gauge.gauge import polar_gauge
from jaxrelu.global_optimality.polar_gauge.spikes import spike_bounds
from jaxrelu.losses.base import Loss
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.paths.solve import solve
from jaxrelu.programs.program import ConvexProgram
from jaxrelu.programs.solution import raise_if_failed

_SQUARED_LOSS = SquaredLoss()
# M is one up to this, or the rounding of the dtype if that is more.
_PROVEN = 1e-10
_OUTSIDE = 1e-6


@register
@dataclass(frozen=True, eq=False)
class SpikeFree:
    """Whether data are spike-free: lower <= M <= upper, spike-free is M = 1.

    Attributes:
        holds: True where proven (M - 1 is at rounding level), False where refuted by the witness,
            None where rows are too nearly dependent to tell.
        lower: a lower bound of M, reached by the witness; inf where (X u)_+ leaves the range.
        upper: an upper bound of M.
        witness: (d,), a unit u with ||X^+ (X u)_+|| > 1 or (X u)_+ outside the range; zero unless
            `holds` is False.
    """

    holds: bool | None
    lower: float
    upper: float
    witness: Array


@on_host()
def is_spike_free(X: Any) -> SpikeFree:
    r"""Whether (X u)_+ = X z has a solution with ||z|| <= ||u|| for every u; exact.

    True if and only if the non-zero rows are positive multiples of independent unit rows V and the
    off-diagonal entries of (V V^T)^{-1} are <= 0. X X^T = I or diagonal, X = c a^T with c >= 0, and
    two directions at an acute angle are spike-free; data with more directions than features are
    not.

    Args:
        X: array (n, d).

    Returns:
        `SpikeFree`.

    Raises:
        ValueError, TypeError: shapes that do not fit, NaN or inf; a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> closed_form.is_spike_free(np.eye(2, dtype="float32")).holds
        True
        >>> closed_form.is_spike_free(np.asarray([[1.0], [-1.0]], "float32")).holds
        False

    Reference: Ergen and Pilanci (JMLR 22, 2021), the criterion corrected and solved.
    """
    data = known_matrix(X, "X")
    samples = checked(data, np.zeros(len(data), np.float32), _SQUARED_LOSS)
    samples, _ = samples.scaled()
    unit, norms = unit_rows(samples.X)
    unit = unit[norms > 0]
    none = samples.cast(np.zeros(samples.X.shape[1]))
    if not len(unit):
        return SpikeFree(True, 1.0, 1.0, none)
    V = _rays(unit, tolerance(samples))
    found = spike_bounds(V, tolerance(samples))
    if found is None:
        outside = _outside(samples.X, V)
        if outside is None:
            return SpikeFree(None, 1.0, np.inf, none)
        return SpikeFree(False, np.inf, np.inf, samples.cast(outside))
    proven = 1.0 + max(_PROVEN, tolerance(samples))
    if found.lower > proven:
        return SpikeFree(False, found.lower, found.upper, samples.cast(found.witness))
    return SpikeFree(True if found.upper <= proven else None, 1.0, found.upper, none)


@on_host()
def spike_free(X: Any, y: Any, lam: Any, loss: Loss = _SQUARED_LOSS) -> ClosedForm:
    r"""The program with D = I, two neurons that see every sample; optimal for spike-free data.

    min sum_i loss(f_i, y_i) + lam (||w_1|| + ||w_2||),  f = X (w_1 - w_2),  X w_1, X w_2 >= 0

    Args:
        X: array (n, d), with some u such that x_i . u > 0 for every non-zero row.
        y: array (n,).
        lam: scalar, > 0.
        loss: a `Loss`.

    Returns:
        `ClosedForm`, optimal over all networks where ``exact`` is True. Its `lower` and `polar` are
        those of the whole training problem: by the test `is_spike_free`, else by the upper
        bound of `jaxrelu.polar_gauge`.

    Raises:
        ValueError, TypeError: no u is positive on all rows; shapes that do not fit, lam that is not
            positive; a traced argument.
        RuntimeError: the solver did not reach its tolerance.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> X = np.asarray([[1.0, 0.0], [1.0, 1.0]], "float32")
        >>> found = closed_form.spike_free(X, np.asarray([1.0, 2.0], "float32"), 0.1)
        >>> closed_form.is_spike_free(X).holds, round(found.value, 3)
        (True, 0.139)

    Reference: Ergen and Pilanci (JMLR 22, 2021), on spike-free matrices.
    """
    samples, strength = checked(X, y, loss), positive(lam, "lam")
    samples, strength = samples.scaled(strength)
    interior = _positive_direction(samples)
    ones = np.ones((len(samples.X), 1), bool)
    patterns = Patterns(samples.cast(interior), jnp.asarray(ones), samples.cast(interior))
    program = ConvexProgram(samples.cast(samples.X), samples.cast(samples.y), patterns, loss)
    accuracy = 1e-8 if samples.dtype == np.float64 else None
    solution = solve(program, strength, rtol=accuracy)
    raise_if_failed(solution)
    weights = np.asarray(solution.weights, np.float64)[:, 0]
    sizes = np.linalg.norm(weights, axis=1)
    directions = weights.T / np.where(sizes > 0, sizes, 1.0)
    coefficients = sizes * np.asarray([1.0, -1.0])
    fit = np.maximum(samples.X @ directions, 0.0) @ coefficients
    r = samples.residual(fit)
    dual = np.asarray(solution.certificate.dual, np.float64)
    polar = _polar_bound(samples, dual, strength)
    lower = samples.dual_value(dual * min(1.0, strength / max(polar, 1e-300)))
    scale = float(np.linalg.norm(r)) / max(float(np.linalg.norm(dual)), 1e-300)
    value = samples.loss_value(fit) + strength * float(np.sum(sizes))
    network = samples.network(directions, coefficients)
    return samples.closed_form(network, fit, r, strength, value, lower, polar * scale)


def _polar_bound(samples: Samples, dual: Floats, lam: float) -> float:
    """An upper bound of polar(dual), for a dual whose polar over D = I is at most lam."""
    data = samples.X.astype(samples.dtype)
    checkup = is_spike_free(data)
    if checkup.holds:
        return lam * checkup.upper
    return min(lam * checkup.upper, polar_gauge(data, dual, threshold=lam).upper)


def _rays(unit: Floats, close: float) -> Floats:
    """Distinct directions of unit rows (n, d)."""
    left, rays = unit, []
    while len(left):
        rays.append(left[0])
        left = left[np.linalg.norm(left - left[0], axis=1) > close]
    return np.stack(rays)


def _positive_direction(samples: Samples) -> Floats:
    rows = samples.X[np.any(samples.X != 0, axis=1)]
    found = shortest(unit_rows(rows)[0]) if len(rows) else None
    if found is None:
        raise ValueError(
            "no u has x_i . u > 0 for every row, so the pattern D = I has no interior and the data "
            "are not spike-free: use jr.solve on jr.enumerate_patterns(X)."
        )
    u: Floats = found[0][:, None]
    return u / float(np.linalg.norm(u))


def _outside(X: Floats, V: Floats) -> Floats | None:
    """A unit u whose (X u)_+ is farthest from the range of X, of some tried; None if none is."""
    left, sigma, _ = np.linalg.svd(X, full_matrices=False)
    range_ = left[:, sigma > 1e-10 * sigma[0]]
    random = np.random.default_rng(0).standard_normal((200, X.shape[1])) / column_units(X)
    tried = np.vstack([V, -V, unit_rows(random)[0]]).T
    seen = np.maximum(X @ tried, 0.0)
    far = np.linalg.norm(seen - range_ @ (range_.T @ seen), axis=0)
    best = int(np.argmax(far))
    direction: Floats = tried[:, best]
    return direction if far[best] > _OUTSIDE * float(np.linalg.norm(X, 2)) else None
