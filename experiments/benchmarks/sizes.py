"""The figures of the performance page that are no race: one command makes them again.

    python experiments/benchmarks/sizes.py --data DIR --out DIR [--only NAME ...] [--quick]

threads  a path with one and with two threads in LAPACK, beside XLA's own
lanes    solve_grid of few lams, some at a time, beside a Python loop of solve, in turns
memory   a large path in one process; the peak of solve_grid beside `estimate_memory`
samples  one lam of 100,000 samples, by solve_path and by solve
set      a minimal network, samples of a polytope, the exact path
oracle   the polar gauge in two and three dimensions, its ascents, and refinement
cache    the first path of a fresh process, with JAX's cache of compiled code on disk

Everything is measured in processes of its own (`worker.py`, `size_cases.py`). The output folder
gets sizes.json, rewritten after every part; parts of an earlier run stay until they are run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
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
from race import HERE, Limits, Worker, child_environment, in_turns
from rich.console import Console
from rich.table import Table
from run import RUNNER, hardware, lay_out

Record = dict[str, Any]
_AGREE = 1e-6


def main() -> None:
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "sizes.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    if args.quick:  # what one process compiles, the next need not
        cache_folder = tempfile.TemporaryDirectory()
        os.environ |= _keep(Path(cache_folder.name))
    for name in args.only:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            rows = PARTS[name](args, Path(scratch))
        facts = {"date": time.strftime("%Y-%m-%d"), "hardware": hardware(), "quick": args.quick}
        facts |= {"threads": args.threads, "took": time.perf_counter() - start}
        results[name] = facts | {"rows": rows}
        file.write_text(json.dumps(results, indent=1))
        _show(f"{name}, in {facts['took']:.0f} s", rows)


def threads(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """A path with one and with two threads in LAPACK."""
    problem, _ = _suite("small-20" if args.quick else "breast-cancer-100", args, scratch)
    counts = (1, 2)
    workers = [_path(problem, f"blas {k}", args, blas_threads=k) for k in counts]
    in_turns(workers, args.repeats)
    return [
        {"row": problem.stem, "OPENBLAS_NUM_THREADS": count} | _times(worker)
        for count, worker in zip(counts, workers, strict=True)
    ]


def lanes(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """`solve_grid` at some widths beside a loop of `solve`; float leaves must agree."""
    names, num, widths = args.rows, args.lams, (1, 4, 16)
    if args.quick:
        names, num, widths = ["small-20"], 8, (1, 8)
    found = []
    for name in names:
        problem, _ = _suite(name, args, scratch, lams=num)
        answers = _case("lanes", problem, args.repeats, *widths)
        loop = statistics.median(answers[0]["seconds"])
        for answer in answers:
            seconds, width = statistics.median(answer["seconds"]), answer["width"]
            call = f"solve_grid, {width} at a time" if width else "loop of solve"
            agrees = answer["equal"] and answer["difference"] <= _AGREE
            found.append(
                {"row": name, "lams": num, "call": call}
                | {"seconds": seconds, "over the loop": seconds / loop}
                | {"steps needed": answer["needed"], "executed": answer["executed"]}
                | {"efficiency": answer["needed"] / max(answer["executed"], 1)}
                | {"OPTIMAL": f"{answer['optimal']}/{num}"}
                | {"largest difference": answer["difference"], "agrees": agrees}
            )
    return found


def scouted(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """Lanes with a scout on the rows of the suite: how many of their Newton steps are needed."""
    rows = problems.select(["small-20"] if args.quick else args.rows)
    found = []
    for row in rows:
        problem, _ = lay_out(row, *problems.load(row, args.data), scratch)
        answer = _case("scouted", problem, args.lanes, row.capacity or 0)
        found.append(
            {"row": row.name, "lams": row.lams, "lanes": args.lanes}
            | {"first call, s": answer["seconds"]}
            | {"steps needed": answer["needed"], "executed": answer["executed"]}
            | {"efficiency": answer["needed"] / max(answer["executed"], 1)}
            | {"OPTIMAL": f"{answer['optimal']}/{row.lams}"}
        )
    return found


def memory(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """A large path, and the peak of a grid beside its estimate."""
    n, d, gates, lams = (100, 9, 20, 5) if args.quick else (5000, 50, 2000, 100)
    row = problems.Row("path", "planted", gates, lams, 0.2)
    problem, sampling = lay_out(row, *problems.planted(n, d), scratch)
    worker = _path(problem, "path", args)
    in_turns([worker], 0)
    sizes = {"n x d": f"{n} x {d}", "gates": gates, "lams": lams, "sampling, s": sampling}
    found = [{"call": "solve_path"} | sizes | _once(worker)]
    gates = gates if args.quick else gates // 10
    row = dataclasses.replace(row, name="grid", gates=gates, lams=8, ratio=0.3)
    problem, _ = lay_out(row, *problems.planted(n, d), scratch)
    for width in (1, 8):
        answer = _case("memory", problem, width)
        measured, estimate = (answer[f"{key}_mib"] for key in ("measured", "estimate"))
        found.append(
            {"call": f"solve_grid, {width} at a time", "n x d": f"{n} x {d}", "gates": gates}
            | {"lams": 8, "seconds": answer["seconds"]}
            | {"peak of the grid, GB": _gigabytes(measured)}
            | {"estimate_memory, GB": _gigabytes(estimate), "ratio": estimate / measured}
        )
    return found


def samples(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """One lam of very many samples to a gap of 1e-4."""
    n, d, gates = (9000, 5, 20) if args.quick else (100_000, 50, 200)
    row = problems.Row("samples", "planted", gates, 2, 0.3)
    problem, sampling = lay_out(row, *problems.planted(n, d), scratch)
    with np.load(problem) as file:
        arrays = dict(file)
    np.savez(problem, **arrays | {"lams": arrays["lams"][-1:]})
    found = []
    for method in ("path", "solve"):
        worker = _path(problem, method, args, method=method, rtol=1e-4)
        in_turns([worker], 0)
        call = {"call": "solve_path" if method == "path" else "solve"}
        sizes = {"n x d": f"{n} x {d}", "gates": gates, "sampling, s": sampling}
        found.append(call | sizes | _once(worker))
    return found


def optimal_sets(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """Sizes of the pages on optimal sets."""
    n, neurons = (20, 100) if args.quick else (500, 2000)
    answer = _case("network", n, neurons, args.repeats)
    result = f"{answer['left']} left, fit changed by {answer['change']:.0e}"
    found = [(f"minimal network of {neurons} neurons on {n} samples", answer, result)]
    dimension, number = (5, 500) if args.quick else (50, 10_000)
    answer = _case("polytope", dimension, number)
    result = f"worth {answer['worth']:.0f} or more, equations kept to {answer['error']:.0e}"
    found.append((f"{number} samples of a polytope of {dimension} dimensions", answer, result))
    problem, _ = _suite("small-20", args, scratch, lams=2, ratio=0.5 if args.quick else 0.1)
    answer = _case("breakpoints", problem, min(args.repeats, 3))
    count = answer["breakpoints"]
    result = f"{count} breakpoints, {count / answer['seconds']:.3g} a second"
    result += "" if answer["complete"] else ", not to the end"
    found.append(("follow_path, fertility, 20 gates", answer, result))
    return _timed_rows(found)


def _timed_rows(found: list[tuple[str, Any, str]]) -> list[Record]:
    return [
        {"what": what, "first call, s": answer["first"], "seconds": answer["seconds"]}
        | {"result": result}
        for what, answer, result in found
    ]


def oracles(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """Sizes of the page on global optimality."""
    found = []
    for n, rank in ((20, 2), (30, 3)) if args.quick else ((200, 2), (200, 3), (1000, 3)):
        answer = _case("gauge", n, rank, args.repeats)
        result = f"{answer['by']}, upper/lower - 1 = {answer['ratio'] - 1:.0e}"
        found.append((f"polar_gauge of {n} x {rank}", answer, result))
    n, d, starts = (50, 5, 20) if args.quick else (1000, 30, 1000)
    answer = _case("ascents", n, d, starts, args.repeats)
    found.append((f"{starts} ascents on {n} x {d}", answer, f"best {answer['best']:.6g}"))
    name, seconds = ("small-20", 15) if args.quick else ("breast-cancer-100", 60)
    problem, _ = _suite(name, args, scratch, lams=2, ratio=0.3)
    answer = _case("refinement", problem, seconds)
    result = f"{answer['status']}, {answer['patterns']} patterns, global gap {answer['gap']:.0e}"
    found.append((f"refine, {name}, 0.3 lambda_max", answer, result))
    return _timed_rows(found)


def cache(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """The first path of a fresh process, without and with compiled code of an earlier one."""
    problem, _ = _suite("small-20" if args.quick else "breast-cancer-100", args, scratch)
    found = []
    # JAX keeps what took a second to compile, unless it is told to keep everything.
    ways = {
        "none": ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, ("first",)),
        "as it is": (_keep(scratch / "some", 1), ("first", "second")),
        "of everything": (_keep(scratch / "all"), ("first", "second")),
    }
    if args.quick:
        del ways["as it is"]
    for name, (variables, processes) in ways.items():
        for process in processes:
            worker = _path(problem, f"{name} {process}", args, environment=variables)
            in_turns([worker], 0)
            times = _times(worker)
            del times["steady state, s"]
            found.append({"row": problem.stem, "cache": name, "process": process} | times)
    return found


def _keep(folder: Path, seconds: float = 0) -> dict[str, str]:
    """Variables with which JAX keeps on disk what took so long to compile.

    XLA then says of everything that it loads that tuning flags are no features of the processor.
    """
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(seconds),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


PARTS = {
    "threads": threads,
    "lanes": lanes,
    "scouted": scouted,
    "memory": memory,
    "samples": samples,
    "set": optimal_sets,
    "oracle": oracles,
    "cache": cache,
}


def _suite(
    name: str, args: argparse.Namespace, scratch: Path, **changes: Any
) -> tuple[Path, float]:
    """The problem file of a row of the suite, with other lams perhaps."""
    row = dataclasses.replace(*problems.select([name]), **changes)
    return lay_out(row, *problems.load(row, args.data), scratch)


def _path(problem: Path, label: str, args: argparse.Namespace, **changes: Any) -> Worker:
    """A worker that solves the path of a problem at rtol 1e-6, or what is said otherwise."""
    setting = {"label": label, "method": "path", "rtol": 1e-6, "dtype": "float64"}
    limits = Limits(args.cap, args.cap, args.threads, fewest=args.repeats + 1)
    output = problem.parent / f"{label}.out.npz"
    return Worker(
        "jaxrelu", setting | {"blas_threads": 1} | changes, RUNNER, problem, output, limits
    )


def _times(worker: Worker) -> Record:
    """First call, compilation and steady state of a worker that has run."""
    if worker.status != "ok":
        raise RuntimeError(f"{worker.setting['label']}: {worker.status}")
    first, later = worker.runs[0], worker.runs[1:] or worker.runs[:1]
    with np.load(worker.output) as file:
        status = file["status"]
    return {
        "first call, s": first["seconds"],
        "of it compiling, s": first["compile_seconds"],
        "steady state, s": statistics.median(run["seconds"] for run in later),
        "OPTIMAL": f"{int((status == 0).sum())}/{len(status)}",
    }


def _once(worker: Worker) -> Record:
    """What one run took, compilation included, and what its process held at most."""
    times = _times(worker)
    with np.load(worker.output) as file:
        weights, lower, upper = file["weights"], file["lower"], file["upper"]
    return {
        "seconds": times["first call, s"],
        "of it compiling, s": times["of it compiling, s"],
        "OPTIMAL": times["OPTIMAL"],
        "worst gap": float(np.max((upper - lower) / np.abs(upper))),
        "neurons": int((np.abs(weights[-1]).max(axis=-1) > 0).sum()),
        "whole process, GB": _gigabytes(worker.facts["held_mib"] + worker.runs[0]["peak_mib"]),
    }


def _case(name: str, *words: Any) -> Any:
    """The answer of a case of `size_cases.py`."""
    command = [sys.executable, str(HERE / "size_cases.py"), name, *map(str, words)]
    environment = child_environment() | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _gigabytes(mib: float) -> float:
    return mib * 2**20 / 1e9


def _show(name: str, rows: list[Record]) -> None:
    console = Console()
    console.width = max(console.width, 140)
    for columns, group in itertools.groupby(rows, key=list):
        table = Table(*columns, title=name)
        for row in group:
            table.add_row(*map(_text, row.values()))
        console.print(table)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with uci/ and regression/")
    add("--out", type=Path, required=True, help="folder for sizes.json")
    add("--only", nargs="+", default=list(PARTS), choices=PARTS, help="parts; all without")
    add("--quick", action="store_true", help="small sizes, one repeat: tries the machinery")
    rows = ["breast-cancer-100", "fertility-500", "concrete-200"]
    add("--rows", nargs="+", default=rows, help="rows of the suite for the lanes and the scout")
    add("--lams", type=int, default=16, help="lams for the lanes")
    add("--lanes", type=int, default=8, help="lanes beside the scout")
    add("--repeats", type=int, default=5, help="timed rounds after the first call")
    add("--threads", type=int, default=2, help="cores that a worker is pinned to")
    add("--cap", type=float, default=3600.0, help="seconds that one run may take")
    args = parser.parse_args()
    args.repeats = 1 if args.quick else args.repeats
    return args


if __name__ == "__main__":
    main()
