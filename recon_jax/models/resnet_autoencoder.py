"""The residual autoencoder of the guidance experiment."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from recon_jax.checks import check_choice
from recon_jax.models.autoencoding import Autoencoder
from recon_jax.models.convolution import conv_general_dilated
from recon_jax.models.intermediates import record
from recon_jax.models.layers import batch_norm, flatten, he_normal, torch_uniform
from recon_jax.models.resnet import BLOCKS, BOTTLENECKS, STEMS, WIDTHS, residual_stages
from recon_jax.models.upsampling import UpsamplingConv, halved


class ResidualEncoder(nn.Module):
    """A residual network up to its pooling, flattened, then Linear.

    Attributes:
      depth: layers of the network.
      stem: "cifar" or "imagenet".
      latent_size: output width.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    depth: int
    stem: str
    latent_size: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: Num[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n k"]:
        """Latents."""
        x = residual_stages(
            images,
            depth=self.depth,
            stem=self.stem,
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        last = nn.Dense(self.latent_size, dtype=self.dtype, kernel_init=torch_uniform, name="last")
        return last(flatten(x))


class PreactivationConv(nn.Module):
    """Batch norm, ReLU, convolution without bias; transposed of stride 2 if a size is given.

    Attributes:
      features: output channels.
      kernel_size: odd, pixels a side.
      size: output height and width of the transposed convolution; None for a plain one.
      kernel_init: initialiser of the kernel.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    features: int
    kernel_size: int = 3
    size: tuple[int, int] | None = None
    kernel_init: Initializer = he_normal
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of `features` channels."""
        x = nn.relu(batch_norm(train, self.dtype, self.axis_name, "norm")(x))
        options = {"use_bias": False, "kernel_init": self.kernel_init, "dtype": self.dtype}
        if self.size is not None:
            conv = UpsamplingConv(
                self.features, self.kernel_size, self.size, **options, name="conv"
            )
        else:
            conv = nn.Conv(
                self.features,
                (self.kernel_size,) * 2,
                padding=self.kernel_size // 2,
                conv_general_dilated=conv_general_dilated,
                **options,
                name="conv",
            )
        return record(self, conv(x))


class PreactivationBlock(nn.Module):
    """f(x) + shortcut(x), f two pre-activation 3 x 3 convolutions, the second one upsampling.

    Attributes:
      features: output channels.
      size: output height and width; None keeps them, and the channels.
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    features: int
    size: tuple[int, int] | None = None
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of `features` channels."""
        conv = partial(PreactivationConv, dtype=self.dtype, axis_name=self.axis_name)
        y = conv(x.shape[-1], name="conv1")(x, train=train)
        y = conv(self.features, size=self.size, name="conv2")(y, train=train)
        if self.size is not None:
            x = conv(self.features, 1, self.size, name="shortcut")(x, train=train)
        return record(self, x + y)


class ResidualDecoder(nn.Module):
    """Linear, then the stages of a residual encoder backwards, each upsampling in its last block.

    Attributes:
      depth: layers of the encoder.
      sizes: height and width of the images, after each halving, and of the last maps.
      channels: of the images.
      stem: "cifar" or "imagenet".
      dtype: of the computation.
      axis_name: devices over which batch statistics are averaged.
    """

    depth: int
    sizes: tuple[tuple[int, int], ...]
    channels: int
    stem: str
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, latent: Float[Array, "n k"], *, train: bool = False
    ) -> Float[Array, "n h w c"]:
        """Logits of pixels."""
        shared = {"dtype": self.dtype, "axis_name": self.axis_name}
        *targets, smallest = self.sizes
        width = WIDTHS[-1]
        x = nn.Dense(
            math.prod(smallest) * width, dtype=self.dtype, kernel_init=torch_uniform, name="first"
        )(latent)
        x = x.reshape(-1, *smallest, width)
        for stage in range(4, 0, -1):
            count = BLOCKS[self.depth][stage - 1]
            width = WIDTHS[max(stage - 2, 0)]
            # The first stage mirrors the pooling of the stem, if there is one.
            size = targets.pop() if stage > 1 or self.stem == "imagenet" else None
            for block in range(1, count):
                name = f"stage{stage}_block{block}"
                x = PreactivationBlock(x.shape[-1], **shared, name=name)(x, train=train)
            last = PreactivationBlock(width, size, **shared, name=f"stage{stage}_block{count}")
            x = last(x, train=train)
        kernel_size, size = (7, targets.pop()) if self.stem == "imagenet" else (3, None)
        out = PreactivationConv(
            self.channels, kernel_size, size, torch_uniform, **shared, name="last"
        )
        return out(x, train=train)


class ResNetAutoencoder(Autoencoder):
    """Residual encoder, flattened into a linear latent, and a mirrored pre-activation decoder.

    The decoder has as many blocks of two convolutions in each stage as the encoder; the last one of
    each doubles the side by transposed convolutions, 3 x 3 and, in the shortcut, 1 x 1. Sides of
    any length are given back exactly. 224 x 224 gives 7 x 7 x 512 before the latent. Output is a
    sigmoid. Convolutions begin as `he_normal`, the linear maps and the last convolution as
    `torch_uniform`. Representations: "encoder/stem", ..., "latent", "decoder/stage4_block1/conv1",
    ..., "reconstruction".

    Attributes:
      image_shape: (H, W, C).
      latent_size: entries of the latent, >= 1.
      depth: 18 or 34 layers.
      stem: "imagenet", as published, or "cifar" for small images.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code, guidance experiment: depth
    34, 224 x 224, latents from 128 to 4096.
    """

    latent_size: int = 512
    depth: int = 34
    stem: str = "imagenet"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_choice("depth", self.depth, [depth for depth in BLOCKS if depth not in BOTTLENECKS])
        check_choice("stem", self.stem, STEMS)
        super().__post_init__()

    def setup(self):
        """Both halves."""
        sizes = [self.image_shape[:2]]
        for _ in range(5 if self.stem == "imagenet" else 3):
            sizes.append(halved(sizes[-1]))
        shared = {"dtype": self.dtype, "axis_name": self.axis_name}
        self.encoder = ResidualEncoder(self.depth, self.stem, self.latent_size, **shared)
        self.decoder = ResidualDecoder(
            self.depth, tuple(sizes), self.image_shape[-1], self.stem, **shared
        )
