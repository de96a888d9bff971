"""The exact program of several outputs, from the host."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import driven
from jaxrelu.core.options import count
from jaxrelu.core.tracing import is_traced
from jaxrelu.geometry.cell_maxima import maxima_of
from jaxrelu.programs.preparation import with_interior
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.programs.units import into_units, printed
from jaxrelu.programs.vector_bounds import Neurons
from jaxrelu.programs.vector_program import VectorProgram
from jaxrelu.solvers.base import Tolerance
from jaxrelu.solvers.column_generation.driver import Generator
from jaxrelu.solvers.outputs_verdict import PreparedOutputs, conclude_outputs, prepared_outputs

DEFAULT_ROUNDS = 100
_PLACES = 16


def solve_exact(
    program: VectorProgram,
    lams: Any,
    tolerance: Tolerance,
    max_rounds: Any,
    init: Neurons | None,
) -> Solution:
    """The solutions at lams (L,), each from the one before in descending order, batched."""
    check_on_host(program, lams, tolerance, init)
    rounds = count(DEFAULT_ROUNDS if max_rounds is None else max_rounds, "max_steps", least=0)
    at = _prepared(program)
    generator = _generator(at)
    start = None if init is None else start_in_units(at, init)
    values = np.asarray(lams)
    answers: list[Any] = [None] * len(values)
    for k in np.argsort(-values, kind="stable"):
        answer = generator.solve(values[k], tolerance, rounds, start)
        answers[k], start = answer.claim, answer.neurons
    width = max(_PLACES, *(-(-_count(a.weights) // _PLACES) * _PLACES for a in answers))
    found = [
        _conclude(at, lam, tolerance, claim._replace(weights=_compact(claim.weights, width)))
        for lam, claim in zip(lams, answers, strict=True)
    ]
    return shared(jax.tree.map(lambda *leaves: jnp.stack(leaves), *found))


def check_on_host(*values: Any) -> None:
    """Refuses to be traced."""
    if is_traced(values):
        raise TypeError(
            'kind="exact" is driven from the host and cannot be traced: call it outside of jit, '
            'vmap and grad, or use kind="gated" or "one_vs_all".'
        )


def certified_exact(
    program: VectorProgram, lam: Any, neurons: Neurons, residual: Any, tolerance: Tolerance
) -> Solution:
    """Neurons from anywhere as a `Solution`, moved into their cells."""
    check_on_host(program, lam, neurons, residual)
    at = _prepared(program)
    start = start_in_units(at, neurons)
    claim = _generator(at).claim(lam, start, residual)
    found: Solution = _conclude(at, jnp.asarray(lam), tolerance, claim)
    return shared(found)


def critical_exact(program: VectorProgram) -> tuple[Array, Array]:
    """Two numbers that the critical lam lies between."""
    check_on_host(program)
    at = _prepared(program)
    generator = _generator(at)
    power = at.units.lam
    low, high = (jnp.asarray(end, program.X.dtype) for end in generator.critical())
    return printed(low, power, -1), printed(high, power, 1)


@driven
def _conclude(at: PreparedOutputs, lam: Array, tolerance: Tolerance, claim: Any) -> Solution:
    # Directions have no units.
    exponents = Neurons(None, at.units.weights, None)
    return conclude_outputs(at, lam, tolerance, claim, exponents)


@driven
def _prepared(program: VectorProgram) -> PreparedOutputs:
    at = prepared_outputs(program)
    return at._replace(program=_with_witnesses(at.program))


def _with_witnesses(program: VectorProgram) -> VectorProgram:
    found: VectorProgram = with_interior(program)  # type: ignore[assignment, arg-type]
    return found


def _generator(at: PreparedOutputs) -> Generator:
    patterns = at.program.patterns
    return Generator(at, maxima_of(at.program.X, patterns.masks, patterns.interior))


def start_in_units(at: PreparedOutputs, given: Neurons) -> Neurons:
    """Neurons of a previous solution with unit directions."""
    directions, cells = np.asarray(given.directions), np.asarray(given.cells)
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    some = ~(length[:, 0] == 0)  # and those with a NaN
    outputs = np.asarray(into_units(given.outputs, at.units.weights)) * length
    return Neurons(directions[some] / length[some], outputs[some], cells[some])


def _count(neurons: Neurons) -> int:
    return int(np.sum(np.any(np.asarray(neurons.outputs) != 0, axis=1)))


def _compact(neurons: Neurons, width: int) -> Neurons:
    """Those with an output first, then zeros."""
    directions, outputs, cells = (np.asarray(part) for part in neurons)
    order = np.flatnonzero(np.any(outputs != 0, axis=1))

    def some(part: Any) -> Any:
        new = np.zeros((width, *part.shape[1:]), part.dtype)
        new[: len(order)] = part[order]
        return new

    return Neurons(some(directions), some(outputs), some(cells))
