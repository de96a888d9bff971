"""A fan of quantiles of one program, beside scikit-learn's two ways to quantiles.

    python experiments/quantile_fan.py --data DIR --out DIR [--quick]

On three regression sets, quantiles 0.05 to 0.95 are one `vmap` over the q of the quantile loss, on
the same sampled gates and with a free bias, which puts each quantile at its level; lam is chosen by
the pinball loss of a validation part, for all quantiles together. Beside it: scikit-learn's linear
QuantileRegressor (alpha chosen likewise) and its HistGradientBoostingRegressor, one model a
quantile, at its defaults. Scored on test rows: the mean pinball loss, in units of that of the
training quantiles, and how far the share of targets below a quantile is from q. Every answer
certified.

Writes quantile_fan.csv (a row a quantile), .md and a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Row, Table, arguments, parser, split
from outliers_and_counts import read

import jaxrelu as jr
from jaxrelu.datasets import standardize

SETS = ("boston-housing", "concrete", "yacht")
QUANTILES = np.asarray([0.05, 0.15, 0.25, 0.35, 0.5, 0.65, 0.75, 0.85, 0.95])
GATES, SEEDS, ROWS = 50, 3, 600
# Of the lambda_max of the median, and room for neurons at the smallest.
SHARES = (0.3, 0.1, 0.03)
SLOTS = 24
ALPHAS = (0.0, 1e-3, 1e-2, 3e-2)
NAMES = {"fan": "jaxrelu", "linear": "QuantileRegressor", "boosting": "HistGradientBoosting"}


def pinball(y: Floats, q: Floats) -> Callable[[Floats], Floats]:
    """Maps fits (k, n) to the mean loss of each of k quantiles."""

    def loss(fits: Floats) -> Floats:
        error = y[None] - fits
        return np.asarray(np.mean(np.maximum(q[:, None] * error, (q[:, None] - 1) * error), axis=1))

    return loss


def fan(X: Floats, y: Floats, there: list[Floats], gates: int, seed: int) -> list[list[Floats]]:
    """Quantiles (k, m) at other rows, for each lam."""
    patterns = filled_up(jr.sample_patterns(jax.random.key(seed), X, gates, bias="free"), gates)

    def program(q: Any) -> jr.ConvexProgram:
        return jr.ConvexProgram(X, y, patterns, jr.QuantileLoss(q), bias="free")

    def answer(q: Any, lam: Any) -> Any:
        solution = jr.solve(program(q), lam, solver=jr.ActiveNewton(capacity=SLOTS))
        network = jr.to_network(program(q), solution)
        return solution.status, [network(jnp.asarray(rows)) for rows in there]

    top = jr.lambda_max_interval(program(np.asarray(0.5)))[1]
    together = jax.jit(jax.vmap(answer, in_axes=(0, None)))
    found = []
    for share in SHARES:
        status, fits = together(jnp.asarray(QUANTILES), share * top)
        if not np.all(np.asarray(status) == jr.Status.OPTIMAL):
            raise RuntimeError(f"a quantile is not OPTIMAL at {share} lambda_max: {status}")
        found.append([np.asarray(rows) for rows in fits])
    return found


def filled_up(patterns: jr.Patterns, number: int) -> jr.Patterns:
    """Patterns repeated up to a number: equal shapes compile once."""
    place = np.arange(number) % patterns.num_patterns
    return jax.tree.map(lambda x: np.asarray(x)[:, place], patterns)


def linear(X: Floats, y: Floats, there: list[Floats]) -> list[list[Floats]]:
    """The same of scikit-learn's linear quantiles, for each alpha."""
    from sklearn.linear_model import QuantileRegressor

    found = []
    for alpha in ALPHAS:
        models = [QuantileRegressor(quantile=q, alpha=alpha).fit(X, y) for q in QUANTILES]
        found.append([np.stack([m.predict(rows) for m in models]) for rows in there])
    return found


def boosting(X: Floats, y: Floats, there: list[Floats]) -> list[list[Floats]]:
    """The same of scikit-learn's boosted trees, at their defaults."""
    from sklearn.ensemble import HistGradientBoostingRegressor as Trees

    models = [Trees(loss="quantile", quantile=q, random_state=0).fit(X, y) for q in QUANTILES]
    return [[np.stack([m.predict(rows) for m in models]) for rows in there]]


