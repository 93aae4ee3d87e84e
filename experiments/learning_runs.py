"""One run of the learning order: training an autoencoder, and what is measured on the way.

Every measure is kept as soon as it is taken, so that a run that was killed ends with the same bits.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from experiments import trained
from recon_jax import data, models, parallel, probes, report, spectral, training
from recon_jax.report import learning_order as words

# Name of an autoencoder -> how it is called.
AUTOENCODERS = {"conv_autoencoder": "convolutional", "mlp_autoencoder": "MLP"}

_mode_sums = jax.jit(spectral.mode_sums)


class Context(NamedTuple):
    """What every run needs: config, workdir, images, and the modes of the training images."""

    config: ConfigDict
    workdir: Path
    train: data.Source
    test: data.Source
    modes: dict[str, np.ndarray]  # see `find_modes`
    key: dict[str, Any]

    def cached(self, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]):
        """A step, kept in the workdir."""
        return report.cached(self.workdir / "cache", name, [self.key, key], compute)


def find_modes(config: ConfigDict, source: data.Source) -> dict[str, np.ndarray]:
    """Spectra of the training images in [0, 1], about the origin and about the mean.

    Returns:
      `second` and `values`, eigenvalues about origin and mean (D,); `directions` and `components`,
      their eigenvectors in float32 (D, D); `mean` (D,); `predicted`, gradient-flow times (D,),
      infinite for modes that pixels cannot show.
    """
    is_bytes = source.read(np.arange(1))[0].dtype == np.uint8
    batches = report.progress(
        trained.evaluation_batches(source),
        "streaming moments",
        data.num_steps(source.num_images, trained.EVALUATION_BATCH),
    )
    # Here alone: training stays in float32.
    with jax.enable_x64(config.precision == "float64"):
        moments = spectral.stream_moments(batches, source.num_classes)
        moments = spectral.scale_moments(moments, 1 / 255 if is_bytes else 1.0)
        second = spectral.second_moment_spectrum(moments)
        spectrum = spectral.eigendecompose(moments)
        predicted = spectral.learning_times(
            spectrum, initial=config.initial, fraction=config.fraction
        )
        shown = spectral.resolved_modes(np.asarray(spectrum.values) / source.num_images)
        return {
            "second": np.asarray(second.values),
            "values": np.asarray(spectrum.values),
            "directions": np.asarray(second.vectors, np.float32),
            "components": np.asarray(spectrum.vectors, np.float32),
            "mean": np.asarray(spectrum.mean, np.float32),
            "predicted": np.where(shown, np.asarray(predicted), np.inf),
        }


def prepare(config: ConfigDict, workdir: Path) -> Context:
    """Open the data and find its modes."""
    train, test = trained.open_splits(config)
    key = {
        "train": trained.describe_data(config, train),
        "test": trained.describe_data(config, test),
        "version": recon_jax.__version__,
    }
    context = Context(config, workdir, train, test, {}, key)
    wanted = [config.precision, config.initial, config.fraction]
    modes = context.cached("modes", wanted, lambda: find_modes(config, train))
    return context._replace(modes=modes)


def make_reader(model: Any, latent_map: str) -> Callable[[Any, Any], dict[str, jax.Array]]:
    """Function (variables, images) -> reconstructions and the features that the probe reads."""

    def read(variables, images):
        output = model.apply(variables, training.unit_pixels(images), train=False)
        latent = output.latent
        if latent.ndim == 4 and latent_map == "average":
            latent = latent.mean((1, 2))
        return {
            "reconstruction": output.reconstruction,
            "features": latent.reshape(len(latent), -1),
        }

    return read


def run_options(config: ConfigDict) -> dict[str, Any]:
    """The options that decide what a run finds, as JSON content."""
    train = {k: v for k, v in config.train.to_dict().items() if k not in trained.WATCHING}
    return {"train": train, "probe": config.probe.to_dict(), "precision": config.precision}


def probe_accuracy(context: Context, train: tuple, test: tuple) -> float:
    """Test accuracy of a linear probe fitted on (features, labels) of the training images."""
    options = context.config.probe
    probe, _ = probes.logistic_probe(
        *train,
        context.train.num_classes,
        regularization=options.regularization,
        max_iterations=options.max_iterations,
    )
    return float(probes.accuracy(probe.logits(test[0]), test[1]))


def readings(reader: Callable, variables: Any, source: data.Source) -> Iterator[tuple]:
    """(reconstructions, images in [0, 1], features, labels) of a source, batch by batch."""
    for batch in trained.evaluation_batches(source):
        read, labels = training.extract(reader, variables, [batch])
        images = parallel.gather_rows(batch.images)[: len(labels)]
        images = np.asarray(training.unit_pixels(images))
        yield read["reconstruction"], images, read["features"], labels


def joined(parts: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of all batches."""
    features, labels = zip(*parts, strict=True)
    return np.concatenate(features), np.concatenate(labels)


