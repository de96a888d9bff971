"""The polar gauge from outside: closed forms, every face of every cell, degenerate data, scales."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import polar_reference as slow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrelu.core.budgets import Limit, Meter
from jaxrelu.geometry.patterns import enumerate_patterns
from jaxrelu.global_optimality.polar_gauge import exact, sphere
from jaxrelu.global_optimality.polar_gauge.gauge import polar_gauge
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement, values_of
from jaxrelu.paths.critical_lam import lambda_max
from jaxrelu.programs.program import ConvexProgram


def check(X, r, expected, found=None, rtol=1e-12):
    """A closed interval around the expected value, and a unit direction that attains it."""
    found = polar_gauge(X, r) if found is None else found
    tiny = rtol * max(expected, float(np.abs(r) @ np.linalg.norm(X, axis=1)))
    assert found.lower <= found.upper
    assert found.upper >= expected - 1e-14 * tiny / rtol
    assert found.upper <= expected + tiny
    assert found.lower >= expected - tiny
    assert found.closed
    assert found.direction.shape == (X.shape[1],)
    assert found.sign in (1.0, -1.0)
    if expected > 0:
        assert np.linalg.norm(found.direction) == pytest.approx(1.0, abs=1e-14)
        attained = np.asarray(r, float) @ np.maximum(X @ found.direction, 0.0)
        assert found.sign * attained >= found.lower - 1e-14 * tiny / rtol
    return found


# Closed forms.


@pytest.mark.parametrize("rho", [-0.99, -0.75, -0.5, -0.49, 0.0, 0.3, 0.99])
def test_two_rows_at_an_angle(rho):
    # One neuron along x_1 + x_2 beats one along a single row from cosine -1/2 on.
    X = np.array([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]])
    kappa = np.sqrt(2 * (1 + rho))
    check(X, np.array([3.0, 3.0]), 3.0 * max(1.0, kappa))
    check(X, np.ones(2) / kappa, max(1.0, 1 / kappa))


@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 3), (4, 6)])
def test_orthonormal_rows(n, d, rng):
    X = np.linalg.qr(rng.standard_normal((d, n)))[0].T
    for signs in itertools.product([1.0, -1.0, 0.0], repeat=n):
        r = rng.uniform(0.5, 2.0, n) * signs
        expected = max(np.linalg.norm(np.maximum(r, 0)), np.linalg.norm(np.maximum(-r, 0)))
        assert check(X, r, expected).upper_by == "orthogonal rows"


def test_orthogonal_lines_with_rows_on_both_sides(rng):
    # Every line takes its better side: a ball in the heights.
    Q = np.linalg.qr(rng.standard_normal((5, 3)))[0].T
    length = rng.uniform(0.5, 2.0, (6, 1))
    X = length * np.concatenate([Q, -Q])
    for r in rng.standard_normal((20, 6)):
        a, b = np.split(r * length[:, 0], 2)
        better = [np.linalg.norm(np.max([s * a, s * b, 0 * a], axis=0)) for s in (1, -1)]
        check(X, r, max(better))


def test_nearly_orthogonal_rows_stay_bounded():
    # Cosines below the tolerance of "orthogonal", and a third row that pulls down unless the
    # direction leaves their plane.
    tiny = 0.9e-12
    X = np.array([[1.0, 0.0, 0.0], [tiny, 1.0, 0.0], [tiny, tiny, 1.0]])
    r = np.array([1.0, 1.0, -1.0])
    u = np.array([1.0 + tiny, 1.0, -3.0 * tiny])
    found = polar_gauge(X, r)
    assert found.upper_by == "orthogonal rows"
    assert found.upper >= slow.value(X, r, u / np.linalg.norm(u))
    assert found.closed


def test_rank_one(rng):
    a = rng.standard_normal(3)
    for r in rng.standard_normal((10, 6)):
        c = rng.integers(-3, 4, 6).astype(float)
        expected = max(abs(r @ np.maximum(c, 0)), abs(r @ np.maximum(-c, 0)))
        check(np.outer(c, a), r, np.linalg.norm(a) * expected)


# Brute force.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_two_dimensions_against_a_grid_of_angles(seed):
    rng = np.random.default_rng(seed)
    X, r = rng.integers(-3, 4, (7, 2)).astype(float), rng.integers(-3, 4, 7).astype(float)
    angle = np.linspace(0, 2 * np.pi, 20_001)
    grid = np.maximum(np.stack([np.cos(angle), np.sin(angle)], axis=1) @ X.T, 0.0) @ r
    best = float(np.abs(grid).max())
    found = polar_gauge(X, r)
    assert found.upper >= best * (1 - 1e-15)
    # Between two angles the value changes by the length of the path times the slope at most.
    assert found.lower <= best + np.pi / 20_000 * float(np.abs(r) @ np.linalg.norm(X, axis=1))
    assert found.lower == pytest.approx(slow.largest(X, r), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_small_integers_against_every_face(seed):
    # Small integers: parallel, antiparallel, repeated and zero rows, faces of many walls.
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    X, r = rng.integers(-2, 3, (n, d)).astype(float), rng.integers(-2, 3, n).astype(float)
    check(X, r, slow.largest(X, r))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-5, 1e-9, 1e-11, 1e-12, 1e-14]))
def test_rows_that_are_nearly_degenerate(seed, tilt):
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, (6, 3)) + tilt * rng.integers(-2, 3, (6, 3))
    r = rng.integers(-2, 3, 6).astype(float)
    expected = slow.largest(X, r)
    found = polar_gauge(X, r)
    assert found.upper >= expected - 1e-14 * np.abs(r).sum()
    assert found.lower <= expected + 1e-12
    assert found.upper - found.lower <= 1e-10


def test_groups_of_cells_in_any_order_of_batches(rng, monkeypatch):
    monkeypatch.setattr(exact, "_AT_ONCE", 2)
    for _ in range(5):
        X, r = rng.standard_normal((9, 4)), rng.standard_normal(9)
        assert check(X, r, slow.largest(X, r)).upper_by == "all cells"


def test_walls_in_any_number_of_batches(rng, monkeypatch):
    monkeypatch.setattr(sphere, "_MOST_ARCS", 40)
    for _ in range(5):
        X, r = rng.standard_normal((9, 3)), rng.standard_normal(9)
        assert check(X, r, slow.largest(X, r)).upper_by == "sweep of walls"


@pytest.mark.parametrize("kind", ["generic", "integers", "with ones", "two-sided"])
def test_swept_walls_hold_what_all_cells_hold(kind, rng):
    X, r = rng.standard_normal((40, 3)), rng.standard_normal(40)
    if kind == "integers":
        X = rng.integers(-3, 4, (40, 3)).astype(float)
    elif kind == "with ones":
        X[:, 2] = 1.0
    elif kind == "two-sided":
        X[20:] = -2.0 * X[:20]
    data = Arrangement(X)
    sides = data.sides(r)
    swept = exact._sweep_walls(data.lines, *sides, Meter(np.inf))
    listed = exact._all_cells(data, *sides, Meter(np.inf))
    assert swept.upper - swept.lower <= 1e-10 * swept.lower
    assert swept.lower == pytest.approx(listed.lower, rel=1e-9)
    # Local maxima, of which the best is one: no step to any side leads up.
    directions, values = swept.directions, swept.values
    assert 1 <= len(values) < 40
    for _ in range(20):
        near = directions + 1e-5 * rng.standard_normal(directions.shape)
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        moved = np.abs(values_of(data.lines, *sides, near))
        assert np.all(moved <= np.maximum(values, listed.lower) + 1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 1e-4, 1e-7, 1e-9, 1e-11]), st.booleans())
def test_swept_walls_of_lines_in_clusters(seed, tilt, cancelling):
    """Nearly parallel lines, lines through one point, values far below their sums."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, (24, 3)) + tilt * rng.integers(-1, 2, (24, 3))
    r = rng.integers(-2, 3, 24).astype(float)
    if cancelling:
        X, r = np.concatenate([X, -X]), np.concatenate([r, -r + 1e-6 * rng.standard_normal(24)])
    data = Arrangement(X)
    if data.rank != 3:
        return
    sides = data.sides(r)
    swept = exact._sweep_walls(data.lines, *sides, Meter(np.inf))
    if swept is None:
        assert tilt < 1.0  # lines whose angle is the square of the tilt, or less
        return
    listed = exact._all_cells(data, *sides, Meter(np.inf))
    size = np.abs(sides).sum()
    assert swept.upper >= listed.lower
    assert swept.lower <= listed.upper
    assert swept.upper <= listed.lower * (1 + 1e-9) + 1e-12 * size


