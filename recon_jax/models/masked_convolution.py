"""Convolutions over the pixels that come before each pixel, row by row from the top left."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from recon_jax import parallel
from recon_jax.checks import check_choice, check_integer
from recon_jax.models.convolution import conv_general_dilated, shifts
from recon_jax.models.layers import torch_uniform

KINDS = ("A", "B")
LAYOUT = ("NHWC", "HWIO", "NHWC")
# Of images, not of features: there a matrix product takes 0.6 to 1.0 of a convolution's time on the
# CPU, and more than that with more channels.
FEW_CHANNELS = 4


def check_odd(name: str, value: object) -> None:
    """Raise ValueError unless `value` is an odd integer of at least 1."""
    check_integer(name, value, 1)
    if value % 2 == 0:
        raise ValueError(
            f"{name}={value} is even: the kernel needs a centre; choose {value - 1} or {value + 1}"
        )


def context_mask(kernel_size: int, kind: str) -> Bool[np.ndarray, "rows k"]:
    """Which pixels a masked kernel of k x k sees, in its k // 2 + 1 rows down to the pixel's own.

    All of the rows above, and of the own row, the last of the mask, what lies left of the centre;
    kind B also sees the centre.

    Args:
      kernel_size: k, odd.
      kind: "A" or "B".

    Returns:
      True where a pixel is seen: entry (r, c) is the pixel r - k // 2 rows and c - k // 2 columns
      away.

    Raises:
      ValueError: for an even size or another kind.

    Source: van den Oord et al. 2016 (arXiv 1601.06759), section 3.4.
    """
    check_odd("kernel_size", kernel_size)
    check_choice("kind", kind, KINDS)
    half = kernel_size // 2
    mask = np.ones((half + 1, kernel_size), bool)
    mask[-1, half + (kind == "B") :] = False
    return mask


def channel_mask(
    kernel_size: int, kind: str, inputs: int, outputs: int, image_channels: int
) -> Bool[np.ndarray, "rows k inputs outputs"]:
    """Which entries of a kernel live where the channels of a pixel come one after the other.

    Inputs and outputs are split, in order, into one group for each channel. All groups of earlier
    pixels are seen; of the pixel itself, group c of the outputs sees the groups before c (kind A),
    and also group c (kind B).

    Args:
      kernel_size: k, odd.
      kind: "A" or "B".
      inputs: features of the input, a multiple of `image_channels`.
      outputs: features of the output, a multiple of `image_channels`.
      image_channels: number of groups.

    Raises:
      ValueError: if the features cannot be split, and as `context_mask`.
    """
    check_integer("image_channels", image_channels, 1)
    for name, count in (("inputs", inputs), ("features", outputs)):
        if count % image_channels:
            raise ValueError(
                f"{name}={count} cannot be split into image_channels={image_channels} groups; "
                "choose a multiple"
            )
    mask = context_mask(kernel_size, "A")[:, :, None, None]
    mask = np.broadcast_to(mask, (*mask.shape[:2], inputs, outputs)).copy()
    source = np.arange(inputs)[:, None] * image_channels // inputs
    target = np.arange(outputs)[None, :] * image_channels // outputs
    mask[-1, kernel_size // 2] = source <= target if kind == "B" else source < target
    return mask


def _live_init(kernel_init: Initializer, mask: np.ndarray) -> Callable[..., Array]:
    """The initialiser with the fan-in of what is live of the kernel, for each output its own."""
    # An output without a live entry stays as it is.
    share = np.maximum(np.mean(mask, axis=(0, 1, 2), keepdims=True), 1 / mask.size)

    def init(key, shape, dtype):
        return kernel_init(key, shape, dtype) / jnp.asarray(np.sqrt(share), dtype)

    return init


def _product(x: Array, kernel: Array, padding) -> Array:
    seen = jnp.concatenate(shifts(x, kernel.shape[:2], (1, 1), padding), axis=-1)
    y = seen.reshape(-1, seen.shape[-1]) @ kernel.reshape(seen.shape[-1], -1)
    return y.reshape(*seen.shape[:3], -1)


def _convolve(x: Array, kernel: Array, padding) -> Array:
    if parallel.is_cpu() and x.shape[-1] <= FEW_CHANNELS:
        return _product(x, kernel, padding)
    return conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


class MaskedConv(nn.Module):
    """Convolution that sees the pixels before each pixel in raster order, zeros around the image.

    Kind A leaves the pixel itself out, as the first layer of an autoregressive model must; kind B
    sees it. The rows below the pixel are not stored: the kernel is (k // 2 + 1, k, inputs,
    features), half the work of a masked k x k kernel; in its last row dead entries are multiplied
    by 0.

    Attributes:
      features: output channels.
      kernel_size: k, odd.
      kind: "A" or "B".
      image_channels: None, or the number of channels of a pixel that come one after the other:
        see `channel_mask`.
      use_bias: add a bias a channel, zero at first.
      kernel_init: an initialiser that looks at the fan-in, which is that of the live entries.
      dtype: of the computation; parameters are float32.

    Raises:
      ValueError: for an option out of range, or a kernel that sees nothing.

    Source: van den Oord et al. 2016 (arXiv 1601.06759), section 3.4.
    """

    features: int
    kernel_size: int
    kind: str
    image_channels: int | None = None
    use_bias: bool = True
    kernel_init: Initializer = torch_uniform
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_integer("features", self.features, 1)
        context_mask(self.kernel_size, self.kind)
        if self.kernel_size == 1 and self.kind == "A" and (self.image_channels or 1) == 1:
            raise ValueError(
                "kernel_size=1 of kind 'A' sees no pixel and gives zero; leave the layer out, or "
                "choose kernel_size >= 3"
            )
        if self.image_channels is not None:
            channel_mask(1, self.kind, self.image_channels, self.features, self.image_channels)
        super().__post_init__()

    def _mask(self, inputs: int) -> np.ndarray:
        if self.image_channels is None:
            return context_mask(self.kernel_size, self.kind)[:, :, None, None]
        shape = (inputs, self.features, self.image_channels)
        return channel_mask(self.kernel_size, self.kind, *shape)

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], *, windows: bool = False
    ) -> Float[Array, "n h2 w2 k"]:
        """Maps of `features` channels, of the size of x.

        Args:
          x: maps (N, H, W, C); with `windows`, what the kernel sees of one pixel each, (N, k // 2 +
            1, k, C), whose values at places that are not live do not matter as long as they are
            finite.
          windows: give one output pixel for each window, (N, 1, 1, features).
        """
        half, inputs = self.kernel_size // 2, x.shape[-1]
        mask = self._mask(inputs)
        shape = (half + 1, self.kernel_size, inputs, self.features)
        kernel = self.param("kernel", _live_init(self.kernel_init, mask), shape, jnp.float32)
        kernel = jnp.asarray(kernel * mask.astype(np.float32), self.dtype)
        x = x.astype(self.dtype)
        if windows:
            y = _product(x, kernel, [(0, 0)] * 2)
        else:
            y = _convolve(x, kernel, [(half, 0), (half, half)])
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            y = y + jnp.asarray(bias, self.dtype).reshape(1, 1, 1, -1)
        return y
