"""Committed results: a folder a job, with record.json and its tables as CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recon_jax.files import write_bytes
from recon_jax.report.tables import Table

HOLDS = "holds"
FAILS = "does not hold"
UNDECIDED = "not decidable at this size"
VERDICTS = (HOLDS, FAILS, UNDECIDED)

# How the experiments' own words begin, and what they come to. What holds in a part of the networks
# does not hold as claimed, which is of all.
_WORDS = (
    ("holds", HOLDS),
    ("reproduced in ", FAILS),
    ("reproduced", HOLDS),
    ("does not hold", FAILS),
    ("not reproduced", FAILS),
    ("in part", FAILS),
    ("the opposite holds", FAILS),
    ("not decidable", UNDECIDED),
    ("undecided", UNDECIDED),
    ("cannot be told", UNDECIDED),
    ("no verdict", UNDECIDED),
    ("same sign, within chance", UNDECIDED),
)
# Columns of the tables of claims, and the field they are.
_COLUMNS = {
    "claim": "claim",
    "of": "of",
    "share": "of",
    "rule": "rule",
    "compared": "rule",
    "measured": "measured",
    "ours": "measured",
    "paper": "paper",
    "holds": "said",
    "verdict": "said",
}
TABLE_OF_CLAIMS = "claims"
FROM_RUN, FROM_TABLE = "run", "table of that revision"


class Verdict(NamedTuple):
    """A claim and what became of it.

    Attributes:
      claim: the statement.
      of: the network, share of labels or setting it is about; may be empty.
      rule: by which it was decided; empty if the rules are in the record's `rules`.
      measured: the numbers.
      paper: its number or statement; empty if it is not published.
      verdict: one of `VERDICTS`.
      said: the experiment's own word.
    """

    claim: str
    of: str
    rule: str
    measured: str
    paper: str
    verdict: str
    said: str


class Record(NamedTuple):
    """One job: what was run, how, and what came out.

    Attributes:
      job: its name, which is the folder's.
      title: for people.
      source: `FROM_RUN`, or `FROM_TABLE` if only the table was kept.
      command: that runs it.
      git_revision: of the run, or of the commit that brought the table.
      seeds: of the run; empty if it has none.
      seconds: that it took on `device`; NaN if unknown.
      device: with the number of cores.
      versions: package -> version.
      setting: what was run, and how it is reduced.
      config: of the run; what its command made at that revision if the table alone was kept.
      rules: by which claims were decided, as far as their rows do not say.
      claims: with verdicts.
      tables: cells as strings.
      figures: (path from the root of the repository, caption).
    """

    job: str
    title: str
    source: str
    command: str
    git_revision: str
    seeds: Sequence[int]
    seconds: float
    device: str
    versions: Mapping[str, str]
    setting: str
    config: Mapping[str, Any]
    rules: str
    claims: Sequence[Verdict]
    tables: Sequence[Table]
    figures: Sequence[tuple[str, str]]

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
          ValueError: if there is none, with those there are.
        """
        for table in self.tables:
            if table.name == name:
                return table
        known = ", ".join(table.name for table in self.tables) or "none"
        raise ValueError(f"{self.job} has no table {name!r}; choose one of {known}")


def verdict_of(said: str) -> str:
    """One of `VERDICTS` for an experiment's own word.

    Raises:
      ValueError: if the word is not known, with those that are.
    """
    for start, verdict in _WORDS:
        if said.startswith(start):
            return verdict
    known = ", ".join(repr(start) for start, _ in _WORDS)
    raise ValueError(f"unknown verdict {said!r}; it must begin with one of {known}")


def read_claims(table: Table) -> list[Verdict]:
    """The rows of a table of claims, whatever its columns are called.

    Raises:
      ValueError: if a column or a verdict is not known.
    """
    unknown = [column for column in table.columns if column not in _COLUMNS]
    if unknown:
        raise ValueError(
            f"table {table.name} has unknown columns {unknown}; known are {', '.join(_COLUMNS)}"
        )
    claims = []
    for row in table.cells():
        fields = dict.fromkeys(Verdict._fields, "")
        fields |= {_COLUMNS[key]: cell for key, cell in zip(table.columns, row, strict=True)}
        claims.append(Verdict(**fields | {"verdict": verdict_of(fields["said"])}))
    return claims


