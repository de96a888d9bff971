"""The benchmark: jaxrelu and its peers side by side, one command.

    python experiments/benchmarks/run.py --data DIR --out DIR [--rows NAME ...] [--peers NAME ...]

For each row: jaxrelu samples the gates and lays out the path; jaxrelu and the peers that solve
paths then run in turns, each tool at each of its settings in a process of its own; the peers that
solve one lam at a time follow on a few lams; last, jaxrelu certifies (repairs and bounds) what
every tool returned. The output folder gets results.json, table.md and work_precision.png, rewritten
after every row; rows of earlier runs are kept until they are run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import problems
import report
import tools
from measure import num_blocks, objectives
from race import HERE, Limits, Worker, child_environment, in_turns

RUNNER = [sys.executable, str(HERE / "jaxrelu_runner.py")]


def main() -> None:
    args = _arguments()
    rows, peers = problems.select(args.rows), tools.select(args.peers)
    args.out.mkdir(parents=True, exist_ok=True)
    results_file = args.out / "results.json"
    results = json.loads(results_file.read_text()) if results_file.exists() else {}
    interpreters = {peer.name: tools.environment(peer, args.cache, args.pin) for peer in peers}
    for row in rows:
        print(f"== {row.name}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            results[row.name] = race_row(row, peers, interpreters, args, Path(scratch))
        results_file.write_text(json.dumps(results, indent=1))
        report.write(results, args.out)
    print((args.out / "table.md").read_text())


def race_row(
    row: problems.Row,
    peers: list[tools.Peer],
    interpreters: dict[str, Path],
    args: argparse.Namespace,
    scratch: Path,
) -> dict[str, Any]:
    """Everything about one row; the record that goes into results.json."""
    X, y = problems.load(row, args.data)
    problem_file, sampling = lay_out(row, X, y, scratch)
    with np.load(problem_file) as file:
        problem = dict(file)
    limits = Limits(args.cap, args.budget, args.threads, args.memory)
    ours = dataclasses.replace(limits, cap=5 * args.cap, memory=None, fewest=2)
    count = iter(range(10_000))

    def worker(tool: str, setting: tools.Setting) -> Worker:
        command = RUNNER
        if tool != "jaxrelu":
            script = next(peer.script for peer in peers if peer.name == tool)
            command = [str(interpreters[tool]), str(HERE / "peers" / script)]
        output = scratch / f"{next(count)}.npz"
        bounds = ours if tool == "jaxrelu" else limits
        return Worker(tool, setting, command, problem_file, output, bounds)

    paths = [worker("jaxrelu", s) for s in tools.jaxrelu_settings(row, args.methods)]
    singles = []
    for peer in peers:
        ladder = tools.ladder(peer, row, args.threads)
        if peer.name == "adelie" and args.threads > 1:
            ladder = _with_faster_thread_count(ladder, worker, args.threads)
        (singles if peer.single else paths).extend(worker(peer.name, s) for s in ladder)
    if args.labels:
        paths, singles = (
            [w for w in some if w.setting["label"] in args.labels] for some in (paths, singles)
        )
    in_turns(paths, args.repeats)
    for place, single in enumerate(singles):
        in_turns([single], args.repeats, below=singles[:place])

    done = [w for w in paths + singles if w.saved]
    if done:
        call_runner("certify", problem_file, *(w.output for w in done))
    settings = [_record(w, problem) for w in paths + singles]
    record = {
        "data": row.data,
        "n": X.shape[0],
        "d": X.shape[1],
        "gates": row.gates,
        "patterns": problem["masks"].shape[1],
        "sampling_seconds": sampling,
        "lams": [float(lam) for lam in problem["lams"]],
        "gated": row.gated,
        "threads": args.threads,
        "cap": args.cap,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "load": os.getloadavg()[0],
        "settings": settings,
    }
    _compare(record)
    for setting in settings:
        print("  " + report.one_line(setting), flush=True)
    return record


def lay_out(row: problems.Row, X: Any, y: Any, scratch: Path) -> tuple[Path, float]:
    """The problem file of a row, gates and lams included, and the seconds that it took."""
    inputs, problem_file = scratch / f"{row.name}.row.npz", scratch / f"{row.name}.npz"
    settings = {"num_gates": row.gates, "num_lams": row.lams, "ratio": row.ratio}
    np.savez(inputs, X=X, y=y, gated=row.gated, **settings)
    start = time.perf_counter()
    call_runner("gates", inputs, problem_file)
    return problem_file, time.perf_counter() - start


def _with_faster_thread_count(ladder: Any, worker: Any, threads: int) -> list[tools.Setting]:
    """The ladder at whichever of one thread and all threads is faster on its first rung."""
    trials = [worker("adelie", ladder[0] | {"threads": count}) for count in (threads, 1)]
    in_turns(trials, 1)
    fast = min(trials, key=lambda w: min((run["seconds"] for run in w.runs), default=np.inf))
    return [setting | {"threads": fast.setting["threads"]} for setting in ladder]


def _record(worker: Worker, problem: dict[str, np.ndarray]) -> dict[str, Any]:
    """Times, values and bounds of one tool at one setting; lists run along its lams."""
    record: dict[str, Any] = {
        "tool": worker.tool,
        **worker.setting,
        "status": worker.status,
        "versions": worker.facts.get("versions", {}),
        "runs": worker.runs,
    }
    if worker.runs:
        first, later = worker.runs[0], worker.runs[1:] or worker.runs[:1]
        record["compile_seconds"] = first.get("compile_seconds", 0.0)
        record["first_seconds"] = first["seconds"]
        record["seconds"] = statistics.median(r.get("solver_seconds", r["seconds"]) for r in later)
        record["peak_mib"] = max(run["peak_mib"] for run in later)
    if not worker.saved:
        return record
    with np.load(worker.output) as file:
        solved = dict(file)
    index, weights = solved["lam_index"], solved["weights"].astype(np.float64)
    data = (problem["X"], problem["y"], problem["masks"], problem["lams"][index])
    values, violations = objectives(*data, weights)
    with np.load(worker.output.with_suffix(".bounds.npz")) as file:
        bounds = dict(file)
    exact = "lower" in solved and solved["lower"].dtype == np.float64
    record["index"] = index.tolist()
    record["objective"] = values.tolist()
    record["violation"] = violations.tolist()
    record["blocks"] = num_blocks(weights)
    # A float32 certificate is checked again in float64; its own claim is kept beside it.
    record["lower"] = (solved if exact else bounds)["lower"].tolist()
    record["upper"] = (solved if exact else bounds)["upper"].tolist()
    if "status" in solved:
        record["optimal"] = int((solved["status"] == 0).sum())
        record["steps"] = int(solved["num_steps"].sum())
    return record


def _compare(record: dict[str, Any]) -> None:
    """Add the certified optimum of each lam and, to each setting, its worst errors."""
    num = len(record["lams"])
    lower, upper = np.full(num, -np.inf), np.full(num, np.inf)
    finished = [s for s in record["settings"] if "index" in s]
    for setting in finished:
        index = setting["index"]
        lower[index] = np.maximum(lower[index], setting["lower"])
        upper[index] = np.minimum(upper[index], setting["upper"])
    record["optimum"], record["optimum_lower"] = upper.tolist(), lower.tolist()
    record["optimum_gap"] = float(np.max((upper - lower) / np.abs(upper)))
    for setting in finished:
        index = setting["index"]
        own_upper, own_lower = np.array(setting["upper"]), np.array(setting["lower"])
        error = np.abs(np.array(setting["objective"]) - upper[index]) / np.abs(upper[index])
        setting["worst_error"] = float(error.max())
        setting["worst_violation"] = float(np.max(setting["violation"]))
        setting["worst_gap"] = float(np.max((own_upper - own_lower) / np.abs(own_upper)))
        whole = len(index) == num
        setting["complete"] = whole or "lam_index" in setting
        if not setting["complete"]:
            setting["status"] = f"stopped after {len(index)} of {num} lams"


def call_runner(action: str, *files: Path) -> None:
    subprocess.run([*RUNNER, action, *map(str, files)], check=True, env=child_environment())


def hardware() -> str:
    name = "unknown processor"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with uci/ and regression/")
    add("--out", type=Path, required=True, help="folder for results.json, table.md and the plot")
    add("--rows", nargs="+", help="names of rows; the default suite without")
    add("--peers", nargs="+", help="names of peers, or none; all without")
    add("--labels", nargs="+", help="settings to run, by their labels in the table; all without")
    add("--repeats", type=int, default=5, help="timed rounds after the first call")
    add(
        "--methods",
        nargs="+",
        default=["path", "grid", "solve", "float32"],
        choices=["path", "grid", "warm-grid", "solve", "float32", "grid-float32"],
        help="what of jaxrelu runs",
    )
    add("--threads", type=int, default=2, help="cores that every process is pinned to")
    add("--cap", type=float, default=120.0, help="seconds that one run of a peer may take")
    add("--budget", type=float, default=120.0, help="no setting starts a run after that many")
    add("--memory", type=float, default=12.0, help="GiB of address space of a peer")
    add("--pin", nargs="+", default=[], help='replace a requirement, such as "torch==2.8.0"')
    tools.add_cache_option(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
