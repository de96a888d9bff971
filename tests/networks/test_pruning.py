"""Minimal networks and pruning: fits kept, penalties not raised, identities of the errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrelu as jr
from jaxrelu.networks.irreducible import independent
from jaxrelu.networks.pruning import RULES


def features_of(network, X):
    hidden, output = np.asarray(network.hidden), np.asarray(network.output)
    return np.maximum(X @ hidden, 0.0) * output


def penalty_of(network):
    norms = np.linalg.norm(np.asarray(network.hidden), axis=0)
    return float(np.sum(norms * np.abs(np.asarray(network.output))))


def random_network(seed, n=12, d=3, m=40):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    network = jr.Network(
        jnp.asarray(rng.standard_normal((d, m))), jnp.asarray(rng.standard_normal(m))
    )
    return X, network


def gated_features(network, X):
    gates, hidden = np.asarray(network.gates), np.asarray(network.hidden)
    return (X @ gates >= 0) * (X @ hidden) * np.asarray(network.output)


@pytest.mark.parametrize("seed", range(8))
def test_gated_networks_are_made_minimal_and_pruned(seed):
    # Four gates, each of several neurons: their features depend on each other.
    rng = np.random.default_rng(seed)
    X, plain = random_network(seed, n=14, m=30)
    gates = rng.standard_normal((3, 4))[:, rng.integers(0, 4, 30)]
    # Equal functions, written in two ways; another gate, but the same samples.
    hidden = plain.hidden.at[:, 1].set(-2.0 * plain.hidden[:, 0])
    output = plain.output.at[1].set(-plain.output[0])
    gates[:, 1] = 3.0 * gates[:, 0]
    network = jr.GatedNetwork(jnp.asarray(gates), hidden, output)
    merged = jr.minimal(jr.GatedNetwork(gates[:, :2], hidden[:, :2], output[:2]), X)
    assert merged.num_neurons == 1
    small = jr.minimal(network, X)
    fit = np.asarray(network(X))
    assert isinstance(small, jr.GatedNetwork)
    np.testing.assert_allclose(small(X), fit, atol=1e-9 * np.linalg.norm(fit))
    left = gated_features(small, X)
    assert np.linalg.matrix_rank(left) == small.num_neurons
    assert np.linalg.matrix_rank(gated_features(network, X)) >= small.num_neurons
    assert penalty_of(small) <= penalty_of(network) * (1 + 1e-9)
    norms = np.linalg.norm(np.asarray(small.hidden), axis=0)
    np.testing.assert_allclose(norms, np.asarray(small.output), rtol=1e-9)
    for rule in RULES:
        pruned = jr.prune(network, X, fit, to=3, rule=rule)
        assert isinstance(pruned.network, jr.GatedNetwork)
        assert pruned.network.num_neurons <= 3
        error = np.sum((np.asarray(pruned.network(X)) - fit) ** 2)
        assert float(pruned.loss[-1]) == pytest.approx(0.5 * error, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_minimal_keeps_the_fit_and_is_irreducible(seed):
    rng = np.random.default_rng(seed)
    X, network = random_network(seed, n=int(rng.integers(2, 15)), m=int(rng.integers(1, 60)))
    small = jr.minimal(network, X)
    fit = np.asarray(network(X))
    np.testing.assert_allclose(small(X), fit, atol=1e-9 * max(np.linalg.norm(fit), 1.0))
    left = features_of(small, X)
    assert np.linalg.matrix_rank(left) == small.num_neurons <= len(X)
    assert penalty_of(small) <= penalty_of(network) * (1 + 1e-9)
    norms = np.linalg.norm(np.asarray(small.hidden), axis=0)
    np.testing.assert_allclose(norms, np.abs(np.asarray(small.output)), rtol=1e-9)
    assert jr.minimal(small, X).num_neurons == small.num_neurons


@pytest.mark.parametrize(("coefficients", "left"), [((1.2, 1.2, 0.6), 2), ((0.2, 0.2, 2.6), 1)])
def test_known_answer_from_both_sides_of_the_segment(coefficients, left):
    # Three directions of one optimal set; which vertex is reached depends on the start.
    X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])
    directions = np.asarray([X[0], X[1], [0.5, 0.75**0.5]])
    root = np.sqrt(coefficients)
    small = jr.minimal(jr.Network(jnp.asarray(directions.T * root), jnp.asarray(root)), X)
    assert small.num_neurons == left
    np.testing.assert_allclose(small(X), [1.5, 1.5], atol=1e-12)
    assert penalty_of(small) == pytest.approx(3.0)


def test_dead_split_and_zero_neurons_go():
    X = np.asarray([[1.0, 0.5], [2.0, -0.3], [0.4, 1.0]])
    u = np.asarray([[1.0], [0.2]])
    hidden = np.hstack([0.5 * u, 2.0 * u, -u - 1, np.zeros((2, 1)), u])
    network = jr.Network(jnp.asarray(hidden), jnp.asarray([1.0, 0.3, 4.0, 1.0, 0.0]))
    small = jr.minimal(network, X)
    assert small.num_neurons == 1
    np.testing.assert_allclose(small(X), network(X), rtol=1e-12)
    nothing = jr.minimal(jr.Network(jnp.zeros((2, 3)), jnp.ones(3)), X)
    assert nothing.num_neurons == 0


def test_float32_and_a_large_network():
    X, network = random_network(0, n=60, d=8, m=500)
    small = jr.minimal(network, X)
    fit = np.asarray(network(X))
    assert small.num_neurons <= 60
    np.testing.assert_allclose(small(X), fit, atol=1e-9 * np.linalg.norm(fit))
    single = jr.Network(network.hidden.astype("float32"), network.output.astype("float32"))
    less = jr.minimal(single, X.astype("float32"))
    assert less.hidden.dtype == jnp.float32
    np.testing.assert_allclose(less(X.astype("float32")), fit, atol=1e-4 * np.linalg.norm(fit))


@pytest.mark.parametrize("rule", RULES)
def test_corrected_pruning_records_what_happened(rule):
    X, network = random_network(3, n=20, m=30)
    y = np.asarray(network(X)) + 0.1 * np.random.default_rng(0).standard_normal(20)
    pruned = jr.prune(network, X, y, to=6, rule=rule, refit=False)
    assert pruned.network.num_neurons == 6
    np.testing.assert_array_equal(np.diff(np.asarray(pruned.neurons)) < 0, True)
    assert np.all(np.asarray(pruned.change) <= np.asarray(pruned.bound) * (1 + 1e-6) + 1e-9)
    fit = np.asarray(pruned.network(X))
    assert pruned.loss[-1] == pytest.approx(0.5 * np.sum((fit - y) ** 2), rel=1e-9)
    assert pruned.penalty[-1] == pytest.approx(penalty_of(pruned.network), rel=1e-9)
    refitted = jr.prune(network, X, y, to=6, rule=rule)
    assert refitted.loss[-1] <= pruned.loss[-1] * (1 + 1e-12)
    assert refitted.network.num_neurons <= 6


def test_the_error_identity_and_plain_pruning():
    X, network = random_network(5, n=30, m=12)
    network = jr.minimal(network, X)
    y = np.asarray(network(X))
    one_less = network.num_neurons - 1
    corrected = jr.prune(network, X, y, to=one_less, refit=False)
    plain = jr.prune(network, X, y, to=one_less, corrected=False, refit=False)
    columns = features_of(network, X)
    errors = [
        np.linalg.norm(
            columns[:, j]
            - np.delete(columns, j, 1)
            @ np.linalg.lstsq(np.delete(columns, j, 1), columns[:, j], rcond=None)[0]
        )
        for j in range(columns.shape[1])
    ]
    # ||new fit - fit|| = ||e|| / max |beta| <= ||e||, and no more than plain pruning's.
    assert corrected.change[-1] == pytest.approx(float(corrected.bound[-1]), rel=1e-6)
    assert corrected.change[-1] <= min(errors) * (1 + 1e-9)
    assert corrected.change[-1] <= plain.change[-1]
    dropped = np.linalg.norm(columns, axis=0)
    assert np.min(np.abs(dropped - float(plain.change[-1]))) < 1e-9


def scores(network, X, y):
    """What each rule ranks the neurons by, written out."""
    columns, error = features_of(network, X), np.asarray(network(X)) - y
    hidden, output = np.asarray(network.hidden), np.asarray(network.output)
    theta = hidden * np.abs(output)
    gradient = np.sign(output) * (X.T @ ((X @ hidden > 0) * error[:, None]))
    rest = [np.delete(columns, j, 1) for j in range(columns.shape[1])]
    return {
        "weight": np.linalg.norm(theta, axis=0),
        "activation": np.linalg.norm(columns, axis=0),
        "gradient": np.linalg.norm(theta * gradient, axis=0),
        "residual": [
            np.linalg.norm(z - others @ np.linalg.lstsq(others, z, rcond=None)[0])
            for z, others in zip(columns.T, rest, strict=True)
        ],
    }


def removed(network, X, y, **options):
    """The neuron that plain pruning drops first, found by what is left of the fit."""
    pruned = jr.prune(
        network, X, y, to=network.num_neurons - 1, corrected=False, refit=False, **options
    )
    columns = features_of(network, X)
    left = np.sum(columns, axis=1)[:, None] - columns
    distance = np.linalg.norm(left - np.asarray(pruned.network(X))[:, None], axis=0)
    victim = int(np.argmin(distance))
    assert distance[victim] < 1e-9
    dropped = np.linalg.norm(columns[:, victim])
    np.testing.assert_allclose([pruned.change[-1], pruned.bound[-1]], dropped, rtol=1e-9)
    return victim


@pytest.mark.parametrize("seed", range(6))
def test_every_rule_drops_the_neuron_that_it_names(seed):
    X, network = random_network(seed, n=30, d=4, m=9)
    y = np.asarray(network(X)) + np.random.default_rng(seed).standard_normal(30)
    for rule, score in scores(network, X, y).items():
        assert removed(network, X, y, rule=rule) == int(np.argmin(score)), rule


def test_random_pruning_goes_by_its_seed():
    X, network = random_network(1, n=30, d=4, m=9)
    y = np.asarray(network(X))
    victims = [removed(network, X, y, rule="random", seed=seed) for seed in range(12)]
    again = [removed(network, X, y, rule="random", seed=seed) for seed in range(12)]
    assert victims == again
    assert len(set(victims)) > 4


def test_exact_removals_are_free():
    X, network = random_network(7, n=6, m=50)
    pruned = jr.prune(network, X, np.zeros(6), to=6, refit=False)
    assert np.max(np.asarray(pruned.change)) < 1e-9 * np.linalg.norm(np.asarray(network(X)))
    assert jr.prune(network, X, np.zeros(6), to=0, refit=False).network.num_neurons == 0


def test_coefficients_of_independent_features_are_kept():
    kept, a = independent(np.eye(3), np.asarray([1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(kept, [0, 2])
    np.testing.assert_array_equal(a, [1.0, 0.0, 2.0])


def test_bad_input_names_the_fix():
    X, network = random_network(0)
    with pytest.raises(ValueError, match="rule is 'best'; pass one of 'random'"):
        jr.prune(network, X, np.zeros(12), to=3, rule="best")
    with pytest.raises(ValueError, match="to is -1; pass an integer >= 0"):
        jr.prune(network, X, np.zeros(12), to=-1)
    with pytest.raises(ValueError, match="12 rows"):
        jr.prune(network, X, np.zeros(11), to=3)
    with pytest.raises(ValueError, match=r"hidden takes rows of 3 features"):
        jr.minimal(network, X[:, :2])
    with pytest.raises(ValueError, match="network.hidden has NaN"):
        jr.minimal(jr.Network(network.hidden * np.nan, network.output), X)
    with pytest.raises(TypeError, match="^network is an array of shape"):
        jr.minimal(np.zeros(3), X)
    with pytest.raises(TypeError, match="^network is an array of shape"):
        jr.prune(np.zeros(3), X, np.zeros(12), to=3)
    gated = jr.GatedNetwork(network.hidden * np.inf, network.hidden, network.output)
    with pytest.raises(ValueError, match="network.gates has NaN"):
        jr.minimal(gated, X)
    fewer = jr.GatedNetwork(network.hidden[:, 1:], network.hidden, network.output)
    with pytest.raises(ValueError, match=r"network.gates has shape \(3, .*that of hidden"):
        jr.minimal(fewer, X)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda net: jr.minimal(net, X).output)(network)


def test_nearly_equal_directions_are_merged_with_their_fit():
    X = np.eye(2)
    near = jr.Network(jnp.asarray([[1.0, 1.0], [0.0, 9e-7]]), jnp.ones(2))
    found = jr.minimal(near, X)
    assert found.num_neurons == 1
    np.testing.assert_allclose(found(X), near(X), rtol=1e-12)
    # Large parts that cancel: what is left is their difference.
    hidden = jnp.asarray([[1.0, 1.0, 1.0], [0.0, 5e-7, 0.0]])
    cancel = jr.Network(hidden, jnp.asarray([1e6, 1e6, -2e6]))
    np.testing.assert_allclose(jr.minimal(cancel, X)(X), cancel(X), atol=1e-9)
    # Across a wall the features do not add up, and the neurons stay apart.
    across = jr.Network(jnp.asarray([[1.0, 1.0], [4e-7, -4e-7]]), jnp.ones(2))
    assert jr.minimal(across, X).num_neurons == 2


@pytest.mark.slow
def test_an_optimum_stays_what_it_is_where_nothing_has_to_go():
    X, _ = random_network(3)
    y = np.where(np.arange(len(X)) % 2 == 0, 1.0, -1.0)
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X), jr.LogisticLoss())
    lam = 0.2 * float(jr.lambda_max(program))
    optimum = jr.to_network(program, jr.solve(program, lam, rtol=1e-12).weights).compact()
    kept = jr.prune(optimum, X, y, to=50, loss=jr.LogisticLoss(), lam=lam)
    np.testing.assert_allclose(kept.network(X), optimum(X), atol=1e-5)


def test_the_refit_is_that_of_the_loss_and_the_penalty():
    X, network = random_network(3)
    y = np.where(np.arange(len(X)) % 2 == 0, 1.0, -1.0)
    # The slope is zero at positive coefficients and not negative at zero.
    found = jr.prune(network, X, y, to=5, loss=jr.LogisticLoss(), lam=0.1)
    gradient = -y / (1 + np.exp(y * np.asarray(found.network(X))))
    directions = np.asarray(found.network.hidden) / np.linalg.norm(found.network.hidden, axis=0)
    slopes = np.sign(found.network.output) * (np.maximum(X @ directions, 0.0).T @ gradient) + 0.1
    np.testing.assert_allclose(slopes, 0.0, atol=1e-4)
    value = np.sum(np.log1p(np.exp(-y * np.asarray(found.network(X)))))
    assert float(found.loss[-1]) == pytest.approx(value)
    with pytest.raises(ValueError, match="labels"):
        jr.prune(network, X, 2 * y, to=5, loss=jr.LogisticLoss())
    with pytest.raises(ValueError, match="lam is -1"):
        jr.prune(network, X, y, to=5, lam=-1.0)
