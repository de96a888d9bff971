r"""By how much (V u)_+ can be longer than any V z: the number M behind spike-free data.

For independent unit rows V (k, d), M = max over ||u|| <= 1 of ||V^+ (V u)_+||. With the columns z_i
of V^+, every u in the row space is z - w, z = sum over S of a_i z_i, w = sum over the others of
b_j z_j, a, b >= 0, any S, and z = V^+ (V u)_+. So M = 1 means 2 z.w <= ||w||^2 for all a, b >= 0,
and by scaling z.w <= 0:

    M = 1  <=>  the off-diagonal entries of (V V^T)^{-1} are all <= 0.

A cosine g > 0 between z_i and z_j gives the witness u = z_i - w, z_i . w = ||w||^2, with M >=
(1 - g^2)^{-1/2}. Above, z.w <= g_max sum a sum b with unit z_i gives M <= (1 - kappa^2)^{-1/2},
kappa = g_max k / sigma, sigma the smallest eigenvalue of the cosines of the z_i.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrelu.core.aliases import Floats


class Spikes(NamedTuple):
    """lower <= M <= upper, and a unit vector (d,) that reaches `lower`; zero where that is one."""

    lower: float
    upper: float
    witness: Floats


def spike_bounds(V: Floats, accuracy: float) -> Spikes | None:
    """Bounds of M of unit rows V (k, d); None where they are dependent.

    Args:
        V: (k, d).
        accuracy: what the entries of V are off by at most.
    """
    sigma = np.linalg.svd(V, compute_uv=False)
    if len(V) > V.shape[1] or sigma[-1] <= accuracy * sigma[0]:
        return None
    Z = np.linalg.pinv(V)
    Z = Z / np.linalg.norm(Z, axis=0)
    cosines = Z.T @ Z
    apart = cosines - np.diag(np.diag(cosines))
    i, j = divmod(int(np.argmax(apart)), len(V))
    largest = max(0.0, float(apart[i, j]))
    rounding = accuracy * float(sigma[0]) / float(sigma[-1])
    least = max(float(np.linalg.eigvalsh(cosines)[0]), 1e-300)
    kappa = (largest + rounding) * len(V) / least
    upper = (1.0 - kappa**2) ** -0.5 if kappa < 1.0 else np.inf
    if largest <= rounding:
        return Spikes(1.0, upper, np.zeros(V.shape[1]))
    u = Z[:, i] - largest * Z[:, j]
    lower = (1.0 - min(largest**2, 1.0 - 1e-15)) ** -0.5
    return Spikes(lower, upper, u / float(np.linalg.norm(u)))
