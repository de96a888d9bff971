"""lam chosen by gradient descent on the validation loss, through the solver.

    python experiments/hyper_gradient.py --data DIR --out DIR [--quick]

d validation loss / d log lam comes from `jax.grad` through `jr.solve` by implicit differentiation;
Adam of optax moves log lam. A grid of the same program, solved with `solve_path`, is the oracle.

Writes hyper_gradient.csv (lam, loss and gradient at every step) and a figure.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import Table, arguments, parser, sampled, split, uci
from rich.progress import track

import jaxrelu as jr

GATES, STEPS, RATE = 20, 30, 0.2


def main() -> None:
    """Descends from a large lam and compares with the grid."""
    args = arguments(parser(__doc__))
    X, y = uci(args.data, "parkinsons")
    train, valid = split(len(y), 0.5, 0)
    patterns = sampled(X[train], 10 if args.quick else GATES, 0)
    program = jr.ConvexProgram(X[train], y[train], patterns)

    def validation(solution: jr.Solution) -> jax.Array:
        network = jr.to_network(program, solution.weights)
        return jnp.mean((network(X[valid]) - y[valid]) ** 2)

    @jax.jit
    def loss(log_lam: jax.Array, init: jr.Solution) -> tuple[Any, jax.Array]:
        def value(log_lam: jax.Array) -> tuple[jax.Array, jr.Solution]:
            solution = jr.solve(program, jnp.exp(log_lam), rtol=1e-9, init=init)
            return validation(solution), solution

        return jax.value_and_grad(value, has_aux=True)(log_lam)

    top = float(jr.lambda_max(program))
    log_lam = jnp.log(0.5 * top)
    optimizer = optax.adam(RATE)
    memory = optimizer.init(log_lam)
    rows = []
    solution = jr.solve(program, jnp.exp(log_lam))
    for step in track(range(5 if args.quick else STEPS), "descent"):
        (value, solution), slope = loss(log_lam, solution)
        rows.append({"step": step, "lam": float(jnp.exp(log_lam)), "loss": float(value),
                     "slope": float(slope)})  # fmt: skip
        change, memory = optimizer.update(slope, memory, log_lam)
        log_lam = optax.apply_updates(log_lam, change)
    (args.out / "hyper_gradient.csv").unlink(missing_ok=True)
    Table(args.out / "hyper_gradient.csv", ("step",)).add(rows)

    grid = np.geomspace(0.9 * top, 0.01 * top, 5 if args.quick else 40)
    path = jr.solve_path(program, grid)
    oracle = [float(validation(path[k])) for k in range(len(grid))]
    best = min(rows, key=lambda row: row["loss"])
    print(f"descent: loss {best['loss']:.5f} at lam {best['lam']:.4g}; grid: {min(oracle):.5f} at "
          f"{grid[int(np.argmin(oracle))]:.4g}")  # fmt: skip
    figure, panel = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    panel.semilogx(grid, oracle, color="0.6", label="grid")
    panel.plot([r["lam"] for r in rows], [r["loss"] for r in rows], "o-", ms=3, label="descent")
    panel.set_xlabel("lam")
    panel.set_ylabel("validation loss")
    panel.legend()
    figure.savefig(args.out / "hyper_gradient.png", dpi=150)


if __name__ == "__main__":
    main()
