"""How many programs are compiled from nothing to the first path, and that the second needs none."""

import jax
import numpy as np
from compilations import BACKEND, compile_events

import jaxrelu as jr

# What was reached, in a process that had compiled nothing: each takes from 10 ms to 3 s.
MOST = 50


def posed(seed):
    """Data of a shape of no other test."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((47, 5))
    y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1] - X[:, 2], 0) + 0.1 * rng.standard_normal(47)
    patterns = jr.sample_patterns(jax.random.key(seed), X, 30)
    return jr.ConvexProgram(X, y, patterns)


def test_the_second_path_of_a_shape_compiles_nothing():
    with compile_events(BACKEND) as events:
        program = posed(0)
        lams = jr.lambda_grid(program, num=8, ratio=0.1)
        jr.raise_if_failed(jr.solve_path(program, lams))
    assert 0 < len(events) <= MOST
    with compile_events() as events:
        program = posed(1)
        lams = jr.lambda_grid(program, num=8, ratio=0.12)
        path = jr.solve_path(program, lams, rtol=1e-6)
    assert not events
    jr.raise_if_failed(path)
