"""Variational autoencoders by what a pixel of the decoder sees: table, figures, answer in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from recon_jax.report.figures import COLORS, LINES, new_figure
from recon_jax.report.masked_autoencoder import UNPUBLISHED, spread
from recon_jax.report.tables import Table
from recon_jax.report.vae_outcomes import (
    READ_OUTS,
    baseline_cells,
    by_size,
    cell_columns,
    collapse_line,
    compare,
    decoder_style,
    deviation,
    error_bars,
    find,
    gap,
    local_of,
    outcome_cells,
    paired,
    share_legend,
    verdict,
)
from recon_jax.report.vae_outcomes import Baseline as Baseline
from recon_jax.report.vae_outcomes import Outcome as Outcome

# (dataset, latent size, horizon): the one line of a notebook in the released code of Zhang et al.
# 2022 (arXiv 2205.14539).
PUBLISHED = {("CIFAR-10", 64, None): "71.46 (SVM; MLP: 75.24; 3.0328 bits per dimension)"}
PAPER = (
    "Paper: Zhang et al. 2022; known of it is one line of a notebook in the released code: "
    "CIFAR-10, latent of 64, full context by its flag, residual networks, augmented by crops and "
    "flips, 256 levels, one run, linear SVM on all labels. Whether it stands in a table of the "
    "paper is not known here."
)
CODE_LENGTH_CAPTION = (
    "Top: bits per dimension of test images, what the latent says and what is left for the pixels. "
    "Bottom: the latent's part, enlarged; hatched, what the context of the pixels has taken over "
    "from it, compared with the factorised decoder; in brackets, the difference from that one. "
    "Mean and standard deviation over seeds."
)
ACCURACY_CAPTION = (
    "Test accuracy of what is read from posterior means, by decoder; mean and standard deviation "
    "over seeds."
)
DIRECTIONS_CAPTION = (
    "Share of the variance of each principal direction of the pixels that is linearly read from "
    "the latent, on test images, mean over seeds; where there are many directions, mean over bins."
)
PICTURES_CAPTION = (
    "Test images; images drawn from p(x|z) at their posterior means; and at latents of the prior."
)


def local_vae_table(
    outcomes: Sequence[Outcome],
    baselines: Sequence[Baseline],
    shots: int,
    note: str,
    dataset: str,
) -> Table:
    """Code length and read-outs of every decoder, beside the paper's.

    Args:
      outcomes: over the same seeds.
      baselines: without a network.
      shots: labels a class of the few-label read-outs.
      note: setting, seeds, device.
      dataset: "CIFAR-10", the one with a published number, or another.
    """
    rows = []
    for item in outcomes:
        published = PUBLISHED.get((dataset, item.latent_size, item.horizon), UNPUBLISHED)
        rows.append([*outcome_cells(item), published, f"{item.seconds.mean():.0f}"])
    rows += [[*baseline_cells(item), UNPUBLISHED, "-"] for item in baselines]
    columns = [*cell_columns(shots), "paper's linear probe", "seconds a run"]
    title = "Code length, and test accuracy (%) of what is read from the latent, by decoder"
    return Table("decoders", title, columns, rows, f"{dataset}. {PAPER} {note}")


def _code_line(group: Sequence[Outcome]) -> str:
    """Which decoder has the fewest bits, and by how much; which the largest KL."""
    ordered = sorted(group, key=lambda item: item.bits.mean())
    least, largest = ordered[0], max(group, key=lambda item: item.kl.mean())
    lead = ""
    if len(ordered) > 1:
        below = paired(ordered[1].bits, least.bits)
        words = {"better": "more than twice the spread", "tie": "within twice the spread"}
        word = words.get(verdict(below), "one seed, spread unknown")
        lead = f", {spread(below, digits=3)} below {ordered[1].name} ({word})"
    return (
        f"{least.name} has the fewest bits per dimension, {spread(least.bits, digits=3)}{lead}; "
        f"{largest.name} has the largest KL, {spread(largest.kl)} nats."
    )


def _probe_line(group: Sequence[Outcome]) -> str:
    """Whether the decoder with the fewest bits is the one with the best read-outs."""
    least = min(group, key=lambda item: item.bits.mean())
    parts, agree, sure = [], 0, []
    for measure, name in READ_OUTS.items():
        # Stable, so that of equal ones the decoder with the fewest bits is the best.
        ordered = sorted(
            [least, *(item for item in group if item is not least)],
            key=lambda item, key=measure: -getattr(item, key).mean(),
        )
        best = ordered[0]
        agree += best is least
        rival = ordered[1] if best is least else least
        lead = gap(best, rival, measure)
        sure.append(verdict(lead) == "better")
        parts.append(f"{name}: {best.name}, {spread(lead, '+')} on {rival.name}")
    word = {0: "does not come", len(READ_OUTS): "comes"}.get(agree, "comes in part")
    ending = f"{sum(sure)} of {len(sure)} leads are more than twice the spread over seeds"
    if len(least.bits) < 2:
        ending = "one seed, spread unknown"
    return (
        f"lower bits per dimension {word} with better probes: {least.name} has the fewest bits; "
        f"the best by mean, in points, are {'; '.join(parts)} ({ending})."
    )


def _moved_line(group: Sequence[Outcome], reference: Outcome) -> str:
    """Nats that the decoders took over from the latent."""
    parts = []
    for item in group:
        if item is not reference:
            moved = paired(reference.kl, item.kl)
            shown = spread(moved / math.log(2) / item.dimensions, "+", 3)
            parts.append(f"{item.name} {spread(moved, '+')} nats ({shown} bits per dimension)")
    return (
        "moved from the latent into the context of the pixels (KL of factorised minus its own; "
        f"negative: the latent says more): {', '.join(parts)}."
    )


def _size_lines(group: Sequence[Outcome], baselines: Sequence[Baseline]) -> list[str]:
    local, reference = local_of(group), find(group, 0)
    pixels = next((item for item in baselines if item.name == "pixels"), None)
    rivals = [item for item in (reference, find(group, None), pixels) if item is not None]
    lines = [compare(local, rival) for rival in rivals] if local else []
    lines.append(_code_line(group))
    if len(group) > 1:
        lines.append(_probe_line(group))
        lines += [_moved_line(group, reference)] if reference else []
    return lines + [line for line in map(collapse_line, group) if line]


def answer(outcomes: Sequence[Outcome], baselines: Sequence[Baseline]) -> list[str]:
    """The findings in words, latent size by latent size.

    Args:
      outcomes: over the same seeds; the local decoder that is judged is the one of the shortest
        horizon, whatever its accuracy.
      baselines: "pixels" is compared with, the others stand in the table.
    """
    return [
        f"Latent of {size}: {line}"
        for size, group in by_size(outcomes).items()
        for line in _size_lines(group, baselines)
    ]


def _moved_bars(axes, group: Sequence[Outcome], reference: Outcome | None) -> None:
    """KL in nats, and what is missing of the factorised decoder's."""
    heights = [item.kl.mean() for item in group]
    axes.bar(
        range(len(group)),
        heights,
        0.6,
        yerr=error_bars([item.kl for item in group]),
        capsize=3,
        color=COLORS[2],
        label="latent (KL)",
    )
    for place, (item, height) in enumerate(zip(group, heights, strict=True)):
        text, above = f"{height:.1f}", height + deviation(item.kl)
        if reference is not None and item is not reference:
            moved = reference.kl.mean() - height
            if moved > 0:
                style = {"edgecolor": COLORS[1], "hatch": "////", "linewidth": 0.8}
                label = "moved to the context of the pixels"
                axes.bar(place, moved, 0.6, height, fill=False, zorder=0, label=label, **style)
                above = max(above, reference.kl.mean())
            text += f"\n({-moved:+.1f})"
        axes.annotate(text, (place, above), (0, 2), textcoords="offset points", ha="center", size=8)


