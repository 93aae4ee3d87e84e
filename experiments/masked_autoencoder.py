"""What is a masked autoencoder good for? Pretraining, linear probes, fine-tuning, pictures.

    python -m experiments.masked_autoencoder [--config=configs/masked_autoencoder.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]

For each seed a vision transformer is pretrained to reconstruct what a mask hides, or published
weights are read. Its encoder is judged frozen, by the linear probe of He et al. 2022 (batch norm
and LARS), by logistic regression and by nearest neighbours, and fine-tuned; beside it stand the
same classifier trained from scratch and the same probes of a new encoder.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from configs import masked_autoencoder as recipe
from experiments import (
    cli,
    masked_finetuning,
    masked_pictures,
    masked_runs,
    masked_weights,
    trained,
)
from recon_jax import report, spectral, training
from recon_jax.report import masked_autoencoder as words

Results = dict[str, list[dict[str, np.ndarray]]]


class Pretrained(NamedTuple):
    """Where an encoder comes from.

    Attributes:
      task: what it was trained for.
      made: its trainer, if it is needed.
      weights: published ones, or None.
      key: what the encoder is a function of beside data and seed, as JSON content.
    """

    task: masked_runs.Task
    made: Any
    weights: masked_weights.Weights | None
    key: Any


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    masked_runs.validate(config)
    for name in ("linear", "finetuning"):
        masked_finetuning.validate(config, name)
    trained.require_choice("published_epochs", config.published_epochs, tuple(words.PUBLISHED))
    trained.require_at_least("num_pictures", config.num_pictures, 1)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    masked_runs.shrink(config, ("train", "linear", "finetuning"))
    config.model.remat = False
    return config


def open_all(config: ConfigDict, workdir: Path) -> tuple[masked_runs.Context, Pretrained]:
    """Data, and the pretraining or the weights; ValueError for what does not fit together."""
    weights = masked_weights.load(config) if config.weights else None
    context = masked_runs.open_data(config, workdir)
    shape = context.train.image_shape
    if weights is not None:
        context = masked_weights.fit_to(context, weights)
    corruption = spectral.make_corruption(config.corruption, shape)
    task = masked_runs.Task("masked", corruption, None, list(config.corruption))
    for name in ("linear", "finetuning"):
        masked_finetuning.make_classifier(config, name, shape, context.train.num_classes)
        trained.plan_run(config[name], context.train.num_images, name)
    made = functools.cache(functools.partial(masked_runs.make_trainer, context, task))
    key = ["weights", weights.digest] if weights else ["trained", task.key, config.targets]
    if not weights:
        key.append(trained.decisive(config.train))
    return context, Pretrained(task, made, weights, key)


def state_of(context: masked_runs.Context, source: Pretrained, seed: int):
    """The pretrained state: of a finished run, or with published weights."""
    if source.weights is None:
        return masked_runs.pretrain(context, source.task, source.made, seed)[0]
    return masked_weights.state_of(source.weights, source.made())


def judge_pretrained(context: masked_runs.Context, source: Pretrained, seeds: list[int]):
    """Pretraining, and the read-outs of the frozen encoder, for each seed."""
    if source.weights is None:
        return masked_runs.run_task(context, source.task, seeds, source.made)

    def compute():
        trainer = source.made()
        return {**masked_runs.judge(context, trainer, state_of(context, source, 0)), "seconds": 0.0}

    probe = context.config.probe.to_dict()
    return [context.cached("weights", [source.key, list(source.task.key), probe], compute)] * len(
        seeds
    )


def train_all(context: masked_runs.Context, source: Pretrained, seeds: list[int]) -> Results:
    """Everything that is trained, by name, one entry for each seed."""
    make = functools.partial(masked_finetuning.make_trainer, context)
    linear = functools.cache(functools.partial(make, "linear"))
    finetuned = functools.cache(functools.partial(make, "finetuning"))
    scratch = masked_finetuning.make_scratch_trainer(context, finetuned)
    found: Results = {"pretrained": judge_pretrained(context, source, seeds)}
    for name in ("untrained", "linear", "finetuned", "untrained linear", "scratch"):
        found[name] = []
    for seed in report.progress(seeds, "seeds"):
        encoder = functools.cache(
            lambda seed=seed: masked_finetuning.encoder_of(state_of(context, source, seed))
        )
        fit = functools.partial(masked_finetuning.fit, context, seed=seed)
        known = {"key": source.key, "encoder": encoder}
        new = {"key": "new"}
        rows = {
            "untrained": masked_runs.read_untrained(context, source.made, seed),
            "linear": fit("linear", f"linear-seed{seed}", linear, **known),
            "finetuned": fit("finetuning", f"finetuning-seed{seed}", finetuned, **known),
            "untrained linear": fit("linear", f"untrained-linear-seed{seed}", linear, **new),
            "scratch": fit("finetuning", f"scratch-seed{seed}", scratch, **new),
        }
        for name, row in rows.items():
            found[name].append(row)
        report.write_jsonl(context.workdir / "metrics.jsonl", records(found, seeds))
    return found


def records(found: Results, seeds: list[int]) -> list[dict[str, Any]]:
    """One line for each training and seed, without times."""
    return [
        {"run": name, "seed": seed} | {k: v.item() for k, v in row.items() if k != "seconds"}
        for name, rows in found.items()
        for seed, row in zip(seeds, rows, strict=False)
    ]


def gather(found: Results) -> list[words.ReadOut]:
    """The rows of the table."""

    def values(name, field="accuracy"):
        return np.array([float(row[field]) for row in found[name]])

    return [
        words.ReadOut("finetuned", "fine-tuned", values("finetuned"), values("scratch")),
        words.ReadOut(
            "lars",
            "linear probe, batch norm and LARS",
            values("linear"),
            values("untrained linear"),
        ),
        words.ReadOut(
            "logistic",
            "linear probe, logistic regression",
            values("pretrained", "linear_probe"),
            values("untrained", "linear_probe"),
        ),
        words.ReadOut(
            "knn", "nearest neighbours", values("pretrained", "knn"), values("untrained", "knn")
        ),
    ]


def pictures(context: masked_runs.Context, source: Pretrained, seed: int):
    """Images, masked and reconstructed; None for weights without a decoder."""
    if source.weights is not None and not source.weights.has_decoder:
        return None
    config, count = context.config, min(context.config.num_pictures, context.test.num_images)

    def compute():
        model = source.made().model
        params = training.variables_of(state_of(context, source, seed))["params"]
        chosen = context.test.read(np.arange(count))[0]
        return masked_pictures.reconstruct(
            model,
            params,
            source.task.corruption,
            context.normalization,
            chosen,
            normalize=config.targets == "normalized",
        )

    key = [source.key, config.model.to_dict(), list(config.corruption), count, seed]
    found = context.cached("pictures", key, compute)
    return {name: found[name] for name in ("original", "masked", "reconstruction")}


def describe(context: masked_runs.Context, source: Pretrained, seeds: list[int]) -> str:
    """Setting of the run in words, for the note of the table."""
    config, model, train = context.config, context.config.model, context.train
    height, width, channels = train.image_shape
    if source.weights is None:
        options = config.train
        origin = (
            f"{options.epochs} epochs of pretraining, batch {options.batch_size}, learning rate "
            f"{options.learning_rate:g}, {options.augment}, {config.targets} targets"
        )
    else:
        origin = "; ".join([f"weights {config.weights}", *source.weights.notes])
    tuned = config.finetuning
    return " ".join(
        filter(
            None,
            [
                f"{train.name}: {train.num_images:,} training and {context.test.num_images:,} test "
                f"images of {height}x{width}x{channels}; ViT of {model.depth} blocks of width "
                f"{model.width}, patches of {model.patch_size}, {source.task.corruption.name}; "
                f"{origin}.",
                f"Probes read {'the class token' if model.pooling == 'class_token' else 'the mean'}"
                f"{'' if model.pooling == 'class_token' else ' over patches'}; LARS: "
                f"{config.linear.epochs} epochs, {config.linear.augment}.",
                f"Fine-tuning: {tuned.epochs} epochs, layer-wise decay {tuned.layer_decay:g}, drop "
                f"path {tuned.drop_path:g}, label smoothing {tuned.label_smoothing:g}, "
                f"{tuned.augment}; without RandAugment, mixup, cutmix and erasing, which the paper "
                "has.",
                f"Reduced: {config.reduction}." if config.reduction else "",
                f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
            ],
        )
    )


def picture_section(context: masked_runs.Context, source: Pretrained, seed: int):
    """The section with the pictures; its text alone where there is no decoder."""
    title = "What does it make of what it does not see?"
    shown = pictures(context, source, seed)
    if shown is None:
        return report.Section(title, ("The weights have no decoder: nothing to show.",))
    caption = words.CAPTION
    if context.config.targets == "normalized":
        caption += (
            " Predictions of normalised patches are drawn with the mean and the deviation of the "
            "true patch, which the network does not know."
        )
    figure = words.reconstruction_figure(shown)
    path = report.save_figure(context.workdir / "figures", "reconstructions", figure)
    return report.Section(title, (), path, caption)


def write_outputs(
    context: masked_runs.Context,
    source: Pretrained,
    found: Results,
    seeds: list[int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Table, figure, results.json and report; returns what results.json holds."""
    readouts = gather(found)
    seconds = sum(float(row.get("seconds", 0)) for rows in found.values() for row in rows)
    parts = [
        describe(context, source, seeds),
        masked_finetuning.probe_note(row for rows in found.values() for row in rows),
        trained.device_note(facts, seconds),
    ]
    note = " ".join(filter(None, parts))
    table = words.readout_table(readouts, context.config.published_epochs, note)
    summary = words.answer(readouts)
    results = {
        "summary": summary,
        "readouts": [item._asdict() for item in readouts],
        "runs": records(found, seeds),
        "weights": list(source.weights.notes) if source.weights else [],
        "setting": note,
    }
    sections = [
        report.Section("What can be read from the encoder?", tables=[table]),
        picture_section(context, source, seeds[0]),
    ]
    title = f"What is a masked autoencoder of {context.train.name} good for?"
    return cli.publish(context.workdir, title, sections, [table], results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context, source = open_all(config, workdir)
    found = train_all(context, source, seeds)
    facts = cli.facts_of("masked_autoencoder", seeds, start)
    return write_outputs(context, source, found, seeds, facts)


if __name__ == "__main__":
    cli.main("masked_autoencoder", recipe.get_config, run, smoke)
