"""Variational autoencoders whose decoder may also see the pixels around the one it predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Integer

from recon_jax.checks import check_choice, check_integer
from recon_jax.models.checks import (
    as_image_shape,
    as_images,
    require_shape,
)
from recon_jax.models.intermediates import record
from recon_jax.models.layers import at_least_float32, torch_uniform
from recon_jax.models.pixelcnn import PixelCNN
from recon_jax.models.vae_layers import NORMS
from recon_jax.models.vae_networks import NETWORKS, halvings

# Keeps the logarithm of a standard deviation finite where softplus underflows.
SCALE_FLOOR = 1e-6


class VAEOutput(NamedTuple):
    """What a variational autoencoder makes of images.

    Attributes:
      mean: of the posterior (N, Z).
      scale: standard deviations of the posterior (N, Z), > 0.
      latent: mean + scale * noise (N, Z).
      params: of the likelihood of each pixel (N, H, W, K).
    """

    mean: Float[Array, "n z"]
    scale: Float[Array, "n z"]
    latent: Float[Array, "n z"]
    params: Float[Array, "n h w params"]


class VAE(nn.Module):
    """Gaussian posterior, and a decoder from the latent to features of every pixel to a PixelCNN.

    q(z | x) = N(mean, scale^2), scale = softplus(linear) + 1e-6; features = decoder(z) (N, H, W,
    F); params = PixelCNN(x, features), whose horizon says which pixels it sees beside the latent:
    0 none, h those within h before the pixel, None all before it. With classes it is the model M2:
    the label goes, one-hot, to the encoder (to its input, or beside its last layer if it is
    convolutional) and beside the latent to the decoder.

    Networks, with the paper's widths, which images of other sizes than its own keep:

    - "mlp": H W C - 500 - 500 - Z, mirrored to H W F;
    - "conv": 5 x 5 convolutions of stride 2, 32-64-128-256, dense 256; dense 512, then transposed
      convolutions. The sizes on the way back are those on the way there, 2-4-8-16-32 at 32 x 32,
      not the released code's 2-6-10-14-32. At most as many as leave 2 pixels a side;
    - "residual": three stages of a residual unit and an average pooling, 400 channels; the mirror
      with transposed convolutions. ELU. The released layers are followed in outline.

    The likelihood is chosen outside: it says `num_params` and reads `params`. Representations:
    "encoder/...", "latent" (the posterior's mean), "decoder/...", "head/...", "head/params".

    Attributes:
      image_shape: (H, W, C); the convolutional networks need 3 x 3 at least.
      latent_size: Z, >= 1.
      num_params: K, numbers a pixel that the likelihood reads, >= 1.
      horizon: of the PixelCNN.
      networks: "mlp", "conv" or "residual".
      widths: of the encoder's layers or stages; None for the paper's.
      norm: "batch" (the paper's), "layer" or "none", in encoder and decoder; the PixelCNN has none.
      decoder_features: F, >= 1; the paper's are 16 for MNIST, 256 for colour.
      num_classes: 0 without labels, or the number of classes of M2.
      head_width: channels of each branch of the PixelCNN, >= 1.
      num_blocks: residual blocks of the PixelCNN, >= 0.
      first_kernel: of the full PixelCNN.
      inner_kernel: of the full PixelCNN.
      dtype: of the computation; parameters are float32, results float32 at least.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: Zhang et al. 2022 (arXiv 2205.14539), released code; M2: Kingma et al. 2014 (arXiv
    1406.5298).
    """

    image_shape: Any
    latent_size: int
    num_params: int
    horizon: int | None
    networks: str = "mlp"
    widths: Any = None
    norm: str = "batch"
    decoder_features: int = 16
    num_classes: int = 0
    head_width: int = 128
    num_blocks: int = 5
    first_kernel: int = 7
    inner_kernel: int = 3
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        self.image_shape = as_image_shape(self.image_shape)
        for name in ("latent_size", "decoder_features"):
            check_integer(name, getattr(self, name), 1)
        check_integer("num_classes", self.num_classes, 0)
        check_choice("networks", self.networks, NETWORKS)
        check_choice("norm", self.norm, NORMS)
        self.widths = tuple(NETWORKS[self.networks][2] if self.widths is None else self.widths)
        check_integer("number of widths", len(self.widths), 1)
        for width in self.widths:
            check_integer("width", width, 1)
        if self.networks != "mlp":
            halvings(self.image_shape[:2], len(self.widths))
        self.pixelcnn().check_sides(*self.image_shape[:2])
        super().__post_init__()

    def pixelcnn(self) -> PixelCNN:
        """The head as a module of its own, whose parameters are those of the model under "head"."""
        return PixelCNN(
            self.num_params,
            self.horizon,
            self.head_width,
            self.num_blocks,
            self.first_kernel,
            self.inner_kernel,
            self.dtype,
            parent=None,
        )

    def setup(self):
        """Encoder, heads of the posterior, decoder, PixelCNN."""
        encoder, decoder, _ = NETWORKS[self.networks]
        shared = (self.widths, self.norm, self.dtype, self.axis_name)
        self.encoder = encoder(*shared)
        head = {"dtype": self.dtype, "kernel_init": torch_uniform}
        self.mean_head = nn.Dense(self.latent_size, **head)
        self.scale_head = nn.Dense(self.latent_size, **head)
        self.decoder = decoder(*shared, self.image_shape[:2], self.decoder_features)
        self.head = self.pixelcnn()

    def _one_hot(self, labels: Integer[ArrayLike, " n"] | None, count: int) -> Array:
        """Labels as rows (N, classes); without classes rows of nothing."""
        classes = self.num_classes
        if labels is None and classes and self.is_initializing():
            labels = jnp.zeros(count, jnp.int32)
        if (labels is None) == bool(classes):
            raise ValueError(
                f"a VAE of num_classes={classes} "
                + (f"needs labels of 0 .. {classes - 1}" if classes else "takes no labels")
                + "; build it with num_classes=0 to do without labels, or the number of classes"
            )
        if labels is None:
            return jnp.zeros((count, 0), self.dtype)
        if np.shape(labels) != (count,):
            raise ValueError(f"labels must have shape ({count},), got {np.shape(labels)}")
        if not isinstance(labels, jax.core.Tracer) and count:
            found = np.asarray(labels)
            low, high = found.min(), found.max()
            if low < 0 or high >= classes:
                raise ValueError(f"labels must be 0 .. {classes - 1}, got {low} .. {high}")
        return jax.nn.one_hot(labels, classes, dtype=self.dtype)

    def encode(
        self,
        pixels: ArrayLike,
        labels: Integer[ArrayLike, " n"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "n z"], Float[Array, "n z"]]:
        """Mean and standard deviations of the posterior.

        Args:
          pixels: (N, H, W, C) in [-1, 1].
          labels: (N,) in 0 .. num_classes - 1; None without classes.
          train: use and update batch statistics.

        Returns:
          (mean, scale), both (N, Z); the mean is the representation.

        Raises:
          ValueError: if the pixels are not of `image_shape`, or labels are missing, not wanted, out
            of range or of another number.
        """
        pixels = require_shape("images", as_images(pixels), self.image_shape)
        given = self._one_hot(labels, len(pixels))
        x = self.encoder(pixels.astype(self.dtype), given, train)
        mean = record(self, at_least_float32(self.mean_head(x)), "latent")
        return mean, nn.softplus(at_least_float32(self.scale_head(x))) + SCALE_FLOOR

    def decode(
        self,
        latent: ArrayLike,
        labels: Integer[ArrayLike, " n"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "n h w f"]:
        """Features of every pixel.

        Args:
          latent: (N, Z).
          labels: as for `encode`.
          train: use and update batch statistics.

        Raises:
          ValueError: if the latents have another shape; about labels, as `encode`.
        """
        latent = require_shape("latents", latent, (self.latent_size,)).astype(self.dtype)
        given = self._one_hot(labels, len(latent))
        return self.decoder(jnp.concatenate([latent, given], axis=1), train)

    def predict(self, pixels: ArrayLike, features: ArrayLike) -> Float[Array, "n h w params"]:
        """Parameters of the likelihood of every pixel, given those before it and its features.

        Args:
          pixels: (N, H, W, C) in [-1, 1].
          features: (N, H, W, F), from `decode`.
        """
        return self.head(pixels, features)

    def __call__(
        self,
        pixels: ArrayLike,
        noise: ArrayLike | None = None,
        labels: Integer[ArrayLike, " n"] | None = None,
        *,
        train: bool = False,
    ) -> VAEOutput:
        """Posterior, latent and parameters of the likelihood.

        Args:
          pixels: (N, H, W, C) in [-1, 1].
          noise: (N, Z), standard normal; None is none, so that the latent is the mean.
          labels: as for `encode`; at initialisation any will do, also None.
          train: use and update batch statistics.

        Raises:
          ValueError: if anything has another shape than the model's; about labels, as `encode`.
        """
        pixels = jnp.asarray(pixels)
        mean, scale = self.encode(pixels, labels, train=train)
        latent = mean
        if noise is not None:
            noise = require_shape("noise", noise, (self.latent_size,))
            latent = mean + scale * noise
        features = self.decode(latent, labels, train=train)
        return VAEOutput(mean, scale, latent, self.predict(pixels, features))
