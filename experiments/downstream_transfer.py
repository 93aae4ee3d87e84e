"""Does pretraining help on downstream classes that share some of its features?

    python -m experiments.downstream_transfer [--workdir=DIR] [--smoke]
        [--seeds=0,1,2,3,4,5,6,7,8,9]

An encoder is pretrained on many images of some classes, by mask reconstruction or on their labels,
and then trained on few images of other classes. Of the features of these a stated part was seen in
pretraining. Beside it: supervision from scratch, and random kernels with a head or fine-tuned. All
have as many kernels. The claims have rules that were fixed before the first run.

Seeds are keys, and all seeds and overlaps are one compiled call; with the one seed of the default
there is no spread. A finished run is read and not computed again. Writes report.html, results.json,
config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from configs import downstream_transfer as recipe
from experiments import capture_runs, cli, feature_capture, trained
from recon_jax import multiview, report
from recon_jax.report import downstream_transfer as words
from recon_jax.report.claims import claims_table


def make_specs(config: ConfigDict) -> tuple[multiview.MultiViewSpec, multiview.MultiViewSpec]:
    """The data model of pretraining and of the downstream task."""
    spec = capture_runs.make_spec(config.data)
    return spec, dataclasses.replace(spec, num_classes=config.downstream.num_classes)


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before anything is computed."""
    feature_capture.validate_design(config)
    trained.require_at_least("downstream.num_classes", config.downstream.num_classes, 1)
    trained.require_at_least("downstream.num_train", config.downstream.num_train, 1)
    if not config.encoder_rate > 0:
        raise ValueError(f"encoder_rate must be above 0, got {config.encoder_rate}")
    overlaps = tuple(config.overlaps)
    if not overlaps or len(set(overlaps)) < len(overlaps):
        raise ValueError(f"overlaps must be one or more that differ, got {overlaps}")
    specs = make_specs(config)
    kernels = config.network.kernels_per_class * specs[0].num_classes
    if kernels % specs[1].num_classes:
        raise ValueError(
            f"the {kernels} kernels of the encoder are not a multiple of downstream.num_classes="
            f"{specs[1].num_classes}; supervision from scratch gives every class as many"
        )
    count = specs[1].num_features
    for overlap in overlaps:
        # Its refusals alone: nothing is computed.
        jax.eval_shape(
            lambda key, overlap=overlap: multiview.sample_transfer_features(key, *specs, overlap),
            jax.random.key(0),
        )
        if abs(overlap * count - round(overlap * count)) > 1e-6:
            raise ValueError(
                f"overlap={overlap} of {count} downstream features is no whole number of them; "
                f"take a multiple of 1/{count}"
            )


def smoke(config: ConfigDict) -> ConfigDict:
    """Few images, kernels and steps, on the same code path."""
    config.data.num_classes, config.data.dim = 4, 12
    config.data.num_train, config.data.num_test = 20, 20
    config.downstream.num_classes, config.downstream.num_train = 2, 10
    config.network.kernels_per_class = 2
    for field in ("pretrain_steps", "supervised_steps", "finetune_steps"):
        config.network[field] = 5
    config.overlaps = (0.0, 1.0)
    config.reduction = "smoke run, whose numbers mean nothing"
    return config


def _pretrain(key, features, start, spec, numbers, plan):
    """Kernels after mask-reconstruction pretraining and after supervision, on the same images."""
    network = {"threshold": numbers["threshold"], "power": plan["power"]}
    images = multiview.sample_multiview(key, spec, features, plan["num_train"])
    masks = {"patches_per_feature": spec.patches_per_feature, "steps": plan["pretrain_steps"]}
    masked = multiview.pretrain(start, images.patches, numbers["keep"], **masks, **network)
    supervised = multiview.train_supervised(
        start,
        images.patches,
        images.labels,
        spec.num_classes,
        max_steps=plan["supervised_steps"],
        **network,
    )
    return masked.kernels, supervised.kernels


def _train_downstream(kernels, images, num_classes, encoder_rate, network, plan):
    """Every way of training: the kernels it starts from, and what it ends with."""
    labelled = (images.patches, images.labels, num_classes)
    options = {"steps": plan["finetune_steps"], **network}
    tuned = {
        "pretrained": kernels["masked"],
        "transferred": kernels["supervised"],
        "random_tuned": kernels["start"],
    }
    heads = {"pretrained_frozen": kernels["masked"], "random_frozen": kernels["start"]}
    found = {
        name: (rows, multiview.finetune(rows, *labelled, encoder_rate=encoder_rate, **options))
        for name, rows in tuned.items()
    }
    found |= {
        name: (rows, multiview.train_head(rows, *labelled, **options))
        for name, rows in heads.items()
    }
    most = {"max_steps": plan["supervised_steps"]}
    scratch = multiview.train_supervised(kernels["start"], *labelled, **most, **network)
    return found | {"scratch": (kernels["start"], scratch)}


def _measure(before, trained_network, features, tests, network):
    """Covered features before and after, and accuracies on both kinds of images."""
    covered = [
        multiview.aligned(kernels, features) for kernels in (before, trained_network.kernels)
    ]
    kept = (covered[0] & covered[1]).sum() / jnp.maximum(covered[0].sum(), 1)
    found = {
        "before": covered[0].mean(),
        "after": covered[1].mean(),
        # Nothing covered is reported, not divided by.
        "kept": jnp.where(covered[0].any(), kept, jnp.nan),
    }
    head = trained_network.head
    return found | {
        kind: capture_runs.score(trained_network.kernels, head, test, network)
        for kind, test in tests.items()
    }