def one(data: Path, name: str, seed: int, quick: bool) -> list[Row]:
    """The rows of one set and split."""
    features, target = read(data, name, 60 if quick else ROWS)
    rest, test = split(len(target), 0.25, seed)
    inner, held = split(len(rest), 0.2, seed + 100)
    train, valid = rest[inner], rest[held]
    A, V, T = standardize(features[train], features[valid], features[test])
    center, scale = target[train].mean(), target[train].std()
    y, y_valid, y_test = ((target[part] - center) / scale for part in (train, valid, test))
    own = np.quantile(y, QUANTILES)[:, None]
    usual = pinball(y_test, QUANTILES)(np.broadcast_to(own, (len(own), len(y_test)))).mean()
    of_valid, of_test = pinball(y_valid, QUANTILES), pinball(y_test, QUANTILES)
    rows: list[Row] = []
    for method, found in (
        ("fan", fan(A, y, [V, T], 10 if quick else GATES, seed)),
        ("linear", linear(A, y, [V, T])),
        ("boosting", boosting(A, y, [V, T])),
    ):
        best = min(range(len(found)), key=lambda k, f=found: of_valid(f[k][0]).mean())
        fits = found[best][1]
        below = np.mean(y_test[None] <= fits, axis=1)
        rows += [
            {"dataset": name, "seed": seed, "method": method, "choice": best, "q": float(q),
             "pinball": float(loss / usual), "below": float(share)}
            for q, loss, share in zip(QUANTILES, of_test(fits), below, strict=True)
        ]  # fmt: skip
    return rows


def summary(table: Table) -> list[str]:
    """Medians over the splits."""
    lines = ["| set | method | pinball loss | off coverage |", "|---|---|---|---|"]
    for name in dict.fromkeys(row["dataset"] for row in table.rows):
        for method, label in NAMES.items():
            where = {"dataset": name, "method": method}
            seed, q = table.column("seed", **where), table.column("q", **where)
            loss, below = table.column("pinball", **where), table.column("below", **where)
            means = [
                (loss[seed == s].mean(), np.abs(below - q)[seed == s].mean())
                for s in np.unique(seed)
            ]
            middle = np.median(np.asarray(means), axis=0)
            lines.append(f"| {name} | {label} | {middle[0]:.3f} | {middle[1]:.3f} |")
    return lines


def draw(table: Table, out: Path) -> None:
    """Coverage and pinball loss of every quantile."""
    names = list(dict.fromkeys(row["dataset"] for row in table.rows))
    figure, panels = plt.subplots(
        2, len(names), figsize=(9.5, 5.4), sharex=True, layout="constrained", squeeze=False
    )
    for k, name in enumerate(names):
        for color, (method, label) in zip(("C0", "0.45", "C1"), NAMES.items(), strict=True):
            where = {"dataset": name, "method": method}
            q = table.column("q", **where)
            for panel, column in zip(panels[:, k], ("below", "pinball"), strict=True):
                value = table.column(column, **where)
                panel.plot(
                    QUANTILES, [np.median(value[q == one]) for one in QUANTILES], "o-",
                    color=color, label=label, markersize=3,
                )  # fmt: skip
        panels[0, k].plot([0, 1], [0, 1], ":", color="0.7")
        panels[0, k].set_title(name, fontsize=10)
        panels[1, k].set_xlabel("q")
    panels[0, 0].set_ylabel("share of test targets below")
    panels[1, 0].set_ylabel("pinball loss, relative")
    panels[1, 0].legend(fontsize=8)
    figure.savefig(out / "quantile_fan.png", dpi=130)


def main() -> None:
    """Runs what is missing and writes table and figure."""
    args = arguments(parser(__doc__))
    keys = [(name, seed) for name in SETS for seed in range(1 if args.quick else SEEDS)]
    table = Table(args.out / "quantile_fan.csv", ("dataset", "seed"))
    for name, seed in table.missing(keys, "fans"):
        table.add(one(args.data, name, seed, args.quick))
    lines = summary(table)
    (args.out / "quantile_fan.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(table, args.out)


if __name__ == "__main__":
    main()
