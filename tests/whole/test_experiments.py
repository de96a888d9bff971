"""The experiments run in their quick versions, on made-up data, and resume."""

import csv
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "uci").mkdir()
    for name in ("fertility", "monks-1", "parkinsons"):
        X = rng.standard_normal((60, 4))
        y = np.where(X[:, 0] + np.abs(X[:, 1]) > 0.5, 1.0, -1.0)
        header = "f1,f2,f3,f4,label"
        path = folder / "uci" / f"{name}.csv.gz"
        np.savetxt(path, np.column_stack([X, y]), delimiter=",", header=header, comments="")
    (folder / "regression").mkdir()
    for name in ("boston-housing", "concrete", "airfoil", "yacht"):
        X = rng.standard_normal((60, 4))
        y = 3.0 + 2.0 * np.abs(X[:, 0]) + rng.standard_normal(60)
        path = folder / "regression" / f"{name}.csv.gz"
        np.savetxt(path, np.column_stack([X, y]), delimiter=",", header="a,b,c,d,y", comments="")
    (folder / "images").mkdir()
    parts = {}
    for part, number in (("train", 800), ("test", 80)):
        parts[f"x_{part}"] = rng.integers(0, 256, (number, 6, 6), dtype=np.uint8)
        parts[f"y_{part}"] = rng.choice([0, 1, 3, 7], number).astype(np.uint8)
    np.savez(folder / "images" / "mnist.npz", **parts)
    return folder


def test_targets_of_a_neuron_at_a_wall(monkeypatch):
    """R . (X u)_+ = (u_1)_+ - (u_2)_+ is largest at (1, 0), where the second sample pushes back."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    targets = importlib.import_module("early_alignment").targets
    X, r = np.eye(2), np.asarray([1.0, -1.0])
    # Just on its active side the plain target (1, -1) leads off; the projected one stays.
    plain, clarke, walls = targets(np.asarray([1.0, 0.005]), 1.0, X, r)
    assert (round(plain, 2), walls) == (0.7, 1)
    assert clarke > 0.9999
    # Far from all walls both are one; at a direction that still turns neither is near.
    plain, clarke, walls = targets(np.asarray([1.0, 1.0]), 1.0, X, r)
    assert (plain, walls) == (0.0, 0)
    assert clarke < 0.8
    plain, clarke, walls = targets(np.asarray([0.8, 0.6]), 1.0, X, np.asarray([0.8, 0.6]))
    assert plain == clarke == pytest.approx(1.0)


@pytest.mark.slow
def test_all_run_and_resume(data, tmp_path):
    command = [sys.executable, str(EXPERIMENTS / "run_all.py"), "--quick"]
    command += ["--data", str(data), "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=1800)
    before = {path: path.read_text() for path in (tmp_path / "quick").glob("*.csv")}
    assert len(before) == 21
    for path in (tmp_path / "quick").glob("*.csv"):
        with path.open() as file:
            assert list(csv.DictReader(file))
    assert len(list((tmp_path / "quick").glob("*.png"))) == 17
    resuming = ("optimal_accuracy", "pruning_uci", "pruning_images", "early_alignment")
    for name in (*resuming, "training_dynamics", "training_margin", "discontinuous_path"):
        script = str(EXPERIMENTS / f"{name}.py")
        subprocess.run([sys.executable, script, *command[2:]], check=True, timeout=300)
    assert before == {path: path.read_text() for path in (tmp_path / "quick").glob("*.csv")}
