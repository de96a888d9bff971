r"""Where Adam and stochastic gradient descent end, and what convex optimisation makes of it.

    python experiments/training_gap.py --data DIR --out DIR [--quick]

Several seeds, two widths, Adam on all samples and SGD on small batches, both with a step size that
decays to zero, on the squared loss with weight decay. For each network at the end: its residual of
stationarity (neurons of relevant size) and its objective; for the first seeds also that of
`jr.improve` (the best network over its own cells) and of `jr.refine` started from its cells, all
relative to the lowest objective met on the set. A longer `jr.refine`, from the cells of a wide
network of Adam, gives the certified lower bound of the global optimum: where it is near, the gaps
are those to the optimum, elsewhere those to the best network known.

Writes training_gap.csv (a row a network), training_gap.md (medians) and a figure.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import Floats, Row, Table, arguments, parser, uci
from descent_runs import Weights, balanced, follow, network, objective, sizes
from jax import Array

import jaxrelu as jr

SEEDS, POLISHED, WIDTHS, STEPS, BATCH, SHARE = 8, 2, (10, 50), 20_000, 16, 0.05
RATES = {"adam": 0.01, "sgd": 1e-3}
# Relative residual below which a neuron counts as stationary; sizes above which neurons count.
STATIONARY, RELEVANT, WALL = 0.01, 1e-3, 1e-3
CONVEX = "none"
STAGES = ("trained", "improved", "refined")


def teacher() -> tuple[Floats, Floats]:
    """Forty normal samples in three dimensions, values of four random neurons and noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    values = np.maximum(X @ rng.standard_normal((3, 4)), 0.0) @ [1.0, -1.0, 1.0, -1.0]
    return X, values + 0.1 * rng.standard_normal(40)


def train(
    X: Floats, y: Floats, lam: float, kind: str, width: int, seeds: int, steps: int
) -> Weights:
    """The final networks of all seeds."""
    n = len(y)

    def gradient(weights: Weights, key: Array) -> Weights:
        if kind == "adam":
            return jax.grad(objective)(weights, X, y, lam)
        rows = jax.random.choice(key, n, (min(BATCH, n),), replace=False)
        here = lam * len(rows) / n
        found = jax.grad(objective)(weights, jnp.asarray(X)[rows], jnp.asarray(y)[rows], here)
        return jax.tree.map(lambda g: g * n / len(rows), found)

    rate = optax.cosine_decay_schedule(RATES[kind], steps)
    optimizer = optax.adam(rate) if kind == "adam" else optax.sgd(rate)
    start = balanced(seeds, X.shape[1], width, 0.5)
    runs = follow(gradient, optimizer, start, jnp.asarray([steps]))
    return jax.tree.map(lambda leaf: leaf[:, -1], runs)


def residuals(one: jr.Network, X: Floats, y: Floats, lam: float) -> tuple[float, float]:
    """The largest Clarke and directional residuals of neurons of relevant size."""
    size = sizes(one)
    kept = size > RELEVANT * np.max(size)
    rest = jr.Network(one.hidden[:, kept], one.output[kept])
    left = np.asarray(y - one(X) + rest(X))  # so that the residual of the fit stays the same
    found = jr.stationarity(rest, X, left, lam, wall_tolerance=WALL)
    return float(jnp.max(found.clarke)), float(jnp.max(found.directional))


def refined(program: Any, lam: float, seconds: float) -> Row:
    """The certified bounds of `refine`."""
    begin = time.perf_counter()
    found = jr.refine(program, lam, rtol=1e-4, max_seconds=seconds)
    return {
        "refined": float(found.certificate.upper), "lower": float(found.certificate.lower),
        "refined_status": found.status.name, "refine_seconds": time.perf_counter() - begin,
    }  # fmt: skip


def measured(
    one: jr.Network, X: Floats, y: Floats, lam: float, polish: bool, seconds: float
) -> Row:
    """Residuals and objective at the end of training, and after `improve` and `refine`."""
    clarke, directional = residuals(one, X, y, lam)
    before = float(jr.nonconvex_objective(one, X, y, lam))
    found: Row = {"clarke": clarke, "directional": directional, "trained": before}
    if not polish:
        return found
    begin = time.perf_counter()
    better = jr.improve(one, X, y, lam)
    spent = time.perf_counter() - begin
    program, _ = jr.from_network(one, X, y)
    return found | refined(program, lam, seconds) | {
        "improved": float(better.objective), "improved_status": jr.Status(int(better.status)).name,
        "improve_seconds": spent, "cells": program.patterns.num_patterns,
    }  # fmt: skip


