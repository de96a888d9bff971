"""The optimal set: known answers, brute force, and what every member must have in common."""

import sys
from dataclasses import replace
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo
from scipy.optimize import linprog, nnls

import jaxrelu as jr
from jaxrelu.geometry.host import polytopes

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
    # Functions with kinks: (s, s, 3 - 2 s) has the maximum max(s, 3 - 2 s).
    np.testing.assert_allclose(jr.select(optima, jnp.max)[order], 1.0, atol=1e-6)
    there = jnp.zeros(3).at[order].set(jnp.asarray([0.5, 0.2, 0.0]))
    found = jr.select(optima, lambda a: jnp.sum(jnp.abs(a - there)))
    assert float(jnp.sum(jnp.abs(found - there))) == pytest.approx(2.3, abs=1e-6)
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
    for shape in [(2, 4, 7), (zoo.FEATURES,), (3, zoo.FEATURES)]:
        with pytest.raises(
            ValueError, match=r"pass coefficients \(3,\), convex weights \(2, 16, 5\)"
        ):
            jr.is_optimal(optima, np.zeros(shape))
    gated = jr.GatedNetwork(optima.directions.T, optima.directions.T, jnp.ones(3))
    for function in (jr.is_optimal, jr.nearest_optimal):
        with pytest.raises(TypeError, match="of ReLU networks: pass a Network"):
            function(optima, gated)
        with pytest.raises(ValueError, match="4 features"):
            function(optima, jr.Network(jnp.ones((4, 2)), jnp.ones(2)))


def cells_of(program, direction):
    """(p,): the patterns whose closed cone has a direction in it."""
    along = np.asarray(program.X) @ direction
    signed = (2.0 * np.asarray(program.patterns.masks) - 1) * along[:, None]
    return np.all(signed >= -1e-9, axis=0)


def in_blocks(optima, a, blocks):
    """Convex weights of coefficients (k,), each in a block (sign, pattern) of its own."""
    weights = np.zeros((2, zoo.PATTERNS, zoo.FEATURES))
    for value, direction, block in zip(a, np.asarray(optima.directions), blocks, strict=True):
        weights[block] += value * direction
    return weights


def test_weights_are_optimal_only_in_cells_that_hold_their_direction(known):
    program, _, optima = known
    held = np.stack([cells_of(program, u) for u in np.asarray(optima.directions)])
    home = [(0, int(np.argmax(row))) for row in held]
    assert np.any(held.sum(axis=1) > 1)
    for e in range(3):
        for sign in (0, 1):
            for block in range(zoo.PATTERNS):
                blocks = [*home[:e], (sign, block), *home[e + 1 :]]
                expected = sign == 0 and held[e, block]
                assert jr.is_optimal(optima, in_blocks(optima, np.ones(3), blocks)) == expected
    # What goes forth in one cell and back in another has the fit, but not the penalty.
    e = int(np.argmax(held.sum(axis=1)))
    first, second = ((0, int(block)) for block in np.flatnonzero(held[e])[:2])
    weights = in_blocks(optima, np.ones(3), [*home[:e], first, *home[e + 1 :]])
    assert jr.is_optimal(optima, weights)
    weights[first] *= 2.0
    weights[second] -= 0.5 * weights[first]
    assert not jr.is_optimal(optima, weights)


