r"""Upper bounds of the polar gauge: cheap ones, and a lifted semidefinite program.

The bounds in closed form (`cheap_bound`) are loose. The semidefinite program (`Lifted`) gives one
that is valid at every step.

Split the height of a direction over every line, z_j . u = p_j - q_j, p, q >= 0 and p_j q_j = 0.
With w = (1, u, p, q) and W = w w^T, the largest a . p + b . q over ||u|| <= 1 is at most that of

    maximise  <C, W>   subject to   W = V S V^T,  S >= 0 (positive semidefinite),
                                    W_11 = 1,  trace W_uu = 1,  W_{p_j q_j} = 0,
                                    0 <= W <= bound  on the rows and columns of 1, p, q,

V an orthonormal basis of the span of all w: the equations p - q = Z u hold in it exactly. Products
of inequalities (p_i p_j, p_i q_j, q_i q_j, p_j, q_j all >= 0) are what makes the bound strong.

The alternating direction method of multipliers needs one eigendecomposition of size 1 + k + L a
step. Any multiplier Y of the equation W = V S V^T gives a bound: with E = C - Y,

    max over S of <V^T Y V, S> <= [largest eigenvalue]_+ * trace bound,    trace W <= 2 + ||Z||^2,
    max over W of <E, W>        = largest E_uu times the trace + what the bounds of W allow,

so that a run stopped at any time leaves a valid number. For residuals of 100 to 200 samples it came
within 6 to 34 percent of the best direction on four sets of five in some 400 steps, where norm sums
are off by an order of magnitude; for weak regularization factors of two to five are left.

Reference:
    M. Pilanci and T. Ergen, ICML 2020, for the gauge; S. Burer, "On the copositive representation
    of binary and continuous nonconvex quadratic programs" (2009) for the lift; N. Graham et al.,
    "A restricted dual Peaceman-Rachford splitting method for a strengthened DNN relaxation for
    QAP" (2022) for the splitting on the facially reduced cone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import CALL
from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import matmul

_STEPS = 25
_LENGTH = 2.0  # the spectral norm of the lines in the units of p and q: measured
_PENALTY = 4.0
_RELAXATION = 1.6
_EIGEN = 11  # of an eigendecomposition, times the cube of its size


def cheap_bound(lines: Floats, front: Floats, back: Floats) -> tuple[float, str]:
    r"""The better of two bounds of s (front . (Z u)_+ + back . (-Z u)_+), ||u|| <= 1, s = 1 and -1.

    *Norm sums*: every unit line z adds at most max(s a, s b, 0).

    *Spectral*: with h = z . u, a h_+ + b (-h)_+ = (a - b) h / 2 + (a + b) |h| / 2, so that

        value <= 1/2 ||Z^T (a - b)|| + 1/2 sqrt(sum_j c_j * largest eigenvalue of Z^T diag(c) Z),

    c = [s (a + b)]_+, by the inequality of Cauchy and Schwarz for sum_j c_j |h_j|.

    Args:
        lines: Z (L, k), unit vectors.
        front: a, (L,).
        back: b, (L,).

    Returns:
        The bound and its name.
    """
    sums, spectral = 0.0, 0.0
    for sign in (1.0, -1.0):
        sums = max(sums, float(np.sum(np.maximum(np.maximum(sign * front, sign * back), 0.0))))
        bend = np.maximum(sign * (front + back), 0.0)
        top = np.linalg.norm(np.sqrt(bend)[:, None] * lines, 2)
        spectral = max(spectral, float(np.sqrt(np.sum(bend)) * top))
    spectral = 0.5 * (float(np.linalg.norm((front - back) @ lines)) + spectral)
    return (sums, "norm sums") if sums <= spectral else (spectral, "spectral norm")


@dataclass(eq=False)
class Lifted:
    """The program of one sign, its iterate, and the best bound so far."""

    V: Floats
    C: Floats
    low: Floats
    high: Floats
    norm: float
    k: int
    trace: float
    state: tuple[Any, ...]
    bound: float = np.inf

    @classmethod
    def of(cls, lines: Floats, front: Floats, back: Floats) -> Lifted:
        """The program that bounds front . (Z u)_+ + back . (-Z u)_+; lines Z (L, k), unit."""
        L, k = lines.shape
        scale = float(np.linalg.norm(lines, 2)) / _LENGTH
        Z = lines / scale
        norm = float(np.hypot(np.linalg.norm(front), np.linalg.norm(back))) * scale
        size = 1 + k + 2 * L
        span = np.zeros((size, 1 + k + L))
        span[: 1 + k + L] = np.eye(1 + k + L)
        span[1 + k + L :, 1 : 1 + k] = -Z
        span[1 + k + L :, 1 + k :] = np.eye(L)
        largest = np.concatenate([np.ones(1 + k), np.full(2 * L, 1 / scale)])
        high = np.outer(largest, largest)
        low = np.zeros((size, size))
        u = slice(1, 1 + k)
        low[u], low[:, u] = -high[u], -high[:, u]
        j = 1 + k + np.arange(L)
        high[j, j + L] = high[j + L, j] = 0.0
        low[0, 0] = 1.0
        diagonal = np.arange(1, 1 + k)
        low[diagonal, diagonal], high[diagonal, diagonal] = -np.inf, np.inf
        C = np.zeros((size, size))
        C[0, 1 + k :] = C[1 + k :, 0] = np.concatenate([front, back]) * scale / (2 * norm)
        W = np.zeros((size, size))
        W[0, 0] = 1.0
        W[diagonal, diagonal] = 1 / k
        state = (jnp.asarray(W), jnp.zeros((size, size)), jnp.asarray(_PENALTY))
        return cls(np.linalg.qr(span)[0], C, low, high, norm, k, 2.0 + _LENGTH**2, state)

    @staticmethod
    def cost(lines: int, rank: int) -> float:
        """Operations of `improve`: products with V on either side, and eigendecompositions."""
        size, inner = 1 + rank + 2 * lines, 1 + rank + lines
        step = 4.0 * size * inner * (size + inner) + _EIGEN * inner**3
        return CALL + (_STEPS + 1) * step

    def improve(self) -> None:
        """Some more steps."""
        self.state = _steps(self.state, self.V, self.C, self.low, self.high, self.k)
        self.bound = min(self.bound, self._bound(np.asarray(self.state[1], np.float64)))

    def _bound(self, Y: Floats) -> float:
        Y = (Y + Y.T) / 2
        largest = float(np.linalg.eigvalsh(self.V.T @ Y @ self.V)[-1])
        E = self.C - Y
        diagonal = np.arange(1, 1 + self.k)
        value = float(np.max(E[diagonal, diagonal])) + E[0, 0]
        E[diagonal, diagonal] = E[0, 0] = 0.0
        finite = np.where(np.isfinite(self.high), self.high, 0.0)
        negative = np.where(np.isfinite(self.low), self.low, 0.0)
        value += float(np.sum(np.maximum(E * finite, E * negative)))
        rounding = 1e-13 * float(np.sum(np.abs(E) * finite) + np.sum(np.abs(Y)))
        return self.norm * (value + max(largest, 0.0) * self.trace + rounding)


@compiled
def _steps(
    state: tuple[Array, ...], V: Array, C: Array, low: Array, high: Array, k: int
) -> tuple[Array, ...]:
    index = jnp.arange(C.shape[0])
    diagonal = (index >= 1) & (index <= k)

    def step(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
        W, Y, penalty = state[:3]
        inner = matmul(matmul(V.T, W + Y / penalty), V)
        values, vectors = jnp.linalg.eigh(0.5 * (inner + inner.T))
        S = matmul(vectors * jnp.maximum(values, 0.0)[None], vectors.T)
        lifted = matmul(matmul(V, S), V.T)
        mixed = _RELAXATION * lifted + (1 - _RELAXATION) * W
        new = jnp.clip(mixed + (C - Y) / penalty, low, high)
        excess = (jnp.sum(jnp.where(diagonal, jnp.diag(new), 0.0)) - 1.0) / k
        new = new - jnp.diag(jnp.where(diagonal, excess, 0.0))
        primal = jnp.linalg.norm(new - lifted) / jnp.linalg.norm(new)
        dual = penalty * jnp.linalg.norm(new - W) / jnp.maximum(jnp.linalg.norm(Y), 1e-3)
        return new, Y + penalty * (new - mixed), penalty, primal, dual

    W, Y, penalty = state
    zero = jnp.zeros(())
    W, Y, penalty, primal, dual = jax.lax.fori_loop(0, _STEPS, step, (W, Y, penalty, zero, zero))
    ratio = jnp.clip(jnp.sqrt(primal / jnp.maximum(dual, 1e-30)), 0.7, 1.4)
    return W, Y, penalty * jnp.where((ratio > 1.2) | (ratio < 0.8), ratio, 1.0)
