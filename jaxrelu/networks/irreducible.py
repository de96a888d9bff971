r"""Irreducible networks: the same fit by neurons whose features are independent.

With unit directions u_k and coefficients a_k = ||hidden_k|| |output_k|, features z_k =
sign_k relu(X u_k), the fit is sum_k a_k z_k and the penalty of the balanced network sum_k a_k.
While the features of the neurons are dependent, sum_k beta_k z_k = 0, the step a - t beta, t the
smallest a_k / beta_k over beta_k > 0, removes a neuron and keeps the fit; of beta and -beta the one
with sum beta >= 0 is taken, so that the penalty does not grow. What is left has independent
features: it is *irreducible*, a vertex of the optimal set where the network was optimal. That is
not the same as *sparsest*.

With biases a constant costs nothing, and the dependencies that count are those up to a constant:
sum_k beta_k z_k = constant, features z_k without their means.

Reference: Mishkin and Pilanci (ICML 2023), Algorithm 1, with the sign of the step corrected: as
printed, a step along the wrong sign doubles a neuron and removes none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.linalg import qr_delete, qr_insert, solve_triangular

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.core.checks import known_matrix
from jaxrelu.core.numerics import matmul
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.directions import distinct
from jaxrelu.geometry.host.nonnegative_least_squares import nonnegative_least_squares
from jaxrelu.geometry.host.scaling import exponents, products, roots, unit_rows
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import GatedNetwork, Network, checked_input, has_bias

# A unit feature this near the span of others depends on them.
DEPENDENT = 1e-9
# Merged neurons keep their fit to this, relative.
_EXACT = 1e-13


@on_host()
def minimal(network: Network | GatedNetwork, X: Any) -> Network | GatedNetwork:
    """An irreducible network of the same fit on X, with the same or a smaller penalty.

    Neurons of equal direction and sign are merged (of a gated network, where their gates act alike
    on X), dead ones dropped, the rest balanced; then neurons whose features depend on those of
    others are removed, with one QR factorisation kept up to date: O(n d m + n^2 m). At most
    rank(features) <= n neurons are left.

    Args:
        network: a `Network` or `GatedNetwork` of m neurons, from anywhere; need not be optimal.
            Of convex weights, `to_network(program, weights)`.
        X: array (n, d), the data on which the fit is kept.

    Returns:
        A network of the same kind, balanced, of fewer or equally many neurons. Of an optimal
        network, an optimal one: a vertex of its optimal set.

    Raises:
        ValueError, TypeError: shapes that do not fit; a traced argument.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.0], [0.0, 1.0]], "float32")
        >>> hidden = np.asarray([[1.0, 2.0], [0.0, 0.0]], "float32")
        >>> jr.minimal(jr.Network(hidden, np.ones(2, "float32")), X).num_neurons
        1

    Reference: Mishkin and Pilanci (ICML 2023), Algorithm 1, corrected.
    """
    neurons = neurons_of(network, X)
    return neurons.network(independent(neurons.features, neurons.coefficients)[1])


def independent(features: Floats, coefficients: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Indices of independent features, and coefficients (k,) >= 0 of the same fit on them alone."""
    target = features @ coefficients
    size = float(np.linalg.norm(target))
    a = coefficients
    for tolerance in (DEPENDENT, DEPENDENT**1.25, DEPENDENT**1.5):
        a = deque(reductions(features, coefficients, tolerance), maxlen=1)[0]
        # Features that are nearly dependent add up their distances: then they count as independent.
        if np.linalg.norm(features @ a - target) <= DEPENDENT * size:
            break
    return np.flatnonzero(a > 0), a


def reductions(
    features: Floats, coefficients: Floats, tolerance: float = DEPENDENT
) -> Iterator[Floats]:
    """Coefficients (k,) >= 0 of the same fit on fewer and fewer features, at last independent ones.

    Columns come in one by one; one that depends on those kept pushes the first neuron to zero.
    """
    n, k = features.shape
    norms = np.linalg.norm(features, axis=0)
    a = np.where(norms > 0, coefficients, 0.0)
    target = features @ a
    Q, R = np.zeros((n, 0)), np.zeros((0, 0))
    kept: list[int] = []
    for index in np.argsort(-a * norms, kind="stable"):
        if a[index] <= 0:
            continue
        z = features[:, index] / norms[index]
        rest = z - Q @ (Q.T @ z)
        rest = rest - Q @ (Q.T @ rest)
        if np.linalg.norm(rest) > tolerance and len(kept) < n:
            Q, R = _with_column(Q, R, z)
            kept.append(int(index))
            continue
        # z_index = sum_j c_j z_j in units of the features themselves.
        c = solve_triangular(R, Q.T @ z) * norms[index] / norms[kept]
        beta = np.append(-c, 1.0)
        members = np.append(kept, index)
        step, gone = _first_to_vanish(a[members], beta)
        other, other_gone = _first_to_vanish(a[members], -beta)
        # Not up in penalty; where neither way is, to the nearer end.
        slope = np.sum(beta) / np.sum(np.abs(beta))
        if slope < -1e-9 or (slope < 1e-9 and other < step):
            step, gone, beta = other, other_gone, -beta
        a[members] = np.maximum(a[members] - step * beta, 0.0)
        a[members[gone]] = 0.0
        if gone < len(kept):
            Q, R = qr_delete(Q, R, gone, which="col")
            Q, R = Q[:, : R.shape[1]], R[: R.shape[1]]
            kept.pop(gone)
            Q, R = _with_column(Q, R, z)
            kept.append(int(index))
        yield a.copy()
    yield _polished(features, target, a, np.sort(np.array(kept, np.int64)))


