"""Every status, reached on purpose: alone, and as a lane of a batch whose others go on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.core.status import Status, describe, remedy
from jaxrelu.solvers.active_newton import driven_rounds

GENERIC = zoo.problem(zoo.generic)
PROGRAM = GENERIC.program
LAM = GENERIC.lams(0.1)[0]


def lane(**changes):
    """The arguments of one solve, as arrays, so that lanes can be stacked."""
    given = {
        "X": PROGRAM.X, "y": PROGRAM.y, "weight": np.ones(zoo.SAMPLES), "lam": LAM,
        "rtol": 1e-6, "atol": 1e-12, "max_steps": 2000,
    } | changes  # fmt: skip
    return {
        name: np.asarray(value, np.int32 if name == "max_steps" else np.float64)
        for name, value in given.items()
    }


def poisoned(array, value):
    array = np.array(array)
    array.flat[3] = value
    return array


ones = np.ones(zoo.SAMPLES)
LANES = {
    "healthy": (lane(), Status.OPTIMAL),
    "few steps": (lane(max_steps=5), Status.MAX_STEPS),
    "no steps": (lane(max_steps=0), Status.MAX_STEPS),
    "X nan": (lane(X=poisoned(PROGRAM.X, np.nan)), Status.NONFINITE),
    "X inf": (lane(X=poisoned(PROGRAM.X, np.inf)), Status.NONFINITE),
    "another healthy": (lane(lam=3 * LAM), Status.OPTIMAL),
    "y nan": (lane(y=poisoned(PROGRAM.y, np.nan)), Status.NONFINITE),
    "y inf": (lane(y=poisoned(PROGRAM.y, -np.inf)), Status.NONFINITE),
    "no tolerance": (lane(rtol=0.0, atol=0.0), Status.PRECISION_FLOOR),
    "weight nan": (lane(weight=poisoned(ones, np.nan)), Status.NONFINITE),
    "weight inf": (lane(weight=poisoned(ones, np.inf)), Status.NONFINITE),
    "weight negative": (lane(weight=poisoned(ones, -1.0)), Status.NONFINITE),
    "weights negative": (lane(weight=-ones), Status.NONFINITE),
    "zeros": (lane(lam=20 * LAM), Status.OPTIMAL),
    "lam zero": (lane(lam=0.0), Status.INVALID),
    "lam negative": (lane(lam=-LAM), Status.INVALID),
    "lam nan": (lane(lam=np.nan), Status.INVALID),
    "lam inf": (lane(lam=np.inf), Status.INVALID),
    "last healthy": (lane(y=2 * PROGRAM.y, lam=2 * LAM), Status.OPTIMAL),
}
EXPECTED = [status for _, status in LANES.values()]


def run(given):
    program = replace(PROGRAM, X=given["X"], y=given["y"], sample_weight=given["weight"])
    options = {name: given[name] for name in ("rtol", "atol", "max_steps")}
    return jr.solve(program, given["lam"], **options)


alone = jax.jit(run)


@pytest.fixture(scope="module")
def batched():
    return jax.jit(jax.vmap(run))


def stacked(lanes):
    return {name: np.stack([one[name] for one in lanes]) for name in lane()}


@pytest.fixture(scope="module")
def batch(batched):
    return batched(stacked([one for one, _ in LANES.values()]))


@pytest.mark.parametrize("name", LANES)
def test_each_status_alone(name):
    given, expected = LANES[name]
    assert Status(int(alone(given).status)) is expected


def test_each_status_as_a_lane(batch):
    assert [Status(int(s)) for s in batch.status] == EXPECTED


def test_nothing_that_is_not_finite_is_optimal(batch):
    for k, name in enumerate(LANES):
        row = zoo.row(batch, k)
        finite = all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(row))
        assert finite or int(row.status) != Status.OPTIMAL, name


def test_failing_lanes_leave_the_others_untouched(batch, batched):
    # The same batch with every failing lane replaced by a healthy one.
    clean = batched(stacked([one if s is Status.OPTIMAL else lane() for one, s in LANES.values()]))
    for k, (given, expected) in enumerate(LANES.values()):
        if expected is not Status.OPTIMAL:
            continue
        row = zoo.row(batch, k)
        zoo.assert_same(row, zoo.row(clean, k))
        assert int(row.num_steps) == int(clean.num_steps[k])
        program = replace(PROGRAM, y=given["y"])
        zoo.recheck(program, float(given["lam"]), row)


def test_unfinished_answers_are_feasible_and_their_bounds_hold(batch):
    names = list(LANES)
    optimum = float(batch.certificate.upper[0])
    for name in ("few steps", "no steps", "no tolerance"):
        row = zoo.row(batch, names.index(name))
        lower, upper = zoo.bounds(PROGRAM, LAM, row)
        assert lower <= optimum * (1 + 1e-6)
        assert upper >= optimum * (1 - 1e-6)
        np.testing.assert_allclose(row.certificate.upper, upper, rtol=1e-10)
        np.testing.assert_allclose(row.certificate.lower, lower, rtol=1e-10)
    floor = zoo.row(batch, names.index("no tolerance")).certificate
    assert abs(float(floor.gap)) <= 1e-12 * optimum


@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_tolerances_that_are_no_numbers_are_never_met(name):
    assert int(alone(lane(**{name: np.nan})).status) != Status.OPTIMAL
    assert int(alone(lane(rtol=0.0, atol=0.0) | lane(**{name: -1.0}, max_steps=50)).status) != 0


@pytest.mark.slow
def test_too_small_a_capacity_stalls():
    solver = jr.ActiveNewton(capacity=1)
    answer = jr.solve(PROGRAM, LAM, solver=solver)
    assert Status(int(answer.status)) is Status.STALLED
    # What one block can do is there, with bounds that hold.
    lower, upper = zoo.bounds(PROGRAM, LAM, answer)
    optimum = float(jr.solve(PROGRAM, LAM).certificate.upper)
    assert lower <= optimum <= upper
    assert upper < zoo.loss_value(PROGRAM, np.zeros(zoo.SAMPLES))
    # At this lam, and not at a stage on the way down: another length of the block gains nothing.
    fit, theta = np.asarray(answer.fit), np.asarray(answer.weights)
    slope = fit @ (fit - np.asarray(PROGRAM.y)) + LAM * np.linalg.norm(theta, axis=-1).sum()
    assert abs(slope) < 1e-3 * upper


@pytest.mark.slow
def test_too_small_a_capacity_stalls_in_a_batch_and_along_a_path():
    solver = jr.ActiveNewton(capacity=1)
    lams = [20 * LAM, LAM]
    expected = [Status.OPTIMAL, Status.STALLED]
    grid = jr.solve_grid(PROGRAM, lams, solver=solver, lam_batch_size=2)
    assert [Status(int(s)) for s in grid.status] == expected
    zoo.recheck(PROGRAM, lams[0], zoo.row(grid, 0))
    path = jr.solve_path(PROGRAM, lams, solver=solver)
    assert [Status(int(s)) for s in path.status] == expected


@pytest.mark.slow
def test_statuses_along_a_path(monkeypatch):
    lams = GENERIC.lams(0.2, 0.1)
    short = jr.solve_path(PROGRAM, lams, max_steps=2)
    assert [Status(int(s)) for s in short.status] == [Status.MAX_STEPS] * 2
    exact = jr.solve_path(PROGRAM, lams, rtol=0.0, atol=0.0)
    assert [Status(int(s)) for s in exact.status] == [Status.PRECISION_FLOOR] * 2
    screenings, screen = [], driven_rounds.begin_screening
    monkeypatch.setattr(
        driven_rounds, "begin_screening", lambda *args: screenings.append(1) or screen(*args)
    )
    broken = jr.solve_path(replace(PROGRAM, y=poisoned(PROGRAM.y, np.nan)), lams)
    assert [Status(int(s)) for s in broken.status] == [Status.NONFINITE] * 2
    # Nothing comes of further rounds.
    assert len(screenings) <= 2 * 16
    skipped = jr.solve_path(PROGRAM, lams, max_active=0)
    assert [Status(int(s)) for s in skipped.status] == [Status.OPTIMAL, Status.SKIPPED]
    with pytest.raises(RuntimeError, match="1 of 2 answers.*\n.*SKIPPED at lam = 3.11854"):
        jr.raise_if_failed(skipped)


def test_raise_if_failed_is_silent_on_success(batch):
    healthy = jax.tree.map(lambda a: a[jnp.asarray([0, 5])], batch)
    assert jr.raise_if_failed(healthy) is None
    assert jr.raise_if_failed(zoo.row(batch, 0)) is None


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OPTIMAL])
def test_raise_if_failed_names_lam_reason_and_remedy(batch, status):
    failed = replace(zoo.row(batch, 0), status=jnp.asarray(status, jnp.int32))
    with pytest.raises(RuntimeError, match="1 of 1 answers") as caught:
        jr.raise_if_failed(failed)
    message = str(caught.value)
    for part in (status.name, f"lam = {LAM:.6g}", describe(status), remedy(status)):
        assert part in message


def test_raise_if_failed_names_every_kind_once(batch):
    with pytest.raises(RuntimeError) as caught:
        jr.raise_if_failed(batch)
    message = str(caught.value)
    failures = sum(s is not Status.OPTIMAL for s in EXPECTED)
    assert f"{failures} of {len(EXPECTED)} answers" in message
    for status in (Status.MAX_STEPS, Status.NONFINITE, Status.INVALID, Status.PRECISION_FLOOR):
        assert message.count(status.name) == 1
    assert "OPTIMAL" not in message
    assert "STALLED" not in message


def test_raise_if_failed_is_for_the_host():
    def inside(status):
        jr.raise_if_failed(replace(answer, status=status))
        return status

    answer = jr.Solution(*[jnp.zeros(())] * 7)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(inside)(jnp.asarray(0, jnp.int32))
