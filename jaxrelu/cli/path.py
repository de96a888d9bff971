"""`jaxrelu path` fits a certified regularization path to a table of numbers."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jax
import numpy as np

from jaxrelu import datasets, plotting
from jaxrelu.cli.compiled_programs import keep_compiled_programs
from jaxrelu.cli.console import console, note, stop
from jaxrelu.cli.garbage import seldom_collected
from jaxrelu.cli.losses import DELTA, LossName, chosen, for_loss, offset_of
from jaxrelu.cli.output import probe, publish
from jaxrelu.cli.threads import import_ahead, one_lapack_thread
from jaxrelu.core.compilation import compiled
from jaxrelu.core.status import Status, describe, remedy
from jaxrelu.geometry.patterns import sample_patterns
from jaxrelu.paths.critical_lam import lambda_max
from jaxrelu.paths.lambda_grid import lambda_grid
from jaxrelu.paths.path import solve_path
from jaxrelu.programs.mapping import to_network
from jaxrelu.programs.program import ConvexProgram

if TYPE_CHECKING:
    import typer  # named by annotations, which the application reads: see `jaxrelu.cli.app`

# The summary last: it vouches for the others.
FILES = ("path.npz", "path.png", "summary.json")


class DType(StrEnum):
    """Precisions on offer; JAX's x64 is switched on for float64."""

    float64 = "float64"
    float32 = "float32"


@dataclass(frozen=True)
class Options:
    """Fits a regularization path, certifies every lam and writes the networks.

    Features are standardised on the training part. A target with two values becomes -1 and
    +1 and is scored by accuracy; any other is standardised and scored by R^2. With --loss
    poisson it stays as it is and is scored by D^2, the share of the deviance explained.

    Exit code: 0 when every lam is OPTIMAL, 1 when one is not, 2 for bad input or output that
    cannot be written.
    """

    csv: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA.csv",
            help="Table of numbers with a header row. Without it: scikit-learn's breast-cancer "
            "data (569 rows, 30 features).",
            show_default=False,
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Column of DATA.csv to predict.", show_default=False),
    ] = None
    gates: Annotated[int, typer.Option(metavar="N", help="Gate vectors to sample.")] = 100
    lams: Annotated[int, typer.Option(metavar="N", help="Values of lam on the path.")] = 30
    ratio: Annotated[
        float, typer.Option(metavar="R", help="Smallest lam as a share of lambda_max.")
    ] = 1e-2
    test_size: Annotated[
        float, typer.Option(metavar="F", help="Share of the rows held out for testing.")
    ] = 0.2
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of split and gates.")] = 0
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for path.npz, summary.json, path.png.")
    ] = Path("jaxrelu-path")
    dtype: Annotated[DType, typer.Option(help="Precision of the fit.")] = DType.float64
    loss: Annotated[
        LossName,
        typer.Option(
            help="Logistic, hinge and squared-hinge need a target with two values, poisson counts."
        ),
    ] = LossName.squared
    delta: Annotated[
        float | None,
        typer.Option(
            metavar="D",
            help="Standardised error from which on --loss huber is linear, "
            f"{DELTA} where it is left out.",
            show_default=False,
        ),
    ] = None
    quantile: Annotated[
        float | None,
        typer.Option(
            metavar="Q",
            help="Share of the targets that --loss quantile puts below the fit, 0.5 where it is "
            "left out.",
            show_default=False,
        ),
    ] = None
    bias: Annotated[
        bool, typer.Option("--bias", help="Append a column of ones (a penalised bias).")
    ] = False
    cache: Annotated[
        bool, typer.Option(help="Keep compiled programs in your cache folder for the next run.")
    ] = True


@dataclass(frozen=True, eq=False)
class Row:
    """One lam of the fitted path: a line of the table and its network."""

    lam: float
    lower: float
    upper: float
    hidden: np.ndarray
    output: np.ndarray
    train_score: float
    test_score: float
    status: Status


def run_path(options: Options) -> int:
    """Does what `jaxrelu path` promises.

    Args:
        options: the checked words of the command line.

    Returns:
        0 when every lam is OPTIMAL, otherwise 1.

    Raises:
        SystemExit: 2, after one sentence on the standard error, for bad input and for an output
            folder that cannot be written to.
    """
    with one_lapack_thread(), seldom_collected():
        return _run(options)


