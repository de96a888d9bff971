r"""Which targets and labels the networks over given cells can meet at all, with proofs.

Differences of two points of a cone with an interior are all of R^d, so the fits of the convex
program over patterns D_1..D_p form a subspace, whatever the cones are:

    S = { sum_j D_j X (v_j - w_j) : v_j, w_j in K_j } = sum_j range(D_j X).

Two theorems of the alternative follow. Exactly one of each pair holds:

    f = y for some f in S              | nu in S^perp with y . nu != 0
    y_i f_i >= 1 for some f in S       | nu in S^perp, nu != 0, with y_i nu_i >= 0

and nu in S^perp means X^T D_j nu = 0 for every j, hence Proj_K(s X^T D_j nu) = 0 for every block:
adding multiples of nu to a dual point costs nothing and raises the dual value without bound. With
all cells S is the span of all (X u)_+. It is not R^n when rows are parallel, and not even for
distinct directions: the odd part of a network without a bias is linear, so the rows +-x, +-z,
+-(x + z) span only five of their six dimensions.

Reference: Fredholm's and Gordan's theorems of the alternative.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import qr

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.scaling import unit_rows

_RANK = 64.0
_ULPS = 8.0
_PROOF = 1e-10


class FitSpace(NamedTuple):
    """The subspace S of all fits (n,), for rows of X scaled to length one and for X as it is.

    Attributes:
        unit: (n, r) orthonormal, spans S for the rows x_i / ||x_i||.
        basis: (n, r) orthonormal, spans S.
        lengths: (n,), ||x_i||, and one for zero rows.
        tolerance: relative; what rounding leaves of an exact dependence.
    """

    unit: Floats
    basis: Floats
    lengths: Floats
    tolerance: float


def fit_space(X: Floats, masks: Bools, precision: float) -> FitSpace:
    """The subspace of fits of the program over some patterns.

    Args:
        X: (n, d).
        masks: (n, p) bool, patterns whose cones have an interior.
        precision: machine epsilon of the numbers that X was computed in.

    Returns:
        `FitSpace`. The rank is that of [D_1 X ... D_p X], up to `precision`.
    """
    n, d = X.shape
    rows, lengths = unit_rows(X)
    lengths = np.where(lengths > 0, lengths, 1.0)
    if masks.shape[1] * d <= 2 * n:
        columns = (masks[:, :, None] * rows[:, None, :]).reshape(n, -1)
    else:
        # As many random combinations of the columns have the same range with probability one.
        rng = np.random.default_rng(0)
        columns = np.zeros((n, 2 * n))
        for mask in masks.T:
            columns[mask] += rows[mask] @ rng.standard_normal((d, 2 * n))
    left, sigma, _ = np.linalg.svd(columns, full_matrices=False)
    tolerance = _RANK * np.sqrt(n) * precision
    rank = int(np.sum(sigma > tolerance * sigma[0])) if sigma[0] > 0 else 0
    unit = left[:, :rank]
    # Long rows first, and with pivots: accurate however different the lengths are.
    order = np.argsort(-lengths, kind="stable")
    basis = np.empty_like(unit)
    scaled = (lengths[:, None] * unit)[order]
    basis[order] = qr(scaled, mode="economic", pivoting=True)[0]
    return FitSpace(unit, basis, lengths, max(_PROOF, _ULPS * np.sqrt(n) * precision))


def nearest_fit(space: FitSpace, y: Floats) -> tuple[Floats, Floats | None]:
    """The nearest fit to a target, and a proof nu if it is not the target.

    Args:
        space: `FitSpace`.
        y: (n,).

    Returns:
        ``(fit, nu)``: the orthogonal projection of y on S, or y itself with nu = None. Otherwise
        nu = y - fit is in S^perp, and y . nu = ||nu||^2 > 0.
    """
    nu = y.copy()
    for _ in range(2):  # twice: what rounding leaves in S must not look like a proof
        nu = nu - space.basis @ (space.basis.T @ nu)
    small = space.tolerance * np.linalg.norm(y)
    if np.linalg.norm(nu) <= small:
        return y, None
    fit = y - nu
    return (fit if np.linalg.norm(fit) > small else np.zeros_like(y)), nu


def separation(space: FitSpace, labels: Floats) -> Floats | None:
    r"""A proof that no fit has the signs of the labels, or None.

    By non-negative least squares (Lawson and Hanson's least distance program): for B orthonormal
    with range S and Y = diag(labels), mu = argmin_{mu >= 0} ||B^T Y mu||^2 + (1 - sum mu)^2.
    The residual is zero if and only if Y mu / sum(mu) is a proof; otherwise h = B^T Y mu
    gives a fit B h with labels, since its optimality conditions read Y B h >= 1 - sum mu > 0.

    Args:
        space: `FitSpace`.
        labels: (n,), -1 and +1.

    Returns:
        nu (n,), with labels * nu >= 0, largest entry one and X^T D_j nu = 0 for every pattern to
        the tolerance of the space; None where there is no such vector.
    """
    n, rank = space.unit.shape
    if rank == n or nearest_fit(space, labels)[1] is None:
        return None
    system = np.vstack([space.unit.T * labels[None], np.ones(n)])
    target = np.append(np.zeros(rank), 1.0)
    mu, _ = nonnegative_least_squares(system, target)
    if not np.any(mu > 0):
        return None
    if np.linalg.norm(system[:-1] @ mu) > space.tolerance * np.linalg.norm(mu):
        return None
    nu = labels * mu / space.lengths
    largest: float = np.max(np.abs(nu))
    proof: Floats = nu / largest
    return proof
