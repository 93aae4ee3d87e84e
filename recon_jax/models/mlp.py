"""Multilayer perceptrons, with widths that fall or one width for all hidden layers."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer
from recon_jax.models.checks import as_images
from recon_jax.models.layers import DenseBlock, classify, flatten, linear_widths


class MLP(nn.Module):
    """Perceptron whose widths fall in equal steps from the pixels to the classes.

    Widths are linspace(H W C, num_classes, depth) rounded down: 3072-2051-1030-10 for CIFAR-10.
    Hidden layers are Linear without bias, batch norm, ReLU, or Linear with bias and ReLU; the head
    is Linear. Kernels begin as `torch_uniform`. Representations: "hidden1", ..., "logits".

    Attributes:
      num_classes: width of the logits, >= 1.
      depth: number of widths, input and output included, >= 2; 2 is a linear classifier.
      width: of all hidden layers; 0 for widths that fall in equal steps.
      use_norm: batch norm in hidden layers.
      dtype: of the computation; parameters are float32.
      axis_name: devices over which batch statistics are averaged.

    Raises:
      ValueError: for an option out of range.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code, depth 4.
    """

    num_classes: int
    depth: int = 4
    width: int = 0
    use_norm: bool = True
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_integer("num_classes", self.num_classes, 1)
        check_integer("depth", self.depth, 2)
        check_integer("width", self.width, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n classes"]:
        """Logits of images (N, H, W, C); batch statistics are used and updated if `train`."""
        images = as_images(images)
        block = partial(
            DenseBlock, use_norm=self.use_norm, dtype=self.dtype, axis_name=self.axis_name
        )
        widths = linear_widths(math.prod(images.shape[1:]), self.num_classes, self.depth)
        x = flatten(images)
        for i, width in enumerate(widths[1:-1], start=1):
            x = block(self.width or width, name=f"hidden{i}")(x, train=train)
        return classify(self, x)
