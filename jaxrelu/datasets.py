"""Tables of numbers to fit: reading, splitting, scaling, scoring. NumPy arrays on the host.

A target with two values is a classification task: the smaller value becomes -1, the larger +1,
and a fit f is scored by accuracy, the share of rows where f >= 0 agrees with y > 0. Any other
target is a regression task, scored by the coefficient of determination R^2.
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
from numpy.typing import ArrayLike, DTypeLike, NDArray

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


@dataclass(frozen=True)
class Split:
    """The standardised training and test part of a data set, see `prepare`.

    Attributes:
        X: training features (n, d).
        y: training target (n,).
        X_test: test features, on the training part's scale.
        y_test: test target; of a regression on the training part's scale, too.
        task: "classification" or "regression".
    """

    X: NDArray[Any]
    y: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    task: Task

    def astype(self, dtype: DTypeLike) -> Split:
        """The same split with every array cast to a dtype."""
        X, y, X_test, y_test = (
            array.astype(dtype) for array in (self.X, self.y, self.X_test, self.y_test)
        )
        return Split(X, y, X_test, y_test, self.task)


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


def train_test_split(
    X: ArrayLike, y: ArrayLike, test_size: float, seed: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Splits rows at random into a training and a test part.

    Args:
        X: array (n, d).
        y: array (n,).
        test_size: share of the rows to hold out, strictly between 0 and 1; the number of test
            rows is ``round(test_size * n)``, but at least one.
        seed: of the permutation, a non-negative integer.

    Returns:
        ``X_train, X_test, y_train, y_test``, each with the rows in the order of the permutation.

    Raises:
        ValueError: X and y differ in length, `test_size` is out of range, or fewer than two rows
            would be left to train on.

    Example:
        >>> import numpy as np
        >>> from jaxrelu.datasets import train_test_split
        >>> parts = train_test_split(np.ones((10, 3)), np.ones(10), test_size=0.2, seed=0)
        >>> [len(part) for part in parts]
        [8, 2, 8, 2]
    """
    X, y = np.asarray(X, np.float64), np.asarray(y, np.float64)
    n = len(X)
    if len(y) != n:
        raise ValueError(f"X has {n} rows but y has {len(y)}: pass one target value a row.")
    if not 0 < test_size < 1:
        raise ValueError(
            f"test_size is {test_size}: pass a share strictly between 0 and 1, such as 0.2."
        )
    held_out = max(1, round(test_size * n))
    if n - held_out < 2:
        raise ValueError(
            f"test_size {test_size} leaves {n - held_out} of {n} rows to train on, and at least "
            "two are needed: pass a smaller test_size or more rows."
        )
    order = np.random.default_rng(seed).permutation(n)
    test, train = order[:held_out], order[held_out:]
    return X[train], X[test], y[train], y[test]


def standardize(train: ArrayLike, *others: ArrayLike) -> tuple[Floats, ...]:
    """Shifts and scales every array by the column means and standard deviations of the first.

    Args:
        train: array (n, ...); its means and standard deviations over axis 0 are used.
        *others: arrays of the same trailing shape, for example the test part.

    Returns:
        The arrays in the order given. A column that is constant in `train` is shifted only, so
        there it becomes zero.

    Example:
        >>> import numpy as np
        >>> from jaxrelu.datasets import standardize
        >>> train, test = standardize(np.array([[0.0], [2.0]]), np.array([[3.0]]))
        >>> train.tolist(), test.tolist()
        ([[-1.0], [1.0]], [[2.0]])
    """
    base = np.asarray(train, np.float64)
    # In units of the largest entry, so that no square overflows or vanishes.
    peak = np.abs(base).max(axis=0)
    peak = np.where(peak > 0, peak, 1.0)
    constant = (base == base[:1]).all(axis=0)
    mean = np.where(constant, base[0] / peak, (base / peak).mean(axis=0))
    scale = np.where(constant, 1 / peak, (base / peak).std(axis=0))
    return tuple(
        (np.asarray(array, np.float64) / peak - mean) / scale for array in (train, *others)
    )


def prepare(data: Dataset, test_size: float, seed: int, *, bias: bool = False) -> Split:
    """Splits a data set at random and standardises it by the statistics of the training part.

    Args:
        data: a `Dataset`.
        test_size: share of the rows to hold out, strictly between 0 and 1.
        seed: of the split.
        bias: append a column of ones to the features; its weight is penalised like the others.

    Returns:
        A `Split`, float64. The labels of a classification stay -1 and +1, the target of a
        regression is standardised.

    Raises:
        ValueError: see `train_test_split`; or the target is constant on the training part.

    Example:
        >>> from jaxrelu.datasets import load_breast_cancer, prepare
        >>> split = prepare(load_breast_cancer(), test_size=0.2, seed=0)
        >>> split.X.shape, split.X_test.shape
        ((455, 30), (114, 30))
    """
    X, X_test, y, y_test = train_test_split(data.X, data.y, test_size, seed)
    if (y == y[0]).all():
        raise ValueError(
            "the target is constant on the training part: "
            "pass another seed, a smaller test_size or more rows."
        )
    if (X == X[0]).all():
        raise ValueError(
            "every feature is constant on the training part: "
            "add a feature that varies, or pass another seed."
        )
    X, X_test = standardize(X, X_test)
    if data.task == "regression":
        y, y_test = standardize(y, y_test)
    if bias:
        X, X_test = (np.column_stack([part, np.ones(len(part))]) for part in (X, X_test))
    return Split(X, y, X_test, y_test, data.task)


def score(fit: ArrayLike, y: ArrayLike, task: Task) -> float:
    """Accuracy of a classification, R^2 of a regression.

    Args:
        fit: predictions, array (n,); a prediction f stands for the label +1 where f >= 0.
        y: target, array (n,).
        task: "classification" or "regression".

    Returns:
        The share of right labels, or 1 - sum (y - f)^2 / sum (y - mean y)^2; NaN where that is
        not defined: a fit that is not finite, or a y that is constant in a regression.

    Example:
        >>> from jaxrelu.datasets import score
        >>> score([0.3, -2.0, 1.0], [1.0, -1.0, -1.0], "classification")
        0.6666666666666666
    """
    fit, y = np.asarray(fit, np.float64), np.asarray(y, np.float64)
    if not np.isfinite(fit).all():
        return math.nan
    if task == "classification":
        return float(np.mean((fit >= 0) == (y > 0)))
    spread = float(np.sum((y - y.mean()) ** 2))
    return 1.0 - float(np.sum((y - fit) ** 2)) / spread if spread > 0 else math.nan


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
    values = np.unique(y)
    if len(values) == 1:
        raise ValueError(
            f"the target {name!r} is {values[0]:g} in every row, so there is nothing to fit: "
            "choose another column."
        )
    if len(values) == 2:
        return np.where(y == values[1], 1.0, -1.0), "classification"
    return y, "regression"
