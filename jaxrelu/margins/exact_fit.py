r"""Convex weights moved, inside their cones, to a fit that they nearly have.

Two ways. On the support, where blocks keep their walls: with N_b an orthonormal basis of the null
space of the walls of block b, the smallest change N_b a_b of its non-zero blocks with
sum_b s_b D_b X N_b a_b = e, the error. It adds no neuron, and at an optimum with a unique dual
point there is one for every e; what it does to the other rows of the cones has to be looked at.

Everywhere: delta_j = c_j^2 X^T D_j G^+ e with G = sum_j c_j^2 D_j X X^T D_j has
sum_j D_j X delta_j = e, for every e in the space of fits, and the least sum ||delta_j||^2 / c_j^2.
With z_j the interior witness of cone j and t_j = max_i (-K_j delta_j)_i / (K_j z_j)_i,
delta_j = (delta_j + t_j z_j) - t_j z_j is a difference of two points of the cone. For c_j the
margin of z_j is taken, which keeps t_j small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import null_space

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.geometry.host.walls import SOLVED, walls_of

_NEGLIGIBLE = 1e-6
_RANK = 1e-9
_ULPS = 200.0
_REFINEMENTS = 3


def exact_fit(X: Floats, masks: Bools, witness: Floats) -> Callable[[Floats, Floats], Floats]:
    """The function (weights, fit) -> weights that have the fit, up to rounding.

    Args:
        X: (n, d).
        masks: (n, p) bool.
        witness: (p, d), interior directions of the cones.

    Returns:
        A function of weights (2, p, d), in their cones, and a fit (n,) in the space of fits. It
        changes the support alone where that keeps the cones, and all blocks otherwise.
    """
    unit, lengths = unit_rows(X)
    signs = np.where(masks, 1.0, -1.0).T  # (p, n)
    pull = signs * (witness @ unit.T)
    usable = (lengths > 0)[None] & (pull > 0)
    margin = np.maximum(np.min(np.where(lengths > 0, pull, np.inf), axis=1), 0.0)
    sigma, vectors = np.linalg.eigh(((masks * margin[None] ** 2) @ masks.T) * (X @ X.T))
    kept = sigma > 1e-13 * sigma[-1]
    sigma, vectors = sigma[kept], vectors[:, kept]

    def error(theta: Floats, fit: Floats) -> Floats:
        missing: Floats = fit - np.sum(masks * (X @ (theta[0] - theta[1]).T), axis=1)
        return missing

    def on_support(theta: Floats, fit: Floats) -> Floats | None:
        sizes = np.linalg.norm(theta, axis=-1)
        blocks = np.argwhere(sizes > _NEGLIGIBLE * np.max(sizes, initial=0.0))
        if not len(blocks):
            return None
        moved, bases, columns = np.zeros_like(theta), [], []
        for s, j in blocks:
            walls = walls_of(unit, theta[s, j], SOLVED)
            basis = null_space(unit[walls], rcond=_RANK) if np.any(walls) else np.eye(X.shape[1])
            moved[s, j] = basis @ (basis.T @ theta[s, j])
            bases.append(basis)
            columns.append((1.0 - 2.0 * s) * masks[:, j][:, None] * (X @ basis))
        ends = np.cumsum([basis.shape[1] for basis in bases])[:-1]
        system = np.hstack(columns)
        for _ in range(_REFINEMENTS):
            change, *_ = np.linalg.lstsq(system, error(moved, fit), rcond=1e-11)
            for (s, j), basis, step in zip(blocks, bases, np.split(change, ends), strict=True):
                moved[s, j] += basis @ step
        rounding = _ULPS * np.finfo(np.float64).eps
        scale = np.linalg.norm(fit) + np.linalg.norm(lengths) * np.sum(np.abs(moved))
        if not np.linalg.norm(error(moved, fit)) <= rounding * scale:
            return None
        slack = signs[None] * (moved @ unit.T)
        sizes = np.linalg.norm(moved, axis=-1)
        return moved if np.all(slack >= -rounding * sizes[..., None]) else None

    def everywhere(theta: Floats, fit: Floats) -> Floats:
        for _ in range(_REFINEMENTS):
            x = vectors @ ((vectors.T @ error(theta, fit)) / sigma)
            delta = margin[:, None] ** 2 * ((masks * x[:, None]).T @ X)
            outside = np.maximum(-signs * (delta @ unit.T), 0.0)
            t = np.max(np.where(usable, outside / np.where(usable, pull, 1.0), 0.0), axis=1)
            shift = t[:, None] * witness
            theta = theta + np.stack([delta + shift, shift])
        return theta

    def moved(theta: Floats, fit: Floats) -> Floats:
        found = on_support(theta, fit)
        return everywhere(theta, fit) if found is None else found

    return moved
