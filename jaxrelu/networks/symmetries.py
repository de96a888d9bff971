r"""Networks of equal function: balanced, split, merged, permuted; the path to nearly minimal ones.

A neuron (u, a) computes relu(x.u) a, which (t u, a / t) computes too: of these the balanced one,
||u|| = |a|, has the smallest penalty (||u||^2 + a^2) / 2 = ||u|| |a|. A neuron can be split into
collinear ones (sqrt(g_j) u, sqrt(g_j) a), sum g_j = 1, of the same function and penalty, and
collinear neurons of one sign merged.

A bias, of which the penalty knows nothing, goes with u; a neuron of a bias alone is a constant. Of
several outputs a is a vector: ||u|| = ||a|| when balanced, and neurons are merged that are
collinear in both.

Reference: Mishkin and Pilanci (ICML 2023), Section 2 (splits and permutations); the decreasing path
by the steps of Haeffele and Vidal and of Pilanci and Ergen, in the order derived here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import check_dtype, host_numbers, known_matrix
from jaxrelu.core.numerics import matmul, safe_norm, safe_sqrt, unit
from jaxrelu.core.options import count, scalar
from jaxrelu.core.pytrees import register
from jaxrelu.core.rounding import largest_exponent, times_power, tiny
from jaxrelu.core.tracing import on_host, refuse_traced
from jaxrelu.geometry.host.directions import distinct
from jaxrelu.geometry.host.scaling import products, roots, scaled, unit_rows
from jaxrelu.geometry.patterns import patterns_from_weights
from jaxrelu.networks.checks import check_known_network, check_network
from jaxrelu.networks.network import Network, checked_input


def balance(network: Network) -> Network:
    """The network of the same function with ||hidden_k|| = ||output_k|| for every neuron.

    Args:
        network: a `Network`. A slot whose hidden or output weight is zero becomes zero; what one
            with a bias alone computes goes to the constant.

    Returns:
        `Network`, with the smallest penalty of all rescalings; with biases it has a constant.
        Traceable.

    Raises:
        TypeError: not a `Network`.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> balanced = jr.balance(jr.Network(jnp.asarray([[4.0]]), jnp.asarray([1.0])))
        >>> float(balanced.hidden[0, 0]), float(balanced.output[0])
        (2.0, 2.0)

    Reference: Neyshabur, Tomioka and Srebro (2015), In search of the real inductive bias.
    """
    check_network(network, skip=True, bias=True, outputs=True)
    hidden, output = jnp.asarray(network.hidden), jnp.asarray(network.output)
    norm, several = safe_norm(hidden.T), output.ndim > 1
    size = safe_norm(output) if several else jnp.abs(output)
    root = _geometric_mean(norm, size)
    factor = root / jnp.where(norm > 0, norm, 1.0)
    outward = unit(output) * root[:, None] if several else jnp.sign(output) * root
    balanced = replace(network, hidden=hidden * factor[None], output=outward)
    if network.bias is None:
        return balanced
    bias = jnp.asarray(network.bias)
    stays = jnp.where(norm > 0, 0.0, jnp.maximum(bias, 0.0))
    alone = matmul(stays[None], output)[0] if several else jnp.sum(stays * output)
    constant = alone if network.constant is None else network.constant + alone
    return replace(balanced, bias=bias * factor, constant=constant)


def _geometric_mean(a: Array, b: Array) -> Array:
    """(a b)^(1/2), also where the product is out of range."""
    product, least = a * b, tiny(a.dtype)
    in_range = (product >= least) & (product <= 1.0 / least)
    return jnp.where(
        in_range, jnp.sqrt(jnp.where(in_range, product, 1.0)), safe_sqrt(a) * safe_sqrt(b)
    )


def split(network: Network, neuron: int, shares: Any) -> Network:
    """Splits one neuron into collinear ones; function and penalty stay.

    Args:
        network: a `Network`.
        neuron: which slot.
        shares: array (j,), >= 0 with sum 1; the first copy keeps the slot, the others come last.

    Returns:
        `Network` with j - 1 more slots. Traceable in the network.

    Raises:
        ValueError, TypeError: shares that are negative or do not sum to one; no such slot; not a
            `Network`.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> network = jr.Network(jnp.ones((3, 1)), jnp.ones(1))
        >>> jr.split(network, 0, [0.25, 0.25, 0.25, 0.25]).output.tolist()
        [0.5, 0.5, 0.5, 0.5]

    Reference: Mishkin and Pilanci (ICML 2023), Section 2.
    """
    check_network(network, skip=True, bias=True, outputs=True)
    refuse_traced("split", {"neuron": neuron, "shares": shares})
    g = host_numbers(shares, "shares")
    if g.ndim != 1 or not (np.all(g >= 0) and abs(g.sum() - 1.0) <= 1e-6):
        raise ValueError(
            f"shares has shape {g.shape} and sums to {g.sum():g}; pass numbers >= 0 that sum to 1."
        )
    m = network.num_neurons
    neuron = count(neuron, "neuron", -m, f"one of {m} slots")
    if neuron >= m:
        raise ValueError(f"neuron is {neuron}, but the network has {m} slots: pass 0 to {m - 1}.")
    hidden, output = jnp.asarray(network.hidden), jnp.asarray(network.output)
    root = jnp.asarray(np.sqrt(g), hidden.dtype)

    def parts(layer: Array) -> Array:
        more = jnp.outer(layer[:, neuron], root[1:])
        return jnp.concatenate([layer.at[:, neuron].multiply(root[0]), more], axis=1)

    bias = None if network.bias is None else parts(jnp.asarray(network.bias)[None])[0]
    out = parts(output.T).T if output.ndim > 1 else parts(output[None])[0]
    return replace(network, hidden=parts(hidden), output=out, bias=bias)


@on_host()
def merge(network: Network) -> Network:
    """Merges collinear neurons of equal output sign (or direction), drops zero ones; on the host.

    Args:
        network: a `Network`, balanced or not.

    Returns:
        `Network`, balanced, with one neuron a direction and sign (of several outputs, a pair of
        directions); the same function and the penalty of ``balance(network)``, to the 1e-6 at
        which directions count as equal; biases do up to their rounding.

    Raises:
        TypeError: not a `Network`; a traced one, of which the number of neurons cannot be known.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> hidden = jnp.asarray([[1.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
        >>> jr.merge(jr.Network(hidden, jnp.ones(3))).num_neurons
        2

    Reference: Mishkin and Pilanci (ICML 2023), Section 2.
    """
    check_known_network(network, skip=True, bias=True, outputs=True)
    alive = balance(network).compact()
    hidden, output = np.asarray(alive.hidden), np.asarray(alive.output)
    inward, norms = unit_rows(hidden.T)
    several = output.ndim > 1
    outward, out_norms = unit_rows(output if several else output[:, None])
    sizes, exponent = products(norms, out_norms)
    biases = None if alive.bias is None else np.asarray(alive.bias) / norms
    rounding = 64.0 * float(np.finfo(hidden.dtype).eps)
    signs = np.ones(len(output), output.dtype) if several else outward[:, 0]
    pairs = np.concatenate([inward, outward], axis=1) / np.sqrt(2.0) if several else inward
    first, member_of = distinct(pairs, signs, biases=biases, rounding=rounding)

    def added_up(columns: np.ndarray) -> np.ndarray:
        total = np.zeros((first.size, *columns.shape[1:]), hidden.dtype)
        np.add.at(total, member_of, (sizes * columns.T).T)
        return total

    directions, merged_sizes = unit_rows(added_up(inward))
    root = roots(merged_sizes, exponent)
    outward = unit_rows(added_up(outward))[0] if several else outward[first]
    out = outward * root[:, None]
    dtype = network.hidden.dtype
    bias = None
    if biases is not None:
        bias = jnp.asarray(added_up(biases) / merged_sizes * root, dtype)
    return replace(
        alive,
        hidden=jnp.asarray((directions * root[:, None]).T, dtype),
        output=jnp.asarray(out if several else out[:, 0], dtype),
        bias=bias,
    )


def permute(network: Network, order: Any) -> Network:
    """The same network with its slots in another order.

    Args:
        network: a `Network`.
        order: array (m,), slot k of the result is slot ``order[k]`` of the network.

    Returns:
        `Network`. Traceable in the network.

    Raises:
        ValueError, TypeError: not a permutation of the slots; not a `Network`.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> network = jr.Network(jnp.ones((3, 2)), jnp.asarray([1.0, 2.0]))
        >>> jr.permute(network, [1, 0]).output.tolist()
        [2.0, 1.0]

    Reference: Mishkin and Pilanci (ICML 2023), Section 2.
    """
    check_network(network, skip=True, bias=True, outputs=True)
    refuse_traced("permute", {"order": order})
    places = host_numbers(order, "order")
    m = network.num_neurons
    if places.shape != (m,) or not np.array_equal(np.sort(places), np.arange(m)):
        raise ValueError(f"order is no permutation of {m} slots: pass each of 0 to {m - 1} once.")
    index = places.astype(np.int64)
    bias = None if network.bias is None else network.bias[index]
    return replace(
        network, hidden=network.hidden[:, index], output=network.output[index], bias=bias
    )


@register
@dataclass(frozen=True, eq=False)
class DecreasingPath:
    """A continuous path of networks of one fit along which the penalty strictly decreases.

    Call it with t in [0, 1]: the given network at 0, the nearly minimal one at 1. First dead
    neurons shrink to zero, then every neuron is balanced, last the neurons of every signed cone
    turn to their common direction. Those of the three that have something to do share the time.

    Attributes:
        network: the network at t = 0.
        group: (m,) int32, the signed cone of each neuron.
        dead: (m,) bool, neurons that are zero on all samples or have a zero weight.
        begins: (3,), when each part begins.
        speed: scalar, the number of parts that have something to do.
        acts: (3,) bool, which these are.
    """

    network: Network
    group: Array
    dead: Array
    begins: Array
    speed: Array
    acts: Array

    def __call__(self, t: Any) -> Network:
        """The network at t, a scalar in [0, 1]; traceable."""
        t = jnp.clip(scalar(t, "t", self.network.hidden.dtype), 0.0, 1.0)
        done = jnp.clip(self.speed * t - self.speed * self.begins, 0.0, 1.0)
        first, second, third = jnp.where(self.acts, done, 0.0)
        shrink = jnp.where(self.dead, 1.0 - first, 1.0)
        hidden, output = self.network.hidden * shrink[None], self.network.output * shrink
        norm, size = safe_norm(hidden.T), jnp.abs(output)
        alive = ~self.dead
        # The quotient itself may be out of range.
        ratio = jnp.sqrt(jnp.where(alive, size, 1.0)) / jnp.sqrt(jnp.where(alive, norm, 1.0))
        factor = ratio**second
        hidden, output = hidden * factor[None], output / factor
        # Convex weights of the balanced neurons, and what they add up to in their signed cone; in
        # units in which their products are in range.
        power = largest_exponent(output)
        parts = times_power(hidden, -power) * jnp.abs(times_power(output, -power))[None]
        weights = jnp.where(alive[None], parts, 0.0).T
        length = safe_norm(weights)
        count = self.group.shape[0]
        total = jnp.zeros_like(weights).at[self.group].add(weights)
        lengths = jnp.zeros((count,), length.dtype).at[self.group].add(length)
        share = length / jnp.where(lengths > 0, lengths, 1.0)[self.group]
        turned = (1 - third) * weights + third * share[:, None] * total[self.group]
        root = safe_sqrt(safe_norm(turned))
        turned = times_power((turned / jnp.where(root > 0, root, 1.0)[:, None]).T, power)
        root = times_power(root, power)
        moving = (third > 0) & alive
        return Network(
            jnp.where(moving[None], turned, hidden),
            jnp.where(moving, jnp.sign(output) * root, output),
        )


@on_host()
def nearly_minimal(network: Network, X: Any) -> DecreasingPath:
    """The path to a nearly minimal network: balanced, and collinear in every signed cone.

    Args:
        network: a `Network`, concrete.
        X: array (n, d), of the dtype of the network.

    Returns:
        `DecreasingPath`; ``merge(path(1.0))`` has one neuron a signed cone. The fit on X is the
        same all along, the penalty strictly decreases unless the network is nearly minimal already.

    Raises:
        ValueError, TypeError: shapes or dtypes that do not fit.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.5], [0.5, 1.0]], "float32")
        >>> network = jr.Network(np.asarray([[1.0, 0.0], [0.0, 2.0]], "float32"), np.ones(2, "f4"))
        >>> path = jr.nearly_minimal(network, X)
        >>> bool(abs(path(0.9)(X) - network(X)).max() < 1e-6), jr.merge(path(1.0)).num_neurons
        (True, 1)

    Reference: the constant-fit steps of Mishkin and Pilanci (ICML 2023) put in one order: shrink,
    balance, merge.
    """
    check_known_network(network)
    X = checked_input(known_matrix(X, "X"), network)
    hidden, output = jnp.asarray(network.hidden), jnp.asarray(network.output)
    check_dtype(hidden, "network.hidden", X.dtype)
    _, cell = patterns_from_weights(X, hidden)
    sign = (np.asarray(output) < 0).astype(np.int64)
    _, group = np.unique(np.asarray(cell) * 2 + sign, return_inverse=True)
    along = scaled(np.asarray(X), axis=1) @ scaled(np.asarray(hidden), axis=0)
    dead = (output == 0) | ~jnp.any(jnp.asarray(along) > 0, axis=0)
    group = group.reshape(-1)
    acts = np.array(_parts(np.asarray(hidden).T, np.asarray(output), group, np.asarray(dead)))
    speed = max(1, int(np.sum(acts)))
    begins = (np.cumsum(acts) - acts) / speed
    return DecreasingPath(
        Network(hidden, output), jnp.asarray(group, jnp.int32), dead,
        jnp.asarray(begins, hidden.dtype), jnp.asarray(speed, hidden.dtype), jnp.asarray(acts),
    )  # fmt: skip


def _parts(hidden: Any, output: Any, group: Any, dead: Any) -> tuple[bool, bool, bool]:
    """Whether there are dead weights, neurons out of balance, cones of several directions."""
    few = 8 * float(np.finfo(hidden.dtype).eps)
    (inward, norm), size = unit_rows(hidden), np.abs(output)
    unbalanced = np.any((np.abs(norm - size) > few * (norm + size))[~dead])
    (length, _), total = products(norm, size), np.zeros_like(hidden)
    np.add.at(total, group[~dead], (length[:, None] * inward)[~dead])
    together = np.linalg.norm(total, axis=1).sum()
    apart = length[~dead].sum() - together > few * together
    return bool(np.any((norm + size)[dead] > 0)), bool(unbalanced), bool(apart)
