"""What a network is trained for: losses for `make_train_step`, metrics for `make_evaluate`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from recon_jax import augment, losses
from recon_jax.augment.policies import Policy
from recon_jax.losses.classification import check_label_smoothing
from recon_jax.training.keys import example_keys
from recon_jax.training.state import TrainState
from recon_jax.training.step import LossFn

MetricsFn = Callable[[TrainState, Any], Mapping[str, tuple]]


def variables_of(state: TrainState) -> dict[str, Any]:
    """What the trained model is applied with: averaged parameters if there are any, statistics.

    Args:
      state: of a run.
    """
    params = state.params if state.ema_params is None else state.ema_params
    return {"params": params, "batch_stats": state.batch_stats}


def unit_pixels(images: ArrayLike) -> jax.Array:
    """8-bit pixels over 255; other images as they are.

    Args:
      images: of any shape.
    """
    images = jnp.asarray(images)
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def augmented_images(
    batch: Any, key: jax.Array, policy: Policy, axis_name: str | None
) -> jax.Array:
    """What the network sees in a step: pixels in [0, 1], each image augmented by its own key."""
    images = unit_pixels(batch.images)
    return policy(example_keys(key, len(images), axis_name), images)


def apply_in_training(
    model: nn.Module, params: Any, batch_stats: Any, images: jax.Array, **inputs: jax.Array
):
    """Output and new batch statistics of a model in training mode, given further inputs if any."""
    variables = {"params": params, "batch_stats": batch_stats}
    output, new = model.apply(variables, images, train=True, mutable=["batch_stats"], **inputs)
    return output, new.get("batch_stats", {})


def classified(logits: jax.Array, batch: Any, label_loss: str) -> dict[str, tuple]:
    """Metrics of a classifier on a batch: the loss by its name, accuracy."""
    values = losses.LABEL_LOSSES[label_loss](logits, batch.labels)
    return {
        label_loss: losses.total_of(values, batch.mask),
        "accuracy": losses.total_of(losses.is_correct(logits, batch.labels), batch.mask),
    }


def classification_loss(
    model: nn.Module,
    *,
    policy: Policy | None = None,
    label_loss: str = "cross_entropy",
    label_smoothing: float = 0.0,
    axis_name: str | None = None,
) -> LossFn:
    """Loss of a classifier: mean of `label_loss` over the images that count.

    Args:
      model: images -> logits, with `train`; its own `axis_name` decides on batch norm. If it takes
        `keys` too, as `models.ViTClassifier` does, it gets one for each image.
      policy: augmentation, see `augment`; none if None.
      label_loss: a key of `losses.LABEL_LOSSES`.
      label_smoothing: of the targets of cross_entropy, in [0, 1).
      axis_name: name of the device axis, so that every image draws its own augmentation and keys.

    Returns:
      A loss for `make_train_step`, on batches with images, labels and mask. 8-bit images are
      divided by 255. Metrics: the loss by its name, without smoothing; accuracy.

    Raises:
      ValueError: for an unknown loss, or a smoothing that is out of range or of another loss.
    """
    _check_label_loss(label_loss)
    _check_smoothing(label_smoothing, label_loss)
    policy, takes_keys = policy or augment.no_augmentation(), _takes_keys(model)

    def loss_fn(params, batch_stats, batch, key):
        inputs = {}
        if takes_keys:  # the others draw the augmentation from the step's key itself
            key, own = jax.random.split(key)
            inputs["keys"] = example_keys(own, len(batch.labels), axis_name)
        images = augmented_images(batch, key, policy, axis_name)
        logits, stats = apply_in_training(model, params, batch_stats, images, **inputs)
        metrics = classified(logits, batch, label_loss)
        loss = metrics[label_loss]
        if label_smoothing:
            values = losses.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
            loss = losses.total_of(values, batch.mask)
        return losses.mean_of(loss), (stats, metrics)

    return loss_fn


def _takes_keys(model: nn.Module) -> bool:
    return "keys" in inspect.signature(model.__call__).parameters


def _check_smoothing(label_smoothing: float, label_loss: str) -> None:
    check_label_smoothing(label_smoothing)
    if label_smoothing and label_loss != "cross_entropy":
        raise ValueError(
            f"label_smoothing={label_smoothing} is an option of cross_entropy, not of "
            f"{label_loss}; leave it at 0"
        )


def classification_metrics(model: nn.Module, *, label_loss: str = "cross_entropy") -> MetricsFn:
    """Metrics of a classifier in evaluation mode: the loss by its name, accuracy.

    Args:
      model: images -> logits.
      label_loss: a key of `losses.LABEL_LOSSES`.
    """
    _check_label_loss(label_loss)

    def metrics(state: TrainState, batch):
        logits = model.apply(variables_of(state), unit_pixels(batch.images), train=False)
        return classified(logits, batch, label_loss)

    return metrics


def _check_label_loss(name: str) -> None:
    if name not in losses.LABEL_LOSSES:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(losses.LABEL_LOSSES)}")


def autoencoder_loss(
    model: nn.Module, *, policy: Policy | None = None, axis_name: str | None = None
) -> LossFn:
    """Loss of an autoencoder: mean squared error over pixels and the images that count.

    Args:
      model: images -> `models.Autoencoding`, with `train`.
      policy: augmentation of input and target alike; none if None.
      axis_name: name of the device axis.

    Returns:
      A loss for `make_train_step`. 8-bit images are divided by 255. Metric: squared_error.
    """
    policy = policy or augment.no_augmentation()

    def loss_fn(params, batch_stats, batch, key):
        images = augmented_images(batch, key, policy, axis_name)
        output, stats = apply_in_training(model, params, batch_stats, images)
        error = losses.total_of(losses.squared_error(output.reconstruction, images), batch.mask)
        return losses.mean_of(error), (stats, {"squared_error": error})

    return loss_fn


def autoencoder_metrics(model: nn.Module) -> MetricsFn:
    """Metrics of an autoencoder in evaluation mode: squared_error.

    Args:
      model: images -> `models.Autoencoding`.
    """

    def metrics(state: TrainState, batch):
        images = unit_pixels(batch.images)
        output = model.apply(variables_of(state), images, train=False)
        values = losses.squared_error(output.reconstruction, images)
        return {"squared_error": losses.total_of(values, batch.mask)}

    return metrics
