r"""The skip connection: one more block, X theta_0, that is not penalised and has no cone.

    f = sum_b s_b D_b X theta_b + X theta_0

To solvers it is a pattern of ones behind the others, of weight zero. For a gated program that is
all; of a ReLU program it is the one block without a cone (`SkipProgram`). An ordinary pattern of
ones is no skip connection: its weights are confined to X u >= 0.

Reference: Mishkin, Sahiner and Pilanci (ICML 2022), whose scnn has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.pytrees import register
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.programs.program import ConvexProgram, GatedProgram, Program


@register
@dataclass(frozen=True, eq=False)
class SkipProgram(ConvexProgram):
    """A ReLU program whose last pattern is of ones, and has no cone and no negative sign."""

    def without_cone(self, pattern: Array) -> Array:
        """Which of some patterns (k,) have no cone, (k,) bool."""
        return pattern == self.patterns.masks.shape[1] - 1

    def columns(self, pattern: Array) -> Array | None:
        """(k, d) bool, the features that blocks of some patterns see; None for all."""
        del pattern
        return None


@register
@dataclass(frozen=True, eq=False)
class SkipGatedProgram(GatedProgram):
    """A gated program whose last gate lets everything through."""


def without_cone(program: Program, pattern: Array) -> Array | None:
    """Which of some patterns have no cone, where one has none; None where all have."""
    return program.without_cone(pattern) if isinstance(program, SkipProgram) else None


def columns_of(program: Program, pattern: Array) -> Array | None:
    """(k, d) bool, the features that blocks of some patterns (k,) see; None for all."""
    return program.columns(pattern) if isinstance(program, SkipProgram) else None


def has_cone(program: Program) -> Array:
    """(b,) bool, which blocks are confined to one."""
    pattern = block_patterns(program.block_shape)
    open_ones = without_cone(program, pattern)
    return jnp.full(pattern.shape, program.has_cones) if open_ones is None else ~open_ones
