"""Pruning on image pairs: a certified optimum of a part, and a trained network of the whole.

    python experiments/pruning_images.py --data DIR --out DIR [--minutes 30] [--pairs ...] [--quick]

Of each pair of classes two networks are pruned, neuron by neuron, with corrected least squares, by
neuron norm, by gradient and at random:

* the certified optimum of the largest part of the training images (100, 200, 400, ..., all) that
  is solved to a relative gap of 1e-3 within the time, 50 gates, lam per sample 0.05 (CIFAR-10) or
  0.01 (MNIST);
* a network of 50 neurons, trained on the whole pair with Adam and that weight decay.

Writes pruning_images.csv, pruning_images_parts.csv (sizes, gaps, seconds) and a figure.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import Floats, Row, Table, accuracy, arguments, parser, sampled
from pruning_uci import RULES

import jaxrelu as jr

PAIRS = ("cifar10-3-5", "cifar10-0-2", "cifar10-1-8", "mnist-2-6", "mnist-1-7", "mnist-5-9")
GATES, NEURONS, EPOCHS, BATCH = 50, 50, 30, 100
GAP = 1e-3


def load(data: Path, pair: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Training and test images (n, d), transformed as in the paper, with labels -1 and +1."""
    kind, first, second = pair.split("-")
    if kind == "mnist":
        file = np.load(data / "images" / "mnist.npz")
        mean, spread = np.array([0.1307]), np.array([0.3081])
    else:
        file = np.load(data / "images" / f"cifar10_{first}vs{second}.npz")
        mean, spread = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    found = []
    for part in ("train", "test"):
        x, labels = file[f"x_{part}"], file[f"y_{part}"]
        wanted = np.isin(labels, [int(first), int(second)])
        x = x[wanted].reshape(int(wanted.sum()), x.shape[1], x.shape[2], -1) / 255.0
        x = ((x - mean) / spread).transpose(0, 3, 1, 2).reshape(len(x), -1)
        found += [x, np.where(labels[wanted] == int(first), -1.0, 1.0)]
    return found[0], found[1], found[2], found[3]


def largest_part(X: Floats, y: Floats, lam: float, seconds: float) -> tuple[jr.Network, Row]:
    """The optimum of the largest part that is certified within the time."""
    start, n, best = time.perf_counter(), 100, None
    while True:
        began = time.perf_counter()
        program = jr.ConvexProgram(X[:n], y[:n], sampled(X[:n], GATES, 123))
        solution = jax.block_until_ready(jr.solve_path(program, [lam * n], rtol=GAP)[0])
        spent = time.perf_counter() - began
        gap = float(solution.certificate.gap / solution.certificate.upper)
        if int(solution.status) == jr.Status.OPTIMAL:
            network = jr.to_network(program, solution.weights).compact()
            best = network, {"n": n, "gap": gap, "seconds": round(spent, 1)}
        print(f"{n} images: gap {gap:.1e} after {spent:.0f} s", flush=True)
        # Of images there are fewer than pixels, and twice the images take eight times as long.
        if n == len(y) or time.perf_counter() - start + 8 * spent > seconds:
            break
        n = min(2 * n, len(y))
    if best is None:
        raise RuntimeError(f"not even {n} images were solved in {seconds:g} s")
    return best


def train(X: Floats, y: Floats, lam: float, epochs: int) -> jr.Network:
    """A network trained with Adam on the mean squared loss and lam / 2 times squared weights."""
    kind = jnp.float32
    data, target = jnp.asarray(X, kind), jnp.asarray(y, kind)
    keys = jax.random.split(jax.random.key(0), 3)
    d = data.shape[1]
    network = jr.Network(
        jax.random.normal(keys[0], (d, NEURONS), kind) / np.sqrt(d),
        jax.random.normal(keys[1], (NEURONS,), kind) / np.sqrt(NEURONS),
    )
    steps = len(y) // BATCH
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, epochs * steps))

    def objective(net: jr.Network, rows: jax.Array) -> jax.Array:
        error = net(data[rows]) - target[rows]
        return jnp.mean(error**2) / 2 + lam / 2 * (jnp.sum(net.hidden**2) + jnp.sum(net.output**2))

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> tuple[Any, None]:
        def step(state: Any, rows: jax.Array) -> tuple[Any, None]:
            net, memory = state
            change, memory = optimizer.update(jax.grad(objective)(net, rows), memory, net)
            return (optax.apply_updates(net, change), memory), None

        order = jax.random.permutation(key, len(y))[: steps * BATCH].reshape(steps, BATCH)
        return jax.lax.scan(step, state, order)

    state = network, optimizer.init(network)
    for key in jax.random.split(keys[2], epochs):
        state, _ = epoch(state, key)
    return jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), state[0])


