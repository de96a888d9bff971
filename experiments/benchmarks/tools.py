"""Who races: the peers, what each needs, and the fixed ladder of settings it climbs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from problems import Row

Setting = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A tool that runs in a virtual environment of its own.

    Attributes:
        name: how `--peers` and the tables call it.
        requirements: what pip installs.
        script: the file in `peers/`.
        programs: "relu", "gated" or both.
        single: solves one lam at a time and is run on a few lams of the path only.
    """

    name: str
    requirements: tuple[str, ...]
    script: str
    programs: tuple[str, ...]
    single: bool = False


PEERS = (
    Peer("adelie", ("adelie==1.1.52", "numpy<2"), "adelie_path.py", ("relu", "gated")),
    Peer("skglm", ("skglm==0.5",), "skglm_path.py", ("gated",)),
    Peer("celer", ("celer==0.7.4",), "celer_path.py", ("gated",)),
    Peer("clarabel", ("cvxpy>=1.7", "clarabel>=0.11"), "clarabel_lam.py", ("relu", "gated"), True),
    Peer("pyscnn", ("pyscnn==0.0.10", "torch"), "pyscnn_lam.py", ("relu", "gated"), True),
)

# Between 1e-7, its default, and 1e-9 adelie goes from seconds to no end on the large rows.
# adelie: (tol, tolerance of its constraint solver; None is the default, 1e-9 and 1e-7 inside).
# Tightening tol alone stalls near 4e-5 on breast-cancer-100: the value hangs on how well the cones
# are kept. The last rung reaches 3e-8 where it ends within the cap.
_ADELIE_RELU = (
    (1e-7, None),
    (1e-8, None),
    (3e-9, None),
    (1e-9, None),
    (1e-11, None),
    (1e-13, 1e-8),
    (1e-15, 1e-9),
    (1e-16, 1e-10),
    (1e-17, 1e-11),
)
_ADELIE_GATED = (1e-7, 1e-9, 1e-11, 1e-13)
_GROUP_LASSO = (1e-4, 1e-6, 1e-8, 1e-10)
_CLARABEL = (1e-6, 1e-8)
# pyscnn: tol bounds squared norms; its default caps, 10,000 steps, stop it before 1e-8 does.
_PYSCNN = ((1e-6, 10_000), (1e-8, 1_000_000))


def select(names: list[str] | None) -> list[Peer]:
    """The peers of these names; all of them without a list, none for `none`.

    Raises:
        ValueError: there is no peer of that name.
    """
    if names is None:
        return list(PEERS)
    known = {peer.name: peer for peer in PEERS}
    wanted = [name for name in names if name != "none"]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ValueError(f"no peer {', '.join(unknown)}; there are {', '.join(known)}, none")
    return [known[name] for name in wanted]


def ladder(peer: Peer, row: Row, threads: int) -> list[Setting]:
    """The settings that a peer runs on a row; empty where it cannot solve that program."""
    if ("gated" if row.gated else "relu") not in peer.programs:
        return []
    if peer.name == "adelie":
        common = {"threads": threads, "max_iters": 10_000_000}
        if row.gated:
            return [{"label": f"tol {tol:g}", "tol": tol, **common} for tol in _ADELIE_GATED]
        return [
            {
                "label": f"tol {tol:g}" + (f", cones {cone:g}" if cone else ""),
                "tol": tol,
                "constraint_tol": cone,
                **common,
            }
            for tol, cone in _ADELIE_RELU
        ]
    if peer.single:
        rungs: list[Setting] = [{"tol": tol} for tol in _CLARABEL]
        if peer.name == "pyscnn":
            rungs = [{"tol": tol, "max_iters": caps} for tol, caps in _PYSCNN]
        return [
            {
                "label": f"tol {rung['tol']:g}, lam {index + 1}/{row.lams}",
                "lam_index": index,
                **rung,
            }
            for rung in rungs
            for index in (row.lams // 2, row.lams - 1)
        ]
    return [{"label": f"tol {tol:g}", "tol": tol} for tol in _GROUP_LASSO]


def jaxrelu_settings(row: Row, methods: list[str]) -> list[Setting]:
    """The settings of jaxrelu itself; the first of "path" at rtol 1e-6 is the one that races."""
    settings: list[Setting] = []
    if "path" in methods:
        settings += [_ours("path", rtol) for rtol in (1e-6, 1e-4, 1e-9)]
    if "grid" in methods:
        settings.append(_ours("grid", 1e-6) | {"capacity": row.capacity})
    if "warm-grid" in methods:
        warm = {"label": "grid rtol 1e-06 warm starts", "warm_starts": True}
        settings.append(_ours("grid", 1e-6) | {"capacity": row.capacity} | warm)
    if "solve" in methods:
        settings.append(_ours("solve", 1e-6) | {"capacity": row.capacity})
    if "float32" in methods:
        settings.append(_ours("path", None, "float32"))
    if "grid-float32" in methods:
        splitting = {"label": "grid ADMM float32", "splitting": True}
        settings.append(_ours("grid", None, "float32") | splitting)
    return settings


def path_at(rtol: float) -> Setting:
    """`solve_path` at a tolerance."""
    return _ours("path", rtol)


def _ours(method: str, rtol: float | None, dtype: str = "float64") -> Setting:
    words = [method, f"rtol {rtol:g}" if rtol else "", "" if dtype == "float64" else dtype]
    label = " ".join(word for word in words if word)
    # XLA has its own pool of threads; a second one in LAPACK slows both down.
    return {"label": label, "method": method, "rtol": rtol, "dtype": dtype, "blas_threads": 1}


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """The option `--cache`, the folder that `environment` takes."""
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "jaxrelu-benchmarks",
        help="folder of the peers' virtual environments",
    )


def environment(peer: Peer, cache: Path, pins: list[str]) -> Path:
    """The interpreter of a peer's virtual environment, made on first use.

    Args:
        peer: whose environment.
        cache: folder of all environments, one folder a peer.
        pins: requirements such as "torch==2.8.0" that replace the peer's own of that name.

    Returns:
        The path of its python.

    Raises:
        subprocess.CalledProcessError: the environment could not be made.
    """
    folder = cache / peer.name
    interpreter, stamp = folder / "bin" / "python", folder / "requirements.txt"
    replaced = {_name(pin): pin for pin in pins}
    wanted = [replaced.get(_name(requirement), requirement) for requirement in peer.requirements]
    text = "\n".join(wanted) + "\n"
    if interpreter.exists() and stamp.exists() and stamp.read_text() == text:
        return interpreter
    print(f"making the environment of {peer.name}: {', '.join(wanted)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *wanted], check=True)
    stamp.write_text(text)
    return interpreter


def _name(requirement: str) -> str:
    return requirement.split("=")[0].split("<")[0].split(">")[0].split("[")[0].strip().lower()
