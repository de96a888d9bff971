"""Global certificates at the edges: no neurons, known answers, float32, wrong arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import solve_with_clarabel, train_network

import jaxrelu as jr

LOSSES = {"squared": jr.SquaredLoss(), "logistic": jr.LogisticLoss()}


def rows(rho):
    """Two unit rows with this cosine."""
    return np.asarray([[1.0, 0.0], [rho, np.sqrt(1.0 - rho**2)]])


def nothing(d=2):
    return jr.Network(jnp.zeros((d, 0)), jnp.zeros(0))


@pytest.mark.parametrize("loss", ["squared", pytest.param("logistic", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_no_neurons_are_optimal_from_lambda_max_on_and_not_below(loss):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((9, 3)), np.sign(rng.standard_normal(9))
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X), LOSSES[loss])
    top = float(jr.lambda_max(program))
    above = jr.certify_global(nothing(3), X, y, 1.001 * top, LOSSES[loss])
    assert above.gap <= 1e-9 * above.upper
    below = jr.certify_global(nothing(3), X, y, 0.9 * top, LOSSES[loss])
    best = jr.solve(program, 0.9 * top).certificate
    assert below.lower <= best.upper < below.upper * (1 - 1e-6)


@pytest.mark.slow
def test_refinement_above_lambda_max_ends_without_neurons():
    X, y = rows(0.0), np.asarray([1.0, -2.0])
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X))
    lam = 1.001 * float(jr.lambda_max(program))
    found = jr.refine(program, lam, max_work=600.0)
    assert found.network.num_neurons == 0
    assert found.status is jr.Status.OPTIMAL
    again = jr.certify_global(found.network, X, y, lam)
    assert again.gap <= 1e-9 * again.upper


@pytest.mark.slow
@pytest.mark.parametrize("ones", [False, True], ids=["plain", "with ones"])
@pytest.mark.parametrize("loss", LOSSES)
def test_refinement_and_training_from_many_starts_agree(loss, ones):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((5, 2))
    X[:, 1] = 1.0 if ones else X[:, 1]
    y = np.sign(rng.standard_normal(5)) if loss == "logistic" else rng.standard_normal(5)
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4), LOSSES[loss])
    lam = 0.1 * float(jr.lambda_max(program))
    found = jr.refine(program, lam, max_work=600.0)
    assert found.status is jr.Status.OPTIMAL
    trained = train_network(X, y, lam, width=5, loss=loss, restarts=60)[0]
    assert float(found.certificate.lower) <= trained * (1 + 1e-9)
    np.testing.assert_allclose(trained, found.certificate.upper, rtol=2e-6)


def test_data_of_zeros_are_refused_by_name():
    with pytest.raises(ValueError, match="every row of X is zero"):
        jr.certify_global(nothing(), np.zeros((3, 2)), np.ones(3), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("rho", [-0.8, -0.5, 0.0, 0.7])
def test_the_family_of_two_rows(rho):
    t, lam = 2.0, 0.5
    X, y = rows(rho), np.full(2, t)
    kappa = np.sqrt(2 * (1 + rho))
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4))
    found = jr.refine(program, lam, rtol=1e-9, max_work=600.0)
    assert found.status is jr.Status.OPTIMAL
    if rho <= -0.5:
        value = 2 * lam * t - lam**2
    else:
        value = lam**2 / kappa**2 + lam * (t * kappa - lam) / (1 + rho)
    np.testing.assert_allclose(found.certificate.upper, value, rtol=1e-9)
    # One neuron between the rows is the best of all exactly for rho >= -1/2.
    a = (t * kappa - lam) / (1 + rho)
    u = X.sum(axis=0) / np.linalg.norm(X.sum(axis=0))
    one = jr.Network(jnp.asarray(np.sqrt(a) * u[:, None]), jnp.asarray([np.sqrt(a)]))
    gap = jr.certify_global(one, X, y, lam).gap
    assert (gap <= 1e-9) == (rho >= -0.5)


@pytest.mark.slow
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", [2, 5, 8])
def test_refinement_agrees_with_an_independent_solver_over_all_cells(seed, loss, ones):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((10, 2)), np.sign(rng.standard_normal(10))
    if ones:
        X = np.column_stack([X, np.ones(10)])
    cells = jr.enumerate_patterns(X)
    lam = 0.1 * float(jr.lambda_max(jr.ConvexProgram(X, y, cells, LOSSES[loss])))
    value = solve_with_clarabel(X, y, np.asarray(cells.masks) > 0, lam, loss)[0]
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 2), LOSSES[loss])
    found = jr.refine(program, lam, rtol=1e-7, max_work=600.0)
    assert found.status is jr.Status.OPTIMAL
    np.testing.assert_allclose(found.certificate.upper, value, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d"), [(14, 4), (14, 6), (13, 14)])
def test_fourteen_rows_are_certified(n, d):
    rng = np.random.default_rng(n + d)
    X, y = rng.standard_normal((n, d)), np.sign(rng.standard_normal(n))
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4))
    found = jr.refine(program, 0.1 * float(jr.lambda_max(program)), max_work=300.0)
    assert found.status is jr.Status.OPTIMAL


@pytest.mark.slow
def test_two_features_and_a_bias_are_certified_on_hundreds_of_samples():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((300, 2)), np.ones(300)])
    y = np.sign(np.sin(2 * X[:, 0]) + X[:, 1])
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 16))
    lam = 0.1 * float(jr.lambda_max(program))
    found = jr.refine(program, lam, max_work=300.0)
    assert found.status is jr.Status.OPTIMAL
    assert found.gauge.upper_by == "sweep of walls"
    assert found.certificate.upper < jr.solve(program, lam).certificate.upper


@pytest.mark.slow
def test_single_precision():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((12, 3)).astype("float32")
    y = np.sign(rng.standard_normal(12)).astype("float32")
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 2))
    lam = 0.1 * float(jr.lambda_max(program))
    found = jr.refine(program, lam, max_work=600.0)
    assert found.status is jr.Status.OPTIMAL
    assert found.certificate.upper.dtype == jnp.float32
    assert abs(found.certificate.gap) <= 1e-3 * found.certificate.upper
    wide = jr.ConvexProgram(
        X.astype(float), y.astype(float), jr.enumerate_patterns(X.astype(float))
    )
    best = jr.solve(wide, lam, rtol=1e-8).certificate
    again = jr.certify_global(found.network, X, y, lam)
    for certificate in (found.certificate, again):
        assert float(certificate.lower) <= float(best.upper) * (1 + 1e-5)
        assert float(certificate.upper) >= float(best.lower) * (1 - 1e-5)


@pytest.mark.slow
def test_places_that_run_out_are_a_limit_and_no_stall():
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((12, 4)), np.sign(rng.standard_normal(12))
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 2))
    lam = 0.02 * float(jr.lambda_max(program))
    found = jr.refine(program, lam, max_patterns=2, max_work=600.0)
    assert found.status is jr.Status.MAX_STEPS
    assert found.history[-1].correlation > 1.0


def test_wrong_arguments():
    X, y = rows(0.0), np.ones(2)
    program = jr.ConvexProgram(X, y, jr.enumerate_patterns(X))
    for search in (jr.refine, jr.cross_walls):
        with pytest.raises(ValueError, match="refine_path"):
            search(program, [0.5, 0.1])
        with pytest.raises(ValueError, match="max_seconds"):
            search(program, 0.5, max_seconds=-1.0)
        with pytest.raises(TypeError, match="outside jit"):
            jax.jit(lambda lam, search=search: search(program, lam).certificate)(0.5)
    with pytest.raises(ValueError, match="max_seconds"):
        jr.certify_global(nothing(), X, y, 0.5, max_seconds=float("nan"))
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda lam: jr.certify_global(nothing(), X, y, lam))(0.5)
