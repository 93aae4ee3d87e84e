"""Should a masked autoencoder reconstruct the bottom of the spectrum instead of the image?

    python -m experiments.spectral_targets [--config=configs/spectral_targets.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]

The input is always the masked original image; the target is that image, or its projection on the
top or the bottom of the principal components of the training images. Each encoder is read frozen,
by logistic regression and nearest neighbours, and fine-tuned; beside them stands an encoder that
was not pretrained.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import spectral_targets as recipe
from experiments import cli, masked_finetuning, masked_runs, trained
from recon_jax import data, report, spectral
from recon_jax.report import spectral_targets as words
from recon_jax.training.denoising import token_groups

SIDES = ("top", "bottom")
# Whose third-party numbers stand beside ours, by what a source's name contains.
DATASETS = {"cifar100": "CIFAR-100"}
DEFAULT_DATASET = "CIFAR-10"

Maker = Callable[[], trained.Trainer]


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    masked_runs.validate(config)
    masked_finetuning.validate(config, "finetuning")
    trained.require_choice("precision", config.precision, ("float32", "float64"))
    trained.require_at_least("num_pictures", config.num_pictures, 1)
    cells = [tuple(cell) for cell in config.subspaces]
    if not cells or len(set(cells)) < len(cells):
        raise ValueError(f"subspaces must be one or more different ones, got {cells}")
    for cell in cells:
        if len(cell) != 2 or cell[0] not in SIDES or not 0 < cell[1] < 100:
            raise ValueError(
                "subspaces must be pairs of top or bottom and per cent of the variance between 0 "
                f"and 100, such as ('bottom', 25), got {cell}"
            )


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    masked_runs.shrink(config)
    config.subspaces = (("bottom", 25),)
    return config


def subspaces_of(config: ConfigDict) -> list[spectral.Subspace]:
    """The whole image, then the parts in the order of the config."""
    cells = [spectral.Subspace("all", 100.0, 1.0)]
    for side, percent in config.subspaces:
        share = percent / 100
        cells.append(spectral.Subspace(side, percent, share if side == "top" else 1 - share))
    return cells


def find_spectrum(context: masked_runs.Context) -> spectral.Spectrum:
    """Principal components of the normalised training images."""

    def compute():
        with jax.enable_x64(context.config.precision == "float64"):
            batches = (
                batch._replace(images=data.normalize(context.normalization, batch.images))
                for batch in trained.evaluation_batches(context.train)
            )
            moments = spectral.stream_moments(batches, context.train.num_classes)
            return jax.device_get(spectral.eigendecompose(moments)._asdict())

    return spectral.Spectrum(**context.cached("spectrum", context.config.precision, compute))


def require_parts(cells: Sequence[spectral.Subspace], spectrum: spectral.Spectrum) -> None:
    """Raise ValueError for a subspace that keeps nothing, or all."""
    count = len(spectrum.values)
    for cell in cells[1:]:
        kept = len(range(count)[spectral.kept_components(cell, spectrum)[0]])
        if not 0 < kept < count:
            first = 100 * float(spectrum.values[0] / np.sum(spectrum.values))
            raise ValueError(
                f"{cell.label} keeps {kept} of {count} components of these images, the first of "
                f"which has {first:.0f}% of the variance; choose another of subspaces"
            )


def make_task(
    context: masked_runs.Context, cell: spectral.Subspace, spectrum: spectral.Spectrum
) -> masked_runs.Task:
    """The reconstruction of one part of the spectrum."""
    config = context.config
    corruption = spectral.make_corruption(config.corruption, context.train.image_shape)
    target = None if cell.side == "all" else spectral.subspace_filter(cell, spectrum)
    name = cell.side if cell.side == "all" else f"{cell.side}{cell.percent:g}"
    return masked_runs.Task(
        name, corruption, target, [list(config.corruption), list(cell), config.precision]
    )


def train_target(
    context: masked_runs.Context,
    task: masked_runs.Task,
    made: Maker,
    classifier: Maker,
    seeds: list[int],
) -> list[dict[str, np.ndarray]]:
    """Pretraining, the read-outs and the fine-tuning of one target, for each seed."""
    key = ["trained", task.key, context.config.targets, trained.decisive(context.config.train)]
    rows = []
    for seed, row in zip(seeds, masked_runs.run_task(context, task, seeds, made), strict=True):

        def encoder(seed=seed):
            state = masked_runs.pretrain(context, task, made, seed)[0]
            return masked_finetuning.encoder_of(state)

        folder = f"{task.name}-finetuning-seed{seed}"
        tuned = masked_finetuning.fit(context, "finetuning", folder, classifier, seed, key, encoder)
        seconds = row["seconds"] + tuned["seconds"]
        rows.append({**row, "finetuned": tuned["accuracy"], "seconds": seconds})
    return rows


def train_scratch(
    context: masked_runs.Context, new: Maker, classifier: Maker, seeds: list[int]
) -> list[dict[str, np.ndarray]]:
    """The same read-outs without pretraining, and the classifier trained from scratch."""
    made = masked_finetuning.make_scratch_trainer(context, classifier)
    rows = []
    for seed in seeds:
        row = masked_runs.read_untrained(context, new, seed)
        tuned = masked_finetuning.fit(
            context, "finetuning", f"scratch-seed{seed}", made, seed, "new"
        )
        found = {"finetuned": tuned["accuracy"], "seconds": tuned["seconds"]}
        rows.append({**row, "squared_error": np.array(np.nan), **found})
    return rows


def train_all(
    context: masked_runs.Context,
    cells: Sequence[spectral.Subspace],
    spectrum: spectral.Spectrum,
    seeds: list[int],
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Every target, then no pretraining, by label."""
    make = functools.partial(masked_finetuning.make_trainer, context, "finetuning")
    classifier = functools.cache(make)
    tasks = [make_task(context, cell, spectrum) for cell in cells]
    made = [
        functools.cache(functools.partial(masked_runs.make_trainer, context, task))
        for task in tasks
    ]
    found = {}
    for i in report.progress(range(len(cells) + 1), "targets"):
        if i == len(cells):
            found["none"] = train_scratch(context, made[0], classifier, seeds)
        else:
            found[cells[i].label] = train_target(context, tasks[i], made[i], classifier, seeds)
        report.write_jsonl(context.workdir / "metrics.jsonl", records(found, seeds))
    return found


