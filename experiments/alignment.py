"""Which subspace does reconstruction learn, and which corruption would help or can never help?

    python -m experiments.alignment [--config=configs/alignment.py:VARIANT] [--workdir=DIR]
        [--smoke] [--seeds=0,1,2]

One pass over the images, then closed forms: explained variance with top and bottom images,
alignment curves for plain reconstruction and every corruption, the impact of masks over ratio and
patch size, the label-free neutrality verdicts, and a ranked recommendation in words. The labels are
those of the training split alone. Spread is the delete-one-fold jackknife standard error over the
images; the closed forms involve no seed. With scenes as source `--seeds` draws other scenes: the
first seed for the main tables, mean and standard deviation over all of them in the comparison.

Writes report.html, results.json, config.json, metrics.jsonl, tables/ and figures/ into the workdir.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import recon_jax
from configs import alignment as recipe
from experiments import cli
from experiments.statistics import open_data, seeded, stream
from recon_jax import data, report, spectral
from recon_jax.report import findings as words
from recon_jax.report import spectral as plots

NORMALIZATIONS = (*data.NORMALIZATIONS, "per_pixel")


class Context(NamedTuple):
    """What every step of a run needs: config, workdir, data and its statistics."""

    config: ConfigDict
    workdir: Path
    source: data.Source
    rests: list[tuple[spectral.Moments, spectral.Spectrum]]  # all images but one fold
    scale: np.ndarray
    moments: spectral.Moments
    spectrum: spectral.Spectrum
    setting: words.Setting
    key: dict[str, Any]

    def cached(self, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]):
        """A step of the run, kept in the workdir."""
        return report.cached(self.workdir / "cache", name, [self.key, key], compute)


def validate(config: ConfigDict) -> None:
    """Raise ValueError for a config that cannot work, before any data is read."""
    for field, value, allowed in (
        ("data.normalization", config.data.normalization, NORMALIZATIONS),
        ("precision", config.precision, ("float32", "float64")),
        ("sweep.kind", config.sweep.kind, ("bernoulli", "subset")),
    ):
        if value not in allowed:
            raise ValueError(f"{field} must be one of {', '.join(allowed)}, got {value!r}")
    for field, value, low in (
        ("data.batch_size", config.data.batch_size, 1),
        ("data.image_size", config.data.image_size, 0),
        ("data.limit", config.data.limit, 0),
        ("strips.num_images", config.strips.num_images, 1),
    ):
        if value < low:
            raise ValueError(f"{field} must be at least {low}, got {value}")
    if config.folds == 1 or config.folds < 0:
        raise ValueError(f"folds must be 0 (no spread) or at least 2, got {config.folds}")
    if config.data.moments and (config.folds or config.compare):
        raise ValueError(
            f"data.moments={config.data.moments} is one sum over all images of one source; set "
            "--config.folds=0 (no spread) and --config.compare='()'"
        )
    if not config.ranks or min(config.ranks) < 1:
        raise ValueError(f"ranks must be one or more K >= 1, got {config.ranks}")


def check_against(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError for what does not fit the image size, before the images are streamed."""
    for spec in config.corruptions:
        spectral.make_corruption(spec, image_shape)
    for patch_size in config.sweep.patch_sizes:
        spectral.patch_index(patch_size, image_shape)
    size = math.prod(image_shape)
    if max(config.ranks) > size:
        raise ValueError(f"ranks must not exceed D = {size} for {image_shape}, got {config.ranks}")


def smoke(config: ConfigDict) -> ConfigDict:
    """Few, small images and few cells, on the same code path."""
    config.data.limit = 500
    config.data.image_size = 8
    config.ranks = (4, 16)
    config.folds = 2
    config.sweep.ratios = (0.0, 0.5, 0.9)
    config.sweep.patch_sizes = (1, 4)
    config.compare = config.compare[:2]
    return config


