"""The optimal set: known answers, brute force, and what every member must have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from scipy.optimize import linprog

import jaxrelu as jr

TRIANGLE = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
LAM = 0.5


def segment(y):
    program = zoo.tiny(TRIANGLE, y)
    return program, jr.solve(program, LAM)


@pytest.fixture(scope="module")
def known():
    program, solution = segment([2.0, 2.0])
    return program, solution, jr.optimal_set(program, solution)


def in_order(optima):
    """Columns as (x_1, x_2, between), the order of the known answer."""
    directions = np.zeros((3, zoo.FEATURES))
    directions[:, :2] = [TRIANGLE[0], TRIANGLE[1], [0.5, 0.75**0.5]]
    distance = np.linalg.norm(np.asarray(optima.directions)[None] - directions[:, None], axis=2)
    assert np.max(np.min(distance, axis=1)) < 1e-9
    return np.argmin(distance, axis=1)


def test_known_answer_of_a_segment(known):
    _, _, optima = known
    order = in_order(optima)
    np.testing.assert_allclose(optima.fit[:2], [1.5, 1.5], atol=1e-9)
    np.testing.assert_allclose(optima.residual[:2], [LAM, LAM], atol=1e-9)
    np.testing.assert_array_equal(optima.signs, 1.0)
    expected = [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]
    np.testing.assert_allclose(np.asarray(optima.features)[:2, order], expected, atol=1e-9)
    assert (optima.rank, optima.dimension, optima.is_unique) == (2, 1, False)
    assert (optima.minimal_width, optima.minimal_width_exact, optima.ambiguous) == (1, True, False)
    corners = np.asarray(jr.vertices(optima))[:, order]
    np.testing.assert_allclose(
        corners[np.argsort(corners[:, 0])], [[0, 0, 3], [1.5, 1.5, 0]], atol=1e-7
    )


def test_selections_of_the_known_answer(known):
    _, _, optima = known
    order = in_order(optima)
    expected = {
        "min_norm": [1.0, 1.0, 1.0], "min_max": [1.0, 1.0, 1.0],
        "max_max": [0.0, 0.0, 3.0], "fewest": [0.0, 0.0, 3.0],
    }  # fmt: skip
    for criterion, values in expected.items():
        found = np.asarray(jr.select(optima, criterion))[order]
        np.testing.assert_allclose(found, values, atol=1e-6, err_msg=criterion)
    # The loss at a new point sees the members differ.
    there = np.maximum(np.asarray([[0.3, 1.0]]) @ np.asarray(optima.directions)[:, :2].T, 0.0)
    best = jr.select(optima, lambda a: jnp.sum((there @ a - 2.9) ** 2))
    grid = np.linspace(0, 1, 1001)[:, None]
    corners = np.asarray(jr.vertices(optima))
    members = grid * corners[0] + (1 - grid) * corners[1]
    assert (
        np.sum((there @ best - 2.9) ** 2)
        <= np.min(np.sum((members @ there.T - 2.9) ** 2, 1)) + 1e-9
    )
    with pytest.raises(ValueError, match="criterion is \"?'?smallest"):
        jr.select(optima, "smallest")


def test_a_direction_of_the_equicorrelation_set_that_no_optimum_uses():
    program, solution = segment([2.0, LAM])
    optima = jr.optimal_set(program, solution)
    support = np.asarray(optima.support)[in_order(optima)]
    np.testing.assert_array_equal(support, [True, False, False])
    assert optima.is_unique
    assert optima.minimal_width == 1


def test_every_member_is_an_optimal_network(known):
    program, solution, optima = known
    value = float(solution.certificate.lower)
    samples = jr.sample_optimal(jax.random.key(0), optima, 20)
    for a in np.concatenate([np.asarray(samples), np.asarray(jr.vertices(optima))]):
        network = jr.network_from_coefficients(optima, a)
        objective = jr.nonconvex_objective(network, program.X, program.y, LAM)
        assert float(objective) == pytest.approx(value, rel=1e-6)
        assert jr.is_optimal(optima, a)
        assert jr.is_optimal(optima, network)
    assert not jr.is_optimal(optima, np.asarray(samples[0]) * 1.01)
    assert not jr.is_optimal(optima, [-0.1, 1.6, 1.6])
    unbalanced = jr.Network(2 * network.hidden, network.output / 2)
    assert not jr.is_optimal(optima, unbalanced)


def test_membership_and_projection_of_weights(known):
    _, solution, optima = known
    assert jr.is_optimal(optima, solution.weights, rtol=1e-2)
    assert not jr.is_optimal(optima, 0.9 * solution.weights, rtol=1e-2)
    nearest = jr.nearest_optimal(optima, 0.9 * solution.weights)
    assert jr.is_optimal(optima, nearest)
    np.testing.assert_allclose(jr.nearest_optimal(optima, np.zeros(3)), np.ones(3), atol=1e-9)
    with pytest.raises(ValueError, match="7 features"):
        jr.is_optimal(optima, np.zeros((2, 4, 7)))


@pytest.mark.parametrize("seed", [1, 2])  # with neurons on walls
def test_directions_on_walls_are_counted_once(seed):
    rng = np.random.default_rng(seed)
    program = zoo.tiny(rng.standard_normal((5, 2)), rng.standard_normal(5))
    lam = 0.1 * float(jr.lambda_max(program))
    optima = jr.optimal_set(program, jr.solve(program, lam))
    size = np.linalg.norm(np.asarray(jr.block_correlations(program, optima.residual)), axis=-1)
    assert np.sum(size >= lam * (1 - 1e-6)) > optima.signs.size
    assert optima.is_unique
    assert not optima.ambiguous
    assert optima.minimal_width == int(np.sum(np.asarray(optima.support)))
    along = np.asarray(optima.residual) @ np.asarray(optima.features)
    np.testing.assert_allclose(along, lam, rtol=1e-8)  # <r, z> = lam
    np.testing.assert_allclose(optima.features @ optima.coefficients, optima.fit, atol=1e-8)


def test_support_by_its_own_linear_programs():
    # Rows of a small lattice have many dependent features.
    X = np.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    program = zoo.tiny(X, [1.0, 1.0, 2.0, 0.0])
    optima = jr.optimal_set(program, jr.solve(program, 0.1))
    Z, fit = np.asarray(optima.features), np.asarray(optima.fit)
    for index in range(Z.shape[1]):
        found = linprog(-np.eye(Z.shape[1])[index], A_eq=Z, b_eq=Z @ optima.coefficients)
        assert (-found.fun > 1e-6) == bool(optima.support[index])
    np.testing.assert_allclose(Z @ np.asarray(optima.interior), fit, atol=1e-8)
    assert optima.dimension == int(np.sum(np.asarray(optima.support))) - optima.rank


def test_minimal_network_of_an_interior_member_is_a_vertex(known):
    program, _, optima = known
    small = jr.minimal(jr.network_from_coefficients(optima, [1.0, 1.0, 1.0]), program.X)
    a = jr.nearest_optimal(optima, small)
    assert jr.is_optimal(optima, small)
    corners = np.asarray(jr.vertices(optima))
    assert np.min(np.max(np.abs(corners - np.asarray(a)), axis=1)) < 1e-9
    assert jr.sparsest(optima).num_neurons == 1


@pytest.mark.slow
def test_gated_program():
    problem = zoo.problem(zoo.gated)
    lam = problem.lams(0.1)[0]
    optima = jr.optimal_set(problem.program, jr.solve(problem.program, lam))
    network = jr.network_from_coefficients(optima, optima.interior)
    np.testing.assert_allclose(network(problem.program.X), optima.fit, atol=1e-7)


def test_two_neurons_fit_the_identity():
    # R(f) = ||f_+|| + ||f_-|| for X = I: two neurons, along the positive and the negative part.
    program = zoo.tiny(np.eye(4), [3.0, 1.0, -2.0, 0.0])
    optima = jr.optimal_set(program, jr.solve(program, LAM))
    used = np.asarray(optima.directions)[np.asarray(optima.support)]
    assert optima.is_unique
    assert optima.minimal_width == 2
    expected = [[3 / 10**0.5, 1 / 10**0.5, 0, 0, 0], [0, 0, 1, 0, 0]]
    for direction in expected:
        assert np.min(np.linalg.norm(used - direction, axis=1)) < 1e-9


def test_above_lambda_max_the_zero_network_is_the_only_one():
    program, _ = segment([2.0, 2.0])
    lam = 1.5 * float(jr.lambda_max(program))
    optima = jr.optimal_set(program, jr.solve(program, lam))
    assert optima.signs.size == 0
    assert optima.is_unique
    assert optima.minimal_width == 0
    assert jr.vertices(optima).shape == (1, 0)
    assert jr.is_optimal(optima, jnp.zeros_like(jr.solve(program, lam).weights))
    assert jr.network_from_coefficients(optima, jnp.zeros(0)).num_neurons == 0
    assert jr.sample_optimal(jax.random.key(0), optima, 3).shape == (3, 0)


@pytest.mark.slow
def test_neurons_off_all_walls():
    # No row is padded here, and none is near a wall of the only neuron.
    X = np.asarray([[1.0, 0.2], [0.9, -0.1], [1.1, 0.1]])
    program = jr.ConvexProgram(X, np.ones(3), jr.enumerate_patterns(X))
    optima = jr.optimal_set(program, jr.solve(program, LAM))
    assert optima.is_unique
    assert not optima.ambiguous
    assert optima.minimal_width == 1


def test_bad_input_names_the_fix(known):
    program, solution, optima = known
    with pytest.raises(ValueError, match="MAX_STEPS"):
        jr.optimal_set(program, jr.solve(program, LAM, max_steps=0))
    with pytest.raises(ValueError, match="several lams"):
        jr.optimal_set(program, jr.solve_grid(program, [LAM, 0.3]))
    with pytest.raises(TypeError, match="pass a Solution"):
        jr.optimal_set(program, solution.weights)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(jr.optimal_set)(program, solution)
    single = jax.tree.map(
        lambda a: np.asarray(a, "float32") if np.asarray(a).dtype == np.float64 else a, program
    )
    with pytest.raises(TypeError, match="float64"):
        jr.optimal_set(single, jr.solve(single, LAM))
    with pytest.raises(ValueError, match="one a direction"):
        jr.network_from_coefficients(optima, [1.0])
