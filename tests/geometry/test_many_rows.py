"""Cones of very many rows, worked on some rows at a time, against all rows at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu.geometry import gram
from jaxrelu.geometry.cone_projection import project
from jaxrelu.geometry.driven_projection import interior_directions
from jaxrelu.geometry.gram import shared_rows


@pytest.fixture
def few_at_a_time(monkeypatch):
    """Calling it makes 211 rows many; 48 of them are looked at together."""

    def switch():
        monkeypatch.setattr(gram, "_MANY", 100)
        monkeypatch.setattr(gram, "_NEAREST", 0)

    return switch


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((211, 3))
    y = np.maximum(X @ rng.standard_normal((3, 4)), 0) @ np.array([1.0, -1.0, 1.0, -1.0])
    return X, y + 0.1 * rng.standard_normal(211)


@pytest.mark.parametrize("offset", [0.0, 1.0], ids=["cone", "margin"])
def test_projections_are_those_of_all_rows(data, few_at_a_time, offset):
    X = jnp.asarray(data[0])
    rng = np.random.default_rng(0)
    gates = jnp.asarray(rng.standard_normal((9, 3)))
    signs = jnp.where(gates @ X.T >= 0, 1.0, -1.0)
    points = 0.0 * gates if offset else gates + jnp.asarray(rng.standard_normal((9, 3)))
    rows, near = shared_rows(X), gates if offset else None
    expected = project(rows, signs, points, offset=offset, near=near)
    few_at_a_time()
    found = project(rows, signs, points, offset=offset, near=near)
    np.testing.assert_allclose(found.points, expected.points, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.bound, expected.bound, rtol=1e-7, atol=1e-8)
    assert float(found.residual.max()) < 1e-8
    # The multipliers of all rows prove the bound.
    moved = points + rows.transpose(signs * found.multipliers)
    np.testing.assert_allclose(jnp.linalg.norm(moved, axis=1), found.bound, rtol=1e-9, atol=1e-9)
    assert float(found.multipliers.min()) >= 0


def test_a_lane_that_is_not_finite_leaves_the_others_alone(data, few_at_a_time):
    X = jnp.asarray(data[0])
    signs = jnp.ones((3, 211))
    points = jnp.asarray([[1.0, 2.0, 3.0], [jnp.nan, 0.0, 0.0], [0.0, 1.0, -1.0]])
    few_at_a_time()
    found = project(shared_rows(X), signs, points)
    assert bool(jnp.isnan(found.bound[1]))
    assert bool(jnp.isfinite(found.bound[0]))
    assert bool(jnp.isfinite(found.bound[2]))


def _with_a_row_of_zeros(data, loss):
    """A program and its lams; the same with a row of zeros more, which adds a constant.

    The other shape keeps what is compiled for all rows from being used again.
    """
    X, y = data
    squared = isinstance(loss, jr.SquaredLoss)
    y = y if squared else np.where(y > np.median(y), 1.0, -1.0)
    patterns = jr.sample_patterns(jax.random.key(0), X, 20)
    program = jr.ConvexProgram(X, y, patterns, loss)
    masks = np.vstack([patterns.masks, np.ones((1, patterns.masks.shape[1]), bool)])
    more = jr.ConvexProgram(
        np.vstack([X, np.zeros((1, 3))]),
        np.append(y, 0.0 if squared else 1.0),
        jr.Patterns(patterns.gates, masks, patterns.interior),
        loss,
    )
    lams = jr.lambda_grid(program, num=4, ratio=0.05)
    return program, more, lams, 0.0 if squared else np.log(2.0)


@pytest.mark.parametrize(
    "loss",
    [jr.SquaredLoss(), pytest.param(jr.LogisticLoss(), marks=pytest.mark.slow)],
    ids=["squared", "logistic"],
)
@pytest.mark.slow
def test_paths_are_certified_and_those_of_all_rows(data, few_at_a_time, loss):
    program, more, lams, constant = _with_a_row_of_zeros(data, loss)
    whole = jr.solve_path(program, lams)
    few_at_a_time()
    path = jr.solve_path(more, lams)
    assert path.status.tolist() == [jr.Status.OPTIMAL] * 4
    np.testing.assert_allclose(path.upper - constant, whole.upper, rtol=2e-6)


@pytest.mark.slow
def test_solve_is_certified_and_that_of_all_rows(data, few_at_a_time):
    program, more, lams, _ = _with_a_row_of_zeros(data, jr.SquaredLoss())
    whole = jr.solve(program, lams[2])
    few_at_a_time()
    solution = jr.solve(more, lams[2])
    assert int(solution.status) == jr.Status.OPTIMAL
    np.testing.assert_allclose(solution.certificate.upper, whole.certificate.upper, rtol=2e-6)


def test_gates_well_inside_are_their_own_witnesses(data, few_at_a_time):
    X = data[0][:209]  # a shape of no other test
    few_at_a_time()
    gates = np.random.default_rng(1).standard_normal((3, 5))
    # One more, 1e-12 beside the wall of the first row.
    gates[:, 4] -= X[0] * (X[0] @ gates[:, 4]) / (X[0] @ X[0]) * (1 - 1e-12)
    masks = X @ gates >= 0
    interior, margin = interior_directions(X, masks, gates)
    length = np.linalg.norm(X, axis=1)
    signs = np.where(masks, 1.0, -1.0)
    np.testing.assert_allclose(margin, np.min(signs * (X @ interior) / length[:, None], axis=0))
    np.testing.assert_allclose(interior[:, :4], gates[:, :4] / np.linalg.norm(gates[:, :4], axis=0))
    assert np.all(margin > 1e-8)