def _run(options: Options) -> int:
    if options.dtype is DType.float64:
        jax.config.update("jax_enable_x64", True)
    if options.cache:
        keep_compiled_programs()
    try:
        _check(options)
        source, data = _load(options)
        probe(options.out, FILES)
        program, lams = _pose(options, data)
    except ValueError as error:
        stop(str(error))
    n, d = data.X.shape
    num_patterns = program.patterns.masks.shape[1]
    largest = float(lambda_max(program))
    screen = console()
    screen.print(
        f"{source}: {n} training and {len(data.X_test)} test rows, {d} features, {data.task}\n"
        f"{num_patterns} activation patterns from {options.gates} gates, "
        f"lambda_max = {largest:.6g}, {options.loss} loss, {options.dtype}"
    )
    import_ahead("matplotlib.figure", "matplotlib.backends.backend_agg")
    start = time.perf_counter()
    with screen.status(f"solving {options.lams} lams", spinner="line"):
        path = jax.block_until_ready(solve_path(program, lams))
    seconds = time.perf_counter() - start

    rows = [_evaluate(program, path[k], data) for k in range(len(path))]
    summary = {
        "data": source,
        "n": n,
        "d": d,
        "gates": options.gates,
        "patterns": num_patterns,
        "loss": options.loss.value,
        "offset": offset_of(program.loss),
        "lams": [row.lam for row in rows],
        "lambda_max": largest,
        "objective": [row.upper for row in rows],
        "lower": [row.lower for row in rows],
        "upper": [row.upper for row in rows],
        "gap": [row.upper - row.lower for row in rows],
        "neurons": [len(row.output) for row in rows],
        "train_score": [row.train_score for row in rows],
        "test_score": [row.test_score for row in rows],
        "status": [row.status.name for row in rows],
        "seconds": seconds,
        "run": uuid.uuid4().hex,
    }
    title = f"{source}: {n} rows, {d} features, {num_patterns} patterns"
    contents = (
        _networks(rows, summary["run"]),
        _figure(path, rows, data.task, title),
        _json(summary),
    )
    files = dict(zip(FILES, contents, strict=True))
    # Before anything is printed, as that can fail, too.
    try:
        publish(options.out, files)
        failure = None
    except ValueError as error:
        failure = str(error)
    screen.print(_table(rows, data.task))
    if failure is not None:
        stop(failure)
    optimal = sum(row.status == Status.OPTIMAL for row in rows)
    written = [name for name in FILES if files[name] is not None]
    screen.print(
        f"{optimal} of {len(rows)} lams OPTIMAL in {seconds:.1f} s (compilation included); "
        f"wrote {', '.join(written[:-1])} and {written[-1]} to {options.out}"
    )
    for status, count in Counter(row.status for row in rows).items():
        if status != Status.OPTIMAL:
            note(
                f"{count} of {len(rows)} lams {status.name}: {describe(status)}; {remedy(status)}."
            )
    return 0 if optimal == len(rows) else 1


def _check(options: Options) -> None:
    """Ranges of the numbers, and options that belong together."""
    if options.csv is None and options.target is not None:
        raise ValueError("--target names a column of a file: pass DATA.csv too, or leave it out.")
    for name, number in (("--gates", options.gates), ("--lams", options.lams)):
        if number < 1:
            raise ValueError(f"{name} is {number}: pass at least 1.")
    if not 0 < options.ratio < 1:
        raise ValueError(
            f"--ratio is {options.ratio:g}: pass a number strictly between 0 and 1, such as 0.01."
        )
    if options.delta is not None and options.loss is not LossName.huber:
        raise ValueError(f"--delta belongs to --loss huber, not to --loss {options.loss}.")
    if options.delta is not None and not 0 < options.delta < math.inf:
        raise ValueError(f"--delta is {options.delta:g}: pass a positive number, such as {DELTA}.")
    if options.quantile is not None and options.loss is not LossName.quantile:
        raise ValueError(f"--quantile belongs to --loss quantile, not to --loss {options.loss}.")
    if options.quantile is not None and not 0 < options.quantile < 1:
        raise ValueError(
            f"--quantile is {options.quantile:g}: pass a number strictly between 0 and 1."
        )
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed is {options.seed}: pass an integer from 0 to 2**32 - 1.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the figure needs matplotlib: pip install 'jaxrelu[cli]'.")


def _load(options: Options) -> tuple[str, datasets.Split]:
    """Name of the data, and its standardised training and test part in the wanted precision."""
    if options.csv is None:
        try:
            data, source = datasets.load_breast_cancer(), "breast-cancer"
        except ImportError as error:
            raise ValueError(f"{error}.") from error
    elif options.target is None:
        raise ValueError(f"--target is missing: name the column of {options.csv} to predict.")
    else:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            data, source = datasets.read_csv(options.csv, options.target), options.csv.name
        for warning in notes:
            note(str(warning.message))
    data = for_loss(options.loss, data, options.target)
    split = datasets.prepare(data, options.test_size, options.seed, bias=options.bias)
    return source, split.astype(options.dtype.value)


