"""Units of columns: exact powers of two, one for standardised columns, for numbers of any size."""

import numpy as np
import pytest

from jaxrelu.geometry.host.units import column_units

RAW = np.random.default_rng(0).standard_normal((50, 4))
STANDARD = RAW / np.sqrt(np.mean(RAW**2, axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_of_like_size_have_units_of_one(dtype):
    rng = np.random.default_rng(1)
    columns = rng.lognormal(size=(200, 30)) * 10.0 ** rng.uniform(-6, 6, 30) + 7.0
    standard = ((columns - columns.mean(axis=0)) / columns.std(axis=0)).astype(dtype)
    for X in (standard, 3 * standard, 1e-30 * standard, standard[:, :1] + 2000):
        units = column_units(X)
        assert units.dtype == dtype
        np.testing.assert_array_equal(units, 1.0)


def test_units_follow_the_columns_as_powers_of_two():
    units = column_units(STANDARD * [40, 50_000, 1.0, 1.0])
    np.testing.assert_array_equal(units, 2.0 ** np.array([3, 13, -3, -3]))
    # A root mean square of 1.4 is nearer to 1 than to 2, and one of 1.5 is not.
    np.testing.assert_array_equal(column_units(STANDARD * [1.4, 1, 1, 1]), [1, 1, 1, 1])
    np.testing.assert_array_equal(column_units(STANDARD * [1.5, 1, 1, 1]), [2, 1, 1, 1])
    np.testing.assert_array_equal(column_units(STANDARD / [1.5, 1, 1, 1]), [0.5, 1, 1, 1])


def test_other_columns_leave_standardised_ones_alone():
    for raw in (2000.0, 1e-3, 0.0):
        units = column_units(np.column_stack([STANDARD, raw * np.ones(50)]))
        np.testing.assert_array_equal(units[:4], 1.0)
        assert units[4] == (1.0 if raw == 0 else 2.0 ** np.rint(np.log2(raw)))


def test_rows_of_zeros_and_a_common_scale_change_nothing():
    X = STANDARD * [0.3, 1.0, 70.0, 1.41]
    units = column_units(X)
    np.testing.assert_array_equal(column_units(np.pad(X, ((0, 77), (0, 0)))), units)
    np.testing.assert_array_equal(column_units(X * 1.3e-200), units)


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ([1e-200, 1e200, 1, 0], [1, 2.0**26, 1, 1]),
        ([1e-200, 1e-200, 0, 0], [1, 1, 1, 1]),
        ([1e300, 1e300, 1e300, 1e-300], [1, 1, 1, 2.0**-26]),
        ([1e-300, 1, 1, 1e300], [1, 1, 1, 2.0**26]),
        ([1e-310, 1e-310, 1e-310, 0], [1, 1, 1, 1]),
        ([0, 0, 0, 0], [1, 1, 1, 1]),
    ],
)
def test_numbers_of_any_size(scales, expected):
    np.testing.assert_array_equal(column_units(STANDARD * scales), expected)
