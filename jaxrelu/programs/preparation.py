"""Before a solve: the row space of X, and interior witnesses of the cones."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import in_chunks
from jaxrelu.core.numerics import matmul, safe_norm
from jaxrelu.core.rounding import roundoff
from jaxrelu.geometry.cones import interior_directions, projection_batch
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.programs.program import Program


class RowSpace(NamedTuple):
    """The row space of X, and how exactly it is known.

    Attributes:
        basis: (d, n), Q with orthonormal columns.
        slip: scalar, at least || x_i - Q R e_i || / || x_i || of every row.
        stretch: scalar, at least || Q z || / || z || - 1.
    """

    basis: Array
    slip: Array
    stretch: Array


def row_space(program: Program) -> tuple[Program, RowSpace | None]:
    """The same program in the row space of X when d > n.

    Optimal weights lie in the row space: with X^T = Q R, weights z Q^T and X -> R^T the objective
    and the cones are unchanged, and d becomes n.

    Returns:
        The program and its `RowSpace`, or the program itself and None when d <= n.
    """
    X = jnp.asarray(program.X)
    n, d = X.shape
    if d <= n:
        return program, None
    q, r = jnp.linalg.qr(X.T)
    patterns = program.patterns
    interior = None if patterns.interior is None else matmul(q.T, jnp.asarray(patterns.interior))
    gates = matmul(q.T, jnp.asarray(patterns.gates))
    reduced = replace(program, X=r.T, patterns=Patterns(gates, patterns.masks, interior))
    # What the factors leave, and what their products may be off themselves.
    unit = roundoff(X.dtype)
    length = safe_norm(X)
    apart = safe_norm(X - matmul(r.T, q.T)) + unit * (n + 4) * (
        safe_norm(r.T) * jnp.sqrt(jnp.sum(q * q)) + length
    )
    apart = jnp.where(length > 0, apart / jnp.where(length > 0, length, 1.0), 0.0)
    gram = matmul(q.T, q) - jnp.eye(n, dtype=X.dtype)
    skew = jnp.sqrt(jnp.sum(gram**2)) + unit * (d + 4) * (1.0 + n)
    return reduced, RowSpace(q, 2.0 * jnp.max(apart), skew)


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


def lifted(weights: Array, space: RowSpace | None) -> Array:
    """Weights in the row space as weights of the features themselves."""
    return weights if space is None else matmul(weights, space.basis.T)


def lowered(weights: Array, space: RowSpace | None) -> Array:
    """Weights of the features in the coordinates of the row space."""
    return weights if space is None else matmul(weights, space.basis)
