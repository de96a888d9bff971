"""A polytope of convex weights, and the curved set of networks that it is mapped to.

    python experiments/solution_manifold.py --out DIR [--quick]

The optimal coefficients a of a small problem form a polytope of dimension three; the networks have
weights of size sqrt(a): the same set, curved. Where a coefficient vanishes the network loses a
neuron.

Writes solution_manifold.csv (the vertices) and a figure of three coefficients and their roots.
"""

from __future__ import annotations

from itertools import combinations

import jax
import matplotlib.pyplot as plt
import numpy as np
from common import Floats, Table, arguments, parser
from scipy.spatial import ConvexHull

import jaxrelu as jr

LAM = 0.2


def optima() -> jr.OptimalSet:
    """Three rows at 120 degrees with equal targets: six directions of rank three."""
    angle = 2 * np.pi * np.arange(3) / 3
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    program = jr.ConvexProgram(X, np.ones(3), jr.enumerate_patterns(X))
    return jr.optimal_set(program, jr.solve(program, LAM, rtol=1e-10))


def surface(corners: Floats, faces: Floats, parts: int) -> tuple[Floats, Floats]:
    """Points on the faces (triangles of corners (num, k)) and small triangles between them."""
    points: list[Floats] = []
    triangles = []
    for face in faces:
        a, b, c = corners[face]
        place = {}
        for i in range(parts + 1):
            for j in range(parts + 1 - i):
                place[i, j] = len(points)
                points.append(a + (i * (b - a) + j * (c - a)) / parts)
        for i, j in place:
            if (i + 1, j) in place:
                triangles.append((place[i, j], place[i + 1, j], place[i, j + 1]))
            if (i + 1, j + 1) in place:
                triangles.append((place[i + 1, j], place[i + 1, j + 1], place[i, j + 1]))
    return np.maximum(points, 0.0), np.array(triangles)


def main() -> None:
    """Computes the set and draws it twice."""
    args = arguments(parser(__doc__, data=False))
    found = optima()
    corners = np.asarray(jr.vertices(found))
    table = Table(args.out / "solution_manifold.csv", ("vertex",))
    if not table.rows:
        names = [f"a{k + 1}" for k in range(corners.shape[1])]
        table.add(
            [{"vertex": v, **dict(zip(names, a, strict=True))} for v, a in enumerate(corners)]
        )
    print(f"{found.signs.size} directions, rank {found.rank}, dimension {found.dimension}, "
          f"{len(corners)} vertices, smallest network {found.minimal_width}")  # fmt: skip
    centred = corners - corners.mean(axis=0)
    three = list(
        max(
            combinations(range(corners.shape[1]), 3),
            key=lambda c: np.linalg.svd(centred[:, c], compute_uv=False)[2],
        )
    )
    hull = ConvexHull(corners[:, three])
    points, triangles = surface(corners, hull.simplices, 6 if args.quick else 30)
    random = np.asarray(jr.sample_optimal(jax.random.key(0), found, 500))
    figure = plt.figure(figsize=(9, 4.2), layout="constrained")
    shown = (("coefficients of the convex program", points, random),
             ("sizes of the neurons: their roots", np.sqrt(points), np.sqrt(random)))  # fmt: skip
    for place, (title, where, dots) in enumerate(shown):
        axes = figure.add_subplot(1, 2, place + 1, projection="3d")
        x, y, z = where[:, three].T
        axes.plot_trisurf(x, y, z, triangles=triangles, alpha=0.6, color=f"C{place}", lw=0)
        axes.scatter(*dots[:, three].T, s=2, color="k", alpha=0.4)
        axes.set_title(title, fontsize=10)
        axes.view_init(28, 35)
    figure.savefig(args.out / "solution_manifold.png", dpi=150)


if __name__ == "__main__":
    main()
