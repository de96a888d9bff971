"""What a closed form returns: a network, its value, and the dual point that proves it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import check_per_row, known_floats, known_matrix
from jaxrelu.core.pytrees import register
from jaxrelu.geometry.host.scaling import exponents, power_down, power_up, roots, times_power
from jaxrelu.losses.base import Loss, homogeneity, scaled
from jaxrelu.losses.checks import check_one_output, check_target, checked_loss
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.networks.network import Network
from jaxrelu.programs.units import Units

# A relative gap below this is rounding.
_EXACT = 1e-6
_LARGEST = 1e300


@register
@dataclass(frozen=True, eq=False)
class ClosedForm:
    r"""An optimal network with its proof, lower <= optimum <= value.

    The training problem is min over f of loss(f) + lam R(f), R(f) the least sum of ||u_k|| |a_k|
    of the networks of fit f; its dual is max -loss*(-r) subject to polar(r) <= lam, where

        polar(r) = max over ||u|| <= 1 of |r . (X u)_+|, of c outputs ||r^T (X u)_+||.

    Attributes:
        network: `Network`, hidden (d, m), balanced, without zero neurons.
        fit: (n,), its predictions on X; of c outputs (n, c), as the residual.
        residual: (n,), minus a (sub)gradient of the loss at the fit: the dual point.
        lam: the strength of the regularization.
        value: the objective at the network.
        lower: the dual value at the residual, scaled by min(1, lam / polar): a lower bound.
        polar: polar(residual), or an upper bound of it; at most lam at an optimum.
    """

    network: Network
    fit: Array
    residual: Array
    lam: float
    value: float
    lower: float
    polar: float

    @property
    def upper(self) -> float:
        """The value, by the name that it has in a certificate."""
        return self.value

    @property
    def gap(self) -> float:
        """Value - lower; at rounding level the network is proven to be optimal."""
        return self.value - self.lower

    @property
    def exact(self) -> bool:
        """Whether the gap is below 1e-6 of the value, which is finite."""
        return math.isfinite(self.value) and self.gap <= _EXACT * abs(self.value)


class Samples(NamedTuple):
    """Checked arguments, on the host: X (n, d) and y (n,) or (n, c) in float64, the dtype of X.

    All but what `network` and `answer` return is in `units`, powers of two.
    """

    X: Floats
    y: Floats
    dtype: Any
    loss: Loss
    units: Units = Units.of(0, 0, 0, 0)

    def scaled(self, lam: float = 1.0, *, keep_data: bool = False) -> tuple[Samples, float]:
        """The samples in numbers around one, and lam there.

        Raises:
            ValueError: lam is too small for its value to be told from zero.
        """
        of_data = 0 if keep_data else int(exponents(self.X))
        units = Units.of(of_data, int(exponents(self.y)), 0, homogeneity(self.loss))
        # From a lam this large on no neuron is worth it.
        strength = min(float(times_power(lam, -units.lam)), _LARGEST)
        if not strength >= 1 / _LARGEST:
            raise ValueError(
                f"lam is {lam:g}, which cannot be told from zero beside data of the order of "
                f"2^{units.features} and residuals of 2^{units.residual}: pass a larger one."
            )
        X, y = np.ldexp(self.X, -units.features), np.ldexp(self.y, -units.fit)
        loss = scaled(self.loss, jnp.asarray(-units.fit))
        return self._replace(X=X, y=y, loss=loss, units=units), strength

    def loss_value(self, fit: Floats) -> float:
        """The loss, a sum over samples."""
        return float(jnp.sum(self.loss.value(self.cast(fit), self.cast(self.y))))

    def residual(self, fit: Floats) -> Floats:
        """Minus the gradient of the loss, (n,)."""
        return -np.asarray(self.loss.gradient(self.cast(fit), self.cast(self.y)), np.float64)

    def dual_value(self, dual: Floats) -> float:
        """-sum_i l*(-dual_i, y_i)."""
        return -float(jnp.sum(self.loss.conjugate(self.cast(-dual), self.cast(self.y))))

    def cast(self, values: Any) -> Array:
        """As a JAX array of the dtype of X."""
        return jnp.asarray(values, self.dtype)

    def network(self, directions: Floats, coefficients: Floats) -> Network:
        """Balanced neurons: unit directions (d, m), signed sizes (m,); zero sizes are left out."""
        kept = np.asarray(coefficients) != 0
        sizes = np.asarray(coefficients, float)[kept]
        root = self.roots(np.abs(sizes))
        hidden = np.asarray(directions, float)[:, kept] * root[None]
        return Network(self.cast(hidden), self.cast(np.sign(sizes) * root))

    def roots(self, sizes: Floats) -> Floats:
        """The lengths (m,) of both layers of balanced neurons of some sizes.

        Raises:
            ValueError: they are out of the range of the dtype of X.
        """
        with np.errstate(over="ignore"):
            root: Floats = roots(sizes, self.units.weights).astype(self.dtype)
        if not np.all(np.isfinite(root) & (root > 0)):
            raise ValueError(
                f"the weights of the network are out of the range of {np.dtype(self.dtype)}: "
                "scale X or y by powers of two."
            )
        return root

    def answer(
        self,
        lam: float,
        directions: Floats,
        coefficients: Floats,
        polar: Callable[[Floats], float],
        dual: Floats | None = None,
    ) -> ClosedForm:
        """The answer of neurons (d, m) with signed sizes (m,), and an upper bound of the polar.

        The dual point is the residual, or what is given where the loss has no derivative.
        """
        lengths = np.linalg.norm(directions, axis=0)
        sizes = coefficients * lengths
        fit = np.maximum(self.X @ directions, 0.0) @ coefficients
        r = self.residual(fit) if dual is None else dual
        size = float(polar(r))
        lower = self.dual_value(r * min(1.0, lam / size) if size > 0 else r)
        value = self.loss_value(fit) + lam * float(np.sum(np.abs(sizes)))
        network = self.network(directions / np.where(lengths > 0, lengths, 1.0), sizes)
        return self.closed_form(network, fit, r, lam, value, lower, size)

    def closed_form(
        self,
        network: Network,
        fit: Floats,
        residual: Floats,
        lam: float,
        value: float,
        lower: float,
        polar: float,
    ) -> ClosedForm:
        """The answer in the units that were given; bounds are rounded outward."""
        units = self.units
        return ClosedForm(
            network,
            self.cast(times_power(fit, units.fit)),
            self.cast(times_power(residual, units.residual)),
            float(times_power(lam, units.lam)),
            power_up(value, units.objective),
            power_down(lower, units.objective),
            power_up(polar, units.lam),
        )


def checked(X: Any, y: Any, loss: Loss, name: str = "X") -> Samples:
    """The arguments on the host; the data under the name that they have.

    Raises:
        ValueError, TypeError: shapes that do not fit, NaN or inf, a target that the loss cannot
            take.
    """
    loss = checked_loss(loss)
    check_one_output(loss)
    data, target = known_matrix(X, name), known_floats(y, "y")
    check_per_row(target, "y", len(data), name)
    check_target(loss, target)
    return Samples(np.asarray(data, np.float64), np.asarray(target, np.float64), data.dtype, loss)


def checked_outputs(X: Any, Y: Any) -> tuple[Samples, float]:
    """The arguments with a target (n, c) of the squared loss, and the eps of the coarser dtype.

    Raises:
        ValueError, TypeError: as `checked`; a target that is no matrix of n rows.
    """
    data, target = known_matrix(X, "X"), known_matrix(Y, "Y", "(n, c)")
    if len(target) != len(data):
        raise ValueError(
            f"Y has shape {target.shape}, but X has {len(data)} rows: pass one row a sample."
        )
    samples = Samples(
        np.asarray(data, np.float64), np.asarray(target, np.float64), data.dtype, SquaredLoss()
    )
    return samples, max(float(np.finfo(dtype).eps) for dtype in (data.dtype, target.dtype))


def tolerance(samples: Samples) -> float:
    """Entries of unit rows this near are equal: 200 eps of the dtype of X."""
    return 200.0 * float(np.finfo(samples.dtype).eps)
