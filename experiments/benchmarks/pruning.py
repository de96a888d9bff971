"""To a minimal network: `minimal`, with one factorisation, beside one quadratic program a neuron.

    python experiments/benchmarks/pruning.py --data DIR [--cap 120]

The published procedure asks of one neuron after the other whether its feature is a combination of
the others, min ||beta||^2 s.t. sum_k beta_k z_k = z_j, takes a step along the first answer and
begins again, until it has asked all and none is. Its solver is a commercial one; here the programs
go to CVXPY and Clarabel (`pip install -e '.[all,test]'`), and their compilation is not counted.
Cases: optimal networks of UCI sets as published (half of the rows, 25 gates, lam = 0.01 n), and
random networks of more neurons than samples, where there is something to remove.

Prints a table: neurons before and after, seconds, programs solved, their time, and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import cvxpy as cp
import numpy as np
from rich import print as show
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import Floats, at_end_of_path, sampled, split, uci  # noqa: E402

import jaxrelu as jr  # noqa: E402

REPEATS = 5
# The solver's own accuracy is 1e-8; a step along a wrong combination would change the fit.
_DEPENDENT = 1e-6


def published(network: jr.Network, X: Floats, cap: float) -> tuple[int, int, float, bool]:
    """Neurons left, programs solved, seconds in the solver, and whether it ended within the cap."""
    output = np.asarray(network.output)
    columns = np.maximum(X @ np.asarray(network.hidden), 0.0) * output
    columns = columns[:, np.linalg.norm(columns, axis=0) > 0]
    solved, seconds = 0, 0.0
    found = True
    while found and columns.shape[1] > 1:
        found = False
        for victim in range(columns.shape[1]):
            others = np.delete(columns, victim, axis=1)
            beta = cp.Variable(others.shape[1])
            constraint = others @ beta == columns[:, victim]
            problem = cp.Problem(cp.Minimize(cp.sum_squares(beta)), [constraint])
            try:
                problem.solve(solver=cp.CLARABEL)
            except cp.SolverError:
                beta.value = None
            solved += 1
            seconds += problem.solver_stats.solve_time if problem.solver_stats else 0.0
            if seconds > cap:
                return columns.shape[1], solved, seconds, False
            if beta.value is None:
                continue
            error = np.linalg.norm(others @ beta.value - columns[:, victim])
            if error > _DEPENDENT * np.linalg.norm(columns[:, victim]):
                continue
            factors = np.insert(beta.value, victim, -1.0)
            largest = int(np.argmax(np.abs(factors)))
            columns = np.delete(columns * (1 - factors / factors[largest]), largest, axis=1)
            found = True
            break
    return columns.shape[1], solved, seconds, True


def cases(data: Path) -> list[tuple[str, jr.Network, Floats]]:
    """Names, networks and the data that their fit is kept on."""
    found = []
    for name in ("fertility", "monks-1", "planning"):
        X, y = uci(data, name)
        train, _ = split(len(y), 0.5, 650)
        program = jr.ConvexProgram(X[train], y[train], sampled(X[train], 25, 123))
        solution = at_end_of_path(program, 0.01 * len(train))
        network = jr.to_network(program, solution.weights).compact()
        found.append((f"{name}, optimal", network, X[train]))
    rng = np.random.default_rng(0)
    for n, neurons in ((50, 100), (100, 300)):
        X = uci(data, "planning")[0][:n]
        hidden = rng.standard_normal((X.shape[1], neurons))
        network = jr.Network(hidden, rng.standard_normal(neurons))
        found.append((f"planning, {n} rows, random", network, X))
    return found


def main() -> None:
    """Times every case and prints the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True, help="folder with uci/")
    options.add_argument("--cap", type=float, default=120.0, help="seconds in the solver, a case")
    args = options.parse_args()
    columns = ("case", "neurons", "minimal", "ms", "QP a neuron: neurons", "programs", "s", "ratio")
    table = Table(*columns)
    for name, network, X in cases(args.data):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            small = jr.minimal(network, X)
            times.append(time.perf_counter() - start)
        ours = statistics.median(times)
        left, solved, seconds, ended = published(network, X, args.cap)
        table.add_row(
            name, str(network.num_neurons), str(small.num_neurons), f"{1000 * ours:.2f}",
            str(left) if ended else f"{left}, not ended", str(solved), f"{seconds:.3g}",
            f"{'' if ended else '> '}{seconds / ours:.0f}",
        )  # fmt: skip
    show(table)


if __name__ == "__main__":
    main()
