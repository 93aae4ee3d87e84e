"""LeNet-5."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer
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


class LeNet(nn.Module):
    """LeNet-5 in its modern form, with ReLU and maximum pooling.

    5 x 5 convolutions without padding: 6, pool; 16, pool; then Linear 120, 84, classes. 61,706
    parameters for one channel and 10 classes. Kernels begin as `torch_uniform`. Representations:
    "conv1", "pool1", "conv2", "pool2", "dense1", "dense2", "logits".

    Attributes:
      num_classes: width of the logits, >= 1.
      pad_to: zero borders take smaller images to this side, as 28 to 32 for digits.
      dtype: of the computation; parameters are float32.

    Raises:
      ValueError: for an option out of range or, on the call, images too small for the two
        convolutions and poolings (below 16 x 16, after padding).

    Source: LeCun et al. 1998, with the changes common since.
    """

    num_classes: int
    pad_to: int = 32
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_integer("num_classes", self.num_classes, 1)
        check_integer("pad_to", self.pad_to, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C); `train` changes nothing."""
        x = pad_to_side(as_images(images), self.pad_to)
        x = as_images(x, 16, "resize the images, or build the model with pad_to=32")
        conv = partial(
            ConvBlock,
            kernel_size=5,
            padding=0,
            use_bias=True,
            use_norm=False,
            kernel_init=torch_uniform,
            dtype=self.dtype,
        )
        x = conv(6, name="conv1")(x)
        x = MaxPool(name="pool1")(x)
        x = conv(16, name="conv2")(x)
        x = MaxPool(name="pool2")(x)
        x = flatten(x)
        for i, features in enumerate((120, 84), start=1):
            x = DenseBlock(features, use_norm=False, dtype=self.dtype, name=f"dense{i}")(x)
        return classify(self, x)
