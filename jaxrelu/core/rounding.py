r"""What floating-point arithmetic may do to a value: counts of roundings, and powers of two.

With unit roundoff u a sum of m products, in any order, fused or not, is off by at most

    |fl(sum_i a_i b_i) - sum_i a_i b_i|  <=  gamma_m sum_i |a_i| |b_i|  +  2 m tiny,
    gamma_m = m u / (1 - m u),

where `tiny` is the smallest normal number: results below it may be flushed to zero. The bounds of
the package are counts of such operations times `roundoff`, which is u and 2 % more: that covers
gamma as long as m u < 0.01, and the roundings of the bound itself. In float32, where a count of
thousands would drown every certificate, sums are added up in stages of `STAGE`.

exp, log, log1p and their kin are not rounded correctly: `ELEMENTARY` is what they may be off, in
units of eps, measured on CPUs and GPUs (float64 log1p on a CPU: 119). `EXPONENTIAL` is for exp, log
and expm1 alone, which are 2.7 off on a CPU, and 2 on a GPU by what CUDA states of them. On a device
of another kind products and functions are taken for `UNKNOWN` times worse, and a warning says that
this is a guess.

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), Sections 2.2 and 3.1.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import eps, matmul

STAGE = 8
ELEMENTARY = 256.0
EXPONENTIAL = 8.0
UNKNOWN = 16.0
_MEASURED = ("cpu", "gpu", "cuda", "rocm")


def is_measured() -> bool:
    """Whether the constants of this module were measured on devices of this kind."""
    return jax.default_backend() in _MEASURED


def roundoff(dtype: Any) -> float:
    """What one operation may be off, relative to its result, on this device."""
    if is_measured():
        return 0.51 * eps(dtype)
    warnings.warn(
        f"bounds are not rigorous on {jax.default_backend()}: its rounding was never measured and "
        f"is taken for {UNKNOWN:g} times a CPU's. Call jr.self_test(dtype) to see whether that "
        "holds, or certify on a CPU.",
        RuntimeWarning,
        stacklevel=2,
    )
    return 0.51 * eps(dtype) * UNKNOWN


def tiny(dtype: Any) -> float:
    """The smallest normal number; smaller results may be flushed to zero."""
    return float(jnp.finfo(dtype).tiny)  # type: ignore[no-untyped-call]


def sum_roundings(count: int, dtype: Any) -> float:
    """How often a term of `added` is rounded, at most."""
    if jnp.finfo(dtype).bits >= 64 or count <= STAGE:  # type: ignore[no-untyped-call]
        return count + 1.0
    total = 1.0
    while count > 1:
        total, count = total + min(count, STAGE), -(-count // STAGE)
    return total


def added(terms: Array) -> Array:
    """The sum over the last axis; a term is rounded at most `sum_roundings` times."""
    if jnp.finfo(terms.dtype).bits >= 64:  # type: ignore[no-untyped-call]
        return jnp.sum(terms, axis=-1)
    while terms.shape[-1] > STAGE:
        count = -(-terms.shape[-1] // STAGE)
        padding = [(0, 0)] * (terms.ndim - 1) + [(0, count * STAGE - terms.shape[-1])]
        parts = jnp.pad(terms, padding).reshape(*terms.shape[:-1], count, STAGE)
        # Or the compiler makes one sum of the stages, in an order of its own.
        terms = jax.lax.optimization_barrier(jnp.sum(parts, axis=-1))
    return jnp.sum(terms, axis=-1)


def product(weights: Array, rows: Array) -> Array:
    """Weights @ rows, (m, n) and (n, d); an entry's terms are rounded `sum_roundings` times."""
    m, (n, d) = weights.shape[0], rows.shape
    if jnp.finfo(rows.dtype).bits >= 64 or n <= STAGE:  # type: ignore[no-untyped-call]
        return matmul(weights, rows)
    count = -(-n // STAGE)
    some = jnp.pad(weights, ((0, 0), (0, count * STAGE - n))).reshape(m, count, STAGE)
    rows = jnp.pad(rows, ((0, count * STAGE - n), (0, 0))).reshape(count, STAGE, d)
    parts = jnp.einsum("mcs,csd->mdc", some, rows, precision="highest")
    return added(jax.lax.optimization_barrier(parts))


def accurate_product(vector: Array, columns: Array) -> tuple[Array, Array]:
    """Vector @ columns, (n,) and (n, k), as if in twice the precision; and how far it may be off.

    In float32, where what cancels is the answer: halves of numbers have exact products, and what
    sums of two lose is added up as well. In float64 plain products are good enough.

    Reference: Ogita, Rump and Oishi, Accurate sum and dot product (SIAM J. Sci. Comput. 2005).
    """
    dtype, n = columns.dtype, columns.shape[0]
    unit = roundoff(dtype)
    if jnp.finfo(dtype).bits >= 64:  # type: ignore[no-untyped-call]
        reach = matmul(jnp.abs(vector), jnp.abs(columns))
        return matmul(vector, columns), unit * (sum_roundings(n, dtype) + 2.0) * reach
    (a, b), (c, d) = _halves(vector[:, None]), _halves(columns)
    terms = jnp.concatenate([a * c, a * d, b * c, b * d])
    lost, size, levels = jnp.zeros_like(columns[0]), jnp.zeros_like(columns[0]), 0
    while len(terms) > 1:
        terms = jnp.pad(terms, ((0, len(terms) % 2), (0, 0)))
        one, other = terms[0::2], terms[1::2]
        terms = jax.lax.optimization_barrier(one + other)
        second = jax.lax.optimization_barrier(terms - one)
        error = (one - (terms - second)) + (other - second)
        lost, levels = lost + added(error.T), levels + 1
        size = size + added(jnp.abs(error).T)
    value = terms[0] + lost
    times = sum_roundings(4 * n, dtype) + levels
    off = unit * (2.0 * jnp.abs(value) + 2.0 * times * size) + 8.0 * n * tiny(dtype)
    return value, off


def _halves(values: Array) -> tuple[Array, Array]:
    """Two float32 numbers of 12 bits each, which add up to one of 24."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    high = jax.lax.bitcast_convert_type(bits & jnp.int32(-4096), values.dtype)
    return high, values - high


def upward(value: Array, error: Array) -> Array:
    """A number not below any that is within `error` of a value; exact where both are zero."""
    return _outward(value, error, 1.0)


def downward(value: Array, error: Array) -> Array:
    """A number not above any that is within `error` of a value; exact where both are zero."""
    return _outward(value, error, -1.0)


def _outward(value: Array, error: Array, side: float) -> Array:
    unit, least = eps(value.dtype), tiny(value.dtype)
    size = error + 2 * unit * (jnp.abs(value) + error)
    # NaN is not zero, and stays.
    size = jnp.where((value == 0) & (error == 0), 0.0, size + least)
    return value + side * size


def largest_exponent(values: Array) -> Array:
    """The exponent e (int32) with max |v| in [2^e, 2^(e+1)), of the finite values; 0 if all are 0.

    Values may be subnormal: they count as zero.
    """
    size = jnp.max(jnp.where(jnp.isfinite(values), jnp.abs(values), 0.0), initial=0.0)
    usable = size >= tiny(values.dtype)
    whole, mantissa, bias = _layout(values.dtype)
    bits = jax.lax.bitcast_convert_type(jnp.where(usable, size, 1.0), whole)
    return ((bits >> mantissa) - bias).astype(jnp.int32)


def times_power(values: Array, exponent: Array) -> Array:
    """Values * 2^exponent, exact but for overflow and underflow, whatever the exponent."""
    # By three powers that are numbers themselves: zero times infinity is none. Further than three
    # times `most` everything is zero or infinite.
    most = 734 if jnp.finfo(values.dtype).bits >= 64 else 100  # type: ignore[no-untyped-call]
    left = jnp.clip(exponent, -3 * most, 3 * most)
    for _ in range(3):
        some = jnp.clip(left, -most, most)
        values, left = values * _power(some, values.dtype), left - some
    return values


def _power(exponent: Array, dtype: Any) -> Array:
    """2^exponent where that is a normal number."""
    whole, mantissa, bias = _layout(dtype)
    bits = (exponent.astype(whole) + bias) << mantissa
    return jax.lax.bitcast_convert_type(bits, dtype)


def _layout(dtype: Any) -> tuple[Any, int, int]:
    """The integers of a dtype's width, the bits of its mantissa, and the bias of its exponent."""
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    return jnp.int64 if info.bits == 64 else jnp.int32, info.nmant, 1 - int(info.minexp)
