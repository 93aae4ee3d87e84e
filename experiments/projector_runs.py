"""Runs of the projector experiment: projectors x strengths x seeds, trained, then measured."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from experiments import projector_measures, trained
from recon_jax import augment, data, geometry, models, parallel, report, training
from recon_jax.report import projector_claims

# Family of views that are no images, with a source of its own.
LATENTS = "latents"


class Projector(NamedTuple):
    """A projector to train with.

    Attributes:
      name: for people and file names.
      options: of the model, such as head_depth.
    """

    name: str
    options: dict[str, Any]


class Context(NamedTuple):
    """What every run needs.

    Attributes:
      config: of the experiment.
      workdir: of the experiment.
      train: training images.
      policy: augmentation with a strength.
      subjects: what all networks are measured on.
      data_key: what the pixels are a function of, as JSON content.
    """

    config: ConfigDict
    workdir: Path
    train: data.Source
    policy: augment.StrengthPolicy
    subjects: projector_measures.Subjects
    data_key: dict[str, Any]


def projectors_of(config: ConfigDict) -> list[Projector]:
    """The projectors of a config."""
    return [Projector(name, dict(options)) for name, options in config.projectors]


def make_model(config: ConfigDict, projector: Projector) -> models.Projected:
    """Encoder and projector; ValueError for options that they have not."""
    options = {**config.encoder.to_dict(), **projector.options}
    return models.make_model(config.model, dtype=config.train.dtype, **options)


def make_policy(config: ConfigDict, image_shape: tuple[int, int, int]) -> augment.StrengthPolicy:
    """Views of images, or of the latent model."""
    if config.family == LATENTS:
        return augment.latent_views()
    return augment.view_policy(image_shape, config.family)


def open_splits(config: ConfigDict) -> tuple[data.Source, data.Source]:
    """Training and test images, or latents of the random smooth model."""
    if config.family != LATENTS:
        return trained.open_splits(config)
    limits = {"train": config.data.train_limit, "test": config.data.test_limit}
    train, test = (data.latent_source(split=split, num_images=n) for split, n in limits.items())
    return train, test


def open_data(config: ConfigDict, workdir: Path) -> Context:
    """Both splits; ValueError for images that fit neither networks nor batches."""
    train, test = open_splits(config)
    trained.plan_run(config.train, train.num_images)
    policy = make_policy(config, train.image_shape)
    key = {split.split: trained.describe_data(config, split) for split in (train, test)}
    subjects = projector_measures.gather_subjects(config.measure, train, test, policy)
    for projector in projectors_of(config):
        models.variable_shapes(make_model(config, projector), subjects.test.shape[1:])
    return Context(config, workdir, train, policy, subjects, key)


def make_trainer(context: Context, projector: Projector) -> trained.Trainer:
    """The trainer of a projector, for all strengths and seeds: strength is an argument."""
    config = context.config
    options = {"loss": config.loss.name, "options": config.loss.options.to_dict()}
    model = make_model(config, projector).clone(axis_name=parallel.AXIS)

    def loss(model, policy, axis_name):
        return training.contrastive_loss(
            model, policy=context.policy, axis_name=axis_name, **options
        )

    def metrics(model):
        return training.contrastive_metrics(
            model, policy=context.policy, axis_name=parallel.AXIS, **options
        )

    shape = context.subjects.test.shape[1:]
    return trained.make_trainer(config.train, model, shape, context.train.num_images, loss, metrics)


def identity_of(context: Context, projector: Projector, strength: float) -> dict[str, Any]:
    """What decides a run's outcome, beside the options of training and the seed."""
    config = context.config
    return {
        "data": context.data_key,
        "model": [config.model, config.encoder.to_dict(), projector.options],
        "views": [config.family, strength],
        "loss": config.loss.to_dict(),
    }


def strength_batches(context: Context, seed: int, strength: float) -> Callable[[int], Any]:
    """Step -> batch of a run, with the strength of its augmentation."""
    options = context.config.train
    batches = data.run_batches(context.train, options.batch_size, seed=seed, **parallel.placement())
    return lambda step: training.with_strength(batches(step), strength)


def final_loss(context: Context, trainer: trained.Trainer, state: Any, strength: float) -> float:
    """Loss of a trained state in evaluation mode, over full batches of training images."""
    size = context.config.train.batch_size
    batches = data.epoch_batches(context.train, size, shuffle=False, **parallel.placement())
    # A smaller last batch would have fewer negatives. Means of equal batches, in every process.
    full = itertools.islice(batches, context.train.num_images // size)
    found = [
        trainer.evaluate(state, [training.with_strength(batch, strength)])[context.config.loss.name]
        for batch in full
    ]
    return float(np.mean(found))


def run_flow(config: ConfigDict, seeds: list[int]) -> projector_claims.Flow:
    """A linear projector where the tangent plane and the augmented directions are known."""
    strengths = np.asarray(config.flow.strengths, np.float32)

    def train(key, strength):
        return geometry.linear_projector_flow(key, strength=strength, steps=config.flow.steps)

    by_strength = jax.vmap(train, (None, 0))
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    found = jax.device_get(jax.jit(jax.vmap(by_strength, (0, None)))(keys, strengths))
    # Of the defaults' dimensions: tangent alone, tangent and augmented, augmented alone.
    tangent, both, augmented = (
        found.gains[:, :, first:last].mean(-1) for first, last in ((0, 4), (4, 8), (8, 16))
    )
    return projector_claims.Flow(strengths, found.output_rank, both / tangent, augmented / tangent)


def run_cell(
    context: Context, projector: Projector, strength: float | None, seeds: list[int]
) -> Iterator[dict[str, np.ndarray]]:
    """Train and measure once for each seed, or measure untrained networks if strength is None.

    Finished runs are read, not trained again.
    """
    config = context.config
    made = functools.cache(functools.partial(make_trainer, context, projector))
    at = config.measure.reference if strength is None else strength
    identity = identity_of(context, projector, at)
    trained_by = [recon_jax.__version__, identity]
    trained_by += [strength is None or trained.decisive(config.train)]
    label = projector.name.replace(" ", "-").replace(",", "")
    cached = functools.partial(report.cached, context.workdir / "cache")
    for seed in seeds:
        name = f"{label}-{'untrained' if strength is None else f'{strength:g}'}-seed{seed}"

        def fit(name=name, seed=seed) -> tuple[training.TrainState, float]:
            if strength is None:
                return made().init(seed), 0.0
            folder = context.workdir / "runs" / name
            batches = strength_batches(context, seed, strength)
            return trained.train(made(), context.train, seed, folder, identity, batches=batches)

        def compute(name=name, seed=seed, fit=fit) -> Mapping[str, Any]:
            print(f"run {name}", file=sys.stderr, flush=True)
            # Apart, so that measuring once more does not take a finished training for a short one.
            times = cached(f"{name}-seconds", [*trained_by, seed], lambda: {"seconds": fit()[1]})
            state, _ = fit()
            variables = jax.device_get(training.variables_of(state))
            model = make_model(config, projector)
            found = projector_measures.measure(context.subjects, model, variables, at)
            loss = final_loss(context, made(), state, at)
            return {**found, "loss": loss, **times}

        yield cached(name, [*trained_by, config.measure.to_dict(), seed], compute)
