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
    with pytest.raises(ValueError, match="pass a share strictly between 0 and 1"):
        train_test_split(np.ones((4, 1)), np.ones(4), test_size, 0)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="leaves 1 of 2 rows to train on, and at least two"):
        train_test_split(np.ones((2, 1)), np.ones(2), 0.2, 0)
    with pytest.raises(ValueError, match="X has 3 rows but y has 2"):
        train_test_split(np.ones((3, 1)), np.ones(2), 0.2, 0)


def test_standardize_uses_the_first_array_only(rng):
    train, test = rng.normal(5.0, 3.0, (50, 4)), rng.normal(size=(9, 4))
    scaled, others = standardize(train, test)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    np.testing.assert_allclose(others * train.std(axis=0) + train.mean(axis=0), test)


def test_constant_column_becomes_exactly_zero():
    # 0.1 has a mean that rounds away from 0.1: dividing by that noise would invent a feature.
    train, test = standardize(np.full((10, 1), 0.1), np.array([[0.1], [1.1]]))
    assert (train == 0).all()
    np.testing.assert_allclose(test, [[0.0], [1.0]])


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
    assert math.isnan(score([math.nan, 1.0, 1.0, 1.0], y, "classification"))
