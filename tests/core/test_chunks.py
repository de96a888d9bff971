"""Rows in batches give what all rows at once give."""

import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu.programs.certificates
import jaxrelu.programs.program
from jaxrelu.core.chunks import in_chunks, sum_in_chunks
from jaxrelu.programs.bounds import all_blocks, fit_of
from jaxrelu.programs.program import fit


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_chunks_change_nothing(batch):
    values = jnp.arange(35.0).reshape(7, 5)

    def double_and_sum(arrays):
        assert arrays[0].shape == (batch, 5)
        return 2.0 * arrays[0], arrays[1] + jnp.sum(arrays[0], axis=1)

    doubled, sums = in_chunks(double_and_sum, (values, jnp.ones(7)), batch)
    np.testing.assert_array_equal(doubled, 2.0 * values)
    np.testing.assert_array_equal(sums, 1.0 + values.sum(axis=1))


@pytest.mark.parametrize("batch", [1, 3, 7, 9])
def test_sums_of_chunks_count_every_row_once(batch):
    values = jnp.arange(35.0).reshape(7, 5)

    def total(arrays, real):
        return jnp.sum(jnp.where(real[:, None], arrays, 0.0), axis=0)

    found = sum_in_chunks(total, values, batch)
    np.testing.assert_array_equal(found, values.sum(axis=0))


def test_the_fit_in_chunks_is_the_fit(monkeypatch):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(zoo.problem(zoo.generic).program.block_shape + (zoo.FEATURES,))
    program = zoo.problem(zoo.generic).program
    blocks = all_blocks(jnp.asarray(weights))
    whole = fit(program, weights), *fit_of(program, blocks)
    for module in (jaxrelu.programs.program, jaxrelu.programs.bounds):
        monkeypatch.setattr(module, "chunk_size", lambda width: 3)
    parts = fit(program, weights), *fit_of(program, blocks)
    for some, other in zip(parts[:2], whole[:2], strict=True):
        np.testing.assert_allclose(some, other, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole[1], whole[0], rtol=1e-12, atol=1e-12)
    # Sums of sums round less often.
    assert (parts[2] > 0).all()
    assert (parts[2] <= 1.01 * whole[2]).all()
