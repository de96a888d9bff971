"""Block correlations, KKT residual and certificates, against NNLS, Clarabel and closed forms."""

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrelu as jr
from jaxrelu.programs import certificates, preparation
from jaxrelu.programs.bounds import all_blocks, lower_value, upper_value
from jaxrelu.programs.program import fit, residual_at

# (loss, gated, weighted); at half of lambda_max a few blocks are active, some of them on walls.
CASES = [
    ("squared", False, True), ("logistic", False, True), ("huber", False, True),
    ("squared", True, True),
]  # fmt: skip
IDS = ["squared", "logistic", "huber", "gated"]
every_case = pytest.mark.parametrize("case", CASES, ids=IDS)
EPS = np.finfo(float).eps


@pytest.fixture(scope="module")
def optimum(build, small):
    """For a case: the program, lam, and the optimal value and weights of Clarabel."""
    pytest.importorskip("cvxpy")

    @cache
    def solved(case):
        loss, gated, weighted = case
        program = build(*case)
        weight = small.weight if weighted else None
        lam = 0.4 * reference.lambda_max(small.X, program.y, small.masks, loss, gated, weight)
        value, weights = reference.solve_with_clarabel(
            small.X, program.y, small.masks, lam, loss, gated, weight
        )
        return program, lam, value, weights

    return solved


def twin_objective(case, program, lam, weights):
    twin = reference.gated_objective if case[1] else reference.relu_objective
    masks = np.asarray(program.patterns.masks)
    return twin(program.X, program.y, masks, lam, weights, case[0], program.sample_weight)


