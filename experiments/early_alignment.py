r"""Early alignment: where neurons turn while a network of tiny weights is still zero.

    python experiments/early_alignment.py --data DIR --out DIR [--quick]

From a tiny balanced start the residual hardly moves from that of the zero network, r = y / 2 for
the logistic loss, and a neuron (u, a) of sign s follows the ascent of s r^T (X u)_+ over
directions. Two targets are compared with u:

    plain    s X^T D r,  D = 1[X u > 0]
    Clarke   Proj_{K_D}(s X^T D r), the best over the cells D that are next to u

The direction can end on a wall, where the samples with s r_j < 0 push it back from their active
side: the plain target then is not reached, and jumps; the projected one, which is a selection of
Clarke's subdifferential, is. A neuron with s r^T (X u)_+ < 0 shrinks, and turns until the sign
changes or no sample is left on its active side; the others grow.

Writes early_alignment.csv (cosines over time), early_alignment.md (shares above 0.99) and a figure.
"""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import Floats, Row, Table, arguments, parser, uci
from descent_runs import Weights, balanced, follow
from jax import Array
from scipy.optimize import nnls

import jaxrelu as jr

SEEDS, WIDTH, SCALE, STEP, TIME = 4, 40, 1e-18, 0.002, 36.0
# A sample is on a wall where its cosine with u is below this: discrete steps swing around walls.
WALL, MOST_WALLS = 0.01, 8
GOOD = 0.99


def normal(n: int, d: int) -> tuple[Floats, Floats]:
    """Normal samples with random labels."""
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, d)), np.where(np.arange(n) % 2, 1.0, -1.0)


def scaled(X: Floats, y: Floats) -> Floats:
    """X in units in which the fastest of many neurons grows as exp(time): one clock for all."""
    u = np.random.default_rng(0).standard_normal((X.shape[1], 20_000))
    rates = np.abs(y @ np.maximum(X @ u, 0.0)) / 2 / np.linalg.norm(u, axis=0)
    found: Floats = X / np.max(rates)
    return found


def cosine(u: Floats, v: Floats) -> float:
    """The cosine of an angle, 0 with the zero vector."""
    return float(u @ v / max(float(np.linalg.norm(u) * np.linalg.norm(v)), 1e-300))


def targets(u: Floats, s: float, X: Floats, r: Floats) -> tuple[float, float, int]:
    """The cosines of u with both targets, and the number of walls it is on."""
    along = X @ u
    near = np.abs(along) / (np.linalg.norm(X, axis=1) * np.linalg.norm(u) + 1e-300)
    walls = [j for j in np.argsort(near)[:MOST_WALLS] if near[j] < WALL]
    active = along > 0
    plain = cosine(u, s * X.T @ (active * r))
    best = -1.0
    for choice in product((False, True), repeat=len(walls)):
        active[walls] = choice
        pull = s * X.T @ (active * r)
        cone = (2.0 * active - 1.0)[:, None] * X
        best = max(best, cosine(u, pull + cone.T @ nnls(cone.T, -pull)[0]))
    return plain, best, len(walls)


def train(X: Floats, y: Floats, seeds: int, times: Array) -> Weights:
    """Paths of gradient descent on the logistic loss."""

    def loss(weights: Weights) -> Array:
        return jr.nonconvex_objective(jr.Network(*weights), X, y, 0.0, jr.LogisticLoss())

    start = balanced(seeds, X.shape[1], WIDTH, SCALE)
    return follow(lambda w, _: jax.grad(loss)(w), optax.sgd(STEP), start, times)


