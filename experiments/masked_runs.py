"""What the experiments with masked autoencoders share: data, one training run, its read-outs.

Images are centred and divided by one standard deviation ("global"), as the closed forms see them.
The encoder's features are read from whole images, nothing masked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from experiments import trained
from recon_jax import data, models, probes, report, spectral, training

POOLINGS = ("class_token", "mean")
TARGETS = ("pixels", "normalized")


def shrink(config: ConfigDict, trainings: Sequence[str] = ("train", "finetuning")) -> None:
    """Make a config that of a smoke run: few, small images, tiny networks, two epochs.

    Args:
      config: of an experiment with a masked autoencoder; changed in place.
      trainings: its fields with options of training.
    """
    # As many test as training images: what reads them is compiled once.
    config.data.train_limit, config.data.test_limit, config.data.image_size = 120, 120, 16
    config.corruption = ("patch_subset", 0.75, 4)
    config.model.patch_size = 4
    config.model.width, config.model.depth, config.model.heads = 16, 1, 2
    config.model.decoder_width, config.model.decoder_depth, config.model.decoder_heads = 8, 1, 1
    for options in (config[name] for name in trainings):
        options.epochs, options.batch_size, options.warmup_epochs = 2, 40, 1.0
        options.dtype, options.accumulate_steps = "float32", 1
        options.evaluate_every = options.checkpoint_every = 1
    config.num_pictures = 4
    config.reduction = "smoke run, whose numbers mean nothing"


class Context(NamedTuple):
    """What every step of a run needs.

    Attributes:
      config: of the experiment.
      workdir: of the experiment.
      train: training images, in pixels.
      test: test images, in pixels.
      normalization: of pixels, fitted to the training images.
      data_key: what the pixels are a function of, as JSON content.
    """

    config: ConfigDict
    workdir: Path
    train: data.Source
    test: data.Source
    normalization: data.Normalization
    data_key: dict[str, Any]

    def cached(self, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]):
        """A step of the run, kept in the workdir."""
        key = [self.data_key, recon_jax.__version__, key]
        return report.cached(self.workdir / "cache", name, key, compute)


class Task(NamedTuple):
    """What an encoder is trained to reconstruct.

    Attributes:
      name: of the run's folder.
      corruption: what hides the images.
      target: normalised images -> what is to be reconstructed; the images if None.
      key: what corruption and target are a function of, as JSON content.
    """

    name: str
    corruption: spectral.Corruption
    target: Callable | None
    key: Any


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a model or read-out that cannot work, before any data is read."""
    trained.validate(config)
    trained.require_choice("model.pooling", config.model.pooling, POOLINGS)
    trained.require_choice("targets", config.targets, TARGETS)
    trained.require_at_least("probe.regularization", config.probe.regularization, 0)
    for field in ("max_iterations", "num_neighbors"):
        trained.require_at_least(f"probe.{field}", config.probe[field], 1)


def open_data(config: ConfigDict, workdir: Path) -> Context:
    """Both splits and their normalisation; ValueError for images that do not fit the model."""
    train, test = trained.open_splits(config)
    trained.plan_run(config.train, train.num_images)
    make_model(config, train.image_shape)
    key = {split.split: trained.describe_data(config, split) for split in (train, test)}

    def fit():
        return data.fit_normalization("global", trained.all_batches(train))._asdict()

    found = report.cached(workdir / "cache", "normalization", key, fit)
    normalization = data.Normalization("global", found["mean"], float(found["scale"]))
    return Context(config, workdir, train, test, normalization, key)


def make_model(config: ConfigDict, image_shape: tuple[int, int, int]) -> models.MaskedAutoencoder:
    """The masked autoencoder of a config."""
    options = config.model.to_dict()
    options.pop("pooling")
    return models.MaskedAutoencoder(image_shape, dtype=jnp.dtype(config.train.dtype), **options)


def make_encoder(context: Context, model: models.MaskedAutoencoder) -> Callable[..., Any]:
    """The function (variables, pixels) -> features (N, width) that is read out."""
    pooling = context.config.model.pooling

    def encode(variables, images):
        images = data.normalize(context.normalization, jnp.asarray(images))
        tokens = model.apply(variables, images, method="encode")
        return tokens[:, 0] if pooling == "class_token" else tokens[:, 1:].mean(1)

    return encode


def make_trainer(context: Context, task: Task) -> trained.Trainer:
    """The trainer of a task, for all its seeds."""
    config, shape = context.config, context.train.image_shape
    shared = {
        "corruption": task.corruption,
        "normalization": context.normalization,
        "target": task.target,
        "normalize": config.targets == "normalized",
    }
    return trained.make_trainer(
        config.train,
        make_model(config, shape),
        shape,
        context.train.num_images,
        functools.partial(training.masked_autoencoder_loss, **shared),
        functools.partial(training.masked_autoencoder_metrics, **shared),
    )


