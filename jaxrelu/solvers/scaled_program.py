"""The scaled program: what the solvers compute once a call, in flat block order.

X is scaled by a power of two to rows of norm about one, which changes units and no digit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import in_chunks
from jaxrelu.core.numerics import matmul, safe_norm
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.geometry.gram import Rows, shared_rows
from jaxrelu.losses.base import Loss
from jaxrelu.programs.preparation import row_space, with_interior
from jaxrelu.programs.program import Program, block_signs, loss_value, sample_weights


class Setting(NamedTuple):
    """The scaled program in flat block order, computed once a call."""

    program: Program
    X: Array
    masks: Array
    samples: Rows
    rows: Rows
    pattern: Array
    sign: Array
    weight: Array
    scale: Array
    at_zero: Array

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
        """s_b X^T D_b r of all blocks, (b, d); masks are unpacked `batch` patterns at a time."""

        def some(masks: Array) -> Array:
            return matmul(masks.astype(self.X.dtype) * residual[None], self.X)

        rows = self.masks.T
        g = in_chunks(some, rows, rows.shape[0] if batch is None else batch)
        return self.sign[:, None] * g[self.pattern]


def compiled(function: Callable[..., Any], donate: tuple[int, ...] = ()) -> Callable[..., Any]:
    """Jit of a function of a `Setting`, with the type of its loss in the key.

    Args:
        function: its first argument is the setting.
        donate: positions of further arguments that are given up, counted from the setting.

    Returns:
        The compiled function, with JAX's ``lower``; see `jaxrelu.core.pytrees.register` for why the
        type is needed.
    """

    @partial(jax.jit, static_argnums=0, donate_argnums=tuple(1 + i for i in donate))
    def call(loss_type: type, setting: Setting, *args: Any) -> Any:
        del loss_type
        return function(setting, *args)

    def run(setting: Setting, *args: Any) -> Any:
        return call(type(setting.loss), setting, *args)

    run.lower = lambda setting, *args: call.lower(type(setting.loss), setting, *args)  # type: ignore[attr-defined]
    return run


def setting_of(program: Program) -> Setting:
    """Scales a program and lays out its blocks."""
    X = jnp.asarray(program.X)
    mean = jnp.mean(safe_norm(X))
    usable = (mean > 0) & jnp.isfinite(mean)
    exponent = jnp.round(jnp.log2(jnp.where(usable, mean, 1.0))).astype(jnp.int32)
    scale = jnp.ldexp(jnp.ones((), X.dtype), exponent)
    X = X / scale
    samples = shared_rows(X)
    rows = samples if program.has_cones else shared_rows(X[:0])
    pattern = block_patterns(program.block_shape)
    return Setting(
        program, X, jnp.asarray(program.patterns.masks), samples, rows, pattern,
        block_signs(program), sample_weights(program), scale,
        loss_value(program, jnp.zeros_like(jnp.asarray(program.y))),
    )  # fmt: skip


@partial(jax.jit, static_argnames=("loss_type",))
def prepare(program: Program, loss_type: type) -> tuple[Setting, Array | None]:
    """What does not depend on lam: the program with at most n features, laid out, and their basis.

    For calls from the host that keep working sets; `loss_type` is part of the key
    (`core.pytrees`).
    """
    del loss_type
    reduced, basis = row_space(with_interior(program))
    return setting_of(reduced), basis
