"""Options of the compiler are those of the outermost function, and never in the way of a trace."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import BACKEND, compile_events

from jaxrelu.core import compilation
from jaxrelu.core.compilation import compiled, compiler_options, driven
from jaxrelu.core.tracing import is_staged
from jaxrelu.losses.logistic import LogisticLoss
from jaxrelu.losses.squared import SquaredLoss

KNOWN = jnp.asarray([1.0, 3.0])
STAGED = {
    "jit": lambda f: jax.jit(f)(1.0),
    "scan": lambda f: jax.lax.scan(lambda c, t: (c, f(t)), 0.0, jnp.ones(2))[1][0],
    "checkpoint": lambda f: jax.checkpoint(f)(1.0),
}
AT_ONCE = {
    "nothing": lambda f: f(1.0),
    "vmap": lambda f: jax.vmap(f)(jnp.ones(2))[0],
    "linearize": lambda f: jax.linearize(f, 1.0)[0],
}


@pytest.fixture
def other_flags(monkeypatch):
    """Sets XLA_FLAGS for options that are chosen anew."""

    def choose(flags):
        monkeypatch.setenv("XLA_FLAGS", flags)
        compiler_options.cache_clear()

    yield choose
    compiler_options.cache_clear()


@pytest.mark.parametrize("name", STAGED | AT_ONCE)
def test_what_is_staged(name):
    found = []
    (STAGED | AT_ONCE)[name](lambda t: (found.append(is_staged()), t)[1])
    assert set(found) == {name in STAGED}


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("name", STAGED | AT_ONCE)
def test_in_every_trace_with_traced_and_with_known_values(other_flags, name, optimised):
    other_flags("")
    if jax.default_backend() == "cpu":
        assert compiler_options(optimised)  # JAX refuses any of them inside a trace

    def double(t, x):
        return 2.0 * t * x

    doubled = compiled(double, optimised=optimised)
    inside = STAGED | AT_ONCE
    assert inside[name](lambda t: doubled(t, 3.0)) == 6.0
    assert inside[name](lambda t: t * jnp.sum(doubled(2.0, KNOWN))) == 16.0
    assert jax.grad(lambda t: doubled(t, 3.0))(1.0) == 6.0
    assert jax.jvp(doubled, (1.0, 3.0), (1.0, 0.0))[1] == 6.0


def test_options_that_this_compiler_does_not_know_fall_away(other_flags, monkeypatch):
    other_flags("")
    monkeypatch.setattr(compilation, "_GENERATOR", "xla_of_another_release")
    assert compiler_options(True) is None
    assert set(compiler_options(False) or {}) <= {compilation._LEVEL}
    assert driven(jnp.sum)(KNOWN) == 4.0


def test_what_xla_flags_say_holds(other_flags):
    other_flags("--xla_cpu_use_fusion_emitters=true --xla_backend_optimization_level=2")
    assert compiler_options(True) is compiler_options(False) is None


def test_an_import_looks_for_no_device():
    code = (
        "import jax, jaxrelu\n"
        "jax.config.update('jax_platforms', 'nowhere')\n"
        "try: jax.devices()\n"
        "except RuntimeError: print('free')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "free\n", done.stderr


def test_arrays_of_numpy_and_of_jax_share_a_program():
    def total(x, y):
        return jnp.sum(x) + y

    compiled_total = driven(total)
    with compile_events(BACKEND) as names:
        compiled_total(np.ones(7), jnp.float64(1.0))
        compiled_total(jnp.ones(7), np.float64(1.0))
    assert sum("total" in name for name in names) == 1


def test_losses_of_other_classes_are_other_programs():
    @compiled
    def slope(loss, fit, target):
        return loss.gradient(fit, target)

    one, zero = jnp.ones(1), jnp.zeros(1)
    assert slope(SquaredLoss(), one, zero) == 1.0
    assert slope(LogisticLoss(), zero, one) == -0.5
    assert slope.lower(SquaredLoss(), one, zero).compile() is not None
