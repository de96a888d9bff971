"""Limits of work: counted, shared out, and the same however fast a clock runs."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxrelu
from jaxrelu.core import budgets
from jaxrelu.core.budgets import UNIT, Limit, Meter, check_budget

# What may look at a clock: a limit that was asked for, and the seconds that the command reports.
CLOCKS = {"core.budgets", "cli.path"}


def test_work_is_allowed_until_it_is_spent():
    meter = Meter(2.0)
    assert meter.allows(1.9 * UNIT)
    assert meter.refused is Limit.NONE
    meter.spend(1.5 * UNIT)
    assert meter.spent == 1.5
    assert meter.allows()
    assert not meter.allows(0.6 * UNIT)
    assert meter.refused is Limit.WORK
    assert not Meter(0.0).allows()
    assert Meter(np.inf).allows(1e300)
    assert not Meter(1.0).allows(np.nan)


def test_a_share_draws_on_the_whole_and_the_whole_does_not_end_with_it():
    whole = Meter(4.0)
    part = whole.share(0.25)
    part.spend(UNIT)
    assert not part.allows()
    assert whole.allows(2.9 * UNIT)
    assert not whole.allows(3.1 * UNIT)
    rest = whole.share(0.5)
    assert rest.allows(1.4 * UNIT)
    assert not rest.allows(1.6 * UNIT)


def test_seconds_are_an_option(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(budgets, "time", SimpleNamespace(monotonic=lambda: now[0]))
    meter = check_budget(None, 8.0, default=1.0)
    half = meter.share(0.5)
    assert meter.allows(1e300)  # seconds alone
    now[0] = 104.0
    assert (meter.allows(), half.allows()) == (True, False)
    assert half.refused is Limit.SECONDS
    now[0] = 108.0
    assert not meter.allows()
    both = check_budget(1.0, 8.0, default=5.0)
    assert not both.allows(2 * UNIT)
    assert both.refused is Limit.WORK
    assert not check_budget(None, None, default=1.0).allows(2 * UNIT)


@pytest.mark.parametrize("wrong", [-1.0, np.nan])
def test_wrong_limits_are_named(wrong):
    with pytest.raises((ValueError, TypeError), match="max_work"):
        check_budget(wrong, None, default=1.0)
    with pytest.raises((ValueError, TypeError), match="max_seconds"):
        check_budget(None, wrong, default=1.0)


def test_nothing_else_of_the_package_knows_a_clock():
    package = Path(jaxrelu.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            if {"time", "datetime", "timeit"} & set(names):
                found.add(".".join(path.relative_to(package).with_suffix("").parts))
    assert found == CLOCKS
