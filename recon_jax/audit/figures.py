"""Figures of audits: encoders in colour, baselines in grey, each point with its spread.

Narrow and stacked, so that letters stay readable on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from recon_jax.audit.records import Audited, Estimate
from recon_jax.audit.tables import Audit
from recon_jax.report.figures import COLORS, LINES, new_figure
from recon_jax.report.vae_outcomes import share_legend

WIDTH = 6.5
MARKERS = "osD^vP*X"
GREYS = ("#4d4d4d", "#7f7f7f", "#a6a6a6")
# At most this many points along the pixel directions, each a mean over neighbouring ones.
MAX_BINS = 40

SPECTRUM_CAPTION = (
    "Above: variance of test pixels that a linear read-out recovers from the features, by band of "
    "the pixels' spectrum, most variance on the left. Below: the same by single direction, means "
    "over neighbouring directions on a logarithmic axis. What is below 0 (worse than the mean "
    "image) is drawn at 0."
)
PROBE_CAPTION = (
    "What is read from frozen features on test images: accuracy of three probes, and the label "
    "variance that a linear read-out explains (triangle: the first K principal components)."
)
STABILITY_CAPTION = (
    "Sensitivity to smooth deformations (D), to noise of the same size (G), and their ratio (R) of "
    "every layer, from the first (0) to the output (1). Of the pixels R is 1 (dotted)."
)
INVARIANCE_CAPTION = (
    "Distance of two augmented views of an image, over that of views of different images, by "
    "strength of the augmentation: 0 is invariant, 1 as different as strangers."
)
SPREAD = " Bars: 95 % bootstrap intervals, or standard deviations over seeds."


def row_styles(rows: Sequence[Audited]) -> list[dict[str, Any]]:
    """Colour, line and marker of each row: colours for encoders, greys for baselines."""
    counts = {"encoder": 0, "baseline": 0}
    styles = []
    for item in rows:
        index = counts[item.role]
        counts[item.role] += 1
        colors = COLORS[1:] if item.role == "encoder" else GREYS
        lines = LINES if item.role == "encoder" else LINES[1:]
        styles.append(
            {
                "color": colors[index % len(colors)],
                "linestyle": lines[index % len(lines)],
                "marker": MARKERS[index % len(MARKERS)],
                "markersize": 4 if item.role == "encoder" else 3,
                "linewidth": 1.4 if item.role == "encoder" else 1.0,
                "zorder": 3 if item.role == "encoder" else 2,
            }
        )
    return styles


def _points(estimates: Sequence[Estimate], scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) and lengths of the bars below and above (2, n); no bar where there is none."""
    numbers = scale * np.array([estimate[:3] for estimate in estimates], float).reshape(-1, 3)
    values, low, high = numbers.T
    return values, np.nan_to_num(np.maximum([values - low, high - values], 0), posinf=0)


