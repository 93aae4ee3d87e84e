"""Speed of the probes against scikit-learn, in float32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from experiments.benchmark_job import Job, in_fresh_process
from recon_jax import parallel, probes

NUM_CLASSES = 10


def features(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian rows (N, D), power falling as 1 / i, whose ten classes differ in their means."""
    # The rows of one seed differ from another's, their classes do not.
    rng, of_classes = np.random.default_rng(seed), np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, size + 1, dtype=np.float32))
    means = 0.3 * of_classes.standard_normal((NUM_CLASSES, size), np.float32)
    labels = np.arange(count, dtype=np.int32) % NUM_CLASSES
    return (rng.standard_normal((count, size), np.float32) + means[labels]) * scales, labels


def logistic_job(smoke: bool) -> Job:
    """The logistic-regression probe: the same loss, penalty and tolerance on the gradient."""
    from sklearn.linear_model import LogisticRegression

    count, size = (500, 16) if smoke else (10_000, 512)
    rows, labels = features(count, size, seed=1)
    tolerance, regularization = 1e-4, 1 / count  # scikit-learn's default, C = 1

    def ours():
        probe, report = probes.logistic_probe(
            rows,
            labels,
            NUM_CLASSES,
            regularization=regularization,
            tolerance=tolerance,
            standardize_features=False,
        )
        if not report.converged:
            raise RuntimeError(f"the probe did not converge: {report}")
        return probe

    def theirs():
        LogisticRegression(solver="lbfgs", tol=tolerance, max_iter=1000).fit(rows, labels)

    task = (
        f"logistic-regression probe, {count:,} x {size}, {NUM_CLASSES} classes, gradient <= "
        f"{tolerance:g}"
    )
    return Job(task, ours, {"scikit-learn LogisticRegression lbfgs": theirs}, 1.0)


def _knn_data(smoke: bool) -> tuple[np.ndarray, np.ndarray]:
    queries, references, size = (50, 500, 16) if smoke else (10_000, 50_000, 512)
    return features(queries, size, seed=1)[0], features(references, size, seed=2)[0]


def _search(queries: np.ndarray, references: np.ndarray):
    return probes.nearest_neighbors(queries, references, 20, "euclidean")


def _peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage's peak is inherited from the program that started this one.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def extra_memory(smoke: bool) -> float:
    """GiB by which the search raises the peak memory of this process, compilation included."""
    parallel.tune_allocator()
    data = _knn_data(smoke)
    before = _peak_memory()
    for array in _search(*data):
        array.block_until_ready()
    return (_peak_memory() - before) / 2**30


def knn_job(smoke: bool) -> Job:
    """Exact neighbours, with the memory that they take beside the features."""
    from sklearn.neighbors import NearestNeighbors

    # In a process of its own: this one holds memory that earlier jobs left.
    memory = in_fresh_process(extra_memory, smoke)
    queries, references = _knn_data(smoke)
    search = NearestNeighbors(n_neighbors=20, algorithm="brute").fit(references)
    task = (
        f"kNN, {len(queries):,} queries on {len(references):,} x {references.shape[1]}, k=20, "
        f"{memory:.2f} GiB extra (goal < 1)"
    )
    return Job(
        task,
        lambda: _search(queries, references),
        {"scikit-learn NearestNeighbors brute": lambda: search.kneighbors(queries)},
        1.0,
    )


JOBS = {"logistic": logistic_job, "knn": knn_job}
