"""Rows in batches give what all rows at once give."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.batches import in_chunks


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_chunks_change_nothing(batch):
    values = jnp.arange(35.0).reshape(7, 5)

    def double_and_sum(arrays):
        assert arrays[0].shape == (batch, 5)
        return 2.0 * arrays[0], arrays[1] + jnp.sum(arrays[0], axis=1)

    doubled, sums = in_chunks(double_and_sum, (values, jnp.ones(7)), batch)
    np.testing.assert_array_equal(doubled, 2.0 * values)
    np.testing.assert_array_equal(sums, 1.0 + values.sum(axis=1))
