"""The inner method on cones of very many rows, through the walls near each block.

A Newton step costs as much as the cones have rows. With n = 100,000 samples, all but some hundred
rows of a block are far from it: the block is solved with its nearest rows, the rest are checked,
and what is violated is exchanged for what is not needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.loops import iterate
from jaxrelu.core.numerics import plain_norm
from jaxrelu.geometry.gram import OwnRows, Rows, nearest
from jaxrelu.solvers.augmented_lagrangian.newton_direction import constant_coupling
from jaxrelu.solvers.augmented_lagrangian.newton_method import Iterate, Outcome, minimise
from jaxrelu.solvers.augmented_lagrangian.subproblem import Subproblem

_MOST_SWEEPS = 20


class _Sweep(NamedTuple):
    at: Iterate
    active: Array
    steps: Array
    finite: Array
    done: Array


def minimise_near_walls(
    problem: Subproblem,
    start: Iterate,
    tolerance: Array,
    max_steps: Any,
    scale: Array,
    coupling: Array | None = None,
) -> Outcome:
    """`minimise` of `newton_method`, some rows at a time where there are many.

    Takes a problem with all rows of the cones and returns multipliers of all rows.
    """
    rows = problem.rows
    if not (isinstance(rows, Rows) and rows.are_many):
        return minimise(problem, start, tolerance, max_steps, scale, coupling)
    coupling = constant_coupling(problem) if coupling is None else coupling
    lane = jnp.arange(start.weights.shape[0])[:, None]

    def sweep(state: _Sweep) -> _Sweep:
        at = state.at
        index = nearest(problem.slack(at.weights), at.cone_dual, problem.X.shape[1])
        near = problem._replace(
            rows=OwnRows(rows.unit[index], rows.reach),
            cone_signs=jnp.take_along_axis(problem.cone_signs, index, axis=1),
        )
        own = at._replace(cone_dual=jnp.take_along_axis(at.cone_dual, index, axis=1))
        out = minimise(near, own, tolerance, max_steps - state.steps, scale, coupling)
        weights, _, multipliers, _ = out.iterate
        dual = jnp.zeros_like(at.cone_dual).at[lane, index].set(multipliers)
        outside = jnp.max(jnp.maximum(-problem.slack(weights), 0.0), initial=0.0)
        violated = outside > 2.0 * tolerance * jnp.max(plain_norm(weights), initial=0.0)
        steps = state.steps + out.num_steps
        return _Sweep(
            out.iterate._replace(cone_dual=dual), out.active, steps, out.finite,
            ~violated | (steps >= max_steps) | ~out.finite,
        )  # fmt: skip

    no, yes = jnp.asarray(False), jnp.asarray(True)
    occupied = jnp.any(problem.signed_masks != 0, axis=1)
    first = _Sweep(start, occupied, jnp.asarray(0, jnp.int32), yes, no)
    end = iterate(sweep, first, done=lambda s: s.done, max_steps=_MOST_SWEEPS)
    return Outcome(end.state.at, end.state.active, end.state.steps, end.finite & end.state.finite)
