"""Step sizes of every block against a dense grid."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrelu.solvers.augmented_lagrangian.step_sizes import block_sizes


def _problem(seed):
    """Two blocks with a stiff wall each, at kinks, and their coupling."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((2, 6))
    coupling = features @ features.T
    pull = -coupling @ np.ones(2)
    kinks = rng.uniform(0.01, 0.9, 2)
    return pull, coupling, kinks


def _value(t, pull, coupling, kinks):
    walls = 0.5e3 * np.sum(np.maximum(t - kinks, 0.0) ** 2)
    return pull @ t + 0.5 * t @ coupling @ t + walls


def test_sizes_of_blocks_come_close_to_the_minimum():
    @jax.jit
    def sizes(pull, coupling, kinks, start):
        def slope(b, t):
            beyond = t > kinks[b]
            return jnp.where(beyond, 1e3 * (t - kinks[b]), 0.0), jnp.where(beyond, 1e3, 0.0)

        return block_sizes(slope, pull, coupling, start)

    grid = np.linspace(0.0, 1.0, 201)
    for seed in range(10):
        pull, coupling, kinks = _problem(seed)
        best = min(
            _value(np.asarray(t), pull, coupling, kinks) for t in itertools.product(grid, grid)
        )
        alone = min(_value(np.full(2, t), pull, coupling, kinks) for t in grid)
        found = sizes(pull, coupling, kinks, jnp.full(2, 0.1))
        value = _value(np.asarray(found), pull, coupling, kinks)
        assert value <= best + 0.1 * (alone - best) + 1e-3 * abs(best)
        assert np.all((found >= 0) & (found <= 1))


def test_blocks_without_walls_take_the_whole_step():
    pull, coupling, _ = _problem(0)
    own = 0.5 * np.diag(coupling)
    found = block_sizes(
        lambda b, t: (0.0 * t, 0.0 * t), jnp.asarray(pull), jnp.asarray(np.diag(own)), jnp.zeros(2)
    )
    np.testing.assert_allclose(found, np.clip(-pull / own, 0.0, 1.0), atol=1e-3)
