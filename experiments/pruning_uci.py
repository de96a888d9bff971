"""Pruning optimal networks of UCI sets: rules of the literature, plain and corrected.

    python experiments/pruning_uci.py --data DIR --out DIR [--quick]

Ten UCI sets, half of the rows for training, 25 gates, lam = 0.01 n in the scale of jaxrelu, five
splits. An optimal network is pruned neuron by neuron; the plain rules drop their victim, corrected
least squares makes up for it. Until the network is minimal nothing is lost by either.

Writes pruning_uci.csv (accuracy and loss at every width) and a figure of the medians.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import Row, Table, accuracy, arguments, at_end_of_path, parser, sampled, split, uci

import jaxrelu as jr

SETS = (
    "fertility", "heart-hungarian", "mammographic", "monks-1", "planning", "spectf", "blood",
    "breast-cancer", "parkinsons", "ilpd-indian-liver",
)  # fmt: skip
RULES = (
    ("residual", True, "least squares, corrected"),
    ("weight", False, "neuron norm"),
    ("gradient", False, "gradient"),
    ("random", False, "random"),
)
REPEATS, GATES, LAM = 5, 25, 0.01


def one(data: Path, name: str, repeat: int) -> list[Row]:
    """Accuracy and loss at every width, for every rule, of one split of one set."""
    X, y = uci(data, name)
    train, test = split(len(y), 0.5, 650 + repeat)
    program = jr.ConvexProgram(X[train], y[train], sampled(X[train], GATES, 123 + repeat))
    solution = at_end_of_path(program, LAM * len(train))
    start = jr.to_network(program, solution.weights).compact()
    rows = []
    for rule, corrected, label in RULES:
        network = start
        for to in range(start.num_neurons, 0, -1):
            network = jr.prune(
                network, X[train], y[train], to=to, rule=rule, corrected=corrected, refit=False,
                seed=repeat,
            ).network  # fmt: skip
            fit = np.asarray(network(X[train]))
            rows.append(
                {
                    "dataset": name, "repeat": repeat, "rule": label, "neurons": to,
                    "loss": float(np.mean((fit - y[train]) ** 2) / 2),
                    "train_accuracy": accuracy(network, X[train], y[train]),
                    "test_accuracy": accuracy(network, X[test], y[test]),
                }
            )  # fmt: skip
    return rows


def draw(table: Table, out: Path) -> None:
    """Median test accuracy against the number of neurons."""
    names = list(dict.fromkeys(row["dataset"] for row in table.rows))
    across = min(5, len(names))
    down = -(-len(names) // across)
    figure, panels = plt.subplots(down, across, figsize=(2.4 * across, 2.2 * down),
                                  layout="constrained", squeeze=False)  # fmt: skip
    for panel, name in zip(panels.flat, names, strict=False):
        for _, _, label in RULES:
            own = {"dataset": name, "rule": label}
            widths = np.unique(table.column("neurons", **own)).astype(int)
            middle = [np.median(table.column("test_accuracy", **own, neurons=m)) for m in widths]
            panel.plot(widths, middle, label=label, lw=1.5)
        panel.invert_xaxis()
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    panels[0, 0].legend(fontsize=6)
    figure.supxlabel("neurons", fontsize=9)
    figure.supylabel("test accuracy", fontsize=9)
    figure.savefig(out / "pruning_uci.png", dpi=150)


def main() -> None:
    """Runs what is missing, and draws."""
    args = arguments(parser(__doc__))
    sets, repeats = (("fertility",), 1) if args.quick else (SETS, REPEATS)
    table = Table(args.out / "pruning_uci.csv", ("dataset", "repeat"))
    wanted = [(name, repeat) for name in sets for repeat in range(repeats)]
    for name, repeat in table.missing(wanted, "pruning"):
        table.add(one(args.data, name, repeat))
    draw(table, args.out)


if __name__ == "__main__":
    main()
