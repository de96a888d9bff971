"""Losses with kinks: prox, slopes, conjugate, and the augmented Lagrangian that solvers see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxrelu as jr
from jaxrelu.losses import base
from jaxrelu.losses.augmented import Augmented
from jaxrelu.losses.kinks import has_kinks

LABELS = jnp.asarray([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
REAL = jnp.asarray([0.7, -1.3, 0.0, 2.5, 0.4, -0.2])
FIT = jnp.asarray([-2.0, -0.3, 0.0, 2.5, 1.0, 3.0])
CASES = {
    "hinge": (jr.HingeLoss(), LABELS, "hinge"),
    "absolute": (jr.AbsoluteLoss(), REAL, "absolute"),
    "quantile": (jr.QuantileLoss(jnp.asarray(reference.QUANTILE)), REAL, "quantile"),
    "one q a sample": (jr.QuantileLoss(jnp.linspace(0.01, 0.99, 6)), REAL, None),
}
every_case = pytest.mark.parametrize(("loss", "y", "twin"), CASES.values(), ids=list(CASES))


@every_case
def test_value_slope_and_conjugate(loss, y, twin):
    low, high = loss.slopes(y)
    assert has_kinks(loss)
    assert np.all(low <= 0)
    assert np.all(high >= 0)
    for share in (0.0, 0.3, 1.0):
        dual = low + share * (high - low)
        fits = jnp.linspace(-30.0, 30.0, 60_001)
        below = jax.vmap(lambda f, dual=dual: dual * f - loss.value(jnp.full_like(y, f), y))(fits)
        np.testing.assert_allclose(loss.conjugate(dual, y), below.max(0), atol=1e-2)
    assert np.all(np.isinf(loss.conjugate(high + 1e-9, y)))
    assert np.all(np.isinf(loss.conjugate(low - 1e-9, y)))
    slope = loss.gradient(FIT, y)
    gap = loss.value(FIT, y) + loss.conjugate(slope, y) - slope * FIT
    np.testing.assert_allclose(gap, 0.0, atol=1e-12)
    if twin is not None:
        for i in range(6):
            f, t = float(FIT[i]), float(y[i])
            np.testing.assert_allclose(loss.value(FIT, y)[i], reference.sample_loss(f, t, twin))
            np.testing.assert_allclose(slope[i], reference.sample_gradient(f, t, twin))


@every_case
@pytest.mark.parametrize("step", [0.1, 3.0])
def test_prox_is_the_minimum(loss, y, twin, step):
    found = loss.prox(FIT, jnp.asarray(step), y)
    tried = jnp.linspace(-8.0, 8.0, 160_001)
    values = jax.vmap(lambda g: loss.value(jnp.full_like(y, g), y) + (g - FIT) ** 2 / (2 * step))(
        tried
    )
    np.testing.assert_allclose(found, tried[jnp.argmin(values, axis=0)], atol=1e-4)


@every_case
def test_the_augmented_lagrangian_has_its_derivatives(loss, y, twin):
    low, high = loss.slopes(y)
    smooth = Augmented(loss, -(low + 0.3 * (high - low)), jnp.asarray(4.0))
    step = 1e-6
    difference = (smooth.value(FIT + step, y) - smooth.value(FIT - step, y)) / (2 * step)
    np.testing.assert_allclose(smooth.gradient(FIT, y), difference, atol=1e-7)
    bend = base.curvature(smooth, FIT, y)
    assert set(np.round(np.asarray(bend), 9).tolist()) <= {0.0, 4.0}
    # Fenchel and Young, and the conjugate as a supremum.
    slope = smooth.gradient(FIT, y)
    gap = smooth.value(FIT, y) + smooth.conjugate(slope, y) - slope * FIT
    np.testing.assert_allclose(gap, 0.0, atol=1e-12)


def test_rises_are_bounded_by_the_steepest_slope():
    loss, y = jr.QuantileLoss(jnp.asarray(0.1)), REAL
    radius = jnp.asarray(0.5)
    rise = base.rise_within(loss, FIT, radius, y)
    for moved in (FIT + radius, FIT - radius, FIT + 0.1):
        assert np.all(loss.value(moved, y) - loss.value(FIT, y) <= rise + 1e-15)


@pytest.mark.parametrize(
    ("q", "message"),
    [(0.0, "q is 0; pass a positive number"), (1.0, "q is 1; pass numbers between 0 and 1"),
     (np.ones(3) / 2, r"q has shape \(3,\)"), (np.nan, "q"), ([0.1, 0.2], "pass a number")],
)  # fmt: skip
def test_a_quantile_outside_of_its_range_is_refused(q, message):
    with pytest.raises((ValueError, TypeError), match=message):
        jr.QuantileLoss(q).check_target(np.zeros(6))


def test_labels_of_the_hinge():
    with pytest.raises(ValueError, match="HingeLoss takes labels"):
        jr.HingeLoss().check_target(np.asarray([0.0, 1.0]))