def _pose(options: Options, data: datasets.Split) -> tuple[Any, Any]:
    """The convex program of the training data and its grid of lams."""
    patterns = sample_patterns(jax.random.key(options.seed), data.X, num_gates=options.gates)
    delta = DELTA if options.delta is None else options.delta
    quantile = 0.5 if options.quantile is None else options.quantile
    loss = chosen(options.loss, delta, quantile, data.y)
    program = ConvexProgram(data.X, data.y, patterns, loss=loss)
    return program, lambda_grid(program, num=options.lams, ratio=options.ratio)


def _evaluate(program: Any, solution: Any, data: datasets.Split) -> Row:
    """The network of one solution, scored by its own predictions."""
    found = _predict(program, solution.weights, data.X, data.X_test)
    network, fit, prediction = jax.device_get(found)
    compact, offset = network.compact(), offset_of(program.loss)
    return Row(
        lam=float(solution.lam),
        lower=float(solution.certificate.lower),
        upper=float(solution.certificate.upper),
        hidden=np.asarray(compact.hidden),
        output=np.asarray(compact.output),
        train_score=datasets.score(fit + offset, data.y, data.task),
        test_score=datasets.score(prediction + offset, data.y_test, data.task),
        status=Status(int(solution.status)),
    )


@compiled
def _predict(program: Any, weights: Any, X: Any, X_test: Any) -> Any:
    """The network of some weights, and what it predicts for two sets of rows."""
    # The padded network, whose shape is the same for every lam: nothing is compiled anew.
    network = to_network(program, weights)
    return network, network(X), network(X_test)


def _score_name(task: datasets.Task) -> str:
    return {"classification": "accuracy", "regression": "R^2", "counts": "D^2"}[task]


def _table(rows: Sequence[Row], task: datasets.Task) -> Any:
    """The rows as a rich table, at most 80 columns wide."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    score = "acc." if task == "classification" else _score_name(task)
    names = ("lam", "objective", "gap", "neurons", f"train {score}", f"test {score}", "status")
    for name in names:
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    # As many decimals as give the smallest objective six significant digits.
    smallest = min((row.upper for row in rows if 0 < row.upper < math.inf), default=1.0)
    decimals = min(max(5 - math.floor(math.log10(smallest)), 2), 12)
    for row in rows:
        table.add_row(
            f"{row.lam:#.4g}",
            f"{row.upper:.{decimals}f}",
            f"{row.upper - row.lower:.1e}",
            str(len(row.output)),
            *(f"{value:.4f}" for value in (row.train_score, row.test_score)),
            row.status.name,
            style=None if row.status == Status.OPTIMAL else "red",
        )
    return table


def _networks(rows: Sequence[Row], run: str) -> bytes:
    """The file path.npz.

    Network k occupies the columns ``offsets[k]:offsets[k + 1]`` of hidden (d, total) and the same
    entries of output (total,).
    """
    file = io.BytesIO()
    np.savez(
        file,
        lams=np.array([row.lam for row in rows]),
        hidden=np.concatenate([row.hidden for row in rows], axis=1),
        output=np.concatenate([row.output for row in rows]),
        offsets=np.cumsum([0, *(len(row.output) for row in rows)]),
        lower=np.array([row.lower for row in rows]),
        upper=np.array([row.upper for row in rows]),
        status=np.array([row.status for row in rows], np.int32),
        run=np.array(run),
    )
    return file.getvalue()


def _figure(path: Any, rows: Sequence[Row], task: datasets.Task, title: str) -> bytes | None:
    """The file path.png; None, and a sentence, where drawing fails: the run is worth more."""
    # No mathematics between two dollars, and no halves of characters, in the name of a file.
    title = title.replace("$", r"\$").encode("utf-8", "backslashreplace").decode()
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            plotting.plot_path(
                path,
                train_score=[row.train_score for row in rows],
                test_score=[row.test_score for row in rows],
                score_name=_score_name(task),
                title=title,
            ).savefig(file, format="png", dpi=150)
    except Exception as error:  # noqa: BLE001 - fonts, styles, memory: no run may be lost by them
        note(f"path.png is left out, as the figure failed ({type(error).__name__}: {error}).")
        return None
    return file.getvalue()


def _json(summary: dict[str, Any]) -> bytes:
    """The file summary.json. JSON has no NaN: a number that is not finite becomes null."""
    return f"{json.dumps(_finite(summary), indent=2, allow_nan=False)}\n".encode()


def _finite(value: Any) -> Any:
    """The value with None in place of every NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
