"""Where the optimal set changes its shape along a followed path, and where the best of it jumps.

The optimal fit is continuous in lam. The set of optimal networks is continuous wherever it is one
network, and along a stretch on which support and rank stay; at a breakpoint it can grow, for that
lam alone or from there on, and then the member of minimum norm can jump.

Reference: Mishkin and Pilanci (ICML 2023), Section 4.1, on continuity of the solution map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.geometry.host import polytopes
from jaxrelu.geometry.host.directions import distinct
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.paths.exact import active_system
from jaxrelu.paths.exact.active_system import ActivePoint, HostProgram
from jaxrelu.paths.exact.breakpoints import Stretch

# Correlations this near lam are equal to it: inside a stretch, and at a breakpoint.
_TIGHT = 1e-8
_AT_EVENT = 1e-7
# Breakpoints are known to nine digits; a smaller jump is their rounding.
_ACCURATE = 1e-5


class Dictionary(NamedTuple):
    """Distinct directions whose correlation is lam: signs (k,), features (n, k), a member (k,).

    The features of all members are between `low` and `high` (n,).
    """

    directions: Floats
    signs: Floats
    features: Floats
    coefficients: Floats
    low: Floats
    high: Floats

    def polytope(self) -> polytopes.Polytope:
        """Of the coefficients of all members."""
        return polytopes.polytope(self.features, self.coefficients, self.low, self.high)


class Shape(NamedTuple):
    """The optimal set along a stretch: how many directions, support, rank, whether one network."""

    num_directions: int
    support_size: int
    rank: int
    is_unique: bool
    ambiguous: bool


def shape(host: HostProgram, stretch: Stretch) -> Shape:
    """The shape of the optimal set in the middle of a stretch."""
    found = _dictionary(host, stretch, _middle(host, stretch), None)
    k = found.signs.size
    if k == 0:
        return Shape(0, 0, 0, True, False)
    P = found.polytope()
    inside, support, agree = polytopes.relative_interior(P)
    num, dimension = int(np.sum(support)), inside.null.shape[1]
    doubtful = not (agree and P.clear and inside.clear)
    return Shape(k, num, num - dimension, dimension == 0, doubtful)


def jump(host: HostProgram, above: Stretch, below: Stretch) -> float:
    """How far the optimal network of minimum norm jumps between two stretches, relative."""
    whole = _dictionary(host, above, above.low, None)
    if whole.polytope().null.shape[1] == 0:
        return 0.0  # one network at the breakpoint: its neighbours converge to it
    sides = []
    for stretch, end in ((above, above.low), (below, below.high)):
        tight = _tight(host, _middle(host, stretch), _TIGHT)
        sides.append(_dictionary(host, stretch, end, tight))
    return jump_between(whole, sides)


def jump_between(whole: Dictionary, sides: list[Dictionary]) -> float:
    """The largest distance of a part's minimum-norm member from that of the whole, relative."""
    least = _least_norm(whole)
    size = float(np.linalg.norm(least))
    apart = [0.0]
    for side in sides:
        both = np.vstack([whole.directions, side.directions])
        signs = np.concatenate([whole.signs, side.signs])
        _, place = distinct(both, signs)
        total = np.zeros(place.max(initial=-1) + 1)
        np.add.at(total, place[: whole.signs.size], least)
        np.add.at(total, place[whole.signs.size :], -_least_norm(side))
        apart.append(float(np.linalg.norm(total)))
    largest = max(apart) / size if size > 0 else 0.0
    return largest if largest > _ACCURATE else 0.0


def _least_norm(found: Dictionary) -> Floats:
    if found.signs.size == 0:
        return np.zeros(0)
    return polytopes.project(found.polytope(), np.zeros(found.signs.size))


def _middle(host: HostProgram, stretch: Stretch) -> ActivePoint:
    lam = float(np.sqrt(stretch.high.lam * stretch.low.lam))
    for end in (stretch.low, stretch.high):
        found = active_system.solve_equations(host, stretch.neurons, end, lam)
        if found is not None:
            return found
    return stretch.low


def _tight(host: HostProgram, point: ActivePoint, tolerance: float) -> NDArray[np.int64]:
    blocks = np.arange(len(host.factors))
    return np.flatnonzero(host.shortfalls(blocks, point.residual / point.lam) <= tolerance)


def _dictionary(
    host: HostProgram, stretch: Stretch, point: ActivePoint, blocks: NDArray[np.int64] | None
) -> Dictionary:
    """The neurons of a stretch and the directions of blocks, by default those tight at a point."""
    if blocks is None:
        blocks = _tight(host, point, _AT_EVENT if point is stretch.low else _TIGHT)
    own = np.array([neuron.block for neuron in stretch.neurons], np.int64)
    q = np.array([host.correlation(int(block), point.residual) for block in blocks])
    q = q.reshape(len(blocks), host.X.shape[1])
    u = np.vstack([point.directions, unit_rows(q)[0]])
    blocks = np.concatenate([own, blocks])
    signs = host.factors[blocks]
    features = (signs[:, None] * host.patterns[blocks] * (u @ host.X.T)).T
    first, _ = distinct(u, signs, None if host.has_cones else features)
    coefficients = np.zeros(len(blocks))
    coefficients[: len(own)] = np.maximum(point.sizes, 0.0)
    own_fits = host.same_gradient(point.fit)
    return Dictionary(u[first], signs[first], features[:, first], coefficients[first], *own_fits)
