"""`ADMM`: certified answers without a Newton system, in float32 and float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr

GENERIC = zoo.problem(zoo.generic)
LAM = GENERIC.lams(0.1)[0]
ADMM = jr.ADMM()


@zoo.parametrize(zoo.ALL, quick=[zoo.generic, zoo.gated])
def test_answers_are_what_they_claim(build):
    problem = zoo.problem(build)
    for lam in problem.lams(0.5, 0.1):
        answer = jr.solve(problem.program, lam, rtol=1e-5, solver=ADMM)
        zoo.recheck(problem.program, lam, answer, rtol=1e-5)


@zoo.parametrize([*zoo.COMMON, zoo.gated, zoo.logistic])
def test_float32_is_good_to_three_digits_in_float64(build, single):
    problem = zoo.problem(build)
    program = single(problem.program)
    exact = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, program)
    for lam in problem.lams(0.5, 0.1):
        answer = jr.solve(program, lam, solver=ADMM)
        assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
        assert answer.weights.dtype == np.float32
        lower, upper = zoo.bounds(exact, lam, answer)
        assert upper - lower <= 1.2e-3 * upper


@zoo.every_optimum
def test_float32_on_published_data(path):
    program, _, _ = zoo.published(path, np.float32)
    exact, lams, optima = zoo.published(path)
    for lam, optimum in zip(lams, optima, strict=True):
        answer = jr.solve(program, np.float32(lam), solver=ADMM)
        assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
        # The same weights and the same dual point in float64: what was claimed is there.
        lower, upper = zoo.bounds(exact, lam, answer)
        assert upper - lower <= 1.2e-3 * upper
        assert lower <= optimum * (1 + 2e-7)
        assert upper >= optimum * (1 - 2e-6)


@pytest.mark.slow
def test_agrees_with_the_default_solver():
    newton = jr.solve(GENERIC.program, LAM, rtol=1e-9)
    splitting = jr.solve(GENERIC.program, LAM, rtol=1e-7, solver=ADMM)
    np.testing.assert_allclose(splitting.certificate.upper, newton.certificate.upper, rtol=1.1e-7)
    np.testing.assert_allclose(splitting.fit, newton.fit, atol=1e-2 * np.abs(newton.fit).max())


@pytest.mark.slow
def test_jit_of_vmap_is_the_loop():
    lams = np.asarray(GENERIC.lams(0.5, 0.1, 0.05))

    def call(lam):
        return jr.solve(GENERIC.program, lam, rtol=1e-5, solver=ADMM)

    batch = jax.jit(jax.vmap(call))(lams)
    for k, lam in enumerate(lams):
        zoo.assert_same(call(lam), zoo.row(batch, k))


@pytest.mark.slow
def test_grid_takes_it():
    lams = GENERIC.lams(0.5, 0.1)
    grid = jr.solve_grid(GENERIC.program, lams, rtol=1e-5, solver=ADMM, lam_batch_size=2)
    for k, lam in enumerate(lams):
        zoo.recheck(GENERIC.program, lam, zoo.row(grid, k), rtol=1e-5)


@pytest.mark.slow
def test_warm_starts_are_used():
    start = jr.solve(GENERIC.program, LAM, rtol=1e-5, solver=ADMM)
    again = jr.solve(GENERIC.program, LAM, rtol=1e-5, init=start, solver=ADMM)
    near = jr.solve(GENERIC.program, 0.95 * LAM, rtol=1e-5, init=start, solver=ADMM)
    cold = jr.solve(GENERIC.program, 0.95 * LAM, rtol=1e-5, solver=ADMM)
    assert int(again.num_steps) < int(start.num_steps)
    assert int(near.num_steps) <= int(cold.num_steps)
    zoo.recheck(GENERIC.program, 0.95 * LAM, near, rtol=1e-5)


@pytest.mark.slow
def test_steps_that_run_out_leave_valid_bounds():
    answer = jr.solve(GENERIC.program, LAM, max_steps=50, rtol=1e-9, solver=ADMM)
    assert jr.Status(int(answer.status)) is jr.Status.MAX_STEPS
    assert int(answer.num_steps) == 50
    lower, upper = zoo.bounds(GENERIC.program, LAM, answer)
    optimum = float(jr.solve(GENERIC.program, LAM).certificate.upper)
    assert lower <= optimum * (1 + 1e-6)
    assert upper >= optimum * (1 - 1e-6)


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_nan_is_not_optimal(name):
    array = np.array(getattr(GENERIC.program, name))
    array.flat[2] = np.nan
    answer = jr.solve(replace(GENERIC.program, **{name: array}), LAM, rtol=1e-5, solver=ADMM)
    assert jr.Status(int(answer.status)) is jr.Status.NONFINITE


def test_zero_above_lambda_max():
    answer = jr.solve(GENERIC.program, 1.001 * GENERIC.lambda_max, rtol=1e-5, solver=ADMM)
    zoo.recheck(GENERIC.program, 1.001 * GENERIC.lambda_max, answer, rtol=1e-5)
    np.testing.assert_array_equal(answer.weights, jnp.zeros_like(answer.weights))


def test_sizes_that_are_not_positive():
    with pytest.raises(ValueError, match="check_every is 0; pass an integer >= 1"):
        jr.solve(GENERIC.program, LAM, solver=jr.ADMM(check_every=0))
