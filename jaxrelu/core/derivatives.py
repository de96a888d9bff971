"""Derivatives that say where there is none: NaN, in both modes, and never a number.

A rule of `jax.custom_jvp` gives a tangent that is linear in the tangents of the arguments, so that
JAX transposes it. Where a function has no derivative, that linear map is none, and these say so:
`known_where` for what comes out, `held` and `still` for what goes in. None lets a NaN into a
derivative that has nothing to do with it: in reverse mode a cotangent that is zero stays zero.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.numerics import eps, matmul, safe_norm, unit

T = TypeVar("T")


def known_where(known: Array, tangent: Array) -> Array:
    """The tangent of a result, NaN where it is not known; transposed, where anyone asks for it.

    Args:
        known: bool, of a shape that broadcasts to that of the tangent.
        tangent: array of any shape, floating.

    Returns:
        The tangent, linear as far as JAX is concerned.
    """
    known = jnp.broadcast_to(known, tangent.shape)

    def ahead(_: Any, x: Array) -> Array:
        return jnp.where(known, x, jnp.nan)

    def back(_: Any, x: Array) -> Array:
        return jnp.where(known | (x == 0), x, jnp.nan)

    # The only linear map with a transpose of one's own that can be batched.
    result: Array = jax.lax.custom_linear_solve(_same, tangent, ahead, back)
    return result


def held(free: Array, x: Array) -> Array:
    """Tangents of arguments, NaN where one moves that is not free; transposed likewise.

    Args:
        free: bool, of the shape of x.
        x: array of any shape, floating.

    Returns:
        x, linear as far as JAX is concerned.
    """

    def both(_: Any, x: Array) -> Array:
        return jnp.where(free | (x == 0), x, jnp.nan)

    result: Array = jax.lax.custom_linear_solve(_same, x, both, both)
    return result


def still(free: Array, rows: Array, size: int) -> Array:
    """Zeros, or NaN where a row moves that must not: to be added to what depends on it.

    Args:
        free: (m, n) bool, False where result k has no derivative by row j.
        rows: (n, d), the tangents of n rows.
        size: how many numbers every result has.

    Returns:
        Array (m, size), linear as far as JAX is concerned; transposed, NaN for the rows that are
        not free of every result that is asked for.
    """
    (n, d), dtype = rows.shape, rows.dtype
    # Sums with fixed shares, so that neither rows nor what is asked for cancel.
    moved = jnp.broadcast_to(matmul(rows, _shares(d, dtype))[None], free.shape)
    checked = held(free, moved)
    total = jnp.sum(jnp.where(free, 0.0, _shares(n, dtype)[None]) * checked, axis=1)
    return total[:, None] * _shares(size, dtype)[None]


def _shares(count: int, dtype: Any) -> Array:
    return jnp.cos(jnp.arange(1, count + 1, dtype=dtype) ** 2)


def nowhere(tangents: Any, result: T) -> T:
    """The tangents of a result without derivatives: NaN, whatever is asked for.

    Args:
        tangents: those of the arguments, any pytree.
        result: a pytree of arrays, of which integers have no tangents.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tangents)]
    every = [jnp.sum(leaf) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    no = jnp.asarray(False)

    def none(leaf: Array) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, jax.dtypes.float0)
        moved = sum((move.astype(leaf.dtype) for move in every), jnp.zeros((), leaf.dtype))
        return known_where(no, jnp.broadcast_to(moved, leaf.shape))

    return jax.tree.map(none, result)  # type: ignore[no-any-return]


def largest(values: Array) -> Array:
    """The largest of some values; its derivative is that value's, NaN where there are several.

    Args:
        values: (m,).

    Returns:
        Scalar.
    """
    result: Array = _largest(values)
    return result


@jax.custom_jvp
def _largest(values: Array) -> Array:
    return jnp.max(values)


@_largest.defjvp
def _largest_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (values,) = first_order("a maximum", primals)
    value = jnp.max(values)
    near = values >= value - close(values.dtype) * jnp.abs(value)
    moved = held(~near | (jnp.sum(near) == 1), tangents[0])
    return value, jnp.sum(jnp.where(near, moved, 0.0))


