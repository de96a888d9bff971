"""Options as the numbers, counts and words that they must be, each refused in one sentence."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import (
    check_shape,
    check_type,
    described,
    host_numbers,
    real_array,
)
from jaxrelu.core.tracing import is_traced


def number(value: Any, name: str, other: str = "") -> float:
    """One known number, of any real dtype.

    Args:
        value: the number.
        name: the argument's name, for the message.
        other: what takes several, for the message.

    Raises:
        TypeError: not a number.
        ValueError: several numbers.
    """
    if value is None or isinstance(value, str | bytes | bool | np.bool_ | type):
        raise TypeError(f"{name} is {described(value)}; pass a number.")
    array = host_numbers(value, name)
    if array.ndim != 0:
        raise ValueError(f"{name} has shape {array.shape}; pass one number{other}.")
    return float(array)


def positive(value: Any, name: str) -> float:
    """One finite number above zero."""
    found = number(value, name)
    if not (found > 0 and math.isfinite(found)):
        raise ValueError(f"{name} is {found}; pass a positive finite number.")
    return found


def nonnegative(value: Any, name: str) -> float:
    """One finite number that is not below zero."""
    found = number(value, name)
    if not (found >= 0 and math.isfinite(found)):
        raise ValueError(f"{name} is {found}; pass one finite number >= 0.")
    return found


def share(value: Any, name: str) -> float:
    """One number strictly between zero and one."""
    found = number(value, name)
    if not 0 < found < 1:
        raise ValueError(f"{name} is {found}; pass a number strictly between 0 and 1.")
    return found


def limit(value: Any, name: str) -> float:
    """A limit of work or time: zero, positive, or infinite for none."""
    found = number(value, name)
    if not found >= 0:
        raise ValueError(f"{name} is {found}; pass a number >= 0.")
    return found


def scalar(value: Any, name: str, dtype: Any) -> Array:
    """One number as data of a dtype: traced, or known and finite."""
    if not is_traced(value):
        found = number(value, name)
        if not math.isfinite(found):
            raise ValueError(f"{name} is {found}; pass one finite number.")
        return jnp.asarray(found, dtype)
    array = real_array(value, name)
    check_shape(array, name, (), "one number")
    return array.astype(dtype)


def nonnegative_scalar(value: Any, name: str, dtype: Any) -> Array:
    """One number as data of a dtype: traced, or known, finite and not below zero."""
    if not is_traced(value):
        value = nonnegative(value, name)
    return scalar(value, name, dtype)


def count(value: Any, name: str, least: int = 1, reason: str = "") -> int:
    """One known integer.

    Args:
        value: the integer.
        name: the argument's name, for the message.
        least: the smallest one that will do.
        reason: what that is, if the number alone does not tell.

    Raises:
        TypeError: something else, a boolean or a float of integer value too.
        ValueError: it is below `least`.
    """
    try:
        found = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        found = None
    because = f", {reason}" if reason else ""
    if found is None:
        raise TypeError(f"{name} is {described(value)}; pass an integer >= {least}{because}.")
    if found < least:
        raise ValueError(f"{name} is {found}; pass an integer >= {least}{because}.")
    return found


def check_static_count(value: Any, name: str) -> None:
    """Refuses what is no positive integer that jit can keep as structure."""
    check_type(value, name, (int, np.integer), "an integer >= 1")
    count(value, name)


def flag(value: Any, name: str) -> bool:
    """True or False itself: other values that count as true are mistakes."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {described(value)}; pass True or False.")
    return bool(value)


def check_choice(value: Any, name: str, words: Sequence[str], other: str = "") -> None:
    """Refuses what is not one of some words; a message names what else would do."""
    if not (isinstance(value, str) and value in words):
        raise ValueError(
            f"{name} is {described(value)}; pass one of {', '.join(map(repr, words))}{other}."
        )


def check_key(key: Any, name: str = "key") -> None:
    """Refuses what is no random key of JAX, of the new or the old style."""
    typed = isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, Array) and key.dtype == jnp.uint32 and key.shape == (2,)
    if not (typed and key.shape == ()) and not raw:
        raise TypeError(f"{name} is {described(key)}; pass a key, jax.random.key(0).")
