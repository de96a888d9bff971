"""The two programs: operators, objective, lambda_max, and what is refused at the door."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrelu as jr
from jaxrelu.paths import correlations_at_zero, critical_lam
from jaxrelu.programs import program as programs
from jaxrelu.programs.checks import check_program
from jaxrelu.programs.preparation import row_space

fit, raw_correlations, cone_values = map(
    jax.jit, (programs.fit, programs.raw_correlations, programs.cone_values)
)
every_kind = pytest.mark.parametrize("gated", [False, True], ids=["relu", "gated"])
every_loss = pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])


@pytest.fixture(scope="module")
def wide():
    """More features than samples: n = 4, d = 7, p = 5 patterns with their witnesses."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((4, 7)), rng.standard_normal(4)
    masks = np.asarray([[1, 0, 1, 0, 1], [1, 1, 0, 0, 1], [0, 1, 1, 0, 1], [0, 1, 0, 1, 1]]) > 0
    gates = np.linalg.pinv(X) @ np.where(masks, 1.0, -1.0)
    witness = np.stack([reference.max_margin_direction(X, m)[0] for m in masks.T], axis=1)
    return SimpleNamespace(X=X, y=y, gates=gates, masks=masks, interior=witness)


def wide_program(wide, gated=False):
    patterns = jr.Patterns(wide.gates, wide.masks, wide.interior)
    return (jr.GatedProgram if gated else jr.ConvexProgram)(wide.X, wide.y, patterns)


def random_weights(program, seed=0):
    shape = (*program.block_shape, program.X.shape[1])
    return np.random.default_rng(seed).standard_normal(shape)


# --- operators -----------------------------------------------------------------------------------


@every_kind
def test_fit_agrees_with_the_twin(build, small, gated):
    program = build(gated=gated)
    weights = random_weights(program)
    twin = reference.gated_fit if gated else reference.relu_fit
    expected = twin(small.X, small.masks, weights)
    np.testing.assert_allclose(fit(program, weights), expected, rtol=1e-13)


@every_kind
def test_raw_correlations_are_the_adjoint_of_fit(build, small, gated):
    program = build(gated=gated)
    weights, residual = random_weights(program), np.random.default_rng(1).standard_normal(12)
    correlations = raw_correlations(program, residual)
    assert correlations.shape == weights.shape
    np.testing.assert_allclose(
        fit(program, weights) @ residual, np.sum(correlations * weights), rtol=1e-12
    )
    g = reference.gated_correlations(small.X, small.masks, residual)
    expected = g if gated else np.stack([g, -g])
    np.testing.assert_allclose(correlations, expected, rtol=1e-12, atol=1e-14)


def test_cone_values_agree_with_the_twin(build, small):
    program = build()
    weights = random_weights(program)
    values = np.asarray(cone_values(program, weights))
    assert values.shape == (2, 10, 12)
    for s, j in ((0, 0), (1, 0), (1, 7)):
        K = reference.cone_matrix(small.X, small.masks[:, j])
        np.testing.assert_allclose(values[s, j], K @ weights[s, j], rtol=1e-12)


def test_block_shape_and_signs(build):
    relu, gated = build(), build(gated=True)
    assert (relu.block_shape, gated.block_shape) == ((2, 10), (10,))
    np.testing.assert_array_equal(programs.block_signs(relu), [1.0] * 10 + [-1.0] * 10)
    np.testing.assert_array_equal(programs.block_signs(gated), np.ones(10))
    assert relu.has_cones
    assert not gated.has_cones


# --- objective -----------------------------------------------------------------------------------


@every_loss
@every_kind
def test_objective_agrees_with_the_twin(build, small, loss, gated):
    program = build(loss, gated, weighted=True)
    weights = random_weights(program)
    twin = reference.gated_objective if gated else reference.relu_objective
    expected = twin(small.X, program.y, small.masks, 0.7, weights, loss, small.weight)
    np.testing.assert_allclose(jr.objective(program, 0.7, weights), expected, rtol=1e-13)


def test_objective_without_sample_weights_has_ones(build, small):
    program = dataclasses.replace(build(), sample_weight=None)
    weights = random_weights(program)
    expected = reference.relu_objective(small.X, small.y, small.masks, 0.7, weights)
    np.testing.assert_allclose(jr.objective(program, 0.7, weights), expected, rtol=1e-13)