def _polished(features: Floats, target: Floats, a: Floats, chosen: NDArray[np.int64]) -> Floats:
    """Coefficients on chosen features without the rounding that the sums of many steps leave."""
    found: Floats = np.zeros(len(a))
    if not chosen.size:
        return found
    columns = features[:, chosen]
    exact, *_ = np.linalg.lstsq(columns, target, rcond=None)
    if not np.all(exact >= 0):
        exact, _ = nonnegative_least_squares(columns, target)
    off, known = (np.linalg.norm(columns @ x - target) for x in (exact, a[chosen]))
    found[chosen] = exact if off <= known else a[chosen]
    found[found <= 1e-12 * np.max(found, initial=0.0)] = 0.0
    return found


def _first_to_vanish(a: Floats, beta: Floats) -> tuple[float, int]:
    """The largest t with a - t beta >= 0, and which coefficient ends there."""
    falling = beta > 1e-14 * np.max(np.abs(beta))
    ratio = np.where(falling, a / np.where(falling, beta, 1.0), np.inf)
    gone = int(np.argmin(ratio))
    return float(ratio[gone]), gone


def _with_column(Q: Floats, R: Floats, z: Floats) -> tuple[Floats, Floats]:
    if R.shape[1] == 0:
        size = np.linalg.norm(z)
        return z[:, None] / size, np.array([[size]])
    return qr_insert(Q, R, z, R.shape[1], which="col")  # type: ignore[no-any-return]


class Neurons(NamedTuple):
    """Living neurons, one of each direction, sign and feature.

    Attributes:
        directions: (k, d), unit norm; with biases (k, d + 1), unit norm without the last entry.
        signs: (k,), of the output; +1 in a gated network, where (u, -a) is (-u, a).
        coefficients: (k,), ||hidden|| |output|, those of equal neurons added up, in units of
            2^size.
        masks: (n, k), where the neurons are active.
        features: (n, k), signs * masks * (X directions^T), in units of 2^data; with biases less
            their means.
        gates: (d, k) of a gated network, None for a ReLU network.
        dtype: that of the network.
        data, size: exponents, so that numbers of any network and any X are around one.
        skip: (d,), the network's skip connection, or None.
        means: (k,), those of the features of a network with biases, in units of 2^data, or None.
        constant: the constant of that network and what its neurons add to it on the mean.
    """

    directions: Floats
    signs: Floats
    coefficients: Floats
    masks: Bools
    features: Floats
    gates: Floats | None
    dtype: Any
    data: int
    size: int
    skip: Any = None
    means: Floats | None = None
    constant: float = 0.0

    def network(self, a: Floats) -> Network | GatedNetwork:
        """The balanced network of coefficients (k,), without the neurons that have none."""
        kept = np.flatnonzero(a > 0)
        root = roots(a[kept], self.size)
        hidden = jnp.asarray((self.directions[kept] * root[:, None]).T, self.dtype)
        output = jnp.asarray(self.signs[kept] * root, self.dtype)
        if self.means is not None:
            constant = self.constant - np.ldexp(self.means[kept] @ a[kept], self.data + self.size)
            own = jnp.asarray(constant, self.dtype)
            return Network(hidden[:-1], output, self.skip, hidden[-1], own)
        if self.gates is None:
            return Network(hidden, output, self.skip)
        gates = jnp.asarray(self.gates[:, kept], self.dtype)
        return GatedNetwork(gates, hidden, output, self.skip)


