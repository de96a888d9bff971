r"""How far weights of several outputs are from their optimality conditions.

With R the residual and C_j = X^T D_j R, blocks V_j = U S W^T of the gated program are optimal if
and only if ||C_j||_2 <= lam and, where they are not zero,

    C_j = lam U W^T + (I - U U^T) C_j (I - W W^T).

Neurons of the exact program are optimal if and only if ||R^T D_j X u|| <= lam for all unit u in the
cells and C_j^T u_k = lam v_k / ||v_k|| for unit directions u_k.

Reference: Watson (1992), the subdifferential of the nuclear norm.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.compilation import compiled
from jaxrelu.core.numerics import eps, matmul, safe_norm, unit
from jaxrelu.core.tracing import is_traced
from jaxrelu.geometry.cell_maxima import maxima_of
from jaxrelu.geometry.singular_values import singular_values, tall
from jaxrelu.programs.preparation import with_interior
from jaxrelu.programs.vector_bounds import Neurons, neuron_features
from jaxrelu.programs.vector_program import (
    VectorProgram,
    outputs_correlations,
    outputs_fit,
    outputs_residual,
)


def gated_violations(program: VectorProgram, lam: Array, weights: Array) -> tuple[Array, Array]:
    """Stationarity and dual feasibility of blocks (p, d, c), relative to lam."""
    found: tuple[Array, Array] = _gated(program, lam, weights)
    return found


@compiled
def _gated(program: VectorProgram, lam: Array, weights: Array) -> tuple[Array, Array]:
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    residual = outputs_residual(program, outputs_fit(X, masks, weights))
    c = tall(outputs_correlations(X, masks, residual))
    left, sizes, right = jnp.linalg.svd(tall(weights), full_matrices=False)
    largest = jnp.max(sizes, initial=0.0)
    used = (sizes > eps(X.dtype) ** 0.75 * largest).astype(X.dtype)
    own, across = left * used[:, None], right * used[:, :, None]
    # What the conditions leave free.
    free = c - matmul(own, matmul(jnp.swapaxes(own, 1, 2), c))
    free = free - matmul(matmul(free, jnp.swapaxes(across, 1, 2)), across)
    away = c - free - lam * matmul(own, across)
    away = jnp.where(jnp.any(used > 0, axis=1)[:, None, None], away, 0.0)
    off = jnp.max(singular_values(away), initial=0.0)
    beyond = jnp.maximum(jnp.max(singular_values(c), initial=0.0) - lam, 0.0)
    return off / lam, beyond / lam


def exact_violations(
    program: VectorProgram, lam: Array, neurons: Neurons
) -> tuple[Array, Array, Array]:
    """Stationarity, dual feasibility (an upper bound) and primal feasibility of neurons."""
    if is_traced((program, lam, neurons)):
        raise TypeError(
            'kkt_residual of kind="exact" looks at values: call it outside of jit, vmap and grad.'
        )
    off, outside, c = _exact(program, lam, neurons)
    patterns = with_interior(program).patterns  # type: ignore[arg-type]
    maxima = maxima_of(program.X, patterns.masks, patterns.interior)
    found = maxima.at(np.asarray(c, np.float64), float(lam))
    beyond = max(found.bound - float(lam), 0.0) / float(lam)
    return off, jnp.asarray(beyond, program.X.dtype), outside


@compiled
def _exact(program: VectorProgram, lam: Array, neurons: Neurons) -> tuple[Array, Array, Array]:
    X, masks = jnp.asarray(program.X), jnp.asarray(program.patterns.masks)
    features = neuron_features(program, neurons)
    residual = outputs_residual(program, matmul(features.T, neurons.outputs))
    size = safe_norm(neurons.directions) * safe_norm(neurons.outputs)
    pull = matmul(features, residual) / _or_one(safe_norm(neurons.directions))[:, None]
    away = jnp.where((size > 0)[:, None], pull - lam * unit(neurons.outputs), 0.0)
    heights = matmul(neurons.directions, X.T) * (2.0 * masks.T[neurons.cells].astype(X.dtype) - 1.0)
    scale = safe_norm(neurons.directions)[:, None] * safe_norm(X)[None]
    outside = jnp.where((size > 0)[:, None] & (scale > 0), -heights / _or_one(scale), 0.0)
    c = outputs_correlations(X, masks, residual)
    off = jnp.max(safe_norm(away), initial=0.0) / lam
    return off, jnp.max(outside, initial=0.0), c


def _or_one(values: Array) -> Array:
    return jnp.where(values > 0, values, 1.0)
