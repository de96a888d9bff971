"""`jaxrelu path` as its user meets it: table, files, exit codes, one sentence for bad input."""

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrelu.cli import main, path
from jaxrelu.status import Status

ROOT = Path(__file__).resolve().parents[2]
KEYS = [
    "data", "n", "d", "gates", "patterns", "lams", "lambda_max", "objective", "lower", "upper",
    "gap", "neurons", "train_score", "test_score", "status", "seconds",
]  # fmt: skip
ALONG_THE_PATH = [
    "lams", "objective", "lower", "upper", "gap", "neurons", "train_score", "test_score", "status",
]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of 20 rows, 2 features, a real target and one with two values."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 2))
    real = np.abs(X[:, 0]) + 0.1 * rng.normal(size=20)
    label = np.where(real > np.median(real), 5, 3)
    file = tmp_path_factory.mktemp("table") / "table.csv"
    lines = [f"{a},{b},{r},{c}" for (a, b), r, c in zip(X, real, label, strict=True)]
    file.write_text("\n".join(["first,second,real,label", *lines]) + "\n")
    return file


SMALL = ["--gates", "6", "--lams", "3", "--ratio", "0.2", "--test-size", "0.2"]


def run(*words):
    """Exit code of the command."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


@pytest.fixture(scope="module")
def fitted(table, tmp_path_factory):
    """Folder of one successful run."""
    out = tmp_path_factory.mktemp("fitted") / "new" / "folder"
    assert run("path", table, "--target", "label", *SMALL, "--out", out) == 0
    return out


@pytest.mark.slow
def test_table_and_files_of_a_run(table, tmp_path, capsys):
    code = run("path", table, "--target", "real", *SMALL, "--out", tmp_path)
    printed = capsys.readouterr()
    assert code == 0
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == "table.csv: 16 training and 4 test rows, 3 features, regression"
    assert "lambda_max = " in lines[1]
    header = next(line for line in lines if "objective" in line)
    for word in ("lam", "gap", "neurons", "train R^2", "test R^2", "status"):
        assert word in header
    assert sum(line.rstrip().endswith("OPTIMAL") for line in lines) == 3
    assert max(map(len, lines[2:-1])) <= 80
    assert "3 of 3 lams OPTIMAL" in lines[-1]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["path.npz", "path.png", "summary.json"]


@pytest.mark.slow
def test_summary_has_the_promised_keys(fitted):
    summary = json.loads((fitted / "summary.json").read_text())
    assert list(summary) == KEYS
    assert (summary["data"], summary["n"], summary["d"]) == ("table.csv", 16, 3)
    assert summary["gates"] == 6
    assert 1 <= summary["patterns"] <= 6
    for key in ALONG_THE_PATH:
        assert len(summary[key]) == 3, key
    lams = np.array(summary["lams"])
    np.testing.assert_allclose(lams / summary["lambda_max"], [1.0, 0.2**0.5, 0.2], rtol=1e-12)
    assert summary["status"] == ["OPTIMAL"] * 3
    assert summary["neurons"][0] == 0 < summary["neurons"][2]
    upper, lower = np.array(summary["upper"]), np.array(summary["lower"])
    np.testing.assert_array_equal(summary["gap"], upper - lower)
    np.testing.assert_array_equal(summary["objective"], upper)
    assert (upper - lower <= 1e-6 * upper + 1e-12).all()
    assert 0 < summary["seconds"] < 600


@pytest.mark.slow
def test_saved_networks_have_the_certified_objective_and_the_scores(table, fitted):
    summary, saved = json.loads((fitted / "summary.json").read_text()), np.load(fitted / "path.npz")
    assert set(saved) == {"lams", "hidden", "output", "offsets", "lower", "upper", "status"}
    assert saved["hidden"].shape == (3, saved["offsets"][-1])
    assert saved["status"].dtype == np.int32
    np.testing.assert_array_equal(saved["status"], [Status.OPTIMAL] * 3)
    np.testing.assert_array_equal(np.diff(saved["offsets"]), summary["neurons"])
    for key in ("lams", "lower", "upper"):
        np.testing.assert_array_equal(saved[key], summary[key])

    # Once more, in NumPy, from the file to the objective.
    data = np.loadtxt(table, delimiter=",", skiprows=1)
    order = np.random.default_rng(0).permutation(20)
    test, train = order[:4], order[4:]
    X, y = data[:, :3], np.where(data[:, 3] == 5, 1.0, -1.0)
    X = (X - X[train].mean(axis=0)) / X[train].std(axis=0)
    for k, lam in enumerate(saved["lams"]):
        part = slice(saved["offsets"][k], saved["offsets"][k + 1])
        hidden, output = saved["hidden"][:, part], saved["output"][part]
        fit = np.maximum(X @ hidden, 0) @ output
        decay = lam / 2 * (np.sum(hidden**2) + np.sum(output**2))
        value = 0.5 * np.sum((fit[train] - y[train]) ** 2) + decay
        np.testing.assert_allclose(value, saved["upper"][k], rtol=1e-9)
        for rows, key in ((train, "train_score"), (test, "test_score")):
            agree = np.mean((fit[rows] >= 0) == (y[rows] > 0))
            assert summary[key][k] == pytest.approx(agree)


@pytest.mark.slow
def test_figure_is_a_png(fitted):
    assert (fitted / "path.png").read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------ what solve_path is handed


class Posed(Exception):  # noqa: N818 - it stops the command, it is no error
    """The program, and the number of lams and ratio of its grid."""


@pytest.fixture
def posed(monkeypatch, tmp_path):
    """What given words lead to, without computing a grid or solving."""

    def stop(program, num, ratio):
        raise Posed(program, num, ratio)

    monkeypatch.setattr(path, "lambda_grid", stop)

    def pose(*words):
        with pytest.raises(Posed) as caught:
            main(["path", "--out", str(tmp_path), *words])
        return caught.value.args

    return pose


@pytest.mark.slow
def test_every_option_changes_what_is_solved(posed, table):
    def pose(*words, target="label"):
        return posed(str(table), "--target", target, *SMALL, *words)

    program, *grid = pose()
    assert program.X.shape == (16, 3)
    assert grid == [3, 0.2]
    assert pose("--lams", "7", "--ratio", "0.01")[1:] == (7, 0.01)
    assert type(pose("--loss", "logistic")[0].loss).__name__ == "LogisticLoss"
    other_seed, same_seed = pose("--seed", "1")[0], pose("--seed", "0")[0]
    assert not np.array_equal(other_seed.y, program.y)
    assert not np.array_equal(other_seed.patterns.gates, program.patterns.gates)
    np.testing.assert_array_equal(same_seed.patterns.gates, program.patterns.gates)
    assert not np.array_equal(pose(target="real")[0].y, program.y)
    # Each of these has shapes or a precision of its own, and so a compilation: all in one.
    words = ["--gates", "1", "--test-size", "0.5", "--bias", "--dtype", "float32"]
    single = pose(*words)[0]
    assert single.X.shape == (10, 4)
    assert single.X.dtype == np.float32
    assert single.patterns.masks.shape == (10, 1)


def test_bare_command_is_breast_cancer(posed):
    program, *grid = posed()
    assert program.X.shape == (455, 30)
    assert program.X.dtype == np.float64
    np.testing.assert_allclose(program.X.std(axis=0), 1.0)
    assert set(np.asarray(program.y)) == {-1.0, 1.0}
    assert 90 <= program.patterns.masks.shape[1] <= 100
    assert type(program.loss).__name__ == "SquaredLoss"
    assert grid == [30, 0.01]


# --------------------------------------------------------------------------------- exit code 1


@pytest.fixture
def tampered(monkeypatch):
    """Makes the command see a path whose solutions went through a function."""

    def tamper(change):
        honest = path.solve_path

        def solve_path(program, lams):
            solved = honest(program, lams)
            return [change(k, solved[k]) for k in range(len(solved))]

        monkeypatch.setattr(path, "solve_path", solve_path)

    return tamper


@pytest.mark.slow
def test_one_lam_that_failed_is_exit_code_1_with_the_remedy(table, tmp_path, capsys, tampered):
    def stall_the_last(k, solution):
        status = jax.numpy.int32(Status.STALLED) if k == 2 else solution.status
        return dataclasses.replace(solution, status=status)

    tampered(stall_the_last)
    assert run("path", table, "--target", "label", *SMALL, "--out", tmp_path) == 1
    printed = capsys.readouterr()
    assert "2 of 3 lams OPTIMAL" in printed.out
    assert printed.err.startswith("1 of 3 lams STALLED: ")
    assert "rtol" in printed.err
    assert len(printed.err.splitlines()) == 1
    status = json.loads((tmp_path / "summary.json").read_text())["status"]
    assert status == ["OPTIMAL", "OPTIMAL", "STALLED"]
    np.testing.assert_array_equal(np.load(tmp_path / "path.npz")["status"], [0, 0, 2])


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_null_in_json(table, tmp_path, tampered):
    def poison(k, solution):
        nan = jax.numpy.full((), math.nan)
        certificate = dataclasses.replace(solution.certificate, upper=nan, gap=nan)
        status = jax.numpy.int32(Status.NONFINITE)
        weights = solution.weights * nan
        return dataclasses.replace(
            solution, certificate=certificate, status=status, weights=weights
        )

    tampered(poison)
    assert run("path", table, "--target", "label", *SMALL, "--out", tmp_path) == 1
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    summary = json.loads(text)
    assert summary["upper"] == summary["gap"] == summary["train_score"] == [None] * 3
    assert None not in summary["lower"]


# --------------------------------------------------------------------------------- exit code 2

BAD_FILES = {
    "text": ("a,b,t\n1,2,3\n4,red,6\n", ["line 3", "column 'b'", "'red'", "encode it as numbers"]),
    "missing": ("a,b,t\n1,,3\n4,5,6\n", ["line 2", "column 'b'", "missing value", "fill it in"]),
    "no header": ("1,2,3\n4,5,6\n", ["no header", "add a first row"]),
    "no target": ("a,b,c\n1,2,3\n4,5,6\n", ["no column 't'", "choose one of a, b, c"]),
    "two rows": ("a,t\n1,2\n3,4\n", ["leaves 1 of 2 rows to train on", "more rows"]),
    "constant": ("a,t\n1,2\n3,2\n5,2\n", ["'t' is 2 in every row", "choose another column"]),
    "same rows": ("a,t\n1,2\n1,3\n1,4\n1,7\n", ["every feature is constant", "add a feature"]),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_file_is_exit_code_2_and_one_sentence(tmp_path, capsys, fault):
    text, parts = BAD_FILES[fault]
    (tmp_path / "bad.csv").write_text(text)
    code = run("path", tmp_path / "bad.csv", "--target", "t", "--out", tmp_path / "out")
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("jaxrelu: ")
    assert printed.err.rstrip().endswith(".")
    assert len(printed.err.splitlines()) == 1
    for part in parts:
        assert part in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gates", "0"], "--gates is 0: pass at least 1."),
        (["--lams", "-3"], "--lams is -3: pass at least 1."),
        (["--ratio", "1"], "--ratio is 1: pass a number strictly between 0 and 1"),
        (["--ratio", "nan"], "--ratio is nan: pass a number strictly between 0 and 1"),
        (["--test-size", "0"], "test_size is 0.0: pass a share strictly between 0 and 1"),
        (["--test-size", "0.99"], "leaves 0 of 20 rows to train on"),
        (["--seed", "-1"], "--seed is -1: pass an integer from 0"),
        (["--target", "real", "--loss", "logistic"], "'real' has 20: use --loss squared."),
        (["--target", "price"], "no column 'price'"),
    ],
)
def test_bad_option_is_exit_code_2_and_one_sentence(table, tmp_path, capsys, words, message):
    code = run("path", table, "--target", "label", "--out", tmp_path / "out", *words)
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_target_and_file_belong_together(table, capsys):
    assert run("path", table) == 2
    assert "--target is missing: name the column of" in capsys.readouterr().err
    assert run("path", "--target", "label") == 2
    assert "--target names a column of a file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--gates", "many"], ["--dtype", "float16"], ["--lam", "1"]])
def test_words_that_do_not_parse_are_exit_code_2(capsys, words):
    assert run("path", *words) == 2
    assert words[0] in capsys.readouterr().err


def test_output_folder_that_is_a_file(table, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert run("path", table, "--target", "label", *SMALL, "--out", tmp_path / "taken") == 2
    assert "pass another --out" in capsys.readouterr().err


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


# ------------------------------------------------------------------------------ as a process


def test_module_runs_as_a_command():
    words = [sys.executable, "-m", "jaxrelu", "path", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Fits a regularization path" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "rtol"),
    [(["--dtype", "float32"], 1e-3), (["--loss", "logistic"], 1e-6), (["--bias"], 1e-6)],
    ids=["float32", "logistic", "bias"],
)
def test_variants_in_a_process_of_their_own(table, tmp_path, words, rtol):
    """A user's process: none of the strict settings of the tests, and x64 off at the start."""
    words = ["path", str(table), "--target", "label", *SMALL, "--out", str(tmp_path), *words]
    done = subprocess.run(
        [sys.executable, "-m", "jaxrelu", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    saved = np.load(tmp_path / "path.npz")
    assert (saved["upper"] - saved["lower"] <= rtol * saved["upper"]).all()
    assert saved["hidden"].dtype == (np.float32 if "float32" in words else np.float64)
    assert saved["hidden"].shape[0] == (4 if "--bias" in words else 3)


@pytest.mark.slow
def test_bare_command_certifies_all_thirty_lams(tmp_path):
    words = [sys.executable, "-m", "jaxrelu", "path", "--out", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == ["OPTIMAL"] * 30
    assert (summary["data"], summary["n"], summary["d"]) == ("breast-cancer", 455, 30)
    gaps, upper = np.array(summary["gap"]), np.array(summary["upper"])
    assert (gaps <= 1e-6 * upper + 1e-10).all()
    assert summary["neurons"][0] == 0
    assert summary["neurons"][-1] > 1
    assert max(summary["test_score"]) > 0.95
    assert (np.diff(summary["train_score"]) > -0.02).all()
