"""How a solve ended: one integer an answer, with a sentence and a remedy for each."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Status(IntEnum):
    """The end of a solve, stored as int32 in `Solution.status`.

    OPTIMAL means ``upper - lower <= atol + rtol * |upper|``, where `upper` is the objective at the
    returned feasible weights and `lower` the dual value at a feasible dual point, both evaluated
    after the last step. A non-finite value never carries OPTIMAL.

    Example:
        >>> from jaxrelu.core.status import Status
        >>> Status(0).name
        'OPTIMAL'
    """

    OPTIMAL = 0
    MAX_STEPS = 1
    STALLED = 2
    PRECISION_FLOOR = 3
    NONFINITE = 4
    INVALID = 5
    SKIPPED = 6
    INFEASIBLE = 7
    UNBOUNDED = 8


_DESCRIPTIONS = {
    Status.OPTIMAL: "the duality gap is within the tolerance",
    Status.MAX_STEPS: "the limit on steps was reached before the duality gap closed",
    Status.STALLED: "steps no longer lower the duality gap, which is above the tolerance",
    Status.PRECISION_FLOOR: (
        "the duality gap is above the tolerance but below the rounding error of its two values"
    ),
    Status.NONFINITE: "a NaN or an infinity appeared in the data or in the iterates",
    Status.INVALID: "lam is not a positive finite number",
    Status.SKIPPED: "the path stopped early, before this lam was solved",
    Status.INFEASIBLE: "no network over these patterns meets the constraints, as `farkas` proves",
    Status.UNBOUNDED: (
        "nothing bounds the blocks that are not penalised, and so there is no lower bound either"
    ),
}

_REMEDIES = {
    Status.OPTIMAL: "nothing to change",
    Status.MAX_STEPS: (
        "raise max_steps, start from the solution at a larger lam (init=), or loosen rtol"
    ),
    Status.STALLED: (
        "allow more non-zero blocks with solver=ActiveNewton(capacity=...), scale the columns of "
        "X to unit variance, start from the solution at a larger lam (init=), or loosen rtol"
    ),
    Status.PRECISION_FLOOR: (
        "pass X as float64 (with jax_enable_x64 on), or loosen rtol or atol; "
        "no more digits can be had at this precision"
    ),
    Status.NONFINITE: (
        "check X, y, sample_weight, lam and init for NaN and infinity, and the scale of X and y"
    ),
    Status.INVALID: (
        "pass lam > 0, for example 1e-6 * lambda_max(program) to come close to lam = 0"
    ),
    Status.SKIPPED: "turn the early stop of the path off, or pass fewer lams",
    Status.INFEASIBLE: (
        "pass more patterns or features (a column of ones, for example), or use solve, which "
        "allows for errors"
    ),
    Status.UNBOUNDED: (
        "leave out columns of X that depend on each other, make fewer block_weights zero, or pass "
        "small ones in their place; labels that unpenalised blocks separate have no optimum"
    ),
}


def describe(status: Any) -> str:
    """What happened, in one clause.

    Args:
        status: a `Status`, or an integer or integer scalar array that stands for one.

    Returns:
        A clause without a full stop.

    Raises:
        ValueError: the number is no member of `Status`.

    Example:
        >>> from jaxrelu.core.status import describe
        >>> describe(0)
        'the duality gap is within the tolerance'
    """
    return _DESCRIPTIONS[Status(int(status))]


def remedy(status: Any) -> str:
    """What to change next, in one clause.

    Args:
        status: a `Status`, or an integer or integer scalar array that stands for one.

    Returns:
        A clause without a full stop.

    Raises:
        ValueError: the number is no member of `Status`.

    Example:
        >>> from jaxrelu.core.status import Status, remedy
        >>> remedy(Status.OPTIMAL)
        'nothing to change'
    """
    return _REMEDIES[Status(int(status))]
