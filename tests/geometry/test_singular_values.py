"""Singular values: the threshold, its derivative, and bounds that hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.geometry.singular_values import (
    nuclear_norm_bounds,
    spectral_norm_bounds,
    tall,
    threshold,
)

KEY = np.random.default_rng(0)
# Singular values apart, repeated, zero, above and below the level of one.
MATRICES = np.stack(
    [
        KEY.standard_normal((6, 3)),
        np.linalg.qr(KEY.standard_normal((6, 3)))[0] * 2.0,
        np.outer(KEY.standard_normal(6), KEY.standard_normal(3)),
        np.zeros((6, 3)),
        0.01 * KEY.standard_normal((6, 3)),
    ]
)


def test_threshold_lowers_singular_values():
    found = threshold(jnp.asarray(MATRICES), jnp.asarray(1.0))
    for given, lowered in zip(MATRICES, found.matrices(), strict=True):
        left, sizes, right = np.linalg.svd(given, full_matrices=False)
        expected = (left * np.maximum(sizes - 1.0, 0.0)) @ right
        np.testing.assert_allclose(lowered, expected, atol=1e-12)
    sizes = np.linalg.svd(MATRICES, compute_uv=False)
    np.testing.assert_allclose(
        np.sum(found.sizes(), axis=1), np.sum(np.maximum(sizes - 1.0, 0.0), axis=1), atol=1e-12
    )


def test_its_derivative_is_that_of_differences():
    change, step = KEY.standard_normal(MATRICES.shape), 1e-6
    level = jnp.asarray(1.0)
    found = threshold(jnp.asarray(MATRICES), level).derivative(jnp.asarray(change))
    ends = [threshold(jnp.asarray(MATRICES + s * change), level).matrices() for s in (step, -step)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), atol=1e-7)
    # Self-adjoint, as the derivative of a proximal map is.
    other = KEY.standard_normal(MATRICES.shape)
    back = threshold(jnp.asarray(MATRICES), level).derivative(jnp.asarray(other))
    np.testing.assert_allclose(np.sum(found * other), np.sum(back * change), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_bounds_hold_and_are_close(dtype, shape):
    given = MATRICES.reshape(-1, *shape).astype(dtype)
    sizes = np.linalg.svd(given.astype(np.float64), compute_uv=False)
    near = 200 * np.finfo(dtype).eps
    for bounds, exact in (
        (spectral_norm_bounds(jnp.asarray(given)), sizes[:, 0]),
        (nuclear_norm_bounds(jnp.asarray(given)), np.sum(sizes, axis=1)),
    ):
        assert np.all(np.asarray(bounds, np.float64) >= exact)
        np.testing.assert_allclose(bounds, exact, rtol=near, atol=1e-30)


def test_tall_matrices_are_left_alone():
    assert tall(jnp.zeros((2, 5, 3))).shape == (2, 5, 3)
    assert tall(jnp.zeros((2, 3, 5))).shape == (2, 5, 3)
    assert jax.eval_shape(tall, jnp.zeros((0, 3, 5))).shape == (0, 5, 3)
