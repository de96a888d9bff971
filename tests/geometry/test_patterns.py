"""Activation patterns against brute force, known counts and plain Python."""

import itertools
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog, minimize

from jaxrelu.geometry.checks import check_patterns
from jaxrelu.geometry.host import arrangements
from jaxrelu.geometry.host.arrangements import half_cells
from jaxrelu.geometry.host.units import column_units
from jaxrelu.geometry.patterns import (
    Patterns,
    _witnesses,
    count_patterns,
    enumerate_patterns,
    patterns_from_gates,
    patterns_from_weights,
    sample_patterns,
)

E1, E2, E3 = np.eye(3)
EPS = np.finfo(np.float64).eps
GENERIC = np.random.default_rng(5).standard_normal((6, 3))
SIX_ROWS = np.stack([E1, E2, E3, E1 + E2, E2 + E3, E1 + E3])
# Three lines: a parallel, an antiparallel and a zero row.
PARALLEL = np.concatenate([GENERIC[:3], 0.3 * GENERIC[:1], -0.7 * GENERIC[1:2], np.zeros((1, 3))])
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


def brute_force_patterns(X: np.ndarray) -> set[tuple[int, ...]]:
    """Sign vectors whose open cone a linear program finds non-empty, as bits; zero rows get 1."""
    nonzero = np.any(X != 0, axis=1)
    rows = X[nonzero] / np.linalg.norm(X[nonzero], axis=1, keepdims=True)
    d = X.shape[1]
    found = set()
    for bits in itertools.product((0, 1), repeat=len(rows)):
        signed = (2 * np.array(bits)[:, None] - 1) * rows
        result = linprog(
            np.append(np.zeros(d), -1.0),
            A_ub=np.column_stack([-signed, np.ones(len(rows))]),
            b_ub=np.zeros(len(rows)),
            bounds=[(-1, 1)] * (d + 1),
        )
        if -result.fun > 1e-9 and any(bits):
            full = np.ones(len(X), dtype=int)
            full[nonzero] = bits
            found.add(tuple(full.tolist()))
    return found


def columns(patterns: Patterns) -> list[tuple[int, ...]]:
    return [tuple(column) for column in np.asarray(patterns.masks).T.astype(int).tolist()]


def assert_sound(patterns: Patterns, X: np.ndarray, slack: float = 50 * EPS) -> None:
    """Distinct, not all zero, gates reproduce the masks, witnesses are strictly inside."""
    masks = np.asarray(patterns.masks)
    nonzero = np.any(np.asarray(X) != 0, axis=1)
    found = columns(patterns)
    assert masks.dtype == bool
    assert len(set(found)) == len(found) == patterns.num_patterns
    assert masks[nonzero].any(axis=0).all()
    np.testing.assert_array_equal(np.asarray(X) @ np.asarray(patterns.gates) >= 0, masks)
    interior = np.asarray(patterns.interior)
    np.testing.assert_allclose(np.linalg.norm(interior, axis=0), 1, rtol=1e-6)
    rows = X[nonzero] / np.linalg.norm(X[nonzero], axis=1, keepdims=True)
    assert np.min(np.where(masks[nonzero], 1, -1) * (rows @ interior)) > slack
    assert patterns.gates.dtype == interior.dtype == X.dtype
    check_patterns(patterns, X)


# Counts


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


# Enumeration


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


# Sampling and given gates


def test_same_key_same_patterns():
    first = sample_patterns(jax.random.key(3), GENERIC, 20)
    again = sample_patterns(jax.random.key(3), GENERIC, 20)
    other = sample_patterns(jax.random.key(4), GENERIC, 20)
    for name in ("gates", "masks", "interior"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.gates[:, :4], other.gates[:, :4])


def test_samples_are_the_first_gates_of_distinct_non_zero_patterns():
    patterns = sample_patterns(jax.random.key(0), GENERIC, 40)
    gates = np.asarray(jax.random.normal(jax.random.key(0), (3, 40)))
    kept: dict[tuple[bool, ...], int] = {}
    for k in range(40):
        bits = tuple((GENERIC @ gates[:, k] >= 0).tolist())
        if any(bits):
            kept.setdefault(bits, k)
    assert len(kept) < 40  # some gates share a cell, or the test shows nothing
    np.testing.assert_array_equal(patterns.gates, gates[:, list(kept.values())])
    np.testing.assert_array_equal(patterns.masks, np.array(list(kept)).T)
    assert_sound(patterns, GENERIC)


