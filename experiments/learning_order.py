"""In which order does an autoencoder learn the spectrum of its data, and when does perception come?

    python -m experiments.learning_order [--config=configs/learning_order.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1]

Autoencoders are trained; at the listed epochs their reconstructions of the training images are
projected on the eigenvectors of the data, and a linear probe reads the latents. When each mode was
learned is compared with the gradient flow of a linear autoencoder, and when the probe arrived with
when reconstruction did.

Writes report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir,
and a folder of its own for every run in runs/. The same command resumes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import learning_order as recipe
from experiments import cli, learning_runs, trained
from recon_jax import report
from recon_jax.report import learning_figures as plots
from recon_jax.report import learning_order as words

LATENT_MAPS = ("average", "flatten")


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    if not config.models:
        raise ValueError("models must hold one or more pairs such as ('mlp_autoencoder', 3)")
    for entry in config.models:
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            raise ValueError(f"models must hold pairs (name, depth), got {entry!r}")
        trained.require_choice("models", entry[0], learning_runs.AUTOENCODERS)
        trained.require_at_least("depth in models", entry[1], 2)
    if len(set(map(tuple, config.models))) < len(config.models):
        raise ValueError(f"models must differ from each other, got {tuple(config.models)}")
    for field, value, low in (
        ("latent_size", config.latent_size, 1),
        ("first_width", config.first_width, 1),
        ("probe.regularization", config.probe.regularization, 0),
        ("probe.max_iterations", config.probe.max_iterations, 1),
    ):
        trained.require_at_least(field, value, low)
    for field in ("fraction", "initial", "arrival"):
        if not 0 < config[field] < 1:
            raise ValueError(f"{field} must lie in (0, 1), got {config[field]}")
    trained.require_choice("probe.latent_map", config.probe.latent_map, LATENT_MAPS)
    trained.require_choice("precision", config.precision, ("float32", "float64"))
    _validate_epochs(config)


def _validate_epochs(config: ConfigDict) -> None:
    epochs, last = tuple(config.epochs), config.train.epochs
    whole = all(isinstance(epoch, int) for epoch in epochs)
    if len(epochs) < 2 or not whole or list(epochs) != sorted(set(epochs)) or epochs[0] < 0:
        raise ValueError(
            f"epochs must be two or more ascending whole numbers, 0 for before training, got "
            f"{epochs}"
        )
    if epochs[-1] > last:
        kept = tuple(epoch for epoch in epochs if epoch <= last)
        raise ValueError(
            f"epochs must not exceed train.epochs = {last}, got {epochs[-1]}; give "
            f"--config.epochs='{kept}' or train for longer"
        )
    every = config.train.evaluate_every
    missed = [epoch for epoch in epochs if epoch % every and epoch != last]
    if missed:
        raise ValueError(
            f"train.evaluate_every={every} passes over the epochs {missed}; set it to 1"
        )


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training and tiny networks, on the same code path."""
    config.data.train_limit = 500
    config.data.test_limit = 200
    config.data.image_size = 8
    config.train.epochs = 4
    config.train.batch_size = 50
    config.train.learning_rate = 1e-2  # so that 40 steps learn some modes
    config.epochs = (0, 1, 2, 4)
    config.models = (("conv_autoencoder", 3), ("mlp_autoencoder", 3))
    config.latent_size = 8
    config.first_width = 4
    return config


def describe(context: learning_runs.Context, seeds: list[int]) -> str:
    """Data, networks and training in words, and how they are less than the paper's."""
    config, train = context.config, context.train
    height, width, channels = train.image_shape
    less = []
    if config.data.train_limit:
        less.append("fewer images")
    if config.latent_size < 512:
        less.append(f"{config.latent_size} latents instead of 512")
    if config.train.epochs < 50:
        less.append(f"{config.train.epochs} epochs instead of 50")
    if config.first_width < 32:
        less.append(f"first convolution of {config.first_width} channels instead of 32")
    reading = {
        "average": "latent maps are averaged over positions for the probe",
        "flatten": "latent maps are flattened for the probe",
    }[config.probe.latent_map]
    return (
        f"{train.name}, {train.num_images:,} training and {context.test.num_images:,} test images "
        f"of {height}x{width}x{channels} in [0, 1], {config.latent_size} latents, "
        f"{config.train.epochs} epochs, batch {config.train.batch_size}; {reading}. "
        f"{'Reduced: ' + ', '.join(less) if less else 'Full setting'}. "
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}."
    )


