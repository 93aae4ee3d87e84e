"""Which features does mask-reconstruction pretraining capture, and which supervision?

    python -m experiments.feature_capture [--config=configs/feature_capture.py:VARIANT]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2,3,4,5,6,7,8,9]

Data whose features are known, and a network of one layer of kernels. Supervision, pretraining with
a head and fine-tuned, random kernels with a head, and ensembles of supervised networks are compared
on the same images; then the teacher scale, the width, the share of single-view images, the
rectifier, the time and the way of pretraining are changed, one at a time. Every claim has a rule,
fixed beforehand from earlier runs of the same design.

Seeds are keys: a seed has its own features, images and kernels, and all seeds are one compiled
call. With the one seed of the default there is no spread; give ten. The sweeps have the first few.

Finished parts are kept and not computed again. Writes report.html, results.json, config.json,
metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import feature_capture as recipe
from experiments import capture_runs, cli, trained
from recon_jax import report
from recon_jax.report import capture_claims, capture_figures
from recon_jax.report import feature_capture as words
from recon_jax.report.claims import claims_table

TITLES = {
    "methods": "Which features does each way of training capture?",
    "threshold": "From which teacher scale on do features grow?",
    "width": "How many kernels cover all features?",
    "sensitivity": "Where do the claims stop holding?",
}
COUNTS = ("kernels_per_class", "members", "pretrain_steps", "supervised_steps", "finetune_steps")


def validate_design(config: ConfigDict) -> None:
    """Refuse data and networks that cannot be; for every experiment on data of known features."""
    capture_runs.make_spec(config.data)
    for field in capture_runs.SIZES:
        trained.require_at_least(f"data.{field}", config.data[field], 1)
    network = config.network
    for field in COUNTS:
        if field in network:
            trained.require_at_least(f"network.{field}", network[field], 1)
    for field in ("init_scale", "threshold"):
        _require_positive(f"network.{field}", network[field])
    trained.require_at_least("network.power", network.power, 1)
    if not 0 < network.keep <= 1:
        raise ValueError(
            f"network.keep={network.keep} must lie in (0, 1]: the share of patches the student sees"
        )


def _require_positive(field: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{field} must be above 0, got {value}")


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before anything is computed."""
    validate_design(config)
    trained.require_at_least("sweep_seeds", config.sweep_seeds, 1)
    sweeps = config.sweeps
    for name in words.SWEEPS:
        if len(set(sweeps[name])) < len(sweeps[name]):
            raise ValueError(f"sweeps.{name} must be values that differ, got {sweeps[name]}")
    for name in ("width", "steps"):
        for value in sweeps[name]:
            trained.require_at_least(f"sweeps.{name}", value, 1)
    for name in ("teacher_scale", "threshold"):
        for value in sweeps[name]:
            _require_positive(f"sweeps.{name}", value)
    for value in sweeps.single_view:
        if not 0 <= value <= 1:
            raise ValueError(f"sweeps.single_view must lie in [0, 1], got {value}")
    for value in sweeps.variant:
        trained.require_choice("sweeps.variant", value, capture_runs.PRETRAININGS)


def smoke(config: ConfigDict) -> ConfigDict:
    """Few images, kernels and steps, on the same code path."""
    config.data.num_classes, config.data.dim = 2, 8
    config.data.num_train, config.data.num_test = 20, 20
    config.network.kernels_per_class, config.network.members = 2, 2
    for field in ("pretrain_steps", "supervised_steps", "finetune_steps"):
        config.network[field] = 5
    config.sweep_seeds = 2
    config.sweeps.teacher_scale, config.sweeps.width = (1.05, 1.189), (2,)
    config.sweeps.single_view, config.sweeps.threshold = (0.0, 0.05), (0.2, 1.0)
    config.sweeps.steps, config.sweeps.variant = (5, 10), ("MAE-like",)
    config.reduction = "smoke run, whose numbers mean nothing"
    return config


def setting_of(config: ConfigDict) -> words.Setting:
    """What the predictions depend on."""
    data, network = config.data, config.network
    return words.Setting(
        data.num_classes,
        network.kernels_per_class,
        network.keep,
        data.patches_per_feature,
        network.power,
    )


