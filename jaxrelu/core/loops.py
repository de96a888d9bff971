"""The one bounded loop of the package: step, finite check, stop.

Every iteration of every solver runs through `iterate`, so that the rules that protect the answer
stand in one place: a step count that is data, a check of the *new* state after the last step, and
the last finite state kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array


class Finished(NamedTuple):
    """How a loop ended: its last finite state, the steps taken, and whether it broke."""

    state: Any
    num_steps: Array
    finite: Array


def all_finite(tree: Any) -> Array:
    """Scalar bool: every floating leaf of a pytree (there may be none) is free of NaN and inf."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return jnp.all(jnp.stack([jnp.asarray(True), *(jnp.all(jnp.isfinite(x)) for x in leaves)]))


def iterate(
    step: Callable[[Any], Any],
    state: Any,
    *,
    done: Callable[[Any], Array],
    max_steps: Any,
    watch: Callable[[Any], Any] | None = None,
) -> Finished:
    """Repeats a step until it is done, breaks, or has used its steps.

    Args:
        step: maps a state (a pytree of arrays) to the next one, of equal shapes and dtypes.
        state: the first state; its floating leaves must be finite for the loop to start.
        done: scalar bool of a state.
        max_steps: number of steps at most, data and not static.
        watch: the part of a state that must stay finite; all of it by default. Where a step checks
            its lanes itself, watching nothing makes the loop cheaper to compile.

    Returns:
        `Finished`: where a step gave a NaN or an infinity, the state before that step, with
        ``finite`` False.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxrelu.core.loops import iterate
        >>> end = iterate(lambda x: x / 2, jnp.asarray(8.0), done=lambda x: x < 1.5, max_steps=10)
        >>> float(end.state), int(end.num_steps)
        (1.0, 3)
    """

    def sound(tree: Any) -> Array:
        return all_finite(tree if watch is None else watch(tree))

    def going(carry: tuple[Any, Array, Array]) -> Array:
        current, count, finite = carry
        return finite & (count < max_steps) & ~done(current)

    def body(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        current, count, _ = carry
        new = step(current)
        # At trace time: a step that changes a shape or a dtype is named by its leaf.
        chex.assert_trees_all_equal_shapes_and_dtypes(new, current)
        finite = sound(new)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, current)
        return new, count + 1, finite

    first = (state, jnp.asarray(0, jnp.int32), sound(state))
    final, count, finite = jax.lax.while_loop(going, body, first)
    return Finished(final, count, finite)
