"""Bounds of the polar gauge from inside: each holds wherever its work is stopped."""

import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import polar_reference as slow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from jaxrelu.global_optimality.polar_gauge import branch_and_bound as branch
from jaxrelu.global_optimality.polar_gauge.branch_and_bound import Interval, branch_and_bound
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement
from jaxrelu.global_optimality.polar_gauge.relaxations import Lifted, cheap_bound
from jaxrelu.global_optimality.polar_gauge.zonotope import host_distances

# One shape for the file: few programs to compile.
L, K = slow.L, slow.K
UNKNOWN = Interval(0.0, np.inf, np.eye(K)[0], 0)


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Two parents at once, so that searches take several turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "_PARENTS", 2)
        yield


def search(lines, front, back, start=UNKNOWN, *, rtol=1e-6, threshold=0.0, batches=10_000):
    """Branch and bound that stops after so many batches beside the one of the roots."""
    turns = itertools.count(1)
    meter = SimpleNamespace(spend=lambda _: None, allows=lambda _: next(turns) <= batches)
    found = branch_and_bound(lines, front, back, start, rtol=rtol, meter=meter, threshold=threshold)
    return found, next(turns)


# Every bound.


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_cheap_bounds(seed):
    lines, front, back, exact = slow.instance(seed)
    bound, name = cheap_bound(lines, front, back)
    assert bound >= exact * (1 - 1e-14)
    assert bound <= np.abs(np.concatenate([front, back])).sum()
    assert name in ("norm sums", "spectral norm")


def test_cheap_bounds_of_known_value():
    # One row alone is its norm; a linear value is the norm of its vector.
    line, one = np.array([[0.6, 0.8]]), np.ones(1)
    assert cheap_bound(line, 3 * one, 0 * one)[0] == pytest.approx(3.0)
    square = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert cheap_bound(square, np.ones(2), -np.ones(2)) == (
        pytest.approx(np.sqrt(2)), "spectral norm",
    )  # fmt: skip
    # A line that only pulls down adds nothing.
    assert cheap_bound(square, np.array([3.0, -1]), np.array([0.0, -1]))[0] == pytest.approx(3.0)
    # h_+ + (-h)_+ twice over orthogonal lines: both are sharp but for the ball.
    assert cheap_bound(square, np.ones(2), np.ones(2))[0] == pytest.approx(np.sqrt(2))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_semidefinite_bound_holds_at_every_step(seed):
    lines, front, back, exact = slow.instance(seed)
    programs = [Lifted.of(lines, sign * front, sign * back) for sign in (1.0, -1.0)]
    assert all(program.bound == np.inf for program in programs)
    bounds = []
    for _ in range(8):
        for program in programs:
            program.improve()
        bounds.append(max(program.bound for program in programs))
    assert min(bounds) >= exact * (1 - 1e-12)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] <= 1.5 * exact


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_any_multiplier_of_the_semidefinite_program_gives_a_bound(seed):
    lines, front, back, exact = slow.instance(seed)
    rng = np.random.default_rng(seed)
    programs = [Lifted.of(lines, sign * front, sign * back) for sign in (1.0, -1.0)]
    for size in (0.0, 1e-3, 0.1, 1.0):
        Y = size * rng.standard_normal(programs[0].C.shape)
        assert max(p._bound(p.C + Y) for p in programs) >= exact * (1 - 1e-12)
        assert max(p._bound(Y) for p in programs) >= exact * (1 - 1e-12)


def test_the_semidefinite_bound_does_not_know_left_from_right(rng):
    lines = Arrangement(rng.standard_normal((L, K))).lines
    a, b = rng.standard_normal((2, L))
    program = Lifted.of(lines, a, b)
    program.improve()
    flip = np.ones(len(program.C))
    flip[1] = -1.0  # the first coordinate of u
    mirrored = Lifted.of(lines * np.array([-1.0, 1.0, 1.0]), a, b)
    Y = np.asarray(program.state[1]) + 0.1 * rng.standard_normal(program.C.shape)
    expected = program._bound(Y)
    assert mirrored._bound(flip[:, None] * Y * flip) == pytest.approx(expected, rel=1e-12)
    # Nor one side of a line from the other.
    turned = Lifted.of(-lines, b, a)
    turned.improve()
    assert turned.bound == pytest.approx(program.bound, rel=1e-9)


