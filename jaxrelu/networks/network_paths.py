"""Networks in slots, and continuous paths of them, made of pieces.

Along a piece every slot keeps its direction u and its sign s, and its coefficient a >= 0 moves
linearly; the neuron is (sqrt(a) u, s sqrt(a)). Fit and penalty sum a are then linear along it. A
slot takes another direction where its coefficient is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.core.numerics import safe_sqrt
from jaxrelu.core.options import scalar
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.host.directions import distinct
from jaxrelu.geometry.host.scaling import unit_rows
from jaxrelu.networks.network import Network

_EMPTY = 1e-10


@register
@dataclass(frozen=True, eq=False)
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
        place = jnp.clip(scalar(t, "t", self.start.dtype), 0.0, 1.0) * pieces
        piece = jnp.minimum(jnp.floor(place).astype(jnp.int32), pieces - 1)
        part = place - piece.astype(place.dtype)
        leaves = (self.directions, self.signs, self.start, self.end)
        # NumPy's arrays have no traced places.
        directions, signs, start, end = (jnp.asarray(leaf)[piece] for leaf in leaves)
        root = safe_sqrt(jnp.maximum((1 - part) * start + part * end, 0.0))
        return Network(directions * root[None], signs * root)


class Slots:
    """Slots (direction, coefficient) that move piece by piece, and the pieces so far.

    Attributes:
        slots: one (index of the direction, coefficient) a slot; a zero coefficient is an empty one.
        pieces: (direction of every slot, coefficients at the start, at the end) of each piece.
    """

    def __init__(self, slots: list[tuple[int, float]]) -> None:
        self.slots = list(slots)
        self.pieces: list[tuple[NDArray[np.int64], Floats, Floats]] = []

    def total(self, k: int) -> Floats:
        """Coefficients (k,) of all directions."""
        return totals(self.slots, k)

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
        """Every direction into the slot that it has in another arrangement, by splitting.

        Raises:
            ValueError: all slots are full, so that no neuron can step aside.
        """
        goal = {e: place for place, (e, c) in enumerate(wanted) if c > 0}
        while True:
            here = {e: place for place, (e, c) in enumerate(self.slots) if c > 0}
            away = [e for e in goal if here.get(e) != goal[e]]
            if not away:
                return
            empty = [place for place, (_, c) in enumerate(self.slots) if c == 0]
            free = [e for e in away if goal[e] in empty]
            if not empty:
                raise ValueError(
                    f"width is {len(self.slots)}, and neurons change places: pass "
                    f"width={len(self.slots) + 1}, so that a slot is empty."
                )
            # Where all goals are taken, one neuron steps aside.
            e, place = (free[0], goal[free[0]]) if free else (away[0], empty[0])
            after = [(f, 0.0 if f == e else c) for f, c in self.slots]
            after[place] = (e, self.slots[here[e]][1])
            self.step(after)


def totals(slots: list[tuple[int, float]], k: int) -> Floats:
    """Coefficients (k,) of all directions, of neurons in slots."""
    total = np.zeros(k)
    for e, c in slots:
        total[e] += c
    return total


def as_slots(
    networks: list[Network], m: int
) -> tuple[Floats, Floats, list[list[tuple[int, float]]]]:
    """Distinct signed directions of all networks, and each as m slots (direction, coefficient).

    Raises:
        ValueError: a network is not balanced.
    """
    units, signs, sizes = [], [], []
    for network in networks:
        hidden = np.asarray(network.hidden, np.float64)
        output = np.asarray(network.output, np.float64)
        unit, norms = unit_rows(hidden.T)
        scale = max(float(norms.max(initial=0.0)), 1e-300)
        if np.any(np.abs(norms - np.abs(output)) > 1e-5 * scale):
            raise ValueError("a network is not balanced: pass jr.balance(network).")
        size = norms * np.abs(output)
        size[size <= _EMPTY * scale**2] = 0.0
        units.append(unit)
        signs.append(np.sign(output))
        sizes.append(size)
    size = np.concatenate(sizes)
    used = np.flatnonzero(size > 0)
    if not used.size:
        empty = [(0, 0.0)] * m
        return np.zeros((1, units[0].shape[1])), np.ones(1), [list(empty) for _ in networks]
    unit, sign = np.vstack(units)[used], np.concatenate(signs)[used]
    first, member_of = distinct(unit, sign)
    place: NDArray[np.int64] = np.zeros(size.size, np.int64)
    place[used] = member_of
    all_slots, start = [], 0
    for own in sizes:
        rows = range(start, start + own.size)
        slots = [(int(place[row]), float(size[row])) for row in rows]
        all_slots.append(slots + [(0, 0.0)] * (m - own.size))
        start += own.size
    return unit[first], sign[first], all_slots


def as_path(
    way: Slots, pieces: list[Any], directions: Floats, signs: Floats, dtype: Any
) -> NetworkPath:
    """The path through pieces; one that stands still at `way` where there are none."""
    if not pieces:
        coefficients = np.array([c for _, c in way.slots])
        pieces = [(np.array([e for e, _ in way.slots]), coefficients, coefficients)]
    which = np.stack([piece[0] for piece in pieces])
    start, end = (np.stack([piece[k] for piece in pieces]) for k in (1, 2))
    return NetworkPath(
        jnp.asarray(np.swapaxes(directions[which], 1, 2), dtype),
        jnp.asarray(signs[which], dtype),
        jnp.asarray(start, dtype),
        jnp.asarray(end, dtype),
        jnp.asarray(int(np.max(np.sum((start > 0) | (end > 0), axis=1))), jnp.int32),
    )
