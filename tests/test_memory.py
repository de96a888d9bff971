"""`estimate_memory` and the batch sizes that bound it."""

import numpy as np
import pytest
import zoo

import jaxrelu as jr

GENERIC = zoo.problem(zoo.generic)
LAMS = GENERIC.lams(0.5, 0.3, 0.1)


def test_results_and_batches_are_counted():
    one = jr.estimate_memory(GENERIC.program, LAMS[:1])
    program = sum(a.nbytes for a in (GENERIC.program.X, GENERIC.program.patterns.masks))
    dense = 8 * 2 * 2 * zoo.PATTERNS * zoo.FEATURES  # weights, there and in the certificate
    assert one > program + dense
    many = jr.estimate_memory(GENERIC.program, LAMS * 100)
    # Every further lam adds its results, in parts and joined, and no work space.
    results = 8 * (3 * zoo.SAMPLES + 5) + dense
    assert one + 299 * results < many < one + 2.5 * 300 * results


@pytest.mark.slow
def test_a_batch_takes_what_its_lanes_take():
    one = jr.estimate_memory(GENERIC.program, LAMS * 4, lam_batch_size=1)
    batch = jr.estimate_memory(GENERIC.program, LAMS * 4, lam_batch_size=12)
    assert 3 * one < batch < 20 * one


def test_sizes_that_are_not_positive():
    with pytest.raises(ValueError, match="lam_batch_size is 0"):
        jr.estimate_memory(GENERIC.program, LAMS, lam_batch_size=0)
    with pytest.raises(ValueError, match="pattern_batch_size"):
        jr.solve_grid(GENERIC.program, LAMS, pattern_batch_size=0)
    with pytest.raises(TypeError, match="pattern_batch_size is for ActiveNewton"):
        jr.solve_grid(GENERIC.program, LAMS, pattern_batch_size=4, solver=jr.ADMM())


@pytest.mark.slow
def test_patterns_in_batches_change_nothing():
    grid = jr.solve_grid(GENERIC.program, LAMS, pattern_batch_size=3)
    for k, lam in enumerate(LAMS):
        zoo.recheck(GENERIC.program, lam, zoo.row(grid, k))
    path = jr.solve_path(GENERIC.program, LAMS, solver=jr.ActiveNewton(pattern_batch_size=3))
    jr.raise_if_failed(path)
    np.testing.assert_allclose(path.upper, grid.certificate.upper, rtol=2e-6)
