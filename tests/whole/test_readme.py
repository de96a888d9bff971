"""The README keeps its word: its snippets run, its commands are the ones that are checked."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from jaxrelu import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands():
    """Every command of the README's shell blocks, as lists of words."""
    lines = "".join(blocks("sh")).splitlines()
    return [shlex.split(part) for line in lines for part in line.split("&&")]


def test_main_job_and_tests_are_one_line_each():
    for line, last in zip(
        blocks("sh")[:2], ["jaxrelu path", "pytest -q -n 2 -m 'not slow'"], strict=True
    ):
        assert len(line.splitlines()) == 1
        first, second, third = (part.strip() for part in line.split("&&"))
        assert first == "python3 -m venv .venv"
        assert second.startswith(".venv/bin/pip install ")
        assert third == f".venv/bin/{last}"


def test_installed_extras_and_scripts_exist():
    extras, scripts = PROJECT["project"]["optional-dependencies"], PROJECT["project"]["scripts"]
    assert set(extras) == {"plot", "sklearn", "cache", "cli", "test", "all"}
    installed = [words[-1] for words in commands() if words[1:2] == ["install"]]
    assert installed == [".[cli]", ".[test]"]
    started = [Path(words[0]).name for words in commands() if words[0].startswith(".venv")]
    assert set(started) == {"pip", "jaxrelu", "pytest"}
    module, function = scripts["jaxrelu"].split(":")
    assert (module, getattr(cli, function)) == ("jaxrelu.cli", cli.main)


def test_ci_runs_exactly_the_test_command():
    (command,) = (words[1:] for words in commands() if words[0] == ".venv/bin/pytest")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert shlex.join(["pytest", *command]) in script
    assert "pip install --quiet --disable-pip-version-check '.[test]'" in script


def test_options_named_in_the_readme_exist(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["path", "--help"])
    assert stop.value.code == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert named >= {"--target", "--gates", "--lams", "--ratio", "--test-size", "--seed", "--out"}
    assert named <= known


def test_statuses_are_all_explained_in_the_words_of_the_library():
    from jaxrelu.core.status import Status, describe, remedy

    for status in Status:
        if status != Status.OPTIMAL:
            assert f"| `{status.name}` | {describe(status)} | {remedy(status)} |" in README


def test_version_is_the_same_everywhere():
    import jaxrelu

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {jaxrelu.__version__}\n" in citation
    assert f"\n## [{jaxrelu.__version__}]" in changes


@pytest.mark.slow
def test_snippets_run_in_the_order_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["path", "--gates", "20", "--lams", "3", "--ratio", "0.2"])
    assert stop.value.code == 0
    capsys.readouterr()
    page = {}
    for snippet in blocks("python"):
        exec(compile(snippet, "README.md", "exec"), page)
    # What the page promises of its snippets.
    X, y = page["data"].X, page["data"].y
    assert ((page["predict"](X) >= 0) == (y > 0)).mean() > 0.9
    neurons, accuracy = capsys.readouterr().out.split()
    assert 1 < int(neurons) <= 455
    assert float(accuracy) > 0.9
