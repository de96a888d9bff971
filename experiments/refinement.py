"""Refined patterns against sampled ones on the 17 sets of Table 2, with global certificates.

    python experiments/refinement.py --data DIR --out DIR [--quick]

The first training split of `optimal_accuracy.py` and its lam. One program has 5,000 sampled gates,
solved along a path; `jr.refine` starts from the first 50 of them and may hold 100 patterns. Both
times include compilation of nothing but what a set's shape needs. Writes refinement.csv,
refinement.md and a figure: objectives, the time at which refinement is below the sampled program,
and how far the polar gauge's interval and the global gap were closed.
"""

from __future__ import annotations

import time
from pathlib import Path

import matplotlib.pyplot as plt
from common import Row, Table, arguments, at_end_of_path, parser, sampled, split, uci
from optimal_accuracy import LAM, SETS

import jaxrelu as jr

SAMPLED, STARTED, HELD, SECONDS = 5000, 50, 100, 60.0


def one(data: Path, name: str, gates: int, seconds: float) -> Row:
    """Both ways on one set."""
    X, y = uci(data, name)
    rest, _ = split(len(y), 0.8, 650)
    keep, _ = split(len(rest), 0.25, 0)
    X, y = X[rest[keep]], y[rest[keep]]
    lam = LAM * len(y)
    start = time.perf_counter()
    many = at_end_of_path(jr.ConvexProgram(X, y, sampled(X, gates, 123)), lam).certificate
    sampling = time.perf_counter() - start
    few = jr.ConvexProgram(X, y, sampled(X, STARTED, 123))
    start = time.perf_counter()
    found = jr.refine(few, lam, max_patterns=HELD, max_seconds=seconds)
    refining = time.perf_counter() - start
    below = [r.seconds for r in found.history if r.upper < float(many.upper)]
    upper, lower = float(found.certificate.upper), float(found.certificate.lower)
    return {
        "dataset": name, "n": len(y), "d": X.shape[1], "lam": lam,
        "sampled": float(many.upper), "sampled_lower": float(many.lower),
        "sampled_seconds": round(sampling, 1),
        "refined": upper, "refined_seconds": round(refining, 1),
        "below_after": round(below[0], 1) if below else float("nan"),
        "patterns": found.program.patterns.num_patterns, "rounds": len(found.history),
        "neurons": found.network.num_neurons, "status": found.status.name,
        "correlation": found.gauge.lower / lam,
        "gauge_ratio": found.gauge.upper / found.gauge.lower,
        "gauge_by": found.gauge.upper_by,
        "global_gap": (upper - lower) / upper,
    }  # fmt: skip


def report(table: Table, out: Path) -> None:
    """The markdown table and the figure."""
    lines = [
        "| set | n x d | 5,000 sampled | s | refined | patterns | s | below after s "
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
    args = arguments(parser(__doc__))
    sets, gates, seconds = (("fertility",), 200, 5.0) if args.quick else (SETS, SAMPLED, SECONDS)
    table = Table(args.out / "refinement.csv", ("dataset",))
    for (name,) in table.missing([(name,) for name in sets], "refinement"):
        table.add([one(args.data, name, gates, seconds)])
    report(table, args.out)


if __name__ == "__main__":
    main()
