"""Activation patterns: which of them to use, and a point inside each one's cone.

A gate g in R^d has the activation pattern 1[X g >= 0] in {0, 1}^n. The gates that share the
pattern m fill the cone K = {u : (2 m_j - 1) x_j . u >= 0}. A cone with an empty interior is a
common face of other cones and adds nothing to the ReLU program, so it is left out there; the gated
program has no cones and keeps every pattern. The all-zero pattern has no features and is never
used, except for a network's own dead neurons.

Everything here runs on the host, outside `jit`. "At rounding level" means
|x_j . g| <= 50 eps ||x_j|| ||g||, and a cone counts as empty when its best relative margin
min_j (2 m_j - 1) x_j . u / (||x_j|| ||u||) is at most 50 eps, eps being that of the dtype of X.
A row of zeros has no wall: its bit is 1.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrelu.core.aliases import Bools, FloatArray
from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import eps, matmul, safe_norm
from jaxrelu.core.options import check_choice, check_key, count, flag
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.checks import host_matrix
from jaxrelu.geometry.driven_projection import interior_directions
from jaxrelu.geometry.host.arrangements import half_cells, num_cells
from jaxrelu.geometry.host.bits import closed_bits, distinct_columns, margins
from jaxrelu.geometry.host.scaling import scaled, unit_columns, unit_rows
from jaxrelu.geometry.host.units import column_units

_ULPS = 50  # of the module docstring
_FEW = 0.1  # a share of the gates, or of the cells, that is worth a warning


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Patterns:
    """Activation patterns with their gates and points inside their cones.

    masks[:, j] = 1[X gates[:, j] >= 0];  interior[:, j] lies strictly inside the cone of pattern j.

    Nothing is checked here, because JAX rebuilds the object with placeholders; `check_patterns` of
    `jaxrelu.geometry.checks` does it where a program is put to use.

    Args:
        gates: array (d, p).
        masks: array (n, p) of zeros and ones, bool or numbers.
        interior: array (d, p) of unit norm, or None: computed in batch where it is needed.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> jr.Patterns(jnp.ones((1, 1)), jnp.asarray([[True], [False]])).num_patterns
        1
    """

    gates: Array
    masks: Array
    interior: Array | None = None

    @property
    def num_patterns(self) -> int:
        """Number of patterns p."""
        return int(self.gates.shape[-1])


@on_host()
def sample_patterns(
    key: Array, X: ArrayLike, num_gates: int, *, gated: bool = False, bias: str = "none"
) -> Patterns:
    """The distinct activation patterns of normally distributed gates.

    g_k ~ N(0, S^-2), k = 1..num_gates;  patterns { 1[X g_k >= 0] }, each with its first gate,

    S the units of the columns, powers of two near their root mean squares: the identity for
    standardised columns, and others may be in any units. Columns far from zero (a year) still leave
    most gates alike: centre them, and give X a column of ones.

    A cell is found with probability equal to its share of the sphere, so thin ones are missed;
    `enumerate_patterns` finds all of them when they are few.

    Args:
        key: a JAX random key. The same key gives the same patterns.
        X: array (n, d), float32 or float64.
        num_gates: how many gates to draw, at least 1.
        gated: patterns for the gated program: cones do not matter, no interior is computed.
        bias: "free" for neurons with a bias that is not penalised: gates (d + 1, p), the bias last,
            drawn about the mean of X; the pattern of ones is always there.

    Returns:
        p <= num_gates patterns (`num_patterns` is p), with bool masks and, unless gated, interior
        points. A gate at rounding level of a wall is replaced by the interior point. A warning says
        where p is below a tenth of num_gates and of the number of cells that there may be.

    Raises:
        ValueError: wrong shapes, non-finite values, no usable pattern; float64 while JAX's x64 mode
            is off.
        TypeError: other dtypes; called in a trace.

    Example:
        >>> import jax, jaxrelu as jr
        >>> X = jax.random.normal(jax.random.key(1), (6, 2))
        >>> 1 <= jr.sample_patterns(jax.random.key(0), X, num_gates=200).num_patterns <= 12
        True

    Reference:
        Y. Wang, J. Lacotte, M. Pilanci (ICLR 2022), section 4; Mishkin, Sahiner, Pilanci
        (ICML 2022), section 3, for sub-sampled patterns.
    """
    data, origin = _features(X, bias, gated)
    num_gates, gated = count(num_gates, "num_gates"), flag(gated, "gated")
    check_key(key)
    drawn = jax.random.normal(key, (data.shape[1], num_gates), data.dtype)
    gates = np.asarray(drawn) / column_units(data)[:, None]
    if origin is not None:
        gates[:, -1] = np.eye(len(gates), dtype=gates.dtype)[-1]
    patterns = _select(data, gates, gated, "another key or a larger num_gates")
    _warn_if_few(patterns.num_patterns, num_gates, data)
    return _at_origin(patterns, origin)


@on_host()
def patterns_from_gates(
    X: ArrayLike, gates: ArrayLike, *, gated: bool = False, bias: str = "none"
) -> Patterns:
    """The distinct usable activation patterns of given gates.

    { 1[X g_k >= 0] : k = 1..m }, each with its first gate.

    For the ReLU program a product at rounding level counts as zero (bit 1), whatever its sign; for
    the gated program the bit is the one that X @ gates gives, because its network evaluates it.

    Args:
        X: array (n, d), float32 or float64.
        gates: array (d, m), float32 or float64 as X; (d + 1, m) with a free bias.
        gated: patterns for the gated program: those with an empty cone are kept, no interior is
            computed.
        bias: "free" for gates of [X, 1], the bias last.

    Returns:
        p <= m patterns, with bool masks and, unless gated, interior points. For the ReLU program a
        gate at rounding level of a wall is replaced by the interior point.

    Raises:
        ValueError: wrong shapes, non-finite values, no usable pattern; float64 while JAX's x64 mode
            is off.
        TypeError: other dtypes; called in a trace.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> X = jnp.asarray([[1.0], [-1.0]])
        >>> jr.patterns_from_gates(X, jnp.asarray([[2.0, 3.0, -1.0]])).masks.astype(int).tolist()
        [[1, 0], [0, 1]]
    """
    _features(X, bias, gated)
    data = host_matrix(X, "X")
    data = data if bias == "none" else np.column_stack([data, np.ones(len(data), data.dtype)])
    given = host_matrix(gates, "gates", "(d, m)", data)
    return _select(data, given, flag(gated, "gated"), "other gates, or enumerate_patterns(X)")


@on_host()
def patterns_from_weights(X: ArrayLike, hidden: ArrayLike) -> tuple[Patterns, Array]:
    """The cells of a network's neurons, and the cell of each neuron.

    A neuron w off all walls has the cell of 1[X w > 0]. A neuron on walls J = {j : x_j . w = 0 at
    rounding level} gets the adjacent cell of w + t e, t -> 0+, for one fixed generic direction e:
    its bits on J are 1[x_j . e > 0]. The choice depends on neither rounding nor the other neurons.
    Where J is not exact (more walls pass at rounding level of w than through it), that cell may be
    empty; then the cell of w + t e for the first t = 200, 800, 3200 eps with a non-empty one.

    Args:
        X: array (n, d), float32 or float64.
        hidden: array (d, m), float32 or float64 as X, one neuron per column. A zero neuron gets
            the cell of e.

    Returns:
        The distinct patterns, in order of their first neuron, whose gates are the interior points;
        and each neuron's pattern, int32 (m,). The pattern of dead neurons is kept, though it is
        zero on all samples, so that every neuron has one.

    Raises:
        ValueError: wrong shapes, non-finite values, X without a non-zero row; float64 while JAX's
            x64 mode is off.
        TypeError: other dtypes; called in a trace.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.geometry.patterns import patterns_from_weights
        >>> X = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> patterns_from_weights(X, jnp.asarray([[1.0, 3.0, -1.0], [1.0, 2.0, 1.0]]))[1].tolist()
        [0, 0, 1]
    """
    data = host_matrix(X, "X")
    neurons = host_matrix(hidden, "hidden", "(d, m)", data)
    rows = scaled(data, axis=1)
    nonzero = _nonzero_rows(rows)
    tolerance = _ULPS * eps(data.dtype)
    directions = unit_columns(scaled(neurons, axis=0).astype(np.float64))
    sides = unit_rows(rows.astype(np.float64))[0]
    generic = unit_columns(np.random.default_rng(0).standard_normal((data.shape[1], 1)))
    products, tie = sides @ directions, sides @ generic
    on_wall = np.abs(products) <= tolerance
    bits = np.where(on_wall, tie >= 0, products > 0)
    walled = np.any(on_wall[nonzero], axis=0)
    for multiple in (4, 16, 64, None):
        first, index = distinct_columns(np.packbits(bits, axis=0))
        masks = bits[:, first]
        interior, margin = interior_directions(rows, masks, directions[:, first].astype(data.dtype))
        thin = walled & (margin[index] <= tolerance)
        if multiple is None or not thin.any():
            break
        bits[:, thin] = (products + multiple * tolerance * tie)[:, thin] >= 0
    witness = jnp.asarray(interior)
    return Patterns(witness, jnp.asarray(masks), witness), jnp.asarray(index, dtype=jnp.int32)


@on_host()
def enumerate_patterns(X: ArrayLike, *, bias: str = "none") -> Patterns:
    """Every activation pattern whose cone has an interior, except the all-zero one.

    { 1[X u >= 0] : u in R^d, x_j . u != 0 for every non-zero row x_j }

    With them the convex program has the same optimum as the non-convex one. They are exact for
    degenerate data too: duplicate, parallel, antiparallel and zero rows, any rank.

    Args:
        X: array (n, d), float32 or float64.
        bias: "free" for the patterns of [X, 1], gates (d + 1, p) with the bias last.

    Returns:
        All patterns, with bool masks; gates and interior are the same, points inside the cones.

    Raises:
        ValueError: more than 200,000 patterns, or 2^27 bits, are possible: use `sample_patterns`.
            Also wrong shapes, non-finite values, X without a non-zero row; float64 while JAX's x64
            mode is off.
        TypeError: other dtypes; called in a trace.

    Example:
        >>> import jax.numpy as jnp, jaxrelu as jr
        >>> jr.enumerate_patterns(jnp.asarray([[1.0], [-1.0]])).masks.astype(int).tolist()
        [[1, 0], [0, 1]]

    Reference:
        M. Pilanci, T. Ergen (ICML 2020), theorem 1; the method is described in
        `geometry.host.arrangements`.
    """
    data, origin = _features(X, bias, gated=False)
    rows = scaled(data, axis=1)
    nonzero = _nonzero_rows(rows)
    half, points, rank = half_cells(rows[nonzero].astype(np.float64), eps(data.dtype))
    masks = np.ones((len(rows), len(half)), dtype=np.bool_)
    masks[nonzero] = half.T
    interior = points.T.astype(data.dtype)
    if rank <= 2:  # the middle of the gap between two lines is the best direction already
        margin = margins(rows[nonzero], masks[nonzero], interior)
    else:
        interior, margin = interior_directions(rows, masks, interior)
    visible = margin > _ULPS * eps(data.dtype)
    masks, interior = masks[:, visible], interior[:, visible]
    # The other half of the cells: complementary bits, negated points.
    masks = np.concatenate([masks, ~masks | ~nonzero[:, None]], axis=1)
    interior = np.concatenate([interior, -interior], axis=1)
    used = np.any(masks[nonzero], axis=0)
    witness = jnp.asarray(interior[:, used])
    return _at_origin(Patterns(witness, jnp.asarray(masks[:, used]), witness), origin)


def _features(X: ArrayLike, bias: str, gated: bool) -> tuple[FloatArray, FloatArray | None]:
    """What neurons see, (n, d), or (n, d + 1) with a free bias about the mean; and that mean."""
    check_choice(bias, "bias", ("none", "free"))
    data = host_matrix(X, "X")
    if bias == "none":
        return data, None
    if gated:
        raise ValueError('bias="free" is for the ReLU program: leave gated out.')
    # Between the largest numbers, too.
    mean = np.mean(data / len(data), axis=0) * len(data)
    return np.column_stack([data - mean, np.ones(len(data), data.dtype)]), mean


def _at_origin(patterns: Patterns, mean: FloatArray | None) -> Patterns:
    """Patterns of [X - mean, 1] as those of [X, 1]."""
    if mean is None:
        return patterns

    def moved(columns: Any) -> Array:
        u = np.asarray(columns)
        shifted = np.concatenate([u[:-1], u[-1:] - mean[None] @ u[:-1]])
        return jnp.asarray(unit_columns(shifted))

    gates, interior = moved(patterns.gates), patterns.interior
    return Patterns(gates, patterns.masks, None if interior is None else moved(interior))


def _warn_if_few(found: int, num_gates: int, data: FloatArray) -> None:
    """Says so where far fewer patterns were found than there may be."""
    if found >= _FEW * num_gates:
        return
    lines = len(np.unique(data[np.any(data != 0, axis=1)], axis=0))
    if found < _FEW * num_cells(lines, min(lines, data.shape[1])):
        warnings.warn(
            f"{found} of the {num_gates} gates have distinct usable patterns: where columns of X "
            "are far from zero, subtract their means and append a column of ones; more gates or "
            "another key find more.",
            stacklevel=3,
        )


@on_host()
def count_patterns(n: int, rank: int) -> int:
    """Number of cells that n hyperplanes through the origin cut out of R^rank.

    2 * sum_{k < rank} C(n - 1, k) for hyperplanes in general position; an upper bound for all
    others. It counts the all-zero pattern, which `enumerate_patterns` leaves out.

    Args:
        n: number of distinct lines spanned by the rows of the data, at least 1.
        rank: rank of the data, at least 1.

    Returns:
        The count, an exact Python integer.

    Raises:
        ValueError, TypeError: n or rank is no integer, or below 1.

    Example:
        >>> import jaxrelu as jr
        >>> jr.count_patterns(100, 3)
        9902

    Reference:
        T. M. Cover, "Geometrical and statistical properties of systems of linear inequalities"
        (1965), theorem 1; R. O. Winder (1966).
    """
    n, rank = count(n, "n"), count(rank, "rank")
    return num_cells(n, rank)


def _select(data: FloatArray, gates: FloatArray, gated: bool, remedy: str) -> Patterns:
    """The distinct usable patterns of the gates, each with its first gate."""
    rows, columns = scaled(data, axis=1), scaled(gates, axis=0)
    nonzero = _nonzero_rows(rows)
    packed, near = jax.device_get(_activate(rows, columns))
    if not gated and near.any():
        packed = packed.copy()
        packed[:, near] = closed_bits(rows, columns[:, near])
    first, _ = distinct_columns(packed)
    masks = np.unpackbits(packed[:, first], axis=0, count=len(rows)).astype(np.bool_)
    used = np.any(masks[nonzero], axis=0)
    first, masks = first[used], masks[:, used]
    interior = None
    if not gated and first.size:
        interior, margin = interior_directions(rows, masks, columns[:, first])
        visible = margin > _ULPS * eps(data.dtype)
        first, masks, interior = first[visible], masks[:, visible], interior[:, visible]
    if not first.size:
        raise ValueError(
            f"none of the {gates.shape[1]} gates has a usable pattern (all are zero on every "
            f"sample, or have an empty cone): pass {remedy}."
        )
    chosen = gates[:, first]
    if interior is not None:
        chosen = np.where(near[first], interior, chosen)
        return Patterns(jnp.asarray(chosen), jnp.asarray(masks), jnp.asarray(interior))
    return Patterns(jnp.asarray(chosen), jnp.asarray(masks))


@compiled
def _activate(rows: Array, gates: Array) -> tuple[Array, Array]:
    """Packed bits of 1[rows @ gates >= 0], and the gates at rounding level of a wall (p,)."""
    products = matmul(rows, gates)
    norms = safe_norm(rows)[:, None]
    near = jnp.abs(products) <= _ULPS * eps(rows.dtype) * norms * safe_norm(gates, axis=0)[None]
    return jnp.packbits(products >= 0, axis=0), jnp.any(near & (norms > 0), axis=0)


def _nonzero_rows(rows: FloatArray) -> Bools:
    nonzero: Bools = np.any(rows != 0, axis=1)
    if not nonzero.any():
        raise ValueError(
            "every row of X is zero, so no pattern has features: check how X was computed, or add "
            "a column of ones as a bias."
        )
    return nonzero
