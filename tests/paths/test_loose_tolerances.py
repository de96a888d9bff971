"""Paths at loose tolerances: answers that do for the next lam, blocks that need no projection."""

import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.solvers.active_newton.path_driver import PathDriver

GENERIC = zoo.problem(zoo.generic)
SHARES = np.geomspace(0.5, 0.1, 20)


@pytest.mark.parametrize("build", [zoo.generic, zoo.gated, zoo.logistic, zoo.huber])
def test_an_answer_serves_the_lams_that_it_is_good_enough_for(build):
    problem = zoo.problem(build)
    lams, rtol = problem.lams(*SHARES), 1e-2
    path = jr.solve_path(problem.program, lams, rtol=rtol)
    steps = np.asarray(path.num_steps)
    for k, lam in enumerate(lams):
        zoo.recheck(problem.program, lam, path[k], rtol=rtol)
    carried = np.flatnonzero(steps == 0)
    assert len(carried) >= 3
    for k in carried:
        np.testing.assert_array_equal(path[k].weights, path[k - 1].weights)
    assert steps.sum() < np.sum(jr.solve_path(problem.program, lams).num_steps)


def test_the_order_of_the_lams_does_not_matter_to_who_is_served():
    lams = GENERIC.lams(*SHARES)
    down, up = (jr.solve_path(GENERIC.program, some, rtol=1e-2) for some in (lams, lams[::-1]))
    np.testing.assert_array_equal(down.upper, up.upper[::-1])
    np.testing.assert_array_equal(down.num_steps, up.num_steps[::-1])


def test_an_answer_is_tried_only_where_it_may_do(monkeypatch):
    """The least gap that it can have is known: for the squared loss it nearly is the gap."""
    tries, concluded, carried = [], PathDriver._concluded, PathDriver._carried

    def try_it(driver, lam):
        monkeypatch.setattr(PathDriver, "_concluded", lambda *a: tries.append(lam) or concluded(*a))
        answer = carried(driver, lam)
        monkeypatch.setattr(PathDriver, "_concluded", concluded)
        return answer

    monkeypatch.setattr(PathDriver, "_carried", try_it)
    for rtol, in_vain in ((1e-2, 5), (1e-6, 0)):
        tries.clear()
        path = jr.solve_path(GENERIC.program, GENERIC.lams(*SHARES), rtol=rtol)
        served = int(np.sum(path.num_steps == 0))
        assert served <= len(tries) <= served + in_vain


def test_blocks_are_projected_only_where_a_push_is_not_enough(monkeypatch):
    repaired, repairs = PathDriver._repaired, []

    def count(driver, blocks):
        repairs.append(blocks)
        return repaired(driver, blocks)

    monkeypatch.setattr(PathDriver, "_repaired", count)
    counts = {}
    for rtol in (1e-2, 1e-9):
        repairs.clear()
        path = jr.solve_path(GENERIC.program, GENERIC.lams(*SHARES), rtol=rtol)
        jr.raise_if_failed(path)
        counts[rtol] = len(repairs)
    assert counts[1e-2] == 0
    assert 0 < counts[1e-9] < len(SHARES)
