r"""The optimal set: every optimal network of a program at one lam, as a polytope.

The residual r of all optima is the same, so are the block correlations q_b, and the optimal weights
are exactly

    theta_e = a_e u_e,   u_e = q_e / lam,   a >= 0,   sum_e a_e z_e = fit,   z_e = s_e (X u_e)_+

over the equicorrelation set E = {b : ||q_b|| = lam}; all other blocks are zero. Since <r, z_e> =
lam for each of them, sum_e a_e is constant, and the set of coefficients is a polytope whose
vertices have linearly independent features. With weights w of blocks in the penalty, lam is lam w_e
here, and sum_e w_e a_e is constant.

The residual is one, the fit need not be: where the loss has linear pieces, minus its gradient is
r_i on an interval, and on such a sample low_i <= sum_e a_e z_ei <= high_i is all that optimality
asks for. It is a polytope still, bounded since lam sum_e a_e is at most the objective.

Reference: Mishkin and Pilanci (ICML 2023), Theorem 3.1, with the sign of the fit corrected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Bools, Floats
from jaxrelu.core.budgets import Limit
from jaxrelu.core.checks import as_float
from jaxrelu.core.numerics import matmul
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.host import polytopes
from jaxrelu.geometry.host.polytopes import Polytope


@register
@dataclass(frozen=True, eq=False)
class OptimalSet:
    """All optimal networks of a program at one lam, after removal of duplicate directions.

    Coefficients a (k,) >= 0 are optimal if and only if ``features @ a`` is between `fit_low` and
    `fit_high`, which are `fit` but where the loss is linear; the neuron of direction e then has the
    convex weight ``a[e] * directions[e]``. Where all have one fit, their sum is the same for all,
    and where blocks have weights in the penalty, that of w_e a_e is.

    Attributes:
        directions: (k, d), unit norm, the equicorrelation set E.
        signs: (k,), +1 or -1.
        features: (n, k), signs * relu(X directions^T), or with the gates of a gated program.
        coefficients: (k,), those of the solution that was given, polished.
        interior: (k,), a member with every coefficient of the support positive.
        fewest: (k,), a member of `minimal_width` neurons.
        support: (k,) bool, directions that some optimal network uses.
        basis: (k, dimension), orthonormal: every member is ``interior + basis @ t``.
        gates: (d, k) of a gated program, None for a ReLU program.
        direction_of: (2, p) or (p,) int32, the direction that each block of the convex weights has
            in every optimum, -1 for blocks that are zero. A direction on a wall has several blocks.
        X: (n, d), the samples.
        counts: (n,) bool, the samples of positive weight.
        fit: (n,), that of the solution that was given.
        fit_low: (n,), what no optimal network's fit is below: `fit` where all have that, else the
            end of the loss's linear piece, -inf where it has none, as on samples of no weight.
        fit_high: (n,), what none is above, +inf where there is no end.
        residual: (n,), minus the gradient of the loss at `fit`.
        lam: scalar.
        rank: rank of the features of the support where all optimal networks have one fit.
        dimension: of the polytope, the number of directions of the support minus `rank`.
        is_unique: whether there is one optimal network (up to permutation and splitting).
        minimal_width: the fewest neurons of an optimal network.
        minimal_width_exact: False where that is an upper bound.
        ambiguous: the solution could not be polished to the accuracy that identification needs; a
            correlation, a coefficient, a singular value or the distance of a fit from a linear
            piece of the loss is too close to call; or the loss has linear pieces and does not say
            where they end (`same_gradient` in `jaxrelu.losses.base`). The integers are then a
            guess.
        ended_by: which budget ended the search for the minimal width, `Limit.NONE` where none did.
        doubts: what makes it ambiguous, a sentence each; empty where nothing does.
    """

    directions: Array
    signs: Array
    features: Array
    coefficients: Array
    interior: Array
    fewest: Array
    support: Array
    basis: Array
    gates: Array | None
    direction_of: Array
    X: Array
    counts: Array
    fit: Array
    fit_low: Array
    fit_high: Array
    residual: Array
    lam: Array
    rank: int = field(metadata={"static": True})
    dimension: int = field(metadata={"static": True})
    is_unique: bool = field(metadata={"static": True})
    minimal_width: int = field(metadata={"static": True})
    minimal_width_exact: bool = field(metadata={"static": True})
    ambiguous: bool = field(metadata={"static": True})
    ended_by: Limit = field(default=Limit.NONE, metadata={"static": True})
    doubts: tuple[str, ...] = field(default=(), metadata={"static": True})

    def features_at(self, X: Any) -> Array:
        """What each direction computes on other samples X (m, d): array (m, k)."""
        X, features = as_float(X, "X"), self.directions.shape[1]
        if X.ndim != 2 or X.shape[1] != features:
            raise ValueError(
                f"X has shape {X.shape}, but the optimal set is one of {features} features: pass "
                f"an array of shape (m, {features})."
            )
        linear = matmul(X, self.directions.T)
        if self.gates is None:
            return self.signs[None] * jax.nn.relu(linear)
        # A product with the mask, not a `where`: a closed gate must not hide a NaN.
        return self.signs[None] * (matmul(X, self.gates) >= 0).astype(linear.dtype) * linear


def inside_support(optima: OptimalSet) -> tuple[Polytope, Bools]:
    """The polytope over the support, around its interior member."""
    support = np.asarray(optima.support)
    features = np.asarray(optima.features)[:, support]
    low, high = np.asarray(optima.fit_low), np.asarray(optima.fit_high)
    return polytopes.polytope(features, np.asarray(optima.interior)[support], low, high), support


def on_all_directions(points: Floats, support: Bools) -> Array:
    """Coefficients of the support, (num, .), with zeros elsewhere: (num, k)."""
    whole = np.zeros((len(points), support.size))
    whole[:, support] = points
    return jnp.asarray(whole)
