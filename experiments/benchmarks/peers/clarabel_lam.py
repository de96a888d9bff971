"""CVXPY and Clarabel: one lam of the ReLU or the gated program as a second-order cone program.

The whole call is the first-call time; Clarabel's own clock is the steady time, and CVXPY's
compilation stands apart, as somebody who sweeps lam as a parameter would pay it once.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from worker import Collect, Solve, serve


def prepare(problem: dict[str, np.ndarray], settings: dict[str, Any]) -> tuple[Solve, Collect]:
    X, y, masks = problem["X"], problem["y"], problem["masks"].astype(np.float64)
    gated, index, tol = bool(problem["gated"]), settings["lam_index"], settings["tol"]
    lam = float(problem["lams"][index])
    num_signs, (d, p) = (1 if gated else 2), (X.shape[1], masks.shape[1])

    def solve() -> tuple[Any, dict[str, Any]]:
        # A new problem each time: CVXPY would start from the compiled one.
        weights = [cp.Variable((d, p)) for _ in range(num_signs)]
        fit = cp.sum(cp.multiply(masks, X @ (weights[0] - (0 if gated else weights[1]))), axis=1)
        penalty = sum(cp.sum(cp.norm(block, 2, axis=0)) for block in weights)
        cones = [] if gated else [cp.multiply(2 * masks - 1, X @ block) >= 0 for block in weights]
        program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(fit - y) + lam * penalty), cones)
        program.solve(
            solver=cp.CLARABEL, tol_gap_rel=tol, tol_gap_abs=tol, tol_feas=tol, verbose=False
        )
        facts = {
            "compile_seconds": program.compilation_time,
            "solver_seconds": program.solver_stats.solve_time,
            "message": program.status,
        }
        return [block.value for block in weights], facts

    def collect(values: Any) -> dict[str, np.ndarray]:
        weights = np.stack([value.T for value in values])
        return {"weights": weights if gated else weights[None], "lam_index": np.array([index])}

    return solve, collect


if __name__ == "__main__":
    serve(prepare, ["cvxpy", "clarabel"])