def prepare(config: ConfigDict, workdir: Path, seed: int) -> Context:
    """Open the data, stream its statistics, find its spectrum."""
    source = open_data(config.data, seeded(config.data.source, seed))
    check_against(config, source.image_shape)
    folds, scale = stream(config, source, workdir)
    moments = spectral.union_moments(folds)
    spectrum = spectral.eigendecompose(moments)
    height, width, channels = source.image_shape
    spread = f"± jackknife standard error, {config.folds} folds" if config.folds else "no spread"
    setting = words.Setting(
        ranks=list(config.ranks),
        clean=np.asarray(spectral.alignment_curve(moments, spectrum=spectrum)),
        explained=np.asarray(spectral.explained_variance(spectrum)),
        label_r2=float(spectral.label_r2(moments, spectrum=spectrum)),
        note=f"{source.name}, {source.split} split, {source.num_images:,} images of "
        f"{height}x{width}x{channels}, normalisation {config.data.normalization}, "
        f"{config.precision}; {spread}. The paper shows such curves in figures, without numbers.",
    )
    scatter = np.asarray(moments.scatter)
    key = {
        "moments": hashlib.sha256(scatter.tobytes()).hexdigest(),
        "version": recon_jax.__version__,
    }
    rests = spectral.leave_one_out(folds) if config.folds else []
    rests = [(rest, spectral.eigendecompose(rest)) for rest in rests]
    return Context(config, workdir, source, rests, scale, moments, spectrum, setting, key)


def examine(context: Context, spec: Any) -> words.Finding:
    """Alignment, impact with spread, and neutrality of one corruption."""
    corruption = spectral.make_corruption(spec, context.source.image_shape)
    ranks = context.setting.ranks

    def compute():
        start = time.perf_counter()
        found = spectral.survey(
            context.moments, corruption, spectrum=context.spectrum, max_rank=max(ranks)
        )
        error = np.full(len(ranks), np.nan)
        if context.config.folds:
            impacts = [
                spectral.corruption_impact(rest, corruption, spectrum=spectrum)
                for rest, spectrum in context.rests
            ]
            error = spectral.jackknife_error(jnp.stack(impacts)[:, np.array(ranks) - 1])
        jax.block_until_ready((found, error))  # for the clock: JAX returns before it is done
        return {
            "curve": found.alignment,
            "impact": found.impact,
            "error": error,
            "max_sine": found.neutrality.max_sine,
            "is_neutral": found.neutrality.is_neutral,
            "commutes": found.neutrality.commutes,
            "seconds": time.perf_counter() - start,
        }

    return words.Finding(corruption.name, **context.cached("corruption", [spec, ranks], compute))


def sweep(context: Context) -> words.MaskSweep:
    """Impact of masks over patch size and ratio, at the ranks of the tables."""
    options, ranks = context.config.sweep, context.setting.ranks
    index = np.array(ranks) - 1
    clean = context.setting.clean[index]
    impacts = []
    for patch_size in report.progress(options.patch_sizes, "sweeping masks"):

        def compute(patch_size=patch_size):
            curves = spectral.mask_sweep(
                context.moments,
                options.ratios,
                [patch_size],
                context.source.image_shape,
                kind=options.kind,
                max_rank=max(ranks),
                spectrum=context.spectrum,
            )
            return {"curves": curves[0][:, index]}

        key = [patch_size, options.to_dict(), ranks]
        impacts.append(context.cached("sweep", key, compute)["curves"] / clean - 1)
    return words.MaskSweep(np.stack(impacts), options.ratios, options.patch_sizes)


def compare(config: ConfigDict, workdir: Path, seeds: list[int]) -> report.Table:
    """Plain reconstruction on other sources: which images are misaligned?"""
    compared = []
    for name in report.progress(config.compare, "comparing sources"):
        curves, readable = [], []
        for seed in seeds if name.startswith("scenes:") else seeds[:1]:
            folds, _ = stream(config, open_data(config.data, seeded(name, seed)), workdir)
            moments = spectral.union_moments(folds)
            spectrum = spectral.eigendecompose(moments)
            curves.append(spectral.alignment_curve(moments, spectrum=spectrum))
            readable.append(spectral.label_r2(moments, spectrum=spectrum))
        compared.append(words.Compared(name, np.array(curves), np.array(readable)))
    note = (
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}; normalisation "
        f"{config.data.normalization}."
    )
    return words.comparison_table(compared, config.ranks, note)


