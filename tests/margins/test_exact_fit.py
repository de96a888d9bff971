"""Weights moved to a fit that they nearly have."""

import numpy as np
from margin_checks import random_labels

import jaxrelu as jr
from jaxrelu.margins.exact_fit import exact_fit


def test_exact_fits_keep_the_cones(rng):
    X, y = random_labels(4)
    patterns = jr.enumerate_patterns(X)
    masks, witness = np.asarray(patterns.masks, bool), np.asarray(patterns.interior).T
    correct = exact_fit(X, masks, witness)

    def check(theta, fit):
        signs = np.where(masks, 1.0, -1.0).T
        assert np.min(signs[None] * (theta @ X.T)) >= -1e-13 * np.max(np.abs(theta))
        found = np.sum(masks * (X @ (theta[0] - theta[1]).T), axis=1)
        np.testing.assert_allclose(found, fit, atol=1e-12)

    # From nothing, every block is needed.
    nothing = np.zeros((2, *witness.shape))
    check(correct(nothing, y), y)
    # From four blocks with nearly the fit, the four are enough, and what is negligible goes.
    theta = nothing.copy()
    few = [0, 3, 15, 20]
    assert np.linalg.matrix_rank(np.hstack([masks[:, [j]] * X for j in few])) == 6
    theta[0, few], theta[1, 9] = witness[few], 1e-9 * witness[9]
    fit = np.sum(masks * (X @ (theta[0] - theta[1]).T), axis=1) + 1e-4 * rng.standard_normal(6)
    moved = correct(theta, fit)
    check(moved, fit)
    assert np.count_nonzero(np.any(moved != 0, axis=-1)) == 4
    assert np.max(np.abs(moved - theta)) < 1e-2
    # Far from the fit they would leave their cones.
    check(correct(theta, -10.0 * fit), -10.0 * fit)
