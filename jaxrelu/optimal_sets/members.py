"""Members of an optimal set: tests, nearest and best members, and their networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxrelu.core.aliases import Floats
from jaxrelu.core.checks import as_float, check_finite, check_shape, known_floats
from jaxrelu.core.numerics import safe_sqrt
from jaxrelu.core.options import check_choice, count, nonnegative
from jaxrelu.core.tracing import is_traced, on_host
from jaxrelu.geometry.host import level_method, polytopes
from jaxrelu.geometry.host.scaling import length, unit_rows
from jaxrelu.geometry.host.walls import SOLVED
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.network import GatedNetwork, Network
from jaxrelu.optimal_sets.checks import check_optima
from jaxrelu.optimal_sets.optimal_set import OptimalSet, inside_support, on_all_directions

# Coefficients may be below zero by this share of their sum: what `solve` leaves by default.
_BELOW_ZERO = 1e-6
_CRITERIA = ("min_norm", "min_max", "max_max", "fewest")


@on_host()
def vertices(optima: OptimalSet, *, at_most: int = 1000, seed: int = 0) -> Array:
    """Vertices of the optimal set: the optimal networks with linearly independent features.

    Args:
        optima: an `OptimalSet`.
        at_most: how many random objectives are tried where there are too many supports to try all
            (more than 200,000); then some vertices come back, and a warning says so.
        seed: of those objectives.

    Returns:
        Array (num, k) of coefficients, in a fixed order.

    Raises:
        ValueError, TypeError: no `OptimalSet`, numbers that are no counts.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> jr.vertices(jr.optimal_set(program, jr.solve(program, 0.5))).shape
        (2, 3)

    Reference: Mishkin and Pilanci (ICML 2023), on minimal networks as the vertices of the set.
    """
    check_optima(optima)
    at_most, seed = count(at_most, "at_most"), count(seed, "seed", least=0)
    P, support = inside_support(optima)
    found = polytopes.all_vertices(P)
    if found is None:
        warnings.warn(
            f"{polytopes.bases(P)} supports are too many to try: vertices of {at_most} random "
            "objectives are returned, not all.",
            stacklevel=3,
        )
        found = polytopes.some_vertices(P, at_most, seed)
    return on_all_directions(found, support)


@on_host()
def is_optimal(optima: OptimalSet, candidate: Any, *, rtol: float = 1e-6) -> bool:
    """Whether coefficients, convex weights or a network belong to the optimal set.

    Args:
        optima: an `OptimalSet`.
        candidate: coefficients (k,), convex weights (2, p, d) or (p, d) of the program, or a
            `Network`; of a gated program, a `GatedNetwork`.
        rtol: how far the fit may be off, relative to its norm, and how much weight may lie below
            zero, off the support or off the directions, relative to all of it.

    Returns:
        True or False. Weights have to lie in blocks whose cells hold their direction; a network has
        to be balanced (||hidden|| = |output|), and gates to open on the samples that those of the
        set open on.

    Raises:
        ValueError: not one coefficient a direction, or not the features of the program.
        TypeError: a ReLU network for a gated set, or a gated one for a set of ReLU networks.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> jr.is_optimal(optima, [1.0, 1.0, 1.0]), jr.is_optimal(optima, [1.0, 1.0, 2.0])
        (True, False)

    Reference: Mishkin and Pilanci (ICML 2023), Theorem 3.1, which describes the set.
    """
    check_optima(optima)
    rtol = nonnegative(rtol, "rtol")
    a, stray = _coefficients(optima, candidate, rtol)
    total = float(np.sum(np.abs(a))) + stray
    fit = np.asarray(optima.fit)[np.asarray(optima.counts)]
    own = np.asarray(optima.features) @ a
    off = length(own - np.clip(own, np.asarray(optima.fit_low), np.asarray(optima.fit_high)))
    stray += float(np.sum(np.abs(a[~np.asarray(optima.support)])) - np.sum(np.minimum(a, 0.0)))
    close = off <= rtol * length(fit)
    return bool(close and stray <= rtol * total)


@on_host()
def nearest_optimal(optima: OptimalSet, candidate: Any) -> Array:
    """The coefficients (k,) of the optimal network nearest to a candidate.

    Every block of convex weights, and every neuron, counts along the direction of its own cell: the
    distance from a_e u_e to theta_e is smallest where a_e is nearest to <theta_e, u_e>, so that
    this is the projection onto the optimal set. Those of one direction are added up first; those of
    cells without a direction are zero in every optimum.

    Args:
        optima: an `OptimalSet`.
        candidate: as in `is_optimal`, from anywhere.

    Returns:
        Array (k,), exact up to rounding.

    Raises:
        ValueError, TypeError: as `is_optimal`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> np.asarray(jr.nearest_optimal(optima, np.zeros(3))).round(6).tolist()
        [1.0, 1.0, 1.0]

    Reference: Lawson and Hanson, Solving Least Squares Problems (1974), Chapter 23, on the least
    distance program that this is.
    """
    check_optima(optima)
    a, _ = _coefficients(optima, candidate, SOLVED)
    P, support = inside_support(optima)
    return on_all_directions(polytopes.project(P, a[support])[None], support)[0]


@on_host()
def select(optima: OptimalSet, criterion: str | Callable[[Array], Array]) -> Array:
    """The optimal network that is best for a criterion.

    Args:
        optima: an `OptimalSet`.
        criterion: "min_norm" (of the convex weights, sum a_k^2), "min_max" (the largest neuron as
            small as can be), "max_max" (as large as can be), "fewest" (neurons), or a convex
            function of the coefficients (k,), written in JAX: the loss on held-out data, say,
            ``lambda a: jnp.sum((optima.features_at(X_there) @ a - y_there) ** 2)``. It may have
            kinks, where `jax.grad` has to be a subgradient, as it is of jnp.max and jnp.abs.

    Returns:
        Array (k,) of coefficients; `network_from_coefficients` makes the network.

    Raises:
        ValueError: an unknown name.
        RuntimeError: the minimum of a function of yours could not be shown to be one, to 1e-6 of
            its value there or at `OptimalSet.interior`, whichever is larger.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> sorted(np.asarray(jr.select(optima, "min_norm")).round(6).tolist())
        [1.0, 1.0, 1.0]

    Reference: Mishkin and Pilanci (ICML 2023), who tune a network within its optimal set;
    Lemarechal, Nemirovskii and Nesterov (1995) on the minimisation of functions with kinks.
    """
    check_optima(optima)
    own = callable(criterion) and not isinstance(criterion, type)
    if not own:
        check_choice(criterion, "criterion", _CRITERIA, " or a convex function of the coefficients")
    P, support = inside_support(optima)
    if own:
        function: Any = criterion

        def inside(a: Array) -> Array:
            return function(jnp.zeros(support.shape, a.dtype).at[np.flatnonzero(support)].set(a))

        best = level_method.minimise(P, *_value_and_slope(inside))
    elif criterion == "min_norm":
        best = polytopes.project(P, np.zeros(int(support.sum())))
    elif criterion == "min_max":
        best = polytopes.smallest_maximum(P)
    elif criterion == "max_max":
        corners = [polytopes.maximise(P, row) for row in np.eye(P.num)]
        best = max(corners, key=lambda a: float(np.max(a)), default=P.start)
    else:
        return optima.fewest
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
        ValueError: not one coefficient a direction, or one below zero by more than rounding.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> network = jr.network_from_coefficients(optima, np.ones(3))
        >>> np.asarray(network(X)).round(6).tolist()
        [1.5, 1.5]

    Reference: Pilanci and Ergen (ICML 2020), Theorem 1, for the map.
    """
    check_optima(optima)
    a = as_float(coefficients, "coefficients")
    check_shape(a, "coefficients", optima.signs.shape, "one a direction")
    if not is_traced(coefficients):
        check_finite(coefficients, "coefficients")
        known = np.asarray(coefficients)
        lowest = float(np.min(known, initial=0.0))
        if lowest < -_BELOW_ZERO * float(np.sum(np.abs(known))):
            raise ValueError(
                f"coefficients holds {lowest:g}; those of a network are >= 0. `nearest_optimal` "
                "gives the coefficients of the nearest optimal network."
            )
    root = safe_sqrt(jnp.maximum(a, 0.0))
    hidden = optima.directions.T * root[None]
    if optima.gates is None:
        return Network(hidden, optima.signs * root)
    return GatedNetwork(optima.gates, hidden, optima.signs * root)


