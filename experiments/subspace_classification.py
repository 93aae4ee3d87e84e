"""Do classifiers learn from what reconstruction learns first, or from what it leaves for last?

    python -m experiments.subspace_classification
        [--config=configs/subspace_classification.py:VARIANT] [--workdir=DIR] [--smoke]
        [--seeds=0,1]

Images are divided by their own standard deviation and centred; the principal components of the
training split are found; classifiers are trained from scratch on images projected on the top or the
bottom of the spectrum (and standardised again), and tested on test images that went the same way.
The test split decides nothing: accuracies are those after the last step.

Every (network, subspace, seed) is a run in runs/NAME, with metrics.jsonl and checkpoints; finished
runs are kept, and the one under way resumes. Writes report.html, results.json, config.json,
metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import subspace_classification as recipe
from experiments import cli, trained
from recon_jax import augment, data, losses, models, parallel, report, spectral, training
from recon_jax.files import write_bytes
from recon_jax.report import subspaces as words

GRIDS = ("published", "given")


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


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    trained.require_choice("grid", config.grid, GRIDS)
    trained.require_choice("precision", config.precision, ("float32", "float64"))
    trained.require_choice("label_loss", config.label_loss, losses.LABEL_LOSSES)
    trained.require_at_least("strips", config.strips, 1)
    setups = setups_of(config)
    if not setups or len({setup.name for setup in setups}) < len(setups):
        raise ValueError("setups must be one or more (model, options, augmentation), each once")
    for setup in setups:
        trained.require_choice("augmentation", setup.policy, augment.POLICIES)
        models.make_model(setup.model, num_classes=2, **setup.options)
    for field in ("top", "bottom", "pair"):
        for value in config[field]:
            if not 0 < value < 100:
                raise ValueError(f"{field} must hold per cents strictly in 0..100, got {value}")
    if len(config.pair) != 2:
        raise ValueError(f"pair must be per cents of top and bottom, got {config.pair}")
    if config.grid == "given" and not (config.top and config.bottom):
        raise ValueError("grid=given needs at least one per cent in top and in bottom")


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short runs of narrow networks, on the same code path."""
    config.data.train_limit, config.data.test_limit = 300, 100
    config.data.image_size = 16
    narrow = {"resnet9": {"widths": (4, 4, 8, 8, 8)}}
    chosen = config.setups if len(config.setups) < 3 else (config.setups[0], config.setups[-1])
    config.setups = tuple(
        (model, narrow.get(model, options), policy) for model, options, policy in chosen
    )
    config.grid, config.top, config.bottom = "given", (80.0,), (20.0,)
    config.train.epochs, config.train.batch_size = 2, 64
    return config


def standardized(train: data.Source, test: data.Source) -> tuple[data.Source, data.Source]:
    """Each image by its own standard deviation, less the mean of the training images."""
    normalization = data.fit_normalization("per_image", trained.evaluation_batches(train))
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
    options = config.train.to_dict()
    decisive = {k: v for k, v in options.items() if k not in trained.WATCHING}
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


def draw(
    config: ConfigDict,
    splits: Splits,
    spectrum: spectral.Spectrum,
    cells: list[spectral.Subspace],
    outcomes: dict[str, list[words.Outcome]],
    folder: Path,
) -> dict[str, tuple[Path, str]]:
    """The figures: name -> (path of the PNG, caption)."""
    images = splits.train.read(np.arange(min(config.strips, splits.train.num_images)))[0]
    shown = {}
    for cell in cells:
        shown[cell.label] = spectral.project_on(images, cell, spectrum)
    made = {
        "accuracy": (
            words.accuracy_figure(outcomes, config.name == "tiny_imagenet"),
            "Test accuracy of classifiers trained on the top or the bottom of the spectrum, over "
            "the pixel variance kept; bars are the standard deviation over seeds.",
        ),
        "images": (
            words.strip_figure(shown),
            "Training images and their projections; each is stretched to its own range.",
        ),
    }
    return {
        name: (report.save_figure(folder, name, figure), caption)
        for name, (figure, caption) in made.items()
    }


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    validate(config)
    workdir = report.prepare_workdir(workdir)
    report.write_json(workdir / "config.json", config.to_dict())
    splits = open_data(config)
    spectrum = find_spectrum(splits, config.precision, workdir)
    cells = cells_of(config, spectrum)
    results = []
    for name, cell, seed, result in run_all(config, splits, spectrum, cells, seeds, workdir):
        results.append((name, cell, seed, result))
        lines = [
            {"setup": n, "cell": c.label, "seed": s, "accuracy": r["accuracy"]}
            for n, c, s, r in results
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_bytes(workdir / "metrics.jsonl", text.encode())
    outcomes = gather(results, spectrum)

    seconds = sum(result["seconds"] for *_, result in results)
    facts = report.provenance()
    height, width, channels = splits.train.image_shape
    note = (
        f"{splits.train.name}, {splits.train.num_images:,} training and "
        f"{splits.test.num_images:,} test images of {height}x{width}x{channels}, "
        f"{config.train.epochs} epochs, batch {config.train.batch_size}, networks "
        f"{', '.join(f'{s.model} {s.options or chr(40) + chr(41)}' for s in setups_of(config))}; "
        f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}; "
        f"{trained.device_note(facts, seconds)} The paper's numbers are read off Fig. 1 "
        "(TinyImageNet, 64 px, 50 epochs)."
    )
    tables = [
        words.accuracy_table(outcomes, config.name == "tiny_imagenet", note),
        words.comparison_table(outcomes, config.pair, note),
    ]
    summary = words.summarize(outcomes, config.pair)
    figures = draw(config, splits, spectrum, cells, outcomes, workdir / "figures")
    for table in tables:
        report.write_table(workdir / "tables", table)
    facts |= {
        "setting": note,
        "command": " ".join(["python -m experiments.subspace_classification", *sys.argv[1:]]),
        "seeds": seeds,
        "wall_seconds": round(seconds, 1),
    }
    content = {
        "summary": summary,
        "setups": {n: [o._asdict() for o in found] for n, found in outcomes.items()},
        "runs": [{"setup": n, "cell": c.label, "seed": s, **result} for n, c, s, result in results],
        **facts,
    }
    report.write_json(workdir / "results.json", content)
    sections = [
        report.Section("Which side classifies better?", (), *figures["accuracy"], tables),
        report.Section("What the networks saw", (), *figures["images"]),
    ]
    title = f"Top or bottom of the spectrum of {splits.train.name}?"
    report.write_report(workdir / "report.html", title, summary, sections, facts)
    cli.show(tables, summary, workdir / "report.html")
    return content


if __name__ == "__main__":
    cli.main("subspace_classification", recipe.get_config, run, smoke)
