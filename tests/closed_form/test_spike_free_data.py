"""Spike-free data: decided, refuted, and the program that holds on them."""

import numpy as np
import pytest
from closed_form_checks import LAM, orthonormal, seen, solved

import jaxrelu as jr
from jaxrelu import closed_form


def stretch(X, u):
    """||X^+ (X u)_+||, infinite where (X u)_+ is not in the range of X."""
    z, *_ = np.linalg.lstsq(X, seen(X, u), rcond=None)
    inside = np.linalg.norm(X @ z - seen(X, u)) <= 1e-9 * np.linalg.norm(X)
    return np.linalg.norm(z) if inside else np.inf


@pytest.mark.parametrize(
    ("X", "holds"),
    [
        (np.eye(3), True),
        (np.diag([1.0, 5.0, 0.1]) @ np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0],
         True),
        (np.outer([1.0, 0.0, 3.0], [1.0, -2.0]), True),
        (np.outer([1.0, -1.0], [1.0]), False),
        (np.asarray([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]), True),
        (np.asarray([[1.0, 0.0], [-1.0, 5.0]]), False),
        (np.asarray([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), False),
        (np.asarray([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0]]), True),
        (np.asarray([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, 1.0, 1.0], [0.0, 0.0, 1.0]]), False),
    ],
)  # fmt: skip
def test_spike_free_is_decided_and_refutations_have_a_witness(X, holds):
    found = closed_form.is_spike_free(X)
    assert found.holds is holds
    tried = np.random.default_rng(0).standard_normal((X.shape[1], 500))
    worst = max(stretch(X, u / np.linalg.norm(u)) for u in tried.T)
    if holds:
        assert worst <= 1 + 1e-9
        np.testing.assert_array_equal(found.witness, 0.0)
    else:
        np.testing.assert_allclose(np.linalg.norm(found.witness), 1.0, rtol=1e-12)
        reached = stretch(X, np.asarray(found.witness))
        assert reached > 1 + 1e-9
        if np.isfinite(found.lower):
            np.testing.assert_allclose(reached, found.lower, rtol=1e-9)


def test_spike_free_bounds_hold_on_random_data(rng):
    decided = []
    for k in range(60):
        X = rng.standard_normal((3, 4)) + (1.5 if k % 2 else 0.0)
        found = closed_form.is_spike_free(X)
        decided.append(found.holds)
        tried = rng.standard_normal((4, 300))
        worst = max(stretch(X, u / np.linalg.norm(u)) for u in tried.T)
        assert worst <= found.upper + 1e-9
        assert worst <= 1 + 1e-9 or found.holds is False
        if not found.holds:
            assert stretch(X, np.asarray(found.witness)) >= found.lower - 1e-9 > 1
    assert {True, False} <= set(decided)


def test_columns_of_any_units_do_not_hide_a_witness():
    # More rows than columns, in general position: never spike-free.
    for seed in range(12):
        X = np.random.default_rng(seed).lognormal(size=(8, 3)) * [1.0, 2.0**14, 1.0]
        found = closed_form.is_spike_free(X)
        assert found.holds is False
        assert stretch(X, np.asarray(found.witness)) > 1 + 1e-9


def test_nearly_dependent_rows_are_left_open():
    X = np.asarray([[1.0, 0.0, 0.0], [1.0, 1e-10, 0.0], [1.0, 0.0, 1e-10]])
    found = closed_form.is_spike_free(X)
    assert found.holds is None
    assert found.lower <= found.upper


@pytest.mark.slow  # compiles the solver
def test_spike_free_program_is_optimal_where_it_should_be(rng):
    X, y = orthonormal(rng, 3, 5), np.asarray([1.0, -2.0, 0.5])
    known = closed_form.whitened(X, y, LAM)
    found = closed_form.spike_free(X, y, LAM)
    np.testing.assert_allclose(found.value, known.value, rtol=1e-8)
    np.testing.assert_allclose(found.fit, known.fit, atol=1e-6)
    assert found.exact
    # Not whitened: rows at small angles, with the logistic loss too.
    X = np.asarray([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0]])
    for loss, target in ((jr.SquaredLoss(), y), (jr.LogisticLoss(), np.sign(y))):
        found = closed_form.spike_free(X, target, LAM, loss)
        program = jr.ConvexProgram(X, target, jr.enumerate_patterns(X), loss)
        certificate = jr.solve(program, LAM, rtol=1e-8).certificate
        assert certificate.lower <= found.value * (1 + 1e-9)
        assert found.value <= certificate.upper * (1 + 2e-8)
        assert found.exact
    # Spiky data: an upper bound, and honest about it.
    X = np.random.default_rng(1).standard_normal((3, 5))
    assert closed_form.is_spike_free(X).holds is False
    found = closed_form.spike_free(X, y, LAM)
    true, _ = solved(X, y, LAM)
    assert found.lower - 1e-9 <= true < found.value - 1e-4
    assert not found.exact
    assert found.polar > LAM * (1 + 1e-4)
