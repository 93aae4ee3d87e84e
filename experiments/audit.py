"""What does an encoder keep of images, and what is it good for? Any encoder, beside baselines.

    python -m experiments.audit [--config=configs/audit.py:VARIANT] [--workdir=DIR]
        [--smoke] [--seeds=0,1,2]

Encoders are trained here, drawn at random, read from a run of this library or from published
weights, or are any function of the user's own; see configs/audit.py. Each is audited beside pixels,
principal components, random networks of its architecture and the supervised closed form: how much
of the pixels' spectrum it keeps, its alignment with labels, probes, its sensitivity to deformations
and to noise by layer, invariance, ranks. Several are compared. With several seeds, networks that
are trained or drawn here are audited once for each.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes;
finished audits are kept too, but of functions of the user's own, which may have changed. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import audit as recipe
from experiments import audit_entries, audit_runs, cli, trained
from recon_jax import audit, report
from recon_jax.audit import figures, findings, overview, page, tables

# What depends on the seed of a run, beside the draws of the audit.
SEEDED = ("train", "random")


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    for entry in audit_entries.entries_of(config):
        audit_entries.validate_entry(config, entry)
    options = config.audit
    for field, known in (("measures", audit.MEASURES), ("baselines", audit.BASELINES)):
        for name in options[field]:
            trained.require_choice(f"audit.{field}", name, known)
    least = {"draws": 1, "num_images": 0, "num_test_images": 0, "batch_size": 2, "cutoff": 2}
    least |= {"probe_images": 2, "bootstraps": 2, "shots": 1, "neighbors": 1, "most_pixels": 1}
    for field, low in least.items():
        trained.require_at_least(f"audit.{field}", options[field], low)
    for strength in options.strengths:
        if not 0 < strength <= 1:
            raise ValueError(f"audit.strengths must lie in (0, 1], got {strength}")


def smoke(config: ConfigDict) -> ConfigDict:
    """Few images, short training and few resamples, on the same code path."""
    config.data.train_limit, config.data.test_limit = 200, 100
    config.train.epochs, config.train.batch_size = 1, 40
    config.train.warmup_epochs, config.train.checkpoint_every = 0.0, 1
    config.audit.draws, config.audit.bootstraps, config.audit.probe_images = 2, 20, 50
    config.audit.batch_size, config.audit.strengths = 50, (0.5,)
    config.audit.baselines = ("pca", "random")
    config.encoders = config.encoders[:1] + config.encoders[1:][-1:]  # the first and the last
    return config


def run_all(
    context: audit_runs.Context, seeds: Sequence[int]
) -> tuple[list[audit.AuditReport], list[audit_runs.Built]]:
    """Every encoder, for every seed where it depends on that."""
    jobs = [
        (entry, seed)
        for entry in audit_entries.entries_of(context.config)
        for seed in (seeds if entry.kind in SEEDED else seeds[:1])
    ]
    found = []
    for entry, seed in report.progress(jobs, "audits"):
        several = entry.kind in SEEDED and len(seeds) > 1
        name = f"{entry.name}, seed {seed}" if several else entry.name
        found.append(audit_runs.run_entry(context, entry, seed, name))
        report.write_jsonl(context.workdir / "metrics.jsonl", records([one for one, _ in found]))
    return [one for one, _ in found], [built for _, built in found]


def records(reports: Sequence[audit.AuditReport]) -> list[dict[str, Any]]:
    """One line for each encoder and baseline, with the values of `overview.overview_table`."""
    lines = []
    for one in reports:
        table = overview.overview_table(one)
        for row in table.rows:
            cells = dict(zip(table.columns, row, strict=True))
            lines.append({"audit": one.encoder.name, **cells})
    return lines


def describe(context: audit_runs.Context, built: Sequence[audit_runs.Built]) -> str:
    """Setting of the run in words."""
    config = context.config
    parts = []
    if any(entry.kind == "train" for entry in audit_entries.entries_of(config)):
        options = config.train
        parts.append(
            f"Trained here: {options.epochs} epochs, batch {options.batch_size}, "
            f"{options.optimizer} at {options.learning_rate:g}, {options.augment}, but for changes "
            f"of single encoders; {sum(one.seconds for one in built):.0f} s in all."
        )
    parts += [f"{one.encoder.name}: {'; '.join(one.notes)}." for one in built if one.notes]
    return " ".join(parts)


def write_outputs(
    context: audit_runs.Context,
    reports: Sequence[audit.AuditReport],
    built: Sequence[audit_runs.Built],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figures, results.json and report; returns what results.json holds."""
    workdir = context.workdir
    audited = reports[0] if len(reports) == 1 else audit.compare(reports)
    glance = overview.overview_table(audited)
    every = [glance, *tables.audit_tables(audited).values()]
    drawn = report.save_figures(workdir / "figures", figures.audit_figures(audited))
    seconds = {one.encoder.name: one.seconds for one in reports}
    results = {
        "summary": findings.audit_findings(audited),
        "audit": audited.to_dict(),
        "seconds": seconds,
        "setting": describe(context, built),
    }
    sections = page.audit_sections(audited, drawn)
    title = page.audit_title(audited)
    return cli.publish(workdir, title, sections, every, results, facts, shown=1)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = audit_runs.open_data(config, workdir)
    reports, built = run_all(context, seeds)
    facts = cli.facts_of("audit", seeds, start)
    return write_outputs(context, reports, built, facts)


if __name__ == "__main__":
    cli.main("audit", recipe.get_config, run, smoke)
