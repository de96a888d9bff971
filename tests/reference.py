"""Slow twins of the package in plain NumPy and SciPy: loops over samples and blocks, no JAX.

They state the problem once more, independently: the cone of pattern j is {u : K_j u >= 0} with
K_j = (2 D_j - I) X; the fit is sum_j D_j X (v_j - w_j); the loss is a weighted sum over samples.
Losses are named "squared", "logistic", "squared_hinge", "poisson", "huber" (quadratic up to
HUBER_DELTA, linear beyond), and with kinks "hinge", "absolute", "quantile" (that of QUANTILE).
Weights are (2, p, d) for the ReLU program and (p, d) for the gated one.
"""

import math
import warnings

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import expit, xlogy

HUBER_DELTA = 0.5
QUANTILE = 0.3


def _ones(y, sample_weight):
    return np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)


def cone_matrix(X, mask):
    """K = (2 D - I) X."""
    return np.array([row if inside else -row for row, inside in zip(X, mask, strict=True)])


def project_cone(point, X, mask):
    """Euclidean projection on {u : K u >= 0} and its multipliers, by NNLS on Moreau's dual.

    The projection is point + K^T rho with rho = argmin_{rho >= 0} ||point + K^T rho||.
    """
    K = cone_matrix(X, mask)
    multipliers, _ = nnls(K.T, -np.asarray(point, dtype=float))
    return point + K.T @ multipliers, multipliers


def max_margin_direction(X, mask):
    """The unit direction with the largest margin min_i (2 d_i - 1) x_i.u / ||x_i||, and the margin.

    Non-zero rows only; the cone must have an interior. It is argmin ||u|| : K u >= 1 for unit rows,
    a least distance problem, solved by NNLS (Lawson and Hanson, chapter 23).
    """
    norms = np.linalg.norm(X, axis=1)
    K = cone_matrix(X[norms > 0] / norms[norms > 0, None], np.asarray(mask)[norms > 0])
    system = np.vstack([K.T, np.ones(len(K))])
    target = np.zeros(len(system))
    target[-1] = 1.0
    multipliers, distance = nnls(system, target)
    if distance < 1e-12:
        raise ValueError("the cone has an empty interior")
    shortest = (system @ multipliers - target)[:-1]
    direction = shortest / np.linalg.norm(shortest)
    return direction, float((K @ direction).min())


def sample_loss(fit, target, loss="squared"):
    """The loss of one sample."""
    if loss == "squared":
        return (fit - target) ** 2 / 2
    if loss == "huber":
        size = abs(fit - target)
        return size**2 / 2 if size <= HUBER_DELTA else HUBER_DELTA * (size - HUBER_DELTA / 2)
    if loss == "squared_hinge":
        return max(1 - target * fit, 0.0) ** 2 / 2
    if loss == "hinge":
        return max(1 - target * fit, 0.0)
    if loss == "absolute":
        return abs(fit - target)
    if loss == "quantile":
        return max(QUANTILE * (target - fit), (QUANTILE - 1) * (target - fit))
    if loss == "poisson":
        constant = target * math.log(target) - target if target > 0 else 0.0
        return math.exp(fit) - target * fit + constant
    margin = target * fit
    return math.log1p(math.exp(-margin)) if margin > 0 else math.log1p(math.exp(margin)) - margin


def sample_gradient(fit, target, loss="squared"):
    """Derivative of `sample_loss` in the fit."""
    if loss == "squared":
        return fit - target
    if loss == "huber":
        return max(-HUBER_DELTA, min(HUBER_DELTA, fit - target))
    if loss == "squared_hinge":
        return -target * max(1 - target * fit, 0.0)
    if loss == "hinge":
        return -target if target * fit < 1 else 0.0
    if loss == "absolute":
        return float(np.sign(fit - target))
    if loss == "quantile":
        return 0.0 if fit == target else (1 - QUANTILE if fit > target else -QUANTILE)
    if loss == "poisson":
        return math.exp(fit) - target
    return -target * float(expit(-target * fit))


