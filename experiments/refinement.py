"""Refined patterns against sampled ones on the 17 sets of Table 2, with global certificates.

    python experiments/refinement.py --data DIR --out DIR [--rows N] [--sets ...] [--quick]

All rows of each set (or some), lam = 0.02 lambda_max. One program has 5,000 sampled gates, solved
along a path; `jr.refine` starts from the first 50 of them, may hold 100 patterns and has as long as
that path took, a minute at least. Times include the compilation for a set's shape. For five sets
the polar gauge of the refined residual gets a minute of its own. Writes refinement.csv,
refinement.md and a figure.
"""

from __future__ import annotations

import time
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from common import Row, Table, arguments, end_of_path, parser, sampled, uci
from optimal_accuracy import SETS

import jaxrelu as jr

SAMPLED, STARTED, HELD, SHARE = 5000, 50, 100, 0.02
GAUGED = ("fertility", "monks-1", "planning", "parkinsons", "statlog-heart")


def one(data: Path, name: str, rows: int | None, gates: int, seconds: float) -> Row:
    """Both ways on one set."""
    X, y = uci(data, name, rows)
    patterns = sampled(X, gates, 123)
    program = jr.ConvexProgram(X, y, patterns)
    lam = SHARE * float(jr.lambda_max(program))
    start = time.perf_counter()
    many = jax.block_until_ready(end_of_path(program, lam).certificate)
    sampling = time.perf_counter() - start
    few = jr.ConvexProgram(X, y, jax.tree.map(lambda leaf: leaf[:, :STARTED], patterns))
    start = time.perf_counter()
    found = jr.refine(few, lam, max_patterns=HELD, max_seconds=max(seconds, sampling))
    refining = time.perf_counter() - start
    # Below the optimum of the sampled program, also where that is known as an interval only.
    below = [r.work for r in found.history if r.upper < float(many.lower)]
    upper, lower = float(found.certificate.upper), float(found.certificate.lower)
    start = time.perf_counter()
    gauge = found.gauge
    if name in GAUGED:
        starts = np.asarray(found.network.hidden).T
        gauge = jr.polar_gauge(X, found.solution.residual, starts=starts, max_seconds=seconds)
    gauging = time.perf_counter() - start
    return {
        "dataset": name, "n": len(y), "d": X.shape[1], "lam": lam,
        "sampled": float(many.upper), "sampled_lower": float(many.lower),
        "sampled_seconds": round(sampling, 1),
        "refined": upper, "refined_seconds": round(refining, 1),
        "below_after": round(below[0], 1) if below else float("nan"),
        "patterns": found.program.patterns.num_patterns, "rounds": len(found.history),
        "neurons": found.network.num_neurons, "status": found.status.name,
        "correlation": gauge.lower / lam, "gauge_ratio": gauge.upper / gauge.lower,
        "gauge_by": gauge.upper_by, "gauge_seconds": round(gauging, 1),
        "global_gap": (upper - lower) / upper,
    }  # fmt: skip


def report(table: Table, out: Path) -> None:
    """The markdown table and the figure."""
    lines = [
        "| set | n x d | 5,000 sampled | s | refined | patterns | s | below after work "
        "| R upper/lower | by | global gap |",
        "|---" * 11 + "|",
    ]
    lines += [
        f"| {r['dataset']} | {r['n']} x {r['d']} | {float(r['sampled']):.6f} "
        f"| {r['sampled_seconds']} | {float(r['refined']):.6f} | {r['patterns']} "
        f"| {r['refined_seconds']} | {r['below_after']} | {float(r['gauge_ratio']):.3f} "
        f"| {r['gauge_by']} | {float(r['global_gap']):.1e} |"
        for r in table.rows
    ]
    (out / "refinement.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    names = [row["dataset"] for row in table.rows]
    excess = 100 * (table.column("sampled") / table.column("refined") - 1)
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.bar(range(len(names)), excess)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("objective of 5,000 sampled patterns\nabove refinement [%]")
    figure.savefig(out / "refinement.png", dpi=130)


def main() -> None:
    """Runs what is missing and reports."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, help="rows of each set at most; all without")
    options.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    args = arguments(options)
    sets, gates, seconds = args.sets, SAMPLED, 60.0
    if args.quick:
        sets, gates, seconds = ("fertility",), 200, 15.0
    table = Table(args.out / "refinement.csv", ("dataset",))
    for (name,) in table.missing([(name,) for name in sets], "refinement"):
        table.add([one(args.data, name, args.rows, gates, seconds)])
        jax.clear_caches()  # every set has shapes of its own
    report(table, args.out)


if __name__ == "__main__":
    main()
