"""`solve` under jit, vmap and float32; one compilation a shape; derivatives at zero blocks."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from compilations import BACKEND, compile_events

import jaxrelu as jr

GENERIC = zoo.problem(zoo.generic)
PROGRAM = GENERIC.program
LAMS = np.asarray(GENERIC.lams(0.4, 0.1, 0.03))


def assert_loop(batch, programs, lams):
    for k, (program, lam) in enumerate(zip(programs, lams, strict=True)):
        zoo.assert_same(jr.solve(program, lam), zoo.row(batch, k))
        zoo.recheck(program, lam, zoo.row(batch, k))


def test_jit_of_vmap_over_lam_is_the_loop():
    batch = jax.jit(jax.vmap(lambda lam: jr.solve(PROGRAM, lam)))(LAMS)
    assert_loop(batch, [PROGRAM] * 3, LAMS)


@pytest.mark.slow
def test_jit_is_the_call():
    inside = jax.jit(jr.solve)
    for lam in LAMS:
        zoo.assert_same(jr.solve(PROGRAM, lam), inside(PROGRAM, lam))


@pytest.mark.slow
def test_vmap_over_targets_and_sample_weights_is_the_loop():
    rng = np.random.default_rng(0)
    targets = np.stack([PROGRAM.y, zoo.data(1)[1], np.zeros(zoo.SAMPLES)])
    weights = rng.uniform(0.0, 2.0, (3, zoo.SAMPLES))
    weights[:, ::3] = 0.0

    def over(y, weight):
        return jr.solve(replace(PROGRAM, y=y, sample_weight=weight), LAMS[1])

    programs = [replace(PROGRAM, y=y) for y in targets]
    ones = np.ones_like(weights)
    batch = jax.jit(jax.vmap(over))
    assert_loop(batch(targets, ones), programs, [LAMS[1]] * 3)
    programs = [replace(PROGRAM, sample_weight=weight) for weight in weights]
    assert_loop(batch(np.stack([PROGRAM.y] * 3), weights), programs, [LAMS[1]] * 3)


@pytest.mark.slow
def test_vmap_over_targets_alone_is_the_loop():
    targets = np.stack([PROGRAM.y, zoo.data(1)[1], zoo.data(2)[1]])
    batch = jax.vmap(lambda y: jr.solve(replace(PROGRAM, y=y), LAMS[1]))(targets)
    assert_loop(batch, [replace(PROGRAM, y=y) for y in targets], [LAMS[1]] * 3)


@pytest.mark.slow
def test_vmap_over_whole_programs_is_the_loop():
    problems = [zoo.problem(b) for b in (zoo.generic, zoo.zero_rows, zoo.sample_weights)]
    programs = [p.program for p in problems]
    lams = np.asarray([p.lams(0.1)[0] for p in problems])
    stacked = jax.tree.map(lambda *a: np.stack(a), *programs)
    assert_loop(jax.jit(jax.vmap(jr.solve))(stacked, lams), programs, lams)


@pytest.mark.slow
@pytest.mark.parametrize("build", [zoo.gated, zoo.logistic])
def test_vmap_over_lam_is_the_loop_for_other_programs(build):
    problem = zoo.problem(build)
    lams = np.asarray(problem.lams(0.4, 0.1, 0.03))
    batch = jax.vmap(lambda lam: jr.solve(problem.program, lam))(lams)
    assert_loop(batch, [problem.program] * 3, lams)


def scaled(seed):
    """The program with its rows scaled, which keeps their patterns, and these in another order."""
    rng = np.random.default_rng(seed)
    factors, order = rng.uniform(0.9, 1.1, (zoo.SAMPLES, 1)), rng.permutation(zoo.PATTERNS)
    patterns = jax.tree.map(lambda leaf: np.asarray(leaf)[:, order], PROGRAM.patterns)
    return replace(PROGRAM, X=PROGRAM.X * factors, y=PROGRAM.y * factors[:, 0], patterns=patterns)


def assert_compiles_once(entry, first, second):
    """Calls with two sets of arguments and options; both answers are sound and differ."""
    with compile_events() as events:
        jax.jit(lambda x: x + 3)(1)  # the listener hears
    assert events
    one = entry(*first[0], **first[1])
    with compile_events() as events:
        other = entry(*second[0], **second[1])
    assert not events
    jr.raise_if_failed(one)
    jr.raise_if_failed(other)
    assert not np.array_equal(one.fit, other.fit)


@pytest.mark.parametrize(
    "entry", [jr.solve, jr.solve_grid, pytest.param(jr.solve_path, marks=pytest.mark.slow)]
)
def test_second_call_of_equal_shape_compiles_nothing(entry):
    lams = LAMS[0] if entry is jr.solve else LAMS[:2]
    first = {"rtol": 1e-5, "atol": 1e-9, "max_steps": 500}
    second = {"rtol": 1e-7, "atol": 1e-8, "max_steps": 400}
    assert_compiles_once(entry, ((scaled(0), lams), first), ((scaled(1), 1.1 * lams), second))


@pytest.mark.slow
@pytest.mark.parametrize("entry", [jr.solve, jr.solve_grid, jr.solve_path])
def test_second_call_from_another_start_compiles_nothing(entry):
    lams = LAMS[0] if entry is jr.solve else LAMS[:2]
    starts = [{"init": jr.solve(scaled(k), LAMS[k])} for k in range(2)]
    assert_compiles_once(
        entry, ((scaled(0), lams), starts[0]), ((scaled(1), 1.1 * lams), starts[1])
    )


@pytest.mark.slow
@pytest.mark.parametrize("entry", [jr.solve, jr.solve_grid])
def test_second_call_of_admm_compiles_nothing(entry):
    lams = LAMS[0] if entry is jr.solve else LAMS[:2]
    first = {"rtol": 1e-4, "atol": 1e-9, "max_steps": 5000, "solver": jr.ADMM()}
    second = {"rtol": 1e-5, "atol": 1e-8, "max_steps": 4000, "solver": jr.ADMM()}
    assert_compiles_once(entry, ((scaled(0), lams), first), ((scaled(1), 1.1 * lams), second))


@pytest.mark.slow
@pytest.mark.parametrize("started", [False, True])
def test_second_grid_of_lanes_compiles_nothing(started):
    # Which lanes go together hangs on the numbers; that they go in known widths must not.
    options = {"lam_batch_size": 4} | ({"init": jr.solve(PROGRAM, LAMS[1])} if started else {})
    first, second = (
        ((scaled(seed), GENERIC.lams(*np.geomspace(high, low, 7))), options)
        for seed, high, low in ((0, 0.6, 0.01), (1, 0.05, 0.4))
    )
    assert_compiles_once(jr.solve_grid, first, second)


@pytest.mark.parametrize("warm_starts", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_lanes_that_never_went_alone_are_compiled_for(warm_starts):
    # With one step all lanes end together, and the scout is lost at every lam.
    options = {"lam_batch_size": 3, "warm_starts": warm_starts}
    short = jr.solve_grid(PROGRAM, LAMS, max_steps=1, **options)
    assert [jr.Status(int(s)).name for s in short.status] == ["MAX_STEPS"] * 3
    with compile_events() as events:
        jr.raise_if_failed(jr.solve_grid(PROGRAM, LAMS, **options))
    assert not events


@pytest.mark.slow
def test_a_path_compiles_a_logarithmic_number_of_shapes():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((90, 7))
    y = rng.standard_normal(90)
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 200))
    # The pieces that do not depend on the slots, compiled outside the count.
    lams = jr.lambda_grid(program, num=40, ratio=1e-3)
    jr.solve_path(program, lams[:1])
    with compile_events(BACKEND) as compiled:
        path = jr.solve_path(program, lams)
    jr.raise_if_failed(path)
    kept = path.blocks.shape[1]
    assert kept >= 48
    # Two numbers of slots a doubling from 16 on, and some programs for each of them.
    numbers = 2 * np.log2(kept / 16) + 1
    assert len(compiled) <= 4 * numbers + 8
    # Twice the target and twice the lams: other values, the same supports.
    doubled = replace(program, y=2 * y)
    with compile_events(BACKEND) as compiled:
        again = jr.solve_path(doubled, 2 * np.asarray(lams))
    assert again.blocks.shape[1] == kept
    assert not compiled


def constants(text):
    """(elements, shape) of the constants in optimized HLO, the largest first; no indices."""
    found = []
    for shape in re.findall(r"= ((?:f64|pred)\[[\d,]*\])\S* constant\(", text):
        sizes = [int(size) for size in shape[shape.index("[") + 1 : -1].split(",") if size]
        found.append((int(np.prod(sizes)), shape))
    return sorted(found, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [jr.ActiveNewton(), jr.ADMM()], ids=["newton", "admm"])
def test_a_program_that_jit_closes_over_is_not_folded(solver):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 8)), rng.standard_normal(300)
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 40))
    inside = jax.jit(lambda lam: jr.solve(program, lam, solver=solver).certificate.upper)
    found = constants(inside.lower(1.0).compile().as_text())
    own = sum(np.size(leaf) for leaf in jax.tree.leaves(program))
    # Nothing that is computed from the program has become a constant, but for transposed copies.
    assert sum(size for size, _ in found) <= 2.5 * own, found[:20]


@zoo.parametrize([*zoo.COMMON, zoo.gated, zoo.logistic], quick=zoo.COMMON)
def test_float32_reaches_its_tolerance_and_float64_agrees(build, single):
    problem = zoo.problem(build)
    program = single(problem.program)
    exact = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, program)
    for lam in problem.lams(0.5, 0.1):
        answer = jr.solve(program, lam)
        assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
        floats = [a for a in jax.tree.leaves(answer) if jnp.issubdtype(a.dtype, jnp.floating)]
        assert {a.dtype for a in floats} == {jnp.dtype("float32")}
        # The same weights and dual point in float64: nothing but rounding was gained or lost.
        lower, upper = zoo.bounds(exact, lam, answer)
        assert upper - lower <= 1.2e-3 * upper
        optimum = jr.solve(exact, lam).certificate
        assert float(answer.certificate.lower) <= float(optimum.upper) * (1 + 1e-5)
        assert float(answer.certificate.upper) >= float(optimum.lower) * (1 - 1e-5)


def test_derivatives_of_the_objective_at_zero_blocks():
    rng = np.random.default_rng(0)
    weights = np.zeros((2, zoo.PATTERNS, zoo.FEATURES))
    weights[0, 0] = rng.standard_normal(zoo.FEATURES)
    lam, direction = jnp.asarray(0.7), rng.standard_normal(weights.shape)
    value = jax.jit(lambda lam, w: jr.objective(PROGRAM, lam, w))
    gradient = jax.jit(jax.grad(value, argnums=1))(lam, weights)
    assert np.all(np.isfinite(gradient))
    # At a zero block only the loss has a derivative: - s X^T D_j r.
    masks = np.asarray(PROGRAM.patterns.masks)
    fit = masks[:, 0] * (PROGRAM.X @ weights[0, 0])
    raw = (masks * (PROGRAM.y - fit)[:, None]).T @ PROGRAM.X
    expected = np.stack([-raw, raw])
    expected[0, 0] += 0.7 * weights[0, 0] / np.linalg.norm(weights[0, 0])
    np.testing.assert_allclose(gradient, expected, atol=1e-12 * np.abs(expected).max())
    _, tangent = jax.jvp(
        lambda w: value(lam, w), (jnp.asarray(weights),), (jnp.asarray(direction),)
    )
    np.testing.assert_allclose(tangent, np.sum(expected * direction), rtol=1e-12)
    _, slope = jax.jvp(lambda t: value(t, weights), (lam,), (jnp.ones(()),))
    np.testing.assert_allclose(slope, np.linalg.norm(weights[0, 0]), rtol=1e-12)
