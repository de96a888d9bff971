"""adelie: a path of the ReLU or the gated program by block coordinate descent in C++.

adelie minimises 1/n sum_i l(f, y) + lam' sum_b penalty_b ||theta_b||, so lam' = lam / n with unit
penalties, no intercept and no early exit. Its convex_relu matrix is [D_1 X .. D_p X, -D_1 X ..],
which is our order of blocks, positive signs first; the cone of a block is the linear constraint
-(2 D_j - I) X theta <= 0. The default penalty would be sqrt(d).

On problems of this size two threads are often slower than one, by far so on a busy machine; the
suite tries both at the default tolerance and climbs the ladder with the faster.
"""

from __future__ import annotations

import warnings
from typing import Any

import adelie as ad
import numpy as np
from worker import Collect, Solve, serve


def prepare(problem: dict[str, np.ndarray], settings: dict[str, Any]) -> tuple[Solve, Collect]:
    X, y, masks, lams = (problem[key] for key in ("X", "y", "masks", "lams"))
    gated = bool(problem["gated"])
    (n, d), p = X.shape, masks.shape[1]
    blocks = p if gated else 2 * p
    features, on = np.asfortranarray(X), np.asfortranarray(masks)
    threads, constraint_tol = settings["threads"], settings.get("constraint_tol")

    configs: dict[str, float] = {}
    if constraint_tol is not None:
        # At the default caps the cone solver gives up at these tolerances and ends the path.
        configs = {
            "tol": min(1e-9, constraint_tol),
            "nnls_tol": constraint_tol,
            "pinball_tol": constraint_tol,
            "max_iters": 1_000,
            "nnls_max_iters": 10_000_000,
            "pinball_max_iters": 10_000_000,
        }
    below, zero = np.full(n, -np.inf), np.zeros(n)
    constraints = None
    if not gated:
        # Kept in a list: adelie holds references, and the two signs share one matrix.
        cones = [np.ascontiguousarray(np.where(masks[:, j, None], -X, X)) for j in range(p)]
        constraints = [
            ad.constraint.linear(cone, below, zero, configs=dict(configs))
            for _ in range(2)
            for cone in cones
        ]

    glm = {
        "squared": lambda: ad.glm.gaussian(y, dtype=np.float64),
        "logistic": lambda: ad.glm.binomial((y + 1) / 2, dtype=np.float64),
        "poisson": lambda: ad.glm.poisson(y, dtype=np.float64),
    }[str(problem.get("loss", "squared"))]

    def solve() -> tuple[Any, dict[str, Any]]:
        state = ad.grpnet(
            ad.matrix.convex_relu(features, on, gated=gated, n_threads=threads),
            glm(),
            constraints=constraints,
            groups=np.arange(blocks) * d,
            penalty=np.ones(blocks),
            lmda_path=lams / n,
            intercept=False,
            early_exit=False,
            progress_bar=False,
            n_threads=threads,
            tol=settings["tol"],
            irls_tol=settings["tol"],
            max_iters=settings["max_iters"],
        )
        return state, {"threads": threads, "message": str(state.error)[:200]}

    def collect(state: Any) -> dict[str, np.ndarray]:
        weights = state.betas.toarray()
        shape = (p, d) if gated else (2, p, d)
        return {
            "weights": weights.reshape(len(weights), *shape),
            "lam_index": np.arange(len(weights)),
        }

    return solve, collect


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(prepare, ["adelie", "numpy"])
