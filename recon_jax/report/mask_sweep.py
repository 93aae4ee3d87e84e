"""Closed form against trained encoders, over corruptions: tables, figure and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from recon_jax.report.figures import COLORS, new_figure, plot_image_strip
from recon_jax.report.masked_autoencoder import spread
from recon_jax.report.tables import Table

READ_OUTS = {"linear_probe": "linear probe", "knn": "kNN"}
# Which corruptions are compared. Those that drop patches are trained alike, others by another loss.
GROUPS = {"all": lambda cell: True, "dropping patches": lambda cell: cell.drops_patches}
# Kinds of corruption, by the names of their factories: colour and marker.
KINDS = {
    "none": (COLORS[0], "o"),
    "Gaussian noise": (COLORS[6], "v"),
    "single pixels": (COLORS[4], "P"),
    "random patches": (COLORS[1], "s"),
    "one block": (COLORS[2], "D"),
    "regular grid": (COLORS[3], "^"),
    "other": (COLORS[5], "X"),
}
_FACTORIES = {
    "identity": "none",
    "gaussian": "Gaussian noise",
    "pixel_mask": "single pixels",
    "patch_mask": "random patches",
    "patch_subset": "random patches",
    "block_mask": "one block",
    "grid_mask": "regular grid",
}


class Cell(NamedTuple):
    """One corruption: what the closed form says, and what was read from trained encoders.

    Attributes:
      name: of the corruption.
      kind: a key of `KINDS`.
      alignment: in closed form (D,), in [0, 1].
      impact: its relative change against no corruption (D,).
      is_neutral: whether the closed form says that it can never help.
      drops_patches: whether the encoder sees whole patches or none, and the loss is over the hidden
        ones; else it sees all patches, and the loss is over all.
      linear_probe: test accuracy in % (seeds,).
      knn: test accuracy in % (seeds,).
      error: of the reconstruction of test images, as in training (seeds,).
      seconds: of a training run.
    """

    name: str
    kind: str
    alignment: np.ndarray
    impact: np.ndarray
    is_neutral: bool
    drops_patches: bool
    linear_probe: np.ndarray
    knn: np.ndarray
    error: np.ndarray
    seconds: float


class Agreement(NamedTuple):
    """Spearman's rank correlation over corruptions of alignment at one K and one accuracy.

    Attributes:
      group: a key of `GROUPS`: over which corruptions.
      rank: K.
      read_out: a key of `READ_OUTS`.
      correlation: of alignment with the mean accuracy over seeds; NaN where either is constant.
      low: lower end of the 95% confidence interval.
      high: upper end.
      by_seed: the correlation with the accuracies of each seed (seeds,).
      num_cells: corruptions.
    """

    group: str
    rank: int
    read_out: str
    correlation: float
    low: float
    high: float
    by_seed: np.ndarray
    num_cells: int


def kind_of(factory: str) -> str:
    """The kind of a corruption, from the name of its factory."""
    return _FACTORIES.get(factory, "other")


def spearman_interval(correlation: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a rank correlation over `count` pairs.

    tanh(artanh(r) -+ z sqrt((1 + r^2 / 2) / (count - 3))), the whole range for fewer than 4 pairs.

    Args:
      correlation: r in [-1, 1].
      count: number of pairs, taken as drawn independently.
      level: probability of the interval, in (0, 1).

    Source: Bonett & Wright 2000, Psychometrika 65, 23-28.
    """
    if count < 4 or not np.isfinite(correlation):
        return -1.0, 1.0
    inside = min(max(correlation, -1 + 1e-12), 1 - 1e-12)
    half = stats.norm.ppf((1 + level) / 2) * math.sqrt((1 + correlation**2 / 2) / (count - 3))
    low, high = np.tanh(np.arctanh(inside) + np.array([-half, half]))
    return float(low), float(high)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    # Rounded, so that what is equal in exact arithmetic is tied.
    x = np.round(x, 9)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def agreements(cells: Sequence[Cell], ranks: Sequence[int]) -> list[Agreement]:
    """The correlations over every group, at every K and read-out.

    Args:
      cells: corruptions.
      ranks: K, each in 1 .. D.
    """
    found = []
    for group, belongs in GROUPS.items():
        members = [cell for cell in cells if belongs(cell)]
        for read_out in READ_OUTS if members else ():
            accuracy = np.stack([getattr(cell, read_out) for cell in members])
            for rank in ranks:
                alignment = np.array([cell.alignment[rank - 1] for cell in members])
                value = _correlation(alignment, accuracy.mean(1))
                by_seed = np.array([_correlation(alignment, column) for column in accuracy.T])
                interval = spearman_interval(value, len(members))
                found.append(
                    Agreement(group, rank, read_out, value, *interval, by_seed, len(members))
                )
    return found


