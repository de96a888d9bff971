"""Equal signed directions found, so that a neuron counts once however often it is written down.

A neuron on a wall belongs to several cells and appears in each of them, a split neuron in several
slots; supports, ranks and dimensions mean something only after such copies are one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats

# Unit directions this near are one direction.
SAME = 1e-6
_SAME_FEATURES = 1e-5


def distinct(
    directions: Floats,
    signs: Floats,
    features: Floats | None = None,
    biases: Floats | None = None,
    rounding: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One row of each set of equal signed directions.

    Args:
        directions: (k, d), unit norm.
        signs: (k,), +1 or -1.
        features: (n, k), given where equal directions with other features are other neurons, as
            those of a gated program are.
        biases: (k,), over the norms of the weights, given where there are some: they say how far a
            wall is from the origin, and are equal up to rounding alone, wherever that is.
        rounding: of the biases, relative.

    Returns:
        The rows that stand for the others, ascending, and for every row the place of its own among
        them, (k,).
    """
    # Equal directions have nearly equal projections: only neighbours in that order are compared.
    probe = np.random.default_rng(0).standard_normal(directions.shape[1])
    key = directions @ probe
    window = SAME * float(np.linalg.norm(probe))
    order = np.lexsort((key, signs))
    group = np.arange(len(order))
    for place, row in enumerate(order):
        for other in order[:place][::-1]:
            if signs[other] != signs[row] or key[row] - key[other] > window:
                break
            if np.linalg.norm(directions[row] - directions[other]) > SAME:
                continue
            if biases is not None and not _as_far(biases[row], biases[other], rounding):
                continue
            if features is None or _equal(features[:, row], features[:, other]):
                group[row] = group[other]
                break
    first = np.full(len(order), len(order))
    np.minimum.at(first, group, np.arange(len(order)))
    first, member_of = np.unique(first[group], return_inverse=True)
    return first.astype(np.int64), member_of.astype(np.int64)


def _as_far(a: float, b: float, rounding: float) -> bool:
    return bool(abs(a - b) <= rounding * max(abs(a), abs(b)))


def _equal(a: Floats, b: Floats) -> bool:
    return bool(np.linalg.norm(a - b) <= _SAME_FEATURES * np.linalg.norm(a))
