r"""The hard-margin support vector machine through the origin, as a least-distance program.

min { ||u|| : A u >= 1 }. With E = [A^T; 1^T] and mu = argmin over mu >= 0 of ||E mu - e||, e the
last unit vector, the residual h = E mu - e is zero where there is no such u, and u = -h_d / h_1,
its multipliers mu / -h_1, otherwise. The support mu > 0 then gives u exactly, from A_S u = 1.

Reference: Lawson and Hanson, "Solving least squares problems" (1974), Chapter 23.
"""

from __future__ import annotations

import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares

_INFEASIBLE = 1e-9


def shortest(rows: Floats) -> tuple[Floats, Floats] | None:
    """The shortest u with rows @ u >= 1, and its multipliers.

    Args:
        rows: (n, d), none zero.

    Returns:
        u (d,) and m (n,) >= 0 with u = rows^T m, ||u||^2 = sum m; None where there is no such u.
    """
    scale = float(np.max(np.linalg.norm(rows, axis=1)))
    A = rows / scale
    last = np.append(np.zeros(A.shape[1]), 1.0)
    mu, _ = nonnegative_least_squares(np.vstack([A.T, np.ones(len(A))]), last)
    h = np.append(A.T @ mu, np.sum(mu) - 1.0)
    if -h[-1] <= _INFEASIBLE**2 or np.linalg.norm(h) <= _INFEASIBLE:
        return None
    m = mu / -h[-1]
    u = A.T @ m
    if np.min(A @ u) < 1.0 - 1e-3:
        return None
    kept = m > 0
    exact, *_ = np.linalg.lstsq(A[kept], np.ones(int(kept.sum())), rcond=None)
    polished = np.zeros_like(m)
    polished[kept], *_ = np.linalg.lstsq(A[kept].T, exact, rcond=None)
    if np.min(A @ exact) >= 1.0 - 1e-9 and np.min(polished) >= 0:
        u, m = exact, polished
    u = u / min(1.0, float(np.min(A @ u)))  # feasible to the last digit
    return u / scale, m / scale**2