def test_walls_that_are_too_much_work_are_left(rng):
    X, r = rng.standard_normal((300, 3)), rng.standard_normal(300)
    data = Arrangement(X)
    assert sphere.sphere_maximum(data.lines, *data.sides(r), Meter(0.0)) is None
    best = polar_gauge(X, r)
    assert best.closed
    hasty = polar_gauge(X, r, max_work=0.0)
    assert hasty.lower <= best.lower * (1 + 1e-12)
    assert hasty.upper >= best.upper * (1 - 1e-12)
    assert (best.ended_by, hasty.ended_by) == (Limit.NONE, Limit.WORK)


# Degenerate data.

GENERIC = np.random.default_rng(3).standard_normal((7, 3))
LADDER = np.arange(-3.0, 4.0)
DEGENERATE = {
    "all zero": (np.zeros((3, 2)), np.ones(3)),
    "one zero": (np.zeros((1, 1)), np.ones(1)),
    "zero residual": (GENERIC, np.zeros(7)),
    "zero residual of orthogonal rows": (np.eye(3), np.zeros(3)),
    "residual on zero rows only": (np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([2.0, 0.0])),
    "one sample": (np.array([[3.0, -4.0, 0.0]]), np.array([-2.0])),
    "one feature": (np.array([[2.0], [-1.0], [0.0], [3.0]]), np.array([1.0, -5.0, 9.0, -1.0])),
    "one number": (np.array([[-2.0]]), np.array([3.0])),
    "more features than samples": (np.random.default_rng(4).standard_normal((3, 6)), np.ones(3)),
    "rank two in five": (GENERIC[:, :2] @ np.eye(5)[1:3] @ (np.ones((5, 5)) + np.eye(5)), LADDER),
    "opposite rows that cancel": (np.array([[1.0, 2], [1, 2], [-2, -4]]), np.array([1.0, -1, 0])),
    "a linear value that cancels": (
        np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]]),
        np.array([1.0, -1, 1, -1, -1, 1]),
    ),
    "a linear value": (np.concatenate([GENERIC, -GENERIC]), np.repeat([1.0, -1.0], 7)),
    "every row twice": (np.repeat(GENERIC, 2, axis=0), np.arange(14.0) - 6),
}  # fmt: skip


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data(name):
    X, r = DEGENERATE[name]
    check(X, r, slow.largest(X, r))


