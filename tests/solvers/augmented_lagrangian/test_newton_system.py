"""Newton directions against the dense system."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu.geometry.gram import shared_rows
from jaxrelu.solvers.augmented_lagrangian import newton_system
from jaxrelu.solvers.augmented_lagrangian.coupling import Matrix, Products
from jaxrelu.solvers.augmented_lagrangian.newton_system import (
    dual_direction,
    gated_direction,
    gram_schmidt,
    primal_direction,
    working_matrix,
)


def _system(k, d, n, walls, stiffness, seed=0):
    """A system of k blocks with stiff walls, the last slot empty, and its solution."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    signed = rng.choice([-1.0, 0.0, 1.0], (k, n))
    signed[-1] = 0.0
    curvature = rng.uniform(0.5, 1.0, n)
    rows = rng.standard_normal((k, walls, d))
    blocks = stiffness * n * np.einsum("kwi,kwj->kij", rows, rows) + np.eye(d)
    rhs = rng.standard_normal((k, d))
    A = (signed.T[:, :, None] * X[:, None, :]).reshape(n, k * d)
    full = A.T @ (curvature[:, None] * A)
    for b in range(k):
        full[b * d : (b + 1) * d, b * d : (b + 1) * d] += blocks[b]
    # The direction is that of a system lifted by this much of its diagonal.
    full += 100 * np.finfo(float).eps ** 0.8 * np.diag(np.diag(full))
    expected = np.linalg.solve(full, rhs.reshape(-1)).reshape(k, d)
    return (*map(jnp.asarray, (X, signed, curvature, blocks, rhs)), expected)


@pytest.fixture
def precise(monkeypatch):
    """Conjugate gradients that go on to the solution."""
    monkeypatch.setattr(newton_system, "_PRECISION", 1e-4)


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize(("k", "d"), [(4, 5), (33, 20)], ids=["factored", "conjugate gradients"])
@pytest.mark.parametrize("stiffness", [1.0, 1e3, 1e6])
def test_primal_direction_solves_the_system(k, d, stiffness):
    X, signed, curvature, blocks, rhs, expected = _system(k, d, 60, (3 * d) // 4, stiffness)
    matrix = Matrix(shared_rows(X).coupling(signed, curvature))
    direction = jax.jit(lambda *args: primal_direction(*args))(matrix, blocks, rhs)
    assert np.linalg.norm(direction - expected) <= 1e-3 * np.linalg.norm(expected)
    assert jnp.sum(direction * rhs) > 0


@pytest.mark.usefixtures("precise")
def test_products_stand_in_for_the_matrix():
    X, signed, curvature, blocks, rhs, expected = _system(33, 20, 60, 15, 1e3)
    own = shared_rows(X).own_coupling(signed, curvature)
    products = Products(X, signed, curvature, own)
    direction = jax.jit(lambda *args: primal_direction(*args))(products, blocks, rhs)
    assert np.linalg.norm(direction - expected) <= 1e-3 * np.linalg.norm(expected)


def test_matrix_and_products_are_the_same_coupling():
    X, signed, curvature, _, rhs, _ = _system(6, 4, 15, 2, 1.0)
    rows = shared_rows(X)
    matrix = Matrix(rows.coupling(signed, curvature))
    products = Products(X, signed, curvature, rows.own_coupling(signed, curvature))
    vectors = jnp.asarray(np.random.default_rng(2).standard_normal((6, 3, 4)))
    among = jnp.asarray([0, 4, 5, 16, 2])
    np.testing.assert_allclose(products.own, matrix.own, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(products.apply(rhs), matrix.apply(rhs), rtol=1e-12)
    np.testing.assert_allclose(
        products.within(vectors, among), matrix.within(vectors, among), rtol=1e-11, atol=1e-11
    )


def test_directions_of_a_newton_step_gain_what_the_solution_gains():
    X, signed, curvature, blocks, rhs, expected = _system(33, 20, 60, 15, 1e3)
    matrix = Matrix(shared_rows(X).coupling(signed, curvature))
    direction = jax.jit(primal_direction)(matrix, blocks, rhs)
    assert jnp.sum(direction * rhs) >= 0.999 * np.sum(expected * np.asarray(rhs))


def test_more_soft_directions_than_are_factored_are_left_to_the_iterations():
    X, signed, curvature, blocks, rhs, expected = _system(33, 20, 60, 2, 1e4)
    matrix = Matrix(shared_rows(X).coupling(signed, curvature))
    direction = jax.jit(primal_direction)(matrix, blocks, rhs)
    assert jnp.sum(direction * rhs) >= 0.9 * np.sum(expected * np.asarray(rhs))


def test_gram_schmidt_finds_the_basis_of_columns_that_are_nearly_one():
    rng = np.random.default_rng(3)
    first = rng.standard_normal((5, 12, 1))
    columns = first + 1e-9 * rng.standard_normal((5, 12, 4))
    basis = np.asarray(gram_schmidt(jnp.asarray(columns)))
    inside = np.einsum("kdf,kdg->kfg", basis, basis)
    np.testing.assert_allclose(inside, np.broadcast_to(np.eye(4), inside.shape), atol=1e-12)
    expected = np.linalg.qr(columns)[0]
    # The span to the accuracy that the columns have beside each other.
    spans = [b @ b.transpose(0, 2, 1) for b in (basis, expected)]
    np.testing.assert_allclose(*spans, atol=1e-5)


@pytest.mark.slow
def test_the_steps_of_an_accelerator_come_to_the_same_optimum(monkeypatch):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((91, 11))  # of no other test: nothing compiled for it is at hand
    y = np.sign(X[:, 0] * X[:, 1] + rng.standard_normal(91))
    program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, num_gates=32))
    lam = 0.1 * jr.lambda_max(program)
    expected = jr.solve_path(program, [lam])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = jr.solve(program, lam)
    assert int(found.status) == jr.Status.OPTIMAL
    np.testing.assert_allclose(found.certificate.upper, expected.upper[0], rtol=2e-6)


