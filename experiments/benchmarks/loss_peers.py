"""The gated program with logistic and Poisson loss: skglm and adelie beside `solve_path`.

    python experiments/benchmarks/loss_peers.py --data DIR --out DIR [--repeats 3] [--losses NAME]

100 gates, 20 lams to 0.01 lambda_max, float64; Poisson counts are rates in units of their mean,
which is the same program as an offset and which every tool can pose. Each setting is a process of
its own, all run in turns; seconds are medians after the first call. *Off by* is the raw objective
above the best certified lower bound, relative, at the worst lam. Writes `loss_peers.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tools
from losses import GATES, LABELLED, LAMS, RATIO, REAL, read
from race import HERE, Limits, Worker, in_turns
from report import markdown
from run import RUNNER, call_runner, hardware

ROWS = {"logistic": LABELLED, "poisson": REAL}
PEERS = ("skglm", "adelie")
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10)


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with uci/ and regression/")
    add("--out", type=Path, required=True, help="folder for loss_peers.md")
    add("--repeats", type=int, default=3, help="timed rounds after the first call")
    add("--losses", nargs="+", choices=list(ROWS), default=list(ROWS), help="all without")
    add("--cap", type=float, default=60.0, help="seconds that one run of a peer may take")
    tools.add_cache_option(parser)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    peers = {peer: tools.environment(peer, args.cache, []) for peer in tools.select([*PEERS])}
    header = ["loss", "set", "tool", "setting", "first, s", "s", "off by", "note"]
    lines: list[list[str]] = []
    for loss in args.losses:
        for table in ROWS[loss]:
            with tempfile.TemporaryDirectory() as scratch:
                found = race(loss, args.data / f"{table}.csv.gz", peers, args, Path(scratch))
            named = [[loss, Path(table).name, *line] for line in found]
            print("\n".join(" | ".join(line) for line in named), flush=True)
            lines += named
    when = f"{hardware()}, {time.strftime('%Y-%m-%d')}, medians of {args.repeats}, in turns"
    text = "\n".join([when, "", *markdown(header, lines), ""])
    (args.out / "loss_peers.md").write_text(text, encoding="utf-8")


def race(
    loss: str,
    table: Path,
    peers: dict[tools.Peer, Path],
    args: argparse.Namespace,
    scratch: Path,
) -> list[list[str]]:
    """Every tool at every tolerance on one set."""
    X, y = read(table)
    if loss == "poisson":
        y = np.round(y) / np.round(y).mean()
    row, problem = scratch / "row.npz", scratch / "problem.npz"
    size = {"num_gates": GATES, "num_lams": LAMS, "ratio": RATIO}
    np.savez(row, X=X, y=y, gated=True, loss=loss, **size)
    call_runner("gates", row, problem)
    ours = [tools.path_at(rtol) for rtol in (1e-6, 1e-9)]
    workers = [
        Worker(
            "jaxrelu", setting, RUNNER, problem, scratch / f"ours{k}.npz", Limits(600, np.inf, 2)
        )
        for k, setting in enumerate(ours)
    ]
    for peer, interpreter in peers.items():
        command = [str(interpreter), str(HERE / "peers" / peer.script)]
        for tol in TOLERANCES:
            setting = {"label": f"tol {tol:g}", "tol": tol, "threads": 1, "max_iters": 10**7}
            output = scratch / f"{peer.name}{tol:g}.npz"
            limits = Limits(args.cap, 2 * args.cap, 2)
            workers.append(Worker(peer.name, setting, command, problem, output, limits))
    in_turns(workers, args.repeats)
    call_runner("certify", problem, *(worker.output for worker in workers if worker.saved))
    lower = np.max([bounds(worker)[0] for worker in workers if worker.saved], axis=0)
    return [line(worker, lower) for worker in workers]


def bounds(worker: Worker) -> Any:
    """Lower and upper (2, L) of what a worker saved; (-inf, inf) where it ended early."""
    found = np.stack([np.full(LAMS, -np.inf), np.full(LAMS, np.inf)])
    with np.load(worker.output) as saved:
        index = saved["lam_index"]
    with np.load(worker.output.with_suffix(".bounds.npz")) as file:
        found[:, index] = file["lower"], file["upper"]
    return found


def line(worker: Worker, lower: Any) -> list[str]:
    """One line of the table."""
    name, label = worker.tool, str(worker.setting["label"])
    if not worker.saved:
        return [name, label, "", "", "", worker.status]
    upper = bounds(worker)[1]
    off = float(np.max((upper - lower) / np.abs(upper))) if np.isfinite(upper).all() else np.nan
    seconds = [run["seconds"] for run in worker.runs]
    note = worker.status if worker.status != "ok" else str(worker.runs[0].get("message", ""))
    middle = f"{statistics.median(seconds[1:]):.3g}" if len(seconds) > 1 else ""
    off_by = f"{off:.0e}" if np.isfinite(off) else "ended early"
    return [name, label, f"{seconds[0]:.3g}", middle, off_by, note]


if __name__ == "__main__":
    main()
