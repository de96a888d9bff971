r"""How the optimal fit answers to lam and to the target, and when that derivative exists.

With the support and the walls of its neurons fixed, theta_k = N_k b_k where N_k spans the null
space of the rows on the walls of neuron k, and with A = [s_k D_k X N_k] and G the curvatures of the
loss

    H = A^T G A + lam blkdiag( (I - v_k v_k^T) / ||b_k|| ),   v_k = b_k / ||b_k||,
    d fit / d lam = -A H^-1 v,   d fit / d y = A H^-1 A^T C,  C = -d^2 loss / df dy,

and the degrees of freedom are the trace of d fit / d y. Support and walls do stay where they are if
the features are independent, no other direction has ||q|| = lam, and in every cell of a neuron some
multiplier is positive on all of its walls, but for walls that are orthogonal to all that moves it.
On real data most neurons lie on many dependent walls, with multipliers that are not unique: null
spaces are rank-revealing, and positivity is a linear program.

Reference: Bonnans and Shapiro (2000) for the theory; Zou, Hastie and Tibshirani (Annals of
Statistics, 2007) and Vaiter et al. (2012) for degrees of freedom of sparse and group-sparse fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.linalg import cho_factor, cho_solve

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.geometry.host.walls import SOLVED, walls_of
from jaxrelu.losses.base import total_curvature, total_gradient
from jaxrelu.optimal_sets.identification import optimal_set
from jaxrelu.optimal_sets.optimal_set import OptimalSet
from jaxrelu.paths.exact.active_system import largest_multipliers, multiplier_margin, null_space
from jaxrelu.programs.program import Program, block_signs, sample_weights
from jaxrelu.programs.solution import Solution

_RANK = 1e-9
_POSITIVE = 1e-7
_TIGHT = 1e-6
# The batched projection can stop at six digits; other neurons are further away than this.
_NEAR = 1e-4


@register
@dataclass(frozen=True, eq=False)
class Sensitivity:
    """First derivatives of the optimal fit at one lam, and whether they can be trusted.

    Attributes:
        fit_by_lam: (n,), d fit / d lam.
        fit_by_target: (n, n), d fit / d y; symmetric and between 0 and I for the squared loss.
        degrees_of_freedom: scalar, the trace of `fit_by_target`.
        reliable: all three hypotheses hold and the optimum was identified without doubt; where it
            is False the numbers are those of one choice of support and walls.
        independent_features: the optimal network is unique, so that the system is regular.
        nothing_enters: no direction outside the support has a correlation equal to lam.
        walls_hold: every neuron has multipliers that are positive on all of its walls, but for
            walls that nothing moves it off.
        doubts: what of the optimum was too close to call, a sentence each: where it is not empty,
            `reliable` is False though all three may hold.
    """

    fit_by_lam: Array
    fit_by_target: Array
    degrees_of_freedom: Array
    reliable: bool = field(metadata={"static": True})
    independent_features: bool = field(metadata={"static": True})
    nothing_enters: bool = field(metadata={"static": True})
    walls_hold: bool = field(metadata={"static": True})
    doubts: tuple[str, ...] = field(default=(), metadata={"static": True})


@on_host()
def sensitivity(program: Program, solution: Solution) -> Sensitivity:
    """The derivative of the optimal fit by lam and by the target, checked for its hypotheses.

    `jax.grad`, `jvp` and `vjp` through `solve` give the same derivatives along any direction, in
    compiled code, and NaN where a hypothesis fails.

    Args:
        program: a `ConvexProgram` or `GatedProgram` in float64, concrete.
        solution: its `Solution` at one lam, with status OPTIMAL.

    Returns:
        `Sensitivity`; look at `reliable`.

    Raises:
        ValueError, TypeError: as `optimal_set`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> program = jr.ConvexProgram(X, np.asarray([3.0, 4.0]), jr.enumerate_patterns(X))
        >>> found = jr.sensitivity(program, jr.solve(program, 0.5))
        >>> np.asarray(found.fit_by_lam).round(6).tolist(), found.reliable  # y (1 - lam / ||y||)
        ([-0.6, -0.8], True)

    Reference: the formulas in `jaxrelu.optimal_sets.sensitivity`.
    """
    optima = optimal_set(program, solution)
    X, y = np.asarray(program.X), jnp.asarray(program.y)
    n, lam = len(X), float(optima.lam)
    support = np.asarray(optima.support)
    directions = np.asarray(optima.directions)[support]
    coefficients = np.asarray(optima.interior)[support]
    signs = np.asarray(optima.signs)[support]
    if optima.gates is None:
        walls = walls_of(unit_rows(X)[0], directions, SOLVED).T
        active = ~walls & (X @ directions.T > 0)
    else:
        active = _masks_of(program, optima)[:, support]
        walls = np.zeros(active.shape, bool)
    weight = sample_weights(program)
    curvature = np.asarray(total_curvature(program.loss, optima.fit, y, weight))
    _, by_target = jax.jvp(
        lambda target: total_gradient(program.loss, optima.fit, target, weight),
        (y,),
        (jnp.ones_like(y),),
    )
    cross = -np.asarray(by_target)

    columns: list[Floats] = []
    bends: list[Floats] = []
    pulls: list[Floats] = []
    for k in range(len(coefficients)):
        N = null_space(X[walls[:, k]])
        v = N.T @ directions[k]
        v = v / np.linalg.norm(v)
        columns.append(signs[k] * active[:, [k]] * (X @ N))
        bends.append(lam / coefficients[k] * (np.eye(len(v)) - np.outer(v, v)))
        pulls.append(v)
    by_lam, by_y = np.zeros(n), np.zeros((n, n))
    regular = optima.is_unique
    if columns:
        A, v = np.hstack(columns), np.concatenate(pulls)
        H = A.T @ (curvature[:, None] * A)
        start = 0
        for bend in bends:
            stop = start + len(bend)
            H[start:stop, start:stop] += bend
            start = stop
        scale = np.trace(H) / len(H)
        lowest = float(np.linalg.eigvalsh(H)[0])
        regular = regular and lowest > _RANK * scale
        factor = cho_factor(H + max(0.0, _RANK * scale - lowest) * np.eye(len(H)))
        by_lam = -A @ cho_solve(factor, v)
        by_y = A @ cho_solve(factor, A.T * cross[None])
    enters = bool(np.any(~support))
    held = not program.has_cones or _walls_hold(program, optima, directions, walls)
    return Sensitivity(
        jnp.asarray(by_lam), jnp.asarray(by_y), jnp.asarray(np.trace(by_y)),
        bool(regular) and not enters and held and not optima.ambiguous, bool(regular), not enters,
        held, optima.doubts,
    )  # fmt: skip


def _masks_of(program: Program, optima: OptimalSet) -> Bools:
    """(n, k): the masks under which a gated program has its directions."""
    pattern = np.asarray(block_patterns(program.block_shape))
    direction_of = np.asarray(optima.direction_of).ravel()
    first = [int(np.flatnonzero(direction_of == e)[0]) for e in range(optima.signs.size)]
    masks: Bools = np.asarray(program.patterns.masks, bool)[:, pattern[first]]
    return masks


def _walls_hold(
    program: Program,
    optima: OptimalSet,
    directions: Floats,
    walls: Bools,
) -> bool:
    """Whether in every cell some multiplier is positive on all walls that the neuron feels."""
    X, r, lam = np.asarray(program.X), np.asarray(optima.residual), float(optima.lam)
    pattern = np.asarray(block_patterns(program.block_shape))
    sign = np.asarray(block_signs(program))
    masks, support = np.asarray(program.patterns.masks), np.asarray(optima.support)
    place = np.cumsum(support) - 1  # of a direction among those of the support
    direction_of = np.asarray(optima.direction_of).ravel()
    seen: set[tuple[int, bytes]] = set()
    for block in np.flatnonzero(direction_of >= 0):
        if not support[direction_of[block]]:
            continue
        owner = int(place[direction_of[block]])
        mask, on_wall = masks[:, pattern[block]] > 0, walls[:, owner]
        key = (owner, mask.tobytes())
        if key in seen or not on_wall.any():
            continue
        seen.add(key)
        rows = np.where(mask[on_wall], 1.0, -1.0)[:, None] * X[on_wall]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        missing = directions[owner] - sign[block] * (X.T @ (mask * r)) / lam
        if multiplier_margin(rows, missing) > _POSITIVE:
            continue
        if not _are_not_felt(rows, missing, X[mask]):
            return False
    return True


def _are_not_felt(rows: Floats, missing: Floats, active: Floats) -> bool:
    """Whether walls without a multiplier (unit rows) are orthogonal to all that moves the neuron.

    In a cell that is the span of the active rows, projected onto the null space of the other walls.
    """
    strict = largest_multipliers(rows, missing) > _POSITIVE
    kept = rows[strict]
    left = missing - kept.T @ np.linalg.lstsq(kept.T, missing, rcond=None)[0]
    if np.linalg.norm(left) > _POSITIVE or not multiplier_margin(kept, missing) > _POSITIVE:
        return False
    N = null_space(kept)
    moves = rows[~strict] @ N @ (active @ N).T
    return bool(np.max(np.abs(moves), initial=0.0) <= _RANK * np.max(np.abs(active), initial=0.0))


@on_host()
def degrees_of_freedom(program: Program, solution: Solution) -> Any:
    """The degrees of freedom of the optimal fit, trace of d fit / d y.

    For the squared loss and normal noise, ||y - fit||^2 / sigma^2 - n + 2 df is Stein's unbiased
    estimate of the risk.

    Args:
        program: as in `sensitivity`.
        solution: as in `sensitivity`.

    Returns:
        Scalar; NaN where the hypotheses of `sensitivity` fail.

    Raises:
        ValueError, TypeError: as `sensitivity`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> program = jr.ConvexProgram(X, np.asarray([3.0, 4.0]), jr.enumerate_patterns(X))
        >>> freedom = jr.degrees_of_freedom(program, jr.solve(program, 0.5))
        >>> round(float(freedom), 6)  # fit = y (1 - lam / ||y||)
        1.9

    Reference: Stein (Annals of Statistics, 1981); Vaiter et al. (2012) for group-sparse fits.
    """
    found = sensitivity(program, solution)
    return found.degrees_of_freedom if found.reliable else jnp.asarray(jnp.nan)
