"""The application around the commands: words, extras, outputs of any kind."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrelu.cli import main

ROOT = Path(__file__).resolve().parents[2]


def run(*words):
    """Exit code of the command."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


@pytest.mark.parametrize("words", [["--gates", "many"], ["--dtype", "float16"], ["--lam", "1"]])
def test_words_that_do_not_parse_are_exit_code_2(capsys, words):
    assert run("path", *words) == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["typer", "rich", "matplotlib"])
def test_missing_extra_is_named(monkeypatch, tmp_path, capsys, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == missing else find_spec(name, *rest),
    )
    assert run("path", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert missing in error
    assert "pip install 'jaxrelu[cli]'" in error


def test_module_runs_as_a_command():
    """In ASCII, too, where the frames of the help are no boxes."""
    words = [sys.executable, "-m", "jaxrelu", "path", "--help"]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Fits a regularization path" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_full_disk_behind_the_output_is_exit_code_2():
    """As a process, which writes once more when it ends."""
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "jaxrelu", "--version"]
        done = subprocess.run(
            words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("jaxrelu: the standard output cannot be")
    assert len(done.stderr.splitlines()) == 1
