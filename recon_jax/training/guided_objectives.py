"""What an autoencoder with probe guidance is trained for, and how it is judged."""

from __future__ import annotations

import math

import jax.numpy as jnp

from recon_jax import augment, losses
from recon_jax.augment.policies import Policy
from recon_jax.models import Guided, GuidedAutoencoder
from recon_jax.training.objectives import (
    MetricsFn,
    apply_in_training,
    augmented_images,
    unit_pixels,
    variables_of,
)
from recon_jax.training.state import TrainState
from recon_jax.training.step import LossFn

HEADS = ("linear", "mlp")


def _check(guidance: float, detach: bool) -> None:
    if not (math.isfinite(guidance) and guidance >= 0):
        raise ValueError(f"guidance={guidance} must be finite and 0 or more")
    if (guidance == 0) != detach:
        raise ValueError(
            f"guidance={guidance:g} needs a model with detach={guidance == 0}, got detach={detach}:"
            " without guidance the heads must not reach the autoencoder, with guidance they must"
        )


def _sums(output: Guided, images, batch) -> dict[str, tuple]:
    """Squared error, and cross-entropy and accuracy of both heads."""
    labels = jnp.asarray(batch.labels)
    error = losses.squared_error(output.reconstruction, images)
    sums = {"squared_error": losses.total_of(error, batch.mask)}
    for head in HEADS:
        logits = getattr(output, f"{head}_logits")
        entropy, correct = losses.cross_entropy(logits, labels), losses.is_correct(logits, labels)
        sums[f"{head}_cross_entropy"] = losses.total_of(entropy, batch.mask)
        sums[f"{head}_accuracy"] = losses.total_of(correct, batch.mask)
    return sums


def guided_loss(
    model: GuidedAutoencoder,
    *,
    guidance: float,
    policy: Policy | None = None,
    axis_name: str | None = None,
) -> LossFn:
    """Loss of an autoencoder under probe guidance g.

    mean squared error over pixels + g (cross-entropy of the linear head + that of the MLP head).
    With g = 0 the heads are probes, trained with weight 1 on detached latents: their gradient does
    not reach the autoencoder, whose parameters are exactly those that `autoencoder_loss` gives.
    That holds for optimizers that treat each parameter by itself; clipping by the global norm would
    join them.

    Args:
      model: its `detach` must be True for g = 0, and False otherwise.
      guidance: g >= 0.
      policy: augmentation of input and target alike; none if None.
      axis_name: name of the device axis, so that every image draws its own augmentation.

    Returns:
      A loss for `make_train_step`, on batches with images, labels and mask. 8-bit images are
      divided by 255. Metrics: squared_error; cross_entropy and accuracy, each with the prefix
      linear_ or mlp_.

    Raises:
      ValueError: if g is negative or not finite, or does not fit `detach`.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code, guidance experiment; there
    g = 0.01.
    """
    _check(guidance, model.detach)
    weight = 1.0 if model.detach else guidance
    policy = policy or augment.no_augmentation()

    def loss_fn(params, batch_stats, batch, key):
        images = augmented_images(batch, key, policy, axis_name)
        output, stats = apply_in_training(model, params, batch_stats, images)
        sums = _sums(output, images, batch)
        entropies = [losses.mean_of(sums[f"{head}_cross_entropy"]) for head in HEADS]
        loss = losses.mean_of(sums["squared_error"]) + weight * sum(entropies)
        return loss, (stats, sums)

    return loss_fn


def guided_metrics(model: GuidedAutoencoder) -> MetricsFn:
    """Metrics of a guided autoencoder in evaluation mode, under the names of `guided_loss`.

    Args:
      model: images -> `models.Guided`.
    """

    def metrics(state: TrainState, batch):
        images = unit_pixels(batch.images)
        output = model.apply(variables_of(state), images, train=False)
        return _sums(output, images, batch)

    return metrics
