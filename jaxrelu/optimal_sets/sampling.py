"""Uniform samples of the optimal set, by hit-and-run.

From a member a, one of m directions is drawn and the next member is uniform on the chord through a
along it. The directions are axes in which the polytope of m dimensions is nearly round; vertices
of random objectives give its shape. Along axes a step costs m times less than along directions of
any kind, and mixes as fast; some m^2 steps make a new sample.

Reference: Smith (Operations Research, 1984); Lovasz and Vempala (2006) for the mixing time; Laddha
and Vempala (2021) for that along axes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import known_matrix
from jaxrelu.core.numerics import matmul
from jaxrelu.core.options import check_key, count
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.host import polytopes
from jaxrelu.geometry.host.scaling import exponents
from jaxrelu.optimal_sets.checks import check_optima
from jaxrelu.optimal_sets.optimal_set import OptimalSet, inside_support

CHAINS = 64
_MOST_CORNERS = 200
_AT_ONCE = 4096


@on_host()
def sample_optimal(
    key: Array,
    optima: OptimalSet,
    num_samples: int,
    *,
    num_chains: int = CHAINS,
    thinning: int | None = None,
    burn_in: int | None = None,
) -> Array:
    """Coefficients of optimal networks, uniform on the polytope of the optimal set.

    Args:
        key: a JAX random key.
        optima: an `OptimalSet`.
        num_samples: how many.
        num_chains: chains that run side by side, each from a random mixture of vertices.
        thinning: steps from one sample of a chain to the next; default dimension^2.
        burn_in: steps before the first; default 10 times as many.

    Returns:
        Array (num_samples, k); sample i is of chain ``i % num_chains``. How much they are worth is
        told by `effective_sample_size`.

    Raises:
        ValueError: a count that is not positive.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> jax.config.update("jax_enable_x64", True)
        >>> X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
        >>> program = jr.ConvexProgram(X, np.asarray([2.0, 2.0]), jr.enumerate_patterns(X))
        >>> optima = jr.optimal_set(program, jr.solve(program, 0.5))
        >>> jr.sample_optimal(jax.random.key(0), optima, 100).shape
        (100, 3)

    Reference: Smith (Operations Research, 1984).
    """
    check_key(key)
    check_optima(optima)
    num_samples, num_chains = count(num_samples, "num_samples"), count(num_chains, "num_chains")
    thinning = max(1, optima.dimension**2) if thinning is None else count(thinning, "thinning")
    burn_in = 10 * thinning if burn_in is None else count(burn_in, "burn_in", least=0)
    if optima.dimension == 0:
        return jnp.broadcast_to(optima.interior, (num_samples, optima.interior.size))
    P, support = inside_support(optima)
    corners, shape = _corners_and_shape(P)
    shares = jax.random.dirichlet(jax.random.fold_in(key, 0), jnp.ones(len(corners)), (num_chains,))
    starts = matmul(shares.astype(corners.dtype), jnp.asarray(corners))
    draws = -(-num_samples // num_chains)
    inside = _run(key, starts, jnp.asarray(shape.T), draws, thinning, burn_in)
    whole = jnp.zeros((num_samples, support.size), inside.dtype)
    coefficients = inside.reshape(-1, P.start.size)[:num_samples, : P.num]
    return whole.at[:, np.flatnonzero(support)].set(coefficients)


@on_host()
def effective_sample_size(samples: Any, *, num_chains: int = CHAINS) -> Array:
    """How many independent samples the samples of `sample_optimal` are worth, per coefficient.

    num_samples / (1 + 2 sum of autocorrelations), those summed in pairs while a pair is positive
    (Geyer, 1992), within chains and with the spread between them.

    Args:
        samples: array (num_samples, k), as `sample_optimal` returned it.
        num_chains: as it was given to `sample_optimal`.

    Returns:
        Array (k,); NaN for a coefficient that does not vary.

    Raises:
        ValueError: fewer than four samples a chain.

    Example:
        >>> import jaxrelu as jr, numpy as np
        >>> independent = np.random.default_rng(0).standard_normal((4000, 1)).astype("float32")
        >>> bool(jr.effective_sample_size(independent)[0] > 3000)
        True

    Reference: Geyer (Statistical Science, 1992).
    """
    num_chains = count(num_chains, "num_chains")
    a = known_matrix(samples, "samples", "(num_samples, k)").astype(np.float64)
    a = np.ldexp(a, -exponents(a))
    draws = len(a) // num_chains
    if draws < 4:
        raise ValueError(
            f"{len(a)} samples of num_chains = {num_chains} are too few: pass 4 a chain."
        )
    chains = a[: draws * num_chains].reshape(draws, num_chains, -1).transpose(1, 0, 2)
    centred = chains - chains.mean(axis=(0, 1))
    # What varies by rounding alone does not vary.
    centred[:, :, np.abs(centred).max(axis=(0, 1)) <= 1e-12 * np.abs(a).max()] = 0.0
    length = 2 * draws
    spectrum = np.abs(np.fft.rfft(centred, length, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, length, axis=1)[:, :draws].mean(axis=0) / draws
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / covariance[0]
        pairs = correlation[: draws // 2 * 2].reshape(draws // 2, 2, -1).sum(axis=1)
        positive = np.cumprod(pairs > 0, axis=0)
        time = 2 * np.sum(pairs * positive, axis=0) - 1
        return jnp.asarray(np.minimum(draws * num_chains / time, draws * num_chains))


def _corners_and_shape(P: polytopes.Polytope) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (number, K) of random objectives, and axes (K, m) in which the polytope is round."""
    m = P.null.shape[1]
    rng = np.random.default_rng(0)
    number = min(max(4 * m, 16), _MOST_CORNERS)
    corners = [polytopes.vertex(P, P.moves @ rng.standard_normal(m)) for _ in range(number)]
    spread = (np.stack(corners) - np.mean(corners, axis=0))[:, : P.num] / P.size @ P.moves
    covariance = spread.T @ spread / number
    covariance += 1e-6 * np.trace(covariance) / m * np.eye(m)
    shape: np.ndarray = P.null @ np.linalg.cholesky(covariance)
    return np.stack(corners), shape


