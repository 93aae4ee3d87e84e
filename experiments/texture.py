"""Where does a local decoder help the latent, and where not? Probes against strength of texture.

    python -m experiments.texture [--config=configs/texture.py:VARIANT] [--workdir=DIR]
        [--smoke] [--seeds=0,1,2]

Texture is a random field of a known correlation over images of lower contrast, new at every visit
of a training image. For every strength, the variational autoencoders of all decoders are trained
and their posterior means probed with all labels and with few, beside the pixels and their principal
components.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import texture as recipe
from experiments import cli, trained, vae_readouts, vae_runs
from recon_jax import report
from recon_jax.report import texture as words


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    vae_runs.validate(config)
    vae_runs.require_cells(config)
    if len(config.latent_sizes) > 1:
        raise ValueError(
            f"latent_sizes must be one for a curve over texture, got {config.latent_sizes}"
        )
    strengths = tuple(config.strengths)
    if len(strengths) < 2 or len(set(strengths)) < len(strengths):
        raise ValueError(f"strengths must be two or more different ones, got {strengths}")
    for strength in strengths:
        trained.require_at_least("strengths", strength, 0)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    config = vae_runs.smoke(config)
    config.decoders, config.latent_sizes = ("factorised", "local-1"), (4,)
    config.strengths = (0.0, 0.15)
    return config


def at_strength(config: ConfigDict, strength: float) -> ConfigDict:
    """The config of one point of the curve."""
    config = ConfigDict(config.to_dict())
    config.texture.strength = float(strength)
    return config


def run_all(
    config: ConfigDict, workdir: Path, seeds: list[int]
) -> tuple[list[words.Point], list[dict[str, Any]], vae_runs.Context]:
    """Every strength and decoder: points of the curves, their rows, and the last context."""
    points, rows = [], []
    (size,) = config.latent_sizes
    for strength in report.progress(sorted(config.strengths), "strengths"):
        context = vae_runs.open_data(at_strength(config, strength), workdir)
        outcomes = []
        for name in config.decoders:
            found = vae_readouts.run_cell(context, name, size, seeds)
            outcomes.append(vae_readouts.outcome(context, name, size, found))
            rows += [
                {"strength": strength, "decoder": name, "seed": seed, **row}
                for seed, row in zip(seeds, found, strict=True)
            ]
            report.write_jsonl(workdir / "metrics.jsonl", records(rows))
        points.append(words.Point(strength, outcomes, vae_readouts.baselines(context, (size,))))
    return points, rows, context


def records(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each run, without times and curves."""
    return [
        {k: np.asarray(v).item() for k, v in row.items() if k != "seconds" and not np.ndim(v)}
        for row in rows
    ]


def write_outputs(
    context: vae_runs.Context,
    points: Sequence[words.Point],
    rows: Sequence[Mapping[str, Any]],
    note: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Table, figures, results.json and report; returns what results.json holds."""
    workdir = context.workdir
    table = words.texture_table(points, context.config.probe.shots, note)
    summary = words.texture_answer(points)
    figures = report.save_figures(
        workdir / "figures",
        {
            "texture": (words.texture_figure(points), words.ACCURACY_CAPTION),
            "kl": (words.kl_figure(points), words.KL_CAPTION),
        },
    )
    results = {"summary": summary, "runs": records(rows), "setting": note}
    sections = [
        report.Section("Where does a local decoder help?", (), *figures["texture"], [table]),
        report.Section("How much does the latent say?", (), *figures["kl"]),
    ]
    title = f"Local decoders on {context.train.name} under texture"
    return cli.publish(workdir, title, sections, [table], results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    points, rows, context = run_all(config, workdir, seeds)
    facts = cli.facts_of("texture", seeds, start)
    note = vae_readouts.describe(context, rows, seeds, facts)
    return write_outputs(context, points, rows, note, facts)


if __name__ == "__main__":
    cli.main("texture", recipe.get_config, run, smoke)