@pytest.mark.parametrize("X", [np.zeros((2, 3)), np.eye(3)[:2], GENERIC[:2]])
def test_the_direction_has_unit_length_also_where_all_are_equal(X):
    found = polar_gauge(X, np.zeros(2))
    assert (found.lower, found.upper, found.closed) == (0.0, 0.0, True)
    assert np.linalg.norm(found.direction) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(6, 2), (7, 3), (3, 3)])
@pytest.mark.parametrize("scale", [1e-150, 1e-40, 1e40, 1e150])
def test_any_scale(shape, scale, rng):
    X, r = rng.integers(-2, 3, shape).astype(float), rng.integers(-2, 3, shape[0]).astype(float)
    expected = slow.largest(X, r)
    for found in (polar_gauge(scale * X, r), polar_gauge(X, scale * r)):
        assert found.lower / scale == pytest.approx(expected, rel=1e-12)
        assert found.upper / scale == pytest.approx(expected, rel=1e-12)
        assert found.upper >= scale * expected * (1 - 1e-15)
        assert found.closed
        assert slow.value(X, r, found.direction) == pytest.approx(expected, rel=1e-12)


def test_rows_of_very_different_lengths_that_matter_alike(rng):
    X, r = rng.integers(-2, 3, (7, 3)).astype(float), rng.integers(-2, 3, 7).astype(float)
    length = 10.0 ** np.array([-160, 160, 0, -300, 300, 20, -20])
    found = polar_gauge(length[:, None] * X, r / length)
    expected = slow.largest(X, r)
    assert expected * (1 - 1e-14) <= found.upper <= expected * (1 + 1e-12)
    assert found.lower == pytest.approx(expected, rel=1e-12)


