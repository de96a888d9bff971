"""Functions that decide by values, inside a trace: known values they take, traced ones they refuse.

What JAX computes from known values inside a trace is traced itself; known is what comes from
outside of it, and what such functions return.
"""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr

PROGRAM, LABELLED = zoo.smallest(), zoo.smallest(gated=True, loss=jr.LogisticLoss())
X, Y = PROGRAM.X, PROGRAM.y
N, D = X.shape
NETWORK = jr.Network(np.random.default_rng(0).standard_normal((D, 4)), np.ones(4))
BALANCED = jr.Network(NETWORK.hidden / np.linalg.norm(NETWORK.hidden, axis=0), NETWORK.output)
LABELS = np.where(Y >= 0, 1.0, -1.0)
ANGLES = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])  # two samples with many optimal networks


@cache
def key():
    return jax.random.key(0)  # made inside a trace it would be traced


@cache
def many_optima():
    """A program, its answer and all of its optimal networks."""
    program = jr.ConvexProgram(ANGLES, np.asarray([2.0, 2.0]), jr.enumerate_patterns(ANGLES))
    answer = jr.solve(program, 0.5)
    return program, answer, jr.optimal_set(program, answer)


@cache
def best():
    """A network that is optimal at lam = 0.5."""
    return jr.improve(NETWORK, X, Y, 0.5, rtol=1e-9).network


# Calls of the functions that decide by values, on known ones; those that compile much are slow.
QUICK = {
    "self_test": lambda: jr.self_test("float64"),
    "sample_patterns": lambda: jr.sample_patterns(key(), X, 8),
    "patterns_from_gates": lambda: jr.patterns_from_gates(X, NETWORK.hidden),
    "patterns_from_weights": lambda: jr.patterns_from_weights(X, NETWORK.hidden),
    "enumerate_patterns": lambda: jr.enumerate_patterns(X),
    "from_network": lambda: jr.from_network(NETWORK, X, Y),
    "shard_samples": lambda: jr.shard_samples(PROGRAM, jax.make_mesh((1,), ("samples",))),
    "minimal": lambda: jr.minimal(NETWORK, X),
    "merge": lambda: jr.merge(NETWORK),
    "prune": lambda: jr.prune(NETWORK, X, Y, to=2),
    "nearly_minimal": lambda: jr.nearly_minimal(NETWORK, X),
    "stationarity": lambda: jr.stationarity(NETWORK, X, Y, 0.5),
    "connect": lambda: jr.connect(BALANCED, BALANCED, X, width=8),
    "effective_sample_size": lambda: jr.effective_sample_size(X @ X.T, num_chains=1),
    "polar_gauge": lambda: jr.polar_gauge(X, Y),
    "is_spike_free": lambda: jr.closed_form.is_spike_free(X),
    "l0_l1_equivalent": lambda: jr.closed_form.l0_l1_equivalent(np.eye(2), Y[:2]),
    "rank_one": lambda: jr.closed_form.rank_one(X[:, :1], Y, 0.5),
    "separable": lambda: jr.closed_form.separable(np.eye(2), np.asarray([1.0, -1.0])),
    "spike_free": lambda: jr.closed_form.spike_free(np.eye(2), Y[:2], 0.1),
    "soft_thresholded_svd": lambda: jr.closed_form.soft_thresholded_svd(np.eye(2), np.eye(2), 0.1),
    "spline": lambda: jr.closed_form.spline(X[:, 0], Y, 0.5),
    "spline_matrix": lambda: jr.closed_form.spline_matrix(X[:, 0]),
    "spline_norm": lambda: jr.closed_form.spline_norm(X[:, 0], Y),
    "whitened": lambda: jr.closed_form.whitened(np.eye(2), Y[:2], 0.1),
}  # fmt: skip
SLOW = {
    "raise_if_failed": lambda: jr.raise_if_failed(many_optima()[1]),
    "lambda_grid": lambda: jr.lambda_grid(PROGRAM, num=3),
    "solve_path": lambda: jr.solve_path(PROGRAM, [0.5, 0.2]),
    "warmup": lambda: jr.warmup(PROGRAM, [0.5, 0.2], max_active=1),
    "interpolate": lambda: jr.interpolate(jr.solve_path(PROGRAM, [0.5, 0.2]), 0.3),
    "follow_path": lambda: jr.follow_path(PROGRAM, 0.2),
    "estimate_memory": lambda: jr.estimate_memory(PROGRAM, [0.5, 0.2]),
    "optimal_set": lambda: jr.optimal_set(*many_optima()[:2]),
    "vertices": lambda: jr.vertices(many_optima()[2]),
    "is_optimal": lambda: jr.is_optimal(many_optima()[2], np.ones(3)),
    "nearest_optimal": lambda: jr.nearest_optimal(many_optima()[2], np.zeros(3)),
    "select": lambda: jr.select(many_optima()[2], lambda a: jnp.sum((a - 0.3) ** 2)),
    "sparsest": lambda: jr.sparsest(many_optima()[2]),
    "sample_optimal": lambda: jr.sample_optimal(key(), many_optima()[2], 64),
    "sensitivity": lambda: jr.sensitivity(*many_optima()[:2]),
    "degrees_of_freedom": lambda: jr.degrees_of_freedom(*many_optima()[:2]),
    "improve": lambda: jr.improve(NETWORK, X, Y, 0.5),
    "descend": lambda: jr.descend(NETWORK, best(), X, Y, 0.5, width=8),
    "certify_global": lambda: jr.certify_global(NETWORK, X, Y, 0.5),
    "refine": lambda: jr.refine(PROGRAM, 0.5),
    "refine_path": lambda: jr.refine_path(PROGRAM, [0.5, 0.4]),
    "cross_walls": lambda: jr.cross_walls(PROGRAM, 0.5),
    "max_margin": lambda: jr.max_margin(X, LABELS, jr.enumerate_patterns(X)),
    "minimum_norm": lambda: jr.minimum_norm(ANGLES, Y[:2], jr.enumerate_patterns(ANGLES)),
    "margin_conditions": lambda: jr.margin_conditions(
        jr.Network(np.eye(2), np.asarray([1.0, -1.0])), np.eye(2), np.asarray([1.0, -1.0])
    ),
}
HOST = QUICK | SLOW


