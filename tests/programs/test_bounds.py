"""Bounds that hold as printed, in exact arithmetic, over hundreds of orders of magnitude."""

from collections import Counter
from dataclasses import replace

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.programs.units import in_units

SHAPE = (7, 3, 12)
SOLVER = jr.ActiveNewton(capacity=16)


def random_case(seed, dtype, loss):
    """A small program with data, targets and weights of any size, and a lam below its critical one.

    Every fifth one is generic, has parallel rows, nearly dependent columns, a row of zeros, or
    numbers on a grid, whose fits and walls are exact.
    """
    n, d, p = SHAPE
    rng = np.random.default_rng(seed)
    X, y, kind = rng.standard_normal((n, d)), rng.standard_normal(n), seed % 5
    if kind == 1:
        X[3], X[4] = X[1], -2 * X[0]
    elif kind == 2:
        X[:, 2] = X[:, 0] + 1e-9 * X[:, 1]
    elif kind == 3:
        X[2] = 0.0
    elif kind == 4:
        X = np.round(X * 2) / 2
    wide = 75 if dtype == "float64" else 6
    size = 10.0 ** rng.uniform(-wide, wide, 3)
    X, y = (X * size[0]).astype(dtype), (y * size[1]).astype(dtype)
    if isinstance(loss, jr.LogisticLoss):
        y = np.where(y < 0, -1, 1).astype(dtype)
    weight = np.ones(n) if seed % 3 else rng.uniform(0.1, 2.0, n) * size[2]
    gates = rng.standard_normal((d, p)).astype(dtype)
    masks = X.astype(np.longdouble) @ gates.astype(np.longdouble) >= 0
    program = jr.ConvexProgram(X, y, jr.Patterns(gates, masks), loss, weight.astype(dtype))
    return program, 10.0 ** rng.uniform(-6, 0.2)


def faults_of(seeds, dtype, loss):
    """All that is wrong with the certificates of `solve` and `certify`, and the statuses."""
    faults, statuses = [], Counter()
    for seed in seeds:
        program, share = random_case(seed, dtype, loss)
        lam = np.asarray(share * float(jr.lambda_max(program)), dtype)
        solution = jr.solve(program, lam, solver=SOLVER)
        statuses[jr.Status(int(solution.status)).name] += 1
        again = jr.certify(program, lam, solution.weights, multipliers=True)
        for certificate in (solution.certificate, again):
            faults += [(seed, f) for f in exact.certificate_faults(program, lam, certificate)]
    return faults, statuses


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_certificates_hold_exactly(dtype):
    faults, statuses = faults_of(range(15), dtype, jr.SquaredLoss())
    assert not faults
    assert statuses["OPTIMAL"] >= (14 if dtype == "float64" else 8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", [jr.SquaredLoss(), jr.LogisticLoss()])
def test_many_certificates_hold_exactly(loss, dtype):
    faults, statuses = faults_of(range(100, 600), dtype, loss)
    assert not faults
    assert statuses["OPTIMAL"] >= (475 if dtype == "float64" else 350)


def kinked_case(seed, dtype, loss):
    """One with ties, targets that are zero or all the same, and samples that do not count."""
    program, share = random_case(seed, dtype, loss)
    rng, y = np.random.default_rng(seed), np.asarray(program.y)
    if isinstance(loss, jr.HingeLoss):
        y = np.where(y < 0, -1, 1) if seed % 4 else np.ones_like(y)
    else:
        size = np.abs(y).max()
        y = [np.round(y / size) * size, 0 * y, np.full_like(y, size), y][seed % 4]
    weight = np.asarray(program.sample_weight) * (rng.random(len(y)) > 0.1 * (seed % 2))
    return replace(program, y=y.astype(dtype), sample_weight=weight.astype(dtype)), share


def kinked_faults(seeds, dtype, loss):
    faults, statuses = [], Counter()
    for seed in seeds:
        program, share = kinked_case(seed, dtype, loss)
        top = float(jr.lambda_max_interval(program)[1])
        lam = np.asarray(share * top if top > 0 else 1.0, dtype)
        if not 0 < lam < np.inf:
            continue
        solution = jr.solve(program, lam, solver=SOLVER)
        statuses[jr.Status(int(solution.status)).name] += 1
        faults += [(seed, f) for f in exact.certificate_faults(program, lam, solution.certificate)]
    return faults, statuses


def test_certificates_at_kinks_hold_exactly():
    faults, statuses = kinked_faults(range(8), "float64", jr.AbsoluteLoss())
    assert not faults
    assert statuses["OPTIMAL"] >= 7


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "loss",
    [jr.HingeLoss(), jr.AbsoluteLoss(), jr.QuantileLoss(np.asarray(0.3)),
     jr.QuantileLoss(np.asarray(1e-6)), jr.QuantileLoss(np.asarray(1 - 1e-6))],
    ids=["hinge", "absolute", "quantile", "q near 0", "q near 1"],
)  # fmt: skip
def test_many_certificates_at_kinks_hold_exactly(loss, dtype):
    faults, statuses = kinked_faults(range(100, 200), dtype, loss)
    assert not faults
    assert statuses["OPTIMAL"] >= (90 if dtype == "float64" else 50)


