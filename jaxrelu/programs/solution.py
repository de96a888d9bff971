"""The answer of a solve: a frozen pytree of arrays, and the host-side check of its status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrelu.core.checks import check_known, described
from jaxrelu.core.pytrees import register
from jaxrelu.core.status import Status, describe, remedy
from jaxrelu.programs.certificates import Certificate


@register
@dataclass(frozen=True)
class Solution:
    """An answer with its proof. Every field is an array, so `vmap` returns all of it.

    Attributes:
        weights: feasible convex weights, (2, p, d) or (p, d) for a gated program. The network of
            `jaxrelu.to_network` predicts `fit` on the training data.
        lam: scalar, the regularization strength.
        fit: (n,), the fit of `weights`.
        residual: (n,), minus the gradient of the loss at `fit`, for every loss.
        certificate: `Certificate`, evaluated at these weights after the last step.
        status: int32, a member of `Status`.
        num_steps: int32, Newton steps or iterations taken.
    """

    weights: Array
    lam: Array
    fit: Array
    residual: Array
    certificate: Certificate
    status: Array
    num_steps: Array


def joined(parts: list[Solution], join: Callable[[Any], Array]) -> Solution:
    """Answers of several lams as one, by `jnp.stack` or `jnp.concatenate`.

    The weights, by far the largest, are one array, in the certificate too.
    """

    def light(part: Solution) -> Solution:
        none: Any = None
        return replace(part, certificate=replace(part.certificate, weights=none))

    return shared(jax.tree.map(lambda *leaves: join(leaves), *map(light, parts)))


def shared(answer: Solution) -> Solution:
    """The same answer holding its weights once; compiled code returns them in two arrays."""
    return replace(answer, certificate=replace(answer.certificate, weights=answer.weights))


def raise_if_failed(solution: Any) -> None:
    """Raises unless every status is OPTIMAL; names the lams that failed, why, and the remedy.

    Args:
        solution: a `Solution`, batched or not, or a `Path`; concrete, on the host.

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
    told = hasattr(solution, "status") and (hasattr(solution, "lam") or hasattr(solution, "lams"))
    if isinstance(solution, type) or not told:
        raise TypeError(f"solution is {described(solution)}; pass a Solution or a Path.")
    check_known(solution=solution.status)
    status = np.atleast_1d(np.asarray(solution.status)).ravel()
    lams = np.asarray(solution.lams if hasattr(solution, "lams") else solution.lam)
    lams = np.broadcast_to(np.atleast_1d(lams).ravel(), status.shape)
    # A path carries its values itself: its certificate would need dense weights.
    values = solution if hasattr(solution, "gap") else solution.certificate
    gaps = np.atleast_1d(np.asarray(values.gap)).ravel()
    uppers = np.atleast_1d(np.asarray(values.upper)).ravel()
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