def test_the_list_is_complete():
    functions = zoo.public_functions().items()
    assert set(HOST) == {name for name, given in functions if zoo.belongs_to_the_host(given)}


def numbers(result):
    """The arrays of a result, also of one that is no pytree; the seconds that it took left out."""
    found = []
    for leaf in jax.tree.leaves(result):
        if dataclasses.is_dataclass(leaf):
            names = [f.name for f in dataclasses.fields(leaf) if f.name != "history"]
            found += numbers([getattr(leaf, name) for name in names])
        else:
            found.append(np.asarray(leaf))
    return found


@pytest.mark.parametrize(
    "name", [*QUICK, *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW]]
)
def test_functions_of_the_host_take_known_values_inside_a_trace(name):
    inside, expected = [], numbers(HOST[name]())

    def traced(t):
        inside.append(numbers(HOST[name]()))
        return t

    jax.jit(traced)(1.0)
    jax.lax.map(traced, jnp.ones(2))
    for found in inside:
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", sorted(HOST))
def test_functions_of_the_host_refuse_traced_values_by_name(name):
    function = zoo.public_functions()[name]
    message = f"^{zoo.required(function)[0]} is traced, but {name} looks at values: call it on the"
    with pytest.raises(TypeError, match=message):
        zoo.trace_all(function)


SIZES = {
    "neuron": lambda t: jr.split(NETWORK, t, [1.0]),
    "shares": lambda t: jr.split(NETWORK, 0, t),
    "order": lambda t: jr.permute(NETWORK, t),
    "lam_batch_size": lambda t: jr.solve_grid(PROGRAM, [0.5], lam_batch_size=t),
    "pattern_batch_size": lambda t: jr.solve_grid(PROGRAM, [0.5], pattern_batch_size=t),
    "Network": lambda t: jr.Network(NETWORK.hidden, t).compact(),
    "GatedNetwork": lambda t: jr.GatedNetwork(t, NETWORK.hidden, t).compact(),
}


@pytest.mark.parametrize("name", SIZES)
def test_what_shapes_hang_on_is_refused_where_it_is_traced(name):
    with pytest.raises(TypeError, match=f"^{name} is traced, but .* looks at values: call it on"):
        jax.eval_shape(SIZES[name], 1)


def changed(program=PROGRAM, **changes):
    return dataclasses.replace(program, **changes)


# Refused as at a plain call, although what is traced could not be.
WRONG = {
    "masks": (
        lambda p: jr.lambda_max(p),
        changed(patterns=changed(PROGRAM.patterns, masks=~PROGRAM.patterns.masks)),
        "masks differs from X @ gates",
    ),
    "X": (lambda p: jr.lambda_max(p), changed(X=np.where(X > 1.0, np.nan, X)), "X has NaN"),
    "weights": (lambda p: jr.lambda_max(p), changed(sample_weight=-np.ones(N)), "negative entries"),
    "labels": (lambda p: jr.lambda_max(p), changed(LABELLED, y=(LABELS + 1) / 2), r"2 \* y - 1"),
    "lam": (lambda p: jr.solve(p[0], p[1]), (PROGRAM, np.asarray(-1.0)), "lam is -1.0"),
    "lams": (lambda p: jr.solve_grid(p[0], p[1]), (PROGRAM, np.asarray([1.0, 0.0])), "lams holds"),
    "rtol": (lambda p: jr.solve(p[0], 0.5, rtol=p[1]), (PROGRAM, np.asarray(-1.0)), "rtol is -1.0"),
    "objective": (
        lambda s: jr.nonconvex_objective(NETWORK, X, Y, 0.5, sample_weight=s),
        -np.ones(N), "negative entries",
    ),
}  # fmt: skip


@pytest.mark.parametrize("leaves", ["numpy", "jax"])
@pytest.mark.parametrize("name", WRONG)
def test_known_values_are_checked_inside_a_trace(name, leaves):
    call, subject, message = WRONG[name]
    known = jax.tree.map(np.asarray if leaves == "numpy" else jnp.asarray, subject)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda _: call(known), 1.0)


@pytest.mark.slow
def test_known_coefficients_are_checked_inside_a_trace():
    optima, known = many_optima()[2], jnp.full(3, -1.0)
    with pytest.raises(ValueError, match="coefficients holds -1"):
        jax.eval_shape(lambda _: jr.network_from_coefficients(optima, known), 1.0)
