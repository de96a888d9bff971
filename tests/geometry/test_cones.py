"""Cones of activation patterns: projections, witnesses, repair, bounds of all blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrelu.geometry import cones, correlation_bounds
from jaxrelu.geometry.cones import block_patterns, cone_signs
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.geometry.gram import shared_rows

# n = 12, d = 3, p = 10 patterns, 2p = 20 blocks throughout: few programs to compile.
project_cones, interior_directions = map(jax.jit, (cones.project_cones, cones.interior_directions))


@jax.jit
def make_feasible(X, masks, weights, interior):
    """Weights (2p, d) of the blocks of a ReLU program."""
    pattern = block_patterns((2, masks.shape[1]))
    signs = cone_signs(masks, pattern, X.dtype)
    return cones.make_feasible(shared_rows(X), signs, weights, interior.T[pattern])


@partial(jax.jit, static_argnames=("batch", "stop_at_violation"))
def polar_bounds(X, masks, c, duals, limit, skip, batch, stop_at_violation=False):
    return correlation_bounds.polar_bounds(
        shared_rows(X),
        masks,
        block_patterns((2, masks.shape[1])),
        c,
        DualElements(jnp.asarray(duals), jnp.ones(len(duals))),
        limit,
        skip=skip,
        batch=batch,
        stop_at_violation=stop_at_violation,
    )


@pytest.fixture(scope="module")
def interior(small):
    """The max-margin directions (d, p), by NNLS."""
    return np.stack([reference.max_margin_direction(small.X, m)[0] for m in small.masks.T], axis=1)


@pytest.fixture(scope="module")
def raw(small):
    """Raw correlations of all blocks (20, 3), and the exact norms of their projections."""
    g = reference.gated_correlations(small.X, small.masks, small.y)
    q = reference.block_correlations(small.X, small.masks, small.y)
    return np.concatenate([g, -g]), np.linalg.norm(q, axis=-1).ravel()


def worst_slack(X, masks, weights):
    """Min over rows and blocks of (2d - 1) x.theta / (||x|| ||theta||), in extended precision."""
    X, weights = np.asarray(X, np.longdouble), np.asarray(weights, np.longdouble)
    worst = np.longdouble(np.inf)
    for block, theta in enumerate(weights):
        size = np.sqrt(theta @ theta)
        for row, inside in zip(X, masks[:, block % masks.shape[1]], strict=True):
            length = np.sqrt(row @ row)
            if size > 0 and length > 0:
                worst = min(worst, (1 if inside else -1) * (row @ theta) / (length * size))
    return worst


def exact(X, masks, weights):
    """Projections of blocks (2p, d) by NNLS."""
    p = masks.shape[1]
    return np.stack([reference.project_cone(w, X, masks[:, b % p])[0] for b, w in
                     enumerate(weights)])  # fmt: skip


# --- signs, layout, projection -------------------------------------------------------------------


def test_signs_and_layout_of_blocks(small):
    pattern = block_patterns((2, 10))
    np.testing.assert_array_equal(pattern, list(range(10)) * 2)
    np.testing.assert_array_equal(block_patterns((3,)), [0, 1, 2])
    signs = cone_signs(small.masks, pattern, jnp.float64)
    np.testing.assert_array_equal(signs[13], np.where(small.masks[:, 3], 1.0, -1.0))
    as_numbers = cone_signs(small.masks.astype(np.float64), pattern, jnp.float64)
    np.testing.assert_array_equal(as_numbers, signs)


def test_violation_agrees_with_the_twin(small):
    weights = np.random.default_rng(0).standard_normal((10, 3))
    signs = cone_signs(small.masks, jnp.arange(10), jnp.float64)
    found = np.maximum(-cones.margins(shared_rows(small.X), signs, weights), 0.0)
    size = np.linalg.norm(weights, axis=1)
    for j in range(10):
        alone = reference.cone_violation(
            small.X, small.masks[:, j : j + 1], weights[None, j : j + 1]
        )
        np.testing.assert_allclose(found[j] / size[j], alone, rtol=1e-13, atol=1e-15)


def test_projections_have_the_shape_of_the_points(small):
    points = np.random.default_rng(1).standard_normal((2, 10, 3))
    result = project_cones(small.X, small.masks, points)
    shapes = [a.shape for a in result]
    assert shapes == [(2, 10, 3), (2, 10, 12), (2, 10), (2, 10)]
    for s in range(2):
        for j in range(10):
            expected, _ = reference.project_cone(points[s, j], small.X, small.masks[:, j])
            np.testing.assert_allclose(result.points[s, j], expected, atol=1e-12)


# --- witnesses -----------------------------------------------------------------------------------


def margins(X, masks, directions):
    """Min over non-zero rows of (2d - 1) x.u / (||x|| ||u||), column by column."""
    X, directions = np.asarray(X, float), np.asarray(directions, float)
    norms = np.linalg.norm(X, axis=1)
    slack = np.where(masks, 1, -1)[norms > 0] * (X @ directions)[norms > 0]
    return (slack / norms[norms > 0, None]).min(axis=0) / np.linalg.norm(directions, axis=0)


@pytest.mark.parametrize("with_gates", [False, True])
def test_witnesses_have_the_largest_margin(small, with_gates):
    gates = small.gates if with_gates else None
    direction, margin = interior_directions(small.X, small.masks, gates)
    best = [reference.max_margin_direction(small.X, m)[1] for m in small.masks.T]
    np.testing.assert_allclose(margin, best, rtol=1e-8)
    np.testing.assert_allclose(margins(small.X, small.masks, direction), margin, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=0), np.ones(10), rtol=1e-14)
    # The gates of the fixture are random, so the comparison means something.
    assert (margin > 1.05 * margins(small.X, small.masks, small.gates)).all()


def test_a_gate_that_is_better_is_kept(small, interior, monkeypatch):
    # Where the projection finds nothing the gates remain, block by block.
    project = cones.project

    def failing(*arguments, **options):
        found = project(*arguments, **options)
        return found._replace(points=found.points.at[::2].set(0.0).at[4].set(jnp.nan))

    monkeypatch.setattr(cones, "project", failing)
    direction, margin = jax.jit(lambda *a: cones.interior_directions(*a))(
        small.X, small.masks, small.gates
    )
    expected = np.where(np.arange(10) % 2, interior, small.gates)
    expected /= np.linalg.norm(expected, axis=0)
    np.testing.assert_allclose(direction, expected, atol=1e-7)
    np.testing.assert_allclose(margin, margins(small.X, small.masks, expected), atol=1e-7)


def test_thin_cones_in_float32(small):
    # The best direction of a thin cone is found only roughly; it may not be worse than the gate.
    X, masks = np.array(small.X), np.array(small.masks)
    X[1] = -X[0] + 1e-4 * X[2]
    gates = np.random.default_rng(4).standard_normal((3, 4000))
    thin = (X @ gates >= 0)[:2].all(axis=0)
    gates = np.repeat(gates[:, thin][:, :1], 10, axis=1)
    masks = X @ gates >= 0
    best = reference.max_margin_direction(X, masks[:, 0])[0]
    gates[:, :5] = best[:, None]
    arguments = (X.astype(np.float32), masks, gates.astype(np.float32))
    direction, margin = interior_directions(*arguments)
    own = margins(X, masks, gates)
    assert own.min() > 0
    assert direction.dtype == margin.dtype == jnp.float32
    assert (np.asarray(margin) >= 0.99 * own - 1e-7).all()
    assert (margins(X, masks, direction) > 0).all()


@pytest.mark.slow
def test_witnesses_with_more_features_than_samples():
    rng = np.random.default_rng(11)
    X, gates = rng.standard_normal((4, 7)), rng.standard_normal((7, 5))
    masks = X @ gates >= 0
    best = [reference.max_margin_direction(X, m) for m in masks.T]
    for known in (None, gates):
        direction, margin = interior_directions(X, masks, known)
        np.testing.assert_allclose(margin, [t for _, t in best], rtol=1e-8)
        np.testing.assert_allclose(direction, np.stack([u for u, _ in best], axis=1), atol=1e-7)


def test_zero_rows_have_no_margin_and_an_empty_cone_has_none_either(small):
    X = np.array(small.X)
    X[2] = 0.0
    direction, margin = interior_directions(X, small.masks, None)
    best = [reference.max_margin_direction(X, m)[1] for m in small.masks.T]
    np.testing.assert_allclose(margin, best, rtol=1e-8)
    assert np.isfinite(direction).all()
    X[1] = -X[0]
    masks = np.array(small.masks)
    masks[:2] = True  # x.u >= 0 and -x.u >= 0
    direction, margin = interior_directions(X, masks, None)
    assert (margin < 1e-6).all()
    assert np.isfinite(direction).all()


def test_the_smallest_empty_cone():
    # Rows x and -x: the bits (1, 1) belong to no u with <x, u> != 0, (1, 0) to a half-space.
    X, masks = np.zeros((12, 3)), np.ones((12, 10), bool)
    X[0, 0], X[1, 0], masks[1, 0] = 1.0, -1.0, False
    direction, margin = interior_directions(X, masks, None)
    np.testing.assert_allclose(direction[:, 0], [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(margin[0], 1.0, rtol=1e-12)
    assert (margin[1:] <= 1e-12).all()


# --- repair --------------------------------------------------------------------------------------


def repair(small, interior, weights):
    return np.asarray(make_feasible(small.X, small.masks, weights, interior))


def check_feasible(X, masks, weights, dtype=np.float64):
    # Not only up to rounding: what that may be is cleared too.
    assert worst_slack(X, masks, weights) > 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["far", "wall", "tiny", "huge", "spread"]))
def test_repaired_points_are_feasible_and_near_the_projection(small, interior, seed, kind):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((20, 3))
    if kind == "wall":
        weights = exact(small.X, small.masks, weights)
        weights += 10.0 ** rng.uniform(-17, -6, (20, 1)) * rng.standard_normal((20, 3))
    weights *= {"tiny": 1e-30, "huge": 1e30}.get(kind, 1.0)
    if kind == "spread":
        weights *= 10.0 ** rng.uniform(-12, 0, (20, 1))
    result = repair(small, interior, weights)
    check_feasible(small.X, small.masks, result)
    expected = exact(small.X, small.masks, weights)
    size = np.linalg.norm(weights, axis=1)
    distance = np.linalg.norm(result - expected, axis=1)
    negligible = np.finfo(float).eps * size.max()
    assert (distance <= 1e-11 * size + 1.01 * negligible).all()


def test_feasible_points_are_left_alone(small, interior):
    weights = np.concatenate([small.gates.T, interior.T])
    np.testing.assert_array_equal(repair(small, interior, weights), weights)
    # Blocks of very different size too, down to what is negligible.
    spread = 10.0 ** -np.arange(20.0)[:, None] * weights
    result = repair(small, interior, spread)
    np.testing.assert_array_equal(result[:15], spread[:15])
    np.testing.assert_array_equal(result[17:], np.zeros((3, 3)))


def test_zero_blocks_stay_zero(small, interior):
    zeros = np.zeros((20, 3))
    np.testing.assert_array_equal(repair(small, interior, zeros), zeros)
    one = np.array(zeros)
    one[4] = small.gates[:, 4]
    np.testing.assert_array_equal(repair(small, interior, one), one)


def test_polar_points_become_zero_or_feasible_dust(small, interior):
    signs = np.where(small.masks, 1.0, -1.0).T[list(range(10)) * 2]
    polar = -(signs * np.random.default_rng(5).uniform(0.1, 1.0, (20, 12))) @ small.X
    result = repair(small, interior, polar)
    check_feasible(small.X, small.masks, result)
    assert (np.linalg.norm(result, axis=1) <= 1e-13 * np.linalg.norm(polar, axis=1)).all()


def test_duplicate_and_zero_rows(small):
    X = np.array(small.X)
    X[5], X[6], X[7] = X[0], -3.0 * X[1], 0.0
    masks = np.asarray(X @ small.gates >= 0)
    witness = np.stack([reference.max_margin_direction(X, m)[0] for m in masks.T], axis=1)
    weights = np.random.default_rng(6).standard_normal((20, 3))
    result = np.asarray(make_feasible(X, masks, weights, witness))
    check_feasible(X, masks, result)
    np.testing.assert_allclose(result, exact(X, masks, weights), atol=1e-11)


def test_a_cone_without_interior_gives_a_feasible_point(small, interior):
    X, masks = np.array(small.X), np.array(small.masks)
    X[1] = -X[0]
    masks[:2] = True
    weights = np.random.default_rng(7).standard_normal((20, 3))
    result = np.asarray(make_feasible(X, masks, weights, interior))
    check_feasible(X, masks, result)
    assert np.isfinite(result).all()


def test_repair_in_float32(small, interior):
    X = small.X.astype(np.float32)
    for scale in (1.0, 1e-25, 1e20):
        weights = scale * np.random.default_rng(8).standard_normal((20, 3))
        weights[:5] = scale * exact(X.astype(float), small.masks, weights / scale)[:5]
        result = make_feasible(
            X, small.masks, weights.astype(np.float32), interior.astype(np.float32)
        )
        assert result.dtype == jnp.float32
        check_feasible(X, small.masks, result, np.float32)
        expected = exact(X.astype(float), small.masks, weights / scale)
        np.testing.assert_allclose(np.asarray(result, float) / scale, expected, atol=1e-3)


def test_a_nan_block_is_not_repaired_into_zero(small, interior):
    weights = np.random.default_rng(9).standard_normal((20, 3))
    expected = repair(small, interior, weights)
    weights[3, 1] = np.nan
    result = repair(small, interior, weights)
    assert np.isnan(result[3]).any()
    others = np.arange(20) != 3
    np.testing.assert_allclose(result[others], expected[others], atol=1e-13)


# --- bounds of all blocks ------------------------------------------------------------------------


def bounds(small, c, duals=None, limit=0.0, skip=None, batch=64, **options):
    duals = np.zeros_like(c) if duals is None else duals
    skip = np.zeros(len(c), bool) if skip is None else skip
    return polar_bounds(small.X, small.masks, c, duals, limit, skip, batch, **options)


def check_valid(small, c, result, norms):
    """Bounds above the exact norms, and each the norm of c + v with v in the dual cone."""
    assert (np.asarray(result.bound) >= norms * (1 - 1e-12) - 1e-13).all()
    np.testing.assert_allclose(
        result.bound,
        np.linalg.norm(c + np.asarray(result.duals.vectors), axis=1),
        rtol=1e-10,
        atol=1e-12,
    )
    for b, v in enumerate(np.asarray(result.duals.vectors)):
        # v in K* iff the projection of -v on K is zero.
        rest, _ = reference.project_cone(-v, small.X, small.masks[:, b % 10])
        assert np.linalg.norm(rest) <= 1e-9 * (1 + np.linalg.norm(v))


@pytest.mark.parametrize("batch", [3, pytest.param(64, marks=pytest.mark.slow)])
def test_bounds_without_a_limit_are_exact(small, raw, batch):
    c, norms = raw
    result = bounds(small, c, batch=batch)
    np.testing.assert_allclose(result.bound, norms, rtol=1e-10, atol=1e-13)
    check_valid(small, c, result, norms)


@pytest.mark.parametrize("batch", [3, 64])
def test_bounds_below_the_limit_need_not_be_exact_those_above_are(small, raw, batch):
    c, norms = raw
    limit = float(np.median(norms))
    result = bounds(small, c, limit=limit, batch=batch)
    check_valid(small, c, result, norms)
    above = norms > limit
    np.testing.assert_array_equal(np.asarray(result.bound) > limit, above)
    np.testing.assert_allclose(result.bound[above], norms[above], rtol=1e-10, atol=1e-13)


def test_known_duals_save_the_projection(small, raw):
    c, norms = raw
    known = bounds(small, c)
    limit = float(norms.max()) * (1 + 1e-9)
    result = bounds(small, c, duals=5.0 * np.asarray(known.duals.vectors), limit=limit, batch=3)
    # The multiple of the dual is optimised, so a scaled dual is as good as the exact one.
    np.testing.assert_allclose(result.bound, norms, rtol=1e-10, atol=1e-13)
    check_valid(small, c, result, norms)
    np.testing.assert_array_equal(result.points, np.zeros((3, 3)))  # none was projected


def test_skipped_blocks_keep_the_cheap_bound(small, raw):
    c, norms = raw
    skip = np.arange(20) % 3 == 0
    result = bounds(small, c, skip=skip, batch=3)
    np.testing.assert_allclose(result.bound[skip], np.linalg.norm(c, axis=1)[skip], rtol=1e-14)
    np.testing.assert_allclose(result.bound[~skip], norms[~skip], rtol=1e-10, atol=1e-13)


def test_stops_after_the_batch_that_holds_a_violator(small, raw):
    c, norms = raw
    limit = float(np.median(norms))
    result = bounds(small, c, limit=limit, batch=3, stop_at_violation=True)
    check_valid(small, c, result, norms)
    moved = np.asarray(result.bound) != np.linalg.norm(c, axis=1)
    settled_at_once = np.linalg.norm(c, axis=1) <= limit
    chunk = np.asarray(result.chunk)
    # The violator is in the last chunk, with its projection; others are not yet projected.
    assert (norms[chunk] > limit).any()
    assert not (moved | settled_at_once).all()
    q = exact(small.X, small.masks, c)
    above = norms[chunk] > limit
    np.testing.assert_allclose(np.asarray(result.points)[above], q[chunk][above], atol=1e-11)
    # The largest raw correlations come first.
    first = bounds(small, c, limit=0.0, batch=3, stop_at_violation=True)
    largest = np.argsort(-np.linalg.norm(c, axis=1), kind="stable")[:3]
    np.testing.assert_array_equal(np.sort(first.chunk), np.sort(largest))


def test_no_violator_means_all_blocks_are_done(small, raw):
    c, norms = raw
    limit = float(norms.max()) * 1.001
    result = bounds(small, c, limit=limit, batch=3, stop_at_violation=True)
    assert np.linalg.norm(c, axis=1).max() > limit  # there is something to do
    assert (np.asarray(result.bound) <= limit).all()
    check_valid(small, c, result, norms)


def test_a_nan_correlation_stays_in_the_bounds(small, raw):
    c = np.array(raw[0])
    c[6, 0] = np.nan
    result = bounds(small, c, batch=3)
    assert np.isnan(result.bound[6])
    assert np.isnan(jnp.max(result.bound))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 1.5), stop=st.booleans())
def test_bounds_are_valid_wherever_the_work_stops(small, raw, seed, share, stop):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((20, 3))
    norms = np.linalg.norm(exact(small.X, small.masks, c), axis=1)
    signs = np.where(small.masks, 1.0, -1.0).T[list(range(10)) * 2]
    duals = (signs * rng.exponential(size=(20, 12))) @ small.X
    limit = share * float(np.median(norms))
    skip = rng.uniform(size=20) < 0.2
    result = bounds(small, c, duals, limit, skip, batch=3, stop_at_violation=stop)
    check_valid(small, c, result, norms)
    bound = np.asarray(result.bound)
    if not stop:
        open_blocks = ~skip & (bound > limit)
        np.testing.assert_allclose(bound[open_blocks], norms[open_blocks], rtol=1e-9, atol=1e-12)


def test_best_bound_is_the_best_multiple():
    rng = np.random.default_rng(10)
    c, v = rng.standard_normal((2, 6, 3))
    v[4], v[5] = 0.0, -2.0 * c[5]
    given = DualElements(jnp.asarray(v), jnp.ones(6))
    bound, scaled = correlation_bounds.best_bound(c, given)
    t = np.linspace(0.0, 20.0, 200_001)
    for k in range(4):
        scan = np.linalg.norm(c[k] + t[:, None] * v[k], axis=1).min()
        np.testing.assert_allclose(bound[k], scan, rtol=1e-6)
    np.testing.assert_allclose(bound[4:], [np.linalg.norm(c[4]), 0.0], rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(scaled.vectors[4], np.zeros(3))
    size = np.linalg.norm(v[:4], axis=1)
    # The mass goes along.
    np.testing.assert_allclose(scaled.mass[:4] * size, np.linalg.norm(scaled.vectors[:4], axis=1))


def test_with_a_bias_no_multiple_is_worse_than_none_or_the_element_itself():
    """Of least norm is not of least polar size: it made lambda_max 2 % too large."""
    rng = np.random.default_rng(11)
    c, v = rng.standard_normal((2, 400, 3))
    # What a projection that did not end leaves: the biases of both have one sign.
    v[:200, 2] = np.abs(v[:200, 2]) * np.sign(c[:200, 2])
    reach = jnp.asarray(2.0)

    def polar(e):
        return np.linalg.norm(e[:, :-1], axis=1) + 2.0 * np.abs(e[:, -1])

    given = DualElements(jnp.asarray(v), jnp.ones(400))
    bound, scaled = correlation_bounds.best_bound(c, given, reach)
    np.testing.assert_allclose(bound, polar(c + np.asarray(scaled.vectors)), rtol=1e-12)
    for multiple in (0.0, 1.0):
        assert np.all(np.asarray(bound) <= polar(c + multiple * v) * (1 + 1e-12))


def test_projection_batch_bounds_the_memory():
    assert cones.projection_batch(200, 569) == 200
    assert cones.projection_batch(10_000, 569) * 569 <= 2**22
    assert cones.projection_batch(5, 10**9) == 1
    assert cones.projection_batch(5, 0) == 5
