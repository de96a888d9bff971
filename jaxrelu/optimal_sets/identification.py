r"""From one answer to all optimal networks: directions, coefficients, and what can be told.

The directions and the polytope are those of `jaxrelu.optimal_sets.optimal_set`. Neurons lie on the
walls of their cones as a rule, and then the same direction comes from several cells: directions are
told apart by sign and angle *before* anything is counted, or the polytope has spurious dimensions
and a unique network looks like many.

Reference: Mishkin and Pilanci (ICML 2023), Theorem 3.1 and Section 3, with the duplicates on
walls corrected.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.core.budgets import Limit
from jaxrelu.core.options import count, limit
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.cones import block_patterns
from jaxrelu.geometry.host import polytopes
from jaxrelu.geometry.host.directions import distinct
from jaxrelu.geometry.host.projection import cone_rows, project
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.geometry.host.walls import EXACT, walls_of
from jaxrelu.losses.base import same_gradient, total_curvature
from jaxrelu.optimal_sets.checks import check_optimum
from jaxrelu.optimal_sets.optimal_set import OptimalSet
from jaxrelu.paths.certify import certify
from jaxrelu.paths.path import solve_path
from jaxrelu.programs.certificates import Certificate
from jaxrelu.programs.optimality import block_correlations
from jaxrelu.programs.penalties import block_factors
from jaxrelu.programs.program import Program, fit, residual_at, sample_weights
from jaxrelu.programs.solution import Solution, solution_in_units
from jaxrelu.programs.units import in_units, out_of_units

# ||q|| >= lam (1 - this) belongs to the equicorrelation set.
_TIGHT = 1e-6
# Correlations between the two are too close to call: they are known to `_POLISHED`.
_DOUBTFUL = 1e-5
# What a gap may be, at the least, of the objective; `solve` stops there by default.
_OPTIMAL = 1e-6
# What the answer must be polished to before anything is identified by it.
_POLISHED = 1e-7
_CLOSED = 1e-12
# Nodes times directions: half a minute of the integer program.
_NODES = 300_000


@on_host()
def optimal_set(
    program: Program,
    solution: Solution,
    *,
    max_nodes: int | None = None,
    max_seconds: float | None = None,
) -> OptimalSet:
    """The set of all optimal networks of a program, from one certified answer.

    The answer is solved further, to the rounding of float64, before anything is identified by it.

    Args:
        program: a `ConvexProgram` or `GatedProgram` in float64, concrete.
        solution: its `Solution` at one lam, with status OPTIMAL.
        max_nodes: of the search for the smallest network, an integer program; by default 300,000
            over the number of directions, and no limit where `max_seconds` is given. 0 for none,
            and then `minimal_width` is that of a vertex.
        max_seconds: of the same; no limit by default.

    Returns:
        `OptimalSet`; look at `ambiguous`.

    Raises:
        ValueError, TypeError: a solution that is not OPTIMAL, of a batch, or of another program
            (it is certified anew); float32, in which equality of correlations cannot be decided.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> optima.dimension, optima.is_unique, optima.minimal_width
        (1, False, 1)

    Reference: Mishkin and Pilanci (ICML 2023), Theorem 3.1.
    """
    check_optimum(program, solution)
    max_nodes = None if max_nodes is None else count(max_nodes, "max_nodes", least=0)
    seconds = None if max_seconds is None else limit(max_seconds, "max_seconds")
    given, (program, units) = program, in_units(program)
    users_lam, solution = solution.lam, solution_in_units(solution, units)
    lam = float(solution.lam)
    # Without a tolerance the solver goes on for as long as its gap falls; that of a path takes as
    # many slots as the support needs.
    polished = solve_path(program, [lam], rtol=0.0, atol=0.0, init=solution)[0]
    claimed = _certified(program, solution, polished.certificate)
    # A gap is of second order in the error of the residual: of two that are next to nothing, that
    # of the answer as given may be the smaller one and its residual far less exact.
    if not _relative_gap(polished) <= max(_CLOSED, _relative_gap(claimed)):
        polished = claimed
    factor = np.asarray(block_factors(program))
    q = _correlations(program, polished.residual, lam, factor)
    size = np.linalg.norm(q, axis=1)
    tight = np.flatnonzero(size >= lam * (1 - _TIGHT))
    doubtful = bool(np.any((size < lam * (1 - _TIGHT)) & (size > lam * (1 - _DOUBTFUL))))
    directions = q[tight] / size[tight, None]
    signs = factor[tight]
    features, gates = _features(program, directions, signs, tight)
    first, member_of = distinct(directions, signs, None if program.has_cones else features)

    # Blocks with weights w in the penalty are w theta from here on.
    weights = np.array(polished.weights).reshape(-1, q.shape[1])
    weights /= np.where(factor == 0, np.inf, np.abs(factor))[:, None]
    along = np.maximum(np.sum(weights[tight] * directions, axis=1), 0.0)
    # At an optimum nothing lies along other directions, and no correlation exceeds lam.
    total = float(np.sum(np.linalg.norm(weights, axis=1)))
    weights[tight] -= along[:, None] * directions
    stray = float(np.sum(np.linalg.norm(weights, axis=1)))
    excess = float(np.max(size, initial=0.0)) / lam - 1.0
    gap = _relative_gap(polished)
    closed = gap <= _CLOSED or int(polished.status) == Status.PRECISION_FLOOR
    coefficients: Floats = np.zeros(first.size)
    np.add.at(coefficients, member_of, along)
    direction_of = np.full(len(q), -1, np.int32)
    direction_of[tight] = member_of
    directions, signs, features = directions[first], signs[first], features[:, first]
    weight = np.asarray(sample_weights(program))
    fits = _optimal_fits(program, polished.fit)
    P = polytopes.polytope(features, coefficients, fits.low, fits.high)
    inside, support, agree = polytopes.relative_interior(P)
    low, high = _fixed_where_all_agree(fits, np.asarray(polished.fit), P, inside)
    dimension = inside.moves.shape[1]
    basis, interior = np.zeros((first.size, dimension)), np.zeros(first.size)
    basis[support], interior[support] = inside.moves, inside.start[: inside.num]
    if max_nodes is None and seconds is None:
        max_nodes = _NODES // max(1, inside.num)
    sparse, exact, nodes = polytopes.fewest(inside, max_nodes, seconds)
    ended_by = Limit.NONE
    if not exact:
        spent = max_nodes is not None and nodes >= max_nodes
        ended_by = Limit.NODES if spent else Limit.NONE if seconds is None else Limit.SECONDS
    close_calls = {
        f"the gap is {gap:.1e} of the objective": not closed,
        "weights do not lie along their correlations": not stray <= _POLISHED * total,
        "a correlation exceeds lam": not excess <= _POLISHED,
        "a correlation is nearly lam": doubtful,
        "a coefficient is nearly zero": not agree,
        "features are nearly dependent": not (P.clear and inside.clear),
        "a sample's fit is nearly where the loss turns linear": fits.close,
        "the loss is linear at a sample's fit and has no same_gradient": fits.unknown,
    }
    doubts = tuple(sentence for sentence, fails in close_calls.items() if fails)
    fewest = np.zeros(first.size)
    fewest[support] = np.where(sparse > polytopes.ZERO * inside.size, sparse, 0.0)

    own = np.abs(signs)
    if program.block_weights is not None and dimension:
        # Orthonormal where coefficients are those of the weights themselves.
        basis = np.linalg.qr(own[:, None] * basis)[0]

    def out(values: Any, exponent: Any) -> Array:
        return out_of_units(jnp.asarray(values), exponent)

    return OptimalSet(
        directions=jnp.asarray(directions),
        signs=jnp.asarray(np.sign(signs)),
        features=out(features / own, units.features),
        coefficients=out(own * coefficients, units.weights),
        interior=out(own * interior, units.weights),
        fewest=out(own * fewest, units.weights),
        support=jnp.asarray(support),
        basis=jnp.asarray(basis),
        gates=None if gates is None else jnp.asarray(gates[:, first]),
        direction_of=jnp.asarray(direction_of.reshape(program.block_shape)),
        X=jnp.asarray(given.X),
        counts=jnp.asarray(weight > 0),
        fit=out(polished.fit, units.fit),
        fit_low=out(low, units.fit),
        fit_high=out(high, units.fit),
        residual=out(polished.residual, units.residual),
        lam=jnp.asarray(users_lam),
        rank=int(np.sum(support)) - dimension,
        dimension=dimension,
        is_unique=dimension == 0,
        minimal_width=int(np.sum(fewest > 0)),
        minimal_width_exact=exact,
        ambiguous=bool(doubts),
        ended_by=ended_by,
        doubts=doubts,
    )


class _Fits(NamedTuple):
    """Fits with the optimal residual: low <= f <= high, (n,) each, of no width where l is curved.

    Attributes:
        low: -inf for none.
        high: +inf for none.
        close: the fit of some sample is as near to an end of a linear piece as it is known.
        unknown: the loss is linear at some fit, and does not say from where to where.
    """

    low: Floats
    high: Floats
    close: bool
    unknown: bool


def _optimal_fits(program: Program, f: Array) -> _Fits:
    y, weight = jnp.asarray(program.y), jnp.asarray(sample_weights(program))

    def interval(moved: float) -> tuple[Floats, Floats]:
        low, high = same_gradient(program.loss, f + moved, y, weight)
        return np.asarray(low), np.asarray(high)

    low, high = interval(0.0)
    near = _POLISHED * float(jnp.max(jnp.abs(f), initial=0.0))
    sides = [np.less(*interval(moved)) for moved in (-near, near)]
    close = bool(np.any((sides[0] != sides[1]) | (sides[0] != (low < high))))
    curvature = np.asarray(total_curvature(program.loss, f, y, weight))
    unknown = bool(np.any((low == high) & ~(curvature > 0)))
    return _Fits(low, high, close, unknown)


def _fixed_where_all_agree(
    fits: _Fits, f: Floats, P: polytopes.Polytope, inside: polytopes.Polytope
) -> tuple[Floats, Floats]:
    """The ends of the fits, both at the fit where no member is away from an end."""
    before, after = (np.bincount(part.sample, minlength=len(f)) for part in (P, inside))
    agreed = np.isfinite(fits.low) | np.isfinite(fits.high)
    agreed &= (after == 0) | (after < before)
    return np.where(agreed, f, fits.low), np.where(agreed, f, fits.high)


def _relative_gap(solution: Solution) -> float:
    """The certified gap over the objective."""
    return float(solution.certificate.gap) / abs(float(solution.certificate.upper) or 1.0)


def _certified(program: Program, solution: Solution, known: Certificate) -> Solution:
    """The solution with the fit, residual and bounds that its weights have in this program.

    A lower bound of the optimum that is `known` already counts: where lam is small, one from the
    residual of the weights alone can be far off.
    """
    own = certify(program, solution.lam, solution.weights)
    low = max(own, known, key=lambda bounds: float(bounds.lower))
    gap, claimed = float(own.upper - low.lower), float(solution.certificate.gap)
    if not gap <= 10 * max(claimed, _OPTIMAL * abs(float(own.upper))):
        raise ValueError(
            f"solution is not optimal for this program: its gap here is {gap:.3g} of "
            f"{float(own.upper):.6g}, not {claimed:.3g}. Pass jr.solve(program, lam) of this very "
            "program."
        )
    f = fit(program, own.weights)
    proof = Certificate(low.lower, own.upper, own.upper - low.lower, own.weights, low.dual)
    return replace(
        solution, weights=own.weights, fit=f, residual=residual_at(program, f), certificate=proof
    )


def _correlations(program: Program, residual: Array, lam: float, factor: Floats) -> Floats:
    """Block correlations over weights (b, d), those near lam by non-negative least squares.

    These are exact to rounding: on data with many equal rows the batched projection can stop at six
    digits.
    """
    found = np.array(block_correlations(program, residual))
    q: Floats = np.abs(factor)[:, None] * found.reshape(-1, found.shape[-1])
    if not program.has_cones:
        return q
    X, r = np.asarray(program.X), np.asarray(residual)
    masks, pattern = np.asarray(program.patterns.masks) > 0, block_patterns(program.block_shape)
    unit = unit_rows(X)[0]
    for block in np.flatnonzero(np.linalg.norm(q, axis=1) > lam * (1 - 10 * _DOUBTFUL)):
        mask = masks[:, int(pattern[block])]
        cone = cone_rows(mask, unit)
        c = factor[block] * (X.T @ (mask * r))
        # Rows far from the projection have no multiplier, and are checked.
        near = cone @ q[block] <= 1e-3 * lam
        exact = project(cone[near], c)
        if np.min(cone @ exact, initial=0.0) >= -1e-9 * lam:
            q[block] = exact
    return q


def _features(
    program: Program, directions: Floats, signs: Floats, blocks: NDArray[np.int64]
) -> tuple[Floats, Floats | None]:
    """Signed features (n, k) of blocks, and the gates of a gated program."""
    X = np.asarray(program.X)
    linear = X @ directions.T
    if program.has_cones:
        # On a wall, what is left is rounding.
        wall = walls_of(unit_rows(X)[0], directions, EXACT).T
        return signs * np.where(wall, 0.0, np.maximum(linear, 0.0)), None
    masks = np.asarray(program.patterns.masks)[:, blocks]
    return signs * masks * linear, np.asarray(program.patterns.gates)[:, blocks]
