r"""The rows of X and their outer products: every matrix sum_i w_i x_i x_i^T of the package.

Whatever weighs the samples, walls of cones or curvatures of a loss between two patterns, such sums
are one product of weights (m, n) with the packed outer products (n, d (d + 1) / 2). For the Gram
matrix of k blocks,

    A^T diag(h) A,   A = [s_1 D_1 X, ..., s_k D_k X],   (a, b) = sum_i h_i s_a,i s_b,i x_i x_i^T,

that takes a quarter of the operations of the product of the matrices, since both symmetries are
used, and (n, k d) is never formed; measured, it is three to six times faster. With hundreds of
features the packed products cost more to read than they save: there a Gram matrix is a plain
product with the weighted rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.numerics import matmul, safe_norm
from jaxrelu.geometry.bias_metric import reach_of

# Where cones have more rows than this, methods work on some rows of each at a time.
_MANY = 8192
_NEAREST = 256
# Outer products of more entries than this are formed again, some samples at a time, in every sum.
_MOST_KEPT = 2**25
_MOST_WEIGHTS = 2**24
_SAMPLES_AT_ONCE = 2048
# From so many features on, plain products are as fast on a CPU, and nothing is kept.
_MANY_FEATURES = 128
_BLOCKS_AT_ONCE = 8


def are_many(rows: int) -> bool:
    """Whether cones of so many rows are worked on through the `nearest` rows."""
    return rows > _MANY


class Rows(NamedTuple):
    """Unit rows, their lengths, and the packed outer products of the unit rows.

    Attributes:
        unit: (n, d); zero rows stay zero: they constrain nothing.
        length: (n,).
        outer: (n, d (d + 1) / 2), or None where that is too large to keep.
        reach: None, or a scalar where the last column belongs to a bias that is not penalised
            (`jaxrelu.geometry.bias_metric`).
    """

    unit: Array
    length: Array
    outer: Array | None
    reach: Array | None = None

    @property
    def has_bias(self) -> bool:
        """Whether projections are those of `jaxrelu.geometry.bias_metric`."""
        return self.reach is not None

    @property
    def are_many(self) -> bool:
        """So many that cones are worked on through the `nearest` rows."""
        return are_many(self.unit.shape[0])

    def forward(self, points: Array) -> Array:
        """<u_i, x_b> for all unit rows and points: (m, d) -> (m, n)."""
        return matmul(points, self.unit.T)

    def transpose(self, weights: Array) -> Array:
        """sum_i w[b, i] u_i: (m, n) -> (m, d)."""
        return matmul(weights, self.unit)

    def gram(self, weights: Array) -> Array:
        """sum_i w[b, i] u_i u_i^T over the unit rows, for every block: (m, n) -> (m, d, d)."""
        d = self.unit.shape[1]
        if d >= _MANY_FEATURES:
            return _plain_gram(self.unit, weights)
        return self._sums(lambda w: w, weights)[:, _unpacking(d)]

    def updated_gram(self, gram: Array, before: Array, after: Array) -> Array:
        """gram(after) from gram(before): (m, d, d), (m, n), (m, n) -> (m, d, d).

        Between two Newton steps few walls change, and only their samples are passed. A batch would
        do both, and to an accelerator one product with all samples costs less than the choice.
        """
        if jax.default_backend() != "cpu":
            return self.gram(after)
        n, d = self.unit.shape
        few = n // 8
        changed = jnp.any(before != after, axis=0)

        def through_changes() -> Array:
            index = jnp.nonzero(changed, size=few, fill_value=n)[0]
            unit = self.unit.at[index].get(mode="fill", fill_value=0.0)
            weights = (after - before).at[:, index].get(mode="fill", fill_value=0.0)
            if d >= _MANY_FEATURES:
                return gram + _plain_gram(unit, weights)
            upper = np.triu_indices(d)
            packed = matmul(weights, unit[:, upper[0]] * unit[:, upper[1]])
            return gram + packed[:, _unpacking(d)]

        return jax.lax.cond(jnp.sum(changed) <= few, through_changes, lambda: self.gram(after))

    def coupling(self, signed: Array, curvature: Array) -> Array:
        """A^T diag(h) A of the module's docstring: (k, n), (n,) -> (k, d, k, d)."""
        k, d = signed.shape[0], self.unit.shape[1]
        first, second = np.triu_indices(k)

        def of_pairs(some: Array) -> Array:
            return some[first] * some[second] * some[-1:]

        # A = diag(length) unit: the squares of the lengths go into the curvature.
        weights = jnp.concatenate([signed, (curvature * self.length**2)[None]])
        packed = self._sums(of_pairs, weights, pairs=first.size)
        return packed[_unpacking(k)][:, :, _unpacking(d)].transpose(0, 2, 1, 3)

    def own_coupling(self, signed: Array, curvature: Array) -> Array:
        """The diagonal blocks of `coupling`: (k, n), (n,) -> (k, d, d)."""
        return self.gram(signed**2 * (curvature * self.length**2)[None])

    def cross_coupling(self, some: Array, signed: Array, curvature: Array) -> Array:
        """The rows of `coupling` of some of its blocks: (c, n), (k, n), (n,) -> (c, d, k, d)."""
        c, k, d = some.shape[0], signed.shape[0], self.unit.shape[1]
        first, second = (np.asarray(index).ravel() for index in np.indices((c, k)))

        def of_pairs(parts: Array) -> Array:
            return parts[first] * parts[c + second] * parts[-1:]

        weights = jnp.concatenate([some, signed, (curvature * self.length**2)[None]])
        packed = self._sums(of_pairs, weights, pairs=first.size)
        return packed[:, _unpacking(d)].reshape(c, k, d, d).transpose(0, 2, 1, 3)

    def _sums(
        self, weights_of: Callable[[Array], Array], parts: Array, pairs: int | None = None
    ) -> Array:
        """weights_of(parts) @ outer, all samples at once where that is small, else in chunks."""
        n, d = self.unit.shape
        lanes = parts.shape[0] if pairs is None else pairs
        if self.outer is not None and lanes * n <= _MOST_WEIGHTS:
            return matmul(weights_of(parts), self.outer)
        upper = np.triu_indices(d)
        some_samples = min(_SAMPLES_AT_ONCE, max(1, _MOST_KEPT // upper[0].size))

        def add(chunk: Array, total: Array) -> Array:
            index = chunk * some_samples + jnp.arange(some_samples)
            # The last chunk is filled up with samples of no weight.
            unit = jnp.where((index < n)[:, None], self.unit[jnp.minimum(index, n - 1)], 0.0)
            some = weights_of(parts[:, jnp.minimum(index, n - 1)])
            return total + matmul(some, unit[:, upper[0]] * unit[:, upper[1]])

        zero = jnp.zeros((lanes, upper[0].size), self.unit.dtype)
        return jax.lax.fori_loop(0, -(-n // some_samples), add, zero)


class OwnRows(NamedTuple):
    """Unit rows that every block has for itself, (m, s, d); otherwise as `Rows`."""

    unit: Array
    reach: Array | None = None

    @property
    def has_bias(self) -> bool:
        """As that of `Rows`."""
        return self.reach is not None

    def forward(self, points: Array) -> Array:
        """(m, d) -> (m, s)."""
        return matmul(self.unit, points[..., None])[..., 0]

    def transpose(self, weights: Array) -> Array:
        """(m, s) -> (m, d)."""
        return matmul(weights[:, None], self.unit)[:, 0]

    def gram(self, weights: Array) -> Array:
        """(m, s) -> (m, d, d)."""
        return matmul((weights[..., None] * self.unit).transpose(0, 2, 1), self.unit)

    def updated_gram(self, gram: Array, before: Array, after: Array) -> Array:
        """(m, d, d), (m, s), (m, s) -> (m, d, d)."""
        del gram, before
        return self.gram(after)


def nearest(slack: Array, multipliers: Array, features: int) -> Array:
    """Rows that matter to each block: those with a multiplier, then those of least slack.

    Args:
        slack: (m, n), negative where a constraint is violated.
        multipliers: (m, n), >= 0.
        features: d; a face of a cone has at most d independent walls.

    Returns:
        (m, s) int32, indices of rows.
    """
    count = min(slack.shape[1], _NEAREST + 16 * features)
    # On a CPU, XLA sorts all of a float64 array for this: 25 times the time of a float32 one.
    order = jnp.where(multipliers > 0, jnp.inf, -slack).astype(jnp.float32)
    return jax.lax.top_k(order, count)[1]


def shared_rows(X: Array, has_bias: bool = False) -> Rows:
    """`Rows` of X (n, d), whose last column may belong to a bias that is not penalised."""
    n, d = X.shape
    length = safe_norm(X)
    divisor = jnp.where(length > 0, length, 1.0)[:, None]
    unit = jnp.where(length[:, None] > 0, X / divisor, X)
    i, j = np.triu_indices(d)
    kept = d < _MANY_FEATURES and n * i.size <= _MOST_KEPT
    outer = unit[:, i] * unit[:, j] if kept else None
    return Rows(unit, length, outer, reach_of(X) if has_bias else None)


def _plain_gram(unit: Array, weights: Array) -> Array:
    """sum_i w[b, i] u_i u_i^T: (n, d), (m, n) -> (m, d, d)."""

    def one(w: Array) -> Array:
        return matmul((w[:, None] * unit).T, unit)

    return jax.lax.map(one, weights, batch_size=min(_BLOCKS_AT_ONCE, weights.shape[0]))


def _unpacking(d: int) -> np.ndarray:
    upper = np.triu_indices(d)
    index = np.zeros((d, d), np.int32)
    index[upper] = np.arange(upper[0].size)
    return np.maximum(index, index.T)
