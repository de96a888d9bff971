"""What a tool's weights are worth, in plain NumPy: the same ruler for every tool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def objectives(
    X: Floats, y: Floats, masks: NDArray[np.bool_], lams: Floats, weights: Floats
) -> tuple[Floats, Floats]:
    """Raw objective and cone violation of each solution, before any repair.

        1/2 ||f - y||^2 + lam sum_b ||theta_b||,    f = sum_j D_j X (v_j - w_j)

    The violation is the largest preactivation on the wrong side of its cone, max of
    -(2 D_j - I) X theta over blocks and samples, in units of the root mean square of y.

    Args:
        X: (n, d).
        y: (n,).
        masks: (n, p).
        lams: (k,).
        weights: (k, 2, p, d), or (k, p, d) for the gated program, which has no cones.

    Returns:
        Objectives (k,) and violations (k,); violations of the gated program are zero.
    """
    gated = weights.ndim == 3
    blocks = weights[:, None] if gated else weights
    signs = np.array([1.0]) if gated else np.array([1.0, -1.0])
    unit = np.sqrt(np.mean(y**2))
    values, violations = np.empty(len(lams)), np.zeros(len(lams))
    for index, (lam, block) in enumerate(zip(lams, blocks, strict=True)):
        norms = np.linalg.norm(block, axis=-1)
        sign, pattern = np.nonzero(norms)
        active = masks[:, pattern]
        projections = X @ block[sign, pattern].T
        fit = (active * projections) @ signs[sign]
        values[index] = 0.5 * np.sum((fit - y) ** 2) + lam * norms.sum()
        if not gated and pattern.size:
            inside = np.where(active, projections, -projections)
            violations[index] = max(0.0, -float(inside.min())) / unit
    return values, violations


def num_blocks(weights: Floats) -> list[int]:
    """Number of non-zero blocks of each solution."""
    axes = tuple(range(1, weights.ndim - 1))
    return [int(count) for count in (np.abs(weights).max(axis=-1) > 0).sum(axis=axes)]
