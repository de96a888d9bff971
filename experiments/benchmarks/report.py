"""Tables and plots of results.json.

Run as a script with a folder, it writes table.md and the plot of that folder again.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

RACE_ERROR = 1e-6
OURS = "path rtol 1e-06"

Record = dict[str, Any]


def write(results: dict[str, Record], out: Path) -> None:
    """Write table.md and work_precision.png (when matplotlib is there) into a folder."""
    (out / "table.md").write_text(table(results))
    plot(results, out / "work_precision.png")


def raced(record: Record, tool: str) -> tuple[Record, bool] | None:
    """The setting of a peer that the race is against.

    Its fastest complete setting whose raw objective is within 1e-6 of the optimum, relative, on
    every lam; where there is none, its most accurate complete one.

    Returns:
        The setting and whether it is accurate enough, or None when the peer finished nothing.
    """
    finished = [s for s in record["settings"] if s["tool"] == tool and s.get("complete")]
    accurate = [s for s in finished if s["worst_error"] <= RACE_ERROR]
    if accurate:
        return min(accurate, key=lambda s: s["seconds"]), True
    if finished:
        return min(finished, key=lambda s: s["worst_error"]), False
    return None


def table(results: dict[str, Record]) -> str:
    """The whole report as markdown."""
    lines = ["# Benchmarks", "", *_race(results), "", *_ours_everywhere(results), ""]
    for name, record in results.items():
        lines += [*_details(name, record), ""]
    return "\n".join([*lines, *_legend(), ""])


def one_line(setting: Record) -> str:
    """A setting in a few words, for the terminal."""
    parts = [setting["tool"], setting["label"], setting["status"]]
    if "seconds" in setting:
        parts.append(f"{_seconds(setting['seconds'])} s")
    if "worst_error" in setting:
        parts.append(f"error {_power(setting['worst_error'])}")
        parts.append(f"cones {_power(setting['worst_violation'])}")
        parts.append(f"gap {_power(setting['worst_gap'])}")
    return "  ".join(parts)


def _race(results: dict[str, Record]) -> list[str]:
    """One line a row: jaxrelu against the raced setting of every peer."""
    path_peers, lam_peers = ("adelie", "celer", "skglm"), ("clarabel", "pyscnn")
    header = ["row", "lams", "jaxrelu, s", "OPTIMAL", "worst gap"]
    header += [f"{peer}, s (times ours)" for peer in path_peers]
    header += [f"{peer}, s a lam (times ours)" for peer in lam_peers]
    lines, ratios = [], []
    for name, record in results.items():
        ours = _ours(record)
        num = len(record["lams"])
        cells = [name, str(num)]
        if ours is None:
            cells += ["-", "-", "-"]
        else:
            cells += [_seconds(ours["seconds"]), f"{ours['optimal']}/{num}"]
            cells.append(_power(ours["worst_gap"]))
        for peer in path_peers:
            cell, ratio = _against(record, peer, ours)
            cells.append(cell)
            if peer == "adelie" and ratio is not None:
                ratios.append(1 / ratio)
        cells += [_per_lam(record, peer, ours) for peer in lam_peers]
        lines.append(cells)
    out = ["## The race", "", *markdown(header, lines)]
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        out += ["", f"jaxrelu's time over adelie's: geometric mean {mean:.2f}, "]
        out[-1] += f"worst {max(ratios):.2f}, over {len(ratios)} rows."
    return out


def _against(record: Record, peer: str, ours: Record | None) -> tuple[str, float | None]:
    """The cell of a peer that solves paths, and how many times slower than jaxrelu it is."""
    choice = raced(record, peer)
    if choice is None:
        return _nothing([s for s in record["settings"] if s["tool"] == peer], ours), None
    setting, accurate = choice
    mark = "" if accurate else f" (!) error {_power(setting['worst_error'])}"
    if not accurate and any(_capped(s) for s in record["settings"] if s["tool"] == peer):
        mark += f", tighter over {record['cap']:g} s"
    ratio = setting["seconds"] / ours["seconds"] if ours else None
    times = f" ({ratio:.1f})" if ratio else ""
    return f"{_seconds(setting['seconds'])}{times}, {setting['label']}{mark}", ratio


def _nothing(settings: list[Record], ours: Record | None, lams: int = 1) -> str:
    """The cell of a peer none of whose settings ended: over the cap, or why there are none."""
    capped = [s for s in settings if _capped(s)]
    if not capped:
        return settings[0]["status"] if settings else ""
    text = str(capped[0]["status"])
    least = float(text.split()[1]) * lams / ours["seconds"] if ours else None
    return f"{text} (> {least:.3g})" if least else text


def _capped(setting: Record) -> bool:
    """Whether a setting has nothing to show because its first run was stopped at the cap."""
    return not setting["runs"] and setting["status"].startswith("over ")


def _per_lam(record: Record, peer: str, ours: Record | None) -> str:
    """The cell of a peer that solves one lam at a time: the median over those it finished."""
    mine = [s for s in record["settings"] if s["tool"] == peer]
    groups: dict[float, list[Record]] = {}
    for setting in mine:
        groups.setdefault(setting["tol"], []).append(setting)
    ended = {t: [s for s in g if "worst_error" in s] for t, g in groups.items()}
    most = max(map(len, ended.values()), default=0)
    if most == 0:
        return _nothing(mine, ours, len(record["lams"]))
    whole = {t: g for t, g in ended.items() if len(g) == most}
    errors = {t: max(s["worst_error"] for s in g) for t, g in whole.items()}
    times = {t: statistics.median(s["seconds"] for s in g) for t, g in whole.items()}
    accurate = [t for t in whole if errors[t] <= RACE_ERROR]
    tol = min(accurate, key=times.__getitem__) if accurate else min(errors, key=errors.__getitem__)
    mark = "" if accurate else f" (!) error {_power(errors[tol])}"
    times_ours = ""
    if ours is not None:
        times_ours = f" ({times[tol] * len(record['lams']) / ours['seconds']:.0f})"
    missing = [s for s in groups[tol] if "worst_error" not in s]
    how = f"over {record['cap']:g} s" if all(map(_capped, missing)) else "did not end"
    part = f", {len(missing)} of {len(groups[tol])} lams {how}" if missing else ""
    return f"{_seconds(times[tol])}{times_ours}, tol {tol:g}{mark}{part}"


def _ours_everywhere(results: dict[str, Record]) -> list[str]:
    """All settings of jaxrelu on all rows, without the peers."""
    header = ["row", "setting", "n", "d", "gates", "lams", "dtype", "device", "compile, s"]
    header += ["first call, s", "steady state, s", "worst gap", "worst cone violation"]
    header += ["peak memory, MiB", "OPTIMAL"]
    lines = []
    for name, record in results.items():
        for setting in record["settings"]:
            if setting["tool"] != "jaxrelu" or "worst_gap" not in setting:
                continue
            cells = [name, setting["label"], str(record["n"]), str(record["d"])]
            cells += [str(record["patterns"]), str(len(record["lams"])), setting["dtype"]]
            cells.append(setting["runs"][-1]["device"])
            cells += [_seconds(setting[f"{key}seconds"]) for key in ("compile_", "first_", "")]
            cells += [_power(setting["worst_gap"]), _power(setting["worst_violation"])]
            cells += [_memory(setting), f"{setting['optimal']}/{len(record['lams'])}"]
            lines.append(cells)
    return ["## jaxrelu", "", *markdown(header, lines)]


def _details(name: str, record: Record) -> list[str]:
    """Every tool at every setting on one row."""
    kind = "gated program" if record["gated"] else "ReLU program"
    ratio = record["lams"][-1] / record["lams"][0]
    lines = [
        f"## {name}",
        "",
        f"{record['data']}, {kind}: n = {record['n']}, d = {record['d']}, {record['gates']} gates, "
        f"{record['patterns']} patterns, {len(record['lams'])} lams to {ratio:.3g} of lambda_max. "
        f"{record['date']}, {record['hardware']}, {record['threads']} threads a process. "
        "Sampling the gates and laying out the path, in nobody's time: "
        f"{_seconds(record['sampling_seconds'])} s. The optimum is known to a relative gap of "
        f"{_power(record['optimum_gap'])}; at the last lam it is {record['optimum'][-1]:.9g}.",
        "",
    ]
    header = ["tool", "setting", "dtype", "device", "compile, s", "first call, s"]
    header += ["steady state, s", "runs", "raw objective", "raw error", "worst cone violation"]
    header += ["worst gap", "blocks at the end", "peak memory, MiB", "status"]
    cells = []
    for setting in record["settings"]:
        runs = setting["runs"]
        label = setting["label"]
        if setting.get("threads"):
            label += f", threads {setting['threads']}"
        device = runs[0].get("device", "cpu") if runs else ""
        row = [setting["tool"], label, setting.get("dtype", "float64"), device]
        if runs:
            row += [_seconds(setting[f"{key}seconds"]) for key in ("compile_", "first_", "")]
            row += [str(len(runs))]
        else:
            row += ["", "", setting["status"] if _capped(setting) else "", "0"]
        if "worst_error" in setting:
            row += [f"{setting['objective'][-1]:.9g}", _power(setting["worst_error"])]
            row += [_power(setting["worst_violation"]), _power(setting["worst_gap"])]
            row.append(str(setting["blocks"][-1]))
        else:
            row += [""] * 5
        row.append(_memory(setting))
        status = setting["status"]
        if status == "ok" and "optimal" in setting:
            status = f"{setting['optimal']}/{len(setting['index'])} OPTIMAL"
        cells.append([*row, status])
    lines += markdown(header, cells)
    versions: dict[str, str] = {}
    for setting in record["settings"]:
        versions |= setting["versions"]
    lines += ["", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))]
    return lines


def _legend() -> list[str]:
    return [
        "## How to read this",
        "",
        "* Objective: 1/2 ||f - y||^2 + lam sum ||theta_b||, no 1/n, no intercept. All tools solve "
        "the same patterns at the same lams.",
        "* steady state: median of the runs after the first, in turns with the other tools; for "
        "Clarabel its own clock, without CVXPY. First call: the whole first run. Compile: the "
        "backend compiler (jaxrelu), the canonicalisation (CVXPY).",
        "* raw objective: of the weights as returned, before any repair, at the last lam that the "
        "setting solved (the one of its name, the last of its path).",
        "* raw error: |objective of the weights as returned - certified optimum| / optimum, worst "
        "over the path, before any repair; where the cones are violated the objective may lie "
        "below the optimum.",
        "* worst cone violation: largest preactivation on the wrong side, in units of the root "
        "mean square of y.",
        "* worst gap: (upper - lower) / upper, worst over the path: jaxrelu's own certificate, and "
        "for every other tool what jaxrelu's `certify` makes of its weights (repair included).",
        "* peak memory: high-water mark of the process during a run after the first, above what it "
        "held before its first run; on an accelerator the device's own peak.",
        "* over 120 s: a run was stopped at the cap, on the first lam or later; in the race, where "
        "no setting ended, with the least ratio that this means. An empty cell: it did not run.",
        f"* the race: the fastest setting with a raw error of at most {RACE_ERROR:g}; (!) marks a "
        "peer that has none, shown at its most accurate finished setting.",
        "* (times ours): its time over that of jaxrelu's path at rtol 1e-6; in a column a lam, the "
        "median over its lams against jaxrelu's path divided by its number of lams.",
    ]


def plot(results: dict[str, Record], target: Path) -> None:
    """Work-precision: the worst gap after repair against the time of the path, a panel a row."""
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: no work-precision plot")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(results))
    lines = -(-len(results) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4.2 * columns, 3.4 * lines), squeeze=False, layout="constrained"
    )
    colors = {"jaxrelu": "C0", "adelie": "C1", "celer": "C2", "skglm": "C3"}
    colors |= {"clarabel": "C4", "pyscnn": "C5"}
    for axis, (name, record) in zip(axes.flat, results.items(), strict=False):
        for (tool, method), points in sorted(_curves(record).items()):
            scaled = method.startswith("one lam")
            axis.plot(
                *zip(*sorted(points, key=lambda point: -point[1]), strict=True),
                linestyle="--" if scaled else "-",
                marker={"grid": "s", "solve": "^"}.get(method.split(" ")[0], "o"),
                markerfacecolor="none" if scaled or "float32" in method else None,
                color=colors[tool],
                label=f"{tool} {method}".strip(),
            )
        axis.set(xscale="log", yscale="log", title=name)
        axis.set(xlabel="seconds for the path", ylabel="worst certified gap")
        axis.tick_params(axis="x", which="minor", labelsize=5)
        axis.axhline(RACE_ERROR, color="0.8", zorder=0)
        axis.legend(fontsize=6)
    for axis in list(axes.flat)[len(results) :]:
        axis.remove()
    figure.savefig(target, dpi=150)
    pyplot.close(figure)


def _curves(record: Record) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Points (seconds, gap) by tool and method; a tool for one lam is scaled to the path."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    num = len(record["lams"])
    singles: dict[tuple[str, float], list[Record]] = {}
    for setting in record["settings"]:
        if not setting.get("complete"):
            continue
        if "lam_index" in setting:
            singles.setdefault((setting["tool"], setting["tol"]), []).append(setting)
            continue
        method = setting.get("method", "")
        if setting.get("dtype") == "float32":
            method += " float32"
        point = (setting["seconds"], max(setting["worst_gap"], 1e-16))
        curves.setdefault((setting["tool"], method), []).append(point)
    for (tool, _), settings in singles.items():
        seconds = num * statistics.median(s["seconds"] for s in settings)
        gap = max(1e-16, *(s["worst_gap"] for s in settings))
        curves.setdefault((tool, f"one lam x {num}"), []).append((seconds, gap))
    return curves


def _ours(record: Record) -> Record | None:
    """The setting of jaxrelu that races: its path at the default tolerance."""
    for setting in record["settings"]:
        if setting["tool"] == "jaxrelu" and setting["label"] == OURS and "worst_gap" in setting:
            return dict(setting)
    return None


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _power(value: float) -> str:
    return f"{value:.0e}"


def _memory(setting: Record) -> str:
    if not setting["runs"]:
        return ""
    device = setting["runs"][-1].get("device_peak_mib")
    return f"{device:.0f} (device)" if device else f"{setting['peak_mib']:.0f}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(json.loads((folder / "results.json").read_text()), folder)
