"""Reconstruction of what a corruption hides: losses of masked and of denoising autoencoders.

The corruption is an object of `recon_jax.spectral`, so that the same thing is analysed in closed
form and trained. It acts on normalised images, as its moments do: zero is the mean image, and the
unit of noise is the standard deviation of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from recon_jax import augment, data, losses, models
from recon_jax.augment.policies import Policy
from recon_jax.data import Normalization
from recon_jax.spectral import Corruption
from recon_jax.training.keys import example_keys
from recon_jax.training.objectives import (
    MetricsFn,
    apply_in_training,
    augmented_images,
    unit_pixels,
    variables_of,
)
from recon_jax.training.state import TrainState
from recon_jax.training.step import LossFn

Target = Callable[[Float[Array, "n h w c"]], Float[Array, "n h w c"]]


class _Setting(NamedTuple):
    """What is the same for training and evaluation, see `masked_autoencoder_loss`."""

    model: nn.Module
    corruption: Corruption
    normalization: Normalization | None
    target: Target | None
    normalize: bool


def corrupt_each(
    corruption: Corruption, keys: Key[Array, " n"], images: Float[Array, "n h w c"]
) -> Float[Array, "n h w c"]:
    """Each image corrupted by its own key, so that the draw does not depend on the batch.

    Args:
      corruption: T.
      keys: one for each image (N,), such as `example_keys`.
      images: normalised (N, H, W, C).
    """
    return jax.vmap(lambda key, image: corruption.corrupt(key, image[None])[0])(keys, images)


def token_groups(
    corruption: Corruption, patch_size: int, image_shape: Sequence[int]
) -> Int[np.ndarray, "u t"] | None:
    """Which tokens of a ViT each patch of a mask covers; None where a mask cannot drop tokens.

    A mask drops tokens if the number of its visible patches is exact (`corruption.mask`) and its
    patches are made of whole tokens.

    Args:
      corruption: T.
      patch_size: side of a token in pixels.
      image_shape: (H, W, C).

    Returns:
      (patches of the mask, tokens in each) indices of tokens, row by row.

    Raises:
      ValueError: if the mask hides no patch, or all.
    """
    mask = corruption.mask
    if mask is None or any(side % patch_size for side in mask.patch_size):
        return None
    patches = mask.grid[0] * mask.grid[1]
    if not 1 <= mask.num_visible < patches:
        hidden = patches - mask.num_visible
        raise ValueError(
            f"{corruption.name} leaves {mask.num_visible} patches visible and {hidden} hidden; a "
            "masked autoencoder needs 1 or more of both: choose another ratio, smaller patches, "
            "or identity for no mask"
        )
    rows, columns = (side // patch_size for side in image_shape[:2])
    tokens = np.arange(rows * columns).reshape(rows, columns)
    high, wide = (side // patch_size for side in mask.patch_size)
    cut = tokens.reshape(mask.grid[0], high, mask.grid[1], wide)
    return cut.transpose(0, 2, 1, 3).reshape(patches, high * wide)


def visible_tokens(
    corruption: Corruption, groups: Int[np.ndarray, "u t"], keys: Key[Array, " n"]
) -> Int[Array, "n m"]:
    """Tokens that the mask leaves visible in each image, by its own key.

    Args:
      corruption: with a mask.
      groups: from `token_groups`.
      keys: (N,).
    """
    kept = jax.vmap(corruption.mask.visible)(keys)
    return jnp.asarray(groups)[kept].reshape(len(kept), -1)


def normalized(images: Array, normalization: Normalization | None) -> Array:
    """Images in the units of a normalisation; as they are without one."""
    return images if normalization is None else data.normalize(normalization, images)


def _reconstruction_errors(setting: _Setting, params, images, keys) -> Float[Array, " n"]:
    """The loss of each image: over hidden patches where a mask drops tokens, else over all."""
    model = setting.model
    targets = images if setting.target is None else setting.target(images)
    patches = models.patchify(targets, model.patch_size)
    groups = token_groups(setting.corruption, model.patch_size, model.image_shape)
    if groups is None:
        output = model.apply({"params": params}, corrupt_each(setting.corruption, keys, images))
        hidden = jnp.ones_like(output.mask)
    else:
        kept = visible_tokens(setting.corruption, groups, keys)
        output = model.apply({"params": params}, images, kept)
        hidden = output.mask
    return losses.masked_squared_error(
        output.reconstruction, patches, hidden, normalize=setting.normalize
    )


def masked_autoencoder_loss(
    model: nn.Module,
    corruption: Corruption,
    *,
    policy: Policy | None = None,
    normalization: Normalization | None = None,
    target: Target | None = None,
    normalize: bool = True,
    axis_name: str | None = None,
) -> LossFn:
    """Loss of a ViT that reconstructs what a corruption hides.

    A mask whose patches are whole tokens drops them: the encoder computes the visible ones alone,
    and the loss is the mean over hidden patches. Under any other corruption (noise, single pixels,
    blur, none) the encoder sees all tokens of the corrupted image, and the loss is the mean over
    all patches.

    Args:
      model: (images, kept) -> `models.MaskedAutoencoding`, such as `models.MaskedAutoencoder`.
      corruption: T, of images of the model's shape.
      policy: augmentation of pixels in [0, 1], before anything else; none if None.
      normalization: from `data.fit_normalization`, if the images are not normalised already.
      target: maps normalised images to what is to be reconstructed, such as
        `spectral.subspace_filter`; the images themselves if None.
      normalize: bring every target patch to mean 0 and variance 1.
      axis_name: name of the device axis, so that every image draws its own corruption.

    Returns:
      A loss for `make_train_step`. 8-bit images are divided by 255. Metric: squared_error.

    Raises:
      ValueError: if the mask hides no patch.
    """
    token_groups(corruption, model.patch_size, model.image_shape)  # refuses what cannot be trained
    setting = _Setting(model, corruption, normalization, target, normalize)
    policy = policy or augment.no_augmentation()

    def loss_fn(params, batch_stats, batch, key):
        crop_key, mask_key = jax.random.split(key)
        images = normalized(augmented_images(batch, crop_key, policy, axis_name), normalization)
        keys = example_keys(mask_key, len(images), axis_name)
        values = _reconstruction_errors(setting, params, images, keys)
        error = losses.total_of(values, batch.mask)
        return losses.mean_of(error), (batch_stats, {"squared_error": error})

    return loss_fn


def masked_autoencoder_metrics(
    model: nn.Module,
    corruption: Corruption,
    *,
    normalization: Normalization | None = None,
    target: Target | None = None,
    normalize: bool = True,
) -> MetricsFn:
    """Metrics of `masked_autoencoder_loss` in evaluation: squared_error, by fixed draws.

    Args:
      model: as there, and so are the others.
      corruption: T. Row i of a batch is corrupted by fold_in(key(0), i).
      normalization: of the images.
      target: of the reconstruction.
      normalize: every target patch.
    """
    setting = _Setting(model, corruption, normalization, target, normalize)

    def metrics(state: TrainState, batch):
        images = normalized(unit_pixels(batch.images), normalization)
        keys = example_keys(jax.random.key(0), len(images))
        params = variables_of(state)["params"]
        values = _reconstruction_errors(setting, params, images, keys)
        return {"squared_error": losses.total_of(values, batch.mask)}

    return metrics


def _corrupted_pixels(corruption, keys, pixels, normalization) -> Array:
    """Pixels in [0, 1], corrupted in the units of the normalisation, and back in their own."""
    if normalization is None:
        return corrupt_each(corruption, keys, pixels)
    noisy = corrupt_each(corruption, keys, data.normalize(normalization, pixels))
    mean = jnp.asarray(normalization.mean, noisy.dtype)[None]
    return mean + noisy.dtype.type(normalization.scale) * noisy


def denoising_loss(
    model: nn.Module,
    corruption: Corruption,
    *,
    policy: Policy | None = None,
    normalization: Normalization | None = None,
    axis_name: str | None = None,
) -> LossFn:
    """Loss of a denoising autoencoder: mean over all pixels of (reconstruction - clean image)^2.

    Args:
      model: images -> `models.Autoencoding`, with `train`, such as `models.ConvAutoencoder`.
      corruption: T, of images of the model's shape.
      policy: augmentation of the clean image; none if None.
      normalization: "global" or "unit", in whose units the corruption acts; the network sees, and
        reconstructs, pixels in [0, 1]. Pixels are corrupted as they are if None.
      axis_name: name of the device axis.

    Returns:
      A loss for `make_train_step`. 8-bit images are divided by 255. Metric: squared_error.

    Raises:
      ValueError: for a normalisation of each image by its own scale, which cannot be undone.

    Source: Vincent et al. 2008, denoising autoencoders; the linear case is that of
    `spectral.solve_denoising`.
    """
    if normalization is not None and normalization.name == "per_image":
        raise ValueError(
            "normalization 'per_image' cannot be undone after the corruption; use 'global'"
        )
    policy = policy or augment.no_augmentation()

    def loss_fn(params, batch_stats, batch, key):
        crop_key, noise_key = jax.random.split(key)
        images = augmented_images(batch, crop_key, policy, axis_name)
        keys = example_keys(noise_key, len(images), axis_name)
        noisy = _corrupted_pixels(corruption, keys, images, normalization)
        output, stats = apply_in_training(model, params, batch_stats, noisy)
        error = losses.total_of(losses.squared_error(output.reconstruction, images), batch.mask)
        return losses.mean_of(error), (stats, {"squared_error": error})

    return loss_fn


def denoising_metrics(
    model: nn.Module, corruption: Corruption, *, normalization: Normalization | None = None
) -> MetricsFn:
    """Metrics of `denoising_loss` in evaluation: squared_error, by fixed draws.

    Args:
      model: as there.
      corruption: T. Row i of a batch is corrupted by fold_in(key(0), i).
      normalization: in whose units the corruption acts.
    """

    def metrics(state: TrainState, batch) -> dict[str, Any]:
        images = unit_pixels(batch.images)
        keys = example_keys(jax.random.key(0), len(images))
        noisy = _corrupted_pixels(corruption, keys, images, normalization)
        output = model.apply(variables_of(state), noisy, train=False)
        values = losses.squared_error(output.reconstruction, images)
        return {"squared_error": losses.total_of(values, batch.mask)}

    return metrics
