"""Local search: the directions that it names, on columns of any units."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

import jaxrelu as jr
from jaxrelu.global_optimality.local_training import train_from


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 3, 5])
def test_columns_of_any_units_are_trained(seed):
    """Eight random neurons come close to three planted ones, in units 2^14 apart."""
    rng = np.random.default_rng(seed)
    Z, units = rng.standard_normal((60, 3)), np.array([2.0**-5, 2.0**9, 1.0])
    X, y = Z * units, np.maximum(Z @ rng.standard_normal((3, 3)), 0.0) @ [1.0, -1.0, 1.0]
    patterns = jr.Patterns(np.ones((3, 2)), np.ones((60, 2), bool))  # not looked at
    program = jr.ConvexProgram(X, y, patterns)
    starts = rng.standard_normal((8, 3)) / units
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)

    def left(directions):
        """What the best output weights leave of y, relative."""
        features = np.maximum(X @ directions.T, 0.0)
        return nnls(np.hstack([features, -features]), y)[1] / np.linalg.norm(y)

    found = train_from(program, jnp.asarray(1e-3), np.zeros((2, 2, 3)), y, starts, 8, rng)
    assert left(found) < 0.05 < left(starts)
