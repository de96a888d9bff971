"""skglm: a path of the gated program, its group lasso warm-started from lam to lam.

skglm minimises 1/n sum_i l(A w, y) + alpha sum_g ||w_g||, so alpha = lam / n; it needs the n x pd
matrix A = [D_1 X .. D_p X] itself. Its first call compiles with numba. The squared loss has an
estimator (block coordinate descent); logistic and Poisson loss go to its prox-Newton solver.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from skglm import GroupLasso
from skglm.datafits import LogisticGroup, PoissonGroup
from skglm.penalties import WeightedGroupL2
from skglm.solvers import GroupProxNewton
from skglm.utils.data import grp_converter
from skglm.utils.jit_compilation import compiled_clone
from worker import Collect, Solve, serve


def prepare(problem: dict[str, np.ndarray], settings: dict[str, Any]) -> tuple[Solve, Collect]:
    X, y, masks, lams = (problem[key] for key in ("X", "y", "masks", "lams"))
    (n, d), p = X.shape, masks.shape[1]
    A = np.asfortranarray((masks[:, :, None] * X[:, None, :]).reshape(n, p * d))
    loss = str(problem.get("loss", "squared"))

    def solve_squared() -> tuple[Any, dict[str, Any]]:
        model = GroupLasso(d, fit_intercept=False, warm_start=True, tol=settings["tol"])
        weights = []
        for lam in lams:
            model.alpha = lam / n
            weights.append(model.fit(A, y).coef_.copy())
        return weights, {}

    def solve_smooth() -> tuple[Any, dict[str, Any]]:
        indices, starts = grp_converter(d, p * d)
        datafit = {"logistic": LogisticGroup, "poisson": PoissonGroup}[loss](starts, indices)
        datafit = compiled_clone(datafit)
        penalty = compiled_clone(WeightedGroupL2(1.0, np.ones(p), starts, indices))
        newton = GroupProxNewton(tol=settings["tol"], max_iter=1_000, fit_intercept=False)
        weights, point, fit = [], np.zeros(p * d), np.zeros(n)
        for lam in lams:
            penalty.alpha = lam / n
            point = newton.solve(A, y, datafit, penalty, point, fit)[0]
            fit = A @ point
            weights.append(point.copy())
        return weights, {}

    def collect(weights: Any) -> dict[str, np.ndarray]:
        return {
            "weights": np.stack(weights).reshape(len(lams), p, d),
            "lam_index": np.arange(len(lams)),
        }

    return solve_squared if loss == "squared" else solve_smooth, collect


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(prepare, ["skglm", "numba"])