def check_certificate(case, program, lam, certificate):
    """Both sides, by NumPy and NNLS alone; weak duality does the rest."""
    masks = np.asarray(program.patterns.masks)
    weights, dual = np.asarray(certificate.weights), np.asarray(certificate.dual)
    upper = twin_objective(case, program, lam, weights)
    np.testing.assert_allclose(certificate.upper, upper, rtol=1e-6 if case[0] == "huber" else 1e-12)
    if not case[1]:
        violation = reference.cone_violation(program.X, masks, weights)
        assert violation == 0
    assert reference.dual_excess(program.X, masks, dual, lam, case[1]) <= 1e-12
    lower = reference.dual_value(dual, program.y, case[0], program.sample_weight)
    np.testing.assert_allclose(certificate.lower, lower, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(certificate.gap, certificate.upper - certificate.lower)


# --- block correlations --------------------------------------------------------------------------


@pytest.mark.parametrize("gated", [False, True], ids=["relu", "gated"])
def test_block_correlations_agree_with_the_twin(build, small, gated):
    residual = np.random.default_rng(0).standard_normal(12)
    q = jr.block_correlations(build(gated=gated), residual)
    expected = reference.correlations(small.X, small.masks, residual, gated)
    np.testing.assert_allclose(q, expected, rtol=0, atol=1e-11)


def test_block_correlations_with_more_features_than_samples():
    rng = np.random.default_rng(1)
    X, residual = rng.standard_normal((4, 6)), rng.standard_normal(4)
    gates = rng.standard_normal((6, 5))
    masks = X @ gates >= 0
    program = jr.ConvexProgram(X, residual, jr.Patterns(gates, masks))
    q = jr.block_correlations(program, residual)
    np.testing.assert_allclose(
        q, reference.block_correlations(X, masks, residual), rtol=0, atol=1e-11
    )


def test_block_correlations_are_homogeneous_and_swap_signs(build, small):
    q = jr.block_correlations(build(), small.y)
    scaled = jr.block_correlations(build(), -1e-3 * small.y)
    np.testing.assert_allclose(1e3 * scaled[::-1], q, rtol=0, atol=1e-11)


def test_block_correlations_refuse_another_shape(build):
    with pytest.raises(ValueError, match=r"one number a row, shape \(12,\)"):
        jr.block_correlations(build(), np.zeros(5))


# --- KKT residual --------------------------------------------------------------------------------


def twin_kkt(program, lam, weights):
    """The three numbers in loops, weights of the ReLU program."""
    masks = np.asarray(program.patterns.masks)
    f = reference.relu_fit(program.X, masks, weights)
    residual = reference.loss_residual(f, program.y, sample_weight=program.sample_weight)
    q = reference.block_correlations(program.X, masks, residual)
    stationarity = dual = 0.0
    for s in range(2):
        for j in range(masks.shape[1]):
            theta, size = weights[s, j], np.linalg.norm(weights[s, j])
            if size > 0:
                away = np.linalg.norm(q[s, j] - lam * theta / size)
                stationarity = max(stationarity, away / lam)
            dual = max(dual, np.linalg.norm(q[s, j]) / lam - 1)
    return stationarity, dual, reference.cone_violation(program.X, masks, weights)


def test_kkt_residual_agrees_with_its_definition(build):
    program = build(weighted=True)
    weights = np.random.default_rng(2).standard_normal((2, 10, 3))
    weights[:, ::2] = 0.0
    found = jr.kkt_residual(program, 0.3, weights)
    np.testing.assert_allclose(found, twin_kkt(program, 0.3, weights), rtol=1e-10)
    assert min(found) > 0.01
    np.testing.assert_array_equal(
        [a.shape for a in found], [()] * 3
    )  # one number each, over all blocks


def two_rows(small):
    """The two unit rows at 120 degrees with y = (2, 2), padded to the common shape.

    For lam = 1/2 an optimum is 1.5 x_1 in the cell (1, 0) and 1.5 x_2 in the cell (0, 1); its
    residual is (lam, lam) and its value 2 lam t - lam^2 = 1.75.
    """
    X, y = np.zeros((12, 3)), np.zeros(12)
    X[0, 0], X[1, :2], y[:2] = 1.0, (-0.5, math.sqrt(0.75)), 2.0
    gates = np.stack([X[0], X[1], X[0] + X[1]] + [X[0]] * 7, axis=1)
    masks = X @ gates >= -1e-12
    program = jr.ConvexProgram(X, y, jr.Patterns(gates, masks, gates), sample_weight=np.ones(12))
    weights = np.zeros((2, 10, 3))
    weights[0, 0], weights[0, 1] = 1.5 * X[0], 1.5 * X[1]
    return program, 0.5, weights


def test_kkt_residual_is_zero_at_a_closed_form_and_not_beside_it(small):
    program, lam, weights = two_rows(small)
    assert max(jr.kkt_residual(program, lam, weights)) < 1e-13
    # Each number answers to its own fault. A longer block: its correlation is too small now.
    longer = np.array(weights)
    longer[0, 0] *= 1.1
    found = jr.kkt_residual(program, lam, longer)
    assert found.stationarity > 0.1
    assert found.primal_feasibility == 0
    # No weights at all: the correlations are lambda_max = 2 instead of lam, nothing else is wrong.
    found = jr.kkt_residual(program, lam, np.zeros_like(weights))
    np.testing.assert_allclose(found, [0.0, 2.0 / lam - 1.0, 0.0], rtol=1e-12, atol=0)
    # The same fit and the same norms, from the wrong cell: -x_1 . theta_2 / ||theta_2|| = 1/2 > 0.
    swapped = np.array(weights)
    swapped[0, 1], swapped[0, 2] = 0.0, weights[0, 1]
    np.testing.assert_allclose(
        jr.kkt_residual(program, lam, swapped).primal_feasibility, 0.5, rtol=1e-12
    )


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[1], CASES[3]], ids=["squared", "logistic", "gated"]
)
def test_kkt_residual_at_clarabels_optimum(optimum, case):
    program, lam, _, weights = optimum(case)
    size = np.linalg.norm(weights, axis=-1, keepdims=True)
    weights = np.where(size > 1e-4 * size.max(), weights, 0.0)
    at_optimum = jr.kkt_residual(program, lam, weights)
    assert max(at_optimum) < 1e-3
    assert jr.kkt_residual(program, 1.1 * lam, weights).stationarity > 0.05
    assert jr.kkt_residual(program, 0.9 * lam, weights).dual_feasibility > 0.05
    if not case[1]:
        assert jr.kkt_residual(program, lam, -weights).primal_feasibility > 0.05


# --- certificates --------------------------------------------------------------------------------