def sample_conjugate(dual, target, loss="squared"):
    """Convex conjugate of `sample_loss` in the fit, +inf outside its domain."""
    if loss == "huber" and abs(dual) > HUBER_DELTA * (1 + 1e-12):
        return math.inf
    if loss in ("squared", "huber"):
        return dual * target + dual**2 / 2
    if loss == "poisson":
        rate = dual + target
        if rate < 0:
            return math.inf
        return sum(z * math.log(z) * s for z, s in ((rate, 1), (target, -1)) if z > 0) - dual
    p = -target * dual
    if loss == "hinge":
        return -p if 0 <= p <= 1 else math.inf
    if loss in ("absolute", "quantile"):
        low, high = (-1, 1) if loss == "absolute" else (-QUANTILE, 1 - QUANTILE)
        return dual * target if low <= dual <= high else math.inf
    if loss == "squared_hinge":
        return math.inf if p < 0 else p**2 / 2 - p
    if p < 0 or p > 1:
        return math.inf
    return sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def total_loss(fit, y, loss="squared", sample_weight=None):
    """Weighted sum of `sample_loss`."""
    weight = _ones(y, sample_weight)
    return sum(w * sample_loss(f, t, loss) for f, t, w in zip(fit, y, weight, strict=True))


def loss_residual(fit, y, loss="squared", sample_weight=None):
    """The residual r = minus the gradient of `total_loss`, shape (n,)."""
    weight = _ones(y, sample_weight)
    return np.array(
        [-w * sample_gradient(f, t, loss) for f, t, w in zip(fit, y, weight, strict=True)]
    )


def relu_fit(X, masks, weights):
    """sum_j D_j X (v_j - w_j)."""
    fit = np.zeros(len(X))
    for i, row in enumerate(X):
        for j in range(masks.shape[1]):
            if masks[i, j]:
                fit[i] += row @ (weights[0, j] - weights[1, j])
    return fit


def gated_fit(X, masks, weights):
    """sum_j D_j X u_j."""
    return relu_fit(X, masks, np.stack([weights, np.zeros_like(weights)]))


def penalty(weights, block_weights=None):
    """Sum of the Euclidean norms of the blocks (the last axis), each with its weight."""
    blocks = weights.reshape(-1, weights.shape[-1])
    own = np.ones(len(blocks)) if block_weights is None else np.ravel(block_weights)
    return sum(w * math.sqrt(float(b @ b)) for w, b in zip(own, blocks, strict=True) if b.any())


def relu_objective(
    X, y, masks, lam, weights, loss="squared", sample_weight=None, block_weights=None
):
    """Objective of the ReLU program; the cones are not looked at."""
    fit = relu_fit(X, masks, weights)
    return total_loss(fit, y, loss, sample_weight) + lam * penalty(weights, block_weights)


def gated_objective(
    X, y, masks, lam, weights, loss="squared", sample_weight=None, block_weights=None
):
    """Objective of the gated program."""
    fit = gated_fit(X, masks, weights)
    return total_loss(fit, y, loss, sample_weight) + lam * penalty(weights, block_weights)


def gated_correlations(X, masks, residual):
    """X^T D_j r for every gate, shape (p, d)."""
    return np.stack([X.T @ (mask * residual) for mask in masks.T.astype(float)])


def block_correlations(X, masks, residual):
    """The projections of +-X^T D_j r on the cone of pattern j, shape (2, p, d)."""
    raw = gated_correlations(X, masks, residual)
    q = np.zeros((2, *raw.shape))
    for j, mask in enumerate(masks.T):
        for k, sign in enumerate((1.0, -1.0)):
            q[k, j] = project_cone(sign * raw[j], X, mask)[0]
    return q


def correlations(X, masks, residual, gated=False):
    """Block correlations of the ReLU or of the gated program."""
    return (gated_correlations if gated else block_correlations)(X, masks, residual)


def lambda_max(X, y, masks, loss="squared", gated=False, sample_weight=None):
    """The smallest lam at which all weights are zero."""
    residual = loss_residual(np.zeros(len(y)), y, loss, sample_weight)
    return float(np.linalg.norm(correlations(X, masks, residual, gated), axis=-1).max())


def dual_value(residual, y, loss="squared", sample_weight=None):
    """-sum_i w_i l*(-r_i / w_i, y_i); a sample of weight zero asks for r_i = 0."""
    value = 0.0
    for r, t, w in zip(residual, y, _ones(y, sample_weight), strict=True):
        if w > 0:
            value -= w * sample_conjugate(-r / w, t, loss)
        elif r != 0:
            return -math.inf
    return value


