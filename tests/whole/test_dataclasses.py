"""Equality of dataclasses: that of values where they are plain, identity where they are arrays.

The generated `==` and `hash` compare and hash the fields, and arrays can do neither: `==` would end
in a message about truth values, and `hash`, which `static_argnums` calls, in one about arrays.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from enum import Enum
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
import zoo

import jaxrelu as jr
from jaxrelu.core.budgets import Limit

PLAIN = (int, float, str, bool, type(None), Path)


def classes():
    """All dataclasses that the package defines."""
    found = set()
    for module in pkgutil.walk_packages(jr.__path__, "jaxrelu."):
        if module.name != "jaxrelu.__main__":
            members = vars(importlib.import_module(module.name)).values()
            found |= {m for m in members if inspect.isclass(m) and dataclasses.is_dataclass(m)}
    return sorted(
        (cls for cls in found if cls.__module__.startswith("jaxrelu")), key=lambda cls: cls.__name__
    )


def is_plain(kind):
    """Whether values of an annotated type compare and hash by value."""
    parts = get_args(kind) or (kind,)
    return all(
        inspect.isclass(part) and (issubclass(part, Enum) or part in PLAIN) for part in parts
    )


def faults(cls):
    """What is wrong with the equality of a class; None if nothing is."""
    hints = get_type_hints(cls, localns={"typer": typer})  # the command line imports it late
    arrays = [f.name for f in dataclasses.fields(cls) if not is_plain(hints[f.name])]
    compares = "__eq__" in vars(cls)
    if arrays and compares:
        return f"{cls.__name__}.{arrays[0]} may be an array: write dataclass(eq=False)"
    if not arrays and not compares:
        return f"{cls.__name__} holds plain values, by which it should compare"
    return None


CLASSES = classes()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_classes_of_arrays_compare_by_identity(cls):
    assert faults(cls) is None


def test_the_walk_finds_the_classes_and_planted_faults():
    assert {jr.Solution, jr.Patterns, jr.ActiveNewton, jr.Refined} < set(CLASSES)

    @dataclasses.dataclass(frozen=True)
    class Arrays:
        count: int
        values: jax.Array

    @dataclasses.dataclass(frozen=True, eq=False)
    class Numbers:
        count: int | None

    assert "Arrays.values may be an array" in faults(Arrays)
    assert "Numbers holds plain values" in faults(Numbers)


PROGRAM = zoo.smallest()
NETWORK = jr.Network(jnp.ones((2, 3)), jnp.ones(3))
CERTIFICATE = jr.Certificate(*[np.zeros(2)] * 5)
INSTANCES = [
    PROGRAM, PROGRAM.patterns, NETWORK, CERTIFICATE,
    jr.Solution(*[np.zeros(2)] * 4, CERTIFICATE, *[np.zeros(2)] * 2),
    jr.PolarGauge(0.0, 1.0, np.zeros(2), 1.0, "", "", False, Limit.NONE),
]  # fmt: skip


@pytest.mark.parametrize("one", INSTANCES, ids=lambda one: type(one).__name__)
def test_equality_hash_and_static_arguments(one):
    other = dataclasses.replace(one)
    assert one == one  # noqa: PLR0124
    assert one != other
    assert len({one, other}) == 2
    shape = jax.jit(lambda held, x: x + len(dataclasses.fields(held)), static_argnums=0)
    assert float(shape(one, 1.0)) == 1 + len(dataclasses.fields(one))


def test_losses_and_solvers_compare_by_value():
    assert jr.SquaredLoss() == jr.SquaredLoss() != jr.LogisticLoss()
    assert jr.ActiveNewton(capacity=3) == jr.ActiveNewton(capacity=3) != jr.ActiveNewton()
    assert len({jr.ADMM(), jr.ADMM(), jr.SquaredLoss(), jr.SquaredLoss()}) == 2
    traces = []

    @partial(jax.jit, static_argnames=("loss", "solver"))
    def inside(x, loss, solver):
        traces.append(1)
        return x

    for _ in range(2):
        inside(1.0, jr.SquaredLoss(), jr.ActiveNewton(capacity=3))
    assert len(traces) == 1