def test_many_samples_find_every_cell():
    patterns = sample_patterns(jax.random.key(0), SIX_ROWS, 3000)
    assert set(columns(patterns)) == brute_force_patterns(SIX_ROWS)


def test_zero_rows_duplicate_nothing_and_have_bit_one():
    X = np.where(np.isin(np.arange(6), [0, 3])[:, None], 0.0, GENERIC)
    patterns = sample_patterns(jax.random.key(0), X, 40)
    gates = np.asarray(jax.random.normal(jax.random.key(0), (3, 40))) / column_units(X)[:, None]
    kept = dict.fromkeys(tuple(c) for c in (X[[1, 2, 4, 5]] @ gates > 0).T.tolist())
    kept.pop((False,) * 4, None)
    masks = np.asarray(patterns.masks)
    np.testing.assert_array_equal(masks[[1, 2, 4, 5]], np.array(list(kept)).T)
    assert masks[[0, 3]].all()
    assert_sound(patterns, X)


def test_the_all_zero_pattern_is_dropped_beside_zero_rows():
    X = np.concatenate([np.eye(3), np.zeros((3, 3))])
    assert enumerate_patterns(X).num_patterns == 7
    ones = np.ones((3, 1))
    assert columns(patterns_from_gates(X, np.concatenate([-ones, ones], axis=1))) == [(1,) * 6]


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_patterns_do_not_depend_on_the_scale_of_the_data(scale):
    # The last two gates are on walls.
    gates = np.concatenate([np.random.default_rng(3).standard_normal((3, 10)), SIX_ROWS[:2].T], 1)
    plain = patterns_from_gates(SIX_ROWS, gates)
    scaled = patterns_from_gates(scale * SIX_ROWS, scale * gates)
    np.testing.assert_array_equal(scaled.masks, plain.masks)
    check_patterns(scaled, scale * SIX_ROWS)


def padded(array: Any) -> np.ndarray:
    """Zero rows and columns up to (6, 3): one compiled shape for many tests."""
    array = np.array(array)
    return np.pad(array, [(0, 6 - array.shape[0]), (0, 3 - array.shape[1])])


@pytest.mark.parametrize("gated", [False, True])
def test_opposite_samples_share_a_pattern_only_in_the_gated_program(gated):
    X = padded([[1.0], [-1.0]])
    gates = np.array([[0.0, 2.0, -1.0, 3.0]] + [[1.0, 0.0, 0.0, 0.0]] * 2)
    patterns = patterns_from_gates(X, gates, gated=gated)
    found = [bits[:2] for bits in columns(patterns)]
    assert found == ([(1, 1), (1, 0), (0, 1)] if gated else [(1, 0), (0, 1)])
    assert patterns.gates[0].tolist() == ([0.0, 2.0, -1.0] if gated else [2.0, -1.0])
    assert (patterns.interior is None) == gated
    check_patterns(patterns, X)


