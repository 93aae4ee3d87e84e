"""VGG networks, for small images and in their ImageNet form."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Num

from recon_jax.checks import check_choice, check_integer, check_numbers
from recon_jax.models.checks import as_images
from recon_jax.models.intermediates import record
from recon_jax.models.layers import (
    ConvBlock,
    DenseBlock,
    MaxPool,
    adaptive_avg_pool,
    classify,
    flatten,
    pad_to_side,
)

# Convolutions in each of the five blocks, by number of layers with weights.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Channels of the five blocks, over those of the first.
FACTORS = (1, 2, 4, 8, 8)
HEADS = ("linear", "imagenet")

dense_normal = nn.initializers.normal(0.01)


class VGGBlock(nn.Module):
    """Some 3 x 3 convolution blocks of one width, then 2 x 2 maximum pooling.

    Attributes:
      convolutions: how many.
      block: makes a convolution block.
    """

    convolutions: int
    block: partial

    @nn.compact
    def __call__(
        self, x: Num[Array, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of half the side."""
        for i in range(1, self.convolutions + 1):
            x = self.block(name=f"conv{i}")(x, train=train)
        return MaxPool(name="pool")(x)


class VGG(nn.Module):
    """VGG of 11, 13, 16 or 19 layers with weights, with or without batch norm.

    Head "linear", the usual one for CIFAR: mean over all positions, Linear. Head "imagenet": mean
    over 7 x 7 windows, Linear 4096, ReLU, dropout, Linear 4096, ReLU, dropout, Linear, with the
    published parameter counts (132,863,336 for VGG11 at 1,000 classes). Convolutions have a bias,
    idle before batch norm, as published. Kernels begin as `he_normal`, those of the imagenet head
    as N(0, 0.01^2), as in torchvision; the linear head as `torch_uniform`. Representations:
    "block1/conv1", "block1/pool", ..., "pooled", ("dense1", "dense2",) "logits".

    Attributes:
      depth: 11, 13, 16 or 19.
      num_classes: width of the logits, >= 1.
      use_norm: batch norm after each convolution.
      head: "linear" or "imagenet".
      dropout: share of entries dropped in the imagenet head, in [0, 1); training then needs
        `rngs={"dropout": key}`.
      pad_to: zero borders take smaller images to this side, as 28 to 32 for digits; 0 for none.
      width: channels of the first block, >= 1; the next have 2, 4, 8 and 8 times as many.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range or, on the call, images smaller than 32 x 32.

    Source: Simonyan & Zisserman 2015 (arXiv 1409.1556), configurations A, B, D and E.
    """

    depth: int
    num_classes: int
    use_norm: bool = False
    head: str = "linear"
    dropout: float = 0.5
    pad_to: int = 0
    width: int = 64
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_choice("depth", self.depth, CONVOLUTIONS)
        check_integer("num_classes", self.num_classes, 1)
        check_choice("head", self.head, HEADS)
        check_numbers("dropout", self.dropout, "[0, 1)")
        check_integer("pad_to", self.pad_to, 0)
        check_integer("width", self.width, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C); dropout, and batch statistics updated, if `train`."""
        x = pad_to_side(as_images(images), self.pad_to)
        x = as_images(x, 32, "resize the images, or build the model with pad_to=32")
        for i, (count, factor) in enumerate(zip(CONVOLUTIONS[self.depth], FACTORS, strict=True), 1):
            block = partial(
                ConvBlock,
                factor * self.width,
                use_bias=True,
                use_norm=self.use_norm,
                dtype=self.dtype,
                axis_name=self.axis_name,
            )
            x = VGGBlock(count, block, name=f"block{i}")(x, train=train)
        if self.head == "linear":
            pooled = record(self, jnp.mean(x, axis=(1, 2)), "pooled")
            return classify(self, pooled)
        x = flatten(record(self, adaptive_avg_pool(x, 7), "pooled"))
        for name in ("dense1", "dense2"):
            x = DenseBlock(
                4096, use_norm=False, kernel_init=dense_normal, dtype=self.dtype, name=name
            )(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return classify(self, x, dense_normal)
