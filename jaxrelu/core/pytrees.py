"""Registration of the package's dataclasses as pytrees that jit never confuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
from jax.tree_util import GetAttrKey

from jaxrelu.core.checks import described

T = TypeVar("T")


def register(cls: type[T]) -> type[T]:
    """Registers a frozen dataclass as a pytree whose structure knows its class.

    Use it in place of `jax.tree_util.register_dataclass`. Under JAX 0.10.1 and 0.10.2 the
    structures of two classes registered by that function are equal when they have equally many
    fields, although their hashes differ. jit's cache then sometimes (about once in a hundred new
    shapes) runs the program compiled for the other class: a squared loss in place of a logistic
    one.

    Args:
        cls: a dataclass, with ``eq=False`` where fields are arrays, which neither compare nor hash.
            Its fields are leaves or subtrees, except those declared with
            ``field(metadata={"static": True})``, which are hashable and become structure.

    Returns:
        The class itself, so that this is a decorator. Unflattening does not call `__init__`.

    Raises:
        TypeError: no dataclass.
        ValueError: a class that is registered already.

    Example:
        >>> from dataclasses import dataclass
        >>> import jax
        >>> from jaxrelu.core.pytrees import register
        >>> @register
        ... @dataclass(frozen=True, eq=False)
        ... class Pair:
        ...     first: jax.Array
        ...     second: jax.Array
        >>> jax.tree_util.tree_leaves(Pair(1, 2))
        [1, 2]
    """
    given: Any = cls
    if not (isinstance(given, type) and dataclasses.is_dataclass(given)):
        raise TypeError(f"cls is {described(given)}; decorate a class with @dataclass first.")
    fields = dataclasses.fields(given)
    static = tuple(f.name for f in fields if f.metadata.get("static", False))
    data = tuple(f.name for f in fields if f.name not in static)
    keys = tuple(GetAttrKey(name) for name in data)

    def flatten(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(tree, n) for n in data), tuple(getattr(tree, n) for n in static)

    def flatten_with_keys(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, structure = flatten(tree)
        return tuple(zip(keys, children, strict=True)), structure

    def unflatten(structure: tuple[Any, ...], children: Any) -> T:
        tree = object.__new__(cls)
        for name, value in zip(data + static, (*children, *structure), strict=True):
            object.__setattr__(tree, name, value)  # the class is frozen
        return tree

    try:
        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    except ValueError as error:
        raise ValueError(f"cls is {described(cls)}, which is registered already.") from error
    return cls


def compiled(
    function: Callable[..., Any], donate: tuple[int, ...] = (), out_shardings: Any = None
) -> Callable[..., Any]:
    """Jit with the classes of the losses among its arguments in the key.

    A loss that is registered by JAX's own functions would otherwise be taken for another one (see
    `register`).

    Args:
        function: takes losses, or what has a `loss`, as positional arguments, beside others.
        donate: positions of arguments that are given up.
        out_shardings: as in `jax.jit`.

    Returns:
        The compiled function, with JAX's ``lower``.

    Example:
        >>> import jax, jaxrelu as jr
        >>> from jaxrelu.core.pytrees import compiled
        >>> @compiled
        ... def slope(loss, fit, target):
        ...     return loss.gradient(fit, target)
        >>> slope(jr.SquaredLoss(), jax.numpy.ones(1), jax.numpy.zeros(1)).tolist()
        [1.0]
    """
    options = {} if out_shardings is None else {"out_shardings": out_shardings}

    @wraps(function)  # its name is what profiles and logs of compilations show
    def keyed(losses: tuple[type, ...], *args: Any) -> Any:
        del losses
        return function(*args)

    del keyed.__wrapped__  # jit would read the arguments' names there
    donated = tuple(1 + i for i in donate)
    call = jax.jit(keyed, static_argnums=0, donate_argnums=donated, **options)

    @wraps(function)
    def run(*args: Any) -> Any:
        return call(_loss_classes(args), *args)

    run.lower = lambda *args: call.lower(_loss_classes(args), *args)  # type: ignore[attr-defined]
    return run


def _loss_classes(args: tuple[Any, ...]) -> tuple[type, ...]:
    losses = (getattr(arg, "loss", arg) for arg in args)
    return tuple(type(loss) for loss in losses if hasattr(loss, "conjugate"))
