"""What the path figure shows, read back from its axes."""

import builtins
from types import SimpleNamespace

import numpy as np
import pytest

from jaxrelu.core.status import Status
from jaxrelu.plotting import plot_path

LAMS = [8.0, 4.0, 2.0]


def solution(lam, weights, *, upper, lower, status=Status.OPTIMAL):
    return SimpleNamespace(
        lam=lam,
        weights=np.asarray(weights),
        certificate=SimpleNamespace(lower=lower, upper=upper),
        status=np.int32(status),
    )


@pytest.fixture
def path():
    weights = np.zeros((3, 2, 3, 2))
    weights[1, 0, 1] = [3.0, 4.0]
    weights[2, 0, 1] = [6.0, 8.0]
    weights[2, 1, 2] = [0.0, 2.0]
    uppers, lowers = [9.0, 7.0, 4.0], [9.0, 6.993, 3.96]
    return [
        solution(lam, w, upper=upper, lower=lower)
        for lam, w, upper, lower in zip(LAMS, weights, uppers, lowers, strict=True)
    ]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title() == title)


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def test_four_panels_share_a_falling_logarithmic_axis(path):
    figure = plot_path(path, train_score=[0.5, 0.6, 0.7], score_name="accuracy", title="T")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["Certified objective", "Neuron norms", "Active neurons", "Accuracy"]
    assert figure.get_suptitle() == "T"
    for axes in figure.axes[:4]:
        assert axes.get_xscale() == "log"
        left, right = axes.get_xlim()
        assert left > 8.0 > 2.0 > right


def test_objective_panel_shows_upper_band_and_relative_gap(path):
    figure = plot_path(path)
    axes = panel(figure, "Certified objective")
    upper = line(axes, "upper")
    np.testing.assert_allclose(upper.get_xdata(), [2.0, 4.0, 8.0])
    np.testing.assert_allclose(upper.get_ydata(), [4.0, 7.0, 9.0])
    (band,) = axes.collections
    corners = {tuple(np.round(v, 6)) for v in band.get_paths()[0].vertices}
    assert {(2.0, 3.96), (2.0, 4.0), (4.0, 6.993), (4.0, 7.0)} <= corners
    gap_axes = next(a for a in figure.axes if a.get_ylabel() == "relative gap")
    assert gap_axes.get_yscale() == "log"
    # The gap of zero at lam = 8 has no logarithm: a hole, no warning.
    np.testing.assert_allclose(gap_axes.lines[0].get_ydata(), [0.01, 0.001, np.nan])


def test_a_lam_that_is_not_optimal_carries_a_cross(path):
    path[1].status = np.int32(Status.STALLED)
    crosses = line(panel(plot_path(path), "Certified objective"), "not OPTIMAL")
    np.testing.assert_allclose(crosses.get_xydata(), [[4.0, 7.0]])


def test_norms_have_one_line_for_each_block_that_is_ever_active(path):
    axes = panel(plot_path(path), "Neuron norms")
    assert len(axes.lines) == 2
    np.testing.assert_allclose(line(axes, "positive output").get_ydata(), [10.0, 5.0, 0.0])
    np.testing.assert_allclose(line(axes, "negative output").get_ydata(), [2.0, 0.0, 0.0])


def test_neurons_are_counted(path):
    (counts,) = panel(plot_path(path), "Active neurons").lines
    np.testing.assert_array_equal(counts.get_ydata(), [2, 1, 0])


def test_scores_follow_their_lams_whatever_the_order(path):
    shuffled = [path[2], path[0], path[1]]
    figure = plot_path(shuffled, train_score=[0.9, 0.1, 0.5], test_score=[0.8, 0.0, 0.4])
    axes = panel(figure, "Score")
    np.testing.assert_allclose(line(axes, "training").get_xydata(), [[2, 0.9], [4, 0.5], [8, 0.1]])
    np.testing.assert_allclose(line(axes, "test").get_xydata(), [[2, 0.8], [4, 0.4], [8, 0.0]])


def test_gated_path_has_one_colour_of_norms():
    gated = [
        solution(lam, [[3.0 * k, 4.0 * k], [0.0, 0.0]], upper=1.0, lower=1.0 - 1e-9)
        for k, lam in enumerate(LAMS)
    ]
    axes = panel(plot_path(gated), "Neuron norms")
    np.testing.assert_allclose(line(axes, "gated").get_ydata(), [10.0, 5.0, 0.0])


@pytest.mark.parametrize("weights", [np.zeros((2, 3, 2)), np.full((2, 3, 2), np.nan)])
def test_one_lam_all_zero_or_not_finite_is_drawn_without_a_warning(tmp_path, weights):
    value = float(weights.sum())
    one = [solution(1.0, weights, upper=value, lower=value, status=Status.NONFINITE)]
    plot_path(one, train_score=[np.nan], test_score=[np.nan]).savefig(tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 0


def test_faults_are_named(path):
    with pytest.raises(ValueError, match="path is empty"):
        plot_path([])
    with pytest.raises(ValueError, match=r"test_score has shape \(2,\); pass shape \(3,\)"):
        plot_path(path, test_score=[0.1, 0.2])


def test_missing_matplotlib_names_the_extra(monkeypatch, path):
    real_import = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"pip install 'jaxrelu\[plot\]'"):
        plot_path(path)
