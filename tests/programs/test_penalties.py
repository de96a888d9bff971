import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxrelu.programs.penalties import block_soft_threshold as plain_block_soft_threshold

block_soft_threshold = jax.jit(plain_block_soft_threshold)

POINTS = jnp.asarray([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0]])


@pytest.mark.parametrize("threshold", [0.2, 2.5])
def test_minimises_its_definition(threshold):
    for v, u in zip(POINTS, block_soft_threshold(POINTS, threshold), strict=True):

        def objective(w, v=v):
            return 0.5 * np.sum((w - v) ** 2) + threshold * np.linalg.norm(w)

        best = min(
            (minimize(objective, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 0})
             for start in (np.asarray(v) + 0.1, np.zeros(2))),
            key=lambda run: run.fun,
        )  # fmt: skip
        np.testing.assert_allclose(u, best.x, atol=1e-6)
        assert objective(u) <= best.fun + 1e-14


@pytest.mark.parametrize("threshold", [0.0, 0.2, 2.5])
def test_one_dimension_agrees_with_a_grid(threshold):
    grid = np.linspace(-4, 4, 80001)
    points = np.asarray([-3.0, -0.2, 0.0, 0.1, 1.7])
    objective = 0.5 * (grid - points[:, None]) ** 2 + threshold * np.abs(grid)
    value = block_soft_threshold(jnp.asarray(points)[:, None], threshold)[:, 0]
    np.testing.assert_allclose(value, grid[objective.argmin(axis=1)], atol=1e-4)


def test_blocks_inside_the_ball_are_exactly_zero():
    value = block_soft_threshold(POINTS, 0.5)
    np.testing.assert_array_equal(value[1:], np.zeros((2, 2)))
    np.testing.assert_allclose(value[0], np.asarray(POINTS[0]) * 0.9, rtol=1e-15)


def test_one_threshold_a_block():
    thresholds = jnp.asarray([1.0, 0.1, 0.0])
    expected = jnp.stack(
        [block_soft_threshold(p, t) for p, t in zip(POINTS, thresholds, strict=True)]
    )
    np.testing.assert_array_equal(block_soft_threshold(POINTS, thresholds), expected)
    stacked = jnp.stack([POINTS, 2 * POINTS])
    assert block_soft_threshold(stacked, 1.0).shape == (2, 3, 2)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_jacobian_is_exact_away_from_the_sphere_and_finite_everywhere(jacobian, threshold):
    # In a batch, so that a NaN in a branch not taken would be seen in the rows beside it.
    blocks = jax.jit(jax.vmap(jacobian(plain_block_soft_threshold), (0, None)))(POINTS, threshold)
    norm = 5.0
    u = np.asarray(POINTS[0]) / norm
    scaled_projector = threshold / norm * (np.eye(2) - np.outer(u, u))
    np.testing.assert_allclose(blocks[0], np.eye(2) - scaled_projector, atol=1e-14)
    inside = np.eye(2) if threshold == 0 else np.zeros((2, 2))
    np.testing.assert_array_equal(blocks[2], inside)
    in_threshold = jax.jit(jacobian(plain_block_soft_threshold, argnums=1))(POINTS, threshold)
    np.testing.assert_allclose(in_threshold[0], -u, rtol=1e-14)
    np.testing.assert_array_equal(in_threshold[2], np.zeros(2))


def test_nan_is_not_shrunk_to_zero():
    value = block_soft_threshold(POINTS.at[1, 0].set(jnp.nan), 10.0)
    assert np.isnan(value[1]).all()
    np.testing.assert_array_equal(value[::2], np.zeros((2, 2)))
    assert np.isnan(block_soft_threshold(POINTS, jnp.nan)).all()


def test_float32_stays_float32(single):
    value = block_soft_threshold(single(POINTS), 0.5)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, block_soft_threshold(POINTS, 0.5), rtol=1e-6)