def pruned(
    network: jr.Network, part: tuple[Floats, Floats], test: tuple[Floats, Floats]
) -> list[Row]:
    """Loss and accuracies at every width, for every rule."""
    rows = []
    for rule, corrected, label in RULES:
        net = network
        for to in range(network.num_neurons, 0, -1):
            net = jr.prune(net, *part, to=to, rule=rule, corrected=corrected, refit=False).network
            loss = float(np.mean((np.asarray(net(part[0])) - part[1]) ** 2) / 2)
            rows.append({"rule": label, "neurons": to, "loss": loss,
                         "train_accuracy": accuracy(net, *part),
                         "test_accuracy": accuracy(net, *test)})  # fmt: skip
    return rows


def draw(table: Table, out: Path) -> None:
    """Test accuracy against the number of neurons, optimum above and trained network below."""
    pairs = list(dict.fromkeys(row["pair"] for row in table.rows))
    figure, panels = plt.subplots(2, len(pairs), figsize=(2.4 * len(pairs) + 1, 4.4),
                                  layout="constrained", squeeze=False)  # fmt: skip
    for column, pair in enumerate(pairs):
        for line, network in enumerate(("optimum", "trained")):
            panel = panels[line, column]
            for _, _, label in RULES:
                own = {"pair": pair, "network": network, "rule": label}
                panel.plot(table.column("neurons", **own), table.column("test_accuracy", **own),
                           label=label, lw=1.5)  # fmt: skip
            panel.invert_xaxis()
            panel.set_title(f"{pair}, {network}", fontsize=9)
            panel.tick_params(labelsize=7)
    panels[0, 0].legend(fontsize=6)
    figure.supxlabel("neurons", fontsize=9)
    figure.supylabel("test accuracy", fontsize=9)
    figure.savefig(out / "pruning_images.png", dpi=150)


def main() -> None:
    """Runs what is missing, and draws."""
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=30.0, help="for the optimum of each pair")
    options.add_argument("--pairs", nargs="+", default=PAIRS)
    args = arguments(options)
    pairs = ("mnist-1-7",) if args.quick else args.pairs
    table = Table(args.out / "pruning_images.csv", ("pair",))
    parts = Table(args.out / "pruning_images_parts.csv", ("pair",))
    for (pair,) in table.missing([(pair,) for pair in pairs], "image pairs"):
        X, y, X_test, y_test = load(args.data, pair)
        lam = 0.01 if pair.startswith("mnist") else 0.05
        network, facts = largest_part(X, y, lam, 1.0 if args.quick else 60 * args.minutes)
        n = facts["n"]
        rows = [{"pair": pair, "network": "optimum"} | row
                for row in pruned(network, (X[:n], y[:n]), (X_test, y_test))]  # fmt: skip
        trained = train(X, y, lam, 1 if args.quick else EPOCHS)
        some = slice(0, 1000 if args.quick else None)
        rows += [{"pair": pair, "network": "trained"} | row
                 for row in pruned(trained, (X[some], y[some]), (X_test, y_test))]  # fmt: skip
        if not any(row["pair"] == pair for row in parts.rows):
            parts.add([{"pair": pair} | facts | {"neurons": network.num_neurons}])
        table.add(rows)
    draw(table, args.out)


if __name__ == "__main__":
    main()
