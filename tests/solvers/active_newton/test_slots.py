"""Slots: few are enough, wherever the optimum needs no more."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import zoo

import jaxrelu as jr

SIGNS = [np.sign(np.random.default_rng(seed).standard_normal(40)) for seed in range(60)]


def signs_program():
    """At a small lam nearly all of the 160 blocks violate at zero weights; 14 to 24 are needed."""
    X = np.random.default_rng(0).standard_normal((40, 3))
    return jr.ConvexProgram(X, SIGNS[0], jr.sample_patterns(jax.random.key(0), X, num_gates=80))


@pytest.mark.slow
def test_slots_are_not_filled_with_blocks_that_do_not_stay():
    program, solver = signs_program(), jr.ActiveNewton(capacity=24)
    top = jr.lambda_max(program)
    lam = 0.05 * top
    solution = jr.solve(program, lam, solver=solver)
    assert int(solution.status) == jr.Status.OPTIMAL
    zoo.recheck(program, lam, solution)
    # A start at a much larger lam comes down like one from nothing, or faster.
    nothing = jr.solve(program, 1.01 * top, solver=solver, max_steps=0)
    assert (int(nothing.status), int(nothing.num_steps)) == (jr.Status.OPTIMAL, 0)
    from_nothing = jr.solve(program, lam, solver=solver, init=nothing)
    assert int(from_nothing.status) == jr.Status.OPTIMAL
    path = jr.solve_path(program, [lam], solver=solver, init=nothing)
    assert path.status.tolist() == [jr.Status.OPTIMAL]


@pytest.mark.slow
def test_a_start_half_way_down_saves_steps():
    """Over eight targets together: the steps of one hang on rounding."""
    solver, steps = jr.ActiveNewton(capacity=24), np.zeros(2, int)
    for seed in range(8):
        program = replace(signs_program(), y=SIGNS[seed])
        top = jr.lambda_max(program)
        between = jr.solve(program, 0.2 * top, solver=solver)
        for k, init in enumerate((None, between)):
            solution = jr.solve(program, 0.05 * top, solver=solver, init=init)
            assert int(solution.status) == jr.Status.OPTIMAL
            steps[k] += int(solution.num_steps)
    assert steps[1] < 0.9 * steps[0], steps


# Blocks next to nothing once kept their slots, and these ended with gaps of 0.2 to 50 %.
@pytest.mark.parametrize("seed", [0, 2, 12, 24, 27, 29, 34, 39, 40])
def test_blocks_that_do_not_stay_give_their_slots_up(seed):
    program, solver = replace(signs_program(), y=SIGNS[seed]), jr.ActiveNewton(capacity=24)
    top = jr.lambda_max(program)
    for init in (None, jr.solve(program, 0.2 * top, solver=solver)):
        solution = jr.solve(program, 0.05 * top, solver=solver, init=init)
        assert int(solution.status) == jr.Status.OPTIMAL
    path = jr.solve_path(program, np.asarray([0.2, 0.05]) * top, solver=solver)
    assert path.status.tolist() == [jr.Status.OPTIMAL] * 2


KINDS = {
    "signs": (40, 3, 80, 24, jr.SquaredLoss(), False),
    "few slots": (40, 3, 80, 12, jr.SquaredLoss(), False),
    "logistic": (60, 8, 60, 16, jr.LogisticLoss(), False),
    "logistic in three dimensions": (40, 3, 80, 24, jr.LogisticLoss(), False),
    "walls": (30, 2, 58, 10, jr.SquaredLoss(), False),
    "gated": (50, 5, 60, 16, jr.SquaredLoss(), True),
    "wide": (20, 30, 40, 10, jr.SquaredLoss(), False),
}
SPARE = 3


def target(seed, X, loss):
    """Signs, noise or noisy neurons; labels for a logistic loss."""
    rng, (n, d) = np.random.default_rng(seed), X.shape
    if isinstance(loss, jr.LogisticLoss):
        return np.sign(rng.standard_normal(n) + seed % 2 * 2 * X[:, 0])
    if seed % 3 == 2:
        neurons = np.maximum(X @ rng.standard_normal((d, 3)), 0).sum(axis=1)
        return neurons - 1 + 0.3 * rng.standard_normal(n)
    noise = rng.standard_normal(n)
    return np.sign(noise) if seed % 3 == 0 else noise


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_slots_as_the_optimum_needs_and_a_few_more_are_enough(kind):
    n, d, gates, capacity, loss, gated = KINDS[kind]
    X = np.random.default_rng(7).standard_normal((n, d))
    patterns = jr.sample_patterns(jax.random.key(0), X, num_gates=gates, gated=gated)
    program = (jr.GatedProgram if gated else jr.ConvexProgram)(X, np.ones(n), patterns, loss)
    solver, failed, tried = jr.ActiveNewton(capacity=capacity), [], 0
    for seed in range(75):
        program = replace(program, y=target(seed, X, loss))
        lams = float(jr.lambda_max(program)) * np.geomspace(0.5, 0.005, 12)
        path = jr.solve_path(program, lams, rtol=1e-8)
        size = np.linalg.norm(np.asarray(path.block_weights), axis=-1)
        needed = np.sum(size > 1e-7 * size.max(axis=1, keepdims=True), axis=1)
        fits = np.flatnonzero(needed <= capacity - SPARE)
        if fits.size == 0:
            continue
        tried, lam = tried + 1, lams[fits[-1]]
        above = np.minimum(lam * np.geomspace(8, 1, 3), 0.9 * lams[0] / 0.5)
        warm = jr.solve(program, above[0], solver=solver)
        other = jr.solve(replace(program, y=np.roll(program.y, 1)), lam, solver=solver)
        batch = {"solver": solver, "lam_batch_size": 2}
        answers = {
            "cold": jr.solve(program, lam, solver=solver),
            "warm": jr.solve(program, lam, solver=solver, init=warm),
            "of another target": jr.solve(program, lam, solver=solver, init=other),
            "at once": jr.solve_path(program, [lam], solver=solver),
            "path": jr.solve_path(program, above, solver=solver),
            "lanes": jr.solve_grid(program, above, **batch),
            "scouted": jr.solve_grid(program, above, warm_starts=True, **batch),
        }
        failed += [
            (seed, how)
            for how, answer in answers.items()
            if np.any(np.asarray(answer.status) != jr.Status.OPTIMAL)
        ]
    assert tried > 60
    assert not failed
