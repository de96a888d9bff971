"""Two-layer networks as functions of X, and the non-convex training objective.

A network here is what the convex programs describe: ReLU neurons x -> max(0, x.u) a, or gated ones
x -> 1[x.g >= 0] (x.u) a. The derivative of relu at 0 is 0 (`jax.nn.relu`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrelu.core.aliases import Bools
from jaxrelu.core.checks import as_float, check_leaf, check_shape, check_type
from jaxrelu.core.numerics import matmul, weighted
from jaxrelu.core.options import nonnegative_scalar
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import is_traced, on_host
from jaxrelu.losses.base import Loss, total
from jaxrelu.losses.checks import checked_loss, checked_samples
from jaxrelu.losses.squared import SquaredLoss

_SQUARED_LOSS = SquaredLoss()


@register
@dataclass(frozen=True, eq=False)
class Network:
    """A two-layer ReLU network, f(X) = relu(X hidden + bias) output + X skip + constant.

    Attributes:
        hidden: array (d, m), one neuron a column.
        output: array (m,), the output weights; (m, c) for c outputs.
        skip: array (d,), a linear part, or None for none; (d, c) for c outputs.
        bias: array (m,), of the neurons, or None for none.
        constant: scalar, or None for none; (c,) for c outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.networks import Network
        >>> network = Network(hidden=jnp.asarray([[1.0, -1.0]]), output=jnp.asarray([2.0, 3.0]))
        >>> network(jnp.asarray([[1.0], [-1.0]])).tolist()
        [2.0, 3.0]
    """

    hidden: Array
    output: Array
    skip: Array | None = None
    bias: Array | None = None
    constant: Array | None = None

    def __call__(self, X: ArrayLike) -> Array:
        """Predictions of the network.

        Args:
            X: array (n, d).

        Returns:
            Array (n,), or (n, c) for c outputs.

        Raises:
            ValueError, TypeError: X does not have the d columns of `hidden`; arrays of other types.
        """
        X = checked_input(X, self)
        inner = matmul(X, self.hidden)
        inner = inner if self.bias is None else inner + jnp.asarray(self.bias)[None]
        found = matmul(jax.nn.relu(inner), self.output)
        found = found if self.skip is None else found + matmul(X, self.skip)
        if self.constant is None:
            return found
        constant = jnp.asarray(self.constant)
        return found + (constant[None] if constant.ndim else constant)

    @property
    def num_neurons(self) -> int:
        """m, the number of slots; `compact` drops the slots that hold no neuron."""
        return int(self.hidden.shape[-1])

    @on_host("after them")
    def compact(self) -> Network:
        """The same function without its zero neurons, on the host.

        Returns:
            The network without the slots whose hidden or output weight is exactly zero (a neuron
            of a bias alone, which is a constant, stays). Slots that hold a NaN stay.

        Raises:
            TypeError: it is traced; shapes cannot depend on values that are not there.
        """
        kept = _nonzero_slots(self)
        bias = None if self.bias is None else self.bias[kept]
        return replace(self, hidden=self.hidden[:, kept], output=self.output[kept], bias=bias)


@register
@dataclass(frozen=True, eq=False)
class GatedNetwork:
    """A two-layer gated ReLU network, f(X) = sum_k 1[X g_k >= 0] (X u_k) a_k + X skip.

    Attributes:
        gates: array (d, m), the gate g_k of each neuron.
        hidden: array (d, m), the weights u_k.
        output: array (m,), the output weights a_k; (m, c) for c outputs.
        skip: array (d,), a linear part, or None for none; (d, c) for c outputs.

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
    skip: Array | None = None

    def __call__(self, X: ArrayLike) -> Array:
        """Predictions of the network.

        Args:
            X: array (n, d).

        Returns:
            Array (n,), or (n, c) for c outputs.

        Raises:
            ValueError, TypeError: X does not have the d columns of `hidden`; arrays of other types.
        """
        X = checked_input(X, self)
        linear = matmul(X, self.hidden)
        # A product with the mask, not a `where`: a closed gate must not hide a NaN.
        open_gates = (matmul(X, self.gates) >= 0).astype(linear.dtype)
        neurons = matmul(open_gates * linear, self.output)
        return neurons if self.skip is None else neurons + matmul(X, self.skip)

    @property
    def num_neurons(self) -> int:
        """m, the number of slots; `compact` drops the slots that hold no neuron."""
        return int(self.hidden.shape[-1])

    @on_host("after them")
    def compact(self) -> GatedNetwork:
        """The same function without its zero neurons, on the host.

        Returns:
            The network without the slots whose hidden or output weight is exactly zero. Slots that
            hold a NaN stay.

        Raises:
            TypeError: it is traced; shapes cannot depend on values that are not there.
        """
        kept = _nonzero_slots(self)
        return replace(
            self, gates=self.gates[:, kept], hidden=self.hidden[:, kept], output=self.output[kept]
        )


