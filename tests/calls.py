"""A valid call of every public function and method, for tests that go through all of them.

Numbers are small integers where they can be, so that they are the same in every type of number.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.linalg

import jaxrelu as jr
from jaxrelu import closed_form, datasets, plotting

# Kinds of other values (of `test_bad_input`) that are as good: of what becomes an array of floats,
REAL = frozenset({"a JAX array", "float32", "a list", "integers", "booleans"})
# of numbers that take the precision of a program,
NUMBERS = frozenset({
    "a JAX array", "float32", "float16", "bfloat16", "longdouble", "a list", "integers",
})  # fmt: skip
# of one number,
NUMBER = frozenset({
    "zero", "one", "one and a half", "an integer", "a JAX array", "float32", "float16",
    "longdouble",
})  # fmt: skip
# of data in any number of rows, and of functions in which a NaN gives a NaN.
ROWS = "one row fewer"
NAN = ("an entry of nan", "an entry of inf")


@dataclass(frozen=True)
class Argument:
    """A valid value, the kinds of other values that are as good, and whether it may be traced."""

    value: Any
    takes: frozenset[str]
    traceable: bool


@dataclass(frozen=True)
class Call:
    """A function of arguments by name; `slow` where an answer takes a second or more."""

    function: Callable[..., Any]
    arguments: dict[str, Argument]
    slow: bool


def leaf(value, *also, traceable=False):
    """An array that is taken as it is: of the dtype of X, in programs, patterns and networks."""
    return Argument(value, frozenset({"a JAX array", *also}), traceable)


def real(value, *also, traceable=False):
    """An array of real numbers."""
    return Argument(value, REAL | {*also}, traceable)


def same(value, *also, traceable=False):
    """An array of real numbers that has the dtype of others."""
    return Argument(value, (REAL | {*also}) - {"float32"}, traceable)


def numbers(value, *also, traceable=False):
    """Numbers that take the precision of a program, or of NumPy."""
    return Argument(value, NUMBERS | {*also}, traceable)


def number(value, *also, without=(), traceable=False):
    """One number."""
    return Argument(value, (NUMBER | {*also}) - {*without}, traceable)


def count(value, *also, without=(), traceable=False):
    """An integer."""
    kinds = {"one", "an integer", "a JAX array", *also} - {*without}
    return Argument(value, frozenset(kinds), traceable)


def flag(value):
    """True or False."""
    return Argument(value, frozenset({"true"}), False)


def thing(value, *also, traceable=False):
    """An object of the package, a function or one of some words."""
    return Argument(value, frozenset(also), traceable)


X = np.array([[2.0, 1], [1, -1], [-1, 2], [1, 3], [-2, 1], [3, -1]])
Y = np.array([1.0, -2, 2, 3, 1, -1])
LABELS = np.sign(Y)
WEIGHT = np.array([1.0, 2, 1, 1, 2, 1])
GATES = np.array([[1.0, 2, -1, 1], [1, -1, 1, -2]])
WEIGHTS = np.zeros((2, 3, 2))
WEIGHTS[0, 0] = [1, 0]
KEY = jax.random.key(0)
NETWORK = jr.Network(np.array([[1.0, 2, -1], [1, -1, 1]]), np.array([1.0, -2, 1]))
MARGIN = jr.Network(np.eye(2), np.array([1.0, -1]))
LAM = 0.5


@cache
def patterns():
    return jr.patterns_from_gates(X, GATES)


@cache
def program():
    return jr.ConvexProgram(X, Y, patterns(), sample_weight=WEIGHT)


def zero():
    """The optimum above lambda_max: no weights. Nothing is compiled to have it."""
    weights, loss = np.zeros((2, patterns().num_patterns, 2)), float(WEIGHT @ Y**2 / 2)
    return weights, loss, np.asarray(0, np.int32)


def solution():
    weights, loss, status = zero()
    residual = WEIGHT * Y
    proof = jr.Certificate(*map(np.asarray, (loss, loss, 0.0)), weights, residual)
    lam = np.asarray(100.0)
    return jr.Solution(weights, lam, np.zeros(6), residual, proof, status, status)


def path():
    weights, loss, status = zero()
    two, residual = np.ones(2), np.tile(WEIGHT * Y, (2, 1))
    blocks = np.full((2, 1), weights.size // 2, np.int32)
    return jr.Path(
        program(), 100 * np.array([1.0, 2]), blocks, np.zeros((2, 1, 2)), 0 * residual, residual,
        residual, loss * two, loss * two, 0 * two, status + np.zeros(2, np.int32),
        np.zeros(2, np.int32),
    )  # fmt: skip


@cache
def outputs_path():
    program = jr.VectorProgram(X, np.column_stack([Y, -Y]), patterns(), "gated")
    return jr.solve_path(program, [2.0, 1.0])


@cache
def optima():
    """Three directions that see the data alike, of which two would do."""
    directions = np.array([[1.0, 0], [0.6, 0.8], [0.8, 0.6]])
    rows, a = np.array([[1.0, 0], [1, 1], [0, 1], [2, 1], [-1, -1], [1, 2]]), np.ones(3)
    features = np.maximum(rows @ directions.T, 0)
    basis, fit = scipy.linalg.null_space(features), features @ a
    return jr.OptimalSet(
        directions, a, features, a, a, np.array([1.7, 0, 1.5]), a > 0, basis, None,
        np.zeros((2, 3), np.int32), rows, np.ones(6, bool), *[fit] * 4, np.asarray(LAM), 2, 1,
        False, 2, True, False,
    )  # fmt: skip


@cache
def descent():
    """The optimum on orthogonal rows is known in closed form."""
    best = closed_form.whitened(np.eye(3), np.array([3.0, 4, -2]), LAM).network
    start = jr.Network(np.array([[1.0, 2], [1, -1], [0, 1]]), np.array([1.0, -2]))
    return {
        "network": thing(start), "optimum": thing(best), "X": same(np.eye(3)),
        "y": Argument(np.array([3.0, 4, -2]), REAL - {"booleans"}, False),
        "lam": number(LAM, without=["zero", "one", "one and a half"]), "loss": _loss(),
        "sample_weight": real(np.ones(3), "none"), "width": count(8, without=["one"]),
    }  # fmt: skip


@cache
def walked(name):
    """Paths of networks, and of lams."""
    return {
        "followed": lambda: jr.follow_path(program(), 12.0),
        "decreasing": lambda: jr.nearly_minimal(NETWORK, X),
        "connected": lambda: jr.connect(balanced(), balanced(), X),
        "descending": lambda: jr.DescentPath(walked("decreasing"), walked("connected")),
    }[name]()


@cache
def balanced():
    return jr.balance(NETWORK)


@cache
def table():
    file = Path(tempfile.mkdtemp()) / "table.csv"
    file.write_text("length,width,kind\n5,3,0\n7,2,1\n6,1,1\n")
    return file


def _program(traceable=False):
    return thing(program(), traceable=traceable)


def _network(traceable=False):
    return thing(NETWORK, traceable=traceable)


def _lam(value=LAM, *also, traceable=False):
    # The other kinds are below the lams of the paths.
    low = [] if "zero" in also else ["zero"] if value < 10 else ["zero", "one", "one and a half"]
    return number(value, *also, without=low, traceable=traceable)


def _lams(traceable=False):
    return numbers(np.array([1.0, 2]), ROWS, traceable=traceable)


def _share(value, *also):
    """A number strictly between zero and one."""
    return number(value, *also, without=["zero", "one", "one and a half", "an integer"])


def _budget():
    return {"max_work": number(1.0, "none", "inf"), "max_seconds": number(5.0, "none", "inf")}


def _loss():
    return thing(jr.SquaredLoss(), "none")


def _newton():
    return thing(jr.ActiveNewton(), "none")


def _init():
    return thing(None, "none")


def _data(y=Y, traceable=False):
    return {"X": real(X, traceable=traceable), "y": real(y, traceable=traceable)}


def _weight(*also, traceable=False):
    return real(WEIGHT, "none", *also, traceable=traceable)


def _optima(traceable=False):
    return thing(optima(), traceable=traceable)


def _ones(traceable=False):
    return real(np.ones(len(optima().signs)), traceable=traceable)


def _limits(traceable=False):
    return {
        "rtol": number(1e-3, "none", traceable=traceable),
        "atol": number(1e-3, "none", traceable=traceable),
        "max_steps": count(200, "zero", "none", traceable=traceable),
        "init": thing(None, "none"),
    }


def _search():
    return {
        "rtol": number(1e-3, "none"),
        "max_patterns": count(16),
        "max_rounds": count(4),
        **_budget(),
        "init": thing(None, "none"),
        "solver": _newton(),
    }


def _margin(y=Y):
    return {
        "X": same(X), "y": real(y), "patterns": thing(patterns()), "rtol": _share(1e-3, "none"),
        "max_steps": count(4), "solver": _newton(),
    }  # fmt: skip


def _line():
    return {"X": real(np.array([[2.0], [-1]])), "y": real(np.array([3.0, -2]))}


def _program_leaves(blocks=(2, 3)):
    return {
        "X": leaf(X, traceable=True), "y": leaf(Y, *NAN, traceable=True),
        "patterns": thing(patterns(), traceable=True),
        "loss": thing(jr.SquaredLoss()),
        "sample_weight": leaf(WEIGHT, "none", *NAN, traceable=True),
        "block_weights": leaf(np.ones(blocks), "none", "an entry of inf", traceable=True),
        "skip": flag(False),
    }  # fmt: skip


def _no_skip():
    """Of a program that has none."""
    return thing(None, "none")


def _layer(value):
    return leaf(value, "float32", *NAN, traceable=True)


def _t():
    return {"t": number(0.5, "minus one", traceable=True)}


# name: (function, its arguments, whether an answer takes a second or more)
CALLS = {
    "balance": (jr.balance, lambda: {"network": _network(True)}, False),
    "block_correlations": (
        jr.block_correlations,
        lambda: {"program": _program(True), "residual": real(Y, *NAN, traceable=True)}, True,
    ),
    "certify": (
        jr.certify,
        lambda: {
            "program": _program(True), "lam": _lam(traceable=True),
            "weights": same(WEIGHTS, *NAN, traceable=True), "multipliers": flag(False),
            "skip": _no_skip(), "constant": _no_skip(),
            "residual": real(Y, "none", *NAN, traceable=True),
        }, True,
    ),
    "certify_global": (
        jr.certify_global,
        lambda: {
            "network": _network(), "X": same(X), "y": same(Y), "lam": _lam(), "loss": _loss(),
            "sample_weight": same(WEIGHT, "none"), "rtol": number(1e-3, "none"), **_budget(),
        }, True,
    ),
    "connect": (
        jr.connect,
        lambda: {
            "a": thing(balanced()), "b": thing(jr.permute(balanced(), [2, 0, 1])),
            "X": real(X, ROWS), "width": count(4, without=["one"]),
            "via": thing(balanced(), "none"),
        }, False,
    ),
    "count_patterns": (jr.count_patterns, lambda: {"n": count(5), "rank": count(2)}, False),
    "cross_walls": (
        jr.cross_walls, lambda: {"program": _program(), "lam": _lam(), **_search()}, True,
    ),
    "degrees_of_freedom": (
        jr.degrees_of_freedom, lambda: {"program": _program(), "solution": thing(solution())}, True,
    ),
    "descend": (jr.descend, descent, True),
    "effective_sample_size": (
        jr.effective_sample_size,
        lambda: {
            "samples": real(np.arange(26.0).reshape(13, 2) % 5, ROWS), "num_chains": count(3),
        }, False,
    ),
    "enumerate_patterns": (
        jr.enumerate_patterns,
        lambda: {"X": leaf(X, "float32", "a list", ROWS), "bias": thing("none")}, False,
    ),
    "estimate_memory": (
        jr.estimate_memory,
        lambda: {
            "program": _program(), "lams": _lams(), "solver": _newton(),
            "lam_batch_size": count(1, "none"),
        }, True,
    ),
    "follow_path": (
        jr.follow_path,
        lambda: {
            "program": _program(), "lam_min": _lam(1.0, "none"), "max_events": count(100),
        }, True,
    ),
    "from_network": (
        jr.from_network,
        lambda: {
            "network": _network(), "X": same(X), "y": same(Y), "loss": _loss(),
            "sample_weight": same(WEIGHT, "none"),
            "neuron_weight": real(np.ones(3), "none", "an entry of inf"),
        },
        False,
    ),
    "improve": (
        jr.improve,
        lambda: {
            "network": _network(), "X": same(X), "y": same(Y), "lam": _lam(), "loss": _loss(),
            "sample_weight": same(WEIGHT, "none"), "rtol": number(1e-3, "none"),
            "max_steps": count(200, "zero", "none"), "solver": _newton(),
        }, True,
    ),
    "interpolate": (jr.interpolate, lambda: {"path": thing(path()), "lam": _lam(150.0)}, True),
    "is_optimal": (
        jr.is_optimal,
        lambda: {"optima": _optima(), "candidate": _ones(), "rtol": number(1e-6)}, False,
    ),
    "kkt_residual": (
        jr.kkt_residual,
        lambda: {
            "program": _program(True), "lam": _lam(traceable=True),
            "weights": same(WEIGHTS, *NAN, traceable=True), "skip": _no_skip(),
            "residual": real(Y, "none", *NAN, traceable=True),
        }, True,
    ),
    "lambda_grid": (
        jr.lambda_grid,
        lambda: {"program": _program(), "num": count(3), "ratio": _share(0.5)}, True,
    ),
    "lambda_max": (jr.lambda_max, lambda: {"program": _program(True)}, True),
    "lambda_max_interval": (
        jr.lambda_max_interval, lambda: {"program": _program(True)}, True,
    ),
    "margin_conditions": (
        jr.margin_conditions,
        lambda: {
            "network": thing(MARGIN), "X": real(np.eye(2)), "y": real(np.array([1.0, -1])),
            "patterns": thing(None, "none"), "gauge_upper": thing(lambda nu: 1.0, "none"),
            **_budget(), "wall_tolerance": number(1e-7),
            "support_tolerance": number(1e-6),
        }, False,
    ),
    "max_margin": (jr.max_margin, lambda: _margin(LABELS), True),
    "merge": (jr.merge, lambda: {"network": _network()}, False),
    "minimal": (jr.minimal, lambda: {"network": _network(), "X": real(X, ROWS)}, False),
    "minimum_norm": (jr.minimum_norm, _margin, True),
    "nearest_optimal": (
        jr.nearest_optimal, lambda: {"optima": _optima(), "candidate": _ones()}, False,
    ),
    "nearly_minimal": (
        jr.nearly_minimal, lambda: {"network": _network(), "X": same(X, ROWS)}, False,
    ),
    "network_from_coefficients": (
        jr.network_from_coefficients,
        lambda: {"optima": _optima(True), "coefficients": _ones(True)}, False,
    ),
    "nonconvex_objective": (
        jr.nonconvex_objective,
        lambda: {
            "network": _network(True), "X": real(X, *NAN, traceable=True),
            "y": real(Y, *NAN, traceable=True), "lam": _lam(LAM, "zero", traceable=True),
            "loss": thing(jr.SquaredLoss()), "sample_weight": _weight(*NAN, traceable=True),
            "neuron_weight": real(np.ones(3), "none", "an entry of inf", traceable=True),
        }, False,
    ),
    "objective": (
        jr.objective,
        lambda: {
            "program": _program(True), "lam": _lam(LAM, "zero", traceable=True),
            "weights": same(WEIGHTS, *NAN, traceable=True), "skip": _no_skip(),
            "constant": _no_skip(),
        }, False,
    ),
    "optimal_set": (
        jr.optimal_set,
        lambda: {
            "program": _program(), "solution": thing(solution()),
            "max_nodes": count(1000, "zero", "none"), "max_seconds": number(5.0, "none", "inf"),
        }, True,
    ),
    "patterns_from_gates": (
        jr.patterns_from_gates,
        lambda: {
            "X": leaf(X, "a list", ROWS), "gates": leaf(GATES, "a list"), "gated": flag(False),
            "bias": thing("none"),
        }, False,
    ),
    "patterns_from_weights": (
        jr.patterns_from_weights,
        lambda: {"X": leaf(X, "a list", ROWS), "hidden": leaf(GATES, "a list")}, False,
    ),
    "permute": (
        jr.permute,
        lambda: {
            "network": _network(True),
            "order": numbers(np.array([1.0, 0, 2])),
        }, False,
    ),
    "polar_gauge": (
        jr.polar_gauge,
        lambda: {
            "X": leaf(X, "float32", "a list"), "r": numbers(Y, "booleans"),
            "key": thing(KEY, "none"), "num_starts": count(8),
            "starts": leaf(X[:2], "float32", "a list", "none", ROWS),
            "rtol": number(1e-6), "threshold": number(0.5), **_budget(),
        }, False,
    ),
    "prune": (
        jr.prune,
        lambda: {
            "network": _network(), **_data(), "to": count(1, "zero"), "rule": thing("weight"),
            "corrected": flag(True), "refit": flag(True), "loss": _loss(),
            "lam": _lam(LAM, "zero"), "seed": count(3, "zero"),
        }, False,
    ),
    "raise_if_failed": (jr.raise_if_failed, lambda: {"solution": thing(solution())}, False),
    "refine": (
        jr.refine, lambda: {"program": _program(), "lam": _lam(), **_search()}, True,
    ),
    "refine_path": (
        jr.refine_path, lambda: {"program": _program(), "lams": _lams(), **_search()}, True,
    ),
    "register": (
        # A class may be registered once.
        lambda cls: jr.register(type("Fresh", (cls,), {}) if cls is Argument else cls),
        lambda: {"cls": thing(Argument)}, False,
    ),
    "sample_optimal": (
        jr.sample_optimal,
        lambda: {
            "key": thing(KEY, traceable=True), "optima": _optima(), "num_samples": count(4),
            "num_chains": count(2), "thinning": count(2, "none"),
            "burn_in": count(2, "zero", "none"),
        }, True,
    ),
    "sample_patterns": (
        jr.sample_patterns,
        lambda: {
            "key": thing(KEY), "X": leaf(X, "float32", "a list", ROWS), "num_gates": count(8),
            "gated": flag(False), "bias": thing("none"),
        }, True,
    ),
    "select": (jr.select, lambda: {"optima": _optima(), "criterion": thing("min_norm")}, False),
    "self_test": (jr.self_test, lambda: {"dtype": thing("float64")}, False),
    "sensitivity": (
        jr.sensitivity, lambda: {"program": _program(), "solution": thing(solution())}, True,
    ),
    "shard_samples": (
        jr.shard_samples,
        lambda: {"program": _program(), "mesh": thing(jax.make_mesh((1,), ("samples",)))},
        True,
    ),
    "solve": (
        jr.solve,
        lambda: {
            "program": _program(True), "lam": _lam(traceable=True), **_limits(True),
            "solver": _newton(),
        }, True,
    ),
    "solve_grid": (
        jr.solve_grid,
        lambda: {
            "program": _program(True), "lams": _lams(True), **_limits(True), "solver": _newton(),
            "lam_batch_size": count(1, "none"), "pattern_batch_size": count(4, "none"),
            "warm_starts": flag(False), "mesh": thing(None, "none"),
        }, True,
    ),
    "solve_path": (
        jr.solve_path,
        lambda: {
            "program": _program(), "lams": _lams(), **_limits(), "solver": _newton(),
            "max_active": count(4, "zero", "none"),
        }, True,
    ),
    "sparsest": (jr.sparsest, lambda: {"optima": _optima()}, False),
    "split": (
        jr.split,
        lambda: {
            "network": _network(True), "neuron": count(1, "zero", "minus one"),
            "shares": numbers(np.array([0.0, 1])),
        }, False,
    ),
    "stationarity": (
        jr.stationarity,
        lambda: {
            "network": _network(), **_data(), "lam": _lam(), "loss": _loss(),
            "sample_weight": _weight(), "wall_tolerance": number(1e-7),
        }, False,
    ),
    "to_network": (
        jr.to_network,
        lambda: {"program": _program(True), "solution": same(WEIGHTS, *NAN, traceable=True)}, False,
    ),
    "vertices": (
        jr.vertices,
        lambda: {"optima": _optima(), "at_most": count(10), "seed": count(3, "zero")}, False,
    ),
    "warmup": (
        jr.warmup,
        lambda: {
            "program": _program(),
            "lams": numbers(
                np.array([1.0, 2]), ROWS, "one", "one and a half", "one axis fewer"
            ),
            "calls": thing(None, "none"), "max_active": count(2), "solver": _newton(),
        }, True,
    ),
    "closed_form.is_spike_free": (
        closed_form.is_spike_free, lambda: {"X": real(np.eye(3), ROWS)}, False,
    ),
    "closed_form.l0_l1_equivalent": (
        closed_form.l0_l1_equivalent,
        lambda: {"X": real(np.eye(3)), "y": real(np.array([1.0, 2, -1]))}, False,
    ),
    "closed_form.rank_one": (
        closed_form.rank_one,
        lambda: {**_line(), "lam": _lam(), "loss": thing(jr.SquaredLoss())}, False,
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
        lambda: {
            **_line(), "lam": _lam(LAM, "none"), "loss": thing(jr.SquaredLoss()),
            "bias": thing("none"), "constant": flag(True),
        }, False,
    ),
    "closed_form.soft_thresholded_svd": (
        closed_form.soft_thresholded_svd,
        lambda: {"X": real(np.eye(3)), "Y": real(np.eye(3)[:, :2]), "lam": _lam()}, False,
    ),
    "closed_form.spline_matrix": (
        closed_form.spline_matrix,
        lambda: {"X": real(np.array([2.0, -1, 3]), ROWS, "one axis more")}, False,
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
            "test_size": _share(0.5), "seed": count(3, "zero"), "bias": flag(False),
        }, False,
    ),
    "datasets.read_csv": (
        datasets.read_csv, lambda: {"path": thing(table()), "target": thing("kind")}, False,
    ),
    "datasets.score": (
        datasets.score,
        lambda: {
            "fit": numbers(np.array([1.0, -2, 1]), "booleans", *NAN),
            "y": numbers(np.array([1.0, -1, 2]), "booleans"), "task": thing("regression"),
        }, False,
    ),
    "datasets.standardize": (
        lambda train, others: datasets.standardize(train, others),
        lambda: {
            "train": numbers(X, "booleans", ROWS), "others": numbers(X[:2], "booleans", ROWS),
        }, False,
    ),
    "datasets.train_test_split": (
        datasets.train_test_split,
        lambda: {
            "X": numbers(X, "booleans", *NAN), "y": numbers(Y, "booleans", *NAN),
            "test_size": _share(0.5), "seed": count(3, "zero"),
        }, False,
    ),
    "plotting.plot_path": (
        plotting.plot_path,
        lambda: {
            "path": thing(path()), "train_score": numbers(np.ones(2), "booleans", "none", *NAN),
            "test_score": numbers(np.ones(2), "booleans", "none", *NAN),
            "score_name": thing("accuracy", "text"), "title": thing("title", "text", "none"),
        }, True,
    ),
    # Objects that users build are checked where they are put to use.
    "ConvexProgram": (
        lambda **given: jr.lambda_max(jr.ConvexProgram(**given)),
        lambda: {**_program_leaves(), "bias": thing("none")}, True,
    ),
    "GatedProgram": (
        lambda **given: jr.lambda_max(jr.GatedProgram(**given)), lambda: _program_leaves((3,)),
        True,
    ),
    "VectorProgram": (
        lambda **given: jr.lambda_max(jr.VectorProgram(**given)),
        lambda: {
            "X": leaf(X, traceable=True),
            "Y": leaf(np.column_stack([Y, -Y]), *NAN, traceable=True),
            "patterns": thing(patterns(), traceable=True), "kind": thing("gated"),
            "loss": thing(jr.SquaredLoss()),
            "sample_weight": leaf(WEIGHT, "none", *NAN, traceable=True),
            "num_classes": thing(None, "none"),
        }, True,
    ),
    "Patterns": (
        lambda **given: jr.lambda_max(jr.ConvexProgram(X, Y, jr.Patterns(**given))),
        lambda: {
            "gates": leaf(np.asarray(patterns().gates), traceable=True),
            "masks": leaf(
                np.asarray(patterns().masks, float), "integers", "booleans", traceable=True
            ),
            "interior": leaf(np.asarray(patterns().interior), "none", traceable=True),
        }, True,
    ),
    "Network": (
        lambda **given: jr.nonconvex_objective(jr.Network(**given), X, Y, LAM),
        lambda: {
            "hidden": _layer(NETWORK.hidden), "output": _layer(NETWORK.output),
            "skip": leaf(np.ones(2), "float32", "none", *NAN, traceable=True),
            "bias": leaf(np.ones(3), "float32", "none", *NAN, traceable=True),
            "constant": leaf(np.asarray(1.0), "float32", "none", *NAN, traceable=True),
        }, False,
    ),
    "GatedNetwork": (
        lambda **given: jr.nonconvex_objective(jr.GatedNetwork(**given), X, Y, LAM),
        lambda: {
            "gates": _layer(NETWORK.hidden), "hidden": _layer(NETWORK.hidden),
            "output": _layer(NETWORK.output),
            "skip": leaf(np.ones(2), "float32", "none", *NAN, traceable=True),
        }, False,
    ),
    "HuberLoss": (
        lambda delta: jr.nonconvex_objective(NETWORK, X, Y, LAM, jr.HuberLoss(delta)),
        lambda: {"delta": number(2.0, without=["zero"], traceable=True)}, False,
    ),
    "QuantileLoss": (
        lambda q: jr.nonconvex_objective(NETWORK, X, Y, LAM, jr.QuantileLoss(q)),
        lambda: {"q": number(0.5, without=["zero", "one", "one and a half"], traceable=True)},
        False,
    ),
    "PoissonLoss": (
        lambda offset: jr.nonconvex_objective(NETWORK, X, Y**2, LAM, jr.PoissonLoss(offset)),
        lambda: {"offset": number(0.5, "none", "minus one", traceable=True)}, False,
    ),
    "ActiveNewton": (
        lambda **given: jr.estimate_memory(program(), [1.0], solver=jr.ActiveNewton(**given)),
        lambda: {
            "capacity": Argument(4, frozenset({"none", "one", "an integer"}), False),
            "pattern_batch_size": Argument(2, frozenset({"none", "one", "an integer"}), False),
        }, True,
    ),
    "ADMM": (
        lambda **given: jr.estimate_memory(program(), [1.0], solver=jr.ADMM(**given)),
        lambda: {"check_every": Argument(5, frozenset({"one", "an integer"}), False)}, True,
    ),
    "Network.__call__": (NETWORK, lambda: {"X": real(X, ROWS, *NAN, traceable=True)}, False),
    "Network.compact": (NETWORK.compact, dict, False),
    "GatedNetwork.__call__": (
        jr.GatedNetwork(NETWORK.hidden, NETWORK.hidden, NETWORK.output),
        lambda: {"X": real(X, ROWS, *NAN, traceable=True)}, False,
    ),
    "GatedNetwork.compact": (
        jr.GatedNetwork(NETWORK.hidden, NETWORK.hidden, NETWORK.output).compact, dict, False,
    ),
    "OptimalSet.features_at": (
        lambda X: optima().features_at(X), lambda: {"X": real(X, ROWS, *NAN, traceable=True)},
        False,
    ),
    "Path.__getitem__": (lambda k: path()[k], lambda: {"k": count(1, "zero", "minus one")}, False),
    "VectorPath.__getitem__": (
        lambda k: outputs_path()[k], lambda: {"k": count(1, "zero", "minus one")}, False,
    ),
    "FollowedPath.__call__": (
        lambda lam: walked("followed")(lam), lambda: {"lam": _lam(13.0)}, True,
    ),
    "DecreasingPath.__call__": (lambda t: walked("decreasing")(t), _t, False),
    "NetworkPath.__call__": (lambda t: walked("connected")(t), _t, False),
    "DescentPath.__call__": (
        lambda t: walked("descending")(t), _t, False,
    ),
    "Spline.__call__": (
        lambda X: closed_form.spline(np.array([2.0, -1]), np.array([3.0, -2]))(X),
        lambda: {"X": real(
            np.array([1.0, 2, 3]), ROWS, "empty list", "empty array", *NAN, traceable=True
        )}, False,
    ),
    "Split.astype": (
        lambda dtype: datasets.Split(X, Y, X, Y, "regression").astype(dtype),
        lambda: {"dtype": thing("float32")}, False,
    ),
}  # fmt: skip


@cache
def call(name):
    function, arguments, slow = CALLS[name]
    return Call(function, arguments(), slow)
