"""Splitting, scaling, scoring."""

import math

import numpy as np
import pytest

from jaxrelu.datasets import Dataset, prepare, score, standardize, train_test_split


def test_split_is_a_partition_that_the_seed_decides():
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10.0)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, seed=1)
    assert (len(y_train), len(y_test)) == (7, 3)
    assert sorted([*y_train, *y_test]) == list(range(10))
    np.testing.assert_array_equal(X_train[:, 0], 2 * y_train)  # rows stay together
    np.testing.assert_array_equal(X_test[:, 0], 2 * y_test)
    np.testing.assert_array_equal(train_test_split(X, y, 0.3, 1)[2], y_train)
    assert train_test_split(X, y, 0.3, 2)[2].tolist() != y_train.tolist()


@pytest.mark.parametrize("test_size", [0.0, 1.0, -0.1, math.nan, 2.0])
def test_share_out_of_range_is_refused(test_size):
    with pytest.raises(ValueError, match="pass a number strictly between 0 and 1"):
        train_test_split(np.ones((4, 1)), np.ones(4), test_size, 0)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="leaves 1 of 2 rows to train on, and at least two"):
        train_test_split(np.ones((2, 1)), np.ones(2), 0.2, 0)
    with pytest.raises(ValueError, match="X has 3 rows: pass one number a row"):
        train_test_split(np.ones((3, 1)), np.ones(2), 0.2, 0)


def test_standardize_uses_the_first_array_only(rng):
    train, test = rng.normal(5.0, 3.0, (50, 4)), rng.normal(size=(9, 4))
    scaled, others = standardize(train, test)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    np.testing.assert_allclose(others * train.std(axis=0) + train.mean(axis=0), test)


def test_constant_column_becomes_exactly_zero():
    # 0.1 has a mean that rounds away from 0.1: dividing by that noise would invent a feature.
    # Where the test part differs is no matter either: nothing says by how many deviations.
    train, test = standardize(np.full((10, 1), 0.1), np.array([[0.1], [1.1]]))
    assert (train == 0).all()
    assert (test == 0).all()


def rounded(rng, rows, value, places, dtype=np.float64):
    """A column that is a value up to some units in its last place."""
    value = dtype(value)
    return value + rng.integers(-places, places + 1, rows).astype(dtype) * np.spacing(value)


@pytest.mark.parametrize("value", [0.1, -1e9, 1e200, 1e-200, 1e-310, 1.7e308])
def test_column_that_is_constant_up_to_rounding_becomes_zero(rng, value):
    column = rounded(rng, 40, value, 3)[:, None]
    assert len(np.unique(column)) > 2
    train, test = standardize(column, np.array([[value], [0.9 * value]]))
    assert (train == 0).all()
    assert (test == 0).all()


def test_rows_that_sum_to_one_sum_to_a_constant(rng):
    shares = rng.dirichlet(np.ones(500), size=2000)
    total = np.zeros(2000)
    for column in shares.T:
        total += column
    assert total.std() > 0
    assert (standardize(total)[0] == 0).all()


def test_rounding_is_that_of_the_dtype(rng):
    single = rounded(rng, 40, 0.1, 3, np.float32)
    assert (standardize(single)[0] == 0).all()
    assert standardize(single.astype(np.float64))[0].std() == pytest.approx(1.0)
    # The halves of half precision are far apart: they are numbers, not rounding.
    half = np.array([1000.0, 1000.5, 1001.0], np.float16)
    np.testing.assert_allclose(standardize(half)[0], [-(1.5**0.5), 0.0, 1.5**0.5])


@pytest.mark.parametrize("offset", [1e9, -1e9, 1e200, 1e-200])
def test_small_signal_on_a_huge_offset_survives(rng, offset):
    signal = rng.normal(size=1000)
    (scaled,) = standardize(offset + signal * 1e4 * np.spacing(abs(offset)))
    np.testing.assert_allclose(scaled, standardize(signal)[0], atol=1e-3)
    assert abs(scaled.mean()) < 1e-12
    assert scaled.std() == pytest.approx(1.0, abs=1e-12)


def test_whole_numbers_are_exact(rng):
    ids = 1e15 + rng.integers(0, 5, 50)
    np.testing.assert_allclose(standardize(ids)[0], standardize(ids - 1e15)[0], atol=1e-12)
    assert (standardize(np.full(5, 10**15))[0] == 0).all()


@pytest.mark.parametrize("unit", [1e-300, 1e-6, 1e300])
def test_standardize_does_not_know_the_unit(rng, unit):
    train, test = rng.normal(1.0, 2.0, (20, 3)), rng.normal(size=(5, 3))
    for scaled, plain in zip(
        standardize(unit * train, unit * test), standardize(train, test), strict=True
    ):
        np.testing.assert_allclose(scaled, plain, rtol=1e-12, atol=1e-12)


