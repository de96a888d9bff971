"""Compiling before the data are there: what a solve, a grid or a path of some shapes will need.

Compiled code is of shapes, not of values. So the calls themselves are made, once each, on data made
up to the shapes, at lams where there is next to nothing to solve.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import described
from jaxrelu.core.options import check_choice, count
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.patterns import Patterns, patterns_from_gates, sample_patterns
from jaxrelu.paths.checks import check_lams, checked_solver, working_set_solver
from jaxrelu.paths.critical_lam import lambda_max
from jaxrelu.paths.grid import solve_grid
from jaxrelu.paths.lambda_grid import lambda_grid
from jaxrelu.paths.path import path_driver, solve_path
from jaxrelu.paths.solve import solve
from jaxrelu.programs.checks import check_data, check_kind, check_lam
from jaxrelu.programs.program import Program
from jaxrelu.solvers.base import Solver

_CALLS = ("path", "grid", "solve")


@on_host()
def warmup(
    program: Program,
    lams: Any,
    *,
    calls: Sequence[str] | str | None = None,
    max_active: int = 64,
    solver: Solver | None = None,
) -> None:
    """Compiles what `solve_path`, `solve_grid` or `solve` will need, without the data.

    Sampling patterns, `lambda_max` and `lambda_grid` of these shapes compile nothing either, then.
    While data are read, call it in a thread: the compiler does not hold Python's lock. Together
    with `enable_compilation_cache` it fills the cache for other processes. Derivatives and warm
    starts of `solve` are not among it.

    Args:
        program: a `ConvexProgram` or `GatedProgram` whose leaves are arrays or
            `jax.ShapeDtypeStruct`: only their shapes and dtypes count, and the loss.
        lams: as they will be passed, (L,) or a scalar; a `jax.ShapeDtypeStruct` will do.
        calls: what to compile, one or several of ``"path"``, ``"grid"`` and ``"solve"``; by default
            ``"path"`` for a vector and ``"solve"`` for a scalar.
        max_active: non-zero blocks that a path is made ready for: each number of slots up to it
            compiles for some seconds. A path that needs more compiles on its way.
        solver: as it will be passed.

    Raises:
        ValueError, TypeError: no program; shapes or dtypes that do not fit; another call.

    Example:
        >>> import jax, jaxrelu as jr, jax.numpy as jnp
        >>> def floats(*shape):
        ...     return jax.ShapeDtypeStruct(shape, jnp.float32)
        >>> masks = jax.ShapeDtypeStruct((6, 4), bool)
        >>> patterns = jr.Patterns(gates=floats(2, 4), masks=masks, interior=floats(2, 4))
        >>> jr.warmup(jr.ConvexProgram(floats(6, 2), floats(6), patterns), floats(), calls="solve")

    Reference: ahead-of-time compilation of JAX, whose results its call caches do not see.
    """
    check_kind(program)
    program = jax.tree.map(_as_array, program)
    check_data(program)
    shape = _shape_of(program, lams)
    wanted = _checked(calls, shape)
    most = count(max_active, "max_active", least=1)
    solver = checked_solver(program, solver)
    program = _stand_in(program)
    top = lambda_max(program)
    if "solve" in wanted:
        # Once without a block that is not zero, and once with some.
        for share in (2.0, 0.9):
            jax.block_until_ready(solve(program, share * top, solver=solver))
    if not shape:
        return
    if shape[0] > 1:
        lambda_grid(program, num=shape[0])
    # Zero weights are optimal but for the last ones.
    shares = np.geomspace(1.5, 0.9, shape[0]) if shape[0] > 1 else np.asarray([0.9])
    some = shares.astype(program.X.dtype) * np.asarray(top)
    if "grid" in wanted:
        jax.block_until_ready(solve_grid(program, some, solver=solver))
    if "path" in wanted:
        newton = working_set_solver(program, solver)
        jax.block_until_ready(solve_path(program, some, solver=newton)[0])
        driver, asked = path_driver(program, jnp.asarray(some), solver=newton)
        driver.compile_slots(asked.lams[0], most)


def _shape_of(program: Program, lams: Any) -> tuple[int, ...]:
    if isinstance(lams, jax.ShapeDtypeStruct):
        if len(lams.shape) > 1 or lams.shape == (0,):
            raise ValueError(
                f"lams has shape {lams.shape}; pass a scalar, or a vector (L,) with L >= 1."
            )
        return lams.shape
    if isinstance(lams, int | float) or getattr(lams, "ndim", None) == 0:
        return check_lam(program, lams, "lams").shape
    return check_lams(program, lams).shape


def _checked(calls: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    if calls is None:
        return ("path",) if shape else ("solve",)
    wanted = (calls,) if isinstance(calls, str) else calls
    if not isinstance(wanted, Sequence) or not wanted:
        raise TypeError(f"calls is {described(calls)}; pass some of {', '.join(_CALLS)}.")
    for name in wanted:
        check_choice(name, "calls", _CALLS)
    if not shape and set(wanted) != {"solve"}:
        raise ValueError("lams is a scalar: pass a vector (L,) for a path or a grid.")
    return tuple(wanted)


def _stand_in(program: Program) -> Program:
    """A program of the same shapes and dtypes, with values that every loss takes."""
    (n, d), p = program.X.shape, program.patterns.num_patterns
    dtype, rng = program.X.dtype, np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(dtype)
    gates = rng.standard_normal((program.block_size, p)).astype(dtype)
    gated, bias = not program.has_cones, program.bias
    sample_patterns(jax.random.key(0), X, p, gated=gated, bias=bias)
    made = patterns_from_gates(X, gates, gated=gated, bias=bias)
    # As many as there are, though some be equal.
    kept = np.arange(p) % made.num_patterns
    given = program.patterns
    patterns = Patterns(
        jnp.asarray(made.gates)[:, kept],
        jnp.asarray(made.masks)[:, kept].astype(given.masks.dtype),
        None if given.interior is None else _interior(made)[:, kept],
    )
    weight = None if program.sample_weight is None else np.ones(n, dtype)
    # Such that a constant does not fit them all.
    y = np.ones(n, dtype)
    if bias == "free":
        y[::2] = _other_target(program)
    return replace(program, X=X, y=y, patterns=patterns, sample_weight=weight)  # type: ignore[arg-type]


def _other_target(program: Program) -> float:
    """A target other than one that the loss takes."""
    for value in (-1.0, 0.0):
        with contextlib.suppress(ValueError):
            program.loss.check_target(np.full(1, value, program.X.dtype))
            return value
    return 1.0


def _as_array(leaf: Any) -> Any:
    return np.ones(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf


def _interior(patterns: Patterns) -> Array:
    """Witnesses, or gates in their place where nothing has cones."""
    return jnp.asarray(patterns.gates if patterns.interior is None else patterns.interior)
