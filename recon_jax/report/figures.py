"""Figures for print and screen: one style, colours safe for colour-blind readers, PNG and PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recon_jax import parallel

# Okabe & Ito (2008), distinguishable under all common forms of colour blindness; yellow is left out
# because it vanishes on white paper.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINES = ("-", "--", "-.", ":")

_STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 150,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, so that text in the PDF stays text
}


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs):
    """A figure of the given size in inches and its array of axes (rows, columns).

    Args:
      width: in inches.
      height: in inches.
      rows: of axes.
      columns: of axes.
      **kwargs: of `Figure.subplots`.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, axes


def save_figure(folder: Path, name: str, figure: Figure) -> Path:
    """Write NAME.png and NAME.pdf; returns the path of the PNG.

    Args:
      folder: that exists.
      name: of the files, without suffix.
      figure: from `new_figure`.
    """
    path = folder / f"{name}.png"
    if not parallel.is_main():
        return path
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path)
        # Without dates the same numbers make the same file.
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "ModDate": None})
    return path


def save_figures(
    folder: Path, figures: Mapping[str, tuple[Figure, str]]
) -> dict[str, tuple[Path, str]]:
    """Write figures that have captions: name -> (path of the PNG, caption), as `Section` takes.

    Args:
      folder: that exists.
      figures: name to (figure, caption).
    """
    return {
        name: (save_figure(folder, name, figure), caption)
        for name, (figure, caption) in figures.items()
    }


def line_style(index: int) -> dict[str, str]:
    """Colour and dash of the index-th line; no two of the first 28 are alike."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": LINES[(2 * (index // len(COLORS)) + index) % len(LINES)],
    }


def plot_curves(
    axes, curves: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str, title: str = ""
) -> None:
    """Draw curves over rank K = 1, 2, ... on a logarithmic axis, one line a name.

    Args:
      axes: of matplotlib, to draw on.
      curves: name to values at K = 1, 2, ...
      xlabel: of the axis of K.
      ylabel: of the values.
      title: none if empty.
    """
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(np.arange(1, len(curve) + 1), curve, label=name, **line_style(index))
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
    axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())


def plot_heat_map(
    axes,
    values: np.ndarray,
    *,
    xticks: Sequence[str],
    yticks: Sequence[str],
    xlabel: str,
    ylabel: str,
    title: str,
    limit: float,
):
    """Draw signed values with a diverging colour map symmetric about 0; returns the image.

    Args:
      axes: of matplotlib, to draw on.
      values: (rows, columns).
      xticks: one label a column.
      yticks: one label a row.
      xlabel: of the columns.
      ylabel: of the rows.
      title: above the map.
      limit: value of the darkest colours, > 0.
    """
    image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(xticks)), xticks)
    axes.set_yticks(range(len(yticks)), yticks)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    for (row, column), value in np.ndenumerate(values):
        # White on the dark ends, black in the pale middle.
        color = "white" if abs(value) > 0.6 * limit else "black"
        axes.text(column, row, f"{value:+.1f}", ha="center", va="center", color=color, fontsize=6.5)
    return image


def plot_image_strip(axes, images: np.ndarray, label: str) -> None:
    """Draw images (N, H, W, C) side by side, each stretched to its own range, with a row label.

    Args:
      axes: of matplotlib, to draw on.
      images: of one or three channels.
      label: left of the row.
    """
    low = images.min(axis=(1, 2, 3), keepdims=True)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    scaled = (images - low) / np.maximum(high - low, 1e-12)
    # A thin white gap between the images.
    padded = np.pad(scaled, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    strip = np.concatenate(list(padded), axis=1)
    axes.imshow(strip.squeeze(-1) if strip.shape[-1] == 1 else strip, cmap="gray")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylabel(label, rotation=0, ha="right", va="center")
