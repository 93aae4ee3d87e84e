"""The linear counterpart of the guidance experiment: joint optima over reconstruction weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import trained
from recon_jax import data, report, spectral
from recon_jax.report import guidance as words
from recon_jax.spectral import evaluate_nested, solve_nested, training_errors

MAX_FEATURES = 12_288  # 64 x 64 x 3: a scatter matrix of 1.2 GB in float64

# (name, key, compute) -> arrays of a step of the run, kept in the workdir.
Cached = Callable[[str, Any, Callable[[], Mapping[str, Any]]], Mapping[str, np.ndarray]]


def require_size(num_features: int) -> None:
    """Raise ValueError for images of too many pixels."""
    if num_features > MAX_FEATURES:
        raise ValueError(
            f"the closed form needs D x D matrices, and D = {num_features:,} (H W C) is more than "
            f"{MAX_FEATURES:,}; set closed_form.image_size, such as 32"
        )


def pixels_of(source: data.Source) -> Iterator[tuple]:
    """Batches of (images, labels, mask) in the range that networks see: 8-bit pixels over 255."""
    for batch in trained.all_batches(source):
        images = np.asarray(batch.images)
        yield images / (255.0 if images.dtype == np.uint8 else 1.0), batch.labels, batch.mask


def pixel_variance(train: data.Source, test: data.Source) -> float:
    """Mean squared error per pixel of the mean training image, on the test images."""

    def mean_over(source, value):
        total = sum(value(images[mask]).sum(0) for images, _, mask in pixels_of(source))
        return total / source.num_images

    mean = mean_over(train, lambda images: images)
    return float(np.mean(mean_over(test, lambda images: (images - mean) ** 2)))


def _statistics(train: data.Source, cached: Cached) -> tuple[spectral.Moments, spectral.Spectrum]:
    def compute():
        batches = trained.evaluation_batches(train)
        return spectral.stream_moments(data.prefetch(batches), train.num_classes)._asdict()

    key = str(jnp.result_type(float))
    moments = spectral.Moments(**jax.tree.map(jnp.asarray, cached("moments", key, compute)))
    if train.read(np.arange(1))[0].dtype == np.uint8:
        # Streamed as they are, 8-bit images give exact sums.
        moments = spectral.scale_moments(moments, 1 / 255)
    return moments, spectral.eigendecompose(moments)


def closed_form(
    options: ConfigDict,
    train: data.Source,
    test: data.Source,
    ranks: Sequence[int],
    variance: float,
    cached: Cached,
) -> list[words.Frontier]:
    """The joint linear optimum of every rank and reconstruction weight, judged on test images.

    Args:
      options: the config's `closed_form`.
      train: training images.
      test: test images.
      ranks: numbers of latents; those beyond D count as D.
      variance: see `pixel_variance`.
      cached: keeps the steps.
    """
    ranks = sorted({min(rank, int(np.prod(train.image_shape))) for rank in ranks})

    # Moments and spectrum are not needed where every weight has been solved.
    statistics = functools.cache(functools.partial(_statistics, train, cached))

    def solve(weight):
        moments, spectrum = statistics()
        solved = solve_nested(moments, max(ranks), weight, spectrum=spectrum)
        error, accuracy = evaluate_nested(solved, pixels_of(test), ranks)
        train_error, train_label_error = training_errors(solved, moments, ranks)
        return {
            "error": error,
            "relative_error": error / variance,
            "accuracy": accuracy,
            "train_error": train_error,
            "train_label_error": train_label_error,
        }

    weights = sorted(options.weights)
    with jax.enable_x64(options.precision == "float64"):
        found = [
            cached("closed_form", [weight, ranks, options.precision], lambda w=weight: solve(w))
            for weight in report.progress(weights, "closed forms")
        ]
    return [
        words.Frontier(
            rank,
            np.array(weights),
            **{name: np.array([x[name][i] for x in found]) for name in found[0]},
        )
        for i, rank in enumerate(ranks)
    ]
