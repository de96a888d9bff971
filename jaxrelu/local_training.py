"""Local search on the non-convex training problem: where to look for cells, never what to trust.

Quasi-Newton steps on all weights of a network of fixed width cross walls freely, which the convex
program over some cells cannot. What comes out names cells; their convex program then does at least
as well. Alternating the two is the alternating descent conditional gradient method.

Reference: N. Boyd, G. Schiebinger and B. Recht, "The alternating descent conditional gradient
method for sparse inverse problems" (2017); D. C. Liu and J. Nocedal, "On the limited memory BFGS
method" (1989), as in SciPy.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.optimize import minimize

from jaxrelu.networks import Network
from jaxrelu.numerics import matmul
from jaxrelu.program import ConvexProgram, loss_value

Floats = NDArray[np.float64]

_STEPS = 100
_NEGLIGIBLE = 1e-4


@jax.jit
def _value_and_gradient(
    program: ConvexProgram, lam: Array, network: Network
) -> tuple[Array, Network]:
    def value(network: Network) -> Array:
        X = jnp.asarray(program.X)
        hidden = jax.nn.relu(matmul(X, network.hidden))
        decay = jnp.sum(network.hidden**2) + jnp.sum(network.output**2)
        return loss_value(program, matmul(hidden, network.output)) + 0.5 * lam * decay

    found: tuple[Array, Network] = jax.value_and_grad(value)(network)
    return found


def train_from(
    program: ConvexProgram,
    lam: Array,
    weights: Floats,
    residual: Floats,
    directions: Floats,
    width: int,
) -> Floats:
    """Where an answer's neurons, and new ones along given directions, go by local search.

    New neurons share the length that a single one would have, (|r^T z| - lam) / ||z||^2 with
    z = (X u)_+.

    Args:
        program: gives X, y, the loss and the sample weights; its patterns are not looked at.
        lam: scalar.
        weights: (2, p, d), convex weights.
        residual: (n,), at those weights.
        directions: (m, d), unit.
        width: so many neurons of the answer and so many new ones at most, the first of each.

    Returns:
        Hidden weights times |output|, (., d), the largest first, without zeros.
    """
    X = np.asarray(program.X, np.float64)
    flat = weights.reshape(-1, X.shape[1])
    order = np.argsort(-np.linalg.norm(flat, axis=1), kind="stable")[:width]
    features = np.maximum(directions[:width] @ X.T, 0.0)
    values = features @ residual
    sizes = np.maximum(np.abs(values) - float(lam), 0.0) / np.sum(features**2, axis=1)
    # Places that stay free hold zero neurons, which do not move: one compiled shape.
    neurons, signs = np.zeros((2 * width, X.shape[1])), np.ones(2 * width)
    neurons[: len(order)] = flat[order]
    signs[: len(order)] = np.repeat([1.0, -1.0], weights.shape[1])[order]
    neurons[width : width + len(sizes)] = (sizes / len(sizes))[:, None] * directions[:width]
    signs[width : width + len(sizes)] = np.where(values < 0, -1.0, 1.0)
    found = _train(program, lam, neurons, signs)
    size = np.linalg.norm(found, axis=1)
    order = np.argsort(-size, kind="stable")
    return found[order[: int(np.sum(size > _NEGLIGIBLE * np.max(size)))]]


def _train(program: ConvexProgram, lam: Array, neurons: Floats, signs: Floats) -> Floats:
    """theta_k = |a_k| u_k (m, d) after quasi-Newton steps from theta_k with signs (m,)."""
    m, d = neurons.shape
    dtype = jnp.asarray(program.X).dtype
    root = np.sqrt(np.linalg.norm(neurons, axis=1))
    hidden = neurons / np.where(root > 0, root, 1.0)[:, None]

    def evaluate(x: Floats) -> tuple[float, Floats]:
        network = Network(jnp.asarray(x[m:].reshape(d, m), dtype), jnp.asarray(x[:m], dtype))
        value, slope = _value_and_gradient(program, lam, network)
        flat = np.concatenate([np.asarray(slope.output), np.asarray(slope.hidden).ravel()])
        return float(value), flat.astype(np.float64)

    start = np.concatenate([signs * root, hidden.T.ravel()])
    end = minimize(
        evaluate, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "maxcor": 20}
    ).x
    found: Floats = end[m:].reshape(d, m).T * np.abs(end[:m])[:, None]
    return found
