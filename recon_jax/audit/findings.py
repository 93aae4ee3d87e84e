"""What an audit found, in words; every number with its spread."""

from __future__ import annotations

import math
from collections.abc import Callable

from recon_jax.audit.overview import HEADLINES, middle
from recon_jax.audit.records import Audited, Comparison, Estimate
from recon_jax.audit.tables import Audit, tell

RULE = (
    "More, less and the like are said where a bootstrap interval does not hold the value compared "
    "with, or a mean over seeds is further from it than twice their standard deviation."
)


def side(estimate: Estimate, threshold: float = 0.0) -> int:
    """1 if an estimate is above the threshold beyond its spread, -1 if below, else 0.

    Without a spread nothing is beyond it.

    Args:
      estimate: with a bootstrap interval, or mean -/+ standard deviation over seeds.
      threshold: to compare with.
    """
    value, low, high = estimate[:3]
    if estimate.kind == "seeds":  # twice the deviation that the ends are away
        low, high = value - 2 * (value - low), value + 2 * (high - value)
    if low > threshold:
        return 1
    return -1 if high < threshold else 0


def _known(estimate: Estimate) -> bool:
    return not math.isnan(estimate.value)


def _why(estimate: Estimate) -> str:
    return f" ({estimate.note.rstrip('.')})" if estimate.note else ""


def find_baseline(audit: Audit, word: str, most: float = math.inf) -> Audited | None:
    """The baseline with a word in its name that has most dimensions, of those with at most `most`.

    Args:
      audit: with baselines.
      word: in lower case.
      most: dimensions.
    """
    found = [item for item in audit.baselines if word in item.name.lower()]
    found = [item for item in found if item.dimension <= most]
    return max(found, key=lambda item: item.dimension, default=None)


def spectrum_finding(audit: Audit, item: Audited) -> str:
    """Which part of the pixels' spectrum an encoder keeps, and what PCA keeps."""
    spectrum = item.spectrum
    if not _known(spectrum.total):
        return f"how much of the pixels is kept is not known{_why(spectrum.total)}."
    text = f"keeps {tell(spectrum.total, '.1f', 100)} % of the variance of the pixels"
    pca = find_baseline(audit, "pca", item.dimension)
    if pca is not None and pca.spectrum is not None:
        text += f", {pca.name} {tell(pca.spectrum.total, '.1f', 100)} %"
    pairs = zip(spectrum.bands, spectrum.kept, strict=True)
    bands = {band: estimate for band, estimate in pairs if _known(estimate)}
    if len(bands) > 1:
        most, least = (choose(bands, key=lambda band: bands[band].value) for choose in (max, min))
        text += (
            f"; most of the band {most} of cumulative variance ({tell(bands[most], '.1f', 100)} %),"
            f" least of {least} ({tell(bands[least], '.1f', 100)} %)"
        )
    return f"{text}."


def label_finding(item: Audited) -> str:
    """Whether features tell more of the labels than the principal components do."""
    labels = item.labels
    if not _known(labels.features):
        return f"its alignment with labels is not known{_why(labels.features)}."
    text = f"explains {tell(labels.features, '.1f', 100)} % of the variance of the labels"
    if not _known(labels.difference):
        return f"{text}."
    verdict = {
        1: "more than",
        -1: "less than",
        0: "not clearly more or less than",
    }[side(labels.difference)]
    return (
        f"{text}, {verdict} the first {labels.pca_dimension} principal components "
        f"({tell(labels.pca, '.1f', 100)} %): by {tell(labels.difference, '.1f', 100)} points."
    )


def probe_finding(audit: Audit, item: Audited) -> str:
    """What simple classifiers read from the features, and a linear one from pixels."""
    names = ("a linear probe", "nearest neighbours", "a linear probe of few labels")
    told = [
        f"{name} {tell(estimate, '.1f')} %"
        for name, estimate in zip(names, item.probes, strict=True)
        if _known(estimate)
    ]
    if not told:
        return f"no accuracy is known{_why(item.probes.linear)}."
    text = f"accuracy on test images: {', '.join(told)}"
    pixels = find_baseline(audit, "pixel")
    if pixels is not None and pixels.probes is not None and _known(pixels.probes.linear):
        text += f"; of pixels, a linear probe {tell(pixels.probes.linear, '.1f')} %"
    return f"{text}."


