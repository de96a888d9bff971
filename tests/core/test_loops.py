"""The bounded loop: what it counts, when it stops, and that no NaN gets out of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.core.loops import all_finite, iterate


def halving(start, bound=1.5, max_steps=10):
    return iterate(lambda x: x / 2, start, done=lambda x: x < bound, max_steps=max_steps)


def breaking(start, last, max_steps, broken=jnp.nan):
    """Counts up and returns `broken` in step number `last`; done as soon as it got there."""

    def step(state):
        count, value = state
        count = count + 1
        return count, jnp.where(count == last, broken, value + 1.0)

    first = (jnp.asarray(0), jnp.asarray(start, jnp.float64))
    return iterate(step, first, done=lambda s: s[0] >= last, max_steps=max_steps)


def test_counts_the_steps_until_it_is_done():
    end = halving(jnp.asarray(8.0))
    assert (float(end.state), int(end.num_steps), bool(end.finite)) == (1.0, 3, True)
    assert end.num_steps.dtype == jnp.int32


@pytest.mark.parametrize("max_steps", [0, 1, 2])
def test_stops_at_the_limit(max_steps):
    end = halving(jnp.asarray(8.0), max_steps=max_steps)
    assert (float(end.state), int(end.num_steps)) == (8.0 / 2**max_steps, max_steps)
    assert bool(end.finite)


def test_done_at_once_takes_no_step():
    end = iterate(lambda x: x * jnp.nan, jnp.asarray(1.0), done=lambda x: x < 2.0, max_steps=5)
    assert (float(end.state), int(end.num_steps), bool(end.finite)) == (1.0, 0, True)


@pytest.mark.parametrize("broken", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("max_steps", [3, 10])
def test_a_break_in_the_last_step_is_seen_and_undone(max_steps, broken):
    # Step 3 is the last one, by the limit or because the loop is then done: a check of the state
    # before the step, or at the head of the loop, would let it out.
    end = breaking(5.0, last=3, max_steps=max_steps, broken=broken)
    count, value = end.state
    assert (int(count), float(value)) == (2, 7.0)
    assert int(end.num_steps) == 3
    assert not bool(end.finite)


def test_a_break_before_the_last_step_ends_the_loop():
    def step(x):
        return jnp.where(x == 2.0, jnp.nan, x + 1.0)

    end = iterate(step, jnp.asarray(0.0), done=lambda x: x > 8.0, max_steps=10)
    assert (float(end.state), int(end.num_steps), bool(end.finite)) == (2.0, 3, False)


@pytest.mark.parametrize("start", [jnp.nan, jnp.inf])
def test_a_start_that_is_not_finite_takes_no_step(start):
    # The step would hide it.
    end = iterate(jnp.zeros_like, jnp.asarray([1.0, start]), done=lambda x: x[0] > 2.0, max_steps=5)
    np.testing.assert_array_equal(end.state, [1.0, start])
    assert int(end.num_steps) == 0
    assert not bool(end.finite)


def test_every_floating_leaf_is_looked_at_and_integers_are_not():
    tree = {"index": jnp.asarray([2**31 - 1]), "a": jnp.ones(2), "b": (jnp.zeros((2, 2)),)}
    assert bool(all_finite(tree))
    assert not bool(all_finite({**tree, "b": (jnp.asarray([[0.0, 0.0], [0.0, jnp.nan]]),)}))
    assert bool(all_finite({"index": jnp.asarray(3), "flag": jnp.asarray(True)}))
    assert bool(all_finite(jnp.zeros((0, 3))))


def test_a_state_without_floats():
    end = iterate(lambda k: k + 1, jnp.asarray(0), done=lambda k: k > 3, max_steps=10)
    assert (int(end.state), int(end.num_steps), bool(end.finite)) == (4, 4, True)


@pytest.mark.parametrize(
    "step", [lambda x: x[None], lambda x: x.astype(jnp.float32)], ids=["shape", "dtype"]
)
def test_a_step_that_changes_a_shape_or_a_dtype_is_refused(step):
    with pytest.raises(AssertionError, match="differ: (shapes|types)"):
        iterate(step, jnp.asarray(8.0), done=lambda x: jnp.all(x < 1.5), max_steps=3)


def test_the_limit_is_data():
    traces = []

    @jax.jit
    def run(max_steps):
        traces.append(max_steps)
        return halving(jnp.asarray(8.0), bound=0.0, max_steps=max_steps).num_steps

    assert [int(run(k)) for k in (0, 4, 7)] == [0, 4, 7]
    assert len(traces) == 1


def test_a_lane_that_breaks_leaves_the_others_alone():
    def one(start):
        def step(x):
            return jnp.where(x == 4.0, jnp.nan, x - 1.0)

        return iterate(step, start, done=lambda x: x <= 0.0, max_steps=20)

    end = jax.jit(jax.vmap(one))(jnp.asarray([3.0, 6.0, jnp.nan, 3.5]))
    np.testing.assert_array_equal(end.state, [0.0, 4.0, jnp.nan, -0.5])
    np.testing.assert_array_equal(end.num_steps, [3, 3, 0, 4])
    np.testing.assert_array_equal(end.finite, [True, False, False, True])


def test_the_dtype_of_the_state_is_kept():
    end = halving(jnp.asarray(8.0, jnp.float32))
    assert end.state.dtype == jnp.float32
