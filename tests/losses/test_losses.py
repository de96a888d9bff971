from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrelu as jr
from jaxrelu.core.pytrees import register
from jaxrelu.losses import (
    HuberLoss,
    LogisticLoss,
    PoissonLoss,
    SquaredHingeLoss,
    SquaredLoss,
    base,
    checks,
)


@register
@dataclass(frozen=True, eq=False)
class PseudoHuber:
    """A loss that a user writes, with the five members that it needs."""

    delta: Any
    smoothness = 1.0

    def value(self, fit, target):
        return self.delta**2 * (jnp.sqrt(1 + ((fit - target) / self.delta) ** 2) - 1)

    def gradient(self, fit, target):
        return (fit - target) / jnp.sqrt(1 + ((fit - target) / self.delta) ** 2)

    def conjugate(self, dual, target):
        far = jnp.abs(dual) > self.delta
        root = jnp.sqrt(jnp.where(far, 1.0, 1 - (dual / self.delta) ** 2))
        return jnp.where(far, jnp.inf, dual * target + self.delta**2 * (1 - root))

    def check_target(self, target):
        pass


LABELS = jnp.asarray([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
RATES = jnp.asarray([1.0, 0.0, 2.0, 0.8, 3.0, 1e-3])
FIT = jnp.asarray([-2.0, -0.3, 0.0, 0.4, 1.1, 3.0])
WEIGHT = jnp.asarray([0.5, 2.0, 0.0, 1.0, 3.0, 1.0])
# Inside the domain of every conjugate here.
DUAL = jnp.asarray([-0.6, 0.3, -0.05, -0.5, 0.65, -0.2])
OFFSET = jnp.asarray([0.3, -0.2, 0.0, 1.0, -1.0, 0.1])


class Case(NamedTuple):
    """A loss with targets that it takes, and fits that are as far out as it can be computed."""

    loss: Any
    target: Any = LABELS
    dual: Any = DUAL
    far: float = 1e3
    twin: str | None = None


CASES = {
    "squared": Case(SquaredLoss(), twin="squared"),
    "logistic": Case(LogisticLoss(), twin="logistic"),
    "huber": Case(HuberLoss(jnp.asarray(0.85))),
    "huber, as the twin": Case(HuberLoss(reference.HUBER_DELTA), dual=0.7 * DUAL, twin="huber"),
    "huber, one delta a sample": Case(HuberLoss(0.7 + jnp.abs(OFFSET))),
    "squared hinge": Case(SquaredHingeLoss(), twin="squared_hinge"),
    "poisson": Case(PoissonLoss(), RATES, DUAL.at[5].set(0.2), 30.0, twin="poisson"),
    "poisson, offset": Case(PoissonLoss(OFFSET), RATES, DUAL.at[5].set(0.2), 30.0),
    "a user's": Case(PseudoHuber(jnp.asarray(0.85))),
}
every_loss = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
# With the loss as an argument, its parameters are traced leaves and nothing compiles twice.
value = jax.jit(lambda loss, f, y: loss.value(f, y))
gradient = jax.jit(lambda loss, f, y: loss.gradient(f, y))
conjugate = jax.jit(lambda loss, u, y: loss.conjugate(u, y))
curvature, total, total_conjugate = map(jax.jit, (base.curvature, base.total, base.total_conjugate))


@every_loss
def test_gradient_is_the_derivative_of_the_value(case):
    loss, y, step = case.loss, case.target, 1e-6
    difference = (value(loss, FIT + step, y) - value(loss, FIT - step, y)) / (2 * step)
    np.testing.assert_allclose(gradient(loss, FIT, y), difference, rtol=1e-8, atol=1e-9)


@every_loss
def test_curvature_is_the_derivative_of_the_gradient_and_bounded(case):
    loss, y, step = case.loss, case.target, 1e-6
    high, low = (gradient(loss, FIT + s, y) for s in (step, -step))
    second = curvature(loss, FIT, y)
    np.testing.assert_allclose(second, (high - low) / (2 * step), rtol=1e-7, atol=1e-8)
    radius = 0.5
    around = FIT[None] + radius * jnp.linspace(-1.0, 1.0, 401)[:, None]
    largest = jax.vmap(lambda f: curvature(loss, f, y))(around).max(0)
    assert (largest <= base.curvature_within(loss, FIT, radius, y) * (1 + 1e-12)).all()
    if np.isfinite(loss.smoothness):
        wide = jnp.linspace(-5.0, 5.0, 1001)[:, None]
        overall = jax.vmap(lambda f: curvature(loss, f * jnp.ones(6), y))(wide).max()
        # Tight as well as valid: a constant twice too large would halve every step.
        np.testing.assert_allclose(overall, loss.smoothness, rtol=1e-4)


@every_loss
def test_conjugate_is_the_supremum_over_fits(case):
    loss, u, y = case.loss, case.dual, case.target
    fits = jnp.linspace(-30.0, 30.0, 600_001)
    below = jax.jit(jax.vmap(lambda f: u * f - loss.value(jnp.full_like(u, f), y)))(fits)
    supremum = below.max(0)
    np.testing.assert_allclose(conjugate(loss, u, y), supremum, atol=1e-8)


@every_loss
def test_fenchel_young_is_tight_at_the_gradient_only(case):
    def gap(dual):
        f_y = value(case.loss, FIT, case.target) + conjugate(case.loss, dual, case.target)
        return f_y - dual * FIT

    slope = gradient(case.loss, FIT, case.target)
    np.testing.assert_allclose(gap(slope), np.zeros(6), atol=2e-14)
    steep = slope != 0
    assert (gap(0.9 * slope)[steep] > 0).all()
    assert (gap(1.1 * slope)[steep] > 0).all()


@every_loss
def test_agrees_with_the_twin_in_loops(case):
    name, loss, y = case.twin, case.loss, case.target
    if name is None:
        return
    pairs = list(zip(np.asarray(FIT), np.asarray(y), strict=True))
    expected = [reference.sample_loss(f, t, name) for f, t in pairs]
    np.testing.assert_allclose(value(loss, FIT, y), expected, rtol=1e-14, atol=1e-15)
    expected = [reference.sample_gradient(f, t, name) for f, t in pairs]
    np.testing.assert_allclose(gradient(loss, FIT, y), expected, rtol=1e-14)
    np.testing.assert_allclose(
        total(loss, FIT, y, WEIGHT), reference.total_loss(FIT, y, name, WEIGHT), rtol=1e-14
    )
    dual = WEIGHT * case.dual
    np.testing.assert_allclose(
        -total_conjugate(loss, dual, y, WEIGHT),
        reference.dual_value(np.asarray(-dual), y, name, WEIGHT),
        rtol=1e-13,
    )


@every_loss
def test_what_is_scaled_with_the_target_is_the_same_loss(case):
    # By powers of two no digit changes.
    degree, t = base.homogeneity(case.loss), 2.0**-7
    if degree:
        loss = base.scaled(case.loss, jnp.asarray(-7))
        scaled = value(loss, t * FIT, t * case.target)
        np.testing.assert_array_equal(scaled, t**degree * value(case.loss, FIT, case.target))


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
def test_derivatives_are_finite_at_saturated_samples(case):
    fit = case.far * jnp.asarray([1.0, -1.0, 0.0, 1.0, -1.0, 0.0])
    loss, ones = case.loss, jnp.ones(6)

    def gap(f):
        dual = loss.gradient(f, ones)
        return jnp.sum(loss.value(f, ones) + loss.conjugate(dual, ones) - dual * f)

    assert np.isfinite(jax.jit(jax.grad(gap))(fit)).all()
    assert np.isfinite(jax.jit(jax.hessian(gap))(fit)).all()
    assert np.isfinite(curvature(loss, fit, ones)).all()


@every_loss
def test_a_sample_of_weight_zero_counts_for_nothing(case):
    kept = np.flatnonzero(WEIGHT)
    loss, target, w = case.loss, case.target, WEIGHT[kept]
    few = jax.tree.map(lambda a: a[kept] if jnp.ndim(a) else a, loss)
    f, y = FIT[kept], target[kept]
    np.testing.assert_allclose(total(loss, FIT, target, WEIGHT), total(few, f, y, w), rtol=1e-15)
    np.testing.assert_array_equal(base.total_gradient(loss, FIT, target, WEIGHT)[2], 0.0)
    np.testing.assert_array_equal(base.total_curvature(loss, FIT, target, WEIGHT)[2], 0.0)
    dual = WEIGHT * case.dual
    np.testing.assert_allclose(
        total_conjugate(loss, dual, target, WEIGHT),
        total_conjugate(few, dual[kept], y, w),
        rtol=1e-14,
    )
    assert total_conjugate(loss, dual.at[2].set(1e-3), target, WEIGHT) == np.inf
    assert np.isnan(total_conjugate(loss, dual.at[2].set(jnp.nan), target, WEIGHT))


@every_loss
def test_weighted_conjugate_matches_the_weighted_loss(case):
    # A weight of 2 is the same sample twice, and the dual is shared between the two.
    loss, target, twice = case.loss, case.target, jnp.full(6, 2.0)
    both = jax.tree.map(lambda a: jnp.concatenate([a, a]) if jnp.ndim(a) else a, loss)
    doubled = [jnp.concatenate([a, a]) for a in (FIT, target, case.dual)]
    np.testing.assert_allclose(
        total(loss, FIT, target, twice), total(both, *doubled[:2], jnp.ones(12)), rtol=1e-14
    )
    np.testing.assert_allclose(
        total_conjugate(loss, 2 * case.dual, target, twice),
        total_conjugate(both, doubled[2], doubled[1], jnp.ones(12)),
        rtol=1e-14,
    )
    slope = base.total_gradient(loss, FIT, target, WEIGHT)
    gap = total(loss, FIT, target, WEIGHT) + total_conjugate(loss, slope, target, WEIGHT)
    np.testing.assert_allclose(gap, slope @ FIT, atol=1e-13)


@every_loss
@pytest.mark.parametrize("function", [value, gradient, conjugate])
def test_nan_propagates(case, function):
    out = function(case.loss, case.dual.at[1].set(jnp.nan), case.target)
    np.testing.assert_array_equal(np.isnan(out), np.arange(6) == 1)


@every_loss
def test_float32_stays_float32_and_its_gradient_stays_in_the_domain(case, single):
    far = min(60.0, case.far)
    fit = jnp.linspace(-far, far, 6 * 21, dtype=jnp.float32)
    target = jnp.tile(jnp.abs(case.target).astype(jnp.float32), 21)
    loss = jax.tree.map(lambda a: jnp.tile(a, 21) if jnp.ndim(a) else jnp.asarray(a), case.loss)
    loss, weight = single(loss), jnp.full(fit.shape, 0.3, dtype=jnp.float32)
    slope = base.total_gradient(loss, fit, target, weight)
    # A GPU's division may be off by an ulp, at the edge of the domain to the outside.
    inside = slope * np.float32(1 - 1e-6)
    bound = total_conjugate(loss, inside, target, weight)
    assert {a.dtype for a in (slope, bound, value(loss, fit, target))} == {jnp.dtype("float32")}
    assert np.isfinite(bound)
    size = float(np.abs(slope) @ np.abs(fit))
    off = total(loss, fit, target, weight) + bound - slope @ fit
    assert abs(float(off)) <= 1e-5 * size
    exact = np.asarray(fit, dtype=float)
    if isinstance(loss, LogisticLoss):
        tail = -1 / (1 + np.exp(exact))
        np.testing.assert_allclose(gradient(loss, fit, target), tail, rtol=1e-6)


def test_a_parameter_of_a_loss_can_be_batched_and_differentiated():
    deltas = jnp.asarray([0.1, 0.5, 10.0])
    values = jax.jit(jax.vmap(lambda d: HuberLoss(d).value(FIT, LABELS)))(deltas)
    np.testing.assert_allclose(values[2], SquaredLoss().value(FIT, LABELS), rtol=1e-14)
    assert (values[0] <= values[1]).all()
    in_delta = jax.jit(jax.grad(lambda h: h.value(jnp.float64(3.0), jnp.float64(1.0))))
    np.testing.assert_allclose(in_delta(HuberLoss(jnp.float64(0.5))).delta, 1.5)
    offsets = jnp.asarray([0.0, 0.7])
    values = jax.jit(jax.vmap(lambda o: PoissonLoss(o).value(FIT, RATES)))(offsets)
    np.testing.assert_allclose(values[1], PoissonLoss().value(FIT + 0.7, RATES), rtol=1e-13)
    by_offset = jax.grad(lambda loss: jnp.sum(loss.value(FIT, RATES)))(PoissonLoss(OFFSET)).offset
    np.testing.assert_allclose(by_offset, PoissonLoss(OFFSET).gradient(FIT, RATES), rtol=1e-13)


def test_poisson_of_counts_over_exposures_is_that_of_the_counts():
    counts, exposures = np.asarray([3.0, 0.0, 7.0]), np.asarray([2.0, 0.5, 10.0])
    fit = jnp.asarray([0.2, -1.0, 0.1])
    by_rates = total(PoissonLoss(), fit, jnp.asarray(counts / exposures), jnp.asarray(exposures))
    by_counts = PoissonLoss(jnp.log(exposures)).value(fit, jnp.asarray(counts))
    np.testing.assert_allclose(by_rates, by_counts.sum(), rtol=1e-14)


def test_poisson_does_not_overflow_on_the_way():
    loss, ones = PoissonLoss(), jnp.ones(2)
    fit = jnp.asarray([1e4, -1e4])
    assert np.isfinite(gradient(loss, fit, ones)).all()
    np.testing.assert_array_equal(value(loss, fit, ones), [np.inf, 1e4 - 1])
    # A rate that is next to nothing is no reason for it either.
    tiny = jnp.full(2, 1e-300)
    np.testing.assert_allclose(value(loss, jnp.asarray([100.0, 2.0]), tiny), np.exp([100.0, 2.0]))


def test_poisson_fits_whose_gradient_is_capped_have_no_finite_upper_bound():
    """What rounding of such a fit costs is not told by its gradient."""
    X, y = np.full((1, 1), 1.0), np.zeros(1)
    program = jr.ConvexProgram(X, y, jr.patterns_from_gates(X, np.ones((1, 1))), PoissonLoss())
    weights = np.zeros((2, 1, 1))
    for fit, finite in ((300.0, True), (400.0, False)):  # the cap is at 354.9
        weights[0, 0, 0] = fit
        proof = jr.certify(program, 1.0, weights)
        assert bool(np.isfinite(proof.upper)) is finite
        assert not proof.upper < np.exp(fit)


def test_poisson_conjugate_at_the_edges_of_its_domain():
    duals = jnp.asarray([-2.0, 0.0, -1e-9, 0.0, -2.0 - 1e-9, jnp.nan])
    rates = jnp.asarray([2.0, 0.0, 0.0, 2.0, 2.0, 2.0])
    edges = conjugate(PoissonLoss(), duals, rates)
    expected = [2 - 2 * np.log(2), 0.0, np.inf, 0.0, np.inf, np.nan]
    np.testing.assert_allclose(edges, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        (PoissonLoss(), [1.0, -2.0], "PoissonLoss takes rates and counts >= 0, but y holds -2"),
        (PoissonLoss(np.zeros(3)), [1.0, 2.0], r"offset has shape \(3,\)"),
        (PoissonLoss(np.nan), [1.0, 2.0], "offset"),
        (HuberLoss(0.0), [1.0, 2.0], "delta is 0; pass a positive number"),
        (HuberLoss(np.asarray([1.0, -1.0])), [1.0, 2.0], "delta is -1"),
        (HuberLoss(np.ones(3)), [1.0, 2.0], r"delta has shape \(3,\)"),
        (HuberLoss(np.inf), [1.0, 2.0], "delta"),
        (SquaredHingeLoss(), [0.0, 1.0], r"SquaredHingeLoss .* pass 2 \* y - 1"),
    ],
)
def test_what_a_loss_cannot_take_is_refused(loss, target, message):
    with pytest.raises(ValueError, match=message):
        loss.check_target(np.asarray(target))


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


@pytest.mark.parametrize("loss", [SquaredLoss(), LogisticLoss(), PoissonLoss()])
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


def test_fits_of_the_same_gradient():
    huber = HuberLoss(jnp.asarray([1.0, 1.0, 1.0, 2.0]))
    fit, target = jnp.asarray([3.0, -3.0, 0.5, 0.5]), jnp.asarray([1.0, 1.0, 1.0, 1.0])
    low, high = base.same_gradient(huber, fit, target, jnp.asarray([1.0, 1.0, 1.0, 0.0]))
    assert low.tolist() == [2.0, -jnp.inf, 0.5, -jnp.inf]
    assert high.tolist() == [jnp.inf, 0.0, 0.5, jnp.inf]
    fit, labels = jnp.asarray([1.5, 0.5, -2.0]), jnp.asarray([1.0, 1.0, -1.0])
    low, high = base.same_gradient(SquaredHingeLoss(), fit, labels, jnp.ones(3))
    assert low.tolist() == [1.0, 0.5, -jnp.inf]
    assert high.tolist() == [jnp.inf, 0.5, -1.0]
    for loss in (SquaredLoss(), LogisticLoss(), PoissonLoss()):
        for end in base.same_gradient(loss, FIT, RATES, jnp.ones(6)):
            np.testing.assert_array_equal(end, FIT)
