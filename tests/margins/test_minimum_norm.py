"""Least weights that fit exactly."""

import numpy as np
import pytest
from margin_checks import EPS, largest_correlation, oracle, shaped, symmetric

import jaxrelu as jr
from jaxrelu.margins.alternatives import fit_space, nearest_fit
from jaxrelu.margins.minimum_norm import minimum_norm


@pytest.mark.slow
def test_interpolating_orthonormal_rows_costs_both_signs():
    y = np.asarray([3.0, 4.0, -2.0])
    found = minimum_norm(*shaped(np.eye(3), y))
    np.testing.assert_allclose(found.value, 5.0 + 2.0, rtol=1e-9)


def test_rows_in_symmetric_pairs_are_not_representable():
    rng = np.random.default_rng(6)
    X, y = symmetric(rng.standard_normal((2, 2))), rng.standard_normal(6)
    X, y, patterns = shaped(X, y)
    found = minimum_norm(X, y, patterns)
    assert not bool(found.representable)
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    nu = np.asarray(found.farkas)
    assert y @ nu > 1e-2
    assert largest_correlation(X, patterns.masks, nu) < 1e-12
    # The odd part of a network is linear: f(x) - f(-x) over x, z, x + z has one relation.
    relation = np.asarray([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
    residual = y[:6] - found.fit[:6]
    np.testing.assert_allclose(relation @ found.fit[:6], 0.0, atol=1e-12)
    np.testing.assert_allclose(residual, relation * (relation @ y[:6]) / 6, atol=1e-12)
    np.testing.assert_allclose(found.network(X), found.fit, atol=1e-10)
    np.testing.assert_allclose(
        found.value, oracle(X[:6], np.asarray(found.fit)[:6], patterns.masks[:6], False), rtol=1e-6
    )


@pytest.mark.parametrize(("X", "y"), [
    ([[1.0, 0.0], [1.0, 1e-7]], [1.0, -1.0]),
    ([[1.0, 0.0], [0.0, 1e-9]], [1.0, 1.0]),
])  # fmt: skip
def test_a_fit_that_is_missed_is_not_called_the_minimum(X, y):
    found = minimum_norm(*shaped(X, y))
    if jr.Status(int(found.status)) is jr.Status.OPTIMAL:
        np.testing.assert_allclose(found.network(shaped(X, y)[0]), found.fit, atol=1e-5)
    assert found.lower <= found.upper * (1 + 1e-6)


def test_rows_of_very_different_lengths_fit_what_they_fit():
    X = np.asarray([[0.0, 1.0], [1.0, 1.0], [1e10, 0.0]])
    space = fit_space(X, np.ones((3, 1), bool), EPS)
    assert nearest_fit(space, X @ np.asarray([0.0, 1.0]))[1] is None
