"""What the closed forms found about corruptions, as tables and in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recon_jax.report.tables import Table


class Finding(NamedTuple):
    """What the closed forms say about one corruption on one dataset.

    Attributes:
      name: of the corruption.
      curve: alignment under it (D,).
      impact: relative change of alignment (D,).
      error: standard error of the impact at the ranks of the tables; NaN where there is none.
      max_sine: sine of the largest angle by which it turns the latent space, K = 1, 2, ...
      is_neutral: True if it can never help.
      commutes: True if it keeps the principal components.
      seconds: what this took.
    """

    name: str
    curve: np.ndarray
    impact: np.ndarray
    error: np.ndarray
    max_sine: np.ndarray
    is_neutral: bool
    commutes: bool
    seconds: float


class Setting(NamedTuple):
    """What the findings are about.

    Attributes:
      ranks: the K of the tables.
      clean: alignment of plain reconstruction (D,).
      explained: cumulative fraction of pixel variance (D,).
      label_r2: adjusted R^2 of a linear read-out of the labels from all pixels; NaN if undefined.
      note: dataset, preparation and spread, in words.
    """

    ranks: Sequence[int]
    clean: np.ndarray
    explained: np.ndarray
    label_r2: float
    note: str


class Compared(NamedTuple):
    """Plain reconstruction on one source, for a comparison of sources.

    Attributes:
      name: of the source.
      curves: alignment (seeds, D).
      label_r2: adjusted R^2 of a linear read-out of the labels from all pixels (seeds,).
    """

    name: str
    curves: np.ndarray
    label_r2: np.ndarray


class MaskSweep(NamedTuple):
    """Impact of masks (patch sizes, ratios, ranks) and what the axes are."""

    impacts: np.ndarray
    ratios: Sequence[float]
    patch_sizes: Sequence[Any]


def percent(value: float, error: float = np.nan) -> str:
    """A relative change in per cent, with its standard error where there is one."""
    text = f"{100 * value:+.2f}"
    return text if np.isnan(error) else f"{text} ± {100 * error:.2f}"


def reason(finding: Finding) -> str:
    """Why a corruption is neutral or not: the end of "never beneficial: yes/no, because it"."""
    if finding.is_neutral:
        return "keeps the principal components and their order"
    if finding.commutes:
        return "keeps the principal components but reorders them"
    if finding.curve[-1] < 1 - 1e-6:
        return "removes directions of the images for good"
    worst = int(np.argmax(finding.max_sine))
    degrees = np.degrees(np.arcsin(min(float(finding.max_sine[worst]), 1.0)))
    return f"turns the latent space by up to {degrees:.0f} degrees (at K = {worst + 1})"


def impact_table(findings: Sequence[Finding], setting: Setting) -> Table:
    """Change of alignment by each corruption at the ranks of the setting."""
    clean = [f"a = {100 * setting.clean[rank - 1]:.1f}%" for rank in setting.ranks]
    rows = [["none", *clean, "-"]]
    for finding in findings:
        pairs = zip(setting.ranks, finding.error, strict=True)
        cells = [percent(finding.impact[rank - 1], error) for rank, error in pairs]
        rows.append([finding.name, *cells, f"{finding.seconds:.1f}"])
    columns = ["corruption", *(f"K = {rank}" for rank in setting.ranks), "seconds"]
    title = "Change of alignment by each corruption (%)"
    return Table("impact", title, columns, rows, setting.note, 3)


def neutrality_table(findings: Sequence[Finding], setting: Setting) -> Table:
    """The label-free verdict on each corruption, with the reason."""
    rows = [
        [
            finding.name,
            f"{finding.max_sine.max():.3f}",
            "yes" if finding.is_neutral else "no",
            reason(finding),
        ]
        for finding in findings
    ]
    columns = [
        "corruption",
        f"largest sine, K <= {len(findings[0].max_sine)}" if findings else "largest sine",
        "never beneficial",
        "because it",
    ]
    note = (
        "Found without labels: a corruption that turns the latent space helps some task of unit "
        f"energy by the sine of the largest angle, and hurts another by as much. {setting.note}"
    )
    return Table("neutrality", "Can it ever help?", columns, rows, note, 3)


def _distinct_names(names: Sequence[str]) -> tuple[list[str], str]:
    """Names of sources SCHEME:FIELD&FIELD without the fields that all have, and what all have."""
    parts = [re.split("[:&]", name) for name in names]
    common = [part for part in parts[0] if all(part in other for other in parts)]
    short = [", ".join(part for part in own if part not in common) for own in parts]
    if not common or len(set(short)) < len(names) or not all(short):
        return list(names), ""
    return short, ", ".join(common)


def comparison_table(compared: Sequence[Compared], ranks: Sequence[int], note: str) -> Table:
    """Alignment of sources side by side: at fixed K, and at fixed shares of the dimensions."""
    shares = (1, 5, 20)
    names, common = _distinct_names([item.name for item in compared])

    def cell(values):
        text = f"{100 * values.mean():.1f}"
        return text if len(values) == 1 else f"{text} ± {100 * values.std(ddof=1):.1f}"

    rows = []
    for name, item in zip(names, compared, strict=True):
        size = item.curves.shape[1]
        at = [*ranks, *(max(share * size // 100, 1) for share in shares)]
        cells = [cell(item.curves[:, rank - 1]) if rank <= size else "-" for rank in at]
        rows.append([name, size, cell(item.label_r2), *cells])
    columns = ["source", "D", "labels R²", *(f"K = {rank}" for rank in ranks)]
    columns += [f"K = {share}% of D" for share in shares]
    chance = ", ".join(f"{100 * (share / 100) ** 0.5:.0f}% at {share}% of D" for share in shares)
    note = (
        "Alignment a(K) of plain reconstruction (%). Labels R² is what all pixels explain of the "
        "labels (%, adjusted for their number): where it is near 0, a(K) is sqrt(K / D) whatever "
        f"the images are ({chance}). {note} The paper says that alignment falls with resolution "
        f"and background; it gives no numbers.{f' All sources: {common}.' if common else ''}"
    )
    return Table("compare", "Which images are misaligned?", columns, rows, note, 3)


def _at_rank(findings: Sequence[Finding], index: int, rank: int, masks: MaskSweep) -> str:
    best = max(findings, key=lambda finding: finding.impact[rank - 1], default=None)
    text = f"At K = {rank}, no listed corruption raises alignment beyond its spread."
    if best is not None:
        gain, error = best.impact[rank - 1], best.error[index]
        if gain > 2 * np.nan_to_num(error) and gain > 1e-6:
            text = (
                f"At K = {rank}, the best of the listed corruptions is {best.name}: it changes "
                f"alignment by {percent(gain, error)}%."
            )
    impacts = masks.impacts[:, :, index]
    patch, ratio = np.unravel_index(np.argmax(impacts), impacts.shape)
    if impacts[patch, ratio] <= 1e-6:
        return f"{text} No mask of the sweep raises it."
    side = masks.patch_sizes[patch]
    side = f"{side[0]}x{side[1]}" if isinstance(side, tuple) else f"{side}x{side}"
    return (
        f"{text} Among all masks swept, dropping {100 * masks.ratios[ratio]:g}% of the {side} "
        f"patches is best ({percent(impacts[patch, ratio])}%)."
    )


def _readability(label_r2: float) -> str:
    if np.isnan(label_r2):
        return (
            "There are no more images than pixel dimensions, so a linear read-out of all pixels "
            "fits any labels: alignment at large K says little."
        )
    text = f"A linear read-out of all pixels explains {100 * label_r2:.1f}% of the label variance."
    if label_r2 < 0.01:
        text += " That is next to nothing, so alignment only counts dimensions here."
    return text


def recommend(findings: Sequence[Finding], setting: Setting, masks: MaskSweep) -> list[str]:
    """The findings in words, most useful first."""
    first, last = (
        f"{100 * setting.explained[rank - 1]:.0f}% of the pixel variance and reach "
        f"{100 * setting.clean[rank - 1]:.0f}% alignment with the labels"
        for rank in (setting.ranks[0], setting.ranks[-1])
    )
    lines = [
        f"Plain reconstruction: {setting.ranks[0]} latents hold {first}; {setting.ranks[-1]} "
        f"latents hold {last}."
    ]
    lines.append(_readability(setting.label_r2))
    lines += [_at_rank(findings, i, rank, masks) for i, rank in enumerate(setting.ranks)]
    neutral = [finding.name for finding in findings if finding.is_neutral]
    if neutral:
        lines.append(f"Can never help, whatever the labels: {', '.join(neutral)}.")
    if any(name.startswith("gaussian") for name in neutral):
        lines.append("Isotropic Gaussian noise cannot help at any level: it keeps all latents.")
    index = np.array(setting.ranks) - 1
    harmful = [
        finding.name
        for finding in findings
        if np.all(finding.impact[index] < -2 * np.nan_to_num(finding.error) - 1e-6)
    ]
    if harmful:
        lines.append(f"Lower alignment at every K listed: {', '.join(harmful)}.")
    return lines
