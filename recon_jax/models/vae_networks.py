"""Encoders from images to vectors, and decoders from latents to one feature vector a pixel.

A halving takes n pixels to ceil(n / 2) and its mirror gives back exactly n, so features have the
size of the images, whatever it is.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from recon_jax.models.intermediates import record
from recon_jax.models.layers import flatten, torch_uniform
from recon_jax.models.upsampling import UpsamplingConv, halved
from recon_jax.models.vae_layers import (
    ConvLayer,
    DenseLayer,
    DoublingLayer,
    ResidualUnit,
    UpLayer,
    halve,
)

# Widths of the dense layers between the maps and the latent of "conv": encoder, decoder.
CONV_DENSE = (256, 512)


def halvings(size: tuple[int, ...], most: int) -> tuple[tuple[int, ...], ...]:
    """Heights and widths of the images and after each of up to `most` halvings, down to 2 pixels.

    Raises:
      ValueError: if not even one halving leaves 2 pixels a side.
    """
    sizes = [tuple(size)]
    while len(sizes) <= most and min(halved(sizes[-1])) >= 2:
        sizes.append(halved(sizes[-1]))
    if len(sizes) == 1:
        raise ValueError(
            f"images of {size[0]} x {size[1]} are too small to be halved; choose networks='mlp'"
        )
    return tuple(sizes)


class Network(nn.Module):
    """Base of encoders and decoders.

    Attributes:
      widths: of the layers or stages.
      norm: "batch", "layer" or "none".
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    widths: Any
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def layer(self, kind: type[nn.Module], **options: Any) -> partial:
        """A constructor of layers of this kind, with the norm of the network."""
        return partial(kind, norm=self.norm, dtype=self.dtype, axis_name=self.axis_name, **options)

    def last(self, features: int) -> nn.Dense:
        """Linear, called "last"."""
        return nn.Dense(features, dtype=self.dtype, kernel_init=torch_uniform, name="last")


class DenseEncoder(Network):
    """Pixels, and what is given about the class, through linear layers with norm and ReLU."""

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "n h w c"], given: Float[Array, "n g"], train: bool
    ) -> Float[Array, "n k"]:
        """Rows of the last width."""
        x = jnp.concatenate([flatten(pixels), given], axis=1)
        for i, width in enumerate(self.widths, start=1):
            x = self.layer(DenseLayer)(width, name=f"hidden{i}")(x, train)
        return x


class ConvEncoder(Network):
    """5 x 5 convolutions of stride 2 with norm and ReLU, then a dense layer.

    As many of the widths are used as halvings leave 2 pixels a side: 2 of 4 for 8 x 8 images, all
    from 17 x 17 on. The class is given to what follows, beside the last layer.
    """

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "n h w c"], given: Float[Array, "n g"], train: bool
    ) -> Float[Array, "n k"]:
        """Rows of the dense width and what was given."""
        x = pixels
        depth = len(halvings(pixels.shape[1:3], len(self.widths))) - 1
        conv = self.layer(ConvLayer, stride=2)
        for i, width in enumerate(self.widths[:depth], start=1):
            x = conv(width, name=f"conv{i}")(x, train)
        x = self.layer(DenseLayer)(CONV_DENSE[0], name="hidden")(flatten(x), train)
        return jnp.concatenate([x, given], axis=1)


class PooledResidualEncoder(Network):
    """Stages of a residual unit and an average over 2 x 2 pixels, down to 2 pixels a side.

    Where the width changes, a 3 x 3 convolution with norm and ELU precedes. The class is given to
    what follows, beside the flattened maps.
    """

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "n h w c"], given: Float[Array, "n g"], train: bool
    ) -> Float[Array, "n k"]:
        """Rows of all entries of the last maps and what was given."""
        x = pixels
        depth = len(halvings(pixels.shape[1:3], len(self.widths))) - 1
        conv = self.layer(ConvLayer, kernel_size=3, use_elu=True)
        for i, width in enumerate(self.widths[:depth], start=1):
            if i == 1 or x.shape[-1] != width:
                x = conv(width, name=f"entry{i}")(x, train)
            x = halve(self.layer(ResidualUnit)(width, name=f"stage{i}")(x, train))
        return jnp.concatenate([flatten(x), given], axis=1)


class Decoder(Network):
    """Base of the decoders.

    Attributes:
      size: height and width of the features.
      features: channels of the features.
    """

    size: tuple[int, ...] = ()
    features: int = 16


class DenseDecoder(Decoder):
    """The mirror of `DenseEncoder`, then linear to the features of all pixels."""

    @nn.compact
    def __call__(self, latent: Float[Array, "n z"], train: bool) -> Float[Array, "n h w f"]:
        """Features."""
        x = latent
        for i, width in enumerate(reversed(self.widths), start=1):
            x = self.layer(DenseLayer)(width, name=f"hidden{i}")(x, train)
        shape = (*self.size, self.features)
        return record(self, self.last(math.prod(shape))(x).reshape(-1, *shape))


class ConvDecoder(Decoder):
    """Two dense layers, then 5 x 5 transposed convolutions back through the encoder's sizes."""

    @nn.compact
    def __call__(self, latent: Float[Array, "n z"], train: bool) -> Float[Array, "n h w f"]:
        """Features."""
        sizes = halvings(self.size, len(self.widths))
        depth = len(sizes) - 1
        bottom = (*sizes[-1], self.widths[depth - 1])
        dense, up = self.layer(DenseLayer), self.layer(UpLayer)
        x = dense(CONV_DENSE[1], name="hidden1")(latent, train)
        x = dense(math.prod(bottom), name="hidden2")(x, train).reshape(-1, *bottom)
        for i in range(depth - 1, 0, -1):
            x = up(self.widths[i - 1], size=sizes[i], name=f"conv{depth - i}")(x, train)
        options = {"kernel_init": torch_uniform, "dtype": self.dtype, "name": "last"}
        return record(self, UpsamplingConv(self.features, 5, sizes[0], True, **options)(x))


class PooledResidualDecoder(Decoder):
    """Dense, then stages of a 4 x 4 transposed convolution of stride 2 and a residual unit."""

    @nn.compact
    def __call__(self, latent: Float[Array, "n z"], train: bool) -> Float[Array, "n h w f"]:
        """Features."""
        sizes = halvings(self.size, len(self.widths))
        depth = len(sizes) - 1
        bottom = (*sizes[-1], self.widths[depth - 1])
        dense = self.layer(DenseLayer, use_elu=True)(math.prod(bottom), name="first")
        x = dense(latent, train).reshape(-1, *bottom)
        for i in range(depth, 0, -1):
            width, stage = self.widths[max(i - 2, 0)], depth - i + 1
            up = self.layer(DoublingLayer)(width, size=sizes[i - 1], name=f"up{stage}")
            x = self.layer(ResidualUnit)(width, name=f"stage{stage}")(up(x, train), train)
        y = self.last(self.features)(x.reshape(-1, x.shape[-1]))
        return record(self, y.reshape(*x.shape[:3], -1))


# By the name of the networks: encoder, decoder, the paper's widths.
NETWORKS = {
    "mlp": (DenseEncoder, DenseDecoder, (500, 500)),
    "conv": (ConvEncoder, ConvDecoder, (32, 64, 128, 256)),
    "residual": (PooledResidualEncoder, PooledResidualDecoder, (400, 400, 400)),
}
