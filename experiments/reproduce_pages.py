"""Records, pages and reports of `experiments.reproduce`."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.reproduce_claims import decide_all
from experiments.reproduce_jobs import Job
from experiments.reproduce_rules import RULES
from experiments.reproduce_runs import (
    ALL,
    TO_RUN,
    Planned,
    is_finished,
    make_plan,
    seconds_of,
)
from recon_jax import report
from recon_jax.files import write_bytes
from recon_jax.report import papers, recorded
from recon_jax.report.recorded import VERDICTS, Record

RESULTS = Path("experiments") / "results"
FIGURES = Path("experiments") / "figures"
GUIDE = Path("experiments") / "guide"
# Records that belong to no paper: folder -> names.
OTHERS = {"capacity": ("accelerators",)}
SMOKE = "A smoke run shows that all of it runs; its numbers and verdicts mean nothing."


def figures_of(job: Job) -> list[tuple[str, str]]:
    """Figures of a job that are committed: path from the root, and caption."""
    return [(str(FIGURES / f"{name}.png"), job.title) for name in job.figures.values()]


def read_records(root: Path) -> dict[str, Record | None]:
    """Every job with its committed record, or None.

    Args:
      root: of the repository.

    Raises:
      ValueError: if a record is damaged.
    """
    folders = {
        job.name: root / RESULTS / f"paper{paper}" / job.name
        for paper, jobs in ALL.items()
        for job in jobs
    }
    folders |= {name: root / RESULTS / part / name for part, ns in OTHERS.items() for name in ns}
    return {
        name: recorded.read_record(folder) if (folder / "record.json").exists() else None
        for name, folder in folders.items()
    }


def read_papers(root: Path) -> dict[int, dict[str, str]]:
    """Title, question, answer and setting of each paper, in words."""
    found = json.loads((root / RESULTS / "papers.json").read_text("utf-8"))
    return {int(number): words for number, words in found.items()}


def results_block(root: Path, records: Mapping[str, Record | None]) -> str:
    """The README's table of papers."""
    rows = []
    for number, words in read_papers(root).items():
        jobs = [records[job.name] for job in ALL[number]]
        claims = [claim for record in jobs if record for claim in record.claims]
        counts = [str(sum(claim.verdict == word for claim in claims)) for word in VERDICTS]
        page = f"[tables]({RESULTS / f'paper{number}.md'})"
        answer = papers.expand(words["answer"], records)
        rows.append(
            [words["title"], words["question"], answer, " / ".join(counts), words["setting"], page]
        )
    columns = [
        "paper",
        "question",
        "answer here",
        "claims in all settings: hold / do not / not decidable",
    ]
    return papers.markdown_table([*columns, "setting", "page"], rows)


def pages_of(root: Path) -> list[Path]:
    """Hand-written pages with generated blocks."""
    return [*sorted((root / RESULTS).glob("paper*.md")), *sorted((root / GUIDE).glob("*.md"))]


def regenerate(root: Path) -> dict[Path, tuple[str, str]]:
    """Each page as it is, and as the results make it.

    Raises:
      ValueError: if a record is damaged, or a page asks for what no record has.
    """
    records = read_records(root)
    made = {}
    for path in pages_of(root):
        text = path.read_text("utf-8")
        try:
            made[path] = (text, papers.fill(text, records))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    readme = root / "README.md"
    text = readme.read_text("utf-8")
    made[readme] = (text, papers.put_between(text, "results", results_block(root, records)))
    return made


def write(root: Path) -> list[Path]:
    """Make the pages anew; returns those that changed."""
    changed = []
    for path, (old, new) in regenerate(root).items():
        if new != old:
            write_bytes(path, new.encode())
            changed.append(path)
    return changed


def stale_claims(root: Path) -> list[str]:
    """Records whose claims are not what the rules make of their tables."""
    found = []
    for name, record in read_records(root).items():
        if record is not None and decide_all(record, RULES).claims != record.claims:
            found.append(f"claims of {name} are not what experiments/reproduce_rules.py says\n")
    return found


