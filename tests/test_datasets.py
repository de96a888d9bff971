"""Reading, splitting, scaling, scoring; every fault of a CSV with the sentence it gets."""

import builtins
import gzip
import math

import numpy as np
import pytest

from jaxrelu.datasets import (
    Dataset,
    load_breast_cancer,
    prepare,
    read_csv,
    score,
    standardize,
    train_test_split,
)

GOOD = "a,b,target\n1,2.5,10\n-3,4e1,20\n5,6,30\n"


def write(folder, text, name="data.csv"):
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_breast_cancer_is_raw_with_signed_labels():
    data = load_breast_cancer()
    assert data.X.shape == (569, 30)
    assert data.X.dtype == np.float64
    assert len(data.names) == 30
    assert data.names[0] == "mean radius"
    assert data.task == "classification"
    assert (np.sum(data.y == -1), np.sum(data.y == 1)) == (212, 357)
    assert data.X[0, 0] == 17.99


def test_breast_cancer_without_scikit_learn_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def without_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(ImportError, match=r"pip install 'jaxrelu\[sklearn\]'"):
        load_breast_cancer()


def test_read_csv_returns_columns_as_they_are(tmp_path):
    data = read_csv(write(tmp_path, GOOD), "target")
    assert data.X.tolist() == [[1.0, 2.5], [-3.0, 40.0], [5.0, 6.0]]
    assert data.y.tolist() == [10.0, 20.0, 30.0]
    assert data.names == ("a", "b")
    assert data.task == "regression"


def test_target_may_be_any_column(tmp_path):
    data = read_csv(write(tmp_path, GOOD), "a")
    assert data.X.tolist() == [[2.5, 10.0], [40.0, 20.0], [6.0, 30.0]]
    assert data.y.tolist() == [1.0, -3.0, 5.0]
    assert data.names == ("b", "target")


@pytest.mark.parametrize("labels", [(0, 1), (-1, 1), (3, 7), (-2.5, -2.0)])
def test_two_valued_target_becomes_signs(tmp_path, labels):
    low, high = labels
    file = write(tmp_path, f"a,target\n1,{high}\n2,{low}\n3,{high}\n")
    data = read_csv(file, "target")
    assert data.y.tolist() == [1.0, -1.0, 1.0]
    assert data.task == "classification"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD.replace(",", " , "),
        GOOD + "\n\n",
        GOOD.replace("a,b", '"a","b"'),
    ],
    ids=["windows", "byte-order-mark", "spaces", "blank-lines", "quotes"],
)
def test_harmless_variants_read_alike(tmp_path, text):
    expected, data = (
        read_csv(write(tmp_path, GOOD), "target"),
        read_csv(write(tmp_path, text, "variant.csv"), "target"),
    )
    assert data.names == expected.names
    np.testing.assert_array_equal(data.X, expected.X)
    np.testing.assert_array_equal(data.y, expected.y)


def test_compressed_file_reads_alike(tmp_path):
    file = write(tmp_path, gzip.compress(GOOD.encode()), "data.csv.gz")
    np.testing.assert_array_equal(read_csv(file, "b").y, [2.5, 40.0, 6.0])


# What is wrong with a file, and the sentence: what happened, where, what to change.
BAD_CSV = {
    "text in a feature": (
        "a,b,target\n1,2,3\n4,red,6\n",
        r"row 3, column 'b' of .* holds the text 'red': encode it as numbers or remove the column",
    ),
    "text in the target": (
        "a,b,target\n1,2,yes\n4,5,no\n",
        r"row 2, column 'target' of .* holds the text 'yes': encode it as numbers",
    ),
    "empty cell": (
        "a,b,target\n1,2,3\n4,,6\n",
        r"row 3, column 'b' of .* has a missing value: fill it in or remove the row",
    ),
    "NA": ("a,b,target\nNA,2,3\n4,5,6\n", r"row 2, column 'a' of .* has a missing value"),
    "NaN": ("a,b,target\n1,2,3\n4,5,NaN\n", r"row 3, column 'target' of .* has a missing value"),
    "infinity": (
        "a,b,target\n1,2,3\n4,-inf,6\n",
        r"row 3, column 'b' of .* -inf, which is not fin",
    ),
    "overflow": ("a,b,target\n1,2,3\n4,1e999,6\n", r"row 3, column 'b' of .* 1e999, which is not"),
    "after blank line": ("a,b,target\n1,2,3\n\n4,x,6\n", r"row 4, column 'b'"),
    "no header": ("1,2,3\n4,5,6\n7,8,9\n", r"has no header, .*: add a first row with the names"),
    "no such target": (
        "a,b,label\n1,2,3\n4,5,6\n",
        r"has no column 'target' to be the target: choose one of a, b, label\.",
    ),
    "nameless column": ("a,,target\n1,2,3\n4,5,6\n", r"column 2 of .* has no name: name it"),
    "same name twice": ("a,a,target\n1,2,3\n4,5,6\n", r"two columns named 'a': rename one"),
    "target alone": ("target\n1\n2\n", r"has the target 'target' alone: add at least one feature"),
    "short row": ("a,b,target\n1,2,3\n4,5\n", r"row 3 of .* has 2 cells but the header has 3"),
    "long row": ("a,b,target\n1,2,3,4\n5,6,7\n", r"row 2 of .* has 4 cells but the header has 3"),
    "header only": ("a,b,target\n", r"has 0 row\(s\) of data below its header: at least two"),
    "one row": ("a,b,target\n1,2,3\n", r"has 1 row\(s\) of data below its header: at least two"),
    "empty file": ("", r"is empty: give a CSV file with a header row"),
    "constant target": (
        "a,b,target\n1,2,3\n4,5,3\n",
        r"target 'target' is 3 in every row, so there is nothing to fit: choose another column",
    ),
    "not text": (
        b"a,b,target\n\xff\xfe,2,3\n",
        r"is no CSV text .*: save it as comma-separated UTF",
    ),
}


@pytest.mark.parametrize("fault", BAD_CSV)
def test_bad_csv_is_refused_with_the_fix(tmp_path, fault):
    text, message = BAD_CSV[fault]
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path, text), "target")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nowhere\.csv: check its path"):
        read_csv(tmp_path / "nowhere.csv", "target")
    with pytest.raises(ValueError, match="cannot be read"):
        read_csv(tmp_path, "target")
    with pytest.raises(ValueError, match="cannot be read"):
        read_csv(write(tmp_path, GOOD, "not-compressed.gz"), "target")


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
