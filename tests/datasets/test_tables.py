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


HARMLESS = {
    "windows": GOOD.replace("\n", "\r\n"),
    "old macintosh": GOOD.replace("\n", "\r"),
    "byte order mark": "\ufeff" + GOOD,
    "utf-16": GOOD.encode("utf-16"),
    "utf-16, other end": "\ufeff".encode("utf-16-be") + GOOD.encode("utf-16-be"),
    "utf-32": GOOD.encode("utf-32"),
    "spaces": GOOD.replace(",", " , "),
    "blank lines": GOOD + "\n,,\n",
    "quotes": GOOD.replace("a,b", '"a","b"'),
    "quoted numbers": GOOD.replace("2.5", '"2.5"'),
    "semicolons": GOOD.replace(",", ";"),
    "tabs": GOOD.replace(",", "\t"),
    "bars": GOOD.replace(",", "|"),
    "Excel names the delimiter": "sep=;\r\n" + GOOD.replace(",", ";"),
    "Excel names another one": '"sep=^"\n' + GOOD.replace(",", "^"),
    "Excel, Unicode text": GOOD.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "decimal commas": GOOD.replace(",", ";").replace("2.5", "2,5"),
    "decimal commas, quoted": GOOD.replace(",", "\t").replace("2.5", '"+2,50"'),
    "comma at the end of rows": GOOD.replace("\n", ",\n").replace("target,", "target"),
    "comma at the end of the header": GOOD.replace("target", "target,"),
    "commas at all ends": GOOD.replace("\n", ",,\n"),
}


@pytest.mark.parametrize("variant", HARMLESS)
def test_harmless_variants_read_alike(tmp_path, variant):
    expected = read_csv(write(tmp_path, GOOD), "target")
    data = read_csv(write(tmp_path, HARMLESS[variant], "variant.csv"), "target")
    assert data.names == expected.names
    np.testing.assert_array_equal(data.X, expected.X)
    np.testing.assert_array_equal(data.y, expected.y)


def test_delimiter_is_the_one_that_rows_agree_with(tmp_path):
    def names(text):
        return read_csv(write(tmp_path, text), "t").names

    assert names("size, m;width, m;t\n1;2;3\n4;5;6\n") == ("size, m", "width, m")
    assert names("a;b,c|d,t\n1,2,3\n4,5,6\n") == ("a;b", "c|d")
    assert names('"a;b;c;d",e,t\n1,2,3\n4,5,6\n') == ("a;b;c;d", "e")
    # One decimal comma a row would make as many columns by commas as there are by semicolons.
    assert names("a;t\n1,5;2\n2,5;7\n3,5;4\n") == ("a",)


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1,5", "2", "-0,25", "1e3"], [1.5, 2.0, -0.25, 1000.0]),
        (["1,234", "0,5", ",5", "7"], [1.234, 0.5, 0.5, 7.0]),  # thousands have no part of one
        (["12,3456", "1,5E-2", "1,234", "0"], [12.3456, 0.015, 1.234, 0.0]),
    ],
)
def test_decimal_commas(tmp_path, cells, numbers):
    text = "\n".join(["a;t", *(f"{cell};{k}" for k, cell in enumerate(cells))])
    assert read_csv(write(tmp_path, text), "t").X[:, 0].tolist() == numbers


# ---------------------------------------------------------------------- labels of rows, names

ROW_LABELS = {
    "pandas": ",a,target\n0,5,1\n1,3,4\n2,4,9\n",
    "pandas, sorted by the target": ",a,target\n7,5,1\n0,3,4\n12,4,9\n",
    "pandas, put together of parts": ",a,target\n0,5,1\n0,3,4\n1,4,9\n",
    "pandas, read and written again": "Unnamed: 0,a,target\n0,5,1\n1,3,4\n2,4,9\n",
    "pandas, other labels": ',a,target\n2024-01-01,5,1\n"x, y",3,4\nz,4,9\n',
    "R, write.csv": '"","a","target"\n"1",5,1\n"2",3,4\n"3",4,9\n',
    "R, write.table": '"a","target"\n"1",5,1\n"2",3,4\n"3",4,9\n',
    "R, write.table, sorted": '"a","target"\n"3",5,1\n"1",3,4\n"2",4,9\n',
    "R, names": '"a"\t"target"\n"Mazda RX4"\t5\t1\n"Fiat 128"\t3\t4\n"Fiat X1-9"\t4\t9\n',
}


