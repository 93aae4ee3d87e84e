"""Does mask-reconstruction pretraining beat supervision from scratch, and does it see more parts?

    python -m experiments.pretraining_helps [--config=configs/pretraining_helps.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]

For each seed a masked autoencoder is pretrained on all images without labels and fine-tuned with
part of the labels. Beside it stand the same network from scratch, trained for as many supervised
steps and for as long as pretraining and fine-tuning together, and linear probes of the frozen
encoder and of a new one. Then all trained networks are asked where they look (Eigen-CAM), and how
many regions of an image keep the logit of the predicted class.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import pretraining_helps as recipe
from experiments import cli, masked_finetuning, masked_runs, pretraining_runs, trained
from experiments.pretraining_runs import Cell, Row
from recon_jax import multiview, report, spectral, training
from recon_jax.report import pretraining_figures as figures
from recon_jax.report import pretraining_helps as words
from recon_jax.training.denoising import token_groups

Found = dict[Cell, list[Row]]


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    masked_runs.validate(config)
    masked_finetuning.validate(config, "finetuning")
    trained.validate_training(pretraining_runs.long_config(config).finetuning, "finetuning")
    fractions = tuple(config.fractions)
    if not fractions or len(set(fractions)) < len(fractions):
        raise ValueError(f"fractions must be one or more different ones, got {fractions}")
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"fractions must lie in (0, 1], got {fraction}; 0.01 is 1 per cent")
    trained.require_at_least("num_pictures", config.num_pictures, 1)
    trained.require_at_least("regions.images", config.regions.images, 1)
    if not 0 < config.regions.share <= 1:
        raise ValueError(f"regions.share must lie in (0, 1], got {config.regions.share}")


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    masked_runs.shrink(config)
    config.fractions = (0.5, 1.0)
    config.regions.images = 8
    return config


def open_all(
    config: ConfigDict, workdir: Path
) -> tuple[masked_runs.Context, pretraining_runs.Makers, dict[float, int]]:
    """Data, trainers and numbers of labels; ValueError for what does not fit together."""
    context = masked_runs.open_data(config, workdir)
    shape = context.train.image_shape
    makers = pretraining_runs.make_makers(context)
    token_groups(makers.task.corruption, config.model.patch_size, shape)
    masked_finetuning.make_classifier(config, "finetuning", shape, context.train.num_classes)
    trained.plan_run(config.finetuning, context.train.num_images, "finetuning")
    pretraining_runs.look_rows(context)
    return context, makers, pretraining_runs.check_labels(context)


def run_all(context: masked_runs.Context, makers: pretraining_runs.Makers, seeds: list[int]):
    """Every method at every share of labels, seed by seed."""
    found: Found = {
        Cell(method, fraction): []
        for fraction in context.config.fractions
        for method in words.METHODS
    }
    for seed in seeds:
        for cell, row in pretraining_runs.run_seed(context, makers, seed):
            found[cell].append(row)
        report.write_jsonl(context.workdir / "metrics.jsonl", records(found, seeds))
    return found


def records(found: Found, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One line for each method, share of labels and seed, without times."""
    lines = []
    for cell, rows in found.items():
        for seed, row in zip(seeds, rows, strict=False):
            line = {**cell._asdict(), "seed": seed}
            line |= {name: row[name].item() for name in ("accuracy", "knn") if name in row}
            line |= {name: float(row[name].mean()) for name in pretraining_runs.SEEN}
            lines.append(line)
    return lines


def gather(found: Found, counts: Mapping[float, int]) -> list[words.Outcome]:
    """The rows of the table."""

    def values(rows, field):
        return np.stack([np.asarray(row[field], float) for row in rows])

    return [
        words.Outcome(
            cell.method,
            cell.fraction,
            counts[cell.fraction],
            *(values(rows, field) for field in ("accuracy", *pretraining_runs.SEEN)),
            values(rows, "seconds") + values(rows, "pretraining_seconds"),
        )
        for cell, rows in found.items()
    ]


def seconds_of(found: Found) -> float:
    """Of all training, every pretraining once."""
    own = sum(float(row["seconds"]) for rows in found.values() for row in rows)
    first = next(rows for cell, rows in found.items() if cell.method == "finetuned")
    return own + sum(float(row["pretraining_seconds"]) for row in first)