def dual_excess(X, masks, residual, lam, gated=False, block_weights=None):
    """How far a dual point is from feasible: max_i ||q_i|| / (lam w_i) - 1."""
    norms = np.linalg.norm(correlations(X, masks, residual, gated), axis=-1)
    own = 1.0 if block_weights is None else np.asarray(block_weights)
    return float((norms / own).max() / lam - 1)


def cone_violation(X, masks, weights):
    """Largest -(2D - I)_ii x_i.theta / (||x_i|| ||theta||) over rows and blocks, at least zero."""
    worst = 0.0
    for block in weights:
        for j, theta in enumerate(block):
            size = np.linalg.norm(theta)
            for row, inside in zip(X, masks[:, j], strict=True):
                length = np.linalg.norm(row)
                if size > 0 and length > 0:
                    signed = float(row @ theta) * (1 if inside else -1)
                    worst = max(worst, -signed / (length * size))
    return worst


def network_objective(X, y, lam, hidden, output, loss="squared", sample_weight=None):
    """sum_i w_i loss + lam/2 (||hidden||^2 + ||output||^2) of f = relu(X hidden) output."""
    fit = np.zeros(len(y))
    for i, row in enumerate(X):
        for k, a in enumerate(output):
            fit[i] += max(0.0, float(row @ hidden[:, k])) * a
    decay = float((hidden**2).sum() + (output**2).sum())
    return total_loss(fit, y, loss, sample_weight) + lam / 2 * decay


def train_network(X, y, lam, width, loss="squared", restarts=100, seed=0):
    """Best of many L-BFGS runs on the non-convex problem: brute force, for tiny instances only.

    Returns the value and the network (hidden (d, m), output (m,)). Odd restarts begin near the best
    network so far, which polishes neurons that lie on a kink.
    """
    rng = np.random.default_rng(seed)
    d = X.shape[1]

    def split(z):
        return z[: d * width].reshape(d, width), z[d * width :]

    def value_and_gradient(z):
        hidden, output = split(z)
        pre = X @ hidden
        active = np.maximum(pre, 0)
        fit = active @ output
        if loss == "squared":
            data_term, residual = ((fit - y) ** 2).sum() / 2, y - fit
        else:
            data_term, residual = np.logaddexp(0, -y * fit).sum(), y * expit(-y * fit)
        gradient_hidden = -X.T @ (residual[:, None] * (pre > 0) * output) + lam * hidden
        gradient_output = -active.T @ residual + lam * output
        value = data_term + lam / 2 * (z @ z)
        return value, np.concatenate([gradient_hidden.ravel(), gradient_output])

    best_value, best = math.inf, np.zeros(width * (d + 1))
    for restart in range(restarts):
        start = rng.standard_normal(width * (d + 1))
        if restart % 2:
            start = best + 10.0 ** rng.uniform(-6, -1) * start
        run = minimize(
            value_and_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-10},
        )
        if run.fun < best_value:
            best_value, best = float(run.fun), run.x
    hidden, output = split(best)
    return best_value, hidden, output


def _loss_in_cvxpy(fit, y, weight, loss):
    """The loss of a fit, and a size of it in which Clarabel does not fail."""
    import cvxpy as cp

    unit = 1.0
    if loss == "squared":
        data_term = cp.sum_squares(cp.multiply(np.sqrt(weight), fit - y)) / 2
    elif loss == "huber":
        data_term = weight @ cp.huber(fit - y, HUBER_DELTA) / 2
    elif loss == "squared_hinge":
        data_term = weight @ cp.square(cp.pos(1 - cp.multiply(y, fit))) / 2
    elif loss == "hinge":
        data_term = weight @ cp.pos(1 - cp.multiply(y, fit))
    elif loss == "absolute":
        data_term = weight @ cp.abs(fit - y)
    elif loss == "quantile":
        data_term = weight @ cp.maximum(QUANTILE * (y - fit), (QUANTILE - 1) * (y - fit))
    elif loss == "poisson":
        # e^f = e^center e^(f - center): Clarabel fails on exponentials of large counts.
        center, constant = np.log(np.maximum(y, 0.5)), float(weight @ (xlogy(y, y) - y))
        data_term = (weight * np.exp(center)) @ cp.exp(fit - center)
        data_term = data_term - (weight * y) @ fit + constant
        unit = max(1.0, total_loss(np.zeros(len(y)), y, loss, weight) / 3)
    else:
        data_term = weight @ cp.logistic(-cp.multiply(y, fit))
    return data_term, unit


