"""A two-layer head over frozen features: trained with Adam, then improved and made minimal.

    python experiments/frozen_head.py --data DIR --out DIR [--quick]

The features are the 32 hidden neurons of a network that tells the other eight digits of MNIST
apart, and a column of ones; the head, 50 ReLU neurons, tells 5 from 9 on 2,000 training images.
From several starts: the objective and the test accuracy at the end of training; those after
`improve`, which keeps the cells of the neurons and certifies the best network in them, once and
twice; the neurons that are left.

Writes frozen_head.csv (a row a head and stage) and a figure.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import Floats, Row, Table, accuracy, arguments, parser
from descent_runs import Weights, balanced, follow, network, objective
from jax import Array

import jaxrelu as jr

DIGITS, FEATURES, NEURONS, IMAGES, SEEDS = (5, 9), 32, 50, 2000, 5
# Of the mean loss, so that lam is this times the number of images.
WEIGHT_DECAY = 1e-3
STAGES = ("trained", "improved", "improved twice")


def extractor(images: Floats, labels: Any, steps: int) -> Array:
    """First layer (d, features) of a classifier of the given digits, trained with Adam."""
    classes, target = np.unique(labels, return_inverse=True)
    keys = jax.random.split(jax.random.key(0), 3)
    data, target = jnp.asarray(images), jnp.asarray(target)
    d = images.shape[1]
    start = (
        jax.random.normal(keys[0], (d, FEATURES)) / np.sqrt(d),
        jax.random.normal(keys[1], (FEATURES, len(classes))) / np.sqrt(FEATURES),
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(weights: Any, rows: Array) -> Array:
        scores = jax.nn.relu(data[rows] @ weights[0]) @ weights[1]
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, target[rows])
        return jnp.mean(losses)

    @jax.jit
    def run(state: Any, key: Array) -> Any:
        def step(k: Array, state: Any) -> Any:
            weights, memory = state
            rows = jax.random.randint(jax.random.fold_in(key, k), (100,), 0, len(target))
            change, memory = optimizer.update(jax.grad(loss)(weights, rows), memory, weights)
            return optax.apply_updates(weights, change), memory

        return jax.lax.fori_loop(0, steps, step, state)

    return run((start, optimizer.init(start)), keys[2])[0][0]


def features(images: Floats, first: Array) -> Floats:
    """Frozen features (n, features + 1), the last one constant."""
    hidden = np.maximum(images @ np.asarray(first), 0.0)
    return np.column_stack([hidden, np.ones(len(hidden))])


def train(X: Floats, y: Floats, lam: float, seeds: int, steps: int) -> Weights:
    """Heads (seeds, ...) at the end of Adam on all samples, its step size decaying to zero."""

    def gradient(weights: Weights, key: Array) -> Weights:
        del key
        return jax.grad(objective)(weights, X, y, lam)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.01, steps))
    ends = follow(gradient, optimizer, balanced(seeds, X.shape[1], NEURONS, 0.3),
                  jnp.asarray([steps]))  # fmt: skip
    return jax.tree.map(lambda leaf: leaf[:, -1], ends)


def stages(
    head: jr.Network, train: tuple[Floats, Floats], test: tuple[Floats, Floats], lam: float
) -> list[Row]:
    """Objective, neurons and accuracies after training and after each `improve`."""
    rows: list[Row] = []
    gap = seconds = float("nan")
    for stage in STAGES:
        if stage != STAGES[0]:
            begin = time.perf_counter()
            better = jr.improve(head, *train, lam)
            head, seconds = better.network, time.perf_counter() - begin
            gap = float(better.certificate.gap / better.certificate.upper)
        rows.append({"stage": stage, "objective": float(jr.nonconvex_objective(head, *train, lam)),
                     "gap_in_cells": gap, "neurons": head.num_neurons, "seconds": seconds,
                     "train_accuracy": accuracy(head, *train),
                     "test_accuracy": accuracy(head, *test)})  # fmt: skip
    return rows


def images(path: Any, part: str) -> tuple[Floats, Any]:
    """Images (n, pixels) in [0, 1] and their digits."""
    with np.load(path) as file:
        found = file[f"x_{part}"] / 255.0
        return found.reshape(len(found), -1), file[f"y_{part}"]


def labelled(found: tuple[Floats, Any], first: Array, digits: tuple[int, int]) -> Any:
    """Frozen features of the images of two digits, and labels -1 and +1."""
    wanted = np.isin(found[1], digits)
    return features(found[0][wanted], first), np.where(found[1][wanted] == digits[0], -1.0, 1.0)


def draw(table: Table, out: Any) -> None:
    """Objective, neurons and test accuracy through the stages, a line a head."""
    figure, panels = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    seeds = dict.fromkeys(row["seed"] for row in table.rows)
    for panel, name in zip(panels, ("objective", "neurons", "test_accuracy"), strict=True):
        for seed in seeds:
            values = [table.column(name, seed=seed, stage=stage)[0] for stage in STAGES]
            panel.plot(STAGES, values, "o-", lw=1, ms=3)
        panel.set_title(name.replace("_", " "), fontsize=10)
        panel.tick_params(labelsize=8)
    figure.savefig(out / "frozen_head.png", dpi=120)


def main() -> None:
    """Runs what is missing, and draws."""
    args = arguments(parser(__doc__))
    digits = (1, 7) if args.quick else DIGITS
    seeds, steps = (1, 200) if args.quick else (SEEDS, 5000)
    table = Table(args.out / "frozen_head.csv", ("seed",))
    wanted = list(table.missing([(k,) for k in range(seeds)], "heads"))
    if wanted:
        path = args.data / "images" / "mnist.npz"
        found = images(path, "train")
        others = ~np.isin(found[1], digits)
        first = extractor(found[0][others], found[1][others], steps)
        X, y = labelled(found, first, digits)
        most = 200 if args.quick else IMAGES
        part, test = (X[:most], y[:most]), labelled(images(path, "test"), first, digits)
        lam = WEIGHT_DECAY * len(part[1])
        heads = train(*part, lam, seeds, steps)
        for (seed,) in wanted:
            table.add([{"seed": seed} | row for row in
                       stages(network(heads, seed), part, test, lam)])  # fmt: skip
    draw(table, args.out)


if __name__ == "__main__":
    main()
