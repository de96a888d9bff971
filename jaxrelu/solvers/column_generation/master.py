"""The exact program over given neurons: a group lasso with c outputs over their features."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats, Ints
from jaxrelu.core.compilation import driven
from jaxrelu.geometry.cones import lanes_at_once
from jaxrelu.geometry.driven_projection import make_feasible
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.programs.bounds import Value
from jaxrelu.programs.vector_bounds import (
    Neurons,
    accurate_correlations,
    neuron_features,
    outputs_lower_value,
    residual_rounding,
    upper_of_neurons,
)
from jaxrelu.programs.vector_program import (
    VectorProgram,
    output_weights,
    outputs_residual,
    targets,
)
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.nuclear_norm.method import Blocks, Point, solve_blocks


class Solved(NamedTuple):
    """The master program solved.

    Attributes:
        neurons: with their outputs.
        upper: their objective.
        fit: (n, c), of the neurons.
        residual: (n, c), the dual vector.
        correlations: (p, d, c), X^T D_j R.
        rounding: scalar, of their norms.
        sigma: to go on from.
        num_steps: int32.
        finite: bool.
    """

    neurons: Neurons
    upper: Value
    fit: Array
    residual: Array
    correlations: Array
    rounding: Array
    sigma: Array
    num_steps: Array
    finite: Array


@driven
def solve_master(
    program: VectorProgram,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    neurons: Neurons,
    sigma: Array,
) -> Solved:
    """The best outputs of neurons whose directions have norm one, or are zero."""
    features = neuron_features(program, neurons)
    ones = jnp.ones((features.shape[1], 1), features.dtype)
    problem = Blocks(ones, features.T, targets(program), output_weights(program), program.loss)
    blocks = neurons.outputs[:, None]
    start = Point(blocks, problem.fit(blocks), sigma)
    found = solve_blocks(problem, lam, tolerance, max_steps, start)
    neurons = neurons._replace(outputs=found.blocks[:, 0])
    upper, fit = upper_of_neurons(program, lam, neurons)
    # The best dual vector of the master; that of the fit is less exact.
    residual = found.residual
    return Solved(
        neurons, upper, fit, residual, accurate_correlations(program, residual),
        residual_rounding(program, residual), found.point.sigma, found.num_steps, found.finite,
    )  # fmt: skip


@driven
def valued(program: VectorProgram, lam: Array, neurons: Neurons, residual: Array | None) -> Solved:
    """Neurons inside their cells as they are, at a residual or at that of their fit."""
    upper, fit = upper_of_neurons(program, lam, neurons)
    at = outputs_residual(program, fit) if residual is None else residual
    zero = jnp.zeros((), at.dtype)
    return Solved(
        neurons, upper, fit, at, accurate_correlations(program, at), residual_rounding(program, at),
        zero, jnp.zeros((), jnp.int32), jnp.isfinite(upper.value) & jnp.all(jnp.isfinite(at)),
    )  # fmt: skip


def placed(program: VectorProgram, directions: Floats, cells: Ints, reach: float) -> Floats:
    """Directions (m, d) inside their cells, no further than a reach from given unit vectors.

    Zero where there is no room.
    """
    rows, masks = _rows(program.X), np.asarray(program.patterns.masks, bool)
    witnesses = np.asarray(program.patterns.interior)
    dtype, at_once = program.X.dtype, lanes_at_once(len(masks))
    placed = np.zeros(directions.shape, dtype)
    for start in range(0, len(directions), at_once):
        some = np.minimum(np.arange(start, start + at_once), len(directions) - 1)
        signs: Any = np.where(masks[:, cells[some]].T, 1.0, -1.0).astype(dtype)
        given: Any = np.ascontiguousarray(directions[some], dtype)
        near: Any = np.ascontiguousarray(witnesses[:, cells[some]].T)
        inside = make_feasible(rows, signs, given, near)
        stop = min(start + at_once, len(directions))
        placed[start:stop] = np.asarray(inside)[: stop - start]
    close = np.linalg.norm(placed - directions, axis=1) <= reach
    return np.where(close[:, None], placed, 0.0)


_rows = driven(shared_rows, optimised=False)


@driven
def lower_value(program: VectorProgram, lam: Array, residual: Array, bound: Array) -> Array:
    """The dual value of the best feasible multiple of a residual, rounded down."""
    return outputs_lower_value(program, lam, residual, bound)[0].value
