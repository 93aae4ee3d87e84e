"""Figures of the learning order: spectra over epochs, learned fractions, times, perception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from recon_jax import spectral
from recon_jax.report.figures import COLORS, line_style, new_figure
from recon_jax.report.learning_order import (
    LearningRun,
    LearningSetting,
    by_model,
    learning_outcome,
)


def epoch_colors(count: int) -> list:
    """Colours from dark to light, early to late; the palest are left out on white paper."""
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.88, count)))


def _grid(count: int, height: float):
    columns = min(count, 2)
    rows = -(-count // columns)
    figure, axes = new_figure(4.6 * columns, 0.6 + height * rows, rows, columns, sharex=True)
    for unused in axes.ravel()[count:]:
        unused.set_visible(False)
    return figure, axes.ravel()[:count]


def _plain_log_axis(axis) -> None:
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _share_legend(figure: Figure, axes, columns: int = 6) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def spectrum_figure(runs: Sequence[LearningRun], setting: LearningSetting) -> Figure:
    """Energy of the reconstructions along the eigenvectors of the data; the first run a model."""
    groups = by_model(runs)
    figure, panels = _grid(len(groups), 2.8)
    modes = np.arange(1, len(setting.second) + 1)
    shown = spectral.resolved_modes(setting.second)
    floor = setting.second[shown].min()
    for axes, (model, group) in zip(panels, groups.items(), strict=True):
        for epoch, color, energy in zip(
            setting.epochs, epoch_colors(len(setting.epochs)), group[0].energy, strict=True
        ):
            axes.plot(
                modes[shown],
                np.maximum(energy[shown], floor / 100),
                color=color,
                linewidth=0.9,
                label=f"epoch {epoch}",
            )
        axes.plot(modes[shown], setting.second[shown], color="black", linewidth=1.8, label="images")
        axes.set(xscale="log", yscale="log", title=model, ylim=(floor / 3, None))
        axes.set(xlabel="mode k of the images, not centred", ylabel="mean squared projection")
        _plain_log_axis(axes.xaxis)
    _share_legend(figure, panels[0])
    return figure


def flow_fractions(setting: LearningSetting, scale: float, epoch: float) -> np.ndarray:
    """What gradient flow has learned of each mode (D,) when a unit of its time takes `scale`."""
    values = jnp.asarray(setting.values * setting.num_images)
    spectrum = spectral.Spectrum(values, jnp.zeros((len(values), 0)), jnp.zeros_like(values))
    fraction = spectral.learned_fraction(spectrum, epoch / scale, initial=setting.initial)
    return np.asarray(fraction)


def learned_figure(runs: Sequence[LearningRun], setting: LearningSetting) -> Figure:
    """Fraction of each mode that is reconstructed, with gradient flow dashed; first run a model."""
    groups = by_model(runs)
    figure, panels = _grid(len(groups), 2.8)
    shown = np.isfinite(setting.predicted)
    modes = np.arange(1, len(shown) + 1)[shown]
    for axes, (model, group) in zip(panels, groups.items(), strict=True):
        scale = learning_outcome(group[0], setting).agreement.scale
        for epoch, color, learned in zip(
            setting.epochs, epoch_colors(len(setting.epochs)), group[0].learned, strict=True
        ):
            axes.plot(modes, learned[shown], color=color, linewidth=0.9, label=f"epoch {epoch}")
            if np.isfinite(scale):
                flow = flow_fractions(setting, scale, epoch)[shown]
                axes.plot(modes, flow, color=color, linewidth=0.9, linestyle=":")
        axes.axhline(setting.fraction, color="black", linewidth=0.6)
        axes.set(xscale="log", ylim=(-0.15, 1.25), title=model)
        axes.set(xlabel="mode k of the images, centred", ylabel="fraction reconstructed $a_k$")
        _plain_log_axis(axes.xaxis)
    _share_legend(figure, panels[0])
    return figure


def times_figure(runs: Sequence[LearningRun], setting: LearningSetting) -> Figure:
    """Observed against predicted learning time of each mode; the first run a model."""
    groups = by_model(runs)
    figure, panels = _grid(len(groups), 2.8)
    last = setting.epochs[-1]
    for axes, (model, group) in zip(panels, groups.items(), strict=True):
        outcome = learning_outcome(group[0], setting)
        compared = np.isfinite(setting.predicted)
        scale = outcome.agreement.scale if np.isfinite(outcome.agreement.scale) else 1.0
        x, y = scale * setting.predicted[compared], outcome.learned_at[compared]
        learned = np.isfinite(y)
        axes.plot(x[learned], y[learned], ".", color=COLORS[1], markersize=3, label="learned")
        never = np.full(np.sum(~learned), 1.5 * last)
        axes.plot(
            x[~learned], never, "|", color=COLORS[2], markersize=5, label="never (at the top)"
        )
        axes.plot(x, x, color="black", linewidth=0.8, label="gradient flow")
        low = y[learned & (y > 0)].min(initial=last) / 2  # zero has no logarithm
        axes.set(xscale="log", yscale="log", title=model, ylim=(low, 2 * last))
        axes.set(xlabel="predicted (epochs, scale fitted)", ylabel="observed (epochs)")
        _plain_log_axis(axes.yaxis)
    _share_legend(figure, panels[0], 3)
    return figure


def perception_figure(runs: Sequence[LearningRun], setting: LearningSetting) -> Figure:
    """Explained variance and probe accuracy over epochs, mean and spread over seeds."""
    figure, axes = new_figure(9, 3.6, 1, 2, sharex=True)
    curves: dict[str, Mapping[str, np.ndarray]] = {
        model: {
            "explained": np.array([run.explained for run in group]),
            "accuracy": np.array([run.accuracy for run in group]),
        }
        for model, group in by_model(runs).items()
    }
    for panel, field, label in (
        (axes[0, 0], "explained", "test variance explained (%)"),
        (axes[0, 1], "accuracy", "test accuracy of a linear probe (%)"),
    ):
        for index, (model, found) in enumerate(curves.items()):
            mean = 100 * found[field].mean(0)
            panel.plot(setting.epochs, mean, label=model, marker=".", **line_style(index))
            if len(found[field]) > 1:
                spread = 100 * found[field].std(0, ddof=1)
                color = line_style(index)["color"]
                panel.fill_between(
                    setting.epochs, mean - spread, mean + spread, color=color, alpha=0.2
                )
        panel.set(xlabel="epoch", ylabel=label)
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    # Before training it can lie far below zero, which would hide the rest.
    axes[0, 0].set_ylim(bottom=max(axes[0, 0].get_ylim()[0], -5))
    for index, (name, accuracy) in enumerate(setting.baselines.items(), len(curves)):
        axes[0, 1].axhline(100 * accuracy, label=name, linewidth=0.9, **line_style(index))
    _share_legend(figure, axes[0, 1], 3)
    return figure
