"""The jobs of `experiments.reproduce`: what is there, what is missing, and running it."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from tabulate import tabulate

from experiments.reproduce_full import FULL
from experiments.reproduce_jobs import JOBS, Job
from recon_jax import data
from recon_jax.files import write_bytes
from recon_jax.report.papers import duration
from recon_jax.report.recorded import Record

ROOT = Path(__file__).resolve().parents[1]
ALL: Mapping[int, Sequence[Job]] = {paper: (*JOBS[paper], *FULL[paper]) for paper in JOBS}
IMAGENET = 1_281_167  # training images
DONE, TO_RUN = "done", "to run"
_LOG_LINES = 6  # of a failed job that are shown


class Planned(NamedTuple):
    """A job with what it needs to run.

    Attributes:
      paper: 1 to 5.
      job: of the table.
      config: with the changes of the job, of its dataset, and of a smoke run.
      seeds: of the run.
      workdir: of the run.
      arguments: of the experiment's command line, without the workdir.
      state: `DONE`, `TO_RUN`, or why it cannot run.
      device: what it is meant for.
      estimate: of its time, in words.
      seconds: that the committed run took, NaN if there is none or it says nothing of this one.
    """

    paper: int
    job: Job
    config: ConfigDict
    seeds: Sequence[int]
    workdir: Path
    arguments: Sequence[str]
    state: str
    device: str
    estimate: str
    seconds: float = math.nan


def jobs_of(paper: int, full: bool = False, smoke: bool = False) -> list[Job]:
    """Jobs of a paper; one an experiment for a smoke run, which cannot tell variants apart.

    Args:
      paper: 1 to 5.
      full: at full size instead.
      smoke: only to see that everything runs.
    """
    jobs = list((FULL if full else JOBS)[paper])
    if not smoke:
        return jobs
    first: dict[str, Job] = {}
    # What needs no data runs anywhere, so it comes first.
    for job in sorted(jobs, key=lambda job: bool(job.data)):
        first.setdefault(job.experiment, job)
    return [job for job in jobs if first[job.experiment] is job]


def changes_of(job: Job, datasets: Mapping[str, str]) -> dict[str, Any]:
    """Changes to the config by dotted field: the job's, and the source of its dataset."""
    source = datasets.get(job.data)
    return {**job.changes, **({"data.source": source} if source else {})}


def config_of(job: Job, datasets: Mapping[str, str], smoke: bool) -> ConfigDict:
    """The config that the experiment's command line makes of the same arguments."""
    config = importlib.import_module(f"configs.{job.experiment}").get_config(job.variant)
    config.update_from_flattened_dict(changes_of(job, datasets))
    if smoke:
        config = importlib.import_module(f"experiments.{job.experiment}").smoke(config)
    return config


def arguments_of(
    job: Job, datasets: Mapping[str, str], seeds: Sequence[int], smoke: bool
) -> list[str]:
    """Arguments of the experiment's command line, without the workdir."""
    changes = changes_of(job, datasets).items()
    return [
        f"--config=configs/{job.experiment}.py:{job.variant}",
        *(f"--config.{field}={value}" for field, value in changes),
        f"--seeds={','.join(map(str, seeds))}",
        *(["--smoke"] if smoke else []),
    ]


def is_finished(workdir: Path, config: ConfigDict, seeds: Sequence[int]) -> bool:
    """Whether the workdir has the results of this config and these seeds."""
    files = [workdir / name for name in ("config.json", "results.json")]
    try:
        found, results = (json.loads(path.read_text("utf-8")) for path in files)
        # A run writes its config when it starts and its results when it ends.
        begun, ended = (path.stat().st_mtime_ns for path in files)
    except (OSError, ValueError):
        return False
    wanted = json.loads(json.dumps(config.to_dict(), default=str))
    return ended >= begun and found == wanted and results.get("seeds") == list(seeds)


def lacks(config: ConfigDict) -> str:
    """Why the dataset of a config cannot be opened; empty if it can."""
    options = config.get("data", ConfigDict())
    source = options.get("source", "")
    if source.partition(":")[0] not in ("tfds", "npz", "folder"):
        return ""
    try:
        size = options.get("image_size", 0) or None
        data.open_source(source, image_size=size, data_dir=options.get("data_dir") or None)
    except (OSError, ValueError, ImportError) as error:
        return str(error).splitlines()[0]
    return ""


def _is_vit_b_step(config: ConfigDict) -> bool:
    """Whether it trains what `configs.capacity` sizes: a masked ViT-B in batches of 4,096."""
    model = config.get("model")
    if not isinstance(model, ConfigDict) or "decoder_width" not in model:
        return False
    sizes = (model.width, model.depth, model.patch_size, config.data.image_size)
    return sizes == (768, 12, 16, 224) and config.train.batch_size == 4096


def estimate_full(config: ConfigDict, capacity: Record | None) -> str:
    """Time of a large job by the committed capacity table, if it has that step; else says so."""
    if capacity is None or not _is_vit_b_step(config):
        return "not estimated"
    train = config.train
    table = capacity.table("accelerators")
    for machine, job, *_, predicted, _ in table.rows:
        if machine == "v4-32" and job.startswith("ViT-B MAE step"):
            steps = train.epochs * IMAGENET / train.batch_size
            seconds = steps * float(predicted.split()[0]) / 1000
            return f"{duration(seconds)} of pretraining on v4-32 at peak rates"
    return "not estimated"


