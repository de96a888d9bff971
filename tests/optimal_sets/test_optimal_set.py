"""The set of all optimal networks: known answers, vertices, widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from optimal_set_checks import LAM, in_order, segment

import jaxrelu as jr
from jaxrelu.geometry.host import polytopes


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


@pytest.mark.parametrize("rho", [-0.9, -0.6, -0.3, 0.0, 0.5])
def test_known_answer_of_two_rows_at_an_angle(rho):
    # Unit rows of cosine rho, y = (t, t): two neurons below rho = -1/2, one along x_1 + x_2 above.
    t, X = 2.0, np.asarray([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]])
    kappa = np.sqrt(2 * (1 + rho))
    program = zoo.tiny(X, [t, t])
    assert float(jr.lambda_max(program)) == pytest.approx(t * max(1.0, kappa), rel=1e-9)
    optima = jr.optimal_set(program, jr.solve(program, LAM))
    if rho < -0.5:
        directions, a, fit, value = X, [t - LAM, t - LAM], t - LAM, 2 * LAM * t - LAM**2
    else:
        size = (t * kappa - LAM) / (1 + rho)
        directions, a, fit = [(X[0] + X[1]) / kappa], [size], t - LAM / kappa
        value = LAM**2 / kappa**2 + LAM * size
    assert optima.is_unique
    assert not optima.ambiguous
    assert optima.minimal_width == optima.signs.size == len(a)
    np.testing.assert_array_equal(optima.signs, 1.0)
    apart = np.linalg.norm(
        np.asarray(optima.directions)[:, None, :2] - np.asarray(directions)[None], axis=2
    )
    order = np.argmin(apart, axis=0)
    np.testing.assert_allclose(np.min(apart, axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.asarray(optima.coefficients)[order], a, rtol=1e-9)
    np.testing.assert_allclose(optima.fit[:2], fit, rtol=1e-9)
    network = jr.network_from_coefficients(optima, optima.coefficients)
    objective = jr.nonconvex_objective(network, program.X, program.y, LAM)
    assert float(objective) == pytest.approx(value, rel=1e-9)


def test_some_vertices_where_all_are_too_many(known, monkeypatch):
    optima = known[2]
    everything = np.asarray(jr.vertices(optima))
    monkeypatch.setattr(polytopes, "_MOST_BASES", 0)
    with pytest.warns(UserWarning, match="too many to try: vertices of 5 random objectives"):
        some = np.asarray(jr.vertices(optima, at_most=5, seed=1))
    assert 1 <= len(some) <= len(everything)
    for corner in some:
        assert np.min(np.abs(everything - corner).max(axis=1)) < 1e-9


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
    assert jr.is_optimal(optima, network)
    weights = np.zeros((zoo.PATTERNS, zoo.FEATURES))
    for e, a in enumerate(optima.interior):
        block = np.argmax(np.asarray(optima.direction_of) == e)
        weights[block] = a * np.asarray(optima.directions)[e]
    assert jr.is_optimal(optima, weights)
    assert not jr.is_optimal(optima, np.roll(weights, 1, axis=0))


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
    assert jr.sparsest(optima).num_neurons == 0
    for criterion in ("min_norm", "min_max", "max_max", "fewest", lambda a: jnp.sum(a**2)):
        assert jr.select(optima, criterion).shape == (0,)
    assert jr.nearest_optimal(optima, jnp.zeros(0)).shape == (0,)
    assert not np.any(np.asarray(optima.direction_of) >= 0)
    one = jr.Network(jnp.ones((zoo.FEATURES, 1)), jnp.full(1, zoo.FEATURES**0.5))
    assert not jr.is_optimal(optima, one)
    assert jr.is_optimal(optima, jr.Network(0 * one.hidden, 0 * one.output))
    assert jr.nearest_optimal(optima, one).shape == (0,)


def test_the_smallest_network_is_the_one_that_was_counted(known):
    program, solution, _ = known
    hurried = jr.optimal_set(program, solution, max_nodes=0)
    assert jr.sparsest(hurried).num_neurons == hurried.minimal_width == 2
    assert not hurried.minimal_width_exact
    assert hurried.ended_by is jr.Limit.NODES
    assert jr.optimal_set(program, solution).ended_by is jr.Limit.NONE
    assert jr.optimal_set(program, solution, max_seconds=0).ended_by is jr.Limit.SECONDS
    with pytest.raises(TypeError, match="max_nodes is 1.5"):
        jr.optimal_set(program, solution, max_nodes=1.5)


@pytest.mark.slow
def test_features_on_other_samples(rng):
    for build in (zoo.generic, zoo.gated):
        program = zoo.problem(build).program
        optima = jr.optimal_set(program, jr.solve(program, zoo.problem(build).lams(0.3)[0]))
        np.testing.assert_allclose(optima.features_at(program.X), optima.features, atol=1e-9)
        X = rng.standard_normal((7, zoo.FEATURES))
        network = jr.network_from_coefficients(optima, optima.interior)
        np.testing.assert_allclose(optima.features_at(X) @ optima.interior, network(X), atol=1e-12)
    with pytest.raises(ValueError, match="one of 5 features"):
        optima.features_at(np.ones((2, 3)))
