"""Does it fit, how long does it take, and what bounds it: heavy jobs on a machine, before it runs.

    python -m experiments.capacity [--config=configs/capacity.py:KIND] [--workdir=DIR] [--smoke]

For accelerators the table is on paper. One device's program is traced with the types of its share
of the batch. FLOPs are by XLA's cost analysis of that program before optimisation; bytes are those
of its arguments, results, matrix products, convolutions, reductions and gathers, everything else
taken to be fused (XLA's own count before fusion is several times too high); memory is
arguments, gradients, and what products leave for the gradient, in as many micro-batches as it takes
to fit. Collectives are read from the program compiled for simulated devices, and go around a ring,
without latency. Rates are published peaks, and all is overlapped: predicted = max(compute, memory,
network). Programs seldom reach half of that speed. The last column is without any overlap.

For `cpu` the peaks are measured, by kernels that are none of the jobs, reduced jobs are compiled
and measured beside their prediction, and nothing overlaps: predicted = compute + memory.

Writes results.json, config.json and tables/ into the workdir.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import capacity as recipe
from experiments import capacity_programs as programs
from experiments import cli
from experiments.benchmark_job import in_fresh_process
from experiments.capacity_jobs import Sized, size_machine
from experiments.capacity_measured import Compared, compare
from experiments.trained import DTYPES, require_at_least, require_choice
from recon_jax import report, sizing

SIMULATED = 2  # devices; what is reduced does not depend on their number
WITHIN = 1.5  # predicted over measured, either way, that is promised for the CPU


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before anything is traced."""
    for section, fields in (
        ("moments", ("num_images", "num_classes", "whole_side", "sharded_side", "batch_size")),
        ("resnet50", ("image_size", "num_classes", "batch_size")),
        ("mae", ("image_size", "patch_size", "decoder_depth", "batch_size")),
        ("peaks", ("product_size", "array_size", "eigh_size")),
    ):
        for field in fields:
            require_at_least(f"{section}.{field}", config[section][field], 1)
    require_at_least("rounds", config.rounds, 1)
    for size in config.eigh.sizes:
        require_at_least("eigh.sizes", size, 1)
    require_choice("resnet50.dtype", config.resnet50.dtype, DTYPES)
    require_choice("mae.dtype", config.mae.dtype, DTYPES)
    for kind in programs.NETWORKS:
        network = programs.NETWORKS[kind](config[kind])  # refuses patches that do not divide
        network.loss(network.model)  # refuses masks that hide nothing
    for entry in config.devices:
        _validate_entry(config, entry)


def _validate_entry(config: ConfigDict, entry: Any) -> None:
    if not isinstance(entry, tuple | list) or len(entry) != 4:
        raise ValueError(f"devices must hold (kind, chip, count, links), got {entry!r}")
    kind, chip, count, links = entry
    require_choice(f"the chip of device {kind}", chip, config.chips)
    require_at_least(f"the count of device {kind}", count, 1)
    require_at_least(f"the links of device {kind}", links, 1)
    programs.scatter_types(config.moments.sharded_side, count, 1)
    for section in ("moments", "resnet50", "mae"):
        size = config[section].batch_size
        if size % count:
            raise ValueError(
                f"{section}.batch_size={size} must be a multiple of the {count} devices of {kind}; "
                f"such as {-(-size // count) * count}"
            )


def smoke(config: ConfigDict) -> ConfigDict:
    """Tiny images, networks and matrices, one round: shows that it runs, not how fast."""
    config.devices = tuple(config.devices)[:1]
    config.moments.num_images = 1000
    config.moments.num_classes = 4
    config.moments.whole_side = config.moments.sharded_side = 8
    config.eigh.sizes = (48,)
    config.resnet50.depth = 18
    config.resnet50.image_size = 32
    config.resnet50.num_classes = 4
    config.mae.width = 32
    config.mae.depth = 1
    config.mae.heads = 2
    config.mae.image_size = 16
    config.mae.patch_size = 8
    config.mae.decoder_depth = 1
    devices = max((entry[2] for entry in config.devices), default=4)
    for section in ("moments", "resnet50", "mae"):
        config[section].batch_size = 2 * devices
    config.rounds = 1
    config.peaks.product_size = config.peaks.eigh_size = 64
    config.peaks.array_size = 2**16
    return config


def collectives_of_steps(config: ConfigDict) -> dict[str, list[sizing.Collective]]:
    """What the steps of the networks send, from their compiled programs."""
    networks = {kind: config[kind] for kind in programs.NETWORKS}
    return in_fresh_process(programs.compiled_collectives, networks, SIMULATED)


