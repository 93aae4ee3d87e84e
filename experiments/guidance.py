"""Do equal reconstruction errors hide different perception? Autoencoders guided by probes.

    python -m experiments.guidance [--config=configs/guidance.py:VARIANT] [--workdir=DIR]
        [--smoke] [--seeds=0,1,2]

For each latent size one autoencoder is trained without guidance and one with it; both are judged on
test images by their reconstruction error and by what a linear probe reads from the frozen latent.
The linear theory beside it is exact: the joint optimum of supervision and reconstruction, over a
sweep of reconstruction weights, on the same images.

Writes report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir,
and checkpoints of every training run under runs/.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import guidance as recipe
from experiments import cli, trained
from experiments import guidance_theory as theory
from experiments.guidance_runs import (
    Context,
    Run,
    join,
    latent_count,
    make_model,
    open_data,
    train_all,
)
from recon_jax import models, report
from recon_jax.report import guidance as words

AUTOENCODERS = tuple(name for name in models.MODELS if name.endswith("autoencoder"))


def _require_different(field: str, values: Sequence) -> None:
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{field} must be one or more different numbers, got {values}")


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    trained.require_choice("model.name", config.model.name, AUTOENCODERS)
    for field in ("latent_sizes", "guidances"):
        _require_different(field, config[field])
    for value in config.latent_sizes:
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"latent_sizes must be whole numbers >= 1, got {config.latent_sizes}")
    for value in config.guidances:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"guidances must be finite and >= 0, got {config.guidances}")
    if config.train.clip_norm:
        raise ValueError(
            f"train.clip_norm must be 0, got {config.train.clip_norm}: the norm of all gradients "
            "together would let the probes of an unguided autoencoder slow it down"
        )
    options, probe = config.closed_form, config.probe
    _require_different("closed_form.weights", options.weights)
    for value in options.weights:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"closed_form.weights must be finite and > 0, got {options.weights}")
    trained.require_choice("closed_form.precision", options.precision, ("float32", "float64"))
    trained.require_at_least("closed_form.image_size", options.image_size, 0)
    trained.require_at_least("probe.regularization", probe.regularization, 0)
    trained.require_at_least("probe.max_iterations", probe.max_iterations, 1)
    # Options of the model and of its heads; the size of the images is not known yet.
    make_model(config, (32, 32, 3), 10, config.latent_sizes[0], config.guidances[0])


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, a small network and two epochs, on the same code path."""
    config.data.train_limit, config.data.test_limit = 500, 200
    config.data.image_size, config.closed_form.image_size = 8, 0
    config.model.name, config.model.options = "mlp_autoencoder", ConfigDict()
    config.latent_sizes = (2, 8)
    config.guidances = tuple(config.guidances)[:: max(len(config.guidances) - 1, 1)]  # the ends
    config.train.epochs, config.train.batch_size, config.train.dtype = 2, 64, "float32"
    config.train.evaluate_every, config.train.checkpoint_every = 1, 1
    config.probe.hidden = (16, 16)
    config.closed_form.weights = (1e-3, 1e0)
    config.reduction = "smoke run, whose numbers mean nothing"
    return config


def check_against(context: Context) -> None:
    """Raise ValueError for what does not fit the images, before anything is trained."""
    config, shape = context.config, context.train.image_shape
    side = config.closed_form.image_size
    theory.require_size(side * side * shape[2] if side else math.prod(shape))
    trained.plan_run(config.train, context.train.num_images)
    for size in config.latent_sizes:
        model = make_model(config, shape, context.train.num_classes, size, 0.0)
        models.variable_shapes(model, shape)


def solve(context: Context, variance: float) -> list[words.Frontier]:
    """The closed form, on images of its own size if the config says so."""
    config = context.config
    ranks = [latent_count(context, size) for size in config.latent_sizes]
    if config.closed_form.image_size:
        context = open_data(config, context.workdir, config.closed_form.image_size)
        variance = find_variance(context)
    return theory.closed_form(
        config.closed_form, context.train, context.test, ranks, variance, context.cached
    )


def find_variance(context: Context) -> float:
    """Mean squared error of the mean image: what a relative error of 1 means."""

    def compute():
        return {"variance": theory.pixel_variance(context.train, context.test)}

    return float(context.cached("variance", None, compute)["variance"])


def notes(context: Context, runs: Sequence[Run], facts: Mapping[str, Any]) -> tuple[str, str]:
    """Setting, reduction, seeds, seconds and device, for the notes of both tables."""
    config, options = context.config, context.config.train
    height, width, channels = context.train.image_shape
    side = config.closed_form.image_size
    images = (
        f"{context.train.name}: {context.train.num_images:,} training and "
        f"{context.test.num_images:,} test images"
    )
    seeds = sorted({run.seed for run in runs})
    failed = sum(not run.found["probe_converged"] for run in runs)
    seconds = sum(float(run.found["seconds"]) for run in runs)
    first = [
        f"{images} of {height}x{width}x{channels}; {config.model.name}, {options.epochs} epochs, "
        f"{options.optimizer}, learning rate {options.learning_rate:g}, batch "
        f"{options.batch_size}, augmentation {options.augment}, MLP head "
        f"{'-'.join(map(str, config.probe.hidden))}, {options.dtype}.",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}; changes are against "
        f"guidance {min(config.guidances):g}, seed by seed. The heads were trained along, the "
        "linear probe (logistic regression) on the frozen latents afterwards. % var: of the error "
        "of the mean training image.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"{failed} linear probes stopped before they converged." if failed else "",
        trained.device_note(facts, seconds),
    ]
    second = (
        f"{images} of {side or height}x{side or width}x{channels}, pixels in [0, 1]; exact in "
        f"{config.closed_form.precision}, without seeds; {facts['device']}."
    )
    return " ".join(filter(None, first)), second


def write_outputs(
    context: Context,
    runs: Sequence[Run],
    outcomes: Sequence[words.Outcome],
    frontiers: Sequence[words.Frontier],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figure, results.json and report; returns what results.json holds."""
    note, theory_note = notes(context, runs, facts)
    summary = words.answer(outcomes, frontiers)
    tables = [
        words.guidance_table(outcomes, note),
        words.frontier_table(frontiers, theory_note),
    ]
    figure = words.guidance_figure(outcomes, frontiers)
    path = report.save_figure(context.workdir / "figures", "guidance", figure)
    results = {
        "summary": summary,
        "outcomes": [item._asdict() for item in outcomes],
        "closed_form": [item._asdict() for item in frontiers],
        "runs": [run._asdict() for run in runs],
        "setting": note,
    }
    sections = [
        report.Section(
            "Reconstruction error against perception", (), path, words.CAPTION, tables[:1]
        ),
        report.Section("What is possible for linear autoencoders?", tables=tables[1:]),
    ]
    title = f"Do equal reconstructions of {context.train.name} hide different perception?"
    # The second table is long.
    return cli.publish(context.workdir, title, sections, tables, results, facts, shown=1)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = open_data(config, workdir, config.data.image_size)
    check_against(context)
    variance = find_variance(context)
    frontiers = solve(context, variance)
    runs = train_all(context, seeds)
    facts = cli.facts_of("guidance", seeds, start)
    return write_outputs(context, runs, join(context, runs, variance), frontiers, facts)


if __name__ == "__main__":
    cli.main("guidance", recipe.get_config, run, smoke)
