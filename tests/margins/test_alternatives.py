"""Which labels and targets can be met at all."""

import numpy as np
import pytest
from margin_checks import EPS, largest_correlation, shaped, symmetric
from scipy.optimize import linprog

import jaxrelu as jr
from jaxrelu.margins.alternatives import fit_space, nearest_fit, separation
from jaxrelu.margins.max_margin import max_margin


@pytest.mark.slow
def test_labels_against_the_odd_part_are_not_separable():
    X = symmetric(np.random.default_rng(6).standard_normal((2, 2)))
    impossible = np.asarray([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
    X, y, patterns = shaped(X, impossible)
    found = max_margin(X, y, patterns)
    assert not bool(found.separable)
    assert jr.Status(int(found.status)) is jr.Status.INFEASIBLE
    nu = np.asarray(found.farkas)
    assert np.all(y * nu >= 0)
    assert np.max(np.abs(nu)) == pytest.approx(1.0)
    assert largest_correlation(X, patterns.masks, nu) < 1e-12
    assert np.isinf(found.value)
    assert float(found.margin) == 0.0
    assert found.network.num_neurons == 0
    y[5::6] = -1.0  # one label less
    found = max_margin(X, y, patterns)
    assert bool(found.separable)
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    np.testing.assert_array_equal(found.farkas, 0.0)


def test_separability_of_all_labels_by_linear_programming():
    # Three lines in the plane and a row of small length: a span of 6 of 7 dimensions.
    X = np.vstack([symmetric(np.asarray([[1.0, 0.2], [0.3, 1.0]])), [[1e-6, -2e-6]]])
    masks = np.asarray(jr.enumerate_patterns(X).masks, bool)
    columns = np.hstack([mask[:, None] * X for mask in masks.T])
    lengths = np.linalg.norm(X, axis=1)
    columns /= lengths[:, None]
    space = fit_space(X, masks, EPS)
    assert space.basis.shape == (7, 6)
    count = 0
    for bits in np.ndindex(*[2] * 7):
        y = 2.0 * np.asarray(bits) - 1
        feasible = linprog(
            np.zeros(columns.shape[1]),
            A_ub=-y[:, None] * columns,
            b_ub=-np.ones(7),
            bounds=(None, None),
        ).success
        nu = separation(space, y)
        assert feasible == (nu is None)
        if nu is not None:
            count += 1
            np.testing.assert_allclose((nu * lengths) @ columns, 0.0, atol=1e-14)
    assert count == 4


def test_parallel_rows_and_zero_rows():
    X = np.asarray([[1.0, 2.0], [2.0, 4.0], [0.5, -1.0]])
    masks = np.asarray(jr.enumerate_patterns(X).masks, bool)
    space = fit_space(X, masks, EPS)
    proof = separation(space, np.asarray([1.0, -1.0, 1.0]))
    np.testing.assert_allclose(proof, [1, -0.5, 0], atol=1e-15)
    assert separation(space, np.ones(3)) is None
    assert nearest_fit(space, np.asarray([1.0, 2.0, -7.0]))[1] is None
    fit, nu = nearest_fit(space, np.asarray([2.0, -1.0, 0.0]))
    np.testing.assert_array_equal(fit, 0.0)
    np.testing.assert_allclose(nu, [2.0, -1.0, 0.0], atol=1e-14)
    X[2] = 0.0
    space = fit_space(X, masks, EPS)
    np.testing.assert_allclose(separation(space, np.ones(3)), [0.0, 0.0, 1.0], atol=1e-12)


def test_many_patterns_span_what_few_columns_span():
    # More columns than twice the rows are combined at random before their rank is taken.
    X = symmetric(np.random.default_rng(0).standard_normal((2, 2)))
    masks = np.asarray(jr.enumerate_patterns(X).masks, bool)
    assert masks.shape[1] * 2 <= 2 * len(X)
    few, many = fit_space(X, masks, EPS), fit_space(X, np.tile(masks, 5), EPS)
    np.testing.assert_allclose(few.basis @ few.basis.T, many.basis @ many.basis.T, atol=1e-12)


def test_near_copies_of_different_labels_are_not_called_inseparable():
    X = np.asarray([[1.0, -1.0], [1.0, 0.0], [1.0, 1e-4], [1.0, 1.0]], "float32")
    labels, masks = np.asarray([-1.0, -1.0, 1.0, 1.0]), np.ones((4, 1), bool)
    space = fit_space(X.astype(float), masks, float(np.finfo("float32").eps))
    assert separation(space, labels) is None
    X[2] = X[1]
    space = fit_space(X.astype(float), masks, float(np.finfo("float32").eps))
    proof = separation(space, labels)
    np.testing.assert_allclose(X.T @ proof, 0.0, atol=1e-6)