def _coefficients(optima: OptimalSet, candidate: Any, tolerance: float) -> tuple[Floats, float]:
    """Coefficients of a candidate, and the norm of all that is not >= 0 along its own direction."""
    directions, stray = np.asarray(optima.directions), 0.0
    if isinstance(candidate, Network | GatedNetwork):
        check_known_network(candidate, "candidate", gated=True)
        theta, own, stray = _of_network(optima, candidate, tolerance)
    else:
        given, blocks = known_floats(candidate, "candidate"), np.asarray(optima.direction_of)
        given = given.astype(np.float64)
        if given.shape == directions.shape[:1]:
            return given, 0.0
        shape = (*blocks.shape, optima.X.shape[1])
        if given.shape != shape:
            raise ValueError(
                f"candidate has shape {given.shape}; pass coefficients {directions.shape[:1]}, "
                f"convex weights {shape} or a network."
            )
        theta, own = given.reshape(-1, shape[-1]).copy(), blocks.ravel()
    inside = np.flatnonzero(own >= 0)
    unit, a = directions[own[inside]], np.zeros(len(directions))
    along = np.sum(theta[inside] * unit, axis=1)
    np.add.at(a, own[inside], along)
    theta[inside] -= np.maximum(along, 0.0)[:, None] * unit
    return a, stray + float(np.sum(unit_rows(theta)[1]))


