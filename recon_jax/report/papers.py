"""Pages of results: generated blocks within hand-written Markdown, and reports by paper.

A block stands between a comment that says what belongs there and the next `<!-- end -->`:

    <!-- table JOB/NAME | where COLUMN = VALUE ; VALUE | columns COLUMN ; COLUMN -->
    <!-- claims JOB ; JOB -->
    <!-- setting JOB -->
    <!-- figures JOB -->

`experiments.reproduce` knows the jobs and where the pages are.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence

from recon_jax.report.recorded import FROM_TABLE, VERDICTS, Record, Verdict
from recon_jax.report.tables import Table

UNPUBLISHED = "not published here"
MISSING = "*Not recorded yet.*"
# Words for a verdict that say no more than it does.
_PLAIN_WORDS = ("reproduced", "not reproduced", "cannot be told")
_BLOCK = re.compile(
    r"(?P<open><!-- (?P<kind>table|claims|setting|figures) (?P<what>.+?) -->\n)"
    r"(?P<old>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown, one line a row, ending with a newline."""
    lines = [columns, ["---"] * len(columns), *rows]
    escaped = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def select(table: Table, wanted: Sequence[str]) -> Table:
    """Rows and columns of a table.

    Args:
      table: with cells as strings.
      wanted: parts such as "where strength = 0.1 ; 0.3", "last network" (of each value of the
        column the last row), and "columns strength ; loss". They are applied one after another;
        columns are shown in the order in which they are named.

    Returns:
      The rows that are wanted, at least one.

    Raises:
      ValueError: if a part, a column or a value is not there, with what is.
    """
    rows, shown = list(table.rows), list(table.columns)
    for part in wanted:
        key, _, rest = part.strip().partition(" ")
        if key == "columns":
            shown = [column.strip() for column in rest.split(" ; ")]
        elif key == "last":
            rows = list({row[_column(table, rest)]: row for row in rows}.values())
        elif key == "where" and " = " in rest:
            column, _, values = rest.partition(" = ")
            at, values = _column(table, column.strip()), values.strip().split(" ; ")
            rows = [row for row in rows if row[at] in values]
            if not rows:
                raise ValueError(
                    f"no row of table {table.name} has {part!r}; the column holds "
                    f"{', '.join(dict.fromkeys(row[at] for row in table.rows))}"
                )
        else:
            raise ValueError(
                f"{part!r} must be 'columns A ; B', 'last A' or 'where A = VALUE ; VALUE', of "
                f"{', '.join(table.columns)}"
            )
    order = [_column(table, column) for column in shown]
    return table._replace(columns=shown, rows=[[row[i] for i in order] for row in rows])


def _column(table: Table, name: str) -> int:
    if name not in table.columns:
        raise ValueError(
            f"table {table.name} has no column {name!r}; choose one of {' ; '.join(table.columns)}"
        )
    return list(table.columns).index(name)


def cell(records: Mapping[str, Record], reference: str) -> str:
    """One cell: "JOB/TABLE | where COLUMN = VALUE | columns COLUMN".

    Raises:
      ValueError: if it is not exactly one.
    """
    found = _find(records, reference)
    if found is None:
        return MISSING
    if len(found.rows) != 1 or len(found.columns) != 1:
        raise ValueError(f"{reference!r} is {len(found.rows)} x {len(found.columns)} cells, not 1")
    return found.rows[0][0]


def _find(records: Mapping[str, Record], reference: str) -> Table | None:
    where, *wanted = reference.split(" | ")
    job, _, name = where.strip().partition("/")
    record = _record(records, job)
    return None if record is None else select(record.table(name), wanted)


def _record(records: Mapping[str, Record | None], job: str) -> Record | None:
    if job not in records:
        raise ValueError(f"unknown job {job!r}; choose one of {', '.join(records)}")
    return records[job]


def duration(seconds: float) -> str:
    """Such as "36 s", "12 min", "2.5 h"; "unknown" for NaN."""
    if math.isnan(seconds):
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def describe(record: Record) -> str:
    """Command, seeds, time, device and revision in one paragraph."""
    seeds = ", ".join(map(str, record.seeds))
    facts = [f"`{record.command}`"]
    if seeds:
        facts.append(f"seeds {seeds}" if len(record.seeds) > 1 else f"seed {seeds}")
    facts += [duration(record.seconds), record.device, f"revision {record.git_revision}"]
    if record.source == FROM_TABLE:
        facts.append("source: table of that revision, the run itself was not kept")
    return "; ".join(facts) + "."


