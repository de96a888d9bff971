"""Tables of numbers and the column to predict: scikit-learn's breast-cancer data, and CSV files.

A target with two values is a classification task: the smaller value becomes -1, the larger +1.
Any other target is a regression task.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaxrelu.datasets.rounding import constant

Task = Literal["classification", "regression"]
Floats = NDArray[np.float64]

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True)
class Dataset:
    """A table of numbers and the column to predict.

    Attributes:
        X: features, float64 array (n, d).
        y: target, float64 array (n,); -1 and +1 when `task` is "classification".
        names: the d column names.
        task: "classification" when the target takes two values, otherwise "regression".
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
    r"""Reads a comma-separated table of numbers with one header row.

    Args:
        path: the file; one that ends in .gz is decompressed.
        target: name of the column to predict; the other columns are the features.

    Returns:
        A `Dataset`, its columns as they are in the file.

    Raises:
        ValueError: the file cannot be read, has no header, no such target or fewer than two rows
            of data, or a cell is missing, not a number or not finite. The sentence names the row
            (counted from 1, the header being row 1), the column and the fix.

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
    path = Path(path)
    rows = _read_rows(path)
    if not rows:
        raise ValueError(f"{path} is empty: give a CSV file with a header row and rows of numbers.")
    _, header = rows[0]
    names = _check_header(path, [name.strip() for name in header])
    if target not in names:
        raise ValueError(
            f"{path} has no column {target!r} to be the target: choose one of "
            f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
        )
    if len(names) < 2:
        raise ValueError(f"{path} has the target {target!r} alone: add at least one feature.")
    body = rows[1:]
    if len(body) < 2:
        raise ValueError(
            f"{path} has {len(body)} row(s) of data below its header: at least two are needed."
        )
    table = np.array([_parse_row(path, number, row, names) for number, row in body])
    column = names.index(target)
    y, task = _encode_target(table[:, column], target)
    features = tuple(name for name in names if name != target)
    return Dataset(np.delete(table, column, axis=1), y, features, task)


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, each with its number in the file, counted from 1."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: check its path.") from None
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}): give a readable CSV file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no CSV text ({error}): save it as comma-separated UTF-8."
        ) from error


def _check_header(path: Path, names: list[str]) -> list[str]:
    """The column names, or an error when the first row cannot be a header."""
    if all(_number(name) is not None for name in names):
        raise ValueError(
            f"{path} has no header, its first row holds numbers alone: "
            "add a first row with the names of the columns."
        )
    if "" in names:
        raise ValueError(
            f"column {names.index('') + 1} of {path} has no name: name it in the header row."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has two columns named {twice!r}: rename one of them.")
    return names


def _parse_row(path: Path, number: int, row: Sequence[str], names: Sequence[str]) -> list[float]:
    """One row of numbers, or an error that names the cell and the fix."""
    if len(row) != len(names):
        raise ValueError(
            f"row {number} of {path} has {len(row)} cells but the header has {len(names)}: "
            "give every row one cell a column, separated by commas."
        )
    values = []
    for name, raw in zip(names, row, strict=True):
        cell, where = raw.strip(), f"row {number}, column {name!r} of {path}"
        if cell.lower() in _MISSING:
            raise ValueError(f"{where} has a missing value: fill it in or remove the row.")
        value = _number(cell)
        if value is None:
            raise ValueError(
                f"{where} holds the text {cell!r}: encode it as numbers or remove the column."
            )
        if not math.isfinite(value):
            raise ValueError(f"{where} holds {cell}, which is not finite: replace or remove it.")
        values.append(value)
    return values


def _number(cell: str) -> float | None:
    """The number that a cell holds, None when it holds something else."""
    try:
        return float(cell)
    except ValueError:
        return None


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
