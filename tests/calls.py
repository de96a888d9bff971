"""A valid call of every public function and method, for tests that go through all of them.

Numbers are small integers where they can be, so that they are the same in every type of number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np

import jaxrelu as jr
from jaxrelu import closed_form, datasets, plotting

FLOATS = frozenset({"a JAX array", "float32"})
# What becomes an array of floats.
REAL = FLOATS | {"a list", "integers", "booleans"}
# What is a number.
NUMBER = frozenset({
    "zero", "one", "one and a half", "an integer", "a JAX array", "float32", "float16",
    "longdouble",
})  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """A valid value, and the kinds of other values (of `test_bad_input`) that are as good."""

    value: Any
    takes: frozenset[str]


@dataclass(frozen=True)
class Call:
    """A function of arguments by name; `slow` where an answer takes a second or more."""

    function: Callable[..., Any]
    arguments: dict[str, Argument]
    slow: bool


def leaf(value, *also):
    """A leaf of a program or network: an array of the dtype of X."""
    return Argument(value, frozenset({"a JAX array", *also}))


def real(value, *also):
    """An array of real numbers."""
    return Argument(value, REAL | {*also})


def number(value, *also, without=()):
    """One number."""
    return Argument(value, (NUMBER | {*also}) - {*without})


def count(value, *also):
    """An integer."""
    return Argument(value, frozenset({"one", "an integer", "a JAX array", *also}))


def flag(value):
    """True or False."""
    return Argument(value, frozenset({"true"}))


def thing(value, *also):
    """An object of the package, a function or one of some words."""
    return Argument(value, frozenset(also))


X = np.array([[2.0, 1], [1, -1], [-1, 2], [1, 3], [-2, 1], [3, -1]])
Y = np.array([1.0, -2, 2, 3, 1, -1])
LABELS = np.sign(Y)
WEIGHT = np.array([1.0, 2, 1, 1, 2, 1])
GATES = np.array([[1.0, 2, -1, 1], [1, -1, 1, -2]])
KEY = jax.random.key(0)
NETWORK = jr.Network(np.array([[1.0, 2, -1], [1, -1, 1]]), np.array([1.0, -2, 1]))
LAM = 0.5


@cache
def patterns():
    return jr.patterns_from_gates(X, GATES)


@cache
def program():
    return jr.ConvexProgram(X, Y, patterns(), sample_weight=WEIGHT)


@cache
def solution():
    return jr.solve(program(), LAM)


@cache
def optima():
    return jr.optimal_set(program(), solution())


@cache
def path():
    return jr.solve_path(program(), [1.0, LAM])


@cache
def best():
    return jr.improve(NETWORK, X, Y, LAM, rtol=1e-10).network


@cache
def balanced():
    return jr.balance(NETWORK)


def mesh():
    return jax.make_mesh((1,), ("lams",))


def _search():
    return {
        "rtol": number(1e-3, "none", "inf", without=["inf"]),
        "max_patterns": count(16),
        "max_rounds": count(4),
        "max_seconds": number(5.0, "inf"),
        "init": thing(None, "none"),
        "solver": thing(jr.ActiveNewton(), "none"),
    }


def _solve():
    return {
        "rtol": number(1e-3, "none"),
        "atol": number(1e-3, "none"),
        "max_steps": count(200, "zero", "none"),
        "init": thing(None, "none"),
    }


def _data(y=Y):
    return {"X": real(X), "y": real(y)}


def _loss(value=None):
    return thing(jr.SquaredLoss() if value is None else value, "none")


def _lam(value=LAM, *also):
    return number(value, *also, without=() if "zero" in also else ["zero"])


def _rank_one(**more):
    return {"X": real(np.array([[2.0], [-1]])), "y": real(np.array([3.0, -2])), **more}


def _write_csv(path, target):
    return datasets.read_csv(path, target)


@cache
def _csv():
    import tempfile
    from pathlib import Path

    file = Path(tempfile.mkdtemp()) / "table.csv"
    file.write_text("length,width,kind\n5,3,0\n7,2,1\n6,1,1\n")
    return file


WEIGHTS = np.zeros((2, 3, 2))
WEIGHTS[0, 0] = [1, 0]

# name: (function, arguments, whether it is slow)
CALLS = {
    "balance": (jr.balance, lambda: {"network": thing(NETWORK)}, False),
    "block_correlations": (
        jr.block_correlations, lambda: {"program": thing(program()), "residual": real(Y)}, False,
    ),
    "certify": (
        jr.certify,
        lambda: {"program": thing(program()), "lam": _lam(), "weights": real(WEIGHTS)}, False,
    ),
    "certify_global": (
        jr.certify_global,
        lambda: {
            "network": thing(NETWORK), **_data(), "lam": _lam(), "loss": _loss(),
            "sample_weight": real(WEIGHT, "none"), "rtol": number(1e-3, "none"),
            "max_seconds": number(5.0, "inf"),
        }, False,
    ),
    "connect": (
        jr.connect,
        lambda: {
            "a": thing(balanced()), "b": thing(jr.permute(balanced(), [2, 0, 1])), "X": real(X),
            "width": count(4, "none"), "via": thing(balanced(), "none"),
        }, False,
    ),
    "count_patterns": (
        jr.count_patterns, lambda: {"n": count(5), "rank": count(2)}, False,
    ),
    "cross_walls": (
        jr.cross_walls, lambda: {"program": thing(program()), "lam": _lam(), **_search()}, True,
    ),
    "degrees_of_freedom": (
        jr.degrees_of_freedom,
        lambda: {"program": thing(program()), "solution": thing(solution())}, True,
    ),
    "descend": (
        jr.descend,
        lambda: {
            "network": thing(NETWORK), "optimum": thing(best()), **_data(), "lam": _lam(),
            "loss": _loss(), "sample_weight": thing(None, "none"), "width": count(8, "none"),
        }, False,
    ),
    "effective_sample_size": (
        jr.effective_sample_size,
        lambda: {"samples": real(np.arange(24.0).reshape(12, 2) % 5), "num_chains": count(3)},
        False,
    ),
    "enumerate_patterns": (
        jr.enumerate_patterns, lambda: {"X": leaf(X, "float32", "a list")}, False,
    ),
    "estimate_memory": (
        jr.estimate_memory,
        lambda: {
            "program": thing(program()), "lams": real(np.array([1.0, 2])),
            "solver": thing(jr.ActiveNewton(), "none"), "lam_batch_size": count(1, "none"),
        }, True,
    ),
    "follow_path": (
        jr.follow_path,
        lambda: {
            "program": thing(program()), "lam_min": _lam(1.0, "none"), "max_events": count(100),
        }, True,
    ),
    "from_network": (
        jr.from_network,
        lambda: {
            "network": thing(NETWORK), **_data(), "loss": _loss(),
            "sample_weight": real(WEIGHT, "none"),
        }, False,
    ),
    "improve": (
        jr.improve,
        lambda: {
            "network": thing(NETWORK), **_data(), "lam": _lam(), "loss": _loss(),
            "sample_weight": real(WEIGHT, "none"), "rtol": number(1e-3, "none"),
            "max_steps": count(200, "zero", "none"), "solver": thing(jr.ActiveNewton(), "none"),
        }, True,
    ),
    "interpolate": (jr.interpolate, lambda: {"path": thing(path()), "lam": _lam(0.75)}, False),
    "is_optimal": (
        jr.is_optimal,
        lambda: {
            "optima": thing(optima()),
            "candidate": real(np.ones(len(optima().signs))),
            "rtol": number(1e-6),
        }, False,
    ),
    "kkt_residual": (
        jr.kkt_residual,
        lambda: {"program": thing(program()), "lam": _lam(), "weights": real(WEIGHTS)}, False,
    ),
    "lambda_grid": (
        jr.lambda_grid,
        lambda: {
            "program": thing(program()), "num": count(3),
            "ratio": number(0.5, without=["zero", "one", "one and a half", "an integer"]),
        }, False,
    ),
    "lambda_max": (jr.lambda_max, lambda: {"program": thing(program())}, False),
    "margin_conditions": (
        jr.margin_conditions,
        lambda: {
            "network": thing(jr.Network(np.eye(2), np.array([1.0, -1]))),
            "X": real(np.eye(2)), "y": real(np.array([1.0, -1])),
            "patterns": thing(None, "none"), "gauge_upper": thing(lambda nu: 1.0, "none"),
            "max_seconds": number(5.0, "inf"), "wall_tolerance": number(1e-7),
            "support_tolerance": number(1e-6),
        }, False,
    ),
    "max_margin": (
        jr.max_margin,
        lambda: {
            **_data(LABELS), "patterns": thing(patterns()),
            "rtol": number(1e-3, "none", without=["zero", "one", "one and a half", "an integer"]),
            "max_steps": count(4), "solver": thing(jr.ActiveNewton(), "none"),
        }, True,
    ),
    "merge": (jr.merge, lambda: {"network": thing(NETWORK)}, False),
    "minimal": (jr.minimal, lambda: {"network": thing(NETWORK), "X": real(X)}, False),
    "minimum_norm": (
        jr.minimum_norm,
        lambda: {
            **_data(), "patterns": thing(patterns()),
            "rtol": number(1e-3, "none", without=["zero", "one", "one and a half", "an integer"]),
            "max_steps": count(4), "solver": thing(jr.ActiveNewton(), "none"),
        }, True,
    ),
    "nearest_optimal": (
        jr.nearest_optimal,
        lambda: {"optima": thing(optima()), "candidate": real(np.ones(len(optima().signs)))},
        False,
    ),
    "nearly_minimal": (
        jr.nearly_minimal, lambda: {"network": thing(NETWORK), "X": real(X)}, False,
    ),
    "network_from_coefficients": (
        jr.network_from_coefficients,
        lambda: {"optima": thing(optima()), "coefficients": real(np.ones(len(optima().signs)))},
        False,
    ),
    "nonconvex_objective": (
        jr.nonconvex_objective,
        lambda: {
            "network": thing(NETWORK), **_data(), "lam": _lam(LAM, "zero"), "loss": _loss(),
            "sample_weight": real(WEIGHT, "none"),
        }, False,
    ),
    "objective": (
        jr.objective,
        lambda: {
            "program": thing(program()), "lam": _lam(LAM, "zero"), "weights": real(WEIGHTS),
        }, False,
    ),
    "optimal_set": (
        jr.optimal_set,
        lambda: {
            "program": thing(program()), "solution": thing(solution()),
            "max_seconds": number(5.0, "inf"),
        }, True,
    ),
    "patterns_from_gates": (
        jr.patterns_from_gates,
        lambda: {"X": leaf(X, "a list"), "gates": leaf(GATES, "a list"), "gated": flag(False)},
        False,
    ),
    "patterns_from_weights": (
        jr.patterns_from_weights,
        lambda: {"X": leaf(X, "a list"), "hidden": leaf(GATES, "a list")}, False,
    ),
    "permute": (
        jr.permute, lambda: {"network": thing(NETWORK), "order": thing([1, 0, 2], "integers")},
        False,
    ),
    "polar_gauge": (
        jr.polar_gauge,
        lambda: {
            "X": leaf(X, "float32", "a list"), "r": real(Y), "key": thing(KEY, "none"),
            "num_starts": count(8), "starts": leaf(X[:2], "a list", "none"),
            "rtol": number(1e-6), "threshold": number(0.5),
            "max_seconds": number(5.0, "inf"),
        }, False,
    ),
    "prune": (
        jr.prune,
        lambda: {
            "network": thing(NETWORK), **_data(), "to": count(1, "zero"), "rule": thing("weight"),
            "corrected": flag(True), "refit": flag(True), "loss": _loss(),
            "lam": _lam(LAM, "zero"), "seed": count(3, "zero"),
        }, False,
    ),
    "raise_if_failed": (jr.raise_if_failed, lambda: {"solution": thing(solution())}, False),
    "refine": (
        jr.refine, lambda: {"program": thing(program()), "lam": _lam(), **_search()}, True,
    ),
    "refine_path": (
        jr.refine_path,
        lambda: {"program": thing(program()), "lams": real(np.array([1.0, 2])), **_search()}, True,
    ),
    "register": (jr.register, lambda: {"cls": thing(Argument)}, False),
    "sample_optimal": (
        jr.sample_optimal,
        lambda: {
            "key": thing(KEY), "optima": thing(optima()), "num_samples": count(4),
            "num_chains": count(2), "thinning": count(2, "none"),
            "burn_in": count(2, "zero", "none"),
        }, False,
    ),
    "sample_patterns": (
        jr.sample_patterns,
        lambda: {
            "key": thing(KEY), "X": leaf(X, "float32", "a list"), "num_gates": count(8),
            "gated": flag(False),
        }, False,
    ),
    "select": (
        jr.select, lambda: {"optima": thing(optima()), "criterion": thing("min_norm")}, False,
    ),
    "sensitivity": (
        jr.sensitivity, lambda: {"program": thing(program()), "solution": thing(solution())}, True,
    ),
    "shard_samples": (
        jr.shard_samples, lambda: {"program": thing(program()), "mesh": thing(mesh())}, False,
    ),
    "solve": (
        jr.solve,
        lambda: {
            "program": thing(program()), "lam": _lam(), **_solve(),
            "solver": thing(jr.ActiveNewton(), "none"),
        }, True,
    ),
    "solve_grid": (
        jr.solve_grid,
        lambda: {
            "program": thing(program()), "lams": real(np.array([1.0, 2])), **_solve(),
            "solver": thing(jr.ActiveNewton(), "none"), "lam_batch_size": count(1, "none"),
            "pattern_batch_size": count(4, "none"), "warm_starts": flag(False),
            "mesh": thing(None, "none"),
        }, True,
    ),
    "solve_path": (
        jr.solve_path,
        lambda: {
            "program": thing(program()), "lams": real(np.array([1.0, 2])), **_solve(),
            "solver": thing(jr.ActiveNewton(), "none"), "max_active": count(4, "zero", "none"),
        }, True,
    ),
    "sparsest": (jr.sparsest, lambda: {"optima": thing(optima())}, False),
    "split": (
        jr.split,
        lambda: {
            "network": thing(NETWORK), "neuron": count(1, "zero", "minus one"),
            "shares": real(np.array([0.0, 1])),
        }, False,
    ),
    "stationarity": (
        jr.stationarity,
        lambda: {
            "network": thing(NETWORK), **_data(), "lam": _lam(), "loss": _loss(),
            "sample_weight": real(WEIGHT, "none"), "wall_tolerance": number(1e-7),
        }, False,
    ),
    "to_network": (
        jr.to_network, lambda: {"program": thing(program()), "solution": real(WEIGHTS)}, False,
    ),
    "vertices": (
        jr.vertices,
        lambda: {"optima": thing(optima()), "at_most": count(10), "seed": count(3, "zero")}, False,
    ),
    "closed_form.is_spike_free": (
        closed_form.is_spike_free, lambda: {"X": real(np.eye(3))}, False,
    ),
    "closed_form.l0_l1_equivalent": (
        closed_form.l0_l1_equivalent,
        lambda: {"X": real(np.eye(3)), "y": real(np.array([1.0, 2, -1]))}, False,
    ),
    "closed_form.rank_one": (
        closed_form.rank_one, lambda: _rank_one(lam=_lam(), loss=thing(jr.SquaredLoss())), False,
    ),
    "closed_form.separable": (
        closed_form.separable,
        lambda: {"X": real(np.diag([2.0, -1])), "y": real(np.array([1.0, -1]))}, False,
    ),
    "closed_form.spike_free": (
        closed_form.spike_free,
        lambda: {
            "X": real(np.array([[1.0, 0], [1, 1]])), "y": real(np.array([1.0, 2])),
            "lam": _lam(), "loss": thing(jr.SquaredLoss()),
        }, True,
    ),
    "closed_form.spline": (
        closed_form.spline,
        lambda: _rank_one(lam=_lam(LAM, "none"), bias=thing("none"), constant=flag(True)), False,
    ),
    "closed_form.spline_norm": (
        closed_form.spline_norm,
        lambda: {"x": real(np.array([-1.0, 0, 2])), "y": real(np.array([1.0, -1, 2]))}, False,
    ),
    "closed_form.whitened": (
        closed_form.whitened,
        lambda: {
            "X": real(np.eye(3)), "y": real(np.array([3.0, 4, -2])), "lam": _lam(),
            "loss": thing(jr.SquaredLoss()),
        }, False,
    ),
    "datasets.load_breast_cancer": (datasets.load_breast_cancer, dict, False),
    "datasets.prepare": (
        datasets.prepare,
        lambda: {
            "data": thing(datasets.Dataset(X, Y, ("a", "b"), "regression")),
            "test_size": number(0.25, without=["zero", "one", "one and a half", "an integer"]),
            "seed": count(3, "zero"), "bias": flag(False),
        }, False,
    ),
    "datasets.read_csv": (
        datasets.read_csv, lambda: {"path": thing(_csv()), "target": thing("kind")}, False,
    ),
    "datasets.score": (
        datasets.score,
        lambda: {
            "fit": real(np.array([1.0, -2, 1])), "y": real(np.array([1.0, -1, -1])),
            "task": thing("regression"),
        }, False,
    ),
    "datasets.standardize": (
        lambda train, others: datasets.standardize(train, others),
        lambda: {"train": real(X), "others": real(X[:2])}, False,
    ),
    "datasets.train_test_split": (
        datasets.train_test_split,
        lambda: {
            **_data(),
            "test_size": number(0.25, without=["zero", "one", "one and a half", "an integer"]),
            "seed": count(3, "zero"),
        }, False,
    ),
    "plotting.plot_path": (
        plotting.plot_path,
        lambda: {
            "path": thing(path()), "train_score": real(np.array([1.0, 2]), "none"),
            "test_score": real(np.array([1.0, 2]), "none"), "score_name": thing("accuracy", "text"),
            "title": thing("title", "text", "none"),
        }, True,
    ),
    # Objects that users build are checked where they are put to use.
    "ConvexProgram": (
        lambda **given: jr.lambda_max(jr.ConvexProgram(**given)),
        lambda: {
            "X": leaf(X), "y": leaf(Y, "an entry of nan", "an entry of inf"),
            "patterns": thing(patterns()), "loss": thing(jr.SquaredLoss()),
            "sample_weight": leaf(WEIGHT, "none", "an entry of nan", "an entry of inf"),
        }, False,
    ),
    "GatedProgram": (
        lambda **given: jr.lambda_max(jr.GatedProgram(**given)),
        lambda: {
            "X": leaf(X), "y": leaf(Y, "an entry of nan", "an entry of inf"),
            "patterns": thing(patterns()), "loss": thing(jr.SquaredLoss()),
            "sample_weight": leaf(WEIGHT, "none", "an entry of nan", "an entry of inf"),
        }, False,
    ),
    "Patterns": (
        lambda **given: jr.lambda_max(jr.ConvexProgram(X, Y, jr.Patterns(**given))),
        lambda: {
            "gates": leaf(np.asarray(patterns().gates)),
            "masks": leaf(np.asarray(patterns().masks), "integers", "booleans"),
            "interior": leaf(np.asarray(patterns().interior), "none"),
        }, False,
    ),
    "Network": (
        lambda **given: jr.stationarity(jr.Network(**given), X, Y, LAM),
        lambda: {"hidden": leaf(NETWORK.hidden, "float32"), "output": leaf(NETWORK.output, "float32")},
        False,
    ),
    "GatedNetwork": (
        lambda **given: jr.minimal(jr.GatedNetwork(**given), X),
        lambda: {
            "gates": leaf(NETWORK.hidden, "float32"), "hidden": leaf(NETWORK.hidden, "float32"),
            "output": leaf(NETWORK.output, "float32"),
        }, False,
    ),
    "ActiveNewton": (
        lambda **given: jr.estimate_memory(program(), [1.0], solver=jr.ActiveNewton(**given)),
        lambda: {"capacity": count(4, "none"), "pattern_batch_size": count(2, "none")}, True,
    ),
    "ADMM": (
        lambda **given: jr.estimate_memory(program(), [1.0], solver=jr.ADMM(**given)),
        lambda: {"check_every": count(5)}, True,
    ),
    "Network.__call__": (NETWORK, lambda: {"X": real(X)}, False),
    "GatedNetwork.__call__": (
        jr.GatedNetwork(NETWORK.hidden, NETWORK.hidden, NETWORK.output),
        lambda: {"X": real(X)}, False,
    ),
    "OptimalSet.features_at": (
        lambda X: optima().features_at(X), lambda: {"X": real(X)}, False,
    ),
    "Path.__getitem__": (lambda k: path()[k], lambda: {"k": count(1, "zero", "minus one")}, False),
    "FollowedPath.__call__": (
        lambda lam: jr.follow_path(program(), 0.5)(lam), lambda: {"lam": _lam(1.0)}, True,
    ),
    "DecreasingPath.__call__": (
        lambda t: jr.nearly_minimal(NETWORK, X)(t),
        lambda: {"t": number(0.5, "minus one", "inf")}, False,
    ),
    "NetworkPath.__call__": (
        lambda t: jr.connect(balanced(), balanced(), X)(t),
        lambda: {"t": number(0.5, "minus one", "inf")}, False,
    ),
    "DescentPath.__call__": (
        lambda t: jr.descend(NETWORK, best(), X, Y, LAM, width=8)(t),
        lambda: {"t": number(0.5, "minus one", "inf")}, False,
    ),
    "Spline.__call__": (
        lambda X: closed_form.spline(np.array([2.0, -1]), np.array([3.0, -2]))(X),
        lambda: {"X": real(np.array([1.0, 2, 3]))}, False,
    ),
    "Split.astype": (
        lambda dtype: datasets.Split(X, Y, X, Y, "regression").astype(dtype),
        lambda: {"dtype": thing("float32")}, False,
    ),
    "SquaredLoss.check_target": (jr.SquaredLoss().check_target, lambda: {"target": real(Y)}, False),
    "LogisticLoss.check_target": (
        jr.LogisticLoss().check_target, lambda: {"target": real(LABELS)}, False,
    ),
}  # fmt: skip


@cache
def call(name):
    function, arguments, slow = CALLS[name]
    return Call(function, arguments(), slow)
