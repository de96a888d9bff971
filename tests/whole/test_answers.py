"""One way to read an answer: the same names wherever a bound, a fit or a status is."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.core.budgets import Limit
from jaxrelu.paths.path import PathCertificate

BOUNDS = ("lower", "upper", "gap")
PROOF = (*BOUNDS, "weights", "dual")
WHOLE = (*BOUNDS, "certificate", "lam", "fit", "residual", "status")
PROGRAM = zoo.smallest()
N, D, P = *PROGRAM.X.shape, PROGRAM.patterns.num_patterns
PUBLIC = [value for module in (jr, jr.closed_form) for value in vars(module).values()]
CLASSES = {value for value in PUBLIC if inspect.isclass(value)}


def names_of(cls):
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return {*dir(cls), *(field.name for field in fields), *getattr(cls, "_fields", ())}


def certificate(lead=()):
    rng = np.random.default_rng(0)
    lower, upper = rng.uniform(0.0, 1.0, lead), rng.uniform(1.0, 2.0, lead)
    weights = rng.standard_normal((*lead, 2, P, D))
    return jr.Certificate(lower, upper, upper - lower, weights, rng.standard_normal((*lead, N)))


def solution(lead=()):
    rng = np.random.default_rng(1)
    proof, (fit, residual) = certificate(lead), rng.standard_normal((2, *lead, N))
    lam, steps = rng.uniform(0.1, 1.0, lead), np.ones(lead, np.int32)
    return jr.Solution(proof.weights, lam, fit, residual, proof, 0 * steps, steps)


def path(answers):
    """The path of a batch of answers, all blocks kept."""
    blocks = np.tile(np.arange(2 * P, dtype=np.int32), (len(answers.lam), 1))
    c = answers.certificate
    return jr.Path(
        PROGRAM, answers.lam, blocks, answers.weights.reshape(-1, 2 * P, D), answers.fit,
        answers.residual, c.dual, c.lower, c.upper, c.gap, answers.status, answers.num_steps,
    )  # fmt: skip


@pytest.mark.parametrize("lead", [(), (3,)])
def test_a_solution_shows_the_bounds_of_its_certificate(lead):
    answer = solution(lead)
    for name in BOUNDS:
        assert getattr(answer, name) is getattr(answer.certificate, name)


def test_a_path_is_read_as_a_batch_of_solutions():
    answers = solution((3,))
    found = path(answers)
    for name in (*WHOLE, "weights", "num_steps"):
        one, other = getattr(answers, name), getattr(found, name)
        for part in PROOF if name == "certificate" else ():
            np.testing.assert_array_equal(getattr(other, part), getattr(one, part))
        if name != "certificate":
            np.testing.assert_array_equal(other, one)
    np.testing.assert_array_equal(found.lam, found.lams)


def test_the_certificate_of_a_path_holds_no_dense_weights():
    found = path(solution((3,)))
    inside = jax.jit(lambda p: p.certificate)(found)
    assert isinstance(inside, PathCertificate)
    assert len(jax.tree.leaves(inside)) == len(jax.tree.leaves(found))
    assert not any(np.shape(leaf) == (3, 2, P, D) for leaf in jax.tree.leaves(inside))
    np.testing.assert_array_equal(inside.weights, found.weights)


def test_what_holds_a_solution_is_read_like_one():
    inner, outer, none = solution(), certificate(), None
    refined = jr.Refined(none, PROGRAM, inner, outer, none, jr.Status.OPTIMAL, Limit.NONE, ())
    crossed = jr.Crossed(none, PROGRAM, inner, (), jr.Status.OPTIMAL, Limit.NONE)
    improved = jr.Improved(none, outer, jnp.zeros(()), jnp.zeros(()), inner.status)
    for name in ("lam", "fit", "residual"):
        assert getattr(refined, name) is getattr(crossed, name) is getattr(inner, name)
    for name in BOUNDS:
        # The certificate of a refinement is about all networks, not about its patterns alone.
        assert getattr(refined, name) is getattr(improved, name) is getattr(outer, name)
        assert getattr(crossed, name) is getattr(inner, name)
    assert crossed.certificate is inner.certificate
    jr.raise_if_failed(refined)


def test_margins_have_certificates():
    x = np.arange(12.0)
    margin = jr.MaxMargin(*x)
    norm = jr.MinimumNorm(*x)
    for answer in (margin, norm):
        assert isinstance(answer.certificate, jr.Certificate)
        for name in PROOF:
            assert getattr(answer.certificate, name) == getattr(answer, name)


# What is bounded there is no optimum: a set of numbers in between, which have no gap.
INTERVALS = {jr.PolarGauge, jr.closed_form.SpikeFree, jr.closed_form.L0L1}


def test_names_are_complete_in_every_public_class():
    with_bounds = {cls for cls in CLASSES if {"lower", "gap"} & names_of(cls)}
    assert with_bounds > {jr.Solution, jr.Path, jr.Refined, jr.MaxMargin, jr.closed_form.Spline}
    for cls in with_bounds - INTERVALS:
        assert set(BOUNDS) <= names_of(cls), cls
    for cls in (jr.Solution, jr.Path, jr.Refined, jr.Crossed):
        assert set(WHOLE) <= names_of(cls), cls
    for cls in CLASSES:
        if "certificate" in names_of(cls):
            assert {"status", *BOUNDS} <= names_of(cls), cls