def test_a_gate_on_a_wall_counts_as_closed_and_is_moved_inside():
    # In floating point 0.1 * 3 - 0.3 is 5.6e-17, and its negative for the second gate.
    X = padded([[0.1, 0.3], [1.0, 0.0], [0.0, -1.0]])
    gates = np.array([[3.0, -3.0], [-1.0, 1.0], [0.0, 0.0]])
    assert np.sign(X[0] @ gates).tolist() == [1.0, -1.0]
    patterns = patterns_from_gates(X, gates)
    assert [bits[:3] for bits in columns(patterns)] == [(1, 1, 1), (1, 0, 0)]
    assert_sound(patterns, X)
    # Gated networks evaluate the product itself: the second pattern is zero there.
    gated = patterns_from_gates(X, gates, gated=True)
    assert [bits[:3] for bits in columns(gated)] == [(1, 1, 1)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gated", [False, True])
def test_standardised_columns_have_plain_normal_gates(dtype, gated):
    X = np.random.default_rng(2).lognormal(size=(64, 3))
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(dtype)
    drawn = np.asarray(jax.random.normal(jax.random.key(0), (3, 40), dtype))
    same = patterns_from_gates(X, drawn, gated=gated)
    for name in ("gates", "masks", "interior"):
        found = getattr(sample_patterns(jax.random.key(0), X, 40, gated=gated), name)
        np.testing.assert_array_equal(found, getattr(same, name))


def people(count=300):
    """Age, income and year of birth, as they come in a table."""
    rng = np.random.default_rng(0)
    columns = rng.integers(18, 90, count), rng.lognormal(10.5, 0.6, count)
    return np.stack([*columns, rng.integers(1990, 2024, count)], axis=1).astype(float)


@pytest.mark.parametrize("gated", [False, True])
def test_columns_of_any_units_are_seen(gated):
    X = people()
    plain = patterns_from_gates(X, np.random.default_rng(1).standard_normal((3, 500)), gated=gated)
    found = sample_patterns(jax.random.key(0), X, 500, gated=gated)
    assert found.num_patterns > 4 * plain.num_patterns
    assert found.num_patterns > 150
    check_patterns(found, X)
    # Gates drawn in the units of the columns do not know what these are.
    units = 2.0 ** np.array([7, -9, 4])
    for scale in (units, 1024.0):
        same = sample_patterns(jax.random.key(0), X * scale, 500, gated=True)
        expected = sample_patterns(jax.random.key(0), X, 500, gated=True)
        np.testing.assert_array_equal(same.masks, expected.masks)


@pytest.mark.parametrize("scales", [[1e-200, 1e200, 1], [1e200] * 3, [1e-310, 1, 0], [0, 0, 3.0]])
def test_columns_of_any_size_have_finite_gates(scales):
    X = np.random.default_rng(3).standard_normal((64, 3)) * scales
    with warnings.catch_warnings(action="ignore"):  # cells that rounding cannot show are few
        patterns = sample_patterns(jax.random.key(0), X, 64)
    for leaf in (patterns.gates, patterns.interior):
        assert np.isfinite(leaf).all()
    check_patterns(patterns, X)


def test_few_patterns_of_many_gates_are_told():
    year = np.stack([2000.0 + np.arange(24), np.ones(24)], axis=1)
    with pytest.warns(UserWarning, match="of the 400 gates have distinct.*subtract their means"):
        found = sample_patterns(jax.random.key(0), year, 400)
    assert found.num_patterns < 5
    # Where there are no more cells there is nothing to be told: two lines have four, and the three
    # that see a sample are found.
    few = np.repeat(np.array([[1.0, 2.0], [2.0, -1.0]]), 12, axis=0)
    assert sample_patterns(jax.random.key(0), few, 400).num_patterns == 3


def test_a_cone_that_is_only_a_face_is_left_out():
    # The first gate is orthogonal to two rows that are antiparallel up to rounding.
    X = padded([[0.1, 0.3], [-0.3, -0.9], [1.0, 0.0]])
    gates = np.array([[3.0, 1.0], [-1.0, 0.5], [0.0, 0.0]])
    assert [bits[:3] for bits in columns(patterns_from_gates(X, gates))] == [(1, 0, 1)]


def test_all_negative_gates_have_nothing_to_offer():
    for gated in (False, True):
        with pytest.raises(ValueError, match="usable pattern"):
            patterns_from_gates(np.ones((3, 1)), -np.ones((1, 2)), gated=gated)


@pytest.mark.slow
def test_single_precision_is_kept():
    X = GENERIC.astype(np.float32)
    for patterns in (
        sample_patterns(jax.random.key(0), X, 20),
        enumerate_patterns(X),
        patterns_from_weights(X, X[:3].T)[0],
    ):
        assert_sound(patterns, X, slack=50 * np.finfo(np.float32).eps)
    assert enumerate_patterns(X).num_patterns == len(brute_force_patterns(GENERIC))


@pytest.mark.parametrize("X", [GENERIC[:, :2] @ GENERIC[:2], GENERIC], ids=["rank 2", "rank 3"])
def test_witnesses_have_the_best_margin(X):
    patterns = enumerate_patterns(X)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    margin = np.min(np.abs(unit @ np.asarray(patterns.interior)), axis=0)
    for bits, reached in list(zip(np.asarray(patterns.masks).T, margin, strict=True))[::4]:
        signed = np.where(bits[:, None], unit, -unit)
        # The largest margin is the distance of the signed rows' convex hull from the origin.
        weights = minimize(
            lambda a, rows=signed: (np.sum((a @ rows) ** 2), 2 * rows @ (a @ rows)),
            np.full(6, 1 / 6),
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda a: np.sum(a) - 1, "jac": np.ones_like},
            options={"ftol": 1e-14, "maxiter": 500},
        ).x
        assert reached >= np.linalg.norm(weights @ signed) - 1e-5


