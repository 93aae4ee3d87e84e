"""Figures of encoder and projector over augmentation strength: measures, spectra, directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from recon_jax.report.figures import COLORS, LINES, new_figure
from recon_jax.report.projector_geometry import (
    Outcome,
    is_valid,
    trained,
    untrained,
    valid_runs,
)
from recon_jax.report.vae_outcomes import share_legend

ENCODER = {"color": COLORS[1], "marker": "o", "linestyle": "-", "label": "encoder H"}
PROJECTOR = {"color": COLORS[2], "marker": "s", "linestyle": "--", "label": "projector Z"}
LOCAL = {"color": COLORS[3], "marker": "^", "linestyle": "-.", "label": "projector, local A"}
TANGENT = {"color": COLORS[4], "marker": "D", "linestyle": "-", "label": "tangent estimate"}
AUGMENTED = {"color": COLORS[6], "marker": "v", "linestyle": "--", "label": "augmentation"}
MARKERS = "osD^vP*X"
# Singular values below this share of the largest are rounding.
FLOOR = 1e-6
MAX_BINS = 60

STRENGTH_CAPTION = (
    "What encoder and projector do at growing augmentation strength: effective rank of test "
    "embeddings and of the projector's Jacobian; non-invariance at one fixed strength for all "
    "networks; alignment of the projector's row space with estimates of the tangent plane and of "
    "the augmentation directions; accuracy of linear probes, with the gap in points below. Mean "
    "and standard deviation over seeds; single runs where a pretext failed, open those that failed."
)
SPECTRA_CAPTION = (
    "Singular values of centred test embeddings over the largest; one line a strength, mean over "
    "the seeds that solved their pretext. Thin dotted: single runs whose pretext failed."
)
DIRECTIONS_CAPTION = (
    "Share of the variance along each principal direction of the pixels that encoder and projector "
    "linearly predict on test images, from the largest variance to the smallest, in bins of equal "
    "width on this axis; one line a strength, mean over the seeds that solved their pretext. Thin "
    "dotted: single runs whose pretext failed."
)
PROJECTOR_CAPTION = (
    "Effective rank of the Jacobian and of the output of projectors at growing augmentation "
    "strength; mean and standard deviation over seeds; single runs where a pretext failed, open "
    "those that failed."
)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _mean_and_bar(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the finite values; NaN and 0 where there are none."""
    values = _finite(values)
    if not len(values):
        return float("nan"), 0.0
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _left_place(items: Sequence[Outcome]) -> float:
    """Where untrained networks are shown, left of all strengths."""
    strengths = [item.at for item in items] or [0.0]
    return min(strengths) - 0.2 * ((max(strengths) - min(strengths)) or 1.0)


def _draw(
    axes,
    items: Sequence[Outcome],
    start: Outcome | None,
    field: str,
    style: Mapping[str, Any],
    left: float,
) -> None:
    """One measure: a line over strengths valid in every run, single runs elsewhere, the start.

    Args:
      axes: to draw on.
      items: trained, by ascending strength.
      start: untrained, if there is one.
      field: of the outcomes.
      style: of the line, with its label.
      left: place of the start.
    """
    # The legend shows line and marker whatever there is to draw.
    axes.plot([], [], markersize=4.5, linewidth=1.3, **style)
    style = {**style, "label": None, "markersize": 4.5, "linewidth": 1.3}
    good = [item for item in items if is_valid(item)]
    if good:
        middle, bars = np.transpose([_mean_and_bar(getattr(item, field)) for item in good])
        axes.errorbar([item.at for item in good], middle, bars, capsize=2, **style)
    style["linestyle"] = "none"
    if start is not None:
        middle, bar = _mean_and_bar(getattr(start, field))
        axes.errorbar([left], [middle], [bar], capsize=2, **style)
    for item in items:
        if is_valid(item):
            continue
        for value, valid in zip(getattr(item, field), valid_runs(item), strict=True):
            face = style["color"] if valid else "white"
            axes.plot([item.at], [value], markerfacecolor=face, **style)


def _from_zero(axes) -> None:
    """Let the vertical axis start at 0, with room for markers at the top."""
    axes.set_ylim(0, 1.04 * max(axes.get_ylim()[1], 1e-9))


