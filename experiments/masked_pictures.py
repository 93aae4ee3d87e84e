"""What a masked autoencoder sees and makes of a few images, in pixels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon_jax import data, models, spectral, training
from recon_jax.training.denoising import corrupt_each, token_groups, visible_tokens

GREY = 0.5


def to_pixels(normalization: data.Normalization, images: jax.Array) -> np.ndarray:
    """Normalised images back in their own units."""
    return np.asarray(images, np.float64) * normalization.scale + normalization.mean[None]


def undo_patch_normalization(predicted: jax.Array, patches: jax.Array) -> jax.Array:
    """Predictions of normalised patches by the mean and deviation of the true ones.

    The network does not know these: the pictures show what it adds to them, as the demonstration of
    He et al. 2022 (arXiv 2111.06377) does.

    Args:
      predicted: (N, P, K).
      patches: of the true images (N, P, K).
    """
    deviation = jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
    return predicted * deviation + patches.mean(-1, keepdims=True)


def reconstruct(
    model: models.MaskedAutoencoder,
    params: Any,
    corruption: spectral.Corruption,
    normalization: data.Normalization,
    pixels: np.ndarray,
    *,
    normalize: bool,
) -> dict[str, np.ndarray]:
    """Images, what the corruption leaves of them, and their reconstruction.

    Args:
      model: the autoencoder.
      params: its parameters.
      corruption: image i is corrupted by fold_in(key(0), i).
      normalization: of pixels.
      pixels: (N, H, W, C), 8-bit or in [0, 1].
      normalize: whether the model predicts patches of mean 0 and variance 1.

    Returns:
      original, masked and reconstruction (N, H, W, C), in [0, 1] where the images are. Hidden
      patches are grey in masked; visible ones are kept in the reconstruction. Where a corruption
      hides no whole patches, masked is the corrupted image, and all patches are predicted.
    """
    keys = training.example_keys(jax.random.key(0), len(pixels))
    images = data.normalize(normalization, jnp.asarray(pixels))
    patches = models.patchify(images, model.patch_size)
    groups = token_groups(corruption, model.patch_size, model.image_shape)
    seen = images if groups is not None else corrupt_each(corruption, keys, images)
    kept = None if groups is None else visible_tokens(corruption, groups, keys)
    output = model.apply({"params": params}, seen, kept)
    predicted = output.reconstruction
    if normalize:
        predicted = undo_patch_normalization(predicted, patches)
    hidden = output.mask[..., None] if groups is not None else jnp.ones_like(patches, bool)
    whole = jnp.where(hidden, predicted, patches)
    shape = (model.patch_size, model.image_shape)
    masked = to_pixels(normalization, seen)
    if groups is not None:
        hidden = jnp.broadcast_to(hidden, patches.shape).astype(jnp.int8)
        masked = np.where(models.unpatchify(hidden, *shape), GREY, masked)
    return {
        "original": to_pixels(normalization, images),
        "masked": masked,
        "reconstruction": to_pixels(normalization, models.unpatchify(whole, *shape)),
    }
