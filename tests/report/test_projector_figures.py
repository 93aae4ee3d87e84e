import itertools

import matplotlib.colors
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from recon_jax import report
from recon_jax.report import projector_figures as figures

from .test_projector_geometry import STRENGTHS, VALUES, failed, make, make_start

BASE = "2 layers"


def lines_of(axes, color=None):
    """Lines with numbers, without the caps of error bars."""
    lines = [line for line in axes.get_lines() if len(line.get_xdata(False))]
    lines = [line for line in lines if line.get_marker() not in ("_", "|")]
    return [line for line in lines if color in (None, line.get_color())]


def drawn(axes, style):
    """Points (x, y) of the line and of all markers in this colour; which markers are open."""
    lines = lines_of(axes, style["color"])
    joined = [line for line in lines if line.get_linestyle() != "None"]
    single = [line for line in lines if line.get_linestyle() == "None"]
    points = [(float(line.get_xdata(False)[0]), float(line.get_ydata(False)[0])) for line in single]
    faces = [matplotlib.colors.to_hex(line.get_markerfacecolor()) for line in single]
    return [line.get_data(False) for line in joined], points, [face == "#ffffff" for face in faces]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_measures_over_strength(tmp_path):
    outcomes = [make(1), make(0), make(2), make_start(), make(0, projector="other")]
    figure = figures.strength_figure(outcomes, BASE, 0.5)
    rank, invariance, alignment, probe = figure.axes
    for axes, style, field in (
        (rank, figures.ENCODER, "encoder_rank"),
        (rank, figures.PROJECTOR, "projector_rank"),
        (rank, figures.LOCAL, "local_rank"),
        (invariance, figures.ENCODER, "encoder_fixed"),
        (invariance, figures.PROJECTOR, "projector_fixed"),
        (alignment, figures.TANGENT, "tangent_alignment"),
        (alignment, figures.AUGMENTED, "augmentation_alignment"),
        (probe, figures.ENCODER, "encoder_probe"),
        (probe, figures.PROJECTOR, "projector_probe"),
    ):
        [line], [(place, start)], is_open = drawn(axes, style)
        assert_allclose(line, [STRENGTHS, 1.001 * np.array(VALUES[field])])
        assert (place, start) == (pytest.approx(0), VALUES[field][0])
        assert is_open == [False]
    assert invariance.get_title() == "non-invariance at strength 0.5"
    [level] = [line for line in alignment.get_lines() if line.get_label() == "chance"]
    assert_allclose(level.get_ydata(False), 0.047)
    assert [text.get_text() for text in probe.texts] == ["0.4", "0.4", "1.5", "2.4"]
    names = [label.get_text() for label in rank.get_xticklabels()]
    assert names == ["untrained", "0.1", "0.3", "0.6"]
    assert "open: pretext failed" not in legend(figure)
    assert report.save_figure(tmp_path, "strength", figure).stat().st_size > 1000


def test_bars_are_standard_deviations_of_what_is_finite():
    item = make(0)._replace(encoder_rank=np.array([1.0, np.nan, 4.0]))
    figure = figures.strength_figure([item], BASE, 0.5)
    [bars] = figure.axes[0].containers[0].lines[2][:1]
    low, high = bars.get_segments()[0][:, 1]
    assert_allclose([low, high], 2.5 + np.array([-1, 1]) * np.std([1, 4], ddof=1))


def test_failed_runs_are_open_and_in_no_line():
    outcomes = [make(0), make(1), failed(make(2), [0, 2])]
    figure = figures.strength_figure(outcomes, BASE, 0.5)
    [line], points, is_open = drawn(figure.axes[0], figures.ENCODER)
    assert_allclose(line[0], STRENGTHS[:2])
    assert_allclose(points, [[0.6, 17.0 * (1 + 1e-3 * seed)] for seed in range(3)])
    assert is_open == [True, False, True]
    assert len(figure.axes[3].texts) == 2
    assert legend(figure)[-1] == "open: pretext failed"


