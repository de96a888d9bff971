"""pyscnn: one lam of the ReLU program (augmented Lagrangian) or of the gated one (R-FISTA).

pyscnn minimises 1/(2n) ||f - y||^2 + lam' sum_b ||theta_b||, so lam' = lam / n, without a bias and
without scaling the columns of X to unit norm (that would change the penalty). It sorts the
patterns, so its blocks are put back in our order by their gates; it opens a gate at X g > 0 where
we do at X g >= 0, which differs on rows of zeros only, where D_j X is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scnn.metrics import Metrics
from scnn.models import ConvexGatedReLU, ConvexReLU
from scnn.optimize import optimize_model
from scnn.regularizers import NeuronGL1
from scnn.solvers import AL, RFISTA
from worker import Collect, Solve, serve


def prepare(problem: dict[str, np.ndarray], settings: dict[str, Any]) -> tuple[Solve, Collect]:
    X, y, gates = problem["X"], problem["y"], problem["gates"]
    gated, index, tol = bool(problem["gated"]), settings["lam_index"], settings["tol"]
    caps = settings["max_iters"]
    lam = float(problem["lams"][index])
    n, p = len(y), gates.shape[1]
    position = {gates[:, j].tobytes(): j for j in range(p)}

    def solve() -> tuple[Any, dict[str, Any]]:
        if gated:
            model = ConvexGatedReLU(gates.copy())
            solver = RFISTA(model, max_iters=caps, tol=tol)
        else:
            model = ConvexReLU(gates.copy())
            solver = AL(
                model,
                max_primal_iters=caps,
                max_dual_iters=caps,
                tol=tol,
                constraint_tol=tol,
            )
        model, _ = optimize_model(
            model,
            solver,
            Metrics(),
            X,
            y,
            regularizer=NeuronGL1(lam / n),
            return_convex=True,
            unitize_data=False,
            dtype="float64",
        )
        return model, {}

    def collect(model: Any) -> dict[str, np.ndarray]:
        blocks = np.stack([np.asarray(block)[0] for block in model.parameters])
        ours = [position[np.ascontiguousarray(gate).tobytes()] for gate in model.G.T]
        weights = np.zeros((len(blocks), p, X.shape[1]))
        weights[:, ours] = blocks
        return {"weights": weights if gated else weights[None], "lam_index": np.array([index])}

    return solve, collect


if __name__ == "__main__":
    serve(prepare, ["pyscnn", "torch"])
