"""Does the closed form predict which masks serve the perception of trained masked autoencoders?

    python -m experiments.mask_sweep [--config=configs/mask_sweep.py:VARIANT] [--workdir=DIR]
        [--smoke] [--seeds=0,1,2]

For every corruption the alignment of the optimal linear latents is computed from the moments of the
training images, and the same object corrupts the images that a vision transformer is trained to
restore; a linear probe and nearest neighbours then read its features. Do the two agree in order?

Every (corruption, seed) is a run in runs/NAME; finished runs are kept, and the one under way
resumes. Writes report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into
the workdir.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import mask_sweep as recipe
from experiments import cli, masked_runs, trained
from recon_jax import data, report, spectral
from recon_jax.report import mask_sweep as words
from recon_jax.training.denoising import token_groups


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    masked_runs.validate(config)
    trained.require_choice("precision", config.precision, ("float32", "float64"))
    specs = [tuple(spec) for spec in config.corruptions]
    if len(specs) < 4 or len(set(specs)) < len(specs):
        raise ValueError(
            f"corruptions must hold four or more, each once, for a rank correlation; got {specs}"
        )
    if ("identity",) not in specs:
        raise ValueError("corruptions must hold ('identity',), to which all are compared")
    ranks = (*config.ranks, config.rank)
    if min(ranks) < 1:
        raise ValueError(f"rank and ranks must be 1 or more, got {ranks}")
    if config.rank not in config.ranks:
        raise ValueError(f"ranks must hold rank={config.rank}, got {tuple(config.ranks)}")


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images and corruptions, short training of tiny networks, on the same code path."""
    config.data.train_limit, config.data.test_limit, config.data.image_size = 200, 100, 16
    config.train.epochs, config.train.batch_size, config.train.warmup_steps = 2, 40, 2
    config.model.width, config.model.depth, config.model.heads = 16, 1, 2
    config.model.decoder_width, config.model.decoder_heads = 8, 1
    config.rank, config.ranks = 16, (4, 16)
    config.corruptions = (
        ("identity",),
        ("gaussian", 0.5),
        ("patch_subset", 0.75, 4),
        ("grid_mask", 2, 4),
    )
    return config


def label_of(corruption: spectral.Corruption) -> str:
    """A corruption and what it hides, for people."""
    if corruption.mask is None:
        return corruption.name
    patches = math.prod(corruption.mask.grid)
    return f"{corruption.name}, {patches - corruption.mask.num_visible} of {patches} hidden"


def predict(context: masked_runs.Context) -> dict[str, dict[str, np.ndarray]]:
    """Alignment, impact and neutrality of every corruption, from the moments of training images."""
    config, source = context.config, context.train
    made: dict[str, Any] = {}

    def statistics():
        if not made:
            batches = trained.evaluation_batches(source)
            moments = spectral.stream_moments(batches, source.num_classes)
            made["moments"] = spectral.scale_moments(moments, 1 / context.normalization.scale)
            made["spectrum"] = spectral.eigendecompose(made["moments"])
        return made["moments"], made["spectrum"]

    found = {}
    for spec in report.progress(config.corruptions, "closed forms"):

        def compute(spec=spec):
            # Networks are trained in the default precision.
            with jax.enable_x64(config.precision == "float64"):
                moments, spectrum = statistics()
                corruption = spectral.make_corruption(spec, source.image_shape)
                seen = spectral.survey(
                    moments, corruption, spectrum=spectrum, max_rank=max(config.ranks)
                )
                return {
                    "alignment": np.asarray(seen.alignment),
                    "impact": np.asarray(seen.impact),
                    "max_sine": np.asarray(seen.neutrality.max_sine),
                    "is_neutral": np.asarray(seen.neutrality.is_neutral),
                }

        key = ["closed form", list(spec), config.precision, max(config.ranks)]
        found[str(spec)] = context.cached("closed_form", key, compute)
    return found


def train_all(context: masked_runs.Context, seeds: list[int]) -> dict[str, list[dict]]:
    """Every corruption and seed."""
    found, records = {}, []
    shape = context.train.image_shape
    for spec in report.progress(context.config.corruptions, "corruptions"):
        name = "-".join(str(part) for part in spec)
        corruption = spectral.make_corruption(spec, shape)
        task = masked_runs.Task(name, corruption, None, list(spec))
        found[str(spec)] = masked_runs.run_task(context, task, seeds)
        for seed, run in zip(seeds, found[str(spec)], strict=True):
            numbers = {k: v.item() for k, v in run.items() if k != "seconds"}
            records.append({"corruption": corruption.name, "seed": seed, **numbers})
        report.write_jsonl(context.workdir / "metrics.jsonl", records)
    return found


