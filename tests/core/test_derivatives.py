"""Tangents that say where there is no derivative, in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.core.derivatives import (
    excess,
    first_order,
    held,
    jump_at_zero,
    known_where,
    largest,
    longest,
    nowhere,
    still,
)


def transposed(linear, like, cotangent):
    return jax.linear_transpose(linear, like)(cotangent)[0]


def both_modes(function, point, direction):
    """The tangent along a direction and the gradient of a scalar function."""
    _, linear = jax.linearize(function, point)
    return linear(direction), transposed(linear, point, jnp.ones(()))


def test_nan_is_handed_on_and_zero_cotangents_stay_zero():
    x, known = jnp.asarray([1.0, 2.0, 0.0]), jnp.asarray([True, False, False])
    np.testing.assert_array_equal(known_where(known, x), [1.0, np.nan, np.nan])
    for cotangent, expected in (
        ([3.0, 0.0, 0.0], [3.0, 0.0, 0.0]),
        ([1.0, 1.0, 0.0], [1, np.nan, 0]),
    ):
        found = transposed(lambda v: known_where(known, v), x, jnp.asarray(cotangent))
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(held(known, x), [1.0, np.nan, 0.0])


def test_rows_that_must_not_move_are_told_even_where_what_is_asked_for_cancels():
    free = jnp.asarray([[True, True, False], [True, True, True]])

    def moved(rows):
        return still(free, rows, 2)

    rows = jnp.zeros((3, 4)).at[0, 0].set(1.0)
    np.testing.assert_array_equal(moved(rows), np.zeros((2, 2)))
    found = moved(rows.at[2].set(jnp.asarray([1.0, -1.0, 0.0, 0.0])))
    np.testing.assert_array_equal(np.isnan(found), [[True, True], [False, False]])
    back = transposed(moved, rows, jnp.asarray([[1.0, -1.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(np.isnan(back).any(axis=1), [False, False, True])
    back = transposed(moved, rows, jnp.asarray([[0.0, 0.0], [1.0, -1.0]]))
    np.testing.assert_array_equal(back, np.zeros((3, 4)))


def test_nothing_has_a_derivative_nowhere():
    tangents = (jnp.zeros(2), jnp.ones(3))
    assert np.all(np.isnan(nowhere(tangents, jnp.ones(4))))
    back = jax.linear_transpose(lambda *t: nowhere(t, jnp.ones(4)), *tangents)(jnp.ones(4))
    assert all(np.all(np.isnan(leaf)) for leaf in back)


def test_the_largest_moves_alone_or_has_no_derivative():
    tangent, gradient = both_modes(largest, jnp.asarray([1.0, 3.0, 2.0]), jnp.arange(3.0))
    assert float(tangent) == 1.0
    np.testing.assert_array_equal(gradient, [0.0, 1.0, 0.0])
    tied = jnp.asarray([3.0, 3.0, 2.0])
    tangent, gradient = both_modes(largest, tied, jnp.asarray([0.0, 1.0, 0.0]))
    assert np.isnan(tangent)
    np.testing.assert_array_equal(gradient, [np.nan, np.nan, 0.0])
    # What moves neither of them moves no maximum.
    assert float(both_modes(largest, tied, jnp.asarray([0.0, 0.0, 1.0]))[0]) == 0.0


def test_the_longest_moves_by_its_direction_or_has_no_derivative():
    vectors = jnp.asarray([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    tangent, gradient = both_modes(longest, vectors, jnp.ones((3, 2)))
    np.testing.assert_allclose(tangent, 1.4)
    np.testing.assert_allclose(gradient, [[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]])
    tied = vectors.at[1].set(jnp.asarray([5.0, 0.0]))
    tangent, gradient = both_modes(longest, tied, jnp.zeros((3, 2)).at[1].set(1.0))
    assert np.isnan(tangent)
    np.testing.assert_array_equal(np.isnan(gradient).any(axis=1), [True, True, False])
    # Equal vectors that move alike are one; zero has no direction.
    same = jnp.stack([vectors[0], vectors[0]])
    keys = jnp.ones((2, 1))
    found = both_modes(lambda v: longest(v, keys), same, jnp.ones((2, 2)))[0]
    np.testing.assert_allclose(found, 1.4)
    tangent, gradient = both_modes(longest, jnp.zeros((2, 2)), jnp.ones((2, 2)))
    assert np.isnan(tangent)
    assert np.isnan(gradient).any()


@pytest.mark.parametrize(("value", "slope"), [(2.0, 1.0), (-2.0, 0.0), (1e-14, np.nan)])
def test_excess_has_no_derivative_at_zero(value, slope):
    found = both_modes(lambda x: excess(x, 1.0), jnp.asarray(value), jnp.ones(()))
    np.testing.assert_array_equal(found, [slope, slope])


def test_second_derivatives_are_refused_with_a_sentence():
    def curved(x):
        return jnp.sum(first_order("a thing", x) ** 2)

    np.testing.assert_allclose(curved(jnp.ones(2)), 2.0)
    with pytest.raises(TypeError, match="a thing has first derivatives only"):
        jax.grad(curved)(jnp.ones(2))


@pytest.mark.parametrize(("matters", "by_second"), [(True, np.nan), (False, 0.0)])
def test_what_jumps_where_a_row_of_zeros_moves(matters, by_second):
    rows = jnp.asarray([[1.0, 2.0], [0.0, 0.0]])
    first, second = jnp.asarray([[1.0, 0.0], [0.0, 0.0]]), jnp.asarray([[0.0, 0.0], [0.0, 1.0]])

    def function(rows):
        return jnp.sum(rows) + jump_at_zero(rows, jnp.asarray(matters))

    tangent, gradient = both_modes(function, rows, first)
    assert (float(tangent), float(function(rows))) == (1.0, 3.0)
    tangent, _ = both_modes(function, rows, second)
    np.testing.assert_array_equal(tangent, 1.0 + by_second)
    np.testing.assert_array_equal(gradient, [[1.0, 1.0], [1.0 + by_second] * 2])
