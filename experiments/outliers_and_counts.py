"""Outliers and counts: the Huber and the Poisson loss beside the squared one.

    python experiments/outliers_and_counts.py --data DIR --out DIR [--quick]

On three regression sets a tenth of the training targets is moved by ten standard deviations, to
either side; the test targets stay. Paths of the squared loss and of a Huber loss whose delta is
1.345 times the median absolute deviation are scored by R^2 on the test rows. On three sets of
counts, paths of the Poisson loss and of the squared loss (whose fit is cut off at a tenth of the
mean) are scored by D^2, the share of the deviance that is explained. Everything certified.

Writes outliers_and_counts.csv (a row a lam), .md (the best of each path) and a figure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Row, Table, arguments, parser, sampled, split

import jaxrelu as jr
from jaxrelu.datasets import score, standardize

REAL, COUNTS = ("boston-housing", "concrete", "airfoil"), ("boston-housing", "concrete", "yacht")
GATES, LAMS, SEEDS, RATIO = 100, 20, 3, 1e-2


def read(data: Path, name: str, most: int) -> tuple[Floats, Floats]:
    """Features and target of a regression set, or of so many random rows of it."""
    table = np.loadtxt(data / "regression" / f"{name}.csv.gz", delimiter=",", skiprows=1)
    table = table[np.random.default_rng(0).permutation(len(table))[:most]]
    return table[:, :-1], table[:, -1]


def with_ones(*parts: Floats) -> tuple[Floats, ...]:
    """Standardised by the first part, with a column of ones."""
    return tuple(np.column_stack([part, np.ones(len(part))]) for part in standardize(*parts))


def along(X: Floats, y: Floats, there: Floats, loss: Any, size: int, seed: int) -> Floats:
    """Outputs (L, m) at other rows of the networks of a path."""
    gates, lams = (10, 4) if size == 0 else (GATES, LAMS)
    program = jr.ConvexProgram(X, y, sampled(X, gates, seed), loss)
    path = jr.solve_path(program, jr.lambda_grid(program, num=lams, ratio=RATIO))
    if not np.all(np.asarray(path.status) == jr.Status.OPTIMAL):
        raise RuntimeError("a lam is not OPTIMAL")
    networks = (jr.to_network(program, path[k]) for k in range(len(path)))
    return np.stack([np.asarray(network(there)) for network in networks])


def outliers(X: Floats, y: Floats, seed: int, size: int) -> dict[tuple[str, str], Floats]:
    """R^2 on clean test rows, by what was done to the training targets and the loss."""
    train, test = split(len(y), 0.2, seed)
    A, B = with_ones(X[train], X[test])
    rng = np.random.default_rng(seed)
    moved = rng.random(len(train)) < 0.1
    noise = 10 * y[train].std() * rng.choice([-1.0, 1.0], len(train))
    found = {}
    for what, target in (("clean", y[train]), ("outliers", y[train] + moved * noise)):
        center = np.median(target)
        scale = 1.4826 * np.median(np.abs(target - center))
        losses = {"squared": jr.SquaredLoss(), "huber": jr.HuberLoss(np.asarray(1.345))}
        for name, loss in losses.items():
            f = center + scale * along(A, (target - center) / scale, B, loss, size, seed)
            found[what, name] = np.asarray([score(row, y[test], "regression") for row in f])
    return found


def counts(X: Floats, y: Floats, seed: int, size: int) -> dict[tuple[str, str], Floats]:
    """D^2 on test rows."""
    train, test = split(len(y), 0.2, seed)
    A, B = with_ones(X[train], X[test])
    mean = y[train].mean()
    log_rate = np.log(mean) + along(
        A, y[train], B, jr.PoissonLoss(np.asarray(np.log(mean))), size, seed
    )
    rate = mean + along(A, y[train] - mean, B, jr.SquaredLoss(), size, seed)
    squared = np.log(np.maximum(rate, 0.1 * mean))
    return {
        ("counts", name): np.asarray([score(row, y[test], "counts") for row in logs])
        for name, logs in (("poisson", log_rate), ("squared", squared))
    }


def one(data: Path, kind: str, name: str, seed: int, size: int) -> list[Row]:
    """The rows of one set and split."""
    X, y = read(data, name, size or 60)
    y = np.maximum(np.round(y), 0.0) if kind == "counts" else y
    found = (counts if kind == "counts" else outliers)(X, y, seed, size)
    return [
        {"kind": kind, "dataset": name, "seed": seed, "targets": what, "loss": loss,
         "share": float(share), "score": float(value)}
        for (what, loss), values in found.items()
        for share, value in zip(np.geomspace(1, RATIO, len(values)), values, strict=True)
    ]  # fmt: skip


def median_path(table: Table, **where: Any) -> tuple[Floats, Floats]:
    """Shares of lambda_max and the median scores over the splits."""
    share, value = table.column("share", **where), table.column("score", **where)
    at = np.unique(share)[::-1]
    return at, np.asarray([np.median(value[share == s]) for s in at])


def summary(table: Table) -> list[str]:
    """The best median score of each path."""
    lines = ["| set | targets | loss | best score | at lam / lambda_max |", "|---" * 5 + "|"]
    seen = dict.fromkeys(
        (row["kind"], row["dataset"], row["targets"], row["loss"]) for row in table.rows
    )
    for kind, name, what, loss in seen:
        share, value = median_path(table, kind=kind, dataset=name, targets=what, loss=loss)
        k = int(np.argmax(value))
        lines.append(f"| {name} | {what} | {loss} | {value[k]:.3f} | {share[k]:.3g} |")
    return lines


def draw(table: Table, out: Path) -> None:
    """Scores along the paths: outliers above, counts below."""
    figure, panels = plt.subplots(2, 3, figsize=(9.5, 5.4), sharex=True, layout="constrained")
    colors = {"squared": "0.45", "huber": "C0", "poisson": "C1"}
    for panel_row, kind in zip(panels, ("outliers", "counts"), strict=True):
        names = list(dict.fromkeys(r["dataset"] for r in table.rows if r["kind"] == kind))
        for panel, name in zip(panel_row, names, strict=False):
            rows = [r for r in table.rows if r["kind"] == kind and r["dataset"] == name]
            for what, loss in dict.fromkeys((r["targets"], r["loss"]) for r in rows):
                at = median_path(table, kind=kind, dataset=name, targets=what, loss=loss)
                style = ":" if what == "clean" else "-"
                label = f"{loss}, {what}" if kind == "outliers" else loss
                panel.semilogx(*at, style, color=colors[loss], label=label)
            panel.set_title(name, fontsize=10)
            panel.set_ylim(-0.05, 1.0)
        panel_row[0].set_ylabel(
            "R² on clean test rows" if kind == "outliers" else "D² on test rows"
        )
        panel_row[-1].legend(fontsize=8, loc="lower center")
    for panel in panels[1]:
        panel.set_xlabel("lam / lambda_max")
        panel.invert_xaxis()
    figure.savefig(out / "outliers_and_counts.png", dpi=130)


def main() -> None:
    """Runs what is missing and writes table and figure."""
    args = arguments(parser(__doc__))
    size, seeds = (0, 1) if args.quick else (1500, SEEDS)
    jobs = [("outliers", name) for name in REAL] + [("counts", name) for name in COUNTS]
    keys = [(kind, name, seed) for kind, name in jobs for seed in range(seeds)]
    table = Table(args.out / "outliers_and_counts.csv", ("kind", "dataset", "seed"))
    for kind, name, seed in table.missing(keys, "paths"):
        table.add(one(args.data, kind, name, seed, size))
    lines = summary(table)
    (args.out / "outliers_and_counts.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(table, args.out)


if __name__ == "__main__":
    main()
