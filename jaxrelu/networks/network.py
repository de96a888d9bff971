"""Two-layer networks as functions of X, and the non-convex training objective.

A network here is what the convex programs describe: ReLU neurons x -> max(0, x.u) a, or gated ones
x -> 1[x.g >= 0] (x.u) a. The derivative of relu at 0 is 0 (`jax.nn.relu`).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrelu.core.checks import as_float
from jaxrelu.core.numerics import matmul
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.losses.base import Loss, checked_samples, total
from jaxrelu.losses.squared import SquaredLoss

_SQUARED_LOSS = SquaredLoss()


@register
@dataclass(frozen=True, eq=False)
class Network:
    """A two-layer ReLU network, f(X) = relu(X hidden) output.

    Attributes:
        hidden: array (d, m), one neuron a column.
        output: array (m,), the output weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.networks import Network
        >>> network = Network(hidden=jnp.asarray([[1.0, -1.0]]), output=jnp.asarray([2.0, 3.0]))
        >>> network(jnp.asarray([[1.0], [-1.0]])).tolist()
        [2.0, 3.0]
    """

    hidden: Array
    output: Array

    def __call__(self, X: ArrayLike) -> Array:
        """Predictions of the network.

        Args:
            X: array (n, d).

        Returns:
            Array (n,).

        Raises:
            ValueError: X does not have the d columns of `hidden`.
        """
        X = _checked_input(X, self.hidden)
        return matmul(jax.nn.relu(matmul(X, self.hidden)), self.output)

    @property
    def num_neurons(self) -> int:
        """m, the number of slots; `compact` drops the slots that hold no neuron."""
        return int(self.output.shape[-1])

    @on_host("after them")
    def compact(self) -> Network:
        """The same function without its zero neurons, on the host.

        Returns:
            The network without the slots whose hidden or output weight is exactly zero. Slots that
            hold a NaN stay.

        Raises:
            TypeError: it is traced; shapes cannot depend on values that are not there.
        """
        kept = _nonzero_slots(self.hidden, self.output)
        return Network(hidden=self.hidden[:, kept], output=self.output[kept])


@register
@dataclass(frozen=True, eq=False)
class GatedNetwork:
    """A two-layer gated ReLU network, f(X) = sum_k 1[X g_k >= 0] (X u_k) a_k.

    Attributes:
        gates: array (d, m), the gate g_k of each neuron.
        hidden: array (d, m), the weights u_k.
        output: array (m,), the output weights a_k.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.networks import GatedNetwork
        >>> one = jnp.ones((1, 1))
        >>> network = GatedNetwork(gates=one, hidden=-2 * one, output=jnp.ones(1))
        >>> network(jnp.asarray([[1.0], [-1.0]])).tolist()
        [-2.0, 0.0]
    """

    gates: Array
    hidden: Array
    output: Array

    def __call__(self, X: ArrayLike) -> Array:
        """Predictions of the network.

        Args:
            X: array (n, d).

        Returns:
            Array (n,).

        Raises:
            ValueError: X does not have the d columns of `hidden`.
        """
        X = _checked_input(X, self.hidden)
        linear = matmul(X, self.hidden)
        # A product with the mask, not a `where`: a closed gate must not hide a NaN.
        open_gates = (matmul(X, self.gates) >= 0).astype(linear.dtype)
        return matmul(open_gates * linear, self.output)

    @property
    def num_neurons(self) -> int:
        """m, the number of slots; `compact` drops the slots that hold no neuron."""
        return int(self.output.shape[-1])

    @on_host("after them")
    def compact(self) -> GatedNetwork:
        """The same function without its zero neurons, on the host.

        Returns:
            The network without the slots whose hidden or output weight is exactly zero. Slots that
            hold a NaN stay.

        Raises:
            TypeError: it is traced; shapes cannot depend on values that are not there.
        """
        kept = _nonzero_slots(self.hidden, self.output)
        return GatedNetwork(
            gates=self.gates[:, kept], hidden=self.hidden[:, kept], output=self.output[kept]
        )


def nonconvex_objective(
    network: Network | GatedNetwork,
    X: ArrayLike,
    y: ArrayLike,
    lam: ArrayLike,
    loss: Loss = _SQUARED_LOSS,
    sample_weight: ArrayLike | None = None,
) -> Array:
    """The non-convex training objective: loss plus weight decay.

    sum_i weight_i loss(f_i, y_i) + lam/2 sum_k (||hidden_k||^2 + output_k^2),  f = network(X)

    With the factor 1/2 it equals the objective of the convex program at the weights of the same
    network, once its neurons are balanced (||hidden_k|| = |output_k|). Gates carry no penalty.

    Args:
        network: a `Network` or a `GatedNetwork`.
        X: array (n, d).
        y: array (n,).
        lam: scalar, the strength of the regularization.
        loss: a `Loss`, a sum over samples.
        sample_weight: array (n,), non-negative; ones when missing.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not fit together.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.networks import Network, nonconvex_objective
        >>> network = Network(hidden=jnp.ones((1, 1)), output=jnp.ones(1))
        >>> float(nonconvex_objective(network, jnp.ones((1, 1)), jnp.asarray([3.0]), lam=0.5))
        2.5

    Reference:
        Pilanci and Ergen, "Neural networks are convex regularizers", ICML 2020, Theorem 1.
    """
    fit = network(X)
    target, weight = checked_samples(loss, fit, y, sample_weight)
    squares = jnp.sum(network.hidden**2) + jnp.sum(network.output**2)
    return total(loss, fit, target, weight) + 0.5 * jnp.asarray(lam, dtype=fit.dtype) * squares


def _checked_input(X: ArrayLike, hidden: Array) -> Array:
    X = as_float(X, "X")
    if X.ndim != 2 or X.shape[1] != hidden.shape[0]:
        raise ValueError(
            f"X has shape {X.shape}, but the network takes rows of {hidden.shape[0]} features: "
            f"pass an array of shape (n, {hidden.shape[0]})."
        )
    return X


def _nonzero_slots(hidden: Array, output: Array) -> np.ndarray:
    return (np.asarray(hidden) != 0).any(axis=0) & (np.asarray(output) != 0)
