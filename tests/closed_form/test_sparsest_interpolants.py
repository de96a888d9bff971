"""The sparsest and the shortest interpolating networks."""

import numpy as np
import pytest
from closed_form_checks import orthonormal, seen, solved

from jaxrelu import closed_form


def test_whitened_data_have_equal_sparsest_and_shortest_networks(rng):
    X, y = orthonormal(rng, 4, 6), np.asarray([1.0, -2.0, 0.5, -0.3])
    found = closed_form.l0_l1_equivalent(X, y)
    assert found.holds is True
    np.testing.assert_allclose([found.lower, found.upper], 1.0, atol=1e-9)
    np.testing.assert_allclose(found.network(X), y, atol=1e-12)
    np.testing.assert_allclose(found.norm, np.hypot(1.0, 0.5) + np.hypot(2.0, 0.3), rtol=1e-12)


def least_norm(X, y):
    """The least norm of an interpolant, from the general solver at two small lams."""
    half, whole = (solved(X, y, lam)[0] / lam for lam in (5e-4, 1e-3))
    return 2 * half - whole  # p(lam) = lam R - lam^2 ||nu||^2 / 2 for small lam


@pytest.mark.slow
def test_l0_l1_of_random_data_against_the_solver():
    verdicts = set()
    y = np.asarray([1.0, -1.2, 0.7])
    for seed in (0, 1, 2, 5):
        X = np.random.default_rng(seed).standard_normal((3, 5))
        found = closed_form.l0_l1_equivalent(X, y)
        verdicts.add(found.holds)
        assert 1.0 <= found.lower <= found.upper + 1e-12 <= found.lower + 1e-7
        np.testing.assert_allclose(found.network(X), y, atol=1e-10)
        neurons = seen(X, np.asarray(found.network.hidden))
        signs = np.sign(np.asarray(found.network.output))
        unit = neurons / np.linalg.norm(np.asarray(found.network.hidden), axis=0)
        np.testing.assert_allclose(np.asarray(found.dual) @ unit, signs, atol=1e-8)
        tried = np.random.default_rng(0).standard_normal((5, 20_000))
        tried /= np.linalg.norm(tried, axis=0)
        assert np.max(np.abs(np.asarray(found.dual) @ seen(X, tried))) <= found.upper + 1e-9
        shortest = least_norm(X, y)
        assert found.norm / found.upper - 1e-4 <= shortest <= found.norm + 1e-4
        assert (shortest < found.norm - 1e-3) <= (found.holds is False)
    assert False in verdicts


def test_targets_of_one_sign_may_want_two_neurons():
    # Nearly opposite rows: one neuron is long, two are short.
    X = np.asarray([[1.0, 0.0], [-0.9, 0.1]])
    found = closed_form.l0_l1_equivalent(X, np.ones(2))
    assert found.holds is False
    assert found.network.num_neurons == 1
    two = 1.0 + 1.0 / np.hypot(0.9, 0.1)  # one neuron along each row
    np.testing.assert_allclose(found.norm / found.upper, two, rtol=1e-7)
    assert closed_form.l0_l1_equivalent(np.eye(2), np.ones(2)).holds is True
