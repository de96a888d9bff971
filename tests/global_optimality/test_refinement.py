"""Global certificates, refinement to the global optimum, and the crossing of walls."""

import itertools
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrelu as jr
from jaxrelu.core import budgets
from jaxrelu.core.budgets import Meter
from jaxrelu.global_optimality.local_training import train_from
from jaxrelu.global_optimality.pattern_pool import PatternPool

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
from fuzz_certificates import check, in_places  # noqa: E402

N, D, PLACES = 12, 4, 32


def problem(seed, loss=None):
    """Labels on Gaussian rows, two sampled patterns in 32 places, and a small lam."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((N, D)), np.sign(rng.standard_normal(N))
    patterns = jr.sample_patterns(jax.random.key(seed), X, 2)
    loss = jr.SquaredLoss() if loss is None else loss
    program = in_places(jr.ConvexProgram(X, y, patterns, loss), PLACES)
    return program, 0.05 * float(jr.lambda_max(over_all_cells(program)))


def over_all_cells(program):
    """The program over every cell, in 512 places."""
    cells = jr.enumerate_patterns(program.X)
    whole = jr.ConvexProgram(program.X, program.y, cells, program.loss)
    return in_places(whole, 512)


def optimum(program, lam):
    return jr.solve_path(over_all_cells(program), [lam], rtol=1e-10)[0].certificate


def random_network(seed, m=5):
    rng = np.random.default_rng(seed)
    return jr.Network(jnp.asarray(rng.standard_normal((D, m))), jnp.asarray(rng.normal(size=m)))


@pytest.mark.parametrize(
    "loss", [jr.SquaredLoss(), pytest.param(jr.LogisticLoss(), marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_certificates_of_random_networks_hold_the_optimum(loss):
    program, lam = problem(0, loss)
    best = optimum(program, lam)
    for seed in range(8):
        network = random_network(seed)
        found = jr.certify_global(network, program.X, program.y, lam, loss)
        assert found.lower <= best.upper * (1 + 1e-9)
        assert found.upper >= best.lower
        scale = jnp.sqrt(jnp.abs(network.output) / jnp.linalg.norm(network.hidden, axis=0))
        balanced = jr.Network(network.hidden * scale[None], network.output / scale)
        objective = jr.nonconvex_objective(balanced, program.X, program.y, lam, loss)
        np.testing.assert_allclose(found.upper, objective, rtol=1e-12)
        gauge = jr.polar_gauge(program.X, found.dual)
        assert gauge.lower <= lam * (1 + 1e-9)
        np.testing.assert_allclose(found.gap, found.upper - found.lower, rtol=1e-12)


@pytest.mark.parametrize("rho", [-0.7, -0.5, 0.0, 0.6])
def test_two_rows_at_an_angle(rho):
    """One neuron along x1 + x2 is the global optimum from rho = -1/2 on, two neurons below."""
    lam, t = 0.5, 2.0
    X = np.array([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]])
    kappa = np.sqrt(2 * (1 + rho))
    a = (t * kappa - lam) / (1 + rho)
    both = (X[0] + X[1]) / kappa
    network = jr.Network(jnp.asarray(np.sqrt(a) * both[:, None]), jnp.asarray([np.sqrt(a)]))
    found = jr.certify_global(network, X, np.full(2, t), lam)
    assert bool(found.gap <= 1e-9) is (rho >= -0.5)
    if rho >= -0.5:
        np.testing.assert_allclose(found.lower, lam**2 / kappa**2 + lam * a, rtol=1e-9)


def test_certify_global_takes_pairs_and_refuses_gated_networks():
    program, lam = problem(0)
    network = random_network(1)
    pair = jr.certify_global((network.hidden, network.output), program.X, program.y, lam)
    whole = jr.certify_global(network, program.X, program.y, lam)
    np.testing.assert_array_equal(pair.lower, whole.lower)
    gated = jr.GatedNetwork(network.hidden, network.hidden, network.output)
    with pytest.raises(TypeError, match="use certify"):
        jr.certify_global(gated, program.X, program.y, lam)
    with pytest.raises(ValueError, match="lam"):
        jr.certify_global(network, program.X, program.y, 0.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "loss", [jr.SquaredLoss(), pytest.param(jr.LogisticLoss(), marks=pytest.mark.slow)]
)
def test_refinement_ends_at_the_optimum_over_all_cells(seed, loss):
    program, lam = problem(seed, loss)
    best = optimum(program, lam)
    found = jr.refine(program, lam, max_patterns=PLACES, max_work=600.0)
    assert found.status is jr.Status.OPTIMAL
    assert found.certificate.gap <= 1e-6 * found.certificate.upper
    np.testing.assert_allclose(found.certificate.upper, best.upper, rtol=1e-6)
    assert found.certificate.lower <= best.upper * (1 + 1e-9)
    value = jr.nonconvex_objective(found.network, program.X, program.y, lam, loss)
    np.testing.assert_allclose(value, found.certificate.upper, rtol=1e-9)
    again = jr.certify_global(found.network, program.X, program.y, lam, loss)
    # Its residual is that of weights with a gap of 1e-6, and off by more.
    assert again.gap <= 5e-5 * again.upper
    uppers = [step.upper for step in found.history]
    assert all(later <= earlier for earlier, later in zip(uppers, uppers[1:], strict=False))
    assert found.history[-1].lower == pytest.approx(float(found.certificate.lower))
    assert found.solution.weights.shape[1] == found.program.patterns.num_patterns <= PLACES


def test_no_training_run_is_better_and_the_best_ends_there():
    """Adam on 60 random networks, its steps decaying to nothing, which kinks do not hold back."""
    program, lam = problem(3)
    found = jr.refine(program, lam, max_patterns=PLACES, max_work=600.0)
    steps, first, last = 20_000, 0.05, 1e-10
    rate = np.log(last / first) / steps
    optimizer = optax.adam(lambda count: first * jnp.exp(rate * count.astype(float)))

    def value(network):
        return jr.nonconvex_objective(network, program.X, program.y, lam)

    def step(_, state):
        network, memory = state
        change, memory = optimizer.update(jax.grad(value)(network), memory, network)
        return optax.apply_updates(network, change), memory

    @jax.jit
    @jax.vmap
    def trained(network):
        return value(jax.lax.fori_loop(0, steps, step, (network, optimizer.init(network)))[0])

    keys = jax.random.split(jax.random.key(0), 2)
    start = jr.Network(
        0.7 * jax.random.normal(keys[0], (60, D, 13)), 0.7 * jax.random.normal(keys[1], (60, 13))
    )
    with jax.numpy_dtype_promotion("standard"):  # for Optax
        ends = np.asarray(trained(start))
    assert np.min(ends) >= float(found.certificate.lower) * (1 - 1e-9)
    np.testing.assert_allclose(np.min(ends), found.certificate.upper, rtol=1e-6)


def test_budgets_end_the_search_and_leave_a_valid_certificate():
    program, lam = problem(1)
    best = optimum(program, lam)
    given = jr.solve_path(program, [lam])[0].certificate.upper
    for limit, budget in {
        jr.Limit.ROUNDS: {"max_rounds": 1},
        jr.Limit.WORK: {"max_work": 0.0},
        jr.Limit.SECONDS: {"max_seconds": 0.0},
    }.items():
        found = jr.refine(program, lam, max_patterns=PLACES, **budget)
        assert (found.status, found.ended_by) == (jr.Status.MAX_STEPS, limit)
        assert len(found.history) == 1
        assert found.certificate.lower <= best.upper * (1 + 1e-9)
        np.testing.assert_allclose(found.certificate.upper, given, rtol=2e-4)


@contextmanager
def burning():
    """A thread multiplies matrices, outside Python's lock, while a block runs."""
    done, matrix = threading.Event(), np.ones((300, 300))

    def burn():
        while not done.is_set():
            matrix @ matrix

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_answers_are_the_same_to_the_bit_on_a_busy_machine_with_a_fast_clock(monkeypatch):
    program, lam = problem(4)
    anywhere = random_network(0)

    def answers():
        found = jr.refine(program, lam, max_patterns=PLACES)
        crossed = jr.cross_walls(program, lam, max_patterns=PLACES)
        proof = jr.certify_global(anywhere, program.X, program.y, lam)
        gauge = jr.polar_gauge(program.X, proof.dual)
        assert found.status is crossed.status is jr.Status.OPTIMAL
        assert found.ended_by is crossed.ended_by is gauge.ended_by is jr.Limit.NONE
        trees = found.certificate, found.solution, found.network, crossed.solution, proof
        others = found.history, crossed.objectives, gauge.lower, gauge.upper, gauge.direction
        return [np.asarray(leaf) for leaf in jax.tree.leaves((trees, others))]

    quiet = answers()

    def sprint(*_):
        raise AssertionError("a default looked at a clock")

    # Nothing may look at a clock; where it does, each look is an hour later.
    hours = itertools.count(step=3600)
    with monkeypatch.context() as patch:
        patch.setattr(budgets, "time", SimpleNamespace(monotonic=sprint))
        for name in ("monotonic", "perf_counter", "time"):
            patch.setattr(time, name, lambda: float(next(hours)))
        with burning():
            busy = answers()
    assert len(quiet) == len(busy)
    for one, other in zip(quiet, busy, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_path_is_its_single_lams():
    program, lam = problem(2)
    lams = [lam, 4 * lam, 2 * lam]
    path = jr.refine_path(program, lams, max_patterns=PLACES, max_work=600.0)
    for k, strength in enumerate(lams):
        assert path[k].status is jr.Status.OPTIMAL
        assert float(path[k].solution.lam) == pytest.approx(strength)
        single = jr.refine(program, strength, max_patterns=PLACES, max_work=600.0)
        np.testing.assert_allclose(path[k].certificate.upper, single.certificate.upper, rtol=2e-6)


def test_a_start_from_an_answer_keeps_its_patterns():
    program, lam = problem(2)
    first = jr.solve_path(program, [lam])[0]
    found = jr.refine(program, lam, max_patterns=PLACES, init=first)
    assert found.status is jr.Status.OPTIMAL
    assert found.certificate.upper <= first.certificate.upper


def test_places_that_run_out_are_given_to_new_patterns():
    program, lam = problem(0)
    pool = PatternPool(program, 3, np.arange(2))
    pool.record(jnp.zeros((2, 3, D)).at[0, 0].set(1.0))  # the second pattern is idle
    kept = pool.masks[:, 0].copy()
    assert pool.add(np.random.default_rng(1).standard_normal((4, D)), 4) == 2
    assert pool.size == 3
    np.testing.assert_array_equal(pool.masks[:, 0], kept)
    assert np.unique(pool.masks, axis=1).shape[1] == 3


@pytest.mark.parametrize("function", [jr.refine, jr.cross_walls])
def test_wrong_arguments(function):
    program, lam = problem(0)
    gated = jr.GatedProgram(program.X, program.y, program.patterns)
    with pytest.raises(TypeError, match="program is a GatedProgram"):
        function(gated, lam)
    with pytest.raises(ValueError, match="lam"):
        function(program, -1.0)
    with pytest.raises(ValueError, match="max_rounds is 0"):
        function(program, lam, max_rounds=0)
    with pytest.raises(ValueError, match="max_patterns is 0"):
        function(program, lam, max_patterns=0)


@pytest.mark.parametrize("seed", range(4))
def test_crossing_walls_ends_at_a_stationary_network(seed):
    program, lam = problem(seed)
    before = jr.solve_path(program, [lam])[0].certificate.upper
    found = jr.cross_walls(program, lam, rtol=1e-8, max_patterns=PLACES, max_work=600.0)
    assert found.status is jr.Status.OPTIMAL
    assert all(b <= a for a, b in zip(found.objectives, found.objectives[1:], strict=False))
    assert found.objectives[-1] < before
    assert found.objectives[-1] >= optimum(program, lam).lower * (1 - 1e-9)
    size = np.linalg.norm(np.asarray(found.network.hidden), axis=0)
    large = size > 1e-3 * np.max(size)
    residual = jr.stationarity(found.network, program.X, program.y, lam, wall_tolerance=1e-4)
    assert np.max(np.asarray(residual.directional)[large]) < 1e-3


@pytest.mark.parametrize("seed", [91])
@pytest.mark.slow
def test_degenerate_problems_are_certified_and_never_wrongly(seed):
    """Duplicate, parallel, zero rows, missing ranks, one class; 91 once had lower > upper."""
    row = check(seed)
    assert not row["false"]
    assert row["status"] == "OPTIMAL"


@pytest.mark.slow
def test_many_degenerate_problems():
    rows = [check(seed) for seed in range(10_000, 10_200)]
    assert not any(row["false"] for row in rows)
    assert sum(row["status"] == "OPTIMAL" for row in rows) >= 0.95 * len(rows)


@pytest.mark.slow
def test_refinement_closes_where_cells_cannot_be_listed():
    """60 x 6 has 13 million cells: the oracle's upper bound comes from branch and bound."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 6))
    y = np.sin(X @ rng.standard_normal(6)) + 0.1 * rng.standard_normal(60)
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 8))
    lam = 0.3 * float(jr.lambda_max(program))
    found = jr.refine(program, lam, max_patterns=64, max_work=300.0)
    assert found.gauge.upper_by == "branch and bound"
    assert found.status is jr.Status.OPTIMAL


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_local_search_goes_downhill_from_any_place(dtype):
    """From the zero answer with five new neurons: what comes out is better than no network."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((N, D)).astype(dtype), np.sign(rng.standard_normal(N)).astype(dtype)
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 3))
    lam = jnp.asarray(0.1, dtype)
    directions = rng.standard_normal((5, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = train_from(
        program, lam, np.zeros((2, 3, D)), y.astype(float), directions, 8, rng, Meter(1.0)
    )
    assert 0 < len(found) <= 5
    features = np.maximum(X @ found.T, 0.0)
    signs = np.sign(features.T @ y)
    assert np.sum((features @ signs - y) ** 2) / 2 < np.sum(y**2) / 2 * 0.9
