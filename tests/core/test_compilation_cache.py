"""Compiled programs between processes: kept, found again, and no failure where they cannot be."""

import importlib.util
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu.core import compilation_cache

# Prints how many programs were compiled, and a value of them.
SCRIPT = """
import sys, jax
from jax import monitoring
import jax.numpy as jnp
misses = []
monitoring.register_event_listener(
    lambda event, **_: misses.append(event) if event.endswith("cache_misses") else None
)
jax.jit(lambda x: x - 1)(1.0)  # before the cache is there
{begin}
value = float(jax.jit(lambda x: jnp.sin(x) + x**2)(0.5))
print(len(misses), value)
"""
BY_HAND = "import jaxrelu as jr; jr.enable_compilation_cache(sys.argv[1])"
BY_COMMAND = """
from jaxrelu.cli.compiled_programs import keep_compiled_programs
keep_compiled_programs()
"""


def run(begin, *words, **environment):
    """Its words on the standard output, and the lines on the standard error."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(begin=begin), *map(str, words)],
        capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    # XLA may log that the features of the machine differ.
    errors = [line for line in done.stderr.splitlines() if "cpu_aot_loader" not in line]
    return done.stdout.split(), errors


def test_a_second_process_compiles_nothing(tmp_path):
    (first, value), _ = run(BY_HAND, tmp_path)
    (second, again), _ = run(BY_HAND, tmp_path)
    assert int(first) > 0
    assert int(second) == 0
    assert value == again


def test_what_is_damaged_costs_one_line(tmp_path):
    home = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    (_, value), errors = run(BY_COMMAND, **home)
    assert errors == []
    entries = [path for path in tmp_path.rglob("*-cache") if path.is_file()]
    assert entries
    for path in entries:
        path.write_bytes(b"no program")
    (_, again), errors = run(BY_COMMAND, **home)
    assert value == again
    assert len(errors) == 1, errors
    assert "remove it" in errors[0]


def test_a_folder_out_of_reach_costs_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file")
    (count, _), errors = run(BY_COMMAND, XDG_CACHE_HOME=nowhere, HOME=nowhere)
    assert int(count) == 0
    assert len(errors) == 1, errors
    assert "nothing compiled is kept" in errors[0]


def test_a_folder_that_the_user_has_chosen_stays(monkeypatch):
    from jaxrelu.cli import compiled_programs

    monkeypatch.setattr(compiled_programs, "enable_compilation_cache", lambda: pytest.fail("set"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    try:
        compiled_programs.keep_compiled_programs()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="dir is .*file.*cannot be written to"):
        jr.enable_compilation_cache(tmp_path / "file")
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("wrong", [3, True, 0.5, b"folder", ["folder"], np.ones(2)])
def test_what_is_no_path_is_named(wrong):
    with pytest.raises(TypeError, match="dir is .*; pass the path of a folder, or None"):
        jr.enable_compilation_cache(wrong)


@pytest.mark.parametrize("missing", ["filelock", "platformdirs"])
def test_a_missing_extra_is_named(monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == missing else find_spec(name, *rest),
    )
    with pytest.raises(ImportError, match=rf"needs {missing}: pip install 'jaxrelu\[cache\]'"):
        jr.enable_compilation_cache()


def test_every_processor_has_a_folder(monkeypatch):
    here = compilation_cache._compiled_for()
    assert here == compilation_cache._compiled_for()
    monkeypatch.setattr(compilation_cache, "_processor", lambda: ["flags : other"])
    assert compilation_cache._compiled_for() != here
