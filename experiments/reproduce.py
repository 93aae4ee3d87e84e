"""Every table and figure of the five papers: runs what is missing, then writes a report a paper.

    python -m experiments.reproduce --paper=1..5|all [--smoke] [--full] [--seeds=0,1,2]
        [--jobs=NAME,...] [--data=cifar10=npz:cifar10.npz] [--dry-run] [--workdir=DIR]
    python -m experiments.reproduce --paper=4 --record   # finished runs into experiments/results
    python -m experiments.reproduce --write              # pages and README from these results
    python -m experiments.reproduce --check              # are they what the results say?

Each job is an experiment in a process of its own, with a workdir of its own: results of the same
config and seeds are kept, interrupted runs resume. A job that fails or lacks its dataset does not
stop the others. --smoke runs one job of each experiment, shrunk; --full the variants for
accelerators, in place of those for two CPU cores. --dry-run says what would run, and for how long:
by the committed record for the small jobs, by the committed table of `experiments.capacity` where
it has a large one.

--record copies the tables of finished runs of the chosen papers, with command, config, versions and
verdicts, into experiments/results; the pages experiments/results/paper1.md ... are text of ours
with blocks made from them, as is the table of papers in README.md. Exit code 1: a job failed, or
--check found a difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import reproduce_pages as pages
from experiments import reproduce_runs as runs
from experiments.reproduce_jobs import JOBS
from recon_jax.report import papers

ROOT = Path(__file__).resolve().parents[1]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags; what cannot be understood ends with a message and exit code 2."""
    parser = argparse.ArgumentParser("experiments.reproduce", description=__doc__.split("\n")[0])
    parser.add_argument("--paper", default="all", help="1 to 5, such as 1,3, or all")
    parser.add_argument("--seeds", default="", help="such as 0,1,2; each job's own if not given")
    parser.add_argument("--jobs", default="", help="some by name, see --dry-run; all if not given")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=SOURCE",
                        help="such as cifar10=npz:cifar10.npz; may be repeated")  # fmt: skip
    parser.add_argument("--workdir", type=Path, default=None, help="results/reproduce if not given")
    for flag, text in (
        ("--smoke", "one job of each experiment, shrunk"),
        ("--full", "the variants for accelerators"),
        ("--dry-run", "say what would run, and run nothing"),
        ("--record", "copy finished results into experiments/results"),
        ("--write", "make pages and README anew from experiments/results"),
        ("--check", "compare pages and README with experiments/results"),
    ):
        parser.add_argument(flag, action="store_true", help=text)
    found = parser.parse_args(arguments)
    try:
        found.paper = _papers(found.paper)
        found.seeds = _seeds(found.seeds)
        found.jobs = _jobs(found.jobs, found.paper)
        found.data = dict(_dataset(item) for item in found.data)
        if found.smoke and found.record:
            raise ValueError("--record keeps results; those of --smoke are none")
    except ValueError as error:
        parser.error(str(error))
    folder = "reproduce-smoke" if found.smoke else "reproduce"
    found.workdir = (found.workdir or Path("results") / folder).expanduser().resolve()
    return found


def _papers(text: str) -> list[int]:
    if text == "all":
        return list(JOBS)
    chosen = text.split(",")
    if not all(item.isdigit() and int(item) in JOBS for item in chosen):
        raise ValueError(f"--paper must be all, or of {', '.join(map(str, JOBS))}; got {text!r}")
    return [int(item) for item in chosen]


def _seeds(text: str) -> list[int] | None:
    if not text:
        return None
    if not all(item.isdigit() for item in text.split(",")):
        raise ValueError(f"--seeds must be whole numbers such as 0,1,2, got {text!r}")
    return [int(item) for item in text.split(",")]


def _jobs(text: str, chosen: Sequence[int]) -> list[str] | None:
    names = text.split(",") if text else []
    known = [job.name for paper in chosen for job in runs.ALL[paper]]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--jobs has {unknown}; choose of {', '.join(known)}")
    return names or None


def _dataset(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    known = sorted({job.data for jobs in runs.ALL.values() for job in jobs if job.data})
    if not equals or name not in known:
        raise ValueError(
            f"--data must be NAME=SOURCE such as cifar10=npz:cifar10.npz, with NAME one of "
            f"{', '.join(known)}; got {text!r}"
        )
    scheme, _, address = source.partition(":")
    if scheme in ("npz", "folder"):  # experiments run in the root of the repository
        source = f"{scheme}:{Path(address).expanduser().resolve()}"
    return name, source


def check(root: Path = ROOT) -> list[str]:
    """Differences between the committed pages and those that the results make; none if all agree.

    Args:
      root: of the repository.

    Returns:
      A diff for each page that differs, or what keeps it from being made.
    """
    try:
        made = pages.regenerate(root)
    except ValueError as error:
        return [f"{error}\n"]
    found = [*pages.stale_claims(root)]
    for path, (old, new) in made.items():
        found.append(papers.differences(old, new, str(path.relative_to(root))))
    return [text for text in found if text]


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    try:
        if options.check:
            found = check(root)
            print("".join(found) or "pages and README are what experiments/results says")
            return int(bool(found))
        if options.record or options.write:
            if options.record:
                pages.record(options, root)
            for path in pages.write(root):
                print(f"wrote {path}")
            return 0
        plan = runs.make_plan(options, pages.read_records(root))
        print(runs.describe_plan(plan))
        if options.dry_run:
            return 0
        outcomes = runs.run_all(plan)
        for path in pages.write_reports(plan, options, root):
            print(f"Report: {path}")
        return int(any(code for code in outcomes.values()))
    except ValueError as error:
        print(f"experiments.reproduce: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
