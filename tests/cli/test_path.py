"""`jaxrelu path` as its user meets it: table, files, exit codes, one sentence for bad input."""

import dataclasses
import errno
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxrelu.cli import main, path
from jaxrelu.core.status import Status
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.losses import AbsoluteLoss, HingeLoss, HuberLoss, QuantileLoss, SquaredHingeLoss

ROOT = Path(__file__).resolve().parents[2]
KEYS = [
    "data", "n", "d", "gates", "patterns", "loss", "offset", "lams", "lambda_max", "objective",
    "lower", "upper", "gap", "neurons", "train_score", "test_score", "status", "seconds", "run",
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


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A CSV of 20 rows, 2 features and counts."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(20, 2))
    file = tmp_path_factory.mktemp("counted") / "counted.csv"
    rows = np.column_stack([X, rng.poisson(np.exp(1.0 + np.abs(X[:, 0])))])
    np.savetxt(file, rows, delimiter=",", header="first,second,counts", comments="")
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
    promised = {"lams", "hidden", "output", "offsets", "lower", "upper", "status", "run"}
    assert set(saved) == promised
    assert str(saved["run"]) == summary["run"]
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


def test_losses_and_their_parameters(posed, table, counted):
    def loss(*words):
        return posed(*map(str, words), *SMALL)[0].loss

    huber = loss(table, "--target", "real", "--loss", "huber", "--delta", "2.5")
    assert isinstance(huber, HuberLoss)
    assert float(huber.delta) == 2.5
    assert float(loss(table, "--target", "real", "--loss", "huber").delta) == 1.345
    low = loss(table, "--target", "real", "--loss", "quantile", "--quantile", "0.1")
    assert isinstance(low, QuantileLoss)
    assert float(low.q) == 0.1
    assert float(loss(table, "--target", "real", "--loss", "quantile").q) == 0.5
    assert isinstance(loss(table, "--target", "real", "--loss", "absolute"), AbsoluteLoss)
    for name, kind in (("squared-hinge", SquaredHingeLoss), ("hinge", HingeLoss)):
        assert isinstance(loss(table, "--target", "label", "--loss", name), kind)
    program = posed(str(counted), "--target", "counts", "--loss", "poisson", *SMALL)[0]
    # Counts stay what they are.
    np.testing.assert_array_equal(program.y, np.round(program.y))
    assert float(program.loss.offset) == pytest.approx(math.log(program.y.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["absolute", "quantile"])
def test_a_path_of_a_loss_with_kinks(table, tmp_path, loss):
    words = ["--target", "real", "--loss", loss, *SMALL, "--out", tmp_path]
    assert run("path", table, *words) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["loss"] == loss


@pytest.mark.slow
def test_a_path_of_counts(counted, tmp_path):
    words = ["--target", "counts", "--loss", "poisson", *SMALL, "--out", tmp_path]
    assert run("path", counted, *words) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["loss"] == "poisson"
    # At lambda_max the network is zero, and the prediction the mean.
    assert summary["train_score"][0] == pytest.approx(0.0, abs=1e-9)
    assert 0.0 < summary["train_score"][-1] < 1.0


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
    assert printed.err.startswith("jaxrelu: 1 of 3 lams STALLED: ")
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
        (["--test-size", "0"], "test_size is 0.0; pass a number strictly between 0 and 1"),
        (["--test-size", "0.99"], "leaves 0 of 20 rows to train on"),
        (["--seed", "-1"], "--seed is -1: pass an integer from 0"),
        (["--target", "real", "--loss", "logistic"], "'real' has 20: use --loss squared."),
        (["--target", "real", "--loss", "squared-hinge"], "--loss squared-hinge needs a target"),
        (["--loss", "poisson"], "--loss poisson needs counts, but the target has two values"),
        (["--target", "first", "--loss", "poisson"], "needs counts or rates >= 0, but 'first'"),
        (["--delta", "2"], "--delta belongs to --loss huber, not to --loss squared."),
        (["--loss", "huber", "--delta", "0"], "--delta is 0: pass a positive number"),
        (["--target", "real", "--loss", "hinge"], "--loss hinge needs a target"),
        (["--quantile", "0.5"], "--quantile belongs to --loss quantile, not to --loss squared."),
        (["--loss", "quantile", "--quantile", "1"], "--quantile is 1: pass a number strictly"),
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


# ------------------------------------------------------------------- files, figures, printing


@pytest.fixture
def quick(monkeypatch):
    """Leaves out what takes the time: patterns, solving, all of the figure but its title.

    Networks have one neuron, and all are OPTIMAL.
    """

    def sample_patterns(key, X, num_gates):
        gates = np.random.default_rng(0).normal(size=(X.shape[1], num_gates))
        return Patterns(gates, X @ gates >= 0, gates)

    def solve_path(program, lams):
        weights = np.ones((2, program.patterns.masks.shape[1], program.X.shape[1]))
        certificate = SimpleNamespace(lower=1.0, upper=1.0)
        return [
            SimpleNamespace(
                lam=lam, weights=weights, certificate=certificate, status=Status.OPTIMAL
            )
            for lam in lams
        ]

    def evaluate(program, solution, data):
        hidden, output = np.ones((data.X.shape[1], 1)), np.ones(1)
        return path.Row(solution.lam, 1.0, 1.0, hidden, output, 0.5, 0.5, Status.OPTIMAL)

    monkeypatch.setattr(path, "sample_patterns", sample_patterns)
    monkeypatch.setattr(path, "lambda_max", lambda program: 1.0)
    monkeypatch.setattr(
        path, "lambda_grid", lambda program, num, ratio: np.geomspace(1, ratio, num)
    )
    monkeypatch.setattr(path, "solve_path", solve_path)

    def plot_path(path, title, **_):
        figure = Figure()
        figure.suptitle(title)
        return figure

    monkeypatch.setattr(path, "_evaluate", evaluate)
    monkeypatch.setattr(path.plotting, "plot_path", plot_path)


def runs_of(folder):
    """The run that every file of a folder is of; None for those that are not there."""
    summary, saved = folder / "summary.json", folder / "path.npz"
    return (
        json.loads(summary.read_text())["run"] if summary.exists() else None,
        str(np.load(saved)["run"]) if saved.exists() else None,
    )


def test_every_run_has_a_name_of_its_own(quick, table, tmp_path):
    for _ in range(2):
        assert run("path", table, "--target", "label", *SMALL, "--out", tmp_path) == 0
        summary, saved = runs_of(tmp_path)
        assert summary == saved
        assert re.fullmatch("[0-9a-f]{32}", summary)
        (tmp_path / summary).mkdir()  # fails if it is there
    assert json.loads((tmp_path / "summary.json").read_text())["run"] == summary


def test_folder_that_cannot_be_written_to_is_exit_code_2_before_solving(
    quick, table, tmp_path, capsys, monkeypatch
):
    def never(*_):
        pytest.fail("solved before the folder was known to be one")

    monkeypatch.setattr(path, "lambda_max", never)
    (tmp_path / "file").touch()
    (tmp_path / "holds a folder" / "summary.json").mkdir(parents=True)
    for out, reason in (
        ("file", "File exists"),
        ("file/inside", "Not a directory"),
        ("holds a folder", "summary.json is a folder there"),
        ("n" * 300, "File name too long"),
    ):
        assert run("path", table, "--target", "label", *SMALL, "--out", tmp_path / out) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.endswith("or pass another --out.\n")
        assert len(error.splitlines()) == 1


def test_disk_that_fills_while_solving_keeps_the_run_before(
    quick, table, tmp_path, capsys, monkeypatch
):
    words = ["path", table, "--target", "label", *SMALL, "--out", tmp_path]
    assert run(*words) == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    capsys.readouterr()
    honest = path.publish

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def publish(*arguments):
        monkeypatch.setattr(os, "fsync", full)
        honest(*arguments)

    monkeypatch.setattr(path, "publish", publish)
    assert run(*words) == 2
    printed = capsys.readouterr()
    assert "OPTIMAL" in printed.out  # the table is not lost
    assert "No space left on device" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "name", ["$_$.csv", "a$b$c.csv", r"\$.csv", "$$.csv", "\u30c7\u30fc\u30bf.csv", "t\udcff.csv"]
)
def test_any_file_name_gets_its_figure(quick, table, tmp_path, capsys, name):
    try:
        (tmp_path / name).write_bytes(table.read_bytes())
    except OSError:
        pytest.skip("a name that this file system does not take")
    out = tmp_path / "out"
    assert run("path", tmp_path / name, "--target", "label", *SMALL, "--out", out) == 0
    assert capsys.readouterr().err == ""
    assert (out / "path.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "summary.json").read_text())["data"] == name


def test_figure_that_fails_costs_no_run(quick, table, tmp_path, capsys, monkeypatch):
    words = ["path", table, "--target", "label", *SMALL, "--out", tmp_path]
    assert run(*words) == 0
    capsys.readouterr()

    def fail(*_, **__):
        raise RuntimeError("no such font")

    monkeypatch.setattr(path.plotting, "plot_path", fail)
    assert run(*words) == 0
    printed = capsys.readouterr()
    message = "jaxrelu: path.png is left out, as the figure failed (RuntimeError: no such font).\n"
    assert printed.err == message
    assert "wrote path.npz and summary.json to" in printed.out.splitlines()[-1]
    # Nor does the figure of the run before stay beside the files of this one.
    assert sorted(file.name for file in tmp_path.iterdir()) == ["path.npz", "summary.json"]


class Output(io.TextIOWrapper):
    """A standard output in some encoding, which fails with an error at some words."""

    def __init__(self, encoding="utf-8", words=None, error=None):
        super().__init__(io.BytesIO(), encoding, errors="strict")
        self.words, self.error = words, error

    def write(self, text):
        if self.words and self.words in text:
            raise OSError(self.error, os.strerror(self.error))
        return super().write(text)

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_encoding_of_the_output_will_do(quick, table, tmp_path, monkeypatch, encoding):
    file = tmp_path / "\u30c7\u30fc\u30bf :smile:.csv"
    file.write_bytes(table.read_bytes())
    out = tmp_path / "\u51fa\u529b"
    monkeypatch.setattr("sys.stdout", Output(encoding))
    assert run("path", file, "--target", "label", *SMALL, "--out", out) == 0
    lines = sys.stdout.text().splitlines()
    assert lines[0].startswith(r"\u30c7\u30fc\u30bf :smile:.csv: 16 training and 4 test rows")
    assert lines[-1].endswith(r"\u51fa\u529b")
    assert runs_of(out)[0] is not None


@pytest.mark.parametrize("words", ["lambda_max = ", "objective", "3 of 3 lams OPTIMAL"])
def test_reader_that_leaves_costs_no_run(quick, table, tmp_path, monkeypatch, words):
    monkeypatch.setattr("sys.stdout", Output(words=words, error=errno.EPIPE))
    assert run("path", table, "--target", "label", *SMALL, "--out", tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("words", "files"), [("lambda_max = ", 0), ("objective", 3), ("3 of 3 lams OPTIMAL", 3)]
)
def test_full_disk_behind_the_output_is_exit_code_2(
    quick, table, tmp_path, monkeypatch, capsys, words, files
):
    monkeypatch.setattr("sys.stdout", Output(words=words, error=errno.ENOSPC))
    assert run("path", table, "--target", "label", *SMALL, "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxrelu: the standard output cannot be read or written (No space left")
    assert len(error.splitlines()) == 1
    assert len(list(tmp_path.iterdir())) == files


def test_note_of_the_table_is_printed(quick, table, tmp_path, capsys):
    file = tmp_path / "labelled.csv"
    lines = table.read_text().splitlines()
    labels = ["", *map(str, range(len(lines) - 1))]
    file.write_text("\n".join(f"{label},{line}" for label, line in zip(labels, lines, strict=True)))
    assert run("path", file, "--target", "label", *SMALL, "--out", tmp_path / "out") == 0
    error = capsys.readouterr().err
    assert error.startswith("jaxrelu: the first column of ")
    assert error.endswith("it is left out.\n")
    assert len(error.splitlines()) == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["d"] == 3


# ------------------------------------------------------------------------------ as a process


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
