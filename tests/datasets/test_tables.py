"""Reading; every fault of a CSV with the sentence it gets."""

import builtins
import gzip

import numpy as np
import pytest

from jaxrelu.datasets import load_breast_cancer, read_csv

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


def test_two_values_up_to_rounding_are_two_values(tmp_path):
    # 0.1 + 0.2 as a program prints it.
    file = write(tmp_path, "a,target\n1,0.3\n2,0.30000000000000004\n3,0.7\n")
    data = read_csv(file, "target")
    assert (data.y.tolist(), data.task) == ([-1.0, -1.0, 1.0], "classification")
    # Rounding of 1e20 is no rounding of 1 and 2.
    data = read_csv(write(tmp_path, "a,target\n1,1\n2,2\n3,1e20\n"), "target")
    assert data.task == "regression"


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
    "constant target up to rounding": (
        "a,target\n1,0.3\n4,0.30000000000000004\n",
        r"target 'target' is 0.3 in every row, so there is nothing to fit",
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
