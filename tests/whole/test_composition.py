"""Every traceable function in every way of use: what comes out is what the plain call gives.

A way of use is a choice of leaves (NumPy's or JAX's), of how they come in (as arguments, closed
over, or closed over with all else, so that nothing is traced), of a transform and of a dtype.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from jax.sharding import AxisType, PartitionSpec

import jaxrelu as jr

RNG = np.random.default_rng(0)
PROGRAM, GATED = zoo.smallest(), zoo.smallest(gated=True)
LABELLED = zoo.smallest(gated=True, loss=jr.LogisticLoss())
(N, D), P = PROGRAM.X.shape, PROGRAM.patterns.num_patterns
WEIGHTS = RNG.standard_normal((2, P, D))
NETWORK = jr.Network(RNG.standard_normal((D, 4)), RNG.standard_normal(4))
GATED_NETWORK = jr.GatedNetwork(RNG.standard_normal((D, 4)), NETWORK.hidden, NETWORK.output)
# Two lams; both below lambda_max.
POINTS = np.asarray([0.5, 0.2])


def path():
    """A path of two answers, of which only shapes and places matter here."""
    rows = RNG.standard_normal((2, N))
    blocks, ends = np.asarray([[0, 4], [5, 6]], np.int32), np.asarray([1.0, 2.0])
    statuses = np.asarray([jr.Status.OPTIMAL, jr.Status.SKIPPED], np.int32)
    weights = RNG.standard_normal((2, 2, D))
    return jr.Path(
        PROGRAM, POINTS, blocks, weights, rows, -rows, 2 * rows, ends, 2 * ends, ends, statuses,
        statuses,
    )  # fmt: skip


def start():
    """Zero weights at another lam, to start a solve from."""
    zero, weights = np.zeros(N), np.zeros((2, P, D))
    certificate = jr.Certificate(*np.zeros(3), weights, zero)
    return jr.Solution(weights, np.asarray(0.4), zero, PROGRAM.y, certificate, *np.zeros((2,), int))


def optima():
    """Three directions and their coefficients; no program that they belong to."""
    k = 3
    return jr.OptimalSet(
        RNG.standard_normal((k, D)), np.asarray([1.0, -1.0, 1.0]), RNG.standard_normal((N, k)),
        np.ones(k), np.ones(k), np.ones(k), np.ones(k, bool), np.zeros((k, 0)), None,
        np.zeros((2, P), np.int32), PROGRAM.X, np.ones(N, bool), *[PROGRAM.y] * 4,
        np.asarray(0.5), 3, 0, True, 3, True, False,
    )  # fmt: skip


def descent():
    """A path of networks: a part that merges, and one of two pieces."""
    group, dead = np.asarray([0, 1, 0, 2], np.int32), np.asarray([False, False, False, True])
    thirds, acts = np.asarray([0.0, 1 / 3, 2 / 3]), np.ones(3, bool)
    merging = jr.DecreasingPath(NETWORK, group, dead, thirds, np.asarray(3.0), acts)
    pieces = RNG.uniform(0.1, 1.0, (2, 2, 4))
    directions = np.stack([NETWORK.hidden, NETWORK.hidden[:, ::-1]])
    moving = jr.NetworkPath(directions, np.ones((2, 4)), *pieces, np.asarray(4, np.int32))
    return jr.DescentPath(merging, moving)


@dataclass(frozen=True)
class Use:
    """A call of a subject, a pytree, and a number x, for example a lam."""

    subject: Any
    call: Callable[[Any, Any], Any]
    # Takes seconds to compile: all cells are traced, and values compared where pairs ask for it.
    dear: bool = False
    # A scalar of what comes out, to differentiate by x.
    value: Callable[[Any], Any] = lambda out: sum(jnp.sum(leaf**2) for leaf in floats(out))
    # Its derivative, from what comes out; by default central differences.
    slope: Callable[[Any], Any] | None = None


def floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def solved(function, subject=PROGRAM):
    # The envelope theorem: the slope of the optimum is the sum of the norms.
    return Use(
        subject,
        function,
        dear=True,
        value=lambda out: jnp.sum(out.upper),
        slope=lambda out: np.linalg.norm(out.weights, axis=-1).sum(),
    )


# Bounds have no derivatives: no cells of `jit(grad)`.
WITHOUT_DERIVATIVES = {"certify", "certify, gated", "lambda_max_interval"}
WITH_WEIGHTS, GATED_WEIGHTS = (PROGRAM, WEIGHTS), (GATED, WEIGHTS[0])
WITHOUT_WITNESSES = replace(PROGRAM, patterns=replace(PROGRAM.patterns, interior=None))
USES = {
    "solve": solved(jr.solve),
    "solve, ADMM": solved(lambda p, x: jr.solve(p, x, solver=jr.ADMM())),
    "solve, gated": solved(jr.solve, GATED),
    "solve_grid": replace(
        solved(
            lambda s, x: jr.solve_grid(
                s[0], jnp.stack([x, x / 2]), init=s[1], solver=jr.ADMM()
            ),
            (PROGRAM, start()),
        ),
        # Of x and of x / 2.
        slope=lambda out: np.linalg.norm(out.weights, axis=-1).sum(axis=(1, 2)) @ [1.0, 0.5],
    ),
    "certify": Use(
        (WITHOUT_WITNESSES, WEIGHTS), lambda s, x: jr.certify(s[0], x, s[1]), dear=True
    ),
    "certify, gated": Use(GATED_WEIGHTS, lambda s, x: jr.certify(s[0], x, s[1]), dear=True),
    "kkt_residual": Use(WITH_WEIGHTS, lambda s, x: jr.kkt_residual(s[0], x, s[1]), dear=True),
    "kkt_residual, gated": Use(GATED_WEIGHTS, lambda s, x: jr.kkt_residual(s[0], x, s[1])),
    "block_correlations": Use(PROGRAM, lambda p, x: jr.block_correlations(p, x * p.y), dear=True),
    "block_correlations, gated": Use(GATED, lambda p, x: jr.block_correlations(p, x * p.y)),
    "lambda_max": Use(PROGRAM, lambda p, x: jr.lambda_max(replace(p, y=x * p.y)), dear=True),
    "lambda_max_interval": Use(
        LABELLED, lambda p, x: x * sum(jr.lambda_max_interval(p)), dear=True
    ),
    "lambda_max, labels": Use(LABELLED, lambda p, x: x * jr.lambda_max(p)),
    "lambda_max, gated": Use(GATED, lambda p, x: x * jr.lambda_max(p)),
    "objective": Use(WITH_WEIGHTS, lambda s, x: jr.objective(s[0], x, x * s[1])),
    "objective, gated": Use(GATED_WEIGHTS, lambda s, x: jr.objective(s[0], x, x * s[1])),
    "to_network": Use(WITH_WEIGHTS, lambda s, x: jr.to_network(s[0], x * s[1])),
    "to_network, gated": Use(GATED_WEIGHTS, lambda s, x: jr.to_network(s[0], x * s[1])),
    "Network": Use((NETWORK, PROGRAM.X), lambda s, x: s[0](x * s[1])),
    "GatedNetwork": Use((GATED_NETWORK, PROGRAM.X), lambda s, x: s[0](x * s[1])),
    "nonconvex_objective": Use(
        (NETWORK, PROGRAM), lambda s, x: jr.nonconvex_objective(s[0], s[1].X, s[1].y, x)
    ),
    "nonconvex_objective, labels": Use(
        (GATED_NETWORK, LABELLED),
        lambda s, x: jr.nonconvex_objective(
            s[0], s[1].X, s[1].y, x, s[1].loss, s[1].sample_weight
        ),
    ),
    "balance": Use(NETWORK, lambda n, x: jr.balance(jr.Network(x * n.hidden, n.output))),
    "permute": Use(NETWORK, lambda n, x: x * jr.permute(n, [1, 0, 3, 2]).hidden),
    "split": Use(NETWORK, lambda n, x: x * jr.split(n, 1, [0.5, 0.5]).hidden),
    "network_from_coefficients": Use(
        optima(), lambda o, x: jr.network_from_coefficients(o, x * o.coefficients)
    ),
    "features_at": Use(optima(), lambda o, x: o.features_at(x * o.X)),
    # Its NetworkPath at 0.7 and its DecreasingPath at 0.28.
    "DescentPath": Use(descent(), lambda s, x: s(1.4 * x)),
    "Path": Use(path(), lambda s, x: (x * s[0].weights, x * s[-2].fit, s.num_active)),
}  # fmt: skip


def cast(tree, dtype, leaves):
    """A subject in a dtype, with NumPy's or JAX's leaves."""

    def one(leaf):
        leaf = np.asarray(leaf)
        leaf = leaf.astype(dtype) if np.issubdtype(leaf.dtype, np.floating) else leaf
        return jnp.asarray(leaf) if leaves == "jax" else leaf

    return jax.tree.map(one, tree)


def stack(rows):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _one_by_one(function, subject, xs):
    return stack([function(subject, x) for x in xs])


def _scan(function, subject, xs):
    return jax.lax.scan(lambda s, x: (s, function(s, x)), subject, xs)[1]


def _map(function, subject, xs):
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(xs)), subject)
    return jax.lax.map(lambda pair: function(*pair), (copies, xs))


def _shard_map(function, subject, xs):
    whole, spread = PartitionSpec(), PartitionSpec("x")
    inside = jax.shard_map(
        lambda s, x: jax.tree.map(lambda leaf: leaf[None], function(s, x[0])),
        mesh=jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,)),
        in_specs=(whole, spread),
        out_specs=spread,
        check_vma=False,  # loops whose state begins with constants
    )
    parts = [jax.jit(inside)(subject, xs[k : k + 1]) for k in range(len(xs))]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


# What went unseen longest comes first: every function is tried with the first of all choices.
LEAVES = ("jax", "numpy")
PASSING = ("closed over", "all known", "argument")
DTYPES = ("float64", "float32")
TRANSFORMS = {
    "jit": lambda f, s, xs: _one_by_one(jax.jit(f), s, xs),
    "vmap": lambda f, s, xs: jax.vmap(f, in_axes=(None, 0))(s, xs),
    "jit(vmap)": lambda f, s, xs: jax.jit(jax.vmap(f, in_axes=(None, 0)))(s, xs),
    "jit(grad)": lambda f, s, xs: _one_by_one(jax.jit(jax.grad(f, argnums=1)), s, xs),
    "scan": _scan,
    "map": _map,
    "shard_map": _shard_map,
}


def is_cell(name, transform, leaves, passing, dtype):
    """Whether there is something to compute; where nothing is traced all derivatives are zero."""
    has_slope = name not in WITHOUT_DERIVATIVES and passing != "all known"
    return transform != "jit(grad)" or has_slope


CELLS = [c for c in product(USES, TRANSFORMS, LEAVES, PASSING, DTYPES) if is_cell(*c)]


def pairs(cell):
    """The pairs of choices that a cell is an example of."""
    return {(i, j, cell[i], cell[j]) for i in range(len(cell)) for j in range(i)}


def cover(cells):
    """Some of the cells, in which every pair of choices occurs that occurs in any."""
    missing, chosen = set().union(*map(pairs, cells)), []
    by_use = {}
    for cell in cells:
        by_use.setdefault(cell[:2], []).append(cell)
    for some in by_use.values():  # as many as there must be, one for every use and transform
        best = max(some, key=lambda cell: len(pairs(cell) & missing))
        chosen.append(best)
        missing -= pairs(best)
    while missing:
        best = max(cells, key=lambda cell: len(pairs(cell) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


COVER = cover(CELLS)
DEAR = [cell for cell in CELLS if USES[cell[0]].dear]
CHEAP = [cell for cell in CELLS if not USES[cell[0]].dear]


def parameters(cells, quick):
    """A decorator that runs a test on cells; those not in `quick` are marked slow."""
    params = [
        pytest.param(*c, id="-".join(c), marks=[] if c in quick else [pytest.mark.slow])
        for c in cells
    ]
    return pytest.mark.parametrize(("name", "transform", "leaves", "passing", "dtype"), params)


def prepared(name, transform, leaves, passing, dtype):
    """(function, subject, xs) for the transform; a subject that is closed over is not passed."""
    use, xs = USES[name], POINTS.astype(dtype)
    function = use.call
    if transform == "jit(grad)":

        def function(subject, x):
            return use.value(use.call(subject, x))

    subject = cast(use.subject, dtype, leaves)
    if passing == "argument":
        return function, subject, xs
    if passing == "closed over":
        return (lambda _, x: function(subject, x)), (), xs
    return (lambda _, x: function(subject, xs[0])), (), xs


@cache
def plain(name):
    """What the plain calls on NumPy leaves in float64 give, one row a point."""
    return _one_by_one(USES[name].call, USES[name].subject, POINTS)


def slopes(name):
    """The derivative by x at every point, by central differences or from the answer."""
    use, step = USES[name], 1e-6
    if use.slope is not None:
        return [use.slope(jax.tree.map(lambda a, k=k: a[k], plain(name))) for k in range(2)]
    ends = [[use.value(use.call(use.subject, x + s)) for s in (-step, step)] for x in POINTS]
    return [(after - before) / (2 * step) for before, after in ends]


@parameters(
    CHEAP + [cell for cell in COVER if cell in DEAR],
    quick=[cell for cell in COVER if cell in CHEAP],
)
def test_values_are_those_of_the_plain_call(name, transform, leaves, passing, dtype):
    found = TRANSFORMS[transform](*prepared(name, transform, leaves, passing, dtype))
    expected = jnp.asarray(slopes(name)) if transform == "jit(grad)" else plain(name)
    if passing == "all known":
        expected = jax.tree.map(lambda a: jnp.stack([a[0]] * len(a)), expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    scale = max(1.0, *(float(np.nanmax(np.abs(leaf))) for leaf in floats(expected)))
    # An answer in float32 is solved to 1e-4 of its value, and a slope is that of a plain answer.
    solved_slope = transform == "jit(grad)" and USES[name].slope is not None
    tolerance = 1e-5 if solved_slope else 1e-6
    if dtype == "float32":
        tolerance = 2e-2 if USES[name].dear else 1e-4
    leaves = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True)
    for (place, one), other in leaves:
        assert one.shape == other.shape
        if jnp.issubdtype(one.dtype, jnp.floating):
            assert one.dtype == dtype
            if solved_slope and dtype == "float32" and name == "solve, ADMM":
                # Not accurate enough for a slope, which may be NaN then but no wrong number.
                one = jnp.where(jnp.isnan(one), other.astype(dtype), one)
            np.testing.assert_allclose(one, other, atol=tolerance * scale)
        elif "num_steps" not in jax.tree_util.keystr(place):
            np.testing.assert_array_equal(one, other)


@parameters(DEAR, quick=COVER)
def test_what_is_dear_can_be_traced(name, transform, leaves, passing, dtype):
    # Nothing is compiled: shapes and dtypes are those of the plain call, one row a point.
    function, subject, xs = prepared(name, transform, leaves, passing, dtype)
    found = jax.eval_shape(lambda s, x: TRANSFORMS[transform](function, s, x), subject, xs)
    one = jax.eval_shape(function, subject, xs[0])
    assert jax.tree.structure(found) == jax.tree.structure(one)
    for row, leaf in zip(jax.tree.leaves(found), jax.tree.leaves(one), strict=True):
        assert (row.shape, row.dtype) == ((len(xs), *leaf.shape), leaf.dtype)
        assert not jnp.issubdtype(row.dtype, jnp.floating) or row.dtype == dtype


def test_every_pair_of_choices_is_in_the_quick_lane():
    found, wanted = (set().union(*map(pairs, cells)) for cells in (COVER, CELLS))
    assert found == wanted
    assert len(COVER) < len(CELLS) / 8


def test_every_public_function_is_used_here_or_belongs_to_the_host():
    used = {name.split(",")[0] for name in USES}
    for name, function in zoo.public_functions().items():
        assert (name in used) != zoo.belongs_to_the_host(function), name
