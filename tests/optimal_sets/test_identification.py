"""From one answer to all of them: support, walls, what is not decided."""

import sys
import warnings
from dataclasses import replace
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo
from optimal_set_checks import LAM, TRIANGLE, segment
from scipy.optimize import linprog, nnls

import jaxrelu as jr


@pytest.mark.parametrize("seed", [1, 2])  # with neurons on walls
@pytest.mark.slow
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


STRENGTH = 0.3


HEXAGON = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])


def integers(seed, symmetric=True):
    """At most five random rows; or rows and their negatives, whose features are dependent."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 6))
    X, y = rng.integers(-2, 3, (n, 2)).astype(float), rng.integers(-3, 4, n).astype(float)
    if not symmetric:
        return X, y
    half, target = X[: n // 2 + 1], np.abs(y[: n // 2 + 1])
    return np.vstack([half, -half])[:5], np.concatenate([target, target])[:5]


# (X, y), and the |E|, |S|, dimension and m* that make it worth a test.
INSTANCES = {
    "segment between two and two": (integers(37), (4, 4, 1, 2)),
    "segment between three and three": (integers(13), (4, 4, 1, 3)),
    "direction of no optimum": (integers(56, symmetric=False), (2, 1, 0, 1)),
    "three dimensions": ((HEXAGON, np.ones(3)), (6, 6, 3, 2)),
}


def independent_directions(X, masks, residual):
    """Distinct (sign, direction) of correlation lam, and their features, in NumPy alone."""
    q = reference.block_correlations(X, masks, residual)
    found = []
    for sign, blocks in zip((1.0, -1.0), q, strict=True):
        for block in blocks:
            size = np.linalg.norm(block)
            if size < STRENGTH * (1 - 1e-6):
                continue
            u = block / size
            if all(s != sign or np.linalg.norm(u - v) > 1e-6 for s, v in found):
                found.append((sign, u))
    directions = np.array([u for _, u in found])
    signs = np.array([s for s, _ in found])
    return signs, directions, signs * np.maximum(X @ directions.T, 0.0)


def all_corners(Z, fit):
    """Coefficients of every set of independent features that gives the fit with a > 0."""
    k, corners = Z.shape[1], []
    for size in range(1, min(Z.shape) + 1):
        for chosen in map(list, combinations(range(k), size)):
            if np.linalg.matrix_rank(Z[:, chosen], tol=1e-9) < size:
                continue
            a = np.linalg.lstsq(Z[:, chosen], fit, rcond=None)[0]
            if np.linalg.norm(Z[:, chosen] @ a - fit) < 1e-8 and np.all(a > 1e-8):
                corners.append(np.zeros(k))
                corners[-1][chosen] = a
    return np.array(corners)


def fewest(Z, fit):
    """The size of the smallest set of features that gives the fit with coefficients >= 0."""
    for size in range(Z.shape[1] + 1):
        for chosen in map(list, combinations(range(Z.shape[1]), size)):
            if nnls(Z[:, chosen], fit)[1] < 1e-8 if chosen else np.linalg.norm(fit) < 1e-8:
                return size
    raise AssertionError("no set of features gives the fit")


@pytest.fixture(scope="module", params=INSTANCES)
def instance(request):
    (X, y), expected = INSTANCES[request.param]
    program = zoo.tiny(X, y)
    return X, y, program, jr.optimal_set(program, jr.solve(program, STRENGTH)), expected


def test_support_dimension_vertices_and_width(instance):
    _, _, program, optima, expected = instance
    X, masks = np.asarray(program.X), np.asarray(program.patterns.masks)
    r, fit, y = np.asarray(optima.residual), np.asarray(optima.fit), np.asarray(program.y)
    # The residual is optimal: a feasible dual point whose value is that of the fit.
    assert reference.dual_excess(X, masks, r, STRENGTH) < 1e-9
    np.testing.assert_allclose(r, y - fit, atol=1e-12)
    signs, directions, Z = independent_directions(X, masks, r)
    penalty = float(jnp.sum(optima.coefficients))
    assert reference.dual_value(r, y) == pytest.approx(0.5 * r @ r + STRENGTH * penalty, rel=1e-9)

    corners = all_corners(Z, fit)
    support = np.any(corners > 0, axis=0)
    dimension = np.linalg.matrix_rank(corners - corners[0], tol=1e-7)
    assert (len(signs), support.sum(), dimension, fewest(Z, fit)) == expected

    assert optima.signs.size == len(signs)
    apart = np.linalg.norm(directions[:, None] - np.asarray(optima.directions)[None], axis=2)
    apart[signs[:, None] != np.asarray(optima.signs)[None]] = np.inf
    order = np.argmin(apart, axis=1)
    assert sorted(order) == list(range(len(signs)))
    assert np.max(np.min(apart, axis=1)) < 1e-7
    np.testing.assert_array_equal(np.asarray(optima.support)[order], support)
    assert optima.dimension == dimension == support.sum() - optima.rank
    assert optima.rank == np.linalg.matrix_rank(Z[:, support], tol=1e-9)
    assert optima.is_unique == (len(corners) == 1)
    assert (optima.minimal_width, optima.minimal_width_exact) == (expected[3], True)
    assert not optima.ambiguous
    found = np.asarray(jr.vertices(optima))[:, order]
    assert found.shape == corners.shape
    for corner in corners:
        assert np.min(np.max(np.abs(found - corner), axis=1)) < 1e-6


def test_training_reaches_the_optimum_from_the_minimal_width_on(instance):
    X, y, program, optima, _ = instance
    best = float(jr.solve(program, STRENGTH, rtol=1e-10).certificate.lower)
    width = optima.minimal_width
    reached = reference.train_network(X, y, STRENGTH, width, restarts=150)[0]
    assert reached == pytest.approx(best, rel=1e-7)
    too_narrow = 0.5 * y @ y
    if width > 1:
        too_narrow = reference.train_network(X, y, STRENGTH, width - 1, restarts=150)[0]
    assert too_narrow > best * (1 + 1e-4)


@pytest.mark.slow
def test_neurons_off_all_walls():
    # No row is padded here, and none is near a wall of the only neuron.
    X = np.asarray([[1.0, 0.2], [0.9, -0.1], [1.1, 0.1]])
    program = jr.ConvexProgram(X, np.ones(3), jr.enumerate_patterns(X))
    optima = jr.optimal_set(program, jr.solve(program, LAM))
    assert optima.is_unique
    assert not optima.ambiguous
    assert optima.minimal_width == 1


def test_a_solution_of_other_targets_is_refused(known):
    program, solution, optima = known
    other, foreign = segment([2.0, 1.0])
    for start in (foreign, jr.solve(other, 1e-3)):
        with pytest.raises(ValueError, match=r"not optimal for this program.*jr.solve\(program"):
            jr.optimal_set(program, start)
    # Its claims are not believed either: fit and residual are those of its weights.
    boasting = replace(
        solution,
        fit=foreign.fit,
        residual=foreign.residual,
        certificate=replace(solution.certificate, gap=jnp.asarray(-1.0)),
    )
    found = jr.optimal_set(program, boasting)
    np.testing.assert_allclose(found.fit, optima.fit, atol=1e-9)
    np.testing.assert_allclose(found.residual, optima.residual, atol=1e-9)
    assert (found.dimension, found.ambiguous) == (1, False)


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


def test_a_sample_of_no_weight_binds_nothing():
    # Its features are independent of the others, but its fit is not the same for all optima.
    X = np.vstack([TRIANGLE, [1.0, 0.1]])
    weight = np.ones(zoo.SAMPLES)
    weight[2] = 0.0
    program = replace(zoo.tiny(X, [2.0, 2.0, 0.0]), sample_weight=weight)
    optima = jr.optimal_set(program, jr.solve(program, LAM))
    np.testing.assert_array_equal(optima.counts, weight > 0)
    assert (optima.dimension, optima.minimal_width, optima.is_unique) == (1, 1, False)
    assert not optima.ambiguous
    for a in np.asarray(jr.vertices(optima)):
        assert jr.is_optimal(optima, a)
        np.testing.assert_allclose((optima.features @ a)[:2], 1.5, atol=1e-7)


def test_fits_of_one_slope_are_optimal_together():
    # r = (delta_1, 0.5) holds all three directions; the first fit is free up to y_1 - delta_1.
    loss = jr.HuberLoss(np.asarray([LAM, 10.0, 1.0]))
    X = np.vstack([TRIANGLE, np.zeros((1, 2))])
    program = jr.ConvexProgram(X, np.asarray([5.0, 2.0, 0.0]), jr.enumerate_patterns(X), loss)
    optima = jr.optimal_set(program, jr.solve(program, LAM))
    assert (optima.dimension, optima.rank, optima.minimal_width) == (2, 1, 1)
    assert (optima.is_unique, optima.ambiguous) == (False, False)
    np.testing.assert_allclose(optima.fit_low, [-np.inf, 1.5, 0.0], atol=1e-7)
    np.testing.assert_allclose(optima.fit_high, [4.5, 1.5, 0.0], atol=1e-7)
    order = np.argsort(np.asarray(optima.directions)[:, 0])  # x_2, between, x_1
    corners = np.asarray(jr.vertices(optima))[:, order]
    known = [[1.5, 0, 0], [1.5, 0, 4.5], [0, 3, 0], [0, 3, 3]]
    assert len(corners) == len(known)
    for corner in known:
        assert np.min(np.max(np.abs(corners - corner), axis=1)) < 1e-7
    back = np.argsort(order)
    nearest = jr.nearest_optimal(optima, np.asarray([1.5, 0.0, 9.0])[back])
    np.testing.assert_allclose(np.asarray(nearest)[order], [1.5, 0.0, 4.5], atol=1e-7)
    assert not jr.is_optimal(optima, np.asarray([1.5, 0.0, 4.6])[back])
    least = np.asarray(jr.select(optima, "min_norm"))[order]
    np.testing.assert_allclose(least, [1.2, 0.6, 0.0], atol=1e-6)
    most = np.asarray(jr.select(optima, lambda a: -a[order[2]]))[order]
    np.testing.assert_allclose(most, [1.5, 0.0, 4.5], atol=1e-5)
    samples = np.asarray(jr.sample_optimal(jax.random.key(0), optima, 2000))
    for a in samples[::200]:
        assert jr.is_optimal(optima, a)
    # Uniform in (a_2, a_3): 0 <= a_2 <= 3 and 0 <= a_3 <= 4.5 - a_2 / 2.
    np.testing.assert_allclose(samples[:, order].mean(axis=0), [0.8, 1.4, 1.9], atol=0.1)


@pytest.mark.slow
def test_all_that_is_optimal_beside_samples_beyond_the_margin():
    """The set against Clarabel: the largest of random functions over {objective <= the optimum}."""
    cp = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = np.where(X[:, 0] + 0.3 * rng.standard_normal(40) > 0, 1.0, -1.0)
    masks = jr.sample_patterns(jax.random.key(0), X, 40)
    program = jr.GatedProgram(X, y, masks, jr.SquaredHingeLoss())
    solution = jr.solve(program, 0.005 * float(jr.lambda_max(program)), rtol=1e-10)
    optima = jr.optimal_set(program, solution)
    assert optima.dimension > 1
    assert not optima.ambiguous
    corners = np.asarray(jr.vertices(optima))
    fits = corners @ np.asarray(optima.features).T
    assert np.max(np.ptp(fits, axis=0)) > 0.1
    lam = float(solution.lam)
    for a in corners[:: max(1, len(corners) // 10)]:
        network = jr.network_from_coefficients(optima, a)
        value = jr.nonconvex_objective(network, X, y, lam, program.loss)
        np.testing.assert_allclose(value, solution.upper, rtol=1e-9)
    gates = np.asarray(masks.masks) > 0
    blocks = cp.Variable((gates.shape[1], 3))
    fit = cp.sum(cp.multiply(gates, X @ blocks.T), axis=1)
    loss = cp.sum_squares(cp.pos(1 - cp.multiply(y, fit))) / 2
    level = loss + lam * cp.sum(cp.norm(blocks, axis=1))
    for _ in range(2):
        functional = rng.standard_normal(40)
        best = cp.Problem(cp.Maximize(functional @ fit), [level <= (1 + 1e-9) * solution.upper])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "may be inaccurate": the set is thin
            best.solve(solver="CLARABEL")
        np.testing.assert_allclose(np.max(fits @ functional), best.value, rtol=1e-3)


@pytest.mark.slow
def test_a_loss_that_does_not_say_where_it_is_linear_is_not_decided(monkeypatch):
    problem = zoo.problem(zoo.huber)
    program, lam = problem.program, problem.lams(0.3)[0]
    solution = jr.solve(program, lam)
    optima = jr.optimal_set(program, solution)
    assert np.any(np.abs(np.asarray(program.y) - optima.fit) > program.loss.delta)
    assert not optima.ambiguous
    monkeypatch.delattr(jr.HuberLoss, "same_gradient")
    assert jr.optimal_set(program, solution).ambiguous


@pytest.mark.slow
def test_a_fit_where_the_loss_turns_linear_is_not_decided():
    # The residual is lam y / ||y||, and the second entry of it delta.
    X, y, lam = np.eye(2), np.asarray([3.0, 1.0]), 1.5
    loss = jr.HuberLoss(np.asarray([9.0, lam / np.sqrt(10.0)]))
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X), loss)
    optima = jr.optimal_set(program, jr.solve(program, lam))
    assert optima.doubts == ("a sample's fit is nearly where the loss turns linear",)


@pytest.mark.slow
def test_a_coefficient_near_rounding_is_not_decided():
    program = zoo.tiny(np.eye(2), [3.0, -1.0])
    lam = 1.0 - 3e-7  # the second neuron was born at one
    assert jr.optimal_set(program, jr.solve(program, lam, rtol=1e-12, atol=0.0)).ambiguous
    assert not jr.optimal_set(program, jr.solve(program, 0.5)).ambiguous


@pytest.mark.slow
def test_an_answer_that_cannot_be_polished_is_ambiguous(monkeypatch):
    program = zoo.tiny([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0])
    solution = jr.solve(program, 0.5)
    assert not jr.optimal_set(program, solution).ambiguous
    near = replace(solution, weights=(1 + 3e-5) * solution.weights)
    lost = replace(solution, certificate=replace(solution.certificate, gap=jnp.asarray(jnp.inf)))
    monkeypatch.setattr(
        sys.modules[jr.optimal_set.__module__], "solve_path", lambda *_, **__: [lost]
    )
    assert jr.optimal_set(program, near).ambiguous