def records(found: Mapping[str, list], seeds: list[int]) -> list[dict[str, Any]]:
    """One line for each target and seed, without times."""
    return [
        {"target": label, "seed": seed} | {k: v.item() for k, v in row.items() if k != "seconds"}
        for label, rows in found.items()
        for seed, row in zip(seeds, rows, strict=True)
    ]


def gather(
    found: Mapping[str, list],
    cells: Sequence[spectral.Subspace],
    spectrum: spectral.Spectrum,
    targets: str,
) -> list[words.Outcome]:
    """The rows of the table."""

    def values(rows, field):
        return np.array([float(row[field]) for row in rows])

    outcomes = []
    parts = {cell.label: spectral.kept_components(cell, spectrum) for cell in cells}
    for label, rows in found.items():
        kept, variance = parts.get(label, (slice(0, 0), np.nan))
        # Pixels were divided by their deviation: all components together have variance 1 each.
        unit = variance / 100 if targets == "pixels" else 1.0
        outcomes.append(
            words.Outcome(
                label,
                len(range(len(spectrum.values))[kept]),
                variance,
                values(rows, "finetuned"),
                values(rows, "linear_probe"),
                values(rows, "knn"),
                values(rows, "squared_error") / unit,
            )
        )
    return outcomes


def describe(
    context: masked_runs.Context,
    found: Mapping[str, list],
    seeds: list[int],
    facts: Mapping[str, Any],
) -> str:
    """Setting of the run in words, for the note of the table."""
    config, train, options = context.config, context.train, context.config.train
    height, width, channels = train.image_shape
    corruption = spectral.make_corruption(config.corruption, train.image_shape)
    tuned, model = config.finetuning, config.model
    rows = [row for rows in found.values() for row in rows]
    parts = [
        f"Ours: {train.name}, {train.num_images:,} training and {context.test.num_images:,} test "
        f"images of {height}x{width}x{channels}; ViT of {model.depth} blocks of width "
        f"{model.width}, patches of {model.patch_size}, {corruption.name}, {options.epochs} epochs,"
        f" batch {options.batch_size}, {config.targets} of the target, {options.augment}; "
        f"fine-tuned {tuned.epochs} epochs at {tuned.learning_rate:g}, layer-wise decay "
        f"{tuned.layer_decay:g}.",
        "No pretraining: the same fine-tuning from scratch, without layer-wise decay, and probes "
        "of a new encoder. Error: of hidden patches of test images over the variance of the "
        "target. STL-10, where the third party found most, is left out: its unlabelled images are "
        "not of this data source.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
        masked_finetuning.probe_note(rows),
        trained.device_note(facts, sum(float(row["seconds"]) for row in rows)),
    ]
    return " ".join(filter(None, parts))