def starts(program, weights):
    """Weights from anywhere: name -> weights."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(weights.shape)
    return {
        "zero": np.zeros_like(weights),
        "random": noise,
        "huge": 1e6 * noise,
        "tiny": 1e-200 * noise,
        "infeasible": -weights,
        "perturbed": weights + 0.1 * noise * np.abs(weights).max(),
        "one block": np.where(np.arange(10)[:, None] == 4, noise, 0.0),
        "clarabel": weights,
    }


@every_case
def test_certificates_bracket_the_optimum_from_anywhere(optimum, case):
    program, lam, value, weights = optimum(case)
    gaps = {}
    for name, start in starts(program, weights).items():
        certificate = jr.certify(program, lam, start)
        check_certificate(case, program, lam, certificate)
        # Clarabel's value has 8 digits (6 for the logistic loss).
        slack = (2e-6 if case[0] == "logistic" else 1e-7) * value
        assert certificate.lower <= value + slack, name
        assert certificate.upper >= value - slack, name
        gaps[name] = float(certificate.gap) / value
    assert gaps["clarabel"] <= 1e-6
    assert gaps["perturbed"] < min(gaps["random"], gaps["infeasible"])
    # The best dual multiple of a useless residual is near zero, never a wrong bound.
    assert gaps["huge"] > 1


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), exponent=st.floats(-6, 6), share=st.floats(0.01, 1.5),
    noise=st.floats(0, 1),
)  # fmt: skip
def test_certificates_are_valid_for_any_weights_and_lam(optimum, seed, exponent, share, noise):
    program, lam, _, weights = optimum(CASES[0])
    rng = np.random.default_rng(seed)
    mixed = (1 - noise) * weights + noise * 10.0**exponent * rng.standard_normal(weights.shape)
    lam = share * lam
    certificate = jr.certify(program, lam, mixed)
    check_certificate(CASES[0], program, lam, certificate)
    assert certificate.lower <= certificate.upper * (1 + 1e-12)


def test_the_certificate_of_a_closed_form_is_tight(small):
    program, lam, weights = two_rows(small)
    certificate = jr.certify(program, lam, weights)
    np.testing.assert_allclose(certificate.lower, 1.75, rtol=1e-13)
    np.testing.assert_allclose(certificate.upper, 1.75, rtol=1e-13)
    np.testing.assert_allclose(certificate.dual[:2], [lam, lam], rtol=1e-13)
    np.testing.assert_array_equal(certificate.weights, weights)


def test_zero_weights_are_certified_above_lambda_max(build):
    program = build()
    zero = np.zeros((2, 10, 3))
    largest = float(jr.lambda_max(program))
    for factor in (1.0001, 1.4, 3.0):
        above = jr.certify(program, factor * largest, zero)
        assert abs(float(above.gap)) <= 1e-14 * float(above.upper)
    assert float(jr.certify(program, 0.9 * largest, zero).gap) > 1e-3 * float(above.upper)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["one number", "all"])
def test_weights_that_are_not_finite_have_no_certificate(optimum, bad, where):
    program, lam, _, weights = optimum(CASES[0])
    weights = np.array(weights)
    weights[(0, 2, 1) if where == "one number" else ...] = bad
    certificate = jr.certify(program, lam, weights)
    assert np.isnan(certificate.gap)
    assert not np.isfinite([certificate.upper, certificate.lower]).any()


def test_a_nan_in_the_gated_program_has_no_certificate(optimum):
    program, lam, _, weights = optimum(CASES[3])
    weights = np.array(weights)
    weights[2, 1] = np.nan
    assert np.isnan(jr.certify(program, lam, weights).gap)


@pytest.mark.slow
def test_witnesses_are_computed_where_they_are_missing(optimum):
    program, lam, _, weights = optimum(CASES[0])
    bare = dataclasses.replace(
        program, patterns=jr.Patterns(program.patterns.gates, program.patterns.masks)
    )
    certificate = jr.certify(bare, lam, weights)
    check_certificate(CASES[0], bare, lam, certificate)
    expected = jr.certify(program, lam, weights)
    np.testing.assert_allclose(certificate.upper, expected.upper, rtol=1e-12)
    gated = jr.GatedProgram(program.X, program.y, bare.patterns)
    assert preparation.with_interior(gated) is gated
    assert preparation.with_interior(program) is program


@pytest.mark.slow
def test_certify_with_more_features_than_samples():
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((4, 6)), rng.standard_normal(4)
    gates = rng.standard_normal((6, 5))
    patterns = jr.Patterns(gates, X @ gates >= 0)
    program = jr.ConvexProgram(X, y, patterns)
    # Parts outside the row space cost and fit nothing: they are gone from the certified weights.
    certificate = jr.certify(program, 0.3, rng.standard_normal((2, 5, 6)))
    check_certificate(("squared", False), program, 0.3, certificate)
    outside = np.linalg.svd(X)[2][4:]
    np.testing.assert_allclose(certificate.weights @ outside.T, np.zeros((2, 5, 2)), atol=1e-12)


@pytest.mark.slow
def test_certify_in_float32(optimum, single):
    program, lam, value, weights = optimum(CASES[0])
    certificate = jr.certify(single(program), lam, weights.astype(np.float32))
    assert {a.dtype for a in jax.tree.leaves(certificate)} == {jnp.dtype("float32")}
    assert float(certificate.lower) <= value * (1 + 1e-5)
    assert float(certificate.upper) >= value * (1 - 1e-5)
    assert float(certificate.gap) <= 1e-4 * value
    masks = np.asarray(program.patterns.masks)
    violation = reference.cone_violation(program.X, masks, np.asarray(certificate.weights, float))
    assert violation == 0


BAD = {
    "weights of another shape": (0.5, np.zeros((10, 3)), ValueError, r"shape \(2, 10, 3\)"),
    "weights of float32": (0.5, np.zeros((2, 10, 3), "float32"), TypeError, "astype..float64"),
    "lam zero": (0.0, np.zeros((2, 10, 3)), ValueError, "pass a small one"),
    "lam negative": (-1.0, np.zeros((2, 10, 3)), ValueError, "positive finite number"),
    "lam nan": (np.nan, np.zeros((2, 10, 3)), ValueError, "positive finite number"),
    "many lams": (np.ones(3), np.zeros((2, 10, 3)), ValueError, "use solve_grid, solve_path or"),
}


@pytest.mark.parametrize("function", [jr.certify, jr.kkt_residual])
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_with_the_fix(build, function, name):
    lam, weights, error, message = BAD[name]
    with pytest.raises(error, match=message):
        function(build(), lam, weights)


# --- the parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 3.0])
@pytest.mark.parametrize("case", CASES[:3], ids=IDS[:3])
def test_the_dual_point_is_the_best_multiple(build, case, share):
    program = build(*case)
    weights = 0.3 * np.random.default_rng(5).standard_normal((2, 10, 3))
    residual = residual_at(program, fit(program, weights))
    bound = jnp.asarray(2.0)
    lam = jnp.asarray(share * 2.0)
    found, t = jax.jit(lower_value)(program, lam, residual, bound)
    value = found.value

    def twin(t):
        return reference.dual_value(
            t * np.asarray(residual), program.y, case[0], program.sample_weight
        )

    assert 0 <= t <= min(share, 2.0)
    np.testing.assert_allclose(value, twin(float(t)), rtol=1e-11)
    assert value <= twin(float(t)) + 1e-15 * abs(value)
    scan = max(twin(s) for s in np.linspace(0, min(share, 2.0), 2001) if np.isfinite(twin(s)))
    assert value >= scan - 1e-3 * abs(scan)
    assert value >= twin(min(1.0, share) * (1 - 1e-14)) - 1e-12


@pytest.mark.slow
def test_repair_in_chunks_is_repair_at_once(build, small, monkeypatch):
    program = build()
    rng = np.random.default_rng(6)
    weights = rng.standard_normal((2, 10, 3))
    weights[0, ::2] = 0.0
    weights[1, 3] = 1e-17 * small.gates[:, 3]  # feasible; negligible beside the others only
    at_once = jax.jit(certificates.feasible_weights)(program, weights)
    monkeypatch.setattr(certificates, "projection_batch", lambda blocks, samples: 2)
    in_chunks = jax.jit(lambda *a: certificates.feasible_weights(*a))(program, weights)
    np.testing.assert_allclose(in_chunks, at_once, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(in_chunks[1, 3], jnp.zeros(3))


def test_the_bound_of_rounding_covers_it(build, single):
    program = build(weighted=True)
    rng = np.random.default_rng(7)
    evaluate, bounded = jax.jit(jr.objective), jax.jit(upper_value)
    rough = single(program)
    exact = jax.tree.map(
        lambda a: np.asarray(a, float) if a.dtype == jnp.float32 else a, rough
    )  # the same numbers, computed with in float64
    for scale in (1e-3, 1.0, 1e3):
        weights = (scale * rng.standard_normal((2, 10, 3))).astype(np.float32)
        lam = np.float32(0.25)
        value = evaluate(rough, lam, weights)
        error = abs(float(value) - float(evaluate(exact, 0.25, weights.astype(float))))
        found, _ = bounded(rough, lam, all_blocks(jnp.asarray(weights)))
        bound = float(found.rounding)
        assert error <= bound
        assert float(evaluate(exact, 0.25, weights.astype(float))) <= float(found.value)
        # Not so large either that every gap would count as rounding.
        assert bound <= 1e-4 * float(jnp.sum(weights**2) + abs(value))


@pytest.mark.slow
def test_a_residual_on_the_edge_of_the_conjugate_gives_its_bound():
    # Above lambda_max zero is optimal; all residuals are saturated, and rounded when weighted.
    problem = zoo.problem(zoo.huber)
    n = len(problem.program.y)
    program = dataclasses.replace(
        problem.program, y=100 * problem.program.y, sample_weight=np.full(n, 3.0)
    )
    lam = 1.5 * float(jr.lambda_max(program))
    proof = jr.certify(program, lam, np.zeros((*program.block_shape, zoo.FEATURES)))
    assert proof.gap <= 1e-9 * proof.upper  # how its value is rounded, this loss does not say


def test_a_bound_that_is_not_a_number_gives_no_value():
    program = zoo.problem(zoo.generic).program
    lam, residual = jnp.asarray(1.0), jnp.asarray(program.y)
    found, t = lower_value(program, lam, residual, jnp.asarray(jnp.nan))
    assert np.isnan(found.value)
    assert np.isnan(t)


@jax.jit
def kkt_derivatives(program, lam, weights, change):
    """The conditions, their tangents by the weights and by lam, and gradients times the same."""

    def conditions(lam, weights):
        return jnp.stack(jr.kkt_residual(program, lam, weights))

    values, linear = jax.linearize(conditions, lam, weights)
    rows = jax.vmap(jax.linear_transpose(linear, lam, weights))(jnp.eye(3))
    ahead = jnp.stack([linear(jnp.zeros(()), change), linear(jnp.ones(()), 0.0 * change)])
    back = jnp.stack([jnp.sum(rows[1] * change[None], axis=(1, 2, 3)), rows[0]])
    return values, ahead, back


def test_derivatives_of_the_conditions_are_differences_or_nan(build):
    program, lam = build(), jnp.asarray(0.4)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2, 10, 3)) * (rng.random((2, 10, 1)) < 0.5)
    change = rng.standard_normal(weights.shape) * (weights != 0)
    values, ahead, back = kkt_derivatives(program, lam, weights, change)
    assert np.all(values > 0)
    np.testing.assert_allclose(ahead, back, atol=1e-9)
    for k, (by_lam, by_weights) in enumerate(((0.0, change), (1.0, 0.0 * change))):
        ends = [
            kkt_derivatives(program, lam + h * by_lam, weights + h * by_weights, change)[0]
            for h in (1e-6, -1e-6)
        ]
        np.testing.assert_allclose(ahead[k], (ends[0] - ends[1]) / 2e-6, atol=1e-6)
    # Where a condition begins to fail it has a kink: at zero weights all inequalities are equal.
    _, ahead, back = kkt_derivatives(program, jr.lambda_max(program), 0.0 * weights, change)
    assert np.isnan(ahead[1, 1])
    assert np.isnan(back[1, 1])
