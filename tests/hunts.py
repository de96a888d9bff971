"""Small problems of many kinds, generic and degenerate, for hunts of wrong derivatives."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import zoo

import jaxrelu as jr

# name: (samples, features, patterns, gated, loss)
FAMILIES = {
    "all cells": (7, 3, 44, False, "squared"),
    "some cells": (7, 3, 8, False, "squared"),
    "labels": (7, 3, 8, False, "logistic"),
    "labels, all cells": (7, 3, 44, False, "logistic"),
    "huber": (7, 3, 8, False, "huber"),
    "wide": (4, 6, 8, False, "squared"),
    "gated": (7, 3, 8, True, "squared"),
    "gated, labels": (7, 3, 8, True, "logistic"),
}
PROBLEMS = 70
STEPS = (1e-4, 1e-5, 1e-6)
GENERIC, REPEATED, DUPLICATES, PARALLEL, ZERO_ROW, LATTICE, PLANTED = range(7)


def drawn(family, seed):
    """A kind of problem, and one of that kind with a lam."""
    n, d, p, gated, loss = FAMILIES[family]
    rng = np.random.default_rng([list(FAMILIES).index(family), seed])
    X, kind = rng.standard_normal((n, d)), rng.integers(7)
    if kind == DUPLICATES:
        X[-2:] = X[:2]
    if kind == PARALLEL:
        X[-2], X[-1] = 2.0 * X[0], -X[1]
    if kind == ZERO_ROW:
        X[2] = 0.0
    if kind == LATTICE:
        X = np.round(2.0 * X) / 2.0
    y = rng.standard_normal(n)
    if kind == PLANTED:
        y = np.maximum(X @ rng.standard_normal(d), 0.0)
    if loss == "logistic":
        y = np.where(y >= np.median(y), 1.0, -1.0)
    losses = {"squared": jr.SquaredLoss(), "logistic": jr.LogisticLoss()}
    weight = rng.uniform(0.2, 2.0, n) if rng.random() < 0.5 else np.ones(n)
    gates = rng.standard_normal((d, 8))
    if kind == REPEATED:
        gates[:, 4:] = gates[:, :4]
    patterns = jr.enumerate_patterns(X) if p == 44 else jr.patterns_from_gates(X, gates)
    patterns = zoo.tiled(jax.tree.map(np.asarray, patterns), p)
    chosen = losses.get(loss) or jr.HuberLoss(jnp.asarray(0.5))
    program = zoo.program(X, y, patterns, chosen, weight, gated)
    lam = rng.choice([0.9, 0.5, 0.2, 0.05, 0.01]) * float(jr.lambda_max(program))
    change = [rng.standard_normal(a.shape) for a in (X, y, weight)]
    change[1] *= loss != "logistic"
    return kind, program, lam, change


def derivatives(outputs):
    """Of outputs(program, lam, other): values, and both modes' derivatives along a change.

    The change is one of X, y, sample weights and lam; derivatives are (4, number of values).
    """

    @jax.jit
    def both_modes(program, lam, other, change):
        def function(*point):
            X, y, weight, lam = point
            return outputs(replace(program, X=X, y=y, sample_weight=weight), lam, other)

        point = (program.X, program.y, program.sample_weight, lam)
        values, linear = jax.linearize(function, *point)
        zero = [jnp.zeros_like(a) for a in point]
        ahead = [linear(*zero[:k], c, *zero[k + 1 :]) for k, c in enumerate(change)]
        rows = jax.vmap(jax.linear_transpose(linear, *point))(jnp.eye(len(values)))
        back = [
            jnp.sum(row.reshape(len(values), -1) * c.reshape(1, -1), axis=1)
            for row, c in zip(rows, change, strict=True)
        ]
        return values, jnp.stack(ahead), jnp.stack(back)

    return both_modes


def moved(program, lam, k, change):
    """A program and a lam of which X, the target, weights or lam (the k-th) has changed."""
    point = [program.X, program.y, program.sample_weight, lam]
    point[k] = point[k] + change
    X, y, weight, lam = point
    return replace(program, X=X, y=y, sample_weight=weight), lam
