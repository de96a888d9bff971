"""The answer of a solve: a frozen pytree of arrays, and the host-side check of its status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrelu.core.checks import described
from jaxrelu.core.pytrees import register
from jaxrelu.core.status import Status, describe, remedy
from jaxrelu.core.tracing import on_host
from jaxrelu.programs.certificates import Certificate, Certified
from jaxrelu.programs.units import Units, into_units, out_of_units, printed


@register
@dataclass(frozen=True, eq=False)
class Solution(Certified):
    """An answer with its proof. Every field is an array, so `vmap` returns all of it.

    Attributes:
        weights: feasible convex weights, (2, p, d) or (p, d) for a gated program. The network of
            `jaxrelu.to_network` predicts `fit` on the training data.
        lam: scalar, the regularization strength.
        fit: (n,), the fit of `weights`.
        residual: (n,), minus the gradient of the loss at `fit`; of a loss with kinks, where that is
            not one vector, the solver's dual vector, between its slopes.
        certificate: `Certificate`, evaluated at these weights after the last step; its `lower`,
            `upper` and `gap` are attributes of the solution as well.
        status: int32, a member of `Status`.
        num_steps: int32, Newton steps or iterations taken.
        skip: (d,), the skip connection of a program that has one, else None.
        constant: scalar, the constant of a program with a free bias, else None.
    """

    weights: Array
    lam: Array
    fit: Array
    residual: Array
    certificate: Certificate
    status: Array
    num_steps: Array
    skip: Array | None = None
    constant: Array | None = None


class Solved(Certified):
    """What holds a solution shows its lam, fit and residual as a solution does."""

    solution: Solution

    @property
    def lam(self) -> Array:
        """Scalar, that of the solution."""
        return self.solution.lam

    @property
    def fit(self) -> Array:
        """(n,), that of the solution."""
        return self.solution.fit

    @property
    def residual(self) -> Array:
        """(n,), that of the solution."""
        return self.solution.residual


def joined(parts: list[Solution], join: Callable[[Any], Array]) -> Solution:
    """Answers of several lams as one, by `jnp.stack` or `jnp.concatenate`.

    The weights, by far the largest, are one array, in the certificate too.
    """

    def light(part: Solution) -> Solution:
        none: Any = None
        proof = replace(part.certificate, weights=none, skip=none, constant=none)
        return replace(part, certificate=proof)

    return shared(jax.tree.map(lambda *leaves: join(leaves), *map(light, parts)))


def shared(answer: Solution) -> Solution:
    """The same answer holding its weights once; compiled code returns them in two arrays."""
    proof = replace(
        answer.certificate, weights=answer.weights, skip=answer.skip, constant=answer.constant
    )
    return replace(answer, certificate=proof)


def solution_in_units(solution: Solution, units: Units) -> Solution:
    """A solution of a program as one of the program in units."""

    def bound(value: Array, side: int) -> Array:
        del side  # numbers around one are exact
        return into_units(value, units.objective)

    return _moved(solution, units, into_units, bound)


def solution_out_of_units(solution: Solution, units: Units) -> Solution:
    """A solution of the program in units as one of the program; bounds are rounded outward."""

    def bound(value: Array, side: int) -> Array:
        return printed(value, units.objective, side)

    return _moved(solution, units, out_of_units, bound)


def _moved(
    solution: Solution,
    units: Units,
    move: Callable[[Any, Any], Array],
    bound: Callable[[Array, int], Array],
) -> Solution:
    proof, weights = solution.certificate, move(solution.weights, units.weights)
    lower, upper = bound(proof.lower, -1), bound(proof.upper, 1)
    return replace(
        solution,
        weights=weights,
        lam=move(solution.lam, units.lam),
        fit=move(solution.fit, units.fit),
        residual=move(solution.residual, units.residual),
        certificate=Certificate(
            lower=lower,
            upper=upper,
            gap=upper - lower,
            weights=weights,
            dual=move(proof.dual, units.residual),
        ),
    )


@on_host("after them")
def raise_if_failed(solution: Any) -> None:
    """Raises unless every status is OPTIMAL; names the lams that failed, why, and the remedy.

    Args:
        solution: a `Solution`, batched or not, a `Path` or a `Refined`; concrete, on the host.

    Raises:
        RuntimeError: with one line for each kind of failure.
        TypeError: neither a `Solution` nor a `Path`; called in a trace.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> jr.raise_if_failed(jr.solve(jr.ConvexProgram(X, y, patterns), 0.5))
    """
    told = hasattr(solution, "status") and hasattr(solution, "lam")
    if isinstance(solution, type) or not told:
        raise TypeError(f"solution is {described(solution)}; pass a Solution or a Path.")
    status = np.atleast_1d(np.asarray(solution.status)).ravel()
    lams, gaps, uppers = (
        np.broadcast_to(np.ravel(values), status.shape)
        for values in (solution.lam, solution.gap, solution.upper)
    )
    lines = []
    for code in sorted({int(s) for s in status} - {int(Status.OPTIMAL)}):
        where = np.flatnonzero(status == code)
        shown = ", ".join(
            f"{lams[k]:.6g} (gap {gaps[k]:.2g} of {uppers[k]:.6g})" for k in where[:8]
        )
        more = f" and {where.size - 8} more" if where.size > 8 else ""
        lines.append(
            f"{Status(code).name} at lam = {shown}{more}: {describe(code)}. Remedy: {remedy(code)}."
        )
    if lines:
        raise RuntimeError(
            f"{np.sum(status != Status.OPTIMAL)} of {status.size} answers are not certified.\n"
            + "\n".join(lines)
        )