def nonconvex_objective(
    network: Network | GatedNetwork,
    X: ArrayLike,
    y: ArrayLike,
    lam: ArrayLike,
    loss: Loss = _SQUARED_LOSS,
    sample_weight: ArrayLike | None = None,
    neuron_weight: ArrayLike | None = None,
) -> Array:
    """The non-convex training objective: loss plus weight decay.

    sum_i weight_i loss(f_i, y_i) + lam/2 sum_k w_k (||hidden_k||^2 + output_k^2),  f = network(X)

    With the factor 1/2 it equals the objective of the convex program at the weights of the same
    network, once its neurons are balanced (||hidden_k|| = |output_k|). Gates, biases, a skip
    connection and a constant carry no penalty. Of several outputs output_k is a vector, and a loss
    of single numbers is summed over them.

    Args:
        network: a `Network` or a `GatedNetwork`.
        X: array (n, d).
        y: array (n,), or (n, c) for c outputs.
        lam: scalar >= 0, the strength of the regularization.
        loss: a `Loss`, a sum over samples.
        sample_weight: array (n,), non-negative; ones when missing.
        neuron_weight: array (m,) in [0, inf], w: of the network of `to_network` the flat
            ``block_weights`` of its program; ones when missing. inf x 0 = 0.

    Returns:
        A scalar.

    Raises:
        ValueError, TypeError: shapes that do not fit together, a lam below zero.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.networks import Network, nonconvex_objective
        >>> network = Network(hidden=jnp.ones((1, 1)), output=jnp.ones(1))
        >>> float(nonconvex_objective(network, jnp.ones((1, 1)), jnp.asarray([3.0]), lam=0.5))
        2.5

    Reference:
        Pilanci and Ergen, "Neural networks are convex regularizers", ICML 2020, Theorem 1.
    """
    check_type(network, "network", (Network, GatedNetwork), "jr.Network(hidden, output)")
    loss = checked_loss(loss)
    fit = network(X)
    strength = nonnegative_scalar(lam, "lam", fit.dtype)
    target, weight = checked_samples(loss, fit, y, sample_weight)
    squares = jnp.sum(network.hidden**2) + jnp.sum(network.output**2)
    if neuron_weight is not None:
        own = checked_neuron_weight(neuron_weight, network)
        out = network.output**2
        each = jnp.sum(network.hidden**2, axis=0) + (out if out.ndim == 1 else jnp.sum(out, axis=1))
        squares = jnp.sum(weighted(own, each))
    return total(loss, fit, target, weight) + 0.5 * strength * squares


def checked_neuron_weight(weight: Any, network: Network | GatedNetwork) -> Array:
    """Weights of neurons in the penalty, one each and none negative."""
    own = as_float(weight, "neuron_weight")
    check_shape(own, "neuron_weight", network.hidden.shape[1:], "one a neuron")
    if not is_traced(weight) and not bool(np.all(np.asarray(weight) >= 0)):
        raise ValueError("neuron_weight holds a negative number or NaN: weights are >= 0.")
    return jnp.where(own < 0, jnp.nan, own).astype(network.output.dtype)


def check_layers(network: Network | GatedNetwork, name: str = "network") -> None:
    """Refuses layers that are no arrays of float32 or float64, or do not fit each other."""
    for layer, value in vars(network).items():
        if layer not in ("skip", "bias", "constant") or value is not None:
            check_leaf(value, f"{name}.{layer}")
    if network.hidden.ndim != 2:
        raise ValueError(
            f"{name}.hidden has shape {network.hidden.shape}; pass a matrix (d, m), one neuron a "
            "column."
        )
    outputs = network.output.shape[1:2]  # () for one, (c,) for c
    expected = (*network.hidden.shape[1:], *outputs)
    check_shape(network.output, f"{name}.output", expected, "one a neuron")
    if network.skip is not None:
        expected = (*network.hidden.shape[:1], *outputs)
        check_shape(network.skip, f"{name}.skip", expected, f"one a row of {name}.hidden")
    if isinstance(network, GatedNetwork):
        check_shape(network.gates, f"{name}.gates", network.hidden.shape, "that of hidden")
        return
    if network.bias is not None:
        check_shape(network.bias, f"{name}.bias", network.hidden.shape[1:], "one a neuron")
    if network.constant is not None:
        reason = "one an output" if outputs else "a scalar"
        check_shape(network.constant, f"{name}.constant", outputs, reason)


def has_bias(network: Network | GatedNetwork) -> bool:
    """Whether a network has biases or a constant."""
    if isinstance(network, GatedNetwork):
        return False
    return network.bias is not None or network.constant is not None


def checked_input(X: ArrayLike, network: Network | GatedNetwork, name: str = "network") -> Array:
    """Rows of the features that a network takes, after a check of its layers."""
    check_layers(network, name)
    X = as_float(X, "X")
    features = network.hidden.shape[0]
    if X.ndim != 2 or X.shape[1] != features:
        raise ValueError(
            f"X has shape {X.shape}, but {name}.hidden takes rows of {features} features: "
            f"pass an array of shape (n, {features})."
        )
    return X


def _nonzero_slots(network: Network | GatedNetwork) -> Bools:
    check_layers(network)
    inner: Bools = (np.asarray(network.hidden) != 0).any(axis=0)
    if isinstance(network, Network) and network.bias is not None:
        inner = inner | (np.asarray(network.bias) != 0)
    output = np.asarray(network.output) != 0
    return inner & (output if output.ndim == 1 else output.any(axis=1))
