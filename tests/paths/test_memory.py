"""`estimate_memory` and the batch sizes that bound it."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.paths.checks import step_limit
from jaxrelu.paths.traced_solve import solve_compiled
from jaxrelu.solvers.base import tolerances

GENERIC = zoo.problem(zoo.generic)
LAMS = GENERIC.lams(0.5, 0.3, 0.1)


def test_results_and_batches_are_counted():
    one = jr.estimate_memory(GENERIC.program, LAMS[:1])
    program = sum(a.nbytes for a in (GENERIC.program.X, GENERIC.program.patterns.masks))
    dense = 8 * 2 * zoo.PATTERNS * zoo.FEATURES  # an answer and its certificate share weights
    assert one > program + 2 * dense
    many = jr.estimate_memory(GENERIC.program, LAMS * 100)
    # Every further lam adds its results, in parts and joined, and no work space.
    results = 8 * (3 * zoo.SAMPLES + 5) + dense
    assert one + 299 * results <= many < one + 2 * 300 * results


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


def large(n=4000, p=1000, d=40):
    """A program whose n x 2pd matrix would be 2.6 GB; it is never solved."""
    rng = np.random.default_rng(0)
    X, gates = rng.standard_normal((n, d)), rng.standard_normal((d, p))
    return jr.ConvexProgram(X, np.ones(n), jr.Patterns(gates, X @ gates >= 0, gates))


def plan(program, solver):
    """What XLA plans for `solve`, compiled and not run."""
    lam, tolerance = np.float64(0.1), tolerances(program, 1e-6, 1e-9)
    steps = step_limit(solver, None)
    args = (program, lam, tolerance, steps, None, solver, type(program.loss))
    return solve_compiled.lower(*args).compile().memory_analysis()


@pytest.mark.slow
def test_the_whole_matrix_is_never_held():
    program = large()
    found = plan(program, jr.ActiveNewton(capacity=16))
    whole = 8 * program.X.size * 2 * program.patterns.masks.shape[1]
    # All that is planned is a small part of it: X, masks, and rows of a few slots and lanes.
    assert found.temp_size_in_bytes + found.output_size_in_bytes < whole / 10


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 4])
def test_patterns_in_batches_take_less(lanes):
    # So many that their masks as numbers are what a round holds most of.
    program = large(p=6000)
    at_once, in_batches = (
        jr.estimate_memory(
            program,
            LAMS * 2,
            solver=jr.ActiveNewton(capacity=16, pattern_batch_size=size),
            lam_batch_size=lanes,
        )
        for size in (None, 8)
    )
    # In every lane the masks as numbers, n x p of them, are no longer there.
    masks = 8 * program.patterns.masks.size
    assert in_batches < at_once - 0.5 * lanes * masks


@pytest.mark.slow
def test_weights_a_skip_connection_and_kinks_are_counted():
    """All that they hold comes on top: a block, the weights, the multipliers of samples."""
    usual, (first, *_) = GENERIC.program, LAMS
    plain = jr.estimate_memory(usual, [first])
    weights = np.ones(usual.block_shape)
    for program in (
        replace(usual, block_weights=weights),
        replace(usual, skip=True),
        replace(usual, loss=jr.AbsoluteLoss()),
    ):
        assert plain < jr.estimate_memory(program, [first]) < 3 * plain
        jr.raise_if_failed(jr.solve(program, first))


def test_shapes_are_enough():
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(np.shape(a), np.asarray(a).dtype), GENERIC.program
    )
    known = jr.estimate_memory(GENERIC.program, LAMS)
    assert jr.estimate_memory(shapes, LAMS) == known
