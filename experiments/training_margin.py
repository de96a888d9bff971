r"""Where the logistic loss leads without a penalty: the maximum margin, or less.

    python experiments/training_margin.py --out DIR [--quick]

Gradient flow from tiny balanced networks, with time run faster as the loss falls: steps along the
gradient of the log of the loss, over 1 + ||theta||^2. The normalised margin
min_i y_i f_i / (||theta||^2 / 2) is never above 1 / P*, P* the value of `jr.max_margin`. On
orthogonally separable data, where P* has a closed form, the limit is the best network; on other
data it is a KKT point (Lyu and Li), which `jr.margin_conditions` tells from a global optimum by the
polar gauge of its multipliers: above one where these are unique, it is not.

Writes training_margin.csv (margins over time), training_margin_ends.csv (the KKT conditions at the
end) and a figure.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import Floats, Row, Table, arguments, parser
from descent_runs import Weights, balanced, follow, kept, network, record_times
from jax import Array
from rich.progress import track

import jaxrelu as jr
from jaxrelu import closed_form

SEEDS, STEPS, RATE, SCALE = 8, 300_000, 0.02, 1e-4
# Width and number of seeds over SEEDS: in the plane a few neurons already meet all fates.
WIDTHS = {"orthogonally separable": (20, 1), "obtuse": (6, 3), "mixed": (20, 1)}
# Multipliers are told where a margin is this near to the least, walls where an angle is.
NEAR = 0.02
FAR = 30.0


def separable() -> tuple[Floats, Floats]:
    """Two classes in opposite orthants of three dimensions."""
    y = np.where(np.arange(20) % 2, 1.0, -1.0)
    return (0.2 + 1.6 * np.random.default_rng(0).random((20, 3))) * y[:, None], y


def obtuse() -> tuple[Floats, Floats]:
    """Two samples of one class whose cosine is -0.7: two neurons are better than a common one."""
    return np.asarray([[1.0, 0.0], [-0.7, 0.51**0.5]]), np.ones(2)


def mixed() -> tuple[Floats, Floats]:
    """Eight normal samples in three dimensions with random labels."""
    rng = np.random.default_rng(4)
    return rng.standard_normal((8, 3)), np.where(rng.random(8) < 0.5, 1.0, -1.0)


def margins(weights: Weights, X: Floats, y: Floats) -> Array:
    """y_i f_i of a network."""
    return jnp.asarray(y) * jr.Network(*weights)(X)


def log_loss(weights: Weights, X: Floats, y: Floats) -> Array:
    """The log of sum_i log(1 + exp(-y_i f_i)), to any depth."""
    m = margins(weights, X, y)
    terms = jnp.where(m > FAR, -m, jnp.log(jax.nn.softplus(-jnp.minimum(m, FAR))))
    return jax.nn.logsumexp(terms)


def squared_norm(weights: Weights) -> Array:
    """||theta||^2."""
    return jnp.sum(weights[0] ** 2) + jnp.sum(weights[1] ** 2)


def train(X: Floats, y: Floats, seeds: int, width: int, times: Array) -> Weights:
    """The paths of all seeds."""

    def gradient(weights: Weights, _: Array) -> Weights:
        speed = 1.0 / (1.0 + squared_norm(weights))
        return jax.tree.map(lambda g: speed * g, jax.grad(log_loss)(weights, X, y))

    return follow(gradient, optax.sgd(RATE), balanced(seeds, X.shape[1], width, SCALE), times)


def angles(one: jr.Network, best: jr.Network) -> float:
    """The largest angle in degrees of a neuron, weighted by size, to the nearest optimal one."""
    unit = [np.asarray(n.hidden / jnp.linalg.norm(n.hidden, axis=0)) for n in (one, best)]
    same = np.sign(one.output)[:, None] == np.sign(best.output)[None]
    cosine = np.max(np.where(same, unit[0].T @ unit[1], -1.0), axis=1)
    size = np.asarray(one.output) ** 2
    return float(np.sum(size * np.degrees(np.arccos(np.clip(cosine, -1, 1)))) / np.sum(size))


def main() -> None:
    """Trains on all data sets, compares with the best margins, and draws."""
    args = arguments(parser(__doc__, data=False))
    seeds, steps = (2, 5000) if args.quick else (SEEDS, STEPS)
    times = record_times(steps, 40)
    sets = {"orthogonally separable": separable(), "obtuse": obtuse(), "mixed": mixed()}
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    rows: list[Row] = []
    ends: list[Row] = []
    if args.quick:
        del sets["obtuse"], sets["mixed"]
    for place, name in enumerate(track(sets, "margins")):
        X, y = sets[name]
        width, more = WIDTHS[name]
        cells = jr.enumerate_patterns(X)
        best = jr.max_margin(X, y, cells)
        if place == 0:
            known = closed_form.separable(X, y)
            np.testing.assert_allclose(float(best.value), known.value, rtol=1e-5)
        runs = kept(
            args.out / f"training_margin_{place}.npz", times,
            lambda X=X, y=y, m=width, k=more: train(X, y, k * seeds, m, times),
        )  # fmt: skip
        depth = -jax.vmap(jax.vmap(lambda w, X=X, y=y: log_loss(w, X, y)))(runs) / np.log(10)
        least = jax.vmap(jax.vmap(lambda w, X=X, y=y: jnp.min(margins(w, X, y))))(runs)
        share = np.asarray(2 * least / jax.vmap(jax.vmap(squared_norm))(runs) * best.value)
        assert np.max(share) <= 1 + 1e-6
        for seed in range(more * seeds):
            turn = [angles(network(runs, seed, k), best.network) for k in range(len(times))]
            rows += [
                {"data": name, "seed": seed, "step": int(step), "log10_loss": -depth[seed, k],
                 "margin": share[seed, k], "angle": turn[k]}
                for k, step in enumerate(times)
            ]  # fmt: skip
            panels[place].plot(depth[seed], share[seed], lw=1)
            row = {"data": name, "seed": seed, "margin": share[seed, -1], "angle": turn[-1],
                   "best": float(best.margin),
                   "best_gap": float(best.gap / best.value)}  # fmt: skip
            if share[seed, -1] <= 0:
                ends.append(row | dict.fromkeys(("kkt", "gauge", "lower", "unique"), np.nan))
                continue
            end = jr.margin_conditions(
                network(runs, seed, -1), X, y, patterns=cells,
                wall_tolerance=NEAR, support_tolerance=NEAR,
            )  # fmt: skip
            ends.append(row | {"kkt": float(jnp.linalg.norm(end.stationarity)),
                               "gauge": float(end.gauge), "lower": float(end.lower / best.value),
                               "unique": bool(end.unique)})  # fmt: skip
        print(name)
        for row in (row for row in ends if row["data"] == name):
            print(", ".join(f"{key} {value:.5g}" for key, value in row.items() if key != "data"))
        panels[place].axhline(1.0, color="0.5", ls="--")
        panels[place].set_title(f"{name}: {width} neurons", fontsize=9)
        panels[place].set_xlabel("-log10 of the loss")
        panels[place].set_ylim(-0.1, 1.1)
        panels[place].set_xscale("symlog", linthresh=1.0)
        panels[place].set_xlim(-1.5, None)
    panels[0].set_ylabel("margin over the best margin")
    for file, found in (("training_margin", rows), ("training_margin_ends", ends)):
        (args.out / f"{file}.csv").unlink(missing_ok=True)
        Table(args.out / f"{file}.csv", ("data", "seed")).add(found)
    figure.savefig(args.out / "training_margin.png", dpi=100)


if __name__ == "__main__":
    main()
