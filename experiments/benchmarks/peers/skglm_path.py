"""skglm: a path of the gated program, its group lasso warm-started from lam to lam.

skglm minimises 1/(2n) ||y - A w||^2 + alpha sum_g ||w_g||, so alpha = lam / n; it needs the n x pd
matrix A = [D_1 X .. D_p X] itself. Its first call compiles with numba.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from skglm import GroupLasso
from worker import Collect, Solve, serve


def prepare(problem: dict[str, np.ndarray], settings: dict[str, Any]) -> tuple[Solve, Collect]:
    X, y, masks, lams = (problem[key] for key in ("X", "y", "masks", "lams"))
    (n, d), p = X.shape, masks.shape[1]
    A = np.asfortranarray((masks[:, :, None] * X[:, None, :]).reshape(n, p * d))

    def solve() -> tuple[Any, dict[str, Any]]:
        model = GroupLasso(d, fit_intercept=False, warm_start=True, tol=settings["tol"])
        weights = []
        for lam in lams:
            model.alpha = lam / n
            weights.append(model.fit(A, y).coef_.copy())
        return weights, {}

    def collect(weights: Any) -> dict[str, np.ndarray]:
        return {
            "weights": np.stack(weights).reshape(len(lams), p, d),
            "lam_index": np.arange(len(lams)),
        }

    return solve, collect


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(prepare, ["skglm", "numba"])
