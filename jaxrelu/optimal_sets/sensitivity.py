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
from scipy.linalg import block_diag, cho_factor, cho_solve

from jaxrelu.core.aliases import Floats
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.walls import SOLVED, walls_of
from jaxrelu.losses.base import total_gradient
from jaxrelu.optimal_sets.identification import optimal_set
from jaxrelu.optimal_sets.optimal_set import OptimalSet
from jaxrelu.paths.exact.active_system import (
    ActivePoint,
    HostProgram,
    Neuron,
    families,
    host_program,
    largest_multipliers,
    moves,
    multiplier_margin,
    null_space,
    wall_system,
)
from jaxrelu.programs.program import Program, sample_weights
from jaxrelu.programs.solution import Solution

_RANK = 1e-9
_POSITIVE = 1e-7


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
    host = host_program(program)
    neurons, point = _structure(host, optima)
    y, weight = jnp.asarray(program.y), sample_weights(program)
    _, by_target = jax.jvp(
        lambda target: total_gradient(program.loss, optima.fit, target, weight),
        (y,),
        (jnp.ones_like(y),),
    )
    by_lam, by_y, regular = _fit_derivatives(host, neurons, point, -np.asarray(by_target))
    regular = regular and optima.is_unique
    enters = bool(np.any(~np.asarray(optima.support)))
    held = not program.has_cones or _walls_hold(host, neurons, point)
    return Sensitivity(
        jnp.asarray(by_lam), jnp.asarray(by_y), jnp.asarray(np.trace(by_y)),
        regular and not enters and held and not optima.ambiguous, regular, not enters, held,
        optima.doubts,
    )  # fmt: skip


def _structure(host: HostProgram, optima: OptimalSet) -> tuple[list[Neuron], ActivePoint]:
    """The neurons of the support, each by the first of its blocks, and where they are."""
    support = np.asarray(optima.support)
    directions = np.asarray(optima.directions)[support]
    walls = np.zeros((len(directions), len(host.X)), bool)
    if host.has_cones:
        walls = walls_of(host.unit, directions, SOLVED)
    direction_of = np.asarray(optima.direction_of).ravel()
    blocks = [int(np.argmax(direction_of == e)) for e in np.flatnonzero(support)]
    neurons = [Neuron(block, on) for block, on in zip(blocks, walls, strict=True)]
    sizes = np.asarray(optima.interior)[support] / np.abs(host.factors[blocks])
    residual, fit = np.asarray(optima.residual), np.asarray(optima.fit)
    return neurons, ActivePoint(float(optima.lam), sizes, directions, fit, residual)


def _fit_derivatives(
    host: HostProgram, neurons: list[Neuron], point: ActivePoint, cross: Floats
) -> tuple[Floats, Floats, bool]:
    """The fit by lam (n,), the fit by the target (n, n), and whether features are independent."""
    n = len(host.X)
    if not neurons:
        return np.zeros(n), np.zeros((n, n)), True
    bases, columns = zip(*moves(host, neurons), strict=True)
    inside = [N.T @ u for N, u in zip(bases, point.directions, strict=True)]
    v = [part / np.linalg.norm(part) for part in inside]
    bends = [
        point.lam / size * (np.eye(len(vk)) - np.outer(vk, vk))
        for size, vk in zip(point.sizes, v, strict=True)
    ]
    A, curvature = np.hstack(columns), host.derivatives(point.fit)[1]
    H = A.T @ (curvature[:, None] * A) + block_diag(*bends)
    scale, lowest = np.trace(H) / len(H), float(np.linalg.eigvalsh(H)[0])
    factor = cho_factor(H + max(0.0, _RANK * scale - lowest) * np.eye(len(H)))
    by_lam = -A @ cho_solve(factor, np.concatenate(v))
    by_y = A @ cho_solve(factor, A.T * cross[None])
    return by_lam, by_y, bool(lowest > _RANK * scale)


def _walls_hold(host: HostProgram, neurons: list[Neuron], point: ActivePoint) -> bool:
    """Whether in every cell some multiplier is positive on all walls that the neuron feels."""
    seen: set[tuple[int, bytes]] = set()
    for which, block in families(host, neurons):
        mask = host.patterns[block]
        key = (which, mask.tobytes())
        if key in seen or not neurons[which].walls.any():
            continue
        seen.add(key)
        rows, missing = wall_system(host, neurons, point, which, block)
        if multiplier_margin(rows, missing) > _POSITIVE:
            continue
        if not _are_not_felt(rows, missing, host.X[mask]):
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