def binned_directions(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of values clipped to [0, 1] over bins that grow with the index.

    Args:
      values: one a direction (D,); NaN does not count.

    Returns:
      Geometric middles of the bins, counted from 1, and means; single directions come first.
    """
    edges = np.geomspace(1, len(values) + 1, MAX_BINS + 1)
    edges = np.unique(np.round(edges).astype(int))
    starts, ends = edges[:-1], edges[1:] - 1
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, np.clip(values, 0, 1), 0), starts - 1)
    counts = np.add.reduceat(known.astype(int), starts - 1)
    middles = np.sqrt(starts * ends)
    return middles[counts > 0], (sums / np.maximum(counts, 1))[counts > 0]


def spectrum_figure(audit: Audit) -> Figure | None:
    """Recovered variance by band and by direction; None if the spectrum was not measured."""
    rows = [
        (item, style)
        for item, style in zip(audit.rows, row_styles(audit.rows), strict=True)
        if item.spectrum is not None
    ]
    if not rows:
        return None
    figure, axes = new_figure(WIDTH, 6.8, 2, 1)
    above, below = axes[:, 0]
    bands = rows[0][0].spectrum.bands
    for index, (item, style) in enumerate(rows):
        values, bars = _points(item.spectrum.kept, 100)
        # Side by side within a band, so that no bar hides another.
        places = np.arange(len(bands)) + 0.7 * ((index + 0.5) / len(rows) - 0.5)
        options = {**style, "linestyle": "none", "elinewidth": 1, "label": item.name}
        above.errorbar(places, np.maximum(values, 0), bars * (values > 0)[None, :], **options)
        if item.spectrum_directions is not None and len(item.spectrum_directions):
            x, means = binned_directions(item.spectrum_directions)
            below.plot(x, 100 * means, label=item.name, **style)
    above.set_xticks(range(len(bands)), bands)
    above.set(ylabel="recovered (%)", xlabel="cumulative variance of the pixels", ylim=(-3, 103))
    below.set(ylabel="recovered (%)", xlabel="pixel direction, most variance first", ylim=(-3, 103))
    below.set_xscale("log")
    below.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    share_legend(figure, 3)
    return figure


def _bar_panels(audit: Audit) -> dict[str, list[tuple[int, Estimate]]]:
    """Title of a panel to row numbers with what is shown of them."""
    panels: dict[str, list[tuple[int, Estimate]]] = {}
    titles = ("linear probe", "nearest neighbours", "few labels a class")
    for number, item in enumerate(audit.rows):
        for title, estimate in zip(titles, item.probes or (), strict=False):
            panels.setdefault(title, []).append((number, estimate))
    for number, item in enumerate(audit.rows):
        if item.labels is not None:
            scaled = (100 * part for part in item.labels.features[:3])
            estimate = item.labels.features._replace(
                **dict(zip(("value", "low", "high"), scaled, strict=True))
            )
            panels.setdefault("R² of labels", []).append((number, estimate))
    defined = {
        title: [(number, one) for number, one in found if np.isfinite(one.value)]
        for title, found in panels.items()
    }
    return {title: found for title, found in defined.items() if found}


def probe_figure(audit: Audit) -> Figure | None:
    """Accuracies and explained label variance, a row an encoder; None if there is none."""
    panels = _bar_panels(audit)
    if not panels:
        return None
    names, styles = [item.name for item in audit.rows], row_styles(audit.rows)
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    height = 0.6 + lines * (0.7 + 0.24 * len(names))
    figure, axes = new_figure(WIDTH, height, lines, columns, sharey=True)
    for ax, (title, found) in zip(axes.flat, panels.items(), strict=False):
        for number, estimate in found:
            value, bars = _points([estimate])
            color = styles[number]["color"]
            ax.barh(number, value, 0.7, color=color, alpha=0.55, zorder=2)
            ax.errorbar(value, [number], None, bars, color="black", elinewidth=1, capsize=2)
            if title == "R² of labels" and np.isfinite(audit.rows[number].labels.pca.value):
                pca = 100 * audit.rows[number].labels.pca.value
                ax.plot(pca, number, marker="^", color="black", markersize=4, linestyle="none")
        ax.set(title=title, xlabel="%")
        ax.set_xlim(min(ax.get_xlim()[0], 0), None)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()  # shared by all
    return figure


def _log_axis(ax) -> None:
    """Logarithmic with plain numbers, few enough to read."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ticker = matplotlib.ticker
    steps = (1, 2, 5) if high < 100 * low else (1,)
    locator = ticker.LogLocator(10, steps, numticks=6) if high > 5 * low else ticker.MaxNLocator(4)
    ax.yaxis.set_major_locator(locator)
    ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def stability_figure(audit: Audit) -> Figure | None:
    """D, G and R by relative depth; None if they were not measured."""
    rows = [
        (item, style)
        for item, style in zip(audit.rows, row_styles(audit.rows), strict=True)
        if item.stability
    ]
    if not rows:
        return None
    figure, axes = new_figure(WIDTH, 7.4, 3, 1, sharex=True)
    letters = {"D": "D, to deformations", "G": "G, to noise", "R": "R = D / G"}
    for ax, (letter, label) in zip(axes[:, 0], letters.items(), strict=True):
        for item, style in rows:
            found = [getattr(layer, letter) for layer in item.stability.values()]
            values, bars = _points(found)
            shown = np.isfinite(values) & (values > 0)  # the axis is logarithmic
            # A bar that reached 0 would reach down for ever.
            bars[0] = np.where(bars[0] < values, bars[0], 0)
            depth = np.linspace(0, 1, len(found)) if len(found) > 1 else np.ones(1)
            options = {**style, "elinewidth": 1, "capsize": 2, "label": item.name}
            ax.errorbar(depth[shown], values[shown], bars[:, shown], **options)
        if letter == "R":
            ax.axhline(1, color="gray", linewidth=0.8, linestyle=":", zorder=1)
        ax.set_ylabel(label)
        _log_axis(ax)
    axes[-1, 0].set_xlabel("relative depth")
    share_legend(figure, 3)
    return figure


def invariance_figure(audit: Audit) -> Figure | None:
    """Non-invariance against strength; None if it was not measured."""
    rows = [
        (item, style)
        for item, style in zip(audit.rows, row_styles(audit.rows), strict=True)
        if item.invariance is not None
    ]
    if not rows:
        return None
    figure, axes = new_figure(WIDTH, 4.2)
    ax = axes[0, 0]
    for item, style in rows:
        values, bars = _points(item.invariance.values)
        options = {**style, "elinewidth": 1, "capsize": 2, "label": item.name}
        ax.errorbar(item.invariance.strengths, values, bars, **options)
    ax.set(xlabel="augmentation strength", ylabel="non-invariance")
    ax.set_ylim(0, None)
    share_legend(figure, 3)
    return figure


def audit_figures(audit: Audit) -> Mapping[str, tuple[Figure, str]]:
    """The figures of an audit by family, with captions; families that were not measured are absent.

    Args:
      audit: a report, or a comparison of several.

    Returns:
      "spectrum", "probes", "stability", "invariance" to figure and caption, as
      `report.save_figures` takes them.
    """
    made = {
        "spectrum": (spectrum_figure(audit), SPECTRUM_CAPTION + SPREAD),
        "probes": (probe_figure(audit), PROBE_CAPTION + SPREAD),
        "stability": (stability_figure(audit), STABILITY_CAPTION + SPREAD),
        "invariance": (invariance_figure(audit), INVARIANCE_CAPTION + SPREAD),
    }
    return {name: (figure, caption) for name, (figure, caption) in made.items() if figure}