@functools.partial(jax.jit, static_argnames=("specs", "plan"))
def _study(keys, overlaps, numbers, *, specs, plan):
    plan, (spec, downstream) = dict(plan), specs
    network = {"threshold": numbers["threshold"], "power": plan["power"]}

    def one(key):
        feature, image, kernel, few, multi, single = jax.random.split(key, 6)
        start = multiview.init_kernels(
            kernel, plan["kernels_per_class"] * spec.num_classes, spec.dim, numbers["init_scale"]
        )
        seen = multiview.sample_transfer_features(feature, *specs, 0.0).pretraining
        masked, supervised = _pretrain(image, seen, start, spec, numbers, plan)
        kernels = {"start": start, "masked": masked, "supervised": supervised}

        def at(overlap):
            features = multiview.sample_transfer_features(feature, *specs, overlap).downstream

            def draw(key, count, share):
                return multiview.sample_multiview(key, downstream, features, count, share)

            images = draw(few, plan["few"], 0.0)
            count = plan["num_test"]
            tests = {"multi": draw(multi, count, 0.0), "single": draw(single, count, 1.0)}
            rate, classes = numbers["encoder_rate"], downstream.num_classes
            ways = _train_downstream(kernels, images, classes, rate, network, plan)
            return {
                name: _measure(before, trained_network, features, tests, network)
                for name, (before, trained_network) in ways.items()
            }

        return {
            "pretraining_covered": multiview.aligned(masked, seen).mean(),
            "supervised_covered": multiview.aligned(supervised, seen).mean(),
            **jax.lax.map(at, overlaps),
        }

    return capture_runs.map_seeds(one, keys)


def run_study(config: ConfigDict, workdir: Path, seeds: Sequence[int]) -> words.Transfer:
    """All seeds and overlaps in one compiled call; read if it was computed."""
    network = dict(config.network.items())
    numbers = {name: float(network.pop(name)) for name in ("keep", "threshold", "init_scale")}
    numbers["encoder_rate"] = float(config.encoder_rate)
    plan = {**network, "few": config.downstream.num_train}
    plan |= {name: config.data[name] for name in capture_runs.SIZES}

    def compute() -> dict[str, Any]:
        start = time.perf_counter()
        found = _study(
            capture_runs.make_keys(seeds),
            jnp.array(config.overlaps, jnp.float32),
            numbers,
            specs=make_specs(config),
            plan=tuple(sorted(plan.items())),
        )
        flat = jax.tree_util.tree_flatten_with_path(jax.block_until_ready(found))[0]
        arrays = {".".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in flat}
        return {**arrays, "seconds": time.perf_counter() - start}

    key = [numbers, plan, config.data.to_dict(), config.downstream.to_dict()]
    key += [list(config.overlaps), list(seeds), recon_jax.__version__]
    arrays = report.cached(workdir / "cache", "transfer", key, compute)
    return words.gather(arrays, config.overlaps)


def records(found: words.Transfer, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One line for each seed, overlap and way of training, without times."""
    return [
        {
            "seed": seed,
            "overlap": float(overlap),
            "method": method,
            **{name: float(values[row, column]) for name, values in measures.items()},
        }
        for row, seed in enumerate(seeds)
        for column, overlap in enumerate(found.overlaps)
        for method, measures in found.methods.items()
    ]


def describe(
    config: ConfigDict, found: words.Transfer, seeds: Sequence[int], facts: Mapping[str, Any]
) -> str:
    """Setting, seeds and device, for the notes of the tables."""
    parts = [
        f"Pretraining: {feature_capture.describe_design(config)}",
        f"Downstream: {config.downstream.num_train} multi-view images of "
        f"{config.downstream.num_classes} classes; kernels fine-tuned at {config.encoder_rate:g}.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
        f"{facts['device']}, {facts['cpu_cores']} cores; {found.seconds:.0f} s with compilation.",
    ]
    return " ".join(filter(None, parts))


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    capture_runs.require_different(seeds)
    workdir = cli.begin(config, workdir)
    found = run_study(config, workdir, seeds)
    report.write_jsonl(workdir / "metrics.jsonl", records(found, seeds))
    facts = cli.facts_of("downstream_transfer", seeds, start)
    note = describe(config, found, seeds, facts)
    claims = words.find_claims(found)
    rules = f"{words.PAPER} {words.RULES} {note}"
    title = "What is claimed of transferred features, and what was measured"
    tables = [words.transfer_table(found, note), claims_table(title, claims, rules)]
    pictures = {"transfer": (words.transfer_figure(found), words.CAPTION)}
    path, caption = report.save_figures(workdir / "figures", pictures)["transfer"]
    results = {
        "summary": words.answer(found, claims),
        "claims": [claim._asdict() for claim in claims],
        "runs": records(found, seeds),
        "covered": {
            "pretraining": found.pretraining_covered,
            "supervised": found.supervised_covered,
        },
        "setting": note,
    }
    heading = "What is pretraining worth on other classes?"
    sections = [report.Section(heading, (), path, caption, tables)]
    title = "Pretraining and downstream classes with shared features"
    return cli.publish(workdir, title, sections, tables, results, facts)


if __name__ == "__main__":
    cli.main("downstream_transfer", recipe.get_config, run, smoke)
