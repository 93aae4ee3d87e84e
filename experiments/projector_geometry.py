"""What does a projector throw away as augmentations get stronger?

    python -m experiments.projector_geometry [--config=configs/projector_geometry.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]

SimCLR is trained at several strengths of augmentation with several projectors. Of every network,
and of untrained ones, encoder and projector are measured alike: how invariant they are at one fixed
strength, their rank, what a linear probe reads from them, which principal directions of the pixels
they keep; and at single images how the projector's row space lies to the tangent plane of the data
and to what augmentations do. Runs whose pretext failed are shown and not averaged. A linear
projector in a space of known geometry stands beside them.

Every training is a run in runs/NAME; finished ones are kept, and the one under way resumes. Writes
report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import projector_geometry as recipe
from experiments import cli, projector_runs, trained
from recon_jax import augment, losses, models, report, training
from recon_jax.report import projector_claims, projector_figures
from recon_jax.report import projector_geometry as words


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    trained.validate(config)
    trained.require_choice("model", config.model, models.MODELS)
    names = [name for name, _ in config.projectors]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"projectors must be one or more of different names, got {names}")
    trained.require_choice("base", config.base, names)
    trained.require_choice(
        "family", config.family, ("auto", *augment.VIEW_FAMILIES, projector_runs.LATENTS)
    )
    trained.require_choice("loss.name", config.loss.name, losses.CONTRASTIVE_LOSSES)
    strengths = tuple(config.strengths)
    if not strengths or len(set(strengths)) < len(strengths):
        raise ValueError(f"strengths must be one or more that differ, got {strengths}")
    for strength in (*strengths, config.measure.reference):
        if not 0 < strength <= 1:
            raise ValueError(
                f"strengths and measure.reference must lie in (0, 1], got {strength}; views of "
                "strength 0 are all the same"
            )
    measure = config.measure
    for field in ("points", "neighbors", "draws", "rank", "directions"):
        trained.require_at_least(f"measure.{field}", measure[field], 1)
    if measure.rank > min(measure.neighbors, measure.draws):
        raise ValueError(
            f"measure.rank={measure.rank} must be at most measure.neighbors={measure.neighbors} "
            f"and measure.draws={measure.draws}, whose subspaces have no more dimensions"
        )
    for field in ("ridge", "directions_ridge"):
        trained.require_at_least(f"measure.{field}", measure[field], 0)
    trained.require_at_least("train.batch_size", config.train.batch_size, 2)
    trained.require_at_least("flow.steps", config.flow.steps, 1)
    for projector in projector_runs.projectors_of(config):
        # Refuses what the loss refuses; no view is ever drawn.
        training.contrastive_loss(
            projector_runs.make_model(config, projector),
            policy=augment.grey_views((2, 2, 1)),
            loss=config.loss.name,
            options=config.loss.options.to_dict(),
        )


def smoke(config: ConfigDict) -> ConfigDict:
    """Few images, short training of tiny networks, on the same code path."""
    config.data.train_limit, config.data.test_limit = 200, 100
    if config.family != projector_runs.LATENTS:
        config.data.image_size = 8
    config.model, config.encoder = "simclr_mlp", ConfigDict({"widths": (16, 12)})
    config.projectors = (
        ("linear", {"head_depth": 1, "head_width": 12, "outputs": 8}),
        ("2 layers", {"head_depth": 2, "head_width": 12, "outputs": 8}),
    )
    config.strengths = (0.1, 0.6)
    config.train.epochs, config.train.batch_size = 2, 40
    config.train.checkpoint_every = 1
    config.measure.points, config.measure.neighbors, config.measure.draws = 5, 4, 4
    config.measure.rank, config.measure.directions = 2, 10
    config.flow.strengths, config.flow.steps = (0.0, 3.0), 40
    config.reduction = "smoke run, whose numbers mean nothing"
    return config


def run_all(context: projector_runs.Context, seeds: list[int]) -> list[words.Outcome]:
    """Every projector untrained and at every strength, seed by seed; finished runs are read."""
    config = context.config
    outcomes, collapsed = [], np.nan
    if config.loss.name == "nt_xent":
        collapsed = float(np.log(2 * config.train.batch_size - 1))
    cells = [
        (projector, strength)
        for projector in projector_runs.projectors_of(config)
        for strength in (None, *config.strengths)
    ]
    for projector, strength in report.progress(cells, "projectors and strengths"):
        rows = [
            {**row, "collapsed": collapsed}
            for row in projector_runs.run_cell(context, projector, strength, seeds)
        ]
        depth, width = (projector.options.get(f"head_{name}", 0) for name in ("depth", "width"))
        outcomes.append(words.gather(projector.name, depth, width, strength, rows))
        report.write_jsonl(context.workdir / "metrics.jsonl", records(outcomes, seeds))
    return outcomes


def records(outcomes: Sequence[words.Outcome], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One line for each run, without times."""
    lines = []
    for item in outcomes:
        valid = words.valid_runs(item)
        for row, seed in enumerate(seeds):
            line = {"projector": item.projector, "strength": item.strength, "seed": seed}
            line |= {"valid": bool(valid[row])}
            measured = (name for name in words.MEASURED if name != "seconds")
            lines.append(line | {name: getattr(item, name)[row] for name in measured})
    return lines


