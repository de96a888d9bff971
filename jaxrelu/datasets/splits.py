"""A table split, scaled and scored. NumPy arrays on the host.

A classification is scored by accuracy, the share of rows where a fit f >= 0 agrees with y > 0, a
regression by the coefficient of determination R^2, counts by the share of the deviance that is
explained, D^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.special import xlogy

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import (
    check_matrix_shape,
    check_per_row,
    check_shape,
    check_type,
    described,
    known_doubles,
    real_array,
)
from jaxrelu.core.options import check_choice, count, flag, share
from jaxrelu.core.tracing import on_host
from jaxrelu.datasets.rounding import constant
from jaxrelu.datasets.tables import Dataset, Task


@dataclass(frozen=True, eq=False)
class Split:
    """The standardised training and test part of a data set, see `prepare`.

    Attributes:
        X: training features (n, d).
        y: training target (n,).
        X_test: test features, on the training part's scale.
        y_test: test target; of a regression on the training part's scale, too.
        task: "classification", "regression" or "counts".
    """

    X: NDArray[Any]
    y: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    task: Task

    def astype(self, dtype: DTypeLike) -> Split:
        """The same split with every array cast to float32 or float64.

        Raises:
            TypeError: another dtype.
        """
        try:
            known = dtype is not None and np.dtype(dtype) in (np.float32, np.float64)
        except TypeError:
            known = False
        if not known:
            raise TypeError(f"dtype is {described(dtype)}; pass 'float32' or 'float64'.")
        X, y, X_test, y_test = (
            array.astype(dtype) for array in (self.X, self.y, self.X_test, self.y_test)
        )
        return Split(X, y, X_test, y_test, self.task)


@on_host()
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
        ValueError, TypeError: arrays of other shapes or without numbers, `test_size` is out of
            range, or fewer than two rows would be left to train on.

    Example:
        >>> import numpy as np
        >>> from jaxrelu.datasets import train_test_split
        >>> parts = train_test_split(np.ones((10, 3)), np.ones(10), test_size=0.2, seed=0)
        >>> [len(part) for part in parts]
        [8, 2, 8, 2]
    """
    X = np.asarray(real_array(X, "X"), np.float64)
    y = np.asarray(real_array(y, "y"), np.float64)
    check_matrix_shape(X, "X")
    n = len(X)
    check_per_row(y, "y", n)
    test_size, seed = share(test_size, "test_size"), count(seed, "seed", least=0)
    held_out = max(1, round(test_size * n))
    if n - held_out < 2:
        raise ValueError(
            f"test_size {test_size} leaves {n - held_out} of {n} rows to train on, and at least "
            "two are needed: pass a smaller test_size or more rows."
        )
    order = np.random.default_rng(seed).permutation(n)
    test, train = order[:held_out], order[held_out:]
    return X[train], X[test], y[train], y[test]


@on_host()
def standardize(train: ArrayLike, *others: ArrayLike) -> tuple[Floats, ...]:
    """Shifts and scales every array by the column means and standard deviations of the first.

    Args:
        train: array (n, ...); its means and standard deviations over axis 0 are used.
        *others: arrays of the same trailing shape, for example the test part.

    Returns:
        The arrays in the order given, float64. A column that is constant in `train`, up to
        rounding in its dtype, has no scale: it becomes zero in every array, so that no model of
        the first can hang on what it is in the others.

    Raises:
        ValueError, TypeError: no rows, other columns than `train`, entries that are no numbers or
            not finite.

    Example:
        >>> import numpy as np
        >>> from jaxrelu.datasets import standardize
        >>> train, test = standardize(np.array([[0.0], [2.0]]), np.array([[3.0]]))
        >>> train.tolist(), test.tolist()
        ([[-1.0], [1.0]], [[2.0]])
    """
    given = real_array(train, "train")
    values = known_doubles(given, "train")
    if values.ndim == 0 or 0 in values.shape:
        raise ValueError(f"train has shape {values.shape}; pass at least one row and one column.")
    further = [known_doubles(array, f"others[{k}]") for k, array in enumerate(others)]
    for k, array in enumerate(further):
        check_shape(array, f"others[{k}]", (*array.shape[:1], *values.shape[1:]), "as train has")
    still, exponent = constant(given), _exponent(values)
    scaled = np.ldexp(values, -exponent)
    # The mean of a large offset rounds: what it leaves has a mean of its own.
    center = scaled.mean(axis=0)
    rest = (scaled - center).mean(axis=0)
    scale = np.where(still, 1.0, (scaled - center).std(axis=0))

    def standard(array: Floats) -> Floats:
        with np.errstate(over="ignore"):  # what overflows is infinitely many deviations off
            deviation = np.ldexp(array, -exponent) - center - rest
            return np.where(still, 0.0, deviation / scale)

    return tuple(standard(array) for array in (values, *further))