def code_length_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Code length of test images by decoder: the latent's part, the pixels', and what moved.

    One column a latent size; top: stacked, in bits per dimension; bottom: the KL in nats an image.
    """
    groups = by_size(outcomes)
    widest = max(len(group) for group in groups.values())
    width = 0.8 + len(groups) * max(2.6, 0.85 * widest)
    figure, axes = new_figure(width, 5.6, 2, len(groups), sharey="row")
    highest = [
        max(found.mean() + deviation(found) for found in series)
        for series in ([item.bits for item in outcomes], [item.kl for item in outcomes])
    ]
    for (top, bottom), (size, group) in zip(axes.T, groups.items(), strict=True):
        latent = [(item.kl / (math.log(2) * item.dimensions)).mean() for item in group]
        total = [item.bits.mean() for item in group]
        rest = np.subtract(total, latent)
        places = range(len(group))
        top.bar(places, latent, 0.6, color=COLORS[2], label="latent (KL)")
        errors = error_bars([item.bits for item in group])
        style = {"color": COLORS[5], "label": "pixels, given latent and context", "capsize": 3}
        top.bar(places, rest, 0.6, latent, yerr=errors, **style)
        for place, item in enumerate(group):
            at = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "size": 8}
            height = item.bits.mean()
            top.annotate(f"{height:.3f}", (place, height + deviation(item.bits)), **at)
        top.set(title=f"latent of {size}", ylim=(0, 1.15 * highest[0]))
        _moved_bars(bottom, group, find(group, 0))
        bottom.set_ylim(0, 1.3 * highest[1] or 1)
        for ax in (top, bottom):
            ax.set_xticks(places, [item.name.replace(", ", "\n") for item in group])
            ax.grid(False, axis="x")
    axes[0, 0].set_ylabel("bits per dimension")
    axes[1, 0].set_ylabel("KL (nats an image)")
    share_legend(figure, 3 if len(groups) > 1 else 1)
    return figure


def accuracy_figure(outcomes: Sequence[Outcome], baselines: Sequence[Baseline]) -> Figure:
    """The read-outs by decoder, one panel each; baselines as lines.

    Args:
      outcomes: in any order of latent sizes; decoders in the order of the x axis.
      baselines: those of a latent size that is there have its colour.
    """
    names = list(dict.fromkeys(item.name for item in outcomes))
    groups = by_size(outcomes)
    colors = {size: COLORS[(1 + i) % len(COLORS)] for i, size in enumerate(groups)}
    figure, axes = new_figure(max(6.5, 1.8 * len(names)), 5.6, 2, 2, sharex=True)
    for ax, (measure, title) in zip(axes.ravel(), READ_OUTS.items(), strict=True):
        for index, (size, group) in enumerate(groups.items()):
            shift = 0.14 * (index - (len(groups) - 1) / 2)
            values = [getattr(item, measure) for item in group]
            ax.errorbar(
                [names.index(item.name) + shift for item in group],
                [value.mean() for value in values],
                error_bars(values),
                color=colors[size],
                marker="os^DvP"[index % 6],
                linestyle="",
                capsize=3,
                label=f"latent of {size}",
            )
        for index, item in enumerate(baselines):
            color = colors.get(item.latent_size, "gray")
            height = getattr(item, measure).mean()
            style = {"color": color, "linestyle": LINES[1 + index % 3], "linewidth": 1}
            ax.axhline(height, label=item.name, zorder=0, **style)
        ax.set(title=title, ylabel="test accuracy (%)", xlim=(-0.5, len(names) - 0.5))
        ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names])
    share_legend(figure)
    return figure


def log_bins(values: np.ndarray, num_bins: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Centres and means of values (P,) over index 1 .. P in bins of equal width in log index.

    Up to 2 num_bins values are left as they are; bins without an index are left out.
    """
    index = np.arange(1, len(values) + 1)
    if len(values) <= 2 * num_bins:
        return index.astype(float), np.asarray(values, float)
    edges = np.geomspace(1, len(values) * (1 + 1e-9), num_bins + 1)
    place = np.searchsorted(edges, index, side="right")
    bins = [place == number for number in np.unique(place)]
    centres = [math.exp(np.log(index[inside]).mean()) for inside in bins]
    return np.array(centres), np.array([values[inside].mean() for inside in bins])


