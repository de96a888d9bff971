"""Patterns: sampled, of gates, of neurons."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
from scipy.optimize import minimize

from jaxrelu.geometry.checks import check_patterns
from jaxrelu.geometry.host.units import column_units
from jaxrelu.geometry.patterns import (
    enumerate_patterns,
    patterns_from_gates,
    patterns_from_weights,
    sample_patterns,
)


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

    monkeypatch.setattr("jaxrelu.geometry.patterns.interior_directions", poor_witnesses)
    hidden = np.stack([E3 + k * EPS * (E1 + E2) for k in (-100, 100)], axis=1)
    patterns, index = patterns_from_weights(SIX_ROWS, hidden)
    np.testing.assert_array_equal(patterns.masks[:, index], SIX_ROWS @ hidden > 0)