def test_weights_are_projected_in_their_own_blocks(known):
    # Weights along x_1 + x_2 in a cell whose direction is x_1, with <x_1, x_1 + x_2> = 1/2.
    program, solution, optima = known
    order = in_order(optima)
    directions = np.asarray(optima.directions)[order]
    block = np.flatnonzero(cells_of(program, directions[0]) & ~cells_of(program, directions[2]))[0]
    for size in (2.0, -2.0):
        weights = np.zeros(solution.weights.shape)
        weights[0, block] = size * directions[2]
        c, s = np.asarray([0.5 * size, 0.0, 0.0]), np.linspace(0.0, 1.5, 150_001)
        members = np.stack([s, s, 3.0 - 2.0 * s], axis=1)
        expected = members[np.argmin(np.sum((members - c) ** 2, axis=1))]
        found = np.asarray(jr.nearest_optimal(optima, weights))[order]
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_neuron_in_a_cell_without_a_direction_counts_for_nothing():
    # Four of six cells have an optimal direction, at 20 degrees from the second axis.
    X = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)], [-1.0, 0.0]])
    program = zoo.tiny(X, [2.0, 2.0, 2.0, 0.0])
    optima = jr.optimal_set(program, jr.solve(program, 0.3))
    assert (optima.signs.size, optima.dimension) == (4, 1)
    hidden = np.zeros((zoo.FEATURES, 1))
    nearest = {}
    for degrees in (25.0, 35.0, 325.0):  # a wall at 30 degrees, and one at 330
        hidden[:2, 0] = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        network = jr.Network(jnp.asarray(2 * hidden), jnp.asarray([2.0]))
        nearest[degrees] = np.asarray(jr.nearest_optimal(optima, network))
    from_zero = np.asarray(jr.nearest_optimal(optima, np.zeros(4)))
    np.testing.assert_allclose(nearest[25.0], from_zero, atol=1e-9)
    assert np.max(np.abs(nearest[35.0] - from_zero)) > 0.1
    assert np.max(np.abs(nearest[325.0] - from_zero)) > 0.1


def test_gates_of_a_candidate_must_act_alike(known):
    # The set of the gated program whose gates are the three directions.
    _, _, optima = known
    optima = replace(optima, gates=optima.directions.T, direction_of=jnp.asarray([2, 0, 1]))
    member = jr.network_from_coefficients(optima, optima.interior)
    assert jr.is_optimal(optima, member)
    # A gate is known by the samples on which it opens, a neuron by hidden times output.
    other = jr.GatedNetwork(2.0 * member.gates + 0.01, -member.hidden, -member.output)
    assert jr.is_optimal(optima, other)
    np.testing.assert_allclose(jr.nearest_optimal(optima, other), optima.interior, atol=1e-7)
    wrong = jr.GatedNetwork(member.gates[:, [1, 2, 0]], member.hidden, member.output)
    assert not jr.is_optimal(optima, wrong)
    # Neuron k now has the gate of direction k + 1, and counts along that one.
    u, a = np.asarray(optima.directions), np.asarray(optima.interior)
    along = np.roll(a * np.sum(u * np.roll(u, -1, axis=0), axis=1), 1)
    found = jr.nearest_optimal(optima, wrong)
    np.testing.assert_allclose(found, jr.nearest_optimal(optima, along), atol=1e-9)
    with pytest.raises(TypeError, match="of gated networks: pass a GatedNetwork"):
        jr.is_optimal(optima, jr.Network(member.hidden, member.output))
    own = np.asarray(optima.direction_of)
    weights = (np.asarray(optima.interior)[:, None] * np.asarray(optima.directions))[own]
    assert jr.is_optimal(optima, weights)
    assert not jr.is_optimal(optima, weights[[1, 0, 2]])


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


@pytest.mark.slow
def test_a_loss_that_is_linear_at_the_fit_is_not_decided():
    problem = zoo.problem(zoo.huber)
    program, lam = problem.program, problem.lams(0.3)[0]
    optima = jr.optimal_set(program, jr.solve(program, lam))
    assert np.any(np.abs(np.asarray(program.y) - optima.fit) > program.loss.delta)
    assert optima.ambiguous


def test_a_coefficient_near_rounding_is_not_decided():
    program = zoo.tiny(np.eye(2), [3.0, -1.0])
    lam = 1.0 - 3e-7  # the second neuron was born at one
    assert jr.optimal_set(program, jr.solve(program, lam, rtol=1e-14, atol=0.0)).ambiguous
    assert not jr.optimal_set(program, jr.solve(program, 0.5)).ambiguous


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


def test_coefficients_below_zero_are_refused():
    program = zoo.tiny([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0])
    optima = jr.optimal_set(program, jr.solve(program, 0.5))
    with pytest.raises(ValueError, match="nearest_optimal"):
        jr.network_from_coefficients(optima, -np.ones(optima.signs.shape))
