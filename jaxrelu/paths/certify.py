"""Certificates of weights from anywhere."""

from __future__ import annotations

from typing import Any

from jax import Array

from jaxrelu.core.options import flag
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.paths.checks import step_limit
from jaxrelu.paths.several_outputs.certify import certify_outputs
from jaxrelu.paths.traced_solve import solved
from jaxrelu.programs.certificates import Certificate, proved
from jaxrelu.programs.checks import (
    check_constant,
    check_lam,
    check_program,
    check_residual,
    check_skip,
    check_weights,
)
from jaxrelu.programs.extension import Parts, extended, joined
from jaxrelu.programs.program import Program, fit, residual_at
from jaxrelu.programs.vector_program import VectorProgram
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import WarmStart, tolerances


def certify(
    program: Program | VectorProgram,
    lam: Any,
    weights: Any,
    *,
    multipliers: bool = False,
    skip: Any = None,
    constant: Any = None,
    residual: Any = None,
) -> Certificate:
    r"""Certified bounds of the optimum from weights of any origin.

    The weights are repaired (negligible blocks dropped, each block projected onto its cone, then
    moved along the cone's interior witness by the smallest step that clears what is left); `upper`
    is their objective, and `lower` the dual value of the best feasible multiple of their residual.
    At a kink of a loss a fit does not say what its residual is: then it is the one given, or the
    dual vector of a `solve` that starts from the weights.

    Args:
        program: a `ConvexProgram`, `GatedProgram` or `VectorProgram`.
        lam: scalar, > 0.
        weights: array (2, p, d), or (p, d) for a gated program: optimal, infeasible, random.
        multipliers: return the mu >= 0 that prove the dual point feasible, too: with K_j =
            (2 D_j - I) X, ||s X^T D_j dual + K_j^T mu[s, j]|| <= lam holds exactly. (2, p, n)
            numbers, from a full projection of every block; not for gated programs, which need none,
            nor with a free bias.
        skip: array (d,), the skip connection of a program that has one, zero by default.
        constant: scalar, that of a program with a free bias, zero by default.
        residual: array (n,), any vector, such as that of a `Solution`; of a loss with kinks it is
            put between the slopes. By default that of the weights.

    Returns:
        `Certificate`, with lower <= optimum <= upper as printed. Bad weights give a wide gap, never
        a wrong one. Bounds have no derivatives: they are NaN.

    Raises:
        ValueError, TypeError: see `jaxrelu.programs.checks.check_program`; a lam that is not
        positive.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, y, patterns)
        >>> c = jr.certify(program, 0.1, jnp.zeros((*program.block_shape, 2), "float32"))
        >>> bool(c.lower <= c.upper)
        True
    """
    if isinstance(program, VectorProgram):
        others = {"multipliers": multipliers, "skip": skip, "constant": constant}
        return certify_outputs(program, lam, weights, residual, **others)
    check_program(program)
    lam = check_lam(program, lam)
    multipliers = flag(multipliers, "multipliers")
    if multipliers and not program.has_cones:
        raise ValueError("multipliers=True: blocks of a gated program have no cones; leave it out.")
    if multipliers and program.bias == "free":
        raise ValueError(
            "multipliers=True: with a free bias the dual point is proved by more than those; "
            "leave it out."
        )
    parts = Parts(
        check_weights(program, weights),
        check_skip(program, skip),
        check_constant(program, constant),
    )
    weights = joined(program, parts)
    if residual is not None:
        residual = check_residual(program, residual)
    elif has_kinks(program.loss):
        residual = dual_near(program, lam, weights)
    return proved(program, lam, weights, residual, multipliers=multipliers)


def dual_near(program: Program, lam: Array, weights: Array) -> Array:
    """The dual vector of a solve that starts from weights."""
    solver = ActiveNewton()
    here = residual_at(program, fit(extended(program), weights))
    start = WarmStart(weights, here, lam)
    steps = step_limit(solver, None)
    answer = solved(program, lam, tolerances(program, None, None), steps, start, solver)
    return answer.residual