def test_the_semidefinite_bound_is_close_on_generic_data(rng):
    # The dossier's five random instances are met to solver accuracy.
    for _ in range(5):
        lines = Arrangement(rng.standard_normal((L, K))).lines
        a = rng.standard_normal(L)
        programs = [Lifted.of(lines, sign * a, 0 * a) for sign in (1.0, -1.0)]
        for _ in range(20):
            for program in programs:
                program.improve()
        assert max(p.bound for p in programs) <= 1.01 * slow.largest(lines, a)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_branch_and_bound_holds_wherever_it_stops(seed):
    lines, front, back, exact = slow.instance(seed)
    last = np.inf
    for batches in (0, 1, 2, 3, 5):
        found, _ = search(lines, front, back, batches=batches)
        assert found.upper >= exact * (1 - 1e-14)
        assert found.upper <= last * (1 + 1e-12)
        assert found.lower <= exact * (1 + 1e-14)
        assert slow.attained(lines, front, back, found.direction) >= found.lower * (1 - 1e-15)
        last = found.upper
    assert found.nodes <= 2 + 5 * 4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_branch_and_bound_closes(seed):
    lines, front, back, exact = slow.instance(seed)
    start = slow.maxima(lines, front, back, seed)
    known = Interval(float(start.values[0]), np.inf, start.directions[0], 0)
    found, turns = search(lines, front, back, known)
    assert found.lower == pytest.approx(exact, rel=1e-5)
    assert exact * (1 - 1e-14) <= found.upper <= exact * (1 + 1e-5)
    # Lines that pull downwards need no branching: a sign for each of the others at most.
    assert turns <= 2 ** int(np.sum(front + back != 0))


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_bounds_of_any_scale(scale, rng):
    lines = Arrangement(rng.standard_normal((L, K))).lines
    front, back = rng.standard_normal((2, L))
    exact = slow.largest(np.concatenate([lines, -lines]), np.concatenate([front, back]))
    a, b = scale * front, scale * back
    found, _ = search(lines, a, b)
    assert found.upper / scale == pytest.approx(exact, rel=1e-6)
    assert found.lower / scale == pytest.approx(exact, rel=1e-6)
    assert slow.maxima(lines, a, b, 0).values[0] / scale == pytest.approx(exact, rel=1e-12)
    programs = [Lifted.of(lines, sign * a, sign * b) for sign in (1.0, -1.0)]
    for program in programs:
        program.improve()
    assert exact <= max(p.bound for p in programs) / scale < np.inf
    assert exact <= cheap_bound(lines, a, b)[0] / scale < np.inf


def test_branch_and_bound_ends_also_at_width_zero(rng):
    # What is left when no line bends upwards is a number: nothing more to branch on.
    for _ in range(5):
        lines = Arrangement(rng.standard_normal((L, K))).lines
        a = rng.standard_normal(L)
        found, turns = search(lines, a, 0 * a, rtol=0.0, batches=500)
        assert turns < 500
        assert found.upper <= found.lower * (1 + 1e-10)


def test_branch_and_bound_stops_at_the_threshold(rng):
    lines = Arrangement(rng.standard_normal((L, K))).lines
    a = rng.standard_normal(L)
    exact = slow.largest(lines, a)
    full, _ = search(lines, a, 0 * a)
    for factor in (1.02, 1.2, 3.0):
        found, _ = search(lines, a, 0 * a, threshold=factor * exact)
        assert exact <= found.upper <= factor * exact
        assert found.nodes <= full.nodes
    assert found.nodes == 2  # the roots are good enough
    # A threshold below R proves nothing and costs nothing.
    found, _ = search(lines, a, 0 * a, threshold=0.5 * exact)
    assert found.upper == pytest.approx(exact, rel=1e-6)


