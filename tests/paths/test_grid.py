"""`solve_grid`: the loop over `solve`, in batches of any size."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.paths import memory
from jaxrelu.solvers.active_newton import rounds

GENERIC = zoo.problem(zoo.generic)
LAMS = GENERIC.lams(0.02, 0.5, 0.1)  # neither ascending nor descending


@pytest.mark.parametrize(
    "lam_batch_size", [None, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 3))]
)
def test_grid_is_the_loop(lam_batch_size):
    grid = jr.solve_grid(GENERIC.program, LAMS, lam_batch_size=lam_batch_size)
    assert all(leaf.shape[0] == len(LAMS) for leaf in jax.tree.leaves(grid))
    np.testing.assert_array_equal(grid.lam, LAMS)
    for k, lam in enumerate(LAMS):
        zoo.assert_same(jr.solve(GENERIC.program, lam), zoo.row(grid, k))
        zoo.recheck(GENERIC.program, lam, zoo.row(grid, k))


@zoo.parametrize([*zoo.COMMON, zoo.gated, zoo.logistic])
def test_batches_are_certified_on_every_problem(build):
    problem = zoo.problem(build)
    lams = problem.lams(1.1, 0.3, 0.05)
    grid = jr.solve_grid(problem.program, lams, lam_batch_size=2)
    for k, lam in enumerate(lams):
        zoo.recheck(problem.program, lam, zoo.row(grid, k))
    np.testing.assert_array_equal(grid.weights[0], 0.0)


@pytest.mark.slow
def test_lanes_that_end_make_room_and_wait_little(caplog):
    lams = GENERIC.lams(*np.geomspace(0.6, 0.003, 20))
    with caplog.at_level("INFO", logger="jaxrelu"):
        grid = jr.solve_grid(GENERIC.program, lams, lam_batch_size=8)
    for k, lam in enumerate(lams):
        zoo.assert_same(jr.solve(GENERIC.program, lam), zoo.row(grid, k))
    (record,) = [r for r in caplog.records if r.name == "jaxrelu"]
    count, needed, executed = record.args
    assert count == 20
    assert needed == int(grid.num_steps.sum())
    assert 0.7 * executed <= needed <= executed


@pytest.mark.slow
def test_lams_that_start_from_each_other_take_the_steps_of_a_path(caplog):
    lams = GENERIC.lams(*np.geomspace(0.003, 0.6, 20))
    with caplog.at_level("INFO", logger="jaxrelu"):
        grid = jr.solve_grid(GENERIC.program, lams, lam_batch_size=8, warm_starts=True)
    for k, lam in enumerate(lams):
        zoo.recheck(GENERIC.program, lam, zoo.row(grid, k))
    (record,) = [r for r in caplog.records if r.name == "jaxrelu"]
    _, needed, executed = record.args
    assert needed == int(grid.num_steps.sum())
    assert 0.7 * executed <= needed <= executed
    path = jr.solve_path(GENERIC.program, lams)
    assert needed <= 1.5 * int(path.num_steps.sum())
    near = jr.solve_grid(GENERIC.program, lams[:2], init=path[1], warm_starts=True)
    assert np.all(near.status == jr.Status.OPTIMAL)


@pytest.mark.slow
def test_a_scout_that_breaks_leaves_the_lanes_alone():
    y = np.array(GENERIC.program.y)
    y[3] = np.nan
    broken = replace(GENERIC.program, y=y)
    grid = jr.solve_grid(broken, LAMS, lam_batch_size=2, warm_starts=True)
    assert [jr.Status(int(s)).name for s in grid.status] == ["NONFINITE"] * 3
    few = jr.solve_grid(GENERIC.program, LAMS, max_steps=1, lam_batch_size=2, warm_starts=True)
    assert [jr.Status(int(s)).name for s in few.status] == ["MAX_STEPS"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("warm_starts", [False, True])
def test_what_has_been_found_is_there_when_the_rounds_are_used_up(monkeypatch, warm_starts):
    monkeypatch.setattr(rounds, "MAX_ROUNDS", 4)
    # Shapes of their own: what is compiled here knows of four rounds only.
    given = GENERIC.program
    some = replace(given.patterns, masks=given.patterns.masks[:31])
    program = jr.ConvexProgram(given.X[:31], given.y[:31], some)
    lam = 0.01 * float(jr.lambda_max(program))
    grid = jr.solve_grid(program, [lam] * 3, lam_batch_size=2, warm_starts=warm_starts)
    # Those that start from the first of them have its rounds behind them.
    assert grid.status.tolist().count(jr.Status.STALLED) >= (1 if warm_starts else 3)
    lower, upper = np.asarray(grid.certificate.lower), np.asarray(grid.certificate.upper)
    assert np.all((lower > 0) & (lower <= upper))
    assert np.all(upper < zoo.loss_value(program, np.zeros(31)))


def test_warm_starts_say_what_they_need():
    with pytest.raises(ValueError, match="warm_starts is for ActiveNewton"):
        jr.solve_grid(GENERIC.program, LAMS, solver=jr.ADMM(), warm_starts=True)
    with pytest.raises(ValueError, match="warm_starts is for ActiveNewton"):
        jax.jit(lambda x: jr.solve_grid(GENERIC.program, x, warm_starts=True))(np.asarray(LAMS))
    mesh = jax.make_mesh((1,), ("lam",))
    with pytest.raises(ValueError, match="do not start from each other"):
        jr.solve_grid(GENERIC.program, LAMS, mesh=mesh, warm_starts=True)


@pytest.mark.slow
def test_tolerances_and_limits_reach_every_lane():
    few = jr.solve_grid(GENERIC.program, LAMS, max_steps=1, lam_batch_size=2)
    assert [jr.Status(int(s)).name for s in few.status] == ["MAX_STEPS"] * 3
    tight = jr.solve_grid(GENERIC.program, LAMS, rtol=1e-10, atol=0.0, lam_batch_size=2)
    for k, lam in enumerate(LAMS):
        zoo.recheck(GENERIC.program, lam, zoo.row(tight, k), rtol=1e-10, digits=1e-12)


@pytest.mark.slow
def test_init_serves_every_lane():
    lams = GENERIC.lams(0.1, 0.09)
    start = jr.solve(GENERIC.program, lams[0])
    cold = jr.solve_grid(GENERIC.program, lams)
    warm = jr.solve_grid(GENERIC.program, lams, init=start, lam_batch_size=2)
    for k, lam in enumerate(lams):
        zoo.recheck(GENERIC.program, lam, zoo.row(warm, k))
    assert np.all(np.asarray(warm.num_steps) < np.asarray(cold.num_steps))


@pytest.mark.slow
def test_grid_inside_a_trace_is_the_loop():
    inside = jax.jit(lambda program, lams: jr.solve_grid(program, lams))
    grid = inside(GENERIC.program, np.asarray(LAMS))
    for k, lam in enumerate(LAMS):
        zoo.assert_same(jr.solve(GENERIC.program, lam), zoo.row(grid, k))


@pytest.mark.slow
def test_a_batch_size_inside_a_trace_and_traced_tolerances():
    expected = jr.solve_grid(GENERIC.program, LAMS)

    @jax.jit
    def traced(lams, rtol):
        return jr.solve_grid(GENERIC.program, lams, rtol=rtol, lam_batch_size=2)

    found = traced(np.asarray(LAMS), 1e-6)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.certificate.upper, expected.certificate.upper, rtol=2e-6)
    with pytest.raises(TypeError, match="rtol is traced, but solve_path looks at values"):
        jax.jit(lambda rtol: jr.solve_path(GENERIC.program, LAMS, rtol=rtol).upper)(1e-6)


def test_a_batch_on_an_accelerator_fits_its_memory(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 2**33}

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    n, d, p = 5000, 50, 2000
    rows = jax.ShapeDtypeStruct((n, d), np.float64)
    masks = jax.ShapeDtypeStruct((n, p), bool)
    large = jr.ConvexProgram(rows, rows, jr.Patterns(rows, masks))
    for solver in (jr.ActiveNewton(), jr.ADMM()):
        width = memory.batch_size(large, solver, 100, None)
        assert 1 <= width < 100
        assert width * memory.lane_bytes(large, solver) <= 2**32
    assert memory.batch_size(GENERIC.program, jr.ActiveNewton(), 3, None) == 3
    assert memory.batch_size(large, jr.ActiveNewton(), 100, 64) == 64
