"""What every closed form refuses, and its precision."""

import doctest
import importlib

import jax
import numpy as np
import pytest
from closed_form_checks import LAM, Hidden

import jaxrelu as jr
from jaxrelu import closed_form

FORMS = [closed_form.whitened, closed_form.rank_one, closed_form.spike_free, closed_form.spline]


@pytest.mark.parametrize("form", FORMS)
def test_bad_input_names_the_fix(form):
    X, y = np.ones((1, 1)), np.ones(1)
    with pytest.raises(ValueError, match="lam is 0.0"):
        form(X, y, 0.0)
    with pytest.raises(ValueError, match="one number a row"):
        form(X, np.ones(2), LAM)
    with pytest.raises(ValueError, match="NaN or infinite"):
        form(X * np.nan, y, LAM)
    with pytest.raises(ValueError, match="pass a matrix"):
        form(np.ones((1, 1, 1)), y, LAM)
    with pytest.raises(TypeError, match="on the host"):
        jax.jit(lambda y: form(X, y, LAM).fit)(y)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: closed_form.whitened(2 * np.eye(2), np.ones(2), LAM), "pass X / s and lam / s"),
        (lambda: closed_form.whitened(np.ones((2, 1)), np.ones(2), LAM), "n <= d"),
        (lambda: closed_form.rank_one(np.eye(2), np.ones(2), LAM), "X has rank 2"),
        (lambda: closed_form.rank_one(np.zeros((2, 2)), np.ones(2), LAM), "X has rank 0"),
        (lambda: closed_form.spike_free(np.asarray([[1.0], [-1.0]]), np.ones(2), LAM), "no u has"),
        (lambda: closed_form.spline(np.arange(3.0), np.ones(3), bias="some"), "'penalised'"),
        (lambda: closed_form.spline(np.ones(2), np.arange(2.0)), "equal points"),
        (lambda: closed_form.spline_norm(np.ones(2), np.arange(2.0)), "equal points"),
        (lambda: closed_form.l0_l1_equivalent(np.ones((2, 2)), np.ones(2)), "full row rank"),
        (lambda: closed_form.l0_l1_equivalent(np.eye(2), np.zeros(2)), "y is zero"),
        (lambda: closed_form.l0_l1_equivalent(np.eye(2), np.full(2, np.nan)), "NaN or infinite"),
        (lambda: closed_form.is_spike_free(np.full((2, 2), np.inf)), "NaN or infinite"),
        (lambda: closed_form.is_spike_free(np.ones(2)), "pass a matrix"),
        (lambda: closed_form.spline_norm(np.arange(3.0), np.ones(2)), "one number a row"),
        (lambda: closed_form.separable(np.full((2, 2), np.nan), np.ones(2)), "NaN or infinite"),
    ],
)
def test_data_that_a_closed_form_does_not_take(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_single_precision_without_x64(x64_off):
    X, y = np.eye(3, dtype="float32"), np.asarray([1.0, -2.0, 0.5], "float32")
    found = closed_form.whitened(X, y, LAM)
    assert found.fit.dtype == np.float32
    assert found.exact
    assert closed_form.whitened(X, np.sign(y), LAM, Hidden(jr.LogisticLoss())).exact
    assert closed_form.rank_one(X[:, :1] + 0.5, y, LAM).exact
    assert closed_form.is_spike_free(X).holds is True
    assert closed_form.l0_l1_equivalent(X, y).holds is True
    x = np.arange(3, dtype="float32")
    for bias in ("free", "penalised", "none"):
        found = closed_form.spline(x, y, LAM, bias=bias)
        assert abs(found.gap) < 1e-6
        assert found(x).dtype == np.float32
    assert closed_form.separable(X[:1], np.ones(1, "float32")).value > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whitened_data", "rank_one_data", "spike_free_data", "splines",
                                  "sparsest_interpolants", "separable_data"])  # fmt: skip
def test_examples_run(name, x64_off):
    module = importlib.import_module(f"jaxrelu.closed_form.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