def _of_network(
    optima: OptimalSet, network: Network | GatedNetwork, tolerance: float
) -> tuple[Floats, NDArray[np.int64], float]:
    """Convex weights (m, d) of neurons, the direction of each one's cell, how unbalanced they are.

    A neuron shares a cell with a direction if no sample is on different sides of the two; of a
    gated network, if the direction has its feature under the neuron's gate. -1 is for no direction.
    """
    kind = Network if optima.gates is None else GatedNetwork
    if not isinstance(network, kind):
        raise TypeError(
            f"candidate is a {type(network).__name__}, and the optimal set one of "
            f"{'ReLU' if kind is Network else 'gated'} networks: pass a {kind.__name__}."
        )
    X, directions = np.asarray(optima.X), np.asarray(optima.directions)
    hidden, output = np.asarray(network.hidden, float), np.asarray(network.output, float)
    if hidden.shape[0] != X.shape[1]:
        raise ValueError(
            f"candidate has {hidden.shape[0]} features, the optimal set {X.shape[1]}: pass a "
            "network for the data of the program."
        )
    if isinstance(network, GatedNetwork):
        theta, masks = (hidden * output).T, X @ np.asarray(network.gates, float) >= 0
        linear = X @ directions.T
    else:
        theta = (hidden * np.abs(output)).T
        here, there = (unit_rows(X)[0] @ unit_rows(u)[0].T for u in (directions, theta))
    norms = unit_rows(hidden.T)[1]
    own = np.full(len(theta), -1)
    for row, weight in enumerate(theta):
        if isinstance(network, GatedNetwork):
            change = unit_rows((masks[:, [row]] * linear - np.asarray(optima.features)).T)[1]
            shared = change <= tolerance * unit_rows(linear.T)[1]
        else:
            own_side = there[:, [row]]
            nearer = np.minimum(np.abs(here), np.abs(own_side))
            apart = (here * own_side < 0) & (nearer > tolerance)
            shared = ~np.any(apart, axis=0) & (np.asarray(optima.signs) == np.sign(output[row]))
        if np.any(shared):
            own[row] = np.argmax(np.where(shared, directions @ weight, -np.inf))
    return theta, own, 0.5 * float(np.sum((norms - np.abs(output)) ** 2))


def _value_and_slope(
    function: Callable[[Array], Array],
) -> tuple[Callable[[Floats], float], Callable[[Floats], Floats]]:
    value, slope = jax.jit(function), jax.jit(jax.grad(function))
    return (lambda a: float(value(jnp.asarray(a)))), (lambda a: np.asarray(slope(jnp.asarray(a))))


@on_host()
def sparsest(optima: OptimalSet) -> Network | GatedNetwork:
    """An optimal network with as few neurons as an optimal network can have.

    Args:
        optima: an `OptimalSet`; `minimal_width_exact` says whether the width is proven.

    Returns:
        The network, with `minimal_width` neurons.

    Raises:
        TypeError: a traced set.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> jr.sparsest(optima).num_neurons
        1

    Reference: Huangfu and Hall (2018) on HiGHS, which solves the integer program.
    """
    check_optima(optima)
    return network_from_coefficients(optima, optima.fewest).compact()
