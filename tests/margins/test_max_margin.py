"""Maximum margin and minimum norm: closed forms, an independent solver, proofs that are checked.

All programs share one shape, so that one compiled solve serves them: rows are repeated, columns of
zeros are added and patterns repeated, none of which changes an optimum.
"""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo
from scipy.optimize import linprog, minimize

import jaxrelu as jr
from jaxrelu.margins.alternatives import fit_space, nearest_fit, separation
from jaxrelu.margins.exact_fit import exact_fit
from jaxrelu.margins.kkt_conditions import margin_conditions
from jaxrelu.margins.max_margin import max_margin
from jaxrelu.margins.method_of_multipliers import Shortfall
from jaxrelu.margins.minimum_norm import minimum_norm

SAMPLES, FEATURES, PATTERNS = 12, 4, 32
EPS = 2.2e-16


def shaped(X, y):
    """(X, y, all patterns of X) in the common shape, with the same optimum."""
    X, y = np.asarray(X, float), np.asarray(y, float)
    rows = np.arange(SAMPLES) % len(X)
    columns = ((0, FEATURES - X.shape[1]), (0, 0))
    patterns = jr.enumerate_patterns(X)
    gates = np.pad(patterns.gates, columns)
    patterns = jr.Patterns(gates, np.asarray(patterns.masks)[rows], gates)
    return np.pad(X, columns[::-1])[rows], y[rows], zoo.tiled(patterns, PATTERNS)


def oracle(X, y, masks, margin):
    """The optimal value by CVXPY and Clarabel."""
    masks = np.unique(np.asarray(masks, float), axis=1)
    fit, norms, constraints = 0, 0, []
    for mask in masks.T:
        for sign in (1.0, -1.0):
            theta = cp.Variable(X.shape[1])
            fit += sign * (mask[:, None] * X) @ theta
            norms += cp.norm(theta)
            constraints.append(reference.cone_matrix(X, mask) @ theta >= 0)
    constraints.append(cp.multiply(y, fit) >= 1 if margin else fit == y)
    problem = cp.Problem(cp.Minimize(norms), constraints)
    problem.solve(solver=cp.CLARABEL)
    return float(problem.value)


def largest_correlation(X, masks, nu):
    """The polar gauge over patterns, by NNLS."""
    return max(
        np.linalg.norm(reference.project_cone(sign * X.T @ (mask * nu), X, mask)[0])
        for mask in np.asarray(masks, float).T
        for sign in (1.0, -1.0)
    )


def gauge_over(X, patterns):
    return lambda nu: largest_correlation(X, patterns.masks, np.asarray(nu))


def random_labels(seed, shape=(6, 3)):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape)
    return X, np.where(rng.standard_normal(shape[0]) > 0, 1.0, -1.0)


def cosine(rho):
    return np.asarray([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]])


def symmetric(X):
    """Rows +-x, +-z, +-(x + z)."""
    X = np.vstack([X, X.sum(axis=0)])
    return np.concatenate([X, -X])