def test_witnesses_in_batches_belong_to_their_patterns(monkeypatch):
    patterns = enumerate_patterns(GENERIC)
    monkeypatch.setattr("jaxrelu.geometry.patterns._BATCH", 6 * 32)
    many = np.arange(40) % patterns.num_patterns
    masks, gates = np.asarray(patterns.masks)[:, many], np.asarray(patterns.gates)[:, many]
    interior, margin = _witnesses(GENERIC, masks, gates)
    assert margin.shape == (40,)
    np.testing.assert_allclose(interior, gates, rtol=0, atol=1e-6)


# Networks


def test_neurons_off_the_walls_have_their_own_cell():
    hidden = np.random.default_rng(2).standard_normal((3, 12))
    hidden = np.concatenate([hidden, 2 * hidden[:, :4]], axis=1)
    patterns, index = patterns_from_weights(GENERIC, hidden)
    np.testing.assert_array_equal(patterns.masks[:, index], GENERIC @ hidden > 0)
    assert index.shape == (16,)
    assert index.dtype == jnp.int32
    assert patterns.num_patterns == len({tuple(c) for c in (GENERIC @ hidden > 0).T.tolist()})


def on_walls(rng: np.random.Generator, X: np.ndarray, walls: list[int]) -> np.ndarray:
    """A random direction orthogonal to some rows, up to rounding."""
    basis = np.linalg.svd(X[walls])[2][len(walls) :]
    return basis.T @ rng.standard_normal(len(basis))


@pytest.mark.parametrize("X", [GENERIC, SIX_ROWS], ids=["generic", "degenerate"])
def test_neurons_on_walls_get_an_adjacent_cell_that_rounding_does_not_choose(rng, X):
    walls = [[0], [4], [1, 2], [0, 5], [0, 1]]
    hidden = np.stack([on_walls(rng, X, rows) for rows in walls], axis=1)
    hidden = np.concatenate([hidden, np.zeros((3, 1))], axis=1)
    patterns, index = patterns_from_weights(X, hidden)
    assert_sound(patterns, X)
    assert set(columns(patterns)) <= brute_force_patterns(X)
    masks = np.asarray(patterns.masks)[:, np.asarray(index)]
    closure = np.where(masks, 1, -1) * (X @ hidden)
    assert np.min(closure) > -1e-14  # each neuron is in the closed cone of its cell
    # The same walls, hit from another side by rounding.
    for seed in range(5):
        noise = 4 * EPS * np.random.default_rng(seed).uniform(-1, 1, hidden.shape)
        moved = hidden + noise * np.linalg.norm(hidden, axis=0)
        assert (np.sign(X @ hidden) != np.sign(X @ moved)).any()
        same, place = patterns_from_weights(X, 7 * moved)
        np.testing.assert_array_equal(place, index)
        np.testing.assert_array_equal(same.masks, patterns.masks)


def test_a_neurons_cell_does_not_depend_on_the_others(rng):
    hidden = np.stack([on_walls(rng, GENERIC, [j]) for j in range(6)], axis=1)
    patterns, index = patterns_from_weights(GENERIC, hidden)
    back, place = patterns_from_weights(GENERIC, hidden[:, ::-1])
    np.testing.assert_array_equal(
        np.asarray(back.masks)[:, np.asarray(place)[::-1]], np.asarray(patterns.masks)[:, index]
    )


def test_parallel_rows_fall_on_the_same_side_of_a_wall(rng):
    hidden = np.stack([on_walls(rng, PARALLEL, [0]), on_walls(rng, PARALLEL, [0, 1])], axis=1)
    patterns, index = patterns_from_weights(PARALLEL, np.concatenate([hidden, -hidden], axis=1))
    masks = np.asarray(patterns.masks)[:, np.asarray(index)]
    np.testing.assert_array_equal(masks[3], masks[0])
    np.testing.assert_array_equal(masks[4], ~masks[1])
    assert masks[5].all()
    assert_sound(patterns, PARALLEL)


def test_a_dead_neuron_keeps_a_pattern():
    X = np.abs(GENERIC)
    patterns, index = patterns_from_weights(X, np.array([[1.0, -1.0]] * 3))
    assert columns(patterns) == [(1,) * 6, (0,) * 6]
    assert index.tolist() == [0, 1]
    np.testing.assert_array_equal(X @ np.asarray(patterns.gates) >= 0, patterns.masks)


