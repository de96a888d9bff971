"""How test accuracy is distributed over the optimal networks of one program.

    python experiments/accuracy_distribution.py --data DIR --out DIR [--quick]

10,000 networks are drawn from the uniform distribution on the polytope of optimal coefficients by
hit-and-run; all have one training fit and one penalty. The problems are those of Table 2 with an
optimal set that is no single point: one split of blood, and UCI sets cut down to two features.

Writes accuracy_distribution.csv (one row a set: quantiles, effective sample size) and a figure of
the histograms.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Row, Table, arguments, at_end_of_path, parser, sampled, split, uci
from optimal_accuracy import GATES, LAM

import jaxrelu as jr

# Set, features kept (0 for all), split.
CASES = (
    ("blood", 0, 3),
    ("monks-1", 2, 0),
    ("planning", 2, 0),
    ("breast-cancer", 2, 0),
    ("mammographic", 2, 0),
)
SAMPLES = 10_000


def accuracies(
    data: Path, name: str, features: int, repeat: int, gates: int, samples: int
) -> tuple[Floats, Row]:
    """Test accuracies (samples,) of random optimal networks, and facts about their set."""
    X, y = uci(data, name)
    X = np.ascontiguousarray(X[:, : features or None])
    rest, test = split(len(y), 0.8, 650 + repeat)
    train = rest[split(len(rest), 0.25, repeat)[0]]
    program = jr.ConvexProgram(X[train], y[train], sampled(X[train], gates, 123 + repeat))
    solution = at_end_of_path(program, LAM * len(train))
    optima = jr.optimal_set(program, solution, max_nodes=0)
    a = jr.sample_optimal(jax.random.key(0), optima, samples)
    there = optima.signs * jnp.maximum(X[test] @ optima.directions.T, 0.0)

    def share(coefficients: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sign(there @ coefficients) == y[test])

    found = np.asarray(jax.lax.map(share, a, batch_size=256))
    worth = np.asarray(jr.effective_sample_size(a))
    worth = worth[np.isfinite(worth)]
    low, first, middle, third, high = np.quantile(found, [0, 0.25, 0.5, 0.75, 1])
    return found, {
        "dataset": name, "features": X.shape[1], "dimension": optima.dimension,
        "rank": optima.rank, "lowest": low,
        "lower_quartile": first, "median": middle, "upper_quartile": third, "highest": high,
        "least_effective_size": float(worth.min()) if worth.size else np.nan,
    }  # fmt: skip


def main() -> None:
    """Runs what is missing, and draws."""
    args = arguments(parser(__doc__))
    cases, gates, samples = (CASES[1:2], 50, 500) if args.quick else (CASES, GATES, SAMPLES)
    table = Table(args.out / "accuracy_distribution.csv", ("dataset",))
    case = {name: (features, repeat) for name, features, repeat in cases}
    for (name,) in table.missing([(name,) for name in case], "sampling"):
        found, facts = accuracies(args.data, name, *case[name], gates, samples)
        np.save(args.out / f"accuracy_distribution_{name}.npy", found)
        table.add([facts])
    figure, panels = plt.subplots(1, len(case), figsize=(2.4 * len(case), 2.6),
                                  layout="constrained", squeeze=False)  # fmt: skip
    for panel, name in zip(panels[0], case, strict=True):
        found = np.load(args.out / f"accuracy_distribution_{name}.npy")
        values, counts = np.unique(found, return_counts=True)
        panel.vlines(values, 0, counts / counts.sum(), lw=3)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("test accuracy", fontsize=8)
    panels[0, 0].set_ylabel("share of optimal networks", fontsize=8)
    figure.savefig(args.out / "accuracy_distribution.png", dpi=150)


if __name__ == "__main__":
    main()