def hard_margin(X):
    """Argmin ||u|| subject to X u >= 1, by SLSQP."""
    found = minimize(
        lambda u: 0.5 * u @ u,
        np.linalg.lstsq(X, np.ones(len(X)))[0],
        jac=lambda u: u,
        constraints={"type": "ineq", "fun": lambda u: X @ u - 1, "jac": lambda u: X},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return found.x


def half_norm(network):
    return 0.5 * float(jnp.sum(network.hidden**2) + jnp.sum(network.output**2))


@pytest.mark.parametrize("rho", [-0.9, -0.5, 0.0, 0.7])
def test_margin_of_two_rows(rho):
    found = max_margin(*shaped(cosine(rho), [1.0, 1.0]))
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    expected = min(2.0, np.sqrt(2 / (1 + rho)))
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    np.testing.assert_allclose(found.margin, 1 / expected, rtol=1e-6)
    assert float(found.lower) <= expected * (1 + 1e-12)
    assert float(found.upper) >= expected * (1 - 1e-12)


@pytest.mark.parametrize("rho", [-0.9, -0.5, 0.0, 0.7])
def test_one_neuron_is_a_kkt_point_and_global_from_minus_a_half_on(rho):
    X, kappa = cosine(rho), np.sqrt(2 * (1 + rho))
    network = jr.Network(jnp.asarray(X.sum(axis=0) / kappa)[:, None], jnp.ones(1))
    found = margin_conditions(network, X, np.ones(2))
    np.testing.assert_allclose(found.stationarity, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.dual, 1 / kappa, rtol=1e-12)
    np.testing.assert_allclose(found.gauge, max(1.0, 1 / kappa), rtol=1e-9)
    assert bool(found.unique)
    np.testing.assert_allclose(found.value, 2 / kappa, rtol=1e-12)
    # Above rho = -1/2 the certificate closes; below, the bound is the optimum, of two neurons.
    np.testing.assert_allclose(found.lower, min(2.0, 2 / kappa), rtol=1e-9)
    assert (float(found.gap) < 1e-8) == (rho >= -0.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_of_an_independent_solver(seed):
    X, labels = random_labels(seed)
    target = np.random.default_rng(seed + 10).standard_normal(len(X))
    masks = jr.enumerate_patterns(X).masks
    found = max_margin(*shaped(X, labels))
    np.testing.assert_allclose(found.value, oracle(X, labels, masks, True), rtol=1e-6)
    found = minimum_norm(*shaped(X, target))
    np.testing.assert_allclose(found.value, oracle(X, target, masks, False), rtol=1e-6)


@pytest.mark.parametrize("problem", [max_margin, minimum_norm])
def test_the_certificate_by_hand(problem):
    X, y = random_labels(3)
    if problem is minimum_norm:
        y = y * np.random.default_rng(0).uniform(0.1, 3.0, len(y))
    X, y, patterns = shaped(X, y)
    found = problem(X, y, patterns, rtol=1e-8)
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    np.testing.assert_allclose(found.gap, found.upper - found.lower, rtol=1e-12, atol=1e-14)
    assert float(found.gap) <= 1e-8 * float(found.upper)
    # The dual point is feasible, and the lower bound is its value.
    nu = np.asarray(found.dual)
    assert largest_correlation(X, patterns.masks, nu) <= 1 + 1e-9
    np.testing.assert_allclose(found.lower, y @ nu, rtol=1e-12)
    # The network is feasible, and the upper bound is its norm.
    network = found.network
    assert network.num_neurons < 2 * PATTERNS
    np.testing.assert_allclose(half_norm(network), found.upper, rtol=1e-12)
    np.testing.assert_allclose(
        np.sum(np.linalg.norm(found.weights, axis=-1)), found.upper, rtol=1e-12
    )
    if problem is max_margin:
        assert np.all(y * nu >= 0)
        np.testing.assert_allclose(np.min(y * network(X)), 1.0, rtol=1e-10)
    else:
        np.testing.assert_allclose(network(X), y, atol=1e-10)
        np.testing.assert_array_equal(found.fit, y)


def test_orthogonally_separable_data():
    rng = np.random.default_rng(5)
    positive, negative = rng.uniform(0.1, 1.0, (3, 3)), -rng.uniform(0.1, 1.0, (3, 3))
    u, v = hard_margin(positive), hard_margin(negative)
    X, y = np.vstack([positive, negative]), np.repeat([1.0, -1.0], 3)
    expected = np.linalg.norm(u) + np.linalg.norm(v)
    closed = jr.closed_form.separable(X, y).value
    X, y, patterns = shaped(X, y)
    found = max_margin(X, y, patterns)
    np.testing.assert_allclose([closed, found.value], expected, rtol=1e-6)
    # The two machines are the network, and it is certified on its own.
    hidden = np.pad(np.stack([u, v], axis=1), ((0, FEATURES - 3), (0, 0)))
    network = jr.balance(jr.Network(jnp.asarray(hidden), jnp.asarray([1.0, -1.0])))
    conditions = margin_conditions(
        network, X, y, gauge_upper=gauge_over(X, patterns), support_tolerance=1e-5
    )
    np.testing.assert_allclose(conditions.stationarity, 0.0, atol=1e-6)
    np.testing.assert_allclose(conditions.gauge, 1.0, rtol=1e-5)
    np.testing.assert_allclose(conditions.lower, expected, rtol=1e-5)


def test_interpolating_orthonormal_rows_costs_both_signs():
    y = np.asarray([3.0, 4.0, -2.0])
    found = minimum_norm(*shaped(np.eye(3), y))
    np.testing.assert_allclose(found.value, 5.0 + 2.0, rtol=1e-9)


def test_rows_in_symmetric_pairs_are_not_representable():
    rng = np.random.default_rng(6)
    X, y = symmetric(rng.standard_normal((2, 2))), rng.standard_normal(6)
    X, y, patterns = shaped(X, y)
    found = minimum_norm(X, y, patterns)
    assert not bool(found.representable)
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    nu = np.asarray(found.farkas)
    assert y @ nu > 1e-2
    assert largest_correlation(X, patterns.masks, nu) < 1e-12
    # The odd part of a network is linear: f(x) - f(-x) over x, z, x + z has one relation.
    relation = np.asarray([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
    residual = y[:6] - found.fit[:6]
    np.testing.assert_allclose(relation @ found.fit[:6], 0.0, atol=1e-12)
    np.testing.assert_allclose(residual, relation * (relation @ y[:6]) / 6, atol=1e-12)
    np.testing.assert_allclose(found.network(X), found.fit, atol=1e-10)
    np.testing.assert_allclose(
        found.value, oracle(X[:6], np.asarray(found.fit)[:6], patterns.masks[:6], False), rtol=1e-6
    )


def test_labels_against_the_odd_part_are_not_separable():
    X = symmetric(np.random.default_rng(6).standard_normal((2, 2)))
    impossible = np.asarray([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
    X, y, patterns = shaped(X, impossible)
    found = max_margin(X, y, patterns)
    assert not bool(found.separable)
    assert jr.Status(int(found.status)) is jr.Status.INFEASIBLE
    nu = np.asarray(found.farkas)
    assert np.all(y * nu >= 0)
    assert np.max(np.abs(nu)) == pytest.approx(1.0)
    assert largest_correlation(X, patterns.masks, nu) < 1e-12
    assert np.isinf(found.value)
    assert float(found.margin) == 0.0
    assert found.network.num_neurons == 0
    y[5::6] = -1.0  # one label less
    found = max_margin(X, y, patterns)
    assert bool(found.separable)
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    np.testing.assert_array_equal(found.farkas, 0.0)


def test_separability_of_all_labels_by_linear_programming():
    # Three lines in the plane and a row of small length: a span of 6 of 7 dimensions.
    X = np.vstack([symmetric(np.asarray([[1.0, 0.2], [0.3, 1.0]])), [[1e-6, -2e-6]]])
    masks = np.asarray(jr.enumerate_patterns(X).masks, bool)
    columns = np.hstack([mask[:, None] * X for mask in masks.T])
    lengths = np.linalg.norm(X, axis=1)
    columns /= lengths[:, None]
    space = fit_space(X, masks, EPS)
    assert space.basis.shape == (7, 6)
    count = 0
    for bits in np.ndindex(*[2] * 7):
        y = 2.0 * np.asarray(bits) - 1
        feasible = linprog(
            np.zeros(columns.shape[1]),
            A_ub=-y[:, None] * columns,
            b_ub=-np.ones(7),
            bounds=(None, None),
        ).success
        nu = separation(space, y)
        assert feasible == (nu is None)
        if nu is not None:
            count += 1
            np.testing.assert_allclose((nu * lengths) @ columns, 0.0, atol=1e-14)
    assert count == 4


def test_parallel_rows_and_zero_rows():
    X = np.asarray([[1.0, 2.0], [2.0, 4.0], [0.5, -1.0]])
    masks = np.asarray(jr.enumerate_patterns(X).masks, bool)
    space = fit_space(X, masks, EPS)
    proof = separation(space, np.asarray([1.0, -1.0, 1.0]))
    np.testing.assert_allclose(proof, [1, -0.5, 0], atol=1e-15)
    assert separation(space, np.ones(3)) is None
    assert nearest_fit(space, np.asarray([1.0, 2.0, -7.0]))[1] is None
    fit, nu = nearest_fit(space, np.asarray([2.0, -1.0, 0.0]))
    np.testing.assert_array_equal(fit, 0.0)
    np.testing.assert_allclose(nu, [2.0, -1.0, 0.0], atol=1e-14)
    X[2] = 0.0
    space = fit_space(X, masks, EPS)
    np.testing.assert_allclose(separation(space, np.ones(3)), [0.0, 0.0, 1.0], atol=1e-12)


def test_many_patterns_span_what_few_columns_span():
    # More columns than twice the rows are combined at random before their rank is taken.
    X = symmetric(np.random.default_rng(0).standard_normal((2, 2)))
    masks = np.asarray(jr.enumerate_patterns(X).masks, bool)
    assert masks.shape[1] * 2 <= 2 * len(X)
    few, many = fit_space(X, masks, EPS), fit_space(X, np.tile(masks, 5), EPS)
    np.testing.assert_allclose(few.basis @ few.basis.T, many.basis @ many.basis.T, atol=1e-12)


def test_scales_signs_and_rotations():
    X, labels = random_labels(4)
    y = labels * np.random.default_rng(1).uniform(0.5, 2.0, len(X))
    one = minimum_norm(*shaped(X, y))
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    other = minimum_norm(*shaped(X @ rotation, y))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-6)
    other = minimum_norm(*shaped(1e3 * X, -1e-2 * y))
    np.testing.assert_allclose(one.value, 1e5 * other.value, rtol=1e-6)
    # A fit that is beyond the labels has no smaller norm than the margin problem's.
    margin = max_margin(*shaped(X, labels))
    assert float(margin.value) <= float(one.value) / np.min(np.abs(y)) * (1 + 1e-6)


def test_exact_fits_keep_the_cones(rng):
    X, y = random_labels(4)
    patterns = jr.enumerate_patterns(X)
    masks, witness = np.asarray(patterns.masks, bool), np.asarray(patterns.interior).T
    correct = exact_fit(X, masks, witness)

    def check(theta, fit):
        signs = np.where(masks, 1.0, -1.0).T
        assert np.min(signs[None] * (theta @ X.T)) >= -1e-13 * np.max(np.abs(theta))
        found = np.sum(masks * (X @ (theta[0] - theta[1]).T), axis=1)
        np.testing.assert_allclose(found, fit, atol=1e-12)

    # From nothing, every block is needed.
    nothing = np.zeros((2, *witness.shape))
    check(correct(nothing, y), y)
    # From four blocks with nearly the fit, the four are enough, and what is negligible goes.
    theta = nothing.copy()
    few = [0, 3, 15, 20]
    assert np.linalg.matrix_rank(np.hstack([masks[:, [j]] * X for j in few])) == 6
    theta[0, few], theta[1, 9] = witness[few], 1e-9 * witness[9]
    fit = np.sum(masks * (X @ (theta[0] - theta[1]).T), axis=1) + 1e-4 * rng.standard_normal(6)
    moved = correct(theta, fit)
    check(moved, fit)
    assert np.count_nonzero(np.any(moved != 0, axis=-1)) == 4
    assert np.max(np.abs(moved - theta)) < 1e-2
    # Far from the fit they would leave their cones.
    check(correct(theta, -10.0 * fit), -10.0 * fit)


def test_zero_targets_and_few_solves():
    X, labels = random_labels(4)
    found = minimum_norm(*shaped(X, np.zeros(6)))
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    assert float(found.value) == 0.0
    assert found.network.num_neurons == 0
    exact = float(max_margin(*shaped(X, labels)).value)
    for problem in (max_margin, minimum_norm):
        early = problem(*shaped(X, labels), max_steps=2)
        assert jr.Status(int(early.status)) is jr.Status.MAX_STEPS
        assert int(early.num_steps) == 2
    early = max_margin(*shaped(X, labels), max_steps=2)
    assert float(early.lower) <= exact <= float(early.upper)
    assert float(early.gap) > 1e-6 * exact
    # A gap that no arithmetic can close is not waited for, and still a bound.
    late = max_margin(*shaped(X, labels), rtol=1e-16)
    assert jr.Status(int(late.status)) is jr.Status.STALLED
    np.testing.assert_allclose([late.lower, late.upper], exact, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_optimal_networks_meet_their_conditions(seed):
    X, y = random_labels(seed)
    given = shaped(X, y)
    found = max_margin(*given, rtol=1e-9)
    gauge = gauge_over(given[0], given[2])
    conditions = margin_conditions(found.network, *given[:2], gauge_upper=gauge)
    np.testing.assert_allclose(conditions.stationarity, 0.0, atol=1e-5)
    np.testing.assert_allclose(conditions.complementarity, 0.0, atol=1e-6)
    np.testing.assert_allclose(conditions.gauge, 1.0, rtol=1e-5)
    np.testing.assert_allclose(conditions.lower, found.value, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(jnp.abs(conditions.dual)), found.value, rtol=1e-6)


def test_walls_need_their_own_coefficients():
    # u = (1, 0) is on the wall of the second row, whose multiplier counts by half: m = mu / 2.
    X, y = np.asarray([[1.0, 0.5], [0.0, -1.0]]), np.asarray([1.0, 1.0])
    hidden, output = np.asarray([[1.0, 0.0], [0.0, -1.0]]), np.ones(2)
    network = jr.Network(jnp.asarray(hidden), jnp.asarray(output))
    conditions = margin_conditions(network, X, y)
    np.testing.assert_allclose(conditions.stationarity, 0.0, atol=1e-12)
    np.testing.assert_allclose(conditions.dual, 1.0, atol=1e-12)
    assert bool(conditions.unique)
    # The row (1, t) needs m = t mu: no coefficient in [0, 1] will do from t = 1 on.
    X[0, 1] = 0.99
    np.testing.assert_allclose(margin_conditions(network, X, y).stationarity, 0.0, atol=1e-12)
    # One cell only: a smaller gauge, a larger bound.
    one = jr.patterns_from_gates(X, np.asarray([[0.1], [-1.0]]))
    part = margin_conditions(network, X, y, patterns=one)
    np.testing.assert_allclose(part.gauge, largest_correlation(X, one.masks, np.ones(2)), rtol=1e-9)
    assert float(part.lower) > float(margin_conditions(network, X, y).lower)
    X[0, 1] = 1.5
    assert np.max(margin_conditions(network, X, y).stationarity) > 0.05


def test_the_bound_holds_for_networks_that_are_not_stationary():
    X, y, patterns = shaped(*random_labels(1))
    optimum = float(max_margin(X, y, patterns).value)
    rng = np.random.default_rng(0)
    for _ in range(5):
        hidden = rng.standard_normal((FEATURES, 40))
        output = np.linalg.lstsq(np.maximum(X @ hidden, 0.0), y)[0]
        network = jr.Network(jnp.asarray(hidden), jnp.asarray(output))
        conditions = margin_conditions(network, X, y, gauge_upper=gauge_over(X, patterns))
        assert np.max(conditions.stationarity) > 1e-2
        assert float(conditions.lower) <= optimum * (1 + 1e-9)
        assert float(conditions.value) >= optimum * (1 - 1e-9)
        assert np.all(y * np.asarray(conditions.dual) >= 0)
        fit = np.asarray(conditions.network(X))
        np.testing.assert_allclose(np.min(y * fit), 1.0, rtol=1e-9)


def test_unbalanced_and_slack_networks_are_told():
    X = np.eye(2)
    y = np.asarray([1.0, -1.0])
    good = margin_conditions(jr.Network(jnp.eye(2), jnp.asarray(y)), X, y)
    np.testing.assert_allclose(good.stationarity, 0.0, atol=1e-12)
    skew = margin_conditions(jr.Network(2 * jnp.eye(2), jnp.asarray(y / 2)), X, y)
    assert np.all(np.asarray(skew.stationarity) > 0.1)
    slack = margin_conditions(jr.Network(jnp.diag(jnp.asarray([1.0, 2.0])), jnp.asarray(y)), X, y)
    assert slack.stationarity[1] > 0.1
    assert slack.dual[1] == 0.0
    # With a tolerance its multiplier is free, and complementarity tells.
    wide = margin_conditions(slack.network, X, y, support_tolerance=2.0)
    assert wide.complementarity > 0.1
    # The bound by another upper bound of the gauge.
    loose = margin_conditions(slack.network, X, y, gauge_upper=lambda nu: 2 * jnp.sum(jnp.abs(nu)))
    np.testing.assert_allclose(loose.lower, 0.5, rtol=1e-12)


def test_multipliers_that_are_not_unique_are_told():
    X, y = np.asarray([[1.0, 0.0], [1.0, 0.0]]), np.ones(2)
    network = jr.Network(jnp.asarray([[1.0], [0.0]]), jnp.ones(1))
    found = margin_conditions(network, X, y, gauge_upper=lambda nu: jnp.max(jnp.abs(nu)))
    np.testing.assert_allclose(found.stationarity, 0.0, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(found.dual), 1.0, rtol=1e-12)
    assert not bool(found.unique)


@pytest.mark.parametrize("one_sided", [True, False])
def test_the_loss_is_consistent(one_sided, rng):
    loss = Shortfall(jnp.asarray(one_sided))
    target = jnp.asarray(rng.choice([-1.5, 0.7], 200))
    fit, dual = (jnp.asarray(rng.normal(scale=2.0, size=200)) for _ in range(2))
    slope = jax.vmap(jax.grad(lambda f, t: loss.value(f[None], t[None])[0]))(fit, target)
    np.testing.assert_allclose(loss.gradient(fit, target), slope, atol=1e-12)
    # Fenchel and Young, with equality at the gradient.
    assert np.all(loss.value(fit, target) + loss.conjugate(dual, target) >= fit * dual - 1e-12)
    gradient = loss.gradient(fit, target)
    tight = loss.value(fit, target) + loss.conjugate(gradient, target) - fit * gradient
    np.testing.assert_allclose(tight, 0.0, atol=1e-12)
    beyond = np.asarray(fit * jnp.sign(target) > jnp.abs(target))
    assert np.any(beyond)
    assert np.all((np.asarray(loss.value(fit, target)) == 0) == (beyond & one_sided))


def test_bad_input_names_the_fix():
    X, labels = random_labels(0)
    patterns = jr.enumerate_patterns(X)
    with pytest.raises(ValueError, match="labels -1 and \\+1, but y holds 0 and 1: pass"):
        max_margin(X, (labels + 1) / 2, patterns)
    with pytest.raises(ValueError, match="y has NaN"):
        minimum_norm(X, np.full(6, np.nan), patterns)
    with pytest.raises(ValueError, match="rtol is 0"):
        max_margin(X, labels, patterns, rtol=0)
    with pytest.raises(ValueError, match="max_steps is 0"):
        minimum_norm(X, labels, patterns, max_steps=0)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda y: max_margin(X, y, patterns).value)(labels)
    network = jr.Network(jnp.eye(3), jnp.ones(3))
    with pytest.raises(ValueError, match="does not separate"):
        margin_conditions(network, X, labels)
    with pytest.raises(ValueError, match="one number a row"):
        margin_conditions(network, X, labels[:2])
    with pytest.raises(ValueError, match="labels -1 and \\+1"):
        margin_conditions(network, X, 2 * labels)
    with pytest.raises(TypeError, match="either patterns or gauge_upper"):
        margin_conditions(network, X, labels, patterns=patterns, gauge_upper=float)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda y: margin_conditions(network, X, y).value)(labels)


@pytest.mark.slow
def test_the_limit_of_the_squared_loss():
    # One target in reach of the network and one that is not.
    rng = np.random.default_rng(6)
    generic = rng.standard_normal((6, 2)), rng.standard_normal(6)
    paired = symmetric(rng.standard_normal((2, 2))), rng.standard_normal(6)
    for X, y in (generic, paired):
        X, y, patterns = shaped(X, y)
        found = minimum_norm(X, y, patterns)
        program = jr.ConvexProgram(X, y, patterns)
        away = 0.5 * np.sum((y - np.asarray(found.fit)) ** 2)
        lams = 1e-2 * 0.1 ** np.arange(3)
        values, moves = [], []
        for lam in lams:
            solution = jr.solve(program, lam, rtol=1e-9)
            values.append((float(solution.certificate.upper) - away) / lam)
            moves.append(np.max(np.abs(np.asarray(solution.fit - found.fit))))
        error = float(found.value) - np.asarray(values)
        assert np.all(error > -1e-5 * float(found.value))
        assert error[2] < 0.02 * error[0] + 1e-5 * float(found.value)
        # lam dual is feasible at every lam (with y - fit added): a bound, not only a limit.
        bound = 0.5 * lams * float(jnp.sum(found.dual**2))
        assert np.all(error <= bound + 1e-5 * float(found.value))
        assert moves[2] < 0.02 * moves[0]


@pytest.mark.slow
def test_single_precision_and_more_features_than_samples(single):
    X, y = random_labels(0)
    patterns = jr.enumerate_patterns(X)
    exact = oracle(X, y, patterns.masks, True)
    found = max_margin(*single((X, y)), single(patterns))
    assert found.value.dtype == np.float32
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    np.testing.assert_allclose(found.value, exact, rtol=2e-3)

    X, y = random_labels(1, (4, 7))
    patterns = jr.enumerate_patterns(X)
    found = minimum_norm(X, y, patterns)
    np.testing.assert_allclose(found.value, oracle(X, y, patterns.masks, False), rtol=1e-6)
    np.testing.assert_allclose(found.network(X), y, atol=1e-10)
    conditions = margin_conditions(max_margin(X, y, patterns).network, X, y, wall_tolerance=1e-5)
    np.testing.assert_allclose(conditions.gap / conditions.value, 0.0, atol=1e-5)


@pytest.mark.parametrize(("X", "y"), [
    ([[1.0, 0.0], [1.0, 1e-7]], [1.0, -1.0]),
    ([[1.0, 0.0], [0.0, 1e-9]], [1.0, 1.0]),
])  # fmt: skip
def test_a_fit_that_is_missed_is_not_called_the_minimum(X, y):
    found = minimum_norm(*shaped(X, y))
    if jr.Status(int(found.status)) is jr.Status.OPTIMAL:
        np.testing.assert_allclose(found.network(shaped(X, y)[0]), found.fit, atol=1e-5)
    assert found.lower <= found.upper * (1 + 1e-6)


def test_near_copies_of_different_labels_are_not_called_inseparable():
    X = np.asarray([[1.0, -1.0], [1.0, 0.0], [1.0, 1e-4], [1.0, 1.0]], "float32")
    labels, masks = np.asarray([-1.0, -1.0, 1.0, 1.0]), np.ones((4, 1), bool)
    space = fit_space(X.astype(float), masks, float(np.finfo("float32").eps))
    assert separation(space, labels) is None
    X[2] = X[1]
    space = fit_space(X.astype(float), masks, float(np.finfo("float32").eps))
    proof = separation(space, labels)
    np.testing.assert_allclose(X.T @ proof, 0.0, atol=1e-6)


def test_rows_of_very_different_lengths_fit_what_they_fit():
    X = np.asarray([[0.0, 1.0], [1.0, 1.0], [1e10, 0.0]])
    space = fit_space(X, np.ones((3, 1), bool), EPS)
    assert nearest_fit(space, X @ np.asarray([0.0, 1.0]))[1] is None
