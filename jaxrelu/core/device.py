"""Is the arithmetic of this device right at all?

Releases with wrong sums, products or factors on some devices are known (jax-ml/jax#39103, #40633).
A certificate is evaluated on the same device and would vouch for what it computed wrongly, so that
an accelerator is tried once, on a few operations whose values NumPy knows, before anything is
solved there. How well a device that is right rounds is the matter of `jaxrelu.core.self_test`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import eps, matmul
from jaxrelu.core.tracing import outside_traces

# Errors that no correct device makes, in units of eps times the size of what is added up.
_ALLOWED = 1e3
_SHAPE = (300, 40)


def check_device(dtype: Any) -> None:
    """Refuses to compute where values are wrong.

    Args:
        dtype: of what is to be computed.

    Raises:
        RuntimeError: a jaxlib, or an accelerator, that computes wrong values. The sentence says
            which ones, and what to do.
    """
    if jax.default_backend() != "cpu":
        _check_accelerator(jax.default_backend(), np.dtype(dtype))
    elif version("jaxlib") == "0.10.2":
        raise RuntimeError(
            "jaxlib 0.10.2 compiles batched sums of products wrongly on a CPU "
            "(jax-ml/jax#39103), so that no certificate would hold: install jax and jaxlib 0.10.1, "
            "or 0.11 and later."
        )


@cache
def _check_accelerator(backend: str, dtype: Any) -> None:
    # An error is not kept: another call looks again.
    wrong = [name for name, error in device_errors(dtype).items() if not error <= 1]
    if wrong:
        raise RuntimeError(
            f"{jax.devices()[0].device_kind} ({backend}) computes wrong {' and '.join(wrong)} in "
            f"{dtype}, so that no certificate would hold: install another release of jax and of "
            "the device's driver, or set JAX_PLATFORMS=cpu."
        )


def device_errors(dtype: Any) -> dict[str, float]:
    """What the default device computes, against NumPy in float64.

    Args:
        dtype: float32 or float64.

    Returns:
        The largest error of sums, products and Cholesky factors, in units of what rounding can
        explain: above 1, or NaN, where it computes something else.
    """
    dtype = np.dtype(dtype)
    A = np.random.default_rng(0).standard_normal(_SHAPE).astype(dtype)
    with outside_traces():
        sums, products, factors, solved = jax.device_get(_computed(A))
    exact = A.astype(np.float64)
    size, gram = np.abs(exact), exact.T @ exact
    reach = size.T @ size
    regular = gram + np.eye(len(gram))
    lower, solved = np.tril(factors.astype(np.float64)), solved.astype(np.float64)
    off = {
        "sums": _largest(sums - exact.sum(axis=0), size.sum(axis=0)),
        "products": _largest(products - gram, reach),
        "Cholesky factors": max(
            _largest(lower @ lower.T - regular, reach),
            _largest(regular @ solved - gram, np.abs(regular) @ np.abs(solved)),
        ),
    }
    return {name: error / (_ALLOWED * eps(dtype)) for name, error in off.items()}


def _largest(error: Any, size: Any) -> float:
    # A NaN is passed on.
    return float(np.max(np.abs(error) / size))


@compiled
def _computed(A: Array) -> tuple[Array, Array, Array, Array]:
    gram = matmul(A.T, A)
    factor = cho_factor(gram + jnp.eye(gram.shape[0], dtype=A.dtype), lower=True)
    return jnp.sum(A, axis=0), gram, factor[0], cho_solve(factor, gram)
