"""The training runs of the subspace experiment: networks x subspaces x seeds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import trained
from recon_jax import data, models, parallel, report, spectral, training
from recon_jax.report import subspaces as words


class Setup(NamedTuple):
    """A network and its augmentation.

    Attributes:
      name: for people and file names.
      model: a key of `models.MODELS`.
      options: of the model.
      policy: a key of `augment.POLICIES`.
    """

    name: str
    model: str
    options: dict[str, Any]
    policy: str


class Splits(NamedTuple):
    """Training and test images, standardised one by one and centred; and what they are, as JSON."""

    train: data.Source
    test: data.Source
    key: dict[str, Any]


def setups_of(config: ConfigDict) -> list[Setup]:
    """The networks of a config."""
    setups = []
    for model, options, policy in config.setups:
        name = model if policy == "none" else f"{model}, {policy}"
        setups.append(Setup(name, model, dict(options), policy))
    return setups


def standardized(train: data.Source, test: data.Source) -> tuple[data.Source, data.Source]:
    """Each image by its own standard deviation, less the mean of the training images."""
    normalization = data.fit_normalization("per_image", trained.all_batches(train))
    return tuple(data.normalized_source(split, normalization) for split in (train, test))


def open_data(config: ConfigDict) -> Splits:
    """The two splits, and what their pixels are a function of."""
    train, test = trained.open_splits(config)
    trained.plan_run(config.train, train.num_images)
    key = trained.describe_data(config, train) | {"test_images": test.num_images}
    return Splits(*standardized(train, test), key)


def find_spectrum(splits: Splits, precision: str, workdir: Path) -> spectral.Spectrum:
    """Principal components of the standardised training images."""

    def compute():
        with jax.enable_x64(precision == "float64"):
            moments = spectral.stream_moments(
                trained.evaluation_batches(splits.train), splits.train.num_classes
            )
            return jax.device_get(spectral.eigendecompose(moments)._asdict())

    key = [splits.key, precision]
    return spectral.Spectrum(**report.cached(workdir / "cache", "spectrum", key, compute))


def cells_of(config: ConfigDict, spectrum: spectral.Spectrum) -> list[spectral.Subspace]:
    """Top and bottom subspaces in the order of the table, and all images."""
    if config.grid == "published":
        return spectral.subspaces_of(*spectral.subspace_thresholds(spectrum))
    tops, bottoms = ([percent / 100 for percent in side] for side in (config.top, config.bottom))
    return spectral.subspaces_of(tops, [1 - kept for kept in bottoms])


def project_splits(
    splits: Splits, cell: spectral.Subspace, spectrum: spectral.Spectrum
) -> tuple[data.Source, data.Source]:
    """Both splits projected on a cell, then standardised again by the training images."""
    if cell.side == "all":
        return splits.train, splits.test

    def projected(source):
        def read(indices):
            images, labels = source.read(indices)
            return spectral.project_on(images, cell, spectrum), labels

        return source._replace(read=read)

    return standardized(projected(splits.train), projected(splits.test))


def make_trainer(config: ConfigDict, setup: Setup, splits: Splits) -> trained.Trainer:
    """The trainer of one setup, for all cells and seeds."""
    options = ConfigDict(config.train.to_dict())
    options.augment = setup.policy
    model = models.make_model(
        setup.model,
        num_classes=splits.train.num_classes,
        dtype=options.dtype,
        axis_name=parallel.AXIS,
        **setup.options,
    )
    return trained.make_trainer(
        options,
        model,
        splits.train.image_shape,
        splits.train.num_images,
        partial(training.classification_loss, label_loss=config.label_loss),
        partial(training.classification_metrics, label_loss=config.label_loss),
    )


def run_cell(
    trainer: trained.Trainer,
    sources: tuple[data.Source, data.Source],
    seed: int,
    workdir: Path,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Train once and measure the end."""
    train, test = sources

    def on_test(state):
        return trainer.evaluate(state, trained.evaluation_batches(test))

    state, seconds = trained.train(trainer, train, seed, workdir, identity, evaluate=on_test)
    return {
        "accuracy": 100 * on_test(state)["accuracy"],
        "train_accuracy": 100
        * trainer.evaluate(state, trained.evaluation_batches(train))["accuracy"],
        "seconds": seconds,
    }


def run_all(
    config: ConfigDict,
    splits: Splits,
    spectrum: spectral.Spectrum,
    cells: list[spectral.Subspace],
    seeds: list[int],
    workdir: Path,
) -> Iterator[tuple[str, spectral.Subspace, int, dict[str, Any]]]:
    """Every run: (setup, cell, seed, result), setups first."""
    decisive = trained.decisive(config.train)
    for setup in setups_of(config):
        trainer = make_trainer(config, setup, splits)
        for cell in cells:
            projected: list = []  # made for the first run that is not finished
            for seed in seeds:
                name = f"{setup.model}-{setup.policy}-{cell.side}{cell.percent:.3g}-seed{seed}"
                identity = {
                    "data": splits.key,
                    "precision": config.precision,
                    "model": [setup.model, setup.options, setup.policy],
                    "cell": list(cell),
                    "label_loss": config.label_loss,
                }

                def compute(
                    trainer=trainer,
                    cell=cell,
                    seed=seed,
                    name=name,
                    identity=identity,
                    made=projected,
                ):
                    if not made:
                        made.append(project_splits(splits, cell, spectrum))
                    print(f"run {name}", file=sys.stderr, flush=True)
                    return run_cell(trainer, made[0], seed, workdir / "runs" / name, identity)

                key = [identity, decisive, seed]
                found = report.cached(workdir / "cache", name, key, compute)
                yield setup.name, cell, seed, {k: float(v) for k, v in found.items()}


def gather(
    results: list[tuple[str, spectral.Subspace, int, dict[str, Any]]], spectrum: spectral.Spectrum
) -> dict[str, list[words.Outcome]]:
    """Outcomes by setup, seeds joined."""
    setups: dict[str, dict[spectral.Subspace, list]] = {}
    for name, cell, _, result in results:
        setups.setdefault(name, {}).setdefault(cell, []).append(result)
    gathered = {}
    for name, by_cell in setups.items():
        gathered[name] = []
        for cell, found in by_cell.items():
            kept, variance = spectral.kept_components(cell, spectrum)
            rank = len(spectrum.values[kept])
            accuracies = (np.array([r[k] for r in found]) for k in ("accuracy", "train_accuracy"))
            gathered[name].append(words.Outcome(cell, rank, variance, *accuracies))
    return gathered