def test_spectra_and_directions(tmp_path):
    start, first, last = make_start(), make(0), failed(make(2), [1])
    zeros = first.projector_singular.copy()
    zeros[:, 30:] = 0
    zeros[0] = np.nan
    outcomes = [start, first._replace(projector_singular=zeros), last]
    spectra = figures.spectra_figure(outcomes, BASE)
    assert spectra.axes[0].get_yscale() == spectra.axes[1].get_yscale() == "log"
    untrained, weak, strong, lost = spectra.axes[1].get_lines()
    assert untrained.get_label() == "untrained"
    # A seed without the measure is in no mean; zeros have no logarithm.
    assert_allclose(weak.get_ydata(False)[:30], zeros[1:, :30].mean(0))
    assert np.isnan(weak.get_ydata(False)[30:]).all()
    # Nor is rounding shown, below a millionth.
    for line, rows in ((strong, [0, 2]), (lost, [1])):
        mean = last.projector_singular[rows].mean(0)
        assert 0 < np.sum(mean < 1e-6) < 60
        assert_allclose(line.get_ydata(False), np.where(mean < 1e-6, np.nan, mean))
    assert_allclose(strong.get_xdata(False), np.arange(1, 65))
    assert legend(spectra) == [
        "untrained",
        "strength 0.1",
        "strength 0.6",
        "strength 0.6, pretext failed",
    ]
    directions = figures.directions_figure(outcomes, BASE)
    left = directions.axes[0].get_lines()[1]
    assert_allclose(left.get_ydata(False), figures.log_bins(first.encoder_kept.mean(0))[1])
    assert directions.axes[1].get_xscale() == "log"
    for name, figure in {"spectra": spectra, "directions": directions}.items():
        assert report.save_figure(tmp_path, name, figure).stat().st_size > 1000


@pytest.mark.parametrize("size", [1, 5, 64, 3072])
def test_bins_hold_every_number_once(size):
    numbers = np.arange(1, size + 1)
    places, _ = figures.log_bins(np.zeros(size))
    # Every number is in the bin whose place is next to it, the first ones alone.
    firsts = [0, *(np.flatnonzero(np.diff(bin_of(numbers))) + 1), size]
    groups = [numbers[low:high] for low, high in itertools.pairwise(firsts)]
    assert len(groups) == len(places) == min(size, len(places)) <= 60
    assert [len(group) for group in groups[:5]] == [1] * min(size, 5)
    assert_allclose(places, [stats.gmean(group) for group in groups])
    curve = np.random.default_rng(0).random(size)
    _, means = figures.log_bins(curve)
    assert_allclose(means, [curve[group - 1].mean() for group in groups])


def bin_of(numbers):
    """The bin of every number, from means of the curves that are 1 at one number only."""
    picks = [numbers == number for number in numbers]
    return [int(np.argmax(figures.log_bins(pick.astype(float))[1])) for pick in picks]


def test_projectors_side_by_side(tmp_path):
    outcomes = [make(i) for i in range(3)]
    outcomes += [make(i, projector="linear", depth=1, local_rank=50.0 - i) for i in (1, 2)]
    figure = figures.projector_figure([make_start(), *outcomes])
    local, output = figure.axes
    assert legend(figure) == [BASE, "linear"]
    lines = [line for line in lines_of(local) if len(line.get_xdata(False)) > 1]
    assert_allclose(lines[0].get_ydata(False), 1.001 * np.array(VALUES["local_rank"]))
    assert_allclose(lines[1].get_data(False), [STRENGTHS[1:], [49, 48]])
    lines = [line for line in lines_of(output) if len(line.get_xdata(False)) > 1]
    assert_allclose(lines[0].get_ydata(False), 1.001 * np.array(VALUES["projector_rank"]))
    # Left of the strengths of all projectors.
    [start] = [
        line.get_xdata(False)[0] for line in lines_of(local) if len(line.get_xdata(False)) == 1
    ]
    assert start == pytest.approx(0)
    assert report.save_figure(tmp_path, "projectors", figure).stat().st_size > 1000


@pytest.mark.parametrize("kind", ["one seed", "all failed", "nothing measured", "untrained"])
def test_figures_of_almost_nothing_are_drawn(kind):
    item = make(1, seeds=1)
    if kind == "all failed":
        item = failed(item, [0])
    if kind == "untrained":
        item = make_start()
    if kind == "nothing measured":
        arrays = {field: np.full_like(getattr(item, field), np.nan) for field in item._fields[7:]}
        item = item._replace(**arrays)
    for figure in (
        figures.strength_figure([item], BASE, 0.5),
        figures.spectra_figure([item], BASE),
        figures.directions_figure([item], BASE),
        figures.projector_figure([item]),
    ):
        figure.canvas.draw()
        assert figure.legends