def gather(context: masked_runs.Context, predicted: dict, runs: dict) -> list[words.Cell]:
    """Prediction and outcome of every corruption."""
    cells, shape = [], context.train.image_shape
    patch_size = context.config.model.patch_size
    for spec in context.config.corruptions:
        theory, found = predicted[str(spec)], runs[str(spec)]
        corruption = spectral.make_corruption(spec, shape)
        cells.append(
            words.Cell(
                name=label_of(corruption),
                kind=words.kind_of(spec[0]),
                alignment=np.asarray(theory["alignment"]),
                impact=np.asarray(theory["impact"]),
                is_neutral=bool(theory["is_neutral"]),
                drops_patches=token_groups(corruption, patch_size, shape) is not None,
                linear_probe=np.array([run["linear_probe"] for run in found]),
                knn=np.array([run["knn"] for run in found]),
                error=np.array([run["squared_error"] for run in found]),
                seconds=float(np.mean([run["seconds"] for run in found])),
            )
        )
    return cells


def examples(context: masked_runs.Context) -> dict[str, np.ndarray]:
    """Some training images as each corruption leaves them, normalised."""
    images = context.train.read(np.arange(min(8, context.train.num_images)))[0]
    images = jnp.asarray(data.normalize(context.normalization, images))
    shown = {}
    for spec in context.config.corruptions:
        corruption = spectral.make_corruption(spec, context.train.image_shape)
        shown[corruption.name] = np.asarray(corruption.corrupt(jax.random.key(0), images))
    return shown


def describe(context: masked_runs.Context, seeds: list[int]) -> str:
    """Data, network and training in words."""
    config, train = context.config, context.train
    height, width, channels = train.image_shape
    model = config.model
    return (
        f"{train.name}, {train.num_images:,} training and {context.test.num_images:,} test images "
        f"of {height}x{width}x{channels}, centred, in units of one standard deviation; encoder of "
        f"{model.depth} blocks of width {model.width} on patches of {model.patch_size}, features "
        f"pooled by {model.pooling}; {config.train.epochs} epochs, batch "
        f"{config.train.batch_size}, targets {config.targets}; K = {config.rank}; seeds "
        f"{', '.join(map(str, seeds))}."
    )


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = masked_runs.open_data(config, workdir)
    if max(config.ranks) > math.prod(context.train.image_shape):
        raise ValueError(
            f"ranks={tuple(config.ranks)} exceed the {math.prod(context.train.image_shape)} "
            "scalars of an image"
        )
    predicted = predict(context)
    runs = train_all(context, seeds)
    bases = [masked_runs.baselines(context, seed) for seed in seeds]
    cells = gather(context, predicted, runs)

    seconds = sum(float(run["seconds"]) for found in runs.values() for run in found)
    facts = cli.facts_of("mask_sweep", seeds, start)
    note = f"{describe(context, seeds)} {trained.device_note(facts, seconds)}"
    references = {
        name: np.array([[base[name]["linear_probe"], base[name]["knn"]] for base in bases])
        for name in ("untrained", "pixels")
    }
    agreements = words.agreements(cells, config.ranks)
    tables = [
        words.cell_table(cells, references, config.rank, note),
        words.agreement_table(agreements, config.rank, note),
    ]
    summary = words.summarize(cells, agreements, references, config.rank)
    figures = report.save_figures(
        workdir / "figures",
        {
            "scatter": (
                words.scatter_figure(cells, references, config.rank),
                "Alignment in closed form against accuracy of trained encoders, one point a "
                "corruption; bars are the standard deviation over seeds.",
            ),
            "corruptions": (
                words.strips(examples(context)),
                "Training images as each corruption leaves them; hidden pixels have the value of "
                "the mean image. Each image is stretched to its own range.",
            ),
        },
    )
    results = {
        "summary": summary,
        "cells": [cell._asdict() for cell in cells],
        "references": references,
        "agreements": [item._asdict() for item in agreements],
        "setting": note,
    }
    sections = [
        report.Section("Does alignment predict accuracy?", (), *figures["scatter"], tables),
        report.Section("What the networks had to restore", (), *figures["corruptions"]),
    ]
    title = f"Which masks serve perception on {context.train.name}?"
    return cli.publish(workdir, title, sections, tables, results, facts)


if __name__ == "__main__":
    cli.main("mask_sweep", recipe.get_config, run, smoke)
