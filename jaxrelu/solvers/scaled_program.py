"""The scaled program: in numbers around one, in its row space, in flat block order."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import in_chunks
from jaxrelu.core.compilation import compiled
from jaxrelu.core.loops import all_finite
from jaxrelu.core.numerics import eps, matmul
from jaxrelu.geometry.bias_metric import reach_of
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.losses.base import Loss
from jaxrelu.programs.bias import has_bias
from jaxrelu.programs.free_fits import fit_of_nothing
from jaxrelu.programs.penalties import block_factors, seen
from jaxrelu.programs.preparation import Coordinates, lowered, row_space, with_interior
from jaxrelu.programs.program import Program, loss_value, sample_weights
from jaxrelu.programs.units import Units, in_units, into_units
from jaxrelu.solvers.base import Tolerance, WarmStart


class ScaledProgram(NamedTuple):
    """A program in units and in its row space, in flat block order, computed once a call.

    Attributes:
        program: in numbers around one, with witnesses.
        samples: the rows of X.
        rows: the rows of the cones: the same (marked where there is a free bias), or none if gated.
        pattern, factor: (b,), of every block; factors are signs, over weights.
        at_zero: scalar, the objective at zero weights, a skip connection or a constant at its best.
    """

    program: Program
    samples: Rows
    rows: Rows
    pattern: Array
    factor: Array
    at_zero: Array

    @property
    def X(self) -> Array:
        """(n, d)."""
        return jnp.asarray(self.program.X)

    @property
    def y(self) -> Array:
        """(n,)."""
        return jnp.asarray(self.program.y)

    @property
    def masks(self) -> Array:
        """(n, p)."""
        return jnp.asarray(self.program.patterns.masks)

    @property
    def weight(self) -> Array:
        """(n,), the sample weights."""
        return sample_weights(self.program)

    @property
    def default_absolute(self) -> Array:
        """The absolute tolerance where none is given: 50 eps times the objective at zero."""
        return 50 * eps(self.X.dtype) * self.at_zero

    @property
    def num_blocks(self) -> int:
        """2p, or p for a gated program."""
        return self.pattern.shape[0]

    @property
    def loss(self) -> Loss:
        """The loss of the program."""
        return self.program.loss

    def gathered(self, blocks: Array) -> Array:
        """D_b of some blocks, (m, n), in the dtype of X."""
        return self.masks.T[self.pattern[blocks]].astype(self.X.dtype)

    def correlations(self, residual: Array, batch: int | None) -> Array:
        """(s_b / w_b) X^T D_b r of all blocks, (b, d); `batch` patterns are unpacked at a time."""

        def some(masks: Array) -> Array:
            return matmul(masks.astype(self.X.dtype) * residual[None], self.X)

        rows = self.masks.T
        g = in_chunks(some, rows, rows.shape[0] if batch is None else batch)
        return seen(self.program, self.pattern, self.factor[:, None] * g[self.pattern])

    @property
    def has_bias(self) -> bool:
        """Whether norms leave out the last entry of a block."""
        return has_bias(self.program)


def scaled_program(program: Program) -> ScaledProgram:
    """Lays out the blocks of a program in units."""
    X = jnp.asarray(program.X)
    samples = shared_rows(X)
    rows = samples if program.has_cones else shared_rows(X[:0])
    rows = rows._replace(reach=reach_of(X)) if has_bias(program) else rows
    return ScaledProgram(
        program, samples, rows, block_patterns(program.block_shape), block_factors(program),
        loss_value(program, fit_of_nothing(program)),
    )  # fmt: skip


class Prepared(NamedTuple):
    """What does not depend on lam, for calls from the host that keep working sets.

    Attributes:
        scaled: the program as solvers take it.
        features: the program in units with all its features, where `scaled` has fewer.
        space: its coordinates, or None where they are those of the features.
        units: the way back.
    """

    scaled: ScaledProgram
    features: Program | None
    space: Coordinates | None
    units: Units

    @property
    def loss(self) -> Loss:
        """The loss of the program."""
        return self.scaled.loss

    def tolerance(self, given: Tolerance) -> Tolerance:
        """A tolerance in units, the default filled in."""
        return given.filled(self.scaled.default_absolute, self.units.objective)

    def start(self, given: WarmStart | None) -> WarmStart | None:
        """A point to start from, in units and in the row space; one with a NaN is left out."""
        if given is None:
            return None
        weights = lowered(into_units(given.weights, self.units.weights), self.space)
        residual = into_units(given.residual, self.units.residual)
        lam = into_units(given.lam, self.units.lam)
        sound = all_finite((weights, residual))
        # Zero weights, known where they are optimal: the way down begins there.
        far = jnp.asarray(jnp.finfo(lam.dtype).max, lam.dtype)  # type: ignore[no-untyped-call]
        start = WarmStart(weights, residual, lam)
        nothing = WarmStart(jnp.zeros_like(weights), jnp.zeros_like(residual), far)
        return jax.tree.map(lambda a, b: jnp.where(sound, a, b), start, nothing)

    @property
    def whole(self) -> Program:
        """The program in units, with all its features."""
        return self.scaled.program if self.features is None else self.features


def prepared(program: Program) -> Prepared:
    """A program in numbers around one, with witnesses, and with at most n features."""
    whole, units = in_units(program)
    whole = with_interior(whole)
    reduced, space = row_space(whole)
    return Prepared(scaled_program(reduced), None if space is None else whole, space, units)


class Request(NamedTuple):
    """What is asked of a prepared program, in its units: lams (L,), a tolerance, a start."""

    lams: Array
    tolerance: Tolerance
    init: WarmStart | None


@partial(compiled, optimised=False)
def prepare(
    program: Program, lams: Array, tolerance: Tolerance, init: WarmStart | None
) -> tuple[Prepared, Request]:
    """`prepared` with a request in its units."""
    at = prepared(program)
    request = Request(into_units(lams, at.units.lam), at.tolerance(tolerance), at.start(init))
    return at, request