def record_of(item: Planned, figures: Sequence[tuple[str, str]]) -> Record:
    """The record of a finished run, with claims by rule where it decides none itself."""
    found = recorded.from_workdir(item.workdir, item.job.name, item.job.title, figures)
    # A run that was resumed knows of its last attempt alone.
    found = found._replace(seconds=max(found.seconds, seconds_of(item.workdir)))
    return decide_all(found, RULES)


def record(options: argparse.Namespace, root: Path) -> None:
    """Copy finished runs of the chosen papers into the repository.

    Raises:
      ValueError: if none is finished.
    """
    kept = 0
    for item in make_plan(options, read_records(root)):
        if not is_finished(item.workdir, item.config, item.seeds):
            continue
        found = record_of(item, figures_of(item.job))
        recorded.write_record(root / RESULTS / f"paper{item.paper}" / item.job.name, found)
        for run_name, name in item.job.figures.items():
            shutil.copyfile(
                item.workdir / "figures" / f"{run_name}.png", root / FIGURES / f"{name}.png"
            )
        print(f"recorded {item.job.name}: {papers.tally(found.claims)}")
        kept += 1
    if not kept:
        raise ValueError(
            f"no finished run in {options.workdir}; run without --record first, or name the "
            "folder, the --seeds and the --data of the runs"
        )


def _sections(item: Planned, found: Record) -> list[report.Section]:
    """Parts of a report about one job."""
    tables = list(found.tables)
    if found.claims:
        columns, rows = papers.claims_rows([found])
        title = f"Claims: {papers.tally(found.claims)}"
        tables.insert(0, report.Table("claims", title, columns, rows, found.rules))
    text = [plain(papers.describe(found)), found.setting]
    sections = [report.Section(found.title, text, tables=tables)]
    for path, caption in found.figures:
        sections.append(report.Section(caption, (), item.workdir.parent / path, caption))
    return sections


def _gather(plan: Sequence[Planned]) -> tuple[list[tuple[Planned, Record]], list[str]]:
    """Records of what is finished, and what is not there in words."""
    found, missing = [], []
    for item in plan:
        if not is_finished(item.workdir, item.config, item.seeds):
            reason = "did not finish" if item.state == TO_RUN else item.state
            missing.append(f"Not here: {item.job.title} ({reason}).")
            continue
        pictures = sorted((item.workdir / "figures").glob("*.png"))
        figures = [
            (f"{item.job.name}/figures/{path.name}", f"{item.job.title}: {path.stem}")
            for path in pictures
        ]
        found.append((item, record_of(item, figures)))
    return found, missing


def write_reports(plan: Sequence[Planned], options: argparse.Namespace, root: Path) -> list[Path]:
    """One HTML and one Markdown report a paper, of what is finished; returns their paths."""
    written = []
    for number, words in read_papers(root).items():
        if number not in options.paper:
            continue
        found, missing = _gather([item for item in plan if item.paper == number])
        missing = [*([SMOKE] if options.smoke else []), *missing]
        folder = options.workdir / f"paper{number}"
        folder.mkdir(parents=True, exist_ok=True)
        title, question = words["title"], words["question"]
        records = [record for _, record in found]
        text = papers.report_of(title, "\n\n".join([question, *missing]), records)
        write_bytes(folder / "report.md", text.encode())
        summary = [question, *(f"{r.title}: {papers.tally(r.claims)}" for r in records), *missing]
        sections = [part for pair in found for part in _sections(*pair)]
        facts = report.provenance()
        report.write_report(folder / "report.html", plain(title), summary, sections, facts)
        written += [folder / "report.md", folder / "report.html"]
    return written


def plain(text: str) -> str:
    """Markdown without its links and backticks."""
    return re.sub(r"\[(.+?)\]\(.+?\)", r"\1", text).replace("`", "")