def cell_table(
    cells: Sequence[Cell], references: Mapping[str, np.ndarray], rank: int, note: str
) -> Table:
    """Prediction and outcome of every corruption, and what is read without training.

    Args:
      cells: corruptions.
      references: name -> accuracies in % (seeds, 2) of the two read-outs.
      rank: K of the prediction.
      note: setting, in words.
    """
    rows = [
        [
            cell.name,
            f"{100 * cell.alignment[rank - 1]:.1f}",
            f"{100 * cell.impact[rank - 1]:+.2f}",
            "yes" if cell.is_neutral else "no",
            spread(cell.linear_probe),
            spread(cell.knn),
            spread(cell.error, digits=3),
            f"{cell.seconds:.0f}",
        ]
        for cell in cells
    ]
    for name, found in references.items():
        rows.append([name, *"---", spread(found[:, 0]), spread(found[:, 1]), "-", "-"])
    columns = [
        "corruption",
        f"alignment, K = {rank} (%)",
        "impact (%)",
        "never helps",
        "linear probe (%)",
        "kNN (%)",
        "test error",
        "seconds a run",
    ]
    title = "Closed form, and test accuracy of trained encoders; mean ± standard deviation"
    return Table("corruptions", title, columns, rows, note + " The paper trains none.")


def _range(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{known.min():+.2f} to {known.max():+.2f}" if len(known) else "-"


def agreement_table(found: Sequence[Agreement], rank: int, note: str) -> Table:
    """Rank correlations over corruptions at every K."""
    rows = [
        [
            READ_OUTS[item.read_out],
            item.group,
            f"{item.rank}{' (chosen beforehand)' if item.rank == rank else ''}",
            f"{item.correlation:+.2f}",
            f"{item.low:+.2f} to {item.high:+.2f}",
            _range(item.by_seed),
            item.num_cells,
        ]
        for item in found
    ]
    columns = ["read-out", "among", "K", "Spearman", "95% interval", "by seed", "corruptions"]
    title = "Rank correlation of closed-form alignment and trained accuracy"
    extra = " Intervals take corruptions as drawn independently (Bonett & Wright 2000)."
    return Table("agreement", title, columns, rows, note + extra)


def _verdict(item: Agreement) -> str:
    if not np.isfinite(item.correlation):
        return "no order to compare"
    if item.low > 0:
        return "the closed form predicts the order"
    if item.high < 0:
        return "the order is the reverse of the closed form's"
    return "the interval holds 0: no evidence that the closed form predicts the order"


def _difference(cell: Cell, clean: Cell, read_out: str) -> tuple[float, float]:
    """Mean over seeds of the accuracy minus that without corruption, and its standard error."""
    gap = getattr(cell, read_out) - getattr(clean, read_out)
    error = gap.std(ddof=1) / math.sqrt(len(gap)) if len(gap) > 1 else float("nan")
    return float(gap.mean()), float(error)


def noise_line(cells: Sequence[Cell], read_out: str) -> str:
    """Whether noise, which in closed form changes nothing, changes what is read; "" without."""
    clean = next(cell for cell in cells if cell.kind == "none")
    parts, seen = [], []
    for cell in cells:
        if cell.kind != "Gaussian noise":
            continue
        gap, error = _difference(cell, clean, read_out)
        shown = f"{gap:+.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")
        parts.append(f"{cell.name} {shown}")
        seen.append(abs(gap) > stats.t.ppf(0.975, len(cell.knn) - 1) * error)
    if not parts:
        return ""
    if len(clean.knn) < 2:
        verdict = "one seed has no spread to judge it by"
    elif any(seen):
        verdict = "more than the spread over seeds explains (95%) for at least one level"
    else:
        verdict = "no more than the spread over seeds explains (95%)"
    return (
        "Gaussian noise: the closed form says no effect at any level. Change of "
        f"{READ_OUTS[read_out]} in points, with standard error over seeds: {'; '.join(parts)}: "
        f"{verdict}."
    )


