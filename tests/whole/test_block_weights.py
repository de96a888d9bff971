"""A weight for every block, blocks that are not there or not penalised, and the skip connection."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo

import jaxrelu as jr
from jaxrelu.core.numerics import weighted

LOSSES = {
    "squared": jr.SquaredLoss(),
    "logistic": jr.LogisticLoss(),
    "huber": jr.HuberLoss(jnp.asarray(reference.HUBER_DELTA)),
    "squared_hinge": jr.SquaredHingeLoss(),
    "poisson": jr.PoissonLoss(),
}
KINDS = ["cones", "gated"]
BOTH = pytest.mark.parametrize("kind", KINDS)
# Most of the time is the compiler's: of what both kinds share, one is quick.
MOSTLY_GATED = pytest.mark.parametrize(
    "kind", [pytest.param("cones", marks=pytest.mark.slow), "gated"]
)
MOSTLY_CONES = pytest.mark.parametrize(
    "kind", ["cones", pytest.param("gated", marks=pytest.mark.slow)]
)
ALL_SLOW = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)


def data(loss="squared", seed=31):
    X, y = zoo.counts(seed) if loss == "poisson" else zoo.data(seed)
    if loss in ("logistic", "squared_hinge"):
        noise = np.random.default_rng(seed).standard_normal(len(y))
        y = np.where(y + 2 * noise >= 0, 1.0, -1.0)
    return X, y


def program(kind="cones", loss="squared", block_weights=None, skip=False, seed=31):
    X, y = data(loss, seed)
    made = zoo.program(X, y, loss=LOSSES[loss], gated=kind == "gated", block_weights=block_weights)
    return replace(made, skip=skip)


def unequal(kind, zeros=(), seed=32):
    shape = (zoo.PATTERNS,) if kind == "gated" else (2, zoo.PATTERNS)
    weights = zoo.unequal_weights(shape, seed)
    weights.flat[list(zeros)] = 0.0
    return weights


def fraction(made, share=0.1):
    return share * float(jr.lambda_max(made))


def clarabel(made, lam):
    return reference.solve_with_clarabel(
        made.X, made.y, made.patterns.masks, lam, zoo.loss_name(made), zoo.is_gated(made),
        made.sample_weight, made.block_weights, made.skip,
    )[0]  # fmt: skip


def check(made, lam, rtol=1e-6):
    """An answer, certified, on both sides of what Clarabel finds."""
    answer = jr.solve(made, lam)
    assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
    assert answer.gap <= rtol * answer.upper
    value = clarabel(made, lam)
    exponential = isinstance(made.loss, jr.LogisticLoss | jr.PoissonLoss)
    off = (2e-6 if exponential else 2e-7) * value
    assert answer.lower - off <= value <= answer.upper + off
    at = jr.objective(made, lam, answer.weights, skip=answer.skip)
    np.testing.assert_allclose(at, answer.upper, rtol=1e-10)
    np.testing.assert_allclose(jr.to_network(made, answer)(made.X), answer.fit, atol=1e-10)
    return answer


@ALL_SLOW
def test_weights_of_one_change_nothing(kind):
    made = program(kind)
    ones = replace(made, block_weights=np.ones(made.block_shape))
    lams = jr.lambda_grid(made, 4, 0.05)
    np.testing.assert_allclose(jr.lambda_grid(ones, 4, 0.05), lams, rtol=1e-12)
    one, other = jr.solve_path(made, lams), jr.solve_path(ones, lams)
    np.testing.assert_allclose(one.upper, other.upper, rtol=1e-12)
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-12)


@MOSTLY_GATED
@pytest.mark.parametrize(
    "loss",
    ["squared", *(pytest.param(name, marks=pytest.mark.slow) for name in list(LOSSES)[1:])],
)
def test_unequal_and_infinite_weights_against_an_independent_solver(kind, loss):
    made = program(kind, loss, unequal(kind))
    answer = check(made, fraction(made))
    absent = np.isinf(made.block_weights)
    assert not np.asarray(answer.weights)[absent].any()
    assert jr.kkt_residual(made, answer.lam, answer.weights).dual_feasibility < 5e-3


@MOSTLY_GATED
@pytest.mark.parametrize(
    "loss",
    ["squared", *(pytest.param(name, marks=pytest.mark.slow) for name in list(LOSSES)[1:])],
)
def test_blocks_without_a_penalty_against_an_independent_solver(kind, loss):
    # Two such gates separate the labels.
    labels = loss in ("logistic", "squared_hinge")
    made = program(kind, loss, unequal(kind, zeros=[1] if labels else [1, 3]))
    answer = check(made, fraction(made))
    # Their correlation is nothing, and that of all others at most lam times their weight.
    residual = jr.kkt_residual(made, answer.lam, answer.weights)
    assert residual.dual_feasibility < 5e-3


@MOSTLY_CONES
@pytest.mark.parametrize(
    "loss",
    ["squared", *(pytest.param(name, marks=pytest.mark.slow) for name in list(LOSSES)[1:])],
)
def test_a_skip_connection_against_an_independent_solver(kind, loss):
    made = program(kind, loss, skip=True)
    answer = check(made, fraction(made))
    assert answer.skip.shape == (zoo.FEATURES,)
    pull = np.linalg.norm(np.asarray(made.X).T @ np.asarray(answer.residual))
    assert pull < 5e-3 * float(answer.lam)
    alone = jr.solve(replace(made, skip=False), answer.lam)
    assert answer.upper < alone.upper


@pytest.mark.slow
@BOTH
def test_weights_and_a_skip_connection_together(kind):
    made = program(kind, block_weights=unequal(kind, zeros=[4]), skip=True)
    check(made, fraction(made))


def test_the_sign_of_a_pattern_that_is_not_there():
    """Only positive neurons: the program of both signs with the negative ones made dear."""
    weights = np.ones((2, zoo.PATTERNS))
    weights[1] = np.inf
    made = program(block_weights=weights)
    lam = fraction(made)
    answer = check(made, lam)
    assert np.all(np.asarray(jr.to_network(made, answer).output) >= 0)
    dear = replace(made, block_weights=np.where(np.isinf(weights), 1e6, 1.0))
    np.testing.assert_allclose(jr.solve(dear, lam).upper, answer.upper, rtol=2e-6)


@MOSTLY_GATED
def test_permuted_duplicated_and_split_blocks(kind):
    weights = unequal(kind)
    weights[..., 0] = np.inf  # a place for copies
    made = program(kind, block_weights=weights)
    lam = fraction(made)
    answer = jr.solve(made, lam, rtol=1e-9)

    def other(order, weights, rtol=1e-9):
        taken = jax.tree.map(lambda a: np.asarray(a)[:, order], made.patterns)
        return jr.solve(replace(made, patterns=taken, block_weights=weights), lam, rtol=rtol)

    order = np.random.default_rng(0).permutation(zoo.PATTERNS)
    permuted = other(order, weights[..., order])
    np.testing.assert_allclose(permuted.upper, answer.upper, rtol=2e-9)
    norms = np.linalg.norm(answer.weights, axis=-1).reshape(-1, zoo.PATTERNS)
    largest = int(np.argmax(norms.max(axis=0)))
    order = np.arange(zoo.PATTERNS)
    order[0] = largest
    for factor in (1.0, 1.1):
        copied = weights.copy()
        copied[..., 0] = factor * weights[..., largest]
        again = other(order, copied)
        np.testing.assert_allclose(again.upper, answer.upper, rtol=2e-9)
        both = np.asarray(again.weights)
        if factor > 1.0:  # a dearer copy is not used
            assert not both[..., 0, :].any()
        together = both[..., 0, :] + both[..., largest, :]
        np.testing.assert_allclose(
            together, np.asarray(answer.weights)[..., largest, :], atol=1e-4 * norms.max()
        )


@MOSTLY_GATED
def test_weights_scale_against_lam(kind):
    """Powers of two are exact, infinite and zero weights included."""
    weights = unequal(kind, zeros=[2])
    made = program(kind, block_weights=weights)
    lam = fraction(made)
    one = jr.solve(made, lam)
    other = jr.solve(replace(made, block_weights=2.0**20 * weights), 2.0**-20 * lam)
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.upper, other.upper)


@MOSTLY_GATED
def test_lambda_max_from_both_sides(kind):
    made = program(kind, block_weights=unequal(kind))
    critical = float(jr.lambda_max(made))
    assert not np.asarray(jr.solve(made, 1.0001 * critical).weights).any()
    assert np.asarray(jr.solve(made, 0.999 * critical).weights).any()
    low, high = jr.lambda_max_interval(made)
    assert low <= critical <= high
    np.testing.assert_allclose(jax.jit(jr.lambda_max)(made), critical, rtol=1e-6)


@MOSTLY_GATED
@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_lambda_max_is_that_of_the_best_unpenalised_fit(kind, loss):
    made = program(kind, loss, skip=True)
    low, high = (float(end) for end in jr.lambda_max_interval(made))
    critical = float(jr.lambda_max(made))
    assert low <= critical <= high <= 1.001 * low
    above = jr.solve(made, 1.001 * critical)
    assert not np.asarray(above.weights).any()
    assert np.asarray(jr.solve(made, 0.99 * critical).weights).any()
    assert critical < 0.9 * float(jr.lambda_max(replace(made, skip=False)))
    if loss == "squared":
        best = np.linalg.lstsq(made.X, made.y, rcond=None)[0]
        np.testing.assert_allclose(above.skip, best, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jr.lambda_max)(made), critical, rtol=1e-3)
    # Whether there are free blocks is not known of traced weights.
    free = replace(made, skip=False, block_weights=unequal(kind, zeros=[0]))
    assert np.isnan(jax.grad(lambda lam: jr.lambda_max(replace(free, y=lam * free.y)))(1.0))


@ALL_SLOW
def test_a_path_with_a_skip_connection(kind):
    made = program(kind, skip=True)
    path = jr.solve_path(made, jr.lambda_grid(made, 5, 0.02))
    jr.raise_if_failed(path)
    assert path.skip.shape == (5, zoo.FEATURES)
    assert path.num_active[0] == 0
    k = 3
    answer, network = path[k], jr.to_network(made, path[k])
    np.testing.assert_array_equal(network.skip, path.skip[k])
    np.testing.assert_array_equal(answer.certificate.skip, answer.skip)
    np.testing.assert_allclose(network(made.X), path.fit[k], atol=1e-10)
    np.testing.assert_allclose(
        jr.nonconvex_objective(network, made.X, made.y, answer.lam), answer.upper, rtol=1e-10
    )
    grid = jr.solve_grid(made, path.lams)
    np.testing.assert_allclose(grid.upper, path.upper, rtol=2e-6)
    between = jr.interpolate(path, 0.5 * float(path.lams[2] + path.lams[3]))
    assert between.skip.shape == (zoo.FEATURES,)
    warm = jr.solve(made, path.lams[k], init=answer)
    assert warm.num_steps <= 3
    proof = jr.certify(made, answer.lam, answer.weights, skip=answer.skip)
    assert proof.lower <= answer.upper
    assert proof.upper >= answer.lower
    short = jr.solve_path(made, path.lams, max_active=0)
    # It ends with the first lam that has a block, and the skip connection is none.
    assert short.status.tolist() == [0, 0, *[int(jr.Status.SKIPPED)] * 3]
    assert int(path.num_active[1]) > 0
    assert np.isnan(short.skip[-1]).all()


@MOSTLY_GATED
@pytest.mark.slow
@pytest.mark.parametrize("loss", ["poisson", "logistic"])
def test_what_is_free_need_not_be_exact_to_be_certified(kind, loss):
    """The dual vector is taken where the skip connection is at its best for the other weights."""
    made = program(kind, loss, skip=True)
    lam = fraction(made)
    answer = jr.solve(made, lam, rtol=1e-9)
    for off in (1e-6, 1e-3, 0.03):
        skip = (1.0 + off) * np.asarray(answer.skip)
        proof = jr.certify(made, lam, answer.weights, skip=skip)
        assert proof.lower <= answer.upper <= proof.upper
        # What is given is what it is; what it proves is as good as ever.
        assert answer.upper - proof.lower <= 1e-6 * answer.upper


def test_a_skip_connection_is_no_pattern_of_ones():
    """On centred columns the cone of the pattern of ones has X u = 0."""
    X, y = data()
    X = X - X.mean(axis=0)
    y = X @ np.arange(1.0, 1.0 + zoo.FEATURES)
    made = zoo.program(X, y)
    lam = 1e-3 * float(jr.lambda_max(made))
    linear = jr.solve(replace(made, skip=True), lam)
    np.testing.assert_allclose(linear.upper, 0.0, atol=1e-10 * float(y @ y))
    assert not np.asarray(linear.weights).any()
    np.testing.assert_allclose(linear.skip, np.arange(1.0, 1.0 + zoo.FEATURES), rtol=1e-6)


@pytest.mark.slow
def test_a_target_that_is_mostly_linear_is_solved_as_finely():
    """The default tolerance hangs on the loss at the best skip connection, not at zero."""
    made = program(skip=True)
    lam = fraction(made)
    exact = jr.solve(made, lam)
    far = replace(made, y=np.asarray(made.y) + 1e6 * np.asarray(made.X) @ np.ones(zoo.FEATURES))
    answer = jr.solve(far, lam)
    assert int(answer.status) != jr.Status.OPTIMAL or answer.gap <= 1e-5 * exact.upper
    assert answer.lower <= exact.upper * (1 + 1e-6)
    assert answer.upper <= exact.upper * (1 + 1e-3)


def test_of_two_free_blocks_of_opposite_sign_the_shortest_pair():
    weights = unequal("cones")
    weights[:, 1] = 0.0
    made = program(block_weights=weights)
    lam = fraction(made)
    answer = jr.solve(made, lam, rtol=1e-9)
    assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
    v, w = (np.asarray(block) for block in answer.weights[:, 1])
    import cvxpy as cp

    a, b = cp.Variable(v.size), cp.Variable(v.size)
    K = reference.cone_matrix(made.X, np.asarray(made.patterns.masks)[:, 1])
    shortest = cp.Problem(
        cp.Minimize(cp.sum_squares(a) + cp.sum_squares(b)), [K @ a >= 0, K @ b >= 0, a - b == v - w]
    )
    shortest.solve(solver="CLARABEL")
    np.testing.assert_allclose(v @ v + w @ w, shortest.value, rtol=1e-6)
    np.testing.assert_allclose(v, a.value, atol=1e-6 * np.linalg.norm(v))
    value = clarabel(made, lam)
    assert answer.lower - 2e-7 * value <= value <= answer.upper + 2e-7 * value


@ALL_SLOW
def test_derivatives_by_weights(kind):
    weights = unequal(kind)
    made = program(kind, block_weights=jnp.asarray(weights))
    lam, h = fraction(made), 1e-6
    move = np.where(np.isinf(weights), 0.0, np.random.default_rng(3).standard_normal(weights.shape))

    def at(e, rtol=None):
        moved = replace(made, block_weights=made.block_weights + e * move)
        return jr.solve(moved, lam, rtol=rtol), jr.lambda_max(moved)

    (_, _), (tangent, critical) = jax.jvp(at, (0.0,), (1.0,))
    (high, above), (low, below) = at(h, 1e-13), at(-h, 1e-13)
    for name in ("upper", "fit", "weights"):
        slope = (np.asarray(getattr(high, name)) - np.asarray(getattr(low, name))) / (2 * h)
        scale = np.abs(slope).max()
        np.testing.assert_allclose(getattr(tangent, name), slope, atol=1e-4 * scale)
    np.testing.assert_allclose(critical, (above - below) / (2 * h), rtol=1e-5)
    back = jax.grad(lambda w: jr.solve(replace(made, block_weights=w), lam).upper)(
        made.block_weights
    )
    np.testing.assert_allclose(np.sum(back * move), tangent.upper, rtol=1e-8)


@ALL_SLOW
def test_derivatives_through_a_skip_connection(kind):
    X, y = data(seed=41)
    few = jr.sample_patterns(jax.random.key(3), X, 5, gated=kind == "gated")
    few = zoo.tiled(few) if kind == "cones" else few
    made = zoo.program(jnp.asarray(X), jnp.asarray(y), few, gated=kind == "gated")
    made = replace(made, skip=True)
    lam, h = fraction(made, 0.2), 1e-6
    move = np.random.default_rng(5).standard_normal(len(y))

    def at(e, rtol=None):
        return jr.solve(replace(made, y=made.y + e * move), lam * (1.0 + e), rtol=rtol)

    _, tangent = jax.jvp(at, (0.0,), (1.0,))
    high, low = at(h, 1e-13), at(-h, 1e-13)
    for name in ("upper", "fit", "skip"):
        slope = (np.asarray(getattr(high, name)) - np.asarray(getattr(low, name))) / (2 * h)
        np.testing.assert_allclose(getattr(tangent, name), slope, atol=1e-4 * np.abs(slope).max())


@ALL_SLOW
def test_transforms(kind):
    weights = unequal(kind, zeros=[2])
    made = program(kind, block_weights=weights)
    lam = fraction(made)
    one = jr.solve(made, lam)
    zoo.assert_same(jax.jit(jr.solve)(made, lam), one)
    closed = jax.jit(lambda lam: jr.solve(made, lam))(lam)
    zoo.assert_same(closed, one)
    many = jax.vmap(lambda w: jr.solve(replace(made, block_weights=w), lam))(
        jnp.stack([weights, 2.0 * weights])
    )
    np.testing.assert_allclose(many.upper[0], one.upper, rtol=2e-6)
    np.testing.assert_allclose(many.upper[1], jr.solve(made, 2 * lam).upper, rtol=2e-6)
    negative = jax.jit(jr.solve)(replace(made, block_weights=-weights), lam)
    assert jr.Status(int(negative.status)) is jr.Status.NONFINITE


@ALL_SLOW
def test_float32(kind, single):
    for changes in ({"block_weights": unequal(kind)}, {"skip": True}):
        made = single(program(kind, **changes))
        path = jr.solve_path(made, jr.lambda_grid(made, 4, 0.05))
        jr.raise_if_failed(path)


DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data beside the repository")
@BOTH
def test_float32_on_real_data(kind, single):
    """Columns that nearly depend on each other: what is left of their equalities costs little."""
    rows = np.loadtxt(DATA / "regression/yacht.csv.gz", delimiter=",", skiprows=1)
    X, y = rows[:, :-1], (rows[:, -1] - rows[:, -1].mean()) / rows[:, -1].std()
    X = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(len(X))])
    gated = kind == "gated"
    patterns = jr.sample_patterns(jax.random.key(0), X, 100, gated=gated)
    made = (jr.GatedProgram if gated else jr.ConvexProgram)(X, y, patterns, skip=True)
    made = single(jax.tree.map(np.asarray, made))
    path = jr.solve_path(made, jr.lambda_grid(made, 20, 0.01), rtol=1e-3)
    assert np.all(np.asarray(path.status) == jr.Status.OPTIMAL)


@ALL_SLOW
def test_the_optimal_set_and_the_exact_path(kind):
    made = program(kind, block_weights=unequal(kind))
    answer = jr.solve(made, fraction(made, 0.3), rtol=1e-9)
    optima = jr.optimal_set(made, answer)
    assert not optima.ambiguous
    features, interior = np.asarray(optima.features), np.asarray(optima.interior)
    np.testing.assert_allclose(features @ interior, answer.fit, atol=1e-7)
    assert jr.is_optimal(optima, answer.weights)
    assert jr.is_optimal(optima, jr.to_network(made, answer).compact())
    found = jr.sensitivity(made, answer)
    by_lam = jax.jvp(lambda lam: jr.solve(made, lam).fit, (answer.lam,), (1.0,))[1]
    if found.reliable:
        np.testing.assert_allclose(found.fit_by_lam, by_lam, atol=1e-8)
    followed = jr.follow_path(made, 0.3 * float(jr.lambda_max(made)))
    lam = 0.5 * float(jr.lambda_max(made))
    np.testing.assert_allclose(followed(lam).upper, jr.solve(made, lam).upper, rtol=2e-6)


@MOSTLY_GATED
def test_admm(kind):
    made = program(kind, block_weights=unequal(kind))
    lam = fraction(made)
    answer = jr.solve(made, lam, solver=jr.ADMM())
    assert jr.Status(int(answer.status)) is jr.Status.OPTIMAL
    np.testing.assert_allclose(answer.upper, jr.solve(made, lam).upper, rtol=2e-6)


def test_networks_carry_weights_and_a_skip_connection():
    weights = unequal("cones")
    made = program(block_weights=weights, skip=True)
    answer = jr.solve(made, fraction(made))
    network = jr.to_network(made, answer)
    value = jr.nonconvex_objective(
        network, made.X, made.y, answer.lam, neuron_weight=weights.ravel()
    )
    np.testing.assert_allclose(value, answer.upper, rtol=1e-10)
    kept = np.asarray(network.output) != 0
    again, own = jr.from_network(
        network.compact(), made.X, made.y, neuron_weight=weights.ravel()[kept]
    )
    assert again.skip
    np.testing.assert_allclose(
        jr.objective(again, answer.lam, own, skip=network.skip), answer.upper, rtol=1e-8
    )
    fit = network(made.X)
    order = np.arange(network.num_neurons)[::-1]
    one = int(np.flatnonzero(kept)[0])
    for changed in (
        jr.balance(network), jr.permute(network, order), jr.merge(network), network.compact(),
        jr.split(network, one, [0.5, 0.5]), jr.minimal(network, made.X),
    ):  # fmt: skip
        np.testing.assert_allclose(changed(made.X), fit, atol=1e-8)
        np.testing.assert_array_equal(changed.skip, network.skip)
    better = jr.improve(network.compact(), made.X, made.y, answer.lam)
    assert better.objective <= better.objective_before
    assert better.network.skip.shape == (zoo.FEATURES,)
    differing = jr.Network(np.ones((2, 2)), np.ones(2))
    with pytest.raises(ValueError, match="neuron_weight differs"):
        jr.from_network(differing, np.eye(2), np.ones(2), neuron_weight=np.asarray([1.0, 2.0]))


def test_features_that_depend_on_each_other_leave_no_bound():
    X, y = data()
    X = np.column_stack([X[:, :-1], X[:, 0] + X[:, 1]])
    made = replace(zoo.program(X, y), skip=True)
    answer = jr.solve(made, 1.0)
    assert jr.Status(int(answer.status)) is jr.Status.UNBOUNDED
    assert answer.lower == -np.inf
    assert np.isfinite(answer.upper)
    with pytest.raises(RuntimeError, match="columns of X that depend on each other"):
        jr.raise_if_failed(answer)
    with pytest.raises(ArithmeticError, match="Columns of X that depend on each other"):
        jr.lambda_max(made)
    # A column of zeros is no such thing.
    X[:, -1] = 0.0
    zero = jr.solve(replace(zoo.program(X, y), skip=True), 1.0)
    assert jr.Status(int(zero.status)) is jr.Status.OPTIMAL
    assert zero.skip[-1] == 0


@pytest.mark.slow
def test_an_infimum_that_is_not_attained_is_not_called_a_number():
    """Labels that a skip connection separates, and counts of zero: the values go to zero."""
    X, _ = data()
    labels = np.where(X @ np.arange(1.0, 1.0 + zoo.FEATURES) >= 0, 1.0, -1.0)
    for loss, y in ((jr.LogisticLoss(), labels), (jr.PoissonLoss(), np.zeros(len(X)))):
        X_there = np.abs(X) if y[0] == 0 else X
        answer = jr.solve(
            replace(zoo.program(X_there, y, loss=loss), skip=True), 0.1, max_steps=300
        )
        status = jr.Status(int(answer.status))
        at_zero = float(
            jr.objective(
                zoo.program(X_there, y, loss=loss), 0.1, jnp.zeros((2, zoo.PATTERNS, zoo.FEATURES))
            )
        )
        if status is jr.Status.OPTIMAL:  # as near to zero as anybody can tell
            assert answer.upper <= 1e-12 * at_zero
        else:
            assert not answer.upper - answer.lower <= 1e-6 * answer.upper


def test_infinity_times_zero_is_zero():
    sizes = jnp.asarray([0.0, 2.0, 0.0])
    weights = jnp.asarray([jnp.inf, 3.0, 0.0])
    np.testing.assert_array_equal(weighted(weights, sizes), [0.0, 6.0, 0.0])
    slopes = jax.grad(lambda s, w: jnp.sum(weighted(w, s)), (0, 1))(sizes, weights)
    np.testing.assert_array_equal(slopes, [[0.0, 3.0, 0.0], [0.0, 2.0, 0.0]])
    assert np.isnan(weighted(jnp.asarray(jnp.nan), jnp.asarray(0.0)))
    made = program(block_weights=unequal("cones"))
    weights = jnp.zeros((*made.block_shape, zoo.FEATURES))
    value, slope = jax.value_and_grad(lambda w: jr.objective(made, 1.0, w))(weights)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert jr.objective(made, 1.0, weights.at[0, 0].set(1.0)) == np.inf
    assert jr.kkt_residual(made, 1.0, weights.at[0, 0].set(1.0)).primal_feasibility == np.inf
    repaired = jr.certify(made, 1.0, weights.at[0, 0].set(1.0))
    assert not repaired.weights[0, 0].any()
    assert np.isfinite(repaired.upper)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_weights_that_are_no_weights(value):
    weights = np.ones((2, zoo.PATTERNS))
    weights[0, 3] = value
    with pytest.raises(ValueError, match="block_weights holds a negative number or NaN"):
        jr.solve(program(block_weights=weights), 1.0)


def test_what_has_no_meaning_is_refused():
    free = program(block_weights=unequal("cones", zeros=[1]))
    skip, weighty = program(skip=True), program(block_weights=unequal("cones"))
    with pytest.raises(ValueError, match="all inf"):
        jr.solve(program(block_weights=np.full((2, zoo.PATTERNS), np.inf)), 1.0)
    with pytest.raises(ValueError, match=r"block_weights has shape \(3,\)"):
        jr.solve(program(block_weights=np.ones(3)), 1.0)
    answer = jr.solve(free, fraction(free))
    for made in (free, skip):
        with pytest.raises(ValueError, match="goes by correlations of length lam"):
            jr.follow_path(made)
    with pytest.raises(ValueError, match="goes by correlations of length lam"):
        jr.optimal_set(free, answer)
    for made in (skip, weighty):
        with pytest.raises(ValueError, match="patterns that it does not name"):
            jr.refine(made, 1.0)
    with pytest.raises(ValueError, match="build it with skip=True"):
        jr.certify(weighty, 1.0, np.zeros((2, zoo.PATTERNS, zoo.FEATURES)), skip=np.zeros(5))
    with pytest.raises(ValueError, match="ADMM"):
        jr.solve(skip, 1.0, solver=jr.ADMM())
    network = jr.to_network(skip, jr.solve(skip, 1.0)).compact()
    for function in (
        lambda: jr.prune(network, skip.X, skip.y, to=1),
        lambda: jr.certify_global(network, skip.X, skip.y, 1.0),
        lambda: jr.nearly_minimal(network, skip.X),
    ):
        with pytest.raises(ValueError, match="has a skip connection"):
            function()
    with pytest.raises(ValueError, match="neuron_weight holds a negative"):
        jr.nonconvex_objective(
            network, skip.X, skip.y, 1.0, neuron_weight=-np.ones(network.num_neurons)
        )
