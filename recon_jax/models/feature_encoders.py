"""Encoders of contrastive learning: images to one row of features, without a head."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.models.checks import as_images, check_at_least, check_choice
from recon_jax.models.layers import ConvBlock, DenseBlock, flatten
from recon_jax.models.resnet import BLOCKS, PUBLISHED_WIDTH, STEMS, residual_stages

# Widths of the layers of `ConvEncoder` over that of the first.
CONV_WIDTHS = (1, 2, 4, 4)


class MLPEncoder(nn.Module):
    """Linear and ReLU for each width, the last one included, so features are not negative.

    With batch norm, which comes before the ReLU, the linear layers have no bias. Kernels begin as
    `torch_uniform`. Representations: "dense1", ..., the last of which are the features.

    Attributes:
      widths: of the layers, at least one; 8 x 8 digits take 64-256-128.
      use_norm: batch norm in every layer.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.
    """

    widths: Any = (256, 128)
    use_norm: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        self.widths = tuple(self.widths)
        check_at_least("number of widths", len(self.widths), 1)
        for width in self.widths:
            check_at_least("each of widths", width, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n d"]:
        """Features of images (N, H, W, C); batch statistics are used and updated if `train`."""
        block = partial(
            DenseBlock, use_norm=self.use_norm, dtype=self.dtype, axis_name=self.axis_name
        )
        x = flatten(as_images(images))
        for i, width in enumerate(self.widths, start=1):
            x = block(width, name=f"dense{i}")(x, train=train)
        return x


class ConvEncoder(nn.Module):
    """Four 3 x 3 convolutions of stride 2 with ReLU, and the mean over positions: 4 width features.

    Widths are width, 2, 4 and 4 times width; 28 pixels a side become 14, 7, 4, 2. A small network
    of this package, in no paper, for images of 28 to 32 pixels on a CPU. Kernels begin as
    `he_normal`. Representations: "conv1", ..., "conv4".

    Attributes:
      width: channels of the first convolution, >= 1.
      use_norm: batch norm after every convolution, in place of its bias.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.
    """

    width: int = 32
    use_norm: bool = True
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_at_least("width", self.width, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n d"]:
        """Features of images (N, H, W, C); batch statistics are used and updated if `train`."""
        block = partial(
            ConvBlock,
            stride=2,
            use_bias=not self.use_norm,
            use_norm=self.use_norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        x = as_images(images)
        for i, multiple in enumerate(CONV_WIDTHS, start=1):
            x = block(multiple * self.width, name=f"conv{i}")(x, train=train)
        return jnp.mean(x, axis=(1, 2))


class ResNetEncoder(nn.Module):
    """Residual network without its head: the mean of the last maps over all positions.

    As in `ResNet`; 18 and 34 layers give 8 width features, 50 layers 32 width. Representations:
    "stem", ("stem_pool",) "stage1_block1/conv1", ..., "stage4_block2".

    Attributes:
      depth: 18, 34 or 50.
      stem: "cifar" or "imagenet".
      width: channels of the stem and the first stage, >= 1.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: He et al. 2016 (arXiv 1512.03385); Chen et al. 2020 (arXiv 2002.05709) for CIFAR-10 with
    the 3 x 3 stem.
    """

    depth: int
    stem: str = "cifar"
    width: int = PUBLISHED_WIDTH
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_choice("depth", self.depth, BLOCKS)
        check_choice("stem", self.stem, STEMS)
        check_at_least("width", self.width, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n d"]:
        """Features of images (N, H, W, C); batch statistics are used and updated if `train`."""
        maps = residual_stages(
            as_images(images),
            depth=self.depth,
            stem=self.stem,
            width=self.width,
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        return jnp.mean(maps, axis=(1, 2))
