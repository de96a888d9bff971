r"""Continuous paths of constant objective between two networks of one fit and penalty.

In convex weights the networks of one fit form a polytope, where a straight line joins any two. In
a network of m slots the line needs a slot for every direction of either end. With m >= rank + 1
slots a longer way needs no more: each end is first pruned to a vertex inside its own support, then
simplex pivots lead from vertex to vertex, every edge of which has at most rank + 1 directions; a
direction enters through an empty slot, and neurons change slots by splitting, (sqrt(1 - t) u,
sqrt(t) u). The rank is that of the features with a row of ones below them, which holds the penalty;
of optimal networks it is the rank of the features alone. Through a network of m* neurons, the
sparsest one say, two vertices of at most M* neurons are joined by lines in m* + M* slots.

Along every piece each slot keeps its direction and its coefficient moves linearly, so that fit and
penalty, linear in the coefficients, stay what they are at both ends.

Reference: Kim, Mishkin and Pilanci (ICLR 2025), on connectivity of optimal sets and the width that
it takes; the construction, with rank + 1 in the place of n + 1, is the one above.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import known_matrix
from jaxrelu.core.options import count
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host import vertex_walks
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import Network, checked_input
from jaxrelu.networks.network_paths import NetworkPath, Slots, as_path, as_slots, totals


@on_host()
def connect(
    a: Network, b: Network, X: Any, *, width: int | None = None, via: Network | None = None
) -> NetworkPath:
    """A continuous path between two networks of equal fit; fit and penalty are constant along it.

    Two optimal networks of one program have that property. The number of slots that always suffices
    is one more than the rank of the features of both.

    Args:
        a: a `Network`, balanced (see `balance`); the path at t = 0.
        b: a `Network`, balanced, of the same fit on X and the same penalty; the path at t = 1.
        X: array (n, d).
        width: slots of the networks on the path; default the larger of both. Ends with fewer get
            empty ones.
        via: a `Network`, balanced, of the same fit and penalty, that the path goes through; the
            `sparsest` one needs fewer slots than the rank where there are vertices of few neurons.

    Returns:
        `NetworkPath`, and in ``width_needed`` how many neurons it has at most.

    Raises:
        ValueError: the fits or penalties differ, a network is not balanced, or the slots are too
            few: the message has a width that suffices. Below it the set of optimal networks may be
            disconnected.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]], "float32")
        >>> two = jr.Network(X.T * np.float32(1.5**0.5), np.full(2, 1.5**0.5, "float32"))
        >>> between = np.asarray([[0.5], [0.75**0.5]], "float32")
        >>> one = jr.Network(between * np.float32(3**0.5), np.full(1, 3**0.5, "float32"))
        >>> path = jr.connect(two, one, X, width=3)
        >>> bool(abs(path(0.3)(X) - one(X)).max() < 1e-5)
        True

    Reference: Kim, Mishkin and Pilanci (ICLR 2025), Theorem 2, by construction.
    """
    given = {"a": a, "b": b} if via is None else {"a": a, "via": via, "b": b}
    matrix = known_matrix(X, "X")
    for name, network in given.items():
        check_known_network(network, name)
        checked_input(matrix, network, name)
    data = np.asarray(matrix, np.float64)
    networks = list(given.values())
    widest = max(network.num_neurons for network in networks)
    m = widest if width is None else count(width, "width", widest, "the slots of all networks")
    directions, signs, slots = as_slots(networks, m)
    features = signs * np.maximum(data @ directions.T, 0.0)
    # In units in which the fit weighs as much as the penalty.
    longest = float(np.max(np.linalg.norm(features, axis=0), initial=0.0)) or 1.0
    columns = np.vstack([features / longest, np.ones(len(signs))])
    _check_ends(columns, [totals(s, len(signs)) for s in slots])

    ways = [Slots(s) for s in slots]
    for way in ways:
        way.gather()
        for corner in vertex_walks.to_vertex(columns, way.total(len(signs))):
            way.move(corner)
    first, last = ways[0], ways[-1]
    for way in ways[1:]:
        join(columns, first, way)
    pieces = first.pieces + [(which, end, start) for which, start, end in reversed(last.pieces)]
    return as_path(first, pieces, directions, signs, a.hidden.dtype)


def join(columns: Floats, first: Slots, last: Slots) -> None:
    """Moves one vertex in slots to another of the same columns @ a, slot for slot.

    Raises:
        ValueError: too few slots.
    """
    k, m = columns.shape[1], len(first.slots)
    start, goal = first.total(k), last.total(k)
    if np.sum((start > 0) | (goal > 0)) <= m:
        first.move(goal)
    else:
        rank = vertex_walks.rank(columns)
        if m < rank + 1:
            raise ValueError(
                f"{m} slots are too few for a path that is known to exist: pass width={rank + 1}, "
                "one more than the rank of the features, or a network of few neurons as via."
            )
        # What is not in the goal costs one: a vertex of no cost is the goal.
        corners, _ = vertex_walks.pivots(columns, start, np.where(goal > 0, 0.0, 1.0))
        for corner in [*corners, goal]:
            first.move(corner)
    first.arrange(last.slots)


def _check_ends(columns: Floats, totals: list[Floats]) -> None:
    fits = [columns[:-1] @ total for total in totals]
    scale = max(float(np.linalg.norm(fits[0])), 1e-300)
    if any(np.linalg.norm(fit - fits[0]) > 1e-4 * scale for fit in fits):
        raise ValueError("the networks have different fits on X: pass optimal ones.")
    penalty = float(totals[0].sum())
    if any(abs(total.sum() - penalty) > 1e-4 * max(penalty, 1e-300) for total in totals):
        raise ValueError("the networks have different penalties: pass optimal ones.")
