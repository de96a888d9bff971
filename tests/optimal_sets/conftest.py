"""Fixtures of the optimal sets."""

import pytest
from optimal_set_checks import segment

import jaxrelu as jr


@pytest.fixture(scope="module")
def known():
    program, solution = segment([2.0, 2.0])
    return program, solution, jr.optimal_set(program, solution)
