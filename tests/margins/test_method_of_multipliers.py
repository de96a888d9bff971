"""Margins by solves of the convex program: limits, budgets, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from margin_checks import oracle, random_labels, shaped, symmetric

import jaxrelu as jr
from jaxrelu.margins.kkt_conditions import margin_conditions
from jaxrelu.margins.max_margin import max_margin
from jaxrelu.margins.method_of_multipliers import Shortfall
from jaxrelu.margins.minimum_norm import minimum_norm


@pytest.mark.slow
def test_zero_targets_and_few_solves():
    X, labels = random_labels(4)
    found = minimum_norm(*shaped(X, np.zeros(6)))
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    assert float(found.value) == 0.0
    assert found.network.num_neurons == 0
    exact = float(max_margin(*shaped(X, labels)).value)
    for problem in (max_margin, minimum_norm):
        early = problem(*shaped(X, labels), max_steps=2)
        assert jr.Status(int(early.status)) is jr.Status.MAX_STEPS
        assert int(early.num_steps) == 2
    early = max_margin(*shaped(X, labels), max_steps=2)
    assert float(early.lower) <= exact <= float(early.upper)
    assert float(early.gap) > 1e-6 * exact
    # A gap that no arithmetic can close is not waited for, and still a bound.
    late = max_margin(*shaped(X, labels), rtol=1e-16)
    assert jr.Status(int(late.status)) is jr.Status.STALLED
    np.testing.assert_allclose([late.lower, late.upper], exact, rtol=1e-6)


@pytest.mark.parametrize("one_sided", [True, False])
def test_the_loss_is_consistent(one_sided, rng):
    loss = Shortfall(jnp.asarray(one_sided))
    target = jnp.asarray(rng.choice([-1.5, 0.7], 200))
    fit, dual = (jnp.asarray(rng.normal(scale=2.0, size=200)) for _ in range(2))
    slope = jax.vmap(jax.grad(lambda f, t: loss.value(f[None], t[None])[0]))(fit, target)
    np.testing.assert_allclose(loss.gradient(fit, target), slope, atol=1e-12)
    # Fenchel and Young, with equality at the gradient.
    assert np.all(loss.value(fit, target) + loss.conjugate(dual, target) >= fit * dual - 1e-12)
    gradient = loss.gradient(fit, target)
    tight = loss.value(fit, target) + loss.conjugate(gradient, target) - fit * gradient
    np.testing.assert_allclose(tight, 0.0, atol=1e-12)
    beyond = np.asarray(fit * jnp.sign(target) > jnp.abs(target))
    assert np.any(beyond)
    assert np.all((np.asarray(loss.value(fit, target)) == 0) == (beyond & one_sided))


@pytest.mark.slow
def test_the_limit_of_the_squared_loss():
    # One target in reach of the network and one that is not.
    rng = np.random.default_rng(6)
    generic = rng.standard_normal((6, 2)), rng.standard_normal(6)
    paired = symmetric(rng.standard_normal((2, 2))), rng.standard_normal(6)
    for X, y in (generic, paired):
        X, y, patterns = shaped(X, y)
        found = minimum_norm(X, y, patterns)
        program = jr.ConvexProgram(X, y, patterns)
        away = 0.5 * np.sum((y - np.asarray(found.fit)) ** 2)
        lams = 1e-2 * 0.1 ** np.arange(3)
        values, moves = [], []
        for lam in lams:
            solution = jr.solve(program, lam, rtol=1e-9)
            values.append((float(solution.certificate.upper) - away) / lam)
            moves.append(np.max(np.abs(np.asarray(solution.fit - found.fit))))
        error = float(found.value) - np.asarray(values)
        assert np.all(error > -1e-5 * float(found.value))
        assert error[2] < 0.02 * error[0] + 1e-5 * float(found.value)
        # lam dual is feasible at every lam (with y - fit added): a bound, not only a limit.
        bound = 0.5 * lams * float(jnp.sum(found.dual**2))
        assert np.all(error <= bound + 1e-5 * float(found.value))
        assert moves[2] < 0.02 * moves[0]


@pytest.mark.slow
def test_single_precision_and_more_features_than_samples(single):
    X, y = random_labels(0)
    patterns = jr.enumerate_patterns(X)
    exact = oracle(X, y, patterns.masks, True)
    found = max_margin(*single((X, y)), single(patterns))
    assert found.value.dtype == np.float32
    assert jr.Status(int(found.status)) is jr.Status.OPTIMAL
    np.testing.assert_allclose(found.value, exact, rtol=2e-3)

    X, y = random_labels(1, (4, 7))
    patterns = jr.enumerate_patterns(X)
    found = minimum_norm(X, y, patterns)
    np.testing.assert_allclose(found.value, oracle(X, y, patterns.masks, False), rtol=1e-6)
    np.testing.assert_allclose(found.network(X), y, atol=1e-10)
    conditions = margin_conditions(max_margin(X, y, patterns).network, X, y, wall_tolerance=1e-5)
    np.testing.assert_allclose(conditions.gap / conditions.value, 0.0, atol=1e-5)
