r"""Gradient descent from large and from small initialisation, against the certified optimum.

    python experiments/training_dynamics.py --data DIR --out DIR [--quick]

Full-batch gradient descent with small steps on the training objective, from balanced networks of a
large and of a small scale, several seeds each. `jr.refine` gives the global optimum with its
certificate. From a small scale the neurons first turn, then grow, and few directions are left; from
a large one they hardly move while the loss falls, and weight decay alone brings them together.

Writes training_dynamics.csv (objective, excess over the optimum and distinct directions over time)
and a figure; its left panels are the neurons of the two-dimensional data on the plane.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import Floats, Row, Table, arguments, parser, sampled, uci
from descent_runs import (
    Weights,
    balanced,
    distinct_directions,
    follow,
    kept,
    network,
    objective,
    record_times,
)
from matplotlib.axes import Axes
from rich.progress import track

import jaxrelu as jr

SCALES = {"large": 1.0, "small": 1e-3}
SEEDS, WIDTH, STEPS, RATE, LAM = 5, 60, 200_000, 5e-4, 0.5
# Where the logarithmic radius of the picture begins.
SPECK = 1e-7


def plane() -> tuple[Floats, Floats]:
    """Twelve samples in two dimensions, with the values of a network of three neurons and noise."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((12, 2))
    hidden = np.asarray([[1.0, -0.4, -0.7], [0.3, 1.0, -0.9]])
    return X, np.maximum(X @ hidden, 0.0) @ [1.5, -1.5, 1.0] + 0.1 * rng.standard_normal(12)


def fertility(data: Path) -> tuple[Floats, Floats]:
    """The first three features of a UCI set, scaled such that one step size serves both sets."""
    X, y = uci(data, "fertility")
    return X[:, :3] * (12 / len(y)) ** 0.5, y * (12 / len(y)) ** 0.5


def draw(axes: Axes, X: Floats, runs: Weights, best: jr.Network, title: str) -> None:
    """Paths of the neurons of the first seed; dashed, the directions of the optimal neurons.

    The distance from the centre is log10(||u|| |a| / SPECK): small neurons are seen, too.
    """
    hidden, output = np.asarray(runs[0][0]), np.asarray(runs[1][0])
    lengths = np.linalg.norm(hidden, axis=1)
    radius = np.maximum(np.log10(lengths * np.abs(output) / SPECK), 0.0)
    points = hidden / lengths[:, None] * radius[:, None]
    reach = 1.1 * float(np.max(radius))
    for x in X:
        along = np.array([-x[1], x[0]]) / np.linalg.norm(x) * reach
        axes.plot(*np.stack([-along, along]).T, color="0.88", lw=0.7, zorder=0)
    for u, a in zip(np.asarray(best.hidden).T, np.asarray(best.output), strict=True):
        end = u / np.linalg.norm(u) * reach
        axes.plot([0, end[0]], [0, end[1]], "--", color="C0" if a > 0 else "C3", lw=1)
        axes.plot(*end, "*", color="C0" if a > 0 else "C3", mec="k", ms=11, mew=0.8, zorder=3)
    for k in range(points.shape[2]):
        colour = "C0" if output[0, k] > 0 else "C3"
        axes.plot(*points[:, :, k].T, color=colour, lw=0.6, alpha=0.4)
        axes.plot(*points[0, :, k], ".", color="0.4", ms=3, alpha=0.6)
        axes.plot(*points[-1, :, k], "o", color=colour, ms=3.5)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)


def turned(runs: Weights) -> Floats:
    """The median angle in degrees of the neurons to where they started, (seeds, records)."""
    units = runs[0] / jnp.linalg.norm(runs[0], axis=2, keepdims=True)
    cosine = jnp.clip(jnp.sum(units * units[:, :1], axis=2), -1.0, 1.0)
    return np.degrees(np.median(np.arccos(cosine), axis=-1))


def main() -> None:
    """Trains, certifies, writes and draws."""
    args = arguments(parser(__doc__))
    steps, seeds = (2000, 2) if args.quick else (STEPS, SEEDS)
    times = record_times(steps, 30 if args.quick else 60)
    sets = {"plane": plane()}
    if not args.quick:
        sets["fertility"] = fertility(args.data)
    figure, panels = plt.subplots(2, 3, figsize=(11, 6.6), layout="constrained")
    rows: list[Row] = []
    for column, name in enumerate(track(sets, "dynamics")):
        X, y = sets[name]
        program = jr.ConvexProgram(X, y, sampled(X, 10, 0))
        found = jr.refine(program, LAM, max_work=120.0)
        lower, upper = float(found.certificate.lower), float(found.certificate.upper)
        best = jr.minimal(found.network, X)
        print(f"{name}: {found.status.name}, {upper:.8f}, gap {upper - lower:.1e}, "
              f"{best.num_neurons} neurons")  # fmt: skip
        for place, (kind, scale) in enumerate(SCALES.items()):
            value = partial(objective, X=X, y=y, lam=LAM)
            start = balanced(seeds, X.shape[1], WIDTH, scale)
            runs = kept(
                args.out / f"training_dynamics_{name}_{kind}.npz", times,
                lambda f=value, w=start: follow(
                    lambda w, _: jax.grad(f)(w), optax.sgd(RATE), w, times
                ),
            )  # fmt: skip
            values = np.asarray(jax.vmap(jax.vmap(value))(runs))
            losses = np.asarray(jax.vmap(jax.vmap(partial(objective, X=X, y=y, lam=0.0)))(runs))
            angles = turned(runs)
            for seed in range(seeds):
                for k, step in enumerate(times):
                    one = network(runs, seed, k)
                    rows.append({"data": name, "init": kind, "seed": seed, "step": int(step),
                                 "objective": values[seed, k], "loss": losses[seed, k],
                                 "lower": lower, "upper": upper, "turned": angles[seed, k],
                                 "directions": distinct_directions(one)})  # fmt: skip
            if name == "plane":
                draw(panels[place, 0], X, runs, best, f"{kind} initialisation")
            here = panels[0, 1 + column], panels[1, 1 + column]
            excess = np.maximum(values - lower, 1e-12) / upper
            clock = np.maximum(times, 0.5) * RATE
            for seed in range(seeds):
                style = {"color": f"C{place}", "lw": 1, "label": kind if seed == 0 else None}
                counts = [r["directions"] for r in rows
                          if (r["data"], r["init"], r["seed"]) == (name, kind, seed)]  # fmt: skip
                here[0].loglog(clock, excess[seed], **style)
                here[1].semilogx(clock, counts, **style)
            here[0].set_title(f"{name}: excess over the certified optimum", fontsize=9)
            here[1].set_title(f"{name}: distinct directions (5 degrees)", fontsize=9)
            here[1].set_xlabel("time (steps x step size)")
    (args.out / "training_dynamics.csv").unlink(missing_ok=True)
    table = Table(args.out / "training_dynamics.csv", ("data", "init", "seed", "step"))
    table.add(rows)
    for name in sets:
        for kind in SCALES:
            last = {"data": name, "init": kind, "step": int(times[-1])}
            gaps = table.column("objective", **last) / table.column("upper", **last) - 1
            print(f"{name}, {kind}: excess at the end {np.array2string(gaps, precision=2)}, "
                  f"directions {table.column('directions', **last)}")  # fmt: skip
    panels[0, 1].legend(fontsize=8, title="initialisation", title_fontsize=8)
    figure.savefig(args.out / "training_dynamics.png", dpi=100)


if __name__ == "__main__":
    main()
