"""Random small degenerate problems: no global certificate may be wrong, nearly all must close.

Problems of up to 12 rows and rank up to 4, with duplicate, parallel, opposite and zero rows, ranks
that are missing, integer data, one class; squared and logistic loss. `jr.refine` starts from two
sampled patterns, and its certificate, and those of `jr.certify_global` for random networks and for
one near the optimum, are compared with the optimum over all cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import Floats, Table, arguments, parser

import jaxrelu as jr
from jaxrelu.global_optimality.pattern_pool import PatternPool

ROWS, FEATURES = 12, 4
PLACES = 32  # of the refinement
ALL_CELLS = 512  # at least the number of cells of any problem here
SHARES = (0.5, 0.2, 0.05, 0.01, 0.001)  # lam / lambda_max


def random_problem(seed: int) -> tuple[Floats, Floats, Floats, Any]:
    """X (12, 4), y, sample weights (zero on rows that fill up) and a loss."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, ROWS + 1)), int(rng.integers(1, FEATURES + 1))
    kind = rng.integers(4)
    Z = rng.standard_normal((n, k)) if kind < 2 else rng.integers(-2, 3, (n, k)).astype(float)
    if kind == 1:
        Z[:, 0] = 1.0
    X = np.zeros((ROWS, FEATURES))
    if rng.random() < 0.5:
        X[:n, :k] = Z
    else:
        X[:n] = Z @ rng.standard_normal((k, FEATURES))
    for _ in range(rng.integers(0, 3)):
        i, j = rng.integers(n, size=2)
        X[i] = X[j] * rng.choice([1.0, -1.0, 2.0, -0.5])
    if not X.any():
        X[0, 0] = 1.0
    loss: Any = jr.SquaredLoss() if rng.random() < 0.5 else jr.LogisticLoss()
    y = np.where(rng.random(ROWS) < rng.choice([0.5, 0.5, 1.0]), 1.0, -1.0)
    if isinstance(loss, jr.SquaredLoss) and rng.random() < 0.5:
        y = rng.standard_normal(ROWS)
    weight = np.ones(ROWS)
    weight[n:] = 0.0
    return X, y, weight, loss


def in_places(program: jr.ConvexProgram, places: int) -> jr.ConvexProgram:
    """The program with free places, so that all problems have one compiled shape."""
    count = program.patterns.num_patterns
    return PatternPool(program, places, np.arange(count)).program()


def check(seed: int) -> dict[str, Any]:
    """One problem: the certified interval, that over all cells, and whether they contradict."""
    X, y, weight, loss = random_problem(seed)
    row: dict[str, Any] = {"seed": seed, "loss": type(loss).__name__}
    cells = jr.enumerate_patterns(X)
    every = in_places(jr.ConvexProgram(X, y, cells, loss, weight), ALL_CELLS)
    largest = float(jr.lambda_max(every))
    share = float(np.random.default_rng(seed + 10**9).choice(SHARES))
    lam = share * largest if largest > 1e-12 else 1.0
    exact = jr.solve_path(every, [lam], rtol=1e-9)[0].certificate
    start = jr.ConvexProgram(X, y, first_patterns(seed, X, cells), loss, weight)
    found = jr.refine(in_places(start, PLACES), lam, max_patterns=PLACES, max_work=600.0)
    lower, upper = float(found.certificate.lower), float(found.certificate.upper)
    best = float(exact.upper)
    slack = 1e-9 * max(abs(best), 1e-9)
    wrong = lower > best + slack or upper < float(exact.lower) - slack
    closed = found.status == jr.Status.OPTIMAL
    wrong |= closed and upper > best * (1 + 2e-6) + slack
    # Networks from anywhere: random ones, and the refined one moved a little.
    rng = np.random.default_rng(seed + 2 * 10**9)
    hidden, output = np.asarray(found.network.hidden), np.asarray(found.network.output)
    for network in (
        jr.Network(rng.standard_normal((FEATURES, 3)), rng.standard_normal(3)),
        jr.Network(hidden + 1e-3 * rng.standard_normal(hidden.shape), output),
    ):
        other = jr.certify_global(network, X, y, lam, loss, sample_weight=weight)
        wrong |= float(other.lower) > best + slack
        wrong |= float(other.upper) < float(exact.lower) - slack
    return row | {
        "share": share,
        "status": found.status.name,
        "upper": upper,
        "lower": lower,
        "all_cells": best,
        "rounds": len(found.history),
        "patterns": found.program.patterns.num_patterns,
        "false": bool(wrong),
    }


def first_patterns(seed: int, X: Floats, cells: jr.Patterns) -> jr.Patterns:
    """Two sampled patterns, or the first cell where no sampled one can be used."""
    try:
        return jr.sample_patterns(jax.random.key(seed), X, 2)
    except ValueError:
        assert cells.interior is not None
        return jr.Patterns(cells.gates[:, :1], cells.masks[:, :1], cells.interior[:, :1])


def main(out: Path, count: int) -> None:
    """Runs what is missing, and prints the two numbers that matter."""
    table = Table(out / "fuzz_certificates.csv", ("seed",))
    for (seed,) in table.missing([(seed,) for seed in range(count)], "fuzz"):
        table.add([check(seed)])
    false = sum(row["false"] == "True" for row in table.rows)
    closed = sum(row["status"] == "OPTIMAL" for row in table.rows)
    print(f"{len(table.rows)} problems: {false} false certificates, {closed} closed to 1e-6")


if __name__ == "__main__":
    args = arguments(parser(__doc__, data=False))
    main(args.out, 12 if args.quick else 2000)
