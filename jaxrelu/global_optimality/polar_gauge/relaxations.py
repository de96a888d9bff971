"""Upper bounds of the polar gauge in closed form: cheap, and loose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
