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

import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import subspace_classification as recipe
from experiments import cli, subspace_runs, trained
from recon_jax import augment, losses, models, report, spectral
from recon_jax.report import subspaces as words

GRIDS = ("published", "given")


def describe_networks(config: ConfigDict) -> str:
    """Names and options of the networks, each once."""
    names = (
        f"{setup.model} {setup.options}" if setup.options else setup.model
        for setup in subspace_runs.setups_of(config)
    )
    return ", ".join(dict.fromkeys(names))


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    trained.require_choice("grid", config.grid, GRIDS)
    trained.require_choice("precision", config.precision, ("float32", "float64"))
    trained.require_choice("label_loss", config.label_loss, losses.LABEL_LOSSES)
    trained.require_at_least("strips", config.strips, 1)
    setups = subspace_runs.setups_of(config)
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


def is_published(config: ConfigDict) -> bool:
    """Whether the paper has numbers to stand beside: its figure is of TinyImageNet."""
    return config.name.startswith("tiny_imagenet")


def draw(
    config: ConfigDict,
    splits: subspace_runs.Splits,
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
            words.accuracy_figure(outcomes, is_published(config)),
            "Test accuracy of classifiers trained on the top or the bottom of the spectrum, over "
            "the pixel variance kept; bars are the standard deviation over seeds.",
        ),
        "images": (
            words.strip_figure(shown),
            "Training images and their projections; each is stretched to its own range.",
        ),
    }
    return report.save_figures(folder, made)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    splits = subspace_runs.open_data(config)
    spectrum = subspace_runs.find_spectrum(splits, config.precision, workdir)
    cells = subspace_runs.cells_of(config, spectrum)
    results = []
    for name, cell, seed, result in subspace_runs.run_all(
        config, splits, spectrum, cells, seeds, workdir
    ):
        results.append((name, cell, seed, result))
        records = [
            {"setup": n, "cell": c.label, "seed": s, "accuracy": r["accuracy"]}
            for n, c, s, r in results
        ]
        report.write_jsonl(workdir / "metrics.jsonl", records)
    outcomes = subspace_runs.gather(results, spectrum)

    seconds = sum(result["seconds"] for *_, result in results)
    facts = cli.facts_of("subspace_classification", seeds, start)
    height, width, channels = splits.train.image_shape
    note = (
        f"{splits.train.name}, {splits.train.num_images:,} training and "
        f"{splits.test.num_images:,} test images of {height}x{width}x{channels}, "
        f"{config.train.epochs} epochs, batch {config.train.batch_size}, networks "
        f"{describe_networks(config)}; "
        f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}; "
        f"{trained.device_note(facts, seconds)} The paper's numbers are read off Fig. 1 "
        "(TinyImageNet, 200 classes, 64 px, 50 epochs)."
    )
    tables = [
        words.accuracy_table(outcomes, is_published(config), note),
        words.comparison_table(outcomes, config.pair, note),
    ]
    summary = words.summarize(outcomes, config.pair)
    figures = draw(config, splits, spectrum, cells, outcomes, workdir / "figures")
    content = {
        "summary": summary,
        "setups": {n: [o._asdict() for o in found] for n, found in outcomes.items()},
        "runs": [{"setup": n, "cell": c.label, "seed": s, **result} for n, c, s, result in results],
        "setting": note,
    }
    sections = [
        report.Section("Which side classifies better?", (), *figures["accuracy"], tables),
        report.Section("What the networks saw", (), *figures["images"]),
    ]
    title = f"Top or bottom of the spectrum of {splits.train.name}?"
    return cli.publish(workdir, title, sections, tables, content, facts)


if __name__ == "__main__":
    cli.main("subspace_classification", recipe.get_config, run, smoke)
