"""`solve`: one lam, one algorithm of fixed shapes, one verdict."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import as_float, host_float
from jaxrelu.core.numerics import eps, matmul
from jaxrelu.core.status import Status
from jaxrelu.programs.certificates import Certificate, dual_point, rounding_error
from jaxrelu.programs.checks import check_lam, check_program, check_weights
from jaxrelu.programs.preparation import row_space, with_interior
from jaxrelu.programs.program import Program, fit, loss_value, objective, residual_at
from jaxrelu.programs.solution import Solution, shared
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.active_newton.working_set import Setting, setting_of
from jaxrelu.solvers.base import Evidence, Solver, Tolerance, Warm
from jaxrelu.solvers.implicit_differentiation import parameters, tangent


def solve(
    program: Program,
    lam: Any,
    *,
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = None,
    init: Solution | None = None,
    solver: Solver | None = None,
) -> Solution:
    r"""Solves a convex program at one lam, to a certified duality gap.

    min over weights of sum_i c_i loss(f_i, y_i) + lam sum ||theta||, in the cones of the patterns
    (`jaxrelu.programs.program`). ``Status.OPTIMAL`` means upper - lower <= atol + rtol |upper|.

    One algorithm of fixed shapes, traced or not: `jit`, `vmap` (over lam, y, sample weights or
    whole programs of equal shape) work on it, and lam, tolerances and max_steps are data.

    Args:
        program: a `ConvexProgram` or `GatedProgram`.
        lam: scalar, > 0.
        rtol: relative tolerance of the gap; default 1e-6 in float64, 1e-4 in float32.
        atol: absolute tolerance; default 50 eps times the objective at zero weights.
        max_steps: limit on steps of the solver; default 2000 Newton steps.
        init: a `Solution` of a program of equal shape, at any lam, to start from.
        solver: an `ActiveNewton` (the default), an `ADMM`, or any `Solver`.

    Returns:
        `Solution`. On the host look at `status` or call `jaxrelu.raise_if_failed`; nothing raises
        inside `jit`.

    Raises:
        ValueError, TypeError: wrong shapes, dtypes or values, with a sentence that names the fix.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> solution = jr.solve(jr.ConvexProgram(X, y, patterns), 0.5)
        >>> jr.Status(int(solution.status)).name
        'OPTIMAL'

    Reference: Pilanci and Ergen (ICML 2020); Mishkin and Pilanci (ICML 2023).
    """
    check_program(program)
    solver = checked_solver(program, solver)
    lam = check_lam(program, lam)
    warm = warm_point(program, init)
    tolerance = tolerances(program, rtol, atol)
    steps = step_limit(solver, max_steps)
    return shared(solve_compiled(program, lam, tolerance, steps, warm, solver, type(program.loss)))


@partial(jax.jit, static_argnames=("loss_type",))
def solve_compiled(
    program: Program,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: Warm | None,
    solver: Any,
    loss_type: type,
) -> Solution:
    """`solve` after its checks, compiled; `loss_type` is part of the key (`core.pytrees`)."""
    del loss_type
    return solve_traced(program, lam, tolerance, max_steps, init, solver)


@partial(jax.jit, static_argnames=("loss_type",))
def prepare(program: Program, loss_type: type) -> tuple[Setting, Array | None]:
    """What does not depend on lam: the program with at most n features, laid out, and their basis.

    For calls from the host that keep working sets; `loss_type` as in `solve_compiled`.
    """
    del loss_type
    reduced, basis = row_space(with_interior(program))
    return setting_of(reduced), basis


@jax.custom_jvp
def solve_traced(
    program: Program,
    lam: Array,
    tolerance: Tolerance,
    max_steps: Array,
    init: Warm | None,
    solver: Solver,
) -> Solution:
    """`solve` after its checks: pure and traceable, with an implicit derivative."""
    # Or XLA folds products of a program that `jit` closes over, for minutes.
    reduced, basis = row_space(with_interior(jax.lax.optimization_barrier(program)))
    if init is not None and basis is not None:
        init = init._replace(weights=matmul(init.weights, basis))
    positive = (lam > 0) & jnp.isfinite(lam)
    safe_lam = jnp.where(positive, lam, 1.0)
    evidence = solver.run(reduced, safe_lam, tolerance, max_steps, init)
    if basis is not None:
        evidence = evidence._replace(weights=matmul(evidence.weights, basis.T))
    return conclude(program, lam, tolerance, evidence)


@solve_traced.defjvp
def _solve_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Solution, Solution]:
    solution = solve_traced(*primals)
    program, lam, *_, solver = primals
    slots = (solver if isinstance(solver, ActiveNewton) else ActiveNewton()).slots(program)
    point, change = parameters(program, lam), parameters(*tangents[:2])
    return solution, tangent(program, solution, point, change, slots)


def conclude(program: Program, lam: Array, tolerance: Tolerance, evidence: Evidence) -> Solution:
    """Evaluates both values at what a solver returned, and gives the status."""
    weights = evidence.weights
    f = fit(program, weights)
    upper = objective(program, lam, weights)
    dual, lower = dual_point(program, lam, evidence.residual, evidence.bound)
    rounding = rounding_error(program, lam, weights, evidence.residual)
    finite = evidence.finite & jnp.all(jnp.isfinite(weights))
    status = verdict(lam, tolerance, upper, lower, rounding, finite, evidence.exhausted)
    certificate = Certificate(lower, upper, upper - lower, weights, dual)
    return Solution(
        weights, lam, f, residual_at(program, f), certificate, status, evidence.num_steps
    )


def verdict(
    lam: Array,
    tolerance: Tolerance,
    upper: Array,
    lower: Array,
    rounding: Array,
    finite: Array,
    exhausted: Array,
) -> Array:
    """The status of an answer, from its two values alone; the later rules win."""
    status = jnp.where(exhausted, Status.MAX_STEPS, Status.STALLED)
    status = jnp.where(upper - lower <= rounding, Status.PRECISION_FLOOR, status)
    status = jnp.where(tolerance.met(upper, lower), Status.OPTIMAL, status)
    sound = finite & jnp.isfinite(upper) & jnp.isfinite(lower)
    status = jnp.where(sound, status, Status.NONFINITE)
    status = jnp.where((lam > 0) & jnp.isfinite(lam), status, Status.INVALID)
    return status.astype(jnp.int32)


def check_lams(program: Program, lams: Any) -> Array:
    """Lams as a vector of the program's dtype; on the host each must be positive and finite."""
    if not isinstance(lams, jax.core.Tracer):
        # Without a dtype of their own, lams take the precision of the program.
        values = host_float(lams, "lams").astype(program.X.dtype)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"lams has shape {values.shape}; pass a vector (L,) with L >= 1.")
        bad = [float(v) for v in values if not (np.isfinite(v) and v > 0)]
        if bad:
            raise ValueError(
                f"lams holds {bad[0]}; every lam must be positive and finite. For lam = 0 pass a "
                "small one, for example 1e-6 * lambda_max(program)."
            )
        return jnp.asarray(values, program.X.dtype)
    if lams.ndim != 1:
        raise ValueError(f"lams has shape {lams.shape}; pass a vector (L,) with L >= 1.")
    return lams.astype(program.X.dtype)


