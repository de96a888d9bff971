r"""Paths of networks that jump: of fixed width, and of minimum norm among all that are optimal.

    python experiments/discontinuous_path.py --out DIR [--quick]

One feature, one neuron: a neuron of positive weight sees the samples x > 0 and one of negative
weight those of x < 0. Each side alone lowers the objective by (c - lam)_+^2 / (2 s), c = |sum x y|
and s = sum x^2 over it, and a single neuron takes the better one: at the lam where both are worth
the same the optimal weight jumps from one sign to the other. With two neurons the problem is convex
in disguise, both sides are soft thresholds, and the path is continuous.

The optimal fit always is. But where the optimal network is not unique the one of minimum norm can
jump. In the second example two neurons are optimal at every lam near 5^0.5; at that lam the
correlation of a third direction touches lam, and its feature is the mean of theirs. There the
optimal networks are a segment, and the shortest one has all three.

Writes discontinuous_path.csv, minimum_norm_path.csv and a figure.
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Row, Table, arguments, parser

import jaxrelu as jr

X = np.array([[2.0], [1.0], [-0.6], [-0.3]])
Y = np.array([1.0, 0.8, 1.2, 1.5])

TOUCHING_X = np.array([[0, 0, 1], [2, 0, 0], [-5 / 4, 11 / 48**0.5, 1], [-3 / 4, 13 / 48**0.5, -1]])
TOUCHING_Y = np.array([2.0, 3.0, 3.0, 2.0])
JUMP = 5**0.5
DIRECTIONS = np.array([[2, 0, 1], [-1, 3**0.5, 1], [1, 3**0.5, 1]]) / 5**0.5


def sides() -> list[tuple[float, float]]:
    """(c, s) of the samples x > 0 and of those x < 0."""
    found = []
    for sign in (1.0, -1.0):
        mask = sign * X[:, 0] > 0
        found.append((float(abs(X[mask, 0] @ Y[mask])), float(X[mask, 0] @ X[mask, 0])))
    return found


def one_and_two(table: Table, num: int) -> None:
    """Adds the optimal weights of one neuron and of two, and checks these against `follow_path`."""
    program = jr.ConvexProgram(X, Y, jr.enumerate_patterns(X))
    path = jr.follow_path(program, 0.02)
    parts = sides()
    lams = np.linspace(0.02, 1.05 * float(path.high[0]), num)
    for (lam,) in table.missing([(float(lam),) for lam in lams], "path"):
        size = [max(0.0, c - lam) / s for c, s in parts]
        worth = [max(0.0, c - lam) ** 2 / (2 * s) for c, s in parts]
        best = int(np.argmax(worth))
        one = [size[k] if k == best else 0.0 for k in range(2)]
        network = jr.to_network(program, path(lam).weights)
        weight = network.hidden[0] * jnp.abs(network.output)
        both = [float(jnp.sum(jnp.maximum(sign * weight, 0.0))) for sign in (1.0, -1.0)]
        np.testing.assert_allclose(both, size, atol=1e-8)
        table.add(
            [{"lam": lam, "one_right": one[0], "one_left": one[1], "two_right": both[0],
              "two_left": both[1]}]
        )  # fmt: skip


def minimum_norm(table: Table, num: int) -> None:
    """Adds the sizes of three directions in the optimal network of minimum norm, around 5^0.5."""
    program = jr.ConvexProgram(TOUCHING_X, TOUCHING_Y, jr.enumerate_patterns(TOUCHING_X))
    path = jr.follow_path(program, 0.5)
    there = path.kinds.index("touches")
    np.testing.assert_allclose(path.breakpoints[there], JUMP, rtol=1e-9)
    np.testing.assert_allclose(path.jump[there], 0.5**0.5, rtol=1e-6)
    lams = [*np.linspace(1.5, 3.0, num), JUMP]
    for (lam,) in table.missing([(float(lam),) for lam in lams], "minimum norm"):
        optima = jr.optimal_set(program, path(lam))
        size = np.asarray(jr.select(optima, "min_norm"))
        nearest = np.argmax(DIRECTIONS @ np.asarray(optima.directions).T, axis=0)
        sizes = np.bincount(nearest, size, minlength=3)
        row: Row = {f"direction_{k + 1}": float(sizes[k]) for k in range(3)}
        table.add([{"lam": lam} | row])


def draw(weights: Table, shortest: Table, out: Path) -> None:
    """One neuron, two neurons, and the network of minimum norm."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    titles = ("one neuron: global optimum jumps", "convex program: continuous")
    for panel, kind, title in zip(panels, ("one", "two"), titles, strict=False):
        lams = weights.column("lam")
        panel.plot(lams, weights.column(f"{kind}_right"), label="weight > 0")
        panel.plot(lams, -weights.column(f"{kind}_left"), label="weight < 0")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("lam")
        panel.set_ylabel("convex weight")
        panel.sharey(panels[0])
    panels[0].legend(fontsize=8)
    lams = shortest.column("lam")
    near = lams != JUMP
    for k, style in enumerate(("C0-", "C1--", "C2-")):
        name = f"direction_{k + 1}"
        panels[2].plot(lams[near], shortest.column(name)[near], style, label=name)
    panels[2].plot(lams[~near], shortest.column("direction_3")[~near], "ko", label="all three")
    panels[2].set_title("minimum norm: jumps at one lam", fontsize=10)
    panels[2].set_xlabel("lam")
    panels[2].legend(fontsize=8)
    figure.savefig(out / "discontinuous_path.png", dpi=150)


def main() -> None:
    """Computes what is missing, and draws."""
    args = arguments(parser(__doc__, data=False))
    weights = Table(args.out / "discontinuous_path.csv", ("lam",))
    one_and_two(weights, 40 if args.quick else 400)
    shortest = Table(args.out / "minimum_norm_path.csv", ("lam",))
    minimum_norm(shortest, 9 if args.quick else 61)
    draw(weights, shortest, args.out)


if __name__ == "__main__":
    main()
