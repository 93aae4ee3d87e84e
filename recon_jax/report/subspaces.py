"""Classifiers on top and bottom subspaces: tables, figure, and the answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from recon_jax.report.figures import COLORS, new_figure, plot_image_strip
from recon_jax.report.tables import Table
from recon_jax.spectral import Subspace

# Test accuracy (%) over per cent of variance kept, read off Fig. 1 of Balestriero & LeCun 2024
# (arXiv 2402.11337) to +-0.3: TinyImageNet, ResNet9.
PUBLISHED = {
    "top": (
        (48.3, 55.7, 63.0, 70.4, 77.8, 85.2, 92.6, 100.0),
        (0.9, 3.7, 4.8, 9.1, 15.1, 32.2, 50.0, 58.7),
    ),
    "bottom": (
        (0.0, 1.9, 4.2, 6.8, 9.8, 13.9, 19.9, 51.7),
        (0.7, 24.9, 32.0, 41.4, 48.6, 52.8, 55.0, 58.5),
    ),
}


# Per cent of the variance from which on a subspace is everything.
WHOLE = 99.99


class Outcome(NamedTuple):
    """Classifiers of one setup on one cell.

    Attributes:
      cell: the subspace.
      rank: components kept.
      variance: per cent of the variance kept.
      accuracy: test accuracy in per cent (seeds,).
      train_accuracy: on the training images, in evaluation mode (seeds,).
    """

    cell: Subspace
    rank: int
    variance: float
    accuracy: np.ndarray
    train_accuracy: np.ndarray


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over seeds, in per cent; the value alone for one seed."""
    values = np.asarray(values, float)
    error = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{error}"


def curve_of(outcomes: Sequence[Outcome], side: str) -> tuple[np.ndarray, np.ndarray]:
    """Per cent of the variance kept, ascending, and mean accuracy of a side, all images last.

    Bottoms that keep everything, because the first component has more than they leave out, are not
    points of their own.
    """
    points = {o.variance: o.accuracy.mean() for o in outcomes if _is_part(o, side)}
    points.update((100.0, o.accuracy.mean()) for o in outcomes if o.cell.side == "all")
    kept = sorted(points)
    return np.array(kept), np.array([points[percent] for percent in kept])


def _is_part(outcome: Outcome, side: str) -> bool:
    return outcome.cell.side == side and outcome.variance < WHOLE


def accuracy_at(outcomes: Sequence[Outcome], side: str, percent: float) -> float:
    """Mean accuracy at a per cent kept, linear between cells; NaN below the first cell."""
    return float(np.interp(percent, *curve_of(outcomes, side), left=np.nan))


