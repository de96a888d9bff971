r"""Splines: one feature, or data of rank one, with each kind of bias and a free output constant.

For x_i = c_i ||a||, X = c a^T, networks are functions of one variable and piecewise linear,
f(x) = c + sum_k a_k (w_k x + b_k)_+. Three penalties, each a lasso over neurons of cost one:

* "free": sum |a_k| |w_k|, the bias costs nothing. Between two samples the correlation
  sum_i r_i (+-(x_i - t))_+ is linear in the kink t, and beyond them constant, since the free
  constant makes 1 . r = 0; so kinks at the samples suffice: (x - x_i)_+ and (x_i - x)_+. Without
  the constant they do not, and the infimum need not be attained: a constant then comes from ever
  larger biases, at no cost in the limit, so the value is the same with and without it.
* "penalised": sum |a_k| ||(w_k, b_k)||, the bias is the weight of a column of ones. The data have
  rank two and no finite dictionary; columns are found in the 2 n cells until none is missing.
* "none": no bias, the two columns of `jaxrelu.closed_form.rank_one_data`.

The interpolant of least norm with a free bias: with slopes s_k between neighbours,

    R = max(T, (T + S) / 2),   T = sum |s_{k+1} - s_k|,   S = |s_1 + s_{n-1}|,

since T is paid for the kinks and S - T more, halved, for slopes that they do not give.

Reference: Savarese, Evron, Soudry and Srebro, "How do infinite width bounded norm networks look in
function space?", COLT 2019, Theorem 3.1; Ergen and Pilanci, JMLR 22 (2021), whose kinks at the
samples need the output constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.closed_form.answer import Samples, checked
from jaxrelu.closed_form.dictionary import Cells, Columns, Fitted, lasso, least_polar
from jaxrelu.closed_form.lasso_of_losses import dual_value, lasso_of
from jaxrelu.closed_form.rank_one_data import line
from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import check_shape, float_array, known_matrix
from jaxrelu.core.options import check_choice, flag, positive
from jaxrelu.core.pytrees import register
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host.scaling import (
    power_down,
    power_up,
    times_power,
    unit_columns,
    unit_rows,
)
from jaxrelu.losses.base import Loss
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.networks.network import Network

_SQUARED_LOSS = SquaredLoss()
_BIASES = ("free", "penalised", "none")
# Cells of rows at a smaller angle cannot be told apart.
_PARALLEL = 1e-12


@register
@dataclass(frozen=True, eq=False)
class Spline:
    """An optimal spline as a network, with its proof, lower <= optimum <= value.

    Attributes:
        network: `Network` on [X, 1]: hidden (d + 1, m), the biases last; balanced in its penalty.
        constant: scalar, the output constant.
        knots: (m,), where the neurons bend, as x along a; infinite where they never do.
        fit: (n,), the predictions.
        residual: (n,), the dual point: minus a slope of the loss at the fit, or nu of the largest
            y . nu for interpolation.
        value: the objective, or the norm of the interpolant.
        lower: the dual value at the residual, a lower bound.
    """

    network: Network
    constant: Array
    knots: Array
    fit: Array
    residual: Array
    value: float
    lower: float

    @property
    def upper(self) -> float:
        """The value, by the name that it has in a certificate."""
        return self.value

    @property
    def gap(self) -> float:
        """Value - lower; at rounding level the spline is proven to be optimal."""
        return self.value - self.lower

    def __call__(self, X: Any) -> Array:
        """Predictions on X (n, d), or (n,) for one feature."""
        data = jnp.asarray(_matrix(X))
        check_shape(data, "X", (*data.shape[:1], self.network.hidden.shape[0] - 1), "as the data")
        ones = jnp.ones((data.shape[0], 1), data.dtype)
        return self.network(jnp.concatenate([data, ones], axis=1)) + self.constant


@on_host()
def spline(
    X: Any,
    y: Any,
    lam: Any = None,
    *,
    loss: Loss = _SQUARED_LOSS,
    bias: str = "free",
    constant: bool = True,
) -> Spline:
    r"""The optimal network of one feature, or of data of rank one: a linear spline.

    min sum_i loss(f(x_i), y_i) + lam sum_k |a_k| cost(w_k, b_k),  f(x) = c + sum a_k (w_k x +
    b_k)_+, or the f of least sum_k |a_k| cost(w_k, b_k) with f(x_i) = y_i.

    Args:
        X: array (n,), or (n, d) of rank one.
        y: array (n,).
        lam: scalar, > 0, or None for the interpolant of least norm.
        loss: a `Loss`; another one than the squared takes a lam, and no penalised bias.
        bias: "free", cost |w|; "penalised", cost ||(w, b)||; "none", b = 0.
        constant: whether c is free; zero otherwise.

    Returns:
        `Spline`. For "penalised" it is found up to a relative gap of about 1e-10, 1e-7 without lam;
        for other losses than the squared, to about 1e-9.

    Raises:
        ValueError, TypeError: data of another rank, targets that cannot be interpolated, a free
            bias without a constant whose infimum was not attained; a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> x = np.asarray([-2.0, -1.0, 0.0, 1.0, 2.0], "float32")
        >>> y = np.asarray([1.0, -1.0, 1.0, 1.0, -1.0], "float32")
        >>> round(closed_form.spline(x, y).value, 4)
        8.0

    Reference: Savarese et al. (COLT 2019); Ergen and Pilanci (JMLR 22, 2021), corrected.
    """
    check_choice(bias, "bias", _BIASES)
    constant, squared = flag(constant, "constant"), isinstance(loss, SquaredLoss)
    if not squared and (lam is None or bias == "penalised"):
        raise ValueError(
            "loss: interpolants have no loss, and a penalised bias is solved for the squared one: "
            "pass a lam, and bias='free' or 'none'."
        )
    strength = 1.0 if lam is None else positive(lam, "lam")
    samples = checked(_matrix(X), y, loss)
    # The unit of x is also that of a bias that costs something.
    samples, strength = samples.scaled(strength, keep_data=bias == "penalised")
    x, axis = line(samples)
    columns, cells = _dictionary(x, bias)
    with_constant = constant or bias == "free"
    if lam is None:
        found, value, lower = _interpolant(columns, samples.y, with_constant, cells)
    elif not squared:
        found = lasso_of(columns, samples, strength, with_constant)
        lower = dual_value(samples, found, strength, with_constant)
        fit = found.columns.features @ found.sizes + found.constant
        value = samples.loss_value(fit) + strength * float(np.sum(np.abs(found.sizes)))
    else:
        found = lasso(columns, samples.y, strength, with_constant, cells)
        scaled = found.dual * min(1.0, strength / max(found.polar, 1e-300))
        lower = float(samples.y @ scaled - 0.5 * scaled @ scaled)
        error = found.columns.features @ found.sizes + found.constant - samples.y
        value = 0.5 * float(error @ error) + strength * float(np.sum(np.abs(found.sizes)))
    if bias == "free" and not constant:
        found = _without_constant(found, x)
    return _spline(samples, found, axis, value, lower, lam is None)


@on_host()
def spline_matrix(X: Any) -> Array:
    r"""The features of all neurons that matter in one dimension with a free bias.

    F = [ (x_i - t_k)_+ , (t_k - x_i)_+ ],   t the distinct samples in ascending order

    without the two columns of zeros. The convex program of a free bias is the lasso
    min loss(F a + c) + lam ||a||_1 over a and the constant c, whatever the loss.

    Args:
        X: array (n,), or (n, d) of rank one.

    Returns:
        Array (n, 2 (m - 1)), m the number of distinct samples: kinks t_1..t_{m-1} of neurons that
        see what is larger, then t_2..t_m of those that see what is smaller.

    Raises:
        ValueError, TypeError: data of another rank; a traced argument.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> closed_form.spline_matrix(np.asarray([0.0, 1.0, 3.0], "float32")).tolist()
        [[0.0, 0.0, 1.0, 3.0], [1.0, 0.0, 0.0, 2.0], [3.0, 2.0, 0.0, 0.0]]

    Reference: Ergen and Pilanci (JMLR 22, 2021); Pilanci and Ergen (ICML 2020), one dimension.
    """
    data = known_matrix(_matrix(X), "X")
    samples, _ = checked(data, np.zeros(len(data), np.float32), _SQUARED_LOSS).scaled()
    x, _ = line(samples)
    features = _dictionary(x, "free")[0].features
    return samples.cast(times_power(features, samples.units.features))


@on_host()
def spline_norm(x: Any, y: Any) -> float:
    r"""The least norm of a spline through points, with free biases and a free constant.

    R = max(T, (T + S) / 2),  T = sum_k |s_{k+1} - s_k|,  S = |s_1 + s_{n-1}|,  s the slopes

    Args:
        x: array (n,), or (n, d) of rank one, with distinct points, in any order.
        y: array (n,).

    Returns:
        R, which is the `value` of ``spline(x, y)``.

    Raises:
        ValueError, TypeError: points that are not distinct, shapes that do not fit.

    Example:
        >>> import numpy as np
        >>> from jaxrelu import closed_form
        >>> x = np.arange(-2.0, 3.0, dtype="float32")
        >>> closed_form.spline_norm(x, np.asarray([1, -1, 1, 1, -1]))
        8.0

    Reference: Savarese, Evron, Soudry and Srebro (COLT 2019), Theorem 3.1.
    """
    samples, _ = checked(_matrix(x, "x"), y, _SQUARED_LOSS, "x").scaled()
    points, _ = line(samples)
    order = np.argsort(points)
    steps = np.diff(points[order])
    if np.any(steps <= 0):
        raise ValueError("x has equal points: merge them, with one target each.")
    if not steps.size:
        return 0.0
    slopes = np.diff(samples.y[order]) / steps
    total, ends = float(np.sum(np.abs(np.diff(slopes)))), abs(float(slopes[0] + slopes[-1]))
    return float(times_power(max(total, 0.5 * (total + ends)), samples.units.weights))


def _matrix(X: Any, name: str = "X") -> Any:
    """One feature as a column."""
    array = float_array(X, name)
    return array[:, None] if array.ndim == 1 else array


def _dictionary(x: Floats, bias: str) -> tuple[Columns, Cells | None]:
    """Neurons (w, b) on (x, 1): all that matter, or first ones with the cells of the others."""
    if bias == "none":
        directions = np.asarray([[1.0, -1.0], [0.0, 0.0]])
    else:
        kinks = np.unique(x)
        right = np.stack([np.ones_like(kinks), -kinks])[:, :-1]
        left = np.stack([-np.ones_like(kinks), kinks])[:, 1:]
        directions = np.hstack([right, left])
    data = np.stack([x, np.ones_like(x)], axis=1)
    if bias == "penalised":
        _check_angles(data)
        directions = np.hstack([directions, np.asarray([[0.0], [1.0]])])
        found = Cells.of(data)
        return found.columns(directions), found
    features = np.maximum(data @ directions, 0.0)
    return Columns(directions, features, np.arange(directions.shape[1])), None


def _check_angles(data: Floats) -> None:
    """Refuses samples (x, 1) of distinct x that are parallel up to rounding."""
    rows = unit_rows(data[np.unique(data[:, 0], return_index=True)[1]])[0]
    apart = np.abs(rows[1:, 0] * rows[:-1, 1] - rows[:-1, 0] * rows[1:, 1])
    if not np.min(apart, initial=1.0) > _PARALLEL:
        raise ValueError(
            f"x goes to {np.max(np.abs(data[:, 0])):.3g} in steps that a column of ones hides: the "
            "rows (x, 1) are parallel up to rounding, and the cost of a penalised bias cannot be "
            "told. Pass x in other units, or bias='free'."
        )


def _interpolant(
    columns: Columns, y: Floats, constant: bool, cells: Cells | None
) -> tuple[Fitted, float, float]:
    """The interpolant of least norm, its norm, and a lower bound of it."""
    mean = float(np.mean(y)) if constant else 0.0
    target, size = y - mean, float(np.max(np.abs(y - mean)))
    if size <= 1e-14 * float(np.max(np.abs(y))):
        zeros = np.zeros(columns.features.shape[1])
        return Fitted(columns, zeros, mean, np.zeros_like(y), 0.0), 0.0, 0.0
    ones = np.ones((len(y), 1))
    basis = unit_columns(np.hstack([columns.features, ones]) if constant else columns.features)
    missing = target - basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    if np.linalg.norm(missing) > 1e-9 * size * len(y):
        raise ValueError(
            "no network of this kind interpolates y (equal points with other targets, or too few "
            "neurons): pass a lam, or bias='free' and constant=True."
        )
    equations = np.vstack([target / size, ones.T]) if constant else target[None] / size
    found = least_polar(columns, equations, np.eye(len(equations))[0], cells)
    price = float(found.prices[0])
    sizes = found.sizes * size / price
    c = mean - float(found.prices[1]) * size / price if constant else 0.0
    dual = found.v / found.upper
    value = float(np.sum(np.abs(sizes)))
    return Fitted(found.columns, sizes, c, dual, 1.0), value, float(target @ dual)


def _without_constant(found: Fitted, x: Floats) -> Fitted:
    """The constant in the bias of a neuron that sees every sample, if there is such a neuron."""
    c = found.constant
    fit = found.columns.features @ found.sizes + c
    if abs(c) <= 1e-12 * float(np.max(np.abs(fit))):
        return found._replace(constant=0.0)
    w, b = found.columns.directions
    everywhere = np.min(np.outer(w, x) + b[:, None], axis=1) >= -1e-12 * float(np.max(np.abs(x)))
    able = np.flatnonzero(everywhere & (found.sizes * c > 0))
    if not able.size:
        raise ValueError(
            "without a constant this infimum was not attained (ever larger biases approach it): "
            "pass constant=True, which has the same value."
        )
    k = able[0]
    directions = found.columns.directions.copy()
    directions[1, k] += c / found.sizes[k]
    features = found.columns.features.copy()
    features[:, k] += c / found.sizes[k]
    columns = Columns(directions, features, found.columns.cell)
    return found._replace(columns=columns, constant=0.0)


def _spline(
    samples: Samples, found: Fitted, axis: Floats, value: float, lower: float, interpolates: bool
) -> Spline:
    """The spline in the units that were given."""
    units = samples.units
    of_dual, of_value = (
        (-units.features, units.weights) if interpolates else (units.residual, units.objective)
    )
    kept = np.abs(found.sizes) > 1e-13 * float(np.sum(np.abs(found.sizes)))
    directions, sizes = found.columns.directions[:, kept], found.sizes[kept]
    w, b = directions
    # A neuron w' x' + b' of x = 2^a x' is, for |w| as its size, w' x + 2^a b'.
    hidden = np.vstack([np.outer(axis, w), times_power(b, units.features)[None]])
    knots = np.where(w != 0, -b / np.where(w != 0, w, 1.0), np.inf)
    fit = found.columns.features @ found.sizes + found.constant
    return Spline(
        network=samples.network(hidden, sizes),
        constant=samples.cast(times_power(found.constant, units.fit)),
        knots=samples.cast(times_power(knots, units.features)),
        fit=samples.cast(times_power(fit, units.fit)),
        residual=samples.cast(times_power(found.dual, of_dual)),
        value=power_up(value, of_value),
        lower=power_down(lower, of_value),
    )
