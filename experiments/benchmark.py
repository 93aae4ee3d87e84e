"""Speed against what a user would pick instead, as ratios: closed forms, probes, training.

    python -m experiments.benchmark [--jobs=moments,eigh,...] [--workdir=DIR] [--smoke]

Every job and its peer run interleaved in one process on the same work, after a warm-up timed
apart (compilation), and block until ready; the table has medians of wall time and their ratio. What
resuming takes is measured in processes of their own.
Needs `pip install 'recon-jax[benchmark]'` for PyTorch and scikit-learn. The images are random 8-bit
ones with the spectrum of natural images (power 1 / f^2), CIFAR-10 sized, so that no download is
needed and timings do not depend on the content. The jobs called devices-... compare our code on 8
simulated devices with itself on one, in two processes that take turns.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from absl import app, flags, logging
from rich.console import Console

from experiments import (
    benchmark_contrastive,
    benchmark_deformation,
    benchmark_devices,
    benchmark_geometry,
    benchmark_masked,
    benchmark_multiview,
    benchmark_probes,
    benchmark_sensitivity,
    benchmark_training,
    benchmark_variational,
    benchmark_views,
)
from experiments.benchmark_job import Job, measure
from recon_jax import data, parallel, report, spectral

_JOBS = flags.DEFINE_list("jobs", [], "Jobs to run; all if empty.")
_WORKDIR = flags.DEFINE_string("workdir", "results/benchmark", "Where the table goes.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Tiny sizes: shows that it runs, not how fast.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Interleaved repetitions.", lower_bound=1)


def images(count: int, size: int, channels: int = 3) -> np.ndarray:
    """Random 8-bit images with power 1 / f^2, drawn as scenes without an object worth seeing."""
    source = data.scenes_source(
        num_images=count, image_size=size, channels=channels, object_scale=0.5
    )
    return source.read(np.arange(count))[0]


def labelled(count: int, size: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images with their ten classes."""
    return images(count, size, channels), np.arange(count, dtype=np.int32) % 10


def batches(pixels: np.ndarray, labels: np.ndarray, size: int):
    """Batches in order."""
    for start in range(0, len(pixels), size):
        yield pixels[start : start + size], labels[start : start + size]


def moments_job(smoke: bool, batch: int) -> Job:
    """Stream 8-bit images to moments."""
    pixels, labels = labelled(2000, 8) if smoke else labelled(50_000, 32)
    rows = pixels.reshape(len(pixels), -1)

    def numpy_products():
        total = np.zeros((rows.shape[1],) * 2, np.float32)
        for start in range(0, len(rows), batch):
            block = rows[start : start + batch].astype(np.float32)
            total += block.T @ block
        return total

    def ours():
        return spectral.stream_moments(batches(pixels, labels, batch), 10, dtype=jnp.float32)

    task = f"stream {len(rows):,} uint8 images to moments, D={rows.shape[1]}, batch {batch}"
    return Job(task, ours, {"NumPy S += X.T @ X": numpy_products}, 1.0)


def eigh_job(smoke: bool) -> Job:
    """Full eigendecomposition in float32."""
    import torch
    from sklearn.decomposition import PCA

    pixels, labels = labelled(500, 8) if smoke else labelled(10_000, 32)
    moments = spectral.stream_moments([(pixels, labels)], 10, dtype=jnp.float32)
    scatter = torch.tensor(np.asarray(moments.scatter))
    rows = pixels.reshape(len(pixels), -1).astype(np.float32)
    peers = {
        "torch.linalg.eigh": lambda: torch.linalg.eigh(scatter),
        "scikit-learn PCA covariance_eigh (with its covariance)": lambda: PCA(
            svd_solver="covariance_eigh"
        ).fit(rows),
    }
    size = moments.num_features
    return Job(
        f"full eigendecomposition, D={size}, float32",
        lambda: spectral.eigendecompose(moments),
        peers,
        0.9,
    )


def authors_curve(rows: np.ndarray, one_hot: np.ndarray, mask: np.ndarray, ratio: float):
    """The published way, N x D throughout: SVD of X, generalised problem, QR of the latents."""
    x = rows.astype(np.float32)
    x -= x.mean(0)
    x /= x.std()
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    root = vt.T * s  # S = root root^T
    scatter = root @ root.T
    second = scatter * np.where(mask, 1 - ratio, (1 - ratio) ** 2)
    values, axes = np.linalg.eigh(second)
    whiten = axes / (1e-6 + np.sqrt(np.maximum(values, 0)))
    _, _, directions = np.linalg.svd((1 - ratio) * scatter @ whiten)
    latents = np.linalg.qr(x @ (whiten @ directions.T))[0]
    energy = np.sum((one_hot @ (one_hot.T @ latents)) ** 2, axis=0)
    return np.sqrt(np.cumsum(energy) / energy.sum())


def curve_job(smoke: bool, further: bool) -> Job:
    """From images to the alignment curve for every K, under one corruption."""
    pixels, labels = labelled(500, 8) if smoke else labelled(10_000, 32)
    rows, one_hot = pixels.reshape(len(pixels), -1), np.eye(10, dtype=np.float32)[labels]
    index = spectral.patch_index(4, pixels.shape[1:])
    mask = index[:, None] == index[None, :]
    corruption = spectral.patch_mask(0.5, 4, pixels.shape[1:])

    def statistics_of():
        moments = spectral.stream_moments(batches(pixels, labels, 4096), 10, dtype=jnp.float32)
        return moments, spectral.eigendecompose(moments)

    known = statistics_of()

    def ours():
        moments, spectrum = known if further else statistics_of()
        return spectral.alignment_curve(moments, corruption, spectrum=spectrum)

    what = "every further corruption" if further else "one corruption"
    return Job(
        f"{len(rows):,} images to the alignment curve, {what}, D={rows.shape[1]}, all K, float32",
        ours,
        {"NumPy, the authors' way": lambda: authors_curve(rows, one_hot, mask, 0.5)},
        0.15 if further else 0.3,
    )


