"""What `sizes.py` measures in a process of its own: one case, answered by one JSON line.

python size_cases.py lanes       PROBLEM.npz REPEATS WIDTH ...   solve_grid beside a loop of solve
python size_cases.py scouted     PROBLEM.npz WIDTH CAPACITY      solve_grid with warm starts
python size_cases.py memory      PROBLEM.npz LANES               peak of solve_grid, its estimate
python size_cases.py network     SAMPLES NEURONS REPEATS         a minimal network
python size_cases.py polytope    DIMENSION SAMPLES               random optimal networks
python size_cases.py breakpoints PROBLEM.npz REPEATS             follow_path to the last lam
python size_cases.py gauge       SAMPLES RANK REPEATS            the exact polar gauge
python size_cases.py ascents     SAMPLES FEATURES STARTS REPEATS local maxima of the polar gauge
python size_cases.py refinement  PROBLEM.npz SECONDS             refine at the last lam
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxrelu_runner import make_program
from worker import peak_mib, reset_peak, resident_mib

import jaxrelu as jr

MIB = 2**20


def lanes(problem: str, repeats: int, *widths: int) -> list[dict[str, Any]]:
    """A loop of `solve` and `solve_grid` at each width, in turns; one record each."""
    program, lams = load(problem)
    told = Told()

    def grid(width: int) -> Any:
        return jr.solve_grid(program, lams, lam_batch_size=width)

    ways: dict[int, Callable[[], Any]] = {0: lambda: [jr.solve(program, lam) for lam in lams]}
    ways |= {width: lambda width=width: grid(width) for width in widths}
    seconds: dict[int, list[float]] = {way: [] for way in ways}
    answers: dict[int, Any] = {}
    steps: dict[int, tuple[int, int]] = {}
    for turn in range(1 + repeats):
        for way, run in ways.items():
            told.steps = None
            taken, answer = timed(run)
            if turn:  # the first one compiles
                seconds[way].append(taken)
            if way == 0:
                answer = jax.tree.map(lambda *leaves: jnp.stack(leaves), *answer)
            alone = int(answer.num_steps.sum())
            answers[way], steps[way] = answer, told.steps or (alone, alone)
    return [
        {
            "width": way,
            "seconds": seconds[way],
            "needed": steps[way][0],
            "executed": steps[way][1],
            "optimal": int((answers[way].status == 0).sum()),
            "equal": bool((answers[way].status == answers[0].status).all()),
            "difference": difference(answers[0], answers[way]),
        }
        for way in ways
    ]


def scouted(problem: str, width: int, capacity: int) -> dict[str, Any]:
    """One `solve_grid` in which lams start from each other, compilation included."""
    program, lams = load(problem)
    told, solver = Told(), jr.ActiveNewton(capacity=capacity or None)
    seconds, answer = timed(
        lambda: jr.solve_grid(program, lams, lam_batch_size=width, warm_starts=True, solver=solver)
    )
    assert told.steps is not None
    return {
        "seconds": seconds,
        "needed": told.steps[0],
        "executed": told.steps[1],
        "optimal": int((answer.status == 0).sum()),
    }


class Told(logging.Handler):
    """Keeps the Newton steps, needed and executed, that the last grid told the logger."""

    steps: tuple[int, int] | None = None

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("jaxrelu").addHandler(self)
        logging.getLogger("jaxrelu").setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        _, needed, executed = record.args
        self.steps = (needed, executed)


def difference(one: Any, other: Any) -> float:
    """Largest difference of the float leaves at any lam, each relative to its largest entry.

    A gap, which is a difference itself, is compared in units of the values.
    """
    worst = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            continue
        size = one.certificate.upper if a is one.certificate.gap else a
        flat = [np.asarray(x).reshape(len(a), -1) for x in (a - b, size)]
        change, largest = (np.abs(x).max(axis=1) for x in flat)
        worst = max(worst, float(np.max(change / np.maximum(largest, 1e-300))))
    return worst


def memory(problem: str, width: int) -> dict[str, Any]:
    """Peak of a second `solve_grid`, above what the process holds without it, and its estimate."""
    program, lams = load(problem)
    program = jax.device_put(program)

    def run() -> float:
        return timed(lambda: jr.solve_grid(program, lams, lam_batch_size=width))[0]

    run()
    trim()
    held = resident_mib()
    reset_peak()
    seconds = run()
    # The estimate counts the program, which is held before and after.
    own = sum(leaf.nbytes for leaf in jax.tree.leaves(program)) / MIB
    measured = peak_mib() - held + own
    estimate = jr.estimate_memory(program, lams, lam_batch_size=width) / MIB
    return {"seconds": seconds, "measured_mib": measured, "estimate_mib": estimate}


def trim() -> None:
    """Gives freed memory back, as far as the C library can, so that it is not held twice."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def network(samples: int, neurons: int, repeats: int) -> dict[str, Any]:
    """A random network to a minimal one."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, 20))
    hidden = jnp.asarray(rng.standard_normal((20, neurons)))
    large = jr.Network(hidden, jnp.asarray(rng.standard_normal(neurons)))
    times = [timed(lambda: jr.minimal(large, X)) for _ in range(1 + repeats)]
    small, fit = times[-1][1], np.asarray(large(X))
    return steady(times) | {
        "left": small.num_neurons,
        "change": float(np.linalg.norm(small(X) - fit) / np.linalg.norm(fit)),
    }


def polytope(dimension: int, samples: int) -> dict[str, Any]:
    """Samples of {a >= 0 : Z a = Z a0} of a given dimension, sum a = 1 among its equations."""
    rng = np.random.default_rng(0)
    k = 2 * dimension
    features = np.vstack([np.ones(k), rng.standard_normal((k - dimension - 1, k))])
    inside = rng.dirichlet(np.full(k, 10.0))
    X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
    program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
    # Any optimal set, with the coefficients of this polytope in place of its own.
    optima = dataclasses.replace(
        jr.optimal_set(program, jr.solve(program, 0.5)),
        features=jnp.asarray(features),
        counts=jnp.ones(len(features), bool),
        interior=jnp.asarray(inside),
        support=jnp.ones(k, bool),
        dimension=dimension,
    )
    first, _ = timed(lambda: jr.sample_optimal(jax.random.key(0), optima, samples))
    second, drawn = timed(lambda: jr.sample_optimal(jax.random.key(1), optima, samples))
    drawn = np.asarray(drawn)
    return {
        "first": first,
        "seconds": second,
        "error": float(np.abs(drawn @ features.T - features @ inside).max()),
        "worth": float(np.nanmin(jr.effective_sample_size(drawn))),
    }


def breakpoints(problem: str, repeats: int) -> dict[str, Any]:
    """The exact path down to the last lam of the problem."""
    program, lams = load(problem)
    times = [timed(lambda: jr.follow_path(program, lams[-1])) for _ in range(1 + repeats)]
    path = times[-1][1]
    return steady(times) | {"breakpoints": len(path.breakpoints), "complete": path.complete}


def gauge(samples: int, rank: int, repeats: int) -> dict[str, Any]:
    """The polar gauge of Gaussian data and residual."""
    rng = np.random.default_rng(0)
    X, r = rng.standard_normal((samples, rank)), rng.standard_normal(samples)
    times = [timed(lambda: jr.polar_gauge(X, r)) for _ in range(1 + repeats)]
    found = times[-1][1]
    return steady(times) | {"by": found.upper_by, "ratio": found.upper / found.lower}


def ascents(samples: int, features: int, starts: int, repeats: int) -> dict[str, Any]:
    """Local maxima of the polar gauge alone, without work on an upper bound."""
    rng = np.random.default_rng(0)
    X, r = rng.standard_normal((samples, features)), rng.standard_normal(samples)

    def run() -> Any:
        return jr.polar_gauge(X, r, num_starts=starts, max_work=0.0)

    times = [timed(run) for _ in range(1 + repeats)]
    return steady(times) | {"best": times[-1][1].lower}


def refinement(problem: str, seconds: int) -> dict[str, Any]:
    """`refine` from the patterns of a problem, in a process that has compiled it, and before."""
    program, lams = load(problem)
    times = [
        timed(lambda: jr.refine(program, lams[-1], max_seconds=float(seconds))) for _ in range(2)
    ]
    found = times[-1][1]
    gap = float(found.certificate.gap / found.certificate.upper)
    return steady(times) | {
        "status": found.status.name,
        "patterns": found.program.patterns.num_patterns,
        "gap": gap,
    }


def steady(times: list[tuple[float, Any]]) -> dict[str, float]:
    """The first call, and the median of the later ones."""
    later = statistics.median(taken for taken, _ in times[1:])
    return {"first": times[0][0], "seconds": later}


def load(problem: str) -> tuple[Any, Any]:
    """Program and lams of a problem file."""
    with np.load(problem) as file:
        arrays = dict(file)
    return make_program(arrays, "float64"), jnp.asarray(arrays["lams"])


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out, computed to its end."""
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - start, result


_ALL = (lanes, scouted, memory, network, polytope, breakpoints, gauge, ascents, refinement)
CASES = {case.__name__: case for case in _ALL}

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    words = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    print(json.dumps(CASES[sys.argv[1]](*words)))
