"""Functions of the host inside a trace: they work on what is known and refuse what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.core.tracing import is_traced, on_host, outside_traces, refuse_traced


@on_host()
def largest(x, *, y=None):
    return float(jnp.max(jnp.asarray(x))) + (0.0 if y is None else float(y))


class Holder:
    @on_host("after them")
    def total(self, x):
        return float(jnp.sum(x))


KNOWN = jnp.asarray([1.0, 3.0])
INSIDE = {
    "jit": lambda f: jax.jit(f)(1.0),
    "vmap": lambda f: jax.vmap(f)(jnp.ones(2)),
    "grad": lambda f: jax.grad(f)(1.0),
    "scan": lambda f: jax.lax.scan(lambda c, t: (c, f(t)), 0.0, jnp.ones(2)),
    "map": lambda f: jax.lax.map(f, jnp.ones(2)),
}


@pytest.mark.parametrize("name", INSIDE)
def test_known_values_have_values_inside_a_trace(name):
    found = []

    def inside(t):
        found.append((largest(KNOWN, y=np.float64(2.0)), Holder().total(KNOWN)))
        return t

    INSIDE[name](inside)
    assert found == [(5.0, 4.0)]


@pytest.mark.parametrize("name", INSIDE)
def test_traced_arguments_are_named(name):
    def largest_of(t):
        return t * largest([1.0, 2.0], y=t)

    with pytest.raises(TypeError, match=r"^y is traced, but largest looks at values: call it on"):
        INSIDE[name](largest_of)
    with pytest.raises(TypeError, match=r"^x is traced, but Holder.total .* grad, after them\."):
        INSIDE[name](lambda t: Holder().total({"deep": [t]}))


def test_nothing_is_compiled_anew_for_a_call_inside_a_trace():
    traces = []

    @jax.jit
    def inner(x):
        traces.append(1)
        return 2 * x

    inner(KNOWN)

    def outer(t):
        with outside_traces():
            np.testing.assert_array_equal(inner(KNOWN), [2.0, 6.0])
        return t

    jax.jit(outer)(1.0)
    assert len(traces) == 1


def test_what_is_traced():
    assert not is_traced(1.0, KNOWN, {"a": np.ones(2)}, None, "text")
    assert jax.vmap(lambda t: t if is_traced(KNOWN, {"a": [t]}) else -t)(KNOWN).tolist() == [1, 3]
    assert refuse_traced("f", {"x": KNOWN}) is None
