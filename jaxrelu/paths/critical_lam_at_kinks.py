r"""The critical lam of a loss with kinks at zero weights.

Where targets are at the kink, minus the subdifferential at zero is a box, and

    lambda_max = min over r in the box of max_b ||q_b(r)|| / w_b,

a convex program of its own. Beside blocks that are not penalised, or a constant, zero weights have
these at their best, and the residuals that count are those of
`jaxrelu.paths.unpenalised_fit_at_kinks`. Any of them gives an upper end. The projections of all
blocks at one are cutting planes, <g, r> <= ||q_b(r)|| / w_b for any r, with which a linear program
gives the next residual; and from its multipliers mu >= 0 of the planes, sum mu = 1, and nu of the
equalities E r = 0,

    lambda_max >= sum_i min(low_i h_i, high_i h_i),     h = sum_k mu_k g_k + E^T nu.

Residuals are asked for half-way between the best and that of the linear program.

Reference: Kelley (1960) on cutting planes; Ben-Ameur and Neto (Networks, 2007) on the way between.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import linprog

from jaxrelu.core.aliases import Floats
from jaxrelu.core.numerics import eps
from jaxrelu.core.rounding import tiny
from jaxrelu.geometry.bias_metric import most_in_polar_size, reach_of
from jaxrelu.paths.correlations_at_zero import AtZero, at_zero, cuts_at, interval_at, nearness
from jaxrelu.paths.unpenalised_fit import FreeFit, may_have_free
from jaxrelu.paths.unpenalised_fit_at_kinks import (
    TOLERANCES,
    Equalities,
    kinked_free_fit,
)
from jaxrelu.programs.bias import has_bias
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.program import Program, sample_weights
from jaxrelu.programs.units import into_units, out_of_units
from jaxrelu.programs.unpenalised import largest_singular

_MOST_ROUNDS = 100
# Planes that are kept, of those that do not bind.
_MOST_PLANES = 600
# Every so many rounds the residual is that of the linear program itself.
_OUTER = 5


def at_kink(program: Program) -> Array:
    """(n,) bool, samples that count and have a kink where their fit is zero."""
    below, above = _slopes_at_zero(program)
    return (below != above) & (sample_weights(program) > 0)


def _slopes_at_zero(program: Program) -> tuple[Array, Array]:
    y = jnp.asarray(program.y)
    step = jnp.full(y.shape, tiny(y.dtype), y.dtype)
    return program.loss.gradient(-step, y), program.loss.gradient(step, y)


class Residuals(NamedTuple):
    """Those of zero weights: a box (n,), and equalities in it."""

    low: Floats
    high: Floats
    equalities: Equalities


def residuals_of_zero(program: Program) -> Residuals | None:
    """`Residuals` of a program on the host; what is not penalised takes a loss of two slopes.

    None where the best fit of what is not penalised is not found.
    """
    c = np.asarray(sample_weights(program), np.float64)
    if may_have_free(program):
        fit = kinked_free_fit(program)
        if fit is None:
            return None
        below, above, equalities = fit.below, fit.above, fit.equalities
    else:
        below, above = (np.asarray(end, np.float64) for end in _slopes_at_zero(program))
        equalities = Equalities(np.zeros((0, len(c))), np.zeros((0, 0)))
    # A sample of weight zero may have no target, and no slope.
    low, high = (np.where(c > 0, -c * slope, 0.0) for slope in (above, below))
    return Residuals(low, high, equalities)


def critical_with_kinks(program: Program) -> tuple[float, float]:
    """Two numbers that the critical lam lies between, on the host; infinite where nothing is known.

    Where the critical lam is next to nothing against the first upper end, the lower one is zero.
    """
    residuals = residuals_of_zero(program)
    if residuals is None:
        return 0.0, float("inf")
    low, high, equalities = residuals
    near, planes = nearness(program), _Planes.nothing(len(low))
    here, _ = equalities.nearest(np.zeros_like(low), low, high)
    best, value, lower, first = here, np.inf, 0.0, None
    for k in range(_MOST_ROUNDS):
        new = _planes_at(program, here)
        found = float(np.max(new.rows @ here, initial=0.0))
        best, value = (here, found) if found < value else (best, value)
        first = value if first is None else first
        if value - lower <= 0.3 * near * value or value <= near * first:
            break
        planes = planes.beside(new)
        outer = _lowest(planes, residuals, value)
        if outer is None:
            break
        lower = max(lower, outer.lower)
        planes = planes.binding(outer.multipliers)
        before, here = here, outer.residual
        if k % _OUTER:
            here = 0.5 * (here + best)
        if np.array_equal(before, here):
            break
    r, away = equalities.nearest(best, low, high)
    return lower, _upper_at(program, r, away)


class _Planes(NamedTuple):
    """Rows g (k, n), and what is off in them."""

    rows: Floats
    off: Floats

    @classmethod
    def nothing(cls, n: int) -> _Planes:
        return cls(np.zeros((0, n)), np.zeros((0, n)))

    def beside(self, others: _Planes) -> _Planes:
        return _Planes(np.vstack([self.rows, others.rows]), np.vstack([self.off, others.off]))

    def binding(self, multipliers: Floats) -> _Planes:
        """Those that bind, and the newest of the others."""
        if len(self.rows) <= _MOST_PLANES:
            return self
        keep = (multipliers > 0) | (np.arange(len(self.rows)) >= len(self.rows) - _MOST_PLANES // 2)
        return _Planes(self.rows[keep], self.off[keep])


def _planes_at(program: Program, residual: Floats) -> _Planes:
    at = _at(program, residual, 0.0)
    cuts = cuts_at(at)
    # In units of lam over those of the residual: powers of two.
    power = int(np.asarray(at.units.lam)) - int(np.asarray(at.units.residual))
    rows, off = (np.ldexp(np.asarray(part, np.float64), power) for part in cuts)
    used = np.any(rows != 0, axis=1)
    return _Planes(rows[used], off[used])


def _at(program: Program, residual: Floats, slip: float) -> AtZero:
    dtype = program.X.dtype
    given = FreeFit(jnp.asarray(residual, dtype), jnp.asarray(slip, dtype))
    at: AtZero = at_zero(program, given)
    return at


class _Outer(NamedTuple):
    """The answer of a linear program: a residual, multipliers of the planes, a lower end."""

    residual: Floats
    multipliers: Floats
    lower: float


def _lowest(planes: _Planes, residuals: Residuals, value: float) -> _Outer | None:
    """Where the largest of the planes is lowest; None where the linear program has no answer."""
    low, high, (E, F, blur) = residuals
    moving = high > low
    scale = max(float(np.max(np.abs([low, high]), initial=0.0)), 1e-300)
    fixed = np.where(moving, 0.0, low)
    rows, walls = planes.rows * (scale / value), F.shape[1]
    k, m = len(rows), int(np.sum(moving))
    found = linprog(
        np.append(np.zeros(m + walls), 1.0),
        A_ub=np.hstack([rows[:, moving], np.zeros((k, walls)), -np.ones((k, 1))]),
        b_ub=-rows @ (fixed / scale),
        A_eq=np.hstack([E[:, moving], F, np.zeros((len(E), 1))]) if len(E) else None,
        b_eq=-E @ (fixed / scale) if len(E) else None,
        bounds=[
            *zip(low[moving] / scale, high[moving] / scale, strict=True),
            *[(0.0, None)] * (walls + 1),
        ],
        method="highs",
        options=TOLERANCES,
    )
    if found.status != 0:
        return None
    r = fixed.copy()
    r[moving] = scale * found.x[:m]
    mu = np.maximum(-found.ineqlin.marginals, 0.0)
    if not np.sum(mu) > 0:
        return _Outer(r, mu, 0.0)
    mu = mu / np.sum(mu)
    h, off, left = mu @ planes.rows, mu @ planes.off, 0.0
    off = off + (k + 8.0) * eps(h.dtype) * (mu @ np.abs(planes.rows))
    reach = np.maximum(np.abs(low), np.abs(high))
    if len(E):
        nu = -found.eqlin.marginals * (value / scale)
        # A direction of a free block leads along its walls, or inside them.
        if np.any(F.T @ nu < -1e-9 * (np.abs(F.T) @ np.abs(nu))):
            return _Outer(r, mu, 0.0)
        h = h + E.T @ nu
        off = off + (len(E) + 2.0) * eps(h.dtype) * (np.abs(E).T @ np.abs(nu))
        left = blur * float(np.linalg.norm(nu) * np.linalg.norm(reach))
    off = off + (len(h) + 8.0) * eps(h.dtype) * np.abs(h)
    lower = float(np.sum(np.minimum(low * h, high * h)) - np.sum(off * reach)) - left
    return _Outer(r, mu, max(lower, 0.0))


def _upper_at(program: Program, residual: Floats, away: float) -> float:
    """The upper end that a residual gives which is so far from one of zero weights at most."""
    dtype = program.X.dtype
    if may_have_free(program):
        # Rounded to the dtype of the program.
        away += eps(dtype) * float(np.linalg.norm(residual))
    at, slip = _at(program, residual, 0.0), 0.0
    if may_have_free(program):
        X, weights = at.reduced.X, block_weights(at.reduced)
        assert weights is not None
        lightest = jnp.min(jnp.where(weights > 0, weights, jnp.inf))
        most = most_in_polar_size(reach_of(X)) if has_bias(at.reduced) else 1.0
        moved = into_units(jnp.asarray(away, dtype), at.units.residual) / lightest
        slip = float(out_of_units(most * largest_singular(jnp.asarray(X)) * moved, at.units.lam))
    given = FreeFit(jnp.asarray(residual, dtype), jnp.asarray(slip, dtype))
    return float(interval_at(program, given)[1])