def neurons_of(network: Network | GatedNetwork, X: Any) -> Neurons:
    """The living neurons of a network, after a check of it and of X."""
    check_known_network(network, gated=True, skip=True, bias=True)
    data = checked_input(known_matrix(X, "X"), network)
    if isinstance(network, Network) and has_bias(network):
        return _with_biases(network, data)
    gated = isinstance(network, GatedNetwork)
    opening = network.gates if isinstance(network, GatedNetwork) else network.hidden
    layers = data, network.hidden, network.output
    rows, u, w = (np.asarray(value, np.float64) for value in layers)
    signs: Floats = np.ones(w.size) if gated else np.sign(w)
    u = u * np.sign(w) if gated else u
    unit, norms = unit_rows(u.T)
    power = int(exponents(rows))
    rows = np.ldexp(rows, -power)
    linear = rows @ unit.T
    coefficients, size = products(norms, np.abs(w))
    # Gates to the bit as the network evaluates them.
    masks = np.asarray(matmul(data, opening) >= 0 if gated else linear > 0)
    features = signs * masks * linear
    alive = np.flatnonzero((w != 0) & np.any(features != 0, axis=0))
    gates = np.asarray(opening, np.float64)[:, alive] if gated else None
    apart = Neurons(
        unit[alive], signs[alive], coefficients[alive],
        masks[:, alive], features[:, alive], gates, network.hidden.dtype, power, size,
        network.skip,
    )  # fmt: skip
    return _merged(apart, rows)


def _with_biases(network: Network, X: Array) -> Neurons:
    """Those of a network with biases; what a bias alone computes is in the constant."""
    rows, u, w = (np.asarray(value, np.float64) for value in (X, network.hidden, network.output))
    b = np.zeros(w.size) if network.bias is None else np.asarray(network.bias, np.float64)
    constant = 0.0 if network.constant is None else float(network.constant)
    unit, norms = unit_rows(u.T)
    alone = norms == 0
    constant += float(np.maximum(b[alone], 0.0) @ w[alone])
    directions = np.column_stack([unit, b / np.where(alone, 1.0, norms)])
    rows = np.column_stack([rows, np.ones(len(rows))])
    power = int(exponents(rows))
    rows = np.ldexp(rows, -power)
    linear, signs = rows @ directions.T, np.sign(w)
    masks, (coefficients, size) = linear > 0, products(norms, np.abs(w))
    alive = np.flatnonzero((w != 0) & ~alone & np.any(masks, axis=0))
    features = signs * masks * linear
    apart = Neurons(
        directions[alive], signs[alive], coefficients[alive], masks[:, alive], features[:, alive],
        None, network.hidden.dtype, power, size, network.skip, np.zeros(alive.size), constant,
    )  # fmt: skip
    merged = _merged(apart, rows)
    means = merged.features.mean(axis=0)
    features = merged.features - means
    # What is constant on all samples is up to rounding, and then nothing.
    features[:, np.max(np.abs(features), axis=0) <= _EXACT * np.abs(means)] = 0.0
    constant += float(np.ldexp(means @ merged.coefficients, power + size))
    return merged._replace(features=features, means=means, constant=constant)


def _merged(neurons: Neurons, X: Floats) -> Neurons:
    """Neurons of nearly equal direction as one, the sum of their convex weights.

    Where they are active on the same samples that is exact; others stay apart.
    """
    gated, a = neurons.gates is not None, neurons.coefficients
    biased, given = neurons.means is not None, neurons.directions
    first, group = distinct(
        given[:, :-1] if biased else given,
        neurons.signs,
        neurons.features if gated else None,
        given[:, -1] if biased else None,
        64.0 * float(jnp.finfo(neurons.dtype).eps),
    )
    for _ in range(2):
        sums = np.zeros((first.size, X.shape[1]))
        np.add.at(sums, group, a[:, None] * neurons.directions)
        directions, sizes = unit_rows(sums[:, :-1] if biased else sums)
        if biased:
            directions = sums / np.where(sizes > 0, sizes, 1.0)[:, None]
        linear = X @ directions.T
        masks = neurons.masks[:, first] if gated else linear > 0
        features = neurons.signs[first] * masks * linear
        fits, totals = np.zeros((first.size, len(X))), np.zeros(first.size)
        np.add.at(fits, group, a[:, None] * neurons.features.T)
        np.add.at(totals, group, a)
        error = np.linalg.norm(fits.T - features * sizes, axis=0)
        exact = error <= _EXACT * totals * np.linalg.norm(X)
        if exact.all():
            break
        own = np.where(exact[group], first[group], np.arange(a.size))
        first, group = np.unique(own, return_inverse=True)
    gates = neurons.gates[:, first] if neurons.gates is not None else None
    return Neurons(
        directions, neurons.signs[first], sizes, masks, features, gates, neurons.dtype,
        neurons.data, neurons.size, neurons.skip, neurons.means, neurons.constant,
    )  # fmt: skip
