r"""Continuous paths of constant objective between two networks of one fit and penalty.

In convex weights the networks of one fit form a polytope, where a straight line joins any two. In
a network of m slots the line needs a slot for every direction of either end. With m >= rank + 1
slots a longer way needs no more: each end is first pruned to a vertex inside its own support, then
simplex pivots lead from vertex to vertex, every edge of which has at most rank + 1 directions; a
direction enters through an empty slot, and neurons change slots by splitting, (sqrt(1 - t) u,
sqrt(t) u). The rank is that of the features with a row of ones below them, which holds the penalty;
of optimal networks it is the rank of the features alone.

Along every piece each slot keeps its direction and its coefficient moves linearly, so that fit and
penalty, linear in the coefficients, stay what they are at both ends.

Reference: Kim, Mishkin and Pilanci (ICLR 2025), on connectivity of optimal sets and the width that
it takes; the construction, with rank + 1 in the place of n + 1, is the one above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu.networks import Network
from jaxrelu.numerics import as_float
from jaxrelu.pytrees import register

Floats = NDArray[np.float64]

_SAME_ANGLE = 1e-6
_RANK = 1e-9
_ZERO = 1e-10


@register
@dataclass(frozen=True)
class NetworkPath:
    """A continuous path of networks; call it with t in [0, 1].

    Attributes:
        directions: (pieces, d, m), the direction of every slot along every piece.
        signs: (pieces, m), of its output.
        start, end: (pieces, m), coefficients at both ends of a piece; linear between.
        width_needed: scalar int32, the largest number of neurons along the path.
    """

    directions: Array
    signs: Array
    start: Array
    end: Array
    width_needed: Array

    def __call__(self, t: Any) -> Network:
        """The network at t, a scalar; traceable."""
        pieces = self.start.shape[0]
        place = jnp.clip(jnp.asarray(t, self.start.dtype), 0.0, 1.0) * pieces
        piece = jnp.minimum(jnp.floor(place).astype(jnp.int32), pieces - 1)
        part = place - piece.astype(place.dtype)
        a = (1 - part) * self.start[piece] + part * self.end[piece]
        root = jnp.sqrt(jnp.maximum(a, 0.0))
        return Network(self.directions[piece] * root[None], self.signs[piece] * root)


def connect(a: Network, b: Network, X: Any, *, width: int | None = None) -> NetworkPath:
    """A continuous path between two networks of equal fit; fit and penalty are constant along it.

    Two optimal networks of one program have that property. The number of slots that always suffices
    is one more than the rank of the features of both.

    Args:
        a: a `Network`, balanced (see `balance`); the path at t = 0.
        b: a `Network`, balanced, of the same fit on X and the same penalty; the path at t = 1.
        X: array (n, d).
        width: slots of the networks on the path; default the larger of both. Ends with fewer get
            empty ones.

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
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((a, b, X))):
        raise TypeError("connect looks at values: call it on the host, outside jit and vmap.")
    data = np.asarray(as_float(X, "X"), np.float64)
    m = max(a.num_neurons, b.num_neurons) if width is None else width
    if m < max(a.num_neurons, b.num_neurons):
        raise ValueError(f"width is {m}; pass at least the slots of both networks.")
    directions, signs, slots = _dictionary([a, b], m)
    columns = np.vstack([signs * np.maximum(data @ directions.T, 0.0), np.ones(len(signs))])
    totals = [_totals(s, len(signs)) for s in slots]
    _check_ends(columns, totals)

    ways = [_Way(m, s) for s in slots]
    for way, total in zip(ways, totals, strict=True):
        way.gather()
        for point in _to_vertex(columns, total):
            way.move(point)
    first, last = ways
    joint = np.flatnonzero((first.total(len(signs)) > 0) | (last.total(len(signs)) > 0))
    if joint.size <= m:
        first.move(last.total(len(signs)))
    else:
        rank = int(np.linalg.matrix_rank(columns, tol=_RANK * np.linalg.norm(columns, 2)))
        if m < rank + 1:
            raise ValueError(
                f"{m} slots are too few for a path that is known to exist: pass width={rank + 1}, "
                "one more than the rank of the features."
            )
        for point in _pivots(columns, first.total(len(signs)), last.total(len(signs))):
            first.move(point)
    first.arrange(last.slots)
    pieces = first.pieces + [(which, end, start) for which, start, end in reversed(last.pieces)]
    if not pieces:
        coefficients = np.array([c for _, c in first.slots])
        pieces = [(np.array([e for e, _ in first.slots]), coefficients, coefficients)]
    which = np.stack([piece[0] for piece in pieces])
    start, end = (np.stack([piece[k] for piece in pieces]) for k in (1, 2))
    dtype = a.hidden.dtype
    return NetworkPath(
        jnp.asarray(np.swapaxes(directions[which], 1, 2), dtype),
        jnp.asarray(signs[which], dtype),
        jnp.asarray(start, dtype),
        jnp.asarray(end, dtype),
        jnp.asarray(int(np.max(np.sum((start > 0) | (end > 0), axis=1))), jnp.int32),
    )