def runs(name: str, width: int, kind: str, args: Namespace) -> list[Row]:
    """The rows of one data set, width and optimiser; width 0 is the long `refine`."""
    X, y = teacher() if name == "teacher" else uci(args.data, name)
    lam = SHARE * len(y)
    columns = ("data", "width", "optimizer", "seed", "lam", "clarke", "directional", "cells",
               "trained", "improved", "refined", "lower", "improved_status", "refined_status",
               "improve_seconds", "refine_seconds")  # fmt: skip
    empty: Row = dict.fromkeys(columns, np.nan)
    empty |= {"data": name, "width": width, "optimizer": kind, "lam": lam}
    seeds, steps = (1, 500) if args.quick else (SEEDS, STEPS)
    if kind == CONVEX:
        one = network(train(X, y, lam, "adam", WIDTHS[-1], 1, steps), 0)
        return [empty | refined(jr.from_network(one, X, y)[0], lam, 60.0)]
    ends = train(X, y, lam, kind, width, seeds, steps)
    return [
        empty | {"seed": k} | measured(network(ends, k), X, y, lam, k < POLISHED, 6.0)
        for k in range(len(ends[1]))
    ]


def bounds(table: Table, name: str) -> tuple[float, float]:
    """The lowest objective met on a set, and the highest certified lower bound."""
    met = [np.nanmin(table.column(stage, data=name)) for stage in STAGES[1:]]
    return float(min(met)), float(np.nanmax(table.column("lower", data=name)))


def summary(table: Table, name: str, best: float, lower: float) -> list[str]:
    """Lines of the table of medians: one a width and optimiser."""
    lines = []
    for width, kind in dict.fromkeys((r["width"], r["optimizer"]) for r in table.rows):
        where = {"data": name, "width": width, "optimizer": kind}
        clarke = table.column("clarke", **where)
        if not len(clarke) or kind == CONVEX:
            continue
        gaps = [table.column(stage, **where) / best - 1 for stage in STAGES]
        both = np.isfinite(gaps[1])
        medians = [np.median(gaps[0]), *(np.median(gap[both]) for gap in gaps)]
        cells = " | ".join(f"{max(gap, 0):.1e}" for gap in medians)
        lines.append(
            f"| {name} | {width} | {kind} | {np.sum(clarke < STATIONARY)} of {len(clarke)} | "
            f"{np.median(clarke):.1e} | {cells} | {1 - lower / best:.1e} |"
        )
    return lines


def draw(path: Path, table: Table, names: tuple[str, ...]) -> None:
    """The gaps of every network through the three stages."""
    size = 3.2 * max(len(names), 2), 3.6
    figure, panels = plt.subplots(1, len(names), figsize=size, sharey=True, layout="constrained",
                                  squeeze=False)  # fmt: skip
    for axes, name in zip(panels[0], names, strict=True):
        best, lower = bounds(table, name)
        for row in (r for r in table.rows if r["data"] == name and r["optimizer"] != CONVEX):
            gaps = [np.maximum(float(row[stage]) / best - 1, 1e-7) for stage in STAGES]
            colour = "C0" if row["optimizer"] == "adam" else "C1"
            style = "-" if row["width"] == str(WIDTHS[-1]) else "--"
            axes.semilogy(range(3), gaps, "o" + style, color=colour, ms=3, lw=0.8, alpha=0.8)
        axes.axhline(1 - lower / best, color="0.5", ls=":", lw=1)
        axes.set_xticks(range(3), STAGES, fontsize=8)
        axes.set_title(name, fontsize=10)
    for colour, style, label in (("C0", "-", "Adam, wide"), ("C0", "--", "Adam, narrow"),
                                 ("C1", "-", "SGD, wide"), ("C1", "--", "SGD, narrow"),
                                 ("0.5", ":", "uncertainty of the optimum")):  # fmt: skip
        panels[0, 0].plot([], [], style, color=colour, label=label, lw=1)
    figure.legend(fontsize=8, loc="outside lower center", ncols=5)
    panels[0, 0].set_ylabel("objective over the best known, relative")
    panels[0, 0].set_ylim(5e-8, None)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Runs what is missing; writes the table of medians and the figure."""
    args = arguments(parser(__doc__))
    names = ("teacher",) if args.quick else ("teacher", "fertility", "monks-1")
    ways = [(0, CONVEX), *((width, kind) for width in WIDTHS for kind in RATES)]
    if args.quick:
        ways = [(5, "adam")]
    table = Table(args.out / "training_gap.csv", ("data", "width", "optimizer"))
    wanted = [(name, *way) for name in names for way in ways]
    for name, width, kind in table.missing(wanted, "training"):
        table.add(runs(name, width, kind, args))
    lines = ["| data | width | optimiser | stationary | Clarke residual | all trained | trained | "
             "improved | refined | uncertainty |", "|---" * 10 + "|"]  # fmt: skip
    for name in names:
        lines += summary(table, name, *bounds(table, name))
    (args.out / "training_gap.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(args.out / "training_gap.png", table, names)


if __name__ == "__main__":
    main()
