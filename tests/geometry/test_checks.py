"""What functions of patterns refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pattern_checks import GENERIC, assert_sound

from jaxrelu.geometry.checks import check_patterns
from jaxrelu.geometry.patterns import (
    Patterns,
    enumerate_patterns,
    patterns_from_gates,
    patterns_from_weights,
    sample_patterns,
)

HOST_FUNCTIONS = {
    "sample": lambda X: sample_patterns(jax.random.key(0), X, 4),
    "gates": lambda X: patterns_from_gates(X, np.ones((3, 2), X.dtype)),
    "weights": lambda X: patterns_from_weights(X, np.ones((3, 2), X.dtype)),
    "enumerate": enumerate_patterns,
}


@pytest.mark.parametrize("name", HOST_FUNCTIONS)
@pytest.mark.parametrize(
    ("X", "error", "fix"),
    [
        (np.zeros((4, 3)), ValueError, "column of ones"),
        (np.zeros((0, 3)), ValueError, "at least one row"),
        (np.zeros((4, 0)), ValueError, "at least one row"),
        (np.ones(3), ValueError, r"X\[:, None\]"),
        (np.ones((4, 3), int), TypeError, r"X.astype\('float64'\)"),
        (np.ones((4, 3), np.float16), TypeError, r"X.astype\('float64'\)"),
        (np.where(GENERIC > 1, np.nan, GENERIC), ValueError, "impute"),
        (np.where(GENERIC > 1, np.inf, GENERIC), ValueError, "impute"),
    ],
    ids=["zero", "no rows", "no columns", "vector", "integers", "half", "nan", "inf"],
)
def test_data_is_refused_with_the_way_out(name, X, error, fix):
    with pytest.raises(error, match=fix):
        HOST_FUNCTIONS[name](X)


@pytest.mark.parametrize("name", HOST_FUNCTIONS)
@pytest.mark.usefixtures("x64_off")
def test_double_precision_without_x64_names_both_ways_out(name):
    with pytest.raises(ValueError, match=r"jax_enable_x64', True.*X\.astype\('float32'\)"):
        HOST_FUNCTIONS[name](GENERIC)
    with pytest.raises(ValueError, match="jax_enable_x64"):
        check_patterns(Patterns(np.ones((3, 1)), np.ones((6, 1), bool)), GENERIC)


@pytest.mark.usefixtures("x64_off")
def test_single_precision_works_without_x64():
    X = GENERIC.astype(np.float32)
    assert_sound(enumerate_patterns(X), X, slack=50 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", HOST_FUNCTIONS)
def test_traced_data_is_sent_back_to_the_host(name):
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(HOST_FUNCTIONS[name])(GENERIC)


@pytest.mark.parametrize("function", [patterns_from_gates, patterns_from_weights])
def test_gates_and_neurons_must_fit_the_data(function):
    with pytest.raises(ValueError, match=r"\.T if they are rows"):
        function(GENERIC, np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"astype\('float64'\)"):
        function(GENERIC, np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="impute"):
        function(GENERIC, np.full((3, 2), np.nan))


@pytest.mark.parametrize(
    ("key", "num_gates", "error", "fix"),
    [
        (0, 4, TypeError, r"jax\.random\.key"),
        (None, 0, ValueError, "an integer >= 1"),
        (None, 2.0, TypeError, "an integer >= 1"),
        (None, True, TypeError, "an integer >= 1"),
    ],
)
def test_key_and_number_of_gates_are_checked(key, num_gates, error, fix):
    with pytest.raises(error, match=fix):
        sample_patterns(jax.random.key(0) if key is None else key, GENERIC, num_gates)


def good() -> Patterns:
    gates = GENERIC[:2].T.copy()
    return Patterns(jnp.asarray(gates), jnp.asarray(GENERIC @ gates >= 0), jnp.asarray(gates))


def test_good_patterns_pass_whatever_the_dtype_of_their_masks():
    for dtype in (bool, np.int32, np.uint8, np.float64):
        check_patterns(Patterns(good().gates, good().masks.astype(dtype)), GENERIC)


BAD = {
    "gates rank": ({"gates": np.ones(3)}, ValueError, "pass a matrix"),
    "masks rank": ({"masks": np.ones(6)}, ValueError, "pass a matrix"),
    "samples": ({"masks": np.ones((5, 2), bool)}, ValueError, "patterns_from_gates"),
    "patterns": ({"masks": np.ones((6, 3), bool)}, ValueError, "patterns_from_gates"),
    "features": ({"gates": np.ones((2, 2))}, ValueError, "patterns_from_gates"),
    "interior shape": ({"interior": np.ones((3, 3))}, ValueError, "patterns_from_gates"),
    "gates dtype": ({"gates": np.ones((3, 2), np.float32)}, TypeError, "astype"),
    "masks dtype": (
        {"masks": np.ones((6, 2), np.float32)},
        TypeError,
        r"asarray\(masks, bool\)",
    ),
    "masks list": ({"masks": [[True, True]] * 6}, TypeError, r"asarray\(masks, bool\)"),
    "interior dtype": ({"interior": np.ones((3, 2), np.float32)}, TypeError, "astype"),
    "gates nan": ({"gates": np.full((3, 2), np.nan)}, ValueError, "gates has NaN"),
    "interior nan": ({"interior": np.full((3, 2), np.nan)}, ValueError, "interior has NaN"),
    "masks two": ({"masks": 2 * np.ones((6, 2), int)}, ValueError, "0 and 1"),
    "masks nan": ({"masks": np.full((6, 2), np.nan)}, ValueError, "0 and 1"),
    "one bit": (
        {"masks": (GENERIC @ GENERIC[:2].T >= 0) ^ (np.arange(12).reshape(6, 2) == 5)},
        ValueError,
        "in 1 of 2 patterns .the first is pattern 1.",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_check_patterns_names_the_fix(fault):
    change, error, fix = BAD[fault]
    fields = {name: getattr(good(), name) for name in ("gates", "masks", "interior")}
    with pytest.raises(error, match=fix):
        check_patterns(Patterns(**{**fields, **change}), GENERIC)


def test_check_patterns_refuses_bad_data():
    with pytest.raises(ValueError, match="X has NaN"):
        check_patterns(good(), np.where(GENERIC > 1, np.nan, GENERIC))
    with pytest.raises(TypeError, match="float64"):
        check_patterns(good(), GENERIC.astype(int))


@pytest.mark.parametrize(("dtype", "level"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_rows_on_a_wall_or_zero_may_carry_either_bit(dtype, level):
    # The second gate leaves the first row's wall by a tenth, or by ten times, of what is allowed.
    X = np.array([[3.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype)
    masks = np.array([[False], [False], [True]])
    check_patterns(Patterns(np.array([[0.1 * level], [1.0]], dtype), masks), X)
    with pytest.raises(ValueError, match="differs"):
        check_patterns(Patterns(np.array([[10 * level], [1.0]], dtype), masks), X)


def test_traced_patterns_are_checked_by_shape_alone():
    @jax.jit
    def checked(patterns, X):
        check_patterns(patterns, X)
        return patterns.gates

    wrong_bits = Patterns(good().gates, ~good().masks)
    np.testing.assert_array_equal(checked(wrong_bits, GENERIC), wrong_bits.gates)
    with pytest.raises(ValueError, match="patterns_from_gates"):
        checked(Patterns(good().gates, good().masks[:5]), GENERIC)


def test_patterns_are_a_pytree_that_checks_nothing():
    leaves, structure = jax.tree.flatten(good())
    assert len(leaves) == 3
    assert len(jax.tree.leaves(Patterns(good().gates, good().masks))) == 2
    placeholder = jax.tree.unflatten(structure, [object()] * 3)
    assert isinstance(placeholder, Patterns)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), good())
    assert jax.vmap(lambda patterns: patterns.gates[0])(stacked).shape == (2, 2)
    assert good().num_patterns == 2
    with pytest.raises(AttributeError):
        good().gates = None