class _Way:
    """Slots (direction, coefficient) that move piece by piece, and the pieces so far."""

    def __init__(self, m: int, slots: list[tuple[int, float]]) -> None:
        self.slots = list(slots)
        self.m = m
        self.pieces: list[tuple[NDArray[np.int64], Floats, Floats]] = []

    def total(self, k: int) -> Floats:
        return _totals(self.slots, k)

    def step(self, after: list[tuple[int, float]]) -> None:
        """One piece: every slot keeps its direction, or is empty before and takes that of after."""
        which = np.array(
            [f if c == 0 else e for (e, c), (f, _) in zip(self.slots, after, strict=True)]
        )
        start = np.array([c for _, c in self.slots])
        end = np.array([c for _, c in after])
        if np.any(start != end):
            self.pieces.append((which, start, end))
        self.slots = [(int(e), float(c)) for e, c in zip(which, end, strict=True)]

    def gather(self) -> None:
        """Collinear neurons into the first slot of each direction."""
        home: dict[int, int] = {}
        after = [(e, 0.0) for e, _ in self.slots]
        for place, (e, c) in enumerate(self.slots):
            if c > 0:
                place = home.setdefault(e, place)
                after[place] = (e, after[place][1] + c)
        self.step(after)

    def move(self, target: Floats) -> None:
        """Straight to other coefficients; directions that enter take empty slots."""
        home = {e: place for place, (e, c) in enumerate(self.slots) if c > 0}
        empty = [place for place, (_, c) in enumerate(self.slots) if c == 0]
        after = [(e, 0.0) for e, _ in self.slots]
        for e in np.flatnonzero(target > 0):
            place = home[int(e)] if int(e) in home else empty.pop(0)
            after[place] = (int(e), float(target[e]))
        self.step(after)

    def arrange(self, wanted: list[tuple[int, float]]) -> None:
        """Every direction into the slot that it has in another arrangement, by splitting."""
        goal = {e: place for place, (e, c) in enumerate(wanted) if c > 0}
        while True:
            here = {e: place for place, (e, c) in enumerate(self.slots) if c > 0}
            away = [e for e in goal if here.get(e) != goal[e]]
            if not away:
                return
            empty = [place for place, (_, c) in enumerate(self.slots) if c == 0]
            free = [e for e in away if goal[e] in empty]
            # Where all goals are taken, one neuron steps aside.
            e, place = (free[0], goal[free[0]]) if free else (away[0], empty[0])
            after = [(f, 0.0 if f == e else c) for f, c in self.slots]
            after[place] = (e, self.slots[here[e]][1])
            self.step(after)


def _totals(slots: list[tuple[int, float]], k: int) -> Floats:
    total = np.zeros(k)
    for e, c in slots:
        total[e] += c
    return total


def _dictionary(
    networks: list[Network], m: int
) -> tuple[Floats, Floats, list[list[tuple[int, float]]]]:
    """Distinct signed directions of all networks, and each as m slots (direction, coefficient)."""
    directions: list[Floats] = []
    signs: list[float] = []
    all_slots = []
    for network in networks:
        hidden = np.asarray(network.hidden, np.float64)
        output = np.asarray(network.output, np.float64)
        norms = np.linalg.norm(hidden, axis=0)
        scale = max(float(norms.max(initial=0.0)), 1e-300)
        if np.any(np.abs(norms - np.abs(output)) > 1e-5 * scale):
            raise ValueError("a network is not balanced: pass jr.balance(network).")
        slots = []
        for u, w, norm in zip(hidden.T, output, norms, strict=True):
            if norm * abs(w) <= _ZERO * scale**2:
                slots.append((0, 0.0))
                continue
            unit, sign = u / norm, float(np.sign(w))
            same = [
                e
                for e, other in enumerate(directions)
                if signs[e] == sign and np.linalg.norm(other - unit) <= _SAME_ANGLE
            ]
            if not same:
                directions.append(unit)
                signs.append(sign)
            slots.append((same[0] if same else len(signs) - 1, float(norm * abs(w))))
        all_slots.append(slots + [(0, 0.0)] * (m - len(slots)))
    if not directions:
        directions, signs = [np.zeros(hidden.shape[0])], [1.0]
    return np.stack(directions), np.array(signs), all_slots


