"""Registration of the package's dataclasses as pytrees that jit never confuses."""

from __future__ import annotations

import dataclasses
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
