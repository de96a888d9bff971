"""The multinomial loss: derivative, conjugate, targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import jaxrelu as jr
from jaxrelu.losses.base import total

LOSS = jr.MultinomialLoss()
CLASSES = np.asarray([0, 2, 1, 2, 0])
TARGET = np.eye(3)[CLASSES]
FIT = np.asarray([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0], [5.0, 5.0, -1.0], [0.1, 0.2, 0.3], [-4, 0, 4]])


def test_value_and_derivatives():
    expected = -log_softmax(FIT, axis=1)[np.arange(5), CLASSES]
    np.testing.assert_allclose(LOSS.value(FIT, TARGET), expected, rtol=1e-13)
    slope = jax.grad(lambda f: jnp.sum(LOSS.value(f, TARGET)))(jnp.asarray(FIT))
    np.testing.assert_allclose(LOSS.gradient(jnp.asarray(FIT), TARGET), slope, atol=1e-15)
    hessian = jax.hessian(lambda f: LOSS.value(f[None], TARGET[:1])[0])(jnp.asarray(FIT[1]))
    assert np.linalg.eigvalsh(hessian)[-1] <= LOSS.smoothness
    np.testing.assert_allclose(LOSS.value(FIT + 7.0, TARGET), expected, rtol=1e-12)
    weight = np.asarray([1.0, 0.0, 2.0, 0.5, 3.0])
    np.testing.assert_allclose(total(LOSS, FIT, TARGET, weight), weight @ expected, rtol=1e-13)


def test_outputs_of_any_size():
    far = LOSS.value(1e300 * FIT, TARGET)
    assert np.all(np.isfinite(far[:1]))
    assert far[1] == 0  # its own class is ahead by far
    assert np.isfinite(LOSS.gradient(1e300 * FIT, TARGET)).all()
    # Where no probability is, an output may be as low as it likes.
    ends = jnp.asarray([[0.0, -np.inf, -np.inf], [1.7e308, -1.7e308, 0.0]])
    ahead = np.asarray([[1.0, 0.0, 0.0]] * 2)
    np.testing.assert_array_equal(LOSS.value(ends, ahead), 0.0)
    assert np.isfinite(jax.grad(lambda f: LOSS.value(f, ahead[1:]).sum())(ends[1:])).all()
    assert np.isnan(LOSS.value(jnp.asarray([[np.nan, 0.0, 0.0]]), ahead[:1])).all()
    # A large common part costs no digits.
    near = LOSS.value(jnp.asarray([[1e8, 1e8 + 1.0, 1e8]]), TARGET[:1])
    np.testing.assert_allclose(near, np.log(2 + np.e), rtol=1e-12)


def test_conjugate_by_fenchel():
    gradient = LOSS.gradient(jnp.asarray(FIT), TARGET)
    products = np.sum(np.asarray(gradient) * FIT, axis=1)
    both = LOSS.value(FIT, TARGET) + LOSS.conjugate(gradient, TARGET)
    np.testing.assert_allclose(both, products, atol=1e-13)
    rng = np.random.default_rng(0)
    for _ in range(50):
        dual = rng.dirichlet(np.ones(3), size=5) - TARGET
        gap = LOSS.value(FIT, TARGET) + LOSS.conjugate(dual, TARGET) - np.sum(dual * FIT, axis=1)
        assert np.all(gap >= -1e-12)


def test_domain_of_the_conjugate():
    # At a vertex of the simplex, 0 log 0 = 0; any share of a residual stays inside.
    np.testing.assert_array_equal(LOSS.conjugate(0.0 * TARGET, TARGET), 0.0)
    residual = LOSS.gradient(jnp.asarray(FIT), TARGET)
    for t in (0.0, 0.3, 1.0):
        assert np.isfinite(LOSS.conjugate(t * residual, TARGET)).all()
    outside = np.zeros((5, 3))
    outside[0, 1] = -0.1  # negative
    outside[1] = 0.1  # not of sum zero
    outside[2, 0] = np.nan
    found = LOSS.conjugate(outside, TARGET)
    assert found[0] == found[1] == np.inf
    assert np.isnan(found[2])
    assert found[3] == 0


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (np.asarray([1.0, -1.0]), "jax.nn.one_hot"),
        (np.asarray([[1.5, -0.5]]), "negative entries"),
        (np.asarray([[1.0, 0.0], [1.0, 1.0]]), "row 1 of y sums to 2"),
        (np.ones((3, 1)), "one column a class"),
    ],
)
def test_targets_that_are_no_probabilities(target, sentence):
    with pytest.raises(ValueError, match=sentence):
        LOSS.check_target(target)


def test_targets_that_are_let_through():
    LOSS.check_target(TARGET)
    LOSS.check_target(np.asarray([[0.2, 0.3, 0.5]], "float32"))
    LOSS.check_target(np.asarray([[np.nan, 0.0, 1.0]]))
    single = np.asarray(jax.nn.softmax(jnp.asarray(FIT, jnp.float32)))
    LOSS.check_target(single.astype("float64"))
