"""What a change of the data must do to the answer, and answers that are known in closed form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr

GENERIC = zoo.problem(zoo.generic)
PROGRAM = GENERIC.program
X, Y, PATTERNS = PROGRAM.X, PROGRAM.y, PROGRAM.patterns
LAM = GENERIC.lams(0.1)[0]
VALUE = 3e-6  # of two values that are each certified to 1e-6


def answer(program, lam=LAM, **options):
    """A rechecked solution."""
    solution = jr.solve(program, lam, **options)
    zoo.recheck(program, lam, solution, rtol=options.get("rtol", 1e-6))
    return solution


@pytest.fixture(scope="module")
def base():
    return answer(PROGRAM, rtol=1e-10)


def value(solution):
    return float(solution.certificate.upper)


def assert_weights(given, expected, size=1e-4):
    """The two are near; one certified to 1e-10 is within 1e-5 of the unique optimum."""
    assert np.abs(np.asarray(given) - expected).max() <= size * np.abs(expected).max()


def test_permuted_samples(base):
    order = np.random.default_rng(0).permutation(zoo.SAMPLES)
    permuted = replace(
        PROGRAM, X=X[order], y=Y[order], patterns=replace(PATTERNS, masks=PATTERNS.masks[order])
    )
    other = answer(permuted, rtol=1e-10)
    np.testing.assert_allclose(value(other), value(base), rtol=1e-9)
    assert_weights(other.fit, np.asarray(base.fit)[order])
    assert_weights(other.weights, np.asarray(base.weights))


def test_permuted_patterns(base):
    order = np.random.default_rng(1).permutation(zoo.PATTERNS)
    permuted = replace(PROGRAM, patterns=jax.tree.map(lambda a: a[:, order], PATTERNS))
    other = answer(permuted, rtol=1e-10)
    np.testing.assert_allclose(value(other), value(base), rtol=1e-9)
    assert_weights(other.weights, np.asarray(base.weights)[:, order])


def test_a_duplicate_pattern_changes_no_value():
    # Fifteen patterns and a copy of one that is used, against the fifteen alone.
    used = int(np.argmax(np.linalg.norm(jr.solve(PROGRAM, LAM).weights[0], axis=-1)))
    index = [used, *[j for j in range(15) if j != used], used][:16]
    doubled = replace(PROGRAM, patterns=jax.tree.map(lambda a: a[:, np.asarray(index)], PATTERNS))
    solution = answer(doubled)
    single = replace(
        PROGRAM, patterns=jax.tree.map(lambda a: a[:, np.asarray(index[:15])], PATTERNS)
    )
    merged = np.array(solution.weights)
    merged[:, 0] += merged[:, 15]
    merged = replace(solution, weights=jnp.asarray(merged[:, :15]))
    lower, upper = zoo.bounds(single, LAM, merged)
    assert upper <= value(solution) * (1 + 1e-12)
    assert upper - lower <= 2e-6 * upper


def test_negated_targets_swap_the_signs(base):
    other = answer(replace(PROGRAM, y=-Y), rtol=1e-10)
    np.testing.assert_allclose(value(other), value(base), rtol=1e-9)
    assert_weights(other.fit, -np.asarray(base.fit))
    assert_weights(other.weights, np.asarray(base.weights)[::-1])


def test_rotated_features(base):
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))[0]
    rotated = jr.Patterns(
        rotation.T @ PATTERNS.gates, PATTERNS.masks, rotation.T @ PATTERNS.interior
    )
    other = answer(replace(PROGRAM, X=X @ rotation, patterns=rotated), rtol=1e-10)
    np.testing.assert_allclose(value(other), value(base), rtol=1e-9)
    assert_weights(other.weights, np.asarray(base.weights) @ rotation)


@pytest.mark.parametrize("scale", [1e6, 1e-6, 2.0**20])
def test_scaled_features_change_units_alone(base, scale):
    other = answer(replace(PROGRAM, X=scale * X), scale * LAM, rtol=1e-10)
    np.testing.assert_allclose(value(other), value(base), rtol=1e-9)
    assert_weights(scale * np.asarray(other.weights), np.asarray(base.weights))
    if scale == 2.0**20:  # exact arithmetic: not a digit may change
        np.testing.assert_array_equal(other.fit, base.fit)
        assert int(other.num_steps) == int(base.num_steps)


@pytest.mark.parametrize("scale", [1e6, 1e-6, 2.0**20])
def test_scaled_targets_scale_the_value_by_the_square(base, scale):
    other = answer(replace(PROGRAM, y=scale * Y), scale * LAM, rtol=1e-10)
    np.testing.assert_allclose(value(other), scale**2 * value(base), rtol=1e-9)
    assert_weights(np.asarray(other.weights) / scale, np.asarray(base.weights))


def test_scaled_sample_weights_scale_the_value(base):
    other = answer(replace(PROGRAM, sample_weight=np.full(32, 3.0)), 3 * LAM, rtol=1e-10)
    np.testing.assert_allclose(value(other), 3 * value(base), rtol=1e-9)
    assert_weights(other.weights, np.asarray(base.weights))


def test_a_sample_of_weight_two_is_the_sample_twice():
    rows = np.concatenate([np.arange(16), np.arange(16)])
    twice = replace(
        PROGRAM, X=X[rows], y=Y[rows], patterns=replace(PATTERNS, masks=PATTERNS.masks[rows])
    )
    weight = np.repeat([2.0, 0.0], 16)
    np.testing.assert_allclose(
        value(answer(twice)), value(answer(replace(twice, sample_weight=weight))), rtol=VALUE
    )


def test_more_patterns_cost_no_more():
    few = jax.tree.map(lambda a: a[:, np.arange(16) % 8], PATTERNS)
    assert value(answer(PROGRAM)) <= value(answer(replace(PROGRAM, patterns=few))) * (1 + VALUE)


def everywhere(data):
    """Sixteen copies of the gate that is open on all of a non-negative matrix."""
    gate = np.ones((zoo.FEATURES, 1)) / np.sqrt(zoo.FEATURES)
    return zoo.tiled(jr.Patterns(gate, np.ones((len(data), 1), bool), gate))


@pytest.mark.parametrize("gated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_open_gate_is_one_group(gated):
    # min 1/2 ||X u - y||^2 + lam ||u||: u = (X^T X + t I)^-1 X^T y with t ||u|| = lam, a scalar
    # root. It lies inside the cone, so that the ReLU program has the same answer.
    positive = np.abs(X)
    y = positive @ np.asarray([1.0, 2.0, 1.5, 3.0, 1.0]) + 0.1 * Y
    lam = 0.05 * np.linalg.norm(positive.T @ y)
    low, high = 1e-9, 1e9
    for _ in range(200):
        t = np.sqrt(low * high)
        u = np.linalg.solve(positive.T @ positive + t * np.eye(5), positive.T @ y)
        low, high = (t, high) if t * np.linalg.norm(u) < lam else (low, t)
    assert np.all(positive @ u > 0)
    expected = 0.5 * np.sum((positive @ u - y) ** 2) + lam * np.linalg.norm(u)
    program = zoo.program(positive, y, everywhere(positive), gated=gated)
    solution = answer(program, lam, rtol=1e-10)
    np.testing.assert_allclose(value(solution), expected, rtol=1e-9)
    blocks = np.asarray(solution.weights)
    assert_weights(blocks.sum(axis=0) if gated else blocks[0].sum(axis=0), u)
    if not gated:
        assert np.abs(blocks[1]).max() <= 1e-4 * np.abs(u).max()


@pytest.mark.slow
def test_inactive_cones_are_the_gated_program():
    # Two half-spaces that the data respect: rows with first entry +-3, neurons near +-e_1.
    data = np.array(X)
    data[:, 0] = np.where(np.arange(32) % 2, 8.0, -8.0)
    gate = np.eye(5)[:, :1]
    two = zoo.tiled(jr.patterns_from_gates(data, np.concatenate([gate, -gate], axis=1)))
    assert len(np.unique(np.asarray(two.masks), axis=1).T) == 2
    neurons = np.random.default_rng(3).standard_normal((5, 2)) * 0.2 + np.eye(5)[:, :1] * [[1, -1]]
    y = np.maximum(data @ neurons, 0.0).sum(axis=1)
    relu, gated = zoo.program(data, y, two), zoo.program(data, y, two, gated=True)
    lam = 0.02 * np.linalg.norm(data.T @ y)
    one, other = answer(relu, lam, rtol=1e-10), answer(gated, lam, rtol=1e-10)
    np.testing.assert_allclose(value(one), value(other), rtol=1e-9)
    np.testing.assert_allclose(one.fit, other.fit, atol=1e-3)
    slack = np.sign(data[:, 0]) * (data @ np.asarray(one.weights)[0].sum(axis=0))
    assert np.abs(slack).min() > 1e-3  # no wall is touched


def soft(z, threshold):
    return np.sign(z) * max(abs(z) - threshold, 0.0)


def test_one_feature_is_the_lasso():
    # relu(x) and relu(-x) have disjoint supports: two soft thresholds.
    x, y = X[:, :1], Y
    patterns = jr.enumerate_patterns(x)
    program = zoo.program(*zoo.padded(x, y, patterns))
    positive, negative = np.maximum(x[:, 0], 0.0), np.maximum(-x[:, 0], 0.0)
    for lam in (0.5, 3.0, 20.0):
        coefficients = [soft(f @ y, lam) / (f @ f) for f in (positive, negative)]
        fit = coefficients[0] * positive + coefficients[1] * negative
        expected = 0.5 * np.sum((fit - y) ** 2) + lam * np.abs(coefficients).sum()
        solution = answer(program, lam, rtol=1e-10)
        np.testing.assert_allclose(value(solution), expected, rtol=1e-9)
        np.testing.assert_allclose(solution.fit, fit, atol=1e-4)


def known(data, y, lam, loss=None, rtol=1e-9):
    """The value of a tiny problem with all its patterns, padded to the common shape."""
    data, y = np.asarray(data, float), np.asarray(y, float)
    patterns = jr.enumerate_patterns(data)
    return value(answer(zoo.program(*zoo.padded(data, y, patterns), loss), lam, rtol=rtol))


@pytest.mark.slow
def test_two_rows_at_120_degrees():
    rows = [[1.0, 0.0], [-0.5, np.sqrt(0.75)]]
    np.testing.assert_allclose(known(rows, [2.0, 2.0], 0.5), 1.75, rtol=1e-8)
    np.testing.assert_allclose(known(rows, [3.0, 3.0], 1.0), 5.0, rtol=1e-8)


@pytest.mark.parametrize(
    "cosine", [-0.5, *(pytest.param(c, marks=pytest.mark.slow) for c in (-0.9, 0.0, 0.6))]
)
def test_two_unit_rows(cosine):
    target, lam = 2.0, 0.5
    kappa = np.sqrt(2 * (1 + cosine))
    rows = [[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]]
    if cosine <= -0.5:
        expected = 2 * lam * target - lam**2
    else:
        expected = lam**2 / kappa**2 + lam * (target * kappa - lam) / (1 + cosine)
    found = known(rows, [target, target], lam, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    # lambda_max is target * max(1, kappa).
    data, y, patterns = zoo.padded(
        np.asarray(rows), np.full(2, target), jr.enumerate_patterns(np.asarray(rows))
    )
    largest = float(jr.lambda_max(zoo.program(data, y, patterns)))
    np.testing.assert_allclose(largest, target * max(1.0, kappa), rtol=1e-12)


def test_whitened_rows():
    # f = (1 - lam/||y+||)_+ y+ - (1 - lam/||y-||)_+ y-, each part soft-thresholded by itself.
    rotation = np.linalg.qr(np.random.default_rng(4).standard_normal((5, 5)))[0]
    y = np.asarray([1.0, 2.0, 0.5, -1.0, -0.3])
    sizes = np.linalg.norm(np.maximum(y, 0)), np.linalg.norm(np.maximum(-y, 0))
    for lam in (0.3, 1.5):
        expected = sum(0.5 * min(s, lam) ** 2 + lam * max(s - lam, 0.0) for s in sizes)
        np.testing.assert_allclose(known(rotation, y, lam), expected, rtol=1e-8)


def test_identity_matrix_measures_both_signs():
    # R(f) = ||f+|| + ||f-||, so the penalty at the fit is that.
    y = np.asarray([2.0, -1.0, 1.0, -2.0, 0.0])
    data, y, patterns = zoo.padded(np.eye(5), y, jr.enumerate_patterns(np.eye(5)))
    solution = answer(zoo.program(data, y, patterns), 0.4, rtol=1e-10)
    fit = np.asarray(solution.fit)
    penalty = (value(solution) - 0.5 * np.sum((fit - y) ** 2)) / 0.4
    expected = np.linalg.norm(np.maximum(fit, 0)) + np.linalg.norm(np.maximum(-fit, 0))
    np.testing.assert_allclose(penalty, expected, rtol=1e-8)


@pytest.mark.slow
def test_whitened_rows_with_the_logistic_loss():
    y = np.asarray([1.0, 1.0, 1.0, -1.0, -1.0])
    data, _, patterns = zoo.padded(np.eye(5), y, jr.enumerate_patterns(np.eye(5)))
    # Padding needs labels: of weight zero.
    labels, weight = np.concatenate([y, np.ones(27)]), np.repeat([1.0, 0.0], [5, 27])
    program = zoo.program(data, labels, patterns, jr.LogisticLoss(), weight)
    solution = answer(program, 0.3, rtol=1e-9)
    np.testing.assert_allclose(value(solution), 2.41633175, rtol=1e-8)


def test_antipodal_rows():
    # X = [1; -1]: two lassos, sum of lam y - lam^2 / 2.
    np.testing.assert_allclose(known([[1.0], [-1.0]], [1.0, 2.0], 0.1), 0.29, rtol=1e-8)