def strips(
    context: masked_runs.Context, cells: Sequence[spectral.Subspace], spectrum: spectral.Spectrum
) -> dict[str, np.ndarray]:
    """Test images, and what is to be reconstructed of them."""
    count = min(context.config.num_pictures, context.test.num_images)
    pixels = context.test.read(np.arange(count))[0]
    images = data.normalize(context.normalization, jnp.asarray(pixels))
    found = {}
    for cell in cells:
        name = words.NAMES.get(cell.label, cell.label)
        # The mean image is put back: it is the same in every target.
        part = np.asarray(spectral.subspace_filter(cell, spectrum)(images), np.float64)
        found[name] = part * context.normalization.scale + context.normalization.mean[None]
    return found


def write_outputs(
    context: masked_runs.Context,
    outcomes: Sequence[words.Outcome],
    pictures: Mapping[str, np.ndarray],
    runs: list[dict[str, Any]],
    note: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Table, figures, results.json and report; returns what results.json holds."""
    workdir = context.workdir
    found = [name for part, name in DATASETS.items() if part in context.config.data.source]
    dataset = found[0] if found else DEFAULT_DATASET
    table = words.target_table(outcomes, dataset, note)
    summary = words.answer(outcomes)
    figures = report.save_figures(
        workdir / "figures",
        {
            "accuracy": (words.target_figure(outcomes, dataset), words.CAPTION),
            "targets": (words.strip_figure(pictures), words.STRIP_CAPTION),
        },
    )
    results = {
        "summary": summary,
        "outcomes": [item._asdict() for item in outcomes],
        "runs": runs,
        "setting": note,
    }
    sections = [
        report.Section("Which target serves perception?", (), *figures["accuracy"], [table]),
        report.Section("What is to be reconstructed?", (), *figures["targets"]),
    ]
    title = f"Which part of the spectrum of {context.train.name} should be reconstructed?"
    return cli.publish(workdir, title, sections, [table], results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = masked_runs.open_data(config, workdir)
    shape = context.train.image_shape
    corruption = spectral.make_corruption(config.corruption, shape)
    token_groups(corruption, config.model.patch_size, shape)
    masked_finetuning.make_classifier(config, "finetuning", shape, context.train.num_classes)
    trained.plan_run(config.finetuning, context.train.num_images, "finetuning")
    spectrum, cells = find_spectrum(context), subspaces_of(config)
    require_parts(cells, spectrum)
    found = train_all(context, cells, spectrum, seeds)
    facts = cli.facts_of("spectral_targets", seeds, start)
    note = describe(context, found, seeds, facts)
    outcomes = gather(found, cells, spectrum, config.targets)
    pictures = strips(context, cells, spectrum)
    return write_outputs(context, outcomes, pictures, records(found, seeds), note, facts)


if __name__ == "__main__":
    cli.main("spectral_targets", recipe.get_config, run, smoke)
