r"""From weights of several outputs to networks, without changing fit or objective.

A block V = sum_k s_k u_k g_k^T of the gated program is min(d, c) neurons sqrt(s_k) u_k with outputs
sqrt(s_k) g_k behind one gate: (||u||^2 + ||v||^2) / 2 adds up to its nuclear norm. Neurons of the
exact program are balanced likewise, and a block of the one-vs-all program is one neuron that feeds
its output alone.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrelu.core.numerics import safe_norm, safe_sqrt
from jaxrelu.networks.network import GatedNetwork, Network
from jaxrelu.programs.solution import Solution
from jaxrelu.programs.vector_checks import check_vector_weights, checked_outputs
from jaxrelu.programs.vector_program import VectorProgram


def network_of_outputs(program: VectorProgram, solution: Solution | Any) -> Network | GatedNetwork:
    """`jaxrelu.to_network` of a program of several outputs."""
    program = checked_outputs(program)
    given = isinstance(solution, Solution)
    weights = solution.weights if given else solution
    name = "solution.weights" if given else "solution"
    weights = check_vector_weights(program, weights, name)
    if program.kind == "exact":
        return Network(*_balanced(weights.directions.T, weights.outputs))
    if program.kind == "gated":
        return _gated(program, weights)
    return _one_output_each(weights)


def _balanced(hidden: Array, outputs: Array) -> tuple[Array, Array]:
    """Layers (d, m) and (m, c) with ||hidden_k|| = ||output_k||; neurons without one are zero."""
    inner, outer = safe_norm(hidden, axis=0), safe_norm(outputs)
    used = (inner > 0) & (outer > 0)
    root = safe_sqrt(jnp.where(used, inner * outer, 0.0))
    shrunk = jnp.where(used, root / jnp.where(used, inner, 1.0), 0.0)
    grown = jnp.where(used, root / jnp.where(used, outer, 1.0), 0.0)
    return hidden * shrunk[None], outputs * grown[:, None]


def _gated(program: VectorProgram, weights: Array) -> GatedNetwork:
    left, sizes, right = jnp.linalg.svd(weights, full_matrices=False)
    root, m = safe_sqrt(sizes), sizes.shape[1]
    hidden = jnp.moveaxis(left * root[:, None], 1, 0).reshape(weights.shape[1], -1)
    outputs = (root[:, :, None] * right).reshape(-1, weights.shape[2])
    gates = jnp.repeat(jnp.asarray(program.patterns.gates), m, axis=1)
    return GatedNetwork(gates, hidden, outputs)


def _one_output_each(weights: Array) -> Network:
    """Weights (2, p, d, c): positive output weights first, output by output."""
    _, p, d, c = weights.shape
    flat = jnp.moveaxis(weights, -1, 0).reshape(c * 2 * p, d)
    signs = jnp.repeat(jnp.asarray([1.0, -1.0], weights.dtype), p)
    outputs = jnp.kron(jnp.eye(c, dtype=weights.dtype), signs[:, None])
    size = safe_norm(flat)
    return Network(*_balanced(flat.T, outputs * jnp.where(size > 0, 1.0, 0.0)[:, None]))
