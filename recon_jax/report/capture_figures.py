"""Figures of captured features: by way of training, and over everything that was swept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter

from recon_jax.report.feature_capture import Method, Point, Setting, Study, of_sweep
from recon_jax.report.figures import COLORS, new_figure
from recon_jax.report.vae_outcomes import share_legend

PRETRAINED = {"color": COLORS[1], "marker": "o", "linestyle": "-"}
SUPERVISED = {"color": COLORS[2], "marker": "s", "linestyle": "--"}
PURITY = {"color": COLORS[3], "marker": "^", "linestyle": "-."}
LARGEST = {"color": COLORS[4], "marker": "D", "linestyle": ":"}
FORMULA = {"color": COLORS[0], "marker": "none", "linestyle": ":"}
BOUNDS = {"pairs grow": (COLORS[6], ":"), "low": (COLORS[0], "--"), "high": (COLORS[0], "-.")}

METHODS_CAPTION = (
    "Share of the features captured, and accuracy on images that show one feature of their class, "
    "by way of training: bars are means, dots single seeds."
)
THRESHOLD_CAPTION = (
    "Growth of kernels and features with a kernel along them, against the scale of the teacher. "
    "Vertical lines are predicted: from the first on two features that occur together grow, "
    "between the others single features do and the noise of single patches does not. Mean and "
    "standard deviation over seeds."
)
WIDTH_CAPTION = (
    "Features captured by pretraining and accuracy on single-view images, against the number of "
    "kernels a class, with the expected coverage if every kernel locks on one feature at random. "
    "Mean and standard deviation over seeds."
)
SENSITIVITY_CAPTION = (
    "Features captured, single-view accuracy and purity, against the share of single-view images "
    "in training, the threshold at which the rectifier becomes linear, and the steps of "
    "pretraining. Mean and standard deviation over seeds."
)


def draw_line(
    axes, places: Sequence[float], rows: Sequence[np.ndarray], style: Mapping[str, Any], label: str
) -> None:
    """Mean and standard deviation over seeds of rows (seeds,), one a place."""
    if not len(rows):
        return
    means = [values.mean() for values in rows]
    bars = [values.std(ddof=1) if len(values) > 1 else 0.0 for values in rows]
    axes.errorbar(
        places, means, bars, capsize=2, markersize=4.5, linewidth=1.3, label=label, **style
    )


def _draw_points(
    axes, points: Sequence[Point], name: str, style: Mapping[str, Any], label: str
) -> None:
    rows = [item.measure(name) for item in points]
    draw_line(axes, [item.value for item in points], rows, style, label)


def _draw_bars(axes, methods: Sequence[Method], values: Callable[[Method], np.ndarray]) -> None:
    for place, method in enumerate(methods):
        found = values(method)
        color = COLORS[1] if "pretraining" in method.name else COLORS[2]
        color = COLORS[5] if "random" in method.name else color
        axes.barh(place, found.mean(), color=color, alpha=0.45, height=0.7)
        # Side by side, so that equal seeds are told apart.
        shift = np.linspace(-0.25, 0.25, len(found)) if len(found) > 1 else np.zeros(1)
        axes.plot(found, place + shift, "o", color=color, markersize=2.5)
    axes.set_yticks(range(len(methods)), [method.name for method in methods])
    axes.invert_yaxis()


def methods_figure(study: Study) -> Figure:
    """Features captured and single-view accuracy of every way of training, with all seeds."""
    methods = list(study.methods.values())
    counted = [method for method in methods if np.isfinite(method.captured).all()]
    figure, grid = new_figure(9.0, 3.6, 1, 2)
    _draw_bars(grid[0, 0], counted, lambda method: method.captured)
    _draw_bars(grid[0, 1], methods, lambda method: method.single)
    grid[0, 0].set(title="features captured", xlabel="share", xlim=(0, 1.03))
    grid[0, 1].set(title="single-view images", xlabel="test accuracy (%)", xlim=(0, 103))
    return figure


def threshold_figure(points: Sequence[Point], setting: Setting) -> Figure:
    """Growth and alignment against the teacher scale, with the predicted bounds."""
    found = of_sweep(points, "teacher_scale")
    figure, grid = new_figure(8.4, 3.7, 1, 2)
    growth, share = grid[0]
    _draw_points(growth, found, "growth", PRETRAINED, "median growth")
    _draw_points(growth, found, "largest", LARGEST, "largest growth")
    _draw_points(share, found, "aligned", PURITY, "aligned features")
    low, high = setting.window
    lines = {"pairs grow": setting.pair_bound, "low": low, "high": high}
    names = {
        "pairs grow": "predicted: pairs grow",
        "low": "predicted: features grow",
        "high": "predicted: noise grows",
    }
    for axes in (growth, share):
        for name, place in lines.items():
            color, dash = BOUNDS[name]
            axes.axvline(place, color=color, linestyle=dash, linewidth=1.1, label=names[name])
        axes.set_xlabel("teacher scale")
    growth.axhline(1, color="gray", linewidth=0.8)
    growth.set(title="norm of a kernel over its start", ylabel="growth", yscale="log")
    growth.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    growth.yaxis.set_minor_formatter(NullFormatter())
    share.set(title="features with a kernel at cosine 0.6", ylabel="share", ylim=(-0.03, 1.05))
    share_legend(figure, 3)
    return figure


def width_figure(points: Sequence[Point], setting: Setting) -> Figure:
    """Coverage against width beside the formula, and what it is worth."""
    found = of_sweep(points, "width")
    figure, grid = new_figure(8.4, 3.5, 1, 2)
    coverage, accuracy = grid[0]
    _draw_points(coverage, found, "captured", PRETRAINED, "pretraining")
    widths = np.arange(1, max(item.value for item in found) + 1)
    expected = [setting.coverage(int(width)) for width in widths]
    coverage.plot(widths, expected, linewidth=1.3, label="expected coverage", **FORMULA)
    _draw_points(accuracy, found, "single", PRETRAINED, "pretraining")
    coverage.set(title="features captured", ylabel="share", ylim=(0, 1.05))
    accuracy.set(title="single-view images", ylabel="test accuracy (%)")
    for axes in (coverage, accuracy):
        axes.set_xlabel("kernels a class")
    share_legend(figure, 2)
    return figure


def sensitivity_figure(points: Sequence[Point]) -> Figure:
    """Captured features and accuracy over what the claims depend on, one column a sweep."""
    names = {
        "single_view": "single-view share in training",
        "threshold": "threshold of the rectifier",
        "steps": "steps of pretraining",
    }
    figure, grid = new_figure(9.0, 5.4, 2, 3, sharey="row", sharex="col")
    for column, (sweep, words) in enumerate(names.items()):
        found = of_sweep(points, sweep)
        captured, accuracy = grid[:, column]
        for axes, name in ((captured, "captured"), (accuracy, "single")):
            _draw_points(axes, found, name, PRETRAINED, "pretraining + head")
            if sweep != "steps":
                _draw_points(axes, found, f"supervised_{name}", SUPERVISED, "supervision")
        if sweep == "steps":
            _draw_points(captured, found, "purity", PURITY, "purity of pretrained kernels")
        if sweep == "threshold" and found:
            accuracy.set_xscale("log")
            accuracy.set_xticks([item.value for item in found])
            accuracy.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            accuracy.xaxis.set_minor_formatter(NullFormatter())
        accuracy.set_xlabel(words)
    grid[0, 0].set(ylabel="features captured (share)", ylim=(-0.03, 1.05))
    grid[1, 0].set_ylabel("single-view accuracy (%)")
    share_legend(figure, 3)
    return figure


def all_figures(
    study: Study, points: Sequence[Point], setting: Setting
) -> dict[str, tuple[Figure, str]]:
    """Every figure that there are numbers for, with its caption."""
    figures = {"methods": (methods_figure(study), METHODS_CAPTION)}
    sweeps = {item.sweep for item in points}
    if "teacher_scale" in sweeps:
        figures["threshold"] = (threshold_figure(points, setting), THRESHOLD_CAPTION)
    if "width" in sweeps:
        figures["width"] = (width_figure(points, setting), WIDTH_CAPTION)
    if sweeps & {"single_view", "threshold", "steps"}:
        figures["sensitivity"] = (sensitivity_figure(points), SENSITIVITY_CAPTION)
    return figures