# What does not change.


@pytest.mark.parametrize("d", [2, 3])
def test_symmetries(d, rng):
    X, r = rng.standard_normal((7, d)), rng.standard_normal(7)
    expected = polar_gauge(X, r).lower
    rotation = np.linalg.qr(rng.standard_normal((d + 2, d)))[0]
    order = rng.permutation(7)
    # A row of weight r_1 is the same as two of weights that add up to it.
    twice = np.concatenate([X, X[:1]]), np.concatenate([[0.3 * r[0]], r[1:], [0.7 * r[0]]])
    # A row may move length into its weight.
    moved = np.diag(np.linspace(0.5, 2.0, 7)) @ X, r / np.linspace(0.5, 2.0, 7)
    for data, residual, factor in [
        (X, 2.5 * r, 2.5),
        (X, -r, 1.0),
        (-X, r, 1.0),
        (X @ rotation.T, r, 1.0),
        (X[order], r[order], 1.0),
        (*twice, 1.0),
        (*moved, 1.0),
        (np.concatenate([X, np.zeros((2, d))]), np.append(r, [5.0, -7.0]), 1.0),
    ]:
        check(data, residual, factor * expected)


def test_the_direction_turns_with_the_data(rng):
    X, r = rng.standard_normal((7, 3)), rng.standard_normal(7)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    one, other = polar_gauge(X, r), polar_gauge(X @ rotation.T, r)
    np.testing.assert_allclose(other.direction, rotation @ one.direction, atol=1e-9)
    assert one.sign == other.sign == -polar_gauge(X, -r).sign


def test_convex_in_the_residual(rng):
    X = rng.standard_normal((7, 3))
    for _ in range(5):
        one, other = rng.standard_normal((2, 7))
        middle = polar_gauge(X, (one + other) / 2)
        ends = polar_gauge(X, one).upper + polar_gauge(X, other).upper
        assert middle.lower <= ends / 2


# The arrangement.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_sides_of_lines_give_the_value_of_every_direction(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 10)), int(rng.integers(1, 5))
    X, r = rng.integers(-2, 3, (n, d)).astype(float), rng.standard_normal(n)
    arrangement = Arrangement(X)
    assert arrangement.rank == np.linalg.matrix_rank(X)
    reduced = X[X.any(axis=1)] / np.linalg.norm(X[X.any(axis=1)], axis=1, keepdims=True)
    cosine = np.abs(reduced @ reduced.T) > 1 - 1e-12
    assert len(arrangement.lines) == len(np.unique(cosine, axis=0))
    u = rng.standard_normal((5, d))
    found = exact.values_of(arrangement.lines, *arrangement.sides(r), u @ arrangement.basis)
    np.testing.assert_allclose(found, np.maximum(u @ X.T, 0.0) @ r, atol=1e-12)
    assert arrangement.slack(r) <= 1e-12 * (1 + np.abs(r) @ np.linalg.norm(X, axis=1))


# Precision.


def test_float32_data_are_taken_as_they_are(rng):
    X, r = rng.standard_normal((7, 3)).astype(np.float32), rng.standard_normal(7).astype(np.float32)
    check(X.astype(float), r.astype(float), slow.largest(X, r), polar_gauge(X, r))


@pytest.mark.parametrize("shape", [(6, 2), (7, 3)])
def test_bounds_hold_in_float64_where_jax_works_in_float32(shape, rng, x64_off):
    for _ in range(5):
        X, r = rng.standard_normal(shape).astype("f4"), rng.standard_normal(shape[0]).astype("f4")
        found = polar_gauge(X, r)
        expected = slow.largest(X, r)
        assert found.lower <= expected * (1 + 1e-15)
        assert expected * (1 - 1e-14) <= found.upper <= expected * (1 + 1e-6)
        assert found.lower <= slow.value(X, r, found.direction) * (1 + 1e-15)
        assert np.linalg.norm(found.direction) == pytest.approx(1.0, abs=1e-14)


# Arguments.

