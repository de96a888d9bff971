import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.core import numerics
from jaxrelu.core.checks import as_float
from jaxrelu.core.numerics import einsum, eps, matmul

# One compiled function each: compiling operation by operation is what takes time here.
safe_norm = jax.jit(numerics.safe_norm, static_argnames=("axis", "keepdims"))
unit = jax.jit(numerics.unit, static_argnames="axis")

ROWS = jnp.asarray([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0], [1e-3, 2e-3, -2e-3]])


def test_safe_norm_is_the_euclidean_norm():
    np.testing.assert_allclose(safe_norm(ROWS), [5.0, 0.0, 3e-3], rtol=1e-15)
    np.testing.assert_allclose(safe_norm(ROWS, axis=0), np.linalg.norm(ROWS, axis=0), rtol=1e-15)
    assert safe_norm(ROWS, keepdims=True).shape == (3, 1)


def test_derivative_of_the_norm_is_the_direction_and_zero_at_a_zero_row():
    jacobian = jax.jit(jax.jacobian(safe_norm))(ROWS)
    expected = np.zeros((3, 3, 3))
    expected[0, 0] = [0.6, -0.8, 0.0]
    expected[2, 2] = np.asarray([1.0, 2.0, -2.0]) / 3
    np.testing.assert_allclose(jacobian, expected, atol=1e-15)
    np.testing.assert_array_equal(jax.jit(jax.jacfwd(safe_norm))(ROWS)[1], np.zeros((3, 3)))


def test_second_derivatives_are_the_projector_over_the_norm_and_zero_at_zero():
    hessian = jax.jit(jax.vmap(jax.hessian(safe_norm)))(ROWS)
    u = np.asarray([0.6, -0.8, 0.0])
    np.testing.assert_allclose(hessian[0], (np.eye(3) - np.outer(u, u)) / 5, atol=1e-15)
    np.testing.assert_array_equal(hessian[1], np.zeros((3, 3)))
    jacobian = jax.jit(jax.vmap(jax.jacobian(unit)))(ROWS)
    np.testing.assert_allclose(jacobian, hessian, atol=1e-12)


def test_unit_rows():
    np.testing.assert_allclose(
        unit(ROWS), [[0.6, -0.8, 0.0], [0.0, 0.0, 0.0], [1 / 3, 2 / 3, -2 / 3]], rtol=1e-15
    )
    np.testing.assert_allclose(safe_norm(unit(ROWS, axis=0), axis=0), np.ones(3), rtol=1e-15)


@pytest.mark.parametrize("function", [safe_norm, unit])
def test_nan_stays_in_its_own_row(function):
    rows = ROWS.at[0, 2].set(jnp.nan)
    value = function(rows)
    assert np.isnan(value[0]).all()
    np.testing.assert_array_equal(value[1:], function(ROWS)[1:])
    gradient = jax.jit(jax.grad(lambda r: jnp.sum(function(r))))(rows)
    assert np.isnan(gradient[0]).all()
    assert np.isfinite(gradient[1:]).all()


def test_infinity_is_never_a_finite_norm():
    rows = ROWS.at[0, 2].set(jnp.inf)
    assert safe_norm(rows)[0] == np.inf
    assert np.isnan(unit(rows)[0]).any()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_arrays(shape):
    rows = jnp.zeros(shape)
    np.testing.assert_array_equal(safe_norm(rows), np.zeros(shape[0]))
    assert unit(rows).shape == shape
    assert jax.grad(lambda r: jnp.sum(safe_norm(r)))(rows).shape == shape


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_float32_squares_neither_underflow_nor_overflow(scale):
    rows = jnp.asarray([[3.0, 4.0], [0.0, 0.0]], dtype=jnp.float32) * jnp.float32(scale)
    norm = safe_norm(rows)
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, np.asarray([5.0, 0.0]) * scale, rtol=1e-6)
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacobian(safe_norm))(rows)[0, 0], [0.6, 0.8], rtol=1e-6)


def test_vmap_and_the_plain_call_agree_with_jit():
    np.testing.assert_allclose(jax.vmap(safe_norm)(ROWS), safe_norm(ROWS), rtol=1e-15)
    np.testing.assert_allclose(numerics.unit(ROWS), unit(ROWS), rtol=1e-15)


@pytest.mark.parametrize(
    "product", [matmul, lambda a, b: einsum("ij,jk->ik", a, b)], ids=["matmul", "einsum"]
)
def test_products_ask_for_the_highest_precision(product, rng):
    a, b = rng.standard_normal((2, 3, 3))
    np.testing.assert_allclose(product(jnp.asarray(a), jnp.asarray(b)), a @ b, rtol=1e-13)
    assert "HIGHEST" in str(jax.make_jaxpr(product)(jnp.asarray(a), jnp.asarray(b)))


def test_eps():
    assert eps(jnp.float64) == 2.0**-52
    assert eps(jnp.zeros(1, dtype=jnp.float32).dtype) == 2.0**-23


def test_as_float_keeps_floating_dtypes_and_lifts_integers():
    assert as_float(np.ones(2, dtype=np.float32), "X").dtype == jnp.float32
    assert as_float(np.ones(2), "X").dtype == jnp.float64
    assert as_float(np.arange(2), "X").dtype == jnp.float64
    assert as_float([True, False], "X").dtype == jnp.float64
    assert jax.jit(lambda x: as_float(x, "X"))(jnp.arange(2)).dtype == jnp.float64


def test_as_float_refuses_what_is_no_real_number():
    with pytest.raises(TypeError, match="y has dtype complex128; pass real numbers"):
        as_float(np.ones(2) + 1j, "y")
    with pytest.raises(TypeError, match="pass real numbers"):
        as_float(["a", "b"], "y")


@pytest.mark.usefixtures("x64_off")
def test_float64_is_not_narrowed_in_silence():
    with pytest.raises(ValueError, match=r"jax_enable_x64.*astype\('float32'\)"):
        as_float(np.ones(2), "X")
    # A list, a Python number and integers never claimed to be float64.
    for value in ([1.0, 2.0], 0.5, np.arange(2)):
        assert as_float(value, "X").dtype == jnp.float32
