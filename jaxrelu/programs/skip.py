r"""The skip connection: one more block, X theta_0, that is not penalised and has no cone.

    f = sum_b s_b D_b X theta_b + X theta_0

To solvers it is a pattern of ones behind the others, of weight zero. For a gated program that is
all; of a ReLU program it is the one block without a cone (`SkipProgram`). An ordinary pattern of
ones is no skip connection: its weights are confined to X u >= 0.

Reference: Mishkin, Sahiner and Pilanci (ICML 2022), whose scnn has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.pytrees import register
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.programs.program import ConvexProgram, GatedProgram, Program


@register
@dataclass(frozen=True, eq=False)
class SkipProgram(ConvexProgram):
    """A ReLU program whose last pattern is of ones, and has no cone and no negative sign."""


@register
@dataclass(frozen=True, eq=False)
class SkipGatedProgram(GatedProgram):
    """A gated program whose last gate lets everything through."""


def extended(program: Program) -> Program:
    """The program with its skip connection as a block; itself where it has none."""
    if not program.skip or isinstance(program, SkipProgram | SkipGatedProgram):
        return program
    patterns, ones = program.patterns, jnp.ones((program.X.shape[0], 1), bool)
    masks = jnp.concatenate([jnp.asarray(patterns.masks, bool), ones], axis=1)
    interior = None if patterns.interior is None else _with_zero(patterns.interior)
    patterns = Patterns(_with_zero(patterns.gates), masks, interior)
    shape, dtype = program.block_shape, program.X.dtype
    given = program.block_weights
    weights = jnp.ones(shape, dtype) if given is None else jnp.asarray(given)
    kind: type[Program] = SkipProgram if program.has_cones else SkipGatedProgram
    own = jnp.asarray([[0.0], [jnp.inf]] if program.has_cones else [0.0], dtype)
    weights = jnp.concatenate([weights, own], axis=-1)
    return kind(
        program.X, program.y, patterns, program.loss, program.sample_weight, weights, skip=True
    )


def _with_zero(columns: Any) -> Array:
    """(d, p) -> (d, p + 1); no gate, of zeros, lets everything through."""
    return jnp.pad(jnp.asarray(columns), ((0, 0), (0, 1)))


def is_skip(program: Program, pattern: Array) -> Array | None:
    """Which of some patterns have no cone, where one has none; None where all have."""
    if not isinstance(program, SkipProgram):
        return None
    return pattern == program.patterns.masks.shape[1] - 1


def has_cone(program: Program) -> Array:
    """(b,) bool, which blocks are confined to one."""
    pattern = block_patterns(program.block_shape)
    skip = is_skip(program, pattern)
    return jnp.full(pattern.shape, program.has_cones) if skip is None else ~skip


def shape_with_skip(program: Program) -> tuple[int, ...]:
    """The block shape of `extended`, of the program itself."""
    *signs, p = program.block_shape
    extra = program.skip and not isinstance(program, SkipProgram | SkipGatedProgram)
    return (*signs, p + extra)


def with_skip(program: Program, weights: Array, skip: Array | None) -> Array:
    """Dense weights (..., p, d) and a skip connection (d,) as weights of `extended`."""
    if not program.skip:
        return weights
    own = jnp.zeros(weights.shape[-1:], weights.dtype) if skip is None else jnp.asarray(skip)
    last = own[None] if weights.ndim == 2 else jnp.stack([own, jnp.zeros_like(own)])[:, None]
    return jnp.concatenate([weights, last], axis=-2)


def without_skip(program: Program, weights: Any) -> tuple[Any, Any]:
    """Dense weights (..., d) of `extended`, one array or a batch: those of patterns, and skip."""
    if not program.skip:
        return weights, None
    last = weights[..., -1, :]
    return weights[..., :-1, :], last[..., 0, :] if program.has_cones else last


def skip_apart(program: Program, ids: Any) -> tuple[Any, Any]:
    """Flat indices of blocks of `extended` as those of the program, and which one is the skip."""
    if not program.skip:
        return ids, ids != ids
    place = program.block_shape[-1]
    return ids - (ids > place), ids == place