def _check_ends(columns: Floats, totals: list[Floats]) -> None:
    fits = [columns[:-1] @ total for total in totals]
    scale = max(float(np.linalg.norm(fits[0])), 1e-300)
    if np.linalg.norm(fits[0] - fits[1]) > 1e-4 * scale:
        raise ValueError("the networks have different fits on X: pass two optimal ones.")
    if abs(totals[0].sum() - totals[1].sum()) > 1e-4 * max(totals[0].sum(), 1e-300):
        raise ValueError("the networks have different penalties: pass two optimal ones.")


def _to_vertex(columns: Floats, start: Floats) -> list[Floats]:
    """Points on the way to a vertex inside the support of a start; linear between them."""
    a = start.copy()
    points: list[Floats] = []
    while True:
        alive = np.flatnonzero(a > 0)
        part = columns[:, alive]
        if not alive.size:
            return points
        _, sigma, right = np.linalg.svd(part / np.linalg.norm(part, axis=0), full_matrices=True)
        if alive.size <= int(np.sum(sigma > _RANK * sigma[0])):
            return points
        beta = right[-1] / np.linalg.norm(part, axis=0)
        beta = beta if np.max(beta) > 0 else -beta
        falling = beta > 1e-12 * np.max(np.abs(beta))
        ratio = np.where(falling, a[alive] / np.where(falling, beta, 1.0), np.inf)
        gone = int(np.argmin(ratio))
        a[alive] = np.maximum(a[alive] - ratio[gone] * beta, 0.0)
        a[alive[gone]] = 0.0
        a[a <= _ZERO * np.sum(a)] = 0.0
        points.append(a.copy())


def _pivots(columns: Floats, start: Floats, goal: Floats) -> list[Floats]:
    """Vertices from one to another by the simplex method; its objective is what is off the goal."""
    left, sigma, _ = np.linalg.svd(columns, full_matrices=False)
    rank = int(np.sum(sigma > _RANK * sigma[0]))
    Z = left[:, :rank].T @ columns
    cost = np.where(goal > 0, 0.0, 1.0)
    basis = _extended(Z, list(np.flatnonzero(start > 0)), rank)
    a, points = start.copy(), []
    while cost @ a > _ZERO * np.sum(a):
        prices = np.linalg.solve(Z[:, basis].T, cost[basis])
        reduced = cost - Z.T @ prices
        candidates = [e for e in np.flatnonzero(reduced < -1e-9) if e not in basis]
        if not candidates:
            break
        enter = candidates[0]  # Bland's rule: no cycles
        change = np.linalg.solve(Z[:, basis], Z[:, enter])
        falling = change > 1e-9
        ratio = np.where(falling, a[basis] / np.where(falling, change, 1.0), np.inf)
        step = float(np.min(ratio))
        leaving = min(np.flatnonzero(ratio <= step + 1e-12), key=lambda place: basis[place])
        new = a.copy()
        new[basis] = np.maximum(a[basis] - step * change, 0.0)
        new[enter] = step
        new[basis[leaving]] = 0.0
        basis[leaving] = int(enter)
        if step > 0:
            points.append(new)
        a = new
    points.append(goal)
    return points


def _extended(Z: Floats, chosen: list[int], rank: int) -> list[int]:
    """Independent columns and further ones that make them a basis."""
    basis = [int(e) for e in chosen]
    for e in range(Z.shape[1]):
        if len(basis) == rank:
            break
        trial = Z[:, [*basis, e]]
        if e not in basis and np.linalg.matrix_rank(trial, tol=1e-9) == len(basis) + 1:
            basis.append(e)
    return basis
