r"""Decision regions of networks that are known in closed form, and neurons made of samples.

    python experiments/closed_form_pictures.py --out DIR [--quick]

Five kinds of data with two features: whitened, rank-one, spike-free, rank-one with a bias (a
spline), orthogonally separable. Each optimal network is checked by its duality gap. Where the data
are whitened, a neuron is the sum of the samples of its class, weighted by their fit: it encodes
them and decodes to them. Fourteen orthonormal patterns in two classes show it.

Writes closed_form_pictures.csv (values and gaps) and two figures, the regions and the neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Row, Table, arguments, parser
from matplotlib.axes import Axes

import jaxrelu as jr
from jaxrelu import closed_form

LAM = 0.1
SIDE = 8


def whitened() -> tuple[Floats, Floats, Any]:
    """Two orthonormal samples, one of each class."""
    X = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
    y = np.asarray([1.0, -1.0])
    return X, y, closed_form.whitened(X, y, LAM, jr.LogisticLoss())


def rank_one() -> tuple[Floats, Floats, Any]:
    """Samples on a line through the origin, without a bias."""
    X = np.outer([-2.0, -1.2, -0.5, 0.6, 1.0, 2.0], [0.9, 0.4])
    y = np.asarray([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    return X, y, closed_form.rank_one(X, y, LAM, jr.LogisticLoss())


def spike_free() -> tuple[Floats, Floats, Any]:
    """Samples along two directions at an acute angle."""
    X = (
        np.outer([0.5, 1.0, 1.6], [1.0, 0.1]).tolist()
        + np.outer([0.7, 1.1, 2.0], [0.5, 1]).tolist()
    )
    y = np.asarray([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    return np.asarray(X), y, closed_form.spike_free(np.asarray(X), y, LAM, jr.LogisticLoss())


def spline() -> tuple[Floats, Floats, Any]:
    """Samples on a line, with free biases and an output constant: squared loss on the labels."""
    X = np.outer([-2.0, -1.5, -0.8, -0.3, 0.4, 1.1, 1.9], [0.9, 0.4])
    y = np.asarray([1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
    return X, y, closed_form.spline(X, y, LAM)


def separable(number: int) -> tuple[Floats, Floats, Any]:
    """Two classes in opposite quadrants."""
    y = np.where(np.arange(number) % 2, 1.0, -1.0)
    X = (0.2 + 1.6 * np.random.default_rng(0).random((number, 2))) * y[:, None]
    return X, y, closed_form.separable(X, y)


def regions(axes: Axes, X: Floats, y: Floats, predict: Callable[[Floats], Any]) -> None:
    """Where the network is positive and negative, its boundary, and the samples."""
    reach = 1.25 * float(np.max(np.abs(X)))
    ticks = np.linspace(-reach, reach, 300)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)
    values = np.asarray(predict(grid.reshape(-1, 2))).reshape(grid.shape[:2])
    size = float(np.max(np.abs(values)))
    axes.contourf(
        ticks, ticks, values / size, levels=np.linspace(-1, 1, 22), cmap="RdBu", alpha=0.7
    )
    # A network is exactly zero where no neuron is active: the boundary is drawn around it.
    axes.contour(
        ticks,
        ticks,
        values,
        levels=[-1e-9 * size, 1e-9 * size],
        colors="k",
        linestyles="solid",
        linewidths=0.6,
    )
    for label, colour in ((1.0, "C0"), (-1.0, "C3")):
        axes.scatter(
            *X[y == label].T,
            s=26,
            color=colour,
            edgecolors="k",
            linestyles="solid",
            linewidths=0.6,
            zorder=3,
        )
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def arrows(axes: Axes, hidden: Floats, output: Floats, reach: float) -> None:
    """The neurons as arrows, blue where they vote for +1."""
    for u, a in zip(hidden.T, output, strict=True):
        tip = 0.9 * reach * u / np.linalg.norm(u)
        style = {"arrowstyle": "-|>", "color": "C0" if a > 0 else "C3", "lw": 1.6}
        axes.annotate("", xy=tuple(tip), xytext=(0.0, 0.0), arrowprops=style)


def patterns() -> tuple[Floats, Floats]:
    """Orthonormal samples (14, 64): horizontal waves, class +1, and vertical ones, class -1."""
    place = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    waves = np.stack([np.cos(k * place) for k in range(1, SIDE)])
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    flat = np.full(SIDE, SIDE**-0.5)
    images = [np.outer(flat, wave) for wave in waves] + [np.outer(wave, flat) for wave in waves]
    X = np.stack(images).reshape(2 * len(waves), -1)
    return X, np.repeat([1.0, -1.0], len(waves))


def draw_neurons(path: Any) -> Row:
    """Some samples of each class, and the two neurons, which are sums of them."""
    X, labels = patterns()
    y = labels / np.tile(1.0 + np.arange(SIDE - 1), 2)  # smoother waves weigh more
    found = closed_form.whitened(X, y, LAM)
    figure, panels = plt.subplots(2, 5, figsize=(8, 3.5), layout="constrained")
    for row, label in enumerate((1.0, -1.0)):
        chosen = np.flatnonzero(labels == label)[:4]
        for axes, i in zip(panels[row], chosen, strict=False):
            axes.imshow(X[i].reshape(SIDE, SIDE), cmap="gray")
            axes.set_title(f"sample, y = {y[i]:.2f}", fontsize=9)
        fit = np.maximum(label * np.asarray(found.fit), 0.0)
        neuron = np.asarray(found.network.hidden)[:, row]
        decoded = X.T @ fit / np.linalg.norm(fit)
        np.testing.assert_allclose(neuron / np.linalg.norm(neuron), decoded, atol=1e-12)
        panels[row, 4].imshow(decoded.reshape(SIDE, SIDE), cmap="gray")
        panels[row, 4].set_title("neuron, a > 0" if label > 0 else "neuron, a < 0", fontsize=9)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=150)
    return {"data": "whitened patterns", "neurons": found.network.num_neurons,
            "value": found.value, "gap": found.gap}  # fmt: skip


def main() -> None:
    """Solves all of them, checks the gaps, and draws."""
    args = arguments(parser(__doc__, data=False))
    kinds = {"whitened": whitened(), "rank-one": rank_one(), "spike-free": spike_free(),
             "spline": spline(), "separable": separable(6 if args.quick else 30)}  # fmt: skip
    figure, panels = plt.subplots(1, len(kinds), figsize=(12, 2.7), layout="constrained")
    rows: list[Row] = []
    for axes, (name, (X, y, found)) in zip(panels, kinds.items(), strict=True):
        rows.append({"data": name, "neurons": found.network.num_neurons, "value": found.value,
                     "gap": found.gap})  # fmt: skip
        predict = found if name == "spline" else found.network
        regions(axes, X, y, predict)
        hidden = np.asarray(found.network.hidden)[:2]
        if name != "spline":
            arrows(axes, hidden, np.asarray(found.network.output), float(np.max(np.abs(X))))
        axes.set_title(f"{name}, {found.network.num_neurons} neurons", fontsize=10)
    figure.savefig(args.out / "closed_form_regions.png", dpi=150)
    rows.append(draw_neurons(args.out / "closed_form_neurons.png"))
    for row in rows:
        assert abs(row["gap"]) <= 1e-6 * row["value"], row
    (args.out / "closed_form_pictures.csv").unlink(missing_ok=True)
    Table(args.out / "closed_form_pictures.csv", ("data",)).add(rows)


if __name__ == "__main__":
    main()