def test_objective_has_a_finite_derivative_at_zero_blocks(build):
    program = build()
    weights = jnp.asarray(random_weights(program)).at[0, 3].set(0.0)
    gradient = jax.jit(jax.grad(jr.objective, argnums=2))
    at = gradient(program, 0.7, weights)
    # Without the norms' part, which is zero there, what remains is minus the correlation.
    residual = programs.residual_at(program, fit(program, weights))
    correlation = raw_correlations(program, residual)
    np.testing.assert_allclose(at[0, 3], -correlation[0, 3], rtol=1e-12)
    size = np.linalg.norm(weights[1, 3])
    np.testing.assert_allclose(
        at[1, 3], 0.7 * weights[1, 3] / size - correlation[1, 3], rtol=1e-12, atol=1e-13
    )


def test_objective_refuses_weights_of_another_shape(build):
    program = build()
    with pytest.raises(ValueError, match=r"weights has shape \(10, 3\); pass shape \(2, 10, 3\)"):
        jr.objective(program, 0.7, random_weights(program)[0])
    with pytest.raises(ValueError, match=r"pass shape \(10, 3\)"):
        jr.objective(build(gated=True), 0.7, random_weights(program))


# --- lambda_max ----------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize(
    "weighted", [pytest.param(False, marks=pytest.mark.slow), True], ids=["ones", "weighted"]
)
def test_lambda_max_agrees_with_nnls(build, small, loss, weighted):
    program = build(loss, weighted=weighted)
    weight = small.weight if weighted else None
    expected = reference.lambda_max(small.X, program.y, small.masks, loss, False, weight)
    np.testing.assert_allclose(jr.lambda_max(program), expected, rtol=1e-11)
    # The bound without cones is another number, or nothing would have been projected.
    free = reference.lambda_max(small.X, program.y, small.masks, loss, True, weight)
    assert free > 1.01 * expected


@every_loss
def test_lambda_max_of_the_gated_program(build, small, loss):
    program = build(loss, gated=True, weighted=True)
    expected = reference.lambda_max(small.X, program.y, small.masks, loss, True, small.weight)
    np.testing.assert_allclose(jr.lambda_max(program), expected, rtol=1e-13)


@every_kind
def test_lambda_max_with_more_features_than_samples(wide, gated):
    expected = reference.lambda_max(wide.X, wide.y, wide.masks, gated=gated)
    np.testing.assert_allclose(jr.lambda_max(wide_program(wide, gated)), expected, rtol=1e-11)


def test_lambda_max_in_float32_and_in_a_trace(build, single):
    program = build()
    assert jax.eval_shape(jr.lambda_max, program).shape == ()
    rough = jr.lambda_max(single(program))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, jr.lambda_max(program), rtol=1e-4)


@pytest.mark.parametrize(
    "decades",
    [8, pytest.param(4, marks=pytest.mark.slow), pytest.param(12, marks=pytest.mark.slow)],
)
def test_lambda_max_lies_in_its_interval_where_columns_differ_by_decades(decades):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 4)) * 10.0 ** np.linspace(0, -decades, 4)
    patterns = jr.patterns_from_gates(X, rng.standard_normal((4, 8)))
    program = jr.ConvexProgram(X, rng.standard_normal(20), patterns)
    expected = reference.lambda_max(X, program.y, np.asarray(patterns.masks))
    lower, upper = jr.lambda_max_interval(program)
    assert lower <= expected * (1 + 1e-14)
    assert upper >= expected * (1 - 1e-14)
    assert upper - lower <= 1e-6 * upper
    assert jr.lambda_max(program) == upper


def test_lambda_max_says_where_projections_did_not_get_there(build, monkeypatch):
    program = build()
    lower, upper = jr.lambda_max_interval(program)
    inside = jax.jit(jr.lambda_max)(program)
    assert inside == upper
    wide = lower / 2, upper
    monkeypatch.setattr(critical_lam, "_interval", lambda program: wide)
    assert np.isnan(critical_lam._upper_end(program))
    monkeypatch.setattr(critical_lam, "_lambda_max", critical_lam._upper_end)
    # What blocks one by one give.
    assert jr.lambda_max(program) <= upper * (1 + 1e-12)
    monkeypatch.setattr(correlations_at_zero, "ends_at", lambda *args: wide)
    with pytest.raises(ArithmeticError, match="lie between .* scale the columns of X"):
        jr.lambda_max(program)


def test_lambda_max_in_any_units(build):
    program = build()
    for power in (-300, 300):
        scaled = dataclasses.replace(program, X=np.ldexp(np.asarray(program.X), power))
        lower, upper = jr.lambda_max_interval(scaled)
        assert (lower, upper) == tuple(
            np.ldexp(float(end), power) for end in jr.lambda_max_interval(program)
        )


