"""Audits as tables: every measure of encoders and baselines side by side, each with its spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from recon_jax.audit.records import Audited, AuditReport, Comparison, Estimate
from recon_jax.report import Table

Audit = AuditReport | Comparison

SPREAD = (
    "In square brackets: 95 % bootstrap interval over test images; after ±: standard deviation "
    "over seeds."
)
# What a cell shows that has no value; the note of the table says why.
MISSING = "-"

Part = Callable[[Audited], Sequence[Estimate] | None]


def tell(estimate: Estimate, spec: str = ".3g", scale: float = 1.0) -> str:
    """An estimate in words: "81.2 [79.5, 82.9]", "81.2 ± 0.4", "81.2", or "-" without a value.

    Args:
      estimate: with an interval, a standard deviation, or neither.
      spec: format of the numbers.
      scale: what they are multiplied by, such as 100 for per cent.
    """
    if math.isnan(estimate.value):
        return MISSING
    if estimate.kind == "seeds" and spec.endswith("g") and not math.isnan(estimate.low):
        spec = _fixed(scale * estimate.value, spec)
    value, low, high = (_number(scale * part, spec) for part in estimate[:3])
    if estimate.kind == "none" or math.isnan(estimate.low):
        return value
    if estimate.kind == "seeds":
        spread = scale * (estimate.high - estimate.low) / 2
        return f"{value} ± {spread:{spec.removeprefix('+')}}"
    return f"{value} [{low}, {high}]"


def _fixed(value: float, spec: str) -> str:
    """The format with as many decimals as its significant digits are of this value."""
    if not value or not math.isfinite(value):
        return spec
    digits = int(spec.removesuffix("g").split(".")[1])
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f".{decimals}f" if 0 <= decimals <= 6 else spec


def _number(value: float, spec: str) -> str:
    text = f"{value:{spec}}"
    return text.lstrip("+-") if not text.strip("+-0.") else text  # no "-0.0"


def setting_words(audit: Audit) -> str:
    """Which images all numbers of an audit are of."""
    source = audit.source
    shape = " x ".join(str(side) for side in source["shape"])
    classes = f", {source['classes']} classes" if source["classes"] else ", without labels"
    return (
        f"{source['name']}: {source['images']:,} training and {source['test_images']:,} test "
        f"images of {shape}{classes}."
    )


def _missing_notes(rows: Iterable[tuple[str, Sequence[str], Sequence[Estimate]]]) -> list[str]:
    """Why cells are empty, or particular: each reason once, with what it is about."""
    reasons: dict[str, list[str]] = {}
    for name, columns, estimates in rows:
        for column, estimate in zip(columns, estimates, strict=True):
            if estimate.note:
                reasons.setdefault(estimate.note, []).append(f"{name}, {column}")
    lines = []
    for reason, cells in reasons.items():
        more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
        lines.append(f"{'; '.join(cells[:3])}{more}: {reason.rstrip('.')}.")
    return lines


def _family(
    audit: Audit,
    part: Part,
    columns: Sequence[str],
    *,
    name: str,
    title: str,
    note: str,
    formats: Sequence[tuple[str, float]] = ((".1f", 1.0),),
) -> Table | None:
    """A table of one family of measures, a row an encoder or baseline; None if none has it.

    `formats` holds format and scale of each column, the last of them for all that follow.
    """
    found = [(item, part(item)) for item in audit.rows]
    found = [(item, estimates) for item, estimates in found if estimates is not None]
    if not found:
        return None
    formats = [*formats, *formats[-1:] * len(columns)]
    rows = [
        [
            item.name,
            item.role,
            item.dimension,
            *(tell(one, *way) for one, way in zip(estimates, formats, strict=False)),
        ]
        for item, estimates in found
    ]
    reasons = _missing_notes((item.name, columns, estimates) for item, estimates in found)
    parts = [note, SPREAD, *reasons, setting_words(audit)]
    return Table(name, title, ["name", "role", "K", *columns], rows, " ".join(filter(None, parts)))


def band_names(audit: Audit) -> list[str]:
    """The bands of the spectrum as columns; empty if it was not measured."""
    for item in audit.rows:
        if item.spectrum is not None:
            spectrum = item.spectrum
            pairs = zip(spectrum.bands, spectrum.directions, strict=True)
            return [f"{band} ({count} directions)" for band, count in pairs]
    return []


def spectrum_table(audit: Audit) -> Table | None:
    """Variance of the pixels that a linear read-out recovers, in all and by band."""
    excluded = max((item.spectrum.excluded for item in audit.rows if item.spectrum), default=0)
    return _family(
        audit,
        lambda item: item.spectrum and (item.spectrum.total, *item.spectrum.kept),
        ["all", *band_names(audit)],
        name="spectrum",
        title="Variance of test pixels recovered from K features by a linear read-out (%)",
        note=(
            "Bands: eigen-directions of the training pixels by cumulative variance, most variance "
            "first; within a band each direction weighs its variance. Below 0: worse than the "
            "mean image." + (f" {excluded} directions without variance left out." * bool(excluded))
        ),
        formats=[(".1f", 100)],
    )


def label_table(audit: Audit) -> Table | None:
    """What a linear read-out tells of the labels, beside PCA of the same dimension."""
    return _family(
        audit,
        lambda item: item.labels and item.labels[:4],
        ["R² of labels", "R² from PCA of K", "difference", "ratio (not in %)"],
        name="labels",
        title="Label variance explained by K features and by K principal components (%)",
        note=(
            "Held-out R² of one-hot labels by ridge regression. PCA of K is the encoder that "
            "reconstructs best; the difference says what alignment with the labels adds or costs."
        ),
        formats=[(".1f", 100)] * 3 + [(".2f", 1)],
    )


def geometry_table(audit: Audit) -> Table | None:
    """How many dimensions the features of test images fill."""
    return _family(
        audit,
        lambda item: item.geometry,
        ["effective rank", "numerical rank", "intrinsic, TwoNN", "intrinsic, local PCA"],
        name="geometry",
        title="Dimensions that the features fill, of K",
        note=(
            "Ranks of centred features, global; intrinsic dimension of the point cloud, local. "
            "Numerical rank: singular values above 1 % of the largest."
        ),
        formats=[(".3g", 1)],
    )


def probe_table(audit: Audit) -> Table | None:
    """Test accuracies of simple classifiers on frozen features."""
    shots = audit.setting.get("shots")
    few = f"{shots} a class" if isinstance(shots, int) else "few a class"
    return _family(
        audit,
        lambda item: item.probes,
        ["linear", "nearest neighbours", f"linear, {few}"],
        name="probes",
        title="Test accuracy of probes on frozen features (%)",
        note="",
    )


def stability_table(audit: Audit) -> Table | None:
    """Sensitivity of every layer to deformations and to noise of the same size."""
    columns, rows, notes = ["D", "G", "R = D / G"], [], []
    for item in audit.rows:
        for layer, found in (item.stability or {}).items():
            rows.append([item.name, layer, *(tell(one, ".3g") for one in found)])
            notes.append((f"{item.name}, {layer}", columns, found))
    if not rows:
        return None
    note = (
        "D: squared change of the representation under smooth deformations of the image, over its "
        "squared differences between images; G: the same for Gaussian noise of the same size; of "
        "the pixels themselves R is 1. Below 1 the layer is more stable to deformations than to "
        "noise."
    )
    parts = [note, SPREAD, *_missing_notes(notes), setting_words(audit)]
    title = "Sensitivity to deformations and to noise, layer by layer"
    return Table("stability", title, ["name", "layer", *columns], rows, " ".join(parts))


def invariance_table(audit: Audit) -> Table | None:
    """How far two augmented views of one image are apart, by strength of the augmentation."""
    strengths = next((item.invariance.strengths for item in audit.rows if item.invariance), ())
    return _family(
        audit,
        lambda item: item.invariance and item.invariance.values,
        [f"strength {strength:g}" for strength in strengths],
        name="invariance",
        title="Non-invariance of the features under augmentation: 0 invariant, 1 as strangers",
        note="Squared distance of two views of an image over that of views of different images.",
        formats=[(".3f", 1)],
    )


FAMILIES = {
    "spectrum": spectrum_table,
    "labels": label_table,
    "probes": probe_table,
    "stability": stability_table,
    "invariance": invariance_table,
    "geometry": geometry_table,
}


def audit_tables(audit: Audit) -> dict[str, Table]:
    """All tables of an audit by family; families that were not measured are absent.

    Args:
      audit: a report, or a comparison of several.

    Returns:
      "spectrum", "labels", "probes", "stability", "invariance", "geometry" to `report.Table`, in
      this order.
    """
    found = {name: make(audit) for name, make in FAMILIES.items()}
    return {name: table for name, table in found.items() if table is not None}
