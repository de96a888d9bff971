"""Docstrings say what every public function takes and returns, and their examples run."""

import inspect
import subprocess
import sys

import pytest

import jaxrelu as jr

PARTS = ("Args:", "Returns:", "Example:")
# Public functions without a part, and why.
WITHOUT = {"warmup": {"Returns:"}, "raise_if_failed": {"Returns:"}}  # they return nothing
FUNCTIONS = sorted(
    name
    for name, value in vars(jr).items()
    if not name.startswith("_") and callable(value) and not inspect.isclass(value)
)
# As a user runs them: none of the strict settings of the tests, and x64 only where the example
# itself turns it on, in whatever order they come.
EXAMPLES = """
import doctest, importlib, pkgutil
import jax, jaxrelu
runner = doctest.DocTestRunner()
for found in pkgutil.walk_packages(jaxrelu.__path__, "jaxrelu."):
    if found.name != "jaxrelu.__main__":
        for example in doctest.DocTestFinder().find(importlib.import_module(found.name)):
            jax.config.update("jax_enable_x64", False)
            runner.run(example)
print(runner.tries, "examples,", runner.failures, "failed")
raise SystemExit(runner.failures > 0 or runner.tries < 300)
"""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_say_what_they_take_and_return(name):
    text = inspect.getdoc(getattr(jr, name)) or ""
    missing = {part for part in PARTS if part not in text}
    assert missing == WITHOUT.get(name, set())
    assert ">>> " in text


def test_the_list_of_functions_is_not_empty():
    assert {"solve", "optimal_set", "minimal", "raise_if_failed"} <= set(FUNCTIONS)


@pytest.mark.slow
def test_examples_run():
    run = subprocess.run(
        [sys.executable, "-c", EXAMPLES], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