def tolerances(program: Program, rtol: Any, atol: Any) -> Tolerance:
    """The tolerances as data of the program's dtype, defaults filled in."""
    dtype = program.X.dtype
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not isinstance(value, jax.core.Tracer):
            number = host_float(value, name)
            if number.ndim != 0 or not 0 <= float(number) < np.inf:
                raise ValueError(f"{name} is {value}; pass one finite number >= 0.")
    if rtol is None:
        rtol = 1e-6 if dtype == jnp.float64 else 1e-4
    if atol is None:
        zero = jnp.zeros_like(jnp.asarray(program.y))
        atol = 50 * eps(dtype) * loss_value(program, zero)
    return Tolerance(jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype))


def checked_solver(program: Program, solver: Any) -> Solver:
    """The solver, the default one if none is given, after its own checks."""
    if solver is None:
        solver = ActiveNewton()
    if isinstance(solver, type) or not hasattr(solver, "run"):
        raise TypeError(f"solver is {solver!r}; pass an instance, such as jr.ActiveNewton().")
    solver.check(program)
    checked: Solver = solver
    return checked


def step_limit(solver: Solver, max_steps: Any) -> Array:
    """The step limit as data."""
    if max_steps is None:
        max_steps = solver.default_max_steps
    if not isinstance(max_steps, jax.core.Tracer):
        given = np.asarray(max_steps)
        if given.ndim != 0 or given.dtype.kind not in "iu":
            raise TypeError(f"max_steps is {max_steps!r}; pass an integer >= 0.")
        if given < 0:
            raise ValueError(f"max_steps is {max_steps}; pass an integer >= 0.")
    return jnp.asarray(max_steps, jnp.int32)


def warm_point(program: Program, init: Any) -> Warm | None:
    """What a solver needs of a previous solution, checked."""
    if init is None:
        return None
    if not isinstance(init, Solution):
        raise TypeError(f"init is a {type(init).__name__}; pass a Solution of jr.solve.")
    weights = check_weights(program, init.weights)
    residual = as_float(init.residual, "init.residual")
    if residual.shape != (program.X.shape[0],):
        raise ValueError(
            f"init.residual has shape {residual.shape}, but the program has "
            f"{program.X.shape[0]} samples: pass a Solution of a program of equal shape."
        )
    return Warm(weights, residual, jnp.asarray(init.lam, weights.dtype))
