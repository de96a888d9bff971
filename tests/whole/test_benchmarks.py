"""The benchmark runs on a small row of made-up data, and its table says what happened."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    y = np.where(X[:, 0] + np.abs(X[:, 1]) > 0.5, 1.0, -1.0)
    (folder / "uci").mkdir()
    path, header = folder / "uci" / "fertility.csv.gz", "f1,f2,f3,f4,label"
    np.savetxt(path, np.column_stack([X, y]), delimiter=",", header=header, comments="")
    return folder


def call(script, data, out, *words):
    command = [sys.executable, str(BENCHMARKS / script), "--data", str(data), "--out", str(out)]
    subprocess.run([*command, *words], check=True, timeout=600)


@pytest.mark.slow
def test_a_row_without_peers(data, tmp_path):
    words = ["--rows", "small-20", "--peers", "none", "--repeats", "1", "--methods", "path", "grid"]
    call("run.py", data, tmp_path, *words)
    (record,) = json.loads((tmp_path / "results.json").read_text()).values()
    assert (record["n"], record["d"], len(record["lams"])) == (60, 4, 10)
    labels = [setting["label"] for setting in record["settings"]]
    assert labels == ["path rtol 1e-06", "path rtol 0.0001", "path rtol 1e-09", "grid rtol 1e-06"]
    for setting in record["settings"]:
        assert (setting["status"], setting["optimal"]) == ("ok", 10)
        assert len(setting["runs"]) == 2
        assert setting["worst_gap"] <= 1.01e-4
        assert setting["worst_violation"] <= 1e-12
        assert setting["seconds"] <= setting["first_seconds"]
    assert record["optimum_gap"] <= 1e-9
    text = (tmp_path / "table.md").read_text()
    assert text.count("10/10 OPTIMAL") == 4
    assert f"{record['settings'][0]['objective'][-1]:.9g}" in text


@pytest.mark.slow
def test_from_nothing_to_the_first_path(data, tmp_path):
    words = ["--row", "small-20", "--peers", "none", "--repeats", "1"]
    call("cold_start.py", data, tmp_path, *words)
    title, _, header, _, *lines = (tmp_path / "cold_start.md").read_text().splitlines()
    assert title.startswith("small-20, ")
    assert title.endswith(", 1 processes each")
    assert header.startswith("| | imported | gates sampled | lams laid out | done | done again |")
    rows = {way: cells for _, way, *cells in (line.split("|") for line in lines)}
    seconds = {way.strip(): float(cells[3]) for way, cells in rows.items()}
    assert len(seconds) == 5
    assert seconds["jaxrelu, path, programs kept"] < seconds["jaxrelu, path"]
    assert seconds["jaxrelu path, programs kept"] < seconds["jaxrelu path, the command"]


@pytest.mark.slow
def test_sizes_of_optimal_sets(data, tmp_path):
    call("sizes.py", data, tmp_path, "--only", "set", "--quick")
    found = json.loads((tmp_path / "sizes.json").read_text())
    network, polytope, exact = found["set"]["rows"]
    assert network["result"].startswith("20 left")
    assert polytope["what"] == "500 samples of a polytope of 5 dimensions"
    assert "breakpoints" in exact["result"]
    assert not exact["result"].endswith("not to the end")


@pytest.mark.slow
def test_sizes_of_lanes_with_a_scout(data, tmp_path):
    call("sizes.py", data, tmp_path, "--only", "scouted", "--quick")
    (row,) = json.loads((tmp_path / "sizes.json").read_text())["scouted"]["rows"]
    assert (row["row"], row["OPTIMAL"]) == ("small-20", "10/10")
    assert 0 < row["steps needed"] <= row["executed"]


@pytest.mark.slow
def test_sizes_of_the_oracle(data, tmp_path):
    call("sizes.py", data, tmp_path, "--only", "oracle", "--quick")
    found = json.loads((tmp_path / "sizes.json").read_text())
    two, three, ascents, refined = (row["result"] for row in found["oracle"]["rows"])
    assert two.startswith("sweep, ")
    assert three.startswith("sweep of walls, ")
    assert ascents.startswith("best ")
    assert "patterns, global gap" in refined


def test_what_ran_into_the_cap_is_printed_so(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    record = {
        "data": "made up", "n": 3, "d": 2, "gates": 4, "patterns": 4, "gated": False,
        "lams": [2.0, 1.0], "threads": 1, "cap": 120.0, "date": "today", "hardware": "none",
        "sampling_seconds": 1.0, "optimum": [3.0, 1.23456789], "optimum_gap": 1e-9,
    }  # fmt: skip
    run = {"seconds": 2.0, "peak_mib": 5.0, "device": "cpu: cpu"}
    solved = {
        "status": "ok", "versions": {}, "complete": True, "index": [0, 1], "optimal": 2,
        "blocks": [0, 2], "objective": [3.0, 1.2345678], "worst_error": 1e-8, "worst_gap": 1e-7,
        "worst_violation": 0.0, "runs": [run], "seconds": 2.0, "first_seconds": 3.0,
        "compile_seconds": 1.0, "peak_mib": 5.0, "dtype": "float64",
    }  # fmt: skip
    rough = solved | {"worst_error": 1e-3}
    capped = {"status": "over 120 s", "versions": {}, "runs": []}

    def cells(*settings):
        """The row of the race, and the rows of adelie below, cell by cell."""
        ours = {"tool": "jaxrelu", "label": report.OURS, **solved}
        text = report.table({"made-up": record | {"settings": [ours, *settings]}})
        rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:1] == "|"]
        (race,) = [row for row in rows if row[0] == "made-up" and row[1] == "2"]
        return race, [row for row in rows if row[0] == "adelie"]

    hard = {"tool": "adelie", "label": "tol 1e-9", **capped}
    race, (row,) = cells(hard)
    assert race[5] == "over 120 s (> 60)"
    assert row[6] == row[-1] == "over 120 s"
    # A looser setting that ended does not hide it.
    race, (row, _) = cells({"tool": "adelie", "label": "tol 1e-7", **rough}, hard)
    assert race[5] == "2 (1.0), tol 1e-7 (!) error 1e-03, tighter over 120 s"
    assert row[8] == "1.2345678"
    # A peer for one lam, at two lams.
    single = {"tool": "clarabel", "tol": 1e-6, "label": "tol 1e-6"}
    one = single | solved | {"lam_index": 0, "index": [0], "seconds": 8.0}
    race, _ = cells(one, single | capped | {"lam_index": 1})
    assert race[8] == "8 (8), tol 1e-06, 1 of 2 lams over 120 s"
    race, _ = cells(single | capped | {"lam_index": 1})
    assert race[8] == "over 120 s (> 120)"