def _strength_axis(axes, items: Sequence[Outcome], has_start: bool) -> None:
    """Ticks at the strengths, without names that would run into each other, and the untrained."""
    strengths = sorted({item.at for item in items})
    reach = (strengths[-1] - strengths[0]) if len(strengths) > 1 else 1.0
    ticks: list[float] = []
    for strength in strengths:
        if not ticks or strength - ticks[-1] >= 0.08 * reach:
            ticks.append(strength)
    names = [f"{strength:g}" for strength in ticks]
    if has_start:
        ticks, names = [_left_place(items), *ticks], ["untrained", *names]
    axes.set_xticks(ticks, names)
    axes.set_xlabel("augmentation strength")


def _explain_open(figure: Figure, items: Sequence[Outcome]) -> None:
    """A legend entry of open markers, if there are any."""
    if not all(map(is_valid, items)):
        style = {"marker": "o", "color": "gray", "markerfacecolor": "white", "linestyle": "none"}
        figure.axes[-1].plot([], [], label="open: pretext failed", **style)


def _draw_gaps(axes, items: Sequence[Outcome], start: Outcome | None) -> None:
    """Points between the probes, as numbers along the lower edge."""
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.15 * (high - low), high)
    places = [(item.at, item) for item in items if is_valid(item)]
    if start is not None:
        places.insert(0, (_left_place(items), start))
    for place, item in places:
        gap, _ = _mean_and_bar(item.gap)
        if np.isfinite(gap):
            style = {"ha": "center", "va": "bottom", "fontsize": 7.5}
            axes.text(place, 0.02, f"{gap:.1f}", transform=axes.get_xaxis_transform(), **style)


def strength_figure(outcomes: Sequence[Outcome], base: str, reference: float) -> Figure:
    """Rank, non-invariance, alignment and probes of one projector over strength.

    Args:
      outcomes: of which those of `base` are shown.
      base: name of the projector.
      reference: strength at which the non-invariance is measured.
    """
    items, start = trained(outcomes, base), untrained(outcomes, base)
    left = _left_place(items)
    figure, grid = new_figure(8.4, 6.6, 2, 2)
    rank, invariance, alignment, probe = grid.flat
    for axes, field in ((rank, "rank"), (invariance, "fixed"), (probe, "probe")):
        _draw(axes, items, start, f"encoder_{field}", ENCODER, left)
        _draw(axes, items, start, f"projector_{field}", PROJECTOR, left)
    _draw(rank, items, start, "local_rank", LOCAL, left)
    _draw(alignment, items, start, "tangent_alignment", TANGENT, left)
    _draw(alignment, items, start, "augmentation_alignment", AUGMENTED, left)
    found = [*items, *([start] if start is not None else [])]
    chance = _finite(np.concatenate([item.chance for item in found])) if found else np.zeros(0)
    if len(chance):
        style = {"color": "gray", "linewidth": 1.2, "linestyle": ":", "label": "chance"}
        alignment.axhline(float(chance.mean()), **style)
    rank.set(title="rank", ylabel="effective rank")
    invariance.set(title=f"non-invariance at strength {reference:g}")
    invariance.set_ylabel("0 invariant, 1 as strangers")
    alignment.set(title="row space of the projector", ylabel="alignment")
    for axes in (rank, invariance, alignment):
        _from_zero(axes)
    probe.set(title="linear probes, gap in points below", ylabel="test accuracy (%)")
    for axes in grid.flat:
        _strength_axis(axes, items, start is not None)
    _draw_gaps(probe, items, start)
    _explain_open(figure, items)
    share_legend(figure, 4)
    return figure


def _style(index: int) -> dict[str, Any]:
    """Colour and dash of the index-th strength; black is for untrained networks."""
    index, turn = index % (len(COLORS) - 1), index // (len(COLORS) - 1)
    dash = LINES[(index + turn) % 3]
    return {"color": COLORS[1 + index], "linestyle": dash, "linewidth": 1.3}


def _curves(values: np.ndarray) -> np.ndarray:
    """Mean over the rows that are finite throughout (size,); NaN if none is."""
    rows = values[np.isfinite(values).all(1)]
    return rows.mean(0) if len(rows) else np.full(values.shape[1], np.nan)


def _draw_curves(
    axes, items: Sequence[Outcome], start: Outcome | None, field: str, prepare
) -> None:
    """One line a strength over component numbers; runs that failed their pretext thin dotted.

    Args:
      axes: to draw on.
      items: trained, by ascending strength.
      start: untrained, if there is one.
      field: of the outcomes, (seeds, size).
      prepare: a curve (size,) to places and heights.
    """
    if start is not None:
        style = {"color": COLORS[0], "linestyle": LINES[3], "linewidth": 1.6, "label": "untrained"}
        axes.plot(*prepare(_curves(getattr(start, field))), **style)
    for index, item in enumerate(items):
        values, valid = getattr(item, field), valid_runs(item)
        style, label = _style(index), f"strength {item.at:g}"
        if valid.any():
            axes.plot(*prepare(_curves(values[valid])), **style, label=label)
        style |= {"linestyle": ":", "linewidth": 0.7}
        for row, curve in enumerate(values[~valid]):
            name = f"{label}, pretext failed" if row == 0 else None
            axes.plot(*prepare(curve), **style, label=name)


