"""What the training experiments share: balanced starts, and gradient descent from many at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Floats
from jax import Array

import jaxrelu as jr

Weights = tuple[Array, Array]


def balanced(seeds: int, d: int, m: int, scale: float) -> Weights:
    """Networks (seeds, d, m) and (seeds, m): random directions, ||u|| = |a| = scale, both signs."""
    u = jax.random.normal(jax.random.key(0), (seeds, d, m))
    u = scale * u / jnp.linalg.norm(u, axis=1, keepdims=True)
    signs = jnp.where(jnp.arange(m) % 2, -1.0, 1.0)
    return u, jnp.broadcast_to(scale * signs, (seeds, m))


def objective(weights: Weights, X: Any, y: Any, lam: float) -> Array:
    """The objective of training with the squared loss."""
    return jr.nonconvex_objective(jr.Network(*weights), X, y, lam)


@partial(jax.jit, static_argnames=("gradient", "optimizer"))
def follow(
    gradient: Callable[[Weights, Array], Weights],
    optimizer: optax.GradientTransformation,
    start: Weights,
    counts: Array,
) -> Weights:
    """Weights (seeds, records, ...) after each number of steps in `counts`, increasing.

    Args:
        gradient: a function of the weights of one network and a random key.
        optimizer: of optax.
        start: weights of all networks, a leading axis of seeds.
        counts: (records,), numbers of steps.
    """

    def one(start: Weights, key: Array) -> Weights:
        def step(k: Array, state: Any) -> Any:
            weights, memory = state
            change, memory = optimizer.update(
                gradient(weights, jax.random.fold_in(key, k)), memory, weights
            )
            return optax.apply_updates(weights, change), memory

        def record(state: Any, ends: Any) -> tuple[Any, Weights]:
            state = jax.lax.fori_loop(ends[0], ends[1], step, state)
            return state, state[0]

        before = jnp.concatenate([jnp.zeros(1, counts.dtype), counts[:-1]])
        return jax.lax.scan(record, (start, optimizer.init(start)), (before, counts))[1]

    return jax.vmap(one)(start, jax.random.split(jax.random.key(1), len(start[1])))


def kept(path: Path, counts: Array, train: Callable[[], Weights]) -> Weights:
    """The runs in a file that an interrupted experiment has left, or new ones, written there.

    Args:
        path: of the file, .npz.
        counts: (records,), the numbers of steps; a file of other ones is not used.
        train: makes the runs.
    """
    if path.exists():
        with np.load(path) as file:
            if np.array_equal(file["counts"], counts):
                return jnp.asarray(file["hidden"]), jnp.asarray(file["output"])
    runs = train()
    np.savez_compressed(path, counts=counts, hidden=runs[0], output=runs[1])
    return runs


def record_times(steps: int, records: int) -> Array:
    """Numbers of steps from zero on, then evenly spaced in their logarithm, without repetition."""
    return jnp.asarray(np.unique(np.append(0, np.geomspace(1, steps, records).astype(int))))


def network(weights: Weights, *place: int) -> jr.Network:
    """One network of many, by the places along the leading axes."""
    return jr.Network(weights[0][place], weights[1][place])


def sizes(network: jr.Network) -> Floats:
    """||u_k|| |a_k| of every neuron."""
    found: Floats = np.linalg.norm(network.hidden, axis=0) * np.abs(network.output)
    return found


def distinct_directions(network: jr.Network, degrees: float = 5.0, least: float = 0.01) -> int:
    """How many directions the neurons of both signs have, up to an angle.

    Neurons below `least` times the largest are not counted.
    """
    size = sizes(network)
    order = [k for k in np.argsort(-size) if size[k] > least * size.max()]
    units = np.asarray(network.hidden / np.linalg.norm(network.hidden, axis=0)).T
    signs = np.sign(network.output)
    kept: list[int] = []
    for k in order:
        near = [
            units[k] @ units[j] > np.cos(np.radians(degrees)) for j in kept if signs[j] == signs[k]
        ]
        if not any(near):
            kept.append(int(k))
    return len(kept)
