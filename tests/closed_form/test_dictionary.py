"""The lasso over columns."""

import numpy as np

from jaxrelu.closed_form.dictionary import nonnegative_lasso


def test_the_lasso_of_dependent_columns(rng):
    for k in range(30):
        wide = rng.standard_normal((5, 4)) @ rng.standard_normal((4, 12))
        columns = np.hstack([wide, wide[:, :3], np.zeros((5, 1)), 2.0 * wide[:, 3:4]])
        y, lam = rng.standard_normal(5), 10.0 ** -(k % 5)
        a = nonnegative_lasso(columns, y, lam)
        slope = columns.T @ (y - columns @ a) - lam
        assert np.all(a >= 0)
        assert np.max(slope) <= 1e-9 * (1 + lam)
        assert np.max(np.abs(slope[a > 0]), initial=0.0) <= 1e-9 * (1 + lam)
