"""The trained part of the guidance experiment: one autoencoder a latent size, guidance and seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from experiments import trained
from recon_jax import data, models, parallel, probes, report, training
from recon_jax.report import guidance as words


class Context(NamedTuple):
    """What every step of a run needs."""

    config: ConfigDict
    workdir: Path
    train: data.Source
    test: data.Source
    data_key: dict[str, Any]

    def cached(self, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]):
        """A step of the run, kept in the workdir."""
        key = [self.data_key, recon_jax.__version__, key]
        return report.cached(self.workdir / "cache", name, key, compute)


class Run(NamedTuple):
    """One autoencoder to train, and how it did."""

    latent_size: int
    guidance: float
    seed: int
    found: dict[str, np.ndarray]


def open_data(config: ConfigDict, workdir: Path, image_size: int) -> Context:
    """Both splits at a given size."""
    config = ConfigDict(config.to_dict())
    config.data.image_size = image_size
    train, test = trained.open_splits(config)
    key = {split.split: trained.describe_data(config, split) for split in (train, test)}
    return Context(config, workdir, train, test, key)


def make_model(
    config: ConfigDict, image_shape: Sequence[int], num_classes: int, latent_size: int, g: float
) -> models.GuidedAutoencoder:
    """The autoencoder of one latent size with its heads, detached from it if g = 0."""
    dtype = jnp.dtype(config.train.dtype)
    options = {**config.model.options.to_dict(), "latent_size": latent_size, "dtype": dtype}
    model = models.make_model(config.model.name, image_shape=tuple(image_shape), **options)
    if hasattr(model, "axis_name"):
        model = model.clone(axis_name=parallel.AXIS)
    return models.GuidedAutoencoder(
        model,
        num_classes,
        tuple(config.probe.hidden),
        detach=g == 0,
        dtype=dtype,
        axis_name=parallel.AXIS,
    )


def judge(
    context: Context, trainer: trained.Trainer, encode: Callable, state: training.TrainState
) -> dict[str, Any]:
    """Test metrics of a trained autoencoder, and of a linear probe on its frozen latents."""
    probe, variables = context.config.probe, training.variables_of(state)
    metrics = trainer.evaluate(state, trained.evaluation_batches(context.test))
    (seen, seen_labels), (unseen, labels) = (
        training.extract(encode, variables, trained.evaluation_batches(source))
        for source in (context.train, context.test)
    )
    fitted, convergence = probes.logistic_probe(
        seen,
        seen_labels,
        context.train.num_classes,
        regularization=probe.regularization,
        max_iterations=probe.max_iterations,
    )
    return {
        **metrics,
        "linear_probe": float(probes.accuracy(probes.predict(fitted, unseen), labels)),
        "probe_converged": convergence.converged,
    }


def prepare(context: Context, size: int, g: float) -> tuple[trained.Trainer, Callable]:
    """Trainer of one latent size and guidance, and the function from images to latents."""
    train, config = context.train, context.config
    model = make_model(config, train.image_shape, train.num_classes, size, g)
    loss = functools.partial(training.guided_loss, guidance=g)
    trainer = trained.make_trainer(
        config.train, model, train.image_shape, train.num_images, loss, training.guided_metrics
    )

    def encode(variables, images):
        return model.apply(variables, training.unit_pixels(images), method="encode")

    return trainer, encode


def train_one(context: Context, made: Callable, name: str, key: Mapping[str, Any], seed: int):
    """Train one autoencoder, or go on with it, and judge it."""
    trainer, encode = made()

    def evaluate(state):
        return trainer.evaluate(state, trained.evaluation_batches(context.test))

    folder = context.workdir / "runs" / name
    state, seconds = trained.train(trainer, context.train, seed, folder, key, evaluate=evaluate)
    return {**judge(context, trainer, encode, state), "seconds": seconds}


def train_all(context: Context, seeds: Sequence[int]) -> list[Run]:
    """Every latent size, guidance and seed; finished runs are read, not trained again."""
    config, runs = context.config, []
    decisive = trained.decisive(config.train)
    pairs = [(size, g) for size in config.latent_sizes for g in sorted(config.guidances)]
    for size, g in report.progress(pairs, "autoencoders"):
        # Compiled once for all seeds, and not at all if every one has finished.
        made = functools.cache(functools.partial(prepare, context, size, g))
        key = {
            "data": context.data_key,
            "model": config.model.to_dict(),
            "hidden": list(config.probe.hidden),
            "latent_size": size,
            "guidance": g,
        }
        for seed in seeds:
            name = f"latent{size}-guidance{g:g}-seed{seed}"
            compute = functools.partial(train_one, context, made, name, key, seed)
            whole_key = [key, decisive, config.probe.to_dict(), seed]
            runs.append(Run(size, g, seed, context.cached(name, whole_key, compute)))
            report.write_jsonl(context.workdir / "metrics.jsonl", map(metrics_of, runs))
    return runs


def metrics_of(run: Run) -> dict[str, Any]:
    """What the metrics file says of a finished run: no times, so that resuming changes nothing."""
    numbers = {name: value.item() for name, value in run.found.items() if name != "seconds"}
    return {"latent_size": run.latent_size, "guidance": run.guidance, "seed": run.seed, **numbers}


def join(context: Context, runs: Sequence[Run], variance: float) -> list[words.Outcome]:
    """Outcomes over the seeds, of every latent size and guidance."""
    groups: dict[tuple, list] = {}
    for run in runs:
        groups.setdefault((run.latent_size, run.guidance), []).append(run.found)
    outcomes = []
    for (size, g), found in groups.items():
        numbers = {name: np.array([item[name] for item in found]) for name in found[0]}
        outcomes.append(
            words.Outcome(
                latent_count(context, size),
                g,
                error=numbers["squared_error"],
                relative_error=numbers["squared_error"] / variance,
                linear_head=numbers["linear_accuracy"],
                mlp_head=numbers["mlp_accuracy"],
                linear_probe=numbers["linear_probe"],
            )
        )
    return outcomes


def latent_count(context: Context, size: int) -> int:
    """Entries of the latent, which is a map in a convolutional autoencoder."""
    train = context.train
    model = make_model(context.config, train.image_shape, train.num_classes, size, 0.0)
    return math.prod(model.autoencoder.latent_shape)
