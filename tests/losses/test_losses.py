from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxrelu.core.pytrees import register
from jaxrelu.losses import LogisticLoss, SquaredLoss, base, checks


@register
@dataclass(frozen=True, eq=False)
class Huber:
    """A loss that a user writes: quadratic up to delta, linear beyond."""

    delta: jax.Array
    smoothness = 1.0

    def value(self, fit, target):
        excess = jnp.maximum(jnp.abs(fit - target) - self.delta, 0.0)
        return 0.5 * (fit - target) ** 2 - 0.5 * excess**2

    def gradient(self, fit, target):
        return jnp.clip(fit - target, -self.delta, self.delta)

    def conjugate(self, dual, target):
        quadratic = dual * target + 0.5 * dual**2
        return jnp.where(jnp.abs(dual) > self.delta, jnp.inf, quadratic)

    def check_target(self, target):
        pass


LOSSES = [SquaredLoss(), LogisticLoss(), Huber(jnp.asarray(0.85))]
NAMES = ["squared", "logistic", "huber"]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
# With the loss as an argument, its parameters are traced leaves and nothing compiles twice.
value = jax.jit(lambda loss, f, y: loss.value(f, y))
gradient = jax.jit(lambda loss, f, y: loss.gradient(f, y))
conjugate = jax.jit(lambda loss, u, y: loss.conjugate(u, y))
curvature, total, total_conjugate = map(jax.jit, (base.curvature, base.total, base.total_conjugate))

