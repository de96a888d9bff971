"""From nothing to the first path: fresh processes of jaxrelu, its command, adelie and Clarabel.

    python experiments/benchmarks/cold_start.py --data DIR --out DIR [--row NAME] [--repeats 5]

Every number is the median over processes, which run one at a time and in turns, of the seconds from
the start of a process to the end of its work, imports and compilation included. Peers get the gates
and lams that jaxrelu made; what they do not do themselves they need not wait for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import problems
import tools
from race import HERE, Limits, Worker, child_environment
from run import hardware, lay_out

RUNNER = str(HERE / "jaxrelu_runner.py")
# One thread for LAPACK, as everywhere in the benchmark and in the command.
THREADS = {"OPENBLAS_NUM_THREADS": "1"}

Seconds = dict[str, float]


def main() -> None:
    args = _arguments()
    row = problems.select([args.row])[0]
    X, y = problems.load(row, args.data)
    peers = tools.select(args.peers)
    interpreters = {peer.name: tools.environment(peer, args.cache, []) for peer in peers}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        problem, _ = lay_out(row, X, y, scratch)
        inputs = scratch / f"{row.name}.row.npz"
        ways: dict[str, Callable[[], Seconds]] = {
            "jaxrelu, path": lambda: milestones(inputs, "path", "none"),
            "jaxrelu, path, programs kept": lambda: milestones(inputs, "path", folder),
            "jaxrelu, one solve": lambda: milestones(inputs, "solve", "none"),
            "jaxrelu path, the command": lambda: command(scratch, empty=True),
            "jaxrelu path, programs kept": lambda: command(scratch, empty=False),
        }
        for peer in peers:
            setting = tools.ladder(peer, row, args.threads)[0]
            python = str(interpreters[peer.name])
            words = [python, str(HERE / "peers" / peer.script)]
            ways[f"{peer.name}, {setting['label']}"] = lambda w=words, s=setting, p=peer: first_run(
                Worker(
                    p.name,
                    s,
                    w,
                    problem,
                    scratch / "peer.npz",
                    Limits(args.cap, args.cap, args.threads),
                )
            )
        milestones(inputs, "path", folder)
        command(scratch, empty=False)
        runs: dict[str, list[Seconds]] = {way: [] for way in ways}
        for _ in range(args.repeats):
            for way, run in ways.items():
                runs[way].append(run())
                print(way, {k: round(v, 2) for k, v in runs[way][-1].items()}, flush=True)
    when = f"{row.name}, {hardware()}, {time.strftime('%Y-%m-%d')}, {args.repeats} processes each"
    text = f"{when}\n\n{table(runs)}\n"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cold_start.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


def milestones(inputs: Path, what: str, cache: str) -> Seconds:
    """Seconds from the start of a process of jaxrelu to each line that it prints."""
    start, passed = time.perf_counter(), {}
    with subprocess.Popen(
        [sys.executable, RUNNER, "cold", str(inputs), what, cache],
        stdout=subprocess.PIPE, text=True, env=child_environment() | THREADS,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            passed[line.strip()] = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError("the process of jaxrelu failed; its words are above")
    return passed


def command(scratch: Path, *, empty: bool) -> Seconds:
    """Seconds of the bare command, from prompt to prompt."""
    kept = scratch / "kept"
    environment = os.environ | {"XDG_CACHE_HOME": str(kept)}
    words = [sys.executable, "-m", "jaxrelu", "path", "--out", str(scratch / "out")]
    if empty:
        environment["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=scratch)
    start = time.perf_counter()
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)
    return {"done": time.perf_counter() - start}


def first_run(worker: Worker) -> Seconds:
    """Seconds until a peer has its first answer."""
    start = time.perf_counter()
    try:
        worker.start()
        ready = time.perf_counter() - start
        worker.run()
        done = time.perf_counter() - start
    finally:
        worker.close()
    return {"imported": ready, "done": done if worker.status == "ok" else np.nan}


def table(runs: dict[str, list[Seconds]]) -> str:
    """One line a way, one column a milestone; medians."""
    columns = list(dict.fromkeys(name for some in runs.values() for run in some for name in run))
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " --: |" * len(columns)]
    for way, some in runs.items():
        shown = [
            f"{statistics.median(run[name] for run in some):.1f}" if name in some[0] else ""
            for name in columns
        ]
        lines.append(f"| {way} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with uci/ and regression/")
    add("--out", type=Path, required=True, help="folder for cold_start.md")
    add("--row", default="breast-cancer-100", help="a row of the suite")
    add("--repeats", type=int, default=5, help="processes of each way")
    add("--peers", nargs="+", default=["adelie", "clarabel"], help="names of peers, or none")
    add("--cap", type=float, default=600.0, help="seconds that a peer may take")
    add("--threads", type=int, default=2, help="cores of a peer")
    tools.add_cache_option(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
