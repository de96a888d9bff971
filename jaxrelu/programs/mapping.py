r"""From convex weights to networks and back, without changing fit or objective.

Weights of blocks in the penalty are those of their neurons, w (||u||^2 + a^2) / 2 = w ||theta||.
A block theta of sign s is the neuron u = theta / sqrt(||theta||), a = s sqrt(||theta||): then
relu(X u) a = s D X theta on the training data and (||u||^2 + a^2) / 2 = ||theta||, so the network's
`nonconvex_objective` equals the convex objective. Back, a neuron (u, a) adds u |a| to the block of
sign(a) and of the cell of u. With a free bias ||theta|| is that of all but the bias, which is
divided and multiplied alike.

Reference: Pilanci and Ergen (ICML 2020), Theorem 1; Mishkin and Pilanci (ICML 2023), Section 2.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import as_float, check_dtype, known_matrix
from jaxrelu.core.numerics import matmul, safe_norm, safe_sqrt
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.bias_metric import sized
from jaxrelu.geometry.checks import with_ones
from jaxrelu.geometry.patterns import Patterns, patterns_from_weights
from jaxrelu.losses.base import Loss
from jaxrelu.losses.checks import check_known_samples, chosen_loss
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import (
    GatedNetwork,
    Network,
    checked_input,
    checked_neuron_weight,
    has_bias,
)
from jaxrelu.programs.checks import check_kind, check_program, check_skip, check_weights
from jaxrelu.programs.program import ConvexProgram, GatedProgram, Program
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.vector_mapping import network_of_outputs
from jaxrelu.programs.vector_program import VectorProgram


def to_network(
    program: Program | VectorProgram, solution: Solution | Any
) -> Network | GatedNetwork:
    """The network of a solution: one slot a block, zero slots for zero blocks.

    Args:
        program: the program that was solved.
        solution: a `Solution`, or convex weights of the program's shape, which say nothing of a
            skip connection or a constant.

    Returns:
        `Network` with 2p slots, positive output weights first, or `GatedNetwork` with p slots; of a
        `VectorProgram` one with outputs (m, c): min(d, c) slots a gate, one a neuron, or 2p c.
        Traceable, and differentiable: the derivative of a zero block is 0, as of relu at 0.
        ``network.compact()`` drops the zero slots on the host.

    Raises:
        ValueError, TypeError: weights whose shape or dtype is not the program's.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> network = jr.to_network(program, jr.solve(program, 0.1))
        >>> bool(abs(network(X) - jr.solve(program, 0.1).fit).max() < 1e-5)
        True

    Reference: Pilanci and Ergen (ICML 2020), Theorem 1.
    """
    if isinstance(program, VectorProgram):
        return network_of_outputs(program, solution)
    check_kind(program)
    if isinstance(solution, Solution):
        weights = check_weights(program, solution.weights, "solution.weights")
        skip = check_skip(program, solution.skip, "solution.skip")
    else:
        weights, skip = check_weights(program, solution, "solution"), None
    flat, biased = weights.reshape(-1, weights.shape[-1]), program.bias == "free"
    root = safe_sqrt(safe_norm(sized(flat, biased)))
    empty = (root == 0)[:, None]
    hidden = jnp.where(empty, 0.0, flat / jnp.where(empty, 1.0, root[:, None])).T
    if isinstance(program, GatedProgram):
        return GatedNetwork(jnp.asarray(program.patterns.gates), hidden, root, skip)
    p = weights.shape[1]
    output = jnp.concatenate([root[:p], -root[p:]])
    if not biased:
        return Network(hidden, output, skip)
    # A bias alone is a constant, and nothing is paid for it.
    alone = jnp.where(root == 0, jnp.maximum(flat[:, -1], 0.0), 0.0)
    constant = jnp.sum(alone[:p]) - jnp.sum(alone[p:])
    if isinstance(solution, Solution) and solution.constant is not None:
        constant = constant + solution.constant
    return Network(hidden[:-1], output, skip, hidden[-1], constant)


@on_host()
def from_network(
    network: Network | GatedNetwork,
    X: Any,
    y: Any,
    loss: Loss | None = None,
    *,
    sample_weight: Any = None,
    neuron_weight: Any = None,
) -> tuple[Program, Array]:
    """The program over a network's own cells, and the network's convex weights in it.

    Args:
        network: a `Network` or `GatedNetwork`, concrete.
        X: array (n, d), floating.
        y: array (n,).
        loss: a `Loss`; default the squared loss.
        sample_weight: array (n,), or None.
        neuron_weight: array (m,) in [0, inf], the weights of the neurons in the penalty, or None
            for ones. They become the ``block_weights`` of the program; a block without a neuron has
            the weight of its pattern's other sign.

    Returns:
        ``(program, weights)``: the weights have the network's fit, beside its skip connection and
        constant, which are `network.skip` and `network.constant` still; and their convex objective
        is at most `nonconvex_objective` (equal when every neuron is balanced, ||u|| = |a|, and
        neurons that share a signed cell are collinear). A neuron on a wall, which has no pattern of
        its own, goes to a deterministic full-dimensional adjacent cell. The program has a skip
        connection if the network has one, and a free bias if it has biases or a constant.

    Raises:
        ValueError, TypeError: shapes or dtypes that do not fit; a network with no neurons; weights
            of neurons that share a block and differ.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> network = jr.Network(np.eye(2, dtype="float32"), np.ones(2, "float32"))
        >>> program, weights = jr.from_network(network, X, y)
        >>> weights.shape[0]
        2

    Reference: Mishkin and Pilanci (ICML 2023); the cells of wall neurons as corrected in
    `jaxrelu.geometry.patterns.patterns_from_weights`.
    """
    check_known_network(network, gated=True, skip=True, bias=True)
    loss = chosen_loss(loss)
    data = known_matrix(X, "X")
    check_known_samples(len(data), y, sample_weight)
    X, y = checked_input(data, network), as_float(y, "y")
    if sample_weight is not None:
        sample_weight = as_float(sample_weight, "sample_weight")
    hidden, output = jnp.asarray(network.hidden), jnp.asarray(network.output)
    check_dtype(hidden, "network.hidden", X.dtype)
    check_dtype(output, "network.output", X.dtype)
    own = None
    if neuron_weight is not None:
        own = np.asarray(checked_neuron_weight(neuron_weight, network), X.dtype)
    features, biased = X, has_bias(network)
    if biased and isinstance(network, Network):
        bias = jnp.zeros_like(output) if network.bias is None else jnp.asarray(network.bias)
        hidden, features = jnp.concatenate([hidden, bias[None]]), with_ones(X)
    scaled = (hidden * jnp.abs(output)[None]).T
    if isinstance(network, GatedNetwork):
        return _from_gated(network, X, y, loss, sample_weight, (hidden * output[None]).T, own)
    patterns, index = patterns_from_weights(features, hidden)
    sign = jnp.where(output >= 0, 0, 1)
    of_blocks = None
    if own is not None:
        p = patterns.masks.shape[1]
        known = _of_blocks(own, np.asarray(sign) * p + np.asarray(index), 2 * p).reshape(2, p)
        of_blocks = jnp.asarray(np.where(np.isnan(known), known[::-1], known))
    has_skip = network.skip is not None
    program = ConvexProgram(
        X, y, patterns, loss, sample_weight, of_blocks, skip=has_skip,
        bias="free" if biased else "none",
    )  # fmt: skip
    check_program(program)
    weights = jnp.zeros((*program.block_shape, program.block_size), X.dtype)
    return program, weights.at[sign, index].add(scaled)


def _from_gated(
    network: GatedNetwork,
    X: Array,
    y: Array,
    loss: Loss,
    sample_weight: Any,
    scaled: Array,
    own: Any,
) -> tuple[Program, Array]:
    """Neurons with the same gate pattern share a block; every gate keeps its pattern."""
    gates = jnp.asarray(network.gates)
    masks = np.asarray(matmul(X, gates) >= 0)  # to the bit as the network evaluates it
    _, first, index = np.unique(masks, axis=1, return_index=True, return_inverse=True)
    patterns = Patterns(gates[:, first], jnp.asarray(masks[:, first]))
    of_blocks = None
    if own is not None:
        of_blocks = jnp.asarray(_of_blocks(own, index.reshape(-1), len(first)))
    has_skip = network.skip is not None
    program = GatedProgram(X, y, patterns, loss, sample_weight, of_blocks, skip=has_skip)
    check_program(program)
    weights = jnp.zeros((*program.block_shape, X.shape[1]), X.dtype)
    return program, weights.at[jnp.asarray(index.reshape(-1))].add(scaled)


def _of_blocks(own: Any, block: Any, blocks: int) -> Any:
    """The weights of neurons as those of their blocks; NaN for a block without a neuron."""
    found = np.full(blocks, np.nan, own.dtype)
    found[block] = own
    if not np.array_equal(found[block], own):
        raise ValueError(
            "neuron_weight differs between neurons of one sign in one cell, which make one block: "
            "give them the same weight, or merge them."
        )
    return found