FIT = jnp.asarray([-2.0, -0.3, 0.0, 0.4, 1.1, 3.0])
TARGET = jnp.asarray([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
WEIGHT = jnp.asarray([0.5, 2.0, 0.0, 1.0, 3.0, 1.0])
DUAL = jnp.asarray([-0.6, 0.3, -0.05, -0.5, 0.65, -0.2])  # inside the domain of every loss here


@every_loss
def test_gradient_is_the_derivative_of_the_value(loss):
    step = 1e-6
    difference = (value(loss, FIT + step, TARGET) - value(loss, FIT - step, TARGET)) / (2 * step)
    np.testing.assert_allclose(gradient(loss, FIT, TARGET), difference, rtol=1e-8, atol=1e-9)


@every_loss
def test_curvature_is_the_derivative_of_the_gradient_and_at_most_the_smoothness(loss):
    step = 1e-6
    high, low = (gradient(loss, FIT + s, TARGET) for s in (step, -step))
    second = curvature(loss, FIT, TARGET)
    np.testing.assert_allclose(second, (high - low) / (2 * step), rtol=1e-7, atol=1e-8)
    wide = jnp.linspace(-5.0, 5.0, 1001)
    largest = curvature(loss, wide, jnp.ones(1001)).max()
    # Tight as well as valid: a constant twice too large would halve every step.
    np.testing.assert_allclose(largest, loss.smoothness, rtol=1e-4)


@every_loss
def test_conjugate_is_the_supremum_over_fits(loss):
    fits = jnp.linspace(-30.0, 30.0, 600_001)
    for u, y in zip(DUAL, TARGET, strict=True):
        supremum = (u * fits - value(loss, fits, jnp.full_like(fits, y))).max()
        np.testing.assert_allclose(conjugate(loss, u[None], y[None])[0], supremum, atol=1e-8)


@every_loss
def test_fenchel_young_is_tight_at_the_gradient_only(loss):
    def gap(dual):
        return value(loss, FIT, TARGET) + conjugate(loss, dual, TARGET) - dual * FIT

    slope = gradient(loss, FIT, TARGET)
    np.testing.assert_allclose(gap(slope), np.zeros(6), atol=1e-14)
    assert (gap(0.9 * slope) > 0).all()
    assert (gap(1.1 * slope) > 0).all()


@pytest.mark.parametrize("name", ["squared", "logistic"])
def test_agrees_with_the_twin_in_loops(name):
    loss = dict(zip(NAMES, LOSSES, strict=True))[name]
    pairs = list(zip(np.asarray(FIT), np.asarray(TARGET), strict=True))
    expected = [reference.sample_loss(f, y, name) for f, y in pairs]
    np.testing.assert_allclose(value(loss, FIT, TARGET), expected, rtol=1e-14)
    expected = [reference.sample_gradient(f, y, name) for f, y in pairs]
    np.testing.assert_allclose(gradient(loss, FIT, TARGET), expected, rtol=1e-14)
    np.testing.assert_allclose(
        total(loss, FIT, TARGET, WEIGHT),
        reference.total_loss(FIT, TARGET, name, WEIGHT),
        rtol=1e-14,
    )
    dual = WEIGHT * DUAL
    np.testing.assert_allclose(
        -total_conjugate(loss, dual, TARGET, WEIGHT),
        reference.dual_value(np.asarray(-dual), TARGET, name, WEIGHT),
        rtol=1e-13,
    )


def test_logistic_at_extreme_margins():
    loss = LogisticLoss()
    fit = jnp.asarray([1e3, -1e3, 40.0, -40.0])
    ones = jnp.ones(4)
    np.testing.assert_allclose(
        value(loss, fit, ones), [0.0, 1e3, np.exp(-40.0), 40.0], rtol=1e-14, atol=0
    )
    np.testing.assert_allclose(
        gradient(loss, fit, ones), [0.0, -1.0, -np.exp(-40.0), -1.0], rtol=1e-14, atol=0
    )
    np.testing.assert_allclose(curvature(loss, fit, ones)[:2], np.zeros(2), atol=0)
    # Fenchel-Young holds to rounding where a naive log(p), log(1 - p) would give NaN.
    slope = gradient(loss, fit, ones)
    total_gap = value(loss, fit, ones) + conjugate(loss, slope, ones) - slope * fit
    np.testing.assert_allclose(total_gap, np.zeros(4), atol=1e-12)
    flipped = gradient(loss, -fit, -ones)
    np.testing.assert_array_equal(flipped, -slope)


def test_logistic_conjugate_at_the_edges_of_its_domain():
    duals = jnp.asarray([0.0, -1.0, -0.5, 1e-9, -1.0 - 1e-9, jnp.nan])
    edges = conjugate(LogisticLoss(), duals, jnp.ones(6))
    np.testing.assert_allclose(edges, [0.0, 0.0, -np.log(2), np.inf, np.inf, np.nan], rtol=1e-15)
    mirrored = conjugate(LogisticLoss(), -duals, -jnp.ones(6))
    np.testing.assert_array_equal(mirrored, edges)
    tiny = conjugate(LogisticLoss(), jnp.asarray([-1e-12]), jnp.ones(1))
    np.testing.assert_allclose(tiny, [1e-12 * (np.log(1e-12) - 1)], rtol=1e-11)


@every_loss
def test_derivatives_are_finite_at_saturated_samples(loss):
    fit = jnp.asarray([1e3, -1e3, 0.0])
    ones = jnp.ones(3)

    def gap(f):
        dual = loss.gradient(f, ones)
        return jnp.sum(loss.value(f, ones) + loss.conjugate(dual, ones) - dual * f)

    assert np.isfinite(jax.jit(jax.grad(gap))(fit)).all()
    assert np.isfinite(jax.jit(jax.hessian(gap))(fit)).all()
    assert np.isfinite(curvature(loss, fit, ones)).all()


@every_loss
def test_a_sample_of_weight_zero_counts_for_nothing(loss):
    kept = np.flatnonzero(WEIGHT)
    f, y, w = FIT[kept], TARGET[kept], WEIGHT[kept]
    np.testing.assert_allclose(total(loss, FIT, TARGET, WEIGHT), total(loss, f, y, w), rtol=1e-15)
    np.testing.assert_array_equal(base.total_gradient(loss, FIT, TARGET, WEIGHT)[2], 0.0)
    np.testing.assert_array_equal(base.total_curvature(loss, FIT, TARGET, WEIGHT)[2], 0.0)
    dual = WEIGHT * DUAL
    np.testing.assert_allclose(
        total_conjugate(loss, dual, TARGET, WEIGHT),
        total_conjugate(loss, dual[kept], y, w),
        rtol=1e-14,
    )
    assert total_conjugate(loss, dual.at[2].set(1e-3), TARGET, WEIGHT) == np.inf
    assert np.isnan(total_conjugate(loss, dual.at[2].set(jnp.nan), TARGET, WEIGHT))


@every_loss
def test_weighted_conjugate_matches_the_weighted_loss(loss):
    # A weight of 2 is the same sample twice, and the dual is shared between the two.
    twice = jnp.full(6, 2.0)
    doubled = [jnp.concatenate([a, a]) for a in (FIT, TARGET, DUAL)]
    np.testing.assert_allclose(
        total(loss, FIT, TARGET, twice), total(loss, *doubled[:2], jnp.ones(12)), rtol=1e-14
    )
    np.testing.assert_allclose(
        total_conjugate(loss, 2 * DUAL, TARGET, twice),
        total_conjugate(loss, doubled[2], doubled[1], jnp.ones(12)),
        rtol=1e-14,
    )
    slope = base.total_gradient(loss, FIT, TARGET, WEIGHT)
    gap = total(loss, FIT, TARGET, WEIGHT) + total_conjugate(loss, slope, TARGET, WEIGHT)
    np.testing.assert_allclose(gap, slope @ FIT, atol=1e-14)


@every_loss
@pytest.mark.parametrize("function", [value, gradient, conjugate])
def test_nan_propagates(loss, function):
    out = function(loss, DUAL.at[1].set(jnp.nan), TARGET)
    np.testing.assert_array_equal(np.isnan(out), np.arange(6) == 1)


@every_loss
def test_float32_stays_float32_and_its_gradient_stays_in_the_domain(loss, single):
    fit, target = jnp.linspace(-60, 60, 121, dtype=jnp.float32), jnp.ones(121, dtype=jnp.float32)
    loss = single(loss)
    weight = jnp.full(121, 0.3, dtype=jnp.float32)
    slope = base.total_gradient(loss, fit, target, weight)
    # A GPU's division may be off by an ulp, at the edge of the domain to the outside.
    inside = slope * np.float32(1 - 1e-6)
    bound = total_conjugate(loss, inside, target, weight)
    assert {a.dtype for a in (slope, bound, value(loss, fit, target))} == {jnp.dtype("float32")}
    assert np.isfinite(bound)
    np.testing.assert_allclose(total(loss, fit, target, weight) + bound, slope @ fit, rtol=1e-5)
    exact = np.asarray(fit, dtype=float)
    if isinstance(loss, LogisticLoss):
        tail = -1 / (1 + np.exp(exact))
        np.testing.assert_allclose(gradient(loss, fit, target), tail, rtol=1e-6)


def test_a_parameter_of_a_loss_can_be_batched_and_differentiated():
    deltas = jnp.asarray([0.1, 0.5, 10.0])
    values = jax.jit(jax.vmap(lambda d: Huber(d).value(FIT, TARGET)))(deltas)
    np.testing.assert_allclose(values[2], SquaredLoss().value(FIT, TARGET), rtol=1e-14)
    assert (values[0] <= values[1]).all()
    in_delta = jax.jit(jax.grad(lambda h: h.value(jnp.float64(3.0), jnp.float64(1.0))))
    np.testing.assert_allclose(in_delta(Huber(jnp.float64(0.5))).delta, 1.5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 1], r"pass 2 \* y - 1"), ([1.0, 2.0], "map the two classes"), ([0.5], "SquaredLoss")],
)
def test_logistic_refuses_other_labels_and_names_the_fix(labels, message):
    with pytest.raises(ValueError, match=message):
        LogisticLoss().check_target(np.asarray(labels))


