"""The figure of a regularization path. Needs matplotlib, imported when a figure is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrelu.core.checks import check_shape, check_type, described, real_array
from jaxrelu.core.status import Status
from jaxrelu.core.tracing import on_host
from jaxrelu.geometry.bias_metric import sized

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DRAWN = ("lam", "weights", "certificate", "status")  # of every solution
# Hues that stay apart in grey print and for colour-blind readers (Okabe and Ito, 2008).
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#666666"


@on_host()
def plot_path(
    path: Any,
    *,
    train_score: Sequence[float] | None = None,
    test_score: Sequence[float] | None = None,
    score_name: str = "score",
    title: str | None = None,
) -> Figure:
    """Draws a path against lam: certified objective, neuron norms, active neurons, scores.

    The panels, on one logarithmic lam axis that falls from left to right, so that networks grow:

    * the certified objective, ``lower <= optimum <= upper``, with the band between the two
      bounds and, on the right-hand axis, the relative gap ``(upper - lower) / |upper|``; lams
      whose status is not OPTIMAL carry a cross;
    * the norm of every block that is active somewhere, one line a block (the product of its
      neuron's two layer norms), positive output above in one colour, negative in the other;
    * the number of active neurons;
    * the scores, when they are given.

    Args:
        path: a `Path`, or anything with ``len(path)`` and solutions ``path[k]``.
        train_score: L numbers, the score of every network on the training data, or None.
        test_score: L numbers, the score on held-out data, or None.
        score_name: label of the score axis, for example "accuracy".
        title: of the figure.

    Returns:
        A matplotlib `Figure`; save it with ``figure.savefig("path.png")``.

    Raises:
        ImportError: matplotlib is missing.
        ValueError, TypeError: no path, an empty one, or a list of scores of another length.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxrelu as jr
        >>> from jaxrelu.plotting import plot_path
        >>> X = jax.random.normal(jax.random.key(0), (12, 2))
        >>> patterns = jr.sample_patterns(jax.random.key(1), X, num_gates=4)
        >>> program = jr.ConvexProgram(X, jnp.sin(X[:, 0]), patterns)
        >>> path = jr.solve_path(program, jr.lambda_grid(program, num=3, ratio=0.1))
        >>> len(plot_path(path).axes)
        5
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'jaxrelu[plot]'") from error
    fix = "a Path, or a list of solutions"
    if isinstance(path, type) or not (hasattr(path, "__len__") and hasattr(path, "__getitem__")):
        raise TypeError(f"path is {described(path)}; pass {fix}.")
    if len(path) == 0:
        raise ValueError("path is empty, so there is nothing to draw: pass at least one lam.")
    if isinstance(path, dict) or not all(hasattr(path[0], name) for name in _DRAWN):
        raise TypeError(f"path is {described(path)}; pass {fix}.")
    scores_of = {"train_score": train_score, "test_score": test_score}
    for name, values in scores_of.items():
        if values is not None:
            array = np.asarray(real_array(values, name))
            check_shape(array, name, (len(path),), "one score a lam")
    check_type(score_name, "score_name", str, "a word")
    if title is not None:
        check_type(title, "title", str, "a line of text, or None")
    solutions = [path[k] for k in range(len(path))]
    lams = np.array([float(s.lam) for s in solutions])
    order = np.argsort(lams)
    solutions, lams = [solutions[k] for k in order], lams[order]

    # A figure of its own rather than pyplot's: no global state, no window, no backend chosen.
    figure = Figure(figsize=(10.0, 7.0), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    objective, norms, neurons, scores = panels.flat
    _draw_objective(objective, lams, solutions)
    biased = getattr(solutions[0], "constant", None) is not None if solutions else False
    _draw_norms(norms, lams, [np.asarray(sized(s.weights, biased)) for s in solutions])

    neurons.plot(lams, [_count(s.weights) for s in solutions], "o-", color=_BLUE, markersize=3)
    neurons.set(title="Active neurons", ylabel="neurons", ylim=(0, None))
    neurons.yaxis.set_major_locator(MaxNLocator(integer=True))

    for values, name, style in (
        (train_score, "training", {"color": _BLUE, "marker": "o"}),
        (test_score, "test", {"color": _ORANGE, "marker": "s"}),
    ):
        if values is not None:
            scores.plot(lams, np.asarray(values, float)[order], label=name, markersize=3, **style)
    scores.set(title=f"{score_name[:1].upper()}{score_name[1:]}", ylabel=score_name)
    if train_score is None and test_score is None:
        scores.text(0.5, 0.5, "no scores given", ha="center", transform=scores.transAxes)
    else:
        scores.legend(frameon=False)

    objective.set_xscale("log")
    objective.set_xlim(*_limits(lams))
    for axes in panels.flat:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines["top"].set_visible(False)
    for axes in panels[1]:
        axes.set_xlabel("lam")
    if title:
        figure.suptitle(title)
    return figure


def _draw_objective(axes: Axes, lams: np.ndarray, solutions: list[Any]) -> None:
    """Upper bound, the band down to the lower bound, failures, and the relative gap."""
    upper = np.array([float(s.certificate.upper) for s in solutions])
    lower = np.array([float(s.certificate.lower) for s in solutions])
    failed = np.array([int(s.status) != Status.OPTIMAL for s in solutions])
    axes.fill_between(lams, lower, upper, color=_BLUE, alpha=0.25, label="lower to upper")
    axes.plot(lams, upper, "o-", color=_BLUE, markersize=3, label="upper")
    if failed.any():
        axes.plot(
            lams[failed], upper[failed], "x", color=_ORANGE, markersize=8, label="not OPTIMAL"
        )
    axes.set(title="Certified objective", ylabel="objective")

    # An OPTIMAL band is thinner than its line, so its relative width has an axis of its own. A gap
    # of zero or less (rounding) has no logarithm and is left out.
    gap_axes = axes.twinx()
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (upper - lower) / np.abs(upper)
    gap = np.where(gap > 0, gap, np.nan)
    gap_axes.plot(lams, gap, ".", color=_GREY, label="relative gap (right)")
    gap_axes.set_yscale("log")
    if np.isfinite(gap).any():
        gap_axes.set_ylim(top=1e3 * np.nanmax(gap))  # the dots stay below the legend
    gap_axes.set_ylabel("relative gap", color=_GREY)
    gap_axes.tick_params(axis="y", which="both", colors=_GREY)
    gap_axes.spines["top"].set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *gap_axes.get_legend_handles_labels()[0]]
    # The optimum falls with lam, to the right: the upper right corner is free.
    axes.legend(handles=handles, loc="upper right", frameon=False, fontsize="small")


def _draw_norms(axes: Axes, lams: np.ndarray, weights: list[np.ndarray]) -> None:
    """One line a block that is active at some lam, from zero where it enters."""
    norms = np.array([np.linalg.norm(w, axis=-1) for w in weights])
    signed = norms.ndim == 3  # (L, 2, p) has a sign axis, a gated path (L, p) has none
    groups = [(norms[:, 0], _BLUE, "positive output"), (norms[:, 1], _ORANGE, "negative output")]
    for block_norms, color, name in groups if signed else [(norms, _BLUE, "gated")]:
        active = block_norms[:, (block_norms > 0).any(axis=0)]
        if active.size:
            lines = axes.plot(lams, active, color=color, linewidth=0.9, alpha=0.8)
            lines[0].set_label(name)
    axes.set(title="Neuron norms", ylabel="norm of the block", ylim=(0, None))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")


def _count(weights: Any) -> int:
    """Number of non-zero blocks, that is of active neurons."""
    return int(np.count_nonzero(np.abs(np.asarray(weights)).max(axis=-1)))


def _limits(lams: np.ndarray) -> tuple[float, float]:
    """Ends of the lam axis, the largest first, with a margin that one single lam has too."""
    return float(lams.max()) * 1.1, float(lams.min()) / 1.1
