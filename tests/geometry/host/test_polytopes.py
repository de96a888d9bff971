"""The polytope {a >= 0 : Z a = f}: every routine against brute force or another route."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, nnls

from jaxrelu.geometry.host import level_method, polytopes


def instance(seed):
    """Few random features, some repeated on a plane, with a random member; sum a is constant."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, 5)), int(rng.integers(2, 8))
    columns = np.vstack([rng.integers(-2, 3, (n - 1, k)).astype(float), np.ones(k)])
    start = rng.integers(0, 3, k).astype(float)
    start[rng.integers(k)] += 1.0
    return columns, start


def brute_vertices(columns, fit):
    """Every support of independent columns that gives a member."""
    k, found = columns.shape[1], []
    for size in range(1, min(columns.shape) + 1):
        for chosen in combinations(range(k), size):
            part = columns[:, chosen]
            if np.linalg.matrix_rank(part) < size:
                continue
            a = np.linalg.lstsq(part, fit, rcond=None)[0]
            if np.linalg.norm(part @ a - fit) < 1e-9 and np.all(a > 1e-9):
                found.append(np.zeros(k))
                found[-1][list(chosen)] = a
    return np.array(found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_vertices_support_dimension_and_fewest_are_those_of_brute_force(seed):
    columns, start = instance(seed)
    P = polytopes.polytope(columns, start)
    corners = brute_vertices(columns, columns @ start)
    found = polytopes.all_vertices(P)
    assert len(found) == len(corners)
    for corner in corners:
        assert np.min(np.max(np.abs(found - corner), axis=1)) < 1e-7
    inside, support, agree = polytopes.relative_interior(P)
    interior = np.zeros(support.size)
    interior[support] = inside.start
    assert agree
    assert P.clear
    np.testing.assert_array_equal(support, np.any(corners > 1e-9, axis=0))
    np.testing.assert_allclose(columns @ interior, columns @ start, atol=1e-7)
    assert np.all(interior[support] > 0)
    spanned = np.linalg.matrix_rank(corners - corners[0], tol=1e-8)
    assert inside.null.shape[1] == spanned
    sparse, proven, _ = polytopes.fewest(inside, None, None)
    assert proven
    assert np.sum(sparse > 1e-6) == np.min(np.sum(corners > 1e-9, axis=1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_projection_and_bounds_are_optimal(seed):
    columns, start = instance(seed)
    P = polytopes.polytope(columns, start)
    rng = np.random.default_rng(seed + 1)
    point = 2 * rng.standard_normal(start.size)
    nearest = polytopes.project(P, point)
    corners = brute_vertices(columns, columns @ start)
    assert np.all(nearest >= 0)
    np.testing.assert_allclose(columns @ nearest, columns @ start, atol=1e-8)
    # The variational inequality, at every vertex.
    assert np.all((corners - nearest) @ (point - nearest) <= 1e-7)
    direction = rng.standard_normal(start.size)
    best = polytopes.maximise(P, direction) @ direction
    assert best == pytest.approx(np.max(corners @ direction), abs=1e-6)
    k = start.size
    oracle = linprog(
        np.append(np.zeros(k), 1.0),
        A_ub=np.hstack([np.eye(k), -np.ones((k, 1))]), b_ub=np.zeros(k),
        A_eq=np.hstack([columns, np.zeros((len(columns), 1))]), b_eq=columns @ start,
    )  # fmt: skip
    assert np.max(polytopes.smallest_maximum(P)) == pytest.approx(oracle.fun, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_intervals_of_fits_against_linear_programs(seed):
    """Largest functions, nearest and fewest of {Z a in intervals}, as SciPy has them."""
    rng = np.random.default_rng(seed)
    columns, start = instance(seed)
    n, k = columns.shape
    fit = columns @ start
    width = rng.choice([0.0, 1.0, 2.0, np.inf], (2, n), p=[0.4, 0.2, 0.2, 0.2])
    width[:, -1] = [np.inf, rng.integers(0, 2)]  # the sum is bounded
    low, high = fit - width[0], fit + width[1]
    P = polytopes.polytope(columns, start, low, high)
    bounds = [(0, None)] * k
    rows = [(columns, high), (-columns, -low)]
    A = np.vstack([Z[np.isfinite(end)] for Z, end in rows])
    b = np.concatenate([end[np.isfinite(end)] for _, end in rows])
    corners = polytopes.all_vertices(P)
    for sign in (1, -1):
        direction = sign * rng.standard_normal(k)
        best = -linprog(-direction, A_ub=A, b_ub=b, bounds=bounds).fun
        assert polytopes.maximise(P, direction) @ direction == pytest.approx(best, abs=1e-6)
        assert np.max(corners @ direction) == pytest.approx(best, abs=1e-6)
    inside, support, _ = polytopes.relative_interior(P)
    largest = [-linprog(-row, A_ub=A, b_ub=b, bounds=bounds).fun for row in np.eye(k)]
    np.testing.assert_array_equal(support, np.asarray(largest) > 1e-7)
    spanned = np.linalg.matrix_rank(corners - corners[0], tol=1e-7)
    assert inside.null.shape[1] == spanned
    sparse, proven, _ = polytopes.fewest(inside, None, None)
    assert proven
    assert np.sum(sparse > 1e-6) == np.min(np.sum(corners > 1e-7, axis=1))
    point = 2 * rng.standard_normal(k)
    nearest = polytopes.project(P, point)
    assert np.all(A @ nearest <= b + 1e-7)
    assert np.all((corners - nearest) @ (point - nearest) <= 1e-6)
    weights = rng.standard_normal(k)
    found = level_method.minimise(P, lambda a: float(weights @ a), lambda a: weights)
    assert weights @ found == pytest.approx(np.min(corners @ weights), abs=1e-5)


def test_some_vertices_are_vertices():
    columns, start = np.ones((1, 5)), np.full(5, 0.2)
    P = polytopes.polytope(columns, start)
    found = polytopes.some_vertices(P, 40, seed=0)
    np.testing.assert_allclose(np.sort(found, axis=1)[:, -1], 1.0, atol=1e-9)
    assert len(found) == 5


def absolute_minimum(columns, fit, rows, target):
    """The least sum |rows a - target| over a >= 0, columns a = fit, as a linear program."""
    q, k = rows.shape
    found = linprog(
        np.append(np.zeros(k), np.ones(q)),
        A_ub=np.block([[rows, -np.eye(q)], [-rows, -np.eye(q)]]),
        b_ub=np.concatenate([target, -target]),
        A_eq=np.hstack([columns, np.zeros((len(columns), q))]), b_eq=fit,
        bounds=[(0, None)] * (k + q),
    )  # fmt: skip
    return found.fun


def larger(seed, n, k):
    """Features of several neurons on few samples, with a member of positive coefficients."""
    rng = np.random.default_rng(seed)
    columns = np.vstack([np.maximum(rng.standard_normal((n, k)), 0.0), np.ones(k)])
    start = rng.exponential(size=k)
    return columns, start, polytopes.polytope(columns, start)


@pytest.mark.parametrize(("n", "k"), [(2, 6), (3, 8), (5, 20), (8, 30)])
@pytest.mark.parametrize("seed", range(3))
def test_functions_with_kinks_are_minimised(seed, n, k):
    columns, start, P = larger(seed, n, k)
    rng = np.random.default_rng(seed + 1)
    rows, target = rng.standard_normal((k, k)), rng.standard_normal(k)
    found = level_method.minimise(P, np.max, lambda a: np.eye(k)[np.argmax(a)])
    assert np.max(found) == pytest.approx(np.max(polytopes.smallest_maximum(P)), rel=1e-6)
    found = level_method.minimise(
        P,
        lambda a: float(np.sum(np.abs(rows @ a - target))),
        lambda a: rows.T @ np.sign(rows @ a - target),
    )
    np.testing.assert_allclose(columns @ found, columns @ start, atol=1e-8)
    best = absolute_minimum(columns, columns @ start, rows, target)
    assert np.sum(np.abs(rows @ found - target)) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(("n", "k"), [(3, 8), (5, 20), (10, 40)])
@pytest.mark.parametrize("seed", range(4))
def test_smooth_functions_are_minimised_where_slsqp_stops_early(seed, n, k):
    # With members that have zeros SLSQP says now and then that it converged, and did not.
    rng = np.random.default_rng(seed)
    columns = np.maximum(rng.standard_normal((n, k)), 0.0) * rng.standard_normal((n, 1))
    columns = np.vstack([columns, np.ones(k)])
    start = rng.exponential(size=k) * (rng.random(k) < 0.7) + np.eye(k)[0]
    P = polytopes.polytope(columns, start)
    rows, target = rng.standard_normal((30, k)), 5.0 * rng.standard_normal(30)
    found = level_method.minimise(
        P, lambda a: np.sum((rows @ a - target) ** 2), lambda a: 2 * rows.T @ (rows @ a - target)
    )
    # The stacked system has the objective, and the constraints with a large weight.
    weight = 1e5
    system = np.vstack([rows, weight * columns])
    a = nnls(system, np.concatenate([target, weight * (columns @ start)]))[0]
    assert np.sum((rows @ found - target) ** 2) == pytest.approx(
        np.sum((rows @ a - target) ** 2), rel=1e-6
    )


def test_a_function_that_is_infinite_on_the_boundary_is_minimised():
    # The analytic centre of a simplex is its middle.
    P = polytopes.polytope(np.ones((1, 4)), np.array([0.7, 0.1, 0.1, 0.1]))
    with np.errstate(divide="ignore"):
        found = level_method.minimise(P, lambda a: -np.sum(np.log(a)), lambda a: -1.0 / a)
    np.testing.assert_allclose(found, 0.25, atol=1e-4)


def test_a_user_function_is_minimised_and_failure_is_said():
    P = polytopes.polytope(np.ones((1, 3)), np.array([1.0, 0.0, 0.0]))
    target = np.array([0.5, 0.7, -0.4])
    best = level_method.minimise(P, lambda a: np.sum((a - target) ** 2), lambda a: 2 * (a - target))
    np.testing.assert_allclose(best, polytopes.project(P, target), atol=1e-7)
    with pytest.raises(RuntimeError, match="not minimised"):
        level_method.minimise(P, lambda a: np.nan, lambda a: np.full(3, np.nan))
    middle = polytopes.polytope(np.ones((1, 3)), np.ones(3))
    with pytest.raises(RuntimeError, match="Pass a function that is convex"):
        level_method.minimise(middle, lambda a: -np.sum(a**2), lambda a: -2 * a)


def test_a_singular_value_too_close_to_call_is_told():
    clear = polytopes.polytope(np.eye(3)[:, [0, 1, 1]], np.ones(3))
    assert clear.clear
    assert clear.null.shape[1] == 1
    almost = np.eye(3)[:, [0, 1, 1]]
    almost[2, 2] = 3e-9
    assert not polytopes.polytope(almost, np.ones(3)).clear


def test_linear_criteria_end_at_a_vertex():
    # Slopes over many orders of magnitude, on which the line search of SLSQP gives up.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Z = rng.random((4, 12))
        P = polytopes.polytope(Z, rng.random(12) ** 8)
        cost = -1.0 / np.maximum(P.start, 1e-12)
        found = level_method.minimise(P, lambda a, c=cost: float(c @ a), lambda a, c=cost: c)
        best = cost @ polytopes.maximise(P, -cost)
        assert cost @ found <= best + 1e-6 * abs(best)
