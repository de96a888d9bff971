"""A device that computes wrong values ends in a sentence, not in a number."""

import jax
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu.core import device

KINDS = {"sums": 0, "products": 1, "Cholesky factors": 2}


@pytest.fixture
def accelerator(monkeypatch):
    """This device, taken for another kind."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    device._check_accelerator.cache_clear()
    yield
    device._check_accelerator.cache_clear()


@pytest.fixture
def program():
    X = np.random.default_rng(0).standard_normal((6, 2))
    return jr.ConvexProgram(X, X[:, 0], jr.patterns_from_gates(X, np.eye(2)))


def planted(monkeypatch, place, change):
    true = device._computed

    def wrong(A):
        found = [np.array(value) for value in true(A)]
        found[place] = change(found[place])
        return tuple(found)

    monkeypatch.setattr(device, "_computed", wrong)


def one_entry_off(value):
    value[(0,) * value.ndim] *= 1 + 1e-3
    return value


def one_nan(value):
    value[(0,) * value.ndim] = np.nan
    return value


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_device_is_well_within_what_is_allowed(dtype):
    # Of a Cholesky factor in float32: 0.03 on some CPUs, 0.14 on others.
    assert all(0 < error < 0.3 for error in device.device_errors(dtype).values())


@pytest.mark.parametrize("change", [one_entry_off, one_nan])
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_values_are_named_before_anything_is_solved(
    monkeypatch, accelerator, program, kind, change
):
    planted(monkeypatch, KINDS[kind], change)
    calls = (
        lambda: jr.solve(program, 0.1),
        lambda: jr.solve_path(program, [0.1]),
        lambda: jax.jit(lambda lam: jr.solve_grid(program, lam))(np.ones(2)),
        lambda: jr.certify(program, np.zeros((2, 2, 2)), 0.1),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match=rf"computes wrong {kind} in float64.*JAX_PLATFORMS"):
            call()


def test_a_wrong_solution_of_a_right_factor_is_seen(monkeypatch, accelerator, program):
    planted(monkeypatch, 3, one_entry_off)
    with pytest.raises(RuntimeError, match="wrong Cholesky factors"):
        jr.solve(program, 0.1)


def test_an_accelerator_is_tried_once_for_each_dtype(monkeypatch, accelerator, program):
    calls = []
    true = device._computed
    monkeypatch.setattr(device, "_computed", lambda A: calls.append(A.dtype) or true(A))
    for dtype in ("float64", "float32", "float64"):
        device.check_device(dtype)
    assert calls == ["float64", "float32"]


def test_the_jaxlib_that_is_known_to_be_wrong_is_refused(monkeypatch, program):
    monkeypatch.setattr(device, "version", lambda name: "0.10.2")
    with pytest.raises(RuntimeError, match=r"jaxlib 0\.10\.2.*install jax and jaxlib 0\.10\.1"):
        jr.solve(program, 0.1)
