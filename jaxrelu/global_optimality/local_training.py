"""Local search on the non-convex training problem: where to look for cells, never what to trust.

Gradient steps on all weights of a network of fixed width cross walls freely, which the convex
program over some cells cannot. What comes out names cells; their convex program then does at least
as well. Alternating the two is the alternating descent conditional gradient method. Steps of fixed
relative length that decay (Adam) pass the kinks at which quasi-Newton steps stop: most neurons of
an answer lie on walls.

Reference: N. Boyd, G. Schiebinger and B. Recht, "The alternating descent conditional gradient
method for sparse inverse problems" (2017); D. P. Kingma and J. Ba, "Adam" (2015), as in Optax.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import CALL, Meter
from jaxrelu.core.compilation import compiled
from jaxrelu.geometry.host.units import column_units
from jaxrelu.losses.base import Loss
from jaxrelu.networks.network import Network, nonconvex_objective
from jaxrelu.programs.program import ConvexProgram

_STEPS = 1000
_RATE = 0.03
_STIR = 0.03
_NEGLIGIBLE = 1e-3
_OPERATIONS = 6  # an entry of a product and of its two derivatives


def train_from(
    program: ConvexProgram,
    lam: Array,
    weights: Floats,
    residual: Floats,
    directions: Floats,
    width: int,
    rng: np.random.Generator,
    meter: Meter,
) -> Floats:
    """Where an answer's neurons, and new ones along given directions, go by local search.

    New neurons share the length that a single one would have, (|r^T z| - lam) / ||z||^2 with
    z = (X u)_+. All are stirred a little, off their walls.

    Args:
        program: gives X, y, the loss and the sample weights; its patterns are not looked at.
        lam: scalar.
        weights: (2, p, d), convex weights.
        residual: (n,), at those weights.
        directions: (m, d), unit.
        width: so many neurons of the answer and so many new ones at most, the first of each.
        rng: of the stirring.
        meter: where the work is noted.

    Returns:
        Hidden weights times |output|, (., d), the largest first, without negligible ones.
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

    root = np.sqrt(np.linalg.norm(neurons, axis=1))
    hidden = neurons / np.where(root > 0, root, 1.0)[:, None]
    units = column_units(X)
    lengths = np.linalg.norm(hidden * units, axis=1, keepdims=True) / np.sqrt(X.shape[1])
    hidden += _STIR * lengths * rng.standard_normal(hidden.shape) / units
    meter.spend(CALL + _OPERATIONS * _STEPS * 2 * width * X.size)
    dtype = jnp.asarray(program.X).dtype
    start = Network(jnp.asarray(hidden.T, dtype), jnp.asarray(signs * root, dtype))
    loss, weight = program.loss, program.sample_weight
    # Optax mixes dtypes that strict promotion keeps apart.
    with jax.numpy_dtype_promotion("standard"):
        scale = jnp.asarray(units, dtype)
        end = _adam(start, program.X, program.y, lam, loss, weight, scale)
    found = np.asarray(end.hidden, np.float64).T * np.abs(np.asarray(end.output))[:, None]
    size = np.linalg.norm(found, axis=1)
    order = np.argsort(-size, kind="stable")
    return found[order[: int(np.sum(size > _NEGLIGIBLE * np.max(size)))]]


@compiled
def _adam(
    start: Network, X: Any, y: Any, lam: Array, loss: Loss, sample_weight: Any, units: Array
) -> Network:
    """Adam with a step size that decays to zero."""
    # In units of the typical weight of each layer, a column of X measured in its own, so that one
    # step size suits all data.
    used = start.output != 0
    count = jnp.maximum(jnp.sum(used), 1).astype(start.output.dtype)

    def typical(weights: Array) -> Array:
        return jnp.sqrt(jnp.sum(weights**2) / (count * weights.size / used.size))

    hidden = typical(start.hidden * units[:, None]) / units[:, None]
    unit = Network(hidden, typical(start.output))

    def rate(count: Array) -> Array:
        return 0.5 * _RATE * (1.0 + jnp.cos(jnp.pi * count.astype(unit.output.dtype) / _STEPS))

    optimizer = optax.adam(rate)

    def network(scaled: Network) -> Network:
        return jax.tree.map(jnp.multiply, scaled, unit)

    def value(scaled: Network) -> Array:
        return nonconvex_objective(network(scaled), X, y, lam, loss, sample_weight)

    def step(_: int, state: Any) -> Any:
        scaled, memory = state
        change, memory = optimizer.update(jax.grad(value)(scaled), memory, scaled)
        return optax.apply_updates(scaled, change), memory

    scaled = jax.tree.map(lambda w, u: w / jnp.where(u > 0, u, 1.0), start, unit)
    end, _ = jax.lax.fori_loop(0, _STEPS, step, (scaled, optimizer.init(scaled)))
    return network(end)