def measure(context: Context, reader: Callable, state: training.TrainState) -> dict[str, Any]:
    """Spectrum of the reconstructions of training images; test error and probe accuracy."""
    modes, variables = context.modes, training.variables_of(state)
    basis = jax.device_put(
        spectral.ModeBasis(modes["directions"], modes["components"], modes["mean"])
    )
    sums = spectral.ModeSums(np.zeros(len(modes["mean"])), np.zeros(len(modes["mean"])))
    train, test, error, total = [], [], 0.0, 0.0
    for reconstruction, images, *rest in readings(reader, variables, context.train):
        batch = _mode_sums(reconstruction, images, basis, np.ones(len(images), bool))
        # Over the batches in float64; within one, sums are float32.
        sums = jax.tree.map(lambda a, b: a + np.asarray(b, np.float64), sums, batch)
        train.append(tuple(rest))
    for reconstruction, images, *rest in readings(reader, variables, context.test):
        error += np.square(reconstruction - images, dtype=np.float64).sum()
        centred = images.reshape(len(images), -1) - modes["mean"]
        total += np.square(centred, dtype=np.float64).sum()
        test.append(tuple(rest))
    return {
        "energy": sums.energy / context.train.num_images,
        "learned": spectral.reconstructed_fraction(sums.overlap, modes["values"]),
        "explained": 1 - error / total,
        "accuracy": probe_accuracy(context, joined(train), joined(test)),
    }


def probe_baselines(context: Context) -> dict[str, float]:
    """Test accuracy of the probe on raw pixels and on as many principal components as latents."""
    rank = min(context.config.latent_size, len(context.modes["mean"]))
    splits = []
    for source in (context.train, context.test):
        images, labels = source.read(np.arange(source.num_images))
        splits.append((np.asarray(training.unit_pixels(images)).reshape(len(images), -1), labels))

    def compute():
        basis, mean = context.modes["components"][:, :rank], context.modes["mean"]
        top = [((pixels - mean) @ basis, labels) for pixels, labels in splits]
        return {
            "pixels": probe_accuracy(context, *splits),
            "components": probe_accuracy(context, *top),
        }

    found = context.cached("baselines", [rank, context.config.probe.to_dict()], compute)
    return {
        "raw pixels": float(found["pixels"]),
        f"top {rank} principal components": float(found["components"]),
    }


def build(context: Context, name: str, depth: int) -> tuple[trained.Trainer, Callable]:
    """Trainer and reader of one autoencoder, shared by its seeds."""
    config, shape = context.config, context.train.image_shape
    options = {"latent_size": config.latent_size, "depth": depth, "dtype": config.train.dtype}
    options |= {"first_width": config.first_width} if name == "conv_autoencoder" else {}
    options |= {"axis_name": parallel.AXIS} if name == "mlp_autoencoder" else {}
    model = models.make_model(name, image_shape=shape, **options)
    trainer = trained.make_trainer(
        config.train,
        model,
        shape,
        context.train.num_images,
        training.autoencoder_loss,
        training.autoencoder_metrics,
    )
    return trainer, make_reader(model, config.probe.latent_map)


def identity_of(context: Context, name: str, depth: int) -> dict[str, Any]:
    """What decides a run's outcome, beside the options of training and the seed."""
    config = context.config
    return {
        "data": {split: context.key[split] for split in ("train", "test")},
        "model": [name, depth, config.latent_size, config.first_width],
    }


def train_one(
    context: Context, name: str, depth: int, seed: int, trainer: trained.Trainer, reader: Callable
) -> dict[str, Any]:
    """Train one autoencoder, measuring it on the way; what `measure` found, epoch by epoch."""
    config, folder = context.config, context.workdir / "runs" / f"{name}{depth}-seed{seed}"
    identity = identity_of(context, name, depth)
    key = [identity, run_options(config), seed]

    def at(epoch: int, compute: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        return context.cached("measure", [*key, epoch], compute)

    def evaluate(state):
        epoch = int(state.step) // trainer.plan.epoch
        values = trainer.evaluate(state, trained.evaluation_batches(context.test))
        if epoch in config.epochs:
            found = at(epoch, lambda: measure(context, reader, state))
            values |= {name: float(found[name]) for name in ("accuracy", "explained")}
        return values

    def missing():
        raise ValueError(
            f"{folder} is trained, but a measure taken on the way is gone from "
            f"{context.workdir / 'cache'}; remove {folder} to train it again"
        )

    start = time.perf_counter()
    if config.epochs[0] == 0:
        at(0, lambda: measure(context, reader, trainer.init(seed)))
    trained.train(trainer, context.train, seed, folder, identity, evaluate=evaluate)
    found = [at(epoch, missing) for epoch in config.epochs]
    stacked = {field: np.stack([item[field] for item in found]) for field in found[0]}
    return stacked | {"seconds": time.perf_counter() - start}


def run_all(context: Context, seeds: list[int]) -> Iterator[words.LearningRun]:
    """Every run, seeds of a model together; finished ones are read from the workdir."""
    config = context.config
    for name, depth in config.models:
        built = functools.cache(functools.partial(build, context, name, depth))
        for seed in seeds:

            def compute(name=name, depth=depth, seed=seed, built=built):
                print(f"run {name} depth {depth} seed {seed}", file=sys.stderr, flush=True)
                return train_one(context, name, depth, seed, *built())

            key = [identity_of(context, name, depth), run_options(config), seed]
            found = context.cached("run", [*key, list(config.epochs)], compute)
            label = f"{AUTOENCODERS[name]}, depth {depth}"
            found["seconds"] = float(found["seconds"])
            yield words.LearningRun(label, seed, **found)
