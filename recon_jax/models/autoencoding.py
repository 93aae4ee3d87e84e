"""What every autoencoder shares: its two halves, and what it returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer
from recon_jax.models.checks import as_image_shape, as_images, require_shape
from recon_jax.models.intermediates import record
from recon_jax.models.layers import at_least_float32


class Autoencoding(NamedTuple):
    """What an autoencoder makes of images.

    Attributes:
      reconstruction: (N, H, W, C), the shape of the images, in (0, 1).
      latent: (N, K), or (N, H', W', K) from a convolutional autoencoder.
    """

    reconstruction: Float[Array, "n h w c"]
    latent: Float[Array, "n ..."]


class Autoencoder(nn.Module):
    """Base of the autoencoders, which add the modules `encoder` and `decoder` in `setup`.

    The encoder maps (images, train) to latents, the decoder (latents, train) to the logits of
    pixels, which a sigmoid brings into (0, 1). Both come back in float32 at least. Representations:
    "encoder/...", "latent", "decoder/...", "reconstruction".

    Attributes:
      image_shape: (H, W, C) of the images, which reconstructions have exactly.
      latent_size: entries of the latent, or its channels in a convolutional autoencoder.
    """

    image_shape: Any
    latent_size: int

    def __post_init__(self):
        self.image_shape = as_image_shape(self.image_shape)
        check_integer("latent_size", self.latent_size, 1)
        super().__post_init__()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one image."""
        return (self.latent_size,)

    def encode(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n ..."]:
        """Latents of images (N, H, W, C).

        Raises:
          ValueError: if the images are not of `image_shape`.
        """
        images = require_shape("images", as_images(images), self.image_shape)
        latent = at_least_float32(self.encoder(images, train=train))
        return record(self, latent, "latent")

    def decode(self, latent: ArrayLike, *, train: bool = False) -> Float[Array, "n h w c"]:
        """Images in (0, 1) from latents (N, *latent_shape).

        Raises:
          ValueError: if the latents have another shape.
        """
        latent = require_shape("latents", latent, self.latent_shape)
        pixels = at_least_float32(self.decoder(latent, train=train))
        return record(
            self, nn.sigmoid(jnp.reshape(pixels, (-1, *self.image_shape))), "reconstruction"
        )

    def __call__(self, images: ArrayLike, *, train: bool = False) -> Autoencoding:
        """Reconstruction and latent of images; batch statistics used and updated if `train`."""
        latent = self.encode(images, train=train)
        return Autoencoding(self.decode(latent, train=train), latent)
