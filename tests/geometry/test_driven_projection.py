"""Projections driven from the host: those of the traced functions, and one program for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import BACKEND, compile_events

from jaxrelu.geometry import cones, correlation_bounds, driven_projection
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.geometry.host.projection import block_correlation, cone_rows, project
from jaxrelu.geometry.patterns import sample_patterns

LANES = 32


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((20, 4))


@pytest.fixture(scope="module")
def patterns(X):
    return sample_patterns(jax.random.key(0), X, 70)


@pytest.fixture(scope="module")
def rows(X):
    return jax.jit(shared_rows)(X)


def test_witnesses_in_batches_belong_to_their_patterns(X, patterns):
    masks, gates = np.asarray(patterns.masks), np.asarray(patterns.gates)
    assert masks.shape[1] > LANES
    found, margin = driven_projection.interior_directions(X, masks, gates)
    expected, known = cones.interior_directions(jnp.asarray(X), jnp.asarray(masks), gates)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(margin, known, rtol=1e-9)


def test_more_features_than_samples():
    X = np.random.default_rng(1).standard_normal((5, 9))
    gates = np.random.default_rng(2).standard_normal((9, 6))
    masks = X @ gates >= 0
    found, margin = driven_projection.interior_directions(X, masks, gates)
    expected, known = cones.interior_directions(jnp.asarray(X), jnp.asarray(masks), gates)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(margin, known, rtol=1e-9)


def test_the_largest_correlation_is_that_of_active_sets(X, rows, patterns):
    masks = np.asarray(patterns.masks)
    residual = np.random.default_rng(3).standard_normal(20)
    c = (masks * residual[:, None]).T @ X
    pattern = jnp.arange(masks.shape[1])
    found = driven_projection.largest_correlation(rows, masks, pattern, c)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    lengths = [np.linalg.norm(block_correlation(X, unit, m, residual)) for m in masks.T]
    assert int(found.longest) == int(np.argmax(lengths))
    np.testing.assert_allclose(np.max(found.bound), max(lengths), rtol=1e-9)
    traced = jax.jit(correlation_bounds.largest_correlation)(rows, masks, pattern, c)
    np.testing.assert_allclose(np.max(traced.bound), max(lengths), rtol=1e-9)


def test_repair_is_that_of_the_traced_one(X, rows, patterns):
    masks, interior = np.asarray(patterns.masks)[:, :LANES], np.asarray(patterns.interior)
    signs = np.where(masks.T, 1.0, -1.0)
    witness = interior.T[:LANES]
    weights = witness + 0.3 * np.random.default_rng(4).standard_normal(witness.shape)
    weights[::5] = 0.0
    moved = driven_projection.make_feasible(rows, signs, weights, witness)
    traced = jax.jit(cones.make_feasible)(rows, signs, weights, witness)
    np.testing.assert_allclose(moved, traced, rtol=0, atol=1e-12)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for k in range(1, 4):
        exact = project(cone_rows(masks[:, k], unit), weights[k])
        np.testing.assert_allclose(moved[k], exact, rtol=0, atol=1e-9)


def test_all_of_them_share_one_program(X):
    masks = X @ np.random.default_rng(5).standard_normal((4, 40)) >= 0
    rows = jax.jit(shared_rows)(X)
    gates = np.random.default_rng(5).standard_normal((4, 40))
    jax.clear_caches()
    with compile_events(BACKEND) as compiled:
        interior, _ = driven_projection.interior_directions(X, masks, gates)
        driven_projection.largest_correlation(rows, masks, jnp.arange(40), (masks.T * 1.0) @ X)
        lanes = cones.lanes_at_once(len(X))
        signs = np.where(masks.T[:lanes], 1.0, -1.0)
        driven_projection.make_feasible(rows, signs, gates.T[:lanes], interior.T[:lanes])
    assert sum("_project" in name for name in compiled) == 1
