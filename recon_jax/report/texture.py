"""Variational autoencoders on images under a texture of growing strength: table, figures, words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from recon_jax.report.figures import new_figure
from recon_jax.report.masked_autoencoder import UNPUBLISHED, spread
from recon_jax.report.tables import Table
from recon_jax.report.vae_outcomes import (
    READ_OUTS,
    VERDICTS,
    Baseline,
    Outcome,
    baseline_cells,
    by_size,
    cell_columns,
    collapse_line,
    decoder_style,
    error_bars,
    find,
    gap,
    local_of,
    outcome_cells,
    share_legend,
    verdict,
)

PAPER = (
    "Paper: Zhang et al. 2022 have no such experiment; the texture is synthetic, a stand-in for "
    "that of natural images."
)
ACCURACY_CAPTION = (
    "Test accuracy of what is read from posterior means against the strength of the texture, mean "
    "and standard deviation over seeds; grey: the same read-outs without a network."
)
KL_CAPTION = (
    "What the latent says, and the whole code length, against the strength of the texture; mean "
    "and standard deviation over seeds."
)


class Point(NamedTuple):
    """All that was trained at one strength.

    Attributes:
      strength: standard deviation of the texture, in units of the range of pixels; 0 is none.
      outcomes: decoders and latent sizes.
      baselines: without a network.
    """

    strength: float
    outcomes: list[Outcome]
    baselines: list[Baseline]


def texture_table(points: Sequence[Point], shots: int, note: str) -> Table:
    """Code length and read-outs of every decoder at every strength.

    Args:
      points: in the order of the rows.
      shots: labels a class of the few-label read-outs.
      note: setting, seeds, device.
    """
    rows = []
    for point in points:
        strength = f"{point.strength:g}"
        for item in point.outcomes:
            seconds = f"{item.seconds.mean():.0f}"
            rows.append([strength, *outcome_cells(item), UNPUBLISHED, seconds])
        rows += [[strength, *baseline_cells(item), UNPUBLISHED, "-"] for item in point.baselines]
    columns = ["strength", *cell_columns(shots), "paper", "seconds a run"]
    title = "Code length, and test accuracy (%) of what is read from the latent, by texture"
    return Table("texture", title, columns, rows, f"{PAPER} {note}")


def _series(
    points: Sequence[Point], size: int, horizon: int | None
) -> tuple[list[float], list[Outcome]]:
    """Strengths at which this decoder was trained, ascending, and its outcomes there."""
    found = []
    for point in sorted(points, key=lambda point: point.strength):
        item = find(by_size(point.outcomes).get(size, []), horizon)
        if item is not None:
            found.append((point.strength, item))
    return [strength for strength, _ in found], [item for _, item in found]


def _cells(points: Sequence[Point]) -> dict[int, list[int | None]]:
    """Horizons of each latent size, in the order in which they come."""
    sizes = by_size([item for point in points for item in point.outcomes])
    return {
        size: list(dict.fromkeys(item.horizon for item in group)) for size, group in sizes.items()
    }


def _lines(
    axes, points: Sequence[Point], size: int, value: Callable[[Outcome], np.ndarray]
) -> None:
    for horizon in _cells(points)[size]:
        strengths, items = _series(points, size, horizon)
        values = [value(item) for item in items]
        axes.errorbar(
            strengths,
            [found.mean() for found in values],
            error_bars(values),
            capsize=3,
            markersize=4,
            linewidth=1.2,
            label=items[0].name,
            **decoder_style(items[0].name),
        )


def _baseline_lines(axes, points: Sequence[Point], size: int, measure: str) -> None:
    """Pixels, and the PCA of this size, if any."""
    for latent, dashes, label in ((0, (6, 2), "pixels"), (size, (2, 2), "PCA of the same size")):
        found = [
            (point.strength, getattr(item, measure).mean())
            for point in sorted(points, key=lambda point: point.strength)
            for item in point.baselines
            if item.latent_size == latent
        ]
        if found:
            style = {"color": "gray", "linestyle": (0, dashes), "linewidth": 1, "zorder": 1}
            axes.plot(*zip(*found, strict=True), label=label, **style)


def texture_figure(points: Sequence[Point]) -> Figure:
    """The read-outs against strength, one row a latent size, one line a decoder."""
    sizes = _cells(points)
    figure, axes = new_figure(11, 0.7 + 2.6 * len(sizes), len(sizes), len(READ_OUTS), sharex=True)
    for row, size in zip(axes, sizes, strict=True):
        for ax, (measure, title) in zip(row, READ_OUTS.items(), strict=True):
            _baseline_lines(ax, points, size, measure)
            _lines(ax, points, size, lambda item, key=measure: getattr(item, key))
            ax.set_title(f"{title}, latent of {size}")
        row[0].set_ylabel("test accuracy (%)")
    for ax in axes[-1]:
        ax.set_xlabel("strength of the texture")
    share_legend(figure, 7)
    return figure


def kl_figure(points: Sequence[Point]) -> Figure:
    """KL in nats, and bits per dimension, against strength; one row a latent size."""
    sizes = _cells(points)
    figure, axes = new_figure(7.5, 0.7 + 2.6 * len(sizes), len(sizes), 2, sharex=True)
    for (left, right), size in zip(axes, sizes, strict=True):
        _lines(left, points, size, lambda item: item.kl)
        _lines(right, points, size, lambda item: item.bits)
        left.set(title=f"latent of {size}", ylabel="KL (nats an image)")
        left.set_ylim(0, None)
        right.set(title=f"latent of {size}", ylabel="bits per dimension")
    for ax in axes[-1]:
        ax.set_xlabel("strength of the texture")
    share_legend(figure, 5)
    return figure


def _compare(
    pairs: Sequence[tuple[float, Outcome, Outcome | Baseline]], measure: str
) -> dict[str, list[str]]:
    """Verdict -> strengths with their differences in points."""
    found: dict[str, list[str]] = {word: [] for word in VERDICTS}
    for strength, first, second in pairs:
        difference = gap(first, second, measure)
        found[verdict(difference)].append(f"{strength:g} ({spread(difference, '+')})")
    return found


def _rival_lines(points: Sequence[Point], size: int, horizon: int) -> list[str]:
    """The local decoder against the factorised one, the full one and pixels, by read-out."""
    strengths, ours = _series(points, size, horizon)
    rivals: dict[str, dict[float, Outcome | Baseline]] = {}
    for other in (0, None):
        at, items = _series(points, size, other)
        if items:
            rivals[items[0].name] = dict(zip(at, items, strict=True))
    pixels = {
        point.strength: item
        for point in points
        for item in point.baselines
        if item.name == "pixels"
    }
    words = {word: word for word in VERDICTS} | {"unknown": "one seed, spread unknown,"}
    lines = []
    for name, others in {**rivals, "pixels": pixels}.items():
        pairs = [
            (strength, item, others[strength])
            for strength, item in zip(strengths, ours, strict=True)
            if strength in others
        ]
        for measure, title in READ_OUTS.items() if pairs else ():
            found = _compare(pairs, measure)
            parts = [f"{words[word]} at {', '.join(at)}" for word, at in found.items() if at]
            lines.append(f"{ours[0].name} against {name}, {title}: {'; '.join(parts)}.")
    return lines


def _kl_line(points: Sequence[Point], size: int) -> str:
    parts = []
    for horizon in _cells(points)[size]:
        strengths, items = _series(points, size, horizon)
        values = ", ".join(
            f"{spread(item.kl)} at {strength:g}"
            for strength, item in zip(strengths, items, strict=True)
        )
        parts.append(f"{items[0].name} {values}")
    return f"KL in nats by strength: {'; '.join(parts)}."


def texture_answer(points: Sequence[Point]) -> list[str]:
    """Where the local decoder beats the others, in points; the KL; what collapsed.

    Args:
      points: decoders over the same seeds; the local decoder is the one of the shortest horizon,
        whatever its accuracy.
    """
    lines = [
        "Better and worse are by more than twice the spread of paired differences over seeds, a "
        "tie is within it; in brackets, points."
    ]
    groups = by_size([item for point in points for item in point.outcomes])
    for size, group in groups.items():
        local = local_of(group)
        found = _rival_lines(points, size, local.horizon) if local else []
        for point in sorted(points, key=lambda point: point.strength):
            told = map(collapse_line, by_size(point.outcomes).get(size, []))
            found += [f"at strength {point.strength:g}, {line}" for line in told if line]
        lines += [f"Latent of {size}: {line}" for line in [*found, _kl_line(points, size)]]
    return lines
