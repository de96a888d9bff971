"""Whether a sample lies on the wall of a direction, and how near counts as on it.

Most neurons of an optimum lie on walls, and computed ones lie beside them. By how much depends on
how a direction was found, and that is why there is more than one tolerance; each bounds the cosine
|x_i . u| / (||x_i|| ||u||).
"""

from __future__ import annotations

import numpy as np

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.geometry.host.scaling import unit_rows

# A projection by active sets is on its walls up to rounding, some 1e-14, and an event of a followed
# path is located to 1e-10: what is further away than this is beside the wall.
EXACT = 1e-9
# A certified answer was moved off its walls, into its cones, by less than this; it is also how far
# the neurons of a network from elsewhere may be off, where the caller does not say.
SOLVED = 1e-7
# An answer of relative gap g has directions good to g^(1/2), and searches ask for g = 1e-8. What is
# taken for a wall here is tried and judged by its value, so that too many cost time alone.
NEARBY = 1e-4
# An answer solved as far as it goes, whose accuracy is not known: one after the other, until the
# equations on the walls have a solution that is optimal.
IN_TURN = (1e-7, 1e-6, 1e-5)


def walls_of(unit: Floats, directions: Floats, tolerance: float) -> Bools:
    """Samples on the walls of directions, |x_i . u| <= tolerance ||x_i|| ||u||; none that is zero.

    Args:
        unit: (n, d), the `unit_rows` of X.
        directions: (d,) or (m, d), of any length; a zero direction lies on every wall.
        tolerance: one of those above, or the caller's.

    Returns:
        (n,) or (m, n) bool.
    """
    along = unit_rows(np.atleast_2d(directions))[0] @ unit.T
    on: Bools = (np.abs(along) <= tolerance) & np.any(unit != 0, axis=1)
    return on.reshape(*directions.shape[:-1], len(unit))
