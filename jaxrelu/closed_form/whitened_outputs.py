r"""Whitened data and several outputs: the singular values of the target, soft-thresholded.

With X X^T = I and f(X) = (X U)_+ V of c outputs the dual of

    min loss(f) + lam sum_k ||u_k|| ||v_k||     (weight decay lam/2 (||U||_F^2 + ||V||_F^2))

is max -loss*(-R) subject to polar(R) = max over ||u|| <= 1 of ||R^T (X u)_+|| <= lam. Since
||(X u)_+|| <= ||u||, polar(R) is at most the largest singular value of R, and equal to it where the
left singular vector has no negative entry. So let Y = sum_k s_k p_k g_k^T be the singular value
decomposition of the target, and let every p_k with s_k > lam have entries of one sign, >= 0 say.
Then for the squared loss

    F = sum_k (s_k - lam)_+ p_k g_k^T,      neurons u_k = X^T p_k, v_k = g_k of size s_k - lam,

are optimal: R = Y - F has the singular values min(s_k, lam), and <R, F> = lam sum_k (s_k - lam)_+.
The value is sum_k 1/2 s_k^2 - 1/2 (s_k - lam)_+^2.

Classes as rows of the identity are such a target: p_k is one over the root of n_k on the n_k
samples of class k, and s_k that root. Equal singular values leave their vectors free up to a
rotation; of orthonormal vectors without negative entries no two share a sample, so that a pivoted
Cholesky factorisation of the projection onto their span has them as its columns.

Vectors of mixed signs have no closed form; a single column splits into its two signs
(`jaxrelu.closed_form.whitened_data`).

Reference: Sahiner, Ergen, Pauly and Pilanci, "Vector-output ReLU neural network problems are
copositive programs", ICLR 2021, on whitened data; the condition on signs
and equal values derived here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrelu.closed_form.answer import ClosedForm, checked_outputs
from jaxrelu.closed_form.whitened_data import check_orthonormal
from jaxrelu.core.aliases import Floats
from jaxrelu.core.options import positive
from jaxrelu.core.tracing import on_host
from jaxrelu.networks.network import Network

# Of the largest singular value, in eps: values that are no larger than lam.
_ROUNDED = 16.0


@on_host()
def soft_thresholded_svd(X: Any, Y: Any, lam: Any) -> ClosedForm:
    r"""The optimal network of several outputs for data with orthonormal rows, squared loss.

    min over networks of 1/2 ||f(X) - Y||_F^2 + lam sum_k ||u_k||_2 ||v_k||_2,   X X^T = I

    Args:
        X: array (n, d), n <= d, X X^T = I up to rounding.
        Y: array (n, c), of which the left singular vectors of singular values above lam have
            entries of one sign each: rows of the identity for classes, for example.
        lam: scalar, > 0.

    Returns:
        `ClosedForm`: a network of as many neurons as singular values lie above lam, with output
        (m, c), fit and residual (n, c); `polar` bounds max ||R^T (X u)_+|| over ||u|| <= 1.

    Raises:
        ValueError, TypeError: rows that are not orthonormal, shapes that do not fit, singular
            vectors of mixed signs, lam that is not positive; a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> Y = np.eye(2, dtype="float32")[[0, 0, 0, 0, 1]]
        >>> found = closed_form.soft_thresholded_svd(np.eye(5, dtype="float32"), Y, 0.5)
        >>> found.network.output.shape, round(found.value, 4)
        ((2, 2), 1.25)

    Reference: Sahiner, Ergen, Pauly and Pilanci (ICLR 2021), on whitened data.
    """
    (samples, eps), strength = checked_outputs(X, Y), positive(lam, "lam")
    samples, strength = samples.scaled(strength, keep_data=True)
    check_orthonormal(samples)
    p = _one_signed(samples.y, strength, eps)
    images = samples.y.T @ p  # s_k g_k
    values = np.linalg.norm(images, axis=0)
    above = values > strength
    p, g, sizes = p[:, above], images[:, above] / values[above], values[above] - strength
    directions = samples.X.T @ p
    lengths = np.linalg.norm(directions, axis=0)
    fit = (np.maximum(samples.X @ directions, 0.0) * sizes) @ g.T
    residual = samples.residual(fit)
    # Rows of which X X^T - I is not quite zero let X u reach a little beyond the unit ball.
    polar = float(np.linalg.norm(residual, 2) * np.linalg.norm(samples.X, 2))
    lower = samples.dual_value(residual * min(1.0, strength / polar) if polar > 0 else residual)
    value = samples.loss_value(fit) + strength * float(np.sum(sizes * lengths))
    root = samples.roots(sizes * lengths)
    hidden, output = directions / lengths * root, (g * root).T
    network = Network(samples.cast(hidden), samples.cast(output))
    return samples.closed_form(network, fit, residual, strength, value, lower, polar)


def _one_signed(Y: Floats, lam: float, eps: float) -> Floats:
    """The left singular vectors (n, m) of values above lam, without negative entries."""
    left, values, _ = np.linalg.svd(Y, full_matrices=False)
    kept = values > lam + _ROUNDED * eps * values[0]
    # Vectors of values nearer than this are known up to a rotation by more than that.
    noise = eps**0.5
    apart = np.flatnonzero(np.abs(np.diff(values)) > noise * values[0]) + 1
    groups = zip(np.split(left, apart, axis=1), np.split(kept, apart), strict=True)
    found = [_of_equal_values(group, noise) for group, used in groups if used.any()]
    return np.concatenate([left[:, :0], *found], axis=1)


def _of_equal_values(vectors: Floats, noise: float) -> Floats:
    """A basis of the span of orthonormal columns (n, m) without negative entries."""
    basis, left = np.zeros_like(vectors), np.sum(vectors**2, axis=1)
    for k in range(vectors.shape[1]):
        row = int(np.argmax(left))
        column = vectors @ vectors[row] - basis @ basis[row]
        basis[:, k] = column / np.sqrt(max(left[row], noise**2))
        left = left - basis[:, k] ** 2
    overlap = np.max(np.abs(basis.T @ basis - np.eye(basis.shape[1])))
    if np.min(basis) < -noise or overlap > noise:
        raise ValueError(
            "Y has left singular vectors of mixed signs with singular values above lam, which have "
            "no closed form: pass a larger lam, or one column at a time to closed_form.whitened, "
            "for networks of which every neuron feeds one output."
        )
    basis = np.maximum(basis, 0.0)
    return basis / np.linalg.norm(basis, axis=0)
