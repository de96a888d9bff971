"""What tests of patterns share: matrices, brute force, what makes patterns sound."""

import itertools

import numpy as np
from scipy.optimize import linprog

from jaxrelu.geometry.checks import check_patterns
from jaxrelu.geometry.patterns import (
    Patterns,
)

E1, E2, E3 = np.eye(3)


EPS = np.finfo(np.float64).eps


GENERIC = np.random.default_rng(5).standard_normal((6, 3))


SIX_ROWS = np.stack([E1, E2, E3, E1 + E2, E2 + E3, E1 + E3])


# Three lines: a parallel, an antiparallel and a zero row.
PARALLEL = np.concatenate([GENERIC[:3], 0.3 * GENERIC[:1], -0.7 * GENERIC[1:2], np.zeros((1, 3))])


def brute_force_patterns(X: np.ndarray) -> set[tuple[int, ...]]:
    """Sign vectors whose open cone a linear program finds non-empty, as bits; zero rows get 1."""
    nonzero = np.any(X != 0, axis=1)
    rows = X[nonzero] / np.linalg.norm(X[nonzero], axis=1, keepdims=True)
    d = X.shape[1]
    found = set()
    for bits in itertools.product((0, 1), repeat=len(rows)):
        signed = (2 * np.array(bits)[:, None] - 1) * rows
        result = linprog(
            np.append(np.zeros(d), -1.0),
            A_ub=np.column_stack([-signed, np.ones(len(rows))]),
            b_ub=np.zeros(len(rows)),
            bounds=[(-1, 1)] * (d + 1),
        )
        if -result.fun > 1e-9 and any(bits):
            full = np.ones(len(X), dtype=int)
            full[nonzero] = bits
            found.add(tuple(full.tolist()))
    return found


def columns(patterns: Patterns) -> list[tuple[int, ...]]:
    return [tuple(column) for column in np.asarray(patterns.masks).T.astype(int).tolist()]


def assert_sound(patterns: Patterns, X: np.ndarray, slack: float = 50 * EPS) -> None:
    """Distinct, not all zero, gates reproduce the masks, witnesses are strictly inside."""
    masks = np.asarray(patterns.masks)
    nonzero = np.any(np.asarray(X) != 0, axis=1)
    found = columns(patterns)
    assert masks.dtype == bool
    assert len(set(found)) == len(found) == patterns.num_patterns
    assert masks[nonzero].any(axis=0).all()
    np.testing.assert_array_equal(np.asarray(X) @ np.asarray(patterns.gates) >= 0, masks)
    interior = np.asarray(patterns.interior)
    np.testing.assert_allclose(np.linalg.norm(interior, axis=0), 1, rtol=1e-6)
    rows = X[nonzero] / np.linalg.norm(X[nonzero], axis=1, keepdims=True)
    assert np.min(np.where(masks[nonzero], 1, -1) * (rows @ interior)) > slack
    assert patterns.gates.dtype == interior.dtype == X.dtype
    check_patterns(patterns, X)
