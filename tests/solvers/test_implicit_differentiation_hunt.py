"""Derivatives of answers on hundreds of small problems, generic and degenerate, at any rtol."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hunts import FAMILIES, GENERIC, PLANTED, PROBLEMS, STEPS, derivatives, drawn, moved

import jaxrelu as jr


def outputs(program, lam, rtol):
    """Sums of everything that is unique where the network is."""
    solution = jr.solve(program, lam, rtol=rtol, atol=0.0)
    n, d = program.X.shape
    rng = np.random.default_rng(5)
    signs = jnp.asarray([1.0, -1.0] if program.has_cones else [1.0])
    weights = solution.weights.reshape(len(signs), -1, d)
    total = jnp.sum(signs[:, None] * jnp.sum(weights, axis=1), axis=0)
    predictions = jr.to_network(program, solution)(rng.standard_normal((4, d)))
    return jnp.stack(
        [
            rng.standard_normal(n) @ solution.fit,
            rng.standard_normal(n) @ solution.residual,
            solution.certificate.upper,
            rng.standard_normal(d) @ total,
            rng.standard_normal(4) @ predictions,
        ]
    )


value = jax.jit(outputs)


both_modes = derivatives(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_both_modes_are_differences_or_nan(family):
    finite, generic = [], []
    for seed in range(PROBLEMS):
        kind, program, lam, change = drawn(family, seed)
        if not lam > 0:
            continue
        change = [jnp.asarray(c) for c in (*change, lam)]
        rtol = [1e-2, 1e-4, 1e-8, 1e-12][seed % 4]
        _, ahead, back = map(np.asarray, both_modes(program, jnp.asarray(lam), rtol, change))
        np.testing.assert_array_equal(np.isnan(ahead), np.isnan(back), err_msg=f"seed {seed}")
        np.testing.assert_allclose(ahead, back, rtol=1e-6, atol=1e-6, err_msg=f"seed {seed}")
        off = np.where(np.isnan(ahead), 0.0, np.inf)
        for h in STEPS:
            if np.all(off <= 1e-5):
                break
            for k in np.flatnonzero(np.any(off > 1e-5, axis=1)):
                ends = [
                    np.asarray(value(*moved(program, lam, k, s * change[k]), 1e-14))
                    for s in (h, -h)
                ]
                difference = (ends[0] - ends[1]) / (2 * h)
                error = np.abs(difference - ahead[k]) / (1.0 + np.abs(difference))
                off[k] = np.fmin(off[k], error)
        assert np.all(off <= 1e-5), f"seed {seed}: {ahead}"
        finite.append(np.isfinite(ahead))
        generic.append(kind in (GENERIC, PLANTED))
    # NaN is not the usual answer: not by y, weights and lam, nor by X where rows are generic.
    assert np.mean(np.array(finite)[:, 1:]) > 0.85
    assert np.mean(np.array(finite)[generic]) > 0.85
