"""Derivatives of what needs no solve, on hundreds of small problems, generic and degenerate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hunts import FAMILIES, GENERIC, PLANTED, PROBLEMS, STEPS, derivatives, drawn, moved

import jaxrelu as jr


def outputs(program, lam, weights):
    """lambda_max, sums of block correlations, and the three parts of a KKT residual."""
    rng = np.random.default_rng(6)
    q = jr.block_correlations(program, jnp.asarray(rng.standard_normal(program.X.shape[0])))
    found = jr.kkt_residual(program, lam, weights)
    total = jnp.sum(rng.standard_normal(q.shape) * q)
    return jnp.stack([jr.lambda_max(program), total, *jax.tree.leaves(found)])


value = jax.jit(outputs)


both_modes = derivatives(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_both_modes_are_differences_or_nan(family):
    finite = []
    for seed in range(PROBLEMS):
        kind, program, lam, change = drawn(family, seed)
        if not lam > 0:
            continue
        # Feasible weights of a few blocks, which are no optimum.
        interior = program.patterns.gates if not program.has_cones else program.patterns.interior
        rng = np.random.default_rng(seed)
        sizes = rng.uniform(0.5, 1.5, program.block_shape) * (rng.random(program.block_shape) < 0.3)
        weights = jnp.asarray(sizes[..., None] * np.asarray(interior).T)
        change = [jnp.asarray(c) for c in (*change, lam)]
        _, ahead, back = map(np.asarray, both_modes(program, jnp.asarray(lam), weights, change))
        # Where nothing moves (labels), one of the modes may still say that nothing could.
        none = np.isnan(ahead) | np.isnan(back)
        moves = np.asarray([np.any(c != 0) for c in change])
        np.testing.assert_array_equal(none[0], np.isnan(ahead[0]) & np.isnan(back[0]))
        np.testing.assert_allclose(
            ahead[~none], back[~none], rtol=1e-6, atol=1e-6, err_msg=f"seed {seed}"
        )
        off = np.where(none | ~moves[:, None], 0.0, np.inf)
        for h in STEPS:
            if np.all(off <= 1e-5):
                break
            for k in np.flatnonzero(np.any(off > 1e-5, axis=1)):
                ends = [
                    np.asarray(value(*moved(program, lam, k, s * change[k]), weights))
                    for s in (h, -h)
                ]
                difference = (ends[0] - ends[1]) / (2 * h)
                error = np.abs(difference - ahead[k]) / (1.0 + np.abs(difference))
                off[k] = np.fmin(off[k], error)
        assert np.all(off <= 1e-5), f"seed {seed}, kind {kind}: {ahead} off by {off}"
        if kind in (GENERIC, PLANTED):
            finite.append(~none)
    assert np.mean(finite) > 0.5