def first_images(context: Context) -> np.ndarray:
    """Some images as the closed forms saw them."""
    count = min(context.config.strips.num_images, context.source.num_images)
    images = context.source.read(np.arange(count))[0]
    if context.config.data.normalization == "per_image":
        images = np.asarray(data.per_image_standardize(images))
    return (images.reshape(count, -1) * context.scale).reshape(images.shape)


def draw(
    context: Context, found: list[words.Finding], masks: words.MaskSweep
) -> dict[str, tuple[Path, str]]:
    """The figures: name -> (path of the PNG, caption)."""
    setting = context.setting
    curves = {"none": setting.clean} | {item.name: item.curve for item in found}
    impacts = {"none": np.zeros_like(setting.clean)} | {item.name: item.impact for item in found}
    threshold = context.config.strips.threshold
    parts = plots.image_parts(first_images(context), context.spectrum, threshold)
    made = {
        "spectrum": (
            plots.spectrum_figure(setting.explained, threshold, parts),
            "Variance explained by principal components, and images with their projections on the "
            "top and the bottom of the spectrum; each image is stretched to its own range.",
        ),
        "alignment": (
            plots.alignment_figure(curves, impacts),
            "Left: alignment of K optimal latents with the labels. Right: its relative change by "
            "each corruption. Neutral corruptions lie on zero.",
        ),
        "impact": (
            plots.impact_figure(masks.impacts, masks.ratios, masks.patch_sizes, setting.ranks),
            "Relative change of alignment by masks of each ratio and patch size, in per cent.",
        ),
    }
    return report.save_figures(context.workdir / "figures", made)


def run(config: ConfigDict, workdir: Path, seeds: list[int]) -> dict[str, Any]:
    """Do everything for one config; returns what results.json holds."""
    start = time.perf_counter()
    validate(config)
    workdir = cli.begin(config, workdir)
    jax.config.update("jax_enable_x64", config.precision == "float64")
    context = prepare(config, workdir, seeds[0])

    found = []
    for spec in report.progress(config.corruptions, "corruptions"):
        found.append(examine(context, spec))
        record = {"corruption": found[-1].name, "seconds": round(float(found[-1].seconds), 3)}
        report.append_jsonl(workdir / "metrics.jsonl", record)
    masks = sweep(context)
    tables = [words.impact_table(found, context.setting)]
    tables.append(words.neutrality_table(found, context.setting))
    if config.compare:
        tables.append(compare(config, workdir, seeds))
    summary = words.recommend(found, context.setting, masks)
    figures = draw(context, found, masks)

    results = {
        "summary": summary,
        "reconstruction": context.setting._asdict(),
        "corruptions": [item._asdict() for item in found],
        "sweep": masks._asdict(),
        "setting": context.setting.note,
    }
    sections = [
        report.Section("Which subspace does reconstruction learn?", (), *figures["spectrum"]),
        report.Section("Which corruption would help?", (), *figures["alignment"], tables[:1]),
        report.Section("Which masks, and how much of them?", (), *figures["impact"]),
        report.Section("Which corruption can never help?", tables=tables[1:2]),
    ]
    if config.compare:
        sections.append(report.Section("Which images are misaligned?", tables=tables[2:]))
    title = f"Does reconstruction of {context.source.name} serve perception?"
    facts = cli.facts_of("alignment", seeds, start)
    return cli.publish(workdir, title, sections, tables, results, facts)


if __name__ == "__main__":
    cli.main("alignment", recipe.get_config, run, smoke)