def readable(value: float, unit: str) -> str:
    """Three digits with a prefix, such as 1.23 TB."""
    step = min(max(int(math.log10(value) // 3), 0), 5) if value > 0 else 0
    return f"{value / 1000**step:.3g} {['', 'k', 'M', 'G', 'T', 'P'][step]}{unit}"


def seconds_of(value: float) -> str:
    """Three digits in the unit that suits."""
    if value >= 120:
        return f"{value / 60:.3g} min"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def paper_row(item: Sized) -> list[str]:
    """One row of the table of a machine."""
    cost, prediction = item.cost, item.prediction
    memory = f"{cost.memory / 2**30:.3g} GiB" + ("" if item.fits else " (does not fit)")
    batch = str(item.batch or "-")
    batch += f" in {item.micro_batches} parts" if item.micro_batches > 1 else ""
    return [
        item.kind,
        item.job,
        batch,
        memory,
        readable(sum(cost.flops.values()), "FLOP"),
        readable(cost.traffic, "B"),
        readable(cost.network, "B"),
        f"{seconds_of(prediction.seconds)} a {item.unit}",
        prediction.bound,
        seconds_of(prediction.serial),
    ]


def paper_table(items: Sequence[Sized]) -> report.Table:
    """Machines and jobs, on paper."""
    columns = ("machine", "job", "images a device", "memory, estimate", "FLOPs", "memory traffic")
    columns += ("sent", "predicted, at peak rates", "bound", "without overlap")
    note = (
        "All of one device, of one pass over ImageNet, one call or one step. Predicted: the "
        "largest of compute, memory and network time at published peak rates, which programs do "
        "not reach. Memory is an estimate, without what the compiler adds. An "
        "eigendecomposition runs on one device, its FLOPs are on paper."
    )
    title = "What the heavy jobs take on accelerators, on paper"
    return report.Table("capacity", title, columns, [paper_row(item) for item in items], note, 3)


def measured_table(rates: Mapping[str, float], items: Sequence[Compared]) -> report.Table:
    """Reduced jobs on this machine, predicted and measured."""
    columns = ("job", "memory, XLA", "memory, estimate", "FLOPs", "memory traffic")
    columns += ("predicted", "measured", "predicted / measured", "bound")
    rows = [
        [
            item.job.name,
            readable(item.job.cost.memory, "B"),
            readable(item.job.memory, "B"),
            readable(sum(item.job.cost.flops.values()), "FLOP"),
            readable(item.job.cost.traffic, "B"),
            seconds_of(item.prediction.seconds),
            seconds_of(item.seconds),
            item.prediction.seconds / item.seconds,
            item.prediction.bound,
        ]
        for item in items
    ]
    peaks = ", ".join(
        f"{name} {readable(rate, 'B/s' if name == 'memory' else 'FLOP/s')}"
        for name, rate in rates.items()
    )
    note = (
        f"Medians of interleaved rounds. Measured peaks: {peaks}. Compute and memory time add up."
    )
    return report.Table("measured", "Predicted against measured here", columns, rows, note, 3)


def findings(sized: Sequence[Sized], compared: Sequence[Compared]) -> list[str]:
    """The outcome in words."""
    lines = []
    for item in sized:
        if not item.fits:
            lines.append(f"{item.job} does not fit {item.kind}")
    if compared:
        ratios = [item.prediction.seconds / item.seconds for item in compared]
        inside = sum(1 / WITHIN <= ratio <= WITHIN for ratio in ratios)
        lines.append(
            f"{inside} of {len(ratios)} reduced jobs were predicted within a factor {WITHIN:g}; "
            f"predicted / measured from {min(ratios):.2f} to {max(ratios):.2f}"
        )
    return lines or ["everything fits"]


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    del seeds  # nothing is random that a number depends on
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    sized, tables, rates, compared = [], [], {}, []
    if config.devices:
        collectives = collectives_of_steps(config)
        for entry in report.progress(list(config.devices), "machines"):
            sized += size_machine(config, entry, collectives)
        tables.append(paper_table(sized))
    if config.measure:
        rates, compared = compare(config)
        tables.append(measured_table(rates, compared))
    for table in tables:
        report.write_table(workdir / "tables", table)
    summary = findings(sized, compared)
    results = {
        "summary": summary,
        "sized": [_record(item) for item in sized],
        "rates": rates,
        "measured": [
            {
                "job": item.job.name,
                "cost": item.job.cost._asdict(),
                "memory_estimate": item.job.memory,
                "prediction": item.prediction._asdict(),
                "seconds": item.seconds,
            }
            for item in compared
        ],
        **report.provenance(),
        "command": cli.command_of("capacity"),
        "seconds": round(time.perf_counter() - start, 1),
    }
    report.write_json(workdir / "results.json", results)
    cli.show(tables, summary, workdir / "results.json")
    return results


def _record(item: Sized) -> dict[str, Any]:
    nested = {"cost": item.cost._asdict(), "prediction": item.prediction._asdict()}
    return {**item._asdict(), **nested}


if __name__ == "__main__":
    cli.main("capacity", recipe.get_config, run, smoke)
