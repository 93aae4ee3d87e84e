"""The nine-layer residual network of the subspace experiments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Num

from recon_jax.checks import check_integer
from recon_jax.models.checks import as_images
from recon_jax.models.intermediates import record
from recon_jax.models.layers import ConvBlock, MaxPool, classify, torch_uniform


class Residual(nn.Module):
    """x + f(x) with f two convolution blocks that keep the number of channels.

    Attributes:
      block: makes a convolution block from its width.
    """

    block: partial

    @nn.compact
    def __call__(self, x: Num[Array, "n h w c"], *, train: bool = False) -> Float[Array, "n h w c"]:
        """Maps of the shape they came in."""
        inner = self.block(x.shape[-1], name="conv1")(x, train=train)
        inner = self.block(x.shape[-1], name="conv2")(inner, train=train)
        return record(self, x + inner)


class ResNet9(nn.Module):
    """Eight 3 x 3 convolution blocks, three of the pairs around them residual, and a linear head.

    Blocks are convolution, batch norm, ReLU: 64; 128, pool; residual 128, 128; 256, pool; 512,
    pool; residual 512, 512; 1028, pool; residual 1028, 1028; maximum over all positions; Linear.
    1028 is as published. Convolutions have a bias, which batch norm makes idle, as in the released
    code. Kernels begin as `torch_uniform`. Representations: "conv1", "conv2", "pool1",
    "res1/conv1", "res1/conv2", "res1", ..., "pooled", "logits".

    Attributes:
      num_classes: width of the logits, >= 1.
      widths: channels of the five blocks that are not residual; narrower ones make it quick.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: if there is no class, a width is missing or, on the call, images are smaller than
        16 x 16.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code.
    """

    num_classes: int
    widths: Sequence[int] = (64, 128, 256, 512, 1028)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_integer("num_classes", self.num_classes, 1)
        self.widths = tuple(self.widths)
        if len(self.widths) != 5:
            raise ValueError(f"widths must be five numbers of channels, got {self.widths}")
        for width in self.widths:
            check_integer("every width", width, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C); batch statistics are used and updated if `train`."""
        block = partial(
            ConvBlock,
            use_bias=True,
            kernel_init=torch_uniform,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        x = as_images(images, min_side=16)
        x = block(self.widths[0], name="conv1")(x, train=train)
        x = block(self.widths[1], name="conv2")(x, train=train)
        x = MaxPool(name="pool1")(x)
        x = Residual(block, name="res1")(x, train=train)
        x = block(self.widths[2], name="conv3")(x, train=train)
        x = MaxPool(name="pool2")(x)
        x = block(self.widths[3], name="conv4")(x, train=train)
        x = MaxPool(name="pool3")(x)
        x = Residual(block, name="res2")(x, train=train)
        x = block(self.widths[4], name="conv5")(x, train=train)
        x = MaxPool(name="pool4")(x)
        x = Residual(block, name="res3")(x, train=train)
        pooled = record(self, jnp.max(x, axis=(1, 2)), "pooled")
        return classify(self, pooled)
