r"""The linear system of an optimum with fixed support and walls.

Neuron k has the features s_k D_k X theta_k, lies on walls with null space P_k, and bends as its
norm does. Changes x_k = P_k x_k of the weights are met by

    P H x = P rhs,   H = F^T diag(h) F + blkdiag( lam / ||theta_k|| (I - u_k u_k^T) ),

with F the map from weights to fit, h the curvatures of the loss and u_k = theta_k / ||theta_k||. H
is scaled along u_k by the size of the feature and across it by the bend, so that small neurons,
which bend without limit, do not hide nearly dependent features. It is inverted once, with a shift
that iterations take away again (proximal point method), so that a singular system is solved too.
An inverse and no factor: jaxlib's triangular solves of batches can wait for each other for ever
when two of them run at the same time, and in a derivative nothing keeps them apart.

A system is regular if and only if the features are independent. If they are not, x is one of many;
the fit F x is unique and is that of the moved optimum if the directions that depend on each other
do not turn: where they turn, the neurons that share them decide by how much, and the optimum has
kinks.

Reference: Bonnans and Shapiro (2000), Section 4; Rockafellar (1976) on the proximal point method.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from jaxrelu.core.derivatives import close
from jaxrelu.core.numerics import einsum, eps, matmul, safe_norm, unit
from jaxrelu.geometry.cone_faces import Faces

_ITERATIONS = 5
# What is left of a vector after these divisions by the shifted system lies in its kernel.
_FILTERS = 4


class SupportSystem(NamedTuple):
    """See the module's docstring.

    Attributes:
        X: (n, d).
        signed_masks: (k, n), s D of every neuron, zero in slots that hold none.
        curvature: (n,), of the loss at the fit.
        directions: (k, d), u.
        bend: (k,), lam / ||theta||, zero in slots that hold none.
        face: `Faces`.
        scaled: (k, d, d), what takes scaled changes to changes; P times a scaling.
        inverse: (k d, k d), of the scaled system and its shift, here or nearby.
    """

    X: Array
    signed_masks: Array
    curvature: Array
    directions: Array
    bend: Array
    face: Faces
    scaled: Array
    inverse: Array

    def fit(self, x: Array) -> Array:
        """F x, (k, d) -> (n,)."""
        return jnp.sum(self.signed_masks * matmul(x, self.X.T), axis=0)

    def back(self, v: Array) -> Array:
        """F^T v, (n,) -> (k, d)."""
        return matmul(self.signed_masks * v[None], self.X)

    def apply(self, x: Array) -> Array:
        """H x, (k, d) -> (k, d)."""
        return self.back(self.curvature * self.fit(x)) + self.bend[:, None] * self.across(x)

    def across(self, x: Array) -> Array:
        """What of x turns the neurons."""
        return x - self.directions * jnp.sum(self.directions * x, axis=1, keepdims=True)

    def solve(self, rhs: Array) -> Array:
        """A solution x of P H x = P rhs, (k, d) -> (k, d)."""

        def iteration(x: Array, _: None) -> tuple[Array, None]:
            return x + self.step(rhs - self.apply(x)), None

        return jax.lax.scan(iteration, jnp.zeros_like(rhs), None, length=_ITERATIONS)[0]

    def step(self, left: Array) -> Array:
        """What one iteration makes of what is left, (k, d) -> (k, d)."""
        return self.face.onto(self._out_of(self._divided(self._into(left))))

    def at(self, weights: Array, curvature: Array, lam: Array) -> SupportSystem:
        """The system at weights nearby, with the same inverse."""
        bend, u = _bend(weights, lam), unit(weights)
        return self._replace(directions=u, bend=bend, curvature=curvature)

    def is_regular(self) -> Array:
        """Scalar bool, the features are independent."""
        return jnp.all(safe_norm(self._kernel()) <= close(self.X.dtype) ** 0.5)

    def moves_one_fit(self) -> Array:
        """Scalar bool, whether all solutions have one fit, and it is that of the moved optimum."""
        small, kernel = close(self.X.dtype) ** 0.5, self._kernel()
        part = safe_norm(kernel) > small
        # Samples without curvature could move with what depends on each other.
        features = self.signed_masks * matmul(self._out_of(kernel), self.X.T)
        most = jnp.max(jnp.sum(jnp.abs(features), axis=0), initial=0.0)
        sound = ~jnp.any(part) | jnp.all(jnp.abs(jnp.sum(features, axis=0)) <= small * most)
        probe = jnp.cos(jnp.arange(1, self.X.shape[0] + 1, dtype=self.X.dtype) ** 2)
        for rhs in (self.back(probe), self.directions):
            rhs = self.face.onto(rhs)
            x = self.solve(rhs)
            size = jnp.max(safe_norm(rhs), initial=0.0)
            left = safe_norm(self.face.onto(rhs - self.apply(x)))
            turn = self.bend * safe_norm(self.across(x))
            sound = sound & jnp.all(left <= 10 * close(self.X.dtype) * size)
            sound = sound & jnp.all(~part | (turn <= small * size))
        return sound

    def _kernel(self) -> Array:
        """(k, d), a vector of the kernel, scaled; nothing where the system is regular."""
        k, d = self.directions.shape
        z = jnp.cos(jnp.arange(1, k * d + 1, dtype=self.X.dtype) ** 2).reshape(k, d)
        z = jnp.where(self.bend[:, None] > 0, z, 0.0)
        z = z / jnp.sqrt(float(k * d))
        for _ in range(_FILTERS):
            z = _shift(z.dtype) * self._divided(z)
        return z

    def _divided(self, z: Array) -> Array:
        return matmul(self.inverse, z.reshape(-1)).reshape(z.shape)

    def _into(self, x: Array) -> Array:
        return jnp.sum(self.scaled * x[:, None], axis=2)

    def _out_of(self, z: Array) -> Array:
        return jnp.sum(self.scaled * z[:, None], axis=2)


def _shift(dtype: object) -> float:
    return eps(dtype) ** 0.55


def _bend(weights: Array, lam: Array) -> Array:
    norms = safe_norm(weights)
    return jnp.where(norms > 0, lam / jnp.where(norms > 0, norms, 1.0), 0.0)


def support_system(
    face: Faces, signed_masks: Array, weights: Array, curvature: Array, lam: Array
) -> SupportSystem:
    """The system of neurons with given weights.

    Args:
        face: their `Faces`, with d <= n.
        signed_masks: (k, n), s D of every neuron, zero in slots that hold none.
        weights: (k, d), zero in slots that hold none.
        curvature: (n,), of the loss at their fit.
        lam: scalar, or (k,), one of every neuron.

    Returns:
        `SupportSystem`.
    """
    rows = face.rows
    X = rows.unit * rows.length[:, None]
    (k, d), dtype = weights.shape, weights.dtype
    u, bend = unit(weights), _bend(weights, lam)
    coupling = rows.coupling(signed_masks, curvature)
    eye, index = jnp.eye(d, dtype=dtype)[None], jnp.arange(k)
    own = coupling[index, :, index]
    ones = u[:, :, None] * u[:, None]
    spans = (face.inverse > 0).astype(dtype)[:, None] * face.vectors
    null = jnp.where((bend > 0)[:, None, None], eye - matmul(spans, spans.transpose(0, 2, 1)), 0.0)
    size_along = jnp.sum(own * ones, axis=(1, 2))
    size_across = bend + jnp.trace(own, axis1=1, axis2=2) / d

    def scale(size: Array) -> Array:
        return jnp.where(size > 0, 1.0 / jnp.sqrt(jnp.where(size > 0, size, 1.0)), 0.0)

    along, across = scale(size_along)[:, None, None], scale(size_across)[:, None, None]
    scaled = along * ones + across * (null - ones)
    full = einsum("aij,ajbk,bkl->aibl", scaled, coupling, scaled)
    idle = eye - null + across**2 * bend[:, None, None] * (null - ones)
    full = full.at[index, :, index].add(idle + _shift(dtype) * eye)
    factor = cho_factor(full.reshape(k * d, k * d), lower=True)
    inverse = cho_solve(factor, jnp.eye(k * d, dtype=dtype))
    return SupportSystem(X, signed_masks, curvature, u, bend, face, scaled, inverse)
