"""What does the latent of a variational autoencoder keep when its decoder sees nearby pixels?

    python -m experiments.local_vae [--config=configs/local_vae.py:VARIANT] [--workdir=DIR]
        [--smoke] [--seeds=0,1,2]

For every decoder (factorised, local with a horizon, full) and latent size: bits per dimension, KL
divergence, active units, mutual information, probes of the posterior means with all labels and with
few, which principal directions of the pixels the latents keep, samples and reconstructions. Beside
them stand the pixels and their principal components.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import local_vae as recipe
from experiments import cli, trained, vae_readouts, vae_runs
from recon_jax import losses, models, report, training
from recon_jax.report import local_vae as words
from recon_jax.report.masked_autoencoder import reconstruction_figure
from recon_jax.report.vae_outcomes import decoder_name

Cell = tuple[str, int]


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    vae_runs.validate(config)
    vae_runs.require_cells(config)
    trained.require_at_least("num_pictures", config.num_pictures, 1)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    config = vae_runs.smoke(config)
    config.decoders, config.latent_sizes = ("factorised", "local-1"), (4,)
    config.num_pictures = 4
    return config


def run_all(context: vae_runs.Context, seeds: list[int]) -> dict[Cell, list[dict[str, Any]]]:
    """Every decoder and latent size, for each seed."""
    config = context.config
    cells = [(name, size) for size in config.latent_sizes for name in config.decoders]
    found: dict[Cell, list] = {}
    for cell in report.progress(cells, "decoders"):
        found[cell] = vae_readouts.run_cell(context, *cell, seeds)
        report.write_jsonl(context.workdir / "metrics.jsonl", records(found, seeds))
    return found


def records(found: Mapping[Cell, list], seeds: list[int]) -> list[dict[str, Any]]:
    """One line for each cell and seed, without times and curves."""
    return [
        {"decoder": name, "latent_size": size, "seed": seed}
        | {k: v.item() for k, v in row.items() if k != "seconds" and not np.ndim(v)}
        for (name, size), rows in found.items()
        for seed, row in zip(seeds, rows, strict=True)
    ]


def describe(
    context: vae_runs.Context,
    found: Mapping[Cell, list],
    seeds: list[int],
    facts: Mapping[str, Any],
) -> str:
    """Setting of the run in words, for the note of the table."""
    rows = [row for rows in found.values() for row in rows]
    return vae_readouts.describe(context, rows, seeds, facts)


def pictures(context: vae_runs.Context, seed: int) -> dict[str, np.ndarray]:
    """Test images, and for every decoder of the first latent size reconstructions and samples."""
    config, likelihood = context.config, context.likelihood
    count = min(config.num_pictures, context.unseen.num_images)
    images = context.unseen.read(np.arange(count))[0]
    size = config.latent_sizes[0]
    strips = {"test images": images}
    for name in config.decoders:
        trainer = vae_runs.make_trainer(context, name, size)
        state, _ = vae_runs.train_cell(context, trainer, name, size, seed)
        variables = training.variables_of(state)
        encode = training.make_encode(trainer.model, likelihood.levels)
        means = np.split(np.asarray(encode(variables, images)), 2, axis=1)[0]
        drawn = jax.random.normal(jax.random.key(seed), means.shape, jnp.float32)
        label = decoder_name(vae_runs.parse_decoder(name))
        for kind, latents in (
            ("at the posterior's mean", jnp.asarray(means)),
            ("at a latent of the prior", drawn),
        ):
            strips[f"{label}, {kind}"] = draw(context, trainer.model, variables, latents, seed)
    return strips


def draw(
    context: vae_runs.Context, model: models.VAE, variables: Any, latents: jax.Array, seed: int
) -> np.ndarray:
    """Images in [0, 1], drawn from p(x|z)."""
    features = jax.jit(lambda v, z: model.apply(v, z, method="decode"))(variables, latents)
    head, likelihood = model.pixelcnn(), context.likelihood
    sampler = models.ancestral_sample if head.horizon is None else models.wavefront_sample
    levels = sampler(
        head,
        variables["params"].get("head", {}),
        likelihood.sample,
        jax.random.key(seed),
        features,
        image_shape=model.image_shape,
        levels=likelihood.levels,
    )
    return (np.asarray(losses.from_levels(levels, likelihood.levels)) + 1) / 2


def write_outputs(
    context: vae_runs.Context,
    outcomes: Sequence[words.Outcome],
    baselines: Sequence[words.Baseline],
    strips: Mapping[str, np.ndarray],
    runs: list[dict[str, Any]],
    note: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Table, figures, results.json and report; returns what results.json holds."""
    workdir, shots = context.workdir, context.config.probe.shots
    dataset = "CIFAR-10" if "cifar10" in context.config.data.source else context.train.name
    table = words.local_vae_table(outcomes, baselines, shots, note, dataset=dataset)
    summary = words.answer(outcomes, baselines)
    figures = report.save_figures(
        workdir / "figures",
        {
            "code_length": (words.code_length_figure(outcomes), words.CODE_LENGTH_CAPTION),
            "accuracy": (words.accuracy_figure(outcomes, baselines), words.ACCURACY_CAPTION),
            "directions": (words.directions_figure(outcomes, baselines), words.DIRECTIONS_CAPTION),
            "pictures": (reconstruction_figure(strips), words.PICTURES_CAPTION),
        },
    )
    results = {
        "summary": summary,
        "outcomes": [item._asdict() for item in outcomes],
        "baselines": [item._asdict() for item in baselines],
        "runs": runs,
        "setting": note,
    }
    sections = [
        report.Section("Where is the code length?", (), *figures["code_length"], [table]),
        report.Section("What is read from the latents?", (), *figures["accuracy"]),
        report.Section("Which directions do they keep?", (), *figures["directions"]),
        report.Section("Reconstructions and samples", (), *figures["pictures"]),
    ]
    title = f"What do latents keep of {context.train.name}, by what the decoder sees?"
    return cli.publish(workdir, title, sections, [table], results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = vae_runs.open_data(config, workdir)
    for name in config.decoders:
        vae_runs.make_model(context, name, config.latent_sizes[0])
    found = run_all(context, seeds)
    facts = cli.facts_of("local_vae", seeds, start)
    outcomes = [vae_readouts.outcome(context, *cell, rows) for cell, rows in found.items()]
    lines = vae_readouts.baselines(context, tuple(config.latent_sizes))
    note = describe(context, found, seeds, facts)
    strips = pictures(context, seeds[0])
    return write_outputs(context, outcomes, lines, strips, records(found, seeds), note, facts)


if __name__ == "__main__":
    cli.main("local_vae", recipe.get_config, run, smoke)