def measure(name: str, X: Floats, y: Floats, runs: Weights, times: Array) -> list[Row]:
    """One row a neuron and time."""
    hidden, output = np.asarray(runs[0]), np.asarray(runs[1])
    rows: list[Row] = []
    for seed, k in product(range(len(hidden)), range(len(times))):
        u, a = hidden[seed, k], output[seed, k]
        fit = float(np.max(np.abs(np.maximum(X @ u, 0.0) @ a)))
        for j in range(len(a)):
            s = float(np.sign(a[j]))
            plain, clarke, walls = targets(u[:, j], s, X, y / 2)
            growth = s * float(y @ np.maximum(X @ u[:, j], 0.0)) / 2 / np.linalg.norm(u[:, j])
            rows.append({"data": name, "seed": seed, "time": float(times[k] * STEP), "neuron": j,
                         "plain": plain, "clarke": clarke, "walls": walls, "growth": growth,
                         "largest_fit": fit})  # fmt: skip
    return rows


def summary(table: Table, name: str, end: float) -> str:
    """A line of the final table: neurons that grow, the share of both cosines above GOOD."""
    last = {"data": name, "time": end}
    grow = table.column("growth", **last) > 0
    walls = table.column("walls", **last)[grow] > 0
    shares = [table.column(kind, **last)[grow] > GOOD for kind in ("plain", "clarke")]
    parts = [f"{np.mean(share):.2f}" for share in shares]
    on = [f"{np.mean(share[walls]):.2f}" if walls.any() else "-" for share in shares]
    return (
        f"| {name} | {len(grow)} | {np.mean(grow):.2f} | {np.mean(walls):.2f} | {parts[0]} | "
        f"{parts[1]} | {on[0]} | {on[1]} | {np.max(table.column('largest_fit', **last)):.0e} |"
    )


def main() -> None:
    """Trains, measures, and draws the cosines of every growing neuron of the first seed."""
    args = arguments(parser(__doc__))
    seeds, records = (1, 4) if args.quick else (SEEDS, 25)
    sets = {"8 x 3": normal(8, 3), "20 x 5": normal(20, 5)}
    if not args.quick:
        sets["fertility"] = uci(args.data, "fertility")
    times = jnp.asarray(np.linspace(0, TIME / STEP, records).astype(int))
    end = float(times[-1] * STEP)
    table = Table(args.out / "early_alignment.csv", ("data",))
    for (name,) in table.missing([(name,) for name in sets], "early alignment"):
        X, y = scaled(sets[name][0], sets[name][1]), sets[name][1]
        table.add(measure(name, X, y, train(X, y, seeds, times), times))
    lines = ["| data | neurons | growing | of these near a wall | plain > 0.99 | Clarke > 0.99 | "
             "plain, near one | Clarke, near one | largest fit |", "|---" * 9 + "|"]  # fmt: skip
    figure, panels = plt.subplots(2, len(sets), figsize=(3.4 * len(sets), 5), sharex=True,
                                  sharey=True, layout="constrained", squeeze=False)  # fmt: skip
    for column, name in enumerate(sets):
        lines.append(summary(table, name, end))
        chosen = {"data": name, "seed": 0}
        shape = (len(times), WIDTH)
        grow = table.column("growth", **chosen).reshape(shape)[-1] > 0
        on = table.column("walls", **chosen).reshape(shape)[-1] > 0
        clock = table.column("time", **chosen).reshape(shape)[:, 0]
        for row, kind in enumerate(("plain", "clarke")):
            cosines = table.column(kind, **chosen).reshape(shape)
            axes = panels[row, column]
            for k in np.flatnonzero(grow):
                axes.plot(clock, cosines[:, k], lw=0.7, color="C3" if on[k] else "C0", alpha=0.7)
            axes.axhline(GOOD, color="0.6", ls=":", lw=0.8)
            axes.set_title(f"{name}: {'Clarke' if kind == 'clarke' else kind} target", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("cosine with the target")
    for axes in panels[1]:
        axes.set_xlabel("time")
    panels[0, 0].plot([], [], color="C3", label="ends near a wall")
    panels[0, 0].plot([], [], color="C0", label="ends inside a cell")
    panels[0, 0].legend(fontsize=8, loc="lower right")
    figure.savefig(args.out / "early_alignment.png", dpi=100)
    (args.out / "early_alignment.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
