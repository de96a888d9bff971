"""Batched projections against SciPy's NNLS, one block at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from jaxrelu.core.line_search import line_minimum
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.gram import shared_rows

# One shape for the file, n = 12, d = 3, m = 24: few programs to compile.
N, D, M = 12, 3, 24


@partial(jax.jit, static_argnames=("max_steps",))
def cold(X, signs, points, threshold=-1.0, max_steps=60):
    return project(shared_rows(X), signs, points, threshold=threshold, max_steps=max_steps)


@jax.jit
def warm(X, signs, points, multipliers, threshold=-1.0):
    rows = shared_rows(X)
    return project(rows, signs, points, multipliers=multipliers, threshold=threshold)


@pytest.fixture(scope="module")
def case(small):
    """Signs of 24 cones of random gates, and a random point for each."""
    rng = np.random.default_rng(1)
    gates = rng.standard_normal((D, M))
    signs = np.where(small.X @ gates >= 0, 1.0, -1.0).T
    return small.X, signs, rng.standard_normal((M, D)), gates.T


def unit_rows(X):
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(norms > 0, norms, 1.0)


def exact(X, signs, points):
    """Projections and multipliers, (m, d) and (m, n), by NNLS on the unit rows."""
    U = unit_rows(X)
    pairs = [reference.project_cone(c, U, s > 0) for c, s in zip(points, signs, strict=True)]
    return np.stack([u for u, _ in pairs]), np.stack([mu for _, mu in pairs])


def check_moreau(X, signs, points, result, tolerance=1e-12):
    """The conditions that single out the projection, block by block, relative to ||c||."""
    U, size = unit_rows(X), np.linalg.norm(points, axis=1)
    u, mu = np.asarray(result.points), np.asarray(result.multipliers)
    size = np.where(size > 0, size, 1.0)
    slack = signs * (u @ U.T)
    assert (slack >= -tolerance * size[:, None]).all()
    assert (mu >= 0).all()
    # u - c lies in the dual cone, up to the rounding of large penalties, and is orthogonal to u.
    dual = (signs * mu) @ U
    np.testing.assert_allclose(u - points, dual, rtol=0, atol=1e-9 * size.max())
    np.testing.assert_allclose((u * (u - points)).sum(axis=1) / size**2, 0, atol=tolerance)
    np.testing.assert_allclose(
        (u**2).sum(axis=1) + ((u - points) ** 2).sum(axis=1), (points**2).sum(axis=1), rtol=1e-10
    )


def test_projections_of_random_points(case):
    X, signs, points, _ = case
    result = cold(X, signs, points)
    expected, _ = exact(X, signs, points)
    np.testing.assert_allclose(result.points, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.bound, np.linalg.norm(expected, axis=1), atol=1e-12)
    assert result.residual.max() < 1e-9
    check_moreau(X, signs, points, result)


def test_rows_are_scaled_to_norm_one_and_zero_rows_stay(small):
    X = np.array(small.X)
    X[3] = 0.0
    rows = shared_rows(jnp.asarray(1e-3 * X))
    np.testing.assert_allclose(np.linalg.norm(rows.unit, axis=1), np.arange(N) != 3, rtol=1e-15)
    weights = np.random.default_rng(0).uniform(size=(2, N))
    U = unit_rows(X)
    np.testing.assert_allclose(rows.gram(weights), np.einsum("bj,jk,jl->bkl", weights, U, U))


def test_the_four_kinds_of_points(case):
    """Inside, on a wall, in the polar cone, and zero."""
    X, signs, _, gates = case
    rng = np.random.default_rng(2)
    U = unit_rows(X)
    on_wall, _ = exact(X, signs, rng.standard_normal((M, D)))
    polar = -(signs * rng.uniform(0.1, 1.0, (M, N))) @ U
    inside = cold(X, signs, gates)
    # A point that is in its cone already is returned to the bit, with zero multipliers.
    np.testing.assert_allclose(inside.points, gates, rtol=1e-15)
    np.testing.assert_array_equal(inside.multipliers, np.zeros((M, N)))
    np.testing.assert_allclose(cold(X, signs, on_wall).points, on_wall, rtol=0, atol=1e-13)
    far = cold(X, signs, polar)
    size = np.linalg.norm(polar, axis=1)
    assert (np.linalg.norm(far.points, axis=1) <= 1e-12 * size).all()
    assert (far.bound <= 1e-9 * size).all()
    nothing = cold(X, signs, np.zeros((M, D)))
    for array in (nothing.points, nothing.multipliers, nothing.bound):
        np.testing.assert_array_equal(array, jnp.zeros_like(array))


def test_the_polar_part_is_the_projection_on_the_polar_cone(case):
    # Moreau: c = Proj_K(c) + Proj_{-K*}(c), and the second part projects to zero.
    X, signs, points, _ = case
    result = cold(X, signs, points)
    rest = cold(X, signs, points - np.asarray(result.points))
    assert np.abs(rest.points).max() < 1e-12
    again = cold(X, signs, np.asarray(result.points))
    np.testing.assert_allclose(again.points, result.points, rtol=0, atol=1e-11)


def test_a_rough_start_ends_at_the_same_projection(case):
    X, signs, points, _ = case
    found = project(shared_rows(jnp.asarray(X)), signs, jnp.asarray(points), rough=True)
    expected = cold(X, signs, points)
    np.testing.assert_allclose(found.points, expected.points, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.bound, expected.bound, rtol=0, atol=1e-11)


@pytest.mark.parametrize("factor", [1e-12, 1e9])
def test_scale_of_points_and_rows(case, factor):
    X, signs, points, _ = case
    expected = cold(X, signs, points)
    np.testing.assert_allclose(
        cold(X, signs, factor * points).points / factor, expected.points, rtol=0, atol=1e-12
    )
    lengths = 10.0 ** np.linspace(-8, 8, N)[:, None]
    other = cold(lengths * X, signs, points)
    np.testing.assert_allclose(other.points, expected.points, rtol=0, atol=1e-12)


def test_duplicate_opposite_and_zero_rows(case):
    X, signs, points, gates = case
    X = np.array(X)
    X[6], X[7], X[8], X[9] = X[0], -2.0 * X[1], 1e-9 * X[2], 0.0
    signs = np.where(gates @ X.T >= 0, 1.0, -1.0)
    result = cold(X, signs, points)
    np.testing.assert_allclose(result.points, exact(X, signs, points)[0], rtol=0, atol=1e-12)
    check_moreau(X, signs, points, result)


def test_a_cone_with_empty_interior(case):
    # x and -x with equal bits confine u to the plane <x, u> = 0: K is flat, or the origin alone.
    X, signs, points, _ = case
    X, signs = np.array(X), np.array(signs)
    X[:6] = np.concatenate([np.eye(D), -np.eye(D)])
    signs[:, :6] = 1.0
    signs[12:, 3:6] = -1.0
    signs[12:, 3] = 1.0
    result = cold(X, signs, points)
    expected, _ = exact(X, signs, points)
    assert np.abs(expected[:12]).max() < 1e-12
    np.testing.assert_allclose(result.points, expected, rtol=0, atol=1e-9)
    assert np.abs(np.asarray(result.points)[:, 0]).max() < 1e-9


def test_float32(case, single):
    X, signs, points, _ = case
    result = cold(
        *single((jnp.asarray(X), jnp.asarray(signs), jnp.asarray(points))), np.float32(-1)
    )
    assert {a.dtype for a in result} == {jnp.dtype("float32")}
    np.testing.assert_allclose(result.points, exact(X, signs, points)[0], rtol=0, atol=1e-5)
    assert result.residual.max() < 1e-4


def test_warm_multipliers_reach_the_same_point(case):
    X, signs, points, _ = case
    expected = exact(X, signs, points)
    nearby = exact(X, signs, points + 0.1)[1]
    far = np.random.default_rng(3).uniform(0.0, 10.0, (M, N))
    for multipliers in (np.zeros((M, N)), expected[1], nearby, far):
        result = warm(X, signs, points, multipliers)
        np.testing.assert_allclose(result.points, expected[0], rtol=0, atol=1e-11)
        check_moreau(X, signs, points, result, tolerance=1e-11)


@pytest.mark.parametrize("seed", [0, 1])
def test_far_multipliers_are_given_the_time_they_need(seed):
    # Some twenty Newton steps pass before the residual falls: that is not a stall.
    rng = np.random.default_rng(seed)
    X, gates = rng.standard_normal((100, 10)), rng.standard_normal((12, 10))
    signs = np.where(gates @ X.T >= 0, 1.0, -1.0)
    points, multipliers = (
        gates + 0.5 * rng.standard_normal((12, 10)),
        rng.exponential(size=(12, 100)),
    )
    for c in (points, rng.standard_normal((12, 10))):
        result = warm(X, signs, c, multipliers)
        assert result.residual.max() < 1e-8
        np.testing.assert_allclose(result.points, exact(X, signs, c)[0], rtol=0, atol=1e-10)


def test_exact_multipliers_take_no_step(case):
    X, signs, points, _ = case
    expected, multipliers = exact(X, signs, points)
    result = warm(X, signs, points, multipliers)
    np.testing.assert_allclose(result.points, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.multipliers, multipliers, rtol=1e-15)


def test_residual_tells_a_projection_from_a_feasible_point(case):
    # Multipliers that are wrong but fit a feasible u = c + K^T mu: only the pairing of
    # multipliers with slack constraints gives it away.
    X, signs, _, gates = case
    U = unit_rows(X)
    multipliers = np.full((M, N), 0.5)
    points = gates - (signs * multipliers) @ U
    result = warm(X, signs, points, multipliers, np.inf)  # stopped before its first step
    np.testing.assert_allclose(result.points, gates, rtol=0, atol=1e-13)
    error = np.linalg.norm(gates - exact(X, signs, points)[0], axis=1)
    assert error.min() > 1e-2
    assert result.residual.min() > 1e-3
    np.testing.assert_allclose(
        warm(X, signs, points, multipliers).points, exact(X, signs, points)[0], rtol=0, atol=1e-11
    )


def test_the_bound_is_valid_when_the_steps_run_out(case):
    X, signs, points, _ = case
    norms = np.linalg.norm(exact(X, signs, points)[0], axis=1)
    unfinished = cold(X, signs, points, max_steps=2)
    # The test is about bounds of points that are not finished.
    assert (np.asarray(unfinished.bound) > 1e-3 + norms).any()
    assert (unfinished.bound >= norms * (1 - 1e-13)).all()
    assert (unfinished.multipliers >= 0).all()
    dual = (signs * np.asarray(unfinished.multipliers)) @ unit_rows(X)
    np.testing.assert_allclose(
        unfinished.bound, np.linalg.norm(points + dual, axis=1), rtol=1e-12, atol=1e-14
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 2.0), exponent=st.integers(-6, 6))
def test_a_threshold_stops_early_with_a_valid_bound(case, seed, share, exponent):
    X, signs, _, _ = case
    rng = np.random.default_rng(seed)
    points = 10.0**exponent * rng.standard_normal((M, D))
    multipliers = 10.0**exponent * rng.exponential(size=(M, N))
    norms = np.linalg.norm(exact(X, signs, points)[0], axis=1)
    threshold = share * np.linalg.norm(points, axis=1)
    for result in (
        cold(X, signs, points, threshold),
        warm(X, signs, points, multipliers, threshold),
    ):
        assert (result.bound >= norms * (1 - 1e-12) - 1e-13 * 10.0**exponent).all()
        assert (result.multipliers >= 0).all()
        # A block stops only for one of two reasons: below the threshold, or finished.
        settled = np.asarray(result.bound) <= threshold * (1 + 1e-12)
        finished = np.abs(np.asarray(result.bound) - norms) <= 1e-9 * 10.0**exponent
        assert (settled | finished).all()


def test_a_threshold_saves_the_work(case):
    X, signs, points, _ = case
    result = cold(X, signs, points, np.linalg.norm(points, axis=1) * (1 + 1e-12))
    # ||c|| itself is below it: nothing is done.
    np.testing.assert_array_equal(result.multipliers, np.zeros((M, N)))
    np.testing.assert_allclose(result.points, points, rtol=1e-15)


def test_a_block_that_is_not_finite_leaves_the_others_alone(case):
    X, signs, points, _ = case
    expected = cold(X, signs, points)
    broken = np.array(points)
    broken[5, 1], broken[7, 0] = np.nan, np.inf
    result = cold(X, signs, broken)
    others = np.delete(np.arange(M), [5, 7])
    np.testing.assert_allclose(result.points[others], expected.points[others], rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.bound[others], expected.bound[others], rtol=1e-13)
    assert not np.isfinite(result.bound[jnp.asarray([5, 7])]).any()
    assert not np.isfinite(result.points[jnp.asarray([5, 7])]).any()
    multipliers = np.zeros((M, N))
    multipliers[5, 3] = np.nan
    result = warm(X, signs, points, multipliers)
    others = np.delete(np.arange(M), 5)
    np.testing.assert_allclose(result.points[others], expected.points[others], rtol=0, atol=1e-13)
    assert np.isnan(result.bound[5])


def test_line_minimum_of_parabolas():
    # phi_k(t) = (t - t_k)^2 / 2: the minimiser if it lies before 1, or the full step.
    minima = jnp.asarray([0.25, 0.5, 0.95, 1.0, 7.0])
    sizes, slopes = map(np.asarray, line_minimum(lambda t: t - minima, 5, jnp.float64))
    np.testing.assert_allclose(sizes[:2], minima[:2], atol=2.0**-12)
    # The slope at one is small enough there.
    np.testing.assert_array_equal(sizes[2:], np.ones(3))
    np.testing.assert_array_equal(slopes, -minima)


def test_distances_to_zonotopes_agree_with_bounded_least_squares() -> None:
    """Min ||c + K^T mu|| over 0 <= mu <= cap, some caps zero and some infinite."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((12, 4))
    signs = rng.choice([-1.0, 1.0], (6, 12))
    points = 3 * rng.standard_normal((6, 4))
    caps = rng.choice([0.0, 0.3, 1.0, np.inf], (6, 12))
    rows = shared_rows(jnp.asarray(X))
    found = project(
        rows,
        jnp.asarray(signs),
        jnp.asarray(points),
        multipliers=jnp.zeros((6, 12)),
        cap=jnp.asarray(caps),
    )
    for k in range(6):
        free = caps[k] > 0
        K = signs[k, :, None] * np.asarray(rows.unit)
        exact = lsq_linear(K[free].T, -points[k], (0.0, caps[k, free]), tol=1e-14).cost
        np.testing.assert_allclose(found.bound[k], np.sqrt(2 * exact), rtol=1e-9, atol=1e-12)
    assert np.all(np.asarray(found.multipliers) <= caps)
    np.testing.assert_array_less(found.residual, 1e-10)
