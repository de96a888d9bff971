"""Whitened data and several outputs: known answers, duality, networks that are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_form_checks import orthonormal

import jaxrelu as jr
from jaxrelu import closed_form


def one_hot(sizes):
    return np.repeat(np.eye(len(sizes)), sizes, axis=0)


def check(found, X, Y, lam):
    np.testing.assert_allclose(found.network(X), found.fit, atol=1e-12)
    objective = jr.nonconvex_objective(found.network, X, Y, lam)
    np.testing.assert_allclose(found.value, objective, rtol=1e-12)
    np.testing.assert_allclose(found.residual, Y - found.fit, atol=1e-12)
    assert found.exact
    assert abs(found.gap) <= 1e-10 * found.value
    norms = (
        np.linalg.norm(found.network.hidden, axis=0),
        np.linalg.norm(found.network.output, axis=1),
    )
    np.testing.assert_allclose(*norms, rtol=1e-9)


@pytest.mark.parametrize("sizes", [(4, 2, 3), (2, 2, 2), (3, 3, 1), (1, 6)])
def test_classes_have_a_known_answer(rng, sizes):
    n, lam = sum(sizes), 1.2
    X, Y = orthonormal(rng, n, n + 2), one_hot(sizes)
    order = rng.permutation(n)
    found = closed_form.soft_thresholded_svd(X, Y[order], lam)
    check(found, X, Y[order], lam)
    roots = np.sqrt(sizes)
    known = np.sum(0.5 * np.asarray(sizes) - 0.5 * np.maximum(roots - lam, 0.0) ** 2)
    np.testing.assert_allclose(found.value, known, rtol=1e-12)
    assert found.network.num_neurons == np.sum(roots > lam)
    # Each neuron sees the samples of its class alone, all of them alike.
    active = np.maximum(X @ np.asarray(found.network.hidden), 0.0) > 1e-9
    np.testing.assert_array_equal(
        active.sum(axis=0), np.sort([s for s in sizes if s**0.5 > lam])[::-1]
    )


def test_any_nonnegative_vectors_with_any_outputs(rng):
    # Columns that share no sample, right vectors of any sign; what is below lam may have any signs.
    p = np.zeros((6, 3))
    p[:3, 0], p[3:5, 1], p[5, 2] = [2.0, 1.0, 2.0], [1.0, 3.0], 1.0
    p /= np.linalg.norm(p, axis=0)
    g = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    rest = np.linalg.qr(np.column_stack([p, rng.standard_normal((6, 1))]))[0][:, 3]
    Y = (p * [3.0, -2.0, 2.0]) @ g[:3] + 0.4 * np.outer(rest, g[3])
    X, lam = orthonormal(rng, 6, 6), 0.5
    found = closed_form.soft_thresholded_svd(X, Y, lam)
    check(found, X, Y, lam)
    np.testing.assert_allclose(np.linalg.svd(found.fit)[1][:4], [2.5, 1.5, 1.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.polar, lam, rtol=1e-12)
    u = rng.standard_normal((6, 20_000))
    seen = np.asarray(found.residual).T @ np.maximum(X @ (u / np.linalg.norm(u, axis=0)), 0.0)
    assert np.max(np.linalg.norm(seen, axis=0)) <= lam * (1 + 1e-12)


def test_one_column_is_the_closed_form_of_one_output(rng):
    X, y = orthonormal(rng, 4, 5), np.asarray([2.0, 1.0, 0.5, 0.4])
    found = closed_form.soft_thresholded_svd(X, y[:, None], 0.3)
    one = closed_form.whitened(X, y, 0.3)
    np.testing.assert_allclose(found.value, one.value, rtol=1e-12)
    np.testing.assert_allclose(found.fit[:, 0], one.fit, rtol=1e-12)


def test_no_training_run_is_better(rng):
    X, Y, lam = orthonormal(rng, 5, 5), one_hot((3, 2)), 0.6
    found = closed_form.soft_thresholded_svd(X, Y, lam)

    def objective(layers):
        return jr.nonconvex_objective(jr.Network(*layers), X, Y, lam)

    @jax.jit
    def descend(layers):
        def step(_, at):
            return jax.tree.map(lambda a, b: a - 0.05 * b, at, jax.grad(objective)(at))

        return objective(jax.lax.fori_loop(0, 4000, step, layers))

    starts = (
        jnp.asarray(rng.standard_normal((20, 5, 8))),
        jnp.asarray(rng.standard_normal((20, 8, 2))),
    )
    values = jax.vmap(descend)(starts)
    assert np.min(values) >= found.value * (1 - 1e-9)
    np.testing.assert_allclose(np.min(values), found.value, rtol=1e-4)


def test_a_large_lam_leaves_nothing(rng):
    X, Y = orthonormal(rng, 4, 4), one_hot((2, 2))
    found = closed_form.soft_thresholded_svd(X, Y, 2.0)
    assert found.network.output.shape == (0, 2)
    assert found.value == found.lower == 2.0


@pytest.mark.parametrize("exponent", [-400, 400])
def test_targets_of_any_size(rng, exponent):
    X, Y, scale = orthonormal(rng, 5, 6), one_hot((3, 2)), 2.0**exponent
    found = closed_form.soft_thresholded_svd(X, scale * Y, scale * 0.5)
    one = closed_form.soft_thresholded_svd(X, Y, 0.5)
    np.testing.assert_allclose(found.fit / scale, one.fit, atol=1e-14)
    np.testing.assert_allclose(found.value / scale / scale, one.value, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("values", [(3.0, 2.0), (2.0, 2.0)])
@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_targets_with_noise_of_their_dtype(rng, dtype, values, lam):
    # With lam at a value, repeated or not, no rotation of its vectors matters.
    n, digits = 6, 1e-9 if dtype == "float64" else 1e-5
    p = np.zeros((n, 2))
    p[:4, 0], p[4:, 1] = [1e-4, 2.0, 1.0, 2.0], [1.0, 3.0]
    p /= np.linalg.norm(p, axis=0)
    known = sum(0.5 * s**2 - 0.5 * max(s - lam, 0.0) ** 2 for s in values)
    for _ in range(20):
        g = np.linalg.qr(rng.standard_normal((3, 3)))[0][:2]
        X = orthonormal(rng, n, n).astype(dtype)
        found = closed_form.soft_thresholded_svd(X, ((p * values) @ g).astype(dtype), lam)
        np.testing.assert_allclose(found.value, known, rtol=digits)
        np.testing.assert_allclose(found.lower, known, rtol=digits)
        assert found.network.num_neurons == sum(s > lam for s in values)
        np.testing.assert_allclose(found.network(X), found.fit, atol=digits)


def test_weights_out_of_range(rng):
    X = orthonormal(rng, 3, 3).astype("float32")
    with pytest.raises(ValueError, match="out of the range of float32"):
        closed_form.soft_thresholded_svd(X, 1e100 * np.eye(3), 1e99)


def test_float32(rng):
    X, Y = orthonormal(rng, 6, 8).astype("float32"), one_hot((3, 3)).astype("float32")
    found = closed_form.soft_thresholded_svd(X, Y, 0.4)
    assert found.network.hidden.dtype == found.fit.dtype == np.float32
    np.testing.assert_allclose(found.value, 3.0 - (3**0.5 - 0.4) ** 2, rtol=1e-5)
    assert found.exact


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Y": np.asarray([[1.0, 2.0], [-1.0, 1.0]])}, "mixed signs"),
        ({"Y": np.ones(2)}, r"pass a matrix \(n, c\)|Y has shape"),
        ({"Y": np.ones((3, 2))}, "Y has shape"),
        ({"X": 2 * np.eye(2)}, "differs from the identity"),
        ({"lam": 0.0}, "lam is 0"),
        ({"Y": np.asarray([[np.nan, 0.0], [0.0, 1.0]])}, "Y"),
    ],
)
def test_bad_input_names_the_fix(change, sentence):
    given = {"X": np.eye(2), "Y": np.eye(2), "lam": 0.5, **change}
    with pytest.raises(ValueError, match=sentence):
        closed_form.soft_thresholded_svd(**given)
