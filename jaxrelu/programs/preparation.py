"""Before a solve: the row space of X, and interior witnesses of the cones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import in_chunks
from jaxrelu.core.numerics import matmul
from jaxrelu.geometry.cones import interior_directions, projection_batch
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.programs.program import Program


def row_space(program: Program) -> tuple[Program, Array | None]:
    """The same program in the row space of X when d > n.

    Optimal weights lie in the row space: with X^T = Q R, weights z Q^T and X -> R^T the objective
    and the cones are unchanged, and d becomes n.

    Returns:
        The program and Q (d, n), or the program itself and None when d <= n.
    """
    X = jnp.asarray(program.X)
    n, d = X.shape
    if d <= n:
        return program, None
    q, r = jnp.linalg.qr(X.T)
    patterns = program.patterns
    interior = None if patterns.interior is None else matmul(q.T, jnp.asarray(patterns.interior))
    gates = matmul(q.T, jnp.asarray(patterns.gates))
    reduced = type(program)(
        r.T, program.y, Patterns(gates, patterns.masks, interior), program.loss,
        program.sample_weight,
    )  # fmt: skip
    return reduced, q


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
    return type(program)(program.X, program.y, patterns, program.loss, program.sample_weight)


def lift(weights: Array, basis: Array | None) -> Array:
    """Weights in the row space as weights of the features themselves."""
    return weights if basis is None else matmul(weights, basis.T)
