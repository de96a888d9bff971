"""Paths of every loss on real data, beside the squared loss on the same features.

    python experiments/benchmarks/losses.py --data DIR --out DIR [--repeats 5] [--losses NAME ...]

100 gates, 20 lams to 0.01 lambda_max; rtol 1e-6 in float64, 1e-3 in float32. Seconds are medians
after the first call, the two losses in turns; OPTIMAL are lams in float64 and in float32. Writes
`losses.md`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from report import markdown
from run import hardware

import jaxrelu as jr

GATES, LAMS, RATIO = 100, 20, 1e-2
LABELLED = ("uci/breast-cancer-wisc-diag", "uci/ionosphere", "uci/blood")
REAL = ("regression/boston-housing", "regression/concrete", "regression/yacht")
AT_KINKS = ("uci/pima", "uci/blood", "uci/fertility")
ROWS = {
    "huber": REAL,
    "logistic": LABELLED,
    "squared hinge": LABELLED,
    "poisson": REAL,
    "hinge": AT_KINKS,
    "absolute": REAL,
    "quantile": REAL,
}


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/ and regression/")
    parser.add_argument("--out", type=Path, required=True, help="folder for losses.md")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls after the first")
    parser.add_argument("--losses", nargs="+", choices=list(ROWS), help="all without")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    args.out.mkdir(parents=True, exist_ok=True)
    header = [
        "loss",
        "set",
        "n x d",
        "s (steps)",
        "squared, s (steps)",
        "ratio",
        "OPTIMAL, float32",
    ]
    lines = []
    for name in args.losses or ROWS:
        for table in ROWS[name]:
            lines.append(line(name, table, args.data, args.repeats))
            print(" | ".join(lines[-1]), flush=True)
            jax.clear_caches()
    when = f"{hardware()}, {time.strftime('%Y-%m-%d')}, medians of {args.repeats}"
    text = "\n".join([when, "", *markdown(header, lines), ""])
    (args.out / "losses.md").write_text(text, encoding="utf-8")


def line(name: str, table: str, data: Path, repeats: int) -> list[str]:
    """One loss on one set."""
    X, raw = read(data / f"{table}.csv.gz")
    y, loss = posed(name, raw)
    patterns = jr.sample_patterns(jax.random.key(0), X, GATES)
    # What the squared loss takes for the same target.
    other = y if name != "poisson" else (y - y.mean()) / y.std()
    programs = [
        jr.ConvexProgram(X, y, patterns, loss),
        jr.ConvexProgram(X, other, patterns, jr.SquaredLoss()),
    ]
    (seconds, steps, optimal), (usual, usual_steps, _) = in_turns(programs, repeats)
    single = jax.tree.map(in_single, programs[0])
    path = jr.solve_path(single, lams_of(single), rtol=1e-3)
    return [
        name, Path(table).name, f"{X.shape[0]} x {X.shape[1]}", f"{seconds:.2f} ({steps})",
        f"{usual:.2f} ({usual_steps})", f"{seconds / usual:.2f}",
        f"{optimal}, {optimal_of(path)} of {LAMS}",
    ]  # fmt: skip


def read(path: Path) -> tuple[Any, Any]:
    """Standardised features with a column of ones, and the raw target."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    X = rows[:, :-1]
    X = X[:, X.std(0) > 0]
    X = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(len(X))])
    return np.ascontiguousarray(X), rows[:, -1]


def posed(name: str, y: Any) -> tuple[Any, Any]:
    """The target that a loss takes, and the loss."""
    if name == "poisson":
        counts = np.round(y)
        return counts, jr.PoissonLoss(np.asarray(np.log(counts.mean())))
    if name in ("huber", "absolute", "quantile"):
        real = {
            "huber": jr.HuberLoss(np.asarray(1.0)),
            "absolute": jr.AbsoluteLoss(),
            "quantile": jr.QuantileLoss(np.asarray(0.2)),
        }
        return (y - y.mean()) / y.std(), real[name]
    labelled = {
        "logistic": jr.LogisticLoss(),
        "squared hinge": jr.SquaredHingeLoss(),
        "hinge": jr.HingeLoss(),
    }
    return y, labelled[name]


def in_turns(programs: list[Any], repeats: int) -> list[tuple[float, int, int]]:
    """Of each program: the median of seconds after the first path, Newton steps, lams OPTIMAL."""
    lams = [lams_of(program) for program in programs]
    seconds: list[list[float]] = [[] for _ in programs]
    paths: list[Any] = [None] * len(programs)
    for _ in range(repeats + 1):
        for k, program in enumerate(programs):
            start = time.perf_counter()
            paths[k] = jax.block_until_ready(jr.solve_path(program, lams[k]))
            seconds[k].append(time.perf_counter() - start)
    return [
        (statistics.median(taken[1:]), int(np.sum(path.num_steps)), optimal_of(path))
        for taken, path in zip(seconds, paths, strict=True)
    ]


def lams_of(program: Any) -> Any:
    """The grid of a program."""
    return jr.lambda_grid(program, num=LAMS, ratio=RATIO)


def optimal_of(path: Any) -> int:
    """How many lams are OPTIMAL."""
    return int(np.sum(np.asarray(path.status) == jr.Status.OPTIMAL))


def in_single(leaf: Any) -> Any:
    """A leaf of a program in float32."""
    array = np.asarray(leaf)
    return array.astype(np.float32) if array.dtype == np.float64 else array


if __name__ == "__main__":
    main()