def test_lambda_max_of_a_nan_is_a_nan(build, small):
    y = np.array(small.y)
    y[3] = np.nan
    program = dataclasses.replace(build(), y=y)
    assert np.isnan(jr.lambda_max(program))
    with pytest.raises(ValueError, match="lambda_max is nan: check X, y"):
        jr.lambda_grid(program)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "gated"), [("squared", False), ("logistic", False), ("squared", True)]
)
def test_lambda_max_separates_zero_weights_from_others(build, loss, gated):
    program = build(loss, gated, weighted=True)
    largest = jr.lambda_max(program)
    above, below = jr.solve(program, 1.001 * largest), jr.solve(program, 0.98 * largest)
    for solution in (above, below):
        assert jr.Status(int(solution.status)) is jr.Status.OPTIMAL
    np.testing.assert_array_equal(above.weights, jnp.zeros_like(above.weights))
    assert int(above.num_steps) == 0
    assert np.any(np.asarray(below.weights) != 0)
    zero = jr.objective(program, below.lam, jnp.zeros_like(below.weights))
    assert below.certificate.upper < zero * (1 - 1e-5)
    again = jr.objective(program, above.lam, above.weights)
    # It is printed rounded up by what its evaluation may be off.
    assert again <= above.certificate.upper <= again * (1 + 1e-12)


def test_lambda_grid_is_geometric_and_descends(build):
    program = build()
    largest = float(jr.lambda_max(program))
    grid = np.asarray(jr.lambda_grid(program, num=5, ratio=1e-2))
    np.testing.assert_allclose(grid, largest * 10.0 ** np.linspace(0, -2, 5), rtol=1e-14)
    assert grid[0] == largest
    assert jr.lambda_grid(program).shape == (50,)
    np.testing.assert_allclose(jr.lambda_grid(program)[-1], 1e-2 * largest, rtol=1e-14)
    np.testing.assert_array_equal(jr.lambda_grid(program, num=1), [largest])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num": 0}, "num is 0"), ({"ratio": 1.0}, "between 0 and 1"), ({"ratio": 0}, "ratio")],
)
def test_lambda_grid_refuses(build, options, message):
    with pytest.raises(ValueError, match=message):
        jr.lambda_grid(build(), **options)


def test_lambda_grid_of_a_zero_target(build):
    program = dataclasses.replace(build(), y=np.zeros(12))
    assert float(jr.lambda_max(program)) == 0
    with pytest.raises(ValueError, match="lambda_max is zero.*no path"):
        jr.lambda_grid(program)


# --- row space -----------------------------------------------------------------------------------


@every_kind
def test_row_space_is_the_same_program(wide, gated):
    program = wide_program(wide, gated)
    reduced, space = row_space(program)
    basis = space.basis
    assert 0 < space.slip < 1e-13
    assert 0 < space.stretch < 1e-13
    assert (reduced.X.shape, basis.shape) == ((4, 4), (7, 4))
    assert type(reduced) is type(program)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-14)
    weights = random_weights(reduced)
    lifted = weights @ np.asarray(basis).T
    np.testing.assert_allclose(reduced.X @ basis.T, wide.X, atol=1e-13)
    np.testing.assert_allclose(
        jr.objective(reduced, 0.3, weights),
        jr.objective(program, 0.3, lifted),
        rtol=1e-13,
    )
    # Same patterns and, for the witnesses, same margins.
    np.testing.assert_array_equal(reduced.X @ reduced.patterns.gates >= 0, wide.masks)
    np.testing.assert_allclose(
        reduced.X @ reduced.patterns.interior, wide.X @ wide.interior, atol=1e-13
    )


def test_row_space_leaves_long_data_alone(build):
    program = build()
    reduced, space = row_space(program)
    assert reduced is program
    assert space is None


def test_row_space_without_witnesses(wide):
    program = jr.ConvexProgram(wide.X, wide.y, jr.Patterns(wide.gates, wide.masks))
    assert row_space(program)[0].patterns.interior is None


# --- what is refused -----------------------------------------------------------------------------


def changed(program, **fields):
    return dataclasses.replace(program, **fields)


def with_patterns(program, **fields):
    return changed(program, patterns=dataclasses.replace(program.patterns, **fields))


