"""Rows in batches: the memory of a few for the work of all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def chunk_size(width: int) -> int:
    """Rows of so many entries that are worked on together: 16 MiB in float64."""
    return max(1, 2**21 // width)


def in_chunks(function: Any, arrays: Any, batch: int) -> Any:
    """Applies a function of rows to whole arrays, `batch` rows at a time, one after another.

    Args:
        function: maps a pytree of arrays (m, ...) to another one, row by row.
        arrays: a pytree of arrays (total, ...).
        batch: rows at once (static); all at once where it is at least `total`.

    Returns:
        ``function(arrays)``, at the memory of one batch.
    """
    total = jax.tree.leaves(arrays)[0].shape[0]
    if batch >= total:
        return function(arrays)
    count = -(-total // batch)
    index = jnp.minimum(jnp.arange(count * batch), total - 1).reshape(count, batch)
    out = jax.lax.map(lambda i: function(jax.tree.map(lambda a: a[i], arrays)), index)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:total], out)


def sum_in_chunks(function: Any, arrays: Any, batch: int) -> Array:
    """Adds up a function of rows, `batch` rows at a time, one chunk after another.

    Args:
        function: maps a pytree of arrays (m, ...) and a mask (m,) bool, False for rows that fill
            up, to the sum over its rows.
        arrays: a pytree of arrays (total, ...).
        batch: rows at once (static); all at once where it is at least `total`.

    Returns:
        The sum over all rows, at the memory of one batch.
    """
    total = jax.tree.leaves(arrays)[0].shape[0]
    if batch >= total:
        whole: Array = function(arrays, jnp.ones(total, bool))
        return whole
    index = jnp.arange(-(-total // batch) * batch).reshape(-1, batch)

    def chunk(i: Array) -> Any:
        rows = jax.tree.map(lambda a: jnp.take(a, i, axis=0, mode="clip"), arrays)
        return function(rows, i < total)

    def step(so_far: Any, i: Array) -> tuple[Any, None]:
        return so_far + chunk(i), None

    result: Array = jax.lax.scan(step, chunk(index[0]), index[1:])[0]
    return result