def longest(vectors: Array, keys: Array | None = None, at_least: Any = 0.0) -> Array:
    """The largest length of some vectors, max ||v||, by the envelope theorem.

    Args:
        vectors: (m, d).
        keys: (m, k), equal where equal vectors have equal derivatives; None where no two have.
        at_least: scalar, lengths that are no larger are zero but for rounding.

    Returns:
        Scalar. Its derivative is <v, dv> / ||v|| of the longest; NaN where there are several, or
        where it is zero.
    """
    number = jnp.arange(vectors.shape[0], dtype=vectors.dtype)[:, None]
    floor = jnp.asarray(at_least, vectors.dtype)
    result: Array = _longest(vectors, number if keys is None else keys, floor)
    return result


@jax.custom_jvp
def _longest(vectors: Array, keys: Array, floor: Array) -> Array:
    return jnp.max(safe_norm(vectors), initial=0.0)


@_longest.defjvp
def _longest_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    vectors, keys, floor = first_order("a maximum", primals)
    size, alike = safe_norm(vectors), close(vectors.dtype)
    best = jnp.argmax(size)
    value = size[best]

    def far(a: Array) -> Array:
        return safe_norm(a - a[best][None]) > alike * safe_norm(a[best])

    tied = (size >= (1.0 - alike) * value) & (far(vectors) | far(keys))
    known = (value > floor) & ~jnp.any(tied)
    (m, d), first = vectors.shape, jnp.arange(len(size)) == best
    moved = held(jnp.broadcast_to(known | ~(tied | first)[:, None], (m, d)), tangents[0])
    along = jnp.where(known, unit(vectors[best])[None], _shares(d, vectors.dtype)[None])
    return value, jnp.sum(jnp.where((tied | first)[:, None], along * moved, 0.0))


def excess(value: Array, scale: Any) -> Array:
    """Max(value, 0) of a scalar; its derivative is NaN where the value is zero, in units of scale.

    Args:
        value: scalar.
        scale: scalar, > 0.
    """
    result: Array = _excess(value, jnp.asarray(scale, value.dtype))
    return result


@jax.custom_jvp
def _excess(value: Array, scale: Array) -> Array:
    return jnp.maximum(value, 0.0)


@_excess.defjvp
def _excess_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    value, scale = first_order("a violation", primals)
    known = jnp.abs(value) > close(value.dtype) * scale
    change = jnp.where(known & (value < 0), 0.0, held(known, tangents[0]))
    return jnp.maximum(value, 0.0), change


def jump_at_zero(rows: Array, matters: Array) -> Array:
    """Zero, to be added to what jumps where a row of zeros moves: its derivative is NaN there.

    Args:
        rows: (n, d).
        matters: bool scalar, whether it does.
    """
    result: Array = _jump_at_zero(rows, matters)
    return result


@jax.custom_jvp
def _jump_at_zero(rows: Array, matters: Array) -> Array:
    return jnp.zeros((), rows.dtype)


@_jump_at_zero.defjvp
def _jump_at_zero_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    rows, matters = primals
    free = (safe_norm(rows) > 0) | ~matters
    return jnp.zeros((), rows.dtype), still(free[None], tangents[0], 1)[0, 0]


def close(dtype: Any) -> float:
    """What counts as equal, relative: 2e-10 in float64, where the methods end below 1e-12."""
    return 100 * eps(dtype) ** 0.75


def first_order(what: str, tree: T) -> T:
    """The same values, of which a derivative has no derivative of its own.

    Args:
        what: the function whose rule uses them, for the message.
        tree: what its rule is evaluated at.

    Raises:
        TypeError: a second derivative is asked for.
    """
    result: T = _first_order(what, tree)
    return result


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _first_order(what: str, tree: Any) -> Any:
    return tree


@_first_order.defjvp
def _no_second_derivative(what: str, primals: Any, tangents: Any) -> Any:
    raise TypeError(
        f"{what} has first derivatives only: take differences of its gradient instead of a second "
        "derivative, or jax.lax.stop_gradient of what is not to be differentiated twice."
    )


def _same(x: Array) -> Array:
    return x
