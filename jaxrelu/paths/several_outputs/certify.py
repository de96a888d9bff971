"""`certify` of programs of several outputs."""

from __future__ import annotations

from typing import Any

from jaxrelu.paths.several_outputs.exact import certified_exact
from jaxrelu.paths.several_outputs.gated import certified_gated
from jaxrelu.paths.several_outputs.one_vs_all import proved_columns
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.checks import check_lam
from jaxrelu.programs.vector_checks import (
    check_nothing_beside,
    check_outputs_residual,
    check_vector_weights,
    checked_outputs,
)
from jaxrelu.programs.vector_program import VectorProgram
from jaxrelu.solvers.base import tolerances


def certify_outputs(
    program: VectorProgram, lam: Any, weights: Any, residual: Any = None, **others: Any
) -> Certificate:
    """`jaxrelu.certify` of a program of several outputs."""
    check_nothing_beside(**others)
    program = checked_outputs(program)
    lam = check_lam(program, lam)  # type: ignore[arg-type]
    weights = check_vector_weights(program, weights)
    if residual is not None:
        residual = check_outputs_residual(program, residual)
    if program.kind == "one_vs_all":
        found: Certificate = proved_columns(program, lam, weights, residual)
        return found
    tolerance = tolerances(program, None, None)  # type: ignore[arg-type]
    if program.kind == "exact":
        return certified_exact(program, lam, weights, residual, tolerance).certificate
    answer = certified_gated(program, lam, weights, residual, tolerance)
    return answer.certificate  # type: ignore[no-any-return]