def _solve_in_clarabel(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "solution may be inaccurate": the last digit only
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)


def whitened_with_clarabel(y, lam, loss="squared"):
    """The value of min l(f) + lam (||f_+|| + ||f_-||), the program where X X^T = I."""
    import cvxpy as cp

    plus, minus = cp.Variable(len(y), nonneg=True), cp.Variable(len(y), nonneg=True)
    data_term, unit = _loss_in_cvxpy(plus - minus, np.asarray(y, float), np.ones(len(y)), loss)
    norms = cp.norm(plus) + cp.norm(minus)
    problem = cp.Problem(cp.Minimize((data_term + lam * norms) / unit))
    _solve_in_clarabel(problem)
    return unit * float(problem.value)


def solve_with_clarabel(
    X, y, masks, lam, loss="squared", gated=False, sample_weight=None, block_weights=None,
    skip=False, bias=False,
):  # fmt: skip
    """The program by CVXPY with Clarabel: the optimal value and the weights.

    Blocks of infinite weight are held at zero, a skip connection is free and not returned. With a
    free bias blocks have one more entry, on which no norm looks, and there is a constant.

    The value is accurate to about 1e-8 (squared) or 1e-6 (logistic); blocks that should be zero are
    only small, so look at their cones after dropping them.
    """
    import cvxpy as cp

    X, y, masks = (np.asarray(a, dtype=float) for a in (X, y, masks))
    weight, features = _ones(y, sample_weight), X.shape[1]
    linear = X @ cp.Variable(features) if skip else 0
    X = np.column_stack([X, np.ones(len(X))]) if bias else X
    shape = (X.shape[1], masks.shape[1])
    signs = (1.0,) if gated else (1.0, -1.0)
    blocks = [cp.Variable(shape) for _ in signs]
    fit = sum(
        sign * cp.sum(cp.multiply(masks, X @ block), axis=1)
        for sign, block in zip(signs, blocks, strict=True)
    )
    fit = fit + linear + (cp.Variable() if bias else 0)
    data_term, unit = _loss_in_cvxpy(fit, y, weight, loss)
    own = np.ones((len(signs), shape[1]))
    if block_weights is not None:
        own = np.asarray(block_weights, float).reshape(own.shape)
    there = np.isfinite(own)
    group_norm = sum(
        np.where(t, w, 0.0) @ cp.norm(block[:features], axis=0)
        for w, t, block in zip(own, there, blocks, strict=True)
    )
    absent = [block[:, ~t] == 0 for t, block in zip(there, blocks, strict=True) if not t.all()]
    cones = [] if gated else [cp.multiply(2 * masks - 1, X @ block) >= 0 for block in blocks]
    # With exponential cones of large counts it gives up at the finer tolerance, and hangs on the
    # size of the objective: of several the lowest value is the best.
    poisson = loss == "poisson"
    sizes = [unit * share for share in ((1.0, 0.1, 0.3, 3.0, 10.0) if poisson else (1.0,))]
    best, error = (math.inf, None), None
    for size in sizes:
        problem = cp.Problem(cp.Minimize((data_term + lam * group_norm) / size), cones + absent)
        for d in [1e-8] if poisson else [1e-10, 1e-8]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "solution may be inaccurate": the last digit only
                try:
                    problem.solve(solver=cp.CLARABEL, tol_gap_abs=d, tol_gap_rel=d, tol_feas=d)
                except cp.SolverError as failed:
                    error = failed
                    continue
            if size * float(problem.value) < best[0]:
                best = size * float(problem.value), [block.value.T for block in blocks]
            break
    if best[1] is None:
        raise error
    weights = np.stack(best[1])
    return best[0], weights[0] if gated else weights
