"""Strict JAX for every test: float64, no silent broadcast of ranks, no silent mix of dtypes."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before NumPy is loaded: on few and busy cores the threads of OpenBLAS, which SciPy's solvers call
# on tiny matrices, wait for each other and make the tests ten times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
import pytest
import reference

import jaxrelu as jr

# Tracing makes millions of small objects that stay: passes through all of them take a tenth.
gc.set_threshold(50_000, 20, 100)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


# A process may have 65,530 mappings on Linux; XLA makes some for everything that it compiles, and
# ends in a segmentation fault when it gets no more.
_MOST_MAPPINGS = 40_000


def pytest_configure(config: pytest.Config) -> None:
    """Has the quick lane compiled cheaply: most of its time is XLA's.

    XLA's older generator of code takes three fifths of it (the package's own functions have it
    anyhow, `jaxrelu.core.compilation`), and without optimisation by LLVM the lane takes two thirds.
    `.ci/run` has the solvers tested as users compile them, too.
    """
    if jax.__version_info__ < (0, 11):  # an unknown flag would end the process
        flags = "--xla_cpu_use_fusion_emitters=false"
        if config.option.markexpr == "not slow":
            flags += " --xla_backend_optimization_level=0"
        os.environ.setdefault("XLA_FLAGS", flags)


@pytest.fixture(scope="module", autouse=True)
def _few_mappings() -> Iterator[None]:
    """Between modules, drops what has been compiled when it has become too much."""
    yield
    _drop_compiled()


@pytest.fixture(autouse=True)
def _few_mappings_of_slow_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Between slow tests too: one alone may compile for 15 data sets."""
    yield
    if request.node.get_closest_marker("slow"):
        _drop_compiled()


def _drop_compiled() -> None:
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        jax.clear_caches()


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


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """Data and patterns of one shape, n = 12, d = 3, p = 10, that many tests share (compile once).

    Gates are random, so no row is on a wall of a gate; every cone has an interior.
    """
    rng = np.random.default_rng(12)
    X = rng.standard_normal((12, 3))
    gates = rng.standard_normal((3, 60))
    masks = X @ gates >= 0
    first = np.sort(np.unique(masks, axis=1, return_index=True)[1])
    first = first[masks[:, first].any(axis=0)][:10]
    y = rng.standard_normal(12)
    return SimpleNamespace(
        X=X,
        y=y,
        labels=np.where(y > 0, 1.0, -1.0),
        weight=np.where(np.arange(12) == 4, 0.0, rng.uniform(0.5, 2.0, 12)),
        gates=gates[:, first],
        masks=masks[:, first],
        interior=np.stack(
            [reference.max_margin_direction(X, mask)[0] for mask in masks[:, first].T], axis=1
        ),
    )


@pytest.fixture(scope="session")
def build(small: SimpleNamespace) -> Callable[..., Any]:
    """Programs over `small`, by the name of the loss; always with sample weights: few shapes."""

    def program(loss: str = "squared", gated: bool = False, weighted: bool = False) -> Any:
        losses = {"squared": jr.SquaredLoss(), "logistic": jr.LogisticLoss()}
        chosen = losses.get(loss) or jr.HuberLoss(jax.numpy.asarray(reference.HUBER_DELTA))
        return (jr.GatedProgram if gated else jr.ConvexProgram)(
            small.X,
            small.labels if loss == "logistic" else small.y,
            jr.Patterns(small.gates, small.masks, small.interior),
            chosen,
            small.weight if weighted else np.ones(12),
        )

    return program


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(0)
