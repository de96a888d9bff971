"""A fan of quantiles from one batched program, beside linear quantile regression and boosting.

    python experiments/quantile_fan.py --data DIR --out DIR [--quick]

On three regression sets ten conditional quantiles, q = 0.05 to 0.95, are fitted by networks with a
free bias: one compiled program, whose data q is, every quantile certified. lam is chosen out of
four by the pinball loss of a quarter of the training rows, whose sample weight is zero meanwhile.
Beside it are scikit-learn's `QuantileRegressor` (alpha chosen in the same way) and
`HistGradientBoostingRegressor(loss="quantile")` with its defaults.

Writes quantile_fan.csv (a row a set, split, model and q), .md and a figure: coverage of the test
rows against q, which calibrated quantiles have on the diagonal, and pinball loss against q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Row, Table, arguments, parser, split
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import QuantileRegressor

import jaxrelu as jr
from jaxrelu.datasets import standardize

SETS, SEEDS, GATES = ("yacht", "boston-housing", "concrete"), 1, 50
QUANTILES = np.linspace(0.05, 0.95, 10)
STRENGTHS = (0.03, 0.01, 0.003, 0.001)  # lam over the number of samples; alpha
RTOL = 1e-3
Fan = Callable[[Floats, Sequence[float]], tuple[Floats, Floats]]


def read(data: Path, name: str, most: int | None) -> tuple[Floats, Floats]:
    """Features and target of a regression set, or of so many random rows of it."""
    table = np.loadtxt(data / "regression" / f"{name}.csv.gz", delimiter=",", skiprows=1)
    table = table[np.random.default_rng(0).permutation(len(table))[:most]]
    return table[:, :-1], table[:, -1]


def pinball(f: Floats, y: Floats, q: Floats) -> Floats:
    """The mean loss (..., ) of quantiles f (..., n) at targets y (n,)."""
    e = y - f
    return np.mean(np.maximum(q[..., None] * e, (q[..., None] - 1) * e), axis=-1)


def networks(X: Floats, y: Floats, there: Floats, gates: int, seed: int) -> Fan:
    """(sample weights, lams over samples) -> quantiles (L, q, .) at the rows, and elsewhere."""
    patterns = jr.sample_patterns(jax.random.key(seed), X, gates, bias="free")

    def fan(weight: Floats, strengths: Sequence[float]) -> tuple[Floats, Floats]:
        lams = np.asarray(strengths) * weight.sum()
        own, other = [], []
        for q in QUANTILES:
            loss = jr.QuantileLoss(jnp.asarray(q))
            program = jr.ConvexProgram(X, y, patterns, loss, weight, bias="free")
            path = jr.solve_path(program, lams, rtol=RTOL)
            for k in range(len(path)):
                jr.raise_if_failed(path[k])
            found = [jr.to_network(program, path[k]) for k in range(len(path))]
            own.append([network(X) for network in found])
            other.append([network(there) for network in found])
        return np.asarray(own).swapaxes(0, 1), np.asarray(other).swapaxes(0, 1)

    return fan


def lines(X: Floats, y: Floats, there: Floats) -> Fan:
    """The same of linear quantile regression."""

    def fan(weight: Floats, strengths: Sequence[float]) -> tuple[Floats, Floats]:
        models = [
            [
                QuantileRegressor(quantile=q, alpha=s, solver="highs").fit(X, y, weight)
                for q in QUANTILES
            ]
            for s in strengths
        ]
        return tuple(
            np.asarray([[m.predict(rows) for m in row] for row in models]) for rows in (X, there)
        )

    return fan


def chosen(fan: Fan, y: Floats, seed: int) -> tuple[Floats, float]:
    """Quantiles elsewhere at the strength whose fan loses least on a quarter that is left out."""
    _, out = split(len(y), 0.25, seed)
    weight = np.ones(len(y))
    weight[out] = 0.0
    inside = fan(weight, STRENGTHS)[0]
    losses = [pinball(f[:, out], y[out], QUANTILES).mean() for f in inside]
    best = int(np.argmin(losses))
    # As far down the path as the best one.
    return fan(np.ones(len(y)), STRENGTHS[: best + 1])[1][-1], STRENGTHS[best]


def one(data: Path, name: str, seed: int, quick: bool) -> list[Row]:
    """The rows of one set and split."""
    X, y = read(data, name, 80 if quick else None)
    train, test = split(len(y), 0.2, seed)
    A, B = standardize(X[train], X[test])
    center, scale = y[train].mean(), y[train].std()
    y, target = (y[train] - center) / scale, (y[test] - center) / scale
    found = {}
    for model in ("network", "linear", "boosting"):
        start = perf_counter()
        if model == "boosting":
            boosted = [
                HistGradientBoostingRegressor(loss="quantile", quantile=q, random_state=0)
                for q in QUANTILES
            ]
            f, strength = np.stack([m.fit(A, y).predict(B) for m in boosted]), np.nan
        else:
            fan = (
                networks(A, y, B, 8 if quick else GATES, seed)
                if model == "network"
                else lines(A, y, B)
            )
            f, strength = chosen(fan, y, seed)
        found[model] = f, strength, perf_counter() - start
    return [
        {
            "dataset": name, "seed": seed, "model": model, "q": q, "strength": strength,
            "pinball": loss, "coverage": share, "crossings": np.mean(np.diff(f, axis=0) < 0),
            "seconds": seconds,
        }
        for model, (f, strength, seconds) in found.items()
        for q, loss, share in zip(
            QUANTILES, pinball(f, target, QUANTILES), np.mean(target <= f, axis=1), strict=True
        )
    ]  # fmt: skip


def summary(table: Table) -> list[str]:
    """Means over quantiles and splits."""
    rows = [
        "| set | model | pinball loss | coverage is off by | quantiles that cross | seconds |",
        "|---" * 6 + "|",
    ]
    for name, model in dict.fromkeys((row["dataset"], row["model"]) for row in table.rows):
        here = {"dataset": name, "model": model}
        off = np.abs(table.column("coverage", **here) - table.column("q", **here))
        rows.append(
            f"| {name} | {model} | {table.column('pinball', **here).mean():.4f} "
            f"| {off.mean():.3f} | {table.column('crossings', **here).mean():.1%} "
            f"| {np.median(table.column('seconds', **here)):.1f} |"
        )
    return rows


def draw(table: Table, out: Path) -> None:
    """Coverage above, pinball loss below, against q."""
    names = list(dict.fromkeys(row["dataset"] for row in table.rows))
    figure, panels = plt.subplots(
        2, len(names), figsize=(9.5, 5.6), sharex=True, layout="constrained", squeeze=False
    )
    colors = {"network": "C0", "linear": "0.45", "boosting": "C1"}
    for (above, below), name in zip(panels.T, names, strict=True):
        above.plot([0, 1], [0, 1], ":", color="black", linewidth=0.8)
        for model, color in colors.items():
            for panel, what in ((above, "coverage"), (below, "pinball")):
                values = table.column(what, dataset=name, model=model)
                q = table.column("q", dataset=name, model=model)
                mean = [values[q == level].mean() for level in np.unique(q)]
                panel.plot(np.unique(q), mean, "o-", markersize=3, color=color, label=model)
        above.set_title(name, fontsize=10)
        below.set_ylim(bottom=0.0)
        below.set_xlabel("q")
    panels[0, 0].set_ylabel("share of test targets below")
    panels[1, 0].set_ylabel("pinball loss, test rows")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(out / "quantile_fan.png", dpi=130)


def main() -> None:
    """Runs what is missing and writes table and figure."""
    args = arguments(parser(__doc__))
    sets = SETS[:1] if args.quick else SETS
    keys = [(name, seed) for name in sets for seed in range(SEEDS)]
    table = Table(args.out / "quantile_fan.csv", ("dataset", "seed"))
    for name, seed in table.missing(keys, "fans"):
        table.add(one(args.data, name, seed, args.quick))
    rows = summary(table)
    (args.out / "quantile_fan.md").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))
    draw(table, args.out)


if __name__ == "__main__":
    main()
