"""What simple classifiers read from features: linear, nearest-neighbour and few-shot probes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

from recon_jax import data, probes
from recon_jax.audit.intervals import bootstrap, over_seeds, undefined
from recon_jax.audit.records import Estimate, ProbeAccuracy

# Of the logistic probe on standardised features, from strong to weak.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
# Where there are too few images to choose: the weak end of what few images prefer.
FEW_SHOT_PENALTY = 1e-2
HELD_OUT = 0.2
MOST_ITERATIONS = 300
# Accuracies at a tenth of it are the same within half a per cent, and take five times as long.
TOLERANCE = 1e-3


def measure_probes(
    features: Float[np.ndarray, "n k"],
    labels: Integer[np.ndarray, " n"],
    test_features: Float[np.ndarray, "t k"],
    test_labels: Integer[np.ndarray, " t"],
    counts: Integer[np.ndarray, "r t"],
    *,
    seeds: Sequence[int],
    shots: int = 5,
    neighbors: int = 20,
) -> ProbeAccuracy:
    """Accuracy of three probes on the test images, in per cent.

    The linear probe is `probes.logistic_probe` on standardised features. Its penalty is weakened
    along `PENALTIES` until accuracy falls on a fifth of the training images of each class; the best
    is refitted on all.
    kNN is `probes.knn_classify` by cosine similarity. The few-shot probe is logistic with a fixed
    penalty on `shots` images of each class. Test images of classes without a training image count
    as wrong.

    Args:
      features: of the training images (N, K).
      labels: their classes (N,), two or more of them.
      test_features: of the test images (T, K).
      test_labels: their classes (T,).
      counts: resamples of the test images.
      seeds: draws of the few-shot images; the first also holds out the fifth.
      shots: images of each class; fewer, which the note says, where a class has not as many.
      neighbors: of kNN, at most; all training images where there are fewer.

    Returns:
      The ProbeAccuracy: intervals over test images for linear and kNN, over draws for few-shot.
    """
    # A probe knows the classes that occur; any other label is a miss.
    known, own = np.unique(labels, return_inverse=True)
    place = np.minimum(np.searchsorted(known, test_labels), len(known) - 1)
    truth = np.where(known[place] == test_labels, place, -1)
    own = own.astype(np.int32)
    votes = probes.knn_classify(
        test_features, features, own, len(known), num_neighbors=min(neighbors, len(features))
    )
    return ProbeAccuracy(
        _linear(features, own, test_features, truth, counts, seeds[0]),
        _percent(np.asarray(votes) == truth, counts),
        _few_shot(features, own, test_features, truth, seeds, shots),
    )


def undefined_probes(note: str) -> ProbeAccuracy:
    """No numbers, and why.

    Args:
      note: why.
    """
    return ProbeAccuracy(*[undefined(note)] * len(ProbeAccuracy._fields))


def _percent(correct: Bool[np.ndarray, " t"], counts: np.ndarray, note: str = "") -> Estimate:
    columns = np.stack([correct, np.ones(len(correct))], axis=1)
    return bootstrap(lambda right, total: 100 * right / total, columns, counts, note)


def _linear(features, labels, test_features, truth, counts, seed) -> Estimate:
    penalty, note = FEW_SHOT_PENALTY, "penalty not validated: no class has 5 training images"
    validation = validation_rows(labels, seed)
    if validation.any():
        penalty, note = _best_penalty(features, labels, validation), ""
    probe, report = _fit(features, labels, penalty)
    if not report.converged:
        note = f"the fit stopped after {report.iterations} iterations"
    return _percent(np.asarray(probes.predict(probe, test_features)) == truth, counts, note)


def validation_rows(labels: Integer[np.ndarray, " n"], seed: int) -> Bool[np.ndarray, " n"]:
    """A random fifth of each class, rounded down.

    Args:
      labels: classes (N,).
      seed: by which they are drawn.
    """
    order = data.epoch_order(len(labels), seed=seed, epoch=0)
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    places = np.concatenate([np.arange(size) for size in sizes])
    chosen = np.zeros(len(labels), bool)
    chosen[by_class] = places < np.repeat((HELD_OUT * sizes).astype(int), sizes)
    return chosen


def _best_penalty(features, labels, validation) -> float:
    """From strong to weak penalties, until one is worse than that before it."""
    best, most = PENALTIES[0], -1
    for penalty in PENALTIES:
        probe, _ = _fit(features[~validation], labels[~validation], penalty)
        found = np.asarray(probes.predict(probe, features[validation]))
        right = int(np.sum(found == labels[validation]))
        if right < most:
            break
        if right > most:
            best, most = penalty, right
    return best


def _fit(features, labels, penalty):
    return probes.logistic_probe(
        features,
        labels,
        int(labels.max()) + 1,
        regularization=penalty,
        tolerance=TOLERANCE,
        max_iterations=MOST_ITERATIONS,
    )


def _few_shot(features, labels, test_features, truth, seeds, shots) -> Estimate:
    available = min(shots, int(np.bincount(labels).min()))
    note = "" if available == shots else f"{available} images a class, not {shots}"
    classes = int(labels.max()) + 1
    accuracies = []
    for seed in seeds:
        rows = np.asarray(probes.few_shot_split(jax.random.key(seed), labels, available, classes))
        probe, _ = _fit(features[rows], labels[rows], FEW_SHOT_PENALTY)
        right = np.asarray(probes.predict(probe, test_features)) == truth
        accuracies.append(100 * right.mean())
    return over_seeds(accuracies, note)
