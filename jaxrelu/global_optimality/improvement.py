r"""`improve`: a trained network in, a certified one that is never worse out.

The cells of a network's neurons make a convex program in which the network is feasible, and whose
optimum is the best network with neurons in those cells, of either sign and any width. It is solved
and mapped back, so that training by gradients decides where the neurons look and convex
optimisation how they are weighed.

Reference: Mishkin, Sahiner and Pilanci (ICML 2022) on sub-sampled patterns; Mishkin and Pilanci
(ICML 2023) on the solution map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.pytrees import register
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import on_host
from jaxrelu.losses.base import Loss
from jaxrelu.networks.checks import check_known_network
from jaxrelu.networks.irreducible import minimal
from jaxrelu.networks.network import GatedNetwork, Network, nonconvex_objective
from jaxrelu.paths.certify import certify
from jaxrelu.paths.checks import checked_solver, step_limit
from jaxrelu.paths.solve import solve
from jaxrelu.programs.certificates import Certificate, Certified
from jaxrelu.programs.checks import check_lam
from jaxrelu.programs.extension import Parts, extended, joined
from jaxrelu.programs.mapping import from_network, to_network
from jaxrelu.programs.program import fit, residual_at
from jaxrelu.programs.solution import Solution
from jaxrelu.solvers.base import Solver, tolerances


@register
@dataclass(frozen=True, eq=False)
class Improved(Certified):
    """A network that is at least as good as the one it came from.

    Attributes:
        network: the improved network, balanced and without superfluous neurons.
        certificate: `Certificate` of the convex program over the cells of the given network: no
            network with neurons in those cells has an objective below its `lower`. That, `upper`
            and `gap` are attributes as well.
        objective: scalar, `nonconvex_objective` of `network`; `upper` up to rounding.
        objective_before: scalar, that of the given network.
        status: int32, the `Status` of the solve.
    """

    network: Network | GatedNetwork
    certificate: Certificate
    objective: Array
    objective_before: Array
    status: Array


@on_host()
def improve(
    network: Network | GatedNetwork,
    X: Any,
    y: Any,
    lam: Any,
    loss: Loss | None = None,
    *,
    sample_weight: Any = None,
    rtol: Any = None,
    max_steps: Any = None,
    solver: Solver | None = None,
) -> Improved:
    r"""Improves a trained two-layer network to the certified optimum over its own cells.

    For a network trained on sum_i loss(f_i, y_i) + lam/2 (||hidden||^2 + ||output||^2), with optax,
    PyTorch or anything else, or for the ReLU head of a larger model with its frozen features as X.

    Args:
        network: a `Network` or `GatedNetwork`; from other tools ``jr.Network(W1, w2)`` with W1
            (d, m) and w2 (m,), or with biases that are not penalised
            ``jr.Network(W1, w2, bias=b1, constant=b2)``.
        X: array (n, d), float64 for gaps below 1e-4.
        y: array (n,).
        lam: scalar, > 0, of the objective above: a sum over samples, with lam/2. Mean losses and
            weight decay wd (wd/2 ||.||^2) mean lam = n wd.
        loss: a `Loss`; default the squared loss 1/2 (f - y)^2.
        sample_weight: array (n,), or None.
        rtol: as in `solve`.
        max_steps: as in `solve`.
        solver: as in `solve`.

    Returns:
        `Improved`. Its objective is never above that of the given network, whatever the status.

    Raises:
        ValueError, TypeError: as `from_network` and `solve`.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.standard_normal((20, 3)).astype("float32"), np.ones(20, "float32")
        >>> hidden = rng.standard_normal((3, 8)).astype("float32")
        >>> better = jr.improve(jr.Network(hidden, np.ones(8, "float32")), X, y, lam=1.0)
        >>> bool(better.objective <= better.objective_before)
        True

    Reference: Mishkin and Pilanci (ICML 2023), Section 2, for the two maps.
    """
    check_known_network(network, gated=True, skip=True, bias=True)
    program, weights = from_network(network, X, y, loss, sample_weight=sample_weight)
    loss, strength = program.loss, check_lam(program, lam)
    solver = checked_solver(program, solver)
    tolerances(program, rtol, None)
    step_limit(solver, max_steps)
    constant = network.constant if isinstance(network, Network) else None
    start = certify(program, strength, weights, skip=network.skip, constant=constant)
    parts = Parts(start.weights, start.skip, start.constant)
    f = fit(extended(program), joined(program, parts))
    init = Solution(
        start.weights, strength, f, residual_at(program, f), start,
        jnp.asarray(Status.STALLED, jnp.int32), jnp.asarray(0, jnp.int32), start.skip,
        start.constant,
    )  # fmt: skip
    solution = solve(program, strength, rtol=rtol, max_steps=max_steps, init=init, solver=solver)

    if int(solution.status) != Status.OPTIMAL:
        # A start far from the optimum can be worse than none.
        cold = solve(program, strength, rtol=rtol, max_steps=max_steps, solver=solver)
        if float(cold.certificate.gap) < float(solution.certificate.gap):
            solution = cold

    def value(candidate: Network | GatedNetwork) -> Array:
        return nonconvex_objective(candidate, program.X, program.y, strength, loss, sample_weight)

    before = value(network)
    solved = to_network(program, solution).compact()
    candidates = [solved, minimal(solved, program.X), minimal(network, program.X), network]
    values = [value(candidate) for candidate in candidates]
    finite = [k for k in range(len(values)) if bool(jnp.isfinite(values[k]))]
    # The smallest network among those that are as good as the best, up to rounding.
    best = min((float(values[k]) for k in finite), default=float("nan"))
    close = [k for k in finite if float(values[k]) <= best + _slack(program.X.dtype) * abs(best)]
    close = [k for k in close if float(values[k]) <= float(before)] or [len(values) - 1]
    chosen = min(close, key=lambda k: candidates[k].num_neurons)
    return Improved(
        candidates[chosen], solution.certificate, values[chosen], before, solution.status
    )


def _slack(dtype: Any) -> float:
    return 100 * float(jnp.finfo(dtype).eps)