def describe(
    context: projector_runs.Context,
    outcomes: Sequence[words.Outcome],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
) -> str:
    """Setting of a run in words, for the notes of the tables."""
    config, options, measure = context.config, context.config.train, context.config.measure
    shape = "x".join(map(str, context.train.image_shape))
    loss = ", ".join(f"{name} {value:g}" for name, value in config.loss.options.items())
    parts = [
        f"Ours: {context.train.name}, {context.train.num_images:,} training and "
        f"{len(context.subjects.test):,} test images of {shape}; {config.model}; "
        f"{config.loss.name} ({loss or 'its defaults'}), {options.epochs} epochs, batch "
        f"{options.batch_size}, {options.optimizer} at {options.learning_rate:g}, "
        f"{options.schedule}. Last state.",
        f"Measured on test images: invariance at the fixed strength {measure.reference:g} and at "
        f"the run's own; {measure.points} points, {measure.neighbors} neighbours, {measure.draws} "
        f"draws, subspaces of {measure.rank} dimensions. Probes: ridge on standardised features.",
        "The paper's own tables are not known here; rules and thresholds are this project's.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
        trained.device_note(facts, sum(float(item.seconds.sum()) for item in outcomes)),
    ]
    return " ".join(filter(None, parts))


def write_outputs(
    context: projector_runs.Context,
    outcomes: Sequence[words.Outcome],
    flow: projector_claims.Flow,
    seeds: Sequence[int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figures, results.json and report; returns what results.json holds."""
    config, workdir = context.config, context.workdir
    note = describe(context, outcomes, seeds, facts)
    base, reference = config.base, config.measure.reference
    claims = projector_claims.find_claims(outcomes, base, flow, reference)
    tables = [
        projector_claims.claims_table(claims, note),
        words.kept_table(outcomes, note),
        words.geometry_table(outcomes, note),
    ]
    pictures = {
        "strength": (
            projector_figures.strength_figure(outcomes, base, reference),
            projector_figures.STRENGTH_CAPTION,
        ),
        "spectra": (
            projector_figures.spectra_figure(outcomes, base),
            projector_figures.SPECTRA_CAPTION,
        ),
        "directions": (
            projector_figures.directions_figure(outcomes, base),
            projector_figures.DIRECTIONS_CAPTION,
        ),
        "projectors": (
            projector_figures.projector_figure(outcomes),
            projector_figures.PROJECTOR_CAPTION,
        ),
    }
    figures = report.save_figures(workdir / "figures", pictures)
    titles = {
        "strength": "What do encoder and projector keep as augmentations get stronger?",
        "spectra": "How many dimensions are left?",
        "directions": "Which principal directions of the pixels are kept?",
        "projectors": "Does the depth or the width of the projector matter?",
    }
    results = {
        "summary": projector_claims.answer(outcomes, claims),
        "claims": [claim._asdict() for claim in claims],
        "runs": records(outcomes, seeds),
        "flow": flow._asdict(),
        "setting": note,
    }
    sections = [
        report.Section(titles[name], (), *figure, tables if name == "strength" else ())
        for name, figure in figures.items()
    ]
    title = f"Encoder and projector on {context.train.name}"
    return cli.publish(workdir, title, sections, tables, results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    context = projector_runs.open_data(config, workdir)
    flow = projector_runs.run_flow(config, seeds)
    outcomes = run_all(context, seeds)
    facts = cli.facts_of("projector_geometry", seeds, start)
    return write_outputs(context, outcomes, flow, seeds, facts)


if __name__ == "__main__":
    cli.main("projector_geometry", recipe.get_config, run, smoke)
