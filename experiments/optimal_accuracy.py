"""Table 2: how much the test accuracy differs between optimal networks of one program.

    python experiments/optimal_accuracy.py --data DIR --out DIR [--quick]

17 UCI sets, five splits (15 % training, 5 % validation, 80 % test), 500 gates, lam = 0.001 n in the
scale of jaxrelu. All optimal networks have one training fit. Of them are taken: that of minimum
norm, that with the largest sum of coefficients relative to a given optimal network, those with the
least squared error on the validation rows and on the test rows (which looks at the test labels: an
oracle, and no method). `range` is the largest difference between the four.

Writes optimal_accuracy.csv, optimal_accuracy.md (beside the published medians) and a figure.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import (
    Floats,
    Row,
    Table,
    accuracy,
    arguments,
    at_end_of_path,
    parser,
    sampled,
    split,
    uci,
)

import jaxrelu as jr

SETS = (
    "fertility", "hepatitis", "monks-1", "planning", "spectf", "heart-hungarian", "horse-colic",
    "parkinsons", "breast-cancer", "statlog-heart", "ionosphere", "ilpd-indian-liver", "blood",
    "mammographic", "hill-valley", "pima", "tic-tac-toe",
)  # fmt: skip
METHODS = ("min_l2_norm", "max_l1_norm", "valid_mse", "test_mse")
REPEATS, GATES, LAM = 5, 500, 0.001


def one(data: Path, name: str, repeat: int, gates: int) -> list[Row]:
    """The accuracies of the four choices for one split of one set."""
    start = time.perf_counter()
    X, y = uci(data, name)
    rest, test = split(len(y), 0.8, 650 + repeat)
    keep, held = split(len(rest), 0.25, repeat)
    train, valid = rest[keep], rest[held]
    program = jr.ConvexProgram(X[train], y[train], sampled(X[train], gates, 123 + repeat))
    solution = at_end_of_path(program, LAM * len(train))
    optima = jr.optimal_set(program, solution, max_nodes=0)
    chosen = {
        "min_l2_norm": jr.select(optima, "min_norm"),
        "max_l1_norm": jr.select(optima, _relative_sum(optima)),
        "valid_mse": jr.select(optima, _error(optima, X[valid], y[valid])),
        "test_mse": jr.select(optima, _error(optima, X[test], y[test])),
    }
    found = {
        method: accuracy(jr.network_from_coefficients(optima, a), X[test], y[test])
        for method, a in chosen.items()
    }
    found["range"] = max(found.values()) - min(found.values())
    facts = {
        "dataset": name, "repeat": repeat, "n": len(train), "directions": optima.signs.size,
        "support": int(jnp.sum(optima.support)), "rank": optima.rank,
        "dimension": optima.dimension, "ambiguous": optima.ambiguous,
        "gap": float(solution.certificate.gap / solution.certificate.upper),
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    return [facts | {"method": method, "accuracy": value} for method, value in found.items()]


def _error(optima: jr.OptimalSet, X: Floats, y: Floats) -> Any:
    there = optima.signs * jnp.maximum(X @ optima.directions.T, 0.0)
    return lambda a: jnp.mean((there @ a - y) ** 2)


def _relative_sum(optima: jr.OptimalSet) -> Any:
    inside = jnp.where(optima.support, optima.interior, 1.0)
    return lambda a: -jnp.sum(jnp.where(optima.support, a / inside, 0.0))


def report(table: Table, published: Path, out: Path) -> None:
    """The markdown table and the figure: medians, quartiles, published medians."""
    theirs: dict[tuple[str, str], float] = {}
    if published.exists():
        with published.open(newline="") as file:
            theirs = {(r["dataset"], r["method"]): float(r["median"]) for r in csv.DictReader(file)}
    names = list(dict.fromkeys(row["dataset"] for row in table.rows))
    columns = (*METHODS, "range")
    lines = ["| set | dimension | " + " | ".join(columns) + " |", "|---" * 7 + "|"]
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for place, name in enumerate(names):
        cells = []
        for method in columns:
            values = table.column("accuracy", dataset=name, method=method)
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            known = theirs.get((name, method))
            cells.append(f"{middle:.2f}" + ("" if known is None else f" ({known:.2f})"))
            if method != "range":
                shift = place + 0.18 * (METHODS.index(method) - 1.5)
                bar = [[middle - low], [high - middle]]
                color = f"C{METHODS.index(method)}"
                axes.errorbar(shift, middle, bar, fmt="o", ms=4, color=color,
                              label=method if place == 0 else None)  # fmt: skip
                if known is not None:
                    axes.plot(shift, known, "x", ms=5, color=color)
        sizes = table.column("dimension", dataset=name, method="range")
        lines.append(f"| {name} | {np.median(sizes):.0f} | " + " | ".join(cells) + " |")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("test accuracy (crosses: published medians)")
    axes.legend(fontsize=8, ncols=4)
    figure.savefig(out / "optimal_accuracy.png", dpi=150)
    (out / "optimal_accuracy.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Runs what is missing and reports."""
    args = arguments(parser(__doc__))
    sets, repeats, gates = (("fertility",), 1, 50) if args.quick else (SETS, REPEATS, GATES)
    table = Table(args.out / "optimal_accuracy.csv", ("dataset", "repeat"))
    wanted = [(name, repeat) for name in sets for repeat in range(repeats)]
    for name, repeat in table.missing(wanted, "Table 2"):
        table.add(one(args.data, name, repeat, gates))
    report(table, args.data / "published" / "table_2.csv", args.out)


if __name__ == "__main__":
    main()