def test_branch_and_bound_keeps_what_was_known(rng):
    lines = Arrangement(rng.standard_normal((L, K))).lines
    a = rng.standard_normal(L)
    exact = slow.largest(lines, a)
    best = search(lines, a, 0 * a)[0].direction
    known = Interval(slow.attained(lines, a, 0 * a, best), exact * (1 + 1e-9), best, 0)
    found, _ = search(lines, a, 0 * a, known, batches=0)
    assert found.upper == known.upper
    assert found.lower == known.lower
    np.testing.assert_array_equal(found.direction, best)


def test_a_bound_that_is_no_number_proves_nothing(rng, monkeypatch):
    lines = Arrangement(rng.standard_normal((L, K))).lines
    a = rng.standard_normal(L)
    honest = branch._bounds

    def broken(*args):
        found = honest(*args)
        return found._replace(bound=jnp.full_like(found.bound, jnp.nan))

    monkeypatch.setattr(branch, "_bounds", broken)
    assert search(lines, a, 0 * a, batches=3)[0].upper == np.inf


# Distances and directions.


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-100, 1.0, 1e100]))
@example(21488, 1e-100)  # active sets, in units that are far from one
@example(590774, 1.0)  # and with caps of 3000 and of 0.003
def test_distances_from_a_zonotope(seed, scale):
    rng = np.random.default_rng(seed)
    lines = Arrangement(rng.standard_normal((L, K))).lines
    weights = np.maximum(rng.integers(-2, 4, L), 0) * rng.choice([1.0, 1e-3, 1e3], L)
    points = rng.integers(-3, 4, (5, K)).astype(float)
    points[0] = weights @ lines / 2  # inside
    sides = (weights[:, None] * lines).T
    expected = [
        np.linalg.norm(p - sides @ lsq_linear(sides, p, (0, 1), method="bvls").x) for p in points
    ]
    for threshold in (-1.0, 1.0, 1e9):
        bounds, vectors = host_distances(lines, scale * points, scale * weights, scale * threshold)
        size = scale * (1 + np.sum(weights))
        assert np.all(bounds >= scale * np.array(expected) - 1e-14 * size)
        close = bounds <= scale * np.array(expected) + 1e-9 * size
        assert np.all(close | (bounds <= scale * threshold * (1 + 1e-12)))
        far = close & (np.array(expected) > 1e-3)
        lengths = np.linalg.norm(vectors, axis=1)
        if threshold < 0:
            np.testing.assert_allclose(lengths[far], bounds[far], rtol=1e-6)


# Where JAX works in float32, bounds and values are those of float64.


def test_distances_in_float32(rng, x64_off):
    lines = Arrangement(rng.standard_normal((L, K))).lines
    for weights in rng.uniform(0.1, 1.0, (5, L)):
        points = rng.standard_normal((20, K))
        sides = (weights[:, None] * lines).T
        nearest = [sides @ lsq_linear(sides, p, (0, 1), method="bvls").x for p in points]
        expected = np.linalg.norm(points - nearest, axis=1)
        bounds, _ = host_distances(lines, points, weights, -1.0)
        assert np.all(bounds >= expected - 1e-14)
        np.testing.assert_allclose(bounds, expected, rtol=1e-6, atol=1e-6)


def test_branch_and_bound_in_float32(rng, x64_off):
    for _ in range(5):
        lines = Arrangement(rng.standard_normal((L, K))).lines
        front, back = rng.standard_normal((2, L))
        exact = slow.largest(np.concatenate([lines, -lines]), np.concatenate([front, back]))
        for batches in (0, 2, 100):
            found, turns = search(lines, front, back, batches=batches)
            assert found.lower == slow.attained(lines, front, back, found.direction)
            assert found.lower <= exact * (1 + 1e-14)
            assert found.upper >= exact
        assert found.upper <= exact * (1 + 1e-3)
        assert turns < 100  # the rounding of float32 is no reason to go on
