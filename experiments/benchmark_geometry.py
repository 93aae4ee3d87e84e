"""Speed of the geometry of features against scikit-learn and NumPy, in float32."""

from __future__ import annotations

import numpy as np

from experiments.benchmark_job import Job
from experiments.benchmark_probes import features
from recon_jax import geometry

NEIGHBORS, RANK = 16, 6  # of Cosentino et al.'s question, as in configs/projector_geometry.py


def tangents_job(smoke: bool) -> Job:
    """Tangent planes at all points: neighbours, then the leading directions among them."""
    from sklearn.neighbors import NearestNeighbors

    count, size = (200, 24) if smoke else (10_000, 512)
    rows, _ = features(count, size, seed=1)

    def theirs():
        search = NearestNeighbors(n_neighbors=NEIGHBORS, algorithm="brute").fit(rows)
        # Without queries, no point is its own neighbour.
        index = search.kneighbors(return_distance=False)
        bases = np.empty((count, size, RANK), np.float32)
        for point, others in enumerate(index):
            differences = rows[others] - rows[point]
            bases[point] = np.linalg.svd(differences, full_matrices=False)[2][:RANK].T
        return bases

    return Job(
        f"tangent bases, {count:,} x {size}, {NEIGHBORS} neighbours, rank {RANK}",
        lambda: geometry.tangent_bases(rows, NEIGHBORS, RANK),
        {"scikit-learn NearestNeighbors brute, NumPy SVD a point": theirs},
        0.3,
    )


JOBS = {"tangents": tangents_job}