BAD = {
    "not a program": (lambda p: p.X, TypeError, r"ConvexProgram\(X, y, patterns\)"),
    "X is a list": (lambda p: changed(p, X=p.X.tolist()), TypeError, r"X is a list.*np.asarray"),
    "X of integers": (
        lambda p: changed(p, X=np.ones((12, 3), int)), TypeError, r"X.astype\('float64'\)"
    ),
    "X of complex": (lambda p: changed(p, X=p.X * 1j), TypeError, "X has dtype complex128"),
    "X a vector": (lambda p: changed(p, X=p.X[0]), ValueError, r"matrix \(n, d\)"),
    "no samples": (lambda p: changed(p, X=p.X[:0]), ValueError, "at least one row"),
    "no features": (lambda p: changed(p, X=p.X[:, :0]), ValueError, "one column"),
    "X with a NaN": (lambda p: changed(p, X=p.X * np.nan), ValueError, "X has NaN"),
    "y is a list": (lambda p: changed(p, y=p.y.tolist()), TypeError, "y is a list"),
    "y of integers": (
        lambda p: changed(p, y=np.ones(12, int)), TypeError, r"pass y.astype\('float64'\)"
    ),
    "y too short": (lambda p: changed(p, y=p.y[:5]), ValueError, r"a row, shape \(12,\)"),
    "y a column": (lambda p: changed(p, y=p.y[:, None]), ValueError, r"shape \(12,\)"),
    "y of float32": (
        lambda p: changed(p, y=p.y.astype("float32")), TypeError, r"pass y.astype\('float64'\)"
    ),
    "weight too short": (
        lambda p: changed(p, sample_weight=np.ones(3)), ValueError, "sample_weight has shape"
    ),
    "weight of float32": (
        lambda p: changed(p, sample_weight=np.ones(12, "float32")), TypeError,
        r"sample_weight.astype\('float64'\)",
    ),
    "weight of integers": (
        lambda p: changed(p, sample_weight=np.ones(12, int)), TypeError, "sample_weight has dtype"
    ),
    "negative weight": (
        lambda p: changed(p, sample_weight=np.arange(12.0) - 1), ValueError, "negative entries"
    ),
    "patterns are masks": (
        lambda p: changed(p, patterns=p.patterns.masks), TypeError, r"jr.Patterns\(gates, masks\)"
    ),
    "masks of other data": (
        lambda p: with_patterns(p, masks=~p.patterns.masks), ValueError, "patterns_from_gates"
    ),
    "masks of halves": (
        lambda p: with_patterns(p, masks=0.5 * p.patterns.masks), ValueError, "other than 0 and 1"
    ),
    "too few masks": (
        lambda p: with_patterns(p, masks=p.patterns.masks[:, :4]), ValueError, r"needs \(12, 10\)"
    ),
    "gates of other data": (
        lambda p: with_patterns(p, gates=p.patterns.gates[:2]), ValueError, r"needs \(3, 10\)"
    ),
    "loss is a class": (
        lambda p: changed(p, loss=jr.SquaredLoss), TypeError, r"instance, such as jr.SquaredLoss"
    ),
    "loss is a name": (lambda p: changed(p, loss="squared"), TypeError, "pass an instance"),
    "labels 0 and 1": (
        lambda p: changed(p, loss=jr.LogisticLoss(), y=np.arange(12) % 2.0), ValueError,
        r"pass 2 \* y - 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_programs_are_refused_with_the_fix(build, name):
    change, error, message = BAD[name]
    program = build()
    check_program(program)
    # Nothing is checked when it is built: JAX builds programs of placeholders.
    bad = change(program)
    with pytest.raises(error, match=message):
        check_program(bad)
    with pytest.raises(error, match=message):
        jr.lambda_max(bad)


def test_good_programs_pass(build, single, wide):
    for program in (build("logistic"), build(gated=True), single(build()), wide_program(wide)):
        check_program(program)
    program = build()
    check_program(changed(program, sample_weight=None))
    check_program(jax.tree.map(jnp.asarray, program))
    check_program(with_patterns(program, masks=program.patterns.masks.astype(float)))
    check_program(changed(program, y=program.y * np.nan))  # ends as Status.NONFINITE


def test_values_are_not_looked_at_in_a_trace(build):
    program = build()

    @jax.jit
    def traced(program):
        check_program(program)
        return program.y

    np.testing.assert_array_equal(traced(changed(program, sample_weight=-np.ones(12))), program.y)
    with pytest.raises(ValueError, match="y has shape"):
        traced(changed(program, y=program.y[:4]))


def test_float64_without_x64_names_both_ways_out(build, x64_off):
    with pytest.raises(ValueError, match=r"(?s)jax_enable_x64.*X.astype\('float32'\)"):
        check_program(build())
