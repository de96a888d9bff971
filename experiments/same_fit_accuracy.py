"""What test accuracy can be with the optimal fit, when the penalty may rise.

    python experiments/same_fit_accuracy.py --data DIR --out DIR [--quick]

The companion of `optimal_accuracy.py`, with its sets, splits and gates. A solver of limited
accuracy leaves small weights in blocks that are zero at the optimum, and a search over "the active
neurons" that holds the training fit alone then moves among networks that are not optimal. Here
every block may be used, along its correlation q_b, and coefficients a >= 0 with the optimal fit are
chosen by minimum norm, by the validation error and by the test error; `excess` is how far their
penalty is above the optimal one, relative.

Writes same_fit_accuracy.csv, same_fit_accuracy.md and a figure.
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Row, Table, arguments, at_end_of_path, parser, sampled, split, uci
from optimal_accuracy import GATES, LAM, SETS
from scipy.optimize import nnls

import jaxrelu as jr

# How much more an error of the fit weighs than an error of the criterion.
_HELD = 1e4


def one(data: Path, name: str, gates: int) -> list[Row]:
    """Accuracy and excess penalty of three choices, for the first split of a set."""
    X, y = uci(data, name)
    rest, test = split(len(y), 0.8, 650)
    keep, held = split(len(rest), 0.25, 0)
    train, valid = rest[keep], rest[held]
    program = jr.ConvexProgram(X[train], y[train], sampled(X[train], gates, 123))
    solution = at_end_of_path(program, LAM * len(train))
    q = np.asarray(jr.block_correlations(program, solution.residual)).reshape(-1, X.shape[1])
    size = np.linalg.norm(q, axis=1)
    signs = np.repeat([1.0, -1.0], len(q) // 2)[size > 1e-6]
    u = np.unique(
        np.column_stack([q[size > 1e-6] / size[size > 1e-6, None], signs]).round(9), axis=0
    )
    u, signs = u[:, :-1], u[:, -1]

    def features(rows: Floats) -> Floats:
        found: Floats = signs * np.maximum(rows @ u.T, 0.0)
        return found

    best = float(jnp.sum(jnp.linalg.norm(solution.weights, axis=-1)))
    fit, there = np.asarray(solution.fit), features(X[test])
    criteria = {
        "min_l2_norm": (np.eye(len(u)), np.zeros(len(u))),
        "valid_mse": (features(X[valid]), y[valid]),
        "test_mse": (there, y[test]),
    }
    rows = []
    for method, (matrix, target) in criteria.items():
        a, _ = nnls(np.vstack([_HELD * features(X[train]), matrix]), np.append(_HELD * fit, target))
        right = float(np.mean(np.sign(there @ a) == y[test]))
        rows.append({"dataset": name, "method": method, "accuracy": right,
                     "excess": float(np.sum(a)) / best - 1.0})  # fmt: skip
    return rows


def draw(table: Table, out: Path) -> None:
    """The accuracies of the three choices, and how far their penalty is above the optimal one."""
    names = list(dict.fromkeys(row["dataset"] for row in table.rows))
    figure, panels = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    for method in dict.fromkeys(row["method"] for row in table.rows):
        panels[0].plot(names, table.column("accuracy", method=method), "o", label=method)
        panels[1].plot(names, 100 * table.column("excess", method=method), "o")
    panels[0].set_ylabel("test accuracy")
    panels[1].set_ylabel("excess of the penalty [%]")
    panels[1].tick_params(axis="x", labelrotation=60)
    panels[0].legend(fontsize=8)
    figure.savefig(out / "same_fit_accuracy.png", dpi=130)


def main() -> None:
    """Runs what is missing and writes the table."""
    args = arguments(parser(__doc__))
    sets, gates = (("fertility",), 50) if args.quick else (SETS, GATES)
    table = Table(args.out / "same_fit_accuracy.csv", ("dataset",))
    for (name,) in table.missing([(name,) for name in sets], "same fit"):
        table.add(one(args.data, name, gates))
    lines = [
        "| set | min_l2_norm | valid_mse | test_mse | range | largest excess |",
        "|---" * 6 + "|",
    ]
    for name in dict.fromkeys(row["dataset"] for row in table.rows):
        found = table.column("accuracy", dataset=name)
        excess = table.column("excess", dataset=name).max()
        cells = " | ".join(f"{value:.2f}" for value in (*found, found.max() - found.min()))
        lines.append(f"| {name} | {cells} | {100 * excess:.0f} % |")
    (args.out / "same_fit_accuracy.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(table, args.out)


if __name__ == "__main__":
    main()
