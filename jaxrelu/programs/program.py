r"""The convex programs and their operators. THE objective of the package.

Data X (n, d), target y (n,), activation patterns masks (n, p) with D_j = diag(masks[:, j]), sample
weights c_i >= 0 (one if not given), a convex loss that is a *sum* over samples.

**C-ReLU** (`ConvexProgram`), weights (2, p, d) with weights[0, j] = v_j and weights[1, j] = w_j:

    minimise    sum_i c_i loss(f_i, y_i) + lam sum_j (||v_j||_2 + ||w_j||_2)
    subject to  (2 D_j - I) X v_j >= 0,   (2 D_j - I) X w_j >= 0,
    where       f = sum_j D_j X (v_j - w_j).

**C-GReLU** (`GatedProgram`), weights (p, d), no constraints:

    minimise    sum_i c_i loss(f_i, y_i) + lam sum_j ||u_j||_2,     f = sum_j D_j X u_j.

**Block weights** w_b in [0, inf], one for every block, turn the penalty into
lam sum_b w_b ||theta_b||_2, with inf x 0 = 0. A block of weight inf is not there: its weights are
zero. A block of weight zero is not penalised; of its optimal weights those of the least norm are
meant, the limit of vanishing weights.

**A skip connection** adds X theta_0 to the fit, a block without cone and penalty; of its optimal
weights those of the least norm are meant, too.

**A free bias**, of the ReLU program alone, makes neurons relu(<x, u> + b) with ||u|| in the penalty
and adds a constant to the fit (`jaxrelu.programs.bias`).

There is no 1/n, and the squared loss is 1/2 (f - y)^2. C-ReLU equals the training problem
sum_i c_i loss + lam/2 (||W1||_F^2 + ||w2||^2) of the network f = relu(X W1) w2, once all patterns
are present and the network is wide enough; note the 1/2 on weight decay.

With the residual r = -(c o loss')(f) the raw correlation of block (s, j) is s X^T D_j r, and
`lambda_max` is the largest norm of its projection onto the cone, over w_b, at zero weights.

With theta'_b = w_b theta_b a program of positive block weights has the penalty lam sum ||theta'_b||
and the fit sum_b (s_b / w_b) D_j X theta'_b: the same with other factors than the signs
(`jaxrelu.programs.penalties`), on which solvers work.

Reference: Pilanci and Ergen (ICML 2020); Mishkin and Pilanci (ICML 2023), Section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.chunks import chunk_size, sum_in_chunks
from jaxrelu.core.numerics import matmul
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.losses.base import Loss, total, total_gradient
from jaxrelu.losses.squared import SquaredLoss


@register
@dataclass(frozen=True, eq=False)
class ConvexProgram:
    """The convex ReLU program; its objective is in the docstring of `jaxrelu.programs.program`.

    Args:
        X: array (n, d), floating; its dtype is the precision of everything computed.
        y: array (n,), of the dtype of X.
        patterns: `Patterns` with masks (n, p).
        loss: a `Loss`; its parameters are leaves.
        sample_weight: array (n,), >= 0, or None for ones.
        block_weights: array (2, p) in [0, inf], the weights of the blocks in the penalty, or None
            for ones.
        skip: whether there is a skip connection, a linear part X theta_0 of the fit that is not
            penalised (static); answers have it in `skip`, (d,).
        bias: "free" for neurons with a bias that is not penalised (static), "none" for none.
            Weights are (2, p, d + 1) then, with the bias last, gates and witnesses (d + 1, p), and
            answers have a `constant`.

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
    block_weights: Any = None
    skip: bool = field(default=False, kw_only=True, metadata={"static": True})
    bias: str = field(default="none", kw_only=True, metadata={"static": True})

    @property
    def block_shape(self) -> tuple[int, ...]:
        """(2, p): both signs of every pattern."""
        return (2, self.patterns.masks.shape[1])

    @property
    def block_size(self) -> int:
        """The numbers of a block: d, and one more with a free bias."""
        # Operators see it as a column of X.
        return int(self.X.shape[1]) + (self.bias == "free" and type(self) is ConvexProgram)

    @property
    def has_cones(self) -> bool:
        """Blocks are confined to the cones of their patterns."""
        return True


@register
@dataclass(frozen=True, eq=False)
class GatedProgram:
    """The gated ReLU program: one free block a gate, C-GReLU of `jaxrelu.programs.program`.

    Args:
        X, y, patterns, loss, sample_weight: as in `ConvexProgram`.
        block_weights: array (p,), as there.
        skip: as there.

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
    block_weights: Any = None
    skip: bool = field(default=False, kw_only=True, metadata={"static": True})

    @property
    def block_shape(self) -> tuple[int, ...]:
        """(p,): one block a gate."""
        return (self.patterns.masks.shape[1],)

    @property
    def block_size(self) -> int:
        """The numbers of a block: d."""
        return int(self.X.shape[1])

    @property
    def bias(self) -> str:
        """Always "none": every gate would have a free bias of its own."""
        return "none"

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
    return sum_in_chunks(some, rows, chunk_size(X.shape[0]))


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
