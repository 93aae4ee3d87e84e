"""A self-contained HTML report: one file, figures inside, readable on a phone and in print."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from recon_jax import parallel
from recon_jax.files import write_bytes
from recon_jax.report.tables import Table


class Section(NamedTuple):
    """One part of a report.

    Attributes:
      title: heading.
      text: paragraphs.
      figure: path of a PNG to embed, or None.
      caption: of the figure; also its alternative text.
      tables: shown below the figure.
    """

    title: str
    text: Sequence[str] = ()
    figure: Path | None = None
    caption: str = ""
    tables: Sequence[Table] = ()


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def write_report(
    path: Path,
    title: str,
    summary: Sequence[str],
    sections: Sequence[Section],
    facts: dict[str, Any],
) -> None:
    """Write the report.

    Args:
      path: of the HTML file.
      title: of the page.
      summary: the findings in words, most important first.
      sections: figures and tables.
      facts: provenance shown at the end, as name and value.
    """
    if not parallel.is_main():  # the figures are on the disk of process 0
        return
    source = resources.files("recon_jax.report").joinpath("report.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["embed"] = _embed
    page = environment.from_string(source).render(
        title=title, summary=summary, sections=sections, facts=facts
    )
    write_bytes(path, page.encode())
