"""Both signs of one pattern without a penalty: of all their optimal weights the shortest."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import matmul, safe_norm, unit
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.cones import cone_signs
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.programs.penalties import block_weights
from jaxrelu.programs.program import Program
from jaxrelu.programs.unpenalised import free_patterns


def shortest_pairs(program: Program, ids: Array, weights: Array) -> Array:
    r"""Free blocks of both signs of one pattern, v and w, as the shortest that compute the same.

    Only u = v - w counts. With v, w = +-u / 2 + z both lie in the cone where K z >= |K u| / 2, and
    ||v||^2 + ||w||^2 is least where ||z|| is: a projection of zero onto walls that are moved.

    Args:
        program: in units, with its witnesses.
        ids: (k,), flat indices of blocks; those that the program has not are no blocks.
        weights: (k, d), of these.

    Returns:
        (k, d).
    """
    weight = block_weights(program)
    if weight is None or not program.has_cones:
        return weights
    masks = jnp.asarray(program.patterns.masks)
    p, slots = masks.shape[1], len(ids)
    few = free_patterns((weight == 0).reshape(2, p))
    place = jnp.full((2 * p,), slots, jnp.int32)
    place = place.at[ids].set(jnp.arange(slots, dtype=jnp.int32), mode="drop")
    first, second = place[few.chosen], place[few.chosen + p]
    found = few.pair & (first < slots) & (second < slots)

    def moved() -> Array:
        rows = shared_rows(jnp.asarray(program.X))
        signs = cone_signs(masks, few.chosen, weight.dtype)
        v, w = (jnp.take(weights, at, axis=0, mode="clip") for at in (first, second))
        u = jnp.where(found[:, None], v - w, 0.0)
        size, half = safe_norm(u)[:, None], 0.5 * unit(u)
        walls = jnp.abs(matmul(half, rows.unit.T))
        z = project(rows, signs, jnp.zeros_like(u), offset=walls).points
        shorter = size * (half + z), size * (z - half)
        sound = found & jnp.all(jnp.isfinite(z), axis=1)
        out = weights
        for at, new in zip((first, second), shorter, strict=True):
            out = out.at[jnp.where(sound, at, slots)].set(new, mode="drop")
        return out

    shortest: Array = jax.lax.cond(jnp.any(found), moved, lambda: weights)
    return shortest