def _above_floor(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(curve) + 1), np.where(curve >= FLOOR, curve, np.nan)


def log_bins(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of a curve over component numbers 1, 2, ... in bins of equal logarithmic width.

    Args:
      curve: (size,).

    Returns:
      Geometric middle of the numbers in each bin and mean of the curve there; at most 60 bins, of
      which the first few are of one number.
    """
    numbers = np.arange(1, len(curve) + 1)
    edges = np.geomspace(1, len(curve) + 1, MAX_BINS + 1)
    firsts = np.unique(np.searchsorted(numbers, edges[:-1] * (1 - 1e-12)))
    firsts = firsts[firsts < len(curve)]
    sizes = np.diff(np.append(firsts, len(curve)))
    places = np.exp(np.add.reduceat(np.log(numbers), firsts) / sizes)
    return places, np.add.reduceat(curve, firsts) / sizes


def _has_data(axes) -> bool:
    """Whether something is drawn; an axis of nothing cannot be logarithmic."""
    return any(np.isfinite(line.get_ydata()).any() for line in axes.get_lines())


def _two_panels(outcomes: Sequence[Outcome], base: str, field: str, prepare) -> tuple[Figure, Any]:
    """Encoder left, projector right; the figure and its two axes."""
    items, start = trained(outcomes, base), untrained(outcomes, base)
    figure, grid = new_figure(8.4, 3.9, 1, 2, sharey=True)
    for axes, part, title in zip(
        grid[0], ("encoder", "projector"), ("encoder H", "projector Z"), strict=True
    ):
        _draw_curves(axes, items, start, f"{part}_{field}", prepare)
        axes.set_title(title)
    share_legend(figure, 4)
    return figure, grid[0]


def spectra_figure(outcomes: Sequence[Outcome], base: str) -> Figure:
    """Singular values of the outputs of encoder and projector, one line a strength.

    Args:
      outcomes: of which those of `base` are shown.
      base: name of the projector.
    """
    figure, panels = _two_panels(outcomes, base, "singular", _above_floor)
    if any(map(_has_data, panels)):
        panels[0].set_yscale("log")
    panels[0].set_ylabel("singular value over the largest")
    for axes in panels:
        axes.set_xlabel("component")
    return figure


def directions_figure(outcomes: Sequence[Outcome], base: str) -> Figure:
    """Share of each principal direction of the pixels that encoder and projector keep.

    Args:
      outcomes: of which those of `base` are shown.
      base: name of the projector.
    """
    figure, panels = _two_panels(outcomes, base, "kept", log_bins)
    low, _ = panels[0].get_ylim()
    # Predictions of directions of little variance can be far worse than their mean.
    panels[0].set_ylim(min(max(low, -0.25), 0), 1.02)
    panels[0].set_ylabel("share of variance predicted")
    for axes in panels:
        axes.set_xlabel("principal direction of the pixels")
        if not _has_data(axes):
            continue
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    return figure


def projector_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Local rank and rank of the output over strength, one line a projector."""
    names = list(dict.fromkeys(item.projector for item in outcomes))
    every = [item for item in outcomes if item.strength is not None]
    has_start = any(item.strength is None for item in outcomes)
    left = _left_place(every)
    figure, grid = new_figure(8.4, 3.9, 1, 2)
    panels = (("local_rank", "Jacobian A (local)"), ("projector_rank", "output Z (global)"))
    for axes, (field, title) in zip(grid[0], panels, strict=True):
        for index, name in enumerate(names):
            style = {
                "color": COLORS[(index + 1) % len(COLORS)],
                "marker": MARKERS[index % len(MARKERS)],
                "linestyle": LINES[index % len(LINES)],
                "label": name,
            }
            start = untrained(outcomes, name)
            _draw(axes, trained(outcomes, name), start, field, style, left)
        axes.set(title=title, ylabel="effective rank")
        _from_zero(axes)
        _strength_axis(axes, every, has_start)
    _explain_open(figure, every)
    share_legend(figure, 4)
    return figure
