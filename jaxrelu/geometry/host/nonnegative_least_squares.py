"""Non-negative least squares on the host, on degenerate data too, of any scale.

SciPy's active-set method may cycle on dependent columns, and may stop at a point that is not the
minimum there; its interior method then decides. Both know numbers around one only: powers of two
are taken out of the target and out of every column first.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import lsq_linear, nnls

from jaxrelu.core.aliases import FloatArray
from jaxrelu.geometry.host.scaling import exponents

_STEPS_A_COLUMN = 30
_OPTIMAL = 1e-9


def nonnegative_least_squares(A: FloatArray, b: FloatArray) -> tuple[FloatArray, float]:
    """Argmin over x >= 0 of ||A x - b||, and the distance that is left.

    Args:
        A: (m, k), float64.
        b: (m,).

    Returns:
        x (k,) and ||A x - b||.

    Reference: Lawson and Hanson, "Solving least squares problems" (1974), chapter 23; Branch,
    Coleman and Li (1999) for the interior method.
    """
    columns, size = exponents(A, axis=0), exponents(b)
    x, distance = _of_order_one(np.ldexp(A, -columns), np.ldexp(b, -size))
    return np.ldexp(x, size - columns[0]), float(np.ldexp(distance, size))


def _of_order_one(A: FloatArray, b: FloatArray) -> tuple[FloatArray, float]:
    if A.shape[1] == 0:
        return np.zeros(0), float(np.linalg.norm(b))
    try:
        x: FloatArray = nnls(A, b, maxiter=_STEPS_A_COLUMN * max(A.shape))[0]
    except RuntimeError:  # it cycles
        x = np.zeros(A.shape[1])
    if not _is_optimal(A, b, x):
        other: FloatArray = lsq_linear(A, b, bounds=(0.0, np.inf), tol=1e-14).x
        x = min(x, other, key=lambda y: float(np.linalg.norm(A @ y - b)))
    return x, float(np.linalg.norm(A @ x - b))


def _is_optimal(A: FloatArray, b: FloatArray, x: FloatArray) -> bool:
    """Whether no coefficient can grow to good effect, and none above zero shrink."""
    slope = A.T @ (A @ x - b)
    off = np.where(x > 0, np.abs(slope), -slope)
    return bool(np.all(off <= _OPTIMAL * np.linalg.norm(A, axis=0) * np.linalg.norm(b)))