def scipy_curve(scatter, second, cross, counts, upto):
    """A generalised problem by SciPy, and its alignment curve."""
    vectors = scipy.linalg.eigh(scatter @ scatter, second)[1][:, ::-1][:, :upto]
    chol = np.linalg.cholesky(vectors.T @ scatter @ vectors)
    labels = scipy.linalg.solve_triangular(chol, vectors.T @ cross, lower=True)
    return np.sqrt(np.cumsum(np.sum(labels**2 * counts, axis=1)))


def sweep_job(
    smoke: bool, size: int, channels: int, max_rank: int | None, solver: str, target: float
) -> Job:
    """Thirty masks: ten ratios at three patch sizes; the inner eigenproblem in `solver`."""
    size = 8 if smoke else size
    pixels, labels = labelled(500 if smoke else 10_000, size, channels)
    shape = pixels.shape[1:]
    moments = spectral.stream_moments(batches(pixels, labels, 4096), 10, dtype=jnp.float64)
    moments = spectral.scale_moments(moments, 1 / spectral.global_std(moments))
    max_rank = min(max_rank or moments.num_features, moments.num_features)
    ratios, patch_sizes = [round(0.11 * i, 2) for i in range(10)], (1, 2, 4)
    scatter, cross = np.asarray(moments.scatter), np.asarray(moments.cross)
    counts = np.asarray(moments.class_counts)

    def pencils():
        for patch_size in patch_sizes:
            index = spectral.patch_index(patch_size, shape)
            within = np.where(index[:, None] == index[None, :], scatter, 0)
            for ratio in ratios:
                yield (1 - ratio) * scatter + ratio * within

    def eigenproblems():
        squared = scatter @ scatter
        for second in pencils():
            scipy.linalg.eigh(squared, second)

    def with_curves():
        return [scipy_curve(scatter, m, cross, counts, max_rank) for m in pencils()]

    def ours():
        return spectral.mask_sweep(
            moments, ratios, patch_sizes, shape, max_rank=max_rank, solver_dtype=jnp.dtype(solver)
        )

    ranks = "all K" if max_rank == moments.num_features else f"K <= {max_rank}"
    return Job(
        f"sweep of 30 masks, D={moments.num_features}, {ranks}, {solver} inside",
        ours,
        {
            "SciPy eigh(a, b) float64, eigenproblems alone": eigenproblems,
            "SciPy eigh(a, b) float64, with its curves": with_curves,
        },
        target,
    )


CLOSED_FORMS = {
    "moments-1024": functools.partial(moments_job, batch=1024),
    "moments-4096": functools.partial(moments_job, batch=4096),
    "eigh": eigh_job,
    "curve-first": functools.partial(curve_job, further=False),
    "curve-further": functools.partial(curve_job, further=True),
    "sweep-784": functools.partial(
        sweep_job, size=28, channels=1, max_rank=None, solver="float32", target=0.5
    ),
    "sweep-3072": functools.partial(
        sweep_job, size=32, channels=3, max_rank=256, solver="float64", target=0.2
    ),
}
JOBS = {
    **CLOSED_FORMS,
    **benchmark_devices.JOBS,
    **benchmark_probes.JOBS,
    **benchmark_training.JOBS,
    **benchmark_masked.JOBS,
    **benchmark_variational.JOBS,
    **benchmark_deformation.JOBS,
    **benchmark_sensitivity.JOBS,
    **benchmark_contrastive.JOBS,
    **benchmark_geometry.JOBS,
    **benchmark_views.JOBS,
    **benchmark_multiview.JOBS,
}


def main(argv: list[str]) -> None:
    """Run the jobs and write the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    names = _JOBS.value or list(JOBS)
    unknown = sorted(set(names) - set(JOBS))
    if unknown:
        sys.exit(f"unknown jobs {', '.join(unknown)}; choose from {', '.join(JOBS)}")
    parallel.tune_allocator()
    parallel.initialize()
    print(parallel.describe(), file=sys.stderr, flush=True)
    if parallel.process_count() > 1:
        sys.exit("the benchmark compares what one process does; start it as one")
    workdir = report.prepare_workdir(_WORKDIR.value)
    facts = report.provenance()
    rows = []
    for name in names:
        # The sweeps prepare in float64, and the other closed forms say float32 themselves; nothing
        # that is trained may become float64 unnoticed.
        jax.config.update("jax_enable_x64", name in CLOSED_FORMS)
        rows += measure(name, JOBS[name](_SMOKE.value), _ROUNDS.value)
        write(rows, facts, workdir)


def write(rows: list[list[Any]], facts: dict[str, Any], workdir: Path) -> None:
    """The table so far, on disk and on the terminal."""
    columns = ("job", "peer", "ours (s)", "peer (s)", "ratio", "goal", "compile (s)")
    note = (
        f"Medians of {_ROUNDS.value} interleaved rounds; {facts['device']}, {facts['cpu_cores']} "
        f"cores; memory kept between calls, for the peers too (parallel.tune_allocator); versions "
        f"{facts['versions']}."
    )
    table = report.Table("benchmark", "Time against the peer", columns, rows, note, 3)
    report.write_table(workdir / "tables", table)
    report.write_json(workdir / "results.json", {"rows": rows, **facts})
    Console(width=160).print(table.render("github"), highlight=False)


if __name__ == "__main__":
    app.run(main)
