r"""A bias that costs nothing: neurons relu(<x, u> + b) with ||u|| alone in the penalty.

    minimise    sum_i c_i loss(f_i, y_i) + lam sum_j (||u_j|| + ||w_j||)
    subject to  (2 D_j - I) (X u_j + b_j) >= 0,    the same for (w_j, a_j),
    where       f = sum_j D_j (X (u_j - w_j) + b_j - a_j) + constant.

A neuron that is active on all samples computes X u + b: b and the constant trade freely, so that b
is the smallest number that the cone allows, and without a constant of its own the infimum need not
be attained (b goes to infinity). By the constant a dual point has sum_i r_i = 0.

To operators this is a program whose features have a column of ones, whose norms leave out the last
entry of a block, and that has one more block without a cone and a penalty, the constant
(`BiasProgram`). A skip connection shares that block.

Solvers see centred features [X - mean, rho 1], rho a power of two near their root mean square
(`CentredProgram`): theirs are weights (u, (b + <mean, u>) / rho). There the block of a neuron that
is active on all samples has neither a cone nor a bias, for these are the constant's; and of its two
signs, which compute the same, there is one.

Reference: Savarese et al. (COLT 2019); the value of a block is in `jaxrelu.geometry.bias_metric`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.core.pytrees import register
from jaxrelu.core.rounding import roundoff, times_power
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.programs.program import Program
from jaxrelu.programs.row_space import RowSpace, row_space_of
from jaxrelu.programs.skip import SkipProgram


@register
@dataclass(frozen=True, eq=False)
class BiasProgram(SkipProgram):
    """A ReLU program over [X, 1] whose norms leave out biases; its last pattern is the constant.

    With `skip` that block has all columns, otherwise the last one alone.
    """

    def columns(self, pattern: Array) -> Array | None:
        """(k, d + 1) bool, the features of blocks: those of the constant are the column of ones."""
        width, last = self.X.shape[1], self.patterns.masks.shape[1] - 1
        if self.skip:
            return None
        own = jnp.arange(width) == width - 1
        return jnp.where((pattern == last)[:, None], own[None], True)


@register
@dataclass(frozen=True, eq=False)
class CentredProgram(BiasProgram):
    """A `BiasProgram` in the coordinates of `centred`."""

    def without_cone(self, pattern: Array) -> Array:
        """The constant, and what is active on all samples."""
        return super().without_cone(pattern) | self._always_active(pattern)

    def columns(self, pattern: Array) -> Array | None:
        """Blocks that are active on all samples have no bias of their own."""
        own = super().columns(pattern)
        width, last = self.X.shape[1], self.patterns.masks.shape[1] - 1
        linear = self._always_active(pattern) & (pattern != last)
        without = jnp.where(linear[:, None], (jnp.arange(width) < width - 1)[None], True)
        return without if own is None else own & without

    def _always_active(self, pattern: Array) -> Array:
        return always_active(self)[pattern]


def always_active(program: Program) -> Array:
    """(p,) bool, the patterns of ones."""
    return jnp.all(jnp.asarray(program.patterns.masks, bool), axis=0)


def has_bias(program: Program) -> bool:
    """Whether norms leave out the last entry of a block."""
    return isinstance(program, BiasProgram)


class Centring(NamedTuple):
    """The coordinates of a `CentredProgram`, as a `RowSpace` is for others.

    Attributes:
        mean: (d,), of the features.
        rho: scalar, what stands in the column of ones.
        space: `RowSpace` of the centred features, or None.
        slip, stretch: as those of `RowSpace`.
    """

    mean: Array
    rho: Array
    space: RowSpace | None
    slip: Array
    stretch: Array

    def lifted(self, weights: Array) -> Array:
        """Weights (..., m + 1) of the centred program as weights of [X, 1]."""
        u, b = weights[..., :-1], weights[..., -1]
        u = u if self.space is None else self.space.lifted(u)
        return jnp.concatenate([u, (self.rho * b - matmul(u, self.mean))[..., None]], axis=-1)

    def lowered(self, weights: Array) -> Array:
        """Weights (..., d + 1) of [X, 1] in the coordinates of the centred program."""
        u, b = weights[..., :-1], weights[..., -1]
        b = (b + matmul(u, self.mean)) / self.rho
        u = u if self.space is None else self.space.lowered(u)
        return jnp.concatenate([u, b[..., None]], axis=-1)


def centred(program: BiasProgram) -> tuple[CentredProgram, Centring]:
    """A program in units as solvers see it, and the way back."""
    X = jnp.asarray(program.X)[:, :-1]
    mean = jnp.mean(X, axis=0)
    rows = X - mean[None]
    space = None
    if rows.shape[1] > rows.shape[0]:
        rows, space = row_space_of(rows)
    usual = jnp.sqrt(jnp.mean(rows * rows))
    usable = (usual > 0) & jnp.isfinite(usual)
    power = jnp.round(jnp.log2(jnp.where(usable, usual, 1.0))).astype(jnp.int32)
    rho = times_power(jnp.ones((), X.dtype), power)
    # A difference of two numbers is rounded once.
    own = 2.0 * roundoff(X.dtype)
    slip = jnp.asarray(own, X.dtype) if space is None else own + space.slip
    stretch = jnp.zeros((), X.dtype) if space is None else space.stretch
    coordinates = Centring(mean, rho, space, slip, stretch)
    features = jnp.concatenate([rows, jnp.broadcast_to(rho, (len(rows), 1))], axis=1)
    given = program.patterns
    gates = coordinates.lowered(jnp.asarray(given.gates).T).T
    interior = None
    if given.interior is not None:
        interior = unit(coordinates.lowered(jnp.asarray(given.interior).T)).T
    patterns = Patterns(gates, given.masks, interior)
    inner = CentredProgram(
        features, program.y, patterns, program.loss, program.sample_weight,
        _of_one_sign(program), skip=program.skip, bias=program.bias,
    )  # fmt: skip
    return inner, coordinates


def _of_one_sign(program: BiasProgram) -> Array:
    """The weights of blocks, infinite for the dearer sign of a neuron that is always active."""
    weights, linear = jnp.asarray(program.block_weights), always_active(program)
    dearer = jnp.stack([weights[0] > weights[1], weights[0] <= weights[1]])
    return jnp.where(linear[None] & dearer, jnp.inf, weights)


def smallest_biases(program: Program, ids: Array, weights: Array) -> Array:
    """Blocks that are active on all samples with the smallest bias, what is left in the constant.

    Args:
        program: a `BiasProgram` in units, or any other, whose blocks stay as they are.
        ids: (k,), flat indices of blocks, the constant among them.
        weights: (k, d + 1), of these.

    Returns:
        (k, d + 1), the same fit.
    """
    if not isinstance(program, BiasProgram) or isinstance(program, CentredProgram):
        return weights
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks, bool)
    p = masks.shape[1]
    linear = jnp.all(masks, axis=0).at[p - 1].set(False)[ids % p] & (ids < 2 * p)
    least = jnp.min(matmul(weights, X.T), axis=1)
    # A little more than what a sum of so many terms rounds.
    room = 2.0 * (X.shape[1] + 8) * roundoff(X.dtype) * safe_norm(weights)
    room = room * jnp.max(safe_norm(X), initial=0.0)
    change = jnp.where(linear & jnp.any(weights != 0, axis=1), room - least, 0.0)
    sign = jnp.where(ids < p, 1.0, -1.0).astype(X.dtype)
    weights = weights.at[:, -1].add(change)
    constant = jnp.where(ids == p - 1, -jnp.sum(sign * change), 0.0)
    return weights.at[:, -1].add(constant)


def of_linear_blocks(program: Program, weights: Array) -> Array:
    """Dense weights (2, p, d) of a `CentredProgram`: linear blocks of one sign, without a bias.

    Their biases go to the constant. Weights of any other program are what they are.
    """
    if not isinstance(program, CentredProgram):
        return weights
    linear = always_active(program).at[-1].set(False)
    own = jnp.where(linear[:, None], weights, 0.0)
    joined = own[0] - own[1]
    first = jnp.asarray(program.block_weights)[0] < jnp.inf
    u = jnp.stack([jnp.where(first[:, None], joined, 0.0), jnp.where(first[:, None], 0.0, -joined)])
    weights = jnp.where(linear[:, None], u.at[:, :, -1].set(0.0), weights)
    return weights.at[0, -1, -1].add(jnp.sum(joined[:, -1]))


def in_bias_units(program: Program, patterns: Patterns, feature: Array) -> Patterns:
    """Patterns of [X, 1] as those of [2^-feature X, 1]."""
    if not has_bias(program):
        return patterns

    def moved(columns: Array) -> Array:
        return jnp.concatenate([times_power(columns[:-1], feature), columns[-1:]])

    interior = None
    if patterns.interior is not None:
        interior = unit(moved(jnp.asarray(patterns.interior)), axis=0)
    return replace(patterns, gates=moved(jnp.asarray(patterns.gates)), interior=interior)
