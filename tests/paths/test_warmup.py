"""After `warmup` of shapes alone, nothing is left to compile when the data come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compile_events

import jaxrelu as jr

# Shapes of no other test: what these calls need has not been compiled before.
SAMPLES, FEATURES, GATES = 41, 3, 11


def shapes(n, loss, gated=False, weighted=False, skip=False, bias="none"):
    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float64)

    masks = jax.ShapeDtypeStruct((n, GATES), bool)
    size = FEATURES + (bias == "free")
    patterns = jr.Patterns(floats(size, GATES), masks, None if gated else floats(size, GATES))
    weights = floats(2, GATES) if weighted else None
    data = floats(n, FEATURES), floats(n), patterns, loss
    if gated:
        return jr.GatedProgram(*data, skip=skip)
    return jr.ConvexProgram(*data, block_weights=weights, skip=skip, bias=bias)


def posed(n, loss, gated=False, weighted=False, skip=False, bias="none"):
    """Data of those shapes; all gates have patterns of their own."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, FEATURES))
    y = np.sign(X[:, 0] + np.abs(X[:, 1]) + 0.3 * rng.standard_normal(n))
    seed = 1 if bias == "none" else 2  # all gates have patterns of their own
    patterns = jr.sample_patterns(jax.random.key(seed), X, GATES, gated=gated, bias=bias)
    assert patterns.num_patterns == GATES
    weights = rng.uniform(0.5, 2.0, (2, GATES)) if weighted else None
    if gated:
        return jr.GatedProgram(X, y, patterns, loss, skip=skip)
    return jr.ConvexProgram(X, y, patterns, loss, block_weights=weights, skip=skip, bias=bias)


def _finer(loss):
    """A tolerance that is met."""
    return 3e-7 if isinstance(loss, jr.HingeLoss) else 1e-9


@pytest.mark.parametrize(
    ("n", "loss", "options"),
    [
        (SAMPLES, jr.SquaredLoss(), {}),
        pytest.param(SAMPLES + 1, jr.LogisticLoss(), {}, marks=pytest.mark.slow),
        pytest.param(SAMPLES + 2, jr.SquaredLoss(), {"gated": True}, marks=pytest.mark.slow),
        pytest.param(SAMPLES + 5, jr.SquaredLoss(), {"weighted": True}, marks=pytest.mark.slow),
        pytest.param(SAMPLES + 6, jr.SquaredLoss(), {"skip": True}, marks=pytest.mark.slow),
        pytest.param(SAMPLES + 7, jr.HingeLoss(), {}, marks=pytest.mark.slow),
        pytest.param(SAMPLES + 8, jr.SquaredLoss(), {"bias": "free"}, marks=pytest.mark.slow),
    ],
)
def test_a_path_of_these_shapes_compiles_nothing(n, loss, options):
    with compile_events() as events:
        jr.warmup(shapes(n, loss, **options), jax.ShapeDtypeStruct((6,), jnp.float64))
    assert events  # the listener hears
    with compile_events() as events:
        program = posed(n, loss, **options)
        path = jr.solve_path(program, jr.lambda_grid(program, num=6, ratio=0.01))
        path[3].weights.block_until_ready()
        # Finely enough that blocks have to be projected onto their cones, too.
        finer = jr.solve_path(program, path.lams, rtol=_finer(loss))
    assert not events
    jr.raise_if_failed(path)
    jr.raise_if_failed(finer)
    assert int(path.num_active[-1]) > 4


@pytest.mark.slow
@pytest.mark.parametrize("call", ["solve", "grid"])
def test_other_calls_compile_nothing_either(call):
    n, loss = SAMPLES + (3 if call == "grid" else 4), jr.SquaredLoss()
    lams = [0.3, 0.1] if call == "grid" else 0.3
    jr.warmup(shapes(n, loss), lams, calls=call, solver=jr.ActiveNewton(capacity=16))
    program = posed(n, loss)
    entry = jr.solve_grid if call == "grid" else jr.solve
    with compile_events() as events:
        jr.raise_if_failed(entry(program, lams, solver=jr.ActiveNewton(capacity=16)))
    assert not events


@pytest.mark.parametrize(
    ("lams", "options", "message"),
    [
        (0.5, {"calls": "path"}, "lams is a scalar: pass a vector"),
        (jax.ShapeDtypeStruct((2, 2), jnp.float64), {}, r"lams has shape \(2, 2\)"),
        ([0.5, -1.0], {}, "lams holds -1"),
        ([0.5], {"calls": "fit"}, "calls is 'fit'"),
        ([0.5], {"calls": ()}, r"calls is .*; pass some of path, grid, solve"),
    ],
)
def test_what_cannot_be_meant_is_refused(lams, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jr.warmup(shapes(SAMPLES, jr.SquaredLoss()), lams, **options)


def test_shapes_that_do_not_fit_are_refused():
    wrong = shapes(SAMPLES, jr.SquaredLoss())
    wrong = jr.ConvexProgram(wrong.X, jax.ShapeDtypeStruct((7,), jnp.float64), wrong.patterns)
    with pytest.raises(ValueError, match=r"y has shape \(7,\)"):
        jr.warmup(wrong, [0.5])
