"""How many kernels one Newton step takes: on an accelerator each is a launch, whatever its size."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.geometry.gram import shared_rows
from jaxrelu.losses.squared import SquaredLoss
from jaxrelu.solvers.augmented_lagrangian.newton_direction import constant_coupling
from jaxrelu.solvers.augmented_lagrangian.newton_method import Iterate, begin, newton_step
from jaxrelu.solvers.augmented_lagrangian.subproblem import Subproblem

KERNEL = re.compile(
    r"^\s+(?:ROOT )?%?\S+ = .*? "
    r"(?:fusion|dot|custom-call|reduce|reduce-window|gather|scatter|sort|copy|while|conditional)\(",
    re.MULTILINE,
)


def kernels(slots, features, samples=50):
    """Those of one step, counted in the compiled code."""
    rng = np.random.default_rng(0)
    X = jnp.asarray(rng.standard_normal((samples, features)))
    masks = jnp.asarray(rng.random((slots, samples)) > 0.5, float)
    problem = Subproblem(
        X, X[:, 0], jnp.ones(samples), SquaredLoss(), shared_rows(X), shared_rows(X), masks,
        2 * masks - 1, jnp.asarray(0.1),
    )  # fmt: skip
    at = Iterate(*(jnp.zeros((slots, width)) for width in (features, features, samples)))
    one = jnp.asarray(1.0)
    state, coupling = begin(problem, at, one, one), constant_coupling(problem)
    text = jax.jit(newton_step).lower(problem, state, one, one, coupling).compile().as_text()
    # Inside a fusion nothing is a launch.
    text = re.sub(r"(?ms)^%?fused_computation.*?^}", "", text)
    return len(KERNEL.findall(text))


# 146 and 185 with jaxlib 0.10.1 on a CPU; find out what is more before the numbers go up.
@pytest.mark.parametrize(
    ("slots", "features", "most"),
    [pytest.param(8, 4, 155, id="factored"), pytest.param(32, 21, 195, id="iterated")],
)
def test_a_newton_step_takes_no_more_kernels_than_it_did(slots, features, most):
    assert 0.5 * most < kernels(slots, features) <= most
