"""Every cell of an arrangement: counts in closed form, brute force, limits."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pattern_checks import (
    E1,
    E2,
    E3,
    EPS,
    GENERIC,
    PARALLEL,
    SIX_ROWS,
    assert_sound,
    brute_force_patterns,
    columns,
)

from jaxrelu.geometry.host import arrangements
from jaxrelu.geometry.host.arrangements import half_cells
from jaxrelu.geometry.patterns import (
    count_patterns,
    enumerate_patterns,
)

FOUR_ROWS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])


def root_system(name: str) -> np.ndarray:
    """Normals of a reflection arrangement; its cells are the elements of the group."""
    if name == "H3":
        golden = (1 + math.sqrt(5)) / 2
        even = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
        corners = itertools.product([1 / golden], [1, -1], [golden, -golden])
        short = [np.array(v)[list(p)] for v in corners for p in even]
        return np.concatenate([np.eye(3), np.array(short)])
    size = int(name[1])
    if name[0] == "A":  # the rows sum to zero: rank `size` in one more dimension
        return np.array([a - b for a, b in itertools.combinations(np.eye(size + 1), 2)])
    pairs = itertools.combinations(np.eye(size), 2)
    roots = [v for a, b in pairs for v in (a - b, a + b)]
    return np.array(roots + list(np.eye(size)) if name[0] == "B" else roots)


def whitney_count(X: np.ndarray) -> int:
    """Number of cells, sum over subsets of rows of (-1)^(size - rank)."""
    rows = X[np.any(X != 0, axis=1)]
    subsets = (
        rows[list(chosen)]
        for size in range(len(rows) + 1)
        for chosen in itertools.combinations(range(len(rows)), size)
    )
    return sum((-1) ** (len(s) - (np.linalg.matrix_rank(s) if len(s) else 0)) for s in subsets)


@pytest.mark.parametrize(
    ("n", "rank", "count"),
    [(4, 2, 8), (5, 3, 22), (6, 3, 32), (1, 1, 2), (3, 9, 8), (100, 3, 9902)],
)
def test_count_patterns_is_cover_and_winders(n, rank, count):
    assert count_patterns(n, rank) == count


def test_count_patterns_is_an_exact_integer():
    assert count_patterns(200, 200) == 2**200


@pytest.mark.parametrize(("n", "rank"), [(0, 1), (3, 0)])
def test_count_patterns_refuses_nothing_to_count(n, rank):
    with pytest.raises(ValueError, match="is 0; pass an integer >= 1"):
        count_patterns(n, rank)


@pytest.mark.parametrize(
    ("X", "cells"),
    [
        (GENERIC[:4, :2], 8),
        (GENERIC[:5], 22),
        (GENERIC, 32),
        (GENERIC[:, :2] @ np.random.default_rng(1).standard_normal((2, 4)), 12),
        (FOUR_ROWS, 6),
        (SIX_ROWS, 26),
        (GENERIC[:2], 4),
        (np.array([[0.0, -3.0]]), 2),
    ],
    ids=["4x2", "5x3", "6x3", "rank 2", "antiparallel", "degenerate", "n < d", "one sample"],
)
def test_enumeration_finds_every_cell(X, cells):
    patterns = enumerate_patterns(X)
    expected = brute_force_patterns(X)
    assert set(columns(patterns)) == expected
    # An antipode of the all-zero cell is the all-one cell.
    all_zero = (1,) * len(X) in expected
    assert patterns.num_patterns == cells - all_zero == whitney_count(X) - all_zero
    assert_sound(patterns, X)


@pytest.mark.parametrize(
    ("name", "order"),
    [("A3", 24), ("B3", 48), ("H3", 120), ("A4", 120), ("D4", 192), ("B4", 384), ("D5", 1920)],
)
def test_reflection_arrangements_have_one_cell_per_group_element(name, order):
    # Many planes through one line, and in H3 only up to rounding.
    rows = root_system(name)
    bits, points, _ = half_cells(rows, EPS)
    assert 2 * len(bits) == order == 2 * len(np.unique(bits, axis=0))
    np.testing.assert_array_equal(points @ rows.T > 0, bits)


def test_enumeration_is_closed_under_negation():
    X = np.where(np.arange(6)[:, None] == 3, 0.0, SIX_ROWS)
    found = np.asarray(enumerate_patterns(X).masks)
    assert found[3].all()
    cells = {tuple(column) for column in np.delete(found, 3, axis=0).T.tolist()} | {(False,) * 5}
    assert {tuple(not bit for bit in cell) for cell in cells} == cells


def test_cells_do_not_depend_on_row_order_or_scale():
    order = np.array([3, 0, 5, 4, 1, 2])
    # Powers of two are exact; the largest would overflow in a squared norm.
    scale = 2.0 ** np.array([-600, 0, 3, 600, -1, 1])
    moved = enumerate_patterns((scale[:, None] * SIX_ROWS)[order])
    restored = np.asarray(moved.masks)[np.argsort(order)]
    assert {tuple(c) for c in restored.T.astype(int).tolist()} == brute_force_patterns(SIX_ROWS)


def test_parallel_antiparallel_and_zero_rows_add_no_cells():
    patterns = enumerate_patterns(PARALLEL)
    masks = np.asarray(patterns.masks)
    assert_sound(patterns, PARALLEL)
    assert patterns.num_patterns == 8  # an antiparallel pair: no pattern is zero
    np.testing.assert_array_equal(masks[3], masks[0])
    np.testing.assert_array_equal(masks[4], ~masks[1])
    assert masks[5].all()


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (6, 3), elements=st.integers(-2, 2).map(float)))
def test_cell_count_of_integer_data_is_whitneys(X):
    rows = X[np.any(X != 0, axis=1)]
    assume(len(rows))
    bits, points, _ = half_cells(rows, EPS)
    assert 2 * len(bits) == whitney_count(X)
    np.testing.assert_array_equal(points @ rows.T > 0, bits)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(7, 4), (8, 5), (5, 5), (9, 1), (4, 6)]))
def test_cell_count_of_generic_data_is_cover_and_winders(seed, shape):
    X = np.random.default_rng(seed).standard_normal(shape)
    bits, _, rank = half_cells(X, EPS)
    assert rank == min(shape)
    assert 2 * len(np.unique(bits, axis=0)) == 2 * len(bits) == count_patterns(*shape)


def test_rank_three_with_ten_thousand_cells():
    X = np.random.default_rng(0).standard_normal((100, 3))
    bits, points, _ = half_cells(X, EPS)
    assert 2 * len(np.unique(bits, axis=0)) == 9902
    np.testing.assert_array_equal(points @ X.T > 0, bits)


def test_a_thousand_samples_of_rank_two():
    X = np.random.default_rng(0).standard_normal((1000, 2))
    bits, points, _ = half_cells(X, EPS)
    assert 2 * len(np.unique(bits, axis=0)) == 2000
    np.testing.assert_array_equal(points @ X.T > 0, bits)


@pytest.mark.parametrize(
    ("shape", "count"), [((100, 9), "374,567,745,752"), ((100_000, 2), "200,000")]
)
def test_enumeration_refuses_what_it_cannot_list(shape, count):
    X = np.random.default_rng(0).standard_normal(shape)
    with pytest.raises(ValueError, match=f"{count} activation patterns.*sample_patterns"):
        enumerate_patterns(X)


def test_lines_that_are_nearly_one_count_too(monkeypatch):
    # Three fans of seven lines, 3e-5 apart: more than what float32 rounding makes of one line.
    fans = [a + k * 3e-5 * b for a, b in ((E1, E2), (E2, E3), (E3, E1)) for k in range(7)]
    monkeypatch.setattr(arrangements, "MAX_CELLS", count_patterns(21, 3) - 1)
    with pytest.raises(ValueError, match="422 activation patterns"):
        enumerate_patterns(np.array(fans, np.float32))


def test_the_limit_counts_lines_and_not_samples(monkeypatch):
    monkeypatch.setattr(arrangements, "MAX_CELLS", 8)
    assert enumerate_patterns(np.concatenate([GENERIC[:3], -3.1 * GENERIC[:3]])).num_patterns == 8
    monkeypatch.setattr(arrangements, "MAX_CELLS", 7)
    with pytest.raises(ValueError, match="8 activation patterns"):
        enumerate_patterns(np.concatenate([GENERIC[:3], -3.1 * GENERIC[:3]]))
