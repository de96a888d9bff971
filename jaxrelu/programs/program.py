r"""The convex programs, their operators and the critical lam. THE objective of the package.

Data X (n, d), target y (n,), activation patterns masks (n, p) with D_j = diag(masks[:, j]), sample
weights c_i >= 0 (one if not given), a convex loss that is a *sum* over samples.

**C-ReLU** (`ConvexProgram`), weights (2, p, d) with weights[0, j] = v_j and weights[1, j] = w_j:

    minimise    sum_i c_i loss(f_i, y_i) + lam sum_j (||v_j||_2 + ||w_j||_2)
    subject to  (2 D_j - I) X v_j >= 0,   (2 D_j - I) X w_j >= 0,
    where       f = sum_j D_j X (v_j - w_j).

**C-GReLU** (`GatedProgram`), weights (p, d), no constraints:

    minimise    sum_i c_i loss(f_i, y_i) + lam sum_j ||u_j||_2,     f = sum_j D_j X u_j.

There is no 1/n, and the squared loss is 1/2 (f - y)^2. C-ReLU equals the training problem
sum_i c_i loss + lam/2 (||W1||_F^2 + ||w2||^2) of the network f = relu(X W1) w2, once all patterns
are present and the network is wide enough; note the 1/2 on weight decay.

With the residual r = -(c o loss')(f) the raw correlation of block (s, j) is s X^T D_j r, and
`lambda_max` is the largest norm of its projection onto the cone, at zero weights.

Reference: Pilanci and Ergen (ICML 2020); Mishkin and Pilanci (ICML 2023), Section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import as_float, check_jaxlib
from jaxrelu.core.chunks import at_once, sum_in_chunks
from jaxrelu.core.numerics import matmul, safe_norm
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.cones import block_patterns, largest_correlation
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.geometry.patterns import Patterns, check_patterns
from jaxrelu.losses.base import Loss, total, total_gradient
from jaxrelu.losses.squared import SquaredLoss


@register
@dataclass(frozen=True)
class ConvexProgram:
    """The convex ReLU program; its objective is in the docstring of `jaxrelu.programs.program`.

    Args:
        X: array (n, d), floating; its dtype is the precision of everything computed.
        y: array (n,), of the dtype of X.
        patterns: `Patterns` with masks (n, p).
        loss: a `Loss`; its parameters are leaves.
        sample_weight: array (n,), >= 0, or None for ones.

    Nothing is checked here (JAX rebuilds programs from placeholders); the entry points check.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0], [-0.5, 0.4]], "float32")
        >>> y = np.asarray([1.0, -1.0, 0.5], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=8)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> program.block_shape[0]
        2
    """

    X: Any
    y: Any
    patterns: Patterns
    loss: Loss = field(default_factory=SquaredLoss)
    sample_weight: Any = None

    @property
    def block_shape(self) -> tuple[int, ...]:
        """(2, p): both signs of every pattern."""
        return (2, self.patterns.masks.shape[1])

    @property
    def has_cones(self) -> bool:
        """Blocks are confined to the cones of their patterns."""
        return True


@register
@dataclass(frozen=True)
class GatedProgram:
    """The gated ReLU program: one free block a gate, C-GReLU of `jaxrelu.programs.program`.

    Args:
        X, y, patterns, loss, sample_weight: as in `ConvexProgram`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0], [-0.5, 0.4]], "float32")
        >>> y = np.asarray([1.0, -1.0, 0.5], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=8, gated=True)
        >>> len(jr.GatedProgram(X, y, patterns).block_shape)
        1
    """

    X: Any
    y: Any
    patterns: Patterns
    loss: Loss = field(default_factory=SquaredLoss)
    sample_weight: Any = None

    @property
    def block_shape(self) -> tuple[int, ...]:
        """(p,): one block a gate."""
        return (self.patterns.masks.shape[1],)

    @property
    def has_cones(self) -> bool:
        """Blocks are free."""
        return False


Program = ConvexProgram | GatedProgram


def float_masks(program: Program) -> Array:
    """The masks (n, p) in the dtype of X."""
    return jnp.asarray(program.patterns.masks).astype(program.X.dtype)


def sample_weights(program: Program) -> Array:
    """The sample weights (n,), ones if none were given.

    Traced negative weights cannot raise: they become NaN, so that no answer comes out OPTIMAL.
    """
    if program.sample_weight is None:
        return jnp.ones_like(jnp.asarray(program.y))
    weight = jnp.asarray(program.sample_weight)
    return jnp.where(weight < 0, jnp.nan, weight)


def block_signs(program: Program) -> Array:
    """The sign of every block in flat order, (2p,) or (p,)."""
    p = program.patterns.masks.shape[1]
    ones = jnp.ones((p,), program.X.dtype)
    return jnp.concatenate([ones, -ones]) if program.has_cones else ones


def fit(program: Program, weights: Array) -> Array:
    """The fit of convex weights, F theta = sum_j D_j X (v_j - w_j) or sum_j D_j X u_j.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        weights: array (2, p, d), or (p, d) for a gated program.

    Returns:
        Array (n,).
    """
    blocks = weights[0] - weights[1] if program.has_cones else weights
    X = jnp.asarray(program.X)

    def some(rows: tuple[Array, Array], real: Array) -> Array:
        return jnp.sum(jnp.where(rows[0] & real[:, None], matmul(rows[1], X.T), 0.0), axis=0)

    rows = jnp.asarray(program.patterns.masks, bool).T, blocks
    return sum_in_chunks(some, rows, at_once(X.shape[0]))


def raw_correlations(program: Program, residual: Array) -> Array:
    """The adjoint F^T of `fit`: g[s, j] = s X^T D_j r, before any projection.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        residual: array (n,).

    Returns:
        Array of the shape of the weights.
    """
    g = matmul((float_masks(program) * residual[:, None]).T, jnp.asarray(program.X))
    return jnp.stack([g, -g]) if program.has_cones else g


def cone_values(program: Program, weights: Array) -> Array:
    """(2 D_j - I) X theta for every block: weights (..., p, d) -> (..., p, n)."""
    signs = 2.0 * float_masks(program).T - 1.0
    values = matmul(weights, jnp.asarray(program.X).T)
    return values * (signs if weights.ndim == 2 else signs[None])


def loss_value(program: Program, fit: Array) -> Array:
    """sum_i c_i loss(f_i, y_i) at a fit (n,)."""
    return total(program.loss, fit, jnp.asarray(program.y), sample_weights(program))


def residual_at(program: Program, fit: Array) -> Array:
    """R = -(c o loss')(f), minus the gradient of the loss at a fit (n,)."""
    gradient = total_gradient(program.loss, fit, jnp.asarray(program.y), sample_weights(program))
    return -gradient


def objective(program: Program, lam: Any, weights: Array) -> Array:
    r"""The objective of the convex program (see the docstring of `jaxrelu.programs.program`).

    sum_i c_i loss(f_i, y_i) + lam sum_blocks ||theta||_2. Cone constraints are not looked at.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        lam: scalar, the regularization strength.
        weights: array (2, p, d), or (p, d) for a gated program.

    Returns:
        Scalar. Differentiable; the derivative of a norm at a zero block is 0.

    Raises:
        ValueError: weights of another shape.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> float(jr.objective(program, 0.1, jnp.zeros((*program.block_shape, 2), "float32")))
        1.0
    """
    weights = as_float(weights, "weights")
    shape = (*program.block_shape, program.X.shape[1])
    if weights.shape != shape:
        raise ValueError(f"weights has shape {weights.shape}; this program takes {shape}.")
    lam = jnp.asarray(lam, weights.dtype)
    return loss_value(program, fit(program, weights)) + lam * jnp.sum(safe_norm(weights))


def lambda_max(program: Program) -> Array:
    r"""The smallest lam at which zero weights are optimal.

    max over blocks of ||Proj_K(s X^T D_j r)|| at r = -(c o loss')(0); without cones
    max_j ||X^T D_j r||. The cone-free value is up to twice too large on real data.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.

    Returns:
        Scalar. Weights are zero for lam >= lambda_max and not zero below.

    Raises:
        ValueError, TypeError: see `check_program`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> bool(jr.lambda_max(jr.ConvexProgram(X, y, patterns)) > 0)
        True

    Reference: Mishkin and Pilanci (ICML 2023), KKT conditions; tested on both sides.
    """
    check_program(program)
    return _lambda_max(program)


@jax.jit
def _lambda_max(program: Program) -> Array:
    program, _ = row_space(program)
    zero = jnp.zeros((program.X.shape[0],), program.X.dtype)
    c = raw_correlations(program, residual_at(program, zero))
    c = c.reshape(-1, c.shape[-1])
    if not program.has_cones:
        return jnp.max(safe_norm(c), initial=0.0)
    return largest_correlation(
        shared_rows(jnp.asarray(program.X)),
        jnp.asarray(program.patterns.masks),
        block_patterns(program.block_shape),
        c,
    )


def lambda_grid(program: Program, num: int = 50, ratio: float = 1e-2) -> Array:
    """A geometric grid, descending from lambda_max to ratio * lambda_max.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        num: number of values.
        ratio: last value over the first, in (0, 1).

    Returns:
        Array (num,), descending.

    Raises:
        ValueError: num or ratio out of range, or a program whose lambda_max is zero.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> jr.lambda_grid(jr.ConvexProgram(X, y, patterns), num=3, ratio=0.1).shape
        (3,)
    """
    if num < 1:
        raise ValueError(f"num is {num}; ask for at least one lam.")
    if not 0 < ratio < 1:
        raise ValueError(f"ratio is {ratio}; it is the last lam over the first, between 0 and 1.")
    largest = float(lambda_max(program))
    if not np.isfinite(largest):
        raise ValueError(f"lambda_max is {largest}: check X, y and sample_weight for NaN and inf.")
    if largest <= 0:
        raise ValueError(
            "lambda_max is zero: the zero weights are optimal at every lam (y is zero, or X is), "
            "so there is no path; check y and X."
        )
    exponents = np.linspace(0.0, 1.0, num)
    return jnp.asarray(largest * float(ratio) ** exponents, program.X.dtype)


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


def check_program(program: Program) -> None:
    """Checks a program's arrays; values only where they are concrete.

    Raises:
        TypeError: something that is not a program, or mixed dtypes.
        ValueError: wrong shapes, empty data, labels that the loss cannot take, masks that are not
            0/1 or do not match the gates, negative sample weights. The sentence names the fix.
        RuntimeError: a jaxlib that is known to compute wrong values.
    """
    check_jaxlib()
    if not isinstance(program, ConvexProgram | GatedProgram):
        raise TypeError(
            f"expected a ConvexProgram or GatedProgram, got {type(program).__name__}: "
            "build one with jr.ConvexProgram(X, y, patterns)."
        )
    X = _floating(program.X, "X")
    if X.ndim != 2:
        raise ValueError(f"X has shape {X.shape}; pass a matrix (n, d).")
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(f"X has shape {X.shape}; it needs at least one sample and one feature.")
    y = _vector(program.y, "y", X)
    if program.sample_weight is not None:
        weight = _vector(program.sample_weight, "sample_weight", X)
        if not isinstance(weight, jax.core.Tracer) and bool(np.any(np.asarray(weight) < 0)):
            raise ValueError("sample_weight has negative entries; weights are >= 0.")
    if not isinstance(program.patterns, Patterns):
        raise TypeError(
            f"patterns is a {type(program.patterns).__name__}; pass jr.sample_patterns(...) or "
            "jr.Patterns(gates, masks)."
        )
    check_patterns(program.patterns, X)
    if isinstance(program.loss, type) or not hasattr(program.loss, "check_target"):
        raise TypeError(f"loss is {program.loss!r}; pass an instance, such as jr.SquaredLoss().")
    program.loss.check_target(y)


def _floating(value: Any, name: str) -> Array:
    """The array itself: jit sees it as it is, so nothing is converted here."""
    if not hasattr(value, "dtype"):
        raise TypeError(f"{name} is a {type(value).__name__}; pass an array, np.asarray({name}).")
    array = as_float(value, name)
    if value.dtype not in (jnp.float32, jnp.float64):
        wide = array.dtype if array.dtype == jnp.float64 else "float32"
        raise TypeError(f"{name} has dtype {value.dtype}; pass {name}.astype('{wide}').")
    return array


def _vector(value: Any, name: str, X: Array) -> Array:
    value = _floating(value, name)
    if value.ndim != 1 or value.shape[0] != X.shape[0]:
        raise ValueError(
            f"{name} has shape {value.shape} but X has {X.shape[0]} rows; "
            f"pass {name} with shape ({X.shape[0]},)."
        )
    if value.dtype != X.dtype:
        raise TypeError(
            f"{name} has dtype {value.dtype} and X has {X.dtype}; pass {name}.astype('{X.dtype}')."
        )
    return value