def make_setting(context: learning_runs.Context, seeds: list[int]) -> words.LearningSetting:
    """What the tables and figures share."""
    config, modes, count = context.config, context.modes, context.train.num_images
    return words.LearningSetting(
        epochs=tuple(config.epochs),
        second=modes["second"] / count,
        values=modes["values"] / count,
        predicted=modes["predicted"],
        num_images=count,
        initial=config.initial,
        fraction=config.fraction,
        arrival=config.arrival,
        baselines=learning_runs.probe_baselines(context),
        note=describe(context, seeds),
    )


def draw(
    runs: list[words.LearningRun], setting: words.LearningSetting, folder: Path
) -> dict[str, tuple[Path, str]]:
    """The figures: name -> (path of the PNG, caption)."""
    first = f"Seed {runs[0].seed}."
    made = {
        "spectrum": (
            plots.spectrum_figure(runs, setting),
            "Mean squared projection of the reconstructions of training images on the eigenvectors "
            f"of the images' second moment, by epoch; black: of the images themselves. {first}",
        ),
        "learned": (
            plots.learned_figure(runs, setting),
            "Fraction of each mode that is reconstructed, by epoch. Dotted: gradient flow of a "
            "linear autoencoder; its one free unit of time is the median ratio of observed and "
            f"predicted learning times. {first}",
        ),
        "times": (
            plots.times_figure(runs, setting),
            f"Epoch at which {100 * setting.fraction:g}% of a mode was reconstructed, against the "
            f"prediction of gradient flow in the same unit. {first}",
        ),
        "perception": (
            plots.perception_figure(runs, setting),
            "Reconstruction and perception on test images over epochs; bands are the standard "
            "deviation over seeds.",
        ),
    }
    return report.save_figures(folder, made)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = learning_runs.prepare(config, workdir)
    setting = make_setting(context, seeds)
    runs = []
    for item in learning_runs.run_all(context, seeds):
        runs.append(item)
        records = (words.learning_record(item, setting) for item in runs)
        report.write_jsonl(workdir / "metrics.jsonl", records)

    facts = cli.facts_of("learning_order", seeds, start)
    seconds = sum(item.seconds for item in runs)
    note = f"{setting.note} {trained.device_note(facts, seconds)}"
    tables = [
        words.front_table(runs, setting, note),
        words.order_table(runs, setting, note),
        words.perception_table(runs, setting, note),
    ]
    summary = words.learning_findings(runs, setting)
    figures = draw(runs, setting, workdir / "figures")
    results = {
        "summary": summary,
        "modes": setting._asdict(),
        "runs": [
            words.learning_record(item, setting)
            | {"learned_at": words.learning_outcome(item, setting).learned_at}
            | {"seconds": round(item.seconds, 1)}
            for item in runs
        ],
        "setting": note,
    }
    sections = [
        report.Section("What is reconstructed first?", (), *figures["spectrum"], tables[:1]),
        report.Section("Does gradient flow predict the order?", (), *figures["times"], tables[1:2]),
        report.Section("How much of each mode?", (), *figures["learned"]),
        report.Section("When does perception come?", (), *figures["perception"], tables[2:]),
    ]
    title = f"In which order are the modes of {context.train.name} learned?"
    return cli.publish(workdir, title, sections, tables, results, facts)


if __name__ == "__main__":
    cli.main("learning_order", recipe.get_config, run, smoke)
