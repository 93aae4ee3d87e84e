"""Does a local decoder save labels? Semi-supervised variational autoencoders with few labels.

    python -m experiments.semi_supervised [--config=configs/semi_supervised.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]

For every number of labels a class: the classifier trained on the labelled images alone, the model
M2 with each decoder on labelled and all images, and logistic regression on the posterior means of
an autoencoder that never saw a label. Which images are labelled depends on the seed.

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
import numpy as np
from ml_collections import ConfigDict

from configs import semi_supervised as recipe
from experiments import cli, trained, vae_readouts, vae_runs
from recon_jax import data, models, parallel, probes, report, training
from recon_jax.report import semi_supervised as words
from recon_jax.report.vae_outcomes import decoder_name

SUPERVISED = "supervised only"


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    vae_runs.validate(config)
    vae_runs.require_cells(config)
    if len(config.latent_sizes) > 1:
        raise ValueError(f"latent_sizes must be one, got {config.latent_sizes}")
    trained.require_choice("classifier", config.classifier, models.MODELS)
    trained.require_at_least("labelled_batch", config.labelled_batch, 1)
    shots = tuple(config.shots)
    if not shots or len(set(shots)) < len(shots):
        raise ValueError(f"shots must be one or more different ones, got {shots}")
    for count in shots:
        trained.require_at_least("shots", count, 1)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    config = vae_runs.smoke(config)
    config.decoders, config.latent_sizes = ("local-1",), (4,)
    config.shots, config.labelled_batch = (2,), 10
    return config


def labelled_rows(context: vae_runs.Context, shots: int, seed: int) -> np.ndarray:
    """Indices of the labelled images of a seed, the same number of each class."""
    labels = context.train.read(np.arange(context.train.num_images))[1]
    key = jax.random.key(seed)
    return np.asarray(probes.few_shot_split(key, labels, shots, context.train.num_classes))


def labelled_batch(config: ConfigDict, count: int) -> int:
    """Labelled images of a batch: no more than there are, and as many for every device."""
    devices = parallel.total_device_count()
    return max(min(config.labelled_batch, count) // devices * devices, devices)


def make_classifier(context: vae_runs.Context) -> Any:
    """The network that guesses labels."""
    config = context.config
    return models.make_model(
        config.classifier,
        num_classes=context.train.num_classes,
        dtype=config.train.dtype,
        axis_name=parallel.AXIS,
    )


def make_semi_supervised(context: vae_runs.Context, decoder: str, shots: int) -> trained.Trainer:
    """The trainer of M2 with a decoder."""
    config, train = context.config, context.train
    (size,) = config.latent_sizes
    vae = vae_runs.make_model(context, decoder, size, num_classes=train.num_classes)
    count = shots * train.num_classes
    known = -(-count // labelled_batch(config, count))
    weight = training.classification_weight(known, -(-train.num_images // config.train.batch_size))

    def loss(model, policy, axis_name):
        return training.semi_supervised_loss(
            model,
            context.likelihood,
            weight=weight,
            policy=vae_runs.with_texture(context, policy),
            axis_name=axis_name,
        )

    return trained.make_trainer(
        config.train,
        models.SemiSupervisedVAE(vae, make_classifier(context)),
        train.image_shape,
        train.num_images,
        loss,
        functools.partial(training.semi_supervised_metrics, likelihood=context.likelihood),
    )


def make_supervised(context: vae_runs.Context) -> trained.Trainer:
    """The trainer of the classifier alone, on as many steps."""

    def loss(model, policy, axis_name):
        policy = vae_runs.with_texture(context, policy)
        return training.classification_loss(model, policy=policy, axis_name=axis_name)

    return trained.make_trainer(
        context.config.train,
        make_classifier(context),
        context.train.image_shape,
        context.train.num_images,
        loss,
        training.classification_metrics,
    )


def batches_of(context: vae_runs.Context, shots: int, seed: int, paired: bool):
    """Step -> batch of labelled images, with all images beside them if `paired`."""
    config, train = context.config, context.train
    rows = labelled_rows(context, shots, seed)
    labelled = data.source_subset(train, rows)
    size = labelled_batch(config, len(rows))
    place = {"seed": seed, **parallel.placement()}
    if paired:
        return data.paired_batches(labelled, train, size, config.train.batch_size, **place)
    return data.run_batches(labelled, size, **place)


def train_cell(
    context: vae_runs.Context,
    method: str,
    shots: int,
    seed: int,
    made: Callable[[], trained.Trainer],
    paired: bool,
) -> dict[str, np.ndarray]:
    """Train and test once; a finished run is read, not trained again."""
    config = context.config
    name = f"{method}-{shots}-seed{seed}"
    key = {
        "model": [config.model.to_dict(), config.classifier, list(config.latent_sizes)],
        "likelihood": config.likelihood.to_dict(),
        "labelled": [shots, config.labelled_batch],
        "data": context.data_key,
        "method": method,
    }

    def compute():
        trainer = made()
        state, seconds = trained.train(
            trainer,
            context.train,
            seed,
            context.workdir / "runs" / name,
            key,
            batches=batches_of(context, shots, seed, paired),
        )
        metrics = trainer.evaluate(state, trained.evaluation_batches(context.unseen, 200))
        bits = metrics.get("bits_per_dimension", np.nan)
        return {"accuracy": 100 * metrics["accuracy"], "bits": bits, "seconds": seconds}

    return context.cached(name, [key, trained.decisive(config.train), seed], compute)


def probe_cell(
    context: vae_runs.Context, decoder: str, shots: int, seed: int, made: Callable
) -> dict[str, np.ndarray]:
    """Logistic regression with few labels on the latents of an autoencoder without labels."""
    config = context.config
    (size,) = config.latent_sizes
    options = config.probe

    def latents():
        state, seconds = vae_runs.train_cell(context, made(), decoder, size, seed)
        variables = training.variables_of(state)
        seen, unseen = (
            vae_readouts.posteriors(context, made().model, variables, split)[0]
            for split in (context.seen, context.unseen)
        )
        metrics = made().evaluate(state, trained.evaluation_batches(context.unseen))
        return {
            "seen": seen,
            "unseen": unseen,
            "bits": metrics["bits_per_dimension"],
            "seconds": seconds,
        }

    name, key = vae_runs.run_of(context, decoder, size, seed)
    settings = trained.decisive(config.train)
    found = context.cached(f"{name}-latents", [key, settings, seed], latents)
    labels, truth = (
        split.read(np.arange(split.num_images))[1] for split in (context.seen, context.unseen)
    )
    rows = labelled_rows(context, shots, seed)
    fitted, _ = probes.logistic_probe(
        found["seen"][rows],
        labels[rows],
        context.train.num_classes,
        regularization=options.regularization,
        max_iterations=options.max_iterations,
    )
    accuracy = float(probes.accuracy(probes.predict(fitted, found["unseen"]), truth))
    # Its training is shared by all numbers of labels.
    return {"accuracy": 100 * accuracy, "bits": found["bits"], "seconds": found["seconds"]}


def run_all(context: vae_runs.Context, seeds: list[int]) -> dict[tuple[str, int], list]:
    """Every method, number of labels and seed."""
    config = context.config
    found: dict[tuple[str, int], list] = {}
    (size,) = config.latent_sizes
    frozen = {
        name: functools.cache(functools.partial(vae_runs.make_trainer, context, name, size))
        for name in config.decoders
    }
    supervised = functools.cache(functools.partial(make_supervised, context))
    for shots in report.progress(sorted(config.shots), "labels a class"):
        found[SUPERVISED, shots] = [
            train_cell(context, "supervised", shots, seed, supervised, False) for seed in seeds
        ]
        for name in config.decoders:
            label = decoder_name(vae_runs.parse_decoder(name))
            made = functools.cache(functools.partial(make_semi_supervised, context, name, shots))
            found[f"M2, {label}", shots] = [
                train_cell(context, f"m2-{name}", shots, seed, made, True) for seed in seeds
            ]
            found[f"probe of a frozen VAE, {label}", shots] = [
                probe_cell(context, name, shots, seed, frozen[name]) for seed in seeds
            ]
            report.write_jsonl(context.workdir / "metrics.jsonl", records(found, seeds))
    return found


def records(found: Mapping[tuple[str, int], list], seeds: list[int]) -> list[dict[str, Any]]:
    """One line for each method, number of labels and seed, without times."""
    return [
        {"method": method, "shots": shots, "seed": seed}
        | {k: float(v) for k, v in row.items() if k != "seconds"}
        for (method, shots), rows in found.items()
        for seed, row in zip(seeds, rows, strict=True)
    ]


def gather(found: Mapping[tuple[str, int], list]) -> list[words.Outcome]:
    """The rows of the table."""
    return [
        words.Outcome(
            method,
            shots,
            *(np.array([float(row[f]) for row in rows]) for f in ("accuracy", "bits", "seconds")),
        )
        for (method, shots), rows in found.items()
    ]


def write_outputs(
    context: vae_runs.Context,
    outcomes: Sequence[words.Outcome],
    runs: list[dict[str, Any]],
    note: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Table, figure, results.json and report; returns what results.json holds."""
    workdir = context.workdir
    table = words.semi_supervised_table(outcomes, note)
    summary = words.answer(outcomes)
    figures = {"labels": (words.semi_supervised_figure(outcomes), words.CAPTION)}
    figures = report.save_figures(workdir / "figures", figures)
    results = {"summary": summary, "runs": runs, "setting": note}
    sections = [report.Section("Are labels saved?", (), *figures["labels"], [table])]
    title = f"Semi-supervised learning on {context.train.name} with local decoders"
    return cli.publish(workdir, title, sections, [table], results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = vae_runs.open_data(config, workdir)
    for shots in config.shots:
        labelled_rows(context, shots, seeds[0])  # refuses more labels than there are
    found = run_all(context, seeds)
    facts = cli.facts_of("semi_supervised", seeds, start)
    outcomes = gather(found)
    rows = [row for rows in found.values() for row in rows]
    details = (
        f"Every method has as many steps; {config.labelled_batch} labelled images a step at most, "
        "the seed chooses which. Frozen probes are logistic regression on posterior means."
    )
    note = vae_readouts.describe(context, rows, seeds, facts, details)
    return write_outputs(context, outcomes, records(found, seeds), note, facts)


if __name__ == "__main__":
    cli.main("semi_supervised", recipe.get_config, run, smoke)
