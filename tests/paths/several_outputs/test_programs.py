"""Programs of several outputs: certified, in order, and what they are in special cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxrelu as jr
from jaxrelu import closed_form

RNG = np.random.default_rng(5)
X = RNG.standard_normal((8, 2))
Y = RNG.standard_normal((8, 3))
LABELS = np.argmax(Y, axis=1)
PATTERNS = jr.enumerate_patterns(X)
LOSSES = {"squared": (Y, jr.SquaredLoss()), "multinomial": (LABELS, jr.MultinomialLoss())}
KINDS = ("gated", "exact", "one_vs_all")


def program(kind="gated", name="squared", X=X, patterns=PATTERNS, **given):
    target, loss = LOSSES[name]
    return jr.VectorProgram(X, target, patterns, kind, loss, **given)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["gated", "exact"])
def test_answers_are_certified_and_are_networks(kind, name):
    at = program(kind, name)
    lam = 0.2 * float(jr.lambda_max(at))
    answer = jr.solve(at, lam, rtol=1e-8)
    jr.raise_if_failed(answer)
    assert 0 <= answer.gap <= 1e-8 * answer.upper + 1e-12
    network = jr.to_network(at, answer)
    np.testing.assert_allclose(network(X), answer.fit, atol=1e-10)
    target = np.eye(3)[LABELS] if name == "multinomial" else Y
    value = jr.nonconvex_objective(network, X, target, lam, LOSSES[name][1])
    np.testing.assert_allclose(value, answer.upper, rtol=1e-9)
    again = jr.certify(at, lam, answer.weights)
    assert again.lower <= answer.upper
    assert again.upper >= answer.lower
    np.testing.assert_allclose(again.upper, answer.upper, rtol=1e-9)
    violations = jr.kkt_residual(at, lam, answer.weights)
    assert all(float(v) < 1e-3 for v in violations)


def test_the_programs_are_in_order():
    lam = 0.5
    gated, exact, apart = (jr.solve(program(kind), lam, rtol=1e-8) for kind in KINDS)
    for answer in (gated, exact, apart):
        jr.raise_if_failed(answer)
    assert gated.upper < exact.lower
    assert exact.upper < apart.lower


def trained(X, Y, lam, loss, starts, width, seed=0):
    """The lowest objective of networks trained from many starts."""
    shape_u, shape_v = (X.shape[1], width), (width, Y.shape[1])
    size = int(np.prod(shape_u))

    def value(flat):
        network = jr.Network(flat[:size].reshape(shape_u), flat[size:].reshape(shape_v))
        return jr.nonconvex_objective(network, X, Y, lam, loss)

    both = jax.jit(jax.value_and_grad(value))

    def numbers(flat):
        found, slope = both(jnp.asarray(flat))
        return float(found), np.asarray(slope, np.float64)

    rng, best = np.random.default_rng(seed), np.inf
    for _ in range(starts):
        start = rng.standard_normal(size + int(np.prod(shape_v)))
        options = {"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-10}
        best = min(best, scipy.optimize.minimize(
            numbers, start, jac=True, method="L-BFGS-B", options=options
        ).fun)  # fmt: skip
    return best


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("n", "d", "c", "seed"), [(5, 2, 2, 0), (6, 2, 3, 1), (5, 3, 2, 2)])
def test_no_training_is_better_and_the_best_is_as_good(n, d, c, seed, name):
    rng = np.random.default_rng(seed)
    data, target = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    loss = LOSSES[name][1]
    if name == "multinomial":
        target = np.eye(c)[np.argmax(target, axis=1)]
    at = jr.VectorProgram(data, target, jr.enumerate_patterns(data), loss=loss)
    answer = jr.solve(at, 0.3, rtol=1e-8)
    jr.raise_if_failed(answer)
    best = trained(data, target, 0.3, loss, 60, 12)
    assert best >= answer.lower
    # Training ends a little short.
    np.testing.assert_allclose(best, answer.upper, rtol=1e-4)


def test_one_output_is_the_program_of_one_output():
    at = jr.VectorProgram(X, Y[:, :1], PATTERNS)
    one = jr.ConvexProgram(X, Y[:, 0], PATTERNS)
    np.testing.assert_allclose(jr.lambda_max(at), jr.lambda_max(one), rtol=1e-6)
    lam = 0.1 * float(jr.lambda_max(one))
    answer, expected = jr.solve(at, lam, rtol=1e-10), jr.solve(one, lam, rtol=1e-10)
    jr.raise_if_failed(answer)
    np.testing.assert_allclose(answer.upper, expected.upper, rtol=1e-9)
    gated = jr.solve(jr.VectorProgram(X, Y[:, :1], PATTERNS, "gated"), lam, rtol=1e-10)
    expected = jr.solve(jr.GatedProgram(X, Y[:, 0], PATTERNS), lam, rtol=1e-10)
    np.testing.assert_allclose(gated.upper, expected.upper, rtol=1e-9)


@pytest.mark.slow
def test_beyond_rank_three_one_output_closes_too():
    data = RNG.standard_normal((20, 5))
    patterns = jr.sample_patterns(jax.random.key(0), data, 10)
    y = data[:, 0] + np.abs(data[:, 1])
    one = jr.ConvexProgram(data, y, patterns)
    lam = 0.2 * float(jr.lambda_max(one))
    answer = jr.solve(jr.VectorProgram(data, y[:, None], patterns), lam, rtol=1e-7)
    jr.raise_if_failed(answer)
    np.testing.assert_allclose(answer.upper, jr.solve(one, lam, rtol=1e-8).upper, rtol=2e-7)


@pytest.mark.slow
def test_a_gap_that_does_not_close_is_not_optimal():
    data = np.random.default_rng(1).standard_normal((30, 5))
    target = data @ RNG.standard_normal((5, 3))
    patterns = jr.sample_patterns(jax.random.key(0), data, 6)
    at = jr.VectorProgram(data, target, patterns)
    answer = jr.solve(at, 2.0, rtol=1e-12, max_steps=3)
    assert int(answer.status) in (jr.Status.MAX_STEPS, jr.Status.STALLED)
    gated = jr.solve(jr.VectorProgram(data, target, patterns, "gated"), 2.0)
    assert answer.lower <= answer.upper
    assert gated.lower <= answer.upper


@pytest.mark.slow
def test_whitened_classes_have_their_closed_form():
    data = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    target = np.eye(2)[[0, 0, 0, 0, 1, 1]]
    expected = closed_form.soft_thresholded_svd(data, target, 0.5)
    gates = data.T @ np.stack([target[:, 0], target[:, 1]]).T
    patterns = jr.patterns_from_gates(data, gates + 1e-3 * RNG.standard_normal(gates.shape))
    for kind in ("gated", "exact"):
        answer = jr.solve(jr.VectorProgram(data, target, patterns, kind), 0.5)
        # Over cells that hold both neurons on their walls; no program has less.
        assert answer.upper >= expected.value - 1e-6
    value = np.sum([2.0 - 0.5 * 1.5**2, 1.0 - 0.5 * (2**0.5 - 0.5) ** 2])
    np.testing.assert_allclose(expected.value, value)


def group_lasso(features, target, lam, steps=20_000):
    """Rows of weights under l2 norms by accelerated proximal gradients, in NumPy."""
    step = 1.0 / np.linalg.norm(features, 2) ** 2
    w = z = np.zeros((features.shape[1], target.shape[1]))
    t = 1.0
    for _ in range(steps):
        point = z - step * features.T @ (features @ z - target)
        size = np.linalg.norm(point, axis=1, keepdims=True)
        new = point * np.maximum(1 - step * lam / np.maximum(size, 1e-300), 0)
        if np.sum((z - new) * (new - w)) > 0:
            t = 1.0
        after = (1 + np.sqrt(1 + 4 * t * t)) / 2
        z, w, t = new + (t - 1) / after * (new - w), new, after
    return 0.5 * np.sum((features @ w - target) ** 2) + lam * np.sum(np.linalg.norm(w, axis=1))


def test_gates_of_one_column_are_a_group_lasso():
    """With one feature nuclear norms are norms of rows."""
    rng = np.random.default_rng(2)
    column = rng.standard_normal((12, 1))
    masks = np.eye(12, dtype=bool)[:, :6] | (rng.random((12, 6)) < 0.4)
    patterns = jr.Patterns(np.ones((1, 6)), masks)
    target = rng.standard_normal((12, 3))
    # Masks of gates are theirs to the bit, and these are of none: to be refused.
    with pytest.raises(ValueError, match="masks"):
        jr.solve(jr.VectorProgram(column, target, patterns, "gated"), 0.3)
    real = jr.enumerate_patterns(column)
    at = jr.VectorProgram(column, target, real, "gated")
    answer = jr.solve(at, 0.3, rtol=1e-10)
    features = np.asarray(real.masks) * column
    np.testing.assert_allclose(answer.upper, group_lasso(features, target, 0.3), rtol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_lambda_max_is_where_weights_leave_zero(name):
    for kind in ("gated", "exact"):
        at = program(kind, name)
        top = float(jr.lambda_max(at))
        assert not np.any(jr.solve(at, 1.0001 * top).fit)
        assert np.any(jr.solve(at, 0.99 * top).fit)


def test_one_against_all_is_a_program_a_column():
    at, lam = program("one_vs_all"), 0.5
    answer = jr.solve(at, lam)
    jr.raise_if_failed(answer)
    each = [jr.solve(jr.ConvexProgram(X, Y[:, k], PATTERNS), lam) for k in range(3)]
    np.testing.assert_allclose(answer.upper, sum(float(e.upper) for e in each), rtol=1e-9)
    np.testing.assert_array_equal(answer.weights, np.stack([e.weights for e in each], axis=-1))
    tops = [float(jr.lambda_max(jr.ConvexProgram(X, Y[:, k], PATTERNS))) for k in range(3)]
    np.testing.assert_allclose(jr.lambda_max(at), max(tops))
    network = jr.to_network(at, answer)
    assert np.all(np.sum(np.asarray(network.output) != 0, axis=1) <= 1)
    np.testing.assert_allclose(network(X), answer.fit, atol=1e-10)
    proof = jr.certify(at, lam, answer.weights)
    assert proof.lower <= answer.upper <= proof.upper * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_paths_hold_answers_in_the_order_of_lams(kind):
    at = program(kind)
    lams = np.asarray([0.3, 1.0, 0.6])
    path = jr.solve_path(at, lams)
    jr.raise_if_failed(path)
    assert len(path) == 3
    assert np.all(np.diff(np.asarray(path.upper)[[0, 2, 1]]) > 0)
    for k in (0, -1):
        alone = jr.solve(at, lams[k])
        np.testing.assert_allclose(path[k].upper, alone.upper, rtol=2e-6)
        np.testing.assert_allclose(path[k].lam, lams[k])
    grid = jr.lambda_grid(at, num=3, ratio=0.1)
    np.testing.assert_allclose(grid[0], jr.lambda_max(at))
    with pytest.raises(IndexError, match="3 lams"):
        path[3]


@pytest.mark.slow
def test_one_against_all_takes_losses_with_kinks():
    at = jr.VectorProgram(X, LABELS, PATTERNS, "one_vs_all", jr.HingeLoss())
    lam = 0.2 * float(jr.lambda_max(at))
    answer = jr.solve(at, lam)
    jr.raise_if_failed(answer)
    proof = jr.certify(at, lam, answer.weights, residual=answer.residual)
    assert proof.lower <= answer.upper <= proof.upper * (1 + 1e-9)
    with pytest.raises(ValueError, match="kink of HingeLoss"):
        jr.kkt_residual(at, lam, answer.weights)


def test_labels_are_rows_of_the_identity():
    rows = jr.VectorProgram(X, np.eye(3)[LABELS], PATTERNS, "gated", jr.MultinomialLoss())
    expected = jr.solve(rows, 0.2)
    for labels in (LABELS, LABELS.astype(float), jnp.asarray(LABELS)):
        at = jr.VectorProgram(X, labels, PATTERNS, "gated", jr.MultinomialLoss())
        assert at.num_outputs == 3
        np.testing.assert_array_equal(jr.solve(at, 0.2).weights, expected.weights)
    more = jr.VectorProgram(X, LABELS, PATTERNS, "gated", jr.MultinomialLoss(), num_classes=5)
    assert jr.solve(more, 0.2).fit.shape == (8, 5)
    signs = jr.VectorProgram(X, LABELS, PATTERNS, "gated", jr.LogisticLoss())
    plus_minus = jr.VectorProgram(
        X, 2 * np.eye(3)[LABELS] - 1, PATTERNS, "gated", jr.LogisticLoss()
    )
    np.testing.assert_array_equal(jr.solve(signs, 0.2).fit, jr.solve(plus_minus, 0.2).fit)


def test_gated_programs_trace():
    at = program("gated")
    lams = jnp.asarray([0.4, 0.8])
    many = jax.jit(jax.vmap(lambda lam: jr.solve(at, lam)))(lams)
    for k, lam in enumerate(lams):
        alone = jr.solve(at, lam)
        assert int(many.status[k]) == jr.Status.OPTIMAL
        np.testing.assert_allclose(many.upper[k], alone.upper, rtol=2e-6)
    passed = jax.jit(lambda p, lam: jr.solve(p, lam).upper)(at, lams[0])
    np.testing.assert_allclose(passed, many.upper[0], rtol=2e-6)
    assert np.isnan(jax.grad(lambda lam: jr.solve(at, lam).upper)(lams[0]))
    np.testing.assert_allclose(jax.jit(jr.lambda_max)(at), jr.lambda_max(at))


@pytest.mark.slow
def test_one_against_all_traces():
    at = program("one_vs_all")
    traced = jax.jit(lambda lam: jr.solve(at, lam))(0.5)
    np.testing.assert_allclose(traced.upper, jr.solve(at, 0.5).upper, rtol=2e-6)


def test_exact_programs_do_not_trace():
    with pytest.raises(TypeError, match="driven from the host"):
        jax.jit(lambda lam: jr.solve(program("exact"), lam).upper)(0.5)


@pytest.mark.parametrize("kind", ["gated", "exact"])
@pytest.mark.parametrize("name", ["squared", pytest.param("multinomial", marks=pytest.mark.slow)])
def test_float32_is_certified(kind, name):
    target, loss = LOSSES[name]
    data = X.astype(np.float32)
    target = target.astype(np.float32) if name == "squared" else target
    at = jr.VectorProgram(data, target, jr.enumerate_patterns(data), kind, loss)
    answer = jr.solve(at, np.float32(0.4))
    jr.raise_if_failed(answer)
    assert answer.fit.dtype == np.float32
    exact = jr.solve(program(kind, name), 0.4)
    # Of data that were rounded.
    assert float(answer.lower) <= float(exact.upper) * (1 + 1e-6)
    assert float(answer.upper) >= float(exact.lower) * (1 - 1e-6)


@pytest.mark.parametrize("kind", ["gated", "exact"])
def test_units_and_weights(kind):
    """Targets of any size, and a sample of weight two that is there twice."""
    at, lam = program(kind), 0.5
    base = jr.solve(at, lam, rtol=1e-8)
    large = jr.VectorProgram(X * 2.0**20, Y * 2.0**-300, PATTERNS, kind)
    scaled = jr.solve(large, lam * 2.0**-280, rtol=1e-8)
    np.testing.assert_array_equal(scaled.upper * 2.0**600, base.upper)
    twice = np.concatenate([X, X[:1]]), np.concatenate([Y, Y[:1]])
    repeated = jr.VectorProgram(*twice, jr.enumerate_patterns(twice[0]), kind)
    weight = np.asarray([2.0, *np.ones(7)])
    weighted = jr.VectorProgram(X, Y, PATTERNS, kind, sample_weight=weight)
    np.testing.assert_allclose(
        jr.solve(repeated, lam, rtol=1e-8).upper, jr.solve(weighted, lam, rtol=1e-8).upper,
        rtol=1e-7,
    )  # fmt: skip
    absent = np.where(np.arange(8) == 0, 0.0, 1.0)
    gone = jr.VectorProgram(X, np.where(absent[:, None] > 0, Y, 1e3), PATTERNS, kind,
                            sample_weight=absent)  # fmt: skip
    jr.raise_if_failed(jr.solve(gone, lam))


@pytest.mark.slow
def test_more_features_than_samples():
    data = np.random.default_rng(3).standard_normal((5, 9))
    patterns = jr.sample_patterns(jax.random.key(0), data, 6)
    for kind in ("gated", "exact"):
        answer = jr.solve(jr.VectorProgram(data, Y[:5], patterns, kind), 1.0)
        assert answer.lower <= answer.upper
        if kind == "gated":
            jr.raise_if_failed(answer)


def test_each_status_is_reached():
    at = program("gated")
    assert int(jr.solve(at, 0.1, rtol=1e-9, max_steps=1).status) == jr.Status.MAX_STEPS
    assert int(jr.solve(at, 0.1, rtol=0.0, atol=0.0).status) in (
        jr.Status.PRECISION_FLOOR, jr.Status.STALLED,
    )  # fmt: skip
    hole = np.where(np.arange(8)[:, None] == 0, np.nan, Y)
    for kind in ("gated", "exact"):
        broken = jr.VectorProgram(X, hole, PATTERNS, kind)
        assert int(jr.solve(broken, 0.5).status) == jr.Status.NONFINITE
    invalid = jax.jit(lambda lam: jr.solve(at, lam).status)(-1.0)
    assert int(invalid) == jr.Status.INVALID


@pytest.mark.parametrize("kind", ["gated", "exact"])
def test_a_start_is_taken(kind):
    at = program(kind)
    near = jr.solve(at, 0.42)
    cold, warm = jr.solve(at, 0.4), jr.solve(at, 0.4, init=near)
    jr.raise_if_failed(warm)
    np.testing.assert_allclose(warm.upper, cold.upper, rtol=2e-6)
    still = jr.solve(at, 0.42, init=near, max_steps=0)
    np.testing.assert_allclose(still.upper, near.upper, rtol=1e-9)
    same = jr.solve(at, 0.42, init=near)
    assert int(same.num_steps) <= int(near.num_steps)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"kind": "copositive"},
            "kind is 'copositive'; pass one of 'exact', 'gated', 'one_vs_all'",
        ),
        ({"Y": Y[:5]}, r"Y has shape \(5, 3\)"),
        ({"Y": np.asarray([0, 1, 2, 0, 1, 2, 0, -1])}, "label -1"),
        ({"Y": np.asarray([0, 1, 2, 0, 1, 2, 0, 0.5])}, "label 0.5"),
        ({"Y": LABELS, "num_classes": 2}, "label 2"),
        ({"num_classes": 4}, "leave num_classes out"),
        ({"kind": "one_vs_all", "Y": LABELS, "loss": jr.MultinomialLoss()}, "takes them together"),
        ({"loss": jr.HingeLoss(), "Y": np.sign(Y)}, "at a kink of HingeLoss"),
        ({"sample_weight": -np.ones(8)}, "negative"),
        ({"X": X[:, 0]}, "X has shape"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, message):
    named = {"X": X, "Y": Y, "patterns": PATTERNS, "kind": "gated"} | given
    with pytest.raises((TypeError, ValueError), match=message):
        jr.solve(jr.VectorProgram(**named), 0.5)


def test_what_programs_of_several_outputs_do_not_know_is_refused():
    at = program("gated")
    for call, message in (
        (lambda: jr.solve(at, 0.5, solver=jr.ADMM()), "solver is given"),
        (lambda: jr.solve_path(at, [0.5], max_active=3), "max_active is given"),
        (lambda: jr.certify(at, 0.5, np.zeros((16, 2, 3)), multipliers=True), "multipliers"),
        (lambda: jr.certify(at, 0.5, np.zeros((16, 2))), r"weights has shape \(16, 2\)"),
        (lambda: jr.solve_path(program("one_vs_all"), [0.5], init=3), "init is 3"),
        (lambda: jr.optimal_set(at, None), "program is of type VectorProgram"),
        (lambda: jr.solve_grid(at, [0.5]), "program is of type VectorProgram"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    traced = jax.jit(
        lambda labels: (
            jr.solve(
                jr.VectorProgram(X, labels, PATTERNS, "gated", jr.MultinomialLoss()), 0.5
            ).upper
        )
    )
    with pytest.raises(ValueError, match="pass num_classes"):
        traced(jnp.asarray(LABELS))