def stability_finding(item: Audited) -> str:
    """Whether the output reacts to deformations more than to noise, and where that arose."""
    layers = list(item.stability.items())
    ratio = layers[-1][1].R
    if not _known(ratio):
        return f"its sensitivity to deformations is not known{_why(ratio)}."
    verdict = {
        1: "more sensitive to smooth deformations than to noise of the same size",
        -1: "less sensitive to smooth deformations than to noise of the same size",
        0: "about as sensitive to smooth deformations as to noise of the same size",
    }[side(ratio, 1.0)]
    text = f"its output is {verdict}: R = {tell(ratio)}"
    if len(layers) > 1 and _known(layers[0][1].R):
        text += f", after R = {tell(layers[0][1].R)} in {layers[0][0]}"
    return f"{text}."


def invariance_finding(item: Audited) -> str:
    """How far views at the middle strength of augmentation are apart."""
    strength, value = (middle(part) for part in item.invariance)
    if not _known(value):
        return f"its invariance is not known{_why(value)}."
    return (
        f"two views of an image at augmentation strength {strength:g} are {tell(value, '.3f')} "
        "apart, where 0 is the same and 1 as different as two images."
    )


def geometry_finding(item: Audited) -> str:
    """How many of its dimensions an encoder uses."""
    found = item.geometry
    if not _known(found.effective_rank):
        return f"its rank is not known{_why(found.effective_rank)}."
    text = f"fills {tell(found.effective_rank)} of {item.dimension} dimensions (effective rank)"
    local = {"TwoNN": found.two_nn, "local PCA": found.local_pca}
    told = [f"{tell(value)} by {name}" for name, value in local.items() if _known(value)]
    return f"{text}; intrinsic dimension {', '.join(told)}." if told else f"{text}."


def encoder_findings(audit: Audit, item: Audited) -> list[str]:
    """All that was found of one encoder, a sentence a family, then its warnings.

    Args:
      audit: that it is part of.
      item: the encoder.
    """
    parts: dict[str, Callable[[], str]] = {
        "spectrum": lambda: spectrum_finding(audit, item),
        "labels": lambda: label_finding(item),
        "probes": lambda: probe_finding(audit, item),
        "stability": lambda: stability_finding(item),
        "invariance": lambda: invariance_finding(item),
        "geometry": lambda: geometry_finding(item),
    }
    found = [f"{item.name}: {say()}" for part, say in parts.items() if getattr(item, part)]
    return [*found, *(f"Warning, {item.name}: {text}" for text in item.warnings)]


def comparison_findings(comparison: Comparison) -> list[str]:
    """The encoders ordered by each measure that two of them have, and what pixels have.

    Args:
      comparison: of two or more encoders.
    """
    pixels = find_baseline(comparison, "pixel")
    lines = []
    for title, pick, spec, scale in (way[1:] for way in HEADLINES):
        found = [(item.name, pick(item)) for item in comparison.encoders]
        found = [(name, value) for name, value in found if value is not None and _known(value)]
        if len(found) < 2:
            continue
        found.sort(key=lambda pair: -pair[1].value)
        text = ", ".join(f"{name} {tell(value, spec, scale)}" for name, value in found)
        known = pixels and pick(pixels)
        of_pixels = f"; pixels {tell(known, spec, scale)}" if known and _known(known) else ""
        lines.append(f"{title}: {text}{of_pixels}.")
    return lines


def audit_findings(audit: Audit) -> list[str]:
    """What an audit found in words, most telling first.

    Args:
      audit: a report, or a comparison of several, of which the encoders are ordered by each
        measure.
    """
    if isinstance(audit, Comparison):
        found = comparison_findings(audit)
    else:
        found = encoder_findings(audit, audit.encoder)
    return [*found, *(f"Warning: {text}" for text in audit.warnings)]
