"""Rows in batches: the memory of a few for the work of all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


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
