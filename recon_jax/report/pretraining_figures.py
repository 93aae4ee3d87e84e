"""Pretraining against supervision from scratch: accuracy, activation maps, regions needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from recon_jax.report.figures import COLORS, new_figure
from recon_jax.report.pretraining_helps import METHODS, TRAINED, Outcome, by_fraction
from recon_jax.report.vae_outcomes import error_bars, share_legend

STYLES = {
    "finetuned": {"color": COLORS[1], "linestyle": "-", "marker": "o"},
    "scratch": {"color": COLORS[2], "linestyle": "--", "marker": "s"},
    "scratch_long": {"color": COLORS[6], "linestyle": "-.", "marker": "D"},
    "probe": {"color": COLORS[5], "linestyle": ":", "marker": "^", "fillstyle": "none"},
    "probe_new": {"color": COLORS[0], "linestyle": ":", "marker": "v", "fillstyle": "none"},
}

ACCURACY_CAPTION = (
    "Test accuracy against the share of labels, mean and standard deviation over seeds."
)
REGIONS_CAPTION = (
    "Left: share of test images whose prediction needs at most so many regions, with the most "
    "labels, all seeds. Right: mean over images against the share of labels, mean and standard "
    "deviation over seeds."
)
MAPS_CAPTION = (
    "Eigen-CAM of networks with the most labels on the same test images, first seed; above each, "
    "regions that keep the logit of the predicted class, and the pieces they lie in. Sharp squares "
    "are these regions, the rest is shaded."
)


class Look(NamedTuple):
    """What one network makes of some images.

    Attributes:
      maps: in [0, 1], one number a region (n, A, B).
      kept: regions that are needed (n, A, B).
      needed: their number (n,); NaN where nothing was measured.
      pieces: separate pieces they lie in (n,); NaN likewise.
    """

    maps: Float[np.ndarray, "n a b"]
    kept: np.ndarray
    needed: np.ndarray
    pieces: np.ndarray


def _over_fractions(ax, outcomes: Sequence[Outcome], methods, values) -> None:
    """One line a method of values(outcome) (seeds,) against the per cent of labels."""
    found = by_fraction(outcomes)
    shown = [100 * fraction for fraction in found]
    for place, method in enumerate(methods):
        rows = [values(items[method]) for items in found.values()]
        # Side by side, so that bars can be told apart.
        shift = 1.03 ** (place - (len(methods) - 1) / 2)
        ax.errorbar(
            [shift * percent for percent in shown],
            [row.mean() for row in rows],
            error_bars(rows),
            capsize=3,
            markersize=5,
            linewidth=1.2,
            label=METHODS[method],
            **STYLES[method],
        )
    ax.set(xscale="log", xlabel="labelled training images (%)")
    ax.set_xticks(shown, [f"{percent:g}" for percent in shown])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()


def accuracy_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Accuracy against the share of labels, one line a method."""
    figure, axes = new_figure(6.5, 4.8)
    _over_fractions(axes[0, 0], outcomes, list(METHODS), lambda item: item.accuracy)
    axes[0, 0].set_ylabel("test accuracy (%)")
    share_legend(figure, 2)
    return figure


def regions_figure(outcomes: Sequence[Outcome], regions: int) -> Figure:
    """How many regions predictions need: over images, and against the share of labels.

    Args:
      outcomes: every method at every fraction.
      regions: of an image.
    """
    figure, axes = new_figure(8.5, 3.8, 1, 2)
    left, right = axes[0]
    most = list(by_fraction(outcomes).values())[-1]
    steps = np.arange(regions + 1)
    for method in TRAINED:
        style = {name: STYLES[method][name] for name in ("color", "linestyle")}
        for values, thickness in ((most[method].needed, 1.6), (most[method].unordered, 0.6)):
            reached = (values.ravel()[:, None] <= steps[None, :]).mean(0)
            left.step(steps, reached, where="post", linewidth=thickness, **style)
    left.set(
        xlabel="regions kept",
        ylabel="share of images",
        ylim=(0, 1.02),
        title=most["finetuned"].share,
    )
    _over_fractions(right, outcomes, list(TRAINED), lambda item: item.needed.mean(1))
    right.set_ylabel(f"regions needed, of {regions}")
    share_legend(figure, 3)
    return figure


def _without_axes(ax) -> None:
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def maps_figure(images: Float[np.ndarray, "n h w c"], looks: Mapping[str, Look]) -> Figure:
    """One row of images, then one row of maps for each network.

    Args:
      images: in [0, 1]; what lies outside is clipped.
      looks: method -> what it makes of these images.
    """
    images = np.clip(images, 0, 1)
    shown = images.squeeze(-1) if images.shape[-1] == 1 else images
    count, (height, width) = len(images), images.shape[1:3]
    size = (1.3 + 0.95 * count, 1.25 * (1 + len(looks)))
    figure, axes = new_figure(*size, 1 + len(looks), count)
    for ax, image in zip(axes[0], shown, strict=True):
        ax.imshow(image, "gray", vmin=0, vmax=1)
        _without_axes(ax)
    names = {"finetuned": "pretrained", "scratch": "scratch", "scratch_long": "scratch, long"}
    for row, (method, look) in zip(axes[1:], looks.items(), strict=True):
        cell = np.ones((height // look.maps.shape[1], width // look.maps.shape[2]))
        for i, ax in enumerate(row):
            ax.imshow(shown[i], "gray", vmin=0, vmax=1)
            # Opaque where the region is not needed.
            cover = np.kron(np.where(look.kept[i], 0.35, 0.8), cell)
            ax.imshow(np.kron(look.maps[i], cell), "viridis", vmin=0, vmax=1, alpha=cover)
            known = np.isfinite(look.needed[i])
            title = f"{look.needed[i]:.0f} in {look.pieces[i]:.0f}" if known else "-"
            ax.set_title(title, fontsize=8)
            _without_axes(ax)
        row[0].set_ylabel(names.get(method, method), rotation=0, ha="right", va="center")
    axes[0, 0].set_ylabel("image", rotation=0, ha="right", va="center")
    return figure
