"""The projection onto one cone, and non-negative least squares, of any scale."""

from itertools import combinations

import numpy as np
import pytest

from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.projection import block_correlation, cone_rows, project
from jaxrelu.geometry.host.scaling import unit_rows


def by_faces(rows, point):
    """The nearest of the projections onto the null spaces of subsets of rows that are feasible."""
    best = np.zeros_like(point)
    for size in range(len(rows) + 1):
        for chosen in combinations(range(len(rows)), size):
            walls = rows[list(chosen)]
            candidate = point - np.linalg.pinv(walls) @ (walls @ point) if size else point
            inside = np.min(rows @ candidate, initial=0.0) >= -1e-12
            if inside and np.linalg.norm(candidate - point) < np.linalg.norm(best - point):
                best = candidate
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_nearest_point_of_a_cone(seed):
    rng = np.random.default_rng(seed)
    rows, point = rng.standard_normal((5, 3)), rng.standard_normal(3)
    rows[4] = 2.0 * rows[0]  # parallel rows are one wall
    np.testing.assert_allclose(project(rows, point), by_faces(rows, point), atol=1e-12)


@pytest.mark.parametrize("power", [-500, -50, 50, 500])
def test_a_projection_scales_with_its_point_and_not_with_its_rows(power, rng):
    rows, point = rng.standard_normal((6, 3)), rng.standard_normal(3)
    expected = project(rows, point)
    np.testing.assert_array_equal(project(rows, np.ldexp(point, power)), np.ldexp(expected, power))
    np.testing.assert_array_equal(project(np.ldexp(rows, power), point), expected)


def test_a_block_correlation_is_the_largest_value_on_its_cone(rng):
    X, mask, pull = rng.standard_normal((7, 3)), rng.random(7) < 0.5, rng.standard_normal(7)
    X[6] = 0.0
    mask = X @ rng.standard_normal(3) > 0
    q = block_correlation(X, unit_rows(X)[0], mask, pull)
    assert np.min(cone_rows(mask, X) @ q) >= -1e-13
    inside = rng.standard_normal((20_000, 3))
    inside /= np.linalg.norm(inside, axis=1, keepdims=True)
    inside = inside[np.all(inside @ cone_rows(mask, X).T >= 0, axis=1)]
    values = np.maximum(inside @ X.T, 0.0) @ pull
    assert len(inside) > 50
    assert 0.9 * np.linalg.norm(q) <= np.max(values) <= np.linalg.norm(q) * (1 + 1e-12)


@pytest.mark.parametrize("power", [-700, -60, 60, 700])
def test_least_squares_of_columns_and_targets_of_any_scale(power, rng):
    A, b = rng.standard_normal((6, 4)), rng.standard_normal(6)
    x, distance = nonnegative_least_squares(A, b)
    mixed = power * np.asarray([1, 0, 0, -1])
    y, same = nonnegative_least_squares(np.ldexp(A, mixed), b)
    np.testing.assert_array_equal(y, np.ldexp(x, -mixed))
    assert same == distance
    z, scaled = nonnegative_least_squares(A, np.ldexp(b, power))
    np.testing.assert_array_equal(z, np.ldexp(x, power))
    assert scaled == np.ldexp(distance, power)
