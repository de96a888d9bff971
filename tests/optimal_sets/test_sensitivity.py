"""Sensitivity of the fit: against differences of solves, jax's own derivative, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr


def solved(program, lam):
    return jr.solve(program, lam, rtol=1e-13, atol=0.0)


def moved(program, **changes):
    fields = {"X": program.X, "y": program.y, "patterns": program.patterns, "loss": program.loss}
    return type(program)(**(fields | changes), sample_weight=program.sample_weight)


@pytest.mark.parametrize(
    "build",
    [
        zoo.generic,
        pytest.param(zoo.gated, marks=pytest.mark.slow),
        pytest.param(zoo.logistic, marks=pytest.mark.slow),
    ],
)
def test_derivatives_are_those_of_finite_differences(build):
    problem = zoo.problem(build)
    program, lam = problem.program, problem.lams(0.2)[0]
    found = jr.sensitivity(program, jr.solve(program, lam))
    assert found.reliable
    step = 1e-5 * lam
    fits = [np.asarray(solved(program, lam + h).fit) for h in (step, -step)]
    difference = (fits[0] - fits[1]) / (2 * step)
    np.testing.assert_allclose(found.fit_by_lam, difference, atol=1e-5 * np.abs(difference).max())
    if isinstance(program.loss, jr.LogisticLoss):
        return
    direction = np.random.default_rng(0).standard_normal(program.y.shape)
    fits = [
        np.asarray(solved(moved(program, y=np.asarray(program.y) + h * direction), lam).fit)
        for h in (1e-5, -1e-5)
    ]
    difference = (fits[0] - fits[1]) / 2e-5
    expected = np.asarray(found.fit_by_target) @ direction
    np.testing.assert_allclose(expected, difference, atol=1e-5 * np.abs(difference).max())


@pytest.mark.slow
def test_agrees_with_the_derivative_through_solve():
    problem = zoo.problem(zoo.generic)
    program, lam = problem.program, problem.lams(0.2)[0]
    found = jr.sensitivity(program, jr.solve(program, lam))

    def fit(lam, y):
        return jr.solve(moved(program, y=y), lam, rtol=1e-12).fit

    y = jnp.asarray(program.y)
    by_lam = jax.jacfwd(fit)(jnp.asarray(lam), y)
    by_y = jax.jacfwd(fit, argnums=1)(jnp.asarray(lam), y)
    np.testing.assert_allclose(found.fit_by_lam, by_lam, atol=1e-6 * np.abs(by_lam).max())
    np.testing.assert_allclose(found.fit_by_target, by_y, atol=1e-6)
    assert float(found.degrees_of_freedom) == pytest.approx(float(np.trace(by_y)), abs=1e-5)


def test_squared_loss_contracts():
    problem = zoo.problem(zoo.generic)
    solution = jr.solve(problem.program, problem.lams(0.2)[0])
    found = jr.sensitivity(problem.program, solution)
    matrix = np.asarray(found.fit_by_target)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert -1e-9 < eigenvalues[0]
    assert eigenvalues[-1] < 1 + 1e-9
    freedom = jr.degrees_of_freedom(
        problem.program, jr.solve(problem.program, problem.lams(0.2)[0])
    )
    assert float(freedom) == pytest.approx(np.trace(matrix))
    assert 0 < freedom < problem.program.X.shape[0]


def test_closed_form_of_one_neuron():
    # X = I, y >= 0: fit = y (1 - lam / ||y||).
    y, lam = np.asarray([3.0, 4.0]), 0.5
    program = zoo.tiny(np.eye(2), y)
    found = jr.sensitivity(program, jr.solve(program, lam))
    unit = y / 5.0
    expected = (1 - lam / 5.0) * np.eye(2) + lam / 5.0 * np.outer(unit, unit)
    np.testing.assert_allclose(found.fit_by_target[:2, :2], expected, atol=1e-9)
    np.testing.assert_allclose(found.fit_by_lam[:2], -unit, atol=1e-9)
    above = jr.sensitivity(program, jr.solve(program, 6.0))
    np.testing.assert_array_equal(above.fit_by_target, 0.0)
    assert above.reliable


def test_a_wall_without_a_positive_multiplier_is_told():
    # The second sample is on the wall of the neuron, and its residual is zero: it pulls nowhere.
    program = zoo.tiny(np.eye(2), [3.0, 0.0])
    found = jr.sensitivity(program, jr.solve(program, 0.5))
    assert not found.walls_hold
    assert not found.reliable


def test_a_wall_that_nothing_moves_the_neuron_off_needs_no_multiplier():
    # The neuron of the first sample lies on the wall of the second, which it does not feel.
    program = zoo.tiny(np.eye(2), [3.0, -0.4])
    found = jr.sensitivity(program, jr.solve(program, 0.5, rtol=1e-10))
    assert found.reliable
    np.testing.assert_allclose(np.asarray(found.fit_by_lam)[:2], [-1.0, 0.0], atol=1e-9)


def test_each_failed_hypothesis_is_told():
    # Dependent features; a direction with ||q|| = lam that no optimum uses.
    X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
    segment = zoo.tiny(X, [2.0, 2.0])
    found = jr.sensitivity(segment, jr.solve(segment, 0.5))
    assert not found.reliable
    assert not found.independent_features
    assert np.isnan(jr.degrees_of_freedom(segment, jr.solve(segment, 0.5)))
    corner = zoo.tiny(X, [2.0, 0.5])
    found = jr.sensitivity(corner, jr.solve(corner, 0.5))
    assert not found.reliable
    assert not found.nothing_enters


@pytest.mark.parametrize(
    ("short", "doubts"), [(5e-5, ()), (3e-6, ("a correlation is nearly lam",))]
)
def test_what_is_too_close_to_call_is_told(short, doubts):
    # All hypotheses hold: the second sample asks for a neuron of its own, and not hard enough.
    lam, X = 0.5, np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
    program = zoo.tiny(X, [3.0, -lam * (1.0 - short)])
    found = jr.sensitivity(program, jr.solve(program, lam, rtol=1e-12, atol=0.0))
    assert found.independent_features
    assert found.nothing_enters
    assert found.walls_hold
    assert found.doubts == doubts
    assert found.reliable == (not doubts)


@pytest.mark.parametrize("function", [jr.sensitivity, jr.degrees_of_freedom])
def test_bad_input_names_the_fix(function):
    program = zoo.tiny(np.eye(2), [3.0, 4.0])
    solution = jr.solve(program, 0.5)
    with pytest.raises(ValueError, match="MAX_STEPS.*raise_if_failed"):
        function(program, jr.solve(program, 0.5, max_steps=0))
    with pytest.raises(ValueError, match="several lams"):
        function(program, jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), solution))
    with pytest.raises(TypeError, match="pass a Solution"):
        function(program, solution.weights)
    with pytest.raises(TypeError, match=r"jr.ConvexProgram\(X, y, patterns\)"):
        function(program.X, solution)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda answer: function(program, answer))(solution)
    with pytest.raises(ValueError, match="not optimal for this program"):
        function(zoo.tiny(np.eye(2), [3.0, 1.0]), solution)
    single = jax.tree.map(
        lambda a: np.asarray(a, "float32") if np.asarray(a).dtype == np.float64 else a, program
    )
    with pytest.raises(TypeError, match="float64"):
        function(single, solution)


# Walls of neurons there are nine rows that depend on each other but for 1e-8, the rounding of the
# data: multipliers are huge, and the gap stays at 1e-9.
DOUBTFUL = {("breast-cancer", 2)}


@zoo.every_optimum
def test_real_problems_are_unique_and_not_flagged(path):
    program, lams, _ = zoo.published(path)
    for k, lam in enumerate(lams):
        found = jr.sensitivity(program, jr.solve(program, float(lam)))
        assert found.independent_features
        assert found.reliable or (path.stem, k) in DOUBTFUL
        assert 0 < found.degrees_of_freedom < program.X.shape[0]


@pytest.mark.slow
def test_a_gated_program_has_the_masks_that_it_was_given():
    # The second gate is on a tie, which its mask decides: closed.
    X, y = np.eye(2), np.asarray([3.0, 4.0])
    patterns = jr.Patterns(np.asarray([[1.0], [0.0]]), np.asarray([[True], [False]]))
    program = jr.GatedProgram(X, y, patterns)
    found = jr.sensitivity(program, jr.solve(program, 0.5))
    assert found.reliable
    np.testing.assert_allclose(found.fit_by_target, np.diag([1.0, 0.0]), atol=1e-9)
