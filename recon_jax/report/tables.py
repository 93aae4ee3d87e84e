"""One table, three files: Markdown to read, CSV to compute with, LaTeX to publish."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from recon_jax import parallel
from recon_jax.files import write_bytes


class Table(NamedTuple):
    """Rows under named columns.

    Attributes:
      name: file name, without ending.
      title: what the table answers, with units.
      columns: headings, with units where there are any.
      rows: cells as strings or numbers; numbers are shown with `digits` significant digits.
      note: setting, seeds, spread, device: what a reader must know.
      digits: significant digits of floats.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    digits: int = 4

    def render(self, style: str) -> str:
        """The table in one of tabulate's formats, such as "github", "latex_booktabs", "html"."""
        return tabulate(self.cells(), headers=self.columns, tablefmt=style, disable_numparse=True)

    def cells(self) -> list[list[str]]:
        """Cells as the strings a reader sees."""
        return [
            [f"{cell:.{self.digits}g}" if isinstance(cell, float) else str(cell) for cell in row]
            for row in self.rows
        ]


def write_table(folder: Path, table: Table) -> None:
    """Write NAME.md, NAME.csv and NAME.tex into the folder.

    Args:
      folder: that exists.
      table: whose name the files get.

    Raises:
      ValueError: if a row has another number of cells than there are columns.
    """
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(
                f"table {table.name} has {len(table.columns)} columns, a row has {len(row)}: {row}"
            )
    if not parallel.is_main():
        return
    note = f"\n\n{table.note}" if table.note else ""
    markdown = f"**{table.title}**\n\n{table.render('github')}{note}\n"
    write_bytes(folder / f"{table.name}.md", markdown.encode())
    write_bytes(folder / f"{table.name}.tex", (table.render("latex_booktabs") + "\n").encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    write_bytes(folder / f"{table.name}.csv", text.getvalue().encode())
