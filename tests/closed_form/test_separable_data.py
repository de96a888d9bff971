"""Orthogonally separable data."""

import numpy as np
import pytest
from closed_form_checks import circle, seen

from jaxrelu import closed_form


def two_classes(rng, n=8):
    """Rows in two opposite quadrants."""
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    return np.abs(rng.standard_normal((n, 2))) * y[:, None] + 0.05 * y[:, None], y


def test_orthogonally_separable_data(rng):
    for _ in range(5):
        X, y = two_classes(rng)
        found = closed_form.separable(X, y)
        assert abs(found.gap) <= 1e-12 * found.value
        assert np.min(y * np.asarray(found.network(X))) >= 1 - 1e-12
        squares = np.sum(np.asarray(found.network.hidden) ** 2)
        squares += np.sum(np.asarray(found.network.output) ** 2)
        np.testing.assert_allclose(0.5 * squares, found.value, rtol=1e-12)
        dual = np.asarray(found.dual)
        assert np.min(y * dual) >= 0
        # The dual point is feasible whatever the theorem says: so the value is the optimum.
        assert np.max(np.abs(dual @ seen(X, circle()))) <= 1 + 1e-9
        np.testing.assert_allclose(closed_form.separable(4 * X, y).value, found.value / 4)


def test_orthogonally_separable_known_answer():
    X = np.asarray([[1.0, 1.0], [3.0, 1.0], [-2.0, 0.0]])
    found = closed_form.separable(X, np.asarray([1.0, 1.0, -1.0]))
    np.testing.assert_allclose(found.value, 1 / 2**0.5 + 0.5, rtol=1e-12)
    alone = closed_form.separable(X[:2], np.ones(2))
    assert alone.network.num_neurons == 1
    np.testing.assert_allclose(alone.value, 1 / 2**0.5, rtol=1e-12)


def test_what_is_not_orthogonally_separable_is_named():
    y = np.asarray([1.0, 1.0, -1.0])
    with pytest.raises(ValueError, match="rows 0 and 1 .* inside a class"):
        closed_form.separable(np.asarray([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]]), y)
    with pytest.raises(ValueError, match="rows 0 and 2 .* across the classes"):
        closed_form.separable(np.asarray([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]), y)
    with pytest.raises(ValueError, match="row 1 of X is zero"):
        closed_form.separable(np.asarray([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]), y)
    with pytest.raises(ValueError, match="pass 2 \\* y - 1"):
        closed_form.separable(np.eye(2), np.asarray([1.0, 0.0]))
