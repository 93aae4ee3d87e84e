import numpy as np
import pytest
from numpy.testing import assert_allclose

from audit.made import boot, made_comparison, made_report, made_row, seeds
from recon_jax.audit import Estimate, Invariance, LayerSensitivity
from recon_jax.audit.figures import (
    audit_figures,
    binned_directions,
    invariance_figure,
    probe_figure,
    row_styles,
    spectrum_figure,
    stability_figure,
)
from recon_jax.report import save_figures

NAN = Estimate(np.nan)


def bars_of(container):
    """Points (n, 2), and ends (n, 2) of the vertical bars, of an errorbar."""
    line, _, (segments,) = container
    return line.get_xydata(), np.array([part[:, 1] for part in segments.get_segments()])


def test_bins_hold_single_directions_first_and_means_later():
    values = np.arange(1000) / 1000
    middles, means = binned_directions(values)
    assert len(means) <= 40
    assert_allclose(middles[:3], [1, 2, 3])
    assert_allclose(means[:3], values[:3])
    # Every direction counts once: bins in order, the mean of bin [a, b] at sqrt(a b).
    assert middles[-1] > 900
    assert (np.diff(means) > 0).all()
    last = values[-(1000 - int(middles[-1])) * 2 :]
    assert abs(means[-1] - last.mean()) < 0.02


def test_bins_clip_and_leave_out_what_is_not_known():
    middles, means = binned_directions(np.array([2.0, -3.0, np.nan, 0.5]))
    assert_allclose(middles, [1, 2, 4])
    assert_allclose(means, [1, 0, 0.5])
    assert_allclose(binned_directions(np.array([0.25]))[1], [0.25])


def test_encoders_have_colours_and_baselines_greys():
    styles = row_styles(made_comparison().rows)
    grey = [len({style["color"][i : i + 2] for i in (1, 3, 5)}) == 1 for style in styles]
    assert grey == [False, False, True, True]
    assert len({(style["color"], style["linestyle"], style["marker"]) for style in styles}) == 4


def test_bands_are_drawn_with_their_intervals():
    above = spectrum_figure(made_report()).axes[0]
    points, ends = bars_of(above.containers[0])
    assert_allclose(points[:, 1], [95, 70, 50, 20, 0])  # at 0 what is below
    assert_allclose(ends[:4], np.array([[94, 96], [69, 71], [49, 51], [19, 21]]))
    assert_allclose(ends[4], [0, 0])
    assert above.get_xticklabels()[0].get_text() == "0-50 %"
    # Rows stand side by side within their band.
    assert len({round(container[0].get_xdata()[0], 6) for container in above.containers}) == 3


def test_depth_goes_from_the_first_layer_to_the_output():
    axes = stability_figure(made_comparison()).axes
    for ax, letter in zip(axes, "DGR", strict=True):
        points, ends = bars_of(ax.containers[0])
        assert_allclose(points[:, 0], [0, 0.5, 1])
        layers = made_row().stability.values()
        assert_allclose(points[:, 1], [getattr(layer, letter).value for layer in layers])
        assert_allclose(ends.mean(1), points[:, 1])
    # A baseline has an output alone.
    assert_allclose(bars_of(axes[2].containers[-1])[0][:, 0], [1])


def test_layers_without_a_number_are_left_out():
    layers = {
        "dead": LayerSensitivity(NAN, NAN, NAN),
        "silent": LayerSensitivity(seeds(0.0), seeds(0.0), NAN),
        "output": LayerSensitivity(seeds(0.1, 0.2), seeds(0.2), seeds(0.5)),
    }
    axes = stability_figure(made_report(stability=layers)).axes
    points, ends = bars_of(axes[0].containers[0])
    assert_allclose(points, [[1, 0.1]])
    assert_allclose(ends, [[0.1, 0.3]])  # below 0 there is nothing on a logarithmic axis


def test_accuracies_are_bars_in_the_order_of_the_rows():
    figure = probe_figure(made_comparison())
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["linear probe", "nearest neighbours", "few labels a class", "R² of labels"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert_allclose(widths, [81.5, 81.45, 81.53, 81.52])
    assert_allclose([bar.get_width() for bar in figure.axes[3].patches], [60, 55, 63, 62])
    assert figure.axes[0].get_yticklabels()[0].get_text() == "net"
    low, high = figure.axes[0].get_ylim()
    assert low > high  # the first row is on top


def test_panels_without_a_number_are_left_out():
    rows = [
        row._replace(labels=None, probes=row.probes._replace(few_shot=NAN, knn=NAN))
        for row in made_report().rows
    ]
    report = made_report()._replace(encoder=rows[0], baselines=tuple(rows[1:]))
    assert [ax.get_title() for ax in probe_figure(report).axes] == ["linear probe"]


def test_invariance_by_strength():
    ax = invariance_figure(made_report()).axes[0]
    points, ends = bars_of(ax.containers[0])
    assert_allclose(points, [[0.2, 0.1], [0.6, 0.4]])
    assert_allclose(ends, [[0.09, 0.11], [0.39, 0.41]])


def test_intervals_need_not_be_symmetric():
    lopsided = Estimate(0.3, 0.25, 0.45, "bootstrap")
    report = made_report(invariance=Invariance((0.2,), (lopsided,)))
    assert_allclose(bars_of(invariance_figure(report).axes[0].containers[0])[1], [[0.25, 0.45]])


def test_all_figures_are_saved_with_captions(tmp_path):
    saved = save_figures(tmp_path, audit_figures(made_comparison()))
    assert list(saved) == ["spectrum", "probes", "stability", "invariance"]
    for path, caption in saved.values():
        assert path.stat().st_size > 1000
        assert "Bars: 95 %" in caption


def test_what_was_not_measured_has_no_figure():
    nothing = dict.fromkeys(("spectrum", "labels", "probes", "stability", "invariance"))
    rows = [row._replace(**nothing) for row in made_report().rows]
    report = made_report()._replace(encoder=rows[0], baselines=tuple(rows[1:]))
    assert audit_figures(report) == {}


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_numbers_that_are_not_finite_can_be_drawn(value):
    odd = Estimate(value, np.nan, np.nan, "seeds")
    changes = {
        "invariance": Invariance((0.2, 0.6), (odd, boot(0.2))),
        "stability": {"output": LayerSensitivity(odd, odd, odd)},
        "spectrum": made_row().spectrum._replace(kept=(odd,) * 5),
    }
    for figure, _ in audit_figures(made_report(**changes, probes=None, labels=None)).values():
        figure.draw_without_rendering()
