"""What a masked autoencoder is good for: table of read-outs, pictures, and the answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from recon_jax.report.figures import new_figure
from recon_jax.report.tables import Table

UNPUBLISHED = "not published here"

# Test accuracy in per cent of ViT-B on ImageNet with normalised targets, (pretrained, without) by
# epochs of pretraining. He et al. 2022 (arXiv 2111.06377), Table 3 and, for the linear probe, the
# paper's line in FINETUNE.md of the released code, which has 67.8 itself, and 83.57 ± 0.08 over
# four fine-tunings.
PUBLISHED: Mapping[int, Mapping[str, tuple[float | None, float | None]]] = {
    1600: {"finetuned": (83.6, 82.3), "lars": (68.0, None)},
    800: {"finetuned": (None, 82.3)},
}
# ViT-B after 800 epochs in another implementation, MMSelfSup of OpenMMLab, its table of models.
THIRD_PARTY_800 = {"finetuned": 83.3, "lars": 65.1}

CAPTION = (
    "Test images, what is left of them, and what the autoencoder makes of it: visible patches are "
    "kept, hidden ones are predicted."
)


class ReadOut(NamedTuple):
    """One way of reading classes from an encoder.

    Attributes:
      key: "finetuned", "lars", "logistic" or "knn".
      name: for people.
      pretrained: test accuracy in per cent (seeds,).
      without: the same without pretraining (seeds,).
    """

    key: str
    name: str
    pretrained: np.ndarray
    without: np.ndarray


def spread(values: np.ndarray, sign: str = "", digits: int = 1) -> str:
    """Mean ± standard deviation over seeds; the value alone for one seed."""
    values = np.asarray(values, float)
    error = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.{digits}f}{error}"


def is_more_than_spread(differences: np.ndarray) -> bool | None:
    """Whether a mean difference exceeds twice its standard deviation; None for a single seed."""
    differences = np.asarray(differences, float)
    if len(differences) < 2:
        return None
    return bool(abs(differences.mean()) > 2 * differences.std(ddof=1))


def _published(key: str, epochs: int) -> tuple[str, str]:
    """Cells of the paper's columns."""
    found = PUBLISHED[epochs].get(key, (None, None))
    cells = [UNPUBLISHED if value is None else f"{value:.1f}" for value in found]
    if epochs == 800 and key in THIRD_PARTY_800:
        cells[0] += f" (third party: {THIRD_PARTY_800[key]:.1f})"
    return cells[0], cells[1]


def readout_table(readouts: Sequence[ReadOut], epochs: int, note: str) -> Table:
    """Test accuracy of every read-out, with and without pretraining, beside the paper's.

    Args:
      readouts: over the same seeds.
      epochs: of the paper's pretraining that stands beside ours, a key of `PUBLISHED`.
      note: setting, seeds, seconds, device.
    """
    rows = [
        [
            item.name,
            spread(item.pretrained),
            spread(item.without),
            spread(item.pretrained - item.without, "+"),
            *_published(item.key, epochs),
        ]
        for item in readouts
    ]
    columns = [
        "read-out",
        "pretrained",
        "without",
        "difference",
        "paper, pretrained",
        "paper, without",
    ]
    setting = (
        f"Paper: He et al. 2022, ViT-B, ImageNet-1K, {epochs} epochs of pretraining, normalised "
        "targets; without: from scratch, its own stronger recipe of 300 epochs. Without "
        "pretraining, ours: the same recipe from scratch, without layer-wise decay, where all "
        "layers are trained, and a new encoder, left as it is, under a probe. "
    )
    title = "Test accuracy (%) of what is read from the encoder"
    return Table("readouts", title, columns, rows, setting + note)


def _line(item: ReadOut) -> str:
    found = item.pretrained - item.without
    verdict = {
        True: "more than twice the spread over seeds",
        False: "within twice the spread over seeds",
        None: "one seed, spread unknown",
    }[is_more_than_spread(found)]
    return (
        f"{item.name}: {spread(item.pretrained)}% with pretraining, {spread(item.without)}% "
        f"without, {spread(found, '+')} points ({verdict})."
    )


def answer(readouts: Sequence[ReadOut]) -> list[str]:
    """The findings in words, one a read-out, then both recipes of a linear probe side by side."""
    lines = [_line(item) for item in readouts]
    by_key = {item.key: item for item in readouts}
    if {"lars", "logistic"} <= set(by_key):
        gap = by_key["lars"].pretrained - by_key["logistic"].pretrained
        lines.append(
            f"The linear probe of the paper's recipe differs by {spread(gap, '+')} points from "
            "logistic regression fitted to its optimum on the same features."
        )
    return lines


def reconstruction_figure(rows: Mapping[str, Float[np.ndarray, "n h w c"]]) -> Figure:
    """One row of images for each name, all in one range, so that grey is grey everywhere.

    Args:
      rows: name -> images (N, H, W, C) in [0, 1]; what lies outside is clipped.
    """
    count = len(next(iter(rows.values())))
    figure, axes = new_figure(0.2 + 1.0 * count, 1.35 * len(rows), len(rows), 1)
    for ax, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        gap = max(1, images.shape[2] // 20)
        border = ((0, 0), (gap, gap), (gap, gap), (0, 0))
        padded = np.pad(np.clip(images, 0, 1), border, constant_values=1.0)
        strip = np.concatenate(list(padded), axis=1)
        ax.imshow(strip.squeeze(-1) if strip.shape[-1] == 1 else strip, "gray", vmin=0, vmax=1)
        ax.grid(False)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_title(name, loc="left")
    return figure
