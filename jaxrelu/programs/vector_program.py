r"""The convex programs of several outputs: targets Y (n, c), one network for all of them.

A network f(X) = (X U)_+ V of c outputs has the training objective

    sum_i w_i loss(f_i, y_i) + lam/2 (||U||_F^2 + ||V||_F^2) = ... + lam sum_k ||u_k|| ||v_k||

of balanced neurons. Over the cells of patterns D_j it has three convex programs, in order of their
values:

* **gated**, weights V_j (d, c), one block a gate and no cones, nuclear norms:

      minimise  sum_i w_i loss(f_i, y_i) + lam sum_j ||V_j||_*,    F = sum_j D_j X V_j;

* **exact**: the same with the gauge of { u g^T : u in K_j, ||u|| <= 1, ||g|| <= 1 } in place of the
  nuclear norm. Its weights are neurons, directions u_k in their cells with output vectors v_k, and
  its penalty is sum_k ||u_k|| ||v_k||. With all cells it is the training problem itself;
* **one_vs_all**: every neuron feeds one output, blocks (sign, pattern, output) of the ReLU program
  of each column of Y.

The dual of all three is max -sum_i w_i loss*(-R_i / w_i) over residuals R (n, c) with the largest
||R^T D_j X u|| <= lam: over ||u|| <= 1 (the spectral norm of X^T D_j R), over u in K_j as well, or
of one column at a time.

Reference: Sahiner, Ergen, Pauly and Pilanci, "Vector-output ReLU neural network problems are
copositive programs", ICLR 2021; Mishkin, Sahiner and Pilanci (ICML 2022) for the gated program.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.chunks import chunk_size, in_chunks, sum_in_chunks
from jaxrelu.core.numerics import matmul
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import is_traced, outside_traces
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.losses.base import Loss, total, total_gradient
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.programs.program import ConvexProgram

KINDS = ("exact", "gated", "one_vs_all")


@register
@dataclass(frozen=True, eq=False)
class VectorProgram:
    """The convex programs of several outputs, `jaxrelu.programs.vector_program`.

    Args:
        X: array (n, d), floating; its dtype is the precision of everything computed.
        Y: array (n, c), of the dtype of X, one column an output; or labels (n,), integers or floats
            0, 1, ..., c - 1. Class k is column k, whose targets are one where the label is k and
            zero elsewhere; for losses of two classes (`LogisticLoss`) plus and minus one.
        patterns: `Patterns` with masks (n, p).
        kind: "exact", "gated" or "one_vs_all" (static).
        loss: a `Loss`; one of single numbers is summed over the outputs.
        sample_weight: array (n,), >= 0, or None for ones.
        num_classes: c of labels, where a class may be absent or the labels are traced (static); one
            more than the largest label by default.

    Nothing is checked here (JAX rebuilds programs from placeholders); the entry points check.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0], [-0.5, 0.4]], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=8)
        >>> program = jr.VectorProgram(X, np.asarray([0, 2, 1]), patterns, kind="gated")
        >>> program.num_outputs
        3
    """

    X: Any
    Y: Any
    patterns: Patterns
    kind: str = field(default="exact", metadata={"static": True})
    loss: Loss = field(default_factory=SquaredLoss)
    sample_weight: Any = None
    num_classes: int | None = field(default=None, metadata={"static": True})

    @property
    def num_outputs(self) -> int:
        """C."""
        shape = np.shape(self.Y)
        return int(shape[1]) if len(shape) > 1 else classes_of(self)

    @property
    def block_shape(self) -> tuple[int, ...]:
        """(p,), or (2, p) of a one-vs-all program, one such block an output."""
        p = int(self.patterns.masks.shape[1])
        return (2, p) if self.kind == "one_vs_all" else (p,)

    @property
    def has_cones(self) -> bool:
        """Whether neurons are confined to the cones of their patterns."""
        return self.kind != "gated"

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """(p, d, c), or (2, p, d, c) of a one-vs-all program; an exact one has neurons."""
        return (*self.block_shape, int(self.X.shape[1]), self.num_outputs)


def classes_of(program: VectorProgram) -> int:
    """C of labels (n,)."""
    if program.num_classes is not None:
        return program.num_classes
    if is_traced(program.Y):
        raise ValueError(
            "Y holds labels that are traced, which do not say how many classes there are: pass "
            "num_classes to jr.VectorProgram."
        )
    return int(np.max(np.asarray(program.Y), initial=0)) + 1


def targets(program: VectorProgram) -> Array:
    """The targets (n, c) in the dtype of X, of labels the rows of their classes."""
    Y, dtype = jnp.asarray(program.Y), program.X.dtype
    if Y.ndim > 1:
        # Probabilities, up to rounding of whatever made them.
        return Y / jnp.sum(Y, axis=1, keepdims=True) if has_joint_outputs(program.loss) else Y
    if jnp.issubdtype(Y.dtype, jnp.integer):
        Y = Y.astype(jnp.int32)
    classes = jnp.arange(program.num_outputs, dtype=Y.dtype)
    hit = Y[:, None] == classes[None]
    absent = -1.0 if takes_signs(program.loss) else 0.0
    rows = jnp.where(hit, 1.0, absent).astype(dtype)
    # A label that is none of the classes, which a trace cannot refuse.
    return jnp.where(jnp.any(hit, axis=1)[:, None], rows, jnp.nan)


def with_targets(program: VectorProgram) -> VectorProgram:
    """The same program with targets (n, c) in place of labels, for what is compiled."""
    return replace(program, Y=targets(program), num_classes=None)


def has_joint_outputs(loss: Loss) -> bool:
    """Whether a loss takes the outputs of a sample together, as the multinomial one does."""
    return bool(getattr(loss, "several_outputs", False))


def takes_signs(loss: Loss) -> bool:
    """Whether targets of a loss are -1 and +1, so that zero is none."""
    if has_joint_outputs(loss):
        return False
    with outside_traces():
        try:
            loss.check_target(np.zeros((1, 1)))
        except ValueError:
            return True
    return False


def output_weights(program: VectorProgram) -> Array:
    """The sample weights (n,), ones if none were given; NaN where a traced one is negative."""
    if program.sample_weight is None:
        return jnp.ones(len(program.X), program.X.dtype)
    weight = jnp.asarray(program.sample_weight)
    return jnp.where(weight < 0, jnp.nan, weight)


def outputs_loss(program: VectorProgram, fit: Array) -> Array:
    """sum_i w_i loss(f_i, y_i) at a fit (n, c)."""
    return total(program.loss, fit, targets(program), output_weights(program))


def outputs_residual(program: VectorProgram, fit: Array) -> Array:
    """R (n, c), minus the gradient of the loss at a fit (n, c)."""
    return -total_gradient(program.loss, fit, targets(program), output_weights(program))


def outputs_fit(X: Array, factors: Array, weights: Array) -> Array:
    """F = sum_j diag(factors_j) X V_j: X (n, d), factors (n, p), weights (p, d, c) -> (n, c)."""
    n, c = X.shape[0], weights.shape[2]

    def some(rows: tuple[Array, Array], real: Array) -> Array:
        own, blocks = rows
        flat = jnp.moveaxis(blocks, 1, 0).reshape(X.shape[1], -1)
        parts = matmul(X, flat).reshape(n, -1, c)
        return jnp.sum(jnp.where(real[:, None], own, 0.0).T[:, :, None] * parts, axis=1)

    rows = factors.T.astype(X.dtype), weights
    return sum_in_chunks(some, rows, chunk_size(n * c))


def outputs_correlations(X: Array, factors: Array, residual: Array) -> Array:
    """The adjoint, X^T diag(factors_j) R of all blocks: residual (n, c) -> (p, d, c)."""
    (n, d), c = X.shape, residual.shape[1]

    def some(own: Array) -> Array:
        weighed = (own.T[:, :, None] * residual[:, None]).reshape(n, -1)
        return jnp.moveaxis(matmul(X.T, weighed).reshape(d, -1, c), 1, 0)

    return in_chunks(some, factors.T.astype(X.dtype), chunk_size(n * c))  # type: ignore[no-any-return]


def column_programs(program: VectorProgram) -> tuple[ConvexProgram, ConvexProgram]:
    """The ReLU programs of all columns of Y as one batched program, and the axes of its leaves."""
    Y = targets(program)
    inner = ConvexProgram(program.X, Y, program.patterns, program.loss, program.sample_weight)
    axes = jax.tree.map(lambda leaf: None, inner)
    # A parameter of a loss may have the shape of Y.
    of_loss = jax.tree.map(lambda leaf: 1 if jnp.ndim(leaf) == 2 else None, program.loss)
    return inner, replace(axes, y=1, loss=of_loss)


def column_program(program: VectorProgram, k: int) -> ConvexProgram:
    """The ReLU program of one column of Y."""
    loss = jax.tree.map(lambda leaf: leaf[:, k] if jnp.ndim(leaf) == 2 else leaf, program.loss)
    return ConvexProgram(
        program.X, targets(program)[:, k], program.patterns, loss, program.sample_weight
    )
