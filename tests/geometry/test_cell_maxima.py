"""Maxima of ||C^T u|| over cells: exact at low rank, bounds that hold beyond."""

import jax
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu.geometry.cell_ascent import CellAscent
from jaxrelu.geometry.cell_maxima import low_rank_maxima, maxima_of
from jaxrelu.geometry.host.cell_relaxation import relaxed_maximum


def cells(X):
    patterns = jr.enumerate_patterns(X)
    return np.asarray(patterns.masks), np.asarray(patterns.interior)


def by_sampling(X, masks, C, count=40_000, seed=0):
    """The largest ||C^T u|| of many directions, cell by cell; -1 where none of them fell."""
    U = np.random.default_rng(seed).standard_normal((count, X.shape[1]))
    U /= np.linalg.norm(U, axis=1)[:, None]
    values = np.full(masks.shape[1], -1.0)
    code = {m.tobytes(): j for j, m in enumerate(masks.T.astype(bool))}
    found = U @ X.T >= 0
    for u, bits in zip(U, found, strict=True):
        j = code.get(bits.tobytes())
        if j is not None:
            values[j] = max(values[j], float(np.linalg.norm(C[j].T @ u)))
    return values


@pytest.mark.parametrize(("n", "d", "c"), [(3, 1, 2), (7, 2, 3), (6, 3, 2), (5, 3, 3)])
def test_low_rank_maxima_are_those_of_many_directions(n, d, c):
    rng = np.random.default_rng(n + d)
    X = rng.standard_normal((n, d))
    masks, _ = cells(X)
    C = np.einsum("nd,np,nc->pdc", X, masks, rng.standard_normal((n, c)))
    found = low_rank_maxima(X, masks, 3).at(C, 0.0)
    bounds = low_rank_maxima(X, masks, 3).cells.maxima(C).bounds
    assert np.all(bounds >= by_sampling(X, masks, C))
    np.testing.assert_allclose(found.values, bounds, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.bound, np.max(bounds))


@pytest.mark.parametrize("seed", range(12))
def test_bounds_hold_on_degenerate_rows(seed):
    """Rows of small integers: repeated, opposite, zero, and many walls through one ray."""
    rng = np.random.default_rng(seed)
    d = 2 + seed % 2
    X = rng.integers(-1, 2, (6, d)).astype(float)
    X[0] = np.eye(d)[0]
    X[1:d] = np.eye(d)[1:]
    masks, _ = cells(X)
    C = np.einsum("nd,np,nc->pdc", X, masks, rng.standard_normal((6, 2)))
    maxima = low_rank_maxima(X, masks, 3)
    bounds, found = maxima.cells.maxima(C).bounds, maxima.at(C, 0.0)
    assert np.all(bounds >= by_sampling(X, masks, C, 20_000))
    # And attained in the cells.
    heights = np.where(masks.T, 1.0, -1.0) * (found.directions @ X.T)
    assert np.min(heights) > -1e-9
    np.testing.assert_allclose(found.values, bounds, rtol=1e-6, atol=1e-9)


def test_walls_that_rounding_hides_are_not_trusted():
    """Walls closer than rays can be told apart, and rows that are rounding beside others."""
    near = np.asarray([[1.0, 0.0], [1.0, 1e-13]])
    masks = near @ np.asarray([[1.0], [0.1]]) >= 0
    C = np.einsum("nd,np,nc->pdc", near, masks, np.asarray([[1.0, 0.5], [0.3, -0.2]]))
    assert low_rank_maxima(near, masks, 3).at(C, 0.0).bound >= 1.334
    thin = np.asarray([[1.0, 0, 0], [0, 1, 0], [1e-20, -1e-20, 1e-17]])
    masks = thin @ np.asarray([[1.0], [0.2], [100.0]]) >= 0
    C = np.einsum("nd,np,nc->pdc", thin, masks, np.asarray([[0.1, 0], [1, 0.5], [0.2, 0.4]]))
    assert maxima_of(thin, masks, np.asarray([[0.3], [0.3], [0.9]])).at(C, 0.0).bound >= 1.1216


def test_ascent_and_its_bounds_enclose_the_maximum():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((7, 3))
    masks, interior = cells(X)
    residual = rng.standard_normal((7, 2))
    C = np.einsum("nd,np,nc->pdc", X, masks, residual)
    exact = low_rank_maxima(X, masks, 3).at(C, 1.0)
    ascent = CellAscent(X, masks, interior)
    lam = exact.bound
    for _ in range(3):
        found = ascent.at(C, 0.5 * lam, closely=False)
    assert np.max(found.values) <= exact.bound * (1 + 1e-9)
    np.testing.assert_allclose(np.max(found.values), exact.bound, rtol=1e-4)
    close = ascent.at(C, lam, closely=True)
    assert close.bound >= np.max(exact.values) * (1 - 1e-12)
    np.testing.assert_allclose(close.bound, exact.bound, rtol=1e-3)


def test_with_one_output_projections_are_the_maximum():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((12, 5))
    patterns = jr.sample_patterns(jax.random.key(0), X, 8)
    r = rng.standard_normal(12)
    program = jr.ConvexProgram(X, r, patterns)
    q = np.linalg.norm(np.asarray(jr.block_correlations(program, r)), axis=-1).max(axis=0)
    C = np.einsum("nd,np,n->pd", X, np.asarray(patterns.masks), r)[:, :, None]
    found = CellAscent(X, patterns.masks, patterns.interior).at(C, 0.0)
    np.testing.assert_allclose(found.values, q, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.bound, np.max(q), rtol=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_the_relaxation_is_a_bound_that_is_exact_in_the_plane(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((5, 2))
    inside = rng.standard_normal(2)
    walls = np.where(X @ inside > 0, 1.0, -1.0)[:, None] * X
    C = rng.standard_normal((2, 2))
    form, angles = C @ C.T, np.linspace(0, 2 * np.pi, 400_001)
    u = np.stack([np.cos(angles), np.sin(angles)])
    u = u[:, np.all(walls @ u >= 0, axis=0)]
    best = float(np.max(np.einsum("dk,de,ek->k", u, form, u)))
    bound = relaxed_maximum(form, walls, inside, best * (1.0 + 1e-7))
    assert best * (1 - 1e-12) <= bound <= best * (1.0 + 1e-4)
