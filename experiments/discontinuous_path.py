r"""A path of smallest networks that jumps, beside the path of the convex program, which does not.

    python experiments/discontinuous_path.py --out DIR [--quick]

One feature, one neuron: a neuron of positive weight sees the samples x > 0 and one of negative
weight those of x < 0. Each side alone lowers the objective by (c - lam)_+^2 / (2 s), c = |sum x y|
and s = sum x^2 over it, and a single neuron takes the better one: at the lam where both are worth
the same the optimal weight jumps from one sign to the other. With two neurons the problem is convex
in disguise, both sides are soft thresholds, and the path is continuous.

Writes discontinuous_path.csv and a figure.
"""

from __future__ import annotations

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Table, arguments, parser
from rich.progress import track

import jaxrelu as jr

X = np.array([[2.0], [1.0], [-0.6], [-0.3]])
Y = np.array([1.0, 0.8, 1.2, 1.5])


def sides() -> list[tuple[float, float]]:
    """(c, s) of the samples x > 0 and of those x < 0."""
    found = []
    for sign in (1.0, -1.0):
        mask = sign * X[:, 0] > 0
        found.append((float(abs(X[mask, 0] @ Y[mask])), float(X[mask, 0] @ X[mask, 0])))
    return found


def main() -> None:
    """Computes both paths, checks the convex one against `follow_path`, and draws."""
    args = arguments(parser(__doc__, data=False))
    program = jr.ConvexProgram(X, Y, jr.enumerate_patterns(X))
    path = jr.follow_path(program, 0.02)
    parts = sides()
    lams = np.linspace(0.02, 1.05 * float(path.high[0]), 40 if args.quick else 400)
    rows = []
    for lam in track(lams, "path"):
        size = [max(0.0, c - lam) / s for c, s in parts]
        worth = [max(0.0, c - lam) ** 2 / (2 * s) for c, s in parts]
        best = int(np.argmax(worth))
        one = [size[k] if k == best else 0.0 for k in range(2)]
        network = jr.to_network(program, path(lam).weights)
        weight = network.hidden[0] * jnp.abs(network.output)
        both = [float(jnp.sum(jnp.maximum(sign * weight, 0.0))) for sign in (1.0, -1.0)]
        np.testing.assert_allclose(both, size, atol=1e-8)
        rows.append(
            {"lam": lam, "one_right": one[0], "one_left": one[1], "two_right": both[0],
             "two_left": both[1]}
        )  # fmt: skip
    (args.out / "discontinuous_path.csv").unlink(missing_ok=True)
    Table(args.out / "discontinuous_path.csv", ("lam",)).add(rows)
    figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    titles = ("one neuron: global optimum jumps", "convex program: continuous")
    for panel, kind, title in zip(panels, ("one", "two"), titles, strict=True):
        panel.plot(lams, [row[f"{kind}_right"] for row in rows], label="weight > 0")
        panel.plot(lams, [-row[f"{kind}_left"] for row in rows], label="weight < 0")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("lam")
    panels[0].set_ylabel("convex weight")
    panels[0].legend(fontsize=8)
    figure.savefig(args.out / "discontinuous_path.png", dpi=150)


if __name__ == "__main__":
    main()
