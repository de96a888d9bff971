"""The suite: which data, how many gates, which regularization path.

Every row is the squared loss 1/2 ||f - y||^2 without 1/n, a classification target is -1/+1. Gates
and lams are not made here: they come from jaxrelu (`sample_patterns` with key 0, `lambda_grid`), so
that every tool solves the same program at the same values of lam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One line of the suite.

    Attributes:
        name: how `--rows` and the tables call it.
        data: a file under the data folder, or the name of a generator in this module.
        gates: number of gates to sample; the number of distinct patterns may be lower.
        lams: length of the geometric path from lambda_max.
        ratio: last lam divided by lambda_max.
        gated: the gated program instead of the ReLU program.
        standardize: scale features and target of a raw regression file and add a ones column.
        default: part of the suite when `--rows` is not given.
        capacity: slots of `solve` and `solve_grid`; the solver's default without.
    """

    name: str
    data: str
    gates: int
    lams: int
    ratio: float
    gated: bool = False
    standardize: bool = False
    default: bool = True
    capacity: int | None = None


SUITE = (
    Row("breast-cancer-100", "uci/breast-cancer-wisc-diag", 100, 50, 0.01),
    Row("breast-cancer-500", "uci/breast-cancer-wisc-diag", 500, 50, 0.01),
    Row("ionosphere-200", "uci/ionosphere", 200, 50, 0.01, capacity=96),
    Row("spambase-100", "uci/spambase", 100, 30, 0.02, capacity=96),
    Row("concrete-200", "regression/concrete", 200, 50, 0.001, standardize=True),
    Row("fertility-500", "uci/fertility", 500, 50, 0.01),
    # Below 0.05 this one fits its noise, with hundreds of neurons.
    Row("planted-400", "planted", 400, 30, 0.05, capacity=128),
    Row("wide-100", "wide", 100, 50, 0.01),
    Row("breast-cancer-100-gated", "uci/breast-cancer-wisc-diag", 100, 50, 0.01, gated=True),
    Row("spambase-100-gated", "uci/spambase", 100, 30, 0.02, gated=True),
    # For an accelerator; ask for it by name.
    Row("spambase-512", "uci/spambase", 512, 64, 0.02, default=False, capacity=128),
    # Small enough to try the machinery with.
    Row("small-20", "uci/fertility", 20, 10, 0.02, default=False),
    Row("small-20-gated", "uci/fertility", 20, 10, 0.02, gated=True, default=False),
)


def select(names: list[str] | None) -> list[Row]:
    """The rows of these names, or the default suite.

    Raises:
        ValueError: a name is not in the suite; the message lists those that are.
    """
    if not names:
        return [row for row in SUITE if row.default]
    known = {row.name: row for row in SUITE}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def load(row: Row, data_dir: Path) -> tuple[Floats, Floats]:
    """Features (n, d) and target (n,) of a row, float64.

    Raises:
        FileNotFoundError: the data file is not in the folder.
    """
    if row.data in _GENERATORS:
        return _GENERATORS[row.data]()
    path = data_dir / f"{row.data}.csv.gz"
    if not path.exists():
        raise FileNotFoundError(f"{row.name} needs {row.data}.csv.gz in the folder given as --data")
    table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float64)
    X, y = table[:, :-1], table[:, -1]
    if row.standardize:
        X = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(len(X))])
        y = (y - y.mean()) / y.std()
    return np.ascontiguousarray(X), np.ascontiguousarray(y)


def planted(n: int = 2000, d: int = 50) -> tuple[Floats, Floats]:
    """A network with ten neurons and noise on Gaussian data, a target of unit mean square."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    hidden = rng.standard_normal((d, 10)) / np.sqrt(d)
    fit = np.maximum(X @ hidden, 0) @ rng.choice([-1.0, 1.0], 10)
    y = fit + 0.3 * fit.std() * rng.standard_normal(n)
    return X, y / np.sqrt(np.mean(y**2))


def _wide() -> tuple[Floats, Floats]:
    """More features than samples: n = 100, d = 500 with a ones column, labels of a network."""
    rng = np.random.default_rng(1)
    X = np.column_stack([rng.standard_normal((100, 499)), np.ones(100)])
    fit = np.maximum(X @ rng.standard_normal((500, 4)), 0) @ np.array([1.0, 1.0, -1.0, -1.0])
    return X, np.where(fit >= np.median(fit), 1.0, -1.0)


_GENERATORS: dict[str, Callable[[], tuple[Floats, Floats]]] = {"planted": planted, "wide": _wide}
