"""Which samples lie on the wall of a direction."""

import numpy as np
import pytest

from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.geometry.host.walls import EXACT, NEARBY, SOLVED, walls_of

X = np.asarray([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [1.0, 1.0]])


def test_walls_are_where_samples_are_orthogonal_and_zero_samples_have_none():
    directions = np.asarray([[0.0, 3.0], [1.0, -1.0], [1.0, 2.0], [0.0, 0.0]])
    expected = [
        [True, False, False, False],
        [False, False, False, True],
        [False, False, False, False],
        [True, True, False, True],  # a direction of length zero
    ]
    unit = unit_rows(X)[0]
    np.testing.assert_array_equal(walls_of(unit, directions, EXACT), expected)
    np.testing.assert_array_equal(walls_of(unit, directions[1], EXACT), expected[1])


@pytest.mark.parametrize("power", [-700, 0, 700])
def test_near_is_a_cosine_whatever_the_lengths_are(power):
    unit = unit_rows(np.ldexp(X, -power))[0]
    for distance, tolerances in ((5e-5, [NEARBY]), (5e-8, [NEARBY, SOLVED]), (1e-13, None)):
        direction = np.ldexp(np.asarray([distance, 1.0]), power)
        for tolerance in (EXACT, SOLVED, NEARBY):
            found = walls_of(unit, direction, tolerance)
            assert found[0] == (tolerances is None or tolerance in tolerances)


def test_a_direction_that_is_no_number_lies_on_no_wall():
    assert not walls_of(unit_rows(X)[0], np.asarray([np.nan, 1.0]), NEARBY).any()
