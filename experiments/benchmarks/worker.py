"""The child's side of the subprocess protocol; any peer can import it, NumPy is all it needs.

    python SCRIPT PROBLEM.npz SETTINGS OUTPUT.npz

PROBLEM.npz holds X (n, d), y (n,), masks (n, p), gates (d, p), lams (L,), gated; SETTINGS is JSON.
The child prepares (imports, data structures; not timed), answers one JSON line and then obeys one
line at a time on its standard input, each answered by one JSON line:

    run    solve once from scratch, timed in the child
    save   write OUTPUT.npz: weights (k, 2, p, d), or (k, p, d) for the gated program, and
           lam_index (k,), the positions in lams of those k solutions; a path that stopped early
           has fewer than L

What a library prints goes to standard error, so it cannot break a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

import numpy as np

Solve = Callable[[], tuple[Any, dict[str, Any]]]
Collect = Callable[[Any], Mapping[str, np.ndarray]]
Prepare = Callable[[dict[str, np.ndarray], dict[str, Any]], tuple[Solve, Collect]]


def serve(prepare: Prepare, packages: Iterable[str]) -> None:
    """Run the protocol until standard input ends.

    Args:
        prepare: from the problem's arrays and the settings to `solve` and `collect`. `solve`
            returns an opaque result and a dictionary of facts for the JSON line: compile_seconds,
            solver_seconds (when the tool's own clock is the fairer one), or anything else.
            `collect` turns the last result into the arrays of OUTPUT.npz, outside of the timing.
        packages: distributions whose versions the table names.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**facts: Any) -> None:
        channel.write(json.dumps(facts) + "\n")
        channel.flush()

    problem_path, settings, output_path = sys.argv[1:4]
    with np.load(problem_path) as problem:
        solve, collect = prepare(dict(problem), json.loads(settings))
    result = None
    held = resident_mib()
    versions = {name: metadata.version(name) for name in packages}
    answer(ready=True, held_mib=held, versions=versions)
    for line in sys.stdin:
        command = line.strip()
        if command == "run":
            reset_peak()
            start = time.perf_counter()
            result, facts = solve()
            seconds = time.perf_counter() - start
            answer(seconds=seconds, peak_mib=peak_mib() - held, **facts)
        elif command == "save":
            np.savez(output_path, **collect(result))
            answer(saved=True)


def _status_mib(field: str) -> float:
    """A field of /proc/self/status such as VmRSS or VmHWM, in MiB."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field):
                return float(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status")


def resident_mib() -> float:
    """What the process holds now."""
    try:
        return _status_mib("VmRSS")
    except OSError:
        return _high_water_mib()


def reset_peak() -> None:
    """Forget the high-water mark, so that each run reports its own (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as handle:
        handle.write("5")


def peak_mib() -> float:
    """The high-water mark since `reset_peak`, of the whole process."""
    try:
        return _status_mib("VmHWM")
    except OSError:
        return _high_water_mib()


def _high_water_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
