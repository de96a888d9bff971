"""Paths with weights of blocks and with a skip connection on real data, beside plain ones.

    python experiments/benchmarks/penalties.py --data DIR --out DIR [--repeats 5] [--cases NAME ...]

100 gates, 20 lams to 0.01 lambda_max; rtol 1e-6 in float64, 1e-3 in float32. Seconds are medians
after the first call, the two programs in turns; OPTIMAL are lams in float64 and in float32.
*unequal* weights are log-normal, a fifth of them infinite; *free* means that the first pattern's
positive block is not penalised; *bias* is a free bias, beside a penalised one (a column of ones).
Writes `penalties.md`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from losses import GATES, LAMS, in_single, in_turns, lams_of, optimal_of, posed, read
from report import markdown
from run import hardware

import jaxrelu as jr

SETS = {
    "regression/yacht": "squared",
    "regression/boston-housing": "huber",
    "regression/concrete": "squared",
}
KINDS = {"ReLU": jr.ConvexProgram, "gated": jr.GatedProgram}
CASES = ("unequal", "free", "skip", "bias")
# A free bias belongs to the ReLU program, and asks more of a loss than weights do.
BIASED = (
    ("regression/yacht", "squared"),
    ("regression/boston-housing", "squared"),
    ("regression/machine-cpu", "squared"),
    ("uci/fertility", "logistic"),
    ("uci/ionosphere", "logistic"),
    ("uci/haberman-survival", "logistic"),
    ("uci/fertility", "hinge"),
    ("uci/pima", "hinge"),
    ("uci/haberman-survival", "hinge"),
)


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/ and regression/")
    parser.add_argument("--out", type=Path, required=True, help="folder for penalties.md")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls after the first")
    parser.add_argument("--cases", nargs="+", choices=CASES, help="all without")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    args.out.mkdir(parents=True, exist_ok=True)
    header = [
        "program",
        "penalty",
        "set",
        "s (steps)",
        "plain, s (steps)",
        "ratio",
        "OPTIMAL, float32",
    ]
    lines = []
    for kind in KINDS:
        for case in args.cases or CASES:
            biased = BIASED if kind == "ReLU" else ()
            for table, loss in biased if case == "bias" else SETS.items():
                lines.append(line(kind, case, table, loss, args.data, args.repeats))
                print(" | ".join(lines[-1]), flush=True)
                jax.clear_caches()
    when = f"{hardware()}, {time.strftime('%Y-%m-%d')}, medians of {args.repeats}"
    text = "\n".join([when, "", *markdown(header, lines), ""])
    (args.out / "penalties.md").write_text(text, encoding="utf-8")


def line(kind: str, case: str, table: str, loss: str, data: Path, repeats: int) -> list[str]:
    """One penalty on one set."""
    plain = plain_program(kind, table, loss, data)
    program = with_penalty(plain, case)
    (seconds, steps, optimal), (usual, usual_steps, _) = in_turns([program, plain], repeats)
    single = jax.tree.map(in_single, program)
    path = jr.solve_path(single, lams_of(single), rtol=1e-3)
    return [
        kind, case, f"{Path(table).name}, {loss}", f"{seconds:.2f} ({steps})",
        f"{usual:.2f} ({usual_steps})", f"{seconds / usual:.2f}",
        f"{optimal}, {optimal_of(path)} of {LAMS}",
    ]  # fmt: skip


def plain_program(kind: str, table: str, name: str, data: Path) -> Any:
    """The program of a set with the usual penalty."""
    X, raw = read(data / f"{table}.csv.gz")
    y, loss = posed("huber" if name == "squared" else name, raw)
    patterns = jr.sample_patterns(jax.random.key(0), X, GATES, gated=kind == "gated")
    return KINDS[kind](X, y, patterns, jr.SquaredLoss() if name == "squared" else loss)


def with_penalty(program: Any, case: str) -> Any:
    """The program with another penalty."""
    if case == "skip":
        return replace(program, skip=True)
    if case == "bias":
        X = program.X[:, :-1]
        patterns = jr.sample_patterns(jax.random.key(0), X, GATES, bias="free")
        return replace(program, X=X, patterns=patterns, bias="free")
    weights = np.ones(program.block_shape)
    if case == "free":
        weights.flat[0] = 0.0
        return replace(program, block_weights=weights)
    weights = np.exp(np.random.default_rng(0).standard_normal(program.block_shape))
    weights.flat[::5] = np.inf
    return replace(program, block_weights=weights)


if __name__ == "__main__":
    main()
