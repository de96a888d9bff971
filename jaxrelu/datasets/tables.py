"""Tables of numbers and the column to predict: scikit-learn's breast-cancer data, and CSV files.

A target with two values is a classification task: the smaller number, or of two words the first in
the alphabet, becomes -1, the other +1. Any other target is a regression task.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import check_type
from jaxrelu.datasets.delimited import DELIMITERS, Row, read_rows
from jaxrelu.datasets.rounding import constant

Task = Literal["classification", "regression", "counts"]

# As pandas, R, Excel, SAS and C write what is missing.
_MISSING = {"", "na", "n/a", "<na>", "#n/a", "#na", "nan", "+nan", "-nan", "null", "none"} | {
    "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind", "?", ".", "-",
}  # fmt: skip
_INFINITE = {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table of numbers and the column to predict.

    Attributes:
        X: features, float64 array (n, d).
        y: target, float64 array (n,); -1 and +1 when `task` is "classification".
        names: the d column names.
        task: "classification" when the target takes two values, otherwise "regression"; "counts"
            only where you say so (`dataclasses.replace`).
    """

    X: Floats
    y: Floats
    names: tuple[str, ...]
    task: Task


def load_breast_cancer() -> Dataset:
    """The Wisconsin diagnostic breast-cancer data that scikit-learn ships; nothing is downloaded.

    Returns:
        A `Dataset` with X (569, 30), raw: `standardize` it on the training part. The target is
        -1 for malignant (212 rows) and +1 for benign (357 rows).

    Raises:
        ImportError: scikit-learn is missing.

    Example:
        >>> from jaxrelu.datasets import load_breast_cancer
        >>> load_breast_cancer().X.shape
        (569, 30)

    Reference: Street, Wolberg and Mangasarian, Nuclear feature extraction for breast tumor
        diagnosis, 1993.
    """
    try:
        from sklearn.datasets import load_breast_cancer as load
    except ImportError as error:
        raise ImportError(
            "the breast-cancer data come with scikit-learn: pip install 'jaxrelu[sklearn]'"
        ) from error
    bunch = load()
    y, task = _encode_target(np.asarray(bunch.target, np.float64), "target")
    names = tuple(str(name) for name in bunch.feature_names)
    return Dataset(np.asarray(bunch.data, np.float64), y, names, task)


def read_csv(path: str | Path, target: str) -> Dataset:
    r"""Reads a table of numbers with one header row.

    Columns are separated by commas, semicolons, tabs or |, decimals by a point or, unless commas
    separate the columns, by a comma. The text is UTF-8, or UTF-16 as Excel marks it. True and
    False, in any case, are 1 and 0; the target may take two other words, too. A first column
    without a name that numbers or names the rows, as pandas and R write it, is left out with a
    warning.

    Args:
        path: the file; one that ends in .gz is decompressed.
        target: name of the column to predict; the other columns are the features.

    Returns:
        A `Dataset`, its columns as they are in the file.

    Raises:
        TypeError: a path or a target that is no text.
        ValueError: the file cannot be read, has no header, no such target or fewer than two rows
            of data, or a cell is missing, not a number or not finite. The sentence names the line
            of the file (the first is 1), the column, the value and the fix.

    Example:
        >>> import pathlib, tempfile
        >>> from jaxrelu.datasets import read_csv
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "iris.csv"
        ...     _ = file.write_text("length,width,kind\n5.1,3.5,0\n7.0,3.2,1\n")
        ...     data = read_csv(file, target="kind")
        >>> data.X.shape, data.y.tolist(), data.task
        ((2, 2), [-1.0, 1.0], 'classification')
    """
    check_type(path, "path", (str, os.PathLike), "the name of a file")
    check_type(target, "target", str, "the name of a column")
    path = Path(path)
    rows, delimiter = read_rows(path)
    if not rows:
        raise ValueError(f"{path} is empty: give a CSV file with a header row and rows of numbers.")
    names, body = _named_columns(path, rows[0].cells, rows[1:], delimiter)
    place = _check_names(path, names)
    if _plain(target) not in place:
        raise ValueError(
            f"{path} has no column {target!r} to be the target: choose one of "
            f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
        )
    if len(names) < 2:
        raise ValueError(f"{path} has the target {target!r} alone: add at least one feature.")
    if len(body) < 2:
        raise ValueError(
            f"{path} has {len(body)} row(s) of data below its header: at least two are needed."
        )
    columns = list(zip(*(row.cells for row in body), strict=True))
    point = "," if delimiter != "," and _has_decimal_commas(columns) else "."
    lines = [row.line for row in body]

    def numbers(column: int) -> Floats:
        return _numbers(path, lines, names[column], columns[column], point)

    chosen = place[_plain(target)]
    y = _words(columns[chosen])
    y, task = _encode_target(numbers(chosen) if y is None else y, target)
    features = [column for column in range(len(names)) if column != chosen]
    X = np.column_stack([numbers(column) for column in features])
    return Dataset(X, y, tuple(names[column] for column in features), task)


