"""What a trace knows: values that are traced, and functions of the host called inside one.

While `jit`, `scan` or `map` trace a function, every operation of JAX is staged, also on values that
are known: inside, `jnp.any(known)` has no value. What is decided by values is decided on the values
themselves, in NumPy or outside of the trace, and never on what JAX made of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def is_traced(*values: Any) -> bool:
    """Whether any leaf of any of the values has no value yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def is_staged() -> bool:
    """Whether operations are recorded for a program, as inside `jit` or `scan`, not computed."""
    return is_traced(_nothing())


_nothing = jax.jit(lambda: 0)


def outside_traces() -> AbstractContextManager[None]:
    """While it lasts, JAX computes at once on known values, whatever trace this is called in.

    Compiled functions are those of the host: unlike under `jax.ensure_compile_time_eval` nothing
    is compiled anew for it.
    """
    context: AbstractContextManager[None] = jax.core.eval_context()
    return context


def refuse_traced(
    caller: str, given: Mapping[str, Any], instead: str = "and pass its result in"
) -> None:
    """Raises a TypeError with the sentence for the first of the given arguments that is traced."""
    for name, value in given.items():
        if is_traced(value):
            what = type(value).__name__ if name == "self" else name
            raise TypeError(
                f"{what} is traced, but {caller} looks at values: call it on the host, outside "
                f"jit, vmap and grad, {instead}."
            )


def on_host(instead: str = "and pass its result in") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for functions that decide by values, and so cannot be traced.

    Inside a trace that none of its arguments takes part in such a function simply works: it is
    called outside of the trace, while that is traced. Traced arguments it refuses by name, with a
    TypeError.

    Args:
        instead: the end of that message, what to do instead.

    Returns:
        The decorator.

    Example:
        >>> import jax
        >>> from jaxrelu.core.tracing import on_host
        >>> @on_host()
        ... def digits(x):
        ...     return str(float(x))
        >>> jax.jit(lambda t: len(digits(2.5)) * t)(2.0).item()
        6.0
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if is_traced(args, kwargs):
                given = inspect.signature(function).bind(*args, **kwargs).arguments
                refuse_traced(function.__qualname__, given, instead)
            with outside_traces():
                return function(*args, **kwargs)

        return call

    return decorate