def features_of(context: Context, encode: Callable, variables: Any, source: data.Source):
    """Features (N, K) and labels (N,) of all images of a split."""
    return training.extract(encode, variables, trained.evaluation_batches(source))


def read_out(context: Context, seen: tuple, unseen: tuple) -> dict[str, Any]:
    """Test accuracies of a linear probe and of nearest neighbours, both fitted to training images.

    Args:
      context: of the run.
      seen: features and labels of the training images.
      unseen: features and labels of the test images.
    """
    options, classes = context.config.probe, context.train.num_classes
    fitted, convergence = probes.logistic_probe(
        *seen,
        classes,
        regularization=options.regularization,
        max_iterations=options.max_iterations,
    )
    # Columns on one scale for the distance too, by the training images.
    scaler = probes.fit_standardizer(seen[0])
    rows = [probes.standardize(scaler, features) for features in (unseen[0], seen[0])]
    neighbors = probes.knn_classify(
        *rows, seen[1], classes, num_neighbors=min(options.num_neighbors, len(seen[1]))
    )
    return {
        "linear_probe": 100 * float(probes.accuracy(probes.predict(fitted, unseen[0]), unseen[1])),
        "knn": 100 * float(probes.accuracy(neighbors, unseen[1])),
        "probe_converged": convergence.converged,
    }


def judge(context: Context, trainer: trained.Trainer, state: training.TrainState):
    """Test error of a trained autoencoder, and what is read from its encoder."""
    encode = make_encoder(context, trainer.model)
    variables = training.variables_of(state)
    seen, unseen = (
        features_of(context, encode, variables, split) for split in (context.train, context.test)
    )
    metrics = trainer.evaluate(state, trained.evaluation_batches(context.test))
    return {**metrics, **read_out(context, seen, unseen)}


def pretrain(context: Context, task: Task, made: Callable[[], trained.Trainer], seed: int):
    """The trained state of a task, or of the rest of it, and seconds."""
    key = {"data": context.data_key, "model": context.config.model.to_dict(), "task": task.key}
    key["targets"] = context.config.targets
    folder = context.workdir / "runs" / f"{task.name}-seed{seed}"
    return trained.train(made(), context.train, seed, folder, key)


def run_task(
    context: Context,
    task: Task,
    seeds: list[int],
    made: Callable[[], trained.Trainer] | None = None,
) -> list[dict[str, np.ndarray]]:
    """Train and judge once for each seed; finished runs are read, not trained again."""
    config = context.config
    # Compiled once for all seeds, and not at all if every one has finished.
    made = made or functools.cache(functools.partial(make_trainer, context, task))
    decisive = trained.decisive(config.train)
    key = [task.key, config.model.to_dict(), config.targets, config.probe.to_dict(), decisive]

    def compute(seed):
        state, seconds = pretrain(context, task, made, seed)
        return {**judge(context, made(), state), "seconds": seconds}

    return [
        context.cached(f"{task.name}-seed{seed}", [key, seed], functools.partial(compute, seed))
        for seed in seeds
    ]


def read_out_pixels(context: Context) -> dict[str, Any]:
    """The same read-outs of the pixels themselves."""

    def pixels(_, images):
        return data.normalize(context.normalization, images).reshape(len(images), -1)

    seen, unseen = (features_of(context, pixels, None, s) for s in (context.train, context.test))
    return read_out(context, seen, unseen)


def read_untrained(
    context: Context, made: Callable[[], trained.Trainer], seed: int
) -> dict[str, np.ndarray]:
    """Linear probe and nearest neighbours of the encoder that a seed draws, before training."""
    config = context.config

    def compute():
        trainer = made()
        encode = make_encoder(context, trainer.model)
        variables = training.variables_of(trainer.init(seed))
        return read_out(
            context,
            *(
                features_of(context, encode, variables, split)
                for split in (context.train, context.test)
            ),
        )

    key = [config.probe.to_dict(), config.model.to_dict(), seed]
    return context.cached(f"new-seed{seed}", key, compute)


def baselines(context: Context, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """The same read-outs of pixels, and of the encoder before training."""
    identity = spectral.identity(context.train.image_shape)
    made = functools.partial(make_trainer, context, Task("untrained", identity, None, None))
    pixels = functools.partial(read_out_pixels, context)
    return {
        "pixels": context.cached("pixels", context.config.probe.to_dict(), pixels),
        "untrained": read_untrained(context, made, seed),
    }
