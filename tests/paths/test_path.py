"""`solve_path`: the same answers as `solve`, in fewer steps, in the order that was asked for."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.solvers.active_newton.path_driver import PathDriver

GENERIC = zoo.problem(zoo.generic)
LAMS = GENERIC.lams(1.2, 0.6, 0.4, 0.25, 0.16, 0.1)


@pytest.fixture(scope="module")
def path():
    return jr.solve_path(GENERIC.program, LAMS)


@zoo.parametrize(zoo.ALL, quick=zoo.COMMON)
def test_answers_are_what_they_claim(build):
    problem = zoo.problem(build)
    lams = problem.lams(1.1, 0.5, 0.1)
    path = jr.solve_path(problem.program, lams)
    for k, lam in enumerate(lams):
        zoo.recheck(problem.program, lam, path[k])
    np.testing.assert_array_equal(path[0].weights, 0.0)
    assert int(path.num_steps[0]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("build", [zoo.generic, zoo.duplicate_patterns])
def test_supports_beyond_the_first_slots(build):
    # More non-zero blocks than the sixteen slots that a path begins with.
    problem = zoo.problem(build)
    lams = problem.lams(0.1, 0.01, 0.001)
    path = jr.solve_path(problem.program, lams)
    for k, lam in enumerate(lams):
        zoo.recheck(problem.program, lam, path[k])
    assert np.sum(np.asarray(path.blocks) < 2 * zoo.PATTERNS, axis=1).max() > 16


def test_values_are_those_of_solve(path):
    for k, lam in enumerate(LAMS):
        answer = jr.solve(GENERIC.program, lam)
        np.testing.assert_allclose(path.upper[k], answer.certificate.upper, rtol=2e-6)
        np.testing.assert_allclose(path.fit[k], answer.fit, atol=1e-3)


def test_rows_follow_the_order_of_the_lams(path):
    order = [3, 0, 5, 1, 4, 2]
    permuted = jr.solve_path(GENERIC.program, [LAMS[k] for k in order])
    np.testing.assert_array_equal(permuted.lams, np.asarray(LAMS)[order])
    for name in ("fit", "residual", "dual", "lower", "upper", "gap", "status", "num_steps"):
        np.testing.assert_array_equal(
            getattr(permuted, name), getattr(path, name)[np.asarray(order)]
        )
    np.testing.assert_array_equal(permuted.weights, path.weights[np.asarray(order)])


def test_rows_are_solutions(path):
    assert len(path) == len(LAMS)
    assert path.weights.shape == (len(LAMS), 2, zoo.PATTERNS, zoo.FEATURES)
    for k, lam in enumerate(LAMS):
        row = path[k]
        assert type(row) is jr.Solution
        assert float(row.lam) == float(path.lams[k]) == lam
        np.testing.assert_array_equal(row.weights, path.weights[k])
        np.testing.assert_array_equal(row.certificate.upper, path.upper[k])
        np.testing.assert_array_equal(row.certificate.dual, path.dual[k])
    np.testing.assert_array_equal(path[-1].fit, path.fit[len(LAMS) - 1])
    assert len(list(path)) == len(LAMS)
    for outside in (len(LAMS), -len(LAMS) - 1):
        with pytest.raises(IndexError, match="6 lams"):
            path[outside]


def test_only_blocks_away_from_zero_are_kept(path):
    sizes = np.linalg.norm(path.block_weights, axis=-1)
    kept = np.asarray(path.blocks) < 2 * zoo.PATTERNS
    np.testing.assert_array_equal(sizes > 0, kept)
    assert path.blocks.shape[1] == 16 < 2 * zoo.PATTERNS
    assert kept.sum(axis=1)[0] == 0


def test_path_is_a_pytree_of_arrays(path):
    leaves, structure = jax.tree.flatten(path)
    assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
    rebuilt = jax.tree.unflatten(structure, leaves)
    assert type(rebuilt) is jr.Path
    assert rebuilt[0].weights.shape == path[0].weights.shape
    doubled = jax.jit(lambda p: jax.tree.map(lambda a: a + a, p))(path)
    np.testing.assert_array_equal(doubled.upper, 2 * path.upper)
    np.testing.assert_array_equal(doubled.weights.shape, path.weights.shape)


def test_warm_starts_take_fewer_steps_than_cold_ones():
    lams = GENERIC.lams(*0.5 * 0.8 ** np.arange(8))
    path, cold = jr.solve_path(GENERIC.program, lams), jr.solve_grid(GENERIC.program, lams)
    jr.raise_if_failed(path)
    assert int(np.sum(path.num_steps[1:])) <= 0.7 * int(np.sum(cold.num_steps[1:]))


def test_stops_early_only_when_asked(path):
    assert np.all(path.status == jr.Status.OPTIMAL)
    counts = np.sum(np.asarray(path.blocks) < 2 * zoo.PATTERNS, axis=1)
    limit = int(counts[2])
    first = int(np.argmax(counts > limit))  # the first answer with more blocks is still there
    order = [5, 4, 3, 2, 1, 0]
    short = jr.solve_path(GENERIC.program, [LAMS[k] for k in order], max_active=limit)
    assert len(short) == len(LAMS)
    for k, lam in zip(order, LAMS[::-1], strict=True):
        row = short[order.index(k)]
        if k <= first:
            zoo.recheck(GENERIC.program, lam, row)
            continue
        assert jr.Status(int(row.status)) is jr.Status.SKIPPED
        assert float(row.lam) == lam
        proof = row.certificate
        for value in (row.fit, row.residual, proof.lower, proof.upper, proof.gap, proof.dual):
            assert np.all(np.isnan(value))
        assert np.all(np.isnan(row.weights))
    with pytest.raises(ValueError, match="were not solved"):
        jr.interpolate(short, 0.5 * (LAMS[first] + LAMS[first + 1]))
    assert np.sum(short.status == jr.Status.SKIPPED) == len(LAMS) - first - 1 > 0


@pytest.mark.slow
def test_starts_from_a_given_solution():
    lams = GENERIC.lams(0.1, 0.09)
    start = jr.solve(GENERIC.program, lams[0])
    cold, warm = (jr.solve_path(GENERIC.program, lams, init=init) for init in (None, start))
    for k, lam in enumerate(lams):
        zoo.recheck(GENERIC.program, lam, warm[k])
    assert 2 * int(warm.num_steps[0]) <= int(cold.num_steps[0])


def test_a_warm_start_that_leads_nowhere_is_given_up(monkeypatch):
    first = PathDriver._come_down
    asked, limits, taken = [], [], []

    def lost_when_warm(self, lam, limit):
        warm = bool(np.any(np.asarray(self.working.blocks) < self.scaled.num_blocks))
        asked.append(warm)
        limits.append(limit)
        answer = first(self, lam, limit)
        taken.append(int(answer.num_steps))
        if not warm:
            return answer
        upper, stalled = answer.verdict.upper, np.int32(jr.Status.STALLED)
        bad = answer.verdict._replace(lower=upper - 0.5 * abs(upper), status=stalled)
        return answer._replace(verdict=bad)

    monkeypatch.setattr(PathDriver, "_come_down", lost_when_warm)
    lams = GENERIC.lams(0.3, 0.1)
    path = jr.solve_path(GENERIC.program, lams)
    assert asked == [False, True, False]
    assert limits == [limits[0], limits[0], limits[0] - taken[1]]
    for k, lam in enumerate(lams):
        zoo.recheck(GENERIC.program, lam, path[k])


@pytest.mark.parametrize("steps", [5, 12, 20, 30, 45])
def test_steps_that_run_out_are_said_to(steps):
    # No tolerance can be met: rounds go on until the steps end, or the rounding is reached.
    path = jr.solve_path(GENERIC.program, GENERIC.lams(0.1), rtol=0.0, atol=0.0, max_steps=steps)
    if int(path.num_steps[0]) >= steps:
        assert jr.Status(int(path.status[0])).name in ("MAX_STEPS", "PRECISION_FLOOR")


def test_one_lam_and_equal_lams():
    lam = GENERIC.lams(0.3)[0]
    path = jr.solve_path(GENERIC.program, [lam, lam])
    zoo.recheck(GENERIC.program, lam, path[1])
    assert int(path.num_steps[1]) <= 3
    assert len(jr.solve_path(GENERIC.program, [lam])) == 1


def test_is_driven_from_the_host(path):
    with pytest.raises(TypeError, match="solve_grid"):
        jax.jit(lambda lams: jr.solve_path(GENERIC.program, lams))(np.asarray(LAMS))
    # Inside a trace, but of known values: it is driven from there.
    inside = jax.jit(lambda: jr.solve_path(GENERIC.program, LAMS).upper)()
    np.testing.assert_array_equal(inside, path.upper)
    with pytest.raises(TypeError, match="k is traced.*index the leaves"):
        jax.jit(lambda path, k: path[k])(path, 0)
    targets = np.ones((2, zoo.SAMPLES))
    with pytest.raises(TypeError, match="outside jit"):
        jax.vmap(lambda y: jr.solve_path(replace(GENERIC.program, y=y), LAMS))(targets)


def test_takes_working_set_solvers_alone():
    class Other:
        default_max_steps = 1

        def run(self, *args):
            raise AssertionError

        def check(self, program):
            pass

    with pytest.raises(TypeError, match="pass an ActiveNewton, which keeps working sets"):
        jr.solve_path(GENERIC.program, LAMS, solver=Other())


@pytest.mark.slow
def test_interpolated_answers_are_feasible_and_certified():
    path = jr.solve_path(GENERIC.program, LAMS)
    for lam in GENERIC.lams(0.11, 0.3, 0.5):
        between = jr.interpolate(path, lam)
        optimum = jr.solve(GENERIC.program, lam).certificate
        bounds = between.certificate
        assert bounds.lower <= optimum.upper * (1 + 1e-9)
        assert bounds.upper >= optimum.lower * (1 - 1e-9)
        assert bounds.gap < 0.2 * bounds.upper
        left = jr.kkt_residual(GENERIC.program, lam, between.weights)
        assert left.primal_feasibility < 1e-12
        assert int(between.num_steps) == 0
    there = jr.interpolate(path, LAMS[2])
    assert jr.Status(int(there.status)).name == "OPTIMAL"
    assert jr.Status(int(between.status)).name == "MAX_STEPS"
    for lam in GENERIC.lams(0.09, 1.3):
        with pytest.raises(ValueError, match="outside the path"):
            jr.interpolate(path, lam)


@pytest.mark.slow
def test_a_looser_tolerance_takes_fewer_steps():
    """Over several targets: the steps of a single one hang on rounding."""
    X, steps = GENERIC.program.X, dict.fromkeys((1e-6, 1e-4, 1e-3, 1e-2), 0)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = np.maximum(X @ rng.standard_normal(X.shape[1]), 0) + 0.3 * rng.standard_normal(len(X))
        program = replace(GENERIC.program, y=y)
        lams = jr.lambda_grid(program, num=10, ratio=0.01)
        for rtol in steps:
            path = jr.solve_path(program, lams, rtol=rtol)
            jr.raise_if_failed(path)
            steps[rtol] += int(np.sum(path.num_steps))
    fewer = list(steps.values())
    assert fewer == sorted(fewer, reverse=True)
    assert steps[1e-2] <= 0.85 * steps[1e-6]
