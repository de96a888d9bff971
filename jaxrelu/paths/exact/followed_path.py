"""`follow_path`, and the exact path that it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.options import count
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.losses.checks import check_no_kinks
from jaxrelu.paths.exact import active_system
from jaxrelu.paths.exact.active_system import ActivePoint, HostProgram, Neuron
from jaxrelu.paths.exact.breakpoints import KINDS, Event, Stretch, walk
from jaxrelu.paths.exact.continuity import jump, shape
from jaxrelu.paths.exact.tangencies import split_at_touches
from jaxrelu.paths.solve import solve
from jaxrelu.programs.checks import (
    check_double,
    check_known_program,
    check_lam,
    check_no_free_blocks,
)
from jaxrelu.programs.extension import Parts
from jaxrelu.programs.program import Program
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.verdict import certified


@register
@dataclass(frozen=True, eq=False)
class FollowedPath:
    """The optimal network as an exact function of lam, with its breakpoints.

    Call it with a lam: ``path(lam)`` is a certified `Solution`. There are E breakpoints and S
    stretches between them, from the largest lam down; K is the largest number of neurons.

    Attributes:
        program: the program.
        breakpoints: (E,), lams at which the structure of the optimum changes.
        kind: (E,) int32, places in `kinds`.
        block: (E,) int32, the block (sign, pattern) concerned; -1 for several.
        sample: (E,) int32, the sample whose wall is hit or left; -1 for others.
        jump: (E,), how far the optimal network of minimum norm jumps there, relative; zero where
            it is continuous.
        high, low: (S,), the ends of the stretches.
        blocks: (S, K) int32, the neurons of each stretch; the number of blocks for none.
        sizes: (S, K), their convex norms at `low`.
        directions: (S, K, d), their unit directions at `low`.
        walls: (S, K, n) bool, the samples on whose walls they lie.
        num_directions: (S,) int32, distinct directions whose correlation is lam.
        support_size: (S,) int32, those that some optimal network uses.
        rank: (S,) int32, of the features of the support.
        is_unique: (S,) bool, whether there is one optimal network.
        ambiguous: (S,) bool, whether these four hang on a coefficient or a singular value that is
            too close to call.
        complete: whether the path was followed to its end; `low[-1]` is as far as it got.
    """

    program: Program
    breakpoints: Array
    kind: Array
    block: Array
    sample: Array
    jump: Array
    high: Array
    low: Array
    blocks: Array
    sizes: Array
    directions: Array
    walls: Array
    num_directions: Array
    support_size: Array
    rank: Array
    is_unique: Array
    ambiguous: Array
    complete: bool = field(metadata={"static": True})

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the breakpoints are, in words."""
        return tuple(KINDS[int(kind)] for kind in self.kind)

    @property
    def num_neurons(self) -> Array:
        """(S,) int32, neurons along each stretch."""
        return jnp.sum(self.sizes > 0, axis=1, dtype=jnp.int32)

    @on_host()
    def __call__(self, lam: Any) -> Solution:
        """The optimum at a lam of the path, by Newton's method on its stretch, certified.

        Where that is singular, as it can be where the optimal network is not unique, and in what is
        left between two stretches, by `solve`.

        Raises:
            ValueError: lam lies below the path.
        """
        value = float(check_lam(self.program, lam))
        host = active_system.host_program(self.program)
        found = self._point(host, value)
        if found is None:
            weights = solve(self.program, value, rtol=0.0, atol=0.0).weights
            return certified(self.program, jnp.asarray(value, weights.dtype), Parts(weights))
        point, neurons = found
        shape = self.program.block_shape
        flat = np.zeros((int(np.prod(shape)), point.directions.shape[1]))
        for neuron, size, u in zip(neurons, point.sizes, point.directions, strict=True):
            flat[neuron.block] += size * abs(host.factors[neuron.block]) * u
        weights = jnp.asarray(flat.reshape(*shape, -1))
        return certified(self.program, jnp.asarray(value, weights.dtype), Parts(weights))

    def _point(self, host: HostProgram, lam: float) -> tuple[ActivePoint, list[Neuron]] | None:
        """The solution of the equations at lam, and its neurons; None where they have none."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        breakpoints = np.asarray(self.breakpoints)
        if not breakpoints.size or lam >= breakpoints[0]:
            empty = active_system.empty(host, lam)
            if host.largest(empty.residual) <= lam * (1 + 1e-8):
                return empty, []
        near = (low * (1 - 1e-8) <= lam) & (lam <= high * (1 + 1e-8))
        for s in np.flatnonzero(near):
            used = np.asarray(self.blocks[s]) < len(host.factors)
            walls, blocks = np.asarray(self.walls[s])[used], np.asarray(self.blocks[s])[used]
            neurons = [Neuron(int(b), on) for b, on in zip(blocks, walls, strict=True)]
            sizes, u = np.asarray(self.sizes[s])[used], np.asarray(self.directions[s])[used]
            sizes = sizes / np.abs(host.factors[blocks])
            zero = np.zeros(len(host.X))
            point: ActivePoint | None = ActivePoint(float(low[s]), sizes, u, zero, zero)
            ratio = (lam / low[s]) ** 0.1
            for step in range(1, 11):  # in steps, each near enough for Newton's method
                if point is not None:
                    target = lam if step == 10 else float(low[s] * ratio**step)
                    point = active_system.solve_equations(host, neurons, point, target)
            if point is not None:
                return point, neurons
        last = np.min(low, initial=host.largest(active_system.empty(host, lam).residual))
        if lam >= last * (1 - 1e-8):
            return None
        raise ValueError(
            f"lam is {lam:g}; the path was followed down to {last:g}: "
            "pass a smaller lam_min or a larger max_events to follow_path, or use solve."
        )


@on_host()
def follow_path(program: Program, lam_min: Any = None, *, max_events: int = 1000) -> FollowedPath:
    r"""The exact path of optimal networks from `lambda_max` down, with all breakpoints.

    Between breakpoints the optimum is an analytic function of lam, computed to rounding at any of
    them; breakpoints (a neuron is born or dies, a sample reaches or leaves the wall of a neuron,
    the correlation of another block touches lam and falls again) are located to about nine digits.
    For small and middling problems: a breakpoint takes some tens of milliseconds to a second, and
    there are several for every neuron. For a grid of lams, use `solve_path`.

    Args:
        program: a `ConvexProgram` or `GatedProgram` in float64, concrete.
        lam_min: scalar > 0, where to stop; default a hundredth of `lambda_max`.
        max_events: stop after so many breakpoints.

    Returns:
        `FollowedPath`; look at ``complete``. Where the optimal network is not unique it follows one
        of independent features, a vertex of the optimal set.

    Raises:
        ValueError, TypeError: as `solve`; TypeError for float32 and traced arguments.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.eye(3)
        >>> program = jr.ConvexProgram(X, np.asarray([3.0, 4.0, -2.0]), jr.enumerate_patterns(X))
        >>> path = jr.follow_path(program, 0.1)
        >>> path.breakpoints.round(6).tolist(), path.kinds
        ([5.0, 2.0], ('born', 'born'))
        >>> np.asarray(path(1.0).fit).round(6).tolist()  # y (1 - lam / ||y||) on each sign of y
        [2.4, 3.2, -1.0]

    Reference: Park and Hastie (2007) for predictor-corrector paths; the events are in
    `jaxrelu.paths.exact.breakpoints`, the equations in `jaxrelu.paths.exact.active_system`.
    """
    check_known_program(program)
    check_double(program)
    check_no_free_blocks(program, "follow_path")
    check_no_kinks(program.loss, "follow_path")
    max_events = count(max_events, "max_events")
    host = active_system.host_program(program)
    if lam_min is None:
        top = host.largest(active_system.empty(host, 1.0).residual)
        lam_min = 0.01 * top if top > 0 else 1.0
    lowest = float(check_lam(program, lam_min, "lam_min"))
    stretches, events, complete = walk(program, host, lowest, max_events)
    stretches, events = split_at_touches(host, stretches, events)
    return _assemble(program, host, stretches, events, complete)


def _assemble(
    program: Program,
    host: HostProgram,
    stretches: list[Stretch],
    events: list[Event],
    complete: bool,
) -> FollowedPath:
    (n, d), total = host.X.shape, len(host.factors)
    shapes = [shape(host, stretch) for stretch in stretches]
    S, K = len(stretches), max([len(stretch.neurons) for stretch in stretches], default=0)
    blocks = np.full((S, K), total, np.int32)
    sizes, directions = np.zeros((S, K)), np.zeros((S, K, d))
    walls = np.zeros((S, K, n), bool)
    for s, (neurons, _, low) in enumerate(stretches):
        k = len(neurons)
        blocks[s, :k] = [neuron.block for neuron in neurons]
        sizes[s, :k] = low.sizes * np.abs(host.factors[blocks[s, :k]])
        directions[s, :k] = low.directions
        walls[s, :k] = np.reshape([neuron.walls for neuron in neurons], (k, n))
    jumps = np.zeros(len(events))
    for e, event in enumerate(events):
        above = [s for s in stretches if s.low.lam >= event.lam * (1 - 1e-9)]
        below = [s for s in stretches if s.high.lam <= event.lam * (1 + 1e-9)]
        if above and below:
            jumps[e] = jump(host, above[-1], below[0])

    def column(values: list[Any], dtype: Any) -> Array:
        return jnp.asarray(np.asarray(values, dtype))

    return FollowedPath(
        program,
        column([event.lam for event in events], float),
        column([event.kind for event in events], np.int32),
        column([event.block for event in events], np.int32),
        column([event.sample for event in events], np.int32),
        jnp.asarray(jumps),
        column([stretch.high.lam for stretch in stretches], float),
        column([stretch.low.lam for stretch in stretches], float),
        jnp.asarray(blocks),
        jnp.asarray(sizes),
        jnp.asarray(directions),
        jnp.asarray(walls),
        column([found.num_directions for found in shapes], np.int32),
        column([found.support_size for found in shapes], np.int32),
        column([found.rank for found in shapes], np.int32),
        column([found.is_unique for found in shapes], bool),
        column([found.ambiguous for found in shapes], bool),
        complete,
    )
