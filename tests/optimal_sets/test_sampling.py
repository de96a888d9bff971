"""Hit-and-run: uniform on polytopes whose moments are known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelu as jr


def simplex(k):
    """The optimal set {a >= 0 : sum a = 1}, as it would be with k features on one sample."""
    interior = jnp.full(k, 1.0 / k)
    basis = jnp.asarray(np.linalg.svd(np.ones((1, k)))[2][1:].T)
    ones = jnp.ones(k)
    return jr.OptimalSet(
        jnp.ones((k, 1)), ones, jnp.ones((1, k)), interior, interior, ones / k, ones > 0, basis,
        None, jnp.arange(k), jnp.ones((1, 1)), jnp.ones(1) > 0, *[jnp.ones(1)] * 4,
        jnp.asarray(1.0),
        1, k - 1, False, 1, True, False,
    )  # fmt: skip


def test_a_simplex_is_sampled_uniformly():
    k = 6
    samples = np.asarray(jr.sample_optimal(jax.random.key(0), simplex(k), 8000))
    assert np.all(samples >= 0)
    np.testing.assert_allclose(samples.sum(axis=1), 1.0, atol=1e-12)
    size = np.asarray(jr.effective_sample_size(samples))
    assert np.all(size > 300)
    # Dirichlet(1, ..., 1): variance (k - 1) / (k^2 (k + 1)), P(a_1 > t) = (1 - t)^(k - 1).
    spread = np.sqrt((k - 1) / (k**2 * (k + 1)))
    assert np.all(np.abs(samples.mean(axis=0) - 1 / k) < 5 * spread / np.sqrt(size))
    np.testing.assert_allclose(samples.std(axis=0), spread, rtol=0.08)
    for t in (0.1, 0.3):
        assert np.mean(samples > t) == pytest.approx((1 - t) ** (k - 1), abs=0.02)


def test_a_cube_is_sampled_uniformly():
    # a_i + b_i = 1 for i = 1, 2, 3, and a direction that no member uses.
    d = 3
    features = np.hstack([np.eye(d), np.eye(d), np.ones((d, 1))])
    used = np.arange(2 * d + 1) < 2 * d
    interior = jnp.asarray(np.where(used, 0.5, 0.0))
    basis = np.vstack([np.eye(d), -np.eye(d), np.zeros((1, d))]) / 2**0.5
    ones = jnp.ones(2 * d + 1)
    cube = replace(
        simplex(3), directions=ones[:, None], signs=ones, features=jnp.asarray(features),
        coefficients=interior, interior=interior, fewest=interior, support=jnp.asarray(used),
        basis=jnp.asarray(basis), direction_of=jnp.arange(2 * d + 1), X=jnp.ones((d, 1)),
        counts=jnp.ones(d) > 0, fit=jnp.ones(d), fit_low=jnp.ones(d), fit_high=jnp.ones(d),
        residual=jnp.ones(d), rank=d, dimension=d,
    )  # fmt: skip
    samples = np.asarray(jr.sample_optimal(jax.random.key(0), cube, 6000))
    np.testing.assert_array_equal(samples[:, -1], 0.0)
    np.testing.assert_allclose(samples @ features.T, 1.0, atol=1e-12)
    sides = samples[:, :d]
    for t in (0.1, 0.5, 0.8):
        np.testing.assert_allclose(np.mean(sides < t, axis=0), t, atol=0.04)
    np.testing.assert_allclose(np.cov(sides.T), np.eye(d) / 12, atol=0.006)


def test_chains_thinning_and_keys():
    few = jr.sample_optimal(jax.random.key(1), simplex(3), 10, num_chains=4, thinning=3, burn_in=0)
    assert few.shape == (10, 3)
    same = jr.sample_optimal(jax.random.key(1), simplex(3), 10, num_chains=4, thinning=3, burn_in=0)
    np.testing.assert_array_equal(few, same)
    with pytest.raises(ValueError, match="num_chains is 0"):
        jr.sample_optimal(jax.random.key(1), simplex(3), 10, num_chains=0)
    with pytest.raises(ValueError, match="burn_in is -1"):
        jr.sample_optimal(jax.random.key(1), simplex(3), 10, burn_in=-1)


def test_effective_sample_size_of_known_chains():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4000, 2))
    independent = np.asarray(jr.effective_sample_size(noise, num_chains=4))
    np.testing.assert_allclose(independent, 4000, rtol=0.15)
    # An autoregression with coefficient c is worth (1 - c) / (1 + c) of its length.
    chains = np.zeros((4000, 4))
    for i in range(1, 4000):
        chains[i] = 0.8 * chains[i - 1] + rng.standard_normal(4)
    size = float(jr.effective_sample_size(chains.reshape(-1, 1), num_chains=4)[0])
    assert size == pytest.approx(16000 / 9, rel=0.2)
    with pytest.raises(ValueError, match="too few"):
        jr.effective_sample_size(noise[:8], num_chains=4)