def test_walls_closer_than_rounding_still_give_a_cell_with_an_interior():
    # Two bundles of three lines 4e-6 apart. A neuron on an outer line is at float32 rounding level
    # of the middle one too, and the cell behind both of them is thinner than that level.
    angles = np.array([a + k * 4e-6 for a in (0.3, 1.2) for k in (-1, 0, 1)])
    zero = np.zeros(6)
    X = np.stack([np.cos(angles), np.sin(angles), zero], axis=1).astype(np.float32)
    hidden = np.stack([-np.sin(angles), np.cos(angles), zero]).astype(np.float32)
    hidden = np.concatenate([hidden, -hidden], axis=1)
    patterns, index = patterns_from_weights(X, hidden)
    signs = np.where(patterns.masks, 1, -1)
    assert np.min(signs * (X @ np.asarray(patterns.interior))) > 50 * np.finfo(np.float32).eps
    assert np.min(signs[:, np.asarray(index)] * (X @ hidden)) > -1e-4  # and it is a near one


def test_a_neuron_off_the_walls_never_moves(monkeypatch):
    def poor_witnesses(rows, masks, gates):
        return gates, np.zeros(gates.shape[1])

    monkeypatch.setattr("jaxrelu.geometry.patterns._interior_directions", poor_witnesses)
    hidden = np.stack([E3 + k * EPS * (E1 + E2) for k in (-100, 100)], axis=1)
    patterns, index = patterns_from_weights(SIX_ROWS, hidden)
    np.testing.assert_array_equal(patterns.masks[:, index], SIX_ROWS @ hidden > 0)


# Arguments


HOST_FUNCTIONS = {
    "sample": lambda X: sample_patterns(jax.random.key(0), X, 4),
    "gates": lambda X: patterns_from_gates(X, np.ones((3, 2), X.dtype)),
    "weights": lambda X: patterns_from_weights(X, np.ones((3, 2), X.dtype)),
    "enumerate": enumerate_patterns,
}


@pytest.mark.parametrize("name", HOST_FUNCTIONS)
@pytest.mark.parametrize(
    ("X", "error", "fix"),
    [
        (np.zeros((4, 3)), ValueError, "column of ones"),
        (np.zeros((0, 3)), ValueError, "at least one row"),
        (np.zeros((4, 0)), ValueError, "at least one row"),
        (np.ones(3), ValueError, r"X\[:, None\]"),
        (np.ones((4, 3), int), TypeError, r"X.astype\('float64'\)"),
        (np.ones((4, 3), np.float16), TypeError, r"X.astype\('float64'\)"),
        (np.where(GENERIC > 1, np.nan, GENERIC), ValueError, "impute"),
        (np.where(GENERIC > 1, np.inf, GENERIC), ValueError, "impute"),
    ],
    ids=["zero", "no rows", "no columns", "vector", "integers", "half", "nan", "inf"],
)
def test_data_is_refused_with_the_way_out(name, X, error, fix):
    with pytest.raises(error, match=fix):
        HOST_FUNCTIONS[name](X)


@pytest.mark.parametrize("name", HOST_FUNCTIONS)
@pytest.mark.usefixtures("x64_off")
def test_double_precision_without_x64_names_both_ways_out(name):
    with pytest.raises(ValueError, match=r"jax_enable_x64', True.*X\.astype\('float32'\)"):
        HOST_FUNCTIONS[name](GENERIC)
    with pytest.raises(ValueError, match="jax_enable_x64"):
        check_patterns(Patterns(np.ones((3, 1)), np.ones((6, 1), bool)), GENERIC)


