"""What tests of margins share: small data, an independent solver, correlations."""

import cvxpy as cp
import numpy as np
import reference
import zoo

import jaxrelu as jr

SAMPLES, FEATURES, PATTERNS = 12, 4, 32


EPS = 2.2e-16


def shaped(X, y):
    """(X, y, all patterns of X) in the common shape, with the same optimum."""
    X, y = np.asarray(X, float), np.asarray(y, float)
    rows = np.arange(SAMPLES) % len(X)
    columns = ((0, FEATURES - X.shape[1]), (0, 0))
    patterns = jr.enumerate_patterns(X)
    gates = np.pad(patterns.gates, columns)
    patterns = jr.Patterns(gates, np.asarray(patterns.masks)[rows], gates)
    return np.pad(X, columns[::-1])[rows], y[rows], zoo.tiled(patterns, PATTERNS)


def oracle(X, y, masks, margin):
    """The optimal value by CVXPY and Clarabel."""
    masks = np.unique(np.asarray(masks, float), axis=1)
    fit, norms, constraints = 0, 0, []
    for mask in masks.T:
        for sign in (1.0, -1.0):
            theta = cp.Variable(X.shape[1])
            fit += sign * (mask[:, None] * X) @ theta
            norms += cp.norm(theta)
            constraints.append(reference.cone_matrix(X, mask) @ theta >= 0)
    constraints.append(cp.multiply(y, fit) >= 1 if margin else fit == y)
    problem = cp.Problem(cp.Minimize(norms), constraints)
    problem.solve(solver=cp.CLARABEL)
    return float(problem.value)


def largest_correlation(X, masks, nu):
    """The polar gauge over patterns, by NNLS."""
    return max(
        np.linalg.norm(reference.project_cone(sign * X.T @ (mask * nu), X, mask)[0])
        for mask in np.asarray(masks, float).T
        for sign in (1.0, -1.0)
    )


def gauge_over(X, patterns):
    return lambda nu: largest_correlation(X, patterns.masks, np.asarray(nu))


def random_labels(seed, shape=(6, 3)):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape)
    return X, np.where(rng.standard_normal(shape[0]) > 0, 1.0, -1.0)


def cosine(rho):
    return np.asarray([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]])


def symmetric(X):
    """Rows +-x, +-z, +-(x + z)."""
    X = np.vstack([X, X.sum(axis=0)])
    return np.concatenate([X, -X])
