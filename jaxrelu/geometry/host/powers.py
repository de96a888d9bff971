r"""Powers of two taken out of a training problem, so that its numbers are around one.

With X = 2^a X', sample weights c = 2^w c' and, for the squared loss, y = 2^b y', the problem

    minimise  sum_i c_i loss(f_i, y_i) + lam sum ||theta||

is that of X', y', c' and lam' = 2^-(a + b + w) lam, with theta = 2^(b - a) theta', fits and
residuals f = 2^b f', r = 2^(b + w) r', and values times 2^(2 b + w). All of that is exact, but for
results that are out of range then; for other losses b = 0.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxrelu.core.aliases import FloatArray
from jaxrelu.geometry.host.scaling import exponents


class Powers(NamedTuple):
    """The exponents a, b and w of the module's docstring."""

    data: int = 0
    target: int = 0
    weight: int = 0

    @property
    def lam(self) -> int:
        """That of lam and of correlations."""
        return self.data + self.target + self.weight

    @property
    def weights(self) -> int:
        """That of convex weights, and of products ||u|| |a| of a network."""
        return self.target - self.data

    @property
    def residual(self) -> int:
        """That of residuals and dual points."""
        return self.target + self.weight

    @property
    def value(self) -> int:
        """That of the objective and its bounds."""
        return 2 * self.target + self.weight


def powers_of(
    X: FloatArray, y: FloatArray | None = None, sample_weight: FloatArray | None = None
) -> Powers:
    """The powers with which the largest entries of X', y' and c' lie between a half and one.

    Args:
        X: (n, d).
        y: (n,), of the squared loss; None for others, whose targets have a scale of their own.
        sample_weight: (n,), or None.
    """
    data, target, weight = (
        0 if array is None else int(exponents(array)) for array in (X, y, sample_weight)
    )
    return Powers(data, target, weight)
