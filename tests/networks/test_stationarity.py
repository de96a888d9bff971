"""Stationary points: the known counterexamples, local minima, and one-sided derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo

import jaxrelu as jr

LAM = 0.5


def one_sided(network, X, y, lam, neuron, direction, step=1e-6):
    """The one-sided derivative of the objective along a change of one neuron, by differences."""
    du, da = direction[:-1], direction[-1]

    def value(t):
        moved = jr.Network(
            network.hidden.at[:, neuron].add(t * du), network.output.at[neuron].add(t * da)
        )
        return float(jr.nonconvex_objective(moved, X, y, lam))

    return (value(step) - value(0.0)) / step


def least_slope(network, X, y, lam, neuron, tries=300):
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((tries, X.shape[1] + 1))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return min(one_sided(network, X, y, lam, neuron, d) for d in directions)


def clarke_gap(found, network, X, y, lam):
    """The largest distance of lam u - a X^T diag(c) r from zero, at the coefficients found."""
    r = np.asarray(y) - np.asarray(network(X))
    c, u, a = (np.asarray(v) for v in (found.coefficients, network.hidden.T, network.output))
    assert np.all((c >= 0) & (c <= 1))
    return np.linalg.norm(lam * u - a[:, None] * ((c * r) @ np.asarray(X)), axis=1).max()


def counterexample_a():
    hidden = np.asarray([[0.0, 1.0], [2**0.5, 0.0]])
    network = jr.Network(jnp.asarray(hidden), jnp.asarray([2**0.5, 1.0]))
    return network, np.eye(2), np.asarray([1 + LAM, 2 + LAM]), 1.75


def counterexample_b():
    X = np.asarray([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
    network = jr.Network(jnp.asarray([[1.0, 0.0], [0.0, 2**0.5]]), jnp.asarray([1.0, 2**0.5]))
    return network, X, np.asarray([LAM, LAM, 3 + LAM]), 1.875


@pytest.mark.parametrize("build", [counterexample_a, counterexample_b])
def test_clarke_stationary_networks_that_are_not_local_minima(build):
    network, X, y, value = build()
    assert float(jr.nonconvex_objective(network, X, y, LAM)) == pytest.approx(value)
    found = jr.stationarity(network, X, y, LAM)
    np.testing.assert_allclose(found.clarke, 0.0, atol=1e-9)
    assert clarke_gap(found, network, X, y, LAM) < 1e-9
    assert np.all(np.asarray(found.directional) > 0.05)
    assert np.all(np.asarray(found.concave))
    for neuron in (0, 1):
        assert least_slope(network, X, y, LAM, neuron) < -1e-2


@pytest.mark.parametrize(
    ("build", "value"), [(counterexample_a, 1.33274), (counterexample_b, 1.40349)]
)
def test_the_counterexamples_are_far_from_the_optimum(build, value):
    network, X, y, at_network = build()
    program = zoo.tiny(X, y)
    best = jr.solve(program, LAM, rtol=1e-9)
    assert float(best.certificate.lower) == pytest.approx(value, abs=5e-6)
    trained = reference.train_network(X, y, LAM, width=len(y), restarts=100)[0]
    assert trained == pytest.approx(float(best.certificate.upper), rel=1e-7)
    assert at_network > value + 0.3
    optimum = jr.to_network(program, best).compact()
    found = jr.stationarity(optimum, program.X, program.y, LAM)
    np.testing.assert_allclose(found.directional, 0.0, atol=1e-4)


def test_signs_matter_at_a_local_minimum():
    # Optimal over its own signed pattern, not over both signs of it.
    X, y = np.eye(2), np.asarray([1 + LAM, -1.0])
    network = jr.Network(jnp.asarray([[1.0], [0.0]]), jnp.ones(1))
    assert float(jr.nonconvex_objective(network, X, y, LAM)) == pytest.approx(1.125)
    active_everywhere = jr.patterns_from_gates(X, np.ones((2, 1)))
    both_signs = jr.solve(zoo.program(*zoo.padded(X, y, active_everywhere)), LAM)
    assert float(both_signs.certificate.lower) == pytest.approx(1.0, rel=1e-6)
    assert np.all(np.any(np.asarray(both_signs.weights) != 0, axis=(1, 2)))
    found = jr.stationarity(network, X, y, LAM)
    np.testing.assert_allclose(found.directional, 0.0, atol=1e-12)
    assert int(found.walls[0]) == 1
    assert not bool(found.concave[0])
    assert least_slope(network, X, y, LAM, 0) > -1e-5


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow)]
)  # with neurons on walls
def test_optimal_networks_are_stationary_in_both_senses(seed):
    rng = np.random.default_rng(seed)
    program = zoo.tiny(rng.standard_normal((5, 2)), rng.standard_normal(5))
    X, y = program.X, program.y
    lam = 0.1 * float(jr.lambda_max(program))
    optima = jr.optimal_set(program, jr.solve(program, lam))
    network = jr.network_from_coefficients(optima, optima.interior).compact()
    found = jr.stationarity(network, X, y, lam)
    np.testing.assert_allclose(found.directional, 0.0, atol=1e-5)
    assert np.any(np.asarray(found.walls) > 0)
    moved = jr.Network(network.hidden * 1.01, network.output)
    assert np.all(np.asarray(jr.stationarity(moved, X, y, lam).clarke) > 1e-3)


def test_dependent_walls_are_listed():
    # Three walls in a plane: the pattern (1, 0, 0) of rows e1, e2, e1 + e2 is no cell.
    X = np.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    network = jr.Network(jnp.asarray([[0.0], [0.0], [1.0]]), jnp.ones(1))
    y = np.asarray([-1.0, -1.0, -1.0, 1.0 + LAM])
    found = jr.stationarity(network, X, y, LAM)
    assert int(found.walls[0]) == 3
    np.testing.assert_allclose([found.clarke[0], found.directional[0]], 0.0, atol=1e-9)
    assert clarke_gap(found, network, X, y, LAM) < 1e-9
    y = np.asarray([1.0, 1.0, -0.1, 1.0 + LAM])
    found = jr.stationarity(network, X, y, LAM)
    assert found.directional[0] > 0.1
    assert least_slope(network, X, y, LAM, 0) < -1e-2


def test_a_smooth_point_is_judged_by_its_gradient():
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((10, 3)), rng.standard_normal(10)
    network = jr.Network(
        jnp.asarray(rng.standard_normal((3, 4))), jnp.asarray(rng.standard_normal(4))
    )
    gradient = jax.grad(lambda net: jr.nonconvex_objective(net, X, y, LAM))(network)
    found = jr.stationarity(network, X, y, LAM)
    size = np.maximum(np.linalg.norm(network.hidden, axis=0), np.abs(network.output))
    expected = np.hypot(np.linalg.norm(gradient.hidden, axis=0), gradient.output) / (LAM * size)
    np.testing.assert_allclose(found.clarke, expected, rtol=1e-10)
    np.testing.assert_allclose(found.directional, expected, rtol=1e-10)
    zero = jr.Network(jnp.zeros((3, 2)), jnp.zeros(2))
    np.testing.assert_array_equal(jr.stationarity(zero, X, y, LAM).directional, 0.0)


def test_a_neuron_without_hidden_weights_is_not_stationary():
    X = np.random.default_rng(0).standard_normal((60, 7))
    found = jr.stationarity(jr.Network(jnp.zeros((7, 1)), jnp.ones(1)), X, np.ones(60), LAM)
    np.testing.assert_array_equal([found.clarke[0], found.directional[0]], 1.0)


def test_too_many_cells_around_a_neuron_are_told():
    X = np.random.default_rng(0).standard_normal((60, 7))
    X[:, 6] = 0.0
    network = jr.Network(jnp.asarray(np.eye(7)[:, 6:]), jnp.ones(1))
    with pytest.raises(ValueError, match="60 dependent walls"):
        jr.stationarity(network, X, np.ones(60), LAM)


def test_bad_input_names_the_fix():
    network, X, y, _ = counterexample_a()
    with pytest.raises(ValueError, match="lam is 0.0"):
        jr.stationarity(network, X, y, 0.0)
    with pytest.raises(ValueError, match="one number a row"):
        jr.stationarity(network, X, y[:1], LAM)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda lam: jr.stationarity(network, X, y, lam).clarke)(LAM)


@pytest.mark.parametrize("call", ["stationarity", "nonconvex_objective", "descend"])
def test_labels_and_weights_are_checked(call):
    X, network = np.eye(2), jr.Network(jnp.eye(2), jnp.ones(2))
    call = {
        "stationarity": lambda y, **k: jr.stationarity(network, X, y, LAM, **k),
        "nonconvex_objective": lambda y, **k: jr.nonconvex_objective(network, X, y, LAM, **k),
        "descend": lambda y, **k: jr.descend(network, network, X, y, LAM, width=8, **k),
    }[call]
    with pytest.raises(ValueError, match="labels"):
        call(np.asarray([0.0, 1.0]), loss=jr.LogisticLoss())
    with pytest.raises(ValueError, match="negative"):
        call(np.ones(2), sample_weight=np.asarray([1.0, -1.0]))
    with pytest.raises(ValueError, match="shape"):
        call(np.ones(2), sample_weight=np.asarray(1.0))


def test_verdicts_do_not_depend_on_the_units():
    X, y = np.eye(2), np.asarray([1.5, 2.5])
    hidden, output = np.asarray([[0.0, 1.0], [2**0.5, 0.0]]), np.asarray([2**0.5, 1.0])
    found = jr.stationarity(jr.Network(hidden, output), X, y, LAM)
    scale = 1e5
    small = jr.Network(hidden / scale**0.5, output / scale**0.5)
    scaled = jr.stationarity(small, scale * X, y, scale * LAM)
    assert np.any(found.concave)
    np.testing.assert_array_equal(scaled.concave, found.concave)
    np.testing.assert_allclose(scaled.directional, found.directional, atol=1e-9)