def test_the_checker_sees_a_fault():
    program, share = random_case(0, "float64", jr.SquaredLoss())
    lam = np.asarray(share * float(jr.lambda_max(program)))
    solution = jr.solve(program, lam, solver=SOLVER)
    proof = jr.certify(program, lam, solution.weights, multipliers=True)
    assert not exact.certificate_faults(program, lam, proof)
    unit = np.spacing(float(proof.upper))
    for wrong in (
        replace(proof, upper=proof.upper - 10_000 * unit),
        replace(proof, lower=proof.lower + 10_000 * unit),
        replace(proof, weights=jnp.flip(proof.weights, axis=1)),
        replace(proof, multipliers=0.9 * proof.multipliers),
        replace(proof, dual=1.001 * proof.dual),
    ):
        assert exact.certificate_faults(program, lam, wrong)


GENERIC = zoo.problem(zoo.generic)


@pytest.mark.parametrize("factor", [1e-150, 1e-70, 1e60, 1e140])
def test_targets_of_any_size_have_the_same_answer(factor):
    # Weights and lam scale with the targets, the value with their square.
    lam = GENERIC.lams(0.1)[0]
    power = 2.0 ** round(np.log2(factor))
    program = replace(GENERIC.program, y=power * GENERIC.program.y)
    plain, scaled = jr.solve(GENERIC.program, lam), jr.solve(program, power * lam)
    assert int(scaled.status) == jr.Status.OPTIMAL
    np.testing.assert_array_equal(scaled.weights, power * plain.weights)
    np.testing.assert_array_equal(scaled.certificate.upper, power**2 * plain.certificate.upper)
    np.testing.assert_array_equal(scaled.certificate.lower, power**2 * plain.certificate.lower)


@pytest.mark.parametrize(("factor", "status"), [(1e200, "NONFINITE"), (1e-160, "PRECISION_FLOOR")])
def test_values_that_no_number_holds_end_in_a_status(factor, status):
    program = replace(GENERIC.program, y=factor * GENERIC.program.y)
    solution = jr.solve(program, factor * GENERIC.lams(0.1)[0])
    assert jr.Status(int(solution.status)).name == status
    path = jr.solve_path(program, [factor * GENERIC.lams(0.1)[0]])
    assert [jr.Status(s).name for s in path.status.tolist()] == [status]


def test_float32_targets_whose_squares_vanish_are_not_optimal():
    rng, (n, d, p) = np.random.default_rng(0), SHAPE
    X, y, gates = (rng.standard_normal(s).astype("float32") for s in ((n, d), n, (d, p)))
    ones = np.ones(n, "float32")
    single = jr.ConvexProgram(X, y, jr.Patterns(gates, X @ gates >= 0), sample_weight=ones)
    lam = np.float32(0.1 * float(jr.lambda_max(single)))
    plain = jr.solve(single, lam, solver=SOLVER)
    assert int(plain.status) == jr.Status.OPTIMAL
    size = np.float32(5e-21)
    solution = jr.solve(replace(single, y=size * single.y), size * lam, solver=SOLVER)
    assert int(solution.status) == jr.Status.PRECISION_FLOOR
    # The network is the right one all the same.
    np.testing.assert_allclose(solution.fit / size, plain.fit, rtol=0.05, atol=0.05)


def test_units_change_no_digit():
    program = replace(
        GENERIC.program, X=1e100 * GENERIC.program.X, sample_weight=1e-40 * np.ones(zoo.SAMPLES)
    )
    scaled, units = jax.jit(in_units)(program)
    back = [np.ldexp(np.asarray(a), int(e)) for a, e in (
        (scaled.X, units.features), (scaled.y, units.fit),
        (scaled.sample_weight, units.residual - units.fit),
    )]  # fmt: skip
    for value, given in zip(back, (program.X, program.y, program.sample_weight), strict=True):
        np.testing.assert_array_equal(value, given)
    assert 0.1 < np.linalg.norm(scaled.X, axis=1).mean() < 10
    assert 0.5 <= float(jnp.max(scaled.sample_weight)) <= 2


def test_zero_targets_have_the_value_zero():
    program = replace(GENERIC.program, y=0.0 * GENERIC.program.y)
    solution = jr.solve(program, 1.0)
    assert int(solution.status) == jr.Status.OPTIMAL
    assert solution.certificate.upper == solution.certificate.lower == 0


@pytest.mark.slow
def test_a_cone_without_interior_is_no_place_for_weights():
    # Of the rows x and -x both bits are 1: only u with <x, u> = 0 is feasible.
    X = np.asarray([[1.0, 0.3], [-1.0, -0.3], [0.2, 1.0]])
    gates = np.asarray([[0.3], [-1.0]])
    patterns = jr.Patterns(gates, np.asarray([[True], [True], [False]]))
    program = jr.ConvexProgram(X, np.asarray([0.0, 0.0, -1.0]), patterns, sample_weight=np.ones(3))
    weights = np.asarray([[[0.3, -1.0]], [[0.0, 0.0]]])
    proof = jr.certify(program, 0.1, weights)
    assert not exact.certificate_faults(program, 0.1, proof)