def describe(
    context: masked_runs.Context, found: Found, seeds: Sequence[int], facts: Mapping[str, Any]
) -> str:
    """Setting of the run in words, for the notes of the tables."""
    config, model, train = context.config, context.config.model, context.train
    options, tuned = config.train, config.finetuning
    height, width, channels = train.image_shape
    corruption = spectral.make_corruption(config.corruption, train.image_shape)
    steps = trained.plan_run(tuned, train.num_images).total
    long = options.epochs + tuned.epochs
    rows = [row for rows in found.values() for row in rows]
    parts = [
        f"Ours: {train.name}, {train.num_images:,} training and {context.test.num_images:,} test "
        f"images of {height}x{width}x{channels}; ViT of {model.depth} blocks of width "
        f"{model.width}, patches of {model.patch_size}; pretraining by "
        f"{corruption.name}, {config.targets} targets, {options.epochs} passes over all"
        f" images, batch {options.batch_size}, {options.augment}.",
        f"Supervised: {steps} steps of {tuned.batch_size} whatever the labels, as many images as "
        f"{tuned.epochs} pass(es) over all; as long in all is {long} passes, "
        "which costs more than pretraining and fine-tuning where masks drop tokens. Rate "
        f"{tuned.learning_rate:g}, layer-wise decay {tuned.layer_decay:g}, {tuned.augment}, the "
        "last state; a seed chooses labelled images, the same for all methods, as many of each "
        "class.",
        f"Regions: patches of {config.regions.images} test images in the order of Eigen-CAM of the "
        "last block, the others filled with the image's mean, until the logit of the predicted "
        f"class above the mean over classes stays at {config.regions.share:.0%} of that of the "
        "whole image or more. A poor map needs more regions too; the random order, one for all "
        "networks, does not depend on maps.",
        "Seconds include the pretraining.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
        masked_finetuning.probe_note(rows),
        trained.device_note(facts, seconds_of(found)),
    ]
    return " ".join(filter(None, parts))


def num_regions(context: masked_runs.Context) -> int:
    """Patches of an image."""
    return math.prod(
        side // context.config.model.patch_size for side in context.train.image_shape[:2]
    )


def looks_of(context: masked_runs.Context, found: Found) -> dict[str, figures.Look]:
    """What the networks of the first seed with the most labels make of the pictured images."""
    most, count = max(context.config.fractions), context.config.num_pictures
    looks = {}
    for method in words.TRAINED:
        row = {name: found[Cell(method, most)][0][name] for name in ("maps", "needed", "pieces")}
        maps, needed, pieces = (values[:count] for values in row.values())
        numbers = np.nan_to_num(needed).astype(int)
        kept = multiview.kept_regions(maps, numbers)
        looks[method] = figures.Look(maps, np.asarray(kept), needed, pieces)
    return looks


def draw(
    context: masked_runs.Context, found: Found, outcomes: Sequence[words.Outcome]
) -> dict[str, tuple[Path, str]]:
    """The figures, saved, with captions."""
    config, regions = context.config, num_regions(context)
    rows = pretraining_runs.look_rows(context)[: config.num_pictures]
    images = training.unit_pixels(context.test.read(rows)[0])
    return report.save_figures(
        context.workdir / "figures",
        {
            "accuracy": (figures.accuracy_figure(outcomes), figures.ACCURACY_CAPTION),
            "regions": (figures.regions_figure(outcomes, regions), figures.REGIONS_CAPTION),
            "maps": (
                figures.maps_figure(np.asarray(images), looks_of(context, found)),
                figures.MAPS_CAPTION,
            ),
        },
    )


def write_outputs(
    context: masked_runs.Context,
    found: Found,
    counts: Mapping[float, int],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figures, results.json and report; returns what results.json holds."""
    outcomes, note = gather(found, counts), describe(context, found, seeds, facts)
    claims = words.find_claims(outcomes)
    tables = [
        words.claims_table(claims, note),
        words.accuracy_table(outcomes, num_regions(context), note),
    ]
    pictures = draw(context, found, outcomes)
    results = {
        "summary": words.answer(claims),
        "claims": [claim._asdict() for claim in claims],
        "runs": records(found, seeds),
        "setting": note,
    }
    sections = [
        report.Section("Does pretraining help?", (), *pictures["accuracy"], tables),
        report.Section("How much of an image does a prediction need?", (), *pictures["regions"]),
        report.Section("Where do the networks look?", (), *pictures["maps"]),
    ]
    title = f"Does mask-reconstruction pretraining help on {context.train.name}?"
    return cli.publish(context.workdir, title, sections, tables, results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context, makers, counts = open_all(config, workdir)
    found = run_all(context, makers, seeds)
    facts = cli.facts_of("pretraining_helps", seeds, start)
    return write_outputs(context, found, counts, seeds, facts)


if __name__ == "__main__":
    cli.main("pretraining_helps", recipe.get_config, run, smoke)
