"""Decision regions of globally optimal networks with a free bias, beside kernels.

    python experiments/decision_regions.py --out DIR [--quick]

Sixty labelled points of three shapes in the plane. The network is the optimum over *all* activation
patterns (about 3,500, enumerated), so that nothing is trained and nothing is sampled; beside it are
kernel ridge regression with the neural tangent kernel of the same architecture, what a very wide
network trained near its starting point computes, and with a Gaussian kernel. All have the squared
loss, and the strength of their penalty is the best of a grid on 400 other points.

The penalty of the network is on neurons, so that a few straight walls carry the whole boundary;
kernels bend everywhere. Writes decision_regions.csv, .md and a figure.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Row, Table, arguments, parser
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel

import jaxrelu as jr

SHAPES, NOISE, SAMPLES, OTHERS = ("moons", "rings", "crossing"), 0.2, 60, 400
ALPHAS = np.geomspace(1e-3, 10.0, 13)
MODELS = ("network", "tangent kernel", "Gaussian kernel")


def drawn(shape: str, n: int, seed: int) -> tuple[Floats, Floats]:
    """Points (n, 2) of a shape, and labels -1/+1."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    if shape == "moons":
        angle = np.pi * rng.random(n)
        X = np.column_stack([np.cos(angle), np.sin(angle)])
        X[y < 0] = np.array([1.0, 0.5]) - X[y < 0]
        X -= np.array([0.5, 0.25])
    elif shape == "rings":
        radius, angle = np.where(y > 0, 0.4, 1.3), 2 * np.pi * rng.random(n)
        X = radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    else:
        X = rng.uniform(-1.2, 1.2, (n, 2))
        y = np.where(X[:, 0] * X[:, 1] > 0, 1.0, -1.0)
        X += 0.5 * NOISE * rng.standard_normal((n, 2))
        return X, y
    return X + NOISE * rng.standard_normal((n, 2)), y


def tangent_kernel(A: Floats, B: Floats) -> Floats:
    """The neural tangent kernel (m, n) of a two-layer ReLU network with biases."""
    A, B = (np.column_stack([rows, np.ones(len(rows))]) for rows in (A, B))
    lengths = np.linalg.norm(A, axis=1)[:, None] * np.linalg.norm(B, axis=1)
    cosine = np.clip(A @ B.T / lengths, -1.0, 1.0)
    open_share = (np.pi - np.arccos(cosine)) / np.pi
    features = cosine * open_share + np.sqrt(1.0 - cosine**2) / np.pi
    return lengths * (features + cosine * open_share)


def outputs(model: str, X: Floats, y: Floats, there: Floats, num: int) -> tuple[Floats, list[int]]:
    """Outputs (L, m) at other points for every strength of the penalty, and numbers of neurons."""
    if model == "network":
        program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X, bias="free"), bias="free")
        path = jr.solve_path(program, jr.lambda_grid(program, num=num, ratio=1e-2))
        for k in range(len(path)):
            jr.raise_if_failed(path[k])
        found = [jr.minimal(jr.to_network(program, path[k]).compact(), X) for k in range(len(path))]
        return np.stack([np.asarray(n(there)) for n in found]), [n.num_neurons for n in found]
    kernel = tangent_kernel if model == "tangent kernel" else lambda A, B: rbf_kernel(A, B, 2.0)
    fitted = [
        KernelRidge(alpha=alpha, kernel="precomputed").fit(kernel(X, X), y) for alpha in ALPHAS
    ]
    return np.stack([m.predict(kernel(there, X)) for m in fitted]), [len(X)] * len(fitted)


def one(shape: str, quick: bool) -> tuple[list[Row], dict[str, Floats]]:
    """The rows of a shape, and the outputs on the grid of the figure."""
    n = 14 if quick else SAMPLES
    X, y = drawn(shape, n, 0)
    (V, v), (T, t) = drawn(shape, OTHERS, 1), drawn(shape, 10 * OTHERS, 2)
    rows: list[Row] = []
    pictures = {}
    for model in MODELS:
        f, size = outputs(model, X, y, np.concatenate([V, T, grid()]), 4 if quick else 13)
        right = np.mean(np.sign(f[:, : len(V)]) == v, axis=1)
        k = int(np.argmax(right))
        share = float(np.mean(np.sign(f[k, len(V) : len(V) + len(T)]) == t))
        rows.append({"shape": shape, "model": model, "accuracy": share, "units": size[k]})
        pictures[model] = f[k, len(V) + len(T) :]
    return rows, pictures


def grid() -> Floats:
    """Points (m, 2) of the picture."""
    line = np.linspace(-2.0, 2.0, 121)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def draw(table: Table, pictures: dict[str, dict[str, Floats]], out: Path, quick: bool) -> None:
    """A row of panels a shape, a column a model."""
    figure, panels = plt.subplots(
        len(SHAPES), len(MODELS), figsize=(8.4, 8.4), sharex=True, sharey=True, layout="constrained"
    )
    line = np.linspace(-2.0, 2.0, 121)
    for panel_row, shape in zip(panels, SHAPES, strict=True):
        X, y = drawn(shape, 14 if quick else SAMPLES, 0)
        for panel, model in zip(panel_row, MODELS, strict=True):
            f = pictures[shape][model].reshape(len(line), -1)
            panel.contourf(line, line, np.clip(f, -2, 2), 16, cmap="RdBu", vmin=-2, vmax=2)
            panel.contour(line, line, f, [0.0], colors="black", linewidths=1.0)
            panel.scatter(*X.T, c=y, cmap="RdBu", edgecolors="black", s=16, vmin=-1.4, vmax=1.4)
            here = {"shape": shape, "model": model}
            accuracy, units = (table.column(what, **here)[0] for what in ("accuracy", "units"))
            what = "neurons" if model == "network" else "points"
            panel.set_title(f"{model}: {accuracy:.1%}, {units:.0f} {what}", fontsize=9)
    figure.savefig(out / "decision_regions.png", dpi=130)


def main() -> None:
    """Solves, and writes table and figure."""
    args = arguments(parser(__doc__, data=False))
    (args.out / "decision_regions.csv").unlink(missing_ok=True)
    table, pictures = Table(args.out / "decision_regions.csv", ("shape",)), {}
    for (shape,) in table.missing([(shape,) for shape in SHAPES], "shapes"):
        rows, pictures[shape] = one(shape, args.quick)
        table.add(rows)
    lines = ["| shape | model | test accuracy | neurons or points |", "|---" * 4 + "|"]
    lines += [
        f"| {r['shape']} | {r['model']} | {float(r['accuracy']):.3f} | {r['units']} |"
        for r in table.rows
    ]
    (args.out / "decision_regions.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(table, pictures, args.out, args.quick)


if __name__ == "__main__":
    main()
