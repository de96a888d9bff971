"""Lengths, directions and exponents of vectors of any scale."""

import numpy as np
import pytest

from jaxrelu.geometry.host.scaling import exponents, scaled, unit_columns, unit_rows

POWERS = (-1000, -600, 0, 600, 1000)


@pytest.mark.parametrize("power", POWERS)
def test_directions_keep_every_bit_and_lengths_move_by_the_power(power, rng):
    rows = rng.standard_normal((6, 3))
    unit, length = unit_rows(np.ldexp(rows, power))
    np.testing.assert_array_equal(unit, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    np.testing.assert_array_equal(length, np.ldexp(np.linalg.norm(rows, axis=1), power))
    np.testing.assert_array_equal(unit_columns(np.ldexp(rows.T, power)), unit.T)


def test_zero_rows_stay_zero_and_subnormal_ones_do_not():
    unit, length = unit_rows(np.asarray([[0.0, 0.0], [5e-324, 5e-324]]))
    np.testing.assert_allclose(unit, [[0.0, 0.0], [0.5**0.5, 0.5**0.5]])
    assert length[0] == 0.0 < length[1]


def test_a_row_with_a_nan_is_nan():
    unit, length = unit_rows(np.asarray([[1.0, np.nan], [3.0, 4.0]]))
    assert np.isnan(unit[0]).any()
    assert np.isnan(length[0])
    np.testing.assert_allclose(unit[1], [0.6, 0.8])


def test_scaled_vectors_lie_between_a_half_and_one(rng):
    array = np.ldexp(rng.standard_normal((3, 5)), [[-900], [0], [900]])
    for axis in (0, 1):
        largest = np.max(np.abs(scaled(array, axis)), axis=axis)
        assert np.all((largest >= 0.5) & (largest < 1.0))
    assert exponents(np.zeros((2, 3))) == 0
    assert exponents(np.asarray([0.75, 3.0])) == 2
