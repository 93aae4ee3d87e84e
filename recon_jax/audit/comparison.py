"""Audits of several encoders side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recon_jax.audit.reading import plain
from recon_jax.audit.records import Audited, AuditReport, Comparison


def compare(reports: Sequence[AuditReport]) -> Comparison:
    """Encoders that were audited on the same images in the same way, in one record.

    Baselines that are the same for several encoders stand once: pixels, the supervised closed form,
    PCA of one dimension, and random networks whose numbers agree.

    Args:
      reports: of `audit`, one or more; they may have been through JSON.

    Returns:
      The Comparison.

    Raises:
      ValueError: if there is no report, images or settings differ, naming what, or two encoders
        have one name.
    """
    reports = list(reports)
    if not reports:
        raise ValueError("no reports to compare; pass those of one or more audits")
    for other in reports[1:]:
        for what in ("source", "setting"):
            _require_same(what, reports[0], other)
    names = [report.encoder.name for report in reports]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(
            f"{names.count(double[0])} encoders are called {double[0]!r}; audit them with name=..."
        )
    warnings = []
    for report in reports:
        warnings += [
            f"{report.encoder.name}: {warning}" if warning.startswith("no random") else warning
            for warning in report.warnings
        ]
    return Comparison(
        encoders=tuple(report.encoder for report in reports),
        baselines=_each_once([row for report in reports for row in report.baselines]),
        variance=reports[0].variance,
        source=reports[0].source,
        setting=reports[0].setting,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _require_same(what: str, first: AuditReport, other: AuditReport) -> None:
    # Through plain content, since JSON makes lists of tuples.
    mine, theirs = (report.to_dict()[what] for report in (first, other))
    missing = "nothing"
    pairs = {name: [part.get(name, missing) for part in (mine, theirs)] for name in mine | theirs}
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differ:
        listed = "; ".join(f"{name} {a!r} and {b!r}" for name, (a, b) in differ.items())
        raise ValueError(
            f"{first.encoder.name} and {other.encoder.name} were audited with another {what}: "
            f"{listed}. Audit both on the same images with the same options"
        )


def _each_once(rows: Sequence[Audited]) -> tuple[Audited, ...]:
    kept: list[Audited] = []
    for row in rows:
        same_name = any((row.name, row.dimension) == (old.name, old.dimension) for old in kept)
        if not same_name and _numbers(row) not in map(_numbers, kept):
            kept.append(row)
    return tuple(kept)


def _numbers(row: Audited) -> Mapping[str, Any]:
    """Content of a row without its name; NaN is equal to NaN there."""
    return plain(row._replace(name=""))
