"""An audit as one self-contained HTML page: findings in words, tables and figures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_jax import report
from recon_jax.audit.figures import audit_figures
from recon_jax.audit.findings import RULE, audit_findings, encoder_findings
from recon_jax.audit.overview import overview_table
from recon_jax.audit.records import Audited, AuditReport, Comparison
from recon_jax.audit.tables import Audit, audit_tables, setting_words
from recon_jax.report import Section

# Question and how to read the answer, by family, in the order of the page.
QUESTIONS = {
    "spectrum": (
        "Which part of the images is kept?",
        "A ridge regression from features of training images to the principal directions of their "
        "pixels is asked for those of test images. Reconstruction favours the left bands; what "
        "tells classes apart often lies further right.",
    ),
    "labels": (
        "Is it aligned with the labels?",
        "The variance of one-hot labels that features explain, against that of as many principal "
        "components: the linear encoder that reconstructs best.",
    ),
    "probes": (
        "What can be read from it?",
        "Classifiers of growing need for labels on frozen features.",
    ),
    "stability": (
        "Is it stable under deformations?",
        "Images move little when they are smoothly deformed, and so should what is made of them; "
        "noise of the same size is the yardstick.",
    ),
    "invariance": (
        "How invariant is it to augmentation?",
        "Two views of the same image are compared with views of different images.",
    ),
    "geometry": (
        "How many dimensions does it use?",
        "Global ranks of the features, and the local dimension of the cloud they form.",
    ),
}


def audit_sections(audit: Audit, figures: Mapping[str, tuple[Path, str]]) -> list[Section]:
    """The parts of the page: at a glance, then one for each family that was measured.

    Args:
      audit: a report, or a comparison of several.
      figures: by family, path of the PNG and caption, as `report.save_figures` gives them.
    """
    tables = audit_tables(audit)
    sections = [
        Section("At a glance", (setting_words(audit), RULE), tables=[overview_table(audit)])
    ]
    if isinstance(audit, Comparison):
        sections += [_in_words(audit, item) for item in audit.encoders]
    for name, (title, text) in QUESTIONS.items():
        if name in tables:
            # Labels are a panel of the figure of probes.
            drawn = "probes" if name == "labels" and "probes" not in tables else name
            path, caption = figures.get(drawn, (None, ""))
            sections.append(Section(title, (text,), path, caption, [tables[name]]))
    return sections


def _in_words(audit: Comparison, item: Audited) -> Section:
    """What was found of one encoder, whose name the heading has."""
    lines = [line.removeprefix(f"{item.name}: ") for line in encoder_findings(audit, item)]
    return Section(f"{item.name}, in words", [line[0].upper() + line[1:] for line in lines])


def audit_title(audit: Audit) -> str:
    """Heading of the page."""
    if isinstance(audit, Comparison):
        names = [item.name for item in audit.encoders]
        listed = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
        return f"Audit of {listed} on {audit.source['name']}"
    return f"Audit of {audit.encoder.name} on {audit.source['name']}"


def audit_facts(audit: Audit) -> dict[str, Any]:
    """What the page says of where its numbers come from."""
    facts = dict(audit.setting)
    if isinstance(audit, AuditReport):
        return {**facts, "seconds": _seconds(audit.seconds), **audit.provenance}
    return facts


def _seconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())


def write_html(path: str | os.PathLike, audit: Audit) -> Path:
    """Write an audit as one HTML file with everything in it, for a browser, a phone or a printer.

    Args:
      path: of the file; its folder must be there.
      audit: from `audit`, or a comparison of several from `compare`.

    Returns:
      The path.
    """
    path = Path(path)
    title, findings = audit_title(audit), audit_findings(audit)
    with tempfile.TemporaryDirectory() as folder:
        figures = report.save_figures(Path(folder), audit_figures(audit))
        sections = audit_sections(audit, figures)
        report.write_report(path, title, findings, sections, audit_facts(audit))
    return path
