"""The device's own test of what certificates assume of it."""

import jax.numpy as jnp
import pytest

import jaxrelu as jr
from jaxrelu.core import rounding, self_test


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_this_device_is_as_good_as_assumed(dtype):
    found = jr.self_test(dtype)
    assert found.rigorous
    assert 0 < found.sums <= 1
    assert 0 < found.functions <= 0.5


def test_a_worse_device_is_seen(monkeypatch):
    monkeypatch.setitem(
        self_test._FUNCTIONS,
        "exp",
        (lambda x: jnp.exp(x) * (1 + 1e-9), self_test._FUNCTIONS["exp"][1]),
    )
    found = jr.self_test("float64")
    assert found.functions > 1
    assert not found.rigorous
    monkeypatch.undo()
    monkeypatch.setattr(rounding, "product", lambda a, b: (a @ b) * (1 + 1e-12))
    found = jr.self_test("float64")
    assert found.sums > 1
    assert not found.rigorous


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="dtype is 'int32'"):
        jr.self_test("int32")


def test_an_unknown_device_is_taken_for_worse_and_said_to_be(monkeypatch):
    known = rounding.roundoff("float64")
    monkeypatch.setattr(rounding, "_MEASURED", ())
    with pytest.warns(RuntimeWarning, match=r"bounds are not rigorous on cpu.*self_test"):
        assert rounding.roundoff("float64") == rounding.UNKNOWN * known