def summarize(
    cells: Sequence[Cell],
    found: Sequence[Agreement],
    references: Mapping[str, np.ndarray],
    rank: int,
) -> list[str]:
    """The answers in words.

    Args:
      cells: corruptions, one of them none.
      found: from `agreements`.
      references: see `cell_table`.
      rank: K that was chosen beforehand.
    """
    lines = []
    for item in found:
        if item.rank == rank:
            lines.append(
                f"{READ_OUTS[item.read_out]}: Spearman {item.correlation:+.2f} ({item.low:+.2f} to "
                f"{item.high:+.2f}) over {item.num_cells} corruptions ({item.group}) at "
                f"K = {rank}: {_verdict(item)}."
            )
    clean = next(cell for cell in cells if cell.kind == "none")
    predicted = max(cells, key=lambda cell: cell.alignment[rank - 1])
    best = max(cells, key=lambda cell: cell.linear_probe.mean())
    lines.append(
        f"Predicted best: {predicted.name} ({100 * predicted.impact[rank - 1]:+.1f}% alignment), "
        f"linear probe {spread(predicted.linear_probe)}%. Trained best: {best.name}, "
        f"{spread(best.linear_probe)}%. Without corruption: {spread(clean.linear_probe)}%."
    )
    untrained = references["untrained"][:, 0]
    below = sum(cell.linear_probe.mean() < untrained.mean() for cell in cells)
    lines += [line for line in (noise_line(cells, name) for name in READ_OUTS) if line]
    lines.append(
        f"An untrained encoder gives {spread(untrained)}%, pixels "
        f"{spread(references['pixels'][:, 0])}%; {below} of {len(cells)} trained encoders are "
        "below the untrained one."
    )
    return lines


def scatter_figure(
    cells: Sequence[Cell], references: Mapping[str, np.ndarray], rank: int
) -> Figure:
    """Accuracy over alignment, one panel a read-out, one point a corruption."""
    figure, axes = new_figure(9.2, 4.4, 1, len(READ_OUTS), sharex=True)
    for index, (ax, (field, label)) in enumerate(zip(axes[0], READ_OUTS.items(), strict=True)):
        for kind, (color, marker) in KINDS.items():
            members = [cell for cell in cells if cell.kind == kind]
            if not members:
                continue
            values = [getattr(cell, field) for cell in members]
            ax.errorbar(
                [100 * cell.alignment[rank - 1] for cell in members],
                [value.mean() for value in values],
                [value.std(ddof=1) if len(value) > 1 else 0.0 for value in values],
                color=color,
                marker=marker,
                linestyle="",
                capsize=2,
                markersize=5,
                label=kind,
            )
        for name, line in (("untrained", "--"), ("pixels", ":")):
            height = references[name][:, index].mean()
            ax.axhline(
                height, color="gray", linestyle=line, linewidth=1, label=f"{name}, no training"
            )
        ax.set(
            title=label,
            xlabel=f"alignment in closed form, K = {rank} (%)",
            ylabel="test accuracy (%)",
        )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def strips(images: Mapping[str, np.ndarray]) -> Figure:
    """Corrupted images, one row a corruption."""
    figure, axes = new_figure(8.5, 0.75 * len(images), len(images), 1)
    for ax, (label, row) in zip(axes[:, 0], images.items(), strict=True):
        plot_image_strip(ax, row, label)
    return figure
