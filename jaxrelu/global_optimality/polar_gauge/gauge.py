r"""The polar gauge of a residual: how far a network is from globally optimal hangs on this number.

    R(r) = max over ||u||_2 <= 1 of |r^T (X u)_+|

is the largest correlation of r with any neuron of unit length, whatever its activation pattern. A
residual is dual feasible for the non-convex training problem if and only if R(r) <= lam, and
lambda_max = R(-gradient of the loss at zero). In general computing it is as hard as learning a
halfspace; here it comes as an interval that is valid whenever the work stops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Limit, Meter, check_budget
from jaxrelu.core.checks import check_per_row, known_doubles
from jaxrelu.core.options import check_key, count, nonnegative
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.checks import host_matrix
from jaxrelu.geometry.host.scaling import exponents, power_down, power_up, scaled, times_power
from jaxrelu.global_optimality.polar_gauge.ascent import ascent_cost, local_maxima
from jaxrelu.global_optimality.polar_gauge.branch_and_bound import Interval, branch_and_bound
from jaxrelu.global_optimality.polar_gauge.exact import exact_gauge
from jaxrelu.global_optimality.polar_gauge.lines import Arrangement, values_of
from jaxrelu.global_optimality.polar_gauge.relaxations import Lifted, cheap_bound

# Branch and bound ends on data of a hundred rows up to this rank, and gets most of the time there.
# Beyond it ends on some dozens of lines, and gets what the semidefinite program leaves.
_BRANCHING_RANK = 8
_BRANCHING_LINES = 64
_RELAXED_SHARE = 0.25
_STALLED_AFTER = 8
_STALLED = 0.005
# A step of the lifted program takes 25 eigendecompositions of this size, two minutes beyond it.
_MOST_LIFTED = 1500
WORK = 30.0


@dataclass(frozen=True, eq=False)
class PolarGauge:
    """An interval that holds the polar gauge.

    Attributes:
        lower: |r^T (X u)_+| at `direction`.
        upper: an upper bound of R(r).
        direction: (d,), unit u.
        sign: +1 or -1, the sign of r^T (X u)_+ there.
        lower_by: how the direction was found.
        upper_by: how the upper bound was.
        closed: whether upper <= lower (1 + rtol), up to the rounding of both.
        ended_by: the `Limit` that left the interval open; NONE where it is closed, where its upper
            bound is below the threshold, and where no method had anything left to do.
    """

    lower: float
    upper: float
    direction: Floats
    sign: float
    lower_by: str
    upper_by: str
    closed: bool
    ended_by: Limit


@on_host()
def polar_gauge(
    X: ArrayLike,
    r: ArrayLike,
    *,
    key: Array | None = None,
    num_starts: int = 256,
    starts: ArrayLike | None = None,
    rtol: float = 1e-6,
    threshold: float = 0.0,
    max_work: float | None = None,
    max_seconds: float | None = None,
) -> PolarGauge:
    r"""Bounds of R(r) = max over ||u|| <= 1 of |r^T (X u)_+|, equal where it can be computed.

    In this order: closed forms (orthogonal rows, one line, spike-free rows), a sweep in two
    dimensions, one around every wall in three, all cells where they can be listed; then local
    maxima from many starts for the lower bound, and for the upper bound sums of norms, a spectral
    bound, the lifted semidefinite program, and branch and bound over signs for data of low rank or
    of some dozens of rows.

    Args:
        X: (n, d), float32 or float64.
        r: (n,), the residual.
        key: of the random starts; a fixed one by default.
        num_starts: random directions from which maxima are looked for.
        starts: (m, d), float32 or float64, more directions, for example the hidden weights of a
            network (transposed).
        rtol: relative width of the interval at which to stop.
        threshold: a value of interest, in units of R: an upper bound below it is good enough.
        max_work: a limit on work, counted from the shapes of arrays, in units of about a second of
            one core: the same on any machine, so that one key gives one answer. Default 30, and no
            limit where `max_seconds` is given.
        max_seconds: no new work is begun after this time; no limit by default. The interval is
            valid whatever ends it.

    Returns:
        `PolarGauge`.

    Raises:
        ValueError, TypeError: an argument has the wrong shape or dtype, is not finite or is
            traced: what is done next hangs on values throughout.

    Example:
        >>> import numpy as np, jaxrelu as jr
        >>> X, r = np.eye(3, dtype="float32"), np.asarray([3.0, 4.0, -2.0], "float32")
        >>> found = jr.polar_gauge(X, r)
        >>> round(found.lower, 4), round(found.upper, 4), found.upper_by
        (5.0, 5.0, 'orthogonal rows')

    Reference: the dual constraint of Pilanci and Ergen, ICML 2020, and its polar set in Ergen and
    Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22 (2021).
    """
    data = host_matrix(X, "X")
    residual = known_doubles(r, "r")
    check_per_row(residual, "r", len(data))
    meter = check_budget(max_work, max_seconds, WORK)
    rtol, threshold = nonnegative(rtol, "rtol"), nonnegative(threshold, "threshold")
    num_starts = count(num_starts, "num_starts")
    if key is not None:
        check_key(key)
    # Powers of two from the rows to the residual, where they matter, and out of all of it.
    data = np.asarray(data, np.float64)
    lengths = exponents(data, axis=1)[:, 0]
    matters = (residual != 0) & np.any(data != 0, axis=1)
    size = max((np.frexp(residual)[1] + lengths)[matters].tolist(), default=0)
    residual = times_power(np.where(matters, residual, 0.0), lengths - size)
    arrangement = Arrangement(scaled(data, axis=1))
    guesses = np.zeros((0, data.shape[1]))
    if starts is not None:
        guesses = host_matrix(starts, "starts", "(m, d)").astype(np.float64)
        if guesses.shape[1] != data.shape[1]:
            raise ValueError(
                f"starts has shape {guesses.shape}, but X has {data.shape[1]} features: pass one "
                "direction per row, starts.T if they are columns."
            )
    seed = 0 if key is None else np.asarray(jax.random.key_data(key)).tolist()
    rng = np.random.default_rng(seed)
    found, _ = gauge(
        arrangement,
        residual,
        random_starts(rng, num_starts + len(guesses), arrangement, guesses),
        rtol=rtol,
        threshold=float(times_power(threshold, -size)),
        meter=meter,
    )
    return scaled_gauge(found, size)


def scaled_gauge(found: PolarGauge, exponent: int) -> PolarGauge:
    """An interval times 2^exponent, rounded outward; open where an end is out of range then."""
    lower, upper = power_down(found.lower, exponent), power_up(found.upper, exponent)
    in_range = math.isfinite(upper) and (lower > 0 or found.lower == 0)
    return replace(found, lower=lower, upper=upper, closed=found.closed and in_range)


def random_starts(
    rng: np.random.Generator, number: int, arrangement: Arrangement, given: Floats | None = None
) -> Floats:
    """So many directions (m, k) in the row space: those given (., d), then random ones."""
    found = rng.standard_normal((number, arrangement.rank)) @ arrangement.spread
    if given is not None:
        inside = given[:number] @ arrangement.basis
        found[: len(inside)] = inside
    return found


def gauge(
    arrangement: Arrangement,
    r: Floats,
    starts: Floats,
    *,
    rtol: float,
    threshold: float,
    meter: Meter,
    narrow: bool = True,
    keep: int = 64,
) -> tuple[PolarGauge, tuple[Floats, Floats]]:
    """`polar_gauge` of data prepared once, and maxima it met: values (m,), directions (m, k).

    Without `narrow` the upper bound is a cheap one where the gauge is not computed exactly.
    """
    lines = arrangement.lines
    front, back = arrangement.sides(r)
    slack, rounding = arrangement.slack(r), 0.0
    exact = exact_gauge(arrangement, front, back, meter)
    if exact is not None:
        interval, by = Interval(exact.lower, exact.upper, exact.direction, 0), (exact.method,) * 2
        rounding = exact.rounding
        order = np.argsort(-exact.values)[:keep]
        maxima = exact.values[order], exact.directions[order]
    else:
        both = arrangement.two_sided
        count = (1 + both) * len(lines)
        meter.spend(ascent_cost(len(starts), count, arrangement.rank, keep))
        ascended = local_maxima(
            jnp.asarray(np.concatenate([lines, -lines]) if both else lines),
            jnp.asarray(np.concatenate([front, back]) if both else front),
            jnp.asarray(starts),
            keep,
        )
        maxima = ascended.values, ascended.directions
        cheap, name = cheap_bound(lines, front, back)
        best = Interval(float(maxima[0][0]), cheap, maxima[1][0], 0)
        interval, by = best, ("local maxima", name)
        if narrow:
            interval, by = _narrow(
                arrangement, front, back, best, name, rtol=rtol, threshold=threshold, meter=meter
            )
    direction = arrangement.basis @ interval.direction
    if not direction.any():  # all directions are equal: zero data or a zero residual
        direction[0] = 1.0
    value = float(values_of(lines, front, back, interval.direction[None])[0])
    upper = max(interval.upper, abs(value)) + slack
    closed = upper <= abs(value) * (1 + rtol) + 2 * slack + rounding
    found = PolarGauge(
        lower=max(abs(value) - slack, 0.0),
        upper=upper,
        direction=direction,
        sign=math.copysign(1.0, value),
        lower_by=by[0],
        upper_by=by[1],
        closed=closed,
        ended_by=Limit.NONE if closed or upper <= threshold else meter.refused,
    )
    return found, maxima


def branches(arrangement: Arrangement) -> bool:
    """Whether branch and bound is of use, if it comes to that."""
    return arrangement.rank <= _BRANCHING_RANK or len(arrangement.lines) <= _BRANCHING_LINES


def _narrow(
    arrangement: Arrangement,
    front: Floats,
    back: Floats,
    best: Interval,
    name: str,
    *,
    rtol: float,
    threshold: float,
    meter: Meter,
) -> tuple[Interval, tuple[str, str]]:
    """Brings the upper bound down, cheap means first, and says which one did it."""
    by = ("local maxima", name)
    low_rank = arrangement.rank <= _BRANCHING_RANK
    relaxing = meter.share(_RELAXED_SHARE) if low_rank else meter

    def enough(upper: float) -> bool:
        return upper <= max(best.lower * (1 + rtol), threshold)

    if not enough(best.upper):
        relaxed = _semidefinite(arrangement.lines, front, back, relaxing, enough)
        if relaxed < best.upper:
            best, by = best._replace(upper=relaxed), (by[0], "semidefinite program")
    if branches(arrangement) and not enough(best.upper) and meter.allows():
        found = branch_and_bound(
            arrangement.lines,
            front,
            back,
            best,
            rtol=rtol,
            meter=meter,
            threshold=threshold,
        )
        by = (
            "branch and bound" if found.lower > best.lower else by[0],
            "branch and bound" if found.upper < best.upper else by[1],
        )
        best = found
    return best, by


def _semidefinite(
    lines: Floats,
    front: Floats,
    back: Floats,
    meter: Meter,
    enough: Callable[[float], bool],
) -> float:
    """The larger of the lifted bounds of both signs, worked on in turns while they fall.

    Infinite where the program is too large for a step of it.
    """
    cost = Lifted.cost(*lines.shape)
    if len(lines) > _MOST_LIFTED or not meter.allows(cost):
        return np.inf
    programs = [Lifted.of(lines, sign * front, sign * back) for sign in (1.0, -1.0)]
    history: list[float] = []
    while meter.allows(cost):
        meter.spend(cost)
        worst = max(programs, key=lambda program: program.bound)
        worst.improve()
        history.append(max(program.bound for program in programs))
        if enough(history[-1]):
            break
        before = history[-2 * _STALLED_AFTER] if len(history) >= 2 * _STALLED_AFTER else np.inf
        if history[-1] > (1 - _STALLED) * before:
            break
    return max(program.bound for program in programs)
