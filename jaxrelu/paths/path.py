"""`solve_path`: warm-started working sets along a sequence of lams, driven from the host.

The lams are solved in descending order, each from the working set of the last: weights, both
multipliers (proportional to lam to first order) and the dual-cone elements of all blocks. The
number of slots follows the support (`jaxrelu.solvers.active_newton.path_driver`), so that a path
compiles a logarithmic number of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import safe_norm
from jaxrelu.core.options import count
from jaxrelu.core.pytrees import register
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import on_host
from jaxrelu.paths.checks import (
    check_lams,
    path_index,
    step_limit,
    warm_point,
    working_set_solver,
)
from jaxrelu.paths.several_outputs.path import solve_outputs_path
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.extension import beside, ids_apart
from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.vector_program import VectorProgram
from jaxrelu.solvers.active_newton.driven_rounds import Answer
from jaxrelu.solvers.active_newton.path_driver import PathDriver, slot_count
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import tolerances
from jaxrelu.solvers.scaled_program import Request, prepare
from jaxrelu.solvers.verdict import Verdict


@register
@dataclass(frozen=True, eq=False)
class Path:
    """Certified answers along a sequence of lams; only non-zero blocks are kept.

    Row k belongs to ``lams[k]``, in the order the lams were given in. ``path[k]`` is a `Solution`,
    and what a batch of them has is read by the same names.

    Attributes:
        program: the program.
        lams: (L,).
        blocks: (L, K) int32, flat indices of the kept blocks (sign, pattern); an index equal to
            the number of blocks marks an unused place. K is 16, 32, 48, 64, ... or that number.
        block_weights: (L, K, d), their weights.
        fit, residual, dual: (L, n).
        lower, upper, gap: (L,), the certificates.
        status, num_steps: (L,) int32.
        skip: (L, d), the skip connections of a program that has one, else None.
        constant: (L,), the constants of a program with a free bias, else None.
    """

    program: Program
    lams: Array
    blocks: Array
    block_weights: Array
    fit: Array
    residual: Array
    dual: Array
    lower: Array
    upper: Array
    gap: Array
    status: Array
    num_steps: Array
    skip: Array | None = None
    constant: Array | None = None

    @property
    def lam(self) -> Array:
        """(L,), the lams, by the name that they have on a `Solution`."""
        return self.lams

    @property
    def certificate(self) -> PathCertificate:
        """The certificates; dense weights are made when they are asked for."""
        return PathCertificate(self)

    def __len__(self) -> int:
        """Number of lams."""
        return int(self.lams.shape[0])

    def __getitem__(self, k: int) -> Solution:
        """The `Solution` at ``lams[k]``, with dense weights."""
        return _solution_at(self, np.int32(path_index(k, len(self))))

    @property
    def weights(self) -> Array:
        """Dense weights (L, 2, p, d) or (L, p, d): allocates them all; prefer ``path[k]``."""
        return _weights_of(self)

    @property
    def num_active(self) -> Array:
        """(L,) int32, non-zero blocks at every lam."""
        return jnp.sum(safe_norm(self.block_weights) > 0, axis=1, dtype=jnp.int32)

    def _dense(self, k: Any) -> Array:
        blocks, block_weights = self.blocks[k], self.block_weights[k]
        shape, d = self.program.block_shape, block_weights.shape[-1]
        flat = jnp.zeros((int(np.prod(shape)), d), block_weights.dtype)
        weights = flat.at[blocks].set(block_weights, mode="drop").reshape(*shape, d)
        return jnp.where(self.status[k] == Status.SKIPPED, jnp.nan, weights)


@register
@dataclass(frozen=True, eq=False)
class PathCertificate:
    """The certificates of a path, read as a batched `Certificate` is.

    The dense weights (L, 2, p, d) that one holds are made anew whenever `weights` is read.

    Attributes:
        path: the `Path`.
    """

    path: Path

    @property
    def lower(self) -> Array:
        """(L,), lower bounds of the optima."""
        return self.path.lower

    @property
    def upper(self) -> Array:
        """(L,), upper bounds: the objectives at `weights`."""
        return self.path.upper

    @property
    def gap(self) -> Array:
        """(L,), upper - lower."""
        return self.path.gap

    @property
    def dual(self) -> Array:
        """(L, n), dual feasible."""
        return self.path.dual

    @property
    def weights(self) -> Array:
        """(L, 2, p, d) or (L, p, d): allocates them all."""
        return self.path.weights

    @property
    def skip(self) -> Array | None:
        """(L, d), the skip connections, or None."""
        return self.path.skip

    @property
    def constant(self) -> Array | None:
        """(L,), the constants of a free bias, or None."""
        return self.path.constant


@partial(compiled, optimised=False)
def _solution_at(path: Path, k: Array) -> Solution:
    """One program for all k: a path is read solution by solution."""
    weights, skip = path._dense(k), None if path.skip is None else path.skip[k]
    constant = None if path.constant is None else path.constant[k]
    certificate = Certificate(
        lower=path.lower[k],
        upper=path.upper[k],
        gap=path.gap[k],
        weights=weights,
        dual=path.dual[k],
        skip=skip,
        constant=constant,
    )
    return Solution(
        weights=weights,
        lam=path.lams[k],
        fit=path.fit[k],
        residual=path.residual[k],
        certificate=certificate,
        status=path.status[k],
        num_steps=path.num_steps[k],
        skip=skip,
        constant=constant,
    )


@compiled
def _weights_of(path: Path) -> Array:
    return jax.vmap(path._dense)(jnp.arange(path.lams.shape[0]))


@on_host("or use solve_grid, which can be traced")
def solve_path(
    program: Program | VectorProgram,
    lams: Any,
    *,
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = None,
    init: Solution | None = None,
    solver: ActiveNewton | None = None,
    max_active: int | None = None,
) -> Any:
    r"""Solves a convex program along a path of lams, each from the answer before.

    Driven from the host: the fastest way on a CPU and for long paths. The answers are certified one
    by one, exactly as those of `solve`. One that is within the tolerance at the next lam, too, is
    returned there again, certified anew, with ``num_steps`` 0.

    Args:
        program: a `ConvexProgram`, `GatedProgram` or `VectorProgram`, concrete.
        lams: (L,), each > 0, in any order; solved in descending order, returned in yours.
        rtol: relative tolerance of the gap, as in `solve`.
        atol: absolute tolerance of the gap, as in `solve`.
        max_steps: limit on Newton steps for each lam.
        init: a `Solution` to start the first (largest) lam from.
        solver: an `ActiveNewton`; its capacity limits the slots.
        max_active: stop once an answer has more non-zero blocks than this; the lams below are
            returned with ``Status.SKIPPED`` and NaN values. Off by default.

    Returns:
        `Path`, of length L whatever happened; `VectorPath` of a `VectorProgram`.

    Raises:
        ValueError, TypeError: as `solve`; TypeError for traced arguments.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4))
        >>> path = jr.solve_path(program, jr.lambda_grid(program, num=3, ratio=0.1))
        >>> path.status.tolist()
        [0, 0, 0]

    Reference: warm-started working sets as in celer and skglm; Mishkin and Pilanci (ICML 2023),
    Section 5, for the path itself.
    """
    if isinstance(program, VectorProgram):
        given = (rtol, atol, max_steps, init, solver, max_active)
        return solve_outputs_path(program, lams, solve_path, *given)
    check_program(program)
    lams = check_lams(program, lams)
    most = None if max_active is None else count(max_active, "max_active", least=0)
    driver, asked = path_driver(program, lams, rtol, atol, max_steps, init, solver)
    if asked.init is not None:
        driver.start_from(asked.init, np.max(asked.lams))
    order = np.argsort(-np.asarray(lams), kind="stable")
    scaled_lams = np.asarray(asked.lams)
    answers: list[Answer | None] = [None] * len(order)
    for k in order:
        answer = driver.solve(scaled_lams[k])
        answers[k] = answer
        if most is not None and answer.active - _uses_skip(program, answer) > most:
            break
    return _assemble(program, lams, answers)


def _uses_skip(program: Program, answer: Answer) -> int:
    """One if a skip connection, which is no block of the program, is among the non-zero ones."""
    _, own = ids_apart(program, np.asarray(answer.verdict.blocks))
    return int(np.any(answer.verdict.weights[own] != 0))


def path_driver(
    program: Program,
    lams: Array,
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = None,
    init: Solution | None = None,
    solver: ActiveNewton | None = None,
) -> tuple[PathDriver, Request]:
    """The driver of a path whose program and lams are checked, and what is asked of it."""
    solver = working_set_solver(program, solver)
    tolerance, steps = tolerances(program, rtol, atol), step_limit(solver, max_steps)
    at, asked = prepare(program, lams, tolerance, warm_point(program, init))
    return PathDriver(solver, at, asked, tolerance, int(steps)), asked


def _assemble(program: Program, lams: Array, answers: list[Answer | None]) -> Path:
    """Stacks the answers, each with its non-zero blocks alone; a missing one is SKIPPED."""
    n, d, dtype = len(program.X), program.block_size, np.dtype(program.X.dtype)
    total = int(np.prod(program.block_shape))
    nan = np.full((n,), np.nan, dtype)
    nothing = Verdict(
        blocks=np.zeros((0,), np.int32),
        weights=np.zeros((0, d), dtype),
        fit=nan,
        residual=nan,
        dual=nan,
        lower=nan[0],
        upper=nan[0],
        status=np.int32(Status.SKIPPED),
    )
    rows = [nothing if a is None else a.verdict for a in answers]
    apart = [ids_apart(program, row.blocks) for row in rows]
    kept = [
        np.flatnonzero(np.any(row.weights != 0, axis=1) & ~own)
        for row, (_, own) in zip(rows, apart, strict=True)
    ]
    # Rounded up as the slots are: other supports must not mean other shapes.
    width = min(slot_count(max(k.size for k in kept)), total)
    blocks = np.full((len(rows), width), total, np.int32)
    weights = np.zeros((len(rows), width, d), dtype)
    last = np.zeros((len(rows), d), dtype)
    for k, (row, index, (ids, own)) in enumerate(zip(rows, kept, apart, strict=True)):
        blocks[k, : index.size] = ids[index]
        weights[k, : index.size] = row.weights[index]
        last[k] = np.nan if answers[k] is None else np.sum(row.weights[own], axis=0)

    def column(name: str) -> Array:
        return jnp.asarray(np.stack([getattr(row, name) for row in rows]))

    upper, lower = column("upper"), column("lower")
    skip, constant = beside(program, jnp.asarray(last))
    steps = [np.int32(0) if a is None else a.num_steps for a in answers]
    return Path(
        program=program,
        lams=lams,
        blocks=jnp.asarray(blocks),
        block_weights=jnp.asarray(weights),
        fit=column("fit"),
        residual=column("residual"),
        dual=column("dual"),
        lower=lower,
        upper=upper,
        gap=upper - lower,
        status=column("status"),
        num_steps=jnp.asarray(np.stack(steps)),
        skip=skip,
        constant=constant,
    )
