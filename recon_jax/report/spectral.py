"""Figures of the closed forms: image strips and spectrum, alignment curves, impact heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from recon_jax import spectral
from recon_jax.report.figures import (
    new_figure,
    plot_curves,
    plot_heat_map,
    plot_image_strip,
)


def image_parts(
    images: np.ndarray, spectrum: spectral.Spectrum, threshold: float
) -> dict[str, np.ndarray]:
    """Images (N, H, W, C), and their parts in the top and the bottom of the spectrum."""
    top_basis, _ = spectral.split_by_variance(spectrum, threshold)
    top = np.asarray(spectral.project(images, top_basis, spectrum.mean))
    mean = np.asarray(spectrum.mean).reshape(images.shape[1:])
    return {
        "images": images,
        f"top {100 * threshold:g}%": top,
        f"bottom {100 - 100 * threshold:g}%": images - top + mean,
    }


def spectrum_figure(
    explained: np.ndarray, threshold: float, strips: Mapping[str, np.ndarray]
) -> Figure:
    """Cumulative variance over components, and images beside their top and bottom projections.

    Args:
      explained: cumulative fraction of variance (D,).
      threshold: where the top ends.
      strips: label -> images (N, H, W, C), one row each.
    """
    count = len(next(iter(strips.values())))
    figure, axes = new_figure(8, 2.6 + 0.9 * len(strips), 1 + len(strips), 1, height_ratios=[
        2.4, *([1] * len(strips))
    ])  # fmt: skip
    plot_curves(
        axes[0, 0],
        {"pixel variance": 100 * explained},
        xlabel="principal components K",
        ylabel="variance explained (%)",
    )
    split = int(np.sum(explained < threshold))
    axes[0, 0].axvline(max(split, 1), color="#D55E00", linestyle="--")
    axes[0, 0].annotate(
        f" top {100 * threshold:g}%: {split} components",
        (max(split, 1), 100 * explained[0]),
        color="#D55E00",
    )
    for row, (label, images) in enumerate(strips.items(), 1):
        plot_image_strip(axes[row, 0], images[:count], label)
    return figure


def alignment_figure(curves: Mapping[str, np.ndarray], impacts: Mapping[str, np.ndarray]) -> Figure:
    """Alignment with the labels over K, and its change by each corruption in per cent."""
    figure, axes = new_figure(9, 3.8, 1, 2)
    plot_curves(
        axes[0, 0],
        {name: 100 * curve for name, curve in curves.items()},
        xlabel="latents K",
        ylabel="alignment with the labels a(K) (%)",
    )
    plot_curves(
        axes[0, 1],
        {name: 100 * impact for name, impact in impacts.items()},
        xlabel="latents K",
        ylabel="impact of the corruption (%)",
    )
    axes[0, 1].axhline(0, color="black", linewidth=0.6)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def impact_figure(
    impacts: np.ndarray, ratios: Sequence[float], patch_sizes: Sequence, ranks: Sequence[int]
) -> Figure:
    """Heat maps of mask impact over ratio and patch size, one panel a K.

    Args:
      impacts: relative changes (patch sizes, ratios, ranks).
      ratios: fractions dropped.
      patch_sizes: sides in pixels.
      ranks: the K of the panels.
    """
    percent = 100 * np.asarray(impacts)
    limit = max(float(np.abs(percent).max()), 1e-3)
    height = 0.9 + (0.5 + 0.33 * len(patch_sizes)) * len(ranks)
    figure, axes = new_figure(7.5, height, len(ranks), 1, sharex=True)
    for index, rank in enumerate(ranks):
        image = plot_heat_map(
            axes[index, 0],
            percent[:, :, index],
            xticks=[f"{ratio:g}" for ratio in ratios],
            yticks=[str(size) for size in patch_sizes],
            xlabel="fraction of pixels masked" if index == len(ranks) - 1 else "",
            ylabel="patch (px)",
            title=f"K = {rank}",
            limit=limit,
        )
    figure.colorbar(image, ax=axes[:, 0], label="impact on alignment (%)")
    return figure
