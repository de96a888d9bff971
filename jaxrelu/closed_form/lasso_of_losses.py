r"""The lasso over a finite dictionary with any loss: convex programs of few unknowns.

    minimise over a, c   sum_i l((Phi a)_i + c, y_i) + lam sum_k |a_k|

Losses of two slopes (hinge, absolute, quantile) make it a linear program. For smooth ones Newton's
method follows the central path of a = a_+ - a_-, a_+, a_- >= 0, with the dual slack s = lam -
Psi^T r, Psi = [Phi, -Phi] and r minus the gradient of the loss:

    s o z = mu,   Psi^T r + s = lam,   1 . r = 0 (with a constant).

NumPy, float64, on the host; the proof is the dual value at r, scaled until max |phi . r| <= lam.

Reference: Wright, Primal-Dual Interior-Point Methods (1997).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from jaxrelu.closed_form.answer import Samples
from jaxrelu.closed_form.dictionary import Columns, Fitted, largest
from jaxrelu.core.aliases import Floats
from jaxrelu.losses.base import curvature
from jaxrelu.losses.kinks import TwoSlopes

_MOST_STEPS = 300
# The mean product of an unknown and its slack, of the first one, where the path ends.
_CLOSED = 1e-15


def lasso_of(columns: Columns, samples: Samples, lam: float, constant: bool) -> Fitted:
    """Minimises the loss of some samples plus lam times the sizes of columns.

    Args:
        columns: the dictionary, k of them.
        samples: with any loss.
        lam: > 0.
        constant: whether c is free; zero otherwise.

    Returns:
        `Fitted`; its dual is minus a (sub)gradient of the loss.

    Raises:
        RuntimeError: HiGHS did not solve a linear program, or Newton's method did not end.
    """
    solve = _linear_program if isinstance(samples.loss, TwoSlopes) else _central_path
    sizes, c, r = solve(columns.features, samples, lam, constant)
    # What is next to nothing is nothing.
    sizes = np.where(np.abs(sizes) > 1e-9 * np.max(np.abs(sizes), initial=0.0), sizes, 0.0)
    return Fitted(columns, sizes, c, r, largest(columns, r))


def _linear_program(
    Phi: Floats, samples: Samples, lam: float, constant: bool
) -> tuple[Floats, float, Floats]:
    n, k = Phi.shape
    loss = samples.loss
    assert isinstance(loss, TwoSlopes)
    low, high = (np.asarray(end, float) for end in loss.slopes(samples.cast(samples.y)))
    # Unknowns a_+, a_-, c, and of each sample its loss t >= low e, high e, with e = f - y.
    f = np.hstack([Phi, -Phi, np.full((n, 1), float(constant)), np.zeros((n, n))])
    t = np.hstack([np.zeros((n, 2 * k + 1)), np.eye(n)])
    found = linprog(
        np.concatenate([np.full(2 * k, lam), [0.0], np.ones(n)]),
        A_ub=np.vstack([low[:, None] * f - t, high[:, None] * f - t]),
        b_ub=np.concatenate([low * samples.y, high * samples.y]),
        bounds=[(0, None)] * (2 * k) + [(None, None)] * (n + 1),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.status != 0:
        raise RuntimeError(f"HiGHS did not solve a linear program: {found.message}")
    share = -found.ineqlin.marginals
    a, r = found.x[:k] - found.x[k : 2 * k], -(share[:n] * low + share[n:] * high)
    return a, float(found.x[2 * k]) if constant else 0.0, np.clip(r, -high, -low)


def _central_path(
    Phi: Floats, samples: Samples, lam: float, constant: bool
) -> tuple[Floats, float, Floats]:
    k, y = Phi.shape[1], samples.cast(samples.y)
    Psi = np.hstack([Phi, -Phi])
    heights = np.maximum(np.max(np.abs(Psi), axis=0), 1e-300)
    at = _Point(1.0 / heights, np.full(2 * k, lam), _best_constant(samples) if constant else 0.0)
    first = float(at.z @ at.s)

    def off(point: _Point) -> float:
        """How far a point is from Psi^T r + s = lam and 1 . r = 0."""
        r = samples.residual(Psi @ point.z + point.c)
        apart = np.max(np.abs(lam - Psi.T @ r - point.s) / heights)
        return float(max(apart, abs(np.sum(r)) if constant else 0.0))

    for _ in range(_MOST_STEPS):
        f = Psi @ at.z + at.c
        r = samples.residual(f)
        if at.z @ at.s <= _CLOSED * first and off(at) <= 1e-13 * lam / np.min(heights):
            return at.z[:k] - at.z[k:], at.c, r
        bend = np.asarray(curvature(samples.loss, samples.cast(f), y), float)
        # Where the second derivative misleads, as that of a loss with linear pieces, the largest
        # there is makes a step that does not.
        new = _step(Psi, at, r, bend, lam, constant)
        if off(new) > (1.0 - 1e-3) * off(at) and np.isfinite(samples.loss.smoothness):
            most = np.full(len(r), float(samples.loss.smoothness))
            new = _step(Psi, at, r, most, lam, constant)
        at = new
    if off(at) <= 1e-6 * lam / np.min(heights) and at.z @ at.s <= 1e-6 * first:
        return at.z[:k] - at.z[k:], at.c, samples.residual(Psi @ at.z + at.c)
    raise RuntimeError(
        "the central path was not followed to its end: scale the targets to numbers around one, "
        "pass a larger lam, or constant=False and bias='none' where all labels are equal."
    )


def _best_constant(samples: Samples) -> float:
    """Where the slope of the loss of a constant changes its sign, or nearly."""
    most = 4.0 * (1.0 + float(np.max(np.abs(samples.y), initial=0.0)))
    low, high = -most, most
    for _ in range(100):
        middle = 0.5 * (low + high)
        rises = float(np.sum(samples.residual(np.full_like(samples.y, middle)))) <= 0
        low, high = (low, middle) if rises else (middle, high)
    return 0.5 * (low + high)


class _Point(NamedTuple):
    z: Floats
    s: Floats
    c: float


def _step(Psi: Floats, at: _Point, r: Floats, h: Floats, lam: float, constant: bool) -> _Point:
    """A step of Newton's method towards a tenth of the mean product of z and s."""
    z, s, c = at
    target = 0.1 * float(z @ s) / len(z)
    system = Psi.T @ (h[:, None] * Psi) + np.diag(s / z)
    rhs = Psi.T @ r - lam + target / z
    if constant:
        border, corner = Psi.T @ h, np.asarray([[np.sum(h) + 1e-14 * (1.0 + np.sum(h))]])
        system = np.block([[system, border[:, None]], [border[None], corner]])
        rhs = np.append(rhs, np.sum(r))
    # In units of the unknowns the system is as well posed as it gets.
    unit = 1.0 / np.sqrt(np.diag(system))
    step = unit * np.linalg.lstsq(unit[:, None] * system * unit[None], unit * rhs, rcond=None)[0]
    dz, dc = step[: len(z)], float(step[-1]) if constant else 0.0
    ds = target / z - s - (s / z) * dz
    size = min(1.0, *(0.99 * _furthest(v, dv) for v, dv in ((z, dz), (s, ds))))
    return _Point(z + size * dz, s + size * ds, c + size * dc)


def _furthest(values: Floats, change: Floats) -> float:
    """How far positive values may go along a change."""
    falls = change < 0
    return float(np.min(-values[falls] / change[falls], initial=1e3))


def dual_value(samples: Samples, found: Fitted, lam: float, constant: bool) -> float:
    """The dual value at the residual, scaled until it is feasible, less what rounding may add.

    What is left of the sum of the residual, which a constant makes zero, is charged with twice the
    largest fit.
    """
    unit = float(np.finfo(samples.dtype).eps)
    r = min(1.0, lam / max(found.polar, 1e-300)) * (1.0 - 4.0 * unit) * found.dual
    terms = np.asarray(samples.loss.conjugate(samples.cast(-r), samples.cast(samples.y)), float)
    fit = found.columns.features @ found.sizes + found.constant
    left = abs(float(np.sum(r))) * 2.0 * float(np.max(np.abs(fit))) if constant else 0.0
    return -float(np.sum(terms)) - left - 8.0 * unit * float(np.sum(np.abs(terms)))
