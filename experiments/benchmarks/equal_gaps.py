"""At equal certified gap: each setting of adelie against jaxrelu at the gap that it ends with.

    python experiments/benchmarks/equal_gaps.py --data DIR --out DIR [--rows NAME ...] [--repeats 5]

adelie climbs its ladder once. A setting that ends within the cap, for all lams, with a worst gap of
at most 0.1 (once `certify` has repaired its weights) then runs in turns with `solve_path` at that
gap as rtol; medians after the first call. Writes `equal_gaps.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import problems
import tools
from race import HERE, Limits, Worker, in_turns
from report import markdown
from run import RUNNER, call_runner, hardware, lay_out

LARGEST_GAP = 0.1


def main() -> None:
    args = _arguments()
    peer = tools.select(["adelie"])[0]
    interpreter = tools.environment(peer, args.cache, [])
    args.out.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = []
    for row in problems.select(args.rows):
        with tempfile.TemporaryDirectory() as scratch:
            lines += pairs(row, peer, interpreter, args, Path(scratch))
        header = ["row", "adelie", "its worst gap", "adelie, s", "jaxrelu at that gap, s", "times"]
        when = f"{hardware()}, {time.strftime('%Y-%m-%d')}, medians of {args.repeats}, in turns"
        text = "\n".join([when, "", *markdown(header, lines), ""])
        (args.out / "equal_gaps.md").write_text(text, encoding="utf-8")
    print(text)


def pairs(
    row: problems.Row,
    peer: tools.Peer,
    interpreter: Path,
    args: argparse.Namespace,
    scratch: Path,
) -> list[list[str]]:
    """The lines of one row."""
    X, y = problems.load(row, args.data)
    problem, _ = lay_out(row, X, y, scratch)
    limits = Limits(args.cap, np.inf, args.threads)

    def worker(tool: str, setting: tools.Setting, name: str) -> Worker:
        script = [str(interpreter), str(HERE / "peers" / peer.script)]
        command = RUNNER if tool == "jaxrelu" else script
        own = limits if tool == "adelie" else Limits(10 * args.cap, np.inf, args.threads)
        return Worker(tool, setting, command, problem, scratch / f"{name}.npz", own)

    # One thread: two are slower on rows of this size.
    rungs = tools.ladder(peer, row, 1)
    climbed = [worker("adelie", setting, f"rung{k}") for k, setting in enumerate(rungs)]
    in_turns(climbed, 0)
    saved = [w for w in climbed if w.saved]
    call_runner("certify", problem, *(w.output for w in saved))
    lines = []
    for one in saved:
        gap = worst_gap(one.output, row.lams)
        if not gap <= LARGEST_GAP:
            continue
        ours = worker("jaxrelu", tools.path_at(gap), "ours")
        theirs = worker("adelie", one.setting, "theirs")
        in_turns([theirs, ours], args.repeats)
        a, b = seconds(theirs), seconds(ours)
        label = str(one.setting["label"])
        line = [row.name, label, f"{gap:.0e}", f"{a:.3g}", f"{b:.3g}", f"{a / b:.2f}"]
        print(" | ".join(line), theirs.status, ours.status, flush=True)
        lines.append(line)
    return lines


def worst_gap(output: Path, lams: int) -> float:
    """Of a whole path once it is repaired; infinite where lams are missing."""
    with np.load(output.with_suffix(".bounds.npz")) as bounds:
        lower, upper = bounds["lower"], bounds["upper"]
    return float(np.max((upper - lower) / np.abs(upper))) if len(upper) == lams else np.inf


def seconds(worker: Worker) -> float:
    """The median of the runs after the first."""
    runs: list[dict[str, Any]] = worker.runs[1:]
    return statistics.median(run["seconds"] for run in runs) if runs else np.nan


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with uci/ and regression/")
    add("--out", type=Path, required=True, help="folder for equal_gaps.md")
    add("--rows", nargs="+", help="names of rows; the default suite without")
    add("--repeats", type=int, default=5, help="timed rounds after the first call")
    add("--threads", type=int, default=2, help="cores that every process is pinned to")
    add("--cap", type=float, default=120.0, help="seconds that one run of adelie may take")
    tools.add_cache_option(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
