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
rotation; of orthonormal vectors without negative entries no two share a sample, so that the
rotation is read off the blocks of the projection onto their span.

Vectors of mixed signs have no closed form; a single column splits into its two signs
(`jaxrelu.closed_form.whitened_data`).

Reference: Sahiner, Ergen, Pauly and Pilanci, "Vector-output ReLU neural network problems are
copositive programs", ICLR 2021, on whitened data; the condition on signs
and equal values derived here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from jaxrelu.closed_form.answer import ClosedForm, Samples, checked_outputs
from jaxrelu.closed_form.whitened_data import check_orthonormal
from jaxrelu.core.aliases import Floats
from jaxrelu.core.options import positive
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import roots
from jaxrelu.networks.network import Network

# Singular values this near, against the largest, are equal; smaller entries of unit vectors are
# signs of rounding.
_EQUAL = 1e-6
_ROUNDED = 1e-9


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
    samples, strength = checked_outputs(X, Y), positive(lam, "lam")
    samples, strength = samples.scaled(strength, keep_data=True)
    check_orthonormal(samples)
    p = _one_signed(samples.y, strength)
    images = samples.y.T @ p  # s_k g_k
    values = np.linalg.norm(images, axis=0)
    sizes = np.maximum(values - strength, 0.0)
    g = images / np.where(values > 0, values, 1.0)
    fit = (p * sizes) @ g.T
    residual = samples.residual(fit)
    # Rows of which X X^T - I is not quite zero let X u reach a little beyond the unit ball.
    polar = float(np.linalg.norm(residual, 2) * np.linalg.norm(samples.X, 2))
    lower = samples.dual_value(residual * min(1.0, strength / polar) if polar > 0 else residual)
    value = samples.loss_value(fit) + strength * float(np.sum(sizes))
    network = _network(samples, samples.X.T @ p, g, sizes)
    return samples.closed_form(network, fit, residual, strength, value, lower, polar)


def _network(samples: Samples, directions: Floats, outputs: Floats, sizes: Floats) -> Network:
    root = roots(sizes, samples.units.weights)[sizes > 0]
    directions, outputs = directions[:, sizes > 0], outputs[:, sizes > 0]
    return Network(samples.cast(directions * root), samples.cast((outputs * root).T))


def _one_signed(Y: Floats, lam: float) -> Floats:
    """The left singular vectors (n, m) of values above lam, without negative entries."""
    left, values, _ = np.linalg.svd(Y, full_matrices=False)
    left, values = left[:, values > lam], values[values > lam]
    if not values.size:
        return left
    apart = np.abs(np.diff(values)) > _EQUAL * values[0]
    groups = np.split(left, np.flatnonzero(apart) + 1, axis=1)
    return np.concatenate([_of_equal_values(group) for group in groups], axis=1)


def _of_equal_values(vectors: Floats) -> Floats:
    """A basis of the span of orthonormal columns (n, m) without negative entries."""
    projection = vectors @ vectors.T
    count = vectors.shape[1]
    if count == 1:
        blocks = [np.flatnonzero(np.abs(vectors[:, 0]) > 0)]
    else:
        _, member = connected_components(np.abs(projection) > _ROUNDED, directed=False)
        seen = np.diag(projection) > _ROUNDED
        blocks = [np.flatnonzero(seen & (member == k)) for k in np.unique(member[seen])]
    basis = np.zeros((len(vectors), len(blocks)))
    for k, block in enumerate(blocks):
        # A block of rank one is the outer product of its vector.
        largest = block[np.argmax(np.diag(projection)[block])]
        basis[block, k] = projection[block, largest] / np.sqrt(projection[largest, largest])
    if len(blocks) != count or np.min(basis) < -_ROUNDED:
        raise ValueError(
            "Y has left singular vectors of mixed signs with singular values above lam, which have "
            "no closed form: pass a larger lam, or one column at a time to closed_form.whitened, "
            "for networks of which every neuron feeds one output."
        )
    basis = np.maximum(basis, 0.0)
    return basis / np.linalg.norm(basis, axis=0)
