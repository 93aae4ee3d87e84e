"""Contrastive training: two views of every image, compared by what a projector makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Shaped

from recon_jax import losses
from recon_jax.augment.strength import StrengthPolicy
from recon_jax.training.keys import example_keys
from recon_jax.training.objectives import (
    MetricsFn,
    apply_in_training,
    unit_pixels,
    variables_of,
)
from recon_jax.training.state import TrainState
from recon_jax.training.step import LossFn


class ViewBatch(NamedTuple):
    """A batch and how strongly it is augmented: an argument, so that it compiles nothing anew.

    Attributes:
      images: (B, H, W, C), as the source gives them.
      labels: (B,), which no contrastive loss reads.
      mask: (B,) bool; False where padded.
      strength: (B,) float32 in [0, 1].
    """

    images: ArrayLike
    labels: ArrayLike
    mask: ArrayLike
    strength: ArrayLike


def with_strength(batch: Any, strength: float) -> ViewBatch:
    """A batch whose images are all augmented by one strength.

    Args:
      batch: with images, labels and mask, such as `data.Batch`.
      strength: in [0, 1].

    Raises:
      ValueError: if the strength is out of range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must lie in [0, 1]; 0 leaves images as they are")
    strengths = np.full(len(batch.images), strength, np.float32)
    return ViewBatch(batch.images, batch.labels, batch.mask, strengths)


def _stacked_views(policy, keys, images, strength) -> Float[Array, "m h w c"]:
    """All first views, then all second ones (2 N, H, W, C)."""
    pairs = jax.vmap(jax.random.split)(keys)
    strengths = jnp.broadcast_to(jnp.asarray(strength), (len(images),))
    return policy(
        pairs.T.reshape(-1), jnp.concatenate([images] * 2), jnp.concatenate([strengths] * 2)
    )


def two_views(
    policy: StrengthPolicy,
    keys: Key[Array, " n"],
    images: Float[ArrayLike, "n h w c"],
    strength: Shaped[ArrayLike, "..."],
) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"]]:
    """Two views of each image, by the two halves of its key.

    Args:
      policy: (keys, images, strength) -> images, row by row, such as `augment.view_policy`.
      keys: one for each image (N,), such as `example_keys`.
      images: (N, H, W, C) in [0, 1].
      strength: a number or (N,), in [0, 1].

    Returns:
      First and second views, (N, H, W, C) each.
    """
    view_a, view_b = jnp.split(_stacked_views(policy, keys, images, strength), 2)
    return view_a, view_b


def _chosen_loss(
    name: str, options: Mapping[str, Any] | None, axis_name: str | None
) -> Callable[..., Float[Array, ""]]:
    """A loss of two views and a mask; ValueError if the name or an option is not known."""
    if name not in losses.CONTRASTIVE_LOSSES:
        raise ValueError(
            f"unknown loss {name!r}; choose one of {', '.join(losses.CONTRASTIVE_LOSSES)}"
        )
    loss, options = losses.CONTRASTIVE_LOSSES[name], dict(options or {})
    taken = ("view_a", "view_b", "mask", "axis_name")
    known = [option for option in inspect.signature(loss).parameters if option not in taken]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"unknown options of {name}: {', '.join(unknown)}; choose from {', '.join(known)}"
        )
    # Computes nothing, and refuses what the loss refuses.
    jax.eval_shape(partial(loss, **options), *[jax.ShapeDtypeStruct((2, 1), jnp.float32)] * 2)
    return partial(loss, **options, axis_name=axis_name)


def _compared(name, loss, projection, mask) -> dict[str, tuple]:
    """Metrics of the projections of stacked views: the loss by its name, cosine of partners."""
    view_a, view_b = jnp.split(projection, 2)
    counts = jnp.asarray(mask, bool)
    value, weight = loss(view_a, view_b, mask=counts), counts.sum()
    lengths = jnp.linalg.norm(view_a, axis=1) * jnp.linalg.norm(view_b, axis=1)
    cosines = (view_a * view_b).sum(1) / jnp.maximum(lengths, 1e-12)
    return {
        name: (value * weight.astype(value.dtype), weight.astype(value.dtype)),
        "positive_similarity": losses.total_of(cosines, counts),
    }


def contrastive_loss(
    model: nn.Module,
    *,
    policy: StrengthPolicy,
    loss: str = "nt_xent",
    options: Mapping[str, Any] | None = None,
    axis_name: str | None = None,
) -> LossFn:
    """Loss of an encoder and its projector on two views of every image.

    One forward pass sees both views, so batch norm has the statistics of both; with `axis_name`,
    here and in the model, statistics and negatives are those of the batch of all devices.

    Args:
      model: images -> `models.Projection`, with `train`, such as `models.Projected`.
      policy: (keys, images, strength) -> images, such as `augment.view_policy`; images in [0, 1].
      loss: a key of `losses.CONTRASTIVE_LOSSES`.
      options: further arguments of that loss, such as {"temperature": 0.2}.
      axis_name: name of the device axis, so that every image draws its own views.

    Returns:
      A loss for `make_train_step`, on a `ViewBatch`. 8-bit images are divided by 255. Metrics: the
      loss by its name; positive_similarity, the mean cosine of two views' projections. With
      micro-batches, `accumulate_steps` > 1, only the images of one of them are compared.

    Raises:
      ValueError: if the loss or an option is unknown, or a value out of range; while tracing, if a
        batch has fewer than two images over all devices.

    Source: Chen et al. 2020 (arXiv 2002.05709), algorithm 1.
    """
    chosen = _chosen_loss(loss, options, axis_name)

    def loss_fn(params, batch_stats, batch, key):
        images = unit_pixels(batch.images)
        keys = example_keys(key, len(images), axis_name)
        views = _stacked_views(policy, keys, images, batch.strength)
        output, stats = apply_in_training(model, params, batch_stats, views)
        metrics = _compared(loss, chosen, output.projection, batch.mask)
        return losses.mean_of(metrics[loss]), (stats, metrics)

    return loss_fn


def contrastive_metrics(
    model: nn.Module,
    *,
    policy: StrengthPolicy,
    loss: str = "nt_xent",
    options: Mapping[str, Any] | None = None,
    axis_name: str | None = None,
) -> MetricsFn:
    """Metrics of `contrastive_loss` in evaluation mode, by fixed draws.

    A loss that compares the images of a batch depends on how many they are: values of batches of
    one size can be compared.

    Args:
      model: as there, and so are the others.
      policy: row i of a batch, counted over all devices, has its views by fold_in(key(0), i).
      loss: a key of `losses.CONTRASTIVE_LOSSES`.
      options: of the loss.
      axis_name: `parallel.AXIS` in `make_evaluate`; without it each device compares the images that
        it holds.

    Raises:
      ValueError: as there.
    """
    chosen = _chosen_loss(loss, options, axis_name)

    def metrics(state: TrainState, batch):
        images = unit_pixels(batch.images)
        keys = example_keys(jax.random.key(0), len(images), axis_name)
        views = _stacked_views(policy, keys, images, batch.strength)
        output = model.apply(variables_of(state), views, train=False)
        return _compared(loss, chosen, output.projection, batch.mask)

    return metrics
