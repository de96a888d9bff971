"""Programs as operators see them: what is not penalised, beside the blocks of patterns, is a block.

A skip connection and the constant of a free bias are parts of the answer of their own to users, and
one more block behind the others to solvers, in `extended` programs and their weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.geometry.checks import with_ones
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.programs.bias import BiasProgram
from jaxrelu.programs.program import Program
from jaxrelu.programs.skip import SkipGatedProgram, SkipProgram


class Parts(NamedTuple):
    """Weights as users have them: of the patterns, and the skip connection and the constant.

    Attributes:
        weights: (..., 2, p, d), or (..., p, d) for a gated program; d + 1 with a free bias.
        skip: (..., d), or None.
        constant: (...), or None.
    """

    weights: Any
    skip: Any = None
    constant: Any = None


def extended(program: Program) -> Program:
    """The program with what is not penalised as a block; itself where there is nothing."""
    if not _adds_block(program):
        return program
    X = jnp.asarray(program.X)
    if program.bias == "free":
        X = with_ones(X)
    patterns, ones = program.patterns, jnp.ones((len(X), 1), bool)
    masks = jnp.concatenate([jnp.asarray(patterns.masks, bool), ones], axis=1)
    interior = None if patterns.interior is None else _with_zero(patterns.interior)
    patterns = Patterns(_with_zero(patterns.gates), masks, interior)
    shape, given = program.block_shape, program.block_weights
    weights = jnp.ones(shape, X.dtype) if given is None else jnp.asarray(given)
    own = jnp.asarray([[0.0], [jnp.inf]] if program.has_cones else [0.0], X.dtype)
    args = X, program.y, patterns, program.loss, program.sample_weight
    if not program.has_cones:
        weights = jnp.concatenate([weights, own], axis=-1)
        return SkipGatedProgram(*args, weights, skip=True)
    if program.bias == "free":
        # A weight of zero is refused where it is known.
        weights = jnp.where(weights == 0, jnp.nan, weights)
        weights = jnp.concatenate([weights, own], axis=-1)
        return BiasProgram(*args, weights, skip=program.skip, bias="free")
    return SkipProgram(*args, jnp.concatenate([weights, own], axis=-1), skip=True)


def _adds_block(program: Program) -> bool:
    """Whether it has what `extended` makes a block."""
    given = not isinstance(program, SkipProgram | SkipGatedProgram)
    return given and (program.skip or program.bias == "free")


def _with_zero(columns: Any) -> Array:
    """(d, p) -> (d, p + 1); no gate, of zeros, lets everything through."""
    return jnp.pad(jnp.asarray(columns), ((0, 0), (0, 1)))


def extended_shape(program: Program) -> tuple[int, ...]:
    """The block shape of `extended`, of the program itself."""
    *signs, p = program.block_shape
    return (*signs, p + _adds_block(program))


def joined(program: Program, parts: Parts) -> Array:
    """Dense weights (..., p, d) and what is not penalised as weights of `extended`."""
    weights = parts.weights
    if not _has_block(program):
        return jnp.asarray(weights)
    own = jnp.zeros(weights.shape[-1:], weights.dtype)
    features = own.shape[0] - (program.bias == "free")
    if parts.skip is not None:
        own = own.at[:features].set(parts.skip)
    if parts.constant is not None:
        own = own.at[-1].set(parts.constant)
    last = own[None] if weights.ndim == 2 else jnp.stack([own, jnp.zeros_like(own)])[:, None]
    return jnp.concatenate([weights, last], axis=-2)


def apart(program: Program, weights: Any) -> Parts:
    """Dense weights (..., d) of `extended`, one array or a batch, as those of users."""
    if not _has_block(program):
        return Parts(weights)
    last = weights[..., -1, :]
    own = last[..., 0, :] if program.has_cones else last
    return Parts(weights[..., :-1, :], *beside(program, own))


def beside(program: Program, own: Any) -> tuple[Any, Any]:
    """The skip connection and the constant, or None, of the last block (..., d)."""
    if program.bias != "free":
        return own if program.skip else None, None
    return own[..., :-1] if program.skip else None, own[..., -1]


def ids_apart(program: Program, ids: Any) -> tuple[Any, Any]:
    """Flat indices of blocks of `extended` as those of the program, and which is the last one."""
    if not _has_block(program):
        return ids, ids != ids
    place = program.block_shape[-1]
    return ids - (ids > place), ids == place


def _has_block(program: Program) -> bool:
    return program.skip or program.bias == "free"