def _expected(
    smoke: bool, full: bool, config: ConfigDict, job: Job, records: Mapping[str, Record | None]
) -> tuple[str, str, float]:
    """Device, time in words, and seconds where the record is of the same run."""
    record = records.get(job.name)
    if smoke:
        return "any", "under a minute", math.nan
    if full:
        return "accelerator", estimate_full(config, records.get("accelerators")), math.nan
    if record is None or math.isnan(record.seconds):
        return record.device if record else "CPU", "not measured", math.nan
    return record.device, duration(record.seconds), record.seconds


def make_plan(options: argparse.Namespace, records: Mapping[str, Record | None]) -> list[Planned]:
    """Every job of the chosen papers, with what is there of it.

    Args:
      options: of the command line.
      records: job -> committed record, or None; "accelerators" is the capacity table.
    """
    plan = []
    for paper in options.paper:
        # Jobs that are named may be any.
        jobs = ALL[paper] if options.jobs else jobs_of(paper, options.full, options.smoke)
        for job in jobs:
            if options.jobs and job.name not in options.jobs:
                continue
            config = config_of(job, options.data, options.smoke)
            seeds = list(options.seeds or (job.seeds[:1] if options.smoke else job.seeds))
            workdir = options.workdir / f"paper{paper}" / job.name
            state = DONE if is_finished(workdir, config, seeds) else lacks(config) or TO_RUN
            found = (paper, job, config, seeds, workdir)
            arguments = arguments_of(job, options.data, seeds, options.smoke)
            expected = _expected(options.smoke, job in FULL[paper], config, job, records)
            plan.append(Planned(*found, arguments, state, *expected))
    return plan


def describe_plan(plan: Sequence[Planned]) -> str:
    """The plan as a table for a terminal, and the time that is known of what is to run."""
    rows = [
        [
            item.paper,
            item.job.name,
            item.job.recipe,
            ",".join(map(str, item.seeds)),
            item.device,
            item.estimate,
            item.state if len(item.state) < 60 else item.state[:57] + "...",
        ]
        for item in plan
    ]
    columns = ["paper", "job", "config", "seeds", "device", "estimate", "state"]
    table = tabulate(rows, columns, tablefmt="simple", disable_numparse=True)
    missing = [item.seconds for item in plan if item.state == TO_RUN]
    known = sum(seconds for seconds in missing if not math.isnan(seconds))
    done = sum(item.state == DONE for item in plan)
    skipped = len(plan) - done - len(missing)
    total = f", {duration(known)} where it was measured" if known else ""
    return f"{table}\n{done} done, {len(missing)} to run{total}, {skipped} skipped"


def _stop(number, frame) -> None:
    raise SystemExit(f"stopped by signal {number}; the same command resumes")


def run_process(command: Sequence[str], log: Path) -> int:
    """Run a command with its output in a file; a signal to this process goes on to it."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with open(log, "ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=ROOT)
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)  # an experiment saves and ends
        process.wait()
        raise


def seconds_of(workdir: Path) -> float:
    """Wall seconds of all attempts at a job so far."""
    try:
        return float(json.loads((workdir / "attempts.json").read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


def run_job(item: Planned) -> int:
    """Run one job in a process of its own; returns the exit code, 0 if its results are there."""
    item.workdir.mkdir(parents=True, exist_ok=True)
    log = item.workdir / "log.txt"
    command = [sys.executable, "-m", f"experiments.{item.job.experiment}", *item.arguments]
    start, before = time.perf_counter(), seconds_of(item.workdir)
    try:
        code = run_process([*command, f"--workdir={item.workdir}"], log)
    finally:
        taken = {"seconds": round(before + time.perf_counter() - start, 1)}
        write_bytes(item.workdir / "attempts.json", json.dumps(taken).encode())
    if code == 0 and not is_finished(item.workdir, item.config, item.seeds):
        code = 1  # it ended as it does after SIGTERM, or wrote the results of something else
    return code


def run_all(plan: Sequence[Planned]) -> dict[str, int]:
    """Run what is missing, one after another; returns job -> exit code of those that ran."""
    before = signal.signal(signal.SIGTERM, _stop)
    outcomes = {}
    try:
        for item in plan:
            if item.state != TO_RUN:
                continue
            print(f"{item.job.name}: started ({item.estimate})", flush=True)
            start = time.perf_counter()
            code = outcomes[item.job.name] = run_job(item)
            word = (
                "done" if code == 0 else f"failed with exit code {code}; see {item.workdir}/log.txt"
            )
            print(f"{item.job.name}: {word}, {duration(time.perf_counter() - start)}", flush=True)
            if code:
                lines = (item.workdir / "log.txt").read_text("utf-8", "replace").splitlines()
                print("\n".join(f"    {line}" for line in lines[-_LOG_LINES:]), flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)
    return outcomes