X, R = GENERIC, np.linspace(-1.0, 2.0, 7)
WRONG = {
    "vector X": ((X[:, 0], R), {}, ValueError, "pass a matrix"),
    "NaN in X": ((np.where(np.eye(7, 3) > 0, np.nan, X), R), {}, ValueError, "X"),
    "integer X": ((X.astype(int), R), {}, TypeError, "X"),
    "matrix r": ((X, R[:, None]), {}, ValueError, r"r has shape \(7, 1\)"),
    "short r": ((X, R[:-1]), {}, ValueError, "X has 7 rows"),
    "number r": ((X, 1.0), {}, ValueError, "r has shape"),
    "infinite r": ((X, np.where(R > 1, np.inf, R)), {}, ValueError, "r"),
    "complex r": ((X, R + 1j), {}, TypeError, "r has dtype complex128"),
    "text r": ((X, ["a"] * 7), {}, TypeError, "r has dtype"),
    "negative rtol": ((X, R), {"rtol": -1e-3}, ValueError, "rtol is -0.001"),
    "NaN threshold": ((X, R), {"threshold": np.nan}, ValueError, "threshold is nan"),
    "negative time": ((X, R), {"max_seconds": -1.0}, ValueError, "max_seconds"),
    "NaN work": ((X, R), {"max_work": np.nan}, ValueError, "max_work"),
    "no starts": ((X, R), {"num_starts": 0}, ValueError, "num_starts is 0"),
    "starts of other features": ((X, R), {"starts": np.ones((2, 4))}, ValueError, "3 features"),
    "NaN starts": ((X, R), {"starts": np.full((2, 3), np.nan)}, ValueError, "starts"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    args, options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        polar_gauge(*args, **options)


@pytest.mark.parametrize("traced", ["X", "r", "starts"])
def test_traced_arguments(traced):
    values = {"X": X, "r": R, "starts": X[:2]}

    def call(array):
        return polar_gauge(**(values | {traced: array})).upper

    with pytest.raises(TypeError, match=f"{traced} is traced"):
        jax.jit(call)(jnp.asarray(values[traced]))


@pytest.mark.parametrize("n", [3, 30])
def test_spike_free_rows_are_recognised(n):
    """Rows of A with (A A^T)^-1 = I + ones off the diagonal negative: an M-matrix by design."""
    rng = np.random.default_rng(n)
    inverse = np.eye(n) - 0.5 / n * (1 - np.eye(n))
    rotation = np.linalg.qr(rng.standard_normal((n + 2, n)))[0]
    X = np.linalg.cholesky(np.linalg.inv(inverse)) @ rotation.T
    X *= rng.uniform(0.5, 2.0, n)[:, None]
    r = rng.standard_normal(n)
    found = polar_gauge(X, r, max_work=0.0)
    assert (found.lower_by, found.upper_by) == ("spike-free rows", "spike-free rows")
    assert found.closed
    tried = rng.standard_normal((20_000, n + 2))
    tried = np.concatenate([tried, tried[:, :n] @ X])
    tried /= np.linalg.norm(tried, axis=1, keepdims=True)
    assert np.max(np.abs(np.maximum(tried @ X.T, 0) @ r)) <= found.upper
    if n == 3:
        top = lambda_max(ConvexProgram(X, r, enumerate_patterns(X)))
        np.testing.assert_allclose(found.upper, top, rtol=1e-9)


@pytest.mark.slow
def test_many_lines_fit_into_memory(rng):
    # In two dimensions all walls against all lines; in three, no search over signs.
    for d in (2, 3):
        X, r = rng.standard_normal((6000, d)), rng.standard_normal(6000)
        found = polar_gauge(X, r, max_work=5.0, num_starts=16)
        assert found.lower <= found.upper
        assert found.closed == (d == 2)


def test_no_work_leaves_a_valid_interval(rng):
    X, r = rng.standard_normal((25, 4)), rng.standard_normal(25)
    exact, hurried = (polar_gauge(X, r, max_work=w) for w in (30.0, 0.0))
    assert exact.closed
    assert not hurried.closed
    assert (exact.ended_by, hurried.ended_by) == (Limit.NONE, Limit.WORK)
    assert polar_gauge(X, r, max_seconds=0.0).ended_by is Limit.SECONDS
    assert hurried.lower <= exact.lower * (1 + 1e-9)
    assert hurried.upper >= exact.upper * (1 - 1e-9)
