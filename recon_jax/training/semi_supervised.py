"""The objective of the model M2: labels where there are any, all labels in turn where not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from recon_jax import augment, data, losses, models
from recon_jax.augment.policies import Policy
from recon_jax.losses import Likelihood
from recon_jax.training.keys import example_keys
from recon_jax.training.objectives import (
    MetricsFn,
    augmented_images,
    classified,
    unit_pixels,
    variables_of,
)
from recon_jax.training.state import TrainState
from recon_jax.training.step import LossFn
from recon_jax.training.variational import latent_noise, variational_terms


def classification_weight(labelled_batches: int, unlabelled_batches: int) -> float:
    """Weight of the classifier's loss: 0.1 (labelled + unlabelled batches) / labelled batches.

    Args:
      labelled_batches: of an epoch, at least 1.
      unlabelled_batches: of an epoch, at least 0.

    Raises:
      ValueError: for a number out of range.

    Source: Zhang et al. 2022 (arXiv 2205.14539), released code.
    """
    if labelled_batches < 1 or unlabelled_batches < 0:
        raise ValueError(
            f"labelled_batches={labelled_batches} must be at least 1 and unlabelled_batches="
            f"{unlabelled_batches} at least 0"
        )
    return 0.1 * (labelled_batches + unlabelled_batches) / labelled_batches


def _part(variables: Any, name: str) -> dict[str, Any]:
    return {kind: tree.get(name, {}) for kind, tree in variables.items()}


def _negative_bounds(
    model: models.SemiSupervisedVAE, likelihood, variables, levels, noise, labels, train
) -> tuple[Float[Array, " n"], Any]:
    """L(x, y) = -log p(x|y, z) + KL + log C of each row, in nats; new statistics of the VAE."""
    terms, stats = variational_terms(
        model.vae,
        likelihood,
        _part(variables, "vae"),
        levels,
        noise,
        labels=labels,
        train=train,
    )
    kl = losses.gaussian_kl(terms.posterior).sum(-1)
    return kl - terms.log_likelihood.mean(0) + jnp.log(float(model.vae.num_classes)), stats


def _with_every_label(rows: Array, classes: int) -> tuple[Array, Int[Array, " m"]]:
    """Rows (N, ...) once for each label, and the labels: row c N + n is image n with label c."""
    repeated = jnp.tile(rows, (classes,) + (1,) * (rows.ndim - 1))
    return repeated, jnp.repeat(jnp.arange(classes), len(rows))


def _noise(model: models.SemiSupervisedVAE, keys: Array, samples: int) -> Float[Array, "1 m z"]:
    """Standard normal numbers in the order of `_with_every_label`."""
    size = model.vae.latent_size
    return latent_noise(keys, samples, size).reshape(1, -1, size)


def _unlabelled(
    bounds: Float[Array, " m"], logits: Float[Array, "n classes"]
) -> Float[Array, " n"]:
    """U(x) = sum_y q(y|x) L(x, y) - H(q(y|x)) of L for every label."""
    log_q = jax.nn.log_softmax(logits, axis=1)
    return (jnp.exp(log_q) * (bounds.reshape(logits.shape[::-1]).T + log_q)).sum(1)


def semi_supervised_loss(
    model: models.SemiSupervisedVAE,
    likelihood: Likelihood,
    *,
    weight: float,
    policy: Policy | None = None,
    axis_name: str | None = None,
) -> LossFn:
    """Mean L(x, y) over labelled + mean U(x) over unlabelled images + weight * cross-entropy.

    L(x, y) = -log p(x|y, z) + KL(q(z|x, y) || p) + log C and U(x) = sum_y q(y|x) L(x, y) -
    H(q(y|x)), the sum over all C labels, with one latent each.

    Args:
      model: see `models.SemiSupervisedVAE`.
      likelihood: of the pixels.
      weight: of the classifier's cross-entropy on labelled images, >= 0; see
        `classification_weight`.
      policy: augmentation of pixels in [0, 1]; none if None.
      axis_name: name of the device axis, so that every image draws its own latents.

    Returns:
      A loss for `make_train_step`, on a `data.PairedBatch`. Metrics: labelled_bound and
      unlabelled_bound, L and U in nats an image; cross_entropy and accuracy on labelled images.

    Raises:
      ValueError: for a weight out of range.

    Source: Kingma et al. 2014 (arXiv 1406.5298), equations 6 to 9; Zhang et al. 2022 (arXiv
      2205.14539), released code.
    """
    if not weight >= 0:
        raise ValueError(f"weight={weight} of the classifier's loss must be at least 0")
    policy = policy or augment.no_augmentation()
    classes = model.vae.num_classes

    def seen(batch, key):
        augment_key, latent_key = jax.random.split(key)
        images = augmented_images(batch, augment_key, policy, axis_name)
        keys = example_keys(latent_key, len(images), axis_name)
        return losses.to_levels(images, likelihood.levels), keys

    def loss_fn(params, batch_stats, batch: data.PairedBatch, key):
        variables = {"params": params, "batch_stats": batch_stats}
        parts = zip(batch, jax.random.split(key), strict=True)
        (known, known_keys), (unknown, unknown_keys) = (seen(*part) for part in parts)
        pixels = losses.from_levels(jnp.concatenate([known, unknown]), likelihood.levels)
        # One pass over all rows, so that batch norm sees labelled and unlabelled images alike.
        logits, new = model.apply(
            variables, pixels, train=True, method="classify", mutable=["batch_stats"]
        )
        every, labels = _with_every_label(unknown, classes)
        noise = [_noise(model, known_keys, 1), _noise(model, unknown_keys, classes)]
        bounds, vae_stats = _negative_bounds(
            model,
            likelihood,
            variables,
            jnp.concatenate([known, every]),
            jnp.concatenate(noise, axis=1),
            jnp.concatenate([jnp.asarray(batch.labelled.labels), labels]),
            True,
        )
        stats = {**new.get("batch_stats", {}), **({"vae": vae_stats} if vae_stats else {})}
        above, below = bounds[: len(known)], bounds[len(known) :]
        below = _unlabelled(below, logits[len(known) :])
        metrics = {
            "labelled_bound": losses.total_of(above, batch.labelled.mask),
            "unlabelled_bound": losses.total_of(below, batch.unlabelled.mask),
            **classified(logits[: len(known)], batch.labelled, "cross_entropy"),
        }
        means = {name: losses.mean_of(total) for name, total in metrics.items()}
        loss = means["labelled_bound"] + means["unlabelled_bound"]
        return loss + weight * means["cross_entropy"], (stats, metrics)

    return loss_fn


def semi_supervised_metrics(model: models.SemiSupervisedVAE, likelihood: Likelihood) -> MetricsFn:
    """Metrics in evaluation: accuracy and cross_entropy of q(y|x), bits_per_dimension of U(x).

    Args:
      model: see `models.SemiSupervisedVAE`.
      likelihood: of the pixels. Latents are drawn from fold_in(key(0), row of the batch).
    """
    classes = model.vae.num_classes

    def metrics(state: TrainState, batch):
        variables = variables_of(state)
        levels = losses.to_levels(unit_pixels(batch.images), likelihood.levels)
        pixels = losses.from_levels(levels, likelihood.levels)
        logits = model.apply(variables, pixels, method="classify")
        every, labels = _with_every_label(levels, classes)
        keys = example_keys(jax.random.key(0), len(levels))
        noise = _noise(model, keys, classes)
        bounds, _ = _negative_bounds(model, likelihood, variables, every, noise, labels, False)
        bits = losses.bits_per_dimension(_unlabelled(bounds, logits), levels.shape[1:])
        return {
            "bits_per_dimension": losses.total_of(bits, batch.mask),
            **classified(logits, batch, "cross_entropy"),
        }

    return metrics