def directions_figure(outcomes: Sequence[Outcome], baselines: Sequence[Baseline]) -> Figure:
    """Share of the variance kept by index of principal direction, one panel a latent size.

    Args:
      outcomes: one line each, mean over seeds.
      baselines: of a panel's latent size, if any has shares, drawn as a step.
    """
    groups = by_size(outcomes)
    figure, axes = new_figure(1 + 3.3 * len(groups), 3.4, 1, len(groups), sharey=True)
    for ax, (size, group) in zip(axes[0], groups.items(), strict=True):
        for item in baselines:
            if item.latent_size == size and item.kept is not None:
                index = np.arange(1, len(item.kept) + 1)
                style = {"color": "gray", "linewidth": 1, "drawstyle": "steps-mid"}
                ax.plot(index, item.kept, label="PCA of the same size", **style)
        for item in group:
            style = {"markersize": 3.5, "linewidth": 1.2, **decoder_style(item.name)}
            ax.plot(*log_bins(item.kept.mean(0)), label=item.name, **style)
        ax.set(title=f"latent of {size}", xscale="log", ylim=(-0.03, 1.05))
        ax.set(xlabel="principal direction of the pixels")
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0, 0].set_ylabel("share of variance kept")
    share_legend(figure, 6 if len(groups) > 1 else 2)
    return figure
