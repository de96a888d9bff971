"""Members of an optimal set: tests, nearest and best members, and their networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu import polytope
from jaxrelu.networks import GatedNetwork, Network
from jaxrelu.numerics import as_float
from jaxrelu.optimal_set import OptimalSet, inside_support, on_all_directions

Floats = NDArray[np.float64]


def is_optimal(optima: OptimalSet, candidate: Any, *, rtol: float = 1e-6) -> bool:
    """Whether coefficients, convex weights or a network belong to the optimal set.

    Args:
        optima: an `OptimalSet`.
        candidate: coefficients (k,), convex weights (..., d), or a `Network` or `GatedNetwork`.
        rtol: how far the fit may be off, relative to its norm, and how much weight may lie below
            zero, off the support or off the directions, relative to all of it.

    Returns:
        True or False. A network also has to be balanced (||hidden|| = |output|).

    Raises:
        ValueError: not one coefficient a direction, or not the features of the program.
    """
    a, stray = _coefficients(optima, candidate)
    total = max(float(np.sum(np.abs(a))) + stray, 1e-300)
    fit = np.asarray(optima.fit)
    off = np.linalg.norm(np.asarray(optima.features) @ a - fit)
    stray += float(np.sum(np.abs(a[~np.asarray(optima.support)])) - np.sum(np.minimum(a, 0.0)))
    close = off <= rtol * max(float(np.linalg.norm(fit)), 1e-300)
    return bool(close and stray <= rtol * total)


def nearest_optimal(optima: OptimalSet, candidate: Any) -> Array:
    """The coefficients (k,) of the optimal network nearest to a candidate.

    For convex weights that is the projection onto the optimal set: the distance from a_e u_e to
    theta_e is smallest where a is nearest to <theta_e, u_e>.

    Args:
        optima: an `OptimalSet`.
        candidate: as in `is_optimal`, from anywhere.

    Returns:
        Array (k,), exact up to rounding.

    Raises:
        ValueError: as `is_optimal`.
    """
    a, _ = _coefficients(optima, candidate)
    P, support = inside_support(optima)
    return on_all_directions(polytope.project(P, a[support])[None], support)[0]


def select(optima: OptimalSet, criterion: str | Callable[[Array], Array]) -> Array:
    """The optimal network that is best for a criterion.

    Args:
        optima: an `OptimalSet`.
        criterion: "min_norm" (of the convex weights, sum a_k^2), "min_max" (the largest neuron as
            small as can be), "max_max" (as large as can be), "fewest" (neurons), or a convex
            differentiable function of the coefficients (k,), written in JAX: the loss on held-out
            data, say, ``lambda a: jnp.sum((features_there @ a - y_there) ** 2)``.

    Returns:
        Array (k,) of coefficients; `network_from_coefficients` makes the network.

    Raises:
        ValueError: an unknown name.
        RuntimeError: the minimisation of a function of yours did not converge.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> sorted(np.asarray(jr.select(optima, "min_norm")).round(6).tolist())
        [1.0, 1.0, 1.0]
    """
    P, support = inside_support(optima)
    if callable(criterion):
        function = criterion

        def inside(a: Array) -> Array:
            return function(jnp.zeros(support.shape, a.dtype).at[np.flatnonzero(support)].set(a))

        best = polytope.minimise(P, *_value_and_slope(inside))
    elif criterion == "min_norm":
        best = polytope.project(P, np.zeros(int(support.sum())))
    elif criterion == "min_max":
        best = polytope.smallest_maximum(P)
    elif criterion == "max_max":
        corners = [polytope.maximise(P, row) for row in np.eye(P.start.size)]
        best = max(corners, key=lambda a: float(np.max(a)), default=P.start)
    elif criterion == "fewest":
        best = polytope.fewest(P)[0]
    else:
        raise ValueError(
            f'criterion is {criterion!r}; pass "min_norm", "min_max", "max_max", "fewest" or a '
            "convex function of the coefficients."
        )
    return on_all_directions(best[None], support)[0]


def network_from_coefficients(optima: OptimalSet, coefficients: Any) -> Network | GatedNetwork:
    """The network of coefficients: neurons sqrt(a_k) directions_k with output signs_k sqrt(a_k).

    Args:
        optima: an `OptimalSet`.
        coefficients: array (k,), >= 0.

    Returns:
        `Network`, or `GatedNetwork` for a gated program, with k slots; ``compact()`` drops those
        whose coefficient is zero. Traceable in the coefficients.

    Raises:
        ValueError: not one coefficient a direction.
    """
    a = as_float(coefficients, "coefficients")
    if a.shape != optima.signs.shape:
        raise ValueError(
            f"coefficients has shape {a.shape}; pass one a direction, {optima.signs.shape}."
        )
    root = jnp.sqrt(jnp.maximum(a, 0.0))
    hidden = optima.directions.T * root[None]
    if optima.gates is None:
        return Network(hidden, optima.signs * root)
    return GatedNetwork(optima.gates, hidden, optima.signs * root)


def _coefficients(optima: OptimalSet, candidate: Any) -> tuple[Floats, float]:
    """Coefficients of a candidate, and the norm of what is along none of the directions."""
    directions, signs = np.asarray(optima.directions), np.asarray(optima.signs)
    if isinstance(candidate, Network | GatedNetwork):
        hidden, output = np.asarray(candidate.hidden, float), np.asarray(candidate.output, float)
        neurons, sign = (hidden * np.abs(output)).T, np.where(output >= 0, 1.0, -1.0)
        length = np.linalg.norm(hidden, axis=0)
        stray = 0.5 * float(np.sum((length - np.abs(output)) ** 2))
    else:
        given = np.asarray(candidate, float)
        if given.shape == signs.shape:
            return given, 0.0
        neurons, stray = given.reshape(-1, given.shape[-1]), 0.0
        half = len(neurons) // 2 if given.ndim == 3 else len(neurons)
        sign = np.where(np.arange(len(neurons)) < half, 1.0, -1.0)
    if neurons.shape[1] != directions.shape[1]:
        raise ValueError(
            f"the candidate has {neurons.shape[1]} features, the optimal set "
            f"{directions.shape[1]}: pass coefficients {signs.shape}, convex weights or a network."
        )
    if signs.size == 0:
        return np.zeros(0), float(np.sum(np.linalg.norm(neurons, axis=1)))
    along = neurons @ directions.T
    along = np.where(sign[:, None] == signs[None], along, -np.inf)
    a = np.zeros(signs.size)
    for row, neuron in enumerate(neurons):
        best = int(np.argmax(along[row]))
        share = max(float(along[row, best]), 0.0)
        stray += float(np.linalg.norm(neuron - share * directions[best]))
        a[best] += share
    return a, stray


def _value_and_slope(
    function: Callable[[Array], Array],
) -> tuple[Callable[[Floats], float], Callable[[Floats], Floats]]:
    value, slope = jax.jit(function), jax.jit(jax.grad(function))
    return (lambda a: float(value(jnp.asarray(a)))), (lambda a: np.asarray(slope(jnp.asarray(a))))
