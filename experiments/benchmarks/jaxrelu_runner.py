"""jaxrelu's own runs, in a process of their own like those of the peers.

    python jaxrelu_runner.py gates   INPUT.npz OUTPUT.npz          gates, masks, witnesses, lams
    python jaxrelu_runner.py certify PROBLEM.npz OUTPUT.npz ...    bounds for weights from anywhere
    python jaxrelu_runner.py cold    INPUT.npz path|solve CACHE    a line at each milestone
    python jaxrelu_runner.py PROBLEM.npz SETTINGS OUTPUT.npz       the protocol of worker.py

Compile time is what JAX's own events report for the backend compiler; the first call also traces
and lowers. Every run ends with block_until_ready on all leaves.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from worker import Collect, Solve, serve

import jaxrelu as jr

LOSSES = {
    "squared": jr.SquaredLoss(),
    "logistic": jr.LogisticLoss(),
    "poisson": jr.PoissonLoss(),
}
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


def make_program(problem: dict[str, np.ndarray], dtype: str) -> Any:
    """The program of a problem file; gates and masks are kept as they are, whatever the dtype."""
    interior = problem["interior"].astype(dtype) if "interior" in problem else None
    patterns = jr.Patterns(problem["gates"].astype(dtype), problem["masks"], interior=interior)
    kind = jr.GatedProgram if problem["gated"] else jr.ConvexProgram
    loss = LOSSES[str(problem.get("loss", "squared"))]
    return kind(problem["X"].astype(dtype), problem["y"].astype(dtype), patterns, loss)


def gates(source: Path, target: Path) -> None:
    """Sample gates with key 0 and lay out the path, from X, y, num_gates, lams, ratio, gated."""
    with np.load(source) as file:
        row = dict(file)
    gated = bool(row["gated"])
    patterns = jr.sample_patterns(
        jax.random.key(0), row["X"], num_gates=int(row["num_gates"]), gated=gated
    )
    kind = jr.GatedProgram if gated else jr.ConvexProgram
    loss = str(row.get("loss", "squared"))
    program = kind(row["X"], row["y"], patterns, LOSSES[loss])
    lams = jr.lambda_grid(program, num=int(row["num_lams"]), ratio=float(row["ratio"]))
    problem = {
        "loss": loss,
        "gates": patterns.gates,
        "masks": np.asarray(patterns.masks) > 0,
        "lams": lams,
    }
    if patterns.interior is not None:
        problem["interior"] = patterns.interior
    np.savez(target, X=row["X"], y=row["y"], gated=gated, **problem)


def cold(source: Path, what: str, cache: str) -> None:
    """From nothing to the first path, or to one solution; programs are kept in a folder or not."""
    if cache != "none":
        jr.enable_compilation_cache(cache)
    with np.load(source) as file:
        row = dict(file)
    print("imported", flush=True)
    patterns = jr.sample_patterns(jax.random.key(0), row["X"], num_gates=int(row["num_gates"]))
    print("gates sampled", flush=True)
    program = jr.ConvexProgram(row["X"], row["y"], patterns)
    lams = jr.lambda_grid(program, num=int(row["num_lams"]), ratio=float(row["ratio"]))
    print("lams laid out", flush=True)
    for time in ("done", "done again"):
        middle = lams[len(lams) // 2]
        found = jr.solve_path(program, lams) if what == "path" else jr.solve(program, middle)
        _block(found)
        print(time, flush=True)


def certify(source: Path, outputs: list[Path]) -> None:
    """Write lower and upper bounds beside each file of weights: OUTPUT.bounds.npz."""
    with np.load(source) as file:
        problem = dict(file)
    program = make_program(problem, "float64")
    for output in outputs:
        with np.load(output) as file:
            weights, index = file["weights"].astype(np.float64), file["lam_index"]
        lower, upper = np.full(len(index), -np.inf), np.full(len(index), np.inf)
        for k, lam in enumerate(problem["lams"][index]):
            if np.isfinite(weights[k]).all():
                certificate = jr.certify(program, lam, weights[k])
                lower[k], upper[k] = float(certificate.lower), float(certificate.upper)
        np.savez(output.with_suffix(".bounds.npz"), lower=lower, upper=upper)


def prepare(problem: dict[str, np.ndarray], settings: dict[str, Any]) -> tuple[Solve, Collect]:
    program = jax.block_until_ready(make_program(problem, settings["dtype"]))
    lams = jax.numpy.asarray(problem["lams"].astype(settings["dtype"]))
    method = settings["method"]
    options = {} if settings["rtol"] is None else {"rtol": settings["rtol"]}
    if method != "path":
        newton = jr.ActiveNewton(capacity=settings.get("capacity"))
        options["solver"] = jr.ADMM() if settings.get("splitting") else newton
    device = jax.devices()[0]
    compiled: list[float] = []

    def count(event: str, seconds: float, **_: Any) -> None:
        if event == _COMPILE_EVENT:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(count)

    def solve() -> tuple[Any, dict[str, Any]]:
        compiled.clear()
        if method == "path":
            result = jr.solve_path(program, lams, **options)
        elif method == "grid":
            warm = settings.get("warm_starts", False)
            result = jr.solve_grid(program, lams, warm_starts=warm, **options)
        else:
            result = [jr.solve(program, lam, **options) for lam in lams]
        _block(result)
        facts = {
            "compile_seconds": sum(compiled),
            "num_compiled": len(compiled),
            "device": f"{device.platform}: {device.device_kind}",
        }
        memory = device.memory_stats()
        if memory:
            facts["device_peak_mib"] = memory.get("peak_bytes_in_use", 0) / 2**20
        return result, facts

    def collect(result: Any) -> dict[str, np.ndarray]:
        def field(get: Any) -> np.ndarray:
            if isinstance(result, list):
                return np.stack([np.asarray(get(solution)) for solution in result])
            return np.asarray(get(result))

        return {
            "weights": field(lambda s: s.weights),
            "lam_index": np.arange(len(lams)),
            # A path keeps its bounds itself, a solution in its certificate.
            "lower": field(lambda s: getattr(s, "certificate", s).lower),
            "upper": field(lambda s: getattr(s, "certificate", s).upper),
            "status": field(lambda s: s.status),
            "num_steps": field(lambda s: s.num_steps),
        }

    return solve, collect


def _block(result: Any) -> None:
    """Wait for every array of a result, also of one that is not a pytree."""
    leaves = jax.tree_util.tree_leaves(result)
    if len(leaves) == 1 and leaves[0] is result:
        leaves = [value for _, value in inspect.getmembers(result) if isinstance(value, jax.Array)]
    jax.block_until_ready(leaves)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if sys.argv[1] == "gates":
        gates(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1] == "cold":
        cold(Path(sys.argv[2]), *sys.argv[3:5])
    elif sys.argv[1] == "certify":
        certify(Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
    else:
        serve(prepare, ["jax", "jaxlib", "numpy"])
