"""Figures of deformation sensitivities: against test errors, along the depth, and of filters."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from recon_jax.report.diffeo_stability import (
    Outcome,
    clean,
    convolutional,
    correlation,
    gained_shares,
    is_measured,
    point,
)
from recon_jax.report.figures import COLORS, new_figure
from recon_jax.report.stability_claims import PUBLISHED_FACTOR, PUBLISHED_POWER
from recon_jax.report.vae_outcomes import share_legend

MARKERS = "osD^vP*X<>hdp8"
NAMES = {"D": "$D_f$, deformations", "G": "$G_f$, noise", "R": "$R_f = D_f / G_f$"}
STATES = {
    "initial": ("at initialisation", {"color": COLORS[0], "linestyle": ":", "marker": "s"}),
    "shuffled": (
        "trained, channels shuffled",
        {"color": COLORS[2], "linestyle": "--", "marker": "^"},
    ),
    "trained": ("trained", {"color": COLORS[1], "linestyle": "-", "marker": "o"}),
}

ERROR_CAPTION = (
    "Test error against the sensitivities of the trained output, geometric means over seeds; bars: "
    "smallest to largest. Open markers: trained with noise on the inputs, error on images without. "
    "In brackets the correlation of logarithms over networks without noise and its 95% interval."
)
DEPTH_CAPTION = (
    "Sensitivity to deformations and to noise of the same norm, and their ratio, of every "
    "representation against its place from pixels (0) to logits (1); geometric means over seeds, "
    "bands: smallest to largest."
)
FILTER_CAPTION = (
    "Share of the filters' energy in the modes of the grid Laplacian (equal eigenvalues summed), "
    "trained over initial; 0 is the constant filter. One line a kernel, dark to light from input "
    "to output; geometric means over seeds."
)


def _marker(index: int) -> dict[str, str]:
    return {"marker": MARKERS[index % len(MARKERS)], "color": COLORS[index % len(COLORS)]}


def _reach(values: np.ndarray, middle: float) -> list[list[float]]:
    """From the middle down to the smallest and up to the largest, as error bars take it."""
    return [[max(middle - values.min(), 0)], [max(values.max() - middle, 0)]]


def error_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Test error against D_f, G_f and R_f on logarithmic axes, one marker a network."""
    outcomes = [item for item in outcomes if is_measured(item)]
    figure, axes = new_figure(10, 4.2, 1, 3, sharey=True)
    names = list(dict.fromkeys(item.name for item in outcomes))
    for ax, letter in zip(axes[0], "DGR", strict=True):
        for item in outcomes:
            x, y = point(item, letter)
            style = _marker(names.index(item.name))
            values = item.states["trained"].mean[:, "DGR".index(letter), -1]
            ax.errorbar(
                x,
                y,
                _reach(item.error, y),
                _reach(values, x),
                linestyle="none",
                elinewidth=0.8,
                markersize=6,
                markerfacecolor="white" if item.noise else style["color"],
                label=None if item.noise else item.name,
                **style,
            )
        if letter == "R":
            reached = [point(item, "R")[0] for item in outcomes]
            x = np.array([min(reached, default=1), max(reached, default=1)])
            line = {"color": "gray", "linestyle": (0, (6, 2)), "linewidth": 1, "zorder": 1}
            label = f"{PUBLISHED_FACTOR:g} $\\sqrt{{R_f}}$ (2021)"
            ax.plot(x, 100 * PUBLISHED_FACTOR * x**PUBLISHED_POWER, label=label, **line)
        found = correlation(clean(outcomes), letter)
        ax.set(xscale="log", yscale="log", xlabel=NAMES[letter], title=f"r = {found.describe()}")
        _plain_ticks(ax.xaxis)
    axes[0][0].set_ylabel("test error (%)")
    _plain_ticks(axes[0][0].yaxis)
    if any(item.noise for item in outcomes):
        style = {"marker": "o", "color": "gray", "markerfacecolor": "white", "linestyle": "none"}
        axes[0][0].plot([], [], label="open: trained with noise", **style)
    share_legend(figure, 5)
    return figure


def _plain_ticks(axis) -> None:
    """Numbers such as 0.2 and 20, few enough to read, on a logarithmic axis of any length."""
    low, high = axis.get_view_interval()
    ticker = matplotlib.ticker
    if high < 5 * low:  # there may be no more than one of 1, 2, 5
        locator = ticker.MaxNLocator(4)
    else:
        locator = ticker.LogLocator(10, (1, 2, 5) if high < 100 * low else (1,), numticks=6)
    axis.set_major_locator(locator)
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(ticker.NullLocator())


def measured_nets(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The convolutional networks without noise that depth and filters are shown of."""
    return [item for item in convolutional(clean(outcomes)) if is_measured(item)]


def depth_figure(outcomes: Sequence[Outcome], pixels: float) -> Figure:
    """D_k, G_k and R_k by relative depth; a row a convolutional network.

    Args:
      outcomes: some of convolutional networks without noise.
      pixels: D of the pixels themselves, which is also their G.
    """
    nets = measured_nets(outcomes)
    figure, axes = new_figure(8.5, 0.8 + 1.7 * len(nets), len(nets), 3, sharex=True)
    for row, item in zip(axes, nets, strict=True):
        for ax, letter, start in zip(row, "DGR", (pixels, pixels, 1.0), strict=True):
            for state, (label, style) in STATES.items():
                curves = item.states[state].mean[:, "DGR".index(letter)]
                curves = np.concatenate([np.full((len(curves), 1), start), curves], 1)
                depth = np.linspace(0, 1, curves.shape[1])
                middle = np.exp(np.log(curves).mean(0))
                ax.plot(depth, middle, label=label, markersize=2.5, linewidth=1.2, **style)
                band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
                ax.fill_between(depth, curves.min(0), curves.max(0), **band)
            ax.set_yscale("log")
            _plain_ticks(ax.yaxis)
        row[0].set_ylabel(item.name)
    for ax, letter in zip(
        axes[0], ("D_k, deformations", "G_k, noise", "R_k = D_k / G_k"), strict=True
    ):
        ax.set_title(f"${letter[:3]}${letter[3:]}".replace("= D_k / G_k", "$= D_k / G_k$"))
    for ax in axes[-1]:
        ax.set_xlabel("relative depth")
    share_legend(figure, 3)
    return figure


def filter_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Shares of the filters' energy by eigenvalue, trained over initial; a panel a network."""
    nets = measured_nets(outcomes)
    columns = min(len(nets), 3)
    rows = -(-len(nets) // columns)
    figure, axes = new_figure(2.9 * columns, 0.4 + 2.4 * rows, rows, columns, sharey=True)
    colors = matplotlib.colormaps["cividis"]
    for ax, item in zip(axes.flat, nets, strict=False):
        eigenvalues, shares = gained_shares(item)
        for index, curve in enumerate(shares):
            color = colors(0.9 * index / max(len(shares) - 1, 1))
            ax.plot(eigenvalues, curve, color=color, marker="o", markersize=3, linewidth=1.2)
        ax.axhline(1, color="gray", linewidth=0.8, linestyle=(0, (6, 2)), zorder=1)
        ax.set(yscale="log", title=item.name, xlabel="eigenvalue of the mode")
        _plain_ticks(ax.yaxis)
    for row in axes:
        row[0].set_ylabel("trained / initial")
    for ax in axes.flat[len(nets) :]:
        ax.set_visible(False)
    return figure
