"""What the experiments share: arguments, data, splits and gates of the paper, resumable tables."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

import jaxrelu as jr

matplotlib.use("Agg")
jax.config.update("jax_enable_x64", True)

Floats = NDArray[np.float64]
Row = dict[str, Any]

# Compiled code takes memory mappings, of which a process may have 65,530 on Linux.
_MOST_MAPPINGS = 40_000


def parser(description: str | None, *, data: bool = True) -> argparse.ArgumentParser:
    """--data (needed unless an experiment reads none), --out and --quick."""
    found = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    text = "folder with uci/ and images/" if data else "not read here; run_all passes it to all"
    found.add_argument("--data", type=Path, required=data, help=text)
    found.add_argument("--out", type=Path, required=True, help="folder for CSVs and figures")
    text = "a small version, in about a minute, into a folder of that name"
    found.add_argument("--quick", action="store_true", help=text)
    return found


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, once the folder for the output is there; quick versions have their own."""
    args = parser.parse_args()
    if args.quick:
        args.out = args.out / "quick"  # or a whole run would take their rows for its own
    args.out.mkdir(parents=True, exist_ok=True)
    return args


class Table:
    """Rows in a CSV file; those of an earlier, interrupted run are kept and skipped."""

    def __init__(self, path: Path, keys: tuple[str, ...]) -> None:
        """Opens `path`; rows with equal values under `keys` are the same row."""
        self.path, self.keys = path, keys
        self.rows: list[Row] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def missing(self, wanted: Iterable[tuple[Any, ...]], label: str) -> Iterator[tuple[Any, ...]]:
        """The keys without a row yet, with a progress bar."""
        have = {tuple(row[key] for key in self.keys) for row in self.rows}
        todo = [key for key in wanted if tuple(map(str, key)) not in have]
        for key in track(todo, label):
            yield key
            _drop_compiled()

    def add(self, rows: list[Row]) -> None:
        """Writes rows at the end of the file."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if new:
                writer.writeheader()
            writer.writerows(rows)
        self.rows += [{name: str(value) for name, value in row.items()} for row in rows]

    def column(self, name: str, **where: Any) -> Floats:
        """The numbers of a column in the rows where others have given values."""
        rows = [r for r in self.rows if all(r[k] == str(v) for k, v in where.items())]
        return np.array([float(row[name]) for row in rows])


def _drop_compiled() -> None:
    """Drops what has been compiled when it has become too much: every set has shapes of its own."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        jax.clear_caches()


def uci(data: Path, name: str, most: int | None = None) -> tuple[Floats, Floats]:
    """Features (n, d) and labels -1/+1 (n,) of a UCI set, or of so many random rows of it."""
    table = np.loadtxt(data / "uci" / f"{name}.csv.gz", delimiter=",", skiprows=1)
    if most is not None:
        table = table[np.random.default_rng(0).permutation(len(table))[:most]]
    return np.ascontiguousarray(table[:, :-1]), table[:, -1]


def split(n: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that stay and a share that goes, as in the published scripts."""
    order = np.arange(n)
    np.random.default_rng(seed).shuffle(order)
    size = int(np.floor(share * n))
    return order[size:], order[:size]


def sampled(X: Floats, number: int, seed: int) -> jr.Patterns:
    """Patterns of normal gates, as in the published scripts, filled up to `number` by repetition.

    Equal shapes compile once; a pattern that appears twice changes no optimum.
    """
    gates = np.random.default_rng(seed).standard_normal((X.shape[1], number))
    found = jr.patterns_from_gates(X, gates)
    place = np.arange(number) % found.num_patterns
    return jax.tree.map(lambda x: np.asarray(x)[:, place], found)


def end_of_path(program: jr.ConvexProgram, lam: float) -> jr.Solution:
    """The answer at a small lam, reached along a path: supports of any size, from warm starts."""
    top = float(jr.lambda_max(program))
    lams = np.geomspace(top, lam, 1 + int(np.ceil(np.log2(max(top / lam, 2.0)))))
    return jr.solve_path(program, lams)[-1]


def at_end_of_path(program: jr.ConvexProgram, lam: float) -> jr.Solution:
    """That of `end_of_path`.

    Raises:
        RuntimeError: it is not OPTIMAL.
    """
    solution = end_of_path(program, lam)
    jr.raise_if_failed(solution)
    return solution


def accuracy(network: Any, X: Floats, y: Floats) -> float:
    """Share of labels whose sign the network has."""
    return float(np.mean(np.sign(np.asarray(network(X))) == y))