def test_dual_direction_solves_the_lifted_system():
    X, signed, curvature, blocks, rhs, expected = _system(12, 5, 15, 3, 1e2)
    lifts = jnp.full((12,), 1e-10)
    direction = dual_direction(working_matrix(X, signed), curvature, blocks, lifts, rhs)
    np.testing.assert_allclose(direction, expected, rtol=1e-5, atol=1e-8)


def test_gated_direction_solves_the_system():
    k, d, n = 6, 4, 15
    rng = np.random.default_rng(1)
    X, signed = rng.standard_normal((n, d)), rng.choice([-1.0, 0.0, 1.0], (k, n))
    signed[-1] = 0.0  # an empty slot
    u = rng.standard_normal((k, d))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    u[1] = 0.0  # a block at zero: alpha in all directions
    alpha, along = rng.uniform(0.1, 10.0, k), np.asarray([0.0, 0.0, 1e-3, 0.1, 0.0, 0.5])
    curvature, rhs = rng.uniform(0.5, 1.0, n), rng.standard_normal((k, d))
    A = (signed.T[:, :, None] * X[:, None, :]).reshape(n, k * d)
    full = A.T @ (curvature[:, None] * A)
    for b in range(k):
        across = np.eye(d) - np.outer(u[b], u[b])
        own = alpha[b] * across + along[b] * np.outer(u[b], u[b])
        full[b * d : (b + 1) * d, b * d : (b + 1) * d] += own
    expected = np.linalg.solve(full, rhs.reshape(-1)).reshape(k, d)
    found = jax.jit(gated_direction)(X, signed, curvature, alpha, along, u, rhs)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("precise")
def test_without_walls_the_block_diagonal_preconditions():
    X, signed, curvature, _, rhs, _ = _system(33, 20, 60, 0, 1.0)
    (k, n), d = signed.shape, X.shape[1]
    A = (signed.T[:, :, None] * X[:, None, :]).reshape(n, k * d)
    blocks = 10.0 * jnp.broadcast_to(jnp.eye(d), (k, d, d))
    full = A.T @ (curvature[:, None] * A) + 10.0 * jnp.eye(k * d)
    expected = jnp.linalg.solve(full, rhs.reshape(-1)).reshape(k, d)
    matrix = Matrix(shared_rows(X).coupling(signed, curvature))
    direction = primal_direction(matrix, blocks, rhs, walls=False)
    assert np.linalg.norm(direction - expected) <= 1e-3 * np.linalg.norm(expected)
