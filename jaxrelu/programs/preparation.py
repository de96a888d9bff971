"""Before a solve: the coordinates that solvers see, and interior witnesses of the cones."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import in_chunks
from jaxrelu.core.numerics import matmul
from jaxrelu.geometry.cones import interior_directions, projection_batch
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.programs.bias import BiasProgram, Centring, centred
from jaxrelu.programs.program import Program
from jaxrelu.programs.row_space import RowSpace, row_space_of

Coordinates = RowSpace | Centring


def row_space(program: Program) -> tuple[Program, Coordinates | None]:
    """The program as solvers see it: in the row space of X when d > n, centred with a free bias.

    Optimal weights lie in the row space: with X^T = Q R, weights z Q^T and X -> R^T the objective
    and the cones are unchanged, and d becomes n.

    Returns:
        The program and its coordinates, or the program itself and None where they are the same.
    """
    if isinstance(program, BiasProgram):
        return centred(program)
    X = jnp.asarray(program.X)
    n, d = X.shape
    if d <= n:
        return program, None
    rows, space = row_space_of(X)
    patterns = program.patterns
    interior = patterns.interior
    if interior is not None:
        interior = matmul(space.basis.T, jnp.asarray(interior))
    gates = matmul(space.basis.T, jnp.asarray(patterns.gates))
    return replace(program, X=rows, patterns=Patterns(gates, patterns.masks, interior)), space


def with_interior(program: Program) -> Program:
    """The program with interior witnesses of its cones, computed here if they are missing."""
    patterns = program.patterns
    if patterns.interior is not None or not program.has_cones:
        return program
    # Witnesses serve the repair; no derivative passes through them.
    X, masks, gates = (
        jax.lax.stop_gradient(jnp.asarray(a)) for a in (program.X, patterns.masks, patterns.gates)
    )

    def directions(some: tuple[Array, Array]) -> Array:
        return interior_directions(X, some[0].T, some[1].T)[0].T

    batch = projection_batch(masks.shape[1], masks.shape[0])
    interior = in_chunks(directions, (masks.T, gates.T), batch).T
    patterns = Patterns(patterns.gates, patterns.masks, interior)
    return replace(program, patterns=patterns)


def lifted(weights: Array, space: Coordinates | None) -> Array:
    """Weights as solvers see them as weights of the features themselves."""
    return weights if space is None else space.lifted(weights)


def lowered(weights: Array, space: Coordinates | None) -> Array:
    """Weights of the features as solvers see them."""
    return weights if space is None else space.lowered(weights)
