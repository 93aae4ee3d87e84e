"""Masked autoencoders with part of the spectrum as target: tables, figures, answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from recon_jax.report.figures import COLORS, new_figure, plot_image_strip
from recon_jax.report.masked_autoencoder import is_more_than_spread, spread
from recon_jax.report.tables import Table

# Test accuracy in per cent, (fine-tuned, linear probe), of a third party's follow-up to Balestriero
# & LeCun 2024, not the paper's: github.com/turhancan97, ViT-Tiny, one run each, read off an image.
THIRD_PARTY: Mapping[str, Mapping[str, tuple[float, float | None]]] = {
    "CIFAR-10": {
        "all": (88.5, 61.5),
        "none": (81.3, None),
        "bottom 25%": (90.2, 63.8),
        "bottom 10%": (92.2, 63.6),
        "top 75%": (89.4, 60.7),
        "top 60%": (88.0, 56.0),
    },
    "CIFAR-100": {
        "all": (67.1, 37.0),
        "none": (59.3, None),
        "bottom 25%": (68.2, 37.3),
        "top 75%": (64.3, 27.0),
    },
}
THIRD_PARTY_SETTING = (
    "third party (turhancan97 on GitHub, not the paper's authors): ViT-Tiny, 12 encoder and 4 "
    "decoder blocks, patches of 2, ratio 0.75, 400 epochs, fine-tuned 100 epochs, one run each, "
    "no spread published"
)
UNPUBLISHED = "not published here"
NAMES = {"all": "original", "none": "no pretraining"}
CAPTION = (
    "Test accuracy by target, mean and standard deviation over seeds; diamonds are a third party's "
    "numbers, of another setting, for the order of targets alone."
)
STRIP_CAPTION = "Test images and the targets made of them, each stretched to its own range."
MEASURES = {"finetuned": "fine-tuned", "linear": "linear probe", "knn": "nearest neighbours"}


class Outcome(NamedTuple):
    """Autoencoders with one target, over seeds.

    Attributes:
      target: "all", "none" (no pretraining), or the label of a subspace, such as "bottom 25%".
      rank: components kept; 0 without pretraining.
      variance: per cent of the variance kept; NaN without pretraining.
      finetuned: test accuracy in per cent (seeds,).
      linear: of logistic regression on the frozen encoder (seeds,).
      knn: of nearest neighbours (seeds,).
      error: of the reconstruction of the target, over its variance (seeds,); NaN without.
    """

    target: str
    rank: int
    variance: float
    finetuned: np.ndarray
    linear: np.ndarray
    knn: np.ndarray
    error: np.ndarray

    @property
    def name(self) -> str:
        """For people."""
        return NAMES.get(self.target, self.target)


def _third_party(outcome: Outcome, dataset: str) -> list[str]:
    found = THIRD_PARTY[dataset].get(outcome.target, (None, None))
    return [UNPUBLISHED if value is None else f"{value:.1f}" for value in found]


def target_table(outcomes: Sequence[Outcome], dataset: str, note: str) -> Table:
    """Test accuracy for every target, beside the third party's.

    Args:
      outcomes: over the same seeds.
      dataset: whose third-party numbers stand beside ours, a key of `THIRD_PARTY`.
      note: setting, seeds, seconds, device.
    """
    rows = []
    for item in outcomes:
        trained = np.isfinite(item.variance)
        rows.append(
            [
                item.name,
                str(item.rank) if trained else "-",
                f"{item.variance:.1f}" if trained else "-",
                spread(100 * item.error) if trained else "-",
                spread(item.finetuned),
                spread(item.linear),
                spread(item.knn),
                *_third_party(item, dataset),
            ]
        )
    columns = [
        "target",
        "components",
        "variance (%)",
        "error (% of target)",
        *MEASURES.values(),
        "third party, fine-tuned",
        "third party, linear",
    ]
    title = "Test accuracy (%) by what a masked autoencoder reconstructs from the original image"
    return Table("targets", title, columns, rows, f"{dataset}, {THIRD_PARTY_SETTING}. {note}")


def _find(outcomes: Sequence[Outcome], target: str) -> Outcome | None:
    return next((item for item in outcomes if item.target == target), None)


def _compare(first: Outcome, second: Outcome) -> str:
    """First minus second, measure by measure."""
    parts = []
    for measure, name in MEASURES.items():
        gap = getattr(first, measure) - getattr(second, measure)
        sure = is_more_than_spread(gap)
        verdict = {
            True: "better by more than the spread" if gap.mean() > 0 else "worse by more than it",
            False: "within the spread",
            None: "one seed, spread unknown",
        }[sure]
        parts.append(f"{name} {spread(gap, '+')} ({verdict})")
    return f"{first.name} against {second.name}, in points: {', '.join(parts)}."


def _verdict(bottom: Outcome, original: Outcome) -> str:
    """Does the bottom beat the original? Only what is judged by the third party too counts."""
    gaps = {
        MEASURES[measure]: getattr(bottom, measure) - getattr(original, measure)
        for measure in ("finetuned", "linear")
    }
    if len(bottom.finetuned) < 2:
        return (
            f"Whether {bottom.name} beats the {original.name} cannot be said from one seed: "
            "its spread is unknown; run with --seeds=0,1,2."
        )
    sure = {name: gap.mean() for name, gap in gaps.items() if is_more_than_spread(gap)}
    better = [name for name, gap in sure.items() if gap > 0]
    worse = [name for name, gap in sure.items() if gap < 0]
    if len(better) == len(gaps):
        return f"Yes: {bottom.name} beats the {original.name} by more than twice the spread."
    if not better:
        ending = "no gap exceeds twice the spread over seeds"
        if worse:
            ending = f"it is worse by more than twice the spread in {', '.join(worse)}"
        return f"No: {bottom.name} does not beat the {original.name}; {ending}."
    rest = f"worse: {', '.join(worse)}" if worse else "the rest is within the spread"
    return (
        f"In part: {bottom.name} beats the {original.name} by more than twice the spread in "
        f"{', '.join(better)}; {rest}."
    )


def answer(outcomes: Sequence[Outcome]) -> list[str]:
    """The verdict on the largest bottom, then every target against the original image."""
    original = _find(outcomes, "all")
    others = [item for item in outcomes if item.target != "all"]
    bottoms = [item for item in others if item.target.startswith("bottom")]
    lines = []
    if bottoms:
        lines.append(_verdict(max(bottoms, key=lambda item: item.variance), original))
    return lines + [_compare(item, original) for item in others]


def _dots(axes, outcomes: Sequence[Outcome], measure: str, dataset: str) -> None:
    for row, item in enumerate(outcomes):
        values = getattr(item, measure)
        error = values.std(ddof=1) if len(values) > 1 else None
        style = {"color": COLORS[1], "marker": "o", "markersize": 6, "capsize": 3}
        axes.errorbar(values.mean(), row, xerr=error, label="ours" if not row else None, **style)
        places = {"finetuned": 0, "linear": 1}
        published = THIRD_PARTY[dataset].get(item.target)
        if measure in places and published and published[places[measure]] is not None:
            style = {"color": COLORS[2], "marker": "D", "markersize": 6, "linestyle": ""}
            label = f"third party, {dataset}" if not row else None
            axes.plot(published[places[measure]], row, mfc="none", label=label, **style)


def target_figure(outcomes: Sequence[Outcome], dataset: str) -> Figure:
    """Test accuracy by target, one panel a read-out; the original image, if any, first.

    Args:
      outcomes: in the order of the rows, from the top.
      dataset: of the third-party markers, a key of `THIRD_PARTY`.
    """
    ordered = sorted(outcomes, key=lambda item: item.target != "all")
    figure, axes = new_figure(9.5, 1.3 + 0.42 * len(ordered), 1, len(MEASURES), sharey=True)
    for ax, (measure, name) in zip(axes[0], MEASURES.items(), strict=True):
        _dots(ax, ordered, measure, dataset)
        ax.set(title=name, xlabel="test accuracy (%)", ylim=(len(ordered) - 0.5, -0.5))
    axes[0, 0].set_yticks(range(len(ordered)), [item.name for item in ordered])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def strip_figure(strips: Mapping[str, np.ndarray]) -> Figure:
    """Images (N, H, W, C), one row a target."""
    count = len(next(iter(strips.values())))
    figure, axes = new_figure(1.3 + count, 1.05 * len(strips), len(strips), 1)
    for ax, (label, images) in zip(axes[:, 0], strips.items(), strict=True):
        plot_image_strip(ax, images, label)
    return figure
