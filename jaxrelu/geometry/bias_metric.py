r"""The geometry of neurons whose bias is not penalised.

The rows of X end with a column rho > 0, weights with a bias: x = (u, b) computes <x_i, u> + rho b,
and its size is ||u||. For a point c = (c_u, c_b) and a cone K

    max { <c_u, u> + c_b b : (u, b) in K, ||u|| <= 1 }
        = min { ||c_u + (K^T mu)_u|| : mu >= 0, c_b + (K^T mu)_b = 0 },

which is no projection of c. It is the limit omega -> 0 of projections in the metric
M = diag(1, ..., 1, omega): the x in K that minimises 1/2 x^T M x - <c, x> has M x = c + K^T mu, so
that e = c + K^T mu leaves e_b = omega b of the equality. What is left costs little, and is counted:
in a cell with both bits some <x_i, u> + rho b >= 0 and some other <= 0, hence
|b| <= reach ||u|| with reach = max ||x_i|| / rho, and for *any* mu >= 0 the value is at most the

    polar size  ||e_u|| + reach |e_b|.

In the cell of ones b is as small as it may be (what is more belongs to the constant), and the same
holds there.

Reference: Savarese et al. (COLT 2019) for networks whose biases are free; Fenchel duality.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, plain_norm, safe_norm

_LOOSENED = 2.0**-26


def sized(x: Array, has_bias: bool) -> Array:
    """What of points (..., d) the norm sees: all, or all but a bias."""
    return x[..., :-1] if has_bias else x


def size(x: Array, has_bias: bool) -> Array:
    """Norms of points (..., d), without their biases."""
    return plain_norm(sized(x, has_bias))


def polar_size(e: Array, reach: Array | None) -> Array:
    """Bounds (...,) that elements c + K^T mu (..., d) prove; norms without a `reach`."""
    return plain_norm(e) if reach is None else plain_norm(e[..., :-1]) + reach * jnp.abs(e[..., -1])


def safe_polar_size(e: Array, reach: Array | None) -> Array:
    """`polar_size` of numbers of any size."""
    return safe_norm(e) if reach is None else safe_norm(e[..., :-1]) + reach * jnp.abs(e[..., -1])


def most_in_polar_size(reach: Array | None) -> Any:
    """How many times a norm a polar size is at most."""
    return 1.0 if reach is None else 1.0 + reach


def direction(x: Array, has_bias: bool) -> Array:
    """Points (..., d) of size one, or zero."""
    length = size(x, has_bias)[..., None]
    return jnp.where(length > 0, x / jnp.where(length > 0, length, 1.0), 0.0)


def metric(features: int, reach: Array | None, dtype: Any) -> Array:
    """The diagonal of M, (d,); omega loosens bounds by `_LOOSENED` of them at most."""
    ones = jnp.ones((features,), dtype)
    if reach is None:
        return ones
    loosened = _LOOSENED if eps(dtype) < 1e-10 else _LOOSENED**0.5
    return ones.at[-1].set(loosened / jnp.maximum(reach, 1.0) ** 2)


def reach_of(X: Array) -> Array:
    """The reach of rows (n, d) whose last entries are rho, with what it rounds."""
    longest = jnp.max(safe_norm(X[:, :-1]), initial=0.0)
    return 1.01 * longest / jnp.max(jnp.abs(X[:, -1]), initial=0.0)