def claims_rows(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Claims of one record with rule, numbers and verdict; of several, verdicts side by side."""
    if len(records) == 1:
        columns = ["claim", "rule", "measured", "paper", "verdict"]
        return columns, [_claim_row(claim) for claim in records[0].claims]
    rules: dict[tuple[str, str], dict[str, None]] = {}
    for item in (claim for record in records for claim in record.claims):
        rules.setdefault((item.claim, item.of), {})[item.rule] = None
    found = [{(item.claim, item.of): item.verdict for item in r.claims} for r in records]
    columns = ["claim", "rule", *(record.title.split(": ")[-1] for record in records)]
    return columns, [
        # Where thresholds depend on the setting, each has its own.
        [_named(*key), " / ".join(words), *(verdicts.get(key, "-") for verdicts in found)]
        for key, words in rules.items()
    ]


def _named(claim: str, of: str) -> str:
    return f"{claim} ({of})" if of else claim


def _claim_row(claim: Verdict) -> list[str]:
    own = "" if claim.said in _PLAIN_WORDS or claim.said == claim.verdict else f" ({claim.said})"
    rule = claim.rule or "see below"
    paper = claim.paper or UNPUBLISHED
    return [_named(claim.claim, claim.of), rule, claim.measured, paper, claim.verdict + own]


def tally(claims: Sequence[Verdict]) -> str:
    """Such as "12 hold, 6 do not, 0 not decidable"; "no claims" for none."""
    if not claims:
        return "no claims"
    holds, fails, unknown = (sum(c.verdict == word for c in claims) for word in VERDICTS)
    return f"{holds} hold, {fails} do not, {unknown} not decidable"


def _table_block(records: Mapping[str, Record], what: str) -> str:
    found = _find(records, what)
    return MISSING + "\n" if found is None else markdown_table(found.columns, found.rows)


def _claims_block(records: Mapping[str, Record], what: str) -> str:
    chosen = [_record(records, job) for job in what.split(" ; ")]
    chosen = [record for record in chosen if record is not None and record.claims]
    if not chosen:
        return MISSING + "\n"
    rules = {record.rules: None for record in chosen if record.rules and len(chosen) == 1}
    note = "".join(f"\n*Rules: {text}*\n" for text in rules)
    return markdown_table(*claims_rows(chosen)) + note


def _setting_block(records: Mapping[str, Record], what: str) -> str:
    record = _record(records, what)
    return (MISSING if record is None else f"*{describe(record)}*") + "\n"


def _figures_block(records: Mapping[str, Record], what: str) -> str:
    record = _record(records, what)
    if record is None:
        return MISSING + "\n"
    # Pages lie in a folder beside that of the figures.
    shown = [(caption, path.split("/", 1)[1]) for path, caption in record.figures]
    return "\n".join(f"![{caption}](../{path})\n" for caption, path in shown)


_FILL: dict[str, Callable[[Mapping[str, Record], str], str]] = {
    "table": _table_block,
    "claims": _claims_block,
    "setting": _setting_block,
    "figures": _figures_block,
}


def fill(page: str, records: Mapping[str, Record | None]) -> str:
    """The page with every block made anew.

    Args:
      page: Markdown with blocks.
      records: job -> its record, or None if it was not recorded yet.

    Raises:
      ValueError: if a block names a job, table, column or value that is not there.
    """

    def replace(match: re.Match) -> str:
        made = _FILL[match["kind"]](records, match["what"].strip())
        return f"{match['open']}\n{made}\n{match['end']}"

    return _BLOCK.sub(replace, page)


def put_between(page: str, name: str, content: str) -> str:
    """The page with the content between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    Raises:
      ValueError: if the page does not have both comments once.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"a page must have {begin} and then {end}, once each")
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{content}\n{end}{rest.partition(end)[2]}"


def expand(text: str, records: Mapping[str, Record | None]) -> str:
    """Text whose `{{JOB/TABLE | where ... | columns COLUMN}}` are replaced by these cells."""
    return re.sub(r"\{\{(.+?)\}\}", lambda match: cell(records, match[1]), text)


def differences(old: str, new: str, name: str) -> str:
    """A unified diff, empty if both are the same."""
    lines = (text.splitlines(keepends=True) for text in (old, new))
    return "".join(difflib.unified_diff(*lines, f"{name} (committed)", f"{name} (regenerated)"))


def report_of(title: str, question: str, records: Sequence[Record]) -> str:
    """A Markdown report of one paper: of each job the setting, claims and tables."""
    parts = [f"# {title}\n", f"{question}\n"]
    for record in records:
        parts += [f"## {record.title}\n", f"{describe(record)}\n", f"{record.setting}\n"]
        if record.claims:
            parts += [f"**Claims: {tally(record.claims)}**\n"]
            parts += [markdown_table(*claims_rows([record]))]
            parts += [f"Rules: {record.rules}\n"] if record.rules else []
        parts += [
            f"**{table.title}**\n\n{markdown_table(table.columns, table.cells())}"
            for table in record.tables
        ]
        parts += [f"![{caption}]({path})\n" for path, caption in record.figures]
    return "\n".join(parts)
