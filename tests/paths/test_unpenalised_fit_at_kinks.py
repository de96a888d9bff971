"""The best unpenalised fit of a loss with kinks, and the residuals that belong to it."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.optimize import linprog

import jaxrelu as jr
from jaxrelu.paths.unpenalised_fit_at_kinks import kinked_free_fit

CASES = ("skip", "bias and skip", "bias", "cones", "pair", "gated")


def made(case, X, y, loss):
    bias = "free" if "bias" in case else "none"
    gated = case == "gated"
    patterns = jr.sample_patterns(jax.random.key(0), X, 6, bias=bias, gated=gated)
    kind = jr.GatedProgram if gated else jr.ConvexProgram
    program = kind(X, y, patterns, loss)
    if bias == "free":
        return replace(program, bias="free", skip="skip" in case)
    if case == "skip":
        return replace(program, skip=True)
    weights = np.ones(program.block_shape)
    if gated:
        weights[1] = 0.0
    elif case == "pair":
        weights[:, 1] = 0.0
    else:
        weights[0, 1] = weights[1, 2] = 0.0
    return replace(program, block_weights=weights)


def data(n=30, d=3):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    return X, np.maximum(X[:, 0], 0.0) + 0.5 * X[:, 1] + 0.3 * rng.standard_normal(n)


def ends(fit):
    return -fit.above, -fit.below


@pytest.mark.parametrize("case", CASES)
def test_the_residuals_have_the_value_of_the_fit(case):
    """Strong duality: sum_i r_i y_i is the least loss, whichever residual is taken."""
    X, y = data()
    fit = kinked_free_fit(made(case, X, y, jr.AbsoluteLoss()))
    low, high = ends(fit)
    values = []
    for start in (np.zeros(len(y)), 9.0 * np.sign(y), -9.0 * X[:, 2]):
        r, away = fit.equalities.nearest(start, low, high)
        assert np.all((r >= low) & (r <= high))
        assert away <= 1e-10
        values.append(r @ y)
    np.testing.assert_allclose(values, values[0], rtol=1e-9)
    if case == "skip":
        n, d = X.shape
        cost = np.append(np.zeros(d), np.ones(2 * n))
        columns = np.hstack([X, -np.eye(n), np.eye(n)])
        bounds = [(None, None)] * d + [(0, None)] * 2 * n
        np.testing.assert_allclose(
            values[0], linprog(cost, A_eq=columns, b_eq=y, bounds=bounds).fun
        )


@pytest.mark.parametrize("case", ["bias and skip", "cones"])
def test_units_move_nothing(case):
    X, y = data()
    fit = kinked_free_fit(made(case, X, y, jr.AbsoluteLoss()))
    for size, unit in ((1e-11, 1.0), (1e11, 1.0), (1.0, 1e-30), (1.0, 1e30)):
        other = kinked_free_fit(made(case, size * X, unit * y, jr.AbsoluteLoss()))
        np.testing.assert_array_equal(ends(fit), ends(other))


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_targets_far_away_are_not_tied(offset):
    X, y = data()
    fit = kinked_free_fit(made("bias and skip", X, y + offset, jr.AbsoluteLoss()))
    low, high = ends(fit)
    assert np.sum(low < high) == X.shape[1] + 1


def test_samples_of_weight_zero_are_not_looked_at():
    X, y = data()
    weight = np.ones(len(y))
    weight[3] = 0.0
    program = replace(made("skip", X, y, jr.AbsoluteLoss()), sample_weight=weight)
    fits = [
        kinked_free_fit(replace(program, y=np.where(weight > 0, y, target)))
        for target in (0.0, 1e12, np.nan)
    ]
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.above[weight > 0], fits[0].above[weight > 0])


def test_features_with_few_values_are_no_obstacle():
    """Samples that are equal are at the kink together, or none of them is."""
    rng = np.random.default_rng(1)
    X = rng.integers(0, 2, (400, 5)).astype(float)
    y = np.where(rng.standard_normal(400) > 0.3, 1.0, -1.0)
    fit = kinked_free_fit(made("bias and skip", X, y, jr.HingeLoss()))
    low, high = ends(fit)
    _, away = fit.equalities.nearest(np.zeros(400), low, high)
    assert away <= 1e-9
