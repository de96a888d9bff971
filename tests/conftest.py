"""Strict JAX for every test: float64, no silent broadcast of ranks, no silent mix of dtypes."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def single() -> Callable[[Any], Any]:
    """A function that casts the floating leaves of a pytree to float32, x64 mode staying on."""

    def cast(leaf: Any) -> Any:
        if jax.numpy.issubdtype(leaf.dtype, np.floating):
            return leaf.astype(np.float32)
        return leaf

    return lambda tree: jax.tree_util.tree_map(cast, tree)


@pytest.fixture
def x64_off() -> Iterator[None]:
    """Runs one test as a user runs who never touched JAX's configuration."""
    with jax.enable_x64(False):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(0)
