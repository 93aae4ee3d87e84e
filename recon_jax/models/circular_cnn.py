"""A convolutional network on a circle, in the mean-field scaling of the scale-detection tasks."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer, check_numbers
from recon_jax.models.intermediates import record
from recon_jax.models.layers import at_least_float32

unit_normal = nn.initializers.normal(1.0)


class CircularConv(nn.Module):
    """sqrt(F) ReLU(convolution(x, w / sqrt(F C)) + b) on a circle, with w and b from N(0, 1).

    Output i sees the F sites from s i - (F - 1) // 2 on: with odd F as many on either side, with
    even F one more on the right.

    Attributes:
      features: output channels.
      filter_size: F, in sites.
      stride: s; must divide the number of sites.
      dtype: of the computation.
    """

    features: int
    filter_size: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n l c"]) -> Float[Array, "n l2 k"]:
        """Channels at L / s sites."""
        size, length, channels = self.filter_size, x.shape[1], x.shape[2]
        kernel = self.param("kernel", unit_normal, (size, channels, self.features), jnp.float32)
        bias = self.param("bias", unit_normal, (self.features,), jnp.float32)
        before = (size - 1) // 2
        wrapped = jnp.concatenate(
            [x[:, length - before :], x, x[:, : size - 1 - before]], axis=1
        ).astype(self.dtype)
        # One matrix product: faster on the CPU than XLA's convolution, gradient included.
        seen = jnp.concatenate(
            [wrapped[:, k : k + length : self.stride] for k in range(size)], axis=-1
        )
        scaled = kernel.astype(self.dtype).reshape(size * channels, -1)
        y = seen @ scaled / math.sqrt(size * channels) + bias.astype(self.dtype)[None, None]
        return record(self, math.sqrt(size) * nn.relu(y))


class CircularCNN(nn.Module):
    """Convolutions on a circle, the mean over all sites, and a mean over channels as the output.

    f = alpha (b + (1 / H) sum_h beta_h y_h), y the mean over sites of the last layer. Everything
    begins as N(0, 1): this is the mean-field scaling, in which learning rates grow with H and
    features move. Representations: "conv1", "conv2", ..., "pooled", "logits".

    Attributes:
      width: H, channels of every layer, >= 1.
      depth: number of convolutions, >= 1.
      filter_size: F, in sites, >= 2.
      stride: s, >= 1; every layer's number of sites must divide by it.
      alpha: scale of the output, above 0.
      dtype: of the computation; parameters are float32.

    Raises:
      ValueError: for an option out of range or, on the call, images that do not fit: fewer sites
        than the filter covers, or not divisible by the stride.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), released code of the one-dimensional tasks.
    """

    width: int = 1000
    depth: int = 7
    filter_size: int = 2
    stride: int = 2
    alpha: float = 1.0
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        for name, low in (("width", 1), ("depth", 1), ("filter_size", 2), ("stride", 1)):
            check_integer(name, getattr(self, name), low)
        check_numbers("alpha", self.alpha, "(0, inf)")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike, *, train: bool = False) -> Float[Array, "n 1"]:
        """Outputs f (N, 1) of images (N, L, C) or (N, L, 1, C); `train` changes nothing."""
        x = _as_lines(images)
        for layer in range(1, self.depth + 1):
            self._check_length(x.shape[1], layer)
            conv = CircularConv(
                self.width, self.filter_size, self.stride, self.dtype, name=f"conv{layer}"
            )
            x = conv(x)
        pooled = record(self, jnp.mean(x, axis=1), "pooled")
        # A vector, so that weight decay of kernels spares it.
        beta = self.param("beta", unit_normal, (self.width,), jnp.float32)
        bias = self.param("bias", unit_normal, (1,), jnp.float32)
        mean = jnp.mean(at_least_float32(pooled) * beta[None], axis=1, keepdims=True)
        return record(self, self.alpha * (mean + bias[None]), "logits")

    def _check_length(self, length: int, layer: int) -> None:
        if length < self.filter_size:
            raise ValueError(
                f"layer {layer} sees {length} site(s), fewer than filter_size={self.filter_size}; "
                f"choose depth={layer - 1} or larger images"
            )
        if length % self.stride:
            raise ValueError(
                f"layer {layer} sees {length} sites, which stride={self.stride} does not divide; "
                f"images need a multiple of {self.stride}^{self.depth} sites"
            )


def _as_lines(images: ArrayLike) -> Array:
    """Images as (N, L, C)."""
    images = jnp.asarray(images)
    if images.ndim == 4 and images.shape[2] == 1:
        images = images[:, :, 0]
    if images.ndim != 3:
        raise ValueError(
            f"images must have shape (N, L, C) or (N, L, 1, C), a line of L sites, got "
            f"{images.shape}"
        )
    return images
