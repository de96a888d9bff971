"""What tests of the closed forms share: data, the general solver, proofs by duality."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import zoo

import jaxrelu as jr

LAM = 0.3


@jr.register
@dataclass(frozen=True)
class Hidden:
    """A loss that the closed forms do not know: they must take the general way."""

    inner: Any

    @property
    def smoothness(self):
        return self.inner.smoothness

    def value(self, fit, target):
        return self.inner.value(fit, target)

    def gradient(self, fit, target):
        return self.inner.gradient(fit, target)

    def conjugate(self, dual, target):
        return self.inner.conjugate(dual, target)

    def check_target(self, target):
        pass


def orthonormal(rng, n, d):
    return np.linalg.qr(rng.standard_normal((d, n)))[0].T


def circle(num=20_000):
    """Unit vectors of the plane, (2, num)."""
    angle = np.linspace(0.0, 2 * np.pi, num)
    return np.stack([np.cos(angle), np.sin(angle)])


def seen(X, u):
    return np.maximum(X @ u, 0.0)


def solved(X, y, lam, rtol=1e-9):
    """The general solver on all patterns, squared loss, in the shape of the other problems."""
    solution = jr.solve(zoo.tiny(X, y), lam, rtol=rtol)
    jr.raise_if_failed(solution)
    return float(solution.certificate.upper), np.asarray(solution.fit)[: len(y)]


def check(found, X, y, lam, loss=None, digits=1e-10):
    """The network is what the answer says, and the two bounds meet."""
    loss = jr.SquaredLoss() if loss is None else loss
    np.testing.assert_allclose(found.network(X), found.fit, atol=1e-12)
    objective = float(jr.nonconvex_objective(found.network, X, y, lam, loss))
    np.testing.assert_allclose(found.value, objective, rtol=1e-12)
    np.testing.assert_allclose(found.residual, -loss.gradient(found.fit, jnp.asarray(y)), atol=1e-9)
    assert abs(found.gap) <= digits * abs(found.value)
    assert found.exact
