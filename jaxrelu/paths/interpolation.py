"""Between two lams of a path, without solving."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrelu.core.checks import check_type
from jaxrelu.core.tracing import on_host
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.paths.path import Path
from jaxrelu.programs.checks import check_lam
from jaxrelu.programs.extension import Parts
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.verdict import certified


@on_host()
def interpolate(path: Path, lam: Any) -> Solution:
    r"""A certified answer between two lams of a path, without solving.

    With lam = (1 - t) lam_k + t lam_{k+1}, the weights (1 - t) theta_k + t theta_{k+1} lie in the
    cones, which are convex; their gap is certified like that of any others.

    Args:
        path: a `Path`.
        lam: scalar within the range of ``path.lams``.

    Returns:
        `Solution` with ``num_steps`` 0: OPTIMAL where the gap is within the default tolerance,
        MAX_STEPS (or PRECISION_FLOOR) where it is not. Pass it as ``init`` to solve further.

    Raises:
        ValueError: lam outside the range of the path, or between lams that were not solved.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4))
        >>> path = jr.solve_path(program, [0.5, 0.4])
        >>> between = jr.interpolate(path, 0.45)
        >>> bool(between.gap < 0.02 * between.upper)
        True

    Reference: the optimal value is concave in lam, and the objective convex in the weights.
    """
    check_type(path, "path", Path, "the Path of jr.solve_path")
    lam = check_lam(path.program, lam)
    lams, value = np.asarray(path.lams), float(lam)
    order = np.argsort(lams, kind="stable")
    if not lams[order[0]] <= value <= lams[order[-1]]:
        raise ValueError(
            f"lam is {value:g}, outside the path from {lams[order[0]]:g} to {lams[order[-1]]:g}: "
            "use solve, with init=path[k] of the nearest one."
        )
    above = int(np.clip(np.searchsorted(lams[order], value), 1, max(len(order) - 1, 1)))
    high = path[int(order[min(above, len(order) - 1)])]
    low = path[int(order[above - 1])]
    if not all(bool(jnp.all(jnp.isfinite(one.weights))) for one in (low, high)):
        raise ValueError(f"the neighbours of lam {value:g} on the path were not solved.")
    apart = high.lam - low.lam
    t = jnp.where(apart > 0, (lam - low.lam) / jnp.where(apart > 0, apart, 1.0), 0.0)

    def between(a: Any, b: Any) -> Any:
        return None if a is None else (1 - t) * a + t * b

    parts = Parts(
        between(low.weights, high.weights),
        between(low.skip, high.skip),
        between(low.constant, high.constant),
    )
    residual = None
    if has_kinks(path.program.loss):
        residual = (1 - t) * low.residual + t * high.residual
    return certified(path.program, lam, parts, residual)