@pytest.mark.parametrize("program", ROW_LABELS)
def test_labels_of_rows_are_no_feature(tmp_path, program):
    with pytest.warns(UserWarning, match=r"first column of .*data\.csv has no name .* left out"):
        data = read_csv(write(tmp_path, ROW_LABELS[program]), "target")
    assert data.names == ("a",)
    assert data.X.tolist() == [[5.0], [3.0], [4.0]]
    assert data.y.tolist() == [1.0, 4.0, 9.0]


def test_numbers_of_pandas_are_names(tmp_path):
    text = "0,1,2\n5,6,7\n1,2,3\n4,4,5\n"
    data = read_csv(write(tmp_path, text), "2")
    assert (data.names, data.X.tolist()) == (("0", "1"), [[5.0, 6.0], [1.0, 2.0], [4.0, 4.0]])
    labelled = "".join(
        f"{row},{line}\n" for row, line in zip(["", 0, 1, 2], text.split(), strict=True)
    )
    with pytest.warns(UserWarning, match="is left out"):
        again = read_csv(write(tmp_path, labelled), "2")
    np.testing.assert_array_equal(again.X, data.X)


def test_names_are_compared_in_one_unicode_form(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    data = read_csv(write(tmp_path, f"a,{decomposed}\n1,2\n3,4\n5,9\n"), composed)
    assert (data.names, data.y.tolist()) == (("a",), [2.0, 4.0, 9.0])
    for first, second in ((composed, decomposed), ("\ufb01t", "fit"), ("x\u00a0y", "x y")):
        text = f"{first},{second},target\n1,2,3\n4,5,6\n"
        with pytest.raises(ValueError, match="two columns named .*, 1 and 2: rename one of them"):
            read_csv(write(tmp_path, text), "target")


@pytest.mark.parametrize(
    ("low", "high"),
    [("False", "True"), ("FALSE", "true"), ("no", "yes"), ("No", "YES"), ("F", "T"), ("B", "M")],
)
def test_target_of_two_words_is_a_classification(tmp_path, low, high):
    text = f"a,target\n1,{high}\n2,{low}\n3,{high.lower()}\n4, {low.upper()}\n"
    data = read_csv(write(tmp_path, text), "target")
    assert data.y.tolist() == [1.0, -1.0, 1.0, -1.0]
    assert data.task == "classification"


def test_true_and_false_are_numbers_of_a_feature(tmp_path):
    data = read_csv(write(tmp_path, "a,b,t\nTrue,TRUE,1\nFalse,true,2\nfalse,True,4\n"), "t")
    assert data.X.tolist() == [[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]


def test_compressed_file_reads_alike(tmp_path):
    file = write(tmp_path, gzip.compress(GOOD.encode()), "data.csv.gz")
    np.testing.assert_array_equal(read_csv(file, "b").y, [2.5, 40.0, 6.0])


# What is wrong with a file, and the sentence: what happened, where, what to change.
NOT_PLAIN = ": write digits with a decimal point and nothing between thousands, such as 1234.5"
BAD_CSV = {
    "text in a feature": (
        "a,b,target\n1,2,3\n4,red,6\n",
        r"line 3, column 'b' of .* holds the text 'red': encode it as numbers or remove the column",
    ),
    "three words in the target": (
        "a,b,target\n1,2,yes\n4,5,no\n7,8,perhaps\n",
        r"line 2, column 'target' of .* holds the text 'yes': encode it as numbers",
    ),
    "words and numbers in the target": (
        "a,b,target\n1,2,0\n4,5,no\n",
        r"line 3, column 'target' of .* holds the text 'no': encode it as numbers",
    ),
    "long text": ("a,target\n1,2\n" + "x" * 99 + ",3\n", r"holds the text 'x{37}\.\.\.': encode"),
    "empty cell": (
        "a,b,target\n1,2,3\n4,,6\n",
        r"line 3, column 'b' of .* has a missing value, '': fill it in or remove the row",
    ),
    "infinity": (
        "a,b,target\n1,2,3\n4,-inf,6\n",
        r"line 3, column 'b' of .* holds '-inf', which is not finite: replace or remove it",
    ),
    "Infinity": ("a,target\n1,2\n4,+Infinity\n", r"line 3, column 'target' .* is not finite"),
    "overflow": ("a,b,target\n1,2,3\n4,1e999,6\n", r"line 3, column 'b' .* '1e999', which is not"),
    "after blank line": ("a,b,target\n1,2,3\n\n4,x,6\n", r"line 4, column 'b'"),
    "after a cell of two lines": ('"a\nb",c,target\n1,2,3\n4,x,6\n', r"line 4, column 'c'"),
    "after Excel's line": ("sep=,\na,target\n1,2\nx,6\n", r"line 4, column 'a'"),
    "thousands": ('a,target\n1,2\n"1,234",5\n', "line 3, column 'a' .*'1,234'.*" + NOT_PLAIN),
    "thousands or decimals": ("a;target\n1,234;2\n3,456;5\n", "line 2.*'1,234'.*" + NOT_PLAIN),
    "thousands and decimals": ("a;target\n1.234,5;2\n3,4;5\n", r"line 2.*'1\.234,5'.*" + NOT_PLAIN),
    "points and commas": ("a;target\n1.5;2\n3,4;5\n", "line 3.*'3,4'.*" + NOT_PLAIN),
    "underscore": ("a,target\n1_2,3\n4,5\n", "line 2, column 'a' .*'1_2', which.*" + NOT_PLAIN),
    "other digits": ("a,target\n\u0661\u0662,3\n4,5\n", "line 2.*which is no plain number"),
    "minus sign": ("a,target\n\u22125,3\n4,5\n", "line 2.*which is no plain number"),
    "per cent": ("a,target\n5 %,3\n4,5\n", "line 2.*'5 %', which is no plain number"),
    "no header": ("1,2,3\n4,5,6\n7,8,9\n", r"has no header, .*: add a first row with the names"),
    "no header, decimal commas": ("1,5;2\n4;5\n7;8\n", r"has no header, .*: add a first row"),
    "no such target": (
        "a,b,label\n1,2,3\n4,5,6\n",
        r"has no column 'target' to be the target: choose one of a, b, label\.",
    ),
    "nameless column": (
        "a,,target\n1,2,3\n4,5,6\n",
        r"column 2 of .* has no name: remove it if it numbers the rows, otherwise name it",
    ),
    "nameless first column that labels no rows": (
        ",a,target\n0.5,2,3\n1.5,5,6\n",
        r"column 1 of .* has no name: remove it if it numbers the rows, otherwise name it",
    ),
    "nameless last column": ("a,target,\n1,2,\n4,5,6\n", r"column 3 of .* has no name"),
    "same name twice": (
        "a,b,a,target\n1,2,3,4\n4,5,6,7\n",
        r"two columns named 'a', 1 and 3: rename one of them",
    ),
    "target alone": ("target\n1\n2\n", r"has the target 'target' alone: add at least one feature"),
    "blanks between columns": (
        "a b target\n1 2 3\n4 5 6\n",
        r"header of .* is one cell, 'a b target': separate the columns by commas",
    ),
    "short row": (
        "a,b,target\n1,2,3\n4,5\n",
        r"line 3 of .* has 2 cells but the header has 3: give every row one cell a column, separ",
    ),
    "long row": ("a,b,target\n1,2,3,4\n5,6,7\n", r"line 2 of .* has 4 cells but the header has 3"),
    "one comma too many": ("a,target\n1,2\n5,6,\n", r"line 3 of .* has 3 cells but the header has"),
    "decimal commas between commas": (
        "a,target\n0,5,2\n2,5,7\n3,5,4\n",
        r"line 2 of .* has 3 cells but the header has 2: .* commas, without R's row names",
    ),
    "header only": ("a,b,target\n", r"has 0 row\(s\) of data below its header: at least two"),
    "one row": ("a,b,target\n1,2,3\n", r"has 1 row\(s\) of data below its header: at least two"),
    "empty file": ("", r"is empty: give a CSV file with a header row"),
    "Excel's line alone": ("sep=;\n", r"is empty: give a CSV file with a header row"),
    "constant target": (
        "a,b,target\n1,2,3\n4,5,3\n",
        r"target 'target' is 3 in every row, so there is nothing to fit: choose another column",
    ),
    "constant target up to rounding": (
        "a,target\n1,0.3\n4,0.30000000000000004\n",
        r"target 'target' is 0.3 in every row, so there is nothing to fit",
    ),
    "one word": ("a,target\n1,true\n4,True\n", r"target 'target' is 1 in every row"),
    "quote open to the end": (
        'a,b,target\n1,2,3\n4,"5,6\n7,8,9\n',
        r"line 3 of .* has a quote that is not closed at the end of its cell: close the quote",
    ),
    "quote open to the next": ('a,target\n1,"2\n3,"4"\n5,6\n', r"line 2 of .* has a quote that is"),
    "quote open in the last cell": ('a,target\n1,2\n3,"4', r"line 3 of .* has a quote that is not"),
    "quote open in a large file": (
        'a,target\n1,2\n"3,4\n' + "5,6\n" * 40_000,
        r"line 3 of .* has a cell of more than 131072 characters: close the quote",
    ),
    "quote closed a line too late": (
        'a,target\n1,"2\n3"\n5,6\n',
        r"line 2, column 'target' of .* holds a line break, '2\\n3': close the quote",
    ),
    "not UTF-8": (
        "a,target\n1,2\ncaf\u00e9,3\n".encode("latin-1"),
        r"line 3 of .* is no UTF-8 text: save the table as CSV UTF-8",
    ),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), r"zero bytes, so it is no text: save it"),
    "half of UTF-16": (GOOD.encode("utf-16")[:-1], r"line 4 of .* is no UTF-16 text: save the"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_CSV)
def test_bad_csv_is_refused_with_the_fix(tmp_path, fault):
    text, message = BAD_CSV[fault]
    with pytest.raises(ValueError, match=message) as refusal:
        read_csv(write(tmp_path, text), "target")
    sentence = str(refusal.value)
    assert "data.csv" in sentence or "the target" in sentence
    assert sentence.endswith(".")
    assert len(sentence.splitlines()) == 1


@pytest.mark.parametrize(
    "cell", ["NA", "NaN", "-nan", "n/a", "#N/A", "<NA>", "NULL", "None", "?", ".", "-", "1.#IND"]
)
def test_missing_values_are_named_in_every_spelling(tmp_path, cell):
    file = write(tmp_path, f"a,target\n1,2\n{cell},4\n")
    with pytest.raises(ValueError, match="line 3, column 'a' of .* has a missing value, "):
        read_csv(file, "target")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nowhere\.csv: check its path"):
        read_csv(tmp_path / "nowhere.csv", "target")
    with pytest.raises(ValueError, match="cannot be read"):
        read_csv(tmp_path, "target")
    with pytest.raises(ValueError, match="cannot be read"):
        read_csv(write(tmp_path, GOOD, "not-compressed.gz"), "target")
    damaged = bytearray(gzip.compress(GOOD.encode()))
    damaged[12] ^= 0xFF
    with pytest.raises(ValueError, match="cannot be read"):
        read_csv(write(tmp_path, bytes(damaged), "damaged.gz"), "target")