@partial(jax.jit, static_argnames=("draws", "thinning", "burn_in"))
def _run(key: Array, starts: Array, axes: Array, draws: int, thinning: int, burn_in: int) -> Array:
    """(draws, num_chains, K) members start + <axes (m, K), t>, each from the one before."""

    def walk(members: Array, key: Array, steps: int) -> Array:
        # Random numbers for so many steps are drawn at once, and no more are held.
        whole, rest = divmod(steps, _AT_ONCE)

        def some(part: Array, members: Array) -> Array:
            return stride(members, jax.random.fold_in(key, part), _AT_ONCE)

        members = jax.lax.fori_loop(0, whole, some, members) if whole else members
        return stride(members, jax.random.fold_in(key, whole), rest) if rest else members

    def stride(members: Array, key: Array, steps: int) -> Array:
        chosen, where = jax.random.split(key)
        shape = (steps, len(starts))
        lines = jax.random.randint(chosen, shape, 0, len(axes))
        shares = jax.random.uniform(where, shape, starts.dtype)

        def step(i: Array, a: Array) -> Array:
            change = axes[lines[i]]
            ratio = -a / jnp.where(change == 0, 1.0, change)
            high = jnp.min(jnp.where(change < 0, ratio, jnp.inf), axis=1)
            low = jnp.max(jnp.where(change > 0, ratio, -jnp.inf), axis=1)
            size = low + shares[i] * (high - low)
            return jnp.maximum(a + jnp.where(jnp.isfinite(size), size, 0.0)[:, None] * change, 0.0)

        return jax.lax.fori_loop(0, steps, step, members)

    def draw(members: Array, index: Array) -> tuple[Array, Array]:
        members = walk(members, jax.random.fold_in(key, index), thinning)
        return members, members

    first = walk(starts, jax.random.fold_in(key, 1), burn_in)
    return jax.lax.scan(draw, first, jnp.arange(2, draws + 2))[1]
