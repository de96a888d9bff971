"""Does this device compute as well as certificates assume?

What `jaxrelu.core.rounding` says of sums, products and elementary functions is compared with exact
rational arithmetic and with 50 digits, on the default device, as XLA compiles for it.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core import rounding
from jaxrelu.core.numerics import eps
from jaxrelu.core.options import check_choice
from jaxrelu.core.tracing import on_host

_TERMS = 300
_POINTS = 400
_FUNCTIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Decimal], Decimal]]] = {
    "exp": (jnp.exp, Decimal.exp),
    "log": (jnp.log, Decimal.ln),
    "log1p": (jnp.log1p, lambda x: (1 + x).ln()),
    "softplus": (jax.nn.softplus, lambda x: (1 + x.exp()).ln()),
}


class SelfTest(NamedTuple):
    """What a device was found to do, in units of what certificates allow for: at most 1 is fine.

    Attributes:
        device: its kind.
        sums: the largest error of sums and products.
        functions: the largest error of an elementary function.
        rigorous: whether bounds hold as printed on this device.
    """

    device: str
    sums: float
    functions: float
    rigorous: bool


@on_host()
def self_test(dtype: str) -> SelfTest:
    """Measures the rounding of the default device against what certificates assume of it.

    Args:
        dtype: ``"float32"`` or ``"float64"`` (with JAX's x64 mode on).

    Returns:
        `SelfTest`.

    Raises:
        ValueError, TypeError: another dtype, or float64 without x64.

    Example:
        >>> import jaxrelu as jr
        >>> jr.self_test("float32").rigorous
        True

    Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), Section 3.1.
    """
    check_choice(dtype, "dtype", ("float32", "float64"))
    kind = np.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(kind) != kind:
        raise TypeError(
            "dtype is float64, but JAX is in float32 mode: call "
            "jax.config.update('jax_enable_x64', True) first, or pass float32."
        )
    sums, functions = _sums(kind), max(_function(name, kind) for name in _FUNCTIONS)
    fine = sums <= 1 and functions <= 1
    return SelfTest(jax.devices()[0].device_kind, sums, functions, fine)


def _sums(dtype: Any) -> float:
    """The largest error of a product of matrices, over what `sum_roundings` allows."""
    rng = np.random.default_rng(0)
    decades = 30 if dtype == np.float64 else 6

    def numbers(shape: tuple[int, int]) -> Any:
        size = 10.0 ** rng.uniform(-decades, decades, shape)
        return (rng.standard_normal(shape) * size).astype(dtype)

    a, b = numbers((3, _TERMS)), numbers((_TERMS, 2))
    # Errors of a sum of one sign and one size do not cancel.
    a[0], b[:, 0] = 0.1, 1.0
    found = np.asarray(jax.jit(rounding.product)(a, b))
    allowed = Fraction(rounding.roundoff(dtype) * rounding.sum_roundings(_TERMS, dtype))
    worst = Fraction(0)
    for i, row in enumerate(a):
        for j, column in enumerate(b.T):
            terms = [
                Fraction(float(x)) * Fraction(float(y)) for x, y in zip(row, column, strict=True)
            ]
            off = abs(Fraction(float(found[i, j])) - sum(terms))
            worst = max(worst, off / (allowed * sum(map(abs, terms))))
    return float(worst)


def _function(name: str, dtype: Any) -> float:
    """The largest error of an elementary function, over `ELEMENTARY`."""
    function, exact = _FUNCTIONS[name]
    rng = np.random.default_rng(1)
    x = 10.0 ** rng.uniform(-12, 1.5, _POINTS)
    if name in ("exp", "softplus"):
        x = x * rng.choice([-1, 1], _POINTS)
    x = x.astype(dtype)
    found = np.asarray(jax.jit(function)(x))
    scale = 1.0 if rounding.is_measured() else rounding.UNKNOWN
    worst = Decimal(0)
    with localcontext() as context:
        context.prec = 50
        for at, value in zip(x, found, strict=True):
            true = exact(Decimal(float(at)))
            if abs(true) > rounding.tiny(dtype):
                worst = max(worst, abs(Decimal(float(value)) - true) / abs(true))
        limit = Decimal(rounding.ELEMENTARY * scale * eps(dtype))
        return float(worst / limit)