@pytest.mark.usefixtures("x64_off")
def test_single_precision_works_without_x64():
    X = GENERIC.astype(np.float32)
    assert_sound(enumerate_patterns(X), X, slack=50 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", HOST_FUNCTIONS)
def test_traced_data_is_sent_back_to_the_host(name):
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(HOST_FUNCTIONS[name])(GENERIC)


@pytest.mark.parametrize("function", [patterns_from_gates, patterns_from_weights])
def test_gates_and_neurons_must_fit_the_data(function):
    with pytest.raises(ValueError, match=r"\.T if they are rows"):
        function(GENERIC, np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"astype\('float64'\)"):
        function(GENERIC, np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="impute"):
        function(GENERIC, np.full((3, 2), np.nan))


@pytest.mark.parametrize(
    ("key", "num_gates", "error", "fix"),
    [
        (0, 4, TypeError, r"jax\.random\.key"),
        (None, 0, ValueError, "an integer >= 1"),
        (None, 2.0, TypeError, "an integer >= 1"),
        (None, True, TypeError, "an integer >= 1"),
    ],
)
def test_key_and_number_of_gates_are_checked(key, num_gates, error, fix):
    with pytest.raises(error, match=fix):
        sample_patterns(jax.random.key(0) if key is None else key, GENERIC, num_gates)


# Patterns and their check


def good() -> Patterns:
    gates = GENERIC[:2].T.copy()
    return Patterns(jnp.asarray(gates), jnp.asarray(GENERIC @ gates >= 0), jnp.asarray(gates))


def test_good_patterns_pass_whatever_the_dtype_of_their_masks():
    for dtype in (bool, np.int32, np.uint8, np.float64):
        check_patterns(Patterns(good().gates, good().masks.astype(dtype)), GENERIC)


BAD = {
    "gates rank": ({"gates": np.ones(3)}, ValueError, "pass a matrix"),
    "masks rank": ({"masks": np.ones(6)}, ValueError, "pass a matrix"),
    "samples": ({"masks": np.ones((5, 2), bool)}, ValueError, "patterns_from_gates"),
    "patterns": ({"masks": np.ones((6, 3), bool)}, ValueError, "patterns_from_gates"),
    "features": ({"gates": np.ones((2, 2))}, ValueError, "patterns_from_gates"),
    "interior shape": ({"interior": np.ones((3, 3))}, ValueError, "patterns_from_gates"),
    "gates dtype": ({"gates": np.ones((3, 2), np.float32)}, TypeError, "astype"),
    "masks dtype": (
        {"masks": np.ones((6, 2), np.float32)},
        TypeError,
        r"asarray\(masks, bool\)",
    ),
    "masks list": ({"masks": [[True, True]] * 6}, TypeError, r"asarray\(masks, bool\)"),
    "interior dtype": ({"interior": np.ones((3, 2), np.float32)}, TypeError, "astype"),
    "gates nan": ({"gates": np.full((3, 2), np.nan)}, ValueError, "gates has NaN"),
    "interior nan": ({"interior": np.full((3, 2), np.nan)}, ValueError, "interior has NaN"),
    "masks two": ({"masks": 2 * np.ones((6, 2), int)}, ValueError, "0 and 1"),
    "masks nan": ({"masks": np.full((6, 2), np.nan)}, ValueError, "0 and 1"),
    "one bit": (
        {"masks": (GENERIC @ GENERIC[:2].T >= 0) ^ (np.arange(12).reshape(6, 2) == 5)},
        ValueError,
        "in 1 of 2 patterns .the first is pattern 1.",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_check_patterns_names_the_fix(fault):
    change, error, fix = BAD[fault]
    fields = {name: getattr(good(), name) for name in ("gates", "masks", "interior")}
    with pytest.raises(error, match=fix):
        check_patterns(Patterns(**{**fields, **change}), GENERIC)


def test_check_patterns_refuses_bad_data():
    with pytest.raises(ValueError, match="X has NaN"):
        check_patterns(good(), np.where(GENERIC > 1, np.nan, GENERIC))
    with pytest.raises(TypeError, match="float64"):
        check_patterns(good(), GENERIC.astype(int))


@pytest.mark.parametrize(("dtype", "level"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_rows_on_a_wall_or_zero_may_carry_either_bit(dtype, level):
    # The second gate leaves the first row's wall by a tenth, or by ten times, of what is allowed.
    X = np.array([[3.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype)
    masks = np.array([[False], [False], [True]])
    check_patterns(Patterns(np.array([[0.1 * level], [1.0]], dtype), masks), X)
    with pytest.raises(ValueError, match="differs"):
        check_patterns(Patterns(np.array([[10 * level], [1.0]], dtype), masks), X)


def test_traced_patterns_are_checked_by_shape_alone():
    @jax.jit
    def checked(patterns, X):
        check_patterns(patterns, X)
        return patterns.gates

    wrong_bits = Patterns(good().gates, ~good().masks)
    np.testing.assert_array_equal(checked(wrong_bits, GENERIC), wrong_bits.gates)
    with pytest.raises(ValueError, match="patterns_from_gates"):
        checked(Patterns(good().gates, good().masks[:5]), GENERIC)


def test_patterns_are_a_pytree_that_checks_nothing():
    leaves, structure = jax.tree.flatten(good())
    assert len(leaves) == 3
    assert len(jax.tree.leaves(Patterns(good().gates, good().masks))) == 2
    placeholder = jax.tree.unflatten(structure, [object()] * 3)
    assert isinstance(placeholder, Patterns)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), good())
    assert jax.vmap(lambda patterns: patterns.gates[0])(stacked).shape == (2, 2)
    assert good().num_patterns == 2
    with pytest.raises(AttributeError):
        good().gates = None