def hide_paths(content: Any) -> Any:
    """JSON content whose absolute paths are cut to the last part: `npz:/a/b.npz` -> `npz:b.npz`."""
    if isinstance(content, str):
        return re.sub(r"(?<![\w.<])/(?:[\w.+-]+/)+([\w.+-]+)", r"\1", content)
    if isinstance(content, Mapping):
        return {key: hide_paths(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [hide_paths(value) for value in content]
    return content


def _csv_of(table: Table) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.cells())
    return text.getvalue().encode()


def _rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


def _split(line: str, dashes: str) -> list[str]:
    """Cells of a line of a Markdown table whose columns are padded as in its line of dashes."""
    bars = [i for i, letter in enumerate(dashes) if letter == "|"]
    return [line[left + 1 : right].strip() for left, right in itertools.pairwise(bars)]


def read_run_table(folder: Path, name: str) -> Table:
    """A table of a run's workdir, as `report.write_table` wrote it, with cells as shown.

    Args:
      folder: `tables/` of the workdir.
      name: of the table.

    Raises:
      ValueError: if its two files do not have the same rows.
    """
    title, table, *notes = (folder / f"{name}.md").read_text("utf-8").strip().split("\n\n")
    _, dashes, *lines = table.splitlines()
    rows = [_split(line, dashes) for line in lines]
    columns, *raw = _rows_of((folder / f"{name}.csv").read_bytes())
    agree = len(raw) == len(rows) and all(
        len(shown) == len(exact)
        and all(_same(left, right) for left, right in zip(shown, exact, strict=True))
        for shown, exact in zip(rows, raw, strict=True)
    )
    if not agree:
        raise ValueError(f"{folder / name}.md and .csv differ; run the experiment again")
    return Table(name, title.strip("*"), columns, rows, "\n\n".join(notes))


def _same(shown: str, exact: str) -> bool:
    if shown == exact.strip():
        return True
    try:
        return abs(float(shown) - float(exact)) <= 0.01 * abs(float(exact))
    except ValueError:
        return False


def from_workdir(
    workdir: Path, job: str, title: str, figures: Sequence[tuple[str, str]] = ()
) -> Record:
    """The record of a finished run.

    Args:
      workdir: with results.json, config.json and tables/.
      job: its name.
      title: for people.
      figures: (path from the root of the repository, caption) of those that are kept.

    Raises:
      ValueError: if a table is damaged or a verdict is not known.
    """
    results = json.loads((workdir / "results.json").read_text("utf-8"))
    config = json.loads((workdir / "config.json").read_text("utf-8"))
    names = sorted(path.stem for path in (workdir / "tables").glob("*.csv"))
    tables = [read_run_table(workdir / "tables", name) for name in names]
    tables = [
        table._replace(title=hide_paths(table.title), note=hide_paths(table.note))
        for table in tables
    ]
    claims = [table for table in tables if table.name == TABLE_OF_CLAIMS]
    command = re.sub(r""" (["'])--workdir=.*?\1| --workdir[= ]\S+""", "", results["command"])
    cores = results.get("cpu_cores")
    return Record(
        job=job,
        title=title,
        source=FROM_RUN,
        command=hide_paths(command),
        git_revision=results["git_revision"],
        seeds=results["seeds"],
        seconds=float(results["wall_seconds"]),
        device=results["device"] + (f", {cores} CPU cores" if cores else ""),
        versions=results["versions"] | {"python": results["python"]},
        setting=hide_paths(results["setting"]),
        config=hide_paths(config),
        rules=claims[0].note if claims else "",
        claims=read_claims(claims[0]) if claims else [],
        tables=[table for table in tables if table.name != TABLE_OF_CLAIMS],
        figures=list(figures),
    )


def write_record(folder: Path, record: Record) -> None:
    """Write record.json and the tables into the folder, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for table in record.tables:
        content = _csv_of(table)
        write_bytes(folder / f"{table.name}.csv", content)
        digest = hashlib.sha256(content).hexdigest()
        about = {"name": table.name, "title": table.title, "note": table.note}
        listed.append(about | {"sha256": digest})
    content = record._asdict() | {
        "seconds": record.seconds if record.seconds == record.seconds else None,
        "claims": [claim._asdict() for claim in record.claims],
        "tables": listed,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(folder / "record.json", (text + "\n").encode())


def read_record(folder: Path) -> Record:
    """The record in a folder.

    Raises:
      ValueError: if a file is missing, damaged or was edited, with the file and the way out.
    """
    path = folder / "record.json"
    way_out = "restore it from git, or record the job again"
    try:
        content = json.loads(path.read_text("utf-8"))
        claims = [Verdict(**claim) for claim in content["claims"]]
        tables = [_read_table(folder, entry) for entry in content["tables"]]
        seconds = float("nan") if content["seconds"] is None else float(content["seconds"])
        figures = [tuple(figure) for figure in content["figures"]]
        known = {"claims": claims, "tables": tables, "seconds": seconds, "figures": figures}
        record = Record(**content | known)
    except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"record {path} is damaged ({error}); {way_out}") from error
    wrong = [claim.verdict for claim in record.claims if claim.verdict not in VERDICTS]
    if wrong:
        raise ValueError(f"record {path} has the verdict {wrong[0]!r}, none of {VERDICTS}")
    if record.job != folder.name:
        raise ValueError(f"record {path} is of the job {record.job!r}; {way_out}")
    return record


def _read_table(folder: Path, entry: Mapping[str, str]) -> Table:
    path = folder / f"{entry['name']}.csv"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(
            f"table {path} is not the one that was recorded (SHA-256 differs); restore it from "
            "git, or record the job again"
        )
    columns, *rows = _rows_of(content)
    return Table(entry["name"], entry["title"], columns, rows, entry["note"])
