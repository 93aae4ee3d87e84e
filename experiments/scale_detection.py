"""Do networks that must detect a scale lose what is below it, layer by layer, as predicted?

    python -m experiments.scale_detection [--config=configs/scale_detection.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]

Networks are trained to tell whether two active pixels are nearer than a scale. Before and after,
every layer's sensitivity to moving the pixels by one site (D), to noise of the size of that change
(G) and their ratio (R) are measured: on a line beside the closed forms for constant filters, in two
dimensions also after a random permutation of channels, and against the test error over networks.

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

from configs import scale_detection as recipe
from experiments import cli, scale_measures, scale_runs, trained
from experiments.nets import Net, nets_of
from recon_jax import models, report
from recon_jax.diffeo import depth_laws
from recon_jax.report import scale_claims, scale_figures
from recon_jax.report import scale_detection as words


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images, short training of tiny networks, on the same code path."""
    task = config.task
    task.size, task.scale, task.gap = 16, 8 if task.name == "task2" else 4, 0
    task.train_pairs, task.test_pairs, config.measure.pairs = 40, 40, 20
    if scale_runs.is_square(config):
        narrow = {"pad_to": 32, "width": 2}
        config.nets = (
            ("LeNet", "lenet", {}, {}),
            ("VGG11bn", "vgg11_bn", narrow, {}),
        )
    else:
        _, model, options, changes = config.nets[0]
        small = {**dict(options), "width": 8, "depth": 3}
        config.nets = (("circular CNN", model, small, dict(changes)),)
    config.train.epochs, config.train.batch_size = 2, 20
    config.train.log_every = config.train.evaluate_every = config.train.checkpoint_every = 1
    config.reduction = "smoke run, whose numbers mean nothing"
    return config


def predict(model: Any) -> words.Prediction | None:
    """D, G, R of constant filters on a long line by layer; None for other networks and strides."""
    if not isinstance(model, models.CircularCNN) or model.stride not in (1, model.filter_size):
        return None
    found = depth_laws.exact(model.depth, model.filter_size, model.stride, rectified=True)
    return words.Prediction(np.stack(found), model.filter_size, model.stride)


def outcome(
    config: ConfigDict, net: Net, rows: Sequence[Mapping[str, np.ndarray]]
) -> words.Outcome:
    """A network over seeds, from what `run_net` returns."""
    first = rows[0]
    names = [name for name in first if name.partition(",")[0] in words.STATES]

    def values(field):
        return np.stack([np.asarray(row[field], float) for row in rows])

    return words.Outcome(
        name=net.name,
        layers=tuple(map(str, first["layers"])),
        curves={name: values(name) for name in names},
        filters=tuple(map(str, first["filters"])),
        fractions={state: values(f"filters_{state}") for state in ("initial", "trained")},
        train_error=values("train_error"),
        test_error=values("test_error"),
        seconds=values("seconds"),
        prediction=predict(scale_runs.make_net(config, net)),
    )


def records(rows: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]):
    """One line for each run, without times."""
    return [
        {
            "net": name,
            "seed": seed,
            **{k: np.asarray(v).tolist() for k, v in row.items() if k != "seconds"},
        }
        for name, found in rows.items()
        for seed, row in zip(seeds, found, strict=True)
    ]


def describe(context: scale_runs.Context, seconds: float, seeds, facts) -> str:
    """Setting of a run in words, for the notes of the tables."""
    config, task, options = context.config, context.config.task, context.config.train
    where = f"{task.size} x {task.size} pixels" if scale_runs.is_square(config) else "sites"
    rule = {
        "task1": f"distance below {task.scale} on a circle of {task.size} sites, gap {task.gap:g}",
        "task2": f"same block of {task.scale} on a line of {task.size} sites",
        "task2d": f"{task.distance} distance below {task.scale:g} in {where}, gap {task.gap:g}",
    }[task.name]
    parts = [
        f"Ours: {rule}; {context.train.num_images:,} training and {context.test.num_images:,} test "
        f"pairs; {options.epochs:,} epochs, {options.optimizer}, batch {options.batch_size}, rate "
        f"{options.learning_rate:g}"
        f"{'' if scale_runs.is_square(config) else ' times width'}, {options.schedule}"
        f"{f', ridge {config.ridge:g}' if config.ridge else ''}"
        f"{f', weight decay {options.weight_decay:g}' if options.weight_decay else ''}; the last "
        f"state is measured, on {config.measure.pairs} test pairs.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
        trained.device_note(facts, seconds),
    ]
    return " ".join(filter(None, parts))


def write_outputs(
    context: scale_runs.Context,
    outcomes: Sequence[words.Outcome],
    lines: Sequence[Mapping[str, Any]],
    note: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figures, results.json and report; returns what results.json holds."""
    workdir = context.workdir
    claims = scale_claims.find_claims(outcomes)
    tables = [
        scale_claims.claims_table(claims, note),
        words.nets_table(outcomes, note),
        words.layers_table(outcomes, note),
    ]
    drawn = report.save_figures(workdir / "figures", scale_figures.draw(outcomes))
    sections = [
        report.Section("What the paper says, and what was found here", (), None, "", tables[:1]),
        *(report.Section(scale_figures.TITLES[name], (), *drawn[name]) for name in drawn),
        report.Section("Networks and layers", (), None, "", tables[1:]),
    ]
    results = {"summary": scale_claims.answer(claims), "runs": list(lines), "setting": note}
    title = f"Scale detection: {context.config.name}"
    return cli.publish(workdir, title, sections, tables, results, facts, shown=2)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    scale_runs.validate(config)
    scale_runs.list_pairs(config)
    workdir = cli.begin(config, workdir)
    context = scale_runs.open_data(config, workdir)
    rows: dict[str, list] = {}
    nets = nets_of(config)
    for net in report.progress(nets, "networks"):
        rows[net.name] = scale_measures.run_net(context, net, seeds)
        report.write_jsonl(workdir / "metrics.jsonl", records(rows, seeds))
    outcomes = [outcome(config, net, rows[net.name]) for net in nets]
    facts = cli.facts_of("scale_detection", seeds, start)
    seconds = sum(float(row["seconds"]) for found in rows.values() for row in found)
    note = describe(context, seconds, seeds, facts)
    return write_outputs(context, outcomes, records(rows, seeds), note, facts)


if __name__ == "__main__":
    cli.main("scale_detection", recipe.get_config, run, smoke)