def advantages(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """For each top, how much better the largest bottom of no more variance is, in points.

    Between the largest bottom and everything there may be nothing to interpolate: where the first
    component has half of the variance, no bottom has between half and all. NaN where every bottom
    has more than the top.
    """
    found = {}
    for top in (outcome for outcome in outcomes if _is_part(outcome, "top")):
        bottoms = [
            outcome
            for outcome in outcomes
            if _is_part(outcome, "bottom") and outcome.variance <= top.variance
        ]
        best = max(bottoms, key=lambda outcome: outcome.variance, default=None)
        gap = np.nan if best is None else best.accuracy.mean() - top.accuracy.mean()
        found[top.cell.label] = float(gap)
    return found


def crossing(outcomes: Sequence[Outcome], accuracy: float) -> float:
    """Per cent of the variance the top needs for an accuracy, linear between cells.

    The smallest at which it is reached: 0 if the first cell has it, infinite if no cell does.
    """
    kept, found = curve_of(outcomes, "top")
    reached = np.flatnonzero(found >= accuracy)
    if not reached.size:
        return float("inf")
    first = int(reached[0])
    if first == 0:
        return 0.0
    below, above = found[first - 1], found[first]
    share = (accuracy - below) / (above - below)
    return float(kept[first - 1] + share * (kept[first] - kept[first - 1]))


def accuracy_table(setups: dict[str, Sequence[Outcome]], published: bool, note: str) -> Table:
    """Test accuracy of every setup on every cell, beside the paper's where it has any.

    Args:
      setups: name -> outcomes, all over the same cells.
      published: whether the images are those of the paper's figure.
      note: setting, seeds, seconds, device.
    """
    columns = ("images", "components", "variance kept (%)", *setups, "paper")
    rows = []
    for outcomes in zip(*setups.values(), strict=True):
        cell = outcomes[0].cell
        value = "not published"
        if published:
            side = "top" if cell.side == "all" else cell.side
            percent, accuracies = PUBLISHED[side]
            inside = percent[0] <= cell.percent <= percent[-1]
            value = f"{np.interp(cell.percent, percent, accuracies):.1f}" if inside else value
        rows.append(
            (
                cell.label,
                outcomes[0].rank,
                outcomes[0].variance,
                *(spread(outcome.accuracy) for outcome in outcomes),
                value,
            )
        )
    title = "Test accuracy (%) of classifiers trained on a part of the spectrum"
    return Table("accuracy", title, columns, rows, note)


def comparison_table(
    setups: dict[str, Sequence[Outcome]], pair: tuple[float, float], note: str
) -> Table:
    """Bottom minus top at equal variance, the pair of the paper, and where the top draws level.

    Args:
      setups: name -> outcomes.
      pair: per cent of the top and of the bottom that the paper compares.
      note: as above.
    """
    tops = list(advantages(next(iter(setups.values()))))
    columns = (
        "network",
        *(f"bottom - {label}" for label in tops),
        f"top {pair[0]:g}%",
        f"bottom {pair[1]:g}%",
        f"top needed for bottom {pair[1]:g}%",
    )
    rows = []
    for name, outcomes in setups.items():
        low = accuracy_at(outcomes, "bottom", pair[1])
        rows.append(
            (
                name,
                *(f"{gap:+.1f}" for gap in advantages(outcomes).values()),
                f"{accuracy_at(outcomes, 'top', pair[0]):.1f}",
                f"{low:.1f}",
                f"{crossing(outcomes, low):.0f}% of variance",
            )
        )
    rows.append(("paper, TinyImageNet, ResNet9", *["" for _ in tops], "45", "55", "not published"))
    title = "Which side classifies better? Test accuracy in %, differences in points"
    meaning = (
        "Differences are between a top and the largest bottom that keeps no more variance; the "
        "paper's pair is linear between the cells. "
    )
    return Table("comparison", title, columns, rows, meaning + note)


def _level(outcomes: Sequence[Outcome], accuracy: float, side: str) -> str:
    """From where on the top classifies as well as a bottom, in words."""
    needed = crossing(outcomes, accuracy)
    if np.isinf(needed):
        return f"At no threshold does the top classify as well as the {side}."
    if needed == 0:
        lowest = curve_of(outcomes, "top")[0][0]
        return f"The top classifies as well as the {side} already with {lowest:.4g}% of variance."
    return f"The top needs {needed:.0f}% of the variance to classify as well as the {side}."


def summarize(setups: dict[str, Sequence[Outcome]], pair: tuple[float, float]) -> list[str]:
    """The answers in words, one line a network.

    Args:
      setups: name -> outcomes.
      pair: per cent of the top and of the bottom that the paper compares.
    """
    lines = []
    for name, outcomes in setups.items():
        top, bottom = (
            accuracy_at(outcomes, side, percent)
            for side, percent in zip(("top", "bottom"), pair, strict=True)
        )
        verdict = "as the paper says" if bottom > top else "against the paper"
        gaps = {label: gap for label, gap in advantages(outcomes).items() if np.isfinite(gap)}
        better = [label for label, gap in gaps.items() if gap > 0]
        lines.append(
            f"{name}: {bottom:.1f}% from the bottom {pair[1]:g}% against {top:.1f}% from the top "
            f"{pair[0]:g}%, {verdict}. A bottom of no more variance is better than "
            f"{', '.join(better) or 'none'} (of {', '.join(gaps) or 'none'}). "
            f"{_level(outcomes, bottom, f'bottom {pair[1]:g}%')}"
        )
    return lines


def accuracy_figure(setups: dict[str, Sequence[Outcome]], published: bool) -> Figure:
    """Test accuracy over the variance kept, one panel a setup, top against bottom."""
    columns = min(len(setups), 2)
    rows = -(-len(setups) // columns)
    figure, axes = new_figure(
        4.2 * columns, 3.2 * rows + 0.8, rows, columns, sharex=True, sharey=True
    )
    for ax in axes.ravel()[len(setups) :]:
        ax.set_visible(False)
    styles = {"top": (COLORS[2], "o", "-"), "bottom": (COLORS[1], "s", "--")}
    for ax, (name, outcomes) in zip(axes.ravel(), setups.items(), strict=False):
        for side, (color, marker, line) in styles.items():
            kept, found = curve_of(outcomes, side)
            seeds = {o.variance: o.accuracy for o in outcomes if _is_part(o, side)}
            seeds.update((100.0, o.accuracy) for o in outcomes if o.cell.side == "all")
            errors = [
                seeds[percent].std(ddof=1) if len(seeds[percent]) > 1 else 0.0 for percent in kept
            ]
            ax.errorbar(
                kept,
                found,
                errors,
                color=color,
                marker=marker,
                linestyle=line,
                markersize=4,
                capsize=2,
                label=f"{side} of the spectrum",
            )
            if published:
                ax.plot(
                    *PUBLISHED[side],
                    color=color,
                    linestyle=":",
                    label=f"paper, {side}, 200 classes",
                )
        ax.set(title=name, xlim=(-3, 103))
    for ax in axes[-1]:
        ax.set_xlabel("pixel variance kept (%)")
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return figure


def strip_figure(strips: dict[str, np.ndarray]) -> Figure:
    """Images as the classifiers saw them, one row a cell."""
    figure, axes = new_figure(9.5, 0.95 * len(strips), len(strips), 1)
    for ax, (label, images) in zip(axes[:, 0], strips.items(), strict=True):
        plot_image_strip(ax, images, label)
    return figure
