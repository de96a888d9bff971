"""How tight the bounds of the polar gauge are on real residuals, and how long they take.

    python experiments/polar_gauge_bounds.py --data DIR --out DIR [--quick]

Five sets with at most 200 rows, the residual of a refined solution at two shares of lambda_max, and
one minute for each gauge. Writes polar_gauge_bounds.csv and polar_gauge_bounds.md.
"""

from __future__ import annotations

import time
from pathlib import Path

import jax
import numpy as np
from common import Row, Table, arguments, parser, sampled, uci

import jaxrelu as jr

SETS = ("fertility", "monks-1", "planning", "parkinsons", "statlog-heart")
SHARES = (0.1, 0.02)
ROWS, STARTED, HELD = 200, 50, 100


def one(data: Path, name: str, share: float, seconds: float) -> Row:
    """The interval of one residual."""
    X, y = uci(data, name, ROWS)
    program = jr.ConvexProgram(X, y, sampled(X, STARTED, 123))
    lam = share * float(jr.lambda_max(program))
    found = jr.refine(program, lam, max_patterns=HELD, max_seconds=seconds)
    start = time.perf_counter()
    gauge = jr.polar_gauge(
        X,
        found.solution.residual,
        starts=np.asarray(found.network.hidden).T,
        max_seconds=seconds,
    )
    elapsed = time.perf_counter() - start
    return {
        "dataset": name, "n": len(y), "d": X.shape[1], "share": share, "lam": lam,
        "lower": gauge.lower, "upper": gauge.upper, "ratio": gauge.upper / gauge.lower,
        "upper_by": gauge.upper_by, "correlation": gauge.lower / lam,
        "seconds": round(elapsed, 1),
    }  # fmt: skip


def report(table: Table, out: Path) -> None:
    """The markdown table."""
    lines = [
        "| set | n x d | lam / lambda_max | R / lam | upper / lower | by | s |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {r['dataset']} | {r['n']} x {r['d']} | {r['share']} | {float(r['correlation']):.6f} "
        f"| {float(r['ratio']):.4f} | {r['upper_by']} | {r['seconds']} |"
        for r in table.rows
    ]
    (out / "polar_gauge_bounds.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Runs what is missing and reports."""
    args = arguments(parser(__doc__))
    sets, seconds = (("fertility",), 10.0) if args.quick else (SETS, 60.0)
    shares = SHARES[:1] if args.quick else SHARES
    table = Table(args.out / "polar_gauge_bounds.csv", ("dataset", "share"))
    for name, share in table.missing([(n, s) for s in shares for n in sets], "polar gauge"):
        table.add([one(args.data, name, share, seconds)])
        jax.clear_caches()  # every set has shapes of its own
    report(table, args.out)


if __name__ == "__main__":
    main()
