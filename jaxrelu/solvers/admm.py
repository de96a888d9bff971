r"""First-order solver: consensus splitting (ADMM) around one eigendecomposition.

The programs of `jaxrelu.programs.program` in split form, with F the map from weights to fit and K_b
the rows (2 D_b - I) X of block b, each scaled to the length t = sqrt(30 d / n):

    minimise    sum_i c_i loss(f_i, y_i) + lam sum_b ||a_b||
    subject to  theta_b = a_b,    K_b theta_b = s_b >= 0,    F theta = f.

Norm and cone split carry one penalty rho, the loss split its own, eta (the squared loss stays in
the quadratic instead: f = F theta, eta = 1). The state is z + u of each split, its copy plus its
scaled multiplier; a step is the relaxed projection of the reflected copies onto the splitting,

    a = prox of (lam / rho) ||.|| (norm),    s = max(cone, 0),    f = prox of loss / eta (loss),
    theta = argmin  rho sum_b ||theta_b - 2 a_b + norm_b||^2 + ||K_b theta_b - |cone_b| ||^2
                    + eta sum_i c_i (F theta - 2 f + loss)_i^2,
    norm += 1.8 (theta - a),    cone += 1.8 (K theta - s),    loss += 1.8 (F theta - f).

Since (2 D_b - I)^2 = I, K_b^T K_b is the same for all blocks: with B = I + K_b^T K_b (d, d) and

    F B^-1 F^T = 2 (masks masks^T) o (X B^-1 X^T),    o elementwise,

one eigendecomposition (n, n) serves every block, lam, rho and eta; a batch over lam shares it. The
gated program has no cone split: B = I, and no factor 2.

Every `check_every` steps: the penalties balance *relative* residuals (absolute ones drive rho to
zero), the last points are extrapolated (Anderson acceleration, undone when it does not help), and
the certificate is evaluated. Its lower value needs no projection: the multipliers of the cone split
are elements of the dual cones.

Use it in float32 and on accelerators, with many active blocks, and where 1e-3 to 1e-5 is enough: a
step is a few matrix products over all blocks, without branches. Do not use it for high accuracy,
along a path on a CPU, or with n above some ten thousand samples: `ActiveNewton` takes tens of steps
where this method takes hundreds or thousands.

Reference: Boyd et al. (2011), Section 3.4 and 7; Zhang, O'Donoghue and Boyd (SIAM J. Optim. 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrelu.core.loops import iterate
from jaxrelu.core.numerics import eps, matmul
from jaxrelu.core.options import check_static_count
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.cones import project_cones
from jaxrelu.geometry.correlation_bounds import DualElements
from jaxrelu.programs.bounds import (
    Value,
    all_blocks,
    correlation_bound,
    lower_bound,
    upper_value,
)
from jaxrelu.programs.certificates import feasible_weights
from jaxrelu.programs.penalties import block_soft_threshold, sizes
from jaxrelu.programs.program import (
    Program,
    fit,
    loss_value,
    raw_correlations,
    residual_at,
    sample_weights,
)
from jaxrelu.solvers.admm_splitting import (
    Penalty,
    Point,
    Splitting,
    copies,
    joint_norm,
    loss_penalty,
    relaxed_step,
    rescale,
    split_program,
)
from jaxrelu.solvers.base import Evidence, Tolerance, WarmStart

# Measured on the reference problems: flat around these values.
_MEMORY = 4
_RHO = 10.0
_BAND = 1.5


class _Best(NamedTuple):
    """The best feasible weights and the best dual point so far."""

    weights: Array
    upper: Array
    residual: Array
    duals: DualElements
    lower: Array


class _Memory(NamedTuple):
    """Where the last rounds ended and how far they went, the newest first; for extrapolation."""

    ends: Point
    moves: Point
    size: Array
    fresh: Array


class _Round(NamedTuple):
    point: Point
    penalty: Penalty
    memory: _Memory
    best: _Best
    filled: Array
    done: Array


@register
@dataclass(frozen=True)
class ADMM:
    """Consensus splitting for both programs and any loss; see the module's docstring.

    Steps come in multiples of `check_every`: `max_steps` is rounded down to one.

    Args:
        check_every: steps between two certificates.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> from jaxrelu.solvers.admm import ADMM
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=4)
        >>> solution = jr.solve(jr.ConvexProgram(X, y, patterns), 0.5, solver=ADMM())
        >>> jr.Status(int(solution.status)).name
        'OPTIMAL'
    """

    check_every: int = field(default=25, metadata={"static": True})

    @property
    def default_max_steps(self) -> int:
        """Steps allowed when the caller does not say."""
        return 20_000

    def check(self, program: Any) -> None:
        """Raises ValueError or TypeError for what it cannot take: a loss, a skip connection.

        One penalty for all fits cannot follow a second derivative that grows without bound.
        """
        check_static_count(self.check_every, "check_every")
        loss = program.loss
        if program.bias == "free":
            raise ValueError(
                'ADMM splits by Euclidean projections, which bias="free" does not go by: leave '
                "solver out, or pass jr.ActiveNewton()."
            )
        if program.skip and program.has_cones:
            raise ValueError(
                "ADMM factors the cones of all blocks at once, and a skip connection has none: "
                "leave solver out, or pass jr.ActiveNewton()."
            )
        if isinstance(loss.smoothness, float) and math.isinf(loss.smoothness):
            raise ValueError(
                f"ADMM takes losses whose second derivative is bounded, and that of "
                f"{type(loss).__name__} is not: leave solver out, or pass jr.ActiveNewton()."
            )

    def run(
        self,
        program: Program,
        lam: Array,
        tolerance: Tolerance,
        max_steps: Array,
        init: WarmStart | None,
    ) -> Evidence:
        """See `jaxrelu.solvers.base.Solver.run`."""
        split = split_program(program, lam)
        point, penalty = _start(split, init)
        rounds = max_steps // self.check_every

        def step(state: _Round) -> _Round:
            # The first round only looks at the start: a warm one may be good enough.
            first = state.filled == 0
            end, ratio = jax.lax.cond(
                first,
                lambda: (state.point, jnp.ones_like(lam)),
                lambda: _advance(split, state.point, state.penalty, self.check_every),
            )
            last = state.filled >= rounds
            best, done = _check(split, tolerance, end, state.penalty, state.best, last)
            point, penalty, memory = _continue(split, state, end, ratio)
            memory = memory._replace(fresh=memory.fresh | first)
            return _Round(point, penalty, memory, best, state.filled + 1, done)

        ends = jax.tree.map(lambda a: jnp.stack([a] * _MEMORY), point)
        memory = _Memory(ends, ends, jnp.zeros_like(lam), jnp.asarray(True))
        count = jnp.asarray(0, jnp.int32)
        start = _Round(point, penalty, memory, _worst(split), count, jnp.asarray(False))
        end = iterate(step, start, done=lambda s: s.done, max_steps=rounds + 1)
        best = end.state.best
        return Evidence(
            all_blocks(best.weights),
            best.residual,
            best.duals,
            self.check_every * jnp.maximum(end.state.filled - 1, 0),
            end.finite,
            ~end.state.done,
        )


def _start(split: Splitting, init: WarmStart | None) -> tuple[Point, Penalty]:
    """Zero, or given weights with the multipliers of a projection at their residual."""
    program, lam, X = split.program, split.lam, split.program.X
    theta = jnp.zeros((*program.block_shape, X.shape[1]), X.dtype)
    if init is not None:
        theta = init.weights
    f = fit(program, theta)
    eta = loss_penalty(split, f)
    loss = f + program.loss.gradient(f, jnp.asarray(program.y)) / eta
    value = loss_value(program, jnp.zeros_like(f))
    rho = _RHO * lam**2 / jnp.where(value > 0, value, 1.0)
    cone = split.cone(theta)
    if init is None:
        return Point(theta, cone, loss), Penalty(rho, eta)
    dual, cone_dual = raw_correlations(program, init.residual), jnp.zeros_like(cone)
    if program.has_cones:
        projection = project_cones(X, jnp.asarray(program.patterns.masks), dual)
        dual, cone_dual = projection.points, projection.multipliers / split.length
    # Multipliers are proportional to lam to first order.
    ratio = lam / jnp.where(init.lam > 0, init.lam, lam)
    dual, cone_dual = ratio * dual, ratio * cone_dual
    dual = dual - block_soft_threshold(dual, split.threshold)
    size, dual_size = joint_norm(theta, cone), joint_norm(dual, cone_dual)
    usable = (size > 0) & (dual_size > 0)
    rho = jnp.where(usable, dual_size / jnp.where(usable, size, 1.0), rho)
    point = Point(theta + dual / rho, jnp.maximum(cone, 0.0) - cone_dual / rho, loss)
    return point, Penalty(rho, eta)


def _advance(split: Splitting, point: Point, penalty: Penalty, steps: int) -> tuple[Point, Array]:
    """Some steps, and the factor by which rho would balance the relative residuals of the last."""
    point = jax.lax.fori_loop(0, steps - 1, lambda _, p: relaxed_step(split, p, penalty)[0], point)
    old = copies(split, point, penalty.rho)
    point, theta, cone = relaxed_step(split, point, penalty)
    a, s = copies(split, point, penalty.rho)
    size = jnp.maximum(joint_norm(theta, cone), joint_norm(a, s))
    primal = joint_norm(theta - a, cone - s) * joint_norm(point.norm - a, point.cone - s)
    dual = joint_norm(a - old[0], s - old[1]) * size
    usable = (primal > 0) & (dual > 0)
    ratio = jnp.sqrt(jnp.where(usable, primal, 1.0) / jnp.where(usable, dual, 1.0))
    return point, jnp.clip(ratio, 0.2, 5.0)


def _check(
    split: Splitting,
    tolerance: Tolerance,
    point: Point,
    penalty: Penalty,
    best: _Best,
    last: Array,
) -> tuple[_Best, Array]:
    """The certificate at a point, and whether it is good enough.

    The lower value costs two products. The upper one needs projections onto the cones, which cost
    more than a round, so that it waits until the objective of the unrepaired weights promises to
    meet the tolerance.
    """
    program, lam = split.program, split.lam
    a, _ = copies(split, point, penalty.rho)
    f = fit(program, a)
    residual = residual_at(program, f)
    duals = split.dual_elements(-penalty.rho * jnp.minimum(point.cone, 0.0))
    bound = correlation_bound(program, residual, duals)
    known = loss_value(program, f) + lam * jnp.sum(sizes(program, a.reshape(-1, a.shape[-1])))
    found, _ = lower_bound(program, lam, residual, bound, known, f)
    higher = found.value > best.lower
    residual, duals = jax.tree.map(
        lambda new, old: jnp.where(higher, new, old), (residual, duals), (best.residual, best.duals)
    )
    lower = jnp.maximum(found.value, best.lower)
    # Values that are closer than rounding of both cannot come closer.
    unit = bound.rounding / lam

    def enough(upper: Value, penalty: Array) -> Array:
        rounding = upper.rounding + found.rounding + unit * penalty
        return tolerance.met(upper.value, lower) | (upper.value - lower <= rounding)

    def value(weights: Array) -> tuple[Value, Array]:
        upper, _ = upper_value(program, lam, all_blocks(weights))
        return upper, lam * jnp.sum(sizes(program, weights.reshape(-1, weights.shape[-1])))

    repair = last | enough(*value(a))
    weights = feasible_weights(program, jnp.where(repair, a, 0.0))
    upper, penalties = value(weights)
    lowest = repair & (upper.value <= best.upper)
    done = repair & enough(upper, penalties)
    weights = jnp.where(lowest, weights, best.weights)
    upper_now = jnp.where(lowest, upper.value, best.upper)
    done = done | tolerance.met(upper_now, lower)
    return _Best(weights, upper_now, residual, duals, lower), done


def _worst(split: Splitting) -> _Best:
    """Zero weights, and nothing known yet."""
    program = split.program
    zero = jnp.zeros((*program.block_shape, program.X.shape[1]), program.X.dtype)
    f = jnp.zeros_like(jnp.asarray(program.y))
    huge = jnp.asarray(jnp.finfo(f.dtype).max, f.dtype)  # type: ignore[no-untyped-call]
    nothing = DualElements.nothing(zero[..., 0].size, zero.shape[-1], zero.dtype)
    return _Best(zero, loss_value(program, f), residual_at(program, f), nothing, -huge)


def _continue(
    split: Splitting, state: _Round, end: Point, ratio: Array
) -> tuple[Point, Penalty, _Memory]:
    """Where the next round starts: extrapolated, with other penalties, or one step back."""
    penalty, memory = state.penalty, state.memory
    weight = sample_weights(split.program) * (penalty.eta / penalty.rho)

    def inner(u: Point, v: Point) -> Array:
        """(k, ...) and (l, ...) -> (k, l), in the metric of the splitting."""
        u = u._replace(loss=u.loss * weight[None])
        products = jax.tree.map(
            lambda a, b: matmul(a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1).T), u, v
        )
        return products.norm + products.cone + products.loss

    def remember(new: Array, old: Array) -> Array:
        filled = jnp.broadcast_to(new[None], old.shape)
        return jnp.where(memory.fresh, filled, jnp.concatenate([new[None], old[:-1]]))

    move = jax.tree.map(lambda a, b: a - b, end, state.point)
    ends = jax.tree.map(remember, end, memory.ends)
    moves = jax.tree.map(remember, move, memory.moves)
    newest = jax.tree.map(lambda a: a[:1], moves)
    size = jnp.sqrt(inner(newest, newest)[0, 0])
    # An extrapolation after which points move faster is undone; that point is still in memory.
    failed = ~memory.fresh & (size > 2.0 * memory.size)

    changes, steps = (jax.tree.map(lambda a: a[:-1] - a[1:], t) for t in (moves, ends))
    gram = inner(changes, changes)
    lift = 10 * eps(size.dtype) * jnp.trace(gram)
    lift = jnp.where(lift > 0, lift, 1.0)
    eye = jnp.eye(_MEMORY - 1, dtype=size.dtype)
    mixture = jnp.linalg.solve(gram + lift * eye, inner(changes, newest))[:, 0]
    ahead = jax.tree.map(lambda a, s: a - jnp.tensordot(mixture, s, 1), end, steps)

    # Frequent small changes of the penalties would keep the memory empty.
    other = ~failed & ((ratio > _BAND) | (ratio < 1.0 / _BAND))
    new = Penalty(jnp.where(other, ratio * penalty.rho, penalty.rho), penalty.eta)
    rescaled = rescale(split, end, penalty, new)
    back = jax.tree.map(lambda a: a[0], memory.ends)
    point = jax.tree.map(
        lambda b, r, a: jnp.where(failed, b, jnp.where(other, r, a)), back, rescaled, ahead
    )
    return point, new, _Memory(ends, moves, size, failed | other)