def test_targets_that_pass():
    for labels in ([-1, 1], [1.0, 1.0], [np.nan, -1.0]):
        LogisticLoss().check_target(np.asarray(labels))
    SquaredLoss().check_target(np.asarray([0.3, np.nan]))

    @jax.jit
    def traced(y):
        LogisticLoss().check_target(y)
        return y

    assert traced(jnp.zeros(2)).shape == (2,)  # values are not known here: nothing to refuse


@pytest.mark.parametrize("loss", [SquaredLoss(), LogisticLoss()])
def test_the_derivative_by_a_weight_of_zero_is_the_loss_of_the_sample(loss):
    fit, y = jnp.asarray([0.5, -2.0]), jnp.asarray([1.0, 1.0])
    weight = jnp.asarray([1.0, 0.0])
    by_weight = jax.grad(lambda c: base.total(loss, fit, y, c))(weight)
    np.testing.assert_allclose(by_weight, loss.value(fit, y), rtol=1e-12)
    # A sample that counts for nothing may be missing.
    gone = jnp.asarray([1.0, jnp.nan])
    assert np.isfinite(base.total(loss, fit, gone, weight))
    assert base.total_gradient(loss, fit, gone, weight)[1] == 0


@register
@dataclass(frozen=True)
class Positive(SquaredLoss):
    """A loss of a user, who checks with JAX."""

    def check_target(self, target):
        if not jnp.all(jnp.asarray(target) > 0):
            raise ValueError("y has to be positive.")


def test_a_check_of_targets_written_in_jax_is_asked_about_known_values_only():
    fit, target, negative = jnp.ones(2), jnp.asarray([1.0, 2.0]), jnp.asarray([1.0, -2.0])

    def samples(fit, target):
        return checks.checked_samples(Positive(), fit, target)[0]

    expected = samples(fit, target)
    np.testing.assert_array_equal(jax.jit(samples)(fit, target), expected)
    np.testing.assert_array_equal(jax.jit(lambda f: samples(f, target))(fit), expected)
    with pytest.raises(ValueError, match="y has to be positive"):
        jax.jit(lambda f: samples(f, negative))(fit)
