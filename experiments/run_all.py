"""All experiments, one after another.

    python experiments/run_all.py --data DIR --out DIR [--quick]

Each can be run on its own with the same arguments; what an interrupted run has finished is kept.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "discontinuous_path",
    "solution_manifold",
    "closed_form_pictures",
    "hyper_gradient",
    "training_dynamics",
    "training_margin",
    "early_alignment",
    "training_gap",
    "fuzz_certificates",
    "polar_gauge_bounds",
    "refinement",
    "outliers_and_counts",
    "quantile_fan",
    "decision_regions",
    "optimal_accuracy",
    "same_fit_accuracy",
    "accuracy_distribution",
    "pruning_uci",
    "pruning_images",
    "frozen_head",
)


def main() -> None:
    """Runs every script with the arguments that were given; fails if one of them does."""
    here = Path(__file__).resolve().parent
    failed = []
    for name in SCRIPTS:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(here / f"{name}.py"), *sys.argv[1:]]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
