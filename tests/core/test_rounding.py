"""The constants of rounding, measured against extended precision on this device."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.scipy.special import xlog1py, xlogy

from jaxrelu.core import rounding
from jaxrelu.core.numerics import eps
from jaxrelu.losses import HuberLoss, LogisticLoss, PoissonLoss, SquaredHingeLoss, SquaredLoss
from jaxrelu.losses.base import conjugate_error, value_error

DTYPES = ["float64", "float32"]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def spread(rng, shape, dtype):
    """Numbers over many orders of magnitude, of both signs."""
    width = 30 if dtype == "float64" else 6
    return (rng.standard_normal(shape) * 10.0 ** rng.uniform(-width, width, shape)).astype(dtype)


@every_dtype
@pytest.mark.parametrize("count", [1, 7, 9, 64, 65, 1000])
def test_products_and_sums_stay_within_their_roundings(dtype, count):
    rng = np.random.default_rng(count)
    a, b = spread(rng, (3, count), dtype), spread(rng, (count, 4), dtype)
    a[0], b[:, 0] = np.abs(a[0]), 1.0  # the errors of a sum of one sign do not cancel
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    allowed = rounding.roundoff(dtype) * rounding.sum_roundings(count, dtype)
    error = np.abs(np.asarray(jax.jit(rounding.product)(a, b)) - wide_a @ wide_b)
    assert np.all(error <= allowed * (np.abs(wide_a) @ np.abs(wide_b)))
    error = np.abs(np.asarray(jax.jit(rounding.added)(a)) - wide_a.sum(axis=1))
    assert np.all(error <= allowed * np.abs(wide_a).sum(axis=1))


@every_dtype
@pytest.mark.parametrize("count", [1, 2, 33, 1000])
def test_accurate_products_know_how_far_they_are_off(dtype, count):
    """What is left of terms that cancel, against rational arithmetic."""
    rng = np.random.default_rng(count)
    columns = spread(rng, (count, 3), dtype)
    columns = np.concatenate([columns, -columns, rng.standard_normal((2, 3))]).astype(dtype)
    vector = spread(rng, count, dtype)
    vector = np.concatenate([vector, vector, [1e-3, 0.0]]).astype(dtype)
    found, off = map(np.asarray, jax.jit(rounding.accurate_product)(vector, columns))
    for k in range(3):
        pairs = zip(vector.tolist(), columns[:, k].tolist(), strict=True)
        exact = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))
        assert abs(Fraction(float(found[k])) - exact) <= Fraction(float(off[k]))
        if dtype == "float32":
            # Plain sums lose 1e-6 of the size of the terms.
            size = float(np.abs(vector) @ np.abs(columns[:, k]))
            assert off[k] <= 1e-11 * size + 1e-6 * abs(found[k])


def test_long_sums_in_float32_are_rounded_seldom():
    assert rounding.sum_roundings(5000, "float32") < 40
    assert rounding.sum_roundings(5000, "float64") == 5001
    # One after another, the errors of equal terms would add up to some 3e-4.
    terms = jnp.full((10_000,), 0.1, jnp.float32)
    assert abs(float(rounding.added(terms)) / (1e4 * float(terms[0])) - 1) < 1e-6


def relative_error(function, exact, x, dtype):
    """The largest error of a compiled function, in eps, against 40 digits."""
    found = np.asarray(jax.jit(function)(x.astype(dtype)))
    with mpmath.workdps(40):
        true = [exact(mpmath.mpf(float(v))) for v in x.astype(dtype)]
        off = [
            abs(mpmath.mpf(float(f)) - t) / abs(t)
            for f, t in zip(found, true, strict=True)
            if abs(t) > rounding.tiny(dtype)
        ]
    return float(max(off)) / eps(dtype)


FUNCTIONS = {
    "exp": (jnp.exp, mpmath.exp, "both"),
    "expm1": (jnp.expm1, mpmath.expm1, "both"),
    "log": (jnp.log, mpmath.log, "positive"),
    "log1p": (jnp.log1p, lambda x: mpmath.log(1 + x), "positive"),
    "log1p of negative": (jnp.log1p, lambda x: mpmath.log(1 + x), "above -1"),
    "softplus": (jax.nn.softplus, lambda x: mpmath.log(1 + mpmath.exp(x)), "both"),
    "sigmoid": (jax.nn.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), "both"),
    "xlogy": (lambda x: xlogy(x, x), lambda x: x * mpmath.log(x), "positive"),
    "xlog1py": (lambda x: xlog1py(x, x), lambda x: x * mpmath.log(1 + x), "above -1"),
}
SIMPLE = ("exp", "expm1", "log")


@every_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_are_as_good_as_their_constant(name, dtype):
    function, exact, domain = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-12, 1.5, 1500)
    x = {
        "positive": size,
        "both": size * rng.choice([-1, 1], size.shape),
        "above -1": -np.minimum(size, 1 - 10.0 ** rng.uniform(-6, -0.01, size.shape)),
    }[domain]
    off = relative_error(function, exact, x, dtype)
    assert off <= (rounding.EXPONENTIAL if name in SIMPLE else rounding.ELEMENTARY) / 2


def _xlogx(x):
    return x * mpmath.log(x) if x > 0 else mpmath.mpf(0)


def _huber(f, y):
    size, delta = abs(f - y), mpmath.mpf(0.75)
    return size**2 / 2 if size <= delta else delta * (size - delta / 2)


# The loss and its conjugate in exact arithmetic; whether targets are rates and not labels.
EXACT = {
    "squared": (
        SquaredLoss(),
        lambda f, y: (f - y) ** 2 / 2,
        lambda r, y: r * y + r**2 / 2,
        False,
    ),
    "logistic": (
        LogisticLoss(),
        lambda f, y: mpmath.log(1 + mpmath.exp(-y * f)),
        lambda r, y: _xlogx(-r * y) + _xlogx(1 + r * y),
        False,
    ),
    "huber": (HuberLoss(0.75), _huber, lambda r, y: r * y + r**2 / 2, False),
    "squared hinge": (
        SquaredHingeLoss(),
        lambda f, y: max(1 - y * f, 0) ** 2 / 2,
        lambda r, y: (r * y) ** 2 / 2 + r * y,
        False,
    ),
    "poisson": (
        PoissonLoss(),
        lambda f, y: mpmath.exp(f) - y * f + _xlogx(y) - y,
        lambda r, y: _xlogx(r + y) - r - _xlogx(y),
        True,
    ),
    "poisson, offset": (
        PoissonLoss(1.25),
        lambda f, y: mpmath.exp(f + 1.25) - y * (f + 1.25) + _xlogx(y) - y,
        lambda r, y: _xlogx(r + y) - r - _xlogx(y) - r * 1.25,
        True,
    ),
}


@every_dtype
@pytest.mark.parametrize("name", EXACT)
def test_losses_are_as_good_as_they_say(name, dtype):
    loss, exact_value, exact_conjugate, rates = EXACT[name]
    rng = np.random.default_rng(1)
    fit = (rng.standard_normal(400) * 10.0 ** rng.uniform(-6, 1.2, 400)).astype(dtype)
    low, high = 10.0 ** rng.uniform(-7, -0.01, 200), 1 - 10.0 ** rng.uniform(-6, -0.3, 200)
    p = np.concatenate([low, high])
    if rates:
        target = 10.0 ** rng.uniform(-3, 3, 400) * (rng.random(400) < 0.9)
        # Some fits are next to the target, and some duals next to the edge or far from it.
        near = rng.random(400) < 0.5
        fit = np.where(near & (target > 0), np.log(np.maximum(target, 1e-9)) + fit / 9, fit)
        dual = np.where(rng.random(400) < 0.5, -target * p, (1 + target) * p)
    else:
        target = np.sign(rng.standard_normal(400))
        dual = -target * p * (0.75 if name == "huber" else 1.0)
    fit, target, dual = (a.astype(dtype) for a in (fit, target, dual))

    def exact(value, x, y):
        with mpmath.workdps(40):
            return [value(*(mpmath.mpf(float(a)) for a in pair)) for pair in zip(x, y, strict=True)]

    for function, at, true, allowed in (
        (loss.value, fit, exact(exact_value, fit, target), value_error(loss, fit, target)),
        (
            loss.conjugate, dual, exact(exact_conjugate, dual, target),
            conjugate_error(loss, dual, target),
        ),
    ):  # fmt: skip
        found = np.asarray(jax.jit(function)(at, target))
        off = [abs(mpmath.mpf(float(c)) - t) for c, t in zip(found, true, strict=True)]
        # Half of what is allowed: the other half is a margin.
        limit = 0.5 * eps(dtype) * np.asarray(allowed, float) + rounding.tiny(dtype)
        assert np.all(np.asarray(off, float) <= limit)


@every_dtype
def test_outward_rounding_is_outward_and_exact_at_zero(dtype):
    values = np.asarray([0.0, 1.0, -1.0, 1e-30, 0.0, np.nan], dtype)
    errors = np.asarray([0.0, 0.0, 1e-3, 0.0, 1e-30, 0.0], dtype)
    high, low = rounding.upward(values, errors), rounding.downward(values, errors)
    assert high[0] == low[0] == 0
    assert np.all(np.asarray(high[1:5]) > values[1:5] + errors[1:5])
    assert np.all(np.asarray(low[1:5]) < values[1:5] - errors[1:5])
    assert np.isnan(high[5])
    assert np.isnan(low[5])


@every_dtype
@pytest.mark.parametrize("exponent", [0, 1, -7, 100, -100, 1500, -1500])
def test_powers_of_two_change_no_digit(dtype, exponent):
    small = np.asarray([1.5, -3.0, 0.0, np.inf], dtype)
    # There and back, through whatever the exponent makes of it.
    found = rounding.times_power(jnp.asarray(small), jnp.int32(exponent))
    with np.errstate(over="ignore", under="ignore"):
        expected = np.ldexp(small, exponent)
    expected = np.where(np.abs(expected) < rounding.tiny(dtype), 0.0, expected)
    np.testing.assert_array_equal(found, expected)


@every_dtype
def test_exponents_of_the_largest_number(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    for values, exponent in (
        ([1.0, 2.0, -5.0], 2), ([2.0], 1), ([0.99], -1), ([0.0], 0), ([tiny], 0),
        ([np.nan, 0.25, np.inf], -2),
    ):  # fmt: skip
        assert int(rounding.largest_exponent(jnp.asarray(values, dtype))) == exponent