def prepare(data: Dataset, test_size: float, seed: int, *, bias: bool = False) -> Split:
    """Splits a data set at random and standardises it by the statistics of the training part.

    Args:
        data: a `Dataset`.
        test_size: share of the rows to hold out, strictly between 0 and 1.
        seed: of the split.
        bias: append a column of ones to the features; its weight is penalised like the others.

    Returns:
        A `Split`, float64. The labels of a classification stay -1 and +1, and counts what they
        are; the target of a regression is standardised.

    Raises:
        ValueError: see `train_test_split`; or the target, or every feature, is constant on the
            training part, up to rounding.

    Example:
        >>> from jaxrelu.datasets import load_breast_cancer, prepare
        >>> split = prepare(load_breast_cancer(), test_size=0.2, seed=0)
        >>> split.X.shape, split.X_test.shape
        ((455, 30), (114, 30))
    """
    check_type(data, "data", Dataset, "a Dataset, for example of read_csv")
    bias = flag(bias, "bias")
    X, X_test, y, y_test = train_test_split(data.X, data.y, test_size, seed)
    if constant(y):
        raise ValueError(
            "the target is constant on the training part: "
            "pass another seed, a smaller test_size or more rows."
        )
    if constant(X).all():
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


@on_host()
def score(fit: ArrayLike, y: ArrayLike, task: Task) -> float:
    """Accuracy of a classification, R^2 of a regression, D^2 of counts.

    Args:
        fit: predictions, array (n,); a prediction f stands for the label +1 where f >= 0, and for
            the count exp(f).
        y: target, array (n,).
        task: "classification", "regression" or "counts".

    Returns:
        The share of right labels; 1 - sum (y - f)^2 / sum (y - mean y)^2; or 1 less the Poisson
        deviance over that of the mean. NaN where that is not defined: a fit that is not finite, or
        a y that is no label and constant up to rounding.

    Raises:
        ValueError, TypeError: shapes that do not fit, entries that are no numbers, a target that is
            not finite, another task.

    Example:
        >>> from jaxrelu.datasets import score
        >>> score([0.3, -2.0, 1.0], [1.0, -1.0, -1.0], "classification")
        0.6666666666666666
    """
    fit, y = np.asarray(real_array(fit, "fit"), np.float64), known_doubles(y, "y")
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"y has shape {y.shape}; pass one number a row, shape (n,).")
    check_shape(fit, "fit", y.shape, "that of y")
    check_choice(task, "task", get_args(Task))
    if not np.isfinite(fit).all():
        return math.nan
    if task == "classification":
        return float(np.mean((fit >= 0) == (y > 0)))
    if constant(y):
        return math.nan
    if task == "counts":
        if np.min(y) < 0:
            raise ValueError(f"y holds {np.min(y):g}; counts are >= 0.")
        return 1.0 - _deviance(y, fit) / _deviance(y, np.full(y.shape, np.log(y.mean())))
    with np.errstate(over="ignore"):
        f, target = (np.ldexp(array, -_exponent(y)) for array in (fit, y))
        return 1.0 - float(np.sum((target - f) ** 2) / (len(y) * target.var()))


def _deviance(counts: Floats, log_rate: Floats) -> float:
    """Half the Poisson deviance, sum of e^f - y f + y log y - y."""
    with np.errstate(over="ignore"):
        return float(np.sum(np.exp(log_rate) - counts * log_rate + xlogy(counts, counts) - counts))


def _exponent(columns: Floats) -> NDArray[np.intp]:
    """Of a power of two above every column: in its units no square overflows or vanishes."""
    return np.frexp(np.abs(columns).max(axis=0))[1]
