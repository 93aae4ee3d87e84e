"""Does deafness to smooth deformations, not to noise, go with a low test error?

    python -m experiments.diffeo_stability [--config=configs/diffeo_stability.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]

Every network is trained, some also with noise on their inputs, and its representations are measured
at initialisation, after training and with shuffled channels: how far smooth deformations move them
(D), noise of the same norm (G), and D / G (R). Then the test errors are set against these numbers.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import diffeo_stability as recipe
from experiments import cli, stability_runs, trained
from experiments.nets import nets_of, train_options
from recon_jax import diffeo, models, report
from recon_jax.report import diffeo_stability as words
from recon_jax.report import stability_claims, stability_figures


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    names = [net[0] for net in config.nets]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"nets must be one or more of different names, got {names}")
    for net in nets_of(config):
        trained.require_choice(f"model of {net.name} in nets", net.model, models.MODELS)
        trained.validate_training(train_options(config, net), f"train of {net.name}")
        stability_runs.make_model(net, 10, config.train.dtype)
    for name in config.noise_nets:
        trained.require_choice("noise_nets", name, names)
    for field in ("noise_nets", "noise_stds"):
        if len(set(config[field])) < len(config[field]):
            raise ValueError(f"{field} must differ, got {config[field]}")
    for std in config.noise_stds:
        if not 0 < std < math.inf:
            raise ValueError(
                f"noise_stds must be above 0 and finite, got {std}; networks without noise are "
                "there anyway"
            )
    trained.require_at_least("measure.images", config.measure.images, 2)
    trained.require_at_least("measure.cutoff", config.measure.cutoff, 2)
    trained.require_choice(
        "measure.interpolation", config.measure.interpolation, diffeo.INTERPOLATIONS
    )
    if not 0 < config.measure.displacement < math.inf:
        raise ValueError(
            f"measure.displacement must be above 0 and finite, got {config.measure.displacement}"
        )
    trained.require_at_least("shuffles", config.shuffles, 1)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    config.data.train_limit, config.data.test_limit, config.data.image_size = 200, 80, 16
    plain = {"learning_rate": 0.02}
    config.nets = (
        ("fc2", "mlp", {"depth": 4, "width": 16}, plain),
        ("lenet", "lenet", {"pad_to": 0}, plain),
        ("alexnet", "alexnet", {"width": 4, "dropout": 0.0}, plain),
    )
    config.noise_nets, config.noise_stds = ("lenet",), (10.0,)
    config.measure.images, config.shuffles = 40, 1
    config.train.epochs, config.train.batch_size, config.train.checkpoint_every = 2, 40, 1
    config.reduction = "smoke run, whose numbers mean nothing"
    return config


def run_all(context: stability_runs.Context, seeds: list[int]) -> list[words.Outcome]:
    """Every network with and without noise, seed by seed; finished runs are read."""
    outcomes = []
    for cell in report.progress(stability_runs.cells_of(context.config), "networks"):
        found = list(stability_runs.run_cell(context, cell, seeds))
        outcomes.append(words.gather(cell.net.name, cell.noise, found))
        report.write_jsonl(context.workdir / "metrics.jsonl", records(outcomes, seeds))
    return outcomes


def records(outcomes: Sequence[words.Outcome], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One line for each run, without times."""
    lines = []
    for item in outcomes:
        for row, seed in enumerate(seeds):
            line = {"net": item.name, "noise": item.noise, "seed": seed}
            line |= {"error": item.error[row], "noisy_error": item.noisy_error[row]}
            for state, found in item.states.items():
                values = zip("DGR", found.mean[row], found.median[row], strict=True)
                for letter, layers, median in values:
                    line[f"{state}_{letter}"] = layers
                    line[f"{state}_{letter}_median"] = median
            lines.append({**line, "layers": item.layers})
    return lines


def describe(
    context: stability_runs.Context,
    outcomes: Sequence[words.Outcome],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
) -> str:
    """Setting of a run in words, for the notes of the tables."""
    config, options, measure = context.config, context.config.train, context.config.measure
    height, width, channels = context.train.image_shape
    cosine = ""
    if options.half_period < 1:
        cosine = f", lowest after {options.half_period:.0%} of the run"
    parts = [
        f"Ours: {context.train.name}, {context.train.num_images:,} training and "
        f"{context.test.num_images:,} test images of {height}x{width}x{channels}, normalised by "
        f"channel; {options.epochs} epochs, batch {options.batch_size}, {options.augment}; "
        f"{options.optimizer} at {options.learning_rate:g}, {options.schedule}{cosine}, but "
        "networks without batch norm and fully connected ones as the recipe has it. Last state.",
        f"{measure.images} test images, cutoff {measure.cutoff}, nominal displacement "
        f"{measure.displacement:g} px, {measure.interpolation}, one deformation and one noise of "
        f"its norm each, the same for all networks and seeds; means (Tomasini et al.) unless "
        f"medians (Petrini et al.) are said; {config.shuffles} shuffle(s) a network.",
        "At initialisation, batch norm by the statistics of the images themselves.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
        trained.device_note(facts, sum(float(item.seconds.sum()) for item in outcomes)),
    ]
    return " ".join(filter(None, parts))


def write_outputs(
    context: stability_runs.Context,
    outcomes: Sequence[words.Outcome],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figures, results.json and report; returns what results.json holds."""
    workdir, note = context.workdir, describe(context, outcomes, seeds, facts)
    claims = stability_claims.find_claims(outcomes)
    tables = [stability_claims.claims_table(claims, note), words.nets_table(outcomes, note)]
    pictures = {
        "error": (stability_figures.error_figure(outcomes), stability_figures.ERROR_CAPTION)
    }
    if stability_figures.measured_nets(outcomes):
        pictures["depth"] = (
            stability_figures.depth_figure(
                outcomes, float(diffeo.sensitivities(*context.probes).D)
            ),
            stability_figures.DEPTH_CAPTION,
        )
        pictures["filters"] = (
            stability_figures.filter_figure(outcomes),
            stability_figures.FILTER_CAPTION,
        )
    figures = report.save_figures(workdir / "figures", pictures)
    results = {
        "summary": stability_claims.answer(outcomes, claims),
        "claims": [claim._asdict() for claim in claims],
        "runs": records(outcomes, seeds),
        "setting": note,
    }
    titles = {
        "error": "Does the test error go with the sensitivities?",
        "depth": "Where in the network are they lost?",
        "filters": "Do filters become smooth?",
    }
    sections = [
        report.Section(titles[name], (), *figure, tables if name == "error" else ())
        for name, figure in figures.items()
    ]
    title = f"Deformations against noise on {context.train.name}"
    return cli.publish(workdir, title, sections, tables, results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = stability_runs.open_data(config, workdir)
    outcomes = run_all(context, seeds)
    facts = cli.facts_of("diffeo_stability", seeds, start)
    return write_outputs(context, outcomes, seeds, facts)


if __name__ == "__main__":
    cli.main("diffeo_stability", recipe.get_config, run, smoke)