def test_prepare_standardizes_a_real_target_and_keeps_labels(rng):
    X = rng.normal(2.0, 5.0, (40, 3))
    names = ("a", "b", "c")
    real = prepare(Dataset(X, X[:, 0] * 7 + 3, names, "regression"), 0.25, 0)
    assert abs(real.y.mean()) < 1e-12
    assert real.y.std() == pytest.approx(1.0)
    np.testing.assert_allclose(real.y_test, real.X_test[:, 0])  # the training part's scale
    labels = prepare(Dataset(X, np.sign(X[:, 0]), names, "classification"), 0.25, 0)
    assert set(labels.y) == {-1.0, 1.0}


def test_prepare_appends_the_bias_after_standardizing(rng):
    data = Dataset(rng.normal(size=(12, 2)), rng.normal(size=12), ("a", "b"), "regression")
    plain, biased = prepare(data, 0.25, 3), prepare(data, 0.25, 3, bias=True)
    np.testing.assert_array_equal(biased.X, np.column_stack([plain.X, np.ones(9)]))
    np.testing.assert_array_equal(biased.X_test[:, -1], np.ones(3))


def test_prepare_refuses_a_constant_training_target():
    y = np.array([1.0, 1.0, 1.0, 5.0])
    data = Dataset(np.arange(4.0)[:, None], y, ("a",), "regression")
    seed = next(s for s in range(50) if train_test_split(data.X, y, 0.25, s)[3][0] == 5.0)
    with pytest.raises(ValueError, match="constant on the training part: pass another seed"):
        prepare(data, 0.25, seed)


def test_prepare_refuses_features_that_never_vary():
    data = Dataset(np.full((6, 2), 3.0), np.arange(6.0), ("a", "b"), "regression")
    with pytest.raises(ValueError, match="every feature is constant .*: add a feature that varies"):
        prepare(data, 0.25, 0, bias=True)


def test_prepare_refuses_what_is_constant_up_to_rounding(rng):
    X, still = rng.normal(size=(30, 2)), rounded(rng, 30, 0.3, 2)
    with pytest.raises(ValueError, match="target is constant on the training part"):
        prepare(Dataset(X, still, ("a", "b"), "regression"), 0.2, 0)
    with pytest.raises(ValueError, match="every feature is constant on the training part"):
        prepare(Dataset(still[:, None], X[:, 0], ("a",), "regression"), 0.2, 0)


def test_one_odd_test_row_cannot_ruin_the_test_part(rng):
    X = np.column_stack([rng.normal(size=40), rounded(rng, 40, 0.1, 1)])
    seed, row = 0, int(np.random.default_rng(0).permutation(40)[0])  # the first of the test part
    X[row, 1] = 7.0
    split = prepare(Dataset(X, X[:, 0], ("a", "b"), "regression"), 0.2, seed)
    assert np.abs(split.X_test).max() < 10
    assert (split.X[:, 1] == 0).all()


def test_split_casts_every_array(rng):
    data = Dataset(rng.normal(size=(8, 2)), rng.normal(size=8), ("a", "b"), "regression")
    split = prepare(data, 0.25, 0).astype("float32")
    assert {a.dtype for a in (split.X, split.y, split.X_test, split.y_test)} == {np.dtype("f4")}


def test_scores():
    y = np.array([1.0, -1.0, 1.0, 1.0])
    assert score([0.0, -1e-9, 2.0, -2.0], y, "classification") == 0.75
    assert score(np.zeros(4), y, "classification") == 0.75  # zero stands for +1
    real = np.array([1.0, 2.0, 6.0])
    assert score(real, real, "regression") == 1.0
    assert score(np.full(3, 3.0), real, "regression") == 0.0
    assert score(real + 1, real, "regression") == pytest.approx(1 - 3 / 14)
    assert math.isnan(score(real, np.ones(3), "regression"))
    assert math.isnan(score(real, [0.3, 0.1 + 0.2, 0.3], "regression"))  # constant to rounding
    assert math.isnan(score([math.nan, 1.0, 1.0, 1.0], y, "classification"))
    counts = np.asarray([0.0, 1.0, 5.0])
    assert score(np.log([1e-300, 1.0, 5.0]), counts, "counts") == pytest.approx(1.0)
    assert score(np.full(3, math.log(2.0)), counts, "counts") == 0.0
    # The deviance of the mean is 2 (log 1/2 + 5 log 5/2); of rates one, with e^0 = 1, ...
    expected = 1 - (5 * math.log(5) - 3) / (math.log(0.5) + 5 * math.log(2.5))
    assert score(np.zeros(3), counts, "counts") == pytest.approx(expected)
    with pytest.raises(ValueError, match="counts are >= 0"):
        score(np.zeros(3), counts - 1, "counts")


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_score_does_not_know_the_unit(rng, unit):
    fit, y = rng.normal(size=(2, 9))
    assert score(unit * fit, unit * y, "regression") == pytest.approx(score(fit, y, "regression"))


def test_scores_that_would_compare_other_things_are_refused():
    with pytest.raises(ValueError, match=r"fit has shape \(1,\); pass shape \(3,\)"):
        score([1.0], [1.0, -1.0, 1.0], "classification")
    with pytest.raises(ValueError, match="task is 'accuracy'; pass one of 'classification', "):
        score([1.0], [1.0], "accuracy")
