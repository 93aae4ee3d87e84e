"""The sufficient statistics of a dataset, in one pass that resumes, or in jobs that are merged.

    python -m experiments.moments [--config=configs/moments.py:VARIANT] [--workdir=DIR] [--smoke]
    python -m experiments.moments --merge FILE_OR_WORKDIR... [--workdir=DIR]

A pass reads each image once, this process its own share, and keeps the statistics in
WORKDIR/moments.npz every --config.save_every batches; the same command again goes on from there.
Separate jobs take --config.share=I of --config.shares=N each, and --merge joins their files.

Writes moments.npz, results.json and config.json into the workdir.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import moments as recipe
from experiments import cli
from experiments.statistics import describe, in_units, open_data, seeded
from recon_jax import data, parallel, report, spectral

FILE = "moments.npz"
TOP = 64
"""Components of which the explained variance is reported."""


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    for field, value, allowed in (
        ("data.normalization", config.data.normalization, ("none", "per_image")),
        ("precision", config.precision, ("float32", "float64")),
    ):
        if value not in allowed:
            raise ValueError(f"{field} must be one of {', '.join(allowed)}, got {value!r}")
    for field, value, low in (
        ("data.batch_size", config.data.batch_size, 1),
        ("data.image_size", config.data.image_size, 0),
        ("data.limit", config.data.limit, 0),
        ("save_every", config.save_every, 1),
        ("shares", config.shares, 1),
    ):
        if value < low:
            raise ValueError(f"{field} must be at least {low}, got {value}")
    if not 0 <= config.share < config.shares:
        raise ValueError(f"share must be in 0..{config.shares - 1}, got {config.share}")


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images in several spans, on the same code path."""
    config.data.limit = 500
    config.data.image_size = 8
    config.data.batch_size = 64
    config.save_every = 2
    return config


def stream(config: ConfigDict, whole: data.Source, path: Path) -> tuple[spectral.Moments, int]:
    """The statistics of this job's share, from the file where they are there; and images read."""
    source = data.source_share(whole, config.share, config.shares)
    devices = parallel.total_device_count()
    size = -(-min(config.data.batch_size, source.num_images) // devices) * devices
    steps = data.num_steps(source.num_images, size)
    streamed = 0

    def batches_from(start):
        nonlocal streamed
        streamed = source.num_images - start * size
        batches = data.epoch_batches(
            source, size, shuffle=False, start_step=start, **parallel.placement()
        )
        units = in_units(batches, config.data.normalization)
        return data.prefetch(report.progress(units, source.name, steps - start))

    identity = describe(config.data, whole, config.data.normalization)
    moments = spectral.resume_moments(
        batches_from,
        steps,
        source.num_classes,
        path=path,
        save_every=config.save_every,
        identity={
            **identity,
            "batch_size": size,
            "held": [config.share],
            "shares": config.shares,
        },
    )
    return moments, streamed


def summarize(moments: spectral.Moments, about: dict[str, Any]) -> dict[str, Any]:
    """What results.json says of the statistics."""
    rank = min(TOP, moments.num_features, int(moments.count) - 1)
    explained = None
    if rank > 0 and float(spectral.global_std(moments)) > 0:
        sketch = spectral.sketch_scatter(moments, rank, key=jax.random.key(0), power_iterations=3)
        explained = np.asarray(spectral.sketched_variance(sketch))[:rank]
    return {
        "count": int(moments.count),
        "num_features": moments.num_features,
        "class_counts": np.asarray(moments.class_counts),
        "global_std": float(spectral.global_std(moments)),
        "explained_variance": explained,
        "missing_shares": spectral.missing_shares(about),
        "about": about,
    }


def finish(workdir: Path, moments: spectral.Moments, facts: dict[str, Any], start: float) -> dict:
    """Write results.json and say what was found."""
    results = {
        **facts,
        **report.provenance(),
        "command": cli.command_of("moments"),
        "wall_seconds": round(time.perf_counter() - start, 3),
    }
    report.write_json(workdir / "results.json", results)
    if parallel.is_main():
        print(
            f"{results['count']:,} images of {results['num_features']:,} pixels: {workdir / FILE}"
        )
        print(f"- one standard deviation over all pixels: {results['global_std']:.4f}")
        if results["missing_shares"]:
            missing, shares = results["missing_shares"], results["about"]["shares"]
            print(f"- shares still missing: {', '.join(map(str, missing))} of 0..{shares - 1}")
    return results


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Stream one config's images; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    jax.config.update("jax_enable_x64", config.precision == "float64")
    whole = open_data(config.data, seeded(config.data.source, seeds[0]))
    before = time.perf_counter()
    moments, streamed = stream(config, whole, workdir / FILE)
    seconds = time.perf_counter() - before
    _, about = spectral.load_moments(workdir / FILE)
    facts = summarize(moments, about) | {
        "streamed_images": streamed,
        "seconds": round(seconds, 3),
        "images_per_second": round(streamed / seconds, 1),
    }
    return finish(workdir, moments, facts, start)


def merge(paths: list[Path], workdir: Path) -> dict[str, Any]:
    """Join files, or the workdirs they are in; returns what results.json holds."""
    start = time.perf_counter()
    jax.config.update("jax_enable_x64", True)
    files = [path / FILE if path.is_dir() else path for path in paths]
    if (workdir / FILE).resolve() in [path.resolve() for path in files]:
        raise ValueError(f"{workdir / FILE} is one of the files to merge; choose another --workdir")
    moments, about = spectral.merge_saved(files)
    workdir = report.prepare_workdir(workdir)
    spectral.save_moments(workdir / FILE, moments, about)
    moments, about = spectral.load_moments(workdir / FILE)
    facts = summarize(moments, about) | {"merged": [str(path) for path in files]}
    return finish(workdir, moments, facts, start)


def merge_command(arguments: list[str]) -> None:
    """The command line of --merge; bad input ends with one clear line and exit code 2."""
    parser = argparse.ArgumentParser("experiments.moments", allow_abbrev=False)
    parser.add_argument("--merge", nargs="+", type=Path, metavar="FILE_OR_WORKDIR", required=True)
    parser.add_argument("--workdir", type=Path, default=Path("results/moments/merged"))
    options = parser.parse_args(arguments)
    try:
        merge(options.merge, options.workdir)
    except (ValueError, OSError) as error:
        print(f"experiments.moments: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    if any(argument.split("=")[0] == "--merge" for argument in sys.argv[1:]):
        merge_command(sys.argv[1:])
    else:
        cli.main("moments", recipe.get_config, run, smoke)
