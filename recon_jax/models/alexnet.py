"""A small AlexNet for images of about 32 x 32."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer, check_numbers
from recon_jax.models.checks import as_images
from recon_jax.models.layers import (
    ConvBlock,
    DenseBlock,
    MaxPool,
    classify,
    flatten,
    pad_to_side,
    torch_uniform,
)


class AlexNet(nn.Module):
    """AlexNet with 3 x 3 kernels, for CIFAR.

    Convolutions with bias and ReLU: 64 of stride 2, pool; 192, pool; 384; 256; 256, pool; then
    dropout, Linear 4096, ReLU, dropout, Linear 4096, ReLU, Linear: W, 3 W, 6 W, 4 W, 4 W, 64 W and
    64 W channels for the width W = 64. No batch norm. Kernels begin as
    `torch_uniform`. Representations: "conv1", "pool1", ..., "dense1", "dense2", "logits".

    Attributes:
      num_classes: width of the logits, >= 1.
      dropout: share of entries dropped before the two wide layers, in [0, 1); training then needs
        `rngs={"dropout": key}`.
      pad_to: zero borders take smaller images to this side, as 28 to 32 for digits; 0 for none.
      width: W, channels of the first convolution, >= 1.
      dtype: of the computation; parameters are float32.

    Raises:
      ValueError: for an option out of range or, on the call, images smaller than 15 x 15.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code; after Krizhevsky et al. 2012.
    """

    num_classes: int
    dropout: float = 0.5
    pad_to: int = 0
    width: int = 64
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_integer("num_classes", self.num_classes, 1)
        check_numbers("dropout", self.dropout, "[0, 1)")
        check_integer("pad_to", self.pad_to, 0)
        check_integer("width", self.width, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C); dropout if `train`."""
        conv = partial(
            ConvBlock,
            use_bias=True,
            use_norm=False,
            kernel_init=torch_uniform,
            dtype=self.dtype,
        )
        x = pad_to_side(as_images(images), self.pad_to)
        x = as_images(x, 15, "resize the images, or build the model with pad_to=32")
        x = conv(self.width, stride=2, name="conv1")(x)
        x = MaxPool(name="pool1")(x)
        x = conv(3 * self.width, name="conv2")(x)
        x = MaxPool(name="pool2")(x)
        x = conv(6 * self.width, name="conv3")(x)
        x = conv(4 * self.width, name="conv4")(x)
        x = conv(4 * self.width, name="conv5")(x)
        x = flatten(MaxPool(name="pool3")(x))
        for name in ("dense1", "dense2"):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = DenseBlock(64 * self.width, use_norm=False, dtype=self.dtype, name=name)(x)
        return classify(self, x)
