"""celer: a path of the gated program by working sets and dual extrapolation.

celer minimises 1/(2n) ||y - A w||^2 + alpha sum_g ||w_g||, so alpha = lam / n; it needs the n x pd
matrix A = [D_1 X .. D_p X] itself.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from celer import celer_path
from worker import Collect, Solve, serve


def prepare(problem: dict[str, np.ndarray], settings: dict[str, Any]) -> tuple[Solve, Collect]:
    X, y, masks, lams = (problem[key] for key in ("X", "y", "masks", "lams"))
    (n, d), p = X.shape, masks.shape[1]
    A = np.asfortranarray((masks[:, :, None] * X[:, None, :]).reshape(n, p * d))

    def solve() -> tuple[Any, dict[str, Any]]:
        _, weights, _ = celer_path(
            A,
            y,
            "grouplasso",
            groups=d,
            alphas=lams / n,
            tol=settings["tol"],
            max_iter=settings.get("max_iter", 100),
        )
        return weights, {}

    def collect(weights: Any) -> dict[str, np.ndarray]:
        return {
            "weights": np.ascontiguousarray(weights.T).reshape(len(lams), p, d),
            "lam_index": np.arange(len(lams)),
        }

    return solve, collect


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(prepare, ["celer", "scikit-learn"])