def records(study: words.Study, points: Sequence[words.Point], seeds: Sequence[int]):
    """One line for each way of training, and each point of a sweep, and seed, without times."""
    lines = []
    for index, seed in enumerate(seeds):
        for key, item in study.methods.items():
            measured = {name: float(values[index]) for name, values in item._asdict().items()
                        if name != "name"}  # fmt: skip
            lines.append({"method": key, "seed": seed, **measured})
        of_seed = {name: float(getattr(study, name)[index])
                   for name in ("aligned", "predicted_winners", "agreeing_winners")}  # fmt: skip
        lines.append({"method": "all", "seed": seed, **of_seed})
    for item in points:
        for index in range(len(item.measure("captured"))):
            measured = {name: float(values[index]) for name, values in item.found.items()}
            line = {"sweep": item.sweep, "value": item.value, "seed": seeds[index]}
            lines.append(line | measured)
    return lines


def describe_design(config: ConfigDict) -> str:
    """Data and network, for the notes of the tables."""
    data, network = config.data, config.network
    return (
        f"k = {data.num_classes} classes of two features, {data.num_patches} patches of dimension "
        f"{data.dim}, {data.patches_per_feature} of them a feature, patch noise "
        f"{data.patch_noise:g}; {data.num_train:,} training images, {data.num_test:,} test images "
        f"of each kind; {network.kernels_per_class} kernels a class at {network.init_scale:g}, "
        f"rectifier of power {network.power:g} up to {network.threshold:g}, {network.keep:g} of "
        f"the patches kept; {network.pretrain_steps} steps of pretraining, at most "
        f"{network.supervised_steps} of supervision, {network.finetune_steps} of heads and "
        f"fine-tuning."
    )


def describe(
    config: ConfigDict,
    study: words.Study,
    points: Sequence[words.Point],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
) -> str:
    """Setting, seeds and device, for the notes of the tables."""
    # Points at the config's own values are computed once and stand in several sweeps.
    swept = sum({item.seconds for item in points})
    parts = [
        f"Ours: {describe_design(config)}",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}; sweeps: the first "
        f"{min(config.sweep_seeds, len(seeds))} of them, with draws of their own.",
        f"{facts['device']}, {facts['cpu_cores']} cores; all ways of training and seeds "
        f"{study.seconds:.0f} s with compilation, sweeps {swept:.0f} s.",
    ]
    return " ".join(filter(None, parts))


def write_outputs(
    config: ConfigDict,
    workdir: Path,
    study: words.Study,
    points: Sequence[words.Point],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Tables, figures, results.json and report; returns what results.json holds."""
    note, setting = describe(config, study, points, seeds, facts), setting_of(config)
    claims = capture_claims.find_claims(study, points, setting)
    rules = f"{words.PAPER} {capture_claims.RULES} {note}"
    tables = [
        words.methods_table(study, note),
        claims_table("What is claimed of captured features, and what was measured",
                            claims, rules),
        words.sweeps_table(points, setting, note),
    ]  # fmt: skip
    pictures = capture_figures.all_figures(study, points, setting)
    figures = report.save_figures(workdir / "figures", pictures)
    results = {
        "summary": capture_claims.answer(study, claims),
        "claims": [claim._asdict() for claim in claims],
        "runs": records(study, points, seeds),
        "predicted": {"window": setting.window, "pair_bound": setting.pair_bound},
        "setting": note,
    }
    sections = [
        report.Section(TITLES[name], (), *figure, tables if name == "methods" else ())
        for name, figure in figures.items()
    ]
    title = f"Captured features, {config.data.num_classes} classes"
    return cli.publish(workdir, title, sections, tables, results, facts)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    capture_runs.require_different(seeds)
    workdir = cli.begin(config, workdir)
    study = capture_runs.run_main(config, workdir, seeds)
    asked = [(sweep, value) for sweep in words.SWEEPS for value in config.sweeps[sweep]]
    few = seeds[: config.sweep_seeds]
    points = [
        capture_runs.run_point(config, workdir, sweep, value, few)
        for sweep, value in report.progress(asked, "points of sweeps")
    ]
    report.write_jsonl(workdir / "metrics.jsonl", records(study, points, seeds))
    facts = cli.facts_of("feature_capture", seeds, start)
    return write_outputs(config, workdir, study, points, seeds, facts)


if __name__ == "__main__":
    cli.main("feature_capture", recipe.get_config, run, smoke)