def _named_columns(
    path: Path, header: list[str], body: list[Row], delimiter: str
) -> tuple[list[str], list[Row]]:
    """Names and rows of equal width, without delimiters at their ends and without row labels."""
    width = len(header)
    while header[width - 1] == "":
        width -= 1
    beyond = [row.cells[width:] for row in body]
    if not any(map(any, beyond)) and (width < len(header) or all(beyond)):
        header, body = header[:width], [Row(row.line, row.cells[:width]) for row in body]

    # R leaves the name of its labels out.
    short = {len(row.cells) for row in body} == {len(header) + 1}
    if short and _are_labels([row.cells[0] for row in body], strict=True):
        header = ["", *header]
    for row in body:
        if len(row.cells) != len(header):
            hint = ", without R's row names (row.names = FALSE)" if short else ""
            raise ValueError(
                f"line {row.line} of {path} has {len(row.cells)} cells but the header has "
                f"{len(header)}: give every row one cell a column, separated by "
                f"{DELIMITERS.get(delimiter, delimiter)}{hint}."
            )
    unnamed = header[0] in ("", "Unnamed: 0") and len(header) > 1  # pandas, having read one
    if unnamed and _are_labels([row.cells[0] for row in body]):
        warnings.warn(
            f"the first column of {path} has no name and numbers or names the rows, as pandas and "
            "R write them: it is left out.",
            stacklevel=3,
        )
        header, body = header[1:], [Row(row.line, row.cells[1:]) for row in body]
    return header, body


def _are_labels(cells: list[str], strict: bool = False) -> bool:
    """Whether cells number the rows, strictly each from 1 to n once, or are names, not numbers."""
    if all(re.fullmatch(r"\d+(\.0)?", cell, re.ASCII) for cell in cells):
        return not strict or {float(cell) for cell in cells} == set(range(1, len(cells) + 1))
    return not any(cell.casefold() in _MISSING or _looks_numeric(cell) for cell in cells)


def _check_names(path: Path, names: list[str]) -> dict[str, int]:
    """Where every column is, by its name in plain form; or why the first row is no header."""
    if len(names) == 1 and len(names[0].split()) > 1:
        raise ValueError(
            f"the header of {path} is one cell, {names[0]!r}: separate the columns by commas."
        )
    # pandas calls columns 0, 1, 2, ... that were given no names.
    counted = names == [str(k) for k in range(len(names))]
    if all(_looks_numeric(name) for name in names if name) and not counted:
        raise ValueError(
            f"{path} has no header, its first row holds numbers alone: "
            "add a first row with the names of the columns."
        )
    if "" in names:
        raise ValueError(
            f"column {names.index('') + 1} of {path} has no name: remove it if it numbers the "
            "rows, otherwise name it in the header row."
        )
    place: dict[str, int] = {}
    for column, name in enumerate(names):
        first = place.setdefault(_plain(name), column)
        if first != column:
            raise ValueError(
                f"{path} has two columns named {name!r}, {first + 1} and {column + 1}: "
                "rename one of them."
            )
    return place


def _plain(name: str) -> str:
    """A name as it is compared: one Unicode form, one space between words."""
    return " ".join(unicodedata.normalize("NFKC", name).split())


def _has_decimal_commas(columns: Sequence[Sequence[str]]) -> bool:
    """Whether commas stand for the decimal point: some must, as they cannot mark thousands."""
    commas = [cell for column in columns for cell in column if "," in cell]
    numbers = [cell for cell in commas if _DECIMAL_COMMA.fullmatch(cell)]
    return any(not _THOUSANDS.fullmatch(cell) for cell in numbers) and not any(
        "." in cell and _NUMBER.fullmatch(cell) for column in columns for cell in column
    )


def _words(cells: Sequence[str]) -> Floats | None:
    """1 and 0 for two words, the first in the alphabet being 0; None where there are others."""
    words = sorted({cell.casefold() for cell in cells})
    if len(words) != 2 or any(word in _MISSING or _looks_numeric(word) for word in words):
        return None
    return np.array([float(cell.casefold() == words[1]) for cell in cells])


def _numbers(
    path: Path, lines: Sequence[int], name: str, cells: Sequence[str], point: str
) -> Floats:
    """The numbers of a column, or an error that names the cell and the fix."""
    if {cell.casefold() for cell in cells} <= {"true", "false"}:
        return np.array([float(cell.casefold() == "true") for cell in cells])
    values = np.empty(len(cells))
    for k, cell in enumerate(cells):
        plain = cell.replace(",", ".") if point == "," else cell
        if not _NUMBER.fullmatch(plain) or not math.isfinite(float(plain)):
            raise ValueError(f"line {lines[k]}, column {name!r} of {path} {_fault(cell)}.")
        values[k] = float(plain)
    return values


def _fault(cell: str) -> str:
    """What keeps a cell from being a number, and the fix."""
    shown = repr(cell if len(cell) <= 40 else f"{cell[:37]}...")
    if cell.casefold() in _MISSING:
        return f"has a missing value, {shown}: fill it in or remove the row"
    if cell.casefold() in _INFINITE or _NUMBER.fullmatch(cell):
        return f"holds {shown}, which is not finite: replace or remove it"
    if "\n" in cell or "\r" in cell:
        return f"holds a line break, {shown}: close the quote that is opened there"
    if _looks_numeric(cell):
        return (
            f"holds {shown}, which is no plain number: write digits with a decimal point and "
            "nothing between thousands, such as 1234.5"
        )
    return f"holds the text {shown}: encode it as numbers or remove the column"


def _looks_numeric(cell: str) -> bool:
    """Whether a cell is a number as programs or people write it: 1_234, 1'234, $ 5, 7 %, inf."""
    digits = re.sub(r"[\s.,'’_]", "", cell.strip("+-\u2212$€£% \u00a0"))
    return cell.casefold() in _INFINITE or bool(re.fullmatch(r"\d+(e[+-]?\d+)?", digits, re.I))


def _encode_target(y: Floats, name: str) -> tuple[Floats, Task]:
    """-1 and +1 for a target with two values, the target itself otherwise."""
    if constant(y):
        raise ValueError(
            f"the target {name!r} is {y[0]:g} in every row, so there is nothing to fit: "
            "choose another column."
        )
    high = y > y.min() / 2 + y.max() / 2
    if constant(y[high]) and constant(y[~high]):
        return np.where(high, 1.0, -1.0), "classification"
    return y, "regression"
