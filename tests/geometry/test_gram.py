"""Sums of outer products against the matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.geometry import gram
from jaxrelu.geometry.gram import shared_rows


@pytest.fixture(params=["kept", "formed again", "many features"])
def data(request, monkeypatch):
    """Rows, one of them zero; outer products kept, formed some samples at a time, or not needed."""
    if request.param == "many features":
        monkeypatch.setattr(gram, "_MANY_FEATURES", 4)
        monkeypatch.setattr(gram, "_MOST_KEPT", 70)  # seven samples at a time
    if request.param == "formed again":
        monkeypatch.setattr(gram, "_MOST_KEPT", 0)
        monkeypatch.setattr(gram, "_SAMPLES_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 4)) * rng.uniform(0.1, 10.0, (20, 1))
    X[3] = 0.0
    return X, rng


def test_gram_sums_unit_outer_products(data):
    X, rng = data
    weights = rng.standard_normal((3, 20))
    length = np.linalg.norm(X, axis=1, keepdims=True)
    unit = np.divide(X, length, out=np.zeros_like(X), where=length > 0)
    expected = np.einsum("bi,ij,ik->bjk", weights, unit, unit)
    rows = shared_rows(jnp.asarray(X))
    np.testing.assert_allclose(rows.gram(jnp.asarray(weights)), expected, atol=1e-12)
    batched = jax.vmap(rows.gram)(jnp.asarray(weights)[:, None])[:, 0]
    np.testing.assert_allclose(batched, expected, atol=1e-12)


def test_coupling_is_the_gram_matrix_of_the_blocks(data):
    X, rng = data
    signed = rng.choice([-1.0, 0.0, 1.0], (5, 20))
    curvature = rng.uniform(0.0, 2.0, 20)
    A = (signed.T[:, :, None] * X[:, None, :]).reshape(20, -1)
    expected = A.T @ (curvature[:, None] * A)
    coupling = shared_rows(jnp.asarray(X)).coupling(jnp.asarray(signed), jnp.asarray(curvature))
    np.testing.assert_allclose(coupling.reshape(20, 20), expected, atol=1e-10)


def test_rows_of_newcomers_complete_the_coupling(data):
    X, rng = data
    before = rng.choice([-1.0, 0.0, 1.0], (5, 20))
    after, changed = before.copy(), np.asarray([3, 1, 1, 1])
    after[3], after[1] = rng.choice([-1.0, 1.0], 20), 0.0
    curvature, shared = jnp.asarray(rng.uniform(0.0, 2.0, 20)), shared_rows(jnp.asarray(X))
    expected = shared.coupling(jnp.asarray(after), curvature)
    some = shared.cross_coupling(jnp.asarray(after[changed]), jnp.asarray(after), curvature)
    found = shared.coupling(jnp.asarray(before), curvature).at[changed].set(some)
    found = found.at[:, :, changed].set(some.transpose(2, 3, 0, 1))
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("many_features", [3, 99], ids=["plain", "packed"])
@pytest.mark.parametrize("changes", [2, 60], ids=["few", "many"])
def test_a_gram_matrix_is_brought_up_to_date(changes, many_features, monkeypatch):
    monkeypatch.setattr(gram, "_MANY_FEATURES", many_features)
    rng = np.random.default_rng(3)
    rows = shared_rows(jnp.asarray(rng.standard_normal((64, 3))))
    before = rng.integers(0, 2, (5, 64)).astype(float)
    after = before.copy()
    # Two of the samples for some blocks, or so many that all are passed again.
    after[:3, rng.permutation(64)[:changes]] = 1.0
    after[4, 63] = 1.0 - before[4, 63]
    matrix = rows.gram(jnp.asarray(before))
    found = jax.jit(rows.updated_gram)(matrix, jnp.asarray(before), jnp.asarray(after))
    np.testing.assert_allclose(found, rows.gram(jnp.asarray(after)), rtol=1e-12, atol=1e-12)
