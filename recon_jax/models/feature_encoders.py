"""Encoders without a head: images to one row of features."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_choice, check_integer
from recon_jax.models.checks import (
    as_image_shape,
    as_images,
    require_shape,
)
from recon_jax.models.intermediates import record
from recon_jax.models.layers import ConvBlock, DenseBlock, at_least_float32, flatten
from recon_jax.models.resnet import BLOCKS, PUBLISHED_WIDTH, STEMS, residual_stages
from recon_jax.models.vit import ViTEncoder, check_attention, check_patch_size, patchify
from recon_jax.models.vit_classifier import POOLINGS

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
        check_integer("number of widths", len(self.widths), 1)
        for width in self.widths:
            check_integer("each of widths", width, 1)
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
        check_integer("width", self.width, 1)
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
        check_integer("width", self.width, 1)
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


class ViTFeatureEncoder(nn.Module):
    """Vision transformer without its head: the class token, or the mean over patches.

    Behind the encoder's last norm. Its parameters lie under "encoder". Representations:
    "encoder/tokens", "encoder/blocks/block1/attention", "encoder/blocks/block1", ..., "pooled".

    Attributes:
      image_shape: (H, W, C).
      patch_size: side in pixels; must divide H and W.
      width: of the tokens and features, a multiple of 4 and of `heads`.
      depth: blocks.
      heads: of each block.
      pooling: "class_token", or "mean" over the patches without it.
      learned_positions: see `ViTEncoder`; False for the fixed ones of masked autoencoders.
      dtype: of the computation; parameters are float32.

    Raises:
      ValueError: for an option out of range, or patches that do not divide the image.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929).
    """

    image_shape: Any
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    pooling: str = "class_token"
    learned_positions: bool = True
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        self.image_shape = as_image_shape(self.image_shape)
        check_patch_size(self.patch_size, self.image_shape)
        check_attention("encoder", self.width, self.depth, self.heads)
        check_choice("pooling", self.pooling, POOLINGS)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n d"]:
        """Features of images (N, H, W, C); nothing here differs in training."""
        del train
        images = require_shape("images", as_images(images), self.image_shape)
        encoder = ViTEncoder(
            tuple(side // self.patch_size for side in self.image_shape[:2]),
            self.width,
            self.depth,
            self.heads,
            self.dtype,
            learned_positions=self.learned_positions,
            name="encoder",
        )
        tokens = at_least_float32(encoder(patchify(images, self.patch_size)))
        pooled = tokens[:, 0] if self.pooling == "class_token" else tokens[:, 1:].mean(1)
        return record(self, pooled, "pooled")
